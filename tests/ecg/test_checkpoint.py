"""What is promised of a training run that goes on from its state: it ends as if uninterrupted."""

import copy
import importlib.util
import json

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from ecg import checkpoint
from ecg.checkpoint import Checkpoint

_, keras = script.load_tensorflow()
KEY = {"seed": 1, "recipe": {"epochs": 4, "lstm_memory": 1.0}, "records": [123]}
N_EPOCHS = 4


class Interrupted(Exception):  # noqa: N818 - it is not an error
    pass


def train(folder, resume=False, stop_after=None, key=KEY):
    """Train a small model with dropout and lowered learning rates, as a run does."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 2))
    hidden = keras.layers.Dense(4, "tanh")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dropout(0.3)(hidden)))
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 6, 2)).astype(np.float32)
    y = rng.normal(size=(24, 1)).astype(np.float32)

    state = Checkpoint(folder, key, resume)
    if not state.done:
        state.start_afresh()
    history = [*state.history]
    counting = [keras.callbacks.EarlyStopping("val_loss", patience=9, restore_best_weights=True),
                keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=9, min_lr=1e-6)]

    def note(epoch, logs):
        history.append(dict(logs))

    def interrupt(epoch, logs):
        if epoch + 1 == stop_after:
            raise Interrupted

    callbacks = [*counting, keras.callbacks.LambdaCallback(on_epoch_end=note),
                 state.callback(keras, counting, history),
                 keras.callbacks.LambdaCallback(on_epoch_end=interrupt)]
    model.fit(x, y, batch_size=24, initial_epoch=state.done, epochs=N_EPOCHS, verbose=0,
              callbacks=callbacks, shuffle=False, validation_data=(x[:8], y[:8] + 1))
    return model, history, counting


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights, history and callbacks of a run that is not interrupted."""
    return train(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The folder of a run that was interrupted after two epochs; not to be changed."""
    folder = tmp_path_factory.mktemp("interrupted") / "progress"
    with pytest.raises(Interrupted):
        train(folder, stop_after=2)
    return folder


@pytest.fixture
def state_file(interrupted, tmp_path):
    """A copy of the state that a test may change."""
    (tmp_path / checkpoint.STATE).write_bytes((interrupted / checkpoint.STATE).read_bytes())
    return tmp_path / checkpoint.STATE


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_run_ends_with_the_same_weights_and_history(stop_after, whole, tmp_path, capsys):
    with pytest.raises(Interrupted):
        train(tmp_path / "p", stop_after=stop_after)
    model, history, counting = train(tmp_path / "p", resume=True)
    assert f"going on after epoch {stop_after}" in capsys.readouterr().out
    expected, its_history, its_counting = whole
    for one, other in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert history == its_history
    assert len({logs["learning_rate"] for logs in history}) > 1    # the plateau was counted
    for one, other in zip(counting, its_counting, strict=True):
        for name in checkpoint.COUNTERS:
            assert vars(one).get(name) == vars(other).get(name)


def test_the_log_is_a_table_with_a_row_per_epoch(interrupted):
    log = pd.read_csv(interrupted / checkpoint.LOG)
    assert len(log) == 2
    assert {"loss", "val_loss"} <= set(log.columns)


def test_a_run_that_was_stopped_early_has_done_all_epochs(tmp_path):
    state = Checkpoint(tmp_path, KEY, resume=False)
    callback = state.callback(keras, [], [{"loss": 1.0}])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callback.set_model(model)
    callback.set_params({"epochs": 9})
    for stopped, done in ((False, 1), (True, 9)):
        model.stop_training = stopped
        callback.on_epoch_end(0)
        assert Checkpoint(tmp_path, KEY, resume=True).done == done


def test_nothing_that_was_given_is_changed(interrupted):
    key, counting, history = copy.deepcopy(KEY), [], []
    state = Checkpoint(interrupted, key, resume=True)
    state.callback(keras, counting, history)
    assert key == KEY
    assert counting == history == []
    assert state.history is not Checkpoint(interrupted, key, resume=True).history


def test_without_a_state_resuming_starts_at_the_beginning_and_says_so(tmp_path, capsys):
    state = Checkpoint(tmp_path / "none", KEY, resume=True)
    assert (state.done, state.history) == (0, [])
    assert "nothing to go on from" in capsys.readouterr().out


def test_only_starting_afresh_empties_the_folder(state_file):
    assert Checkpoint(state_file.parent, KEY, resume=False).done == 0
    assert state_file.exists()
    Checkpoint(state_file.parent, KEY, resume=False).start_afresh()
    assert not state_file.parent.exists()
    Checkpoint(state_file.parent, KEY, resume=False).start_afresh()    # there is no folder


@pytest.mark.parametrize(("changes", "message"), [
    ({"seed": 2}, "seed 1, not 2"), ({"records": [5]}, "other records"),
    ({"recipe": {"epochs": 5, "lstm_memory": 1.0}}, "epochs 4, not 5"),
    ({"new": 3}, "new None, not 3")])
def test_a_state_of_another_run_is_refused_with_what_differs(changes, message, interrupted):
    with pytest.raises(ValueError, match=f"the interrupted run had {message}: give the same"):
        Checkpoint(interrupted, KEY | changes, resume=True)


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: content[:-99], lambda content: b"PK\x03\x04 text",
    lambda content: content[:2000] + bytes(99) + content[2099:]],
    ids=["empty", "cut short", "text", "zeros inside"])
def test_a_damaged_state_is_refused(damage, state_file):
    state_file.write_bytes(damage(state_file.read_bytes()))
    with pytest.raises(ValueError, match=r"is damaged .*start without --resume"):
        Checkpoint(state_file.parent, KEY, resume=True)


def test_a_state_whose_arrays_are_not_those_that_were_saved_is_refused(state_file):
    with np.load(state_file) as stored:
        arrays = dict(stored)
    assert json.loads(arrays["notes"].item())["key"] == KEY
    del arrays["variable 0"]
    np.savez(state_file, **arrays)
    with pytest.raises(ValueError, match="is damaged"):
        Checkpoint(state_file.parent, KEY, resume=True)


def test_without_tensorboard_an_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        checkpoint.tensorboard_callback(keras, tmp_path)

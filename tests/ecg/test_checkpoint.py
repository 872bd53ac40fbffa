"""What is promised of a training run that goes on from its state: it ends as if uninterrupted."""

import json
import os
import pickle

import numpy as np
import pytest

import too_feature as script
from ecg import checkpoint
from ecg.checkpoint import Checkpoint
from ecg.errors import UserError

_, keras = script.load_tensorflow()
KEY = {"seed": 1, "records": [123]}
N_EPOCHS = 4


class Interrupted(Exception):  # noqa: N818 - it is not an error
    pass


def train(folder, resume=False, stop_after=None):
    """Train a small model with dropout and lowered learning rates, as a run does."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 2))
    hidden = keras.layers.Dense(4, "tanh")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dropout(0.3)(hidden)))
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 6, 2)).astype(np.float32)
    y = rng.normal(size=(24, 1)).astype(np.float32)

    state = Checkpoint(folder, KEY, resume)
    history = [*state.history]
    counting = [keras.callbacks.EarlyStopping("val_loss", patience=9, restore_best_weights=True),
                keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=9, min_lr=1e-6)]

    def interrupt(epoch, logs):
        if epoch + 1 == stop_after:
            raise Interrupted

    at_end = keras.callbacks.LambdaCallback
    callbacks = [*counting, at_end(on_epoch_end=lambda _, logs: history.append(dict(logs))),
                 state.callback(keras, counting, history), at_end(on_epoch_end=interrupt)]
    model.fit(x, y, batch_size=24, initial_epoch=state.done, epochs=N_EPOCHS, verbose=0,
              callbacks=callbacks, shuffle=False, validation_data=(x[:8], y[:8] + 1))
    return model, history, counting


@pytest.fixture
def state(tmp_path):
    """The state of a run that was interrupted after two epochs."""
    with pytest.raises(Interrupted):
        train(tmp_path, stop_after=2)
    return tmp_path / "state.npz"


def test_a_resumed_run_ends_with_the_same_weights_history_and_counters(state, tmp_path, capsys):
    model, history, counting = train(tmp_path, resume=True)
    assert "going on after epoch 2" in capsys.readouterr().out
    expected, its_history, its_counting = train(tmp_path / "whole")
    for one, other in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert history == its_history
    assert len({logs["learning_rate"] for logs in history}) > 1    # the plateau was counted
    for one, other in zip(counting, its_counting, strict=True):
        for name in checkpoint.COUNTERS:
            assert vars(one).get(name) == vars(other).get(name)


def test_a_run_that_was_stopped_early_has_done_all_epochs(tmp_path):
    callback = Checkpoint(tmp_path, KEY, resume=False).callback(keras, [], [{"loss": 1.0}])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callback.set_model(model)
    callback.set_params({"epochs": 9})
    for stopped, done in ((False, 1), (True, 9)):
        model.stop_training = stopped
        callback.on_epoch_end(0)
        assert Checkpoint(tmp_path, KEY, resume=True).done == done


def test_a_state_of_another_run_is_refused_with_what_differs(state):
    with pytest.raises(UserError, match="the interrupted run had other seed, new: give the same"):
        Checkpoint(state.parent, KEY | {"seed": 2, "new": 3}, resume=True)


class Dangerous:
    """Makes a folder when it is unpickled."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (self.proof,)


def damage(state, how, proof):
    """Damage a state."""
    content = state.read_bytes()
    dangerous = np.array([Dangerous(str(proof))], object)
    if how == "cut short":
        state.write_bytes(content[:-99])
    elif how == "zeros inside":
        state.write_bytes(content[:2000] + bytes(99) + content[2099:])
    elif how == "a pickle":
        state.write_bytes(pickle.dumps(dangerous))
    else:
        np.savez(state, arr_0=dangerous, notes=json.dumps({"key": KEY}))


@pytest.mark.parametrize("how", ["cut short", "zeros inside", "a pickle", "an array of objects"])
def test_a_damaged_state_is_refused_and_runs_nothing(how, state, tmp_path):
    damage(state, how, tmp_path / "proof")
    with pytest.raises(UserError, match=r"is damaged, .*start without --resume"):
        Checkpoint(state.parent, KEY, resume=True)
    assert not (tmp_path / "proof").exists()

"""The state of a training run: of a run stopped early, of another run, and damaged.

That a resumed run ends as if uninterrupted is tested in `tests/pipeline/test_resume.py`.
"""

import json
import pickle

import numpy as np
import pytest

import too_feature as script
from ecg.checkpoint import Checkpoint
from ecg.errors import UserError
from tests.support.stores import Dangerous

_, keras = script.load_tensorflow()
KEY = {"seed": 1, "records": [123]}


@pytest.fixture
def state(tmp_path):
    """The state of a run that was stopped early, after an epoch of nine."""
    callback = Checkpoint(tmp_path, KEY, resume=False).callback(keras, [], [{"loss": 1.0}])
    model = keras.Sequential([keras.Input((50,)), keras.layers.Dense(50)])
    model.compile("sgd", "mse")
    model.stop_training = True
    callback.set_model(model)
    callback.set_params({"epochs": 9})
    callback.on_epoch_end(0)
    return tmp_path / "state.npz"


def test_a_run_that_was_stopped_early_has_done_all_epochs(state):
    assert Checkpoint(state.parent, KEY, resume=True).done == 9


def test_a_state_of_another_run_is_refused_with_what_differs(state):
    with pytest.raises(UserError, match="the interrupted run had other seed, new: give the same"):
        Checkpoint(state.parent, KEY | {"seed": 2, "new": 3}, resume=True)


def damage(state, how, proof):
    """Damage a state."""
    content = state.read_bytes()
    dangerous = np.array([Dangerous(proof)], object)
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

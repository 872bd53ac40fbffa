"""The state of a training run: of a run stopped early, and of another run.

That a resumed run ends as if uninterrupted is tested in `tests/pipeline/test_resume.py`.
"""

import pytest

import too_feature as script
from ecg.checkpoint import Checkpoint
from ecg.errors import UserError

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

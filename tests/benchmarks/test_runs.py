"""Trainings are kept as they end, and an interrupted benchmark continues; nothing trains here."""

import functools
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks.folds import SEED, Fold
from benchmarks.runs import Runner, Wanted
from benchmarks.systems import Fitted, System, with_limits
from too_feature import Records

AS_IT_IS = ({},)
TARGETS = np.array([0, 1, 0, 1, 0, 1])
FOLDS = [Fold(np.array([0, 1]), np.array([2, 3]), np.array([4, 5])),
         Fold(np.array([4, 5]), np.array([2, 3]), np.array([0, 1]))]


@pytest.fixture(autouse=True)
def _nothing_of_keras_to_clear(monkeypatch):
    """As before any training by Keras: to clear up, it would look through all that there is."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)


class Calls(list):
    """Trainings that took place, of which `n` are let through: then it is as if by Ctrl-C."""

    def __init__(self, n=99):
        super().__init__()
        self.n = n

    def __repr__(self):
        return "Calls"    # part of keys: always the same

    def append(self, call):
        """Note a call."""
        if len(self) == self.n:
            raise KeyboardInterrupt
        super().append(call)


def fit_by_hand(task, calls, recipe=None):
    """Stand in for a training: right with `task.change["sure"]`, on validation and test."""
    calls.append((task.seed, task.fold.test.tolist(), task.change))
    right = np.eye(2)[TARGETS]
    sure = task.change.get("sure", 1.0)
    probabilities = sure * right + (1 - sure) * (1 - right)
    return Fitted(lambda numbers: probabilities[numbers], 7)


def measure(calls, folder, candidates=AS_IT_IS, records="", recipe=None, code="as it is"):
    """Measure a system, which notes its trainings in `calls`, on both folds."""
    options = SimpleNamespace(seeds=2, baseline_seeds=1, jobs=1)
    pool = SimpleNamespace(targets=TARGETS, digest=lambda fold: f"{records} {fold}")
    fit = functools.partial(fit_by_hand, calls=calls, recipe=recipe)
    wanted = Wanted(System("by hand", fit, lambda pool: None, candidates, is_ours=True), FOLDS)
    runner = Runner(pool, folder, options)
    runner.made_by["code"] = code
    runner.train([wanted])
    return runner.result(wanted)


# ---------------------------------------------------------------------------------------- results
def test_the_candidate_that_is_best_on_validation_patients_is_used(tmp_path):
    calls = Calls()
    sure = 0.1, 0.9, 0.2
    result = measure(calls, tmp_path, candidates=tuple({"sure": each} for each in sure))
    assert result.chosen == {"sure": 0.9}
    trials = [change["sure"] for _, _, change in calls[:3]]
    assert sorted(trials) == [0.1, 0.2, 0.9]
    assert all((seed, test) == (SEED, [4, 5]) for seed, test, _ in calls[:3])
    assert len(calls) == 3 + 3    # the chosen trial is the first training, and not repeated


def test_limits_of_the_rate_step_share_one_training_and_decide_behind_it(tmp_path):
    features = np.full((6, 8), 80.0)
    training = Records(pd.DataFrame({"waveform_path": list("abcdef")}), None, features,
                       np.array([0, 1, 2, 0, 1, 2]))
    pool = SimpleNamespace(
        targets=np.ones(6, int), digest=str, rates=features[:, :1], drawn=lambda *_: (training, 0),
        classes=["Bradycardia", "Normal", "Tachycardia"])
    calls = Calls()

    def fit(task):
        calls.append((task.seed, None, None))
        return Fitted(lambda numbers: np.tile([0.6, 0.3, 0.1], (len(numbers), 1)), 0)

    runner = Runner(pool, tmp_path, SimpleNamespace(seeds=1, baseline_seeds=1, jobs=1))
    systems = with_limits({"it": System("it", functools.partial(fit), lambda pool: None)})
    wanted = {name: Wanted(each, FOLDS[:1]) for name, each in systems.items()}
    runner.train(list(wanted.values()))
    predicted = {name: runner.result(each).predicted.tolist() for name, each in wanted.items()}
    assert predicted == {"it": [[1, 1]], "it-fixed": [[1, 1]], "it-core": [[0, 0]]}
    assert len(calls) == 1


# ---------------------------------------------------------------------------------------- stopped
def test_after_a_stop_only_what_was_not_finished_is_trained(tmp_path):
    whole = measure(Calls(), tmp_path / "whole")
    first = Calls(3)
    with pytest.raises(KeyboardInterrupt):
        measure(first, tmp_path)

    calls = Calls()
    result = measure(calls, tmp_path)
    assert len(calls) == 1
    assert len({(seed, *test) for seed, test, _ in [*first, *calls]}) == 4
    np.testing.assert_array_equal(result.probabilities, whole.probabilities)
    measure(calls, tmp_path)
    assert len(calls) == 1


@pytest.mark.parametrize("change", [
    {"records": "others"}, {"recipe": "another"}, {"code": "edited"},
    {"candidates": ({"sure": 0.7},)}])
def test_other_records_recipe_settings_or_code_are_trained_again(tmp_path, change):
    calls = Calls()
    measure(calls, tmp_path)
    measure(calls, tmp_path, **change)
    assert len(calls) == 4 + 4
    measure(calls, tmp_path)    # the results of before are still there
    assert len(calls) == 8

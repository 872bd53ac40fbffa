"""Trainings are kept as they end, and an interrupted benchmark continues; nothing trains here."""

import functools
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.common import Store
from benchmarks.folds import SEED, Fold
from benchmarks.runs import Runner, ensemble
from benchmarks.systems import Fitted, System
from ecg.errors import UserError

AS_IT_IS = ({},)
ABOUT = {"files": ["abc"], "folds": 2}
TARGETS = np.array([0, 1, 0, 1, 0, 1])
FOLDS = [Fold(np.array([0, 1]), np.array([2, 3]), np.array([4, 5])),
         Fold(np.array([4, 5]), np.array([2, 3]), np.array([0, 1]))]


@pytest.fixture(autouse=True)
def _nothing_of_keras_to_clear(monkeypatch):
    """As before any training by Keras: to clear up, it would look through all that there is."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)


def fit_by_hand(task, calls):
    """Stand in for a training: right with `task.change["sure"]`, on validation and test."""
    calls.append((task.seed, task.fold.test.tolist(), task.change, task.epochs))
    right = np.eye(2)[TARGETS]
    sure = task.change.get("sure", 1.0)
    probabilities = sure * right + (1 - sure) * (1 - right)
    return Fitted(lambda numbers: probabilities[numbers], 7, temperature=2.0)


class Calls(list):
    """Trainings that were asked for; its text is always the same, as it is part of keys."""

    def __repr__(self):
        return "Calls"


class StopAfter(Calls):
    """Calls of which only `n` are let through: then it is as if Ctrl-C was pressed."""

    def __init__(self, n):
        super().__init__()
        self.n = n

    def append(self, call):
        """Note a call."""
        if len(self) == self.n:
            raise KeyboardInterrupt
        super().append(call)


def system_of(calls, candidates=AS_IT_IS, fit=fit_by_hand, **options):
    """Return a system that notes its trainings in `calls`."""
    return System("by hand", functools.partial(fit, calls=calls), candidates, **options)


def runner_of(path=None, about=None, seeds=2, quick=False):
    """Return a runner whose results are kept in `path`."""
    pool = SimpleNamespace(targets=TARGETS, seconds=0.0)
    return Runner(pool, Store(path, about or ABOUT), seeds, quick)


def measure(runner, system):
    """Measure a system on both folds."""
    return runner.measure("hand", system, "two folds", FOLDS)


# ---------------------------------------------------------------------------------------- results
def test_a_system_is_trained_on_each_seed_and_fold():
    calls = Calls()
    result = measure(runner_of(), system_of(calls))
    assert [(seed, test) for seed, test, *_ in calls] == [
        (SEED, [4, 5]), (SEED, [0, 1]), (SEED + 1, [4, 5]), (SEED + 1, [0, 1])]
    assert result.title == "by hand"
    assert result.parameters == 7
    assert result.probabilities.shape == (2, 4, 2)    # seeds, test records of both folds, classes
    assert result.predicted.tolist() == [[0, 1, 0, 1]] * 2


def test_probabilities_before_temperature_scaling_are_given_back():
    result = measure(runner_of(), system_of(Calls(), ({"sure": 0.8},)))
    # Logits divided by 2 gave odds of 4; before, the odds were their square
    assert result.probabilities[0, 0] == pytest.approx([0.8, 0.2])
    assert result.before[0, 0] == pytest.approx([16 / 17, 1 / 17])


def test_the_candidate_that_is_best_on_validation_patients_is_used():
    calls = Calls()
    system = system_of(calls, ({"sure": 0.1}, {"sure": 0.9}, {"sure": 0.2}, {"sure": 1.0}))
    result = measure(runner_of(), system)
    assert result.chosen == {"sure": 0.9}    # the fourth is one too many
    trials = [change["sure"] for seed, test, change, _ in calls[:3]]
    assert trials == [0.1, 0.9, 0.2]
    assert all((seed, test) == (SEED, [4, 5]) for seed, test, *_ in calls[:3])
    assert len(calls) == 3 + 3    # the chosen trial is the first training, and not repeated


def test_quick_takes_the_first_candidate_and_few_epochs():
    calls = Calls()
    system = system_of(calls, ({"sure": 0.1}, {"sure": 0.9}), quick_epochs=8)
    result = measure(runner_of(quick=True, seeds=1), system)
    assert result.chosen == {"sure": 0.1}
    assert [(change, epochs) for *_, change, epochs in calls] == [({"sure": 0.1}, 8)] * 2
    measure(runner_of(seeds=1), system)
    assert calls[-1][-1] is None    # the system's own number


def test_an_ensemble_averages_the_seeds():
    result = measure(runner_of(), system_of(Calls(), ({"sure": 0.8},)))
    probabilities = np.stack([result.probabilities[0], 1 - result.probabilities[0]])
    together = ensemble(result._replace(probabilities=probabilities, seconds=3.0))
    assert together.title == "by hand, ensemble of 2"
    assert together.probabilities == pytest.approx(np.full((1, 4, 2), 0.5))
    assert (together.seconds, together.parameters) == (6.0, 14)


# ----------------------------------------------------------------------------------------- stopped
def test_after_a_stop_only_what_was_not_finished_is_trained(tmp_path):
    path = tmp_path / "results.json"
    whole = measure(runner_of(), system_of(Calls()))
    with pytest.raises(KeyboardInterrupt):
        measure(runner_of(path), system_of(StopAfter(3)))
    assert len(json.loads(path.read_text())["runs"]) == 3

    calls = Calls()
    result = measure(runner_of(path), system_of(calls))
    assert [(seed, test) for seed, test, *_ in calls] == [(SEED + 1, [0, 1])]
    np.testing.assert_array_equal(result.probabilities, whole.probabilities)
    np.testing.assert_array_equal(result.before, whole.before)

    calls.clear()
    measure(runner_of(path), system_of(calls))
    assert not calls


def fit_in_another_way(task, calls):
    """Stand in for a system whose code was changed."""
    return fit_by_hand(task, calls)


def test_a_change_of_one_system_trains_that_one_again(tmp_path):
    path = tmp_path / "results.json"
    calls = Calls()
    measure(runner_of(path), system_of(calls))
    assert len(calls) == 4
    measure(runner_of(path), system_of(calls, fit=fit_in_another_way))
    assert len(calls) == 8
    measure(runner_of(path), system_of(calls))    # the results of the first are still there
    assert len(calls) == 8


def fit_of_recipe(task, recipe, calls):
    """Stand in for a system that is made by a recipe."""
    return fit_by_hand(task, calls)


def test_a_change_of_a_recipe_trains_again(tmp_path):
    calls = Calls()
    for epochs in (3, 3, 4):
        fit = functools.partial(fit_of_recipe, recipe={"epochs": epochs}, calls=calls)
        measure(runner_of(tmp_path / "results.json"), System("by hand", fit))
    assert len(calls) == 8


# ------------------------------------------------------------------------------------------- store
def test_a_stored_result_is_not_computed_again(tmp_path):
    path = tmp_path / "results.json"
    assert Store(path, ABOUT).get("a", lambda: [1, 2]) == [1, 2]
    assert Store(path, ABOUT).get("a", lambda: pytest.fail("computed again")) == [1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]    # no scratch file


def test_each_result_is_saved_before_the_next_is_computed(tmp_path):
    path = tmp_path / "results.json"
    store = Store(path, ABOUT)
    store.get("a", lambda: 1)
    store.get("b", lambda: len(json.loads(path.read_text())["runs"]))
    assert store.get("b", None) == 1


@pytest.mark.parametrize("text", [
    json.dumps({"about": {"files": ["xyz"]}, "runs": {}}), json.dumps([1]), '{"about": ', ""])
def test_results_of_something_else_are_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"--json .*results.json: "):
        Store(path, ABOUT)
    assert path.read_text() == text


def test_without_a_file_results_stay_in_memory():
    store = Store(None, ABOUT)
    assert store.get("a", lambda: 1) == store.get("a", lambda: 2) == 1

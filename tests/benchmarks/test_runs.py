"""Trainings are kept as they end, and an interrupted benchmark continues; nothing trains here."""

import functools
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import too_feature as script
from benchmarks.common import Store
from benchmarks.folds import SEED, Fold
from benchmarks.runs import Runner, Wanted, ensemble
from benchmarks.systems import Fitted, System

AS_IT_IS = ({},)
KEY = {"records": "abc", "seed": 42}
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


def runner_of(folder=None, records="", seeds=2, **options):
    """Return a runner whose results are kept in `folder`."""
    pool = SimpleNamespace(targets=TARGETS, digest=lambda fold: f"{records} {fold}")
    return Runner(pool, Store(folder), seeds, **options)


def measure(runner, system, name="default"):
    """Measure a system on both folds."""
    wanted = Wanted(name, system, "two folds", FOLDS)
    runner.train([wanted])
    return runner.result(wanted)


# ---------------------------------------------------------------------------------------- results
def test_a_system_is_trained_on_each_seed_and_fold():
    calls = Calls()
    result = measure(runner_of(), system_of(calls))
    assert sorted((seed, test) for seed, test, *_ in calls) == [
        (SEED, [0, 1]), (SEED, [4, 5]), (SEED + 1, [0, 1]), (SEED + 1, [4, 5])]
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
    assert sorted(trials) == [0.1, 0.2, 0.9]
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


def test_what_does_not_depend_on_the_seed_is_trained_once():
    calls = Calls()
    result = measure(runner_of(seeds=3), system_of(calls, is_random=False))
    assert len(calls) == 2
    assert result.probabilities.shape == (3, 4, 2)


def test_baselines_may_have_fewer_seeds_than_ours():
    runner = runner_of(seeds=3, baseline_seeds=1)
    assert len(measure(runner, system_of(Calls())).probabilities) == 3
    assert len(measure(runner, system_of(Calls()), "forest").probabilities) == 1


@pytest.mark.slow
def test_processes_give_what_one_gives():
    alone = measure(runner_of(), system_of(Calls()))
    together = measure(runner_of(jobs=2), system_of(Calls()))
    np.testing.assert_array_equal(together.probabilities, alone.probabilities)


# ----------------------------------------------------------------------------------------- stopped
def test_after_a_stop_only_what_was_not_finished_is_trained(tmp_path):
    path = tmp_path / "kept"
    whole = measure(runner_of(), system_of(Calls()))
    first = StopAfter(3)
    with pytest.raises(KeyboardInterrupt):
        measure(runner_of(path), system_of(first))
    assert len(list(path.iterdir())) == 3
    wanted = Wanted("default", system_of(Calls()), "two folds", FOLDS)
    assert runner_of(path).result(wanted) is None

    calls = Calls()
    result = measure(runner_of(path), system_of(calls))
    assert len(calls) == 1
    assert len({(seed, *test) for seed, test, *_ in [*first, *calls]}) == 4
    np.testing.assert_array_equal(result.probabilities, whole.probabilities)
    np.testing.assert_array_equal(result.before, whole.before)

    calls.clear()
    measure(runner_of(path), system_of(calls))
    assert not calls


def fit_in_another_way(task, calls):
    """Stand in for a system whose code was changed."""
    return fit_by_hand(task, calls)


def test_a_change_of_one_system_trains_that_one_again(tmp_path):
    path = tmp_path / "kept"
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
        measure(runner_of(tmp_path), System("by hand", fit))
    assert len(calls) == 8


def test_other_records_settings_or_epochs_are_trained_again(tmp_path, monkeypatch):
    calls = Calls()
    system = system_of(calls, quick_epochs=8)
    for runner in (runner_of(tmp_path), runner_of(tmp_path), runner_of(tmp_path, "changed"),
                   runner_of(tmp_path, epochs=1)):
        measure(runner, system)
    assert len(calls) == 4 + 0 + 4 + 4

    # The default of a setting is not part of a function's code
    monkeypatch.setattr(script, "Settings", functools.partial(script.Settings, train_samples=99))
    measure(runner_of(tmp_path), system)
    assert len(calls) == 12 + 4


# ------------------------------------------------------------------------------------------ store
def test_a_result_is_there_for_another_program_as_soon_as_it_is_put(tmp_path):
    Store(tmp_path).put(KEY, [1, 2])
    assert Store(tmp_path).get(KEY) == [1, 2]
    assert Store(tmp_path).get({**KEY, "seed": 43}) is None
    assert [file.suffix for file in tmp_path.iterdir()] == [".json"]    # no scratch file


@pytest.mark.parametrize("text", [
    json.dumps({"key": {"records": "xyz"}, "result": 1}), json.dumps([1]), '{"key": ', ""])
def test_a_damaged_file_counts_as_missing(tmp_path, text, capsys):
    Store(tmp_path).put(KEY, 1)
    [file] = tmp_path.iterdir()
    file.write_text(text)
    store = Store(tmp_path)
    assert store.get(KEY) is None
    assert "damaged" in capsys.readouterr().err
    store.put(KEY, 2)
    assert Store(tmp_path).get(KEY) == 2


def test_without_a_folder_results_stay_in_memory():
    store = Store(None)
    assert store.get(KEY) is None
    store.put(KEY, 1)
    assert store.get(KEY) == 1

"""Baselines of the accuracy benchmark, on cases that can be worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

import too_feature as script
from benchmarks import baselines
from benchmarks.folds import Fold
from benchmarks.systems import Task

CLASSES = ["Atrial Fibrillation", "Bradycardia", "Bundle Branch Block", "Normal", "Tachycardia"]
AF, BRADY, BLOCK, NORMAL, TACHY = range(5)
COUNTS = np.array([900, 10, 800, 700, 10])    # the rest is Normal, which is not the commonest
NAMES = [name for name, *_ in script.feature_names(script.RECIPES["large"])]


def features_of(rate, irregular, width):
    """Return the features of one record, all others unknown."""
    row = np.full(len(NAMES), np.nan)
    row[script.HEART_RATE] = rate
    row[NAMES.index("irregular RR share")] = irregular
    row[NAMES.index("QRS width")] = width
    return row


def task_of(features, targets, classes, change, recipe="large"):
    """Return a task on these records, which are all for training."""
    everyone = np.arange(len(targets))

    def inputs(asked):
        assert asked == script.RECIPES[recipe]
        return None, np.array(features)

    pool = SimpleNamespace(classes=classes, targets=np.array(targets), inputs=inputs)
    return Task(pool, Fold(everyone, everyone, everyone), 42, None, change)


# --------------------------------------------------------------------------------- readable rule
@pytest.mark.parametrize(("rate", "irregular", "width", "expected"), [
    (70, 0.41, 90, AF),
    (70, 0.40, 90, NORMAL),
    (120, 0.9, 130, AF),           # irregular comes first,
    (120, 0.1, 120, BLOCK),        # then QRS, from 120 ms on,
    (120, 0.1, 119, TACHY),        # and the rate last
    (100.1, 0, 90, TACHY),
    (100, 0, 90, NORMAL),
    (60, 0, 90, NORMAL),
    (59.9, 0, 90, BRADY),
    (50, np.nan, np.nan, BRADY),      # what is not measurable does not hold
    (np.nan, np.nan, np.nan, NORMAL),
])
def test_the_readable_rule_by_hand(rate, irregular, width, expected):
    features = features_of(rate, irregular, width)[None]
    assert baselines.read_criteria(features, CLASSES, COUNTS, 0.4).tolist() == [expected]


def test_the_readable_rule_names_no_class_that_the_labels_lack():
    features = np.array([features_of(120, 0.9, 130), features_of(70, 0, 90)])
    found = baselines.read_criteria(features, ["Normal", "Tachycardia"], np.array([5, 5]), 0.4)
    assert found.tolist() == [1, 0]


def test_the_limit_of_irregularity_is_a_candidate_setting():
    features = [features_of(70, 0.35, 90), features_of(70, 0, 90)]
    for irregular, expected in (0.3, [0, 1]), (0.4, [1, 1]):
        task = task_of(features, [0, 1], ["Atrial Fibrillation", "Normal"],
                       {"irregular": irregular})
        found = baselines.BASELINES["criteria"].fit(task).predict(np.array([0, 1]))
        assert found.tolist() == np.eye(2)[expected].tolist()


# --------------------------------------------------------------------------- logistic regression
@pytest.mark.parametrize(("name", "recipe", "first"), [
    ("regression8", "default", 0), ("regression", "large", script.HEART_RATE)])
def test_the_regression_separates_what_can_be_separated(name, recipe, first):
    n = len(script.feature_names(script.RECIPES[recipe]))
    rng = np.random.default_rng(0)
    features = rng.normal(0, 0.1, (60, n))
    targets = np.arange(60) % 3
    features[:, script.HEART_RATE] = np.array([50, 80, 110])[targets]
    change = {"regularisation": 1.0}
    task = task_of(features, targets, ["a", "b", "c"], change, recipe)
    fitted = baselines.BASELINES[name].fit(task)
    probabilities = fitted.predict(np.arange(60))
    assert probabilities.argmax(axis=1).tolist() == targets.tolist()
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(60))
    assert fitted.parameters == 3 * (n - first + 4 + 1)    # four hinges, and a bias


def test_the_regression_is_trained_on_training_records_alone():
    features = np.zeros((40, 8))
    features[:, script.HEART_RATE] = np.where(np.arange(40) % 2, 120, 80)
    targets = np.arange(40) % 2
    targets[20:] = 1 - targets[20:]    # test records say the opposite
    task = task_of(features, targets, ["a", "b"], {"regularisation": 1.0}, "default")
    fold = Fold(np.arange(20), np.arange(20), np.arange(20, 40))
    fitted = baselines.BASELINES["regression8"].fit(task._replace(fold=fold))
    assert (fitted.predict(fold.test).argmax(axis=1) != targets[20:]).all()


def test_a_smaller_candidate_of_the_regression_makes_smaller_weights():
    features = np.zeros((40, 8))
    features[:, script.HEART_RATE] = np.where(np.arange(40) % 2, 120, 80)
    sure = []
    for change in baselines.REGRESSION_CANDIDATES:
        task = task_of(features, np.arange(40) % 2, ["a", "b"], change, "default")
        fitted = baselines.BASELINES["regression8"].fit(task)
        sure.append((change["regularisation"], fitted.predict(np.array([1]))[0, 1]))
    assert [probability for _, probability in sorted(sure)] == sorted(p for _, p in sure)
    assert len({round(probability, 6) for _, probability in sure}) == len(sure)

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


@pytest.mark.parametrize(("rate", "irregular", "width", "expected"), [
    (70, 0.41, 90, AF),
    (70, 0.40, 90, NORMAL),
    (120, 0.9, 130, AF),           # irregular comes first,
    (120, 0.1, 120, BLOCK),        # then QRS, from 120 ms on,
    (120, 0.1, 119, TACHY),        # and the rate last
    (60, 0, 90, NORMAL),
    (50, np.nan, np.nan, BRADY),      # what is not measurable does not hold
    (np.nan, np.nan, np.nan, NORMAL),
])
def test_the_readable_rule_by_hand(rate, irregular, width, expected):
    features = features_of(rate, irregular, width)[None]
    assert baselines.read_criteria(features, CLASSES, COUNTS, 0.4).tolist() == [expected]


def test_the_readable_rule_names_no_class_that_the_labels_lack():
    features = np.array([features_of(120, 0.9, 130), features_of(70, 0, 90)])
    called = baselines.read_criteria(features, ["Normal", "Tachycardia"], np.array([5, 5]), 0.4)
    assert called.tolist() == [1, 0]


@pytest.mark.parametrize(("name", "recipe", "first"), [
    ("regression8", "default", 0), ("regression", "large", script.HEART_RATE)])
def test_the_regression_learns_from_training_records_alone(name, recipe, first):
    n = len(script.feature_names(script.RECIPES[recipe]))
    truth = np.arange(60) % 3
    features = np.zeros((60, n))
    features[:, script.HEART_RATE] = np.array([50, 80, 110])[truth]
    targets = np.where(np.arange(60) < 30, truth, (truth + 1) % 3)    # tests say something else
    pool = SimpleNamespace(
        classes=list("abc"), targets=targets, inputs=lambda recipe: (None, features))
    task = Task(pool, Fold(np.arange(30), None, None), 42, {"regularisation": 1.0})

    fitted = baselines.BASELINES[name].fit(task)
    probabilities = fitted.predict(np.arange(60))
    assert probabilities.argmax(axis=1).tolist() == truth.tolist()
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(60))
    assert fitted.parameters == 3 * (n - first + 4 + 1)    # four hinges, and a bias

"""Baselines of the accuracy benchmark, on cases that can be worked out by hand."""


import numpy as np
import pytest

import too_feature as script
from benchmarks import baselines

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

"""The report: intervals, the rate rule, weights and what is printed."""

import json

import numpy as np
import pandas as pd
import pytest

import too_feature
from too_feature import Records, accuracies, evaluate, rate_rule

CLASSES = ["Atrial Fibrillation", "Bradycardia", "Bundle Branch Block", "Normal", "Tachycardia"]
SHARES = np.array([0.2, 0.1, 0.1, 0.5, 0.1])


def made_test(targets, subjects=None, heart_rate=70.0):
    n = len(targets)
    features = np.full((n, 8), np.nan, dtype=np.float32)
    features[:, too_feature.HEART_RATE] = heart_rate
    subjects = np.arange(n) if subjects is None else subjects
    return Records(pd.DataFrame({"subject_id": subjects}), np.zeros((n, 1, 12)), features,
                   np.asarray(targets))


def certain(predicted):
    return np.eye(5)[predicted] * 0.96 + 0.008


def test_rate_rule_is_below_60_above_100_else_the_commonest_other():
    rates = np.array([59.9, 60, 100, 100.1, np.nan])
    np.testing.assert_array_equal(rate_rule(rates, CLASSES, SHARES), [1, 3, 3, 4, 3])


def test_rate_rule_without_rate_classes_is_the_commonest_class():
    rates = np.array([40.0, 80, 140])
    np.testing.assert_array_equal(rate_rule(rates, ["A", "B"], np.array([0.3, 0.7])), [1, 1, 1])


def test_bootstrap_interval_of_independent_records_is_near_the_binomial_one():
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1], 200)
    predicted = np.where(rng.random(400) < 0.8, targets, 1 - targets)
    recall = [np.mean(predicted[targets == k] == k) for k in (0, 1)]
    error = np.sqrt(sum(r * (1 - r) / 200 for r in recall)) / 2
    value, low, high = accuracies(targets, predicted, np.arange(400))["balanced accuracy"]
    assert value == pytest.approx(np.mean(recall))
    assert low == pytest.approx(np.mean(recall) - 1.96 * error, abs=0.012)
    assert high == pytest.approx(np.mean(recall) + 1.96 * error, abs=0.012)


def test_bootstrap_draws_patients_not_records():
    targets = np.tile(np.repeat([0, 1], 10), 20)
    predicted = np.where(np.repeat(np.arange(20) % 4 == 0, 20), 1 - targets, targets)
    by_patient = accuracies(targets, predicted, np.repeat(np.arange(20), 20))
    by_record = accuracies(targets, predicted, np.arange(400))
    for name in ("accuracy", "balanced accuracy"):
        assert by_patient[name][0] == by_record[name][0]
        assert np.ptp(by_patient[name][1:]) > 2 * np.ptp(by_record[name][1:])


def test_bootstrap_is_seeded():
    arguments = np.array([0, 1, 0, 1, 1]), np.array([0, 1, 1, 1, 0]), np.arange(5)
    assert accuracies(*arguments, seed=1) == accuracies(*arguments, seed=1)


def test_balanced_accuracy_is_the_mean_of_the_recalls():
    targets = np.array([0, 0, 0, 0, 1, 2, 3, 4])
    predicted = np.array([0, 0, 0, 1, 1, 2, 3, 3])
    figures = evaluate(certain(predicted), made_test(targets), CLASSES, SHARES)
    assert figures["model"]["accuracy"][0] == pytest.approx(6 / 8)
    assert figures["model"]["balanced accuracy"][0] == pytest.approx((0.75 + 1 + 1 + 1 + 0) / 5)


def test_results_are_reweighted_to_the_label_files_shares():
    targets = np.repeat(np.arange(5), 10)
    predicted = np.where(targets == 3, 3, 0)    # only normal and atrial fibrillation are right
    figures = evaluate(certain(predicted), made_test(targets), CLASSES, SHARES)
    assert figures["model"]["accuracy"][0] == pytest.approx(0.4)
    assert figures["at label shares"]["accuracy"] == pytest.approx(0.7)


def test_report_prints_what_it_promises(capsys):
    targets = np.repeat(np.arange(5), 8)
    figures = evaluate(certain(targets), made_test(targets), CLASSES, SHARES)
    printed = capsys.readouterr().out
    for word in ("precision", "recall", "f1-score", "support", "accuracy", "confidence", "SDNN",
                 "rate rule", "usual: heart rate 60-100 bpm", *CLASSES):
        assert word in printed
    assert "balanced accuracy 1.000 (95 % interval 1.00-1.00)" in printed
    assert "confidence 96.8% +- 0.0%" in printed
    assert json.loads(json.dumps(figures))["records"] == 40


def test_a_class_without_test_records_does_not_break_the_report(capsys):
    targets = np.array([0, 1, 3, 3])
    figures = evaluate(certain(np.array([0, 1, 2, 3])), made_test(targets), CLASSES, SHARES)
    assert figures["model"]["balanced accuracy"][0] == pytest.approx(2.5 / 3)
    assert "Tachycardia" in capsys.readouterr().out

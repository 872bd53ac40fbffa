"""The report: intervals, baseline, prevalence, calibration, thresholds and what is printed."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import too_feature as script
from ecg import origin, rate_step, report
from ecg.intervals import calibration_losses
from ecg.metrics import (
    MAX_TEMPERATURE,
    accuracies,
    calibration,
    fit_temperature,
    rate_rule,
    soften,
    thresholds,
)
from too_feature import Predicted, Records

CLASSES = ["Atrial Fibrillation", "Bradycardia", "Bundle Branch Block", "Normal", "Tachycardia"]
PREVALENCE = np.array([0.2, 0.1, 0.1, 0.5, 0.1])
EIGHT_EACH = np.repeat(np.arange(5), 8)
ERROR = "expected calibration error"


def records_of(targets):
    n = len(targets)
    features = np.full((n, 48), np.nan, dtype=np.float32)
    features[:, script.HEART_RATE] = 70
    return Records(pd.DataFrame({"subject_id": np.arange(n)}), np.zeros((n, 1, 12)), features,
                   np.asarray(targets))


def certain(predicted):
    return np.eye(5)[predicted] * 0.96 + 0.008


def evaluate(probabilities, targets, temperature=1.0, baseline=None, label_file="own.csv",
             classes=CLASSES):
    """Return report and figures of a run that has these test records for validation as well."""
    predicted = Predicted(records_of(targets), probabilities[None])
    baseline = probabilities if baseline is None else baseline
    return script.evaluate(
        predicted, predicted, [temperature], classes, PREVALENCE, baseline, label_file)


# -------------------------------------------------------------------------- accuracy and intervals
def test_rate_rule_is_below_60_above_100_else_the_commonest_other():
    rates = np.array([59.9, 60, 100, 100.1, np.nan])
    np.testing.assert_array_equal(rate_rule(rates, CLASSES, PREVALENCE), [1, 3, 3, 4, 3])
    np.testing.assert_array_equal(rate_rule(rates, ["A", "B"], np.array([0.3, 0.7])), [1] * 5)


def test_where_all_are_right_or_all_are_wrong_the_interval_has_width():
    """Jeffreys' interval of 8 patients, whatever their number of records."""
    low = stats.beta.ppf(0.025, 8.5, 0.5)
    targets = np.zeros(79, dtype=int)
    right, wrong = (accuracies(targets, targets + k, np.arange(79) % 8) for k in (0, 1))
    for name in ("accuracy", "balanced accuracy"):
        assert right[name] == pytest.approx([1, low, 1], abs=0.03)
        assert wrong[name] == pytest.approx([0, 0, 1 - low], abs=0.03)


def test_intervals_are_over_patients_not_records():
    targets = np.tile(np.repeat([0, 1], 10), 20)
    predicted = np.where(np.repeat(np.arange(20) % 4 == 0, 20), 1 - targets, targets)
    by_patient = accuracies(targets, predicted, np.repeat(np.arange(20), 20))
    by_record = accuracies(targets, predicted, np.arange(400))
    for name in ("accuracy", "balanced accuracy"):
        assert by_patient[name][0] == by_record[name][0]
        assert np.ptp(by_patient[name][1:]) > 2 * np.ptp(by_record[name][1:])


# -------------------------------------------------------------------------------------- the report
def test_the_report_gives_model_and_baseline_with_their_intervals():
    baseline = certain(np.where(EIGHT_EACH < 2, 0, EIGHT_EACH))
    report, figures = evaluate(certain(EIGHT_EACH), EIGHT_EACH, baseline=baseline)
    low = figures["model"]["balanced accuracy"][1]
    assert 0.7 < low < 0.95    # of eight patients a class
    assert f"balanced accuracy 1.000 (95 % interval {low:.2f}-1.00)" in report
    assert re.search(r"Baseline: a logistic regression .*\naccuracy 0\.800 .*\nbalanced accuracy "
                     r"0\.800 \(95 % interval 0\.\d\d-", report)


def test_classes_without_a_test_record_lower_no_mean_and_are_named():
    targets = np.array([0, 2, 3, 3])
    report, _ = evaluate(certain(targets), targets)
    assert re.search(r"macro avg +1\.000 +1\.000 +1\.000 +4\n", report)
    assert "no test record of Bradycardia, Tachycardia: nothing is known of it" in report
    assert "no test record" not in evaluate(certain(EIGHT_EACH), EIGHT_EACH)[0]


def test_classes_that_are_words_of_scikit_learns_report_or_of_ours_change_no_figure():
    words = ["accuracy", "macro avg", "weighted avg", "label file", "by class"]
    probabilities = certain(np.where(EIGHT_EACH == 1, 0, EIGHT_EACH))
    _, plain = evaluate(probabilities, EIGHT_EACH)
    _, odd = evaluate(probabilities, EIGHT_EACH, classes=words)
    for renamed, own in ((odd, plain), (odd["at prevalence"], plain["at prevalence"])):
        expected = dict(zip(words, own["by class"].values(), strict=True))
        assert renamed["by class"] == expected


def test_results_are_reweighted_to_the_prevalence_of_the_label_file():
    targets = np.repeat(np.arange(5), 10)
    predicted = np.where(targets == 3, 3, 0)    # only normal and atrial fibrillation are right
    _, figures = evaluate(certain(predicted), targets)
    assert figures["model"]["accuracy"][0] == pytest.approx(0.4)
    assert figures["at prevalence"]["model"]["accuracy"][0] == pytest.approx(0.7)


def test_the_report_of_an_external_test_set_says_nothing_of_the_label_files_prevalence():
    report, figures = evaluate(certain(EIGHT_EACH), EIGHT_EACH, temperature=2, label_file="")
    assert "at prevalence" not in figures
    assert "The test is not drawn evenly: all its records are used." in report
    assert " test " in report and "label file" not in report


# ----------------------------------------------------------------------------------- calibration
def drawn(n, classes=5, temperature=1.0, seed=0):
    """Targets that come true as often as `soften(probabilities, temperature)` says, and these."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.5), n).clip(1e-6)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    true = soften(probabilities, temperature)
    targets = (true.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return probabilities, targets.clip(0, classes - 1)


def weighted_calibration(probabilities, targets, weights):
    losses = calibration_losses(probabilities, targets, weights)
    return {name: np.average(loss, weights=weights) for name, loss in losses.items()}


def test_calibration_of_four_records_is_as_computed_by_hand():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.9, 0.05, 0.05], [0.62, 0.2, 0.18],
                              [0.1, 0.3, 0.6]])
    # Confidence 0.9 and 0.9, right once: the second record weighs three times the others; 0.62 and
    # 0.6, right twice: off by 0.78
    weighted = weighted_calibration(probabilities, np.array([0, 1, 0, 2]), np.array([1, 3, 1, 1]))
    assert weighted == pytest.approx({
        ERROR: (abs(0.9 + 3 * 0.9 - 1) + 0.78) / 6,
        "Brier score": (0.02 + 3 * 1.715 + 0.2168 + 0.26) / 6})


def test_softening_is_softmax_of_the_divided_logits_takes_zeros_and_can_be_undone():
    logits = np.array([[1.0, 2, 4], [0, 0, -3]])
    whole, half = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (logits, logits / 2))
    np.testing.assert_allclose(soften(whole, 2), half)
    np.testing.assert_allclose(soften(half, 1 / 2), whole)
    with np.errstate(all="raise"):
        assert np.isfinite(soften(np.array([[1.0, 0, 0]]), 3)).all()


@pytest.mark.parametrize(("true", "fitted"), [
    (1.0, 1.0), (1.4, 1.4), (1.8, 1.8), (0.5, 1.0), (4.0, MAX_TEMPERATURE)])
def test_a_known_temperature_is_found_within_its_limits(true, fitted):
    probabilities, targets = drawn(6000, temperature=true)
    temperature = fit_temperature(probabilities, targets, np.ones(6000))
    assert temperature == pytest.approx(fitted, rel=0.05)
    assert 1 <= temperature <= MAX_TEMPERATURE


def test_a_separable_validation_set_makes_nothing_surer():
    probabilities, _ = drawn(50)
    targets = probabilities.argmax(axis=1)    # all right
    assert fit_temperature(probabilities, targets, np.ones(50)) == 1


def test_the_report_says_how_far_labels_and_limits_disagree_and_what_the_step_does():
    records = records_of(EIGHT_EACH)
    records.features[:, script.HEART_RATE] = np.tile([50, 50, 50, 50, 50, 50, 70, np.nan], 5)
    core = certain(np.full(40, 1))    # all bradycardia
    step = rate_step.RateStep([1, 3, 4], [60.0, 100.0])
    tested = Predicted(records, core[None], step)
    report, figures = script.evaluate(
        tested, tested, [1.0], CLASSES, PREVALENCE, certain(EIGHT_EACH), "")
    assert "Rate step: bradycardia below 60 bpm here, tachycardia above 100\n" in report
    assert re.search(r"below 60 bpm +between +not measurable", report)
    assert re.search(r"\nNormal +6 +1 +1\n", report)
    before, after = (calibration(p, EIGHT_EACH)[ERROR] for p in (core, tested.mean))
    assert re.search(rf" after +{after:.3f} .*\n +without rate step +{before:.3f} ", report)
    assert figures["by class"]["Normal"]["recall"][0] == 1 / 8    # the one of 70 bpm
    assert figures["logistic regression"]["accuracy"][0] == 26 / 40    # by the same step


def test_the_report_compares_calibration_before_and_after_also_at_the_prevalence():
    before, targets = drawn(1000, temperature=2.0)
    after = soften(before, 2)
    report, figures = evaluate(after, targets, temperature=2)
    scores = figures["calibration"]
    assert scores["before"] == pytest.approx(calibration(before, targets), abs=1e-6)
    assert scores["after"] == calibration(after, targets)
    weights = (PREVALENCE / np.bincount(targets))[targets]
    of_file = {name: figures["at prevalence"]["model"][name][0] for name in scores["after"]}
    assert of_file == pytest.approx(weighted_calibration(after, targets, weights))
    assert scores["after"][ERROR] < 0.05 < 0.1 < scores["before"][ERROR]
    for moment, own in scores.items():
        assert re.search(rf" {moment} +{own[ERROR]:.3f} +{own['Brier score']:.3f}\n", report)


# -------------------------------------------------------------------------- accuracy at coverage
def test_the_least_certain_records_are_left_undecided_first():
    confidence = np.array([0.3, 0.9, 0.5, 0.7, 0.4, 0.8, 0.6, 0.35, 0.95, 0.45])
    right = np.array([0, 1, 1, 1, 0, 1, 0, 0, 1, 0], dtype=bool)    # 0.95 0.9 0.8 0.7, then 0.5
    targets = np.arange(10) % 5
    others = (1 - confidence[:, None]) / 4
    named = np.eye(5)[np.where(right, targets, (targets + 1) % 5)]
    report, figures = evaluate(np.where(named, confidence[:, None], others), targets)
    at_coverage = figures["accuracy at coverage"]
    assert len(at_coverage) == 20
    assert [at_coverage[share] for share in ("0.10", "0.40", "0.50", "0.60", "0.80", "1.00")] == (
        pytest.approx([1, 1, 4 / 5, 5 / 6, 5 / 8, 1 / 2]))
    assert "coverage 100% 0.500, 90% 0.556, 75% 0.625, 50% 0.800, 25% 1.000\n" in report


# ------------------------------------------------------------------------------ decision thresholds
def test_thresholds_are_chosen_on_validation_and_measured_on_test():
    """Of 40 records of a class, 38 have at least the third lowest probability: 95 %."""
    of_class = np.arange(1, 41) / 100
    validation = np.column_stack([np.r_[of_class, np.zeros(29)], np.zeros(69)])
    validation_targets = np.repeat([0, 1], [40, 29])    # one too few of the second
    test = np.column_stack([[0.9, 0.03, 0.02, 0.5, 0.01, 0.0], np.zeros(6)])
    chosen = thresholds(validation, validation_targets, test, np.array([0, 0, 0, 1, 1, 1]),
                        ["some", "few"])
    assert chosen["few"] is None
    assert chosen["some"] == pytest.approx(
        {"probability": 0.02, "sensitivity": 1, "specificity": 2 / 3})


def test_classes_of_too_few_validation_records_take_one_line():
    assert report.threshold_lines(dict.fromkeys(["A", "B"])) == [
        "too few validation records (under 30) to choose a probability: A, B"]


def test_single_models_are_a_line_of_their_own():
    wrong = np.where(EIGHT_EACH == 1, 0, EIGHT_EACH)
    each = np.array([certain(EIGHT_EACH), certain(wrong)])
    predicted = Predicted(records_of(EIGHT_EACH), each)
    report, figures = script.evaluate(
        predicted, predicted, [1.0, 1.0], CLASSES, PREVALENCE, each[0], "own.csv")
    assert list(figures["balanced accuracy of each"].values()) == [1, pytest.approx(0.8)]
    assert "\nsingle models: balanced accuracy 0.900 +- 0.141 (n = 2)\n" in report


def test_what_is_known_of_the_labels_error_is_said_of_a_machines_reads_alone():
    machine = {"labels_origin": "machine reads of the ECG cart"}
    assert "Poon 2005" in origin.label_error(machine)
    assert origin.label_error({**machine, "test_labels_origin": "two cardiologists"}) == ""

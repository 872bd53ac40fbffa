"""The report: intervals, the baselines, weights, calibration, thresholds and what is printed."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import brier_score_loss, log_loss

import too_feature as script
from ecg.metrics import (
    HOTTEST,
    accuracies,
    calibration,
    fit_temperature,
    rate_rule,
    soften,
    thresholds,
)
from too_feature import Predicted, Records

CLASSES = ["Atrial Fibrillation", "Bradycardia", "Bundle Branch Block", "Normal", "Tachycardia"]
SHARES = np.array([0.2, 0.1, 0.1, 0.5, 0.1])


def made_test(targets, subjects=None, heart_rate=70.0):
    n = len(targets)
    features = np.full((n, 8), np.nan, dtype=np.float32)
    features[:, script.HEART_RATE] = heart_rate
    subjects = np.arange(n) if subjects is None else subjects
    return Records(pd.DataFrame({"subject_id": subjects}), np.zeros((n, 1, 12)), features,
                   np.asarray(targets))


def evaluate(probabilities, test, temperature=1.0, baseline=None, label_file="own.csv",
             classes=CLASSES):
    """As a run does: print the report and return its figures."""
    predicted = Predicted(test, probabilities[None])
    baseline = probabilities if baseline is None else baseline
    report, figures = script.evaluate(
        predicted, predicted, [temperature], classes, SHARES, baseline, label_file)
    print(report)
    return figures


def certain(predicted):
    return np.eye(5)[predicted] * 0.96 + 0.008


def test_classes_without_a_test_record_lower_no_mean_and_are_named(capsys):
    targets = np.array([0, 2, 3, 3])
    evaluate(certain(targets), made_test(targets))
    printed = capsys.readouterr().out
    assert re.search(r"macro avg +1\.000 +1\.000 +1\.000 +4\n", printed)
    assert "no test record of Bradycardia, Tachycardia: nothing is known of it" in printed
    evaluate(certain(np.array([0, 1, 2, 3, 4])), made_test(np.arange(5)))
    assert "no test record" not in capsys.readouterr().out


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


@pytest.mark.parametrize("patients", [79, 8])
def test_where_all_are_right_or_all_are_wrong_the_interval_has_width(patients):
    """Jeffreys' interval: of 79 patients without an error, some 3 % may still be wrong."""
    low = stats.beta.ppf(0.025, patients + 0.5, 0.5)
    targets = np.zeros(79, dtype=int)
    subjects = np.arange(79) % patients
    right = accuracies(targets, targets, subjects)
    wrong = accuracies(targets, targets + 1, subjects)
    for name in ("accuracy", "balanced accuracy"):
        assert right[name] == pytest.approx([1, low, 1], abs=0.03)
        assert wrong[name] == pytest.approx([0, 0, 1 - low], abs=0.03)


def test_one_class_without_an_error_widens_the_interval_of_all_and_the_value_stays_inside():
    targets = np.repeat([0, 1], [10, 200])
    predicted = np.where(np.arange(210) % 10 == 9, 0, targets)    # all of class 0 are right
    value, low, high = accuracies(targets, predicted, np.arange(210))["balanced accuracy"]
    assert value == pytest.approx(0.95)
    assert low == pytest.approx((stats.beta.ppf(0.025, 10.5, 0.5) + 0.9) / 2, abs=0.02)
    assert value <= high < 0.99


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
    figures = evaluate(certain(predicted), made_test(targets))
    assert figures["model"]["accuracy"][0] == pytest.approx(6 / 8)
    assert figures["model"]["balanced accuracy"][0] == pytest.approx((0.75 + 1 + 1 + 1 + 0) / 5)


def test_results_are_reweighted_to_the_label_files_shares():
    targets = np.repeat(np.arange(5), 10)
    predicted = np.where(targets == 3, 3, 0)    # only normal and atrial fibrillation are right
    figures = evaluate(certain(predicted), made_test(targets))
    assert figures["model"]["accuracy"][0] == pytest.approx(0.4)
    assert figures["at label shares"]["accuracy"] == pytest.approx(0.7)


def test_report_prints_what_it_promises(capsys):
    targets = np.repeat(np.arange(5), 8)
    figures = evaluate(certain(targets), made_test(targets))
    printed = capsys.readouterr().out
    for word in ("precision", "recall", "f1-score", "support", "accuracy", "confidence", "SDNN",
                 "rate rule", "usual: heart rate 60-100 bpm", *CLASSES):
        assert word in printed
    low = figures["model"]["balanced accuracy"][1]
    assert 0.7 < low < 0.95    # of eight patients a class
    assert f"balanced accuracy 1.000 (95 % interval {low:.2f}-1.00)" in printed
    assert "at the class shares of own.csv: accuracy 1.000, macro F1 1.000\n" in printed
    assert "confidence 96.8% +- 0.0%" in printed
    assert json.loads(json.dumps(figures))["records"] == 40


def test_classes_that_are_words_of_scikit_learns_report_or_of_ours_change_no_figure(capsys):
    words = ["accuracy", "macro avg", "weighted avg", "label file", "per class"]
    targets = np.repeat(np.arange(5), 8)
    probabilities = certain(np.where(targets == 1, 0, targets))
    plain = evaluate(probabilities, made_test(targets))
    capsys.readouterr()
    figures = evaluate(probabilities, made_test(targets), classes=words)
    assert "best class weighted avg, F1 1.000" in capsys.readouterr().out
    for one, other in ((figures, plain), (figures["at label shares"], plain["at label shares"])):
        assert list(one["per class"].values()) == list(other["per class"].values())
        assert list(one["per class"]) == words
    assert figures["at label shares"]["label file"] == "own.csv"
    recalls = [scores["recall"] for scores in figures["per class"].values()]
    assert recalls == [1, 0, 1, 1, 1]
    assert figures["per class"]["accuracy"]["precision"] == 0.5
    assert figures["per class"]["macro avg"]["support"] == 8


def test_the_report_of_another_hospital_says_nothing_of_the_label_files_shares(capsys):
    before, targets = drawn(100)
    figures = evaluate(soften(before, 2), made_test(targets), temperature=2, label_file="")
    assert "at label shares" not in figures
    assert list(figures["calibration"]) == ["test"]
    assert "shares" not in capsys.readouterr().out.replace("by share kept", "")


def test_the_simplest_baseline_has_a_line_of_its_own(capsys):
    targets = np.repeat(np.arange(5), 8)
    baseline = certain(np.where(targets < 2, 0, targets))
    figures = evaluate(certain(targets), made_test(targets), baseline=baseline)
    assert figures["logistic regression"]["balanced accuracy"][0] == pytest.approx(0.8)
    assert re.search(r"A logistic regression on the same features and training records\n"
                     r"accuracy 0\.800 .*\nbalanced accuracy 0\.800 \(95 % interval 0\.\d\d-",
                     capsys.readouterr().out)


def test_features_beyond_the_eight_leave_the_report_as_it_is(capsys):
    targets, printed = np.repeat(np.arange(5), 8), []
    for extra in (0, 40):
        test = made_test(targets)
        test = test._replace(features=np.hstack([test.features, np.ones((40, extra))]))
        evaluate(certain(targets), test)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_a_class_without_test_records_does_not_break_the_report(capsys):
    targets = np.array([0, 1, 3, 3])
    figures = evaluate(certain(np.array([0, 1, 2, 3])), made_test(targets))
    assert figures["model"]["balanced accuracy"][0] == pytest.approx(2.5 / 3)
    assert "Tachycardia" in capsys.readouterr().out


# ----------------------------------------------------------------------------------- calibration
def drawn(n, classes=5, temperature=1.0, seed=0):
    """Targets that come true as often as `soften(probabilities, temperature)` says, and these."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.5), n).clip(1e-6)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    true = soften(probabilities, temperature)
    targets = (true.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return probabilities, targets.clip(0, classes - 1)


def test_calibration_of_four_records_is_as_computed_by_hand():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.9, 0.05, 0.05], [0.62, 0.2, 0.18],
                              [0.1, 0.3, 0.6]])
    targets = np.array([0, 1, 0, 2])
    # Confidence 0.9 and 0.9, right once: off by 0.4; 0.62 and 0.6, right twice: off by 0.39
    expected = {"expected calibration error": (2 * 0.4 + 2 * 0.39) / 4,
                "Brier score": (0.02 + (0.81 + 0.9025 + 0.0025) + (0.1444 + 0.04 + 0.0324)
                                + (0.01 + 0.09 + 0.16)) / 4}
    assert calibration(probabilities, targets) == pytest.approx(expected)
    # The second record weighs three times the others
    weighted = {"expected calibration error": (abs(0.9 + 3 * 0.9 - 1) + 0.78) / 6,
                "Brier score": (0.02 + 3 * 1.715 + 0.2168 + 0.26) / 6}
    assert calibration(probabilities, targets, np.array([1, 3, 1, 1])) == pytest.approx(weighted)


def test_bins_keep_errors_of_opposite_sign_apart_and_are_ten():
    def error(*confidences):    # two classes; the first half of the records is right
        p = np.array(confidences)
        targets = (np.arange(len(p)) >= len(p) // 2).astype(int)
        return calibration(np.column_stack([p, 1 - p]), targets)["expected calibration error"]

    assert error(0.85, 0.95) == pytest.approx((0.15 + 0.95) / 2)    # in two bins
    assert error(0.85, 0.87) == pytest.approx(abs(0.15 - 0.87) / 2)    # in one
    assert error(1.0, 1.0) == pytest.approx(0.5)    # the last bin has its upper end
    assert error(0.93, 1.0) == pytest.approx(0.93 / 2)


def test_brier_score_is_the_sum_of_sklearns_over_the_classes():
    probabilities, targets = drawn(500)
    weights = np.random.default_rng(1).random(500)
    for weight in (None, weights):
        expected = sum(brier_score_loss(targets == k, probabilities[:, k], sample_weight=weight)
                       for k in range(5))
        assert calibration(probabilities, targets, weight)["Brier score"] == pytest.approx(expected)


def test_certainty_scores_0_when_right_and_2_when_wrong():
    targets = np.array([0, 1, 2])
    for predicted, error, score in ((targets, 0, 0), ((targets + 1) % 3, 1, 2)):
        assert calibration(np.eye(3)[predicted], targets) == pytest.approx(
            {"expected calibration error": error, "Brier score": score})


def test_probabilities_that_come_true_as_often_as_they_say_have_a_small_error():
    probabilities, targets = drawn(20_000)
    assert calibration(probabilities, targets)["expected calibration error"] < 0.01
    confident = soften(probabilities, 0.5)
    assert calibration(confident, targets)["expected calibration error"] > 0.1


def test_softening_by_one_changes_nothing_and_the_inverse_gives_back():
    probabilities, _ = drawn(200)
    np.testing.assert_allclose(soften(probabilities, 1), probabilities, atol=1e-9)
    for temperature in (0.5, 1.7, 3.0):
        there = soften(probabilities, temperature)
        np.testing.assert_allclose(there.sum(axis=1), 1)
        np.testing.assert_array_equal(there.argmax(axis=1), probabilities.argmax(axis=1))
        np.testing.assert_allclose(soften(there, 1 / temperature), probabilities, atol=1e-5)
    assert np.all(soften(probabilities, 2).max(axis=1) < probabilities.max(axis=1))


def test_softening_is_softmax_of_the_divided_logits_and_takes_zeros():
    logits = np.array([[1.0, 2, 4], [0, 0, -3]])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    half = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(soften(softmax, 2), half)
    with np.errstate(all="raise"):
        assert np.isfinite(soften(np.array([[1.0, 0, 0]]), 3)).all()


@pytest.mark.parametrize("temperature", [1.0, 1.4, 1.8])
def test_a_known_temperature_is_found(temperature):
    probabilities, targets = drawn(6000, temperature=temperature)
    found = fit_temperature(probabilities, targets, np.ones(6000))
    assert found == pytest.approx(temperature, rel=0.05)
    losses = [log_loss(targets, soften(probabilities, t))
              for t in (found, 0.9 * found, 1.1 * found)]
    assert losses[0] == min(losses)


@pytest.mark.parametrize(("true", "found"), [(0.5, 1.0), (4.0, HOTTEST)])
def test_a_temperature_stays_within_its_limits(true, found):
    probabilities, targets = drawn(2000, temperature=true)
    assert fit_temperature(probabilities, targets, np.ones(2000)) == pytest.approx(found, abs=1e-3)
    assert 1 <= fit_temperature(probabilities, targets, np.ones(2000)) <= HOTTEST


def test_a_separable_validation_set_makes_nothing_surer():
    probabilities, _ = drawn(50)
    targets = probabilities.argmax(axis=1)    # all right
    assert fit_temperature(probabilities, targets, np.ones(50)) == 1


def test_few_records_move_the_temperature_less_than_many_of_the_same():
    probabilities, targets = drawn(20, temperature=1.8)
    few, many = (fit_temperature(np.tile(probabilities, (n, 1)), np.tile(targets, n),
                                 np.ones(20 * n)) for n in (1, 50))
    assert 1 < few < many - 0.1


def test_the_temperature_is_that_of_the_weighted_records():
    over, over_targets = drawn(3000, temperature=1.8)
    exact, exact_targets = drawn(3000, seed=1)
    both, targets = np.vstack([over, exact]), np.concatenate([over_targets, exact_targets])
    for weights, expected in (([1, 0], 1.8), ([0, 1], 1.0)):
        found = fit_temperature(both, targets, np.repeat(weights, 3000).astype(float))
        assert found == pytest.approx(expected, rel=0.1)


def test_a_temperature_is_found_where_a_class_has_no_record():
    probabilities, targets = drawn(300, temperature=1.5)
    some = targets != 4
    assert 1 < fit_temperature(probabilities[some], targets[some], np.ones(some.sum())) < HOTTEST


def test_the_report_says_where_temperature_scaling_was_left_out(capsys):
    targets = np.repeat(np.arange(5), 8)
    words = "temperature scaling was left out: nothing was trained, or it would not help"
    evaluate(certain(targets), made_test(targets))
    printed = capsys.readouterr().out
    assert words in printed
    assert "after temperature scaling" not in printed
    evaluate(certain(targets), made_test(targets), temperature=1.5)
    assert words not in capsys.readouterr().out


def test_the_report_compares_calibration_before_and_after_also_at_label_shares(capsys):
    before, targets = drawn(1000, temperature=2.0)
    after = soften(before, 2)
    figures = evaluate(after, made_test(targets), temperature=2)
    found = figures["calibration"]
    assert found["test"]["before"] == pytest.approx(calibration(before, targets), abs=1e-6)
    assert found["test"]["after"] == calibration(after, targets)
    weights = (SHARES / np.bincount(targets))[targets]
    assert found["at label shares"]["after"] == calibration(after, targets, weights)
    error = "expected calibration error"
    assert found["test"]["after"][error] < 0.05 < 0.1 < found["test"]["before"][error]
    printed = capsys.readouterr().out
    for who in ("test", "at label shares"):
        for name in (error, "Brier score"):
            assert (f"{name}, {who}: {found[who]['before'][name]:.3f}, after temperature scaling "
                    f"{found[who]['after'][name]:.3f}") in printed


# ------------------------------------------------------------------------- accuracy by share kept
def test_the_least_certain_records_are_left_undecided_first(capsys):
    confidence = np.array([0.3, 0.9, 0.5, 0.7, 0.4, 0.8, 0.6, 0.35, 0.95, 0.45])
    right = np.array([0, 1, 1, 1, 0, 1, 0, 0, 1, 0], dtype=bool)    # 0.95 0.9 0.8 0.7, then 0.5
    targets = np.arange(10) % 5
    named = np.where(right, targets, (targets + 1) % 5)
    probabilities = np.where(np.eye(5)[named] == 1, confidence[:, None],
                             (1 - confidence[:, None]) / 4)
    figures = evaluate(probabilities, made_test(targets))
    kept = figures["accuracy by share kept"]
    assert kept["1.00"] == figures["model"]["accuracy"][0] == 0.5
    assert [kept[share] for share in ("0.10", "0.40", "0.50", "0.60", "0.80")] == pytest.approx(
        [1, 1, 4 / 5, 5 / 6, 5 / 8])
    assert len(kept) == 20
    assert "by share kept: 100% 0.500, 90% 0.556, 75% 0.625, 50% 0.800, 25% 1.000" in (
        capsys.readouterr().out)


def test_of_all_records_kept_the_accuracy_is_the_accuracy():
    for n in (1, 7, 333):
        probabilities, targets = drawn(n, seed=n)
        figures = evaluate(probabilities, made_test(targets))
        assert figures["accuracy by share kept"]["1.00"] == pytest.approx(
            figures["model"]["accuracy"][0])
        assert all(0 <= x <= 1 for x in figures["accuracy by share kept"].values())


# ------------------------------------------------------------------------------------- thresholds
def test_thresholds_are_chosen_on_validation_and_measured_on_test():
    """Of 40 records of a class, 38 have at least the third lowest probability: 95 %."""
    of_class = np.arange(1, 41) / 100
    validation = np.column_stack([np.r_[of_class, np.zeros(29)], np.zeros(69)])
    validation_targets = np.repeat([0, 1], [40, 29])    # one too few of the second
    test = np.column_stack([[0.9, 0.03, 0.02, 0.5, 0.01, 0.0], np.zeros(6)])
    found = thresholds(validation, validation_targets, test, np.array([0, 0, 0, 1, 1, 1]),
                       ["some", "few"])
    assert found["few"] is None
    assert found["some"] == pytest.approx(
        {"probability": 0.02, "sensitivity": 1, "specificity": 2 / 3})


def test_a_class_without_test_records_has_a_specificity_alone():
    targets = np.repeat(np.arange(5), 30)
    validation = Predicted(made_test(targets), certain(targets)[None])
    test = Predicted(made_test([0, 0, 1]), certain(np.array([0, 3, 1]))[None])
    report, figures = script.evaluate(
        validation, test, [1.0], CLASSES, SHARES, test.mean, "own.csv")
    found = figures["thresholds"]
    assert found["Atrial Fibrillation"]["sensitivity"] == 0.5
    assert found["Normal"]["sensitivity"] is None
    assert found["Normal"]["specificity"] == pytest.approx(2 / 3)
    assert ("Atrial Fibrillation from a probability of 0.968: sensitivity 0.500, specificity 1.000"
            in report)
    assert "Normal from a probability of 0.968: specificity 0.667\n" in report


def test_the_report_says_of_which_classes_there_are_too_few_for_a_threshold(capsys):
    targets = np.repeat(np.arange(5), [29, 30, 30, 30, 30])
    evaluate(certain(targets), made_test(targets))
    printed = capsys.readouterr().out
    assert ("Atrial Fibrillation: too few validation records to choose a probability\n"
            "Bradycardia from a probability of 0.968: sensitivity 1.000" in printed)

"""Scores of the accuracy benchmark: each figure by a case small enough to work out by hand."""

import numpy as np
import pytest

from benchmarks import scores
from benchmarks.scores import Scorer


def scorer_of(*records, n_classes=2):
    """Return a scorer of test records (patient, class)."""
    subjects, targets = zip(*records, strict=True)
    return Scorer(np.array(targets), np.array(subjects), n_classes)


def one_each(*counts):
    """Return a scorer with so many records of each class, each record of another patient."""
    targets = np.repeat(range(len(counts)), counts)
    return Scorer(targets, np.arange(len(targets)), len(counts))


# ------------------------------------------------------------------------------ balanced accuracy
def test_each_class_counts_the_same_however_many_records_it_has():
    targets = np.array([0, 0, 0, 0, 1, 1])
    predicted = np.array([0, 0, 0, 1, 1, 0])
    assert scores.balanced_accuracy(targets, predicted) == (3 / 4 + 1 / 2) / 2    # accuracy: 4 / 6


def test_a_class_without_a_record_does_not_count():
    targets = np.array([0, 0, 2])
    assert scores.balanced_accuracy(targets, np.array([0, 1, 2])) == (1 / 2 + 1) / 2


def test_averages_leave_out_classes_with_few_records():
    scorer = one_each(scores.ENOUGH, scores.ENOUGH - 1, 0)
    assert scorer.averaged.tolist() == [0]
    assert scorer.occurring.tolist() == [0, 1]

    all_as_class_0 = np.zeros((1, len(scorer.targets)), dtype=int)
    assert scorer.of_seeds(all_as_class_0) == [1.0]
    assert scorer.of_seeds(all_as_class_0, scorer.occurring) == [0.5]
    assert scorer.balanced(all_as_class_0)[0] == 1.0


def test_where_no_class_has_enough_records_all_that_occur_count():
    assert one_each(3, 0, 2).averaged.tolist() == [0, 2]


def test_recall_is_averaged_over_seeds_and_unknown_without_records():
    scorer = scorer_of((1, 0), (2, 0), (3, 1), n_classes=3)
    predicted = np.array([[0, 0, 1],     # recalls 1 and 1
                          [0, 1, 0]])    # recalls 1/2 and 0
    recall = scorer.recall(predicted)[0]
    assert recall[:2].tolist() == [0.75, 0.5]
    assert np.isnan(recall[2])


def test_macro_f1_by_hand():
    scorer = scorer_of((1, 0), (2, 0), (3, 1))
    # Class 0: precision 1, recall 1/2, F1 2/3. Class 1: precision 1/2, recall 1, F1 2/3.
    assert scorer.macro_f1(np.array([[0, 1, 1]])) == pytest.approx(2 / 3)


# -------------------------------------------------------------------------------------- bootstrap
def test_the_first_row_is_the_records_as_they_are_and_each_resample_has_as_many_patients():
    scorer = scorer_of((7, 0), (7, 1), (8, 0), (9, 1))
    assert scorer.times.shape == (1 + scores.RESAMPLES, 3)
    assert scorer.times[0].tolist() == [1, 1, 1]
    assert set(scorer.times.sum(axis=1)) == {3}


def test_a_patient_with_two_records_is_drawn_with_both_or_not_at_all():
    scorer = scorer_of((1, 0), (1, 0), (2, 0))
    recall = scorer.recall(np.array([[0, 0, 1]]))[:, 0]    # right, right, and wrong of patient 2
    # Drawn are both patients, patient 1 twice, or patient 2 twice; 1/3 would split a patient.
    assert set(recall[1:].round(6)) == {round(2 / 3, 6), 1.0, 0.0}
    assert recall[0] == pytest.approx(2 / 3)


def test_a_patient_drawn_twice_counts_twice():
    scorer = scorer_of((1, 0), (2, 0), (3, 0))
    scorer.times = np.array([[1, 1, 1], [2, 0, 1], [0, 3, 0]])
    recall = scorer.recall(np.array([[0, 1, 1]]))[:, 0]
    assert recall.tolist() == pytest.approx([1 / 3, 2 / 3, 0])


def test_a_class_that_a_resample_misses_is_left_out_of_its_average():
    scorer = scorer_of((1, 0), (2, 1))
    scorer.times = np.array([[1, 1], [2, 0], [0, 2]])
    assert scorer.balanced(np.array([[0, 0]])).tolist() == [0.5, 1.0, 0.0]


def test_two_scorers_of_the_same_patients_draw_the_same_resamples():
    first = scorer_of((1, 0), (2, 1), (3, 0), (4, 1))
    second = scorer_of((1, 1), (2, 0), (3, 1), (4, 0))
    np.testing.assert_array_equal(first.times, second.times)


def test_more_patients_make_a_narrower_interval():
    def width(n):
        scorer = one_each(n, n)
        half_right = np.arange(2 * n)[None] % 2 == 0
        predicted = np.where(half_right, scorer.targets, 1 - scorer.targets)
        return np.ptp(np.percentile(scorer.balanced(predicted)[1:], [2.5, 97.5]))

    assert width(200) < width(50) < width(20)


# ------------------------------------------------------------------------------------ differences
def test_a_difference_is_paired_resample_by_resample():
    ours = np.array([0.8, 0.6, 0.7, 0.9])
    baseline = ours - 0.1    # whose own interval overlaps with ours
    found = scores.difference(ours, baseline)
    assert found == pytest.approx((0.1, 0.1, 0.1))
    assert scores.versus(ours, baseline) == "+0.100 (+0.100 to +0.100), beats"
    assert scores.versus(baseline, ours) == "-0.100 (-0.100 to -0.100), loses"


def test_the_same_predictions_differ_by_nothing_in_every_resample():
    scorer = one_each(30, 30)
    rng = np.random.default_rng(0)
    predicted = rng.integers(0, 2, (3, 60))
    balanced = scorer.balanced(predicted)
    assert np.ptp(balanced) > 0.1    # else this would prove nothing
    assert scores.versus(balanced, scorer.balanced(predicted.copy())) == (
        "+0.000 (+0.000 to +0.000)")


@pytest.mark.parametrize(("gains", "verdict"), [
    ([0.01] * 40, "beats"),
    ([-0.01] * 40, "loses"),
    ([0.0] * 40, ""),
    ([-0.01] * 2 + [0.01] * 38, ""),           # 5 % of the resamples are below 0
    ([-0.01] * 1 + [0.01] * 99, "beats"),      # 1 %
    ([0.01] * 1 + [-0.01] * 99, "loses"),
])
def test_beats_and_loses_need_an_interval_without_0(gains, verdict):
    baseline = np.full(1 + len(gains), 0.7)
    ours = baseline + np.array([0.01, *gains])
    assert scores.difference(ours, baseline).verdict == verdict
    assert scores.versus(ours, baseline).endswith(f", {verdict}" if verdict else ")")


def test_the_value_of_a_difference_is_that_of_the_records_as_they_are():
    found = scores.difference(np.array([0.9, 0.5, 0.5]), np.array([0.6, 0.5, 0.5]))
    assert found.value == pytest.approx(0.3)
    assert (found.low, found.high) == (0, 0)


def test_a_system_that_is_better_on_every_patient_beats_the_other():
    scorer = one_each(20, 20)
    right = scorer.targets[None]
    balanced, other = scorer.balanced(right), scorer.balanced(1 - right)
    assert scores.versus(balanced, other) == "+1.000 (+1.000 to +1.000), beats"


# ------------------------------------------------------------------------------------------ words
def test_mean_and_deviation_of_seeds():
    assert scores.mean_deviation([0.5, 0.7]) == "0.600 ± 0.141"    # 0.2 / sqrt(2)
    assert scores.mean_deviation([0.5]) == "0.500"


def test_the_interval_is_the_central_95_percent():
    assert scores.interval(np.arange(1001) / 1000) == "0.025 to 0.975"


# ---------------------------------------------------------------------------------- probabilities
def test_accuracy_where_the_least_certain_records_are_left_undecided():
    certain = np.array([0.6, 0.9, 0.7, 0.8])
    probabilities = np.stack([certain, 1 - certain], axis=1)    # all predict class 0
    targets = np.array([1, 0, 0, 1])    # by falling certainty: right, wrong, right, wrong
    # Shares 1, 0.9, 0.75, 0.5 and 0.25 of four records keep 4, 4, 3, 2 and 1 of them.
    assert scores.accuracy_kept(probabilities, targets) == pytest.approx(
        [2 / 4, 2 / 4, 2 / 3, 1 / 2, 1])


def test_calibration_is_averaged_over_seeds():
    targets = np.array([0, 0])
    sure = np.array([[1.0, 0.0], [1.0, 0.0]])       # right: error 0, Brier score 0
    wrong = np.array([[0.0, 1.0], [0.0, 1.0]])      # sure and wrong: error 1, Brier score 2
    assert scores.calibrations([sure], targets) == (0, 0)
    assert scores.calibrations([sure, wrong], targets) == (0.5, 1)


def test_calibration_at_other_class_shares_weighs_the_records():
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0]])
    targets = np.array([0, 1])
    assert scores.calibrations([probabilities], targets) == (0.5, 1)
    error, brier = scores.calibrations([probabilities], targets, np.array([3.0, 1.0]))
    assert (error, brier) == (0.25, 0.5)

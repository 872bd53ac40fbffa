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
def test_averages_leave_out_classes_with_few_records():
    scorer = one_each(scores.MIN_RECORDS, scores.MIN_RECORDS - 1, 0)
    assert scorer.averaged.tolist() == [0]
    all_as_class_0 = np.zeros((1, len(scorer.targets)), dtype=int)
    assert scorer.of_seeds(all_as_class_0) == [1.0]
    assert scorer.of_seeds(all_as_class_0, scorer.occurring) == [0.5]
    assert scorer.balanced(all_as_class_0)[0] == 1.0
    assert one_each(3, 0, 2).averaged.tolist() == [0, 2]    # where none has enough, all


def test_recall_and_macro_f1_are_averaged_over_seeds():
    scorer = scorer_of((1, 0), (2, 0), (3, 1), n_classes=3)
    predicted = np.array([[0, 0, 1],     # recalls 1 and 1
                          [0, 1, 0]])    # recalls 1/2 and 0, F1 1/2 and 0
    recall = scorer.recall(predicted)[0]
    assert recall[:2].tolist() == [0.75, 0.5]
    assert np.isnan(recall[2])    # without a record
    assert scorer.macro_f1(predicted) == pytest.approx((1 + 1 / 4) / 2)


# -------------------------------------------------------------------------------------- bootstrap
def test_patients_are_resampled_with_all_of_their_records():
    scorer = scorer_of((1, 0), (1, 0), (2, 0))
    recall = scorer.recall(np.array([[0, 0, 1]]))[:, 0]    # right, right, and wrong of patient 2
    # Drawn are both patients, patient 1 twice, or patient 2 twice; 1/3 would split a patient
    assert set(recall[1:].round(6)) == {round(2 / 3, 6), 1.0, 0.0}
    assert recall[0] == pytest.approx(2 / 3)    # the records as they are


def test_a_class_that_a_resample_misses_is_left_out_of_its_average():
    scorer = scorer_of((1, 0), (2, 1))
    scorer.times = np.array([[1, 1], [2, 0], [0, 2]])
    assert scorer.balanced(np.array([[0, 0]])).tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize(("gains", "verdict"), [
    ([0.01] * 40, ", beats"),
    ([-0.01] * 40, ", loses"),
    ([-0.01] * 2 + [0.01] * 38, ""),           # 5 % of the resamples are below 0
    ([-0.01] * 1 + [0.01] * 99, ", beats"),    # 1 %
    ([0.01] * 1 + [-0.01] * 99, ", loses")])
def test_beats_and_loses_need_an_interval_of_paired_differences_without_0(gains, verdict):
    baseline = np.linspace(0.5, 0.9, 1 + len(gains))    # whose own interval is wide
    words = scores.versus(baseline + np.array([0.02, *gains]), baseline)
    assert words.startswith("+0.020 (")    # of the records as they are
    assert words.endswith(f"){verdict}")


# ---------------------------------------------------------------------------------- probabilities
def test_trust_is_averaged_over_seeds_also_at_another_prevalence():
    targets = np.array([0, 1])
    sure = np.array([[1.0, 0.0], [1.0, 0.0]])    # of class 0: wrong once, by 2
    right = np.eye(2)
    found = scores.trust(np.stack([sure, right]), targets, np.array([3.0, 1.0]))
    assert (found["expected calibration error"], found["Brier score"]) == (1 / 4, 1 / 2)
    # At this prevalence only one of four is of class 1
    assert found["expected calibration error at the training's prevalence"] == 1 / 8
    assert found["Brier score at the training's prevalence"] == 1 / 4

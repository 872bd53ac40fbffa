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
def test_averages_are_over_all_classes_that_occur_or_those_with_enough_records():
    scorer = one_each(scores.MIN_RECORDS, scores.MIN_RECORDS - 1, 0)
    all_as_class_0 = np.zeros((1, len(scorer.targets)), dtype=int)
    assert scorer.of_seeds(all_as_class_0) == [0.5]
    assert scorer.balanced(all_as_class_0)[0] == 0.5
    assert scorer.of_seeds(all_as_class_0, scorer.frequent) == [1.0]


# -------------------------------------------------------------------------------------- bootstrap
def test_patients_are_resampled_with_all_of_their_records():
    scorer = scorer_of((1, 0), (1, 0), (2, 0))
    recall = scorer.recall(np.array([[0, 0, 1]]))[:, 0]    # right, right, and wrong of patient 2
    # Drawn are both patients, patient 1 twice, or patient 2 twice; 1/3 would split a patient
    assert set(recall[1:].round(6)) == {round(2 / 3, 6), 1.0, 0.0}
    assert recall[0] == pytest.approx(2 / 3)    # the records as they are


@pytest.mark.parametrize(("gains", "verdict"), [
    ([-0.01] * 2 + [0.01] * 38, ""),           # 5 % of the resamples are below 0
    ([-0.01] * 1 + [0.01] * 99, ", beats"),    # 1 %
    ([0.01] * 1 + [-0.01] * 99, ", loses")])
def test_beats_and_loses_need_an_interval_of_paired_differences_without_0(gains, verdict):
    baseline = np.linspace(0.5, 0.9, 1 + len(gains))    # whose own interval is wide
    words = scores.versus(baseline + np.array([0.02, *gains]), baseline)
    assert words.startswith("+0.020 (")    # of the records as they are
    assert words.endswith(f"){verdict}")


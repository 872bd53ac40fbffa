"""Scores of systems on the same test records, with intervals from a bootstrap over patients."""

import functools

import numpy as np
import pandas as pd
from sklearn.metrics import recall_score

from benchmarks.folds import SEED
from ecg.metrics import accuracy_at_coverage, calibration

RESAMPLES = 2000    # of the patients
MIN_RECORDS = 20    # of a class among the test records, for it to count in the second average
COVERAGES = 1.0, 0.9, 0.75, 0.5, 0.25    # shares of the records, the most certain ones


def balanced_accuracy(targets, predicted, classes=None):
    """Return the mean recall of `classes`, or of those that occur."""
    labels = np.unique(targets) if classes is None else classes
    return float(recall_score(targets, predicted, labels=labels, average="macro"))


class Scorer:
    """Scores over one set of test records, on the same resamples for all systems.

    Parameters
    ----------
    targets : ndarray of int (n,)
    subjects : ndarray (n,)
        The patient of each record: patients are resampled, never records.
    n_classes : int

    Attributes
    ----------
    count : ndarray of int (n_classes,)
        Test records of each class.
    occurring : ndarray of int
        Classes with a test record: those that averages are over.
    frequent : ndarray of int
        Classes with `MIN_RECORDS` test records or more.
    """

    def __init__(self, targets, subjects, n_classes):
        self.targets = targets
        self.n_classes = n_classes
        self.count = np.bincount(targets, minlength=n_classes)
        self.occurring = np.flatnonzero(self.count)
        self.frequent = np.flatnonzero(self.count >= MIN_RECORDS)
        _, self.patient = np.unique(subjects, return_inverse=True)
        self.n_patients = self.patient.max() + 1

    @functools.cached_property
    def times(self):
        """How often each patient is drawn: once at first, then as in each resample."""
        n = self.n_patients
        drawn = np.random.default_rng(SEED).multinomial(n, [1 / n] * n, RESAMPLES)
        return np.vstack([np.ones(n, dtype=int), drawn])

    def recall(self, predicted):
        """Return the recall of each class, averaged over the seeds.

        Parameters
        ----------
        predicted : ndarray of int (seeds, n)

        Returns
        -------
        ndarray (1 + RESAMPLES, n_classes)
            Of the records as they are, then of each resample. NaN: no record of the class.
        """
        hits = (predicted == self.targets).mean(axis=0)
        right = self.times @ self._by_patient(hits)
        records = self.times @ self._by_patient(np.ones(len(self.targets)))
        with np.errstate(invalid="ignore"):
            return right / records

    def _by_patient(self, weights):
        """Sum up the records' weights for each patient and class."""
        table = np.zeros((self.n_patients, self.n_classes))
        np.add.at(table, (self.patient, self.targets), weights)
        return table

    def balanced(self, predicted):
        """Return the balanced accuracy of the records as they are, then of each resample."""
        return np.nanmean(self.recall(predicted), axis=1)

    def of_seeds(self, predicted, classes=None):
        """Return the balanced accuracy of each seed, over `classes` or all that occur."""
        return [balanced_accuracy(self.targets, p, classes) for p in predicted]


def versus(balanced, other):
    """Compare two systems by what `Scorer.balanced` returned for each: resample by resample.

    Returns
    -------
    str
        The difference with its 95 % interval; and "beats" or "loses" where that excludes 0.
    """
    paired = balanced - other
    low, high = np.percentile(paired[1:], [2.5, 97.5])
    verdict = ", beats" if low > 0 else ", loses" if high < 0 else ""
    return f"{paired[0]:+.3f} ({low:+.3f} to {high:+.3f}){verdict}"


def interval(values):
    """Return 'a to b', the central 95 % of the values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return f"{low:.3f} to {high:.3f}"


def mean_deviation(values):
    """Return 'mean ± standard deviation', or of a single value that alone."""
    mean = f"{np.mean(values):.3f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {np.std(values, ddof=1):.3f}"


def trust(probabilities, targets):
    """Return calibration and accuracy by coverage, averaged over the seeds, by their names.

    Parameters
    ----------
    probabilities : ndarray (seeds, n, n_classes)
    targets : ndarray of int (n,)
    """
    measured = []
    for p in probabilities:
        by_coverage = accuracy_at_coverage(p, targets)
        at = {f"accuracy at coverage {c:.0%}": by_coverage[f"{c:.2f}"] for c in COVERAGES}
        measured.append(calibration(p, targets) | at)
    return pd.DataFrame(measured).mean().to_dict()

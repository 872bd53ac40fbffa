"""Scores of systems on the same test records, with intervals from a bootstrap over patients."""

import functools
from typing import NamedTuple

import numpy as np
from sklearn.metrics import f1_score

from benchmarks.folds import SEED
from ecg.metrics import accuracy_at_coverage, calibration

RESAMPLES = 2000    # of the patients
ENOUGH = 20         # test records that a class needs to count in averages
SHARES_KEPT = 1.0, 0.9, 0.75, 0.5, 0.25    # of the records, the most certain ones


def balanced_accuracy(targets, predicted, classes=None):
    """Return the mean recall of `classes`, or of those that occur."""
    if classes is None:
        classes = np.unique(targets)
    recalls = [(predicted[targets == k] == k).mean() for k in classes]
    return float(np.mean(recalls))


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
    averaged : ndarray of int
        Classes with `ENOUGH` test records or more; if there is none, all that occur.
    occurring : ndarray of int
        Classes with a test record.
    """

    def __init__(self, targets, subjects, n_classes):
        self.targets = targets
        self.n_classes = n_classes
        self.count = np.bincount(targets, minlength=n_classes)
        self.occurring = np.flatnonzero(self.count)
        enough = np.flatnonzero(self.count >= ENOUGH)
        self.averaged = enough if len(enough) else self.occurring
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
        unknown = np.full_like(right, np.nan)
        return np.divide(right, records, out=unknown, where=records > 0)

    def _by_patient(self, weights):
        """Sum up the records' weights for each patient and class."""
        table = np.zeros((self.n_patients, self.n_classes))
        np.add.at(table, (self.patient, self.targets), weights)
        return table

    def balanced(self, predicted):
        """Return the balanced accuracy of the records as they are, then of each resample."""
        return np.nanmean(self.recall(predicted)[:, self.averaged], axis=1)

    def of_seeds(self, predicted, classes=None):
        """Return the balanced accuracy of each seed, over `classes` or the averaged ones."""
        if classes is None:
            classes = self.averaged
        return [balanced_accuracy(self.targets, p, classes) for p in predicted]

    def macro_f1(self, predicted):
        """Return the macro F1, averaged over the seeds."""
        scores = [f1_score(self.targets, p, labels=self.averaged, average="macro", zero_division=0)
                  for p in predicted]
        return np.mean(scores)


class Difference(NamedTuple):
    """A difference of two systems on the same records, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self):
        """'beats' or 'loses' if the interval excludes 0, else nothing."""
        if self.low > 0:
            return "beats"
        if self.high < 0:
            return "loses"
        return ""

    def __str__(self):
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def difference(balanced, other):
    """Compare two systems by what `Scorer.balanced` returned for each: resample by resample."""
    paired = balanced - other
    low, high = np.percentile(paired[1:], [2.5, 97.5])
    return Difference(float(paired[0]), float(low), float(high))


def versus(balanced, other):
    """Return the difference of two systems in words, such as '+0.1 (+0.0 to +0.2), beats'."""
    found = difference(balanced, other)
    return f"{found}, {found.verdict}" if found.verdict else str(found)


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


def calibrations(probabilities, targets, weights=None):
    """Return calibration error and Brier score, each averaged over the seeds."""
    scores = [calibration(p, targets, weights) for p in probabilities]
    names = "expected calibration error", "Brier score"
    return tuple(float(np.mean([score[name] for score in scores])) for name in names)


def accuracy_kept(probabilities, targets):
    """Return the accuracy where the least certain records are left undecided.

    Returns
    -------
    list of float
        For each of `SHARES_KEPT`.
    """
    by_share = accuracy_at_coverage(probabilities, targets)
    return [by_share[f"{share:.2f}"] for share in SHARES_KEPT]

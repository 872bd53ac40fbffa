"""Areas under ROC and precision-recall curves, with intervals over patients."""

import numpy as np
from scipy.special import betaincinv

RESAMPLES = 1000    # of the patients; fewer where records are many, whose intervals are narrow
FEWEST = 100
AT_ONCE = 2_000_000    # records times resamples held in memory, or drawn at all


def weighted_areas(positive: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve and the average precision for each row of weights.

    Parameters
    ----------
    positive : ndarray of bool, shape (n,)
    p : ndarray, shape (n,), probabilities of the class
    weights : ndarray, shape (draws, n), how often each record counts

    Returns
    -------
    ndarray, shape (2, draws); NaN where one of the two sides has no record
    """
    order = np.argsort(-p, kind="stable")
    ranked = p[order]
    is_last = np.append(ranked[1:] != ranked[:-1], True)    # of records with the same probability
    weights = weights[:, order]
    of_class = weights * positive[order]
    own = np.cumsum(of_class, axis=1)[:, is_last]
    called = np.cumsum(weights, axis=1)[:, is_last]

    others = called - own
    n_own = own[:, -1]
    n_others = others[:, -1]
    new_own = np.diff(own, axis=1, prepend=0)
    new_others = np.diff(others, axis=1, prepend=0)
    middle = own - new_own / 2    # of records with the same probability, half count
    with np.errstate(invalid="ignore", divide="ignore"):
        area = np.sum(new_others * middle, axis=1)
        area /= n_own * n_others
        precision = own / called
        precision[called == 0] = 0
        average = np.sum(new_own * precision, axis=1)
        average /= n_own

    return np.stack([area, average])


def count_patients(patient: np.ndarray) -> int:
    """Return how many different patients there are."""
    return len(np.unique(patient))


def areas(
    positive: np.ndarray, p: np.ndarray, subjects: np.ndarray, seed: int = 42
) -> tuple[list[float], list[float]]:
    """Return the area under the ROC curve and the average precision, each as [value, low, high].

    The 95 % interval: percentiles of a bootstrap of patients. Where every record is in order, a
    bootstrap has no width: then the lower end is that of Jeffreys' interval for n of n patients of
    the rarer side (as `ecg.metrics.accuracies` does for a recall of 1).

    Parameters
    ----------
    positive : ndarray of bool, shape (n,), with both values
    p : ndarray, shape (n,), probabilities of the class
    subjects : ndarray, shape (n,), patients
    """
    _, patient = np.unique(subjects, return_inverse=True)
    n_patients = count_patients(patient)
    share = np.full(n_patients, 1 / n_patients)
    draws = int(np.clip(AT_ONCE // len(p), FEWEST, RESAMPLES))
    rng = np.random.default_rng(seed)
    resampled = []
    for first in range(0, draws, FEWEST):
        size = min(FEWEST, draws - first)
        times = rng.multinomial(n_patients, share, size)
        resampled.append(weighted_areas(positive, p, times[:, patient]))

    once = np.ones((1, len(p)))
    values = weighted_areas(positive, p, once)[:, 0]
    low, high = np.nanpercentile(np.hstack(resampled), [2.5, 97.5], axis=1)
    rarer = min(
        count_patients(patient[positive]),
        count_patients(patient[~positive]),
    )
    low = np.where(values == 1, betaincinv(rarer + 0.5, 0.5, 0.025), low)
    low = np.minimum(low, values)
    high = np.maximum(high, values)
    area, average = np.stack([values, low, high], axis=1).tolist()
    return area, average

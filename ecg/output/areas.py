"""Areas under ROC and precision-recall curves, with intervals over patients."""

import numpy as np
from scipy.integrate import trapezoid
from scipy.special import betaincinv

MAX_RESAMPLES = 1000    # of the patients; fewer where records are many, whose intervals are narrow
MIN_RESAMPLES = 100
MAX_DRAWN_RECORDS = 2_000_000    # records times resamples


def weighted_areas(
    positive: np.ndarray,
    p: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
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
    is_cut = np.append(np.diff(p[order]) != 0, True)    # after records of the same probability
    weights = weights[:, order]
    of_class = weights * positive[order]
    sums = np.cumsum([of_class, weights], axis=2)[:, :, is_cut]
    from_zero = (0, 0), (0, 0), (1, 0)
    true_positives, called = np.pad(sums, from_zero)
    false_positives = called - true_positives
    n_positive = true_positives[:, -1]
    n_negative = false_positives[:, -1]

    with np.errstate(invalid="ignore", divide="ignore"):
        area = trapezoid(true_positives, false_positives)
        area /= n_positive * n_negative
        precision = np.nan_to_num(true_positives / called)[:, 1:]
        gains = np.diff(true_positives) * precision
        average = gains.sum(axis=1) / n_positive
    return np.stack([area, average])


def areas(
    positive: np.ndarray,
    p: np.ndarray,
    subjects: np.ndarray,
    seed: int = 42,
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
    names, patient = np.unique(subjects, return_inverse=True)
    share = np.full(len(names), 1 / len(names))
    fitting = MAX_DRAWN_RECORDS // len(p)
    n_draws = int(np.clip(fitting, MIN_RESAMPLES, MAX_RESAMPLES))
    rng = np.random.default_rng(seed)
    times_drawn = rng.multinomial(len(names), share, n_draws)
    resampled = weighted_areas(positive, p, times_drawn[:, patient])

    once = np.ones((1, len(p)))
    values = weighted_areas(positive, p, once)[:, 0]
    low, high = np.nanpercentile(resampled, [2.5, 97.5], axis=1)
    n_rarer = min(
        len(np.unique(subjects[positive])),
        len(np.unique(subjects[~positive])),
    )
    of_all_right = betaincinv(n_rarer + 0.5, 0.5, 0.025)
    low = np.where(values == 1, of_all_right, low)
    low = np.minimum(low, values)
    high = np.maximum(high, values)
    area, average = np.stack([values, low, high], axis=1)
    return area.tolist(), average.tolist()

"""Measure probabilities: accuracy with intervals, calibration, and the simplest rival, a rate rule.

Arrays in, numbers out.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

RESAMPLES = 1000  # of the patients, for intervals
SLOW, FAST = 60, 100  # bpm: bradycardia below, tachycardia above


def soften(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return what softmax would have given of the same logits divided by `temperature`."""
    return softmax(np.log(probabilities + 1e-12) / temperature, axis=1)


def fit_temperature(
    probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> float:
    """Find the temperature of least negative log-likelihood.

    Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2.

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_classes)
    targets : ndarray of int, shape (n,)
    weights : ndarray, shape (n,)
    """
    labels = range(probabilities.shape[1])

    def loss(log_temperature: float) -> float:
        softened = soften(probabilities, np.exp(log_temperature))
        return log_loss(targets, softened, sample_weight=weights, labels=labels)

    found = minimize_scalar(loss, bounds=(-2, 2), method="bounded")
    return float(np.exp(found.x))


def rate_rule(
    heart_rate: np.ndarray, classes: list[str], shares: np.ndarray
) -> np.ndarray:
    """Predict by heart rate alone: slow, fast, or else the commonest other class.

    Machine-read rate labels are largely rate rules: a model has to beat this to have learnt much.

    Parameters
    ----------
    heart_rate : ndarray, shape (n,), bpm
    classes : list of n_classes str
        Which are slow and fast is told by their names.
    shares : ndarray, shape (n_classes,), how common each class is

    Returns
    -------
    ndarray of int, shape (n,), class numbers
    """
    names = [name.casefold() for name in classes]
    slow = np.array(["brady" in name for name in names]) * shares
    fast = np.array(["tachy" in name for name in names]) * shares
    is_other = slow + fast == 0
    other = int(np.argmax(np.where(is_other, shares, 1e-9 * shares)))

    is_slow = (heart_rate < SLOW) & slow.any()
    is_fast = (heart_rate > FAST) & fast.any()
    return np.select([is_slow, is_fast], [slow.argmax(), fast.argmax()], other)


def accuracies(
    targets: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, seed: int = 42
) -> dict[str, list[float]]:
    """Return accuracy and balanced accuracy, each as [value, low, high].

    The 95 % interval: percentiles of a bootstrap of patients (Efron & Tibshirani, An Introduction
    to the Bootstrap, 1993).

    Parameters
    ----------
    targets, predicted : ndarray of int, shape (n,)
    subjects : ndarray, shape (n,), patients
    seed : int
    """
    records = pd.crosstab(subjects, targets)
    right = pd.crosstab(
        subjects, targets, values=predicted == targets, aggfunc="sum"
    ).fillna(0)
    n = len(records)
    draws = np.random.default_rng(seed).multinomial(n, [1 / n] * n, RESAMPLES)
    times = np.vstack([np.ones(n), draws])  # first, each patient once
    right = times @ right.astype(float)
    records = times @ records

    balanced = (right / records).mean(axis=1)  # a class that was not drawn is left out
    scores = {
        "accuracy": right.sum(axis=1) / records.sum(axis=1),
        "balanced accuracy": balanced,
    }
    return {
        name: [float(score[0]), *np.percentile(score[1:], [2.5, 97.5]).tolist()]
        for name, score in scores.items()
    }


def calibration(
    probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, float]:
    """Return expected calibration error, over 10 bins of the confidence, and Brier score, 0 to 2.

    Guo et al., ICML 2017; Brier, Monthly Weather Review 1950;78:1-3.

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_classes)
    targets : ndarray of int, shape (n,)
    weights : ndarray, shape (n,), or None for equal ones
    """
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == targets
    weights = np.ones(len(targets)) if weights is None else weights
    bins = np.minimum((confidence * 10).astype(int), 9)
    gap = np.bincount(bins, weights * (confidence - is_right))

    truth = np.eye(probabilities.shape[1])[targets]
    distance = ((probabilities - truth) ** 2).sum(axis=1)
    return {
        "expected calibration error": float(np.abs(gap).sum() / weights.sum()),
        "Brier score": float(np.average(distance, weights=weights)),
    }


def calibrations(
    each: np.ndarray,
    temperatures: list[float],
    targets: np.ndarray,
    label_weights: np.ndarray,
) -> dict[str, Any]:
    """Return `calibration` before and after temperature scaling, on test and at label shares.

    Parameters
    ----------
    each : ndarray, shape (models, n, n_classes), probabilities after temperature scaling
    temperatures : list of float, by which the models' logits were divided
    targets : ndarray of int, shape (n,)
    label_weights : ndarray, shape (n,), that give the classes their shares in the label file
    """
    after = np.mean(each, axis=0)
    before = np.mean(
        [soften(p, 1 / t) for p, t in zip(each, temperatures, strict=True)], axis=0
    )
    found = {}
    for where, weights in (("test", None), ("at label shares", label_weights)):
        found[where] = {
            "before": calibration(before, targets, weights),
            "after": calibration(after, targets, weights),
        }
    return found


def accuracy_by_share_kept(
    probabilities: np.ndarray, targets: np.ndarray
) -> dict[str, float]:
    """Return the accuracy of whoever answers "I don't know" to the least certain records.

    Returns
    -------
    dict
        By share of the records kept, "1.00" to "0.05".
    """
    is_right = probabilities.argmax(axis=1) == targets
    confidence = probabilities.max(axis=1)
    most_certain_first = is_right[np.argsort(-confidence, kind="stable")]
    found = {}
    for share in np.arange(20, 0, -1) / 20:
        n_kept = max(1, round(share * len(targets)))
        found[f"{share:.2f}"] = float(most_certain_first[:n_kept].mean())
    return found

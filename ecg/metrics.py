"""Measure probabilities: accuracy with intervals, calibration, and the baseline, a rate rule.

Arrays in, numbers out.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from sklearn.metrics import precision_recall_fscore_support

RESAMPLES = 1000  # of the patients, for intervals
SLOW, FAST = 60, 100  # bpm: bradycardia below, tachycardia above
HOTTEST = 2.0  # temperature; one beyond it says that something else is wrong
PRIOR = 10.0  # so many records' worth of evidence for a temperature of 1
SENSITIVITY = 0.95  # at which thresholds are chosen
ENOUGH = 30  # validation records of a class, to choose a threshold


def soften(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return what softmax would have given of the same logits divided by `temperature`."""
    return softmax(np.log(probabilities + 1e-12) / temperature, axis=1)


def fit_temperature(
    probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> float:
    """Fit the temperature that divides the logits on validation records, shrunk towards 1.

    Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2. It is never below
    1: a model is no surer of itself on new patients than on those that chose its settings, and a
    separable validation set would ask for certainty.

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_classes)
    targets : ndarray of int, shape (n,)
    weights : ndarray, shape (n,)

    Returns
    -------
    float, from 1 to `HOTTEST`
    """
    logits = np.log(np.clip(probabilities, 1e-12, 1))
    of_truth = logits[np.arange(len(targets)), targets]

    def cost(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        losses = logsumexp(logits / temperature, axis=1) - of_truth / temperature
        doubt = PRIOR * log_temperature**2 / len(targets)
        return np.average(losses, weights=weights) + doubt

    found = minimize_scalar(cost, bounds=(0, np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x)) if found.fun < cost(0) else 1.0


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
    targets: np.ndarray,
    predicted: np.ndarray,
    subjects: np.ndarray,
    seed: int = 42,
) -> dict[str, list[float]]:
    """Return accuracy and balanced accuracy, each as [value, low, high].

    The 95 % interval: percentiles of a bootstrap of patients (Efron & Tibshirani, An Introduction
    to the Bootstrap, 1993). A bootstrap of a class in which all are right, or all wrong, has no
    width: there, the recall is drawn from Jeffreys' posterior of n patients, Beta(n + 1/2, 1/2)
    (Brown, Cai & DasGupta, Statistical Science 2001;16:101-133).

    Parameters
    ----------
    targets, predicted : ndarray of int, shape (n,)
    subjects : ndarray, shape (n,), patients
    seed : int
    """
    records = pd.crosstab(subjects, targets).astype(float)
    is_right = predicted == targets
    right = pd.crosstab(subjects, targets, values=is_right, aggfunc="sum").fillna(0)
    rng = np.random.default_rng(seed)
    n = len(records)
    draws = rng.multinomial(n, [1 / n] * n, RESAMPLES)
    times = np.vstack([np.ones(n), draws])  # first, each patient once
    n_right = times @ right.to_numpy(dtype=float)
    n_records = times @ records.to_numpy()
    with np.errstate(invalid="ignore"):  # a class that was not drawn
        recall = n_right / n_records

    for number, share in enumerate(recall[0]):
        if share in (0, 1):
            n_patients = (records.iloc[:, number] > 0).sum()
            drawn = rng.beta(n_patients + 0.5, 0.5, RESAMPLES)
            recall[1:, number] = drawn if share else 1 - drawn

    weight = n_records / n_records.sum(axis=1, keepdims=True)
    accuracy = np.nansum(recall * weight, axis=1)
    accuracy[0] = is_right.mean()  # the same, without rounding
    scores = {
        "accuracy": accuracy,
        "balanced accuracy": np.nanmean(recall, axis=1),
    }
    return {name: with_interval(score) for name, score in scores.items()}


def by_class(
    targets: np.ndarray,
    predicted: np.ndarray,
    classes: list[str],
    weights: np.ndarray | None = None,
) -> dict[str, dict[str, float]]:
    """Return precision, recall, f1-score and support (weight of the records) by class name.

    Parameters
    ----------
    targets, predicted : ndarray of int, shape (n,)
    classes : list of n_classes str; any text, also a word of scikit-learn's own report
    weights : ndarray, shape (n,), or None for equal ones
    """
    scores = precision_recall_fscore_support(
        targets, predicted, labels=range(len(classes)), sample_weight=weights, zero_division=0)
    kinds = "precision", "recall", "f1-score", "support"
    rows = np.transpose(scores).tolist()
    return {name: dict(zip(kinds, row, strict=True))
            for name, row in zip(classes, rows, strict=True)}


def reweighted(
    targets: np.ndarray,
    predicted: np.ndarray,
    classes: list[str],
    weights: np.ndarray,
) -> dict[str, Any]:
    """Return accuracy and `by_class` of records with these weights."""
    return {
        "accuracy": float(np.average(predicted == targets, weights=weights)),
        "per class": by_class(targets, predicted, classes, weights),
    }


def with_interval(scores: np.ndarray) -> list[float]:
    """Return [value, low, high] of a score and its resamples; the value lies within."""
    low, high = np.percentile(scores[1:], [2.5, 97.5])
    value = scores[0]
    return [float(value), float(min(low, value)), float(max(high, value))]


def thresholds(
    validation: np.ndarray,
    validation_targets: np.ndarray,
    test: np.ndarray,
    test_targets: np.ndarray,
    classes: list[str],
) -> dict[str, Any]:
    """Choose for each class the probability from which it is told with a sensitivity of 0.95.

    Parameters
    ----------
    validation, test : ndarray, shape (n, n_classes), probabilities
    validation_targets, test_targets : ndarray of int, shape (n,)
    classes : list of n_classes str

    Returns
    -------
    dict
        By class: None where validation has too few records of it; else the probability, chosen on
        validation patients, and sensitivity and specificity there on test patients.
    """
    found: dict[str, Any] = {}
    for number, name in enumerate(classes):
        of_class = validation[validation_targets == number, number]
        if len(of_class) < ENOUGH:
            found[name] = None
            continue

        at = float(np.quantile(of_class, 1 - SENSITIVITY, method="lower"))
        is_called = test[:, number] >= at
        is_so = test_targets == number
        found[name] = {
            "probability": at,
            "sensitivity": float(is_called[is_so].mean()) if is_so.any() else None,
            "specificity": float((~is_called)[~is_so].mean()) if not is_so.all() else None,
        }
    return found


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
    label_weights: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return `calibration` before and after temperature scaling, on test and at label shares.

    Parameters
    ----------
    each : ndarray, shape (models, n, n_classes), probabilities after temperature scaling
    temperatures : list of float, by which the models' logits were divided
    targets : ndarray of int, shape (n,)
    label_weights : ndarray, shape (n,), optional
        Give the classes their shares in the label file.
    """
    after = np.mean(each, axis=0)
    pairs = zip(each, temperatures, strict=True)
    before = np.mean([p if temperature == 1 else soften(p, 1 / temperature)    # then exact
                      for p, temperature in pairs], axis=0)
    found = {}
    for where, weights in (("test", None), ("at label shares", label_weights)):
        if where == "at label shares" and weights is None:
            continue
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

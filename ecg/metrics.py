"""Measure probabilities: accuracy with intervals, calibration, thresholds, and a rate rule.

Arrays in, numbers out.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from sklearn.metrics import precision_recall_fscore_support

RESAMPLES = 1000            # of the patients, for intervals
SEED = 42                   # of the resamples
SLOW_BPM, FAST_BPM = 60, 100    # bradycardia below, tachycardia above
MAX_TEMPERATURE = 2.0       # beyond it, something else is wrong
PRIOR_RECORDS = 10.0        # records' worth of evidence for a temperature of 1
SENSITIVITY = 0.95          # at which decision thresholds are chosen
MIN_RECORDS = 30            # validation records of a class, to choose a threshold


def soften(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return what softmax would have given of the same logits divided by `temperature`."""
    return softmax(np.log(probabilities + 1e-12) / temperature, axis=1)


def fit_temperature(
    probabilities: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
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
    float, from 1 to `MAX_TEMPERATURE`
    """
    logits = np.log(np.clip(probabilities, 1e-12, 1))
    of_truth = logits[np.arange(len(targets)), targets]

    def cost(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        losses = logsumexp(logits / temperature, axis=1) - of_truth / temperature
        prior = PRIOR_RECORDS * log_temperature**2 / len(targets)
        return np.average(losses, weights=weights) + prior

    best = minimize_scalar(cost, bounds=(0, np.log(MAX_TEMPERATURE)), method="bounded")
    return float(np.exp(best.x)) if best.fun < cost(0) else 1.0


def rate_rule(
    heart_rate: np.ndarray,
    classes: list[str],
    prevalence: np.ndarray,
) -> np.ndarray:
    """Predict by heart rate alone: slow, fast, or else the commonest other class.

    Machine-read rate labels are largely rate rules: a model has to beat this to have learnt much.

    Parameters
    ----------
    heart_rate : ndarray, shape (n,), bpm
    classes : list of n_classes str
        Which are slow and fast is told by their names.
    prevalence : ndarray, shape (n_classes,), how common each class is

    Returns
    -------
    ndarray of int, shape (n,), class numbers
    """
    slow, fast = (prevalence * [word in name.casefold() for name in classes]
                  for word in ("brady", "tachy"))
    is_other = slow + fast == 0
    other = np.argmax(np.where(is_other, prevalence, 1e-9 * prevalence))
    is_slow = (heart_rate < SLOW_BPM) & slow.any()
    is_fast = (heart_rate > FAST_BPM) & fast.any()
    return np.select([is_slow, is_fast], [slow.argmax(), fast.argmax()], other)


def accuracies(
    targets: np.ndarray,
    predicted: np.ndarray,
    subjects: np.ndarray,
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
    """
    is_right = predicted == targets
    records = pd.crosstab(subjects, targets).astype(float)
    right = pd.crosstab(subjects, targets, values=is_right, aggfunc="sum").fillna(0).astype(float)
    rng = np.random.default_rng(SEED)
    n = len(records)
    draws = rng.multinomial(n, [1 / n] * n, RESAMPLES)
    times = np.vstack([np.ones(n), draws])    # first, each patient once
    n_records = times @ records.to_numpy()
    with np.errstate(invalid="ignore"):    # a class that was not drawn
        recall = times @ right.to_numpy() / n_records

    for number, share in enumerate(recall[0]):
        if share in (0, 1):
            n_patients = (records.iloc[:, number] > 0).sum()
            drawn = rng.beta(n_patients + 0.5, 0.5, RESAMPLES)
            recall[1:, number] = drawn if share else 1 - drawn

    weight = n_records / n_records.sum(axis=1, keepdims=True)
    accuracy = np.nansum(recall * weight, axis=1)
    accuracy[0] = is_right.mean()    # the same, without rounding
    return {"accuracy": with_interval(accuracy),
            "balanced accuracy": with_interval(np.nanmean(recall, axis=1))}


def with_interval(scores: np.ndarray) -> list[float]:
    """Return [value, low, high] of a score and its resamples; the value lies within."""
    low, high = np.percentile(scores[1:], [2.5, 97.5])
    value = scores[0]
    return [float(value), float(min(low, value)), float(max(high, value))]


def difference(score: list[float], other: list[float]) -> list[float]:
    """Return by how much a score is above one of other patients, as [value, low, high].

    From the intervals of both, [value, low, high] each, by square-and-add (Newcombe, Statistics in
    Medicine 1998;17:873-890; Donner & Zou, Statistical Methods in Medical Research 2012;21:347).
    """
    (a, a_low, a_high), (b, b_low, b_high) = score, other
    below = np.hypot(a - a_low, b_high - b)
    above = np.hypot(a_high - a, b - b_low)
    value = a - b
    return [value, float(value - below), float(value + above)]


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
    return pd.DataFrame(np.transpose(scores), classes, kinds).astype(float).to_dict("index")


def thresholds(
    validation: np.ndarray,
    validation_targets: np.ndarray,
    test: np.ndarray,
    test_targets: np.ndarray,
    classes: list[str],
) -> dict[str, Any]:
    """Choose the decision threshold of each class: the probability at a sensitivity of 0.95.

    Parameters
    ----------
    validation, test : ndarray, shape (n, n_classes), probabilities
    validation_targets, test_targets : ndarray of int, shape (n,)
    classes : list of n_classes str

    Returns
    -------
    dict
        By class: None where validation has too few records of it; else the probability, chosen on
        validation patients, and sensitivity and specificity there on test patients, None where no
        test record tells.
    """
    def share(answers: np.ndarray) -> float | None:
        return float(answers.mean()) if len(answers) else None

    chosen: dict[str, Any] = dict.fromkeys(classes)
    for number, name in enumerate(classes):
        of_class = validation[validation_targets == number, number]
        if len(of_class) >= MIN_RECORDS:
            threshold = float(np.quantile(of_class, 1 - SENSITIVITY, method="lower"))
            is_called = test[:, number] >= threshold
            is_of_class = test_targets == number
            chosen[name] = {
                "probability": threshold,
                "sensitivity": share(is_called[is_of_class]),
                "specificity": share(~is_called[~is_of_class])}
    return chosen


def calibration(
    probabilities: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray | None = None,
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
        "Brier score": float(np.average(distance, weights=weights))}


def calibrations(
    each: np.ndarray,
    temperatures: list[float],
    targets: np.ndarray,
    weights: np.ndarray | None = None,
    decide: Callable = np.asarray,
) -> dict[str, Any]:
    """Return `calibration` before and after temperature scaling, on test and at a prevalence.

    And what it is after that, but without the rate step.

    Parameters
    ----------
    each : ndarray, shape (models, n, n_classes), probabilities after temperature scaling
    temperatures : list of float, by which the models' logits were divided
    targets : ndarray of int, shape (n,)
    weights : ndarray, shape (n,), optional
        Give the classes their prevalence in the label file.
    decide : function, optional
        What is done to the models' mean: the rate step.
    """
    unscaled = [p if temperature == 1 else soften(p, 1 / temperature)    # then exact
                for p, temperature in zip(each, temperatures, strict=True)]
    mean = np.mean(each, axis=0)
    moments = {"before": decide(np.mean(unscaled, axis=0)), "after": decide(mean),
               "without rate step": mean}
    places = {"test": None} if weights is None else {"test": None, "at prevalence": weights}
    return {place: {moment: calibration(p, targets, w) for moment, p in moments.items()}
            for place, w in places.items()}


def accuracy_at_coverage(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return the accuracy of whoever answers "I don't know" to the least certain records.

    Returns
    -------
    dict
        By coverage, the share of the records that are answered: "1.00" to "0.05".
    """
    most_certain_first = np.argsort(-probabilities.max(axis=1), kind="stable")
    is_right = (probabilities.argmax(axis=1) == targets)[most_certain_first]
    coverages = np.arange(20, 0, -1) / 20
    return {f"{coverage:.2f}": float(is_right[:max(1, round(coverage * len(targets)))].mean())
            for coverage in coverages}

"""Measure probabilities: accuracy with intervals, calibration, thresholds, and a rate rule.

Arrays in, numbers out. How intervals are made, and how to make them again from predictions.csv, is
said in `ecg.intervals`.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from ecg import intervals

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

    def cost(log_temperature):
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
    """Return accuracy, balanced accuracy, macro F1 and Cohen's kappa, each as [value, low, high].

    Parameters
    ----------
    targets, predicted : ndarray of int, shape (n,)
    subjects : ndarray, shape (n,), patients
    """
    of_patients = intervals.Patients(subjects, targets)
    n_classes = max(targets.max(), predicted.max()) + 1
    overall, _ = intervals.labels_alone(of_patients, predicted, n_classes)
    return {name: figure.interval() for name, figure in overall.items()}


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


def all_figures(
    probabilities: np.ndarray,
    targets: np.ndarray,
    subjects: np.ndarray,
    classes: list[str],
    prevalence: np.ndarray | None = None,
) -> dict:
    """Return what `intervals.measure` does with intervals, for JSON: "model" and "by class".

    Each figure is [value, low, high]; [value, None, None] where patients are too few for an
    interval; None where there is no value.

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_classes)
    targets : ndarray of int, shape (n,)
    subjects : ndarray, shape (n,), patients
    classes : list of n_classes str
    prevalence : ndarray, shape (n_classes,), optional
        What the classes are weighted to.
    """
    overall, by_class = intervals.measure(probabilities, targets, subjects, prevalence)
    return {
        "model": {name: figure.interval() for name, figure in overall.items()},
        "by class": {
            name: {kind: figures[number].interval() for kind, figures in by_class.items()}
            for number, name in enumerate(classes)}}


def thresholds(
    validation: np.ndarray,
    validation_targets: np.ndarray,
    test: np.ndarray,
    test_targets: np.ndarray,
    classes: list[str],
) -> dict:
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
    def share(answers):
        return float(answers.mean()) if len(answers) else None

    chosen: dict = dict.fromkeys(classes)
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


def calibration(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return expected calibration error and Brier score of records.

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_classes)
    targets : ndarray of int, shape (n,)
    """
    losses = intervals.calibration_losses(probabilities, targets, np.ones(len(targets)))
    return {name: float(loss.mean()) for name, loss in losses.items()}


def calibrations(
    each: np.ndarray,
    temperatures: list[float],
    targets: np.ndarray,
    decide: Callable = np.asarray,
) -> dict:
    """Return `calibration` before and after temperature scaling.

    And what it is after that, but without the rate step.

    Parameters
    ----------
    each : ndarray, shape (models, n, n_classes), probabilities after temperature scaling
    temperatures : list of float, by which the models' logits were divided
    targets : ndarray of int, shape (n,)
    decide : function, optional
        What is done to the models' mean: the rate step.
    """
    unscaled = [p if temperature == 1 else soften(p, 1 / temperature)    # then exact
                for p, temperature in zip(each, temperatures, strict=True)]
    mean = np.mean(each, axis=0)
    moments = {
        "before": decide(np.mean(unscaled, axis=0)),
        "after": decide(mean),
        "without rate step": mean}
    return {moment: calibration(p, targets) for moment, p in moments.items()}


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

"""Calibrate probabilities on validation patients, and report on test patients with intervals.

Knows nothing of the script: arrays and names in, a dict of figures and lines of text out.
"""

import functools

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score, classification_report, log_loss


def soften(probabilities, temperature):
    """Return what softmax would have given of the same logits divided by `temperature`."""
    return softmax(np.log(probabilities + 1e-12) / temperature, axis=1)


def fit_temperature(probabilities, targets, weights):
    """Find the temperature of least negative log-likelihood (Guo et al., ICML 2017, sec. 4.2)."""
    return float(np.exp(minimize_scalar(lambda log_temperature: log_loss(
        targets, soften(probabilities, np.exp(log_temperature)), sample_weight=weights,
        labels=range(probabilities.shape[1])), bounds=(-2, 2), method="bounded").x))


def rate_rule(heart_rate, classes, shares):
    """Predict by heart rate (bpm) alone: slow, fast, or else the commonest other class.

    Machine-read rate labels are largely rate rules: a model has to beat this to have learnt much.
    """
    slow, fast = (np.array([word in name.casefold() for name in classes]) * shares
                  for word in ("brady", "tachy"))
    other = int(np.argmax(np.where(slow + fast > 0, 1e-9 * shares, shares)))
    return np.select([(heart_rate < 60) & slow.any(), (heart_rate > 100) & fast.any()],
                     [slow.argmax(), fast.argmax()], other)


def accuracies(targets, predicted, subjects, seed=42):
    """Return accuracy and balanced accuracy, each as [value, low, high].

    The 95 % interval: percentiles of a bootstrap of patients (Efron & Tibshirani, An Introduction
    to the Bootstrap, 1993).
    """
    records = pd.crosstab(subjects, targets)
    right = pd.crosstab(subjects, targets, values=predicted == targets, aggfunc="sum").fillna(0)
    n, rng = len(records), np.random.default_rng(seed)
    times = np.vstack([np.ones(n), rng.multinomial(n, [1 / n] * n, 1000)])    # first, each once
    right, records = times @ right.astype(float), times @ records
    scores = {"accuracy": right.sum(axis=1) / records.sum(axis=1),
              "balanced accuracy": (right / records).mean(axis=1)}    # less the classes not drawn
    return {name: [float(score[0]), *np.percentile(score[1:], [2.5, 97.5]).tolist()]
            for name, score in scores.items()}


def calibration(probabilities, targets, weights=None):
    """Return expected calibration error, over 10 bins of the confidence, and Brier score, 0 to 2.

    Guo et al., ICML 2017; Brier, Monthly Weather Review 1950;78:1-3.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    weights = np.ones(len(targets)) if weights is None else weights
    gap = np.bincount(np.minimum((confidence * 10).astype(int), 9), weights * (confidence - right))
    distance = ((probabilities - np.eye(probabilities.shape[1])[targets]) ** 2).sum(axis=1)
    return {"expected calibration error": float(np.abs(gap).sum() / weights.sum()),
            "Brier score": float(np.average(distance, weights=weights))}


def evaluate(each, temperatures, targets, subjects, vitals, classes, names, shares, seed=42):
    """Measure a model, or several whose probabilities are averaged, on the test patients.

    Parameters
    ----------
    each : ndarray (models, n, n_classes), probabilities
    temperatures : sequence of float, by which the models' logits were divided
    targets, subjects : ndarray (n,), class numbers and patients
    vitals : ndarray (n, m), the heart rate in bpm, then its variability; NaN: not measurable
    classes : list of n_classes str
    names : sequence of m (name, unit, usual range or None)
    shares : ndarray (n_classes,), of the classes in the label file; results are also reweighted
        to them
    seed : int, of the bootstrap

    Returns
    -------
    str, dict
        The report, and its figures ready for JSON.
    """
    before = [soften(p, 1 / t) for p, t in zip(each, temperatures, strict=True)]
    probabilities, uncalibrated = each.mean(axis=0), np.mean(before, axis=0)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right_by_certainty = (predicted == targets)[np.argsort(-confidence, kind="stable")]
    rule = rate_rule(vitals[:, 0], classes, shares)
    weight = (shares / np.bincount(targets, minlength=len(classes)).clip(1))[targets]
    report = functools.partial(classification_report, targets, predicted, digits=3, zero_division=0,
                               labels=range(len(classes)), target_names=classes)
    figures = {
        "records": len(targets), "patients": len(np.unique(subjects)),
        "model": accuracies(targets, predicted, subjects, seed),
        "rate rule": accuracies(targets, rule, subjects, seed),
        "confidence": [float(confidence.mean()), float(confidence.std())],
        "calibration": {
            name: {"before": calibration(uncalibrated, targets, weights),
                   "after": calibration(probabilities, targets, weights)}
            for name, weights in (("test", None), ("at label shares", weight))},
        # Who answers "I don't know" to the least certain records: accuracy by share of them kept
        "accuracy by share kept": {
            f"{share:.2f}": float(right_by_certainty[:max(1, round(share * len(targets)))].mean())
            for share in np.arange(20, 0, -1) / 20},
        "per class": report(output_dict=True),
        "at label shares": report(output_dict=True, sample_weight=weight)}
    if len(each) > 1:
        figures["balanced accuracy of each"] = [
            balanced_accuracy_score(targets, p.argmax(axis=1)) for p in each]
    rates = pd.DataFrame(vitals.astype(float), columns=[
        f"{name} [{unit or '1'}]" for name, unit, _ in names])
    rates = rates.groupby(np.array(classes)[targets]).agg(["mean", "std", "count"])
    return in_words(figures, report(), rates.round(2).to_string(), classes, names), figures


def in_words(figures, table, rates, classes, names):
    """Return as text what `evaluate` found: its figures, and two tables that are text already."""
    f1 = {name: figures["per class"][name]["f1-score"] for name in classes}
    natural = figures["at label shares"]
    macro = np.mean([natural[name]["f1-score"] for name in classes if natural[name]["support"]])
    scores = {who: "\n".join(f"{name} {value:.3f} (95 % interval {low:.2f}-{high:.2f})"
                             for name, (value, low, high) in figures[who].items())
              for who in ("model", "rate rule")}
    calibrated = "\n".join(
        f"{name}, {who}: {of['before'][name]:.3f}, after temperature scaling {after:.3f}"
        for who, of in figures["calibration"].items() for name, after in of["after"].items())
    kept = ", ".join(f"{float(share):.0%} {figures['accuracy by share kept'][share]:.3f}"
                     for share in ("1.00", "0.90", "0.75", "0.50", "0.25"))
    usual = ", ".join(f"{name} {limits[0]}-{limits[1]} {unit}".strip()
                      for name, unit, limits in names if limits)
    alone = figures.get("balanced accuracy of each", [])
    ensemble = alone and (f"the {len(alone)} models of the ensemble alone: balanced accuracy "
                          f"{np.mean(alone):.3f} +- {np.std(alone, ddof=1):.3f}\n")
    return f"""
Test on {figures['records']} records of {figures['patients']} patients that training never saw

{table}
best class {max(f1, key=f1.get)}, F1 {max(f1.values()):.3f}
{scores['model']}
confidence {figures['confidence'][0]:.1%} +- {figures['confidence'][1]:.1%}
at the label file's own class shares: accuracy {natural['accuracy']:.3f}, macro F1 {macro:.3f}
{calibrated}
accuracy where the least certain are left undecided, by share kept: {kept}

A plain rate rule (below 60 bpm bradycardia, above 100 tachycardia, else the commonest other class)
{scores['rate rule']}

Heart rate and its variability by true class (count: records where measurable)
{rates}
usual: {usual} (HRV ranges are meant for longer recordings than 10 s)
{ensemble or ""}"""

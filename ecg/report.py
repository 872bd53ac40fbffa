"""Write the figures of an evaluation in words."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import classification_report

from ecg import left_out, origin
from ecg.rate_step import RateStep

COVERAGES = "1.00", "0.90", "0.75", "0.50", "0.25"    # shares of the records that are answered

TEMPLATE = """
{table}
{untested}best class {best}, F1 {best_f1:.3f}
{model}
confidence {confidence[0]:.1%} +- {confidence[1]:.1%}
{at_prevalence}{calibration}
accuracy at coverage {coverage}

{rate_step}

Rate rule (below 60 bpm bradycardia, above 100 tachycardia, else the commonest other class)
{rule}
Baseline: a logistic regression on the same features and training records
{baseline}

Decision thresholds at 95 % sensitivity on validation patients, and what they reach on test patients
{thresholds}

Heart rate and its variability by true class: mean +- deviation (records where measurable)
{vitals}
reference range: {ranges}
(HRV ranges are meant for longer recordings than 10 s)
{ensemble}"""


def using(versions: dict[str, str], devices: str) -> str:
    """Say what a run uses, in lines of at most 100 characters."""
    words = ", ".join(f"{name} {version}" for name, version in versions.items())
    return textwrap.fill(f"using {words}; devices {devices}", 100, subsequent_indent="    ")


def with_intervals(scores: dict[str, list[float]]) -> str:
    """Write scores, each [value, low, high], a line each."""
    return "\n".join(f"{name} {value:.3f} (95 % interval {low:.2f}-{high:.2f})"
                     for name, (value, low, high) in scores.items())


def calibration_lines(calibration: dict[str, Any]) -> str:
    """Write calibration before and after temperature scaling, a line for each score."""
    lines = []
    for place, scores in calibration.items():
        for name, after in scores["after"].items():
            before = scores["before"][name]
            scaled = f", after temperature scaling {after:.3f}" if after != before else ""
            core = scores["without rate step"][name]
            step = f", without the rate step {core:.3f}" if core != after else ""
            lines.append(f"{name}, {place}: {before:.3f}{scaled}{step}")
    if calibration["test"]["after"] == calibration["test"]["before"]:
        lines.append("temperature scaling was left out: nothing was trained, or it would not help "
                     "validation patients")
    return "\n".join(lines)


def rate_step_lines(step: RateStep, rate: np.ndarray, truth: np.ndarray, classes: list[str]) -> str:
    """Write what the heart rate decides, and how far labels disagree with it."""
    lines = [step.in_words()]
    for place in step.places:
        low, high = step.limits
        own = rate[truth == classes[place]]
        if len(own):
            lines.append(
                f"of {len(own)} records labelled {classes[place]} {np.mean(own < low):.0%} are "
                f"below {low:.0f} bpm, {np.mean(own > high):.0%} above {high:.0f}")
    if step.places:
        lines.append(f"without a heart rate: {np.isnan(rate).sum()} records, in which no rate "
                     "class gets more than 0.5")
    return "\n".join(lines)


def prevalence_line(figures: dict[str, Any]) -> str:
    """Write the results at the prevalence of the label file's classes, where there are any."""
    scores = figures.get("at prevalence")
    if not scores:
        return ""
    f1 = np.mean([of["f1-score"] for of in scores["per class"].values() if of["support"]])
    return (f"at the prevalence of {scores['label file']}: "
            f"accuracy {scores['accuracy']:.3f}, macro F1 {f1:.3f}\n")


def threshold_line(name: str, threshold: dict[str, Any] | None) -> str:
    """Write from which probability a class is called, and how well that does."""
    if threshold is None:
        return f"{name}: too few validation records to choose a probability"
    scores = [f"{kind} {threshold[kind]:.3f}" for kind in ("sensitivity", "specificity")
              if threshold[kind] is not None]
    return f"{name} from a probability of {threshold['probability']:.4g}: {', '.join(scores)}"


def vitals_table(vitals: np.ndarray, kinds: list[tuple], truth: np.ndarray) -> str:
    """Write mean, deviation and count of heart rate and its variability by true class."""
    def in_words(values: pd.Series) -> str:
        count = values.count()
        digits = 2 if values.name.endswith("[1]") else 1    # CV_RR is far below 1
        mean = f"{values.mean():.{digits}f} " if count else ""
        deviation = f"+- {values.std():.{digits}f} " if count > 1 else ""
        return f"{mean}{deviation}({count})"

    names = [f"{name} [{unit or '1'}]" for name, unit, _ in kinds]
    table = pd.DataFrame(vitals.astype(float), columns=names)
    return table.groupby(truth).agg(in_words).to_string()


def in_words(figures: dict[str, Any], truth: np.ndarray, predicted: np.ndarray,
             vitals: np.ndarray, kinds: list[tuple], step: RateStep) -> str:
    """Return the report as text.

    Parameters
    ----------
    figures : dict
        What `evaluate` of the script measures.
    truth, predicted : ndarray of str, shape (n,)
        Names of classes.
    vitals : ndarray, shape (n, n_kinds)
        Heart rate and its variability; NaN where not measurable.
    kinds : list of (name, unit, reference range or None)
        Of `vitals`.
    step : RateStep
        Of the model.
    """
    per_class = figures["per class"]
    best = max(per_class, key=lambda name: per_class[name]["f1-score"])
    absent = ", ".join(name for name, scores in per_class.items() if not scores["support"])
    coverage = figures["accuracy at coverage"]
    alone = figures.get("balanced accuracy of each", [])
    ensemble = (f"the {len(alone)} models of the ensemble alone: balanced accuracy "
                f"{np.mean(alone):.3f} +- {np.std(alone, ddof=1):.3f}\n") if alone else ""

    return TEMPLATE.format(
        # By name, since a class neither tested nor predicted would count as 0 in the means
        table=classification_report(truth, predicted, digits=3, zero_division=0),
        untested=f"no test record of {absent}: nothing is known of it\n" if absent else "",
        best=best,
        best_f1=per_class[best]["f1-score"],
        model=with_intervals(figures["model"]),
        confidence=figures["confidence"],
        at_prevalence=prevalence_line(figures),
        calibration=calibration_lines(figures["calibration"]),
        coverage=", ".join(f"{float(share):.0%} {coverage[share]:.3f}" for share in COVERAGES),
        rate_step=rate_step_lines(step, vitals[:, 0], truth, list(per_class)),
        rule=with_intervals(figures["rate rule"]),
        baseline=with_intervals(figures["logistic regression"]),
        thresholds="\n".join(
            threshold_line(name, threshold) for name, threshold in figures["thresholds"].items()),

        vitals=vitals_table(vitals, kinds, truth),
        ranges=", ".join(f"{name} {limits[0]}-{limits[1]} {unit}".strip()
                         for name, unit, limits in kinds if limits),
        ensemble=ensemble)


def in_full(words: str, card: dict[str, Any]) -> str:
    """Return the whole report: what was tested, the words of `in_words`, and what it is not.

    `card` is the run's, with its metrics.
    """
    tested = card["metrics"]
    unseen = origin.unseen(card, card["recipe"]["epochs"] > 0)
    unusable = left_out.count_reasons(why for _, why in card["left_out"])
    remarks = left_out.count_reasons(
        remark for _, several in card["unusual"] for remark in several.split("; "))

    lines = [
        f"\nTest on {tested['records']} records of {tested['patients']} patients{unseen}",
        *filter(None, [origin.caution(card)]),
        words,
        f"left out: {unusable}",
        f"used although unusual: {remarks}",
        origin.about_results(card["labels_origin"], card.get("test_labels_origin", "")),
        *([origin.SYNTHETIC] if card["synthetic"] else [])]
    return "\n".join(lines) + "\n"

"""Write the figures of an evaluation in words."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import classification_report

from ecg import left_out, metrics, origin
from ecg.rate_step import RateStep

COVERAGES = "1.00", "0.90", "0.75", "0.50", "0.25"    # shares of the records that are answered

TEMPLATE = """
{table}
{untested}{model}
{single}confidence {confidence[mean]:.1%} +- {confidence[deviation]:.1%}
{calibration}
accuracy at coverage {coverage}
more figures, all with intervals: metrics.csv

The test is drawn evenly from the classes, as far as they have records; what a call is worth depends
on how common they are.
{at_prevalence}
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
"""
SHORT = {    # of a class, in a table of the report: by name in metrics.json
    "precision": "PPV", "negative predictive value": "NPV", "specificity": "specificity",
    "average precision": "average precision"}


def print_classes(labels: pd.DataFrame, is_demo: bool) -> pd.Series:
    """Print records and patients by class; return the classes' shares of the records, A to Z."""
    if is_demo:
        print("demo: synthetic records; name your own with --labels and --data-dir")
    by_class = labels.groupby("ecg_category")["subject_id"]
    print(by_class.agg(records="size", patients="nunique").to_string(index_names=False))
    print(f"{len(labels)} records of {labels['subject_id'].nunique()} patients\n")
    return by_class.size() / len(labels)


def using(versions: dict[str, str], devices: str) -> str:
    """Say what a run uses, in lines of at most 100 characters."""
    words = ", ".join(f"{name} {version}" for name, version in versions.items())
    return textwrap.fill(f"using {words}; devices {devices}", 100, subsequent_indent="    ")


def with_intervals(scores: dict[str, list[float]]) -> str:
    """Write both accuracies, each [value, low, high], a line each."""
    lines = "{0} {1[0]:.3f} (95 % interval {1[1]:.2f}-{1[2]:.2f})"
    return "\n".join(lines.format(name, scores[name])
                     for name in ("accuracy", "balanced accuracy"))


def calibration_lines(calibration: dict[str, Any]) -> str:
    """Write calibration on the test before and after temperature scaling, a line for each score."""
    before, after = (calibration[when] for when in ("before", "after"))
    lines = []
    without = calibration["without rate step"]
    for name, score in after.items():
        scaled = f", after temperature scaling {score:.3f}" if score != before[name] else ""
        step = f", without the rate step {without[name]:.3f}" if without[name] != score else ""
        lines.append(f"{name}: {before[name]:.3f}{scaled}{step}")
    if after == before:
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


def prevalence_lines(figures: dict[str, Any]) -> str:
    """Write figures by class on the test and at the label file's prevalence, if there is any."""
    of_file = figures.get("at prevalence")
    if not of_file:
        return ""
    cells: dict[str, list[str]] = {"prevalence": [
        f"{share:.1%}" for share in of_file["prevalence"].values()]}
    for kind, short in SHORT.items():
        pairs = [[scores[name][kind] for scores in (figures["by class"], of_file["by class"])]
                 for name in of_file["by class"]]
        cells[short] = [" / ".join(f"{score[0]:.3f}" if score else "-" for score in pair)
                        for pair in pairs]
    table = pd.DataFrame(cells, index=list(of_file["by class"]))
    return (f"On the test / at the prevalence of {of_file['label file']}:\n"
            f"{table.to_string()}\n")


def threshold_line(name: str, threshold: dict[str, Any] | None) -> str:
    """Write from which probability a class is called, and how well that does; "" if none is."""
    if threshold is None:
        return ""
    scores = [f"{kind} {threshold[kind]:.3f}" for kind in ("sensitivity", "specificity")
              if threshold[kind] is not None]
    return f"{name} from a probability of {threshold['probability']:.4g}: {', '.join(scores)}"


def threshold_lines(thresholds: dict[str, Any]) -> str:
    """Write all decision thresholds, and of which classes there is none."""
    lines = [threshold_line(name, threshold) for name, threshold in thresholds.items() if threshold]
    few = [name for name, threshold in thresholds.items() if not threshold]
    if few:
        words = f"too few validation records (under {metrics.MIN_RECORDS}) to choose a probability"
        lines.append(textwrap.fill(f"{words}: {', '.join(few)}", 100, subsequent_indent="    "))
    return "\n".join(lines)


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
    absent = ", ".join(name for name, n in figures["records by class"].items() if not n)
    coverage = figures["accuracy at coverage"]
    alone = list(figures.get("balanced accuracy of each", {}).values())
    single = (f"single models: balanced accuracy {np.mean(alone):.3f} +- "
              f"{np.std(alone, ddof=1):.3f} (n = {len(alone)})\n") if alone else ""

    return TEMPLATE.format(
        # By name, since a class neither tested nor predicted would count as 0 in the means
        table=classification_report(truth, predicted, digits=3, zero_division=0),
        untested=f"no test record of {absent}: nothing is known of it\n" if absent else "",
        model=with_intervals(figures["model"]),
        single=single,
        confidence=figures["confidence"],
        calibration=calibration_lines(figures["calibration"]),
        coverage=", ".join(f"{float(share):.0%} {coverage[share]:.3f}" for share in COVERAGES),
        at_prevalence=prevalence_lines(figures),
        rate_step=rate_step_lines(step, vitals[:, 0], truth, list(figures["by class"])),
        rule=with_intervals(figures["rate rule"]),
        baseline=with_intervals(figures["logistic regression"]),
        thresholds=threshold_lines(figures["thresholds"]),

        vitals=vitals_table(vitals, kinds, truth),
        ranges=", ".join(f"{name} {limits[0]}-{limits[1]} {unit}".strip()
                         for name, unit, limits in kinds if limits))


def nested_lines(figures: dict[str, Any] | None) -> list[str]:
    """Write the cross-validation over all labelled people in lines, where there is any."""
    if not figures:
        return []
    return [f"Adapting, by nested cross-validation over all {figures['patients']} labelled people",
            with_intervals(figures)]


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
        *nested_lines(tested.get("nested cross-validation")),
        f"left out: {unusable}",
        f"used although unusual: {remarks}",
        origin.about_results(card["labels_origin"], card.get("test_labels_origin", "")),
        *textwrap.wrap(origin.label_error(card), 100),
        *([origin.SYNTHETIC] if card["synthetic"] else [])]
    return "\n".join(lines) + "\n"


def at_end(settings: Any, seconds: float) -> str:
    """Return the last lines of a run that took so long, for the script's `Settings`."""
    words = (f"saved {settings.output}, and all that is needed to use it in the .json of that name"
             f"\nto classify: python tools/classify.py FOLDER_OF_RECORDS --model {settings.output}")
    if settings.quick:
        words += (f"\n--quick: fewer records and epochs, {seconds:.0f} s; leave it out for the "
                  "real figures")
    return words

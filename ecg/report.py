"""Write the figures of an evaluation in words."""

import textwrap
from typing import Any

import numpy as np

from ecg import left_out, origin

KEPT = "1.00", "0.90", "0.75", "0.50", "0.25"    # shares of the records

TEMPLATE = """
{table}
{untested}best class {best}, F1 {best_f1:.3f}
{model}
confidence {confidence[0]:.1%} +- {confidence[1]:.1%}
{natural}{calibrated}
accuracy of the most certain, by share kept: {kept}

A plain rate rule (below 60 bpm bradycardia, above 100 tachycardia, else the commonest other class)
{rule}
A logistic regression on the same features and training records
{regression}

Thresholds (sensitivity 0.95 on validation patients), and what they reach on test patients
{thresholds}

Heart rate and its variability by true class: mean +- deviation (records where measurable)
{rates}
usual: {usual}
(HRV ranges are meant for longer recordings than 10 s)
{ensemble}"""


def using(versions: dict[str, str], devices: str) -> str:
    """Say what a run uses, in lines of at most 100 characters."""
    words = ", ".join(f"{name}\0{version}" for name, version in versions.items())
    lines = textwrap.fill(f"using {words}; devices {devices}", 100, subsequent_indent="    ")
    return lines.replace("\0", " ")    # which parted no version from its name


def with_intervals(scores: dict[str, list[float]]) -> str:
    """Write scores, each [value, low, high], a line each."""
    return "\n".join(f"{name} {value:.3f} (95 % interval {low:.2f}-{high:.2f})"
                     for name, (value, low, high) in scores.items())


def calibration_lines(calibration: dict[str, Any]) -> str:
    """Write calibration before and after temperature scaling, a line for each score."""
    lines = []
    for where, scores in calibration.items():
        for name, after in scores["after"].items():
            before = scores["before"][name]
            scaled = f", after temperature scaling {after:.3f}" if after != before else ""
            lines.append(f"{name}, {where}: {before:.3f}{scaled}")
    if calibration["test"]["after"] == calibration["test"]["before"]:
        lines.append("temperature scaling was left out: nothing was trained, or it would not help "
                     "validation patients")
    return "\n".join(lines)


def natural_line(figures: dict[str, Any], classes: list[str]) -> str:
    """Write the results at the class shares of the label file, where there are any."""
    natural = figures.get("at label shares")
    if not natural:
        return ""
    tested = [natural["per class"][name] for name in classes]
    f1 = np.mean([scores["f1-score"] for scores in tested if scores["support"]])
    return (f"at the class shares of {natural['label file']}: "
            f"accuracy {natural['accuracy']:.3f}, macro F1 {f1:.3f}\n")


def untested_line(per_class: dict[str, Any]) -> str:
    """Write which classes the test has no record of, if there are any."""
    absent = [name for name, scores in per_class.items() if not scores["support"]]
    return f"no test record of {', '.join(absent)}: nothing is known of it\n" if absent else ""


def threshold_lines(thresholds: dict[str, Any]) -> str:
    """Write from which probability a class is told, and how well, a line for each class."""
    lines = []
    for name, found in thresholds.items():
        if found is None:
            lines.append(f"{name}: too few validation records to choose a probability")
            continue
        scores = [f"{kind} {found[kind]:.3f}" for kind in ("sensitivity", "specificity")
                  if found[kind] is not None]
        lines.append(f"{name} from a probability of {found['probability']:.3f}: "
                     + ", ".join(scores))
    return "\n".join(lines)


def usual_ranges(names: list[tuple]) -> str:
    """Write the usual ranges of features, given as (name, unit, range or None)."""
    return ", ".join(f"{name} {limits[0]}-{limits[1]} {unit}".strip()
                     for name, unit, limits in names if limits)


def in_words(figures: dict[str, Any], table: str, rates: str, classes: list[str],
             names: list[tuple]) -> str:
    """Return the report as text.

    Parameters
    ----------
    figures : dict
        What `evaluate` of the script found.
    table, rates : str
        Two tables that are text already: the classification report and the heart rates by class.
    classes : list of str
    names : list of (name, unit, usual range or None)
        Of the features in `rates`.
    """
    f1 = {name: figures["per class"][name]["f1-score"] for name in classes}
    by_share = figures["accuracy by share kept"]
    kept = ", ".join(f"{float(share):.0%} {by_share[share]:.3f}" for share in KEPT)

    ensemble = ""
    alone = figures.get("balanced accuracy of each", [])
    if alone:
        ensemble = (f"the {len(alone)} models of the ensemble alone: balanced accuracy "
                    f"{np.mean(alone):.3f} +- {np.std(alone, ddof=1):.3f}\n")

    return TEMPLATE.format(
        table=table,
        untested=untested_line(figures["per class"]),
        best=max(f1, key=lambda name: f1[name]),
        best_f1=max(f1.values()),
        model=with_intervals(figures["model"]),
        confidence=figures["confidence"],
        natural=natural_line(figures, classes),
        calibrated=calibration_lines(figures["calibration"]),
        kept=kept,
        rule=with_intervals(figures["rate rule"]),
        regression=with_intervals(figures["logistic regression"]),
        thresholds=threshold_lines(figures["thresholds"]),
        rates=rates,
        usual=usual_ranges(names),
        ensemble=ensemble)


def in_full(words: str, card: dict[str, Any], is_synthetic: bool) -> str:
    """Return a report: what was tested, the words of `in_words`, and what there is to know besides.

    `card` is the run's; `is_synthetic` tells whether its records are the demo's.
    """
    tested = card["metrics"]
    unseen = origin.unseen(card, card["recipe"]["epochs"] > 0)
    lines = ["", f"Test on {tested['records']} records of {tested['patients']} patients{unseen}",
             *filter(None, [origin.caution(card)]), ""]
    closing = closing_words(
        card["left_out"], card["unusual"], is_synthetic, card["labels_origin"],
        card.get("test_labels_origin", ""))
    return "\n".join(lines) + words + closing


def closing_words(unusable: list[tuple[str, str]], unusual: list[tuple[str, str]],
                  is_synthetic: bool, of_labels: str, of_test: str = "") -> str:
    """Return the end of the report: records left out or unusual, and what it is not.

    Parameters
    ----------
    unusable, unusual : list of (path, reason) and of (path, remark)
    is_synthetic : bool
        Whether the model was trained on the demo.
    of_labels, of_test : str
        Where the labels come from, and those of another test file, if there is one.
    """
    remarks = [remark for _, several in unusual for remark in several.split("; ")]
    lines = ["", f"left out: {left_out.count_reasons(why for _, why in unusable)}",
             f"used although unusual: {left_out.count_reasons(remarks)}",
             origin.about_results(of_labels, of_test)]
    if is_synthetic:
        lines.append(origin.SYNTHETIC)
    return "\n".join(lines) + "\n"

"""Write the figures of an evaluation in words."""

from typing import Any

import numpy as np

from ecg import left_out, notices

KEPT = "1.00", "0.90", "0.75", "0.50", "0.25"    # shares of the records

TEMPLATE = """
Test on {records} records of {patients} patients that training never saw

{table}
best class {best}, F1 {best_f1:.3f}
{model}
confidence {confidence[0]:.1%} +- {confidence[1]:.1%}
at the label file's own class shares: accuracy {natural_accuracy:.3f}, macro F1 {natural_f1:.3f}
{calibrated}
accuracy where the least certain are left undecided, by share kept: {kept}

A plain rate rule (below 60 bpm bradycardia, above 100 tachycardia, else the commonest other class)
{rule}

Heart rate and its variability by true class (count: records where measurable)
{rates}
usual: {usual} (HRV ranges are meant for longer recordings than 10 s)
{ensemble}"""


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
            lines.append(f"{name}, {where}: {before:.3f}, after temperature scaling {after:.3f}")
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
    natural = figures["at label shares"]
    natural_f1 = [natural[name]["f1-score"] for name in classes if natural[name]["support"]]
    by_share = figures["accuracy by share kept"]
    kept = ", ".join(f"{float(share):.0%} {by_share[share]:.3f}" for share in KEPT)

    ensemble = ""
    alone = figures.get("balanced accuracy of each", [])
    if alone:
        ensemble = (f"the {len(alone)} models of the ensemble alone: balanced accuracy "
                    f"{np.mean(alone):.3f} +- {np.std(alone, ddof=1):.3f}\n")

    return TEMPLATE.format(
        records=figures["records"],
        patients=figures["patients"],
        table=table,
        best=max(f1, key=lambda name: f1[name]),
        best_f1=max(f1.values()),
        model=with_intervals(figures["model"]),
        confidence=figures["confidence"],
        natural_accuracy=natural["accuracy"],
        natural_f1=np.mean(natural_f1),
        calibrated=calibration_lines(figures["calibration"]),
        kept=kept,
        rule=with_intervals(figures["rate rule"]),
        rates=rates,
        usual=usual_ranges(names),
        ensemble=ensemble)


def closing_words(unusable: list[tuple[str, str]], is_synthetic: bool) -> str:
    """Return the end of the report: records left out, by reason, and what it is not."""
    lines = ["", f"left out: {left_out.reasons(unusable)}",
             f"{notices.MACHINE_READ} {notices.NOT_MEDICAL}"]
    if is_synthetic:
        lines.append(notices.SYNTHETIC)
    return "\n".join(lines) + "\n"

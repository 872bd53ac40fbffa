"""Write the figures of an evaluation in words."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import classification_report

from ecg import cohort, left_out, metrics, origin
from ecg.output import tables
from ecg.rate_step import RateStep

COVERAGES = "1.00", "0.90", "0.75", "0.50", "0.25"    # shares of the records that are answered

TEMPLATE = """
{table}
{untested}{model}
{single}confidence {confidence[mean]:.1%} +- {confidence[deviation]:.1%}
{calibration}
accuracy at coverage {coverage}
more figures, all with intervals: metrics.csv

{how_drawn}
{at_prevalence}

{rate_step}

Rate rule (below 60 bpm bradycardia, above 100 tachycardia, else the commonest other class)
{rule}
Baseline: a logistic regression on the same features and training records
{baseline}

Decision thresholds at 95 % sensitivity on validation patients, and what they reach on test patients
{thresholds}

Heart rate and its variability by true class, where measurable
{vitals}
reference range: {ranges}
(HRV ranges are meant for longer recordings than 10 s)
"""


NESTED = """\
Adapting, by nested cross-validation over all {0[patients]} labelled people
{1}"""


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


def rate_step_lines(step: RateStep, rate: np.ndarray, truth: np.ndarray) -> str:
    """Write what the heart rate decides, and how far labels disagree with it."""
    if not step.places:
        return step.in_words()
    low, high = step.limits
    zones = [f"below {low:.0f} bpm", f"above {high:.0f} bpm", "not measurable"]
    zone = np.select([rate < low, rate > high, np.isnan(rate)], zones, "between")
    return (f"{step.in_words()}\n(where none is measurable, no rate class gets more than 0.5)\n"
            f"{pd.crosstab(truth, zone, rownames=[''], colnames=['']).to_string()}")


def threshold_lines(thresholds: dict) -> list[str]:
    """Return from which probability each class is called, how well that does, and which are not."""
    lines = []
    for name, threshold in thresholds.items():
        if threshold:
            scores = [f"{kind} {threshold[kind]:.3f}" for kind in ("sensitivity", "specificity")
                      if threshold[kind] is not None]
            lines.append(
                f"{name} from a probability of {threshold['probability']:.4g}: {', '.join(scores)}")

    few = [name for name, threshold in thresholds.items() if not threshold]
    if few:
        lines.append(f"too few validation records (under {metrics.MIN_RECORDS}) to choose a "
                     f"probability: {', '.join(few)}")
    return lines


def vitals_table(vitals: np.ndarray, kinds: list[tuple], truth: np.ndarray) -> str:
    """Write mean, deviation and count of heart rate and its variability by true class."""
    names = [f"{name} [{unit or '1'}]" for name, unit, _ in kinds]
    by_class = pd.DataFrame(vitals.astype(float), columns=names).groupby(truth)
    return by_class.agg(["mean", "std", "count"]).T.to_string(float_format="%.3g")


def in_words(figures: dict, truth: np.ndarray, predicted: np.ndarray,
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
    frames = tables.of_metrics(figures)
    common = frames["at_prevalence"].set_index(["class", "as in the"])

    return TEMPLATE.format(
        # By name, since a class neither tested nor predicted would count as 0 in the means
        table=classification_report(truth, predicted, digits=3, zero_division=0),
        untested=f"no test record of {absent}: nothing is known of it\n" if absent else "",
        model=with_intervals(figures["model"]),
        single=single,
        confidence=figures["confidence"],
        calibration=frames["calibration"].to_string(index=False),
        coverage=", ".join(f"{float(share):.0%} {coverage[share]:.3f}" for share in COVERAGES),
        how_drawn=tables.how_drawn(figures),
        at_prevalence=common.replace(r" \(.*", "", regex=True).to_string(),    # no intervals
        rate_step=rate_step_lines(step, vitals[:, 0], truth),
        rule=with_intervals(figures["rate rule"]),
        baseline=with_intervals(figures["logistic regression"]),
        thresholds="\n".join(textwrap.fill(line, 100, subsequent_indent="    ")
                             for line in threshold_lines(figures["thresholds"])),

        vitals=vitals_table(vitals, kinds, truth),
        ranges=", ".join(f"{name} {limits[0]}-{limits[1]} {unit}".strip()
                         for name, unit, limits in kinds if limits))


def cohort_lines(split: pd.DataFrame, card: dict) -> list[str]:
    """Return flow, table 1 and groups in short; `split` is what `cohort.join` returned."""
    flow = cohort.flow(split, card)
    table = cohort.table1(split, [name for name in ("age", "sex") if name in split])
    table = table[table["class"] == cohort.ALL].drop(columns="class")
    groups = tables.of_metrics(card["metrics"])["groups"].iloc[:, :5]    # no sensitivities
    return [
        f"What became of the {flow['records'].sum()} rows of labels",
        flow.to_string(index=False),
        "\nRecords used, each once, and their patients (by class: table1.csv)",
        table.to_string(index=False),
        f"\n{cohort.EXPLORATORY}",
        groups.to_string(index=False),
        ""]


def in_full(words: str, split: pd.DataFrame, card: dict) -> str:
    """Return the whole report: what was tested, the words of `in_words`, and what it is not.

    `split` is what `cohort.join` returned, `card` is the run's, with its metrics.
    """
    tested = card["metrics"]
    nested = tested.get("nested cross-validation")
    unseen = origin.unseen(card, card["recipe"]["epochs"] > 0)
    unusable = left_out.count_reasons(why for _, why in card["left_out"])
    remarks = left_out.count_reasons(
        remark for _, several in card["unusual"] for remark in several.split("; "))

    lines = [
        f"\nTest on {tested['records']} records of {tested['patients']} patients{unseen}",
        *filter(None, [origin.caution(card)]),
        words,
        *cohort_lines(split, card),
        *([NESTED.format(nested, with_intervals(nested))] if nested else []),
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

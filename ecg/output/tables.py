"""The figures of a run as tables of text, which report, page, model card and checklist show."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ecg.errors import markdown

ROWS = {    # of the first table: by name in metrics.json
    "model": "this model",
    "rate rule": "baseline: heart rate alone",
    "logistic regression": "baseline: logistic regression on the same features",
}
ACCURACIES = ["balanced accuracy", "accuracy", "macro F1", "Cohen's kappa"]
CALIBRATION = [
    "Brier score", "expected calibration error", "calibration slope", "calibration intercept"]
BY_CLASS = ["AUROC", "average precision", "recall", "precision", "F1", "specificity"]
AT_PREVALENCE = {
    "precision": "PPV", "negative predictive value": "NPV", "specificity": "specificity",
    "average precision": "average precision"}
EVENLY = """\
The test is drawn evenly from the classes, as far as they have records. What a call is worth depends
on how common they are: positive (PPV) and negative predictive value (NPV), specificity and average
precision, on the test and at the prevalence of the label file."""
AS_IT_IS = """\
The test is not drawn evenly: all its records are used. What a call is worth depends on how common
the classes are there: positive (PPV) and negative predictive value (NPV), specificity and average
precision."""


def how_drawn(metrics: dict[str, Any]) -> str:
    """Return how often the tested classes occur: a test that is drawn is reweighted, others not."""
    return EVENLY if "at prevalence" in metrics else AS_IT_IS


def as_text(score: Any) -> Any:
    """Return a figure of metrics.json, [value, low, high] or a number, as text; else as it is."""
    if isinstance(score, list):
        value, low, high = score
        return f"{value:.3f} ({'too few' if low is None else f'{low:.2f} to {high:.2f}'})"
    if pd.isna(score):
        return "–"
    return f"{score:.3f}" if isinstance(score, float) else score


def figures(
    scores: dict[str, dict[str, Any]],
    kinds: Iterable[str] | None = None,
    heading: str = "class",
) -> pd.DataFrame:
    """Return a table of texts: a row for each name, and a column for each kind of figure."""
    table = pd.DataFrame(scores).T.reindex(columns=kinds)
    return table.map(as_text).rename_axis(heading).reset_index()


def at_prevalence(metrics: dict[str, Any]) -> pd.DataFrame:
    """Return what a call is worth on the test and where classes are as common as in a file."""
    shares = {name: n / metrics["records"] for name, n in metrics["records by class"].items()}
    places = {"test": {**metrics, "prevalence": shares}}
    if "at prevalence" in metrics:
        places["label file"] = metrics["at prevalence"]

    parts = []
    for place, own in places.items():
        scores = {
            name: {"as in the": place, "prevalence": f"{own['prevalence'][name]:.1%}", **of_class}
            for name, of_class in own["by class"].items()}
        parts.append(figures(scores, ["as in the", "prevalence", *AT_PREVALENCE]))
    table = pd.concat(parts).rename(columns=AT_PREVALENCE)
    return table.sort_values("class", kind="stable")


def of_metrics(metrics: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Return all tables of metrics.json by name."""
    thresholds = {name: own or {} for name, own in metrics["thresholds"].items()}
    by_class = figures(metrics["by class"], BY_CLASS)
    by_class.insert(1, "test records", list(metrics["records by class"].values()))
    return {
        "accuracies": figures(
            {words: metrics[name] for name, words in ROWS.items()}, ACCURACIES,
            heading="95 % interval over patients"),
        "overall": figures({"this model": metrics["model"]}, CALIBRATION, heading="calibration"),
        "by_class": by_class,
        "at_prevalence": at_prevalence(metrics),
        "thresholds": figures(thresholds, ["probability", "sensitivity", "specificity"]),
        "calibration": figures(metrics["calibration"], heading="temperature scaling"),
        "groups": figures(metrics["groups"], heading="group")}


def markdown_table(heading: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    names = list(heading)
    lines: list[Iterable[object]] = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def escaped_table(frame: pd.DataFrame) -> str:
    """Return a table of texts in Markdown, which acts on none of them."""
    return markdown_table(map(markdown, frame.columns), frame.map(markdown).to_numpy())

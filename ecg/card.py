"""What a model takes and gives, in words and numbers: enough to use it without this project.

One text from a model's card, whose prose stands in contract.txt. Its .json, the metadata of an ONNX
file, MODEL_CARD.md and the page of a run all show it.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ecg import __version__, files, origin, r_peaks, rate_step, report, wfdb_files

TEMPLATE = Path(__file__).with_name("contract.txt")
LEAD_II_FEATURES = "mean", "standard deviation", "skewness", "kurtosis"
N_DEFINED_FEATURES = 8    # in contract.txt; the large model's others are in its source


def describe_run(
    settings: Any,
    labels: pd.DataFrame,
    classes: list[str],
    leads: Sequence[str],
    features: Sequence[tuple],
    is_demo: bool,
) -> dict:
    """Return the part of the card that is known before training.

    For the script's `Settings`; `features` are names, units and reference ranges.
    """
    given = dataclasses.asdict(settings)
    recipe = given.pop("recipe")
    labels_sha256 = files.sha256(settings.labels)

    card = {
        "version": __version__,
        "commit": origin.commit(),
        "code_sha256": files.code_sha256(),
        "classes": classes,
        "leads": leads,
        "features": features,
        "synthetic": is_demo,
        "sampling_rate_hz": recipe["sequence_length"] / wfdb_files.RECORD_SECONDS,
        "recipe": recipe,
        "settings": given,
        "versions": origin.versions(),
        "rows": labels.attrs["rows"],
        "records": len(labels),
        "patients": labels["subject_id"].nunique(),
        "labels_sha256": labels_sha256,
        "trained_on": [labels_sha256]}

    if settings.test_labels:
        card["test_labels_sha256"] = files.sha256(settings.test_labels)
    return card


def feature_title(name: str, unit: str = "") -> str:
    """Return a feature's name with lead and unit: "mean, lead II [mV]"."""
    title = f"{name}, lead II" if name in LEAD_II_FEATURES else name
    return f"{title} [{unit}]" if unit else title


def contract(card: dict) -> dict[str, list[str]]:
    """Return what a model takes and gives, section by section, each a list of sentences.

    Parameters
    ----------
    card : the model's card; `temperature`, `metrics` and origins may be missing

    Returns
    -------
    dict
        "Inputs", "Preparation" (steps in order), "Features", "R peaks", "Outputs", "Rate step"
        (where the model has one) and "Labels".
    """
    recipe = card["recipe"]
    step = rate_step.of_card(card)
    thresholds = card.get("metrics", {}).get("thresholds", {})
    fields = {
        "recipe": recipe,
        "rate_step": rate_step,
        "limits": step.limits or [0, 0],
        "r_peaks": r_peaks,
        "wfdb_files": wfdb_files,
        "rate": recipe["sequence_length"] / wfdb_files.RECORD_SECONDS,
        "leads": ", ".join(card["leads"]),
        "width": len(card["features"]),
        "unknown_rate": _unknown_rate(recipe),
        "high_pass": _high_pass(recipe["high_pass"]),
        "low": 0.5 - recipe["central_share"] / 2,
        "high": 0.5 + recipe["central_share"] / 2,

        "more_features": _more_features(card),
        "n_classes": len(card["classes"]),
        "classes": ", ".join(card["classes"]),
        "n_models": len(card.get("temperature", [1])),
        "thresholds": "; ".join(report.threshold_lines(thresholds)) or "none",
        "labels": _labels(card)}

    sections = {}
    for section in TEMPLATE.read_text(encoding="utf-8").split("## ")[1:]:
        heading, *paragraphs = section.strip().split("\n\n")
        filled = [" ".join(words.split()).format(**fields) for words in paragraphs]
        if heading != "Rate step" or step.limits:
            sections[heading] = [line for text in filled for line in text.splitlines()]
    return sections


def in_markdown(contract: dict[str, list[str]]) -> str:
    """Return a contract in Markdown: a heading and a numbered list for each section."""
    return "\n\n".join(
        "\n".join([f"### {heading}\n", *(f"{i}. {words}" for i, words in enumerate(sentences, 1))])
        for heading, sentences in contract.items())


def _unknown_rate(recipe):
    """Return how a model takes a heart rate that is NaN: the end of a sentence, or ""."""
    if recipe["model"] == "large" or recipe["rate_curve"]:
        # The large model's network knows its mean, and its regression the middle of its hinges
        return ", and a heart rate that is NaN for 80 bpm where it is compared with 60 and 100"
    return ""


def _high_pass(hertz):
    if not hertz:
        return "nothing is filtered (f is not needed)"
    return (f"multiply X[k] by f^4 / (f^4 + {hertz:g}^4), a second-order Butterworth high-pass of "
            f"{hertz:g} Hz run forwards and backwards")


def _more_features(card):
    more = card["features"][N_DEFINED_FEATURES:]
    lines = [f"{feature_title(name, unit)}." for name, unit, _ in more]
    if more:
        lines.append(f"The last {len(more)} are defined in ecg/large_features.py of version "
                     f"{card.get('version', 'unknown')}, function extra_features, with sources.")
    return "\n".join(lines)


def _labels(card):
    of_test = card.get("test_labels_origin", "")
    return "\n".join(filter(None, [
        origin.TRAINED_ON_SYNTHETIC if card.get("synthetic") else "",
        origin.about_results(origin.of_card(card), of_test),
        origin.caution(card)]))

"""The model card of a run, in Markdown, from the files of its results folder alone."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ecg import cohort, origin
from ecg.card import contract, in_markdown
from ecg.errors import markdown
from ecg.output.read import Results, read_texts

# Settings that name places on somebody's machine: not for a card that is passed on. The origin of
# the labels is stated under another heading.
UNLISTED = {
    "labels",
    "labels_origin",
    "start_from",
    "data_dir",
    "test_labels",
    "test_data_dir",
    "output",
    "results",
    "cache_dir",
    "scheduler",
}

BASELINES = {    # by name in metrics.json
    "model": "this model",
    "rate rule": "baseline: heart rate alone",
    "logistic regression": "baseline: logistic regression on the same features",
}

CARD = """---
license: mit    # this project's; that of your records may ask for another
library_name: keras
tags: [ecg, electrocardiography, 12-lead, time-series-classification]
model-index:
- name: {name}
  results:
  - task: {{type: time-series-classification}}
    dataset: {{type: ecg, name: ECGs of {metrics[patients]} test patients}}
    metrics:
    - {{type: accuracy, value: {metrics[model][accuracy][0]:.4f}}}
    - {{type: balanced_accuracy, value: {metrics[model][balanced accuracy][0]:.4f}}}
---
# Model card: ECG classifier

{synthetic}Tells 10-second, 12-lead ECGs apart: {classes}. **{not_medical}**

## Intended use

Research and teaching: comparing methods, finding labels to look at again, trying out ideas.

**Not to be used** to diagnose, treat, triage or monitor anyone, to rule an illness out, or without
a physician's own reading of the ECG; nor on children, paced rhythms, other leads or other lengths
unless it has been tested on them.

## Data

{run[records]} records of {run[patients]} patients; SHA-256 of the label file
{run[labels_sha256]}.{trained_on}
Below, the records that were used, each once (training repeats those of a short class), and their
patients. Patient numbers in more than one split: {n_shared}.

{table1}

What became of each row of the label file:

{flow}

**{origin}** The results say how well the model agrees with these labels, right or wrong.

## Inputs and outputs

{contract}

## Results

{metrics[records]} test records of {metrics[patients]} patients{claim}{untested}

{accuracies}

Heart rate alone tells the slow, the fast and else the commonest other class.

{by_class}

Threshold: the decision threshold at 95 % sensitivity, chosen on validation patients; sensitivity
and specificity there are those on test patients. –: too few records.

Confidence {metrics[confidence][0]:.1%}, standard deviation {metrics[confidence][1]:.1%}.
{temperature}

{calibration}

Accuracy at coverage, where the least certain records are left undecided: {by_coverage}.

{cohort.EXPLORATORY}

{groups}

## Limits

- One class per record: of two findings in an ECG the labels name one, and an ECG of no class here
  is given one all the same.
- Other hospitals, devices and filters differ; results on an external test set are usually worse:
  test there first.
- Probabilities are calibrated on validation patients of {calibrated} data, every class counting
  alike.
- Ten seconds are shorter than the reference ranges of heart rate variability are meant for.

## Versions and settings

{versions}

{settings}
"""


def markdown_table(heading: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    names = list(map(str, heading))
    cells = [names, ["---"] * len(names), *(map(str, row) for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def escaped_table(frame: pd.DataFrame) -> str:
    """Return a table of texts in Markdown, which acts on none of them."""
    return markdown_table(map(markdown, frame.columns), frame.map(markdown).to_numpy())


# ------------------------------------------------------------------------------- tables, as texts
def accuracies(metrics: dict[str, Any]) -> pd.DataFrame:
    """Return both accuracies of the model and its baselines, with their intervals."""
    kinds = ["balanced accuracy", "accuracy"]
    rows = [[words, *("{:.3f} ({:.2f}–{:.2f})".format(*metrics[name][kind]) for kind in kinds)]
            for name, words in BASELINES.items()]
    return pd.DataFrame(rows, columns=["95 % interval over patients", *kinds])


def scores_by_class(metrics: dict[str, Any]) -> pd.DataFrame:
    """Return precision, recall, F1 score and decision threshold of each class."""
    rows = []
    for name, scores in metrics["per class"].items():
        n_tested = scores["support"]
        threshold = metrics["thresholds"][name] or {}
        values = [scores[kind] if n_tested else None
                  for kind in ("precision", "recall", "f1-score")]
        values += map(threshold.get, ("probability", "sensitivity", "specificity"))
        cells = ["–" if value is None else f"{value:.3f}" for value in values]
        rows.append([name, f"{n_tested:.0f}", *cells])

    return pd.DataFrame(rows, columns=[
        "class", "test records", "precision", "recall", "F1", "threshold", "sensitivity there",
        "specificity there"])


def listed_settings(run: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run and the fields of its recipe, but those that name places."""
    recipe = dict(run["recipe"])
    settings = {**run["settings"], "recipe": recipe.pop("name"), **recipe}
    return {name: value for name, value in settings.items()
            if value not in ("", None) and name not in UNLISTED}


def _calibration(metrics):
    """Return both calibration scores before and after temperature scaling."""
    kinds = ["expected calibration error", "Brier score"]
    rows = [[f"{where}, {when}", *(f"{scores[when][kind]:.3f}" for kind in kinds)]
            for where, scores in metrics["calibration"].items() for when in ("before", "after")]
    return pd.DataFrame(rows, columns=["temperature scaling", *kinds])


# ------------------------------------------------------------------------------------------ words
def _claim(run):
    """Return the end of a sentence on the test patients, and the warning after it, if there is one.

    Of a model without a start nothing is claimed: those in models/ have seen all patients.
    """
    unseen = origin.unseen(run, run["recipe"]["epochs"] != 0) if origin.starts(run) else ""
    caution = origin.caution(run)
    return f"{unseen}. **{caution}**" if caution else f"{unseen}."


def _origin(run):
    """Return the sentences on where the labels come from."""
    of_test = run.get("test_labels_origin", "")
    words = origin.origin_of_labels(markdown(origin.of_card(run)), markdown(of_test))
    for number, start in enumerate(origin.starts(run)):
        name = markdown(Path(start["model"]).name)
        of_start = markdown(start["labels_origin"])
        words += (f" {'That started' if number else 'Started'} from the model {name} (SHA-256 "
                  f"{markdown(start['sha256'])}), origin of its labels: {of_start}.")
    return words


def _trained_on(run):
    """Return a sentence on the label files that the model has learnt from, if it was adapted."""
    if not origin.starts(run):
        return ""
    hashes = ", ".join(map(markdown, origin.trained_on(run)))
    return f" The model has learnt from the label files with the SHA-256 {hashes}, the last first."


def _listed(values):
    """Return names and values, in Markdown, as one line."""
    return ", ".join(f"{markdown(name)} {markdown(value)}" for name, value in values.items())


def _contract(card):
    """Return in Markdown what the model takes and gives."""
    return in_markdown({heading: [markdown(words) for words in sentences]
                        for heading, sentences in contract(card).items()})


def _data(results):
    """Return what the section on the data says."""
    run = results.run
    split = read_texts(results.folder / "split.csv")
    pairs = split[["subject_id", "split"]].drop_duplicates()
    return {
        "trained_on": _trained_on(run),
        "n_shared": (pairs["subject_id"].value_counts() > 1).sum(),
        "table1": escaped_table(read_texts(results.folder / "table1.csv")),
        "flow": "\n".join(f"- {markdown(line)}" for line in run["flow"]),
        "origin": _origin(run),
    }


def _results(run, metrics):
    """Return what the section on the results says."""
    absent = [markdown(name) for name, scores in metrics["per class"].items()
              if not scores["support"]]
    untested = f" **No test record of {', '.join(absent)}: nothing is known of it.**"
    coverages = [f"{float(coverage):.0%} {accuracy:.3f}" for coverage, accuracy
                 in metrics["accuracy at coverage"].items() if float(coverage) * 100 % 25 == 0]
    temperatures = ", ".join(f"{value:.3f}" for value in run["temperature"])
    temperature = f"Temperature, fitted on the validation patients: {temperatures}."
    if run["recipe"]["epochs"] == 0:
        temperature = "Nothing was trained: weights and temperature are those of the start."

    return {
        "claim": _claim(run),
        "untested": untested if absent else "",
        "accuracies": escaped_table(accuracies(metrics)),
        "by_class": escaped_table(scores_by_class(metrics)),
        "temperature": temperature,
        "calibration": escaped_table(_calibration(metrics)),
        "by_coverage": ", ".join(coverages),
        "groups": escaped_table(cohort.group_table(metrics["groups"])),
    }


def model_card(results: Results) -> str:
    """Return the model card of a run, in Markdown, from the files of its folder."""
    run = results.run
    synthetic = f"**{origin.TRAINED_ON_SYNTHETIC} Nothing here is about real patients.**\n\n"
    return CARD.format(
        name=json.dumps(results.folder.resolve().name),
        cohort=cohort,
        run=run,
        metrics=results.metrics,
        synthetic=synthetic if run["synthetic"] else "",
        not_medical=origin.NOT_MEDICAL,
        classes=", ".join(map(markdown, run["classes"])),
        **_data(results),
        **_results(run, results.metrics),
        contract=_contract({**run, "metrics": results.metrics}),
        calibrated="this" if run["recipe"]["epochs"] else "the start's",
        versions=_listed(run["versions"]),
        settings=_listed(listed_settings(run)),
    )

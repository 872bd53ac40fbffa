"""The model card of a run, in Markdown, from the files of its results folder alone."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ecg import cohort, intervals, origin
from ecg.card import contract, in_markdown
from ecg.errors import markdown
from ecg.output.read import Results, read_texts
from ecg.report import SHORT

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

EVENLY = """\
The test is drawn evenly from the classes, as far as they have records. What a call is worth depends
on how common they are: positive (PPV) and negative predictive value (NPV), specificity and average
precision, on the test and at the prevalence of the label file."""

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
{label_error}

## Inputs and outputs

{contract}

## Results

{metrics[records]} test records of {metrics[patients]} patients{claim}{untested}

{accuracies}

Heart rate alone tells the slow, the fast and else the commonest other class.

{overall}

Calibration slope and intercept: of a logistic regression of being right on the logit of the
confidence; ideal are 1 and 0.

{by_class}

{intervals}

{at_prevalence}{thresholds}

Threshold: the decision threshold at 95 % sensitivity, chosen on validation patients; sensitivity
and specificity there are those on test patients. –: too few records.

Confidence {metrics[confidence][mean]:.1%}, standard deviation {metrics[confidence][deviation]:.1%}.
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


CHECKLIST = Path(__file__).with_name("reporting_checklist.txt")


def markdown_table(heading: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    names = list(map(str, heading))
    cells = [names, ["---"] * len(names), *(map(str, row) for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def escaped_table(frame: pd.DataFrame) -> str:
    """Return a table of texts in Markdown, which acts on none of them."""
    return markdown_table(map(markdown, frame.columns), frame.map(markdown).to_numpy())


# ------------------------------------------------------------------------------- tables, as texts
def with_interval(score: list[float | None] | None) -> str:
    """Return value and interval of a figure of metrics.json as text."""
    if not score:
        return "–"
    value, low, high = score
    return f"{value:.3f} ({'too few' if low is None else f'{low:.2f}–{high:.2f}'})"


def accuracies(metrics: dict[str, Any]) -> pd.DataFrame:
    """Return the figures of predicted classes, of the model and its baselines."""
    kinds = ["balanced accuracy", "accuracy", "macro F1", "Cohen's kappa"]
    rows = [[words, *(with_interval(metrics[name][kind]) for kind in kinds)]
            for name, words in BASELINES.items()]
    return pd.DataFrame(rows, columns=["95 % interval over patients", *kinds])


def overall(metrics: dict[str, Any]) -> pd.DataFrame:
    """Return how well the probabilities are calibrated."""
    kinds = ["Brier score", "expected calibration error", "calibration slope",
             "calibration intercept"]
    return pd.DataFrame([[with_interval(metrics["model"][kind]) for kind in kinds]], columns=kinds)


def scores_by_class(metrics: dict[str, Any]) -> pd.DataFrame:
    """Return all figures of each class against the rest."""
    kinds = "AUROC", "average precision", "recall", "precision", "F1", "specificity"
    rows = [[name, metrics["records by class"][name], *(with_interval(scores[kind])
                                                       for kind in kinds)]
            for name, scores in metrics["by class"].items()]
    return pd.DataFrame(rows, columns=["class", "test records", *kinds])


def at_prevalence(metrics: dict[str, Any]) -> pd.DataFrame:
    """Return what a call is worth on the test and where classes are as common as in a file."""
    of_file = metrics.get("at prevalence", {"by class": {}})
    rows = [[name, place, f"{share:.1%}", *(with_interval(scores[kind]) for kind in SHORT)]
            for name in of_file["by class"]
            for place, share, scores in (
                ("test", metrics["records by class"][name] / metrics["records"],
                 metrics["by class"][name]),
                ("label file", of_file["prevalence"][name], of_file["by class"][name]))]
    return pd.DataFrame(rows, columns=["class", "as in the", "prevalence", *SHORT.values()])


def thresholds(metrics: dict[str, Any]) -> pd.DataFrame:
    """Return the decision threshold of each class."""
    kinds = "probability", "sensitivity", "specificity"
    rows = []
    for name, threshold in metrics["thresholds"].items():
        values = map((threshold or {}).get, kinds)
        rows.append([name, *("–" if value is None else f"{value:.3f}" for value in values)])
    return pd.DataFrame(rows, columns=["class", "threshold", "sensitivity there",
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
    rows = [[when, *(f"{scores[kind]:.3f}" for kind in kinds)]
            for when, scores in metrics["calibration"].items()]
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
    label_error = origin.label_error(run)
    pairs = split[["subject_id", "split"]].drop_duplicates()
    return {
        "trained_on": _trained_on(run),
        "n_shared": (pairs["subject_id"].value_counts() > 1).sum(),
        "table1": escaped_table(read_texts(results.folder / "table1.csv")),
        "flow": "\n".join(f"- {markdown(line)}" for line in run["flow"]),
        "origin": _origin(run),
        "label_error": f"{label_error} {origin.SOURCES}" if label_error else "",
    }


def _results(run, metrics):
    """Return what the section on the results says."""
    absent = [markdown(name) for name, n in metrics["records by class"].items() if not n]
    untested = f" **No test record of {', '.join(absent)}: nothing is known of it.**"
    coverages = [f"{float(coverage):.0%} {accuracy:.3f}" for coverage, accuracy
                 in metrics["accuracy at coverage"].items() if float(coverage) * 100 % 25 == 0]
    temperatures = ", ".join(f"{value:.3f}" for value in run["temperature"])
    temperature = f"Temperature, fitted on the validation patients: {temperatures}."
    if run["recipe"]["epochs"] == 0:
        temperature = "Nothing was trained: weights and temperature are those of the start."

    common = at_prevalence(metrics)
    return {
        "claim": _claim(run),
        "untested": untested if absent else "",
        "accuracies": escaped_table(accuracies(metrics)),
        "overall": escaped_table(overall(metrics)),
        "by_class": escaped_table(scores_by_class(metrics)),
        "intervals": intervals.IN_WORDS,
        "at_prevalence": f"{EVENLY}\n\n{escaped_table(common)}\n\n" if len(common) else "",
        "thresholds": escaped_table(thresholds(metrics)),
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


def reporting_checklist(results: Results) -> str:
    """Return TRIPOD+AI's 27 items in Markdown: where the run answers each, or what is missing."""
    run, metrics = results.run, results.metrics
    table = accuracies(metrics).set_index("95 % interval over patients")["balanced accuracy"]
    return CHECKLIST.read_text(encoding="utf-8").format(
        run=run,
        metrics=metrics,
        classes=", ".join(map(markdown, run["classes"])),
        model_accuracy=table.iloc[0],
        baseline_accuracies="; ".join(f"{name} {score}" for name, score in table.iloc[1:].items()),
        seed=run["settings"]["seed"],
        calibration=", ".join(
            f"{kind} {with_interval(metrics['model'][kind])}" for kind in overall(metrics)),
        versions=_listed(run["versions"]),
        n_features=len(run["features"]),
        external="yes" if run["settings"].get("test_labels") else "none (internal validation)",
        updating="adapted from another model: see item 8" if origin.starts(run) else "none",
        **{name: "–" if words == "" else words for name, words in _data(results).items()}
        | {"flow": "; ".join(map(markdown, run["flow"]))},
    )

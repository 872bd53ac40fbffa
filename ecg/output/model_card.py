"""The model card of a run, in Markdown, from the files of its results folder alone."""

import json
from pathlib import Path
from typing import Any

from ecg import cohort, intervals, origin
from ecg.card import contract, in_markdown
from ecg.errors import markdown
from ecg.output import tables
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

{synthetic}Tells 10-second, 12-lead ECGs apart: {classes}. **{origin.NOT_MEDICAL}**

## Intended use

Research and teaching: comparing methods, finding labels to look at again, trying out ideas.

**Not to be used** to diagnose, treat, triage or monitor anyone, to rule an illness out, or without
a physician's own reading of the ECG; nor on children, paced rhythms, other leads or other lengths
unless it has been tested on them.

## Data

{run[records]} records of {run[patients]} patients; SHA-256 of the label file
{run[labels_sha256]}.
Below, the records that were used, each once (training repeats those of a short class), and their
patients. Patient numbers in more than one split: {n_shared}.

{table1}

What became of each row of the label file:

{flow}

**{of_labels}** The results say how well the model agrees with these labels, right or wrong.
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

{intervals.IN_WORDS}

{how_drawn}

{at_prevalence}

{thresholds}

Probability: the decision threshold at 95 % sensitivity, chosen on validation patients; sensitivity
and specificity there are those on test patients. –: too few records.

Confidence {metrics[confidence][mean]:.1%}, standard deviation {metrics[confidence][deviation]:.1%}.
Temperature: {temperature}.

{calibration}

{cohort.EXPLORATORY}

{groups}

## Limits

- One class per record: of two findings in an ECG the labels name one, and an ECG of no class here
  is given one all the same.
- Other hospitals, devices and filters differ; results on an external test set are usually worse:
  test there first.
- Probabilities are calibrated, by the temperature, on validation patients of {calibrated} data,
  every class counting alike.
- Ten seconds are shorter than the reference ranges of heart rate variability are meant for.

## Versions and settings

{versions}

{settings}
"""

CHECKLIST = Path(__file__).with_name("reporting_checklist.txt")


def listed_settings(run: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run and the fields of its recipe, but those that name places."""
    recipe = dict(run["recipe"])
    settings = {**run["settings"], "recipe": recipe.pop("name"), **recipe}
    return {name: value for name, value in settings.items()
            if value not in ("", None) and name not in UNLISTED}


def _claim(run):
    """Return the end of a sentence on the test patients, and the warning after it, if there is one.

    Of a model without a start nothing is claimed: those in models/ have seen all patients.
    """
    unseen = origin.unseen(run, run["recipe"]["epochs"] != 0) if origin.starts(run) else ""
    caution = origin.caution(run)
    return f"{unseen}. **{caution}**" if caution else f"{unseen}."


def _of_labels(run):
    """Return the sentences on where the labels come from."""
    of_test = run.get("test_labels_origin", "")
    words = origin.origin_of_labels(markdown(origin.of_card(run)), markdown(of_test))
    for number, start in enumerate(origin.starts(run)):
        name = markdown(Path(start["model"]).name)
        of_start = markdown(start["labels_origin"])
        words += (f" {'That started' if number else 'Started'} from the model {name} (SHA-256 "
                  f"{markdown(start['sha256'])}), origin of its labels: {of_start}.")
    return words


def _listed(values):
    """Return names and values, in Markdown, as one line."""
    return ", ".join(f"{markdown(name)} {markdown(value)}" for name, value in values.items())


def _fields(results):
    """Return what both templates are filled with, by name."""
    run, metrics = results.run, results.metrics
    split = read_texts(results.folder / "split.csv")
    pairs = split[["subject_id", "split"]].drop_duplicates()
    absent = [markdown(name) for name, n in metrics["records by class"].items() if not n]
    label_error = origin.label_error(run)
    sections = contract(run)
    synthetic = f"**{origin.TRAINED_ON_SYNTHETIC} Nothing here is about real patients.**\n\n"
    flow = read_texts(results.folder / "flow.csv")
    shown = {
        **tables.of_metrics(metrics),
        "table1": read_texts(results.folder / "table1.csv"),
        "flow": flow}

    return {name: tables.escaped_table(frame) for name, frame in shown.items()} | {
        "run": run,
        "metrics": metrics,
        "scores": {name: tables.figures({"": metrics[name]}).iloc[0] for name in tables.ROWS},
        "cohort": cohort,
        "intervals": intervals,
        "origin": origin,
        "how_drawn": tables.how_drawn(metrics),

        "name": json.dumps(results.folder.resolve().name),
        "synthetic": synthetic if run["synthetic"] else "",
        "classes": ", ".join(map(markdown, run["classes"])),
        "n_features": len(run["features"]),
        "n_shared": (pairs["subject_id"].value_counts() > 1).sum(),
        "n_starts": len(origin.starts(run)),
        "flow_line": ", ".join(map(" ".join, flow.map(markdown).to_numpy())),
        "of_labels": _of_labels(run),
        "label_error": f"{label_error} {origin.SOURCES}" if label_error else "",
        "external": "yes" if run["settings"].get("test_labels") else "none (internal validation)",

        "contract": in_markdown({
            heading: list(map(markdown, sentences)) for heading, sentences in sections.items()}),
        "claim": _claim(run),
        "untested": (f" **No test record of {', '.join(absent)}: nothing is known of it.**"
                     if absent else ""),
        "temperature": ", ".join(f"{value:.3f}" for value in run["temperature"]),
        "calibrated": "this" if run["recipe"]["epochs"] else "the start's",
        "versions": _listed(run["versions"]),
        "settings": _listed(listed_settings(run))}


def model_card(results: Results) -> str:
    """Return the model card of a run, in Markdown, from the files of its folder."""
    return CARD.format(**_fields(results))


def reporting_checklist(results: Results) -> str:
    """Return TRIPOD+AI's 27 items in Markdown: where the run answers each, or what is missing."""
    return CHECKLIST.read_text(encoding="utf-8").format(**_fields(results))

"""The model card of a run, in Markdown, from the files of its results folder alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ecg import origin
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

CARD = """# Model card: ECG classifier

{synthetic}Tells 10-second, 12-lead ECGs apart: {classes}. **{not_medical}**

## Intended use

Research and teaching: comparing methods, finding labels to look at again, trying out ideas.

**Not to be used** to diagnose, treat, triage or monitor anyone, to rule an illness out, or without
a physician's own reading of the ECG; nor on children, paced rhythms, other leads or other lengths
unless it has been tested on them.

## Data

{records} records of {patients} patients; SHA-256 of the label file {labels_sha256}.{trained_on}
Below, the records (patients) that a run draws from; training repeats records of a short class, the
test never does. {splits}

Left out as unusable: {left_out}.

**{origin}** The results say how well the model agrees with these labels, right or wrong.

## Inputs and outputs

{contract}

## Results

{results}

## Limits

- One class per record: of two findings in an ECG the labels name one, and an ECG of no class here
  is given one all the same.
- Other hospitals, devices and filters differ; results on an external test set are usually worse:
  test there first.
- Probabilities are calibrated on validation patients of {calibrated} data, every class counting
  alike.
- Ten seconds are shorter than the reference ranges of heart rate variability are meant for.
- Results by sex, age or origin are unknown: the label file does not hold them.

## Versions and settings

{versions}

{settings}
"""


def markdown_table(heading: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = []
    for row in (heading, ["---"] * len(heading), *rows):
        cells = " | ".join(map(str, row))
        lines.append(f"| {cells} |")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------ data
def count_splits(split: pd.DataFrame, classes: Sequence[str]) -> str:
    """Return in Markdown the records (patients) of each class and split, and who is in two.

    `split` is split.csv.
    """
    splits = [name for name in ("train", "validation", "test") if name in set(split["split"])]
    pairs = split[["subject_id", "split"]].drop_duplicates()
    n_shared = (pairs["subject_id"].value_counts() > 1).sum()

    table = []
    for name in (*classes, None):
        own = split if name is None else split[split["ecg_category"] == name]
        of_splits = [own["subject_id"][own["split"] == part] for part in splits]
        cells = [f"{len(subjects)} ({subjects.nunique()})" for subjects in of_splits]
        table.append(["all" if name is None else markdown(name), *cells])
    return (f"Patient numbers in more than one split: {n_shared}.\n\n"
            f"{markdown_table(['class', *splits], table)}")


def left_out_by_reason(results: Results) -> pd.Series:
    """Return how many records were left out, by reason."""
    why = read_texts(results.folder / "left_out.csv")["why"]
    return why.str.split(":").str[0].value_counts().sort_index()


# --------------------------------------------------------------------------------------- results
def _overall(metrics):
    """Return the table of both accuracies with their intervals, for the model and baselines."""
    kinds = ["accuracy", "balanced accuracy"]
    rows = []
    for who in ("model", "rate rule", "logistic regression"):
        scores = ["{:.3f} ({:.2f} to {:.2f})".format(*metrics[who][kind]) for kind in kinds]
        rows.append([who, *scores])
    return markdown_table(["95 % interval: bootstrap over patients", *kinds], rows)


def _per_class(classes, metrics):
    """Return the table of precision, recall and F1 score by class."""
    kinds = ["precision", "recall", "f1-score"]
    rows = []
    for name in classes:
        scores = metrics["per class"][name]
        tested = scores["support"]
        values = [f"{scores[kind]:.3f}" if tested else "–" for kind in kinds]
        rows.append([markdown(name), *values, f"{tested:g}"])
    return markdown_table(["class", *kinds, "test records"], rows)


def _calibration(metrics):
    """Return the table of both calibration scores before and after temperature scaling."""
    kinds = ["expected calibration error", "Brier score"]
    rows = [[f"{where}, {when}", *(f"{scores[when][kind]:.3f}" for kind in kinds)]
            for where, scores in metrics["calibration"].items() for when in ("before", "after")]
    return markdown_table(["temperature scaling", *kinds], rows)


def _is_evaluation(run):
    """Tell whether a run trained nothing (--epochs 0)."""
    return run["recipe"]["epochs"] == 0


def _claim(run):
    """Return the end of a sentence on the test patients, and the warning after it, if there is one.

    Of a model without a start nothing is claimed: those in models/ have seen all patients.
    """
    unseen = origin.unseen(run, not _is_evaluation(run)) if origin.starts(run) else ""
    caution = origin.caution(run)
    return f"{unseen}. **{caution}**" if caution else f"{unseen}."


def results_section(run: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Return the scores with their intervals, the calibration and the classes, in Markdown."""
    classes = run["classes"]
    absent = [markdown(name) for name in classes if not metrics["per class"][name]["support"]]
    untested = f" **No test record of {', '.join(absent)}: nothing is known of it.**"
    confidence, deviation = metrics["confidence"]
    values = ", ".join(f"{value:.3f}" for value in run["temperature"])
    temperature = f"Temperature, fitted on the validation patients: {values}."
    if _is_evaluation(run):
        temperature = "Nothing was trained: weights and temperature are those of the start."
    by_coverage = metrics["accuracy at coverage"]
    quarters = [f"{float(share):.0%} {accuracy:.3f}" for share, accuracy in by_coverage.items()
                if float(share) * 100 % 25 == 0]

    return f"""{metrics["records"]} test records of {metrics["patients"]} patients{_claim(run)}\
{untested if absent else ""}

{_overall(metrics)}

The rate rule calls slow, fast or the commonest other class by heart rate alone.

{_per_class(classes, metrics)}

Confidence {confidence:.1%}, standard deviation {deviation:.1%}.
{temperature}

{_calibration(metrics)}

Accuracy where the least certain records are left undecided, by coverage: {", ".join(quarters)}."""


# ------------------------------------------------------------------------------------------ card
def listed_settings(run: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run and the fields of its recipe, but those that name places."""
    recipe = dict(run["recipe"])
    settings = {**run["settings"], "recipe": recipe.pop("name"), **recipe}
    return {name: value for name, value in settings.items()
            if value not in ("", None) and name not in UNLISTED}


def _as_text(values):
    """Return names and values as one line."""
    return ", ".join(f"{name} {markdown(value)}" for name, value in values.items())


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
    hashes = ", ".join(map(markdown, origin.trained_on(run))) or "not stated"
    return f" The model has learnt from the label files with the SHA-256 {hashes}, the last first."


def model_card(results: Results) -> str:
    """Return the model card of a run, in Markdown, from the files of its folder."""
    run = results.run
    synthetic = f"**{origin.TRAINED_ON_SYNTHETIC} Nothing here is about real patients.**\n\n"
    left_out = [f"{markdown(reason)} ({n})" for reason, n in left_out_by_reason(results).items()]
    sections = contract({**run, "metrics": results.metrics})
    escaped = {heading: [markdown(words) for words in sentences]
               for heading, sentences in sections.items()}

    return CARD.format(
        synthetic=synthetic if run["synthetic"] else "",
        not_medical=origin.NOT_MEDICAL,
        classes=", ".join(map(markdown, run["classes"])),
        records=run["records"],
        patients=run["patients"],
        labels_sha256=run["labels_sha256"],
        trained_on=_trained_on(run),
        splits=count_splits(read_texts(results.folder / "split.csv"), run["classes"]),
        left_out=", ".join(left_out) or "none",
        origin=_origin(run),
        contract=in_markdown(escaped),
        results=results_section(run, results.metrics),
        calibrated="the start's" if _is_evaluation(run) else "this",
        versions=_as_text(run["versions"]),
        settings=_as_text(listed_settings(run)),
    )

"""Write the model card of a run, from the files of its results folder alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ecg import origin
from ecg.card import contract, in_markdown
from ecg.errors import markdown
from ecg.output.read import Folder, read_metrics, read_run, read_table, reading
from ecg.output.write import PAGES, write_bytes

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

MOST_SPLITS = 3    # train, validation, test

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
- Other hospitals, devices and filters differ; results there are usually worse: test there first.
- Probabilities are calibrated on validation patients of {calibrated} data, every class counting
  alike.
- Ten seconds are shorter than the usual ranges of heart rate variability are meant for.
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
def _records_and_patients(rows, splits):
    """Return "records (patients)" in each of the splits."""
    cells = []
    for name in splits:
        subjects = rows["subject_id"][rows["split"] == name]
        cells.append(f"{len(subjects)} ({subjects.nunique()})")
    return cells


def count_splits(folder: Folder, classes: Sequence[str]) -> str:
    """Return in Markdown the records (patients) of each class and split, and who is in two."""
    columns = ["subject_id", "waveform_path", "ecg_category", "split"]
    split = read_table(folder, "split.csv", columns)
    names = sorted(set(split["split"]), key="train validation test".find)
    with reading(Path(folder) / "split.csv"):
        if len(names) > MOST_SPLITS:
            raise ValueError("more splits than a run makes")
    pairs = split[["subject_id", "split"]].drop_duplicates()
    shared = (pairs["subject_id"].value_counts() > 1).sum()

    table = []
    for name in classes:
        rows = split[split["ecg_category"] == name]
        table.append([markdown(name), *_records_and_patients(rows, names)])
    table.append(["all", *_records_and_patients(split, names)])
    counts = markdown_table(["class", *map(markdown, names)], table)
    return f"Patient numbers in more than one split: {shared}.\n\n{counts}"


def left_out_by_reason(folder: Folder) -> pd.Series:
    """Return how many records were left out, by reason."""
    why = read_table(folder, "left_out.csv", ["record", "why"])["why"]
    return why.str.split(":").str[0].value_counts().sort_index()


def count_left_out(folder: Folder) -> str:
    """Return how many records were left out for which reason, or "none"."""
    counts = left_out_by_reason(folder)
    return ", ".join(f"{markdown(reason)} ({n})" for reason, n in counts.items()) or "none"


# --------------------------------------------------------------------------------------- results
def _overall(metrics):
    """Return the table of both accuracies with their intervals, for model and rate rule."""
    kinds = ["accuracy", "balanced accuracy"]
    rows = []
    for who in ("model", "rate rule", "logistic regression"):
        scores = []
        for kind in kinds:
            value, low, high = metrics[who][kind]
            scores.append(f"{value:.3f} ({low:.2f} to {high:.2f})")
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
    rows = []
    for where, scores in metrics["calibration"].items():
        for when in ("before", "after"):
            values = [f"{scores[when][kind]:.3f}" for kind in kinds]
            rows.append([f"{markdown(where)}, {when}", *values])
    return markdown_table(["temperature scaling", *kinds], rows)


def _never_tested(classes, metrics):
    """Return a sentence on the classes of which the test has no record, or ""."""
    absent = [markdown(name) for name in classes if not metrics["per class"][name]["support"]]
    if not absent:
        return ""
    return f" **No test record of {', '.join(absent)}: nothing is known of it.**"


def _accuracy_by_share_kept(metrics):
    """Return the accuracy of the most certain quarter, half, three quarters and all."""
    kept = []
    for share, accuracy in metrics["accuracy by share kept"].items():
        if float(share) * 100 % 25 == 0:
            kept.append(f"{float(share):.0%} {accuracy:.3f}")
    return ", ".join(kept)


def _is_evaluation(run):
    """Tell whether a run trained nothing (--epochs 0)."""
    return run["method"].get("epochs") == 0


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
    confidence, deviation = metrics["confidence"]
    values = ", ".join(f"{value:.3f}" for value in run["temperature"])
    temperature = f"Temperature, fitted on the validation patients: {values}."
    if _is_evaluation(run):
        temperature = "Nothing was trained: weights and temperature are those of the start."
    records, patients = markdown(metrics["records"]), markdown(metrics["patients"])
    return f"""{records} test records of {patients} patients{_claim(run)}\
{_never_tested(classes, metrics)}

{_overall(metrics)}

The rate rule calls slow, fast or the commonest other class by heart rate alone.

{_per_class(classes, metrics)}

Confidence {confidence:.1%}, standard deviation {deviation:.1%}.
{temperature}

{_calibration(metrics)}

Accuracy where the least certain are left undecided, by share kept: \
{_accuracy_by_share_kept(metrics)}."""


# ------------------------------------------------------------------------------------------ card
def listed_settings(run: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run and the fields of its recipe, but those that name places.

    In an older run.json the latter are among the settings, and a recipe has no name.
    """
    settings = dict(run["settings"])
    for name, value in run.get("recipe", {}).items():
        settings["recipe" if name == "name" else name] = value
    return {name: value for name, value in settings.items()
            if value not in ("", None) and name not in UNLISTED}


def _as_text(values):
    """Return names and values as one line."""
    return ", ".join(f"{markdown(name)} {markdown(value)}" for name, value in values.items())


def _introduction(run):
    """Return the warning that stands first where the data is synthetic, or ""."""
    if not run["synthetic"]:
        return ""
    return f"**{origin.TRAINED_ON_SYNTHETIC} Nothing here is about real patients.**\n\n"


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


def _contract(run, metrics):
    """Return what the model takes and gives."""
    sections = contract({**run, "recipe": run["method"], "metrics": metrics})
    escaped = {heading: [markdown(words) for words in sentences]
               for heading, sentences in sections.items()}
    return in_markdown(escaped)


def model_card(folder: Folder) -> str:
    """Return the model card of a run, in Markdown, from the files of its folder.

    `ResultsError` if one of them is missing or damaged.
    """
    run = read_run(folder)
    metrics = read_metrics(folder)
    left_out = count_left_out(folder)
    splits = count_splits(folder, run["classes"])
    with reading(Path(folder) / "metrics.json"):
        results = results_section(run, metrics)

    with reading(Path(folder) / "run.json"):
        return CARD.format(
            synthetic=_introduction(run),
            not_medical=origin.NOT_MEDICAL,
            classes=", ".join(map(markdown, run["classes"])),
            records=markdown(run["records"]),
            patients=markdown(run["patients"]),
            labels_sha256=markdown(run["labels_sha256"]),
            trained_on=_trained_on(run),
            splits=splits,
            left_out=left_out,
            origin=_origin(run),
            contract=_contract(run, metrics),
            results=results,
            calibrated="the start's" if _is_evaluation(run) else "this",
            versions=_as_text(run["versions"]),
            settings=_as_text(listed_settings(run)),
        )


def write_card(folder: Folder, force: bool = False) -> Path:
    """Write MODEL_CARD.md into the folder of a run, by force over somebody else's."""
    path = Path(folder) / "MODEL_CARD.md"
    write_bytes(path, model_card(folder).encode(), PAGES[path.name], force)
    return path

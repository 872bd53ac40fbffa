"""Write the model card of a run, from the files of its results folder alone.

    python tools/model_card.py results/my_model    # the same as figures.py --only model_card
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if sys.path[0] != ROOT:    # to run from anywhere
    sys.path.insert(0, ROOT)
from tools.results_folder import (  # noqa: E402
    read_metrics,
    read_run,
    read_table,
    reading,
    report,
    write_whole,
)


def plain(text):
    """Keep a name from being read as Markdown or HTML."""
    return re.sub(r"([\\|`*\[\]<>#]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(str(text).split()))


def markdown_table(*rows):
    """Return a Markdown table; the first row is its heading."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]])


def count_splits(folder, classes):
    """Return in Markdown the records (patients) of each class and split, and who is in two."""
    split = read_table(folder, "split.csv", [
        "subject_id", "waveform_path", "ecg_category", "split"])
    order = sorted(set(split["split"]), key="train validation test".find)

    def cells(rows):
        groups = {part: rows["subject_id"][rows["split"] == part] for part in order}
        return [f"{len(x)} ({x.nunique()})" for x in groups.values()]

    pairs = split[["subject_id", "split"]].drop_duplicates()
    shared = (pairs["subject_id"].value_counts() > 1).sum()
    return f"Patient numbers in more than one split: {shared}.\n\n" + markdown_table(
        ["class", *order], *([plain(name), *cells(split[split["ecg_category"] == name])]
                             for name in classes), ["all", *cells(split)])


def write_results(run, metrics):
    """Return the scores with their intervals, the calibration and the classes, in Markdown."""
    kinds = "accuracy", "balanced accuracy"
    both = markdown_table(["95 % interval: bootstrap over patients", *kinds], *(
        [who, *("{:.3f} ({:.2f} to {:.2f})".format(*metrics[who][kind]) for kind in kinds)]
        for who in ("model", "rate rule")))
    kinds = "precision", "recall", "f1-score"
    rows = {plain(name): metrics["per class"][name] for name in run["classes"]}
    per_class = markdown_table(["class", *kinds, "test records"], *(
        [name, *(f"{row[kind]:.3f}" if row["support"] else "–" for kind in kinds),
         f"{row['support']:g}"] for name, row in rows.items()))
    kinds = "expected calibration error", "Brier score"
    calibrated = markdown_table(["temperature scaling", *kinds], *(
        [f"{where}, {when}", *(f"{of[when][kind]:.3f}" for kind in kinds)]
        for where, of in metrics["calibration"].items() for when in ("before", "after")))
    kept = ", ".join(f"{float(share):.0%} {value:.3f}" for share, value in
                     metrics["accuracy by share kept"].items() if float(share) * 100 % 25 == 0)
    absent = ", ".join(name for name, row in rows.items() if not row["support"])
    absent = absent and f" **No test record of {absent}: nothing is known of it.**"
    return f"""{metrics["records"]} test records of {metrics["patients"]} patients.{absent}

{both}

The rate rule calls slow, fast or the commonest other class by heart rate alone.

{per_class}

Confidence {metrics["confidence"][0]:.1%}, standard deviation {metrics["confidence"][1]:.1%}.
Temperature, fitted on the validation patients: {", ".join(f"{x:.3f}" for x in run["temperature"])}.

{calibrated}

Accuracy where the least certain are left undecided, by share kept: {kept}."""


# Settings that say where things lie on somebody's machine: nothing for a card that is passed on
PLACES = {"labels", "data_dir", "test_labels", "test_data_dir", "output", "results", "cache_dir",
          "scheduler"}

CARD = """# Model card: ECG classifier

{synthetic}Tells 10-second, 12-lead ECGs apart: {classes}. **This is not a medical device.**

## Intended use

Research and teaching: comparing methods, finding labels to look at again, trying out ideas.

**Not to be used** to diagnose, treat, triage or monitor anyone, to rule an illness out, or without
a physician's own reading of the ECG; nor on children, paced rhythms, other leads or other lengths
unless it has been tested on them.

## Data

{records} records of {patients} patients; SHA-256 of the label file `{labels_sha256}`.
Below, the records (patients) that a run draws from; training repeats records of a short class, the
test never does. {splits}

Left out as unusable: {left_out}.

**Origin of the labels.** For MIMIC-IV-ECG they are made from the statements of the ECG cart's own
program, machine reads, **not a cardiologist's**: the results say how well the model agrees with
them. Of other data, ask whoever made the label file.

## Inputs

Ten seconds of the leads {leads} in mV at their true rate;
high-pass {high_pass:g} Hz; resampled to {sequence_length} points ({rate:g} Hz); each lead scaled so
that the central {central_share:.0%} of its samples span {span:g} units, clipped to [-3, 3]. Beside
them features, of which those not measurable count as training's mean: {features}.

## Results

{results}

## Limits

- One class per record: of two findings in an ECG the labels name one, and an ECG of no class here
  is given one all the same.
- Other hospitals, devices and filters differ; results there are usually worse: test there first.
- Probabilities are calibrated on validation patients of this data, every class counting alike.
- Ten seconds are shorter than the usual ranges of heart rate variability are meant for.
- Results by sex, age or origin are unknown: the label file does not hold them.

## Versions and settings

{versions}

{settings}
"""


def model_card(folder):
    """Return the model card of a run, in Markdown, from the files of its folder."""
    run, metrics, folder = read_run(folder), read_metrics(folder), Path(folder)
    why = read_table(folder, "left_out.csv", ["record", "why"])["why"].str.split(":").str[0]
    splits = count_splits(folder, run["classes"])
    with reading(folder / "metrics.json"):
        results = write_results(run, metrics)
    with reading(folder / "run.json"):
        settings, versions = (", ".join(f"{plain(name)} {plain(x)}" for name, x in run[key].items()
                              if x not in ("", None) and name not in PLACES)
                              for key in ("settings", "versions"))
        return CARD.format(
            synthetic="**The data is synthetic: nothing here is about real patients.**\n\n"
            if run["synthetic"] else "", classes=", ".join(map(plain, run["classes"])),
            splits=splits, results=results, versions=versions, settings=settings,
            left_out=", ".join(f"{plain(reason)} ({n})" for reason, n in
                               why.value_counts().sort_index().items()) or "none",
            leads=", ".join(run["leads"]), rate=run["settings"]["sequence_length"] / 10,
            features=", ".join(plain(name) for name, _, _ in run["features"]),
            **{name: run[name] for name in ("records", "patients", "labels_sha256")},
            **{name: run["settings"][name] for name in (
                "high_pass", "sequence_length", "central_share", "span")})


def write_card(folder):
    """Write MODEL_CARD.md into the folder of a run; return its path."""
    text = model_card(folder)
    return write_whole(Path(folder) / "MODEL_CARD.md",
                       lambda file: file.write_text(text, encoding="utf-8"))


def main(arguments=None):
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     usage=argparse.SUPPRESS)    # so that an error takes one line
    parser.add_argument("folder", help="results folder of a run")
    folder = parser.parse_args(arguments).folder
    return report(lambda: [write_card(folder)])


if __name__ == "__main__":
    sys.exit(main())

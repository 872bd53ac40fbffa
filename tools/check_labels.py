"""List the training records whose labels the models most disagree with, and explain the errors.

    python tools/check_labels.py                                    # the demo
    python tools/check_labels.py --labels my.csv --data-dir data    # and all flags of the script

The records that a run trains on are cut into five parts by patient; a model that never saw a part
says what it thinks of it (out-of-fold probabilities). Where it is sure of another class, either it
is wrong or the label is: a list to look at, not to correct by. Five trainings take five times as
long as a run.
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import too_feature as script

FOLDS = 5
# What decides on a class, by a part of its name: the figure, and what speaks for the class
DECISIVE = {"brady": ("heart rate", "low"), "tachy": ("heart rate", "high"),
            "fibrillation": ("CV_RR", "high: irregular"), "bundle": ("QRS width", "high: wide")}
UNITS = {"heart rate": "bpm", "CV_RR": "", "QRS width": "ms"}


def out_of_fold(records, n_classes, settings):
    """Return the probabilities (n, n_classes) of each record by a model that never saw its patient.

    Repeated records count once in what is predicted and as often as they come in training.
    """
    wide = settings.model == "large"
    features = records.features if wide else records.features[:, :len(script.FEATURES)]
    records = records._replace(features=features)
    # The held-out records are not to choose when training ends or how fast it goes
    settings = dataclasses.replace(settings, stop_patience=settings.epochs,
                                   reduce_patience=settings.epochs, keep="last")
    probabilities = np.zeros((len(records.targets), n_classes))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=settings.seed)
    groups = records.rows["subject_id"]
    for number, (seen, unseen) in enumerate(folds.split(groups, records.targets, groups)):
        print(f"part {number + 1} of {FOLDS}")
        training, validation = (script.Records(records.rows.iloc[part], *(
            array[part] for array in records[1:])) for part in (seen, unseen))
        once = ~validation.rows["waveform_path"].duplicated().to_numpy()
        chosen = script.Records(validation.rows[once], *(array[once] for array in validation[1:]))
        model, temperature, _ = script.train(training, chosen, n_classes, settings)
        probabilities[unseen] = script.tool("report").soften(    # which was fitted on these
            script.predict(model, validation), 1 / temperature)
    return probabilities


def suspects(table, classes, probabilities):
    """Sort the records, given as `table` with a column of targets, by doubt in their labels."""
    own = probabilities[np.arange(len(table)), table["target"]]
    other = probabilities.copy()
    other[np.arange(len(table)), table["target"]] = 0
    table = table.assign(says=np.array(classes)[other.argmax(axis=1)],
                         probability=other.max(axis=1), of_label=own)
    return table.assign(doubt=table["probability"] - own).sort_values(
        "doubt", ascending=False, kind="stable")


def explain(table, classes):
    """Tell the deciding figure of each class for the records found, missed and wrongly called so.

    Returns a DataFrame: class, figure, its median (and number of records) in each of the three.
    """
    rows = []
    for name in classes:
        figure = next((key for part, key in DECISIVE.items() if part in name.casefold()), None)
        if figure is None:
            continue
        is_so, called = table["ecg_category"] == name, table["called"] == name
        values = table[figure[0]]
        rows.append({"class": name, "figure": f"{figure[0]} {UNITS[figure[0]]}".strip(),
                     "speaks for it": figure[1], **{
            what: f"{values[which].median():.3g} ({which.sum()})" for what, which in (
                ("found", is_so & called), ("missed", is_so & ~called),
                ("wrongly called so", ~is_so & called), ("all others", ~is_so & ~called))}})
    return pd.DataFrame(rows)


def main(arguments=None):
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False,
                                     usage=argparse.SUPPRESS,    # so that an error takes one line
                                     epilog="All flags of too_feature.py are taken too.")
    parser.add_argument("--top", type=int, default=20, help="records to list (default: 20)")
    parser.add_argument("--csv", help="file for all records, with their out-of-fold probabilities")
    own, rest = parser.parse_known_args(arguments)
    try:
        if not 0 <= own.top <= 10**7:
            raise script.UserError(f"--top {own.top}: expected a number from 0 to {10**7}")
        if own.csv and (os.path.isdir(own.csv)    # before five trainings, which it would lose
                        or not os.access(os.path.dirname(os.path.abspath(own.csv)), os.W_OK)):
            raise script.UserError(f"--csv {own.csv}: expected a file in a writable folder")
        settings = script.parse_settings(rest)
        labels, left_out = script.read_labels(settings.labels), []
        script.ensure_demo(labels, settings.data_dir)
        classes = sorted(labels["ecg_category"].unique())
        split = script.split_patients(labels, settings.test_share, settings.val_share,
                                      settings.seed)["train"]
        # The large model's features hold the QRS width
        records = script.load_split("train", split, classes,
                                    dataclasses.replace(settings, model="large"), left_out)
        if pd.Series(records.targets).value_counts().min() < FOLDS:
            raise script.UserError(f"--train-samples {settings.train_samples}: too few for "
                                   f"{FOLDS} parts of every class")
        probabilities = out_of_fold(records, len(classes), settings)
        names = [name for name, _, _ in
                 (*script.FEATURES, *script.tool("large_model").EXTRA_FEATURES)]
        columns = {name: records.features[:, names.index(name)] for name in UNITS}
        table = records.rows.assign(target=records.targets, **columns, **dict(zip(
            classes, probabilities.T, strict=True)))
        table["called"] = np.array(classes)[probabilities.argmax(axis=1)]
        table = table.reset_index(drop=True)
        keep = ~table["waveform_path"].duplicated()
        table, probabilities = table[keep], probabilities[keep]
        ranked = suspects(table, classes, probabilities)
        if own.csv:
            script.write_whole(Path(own.csv), lambda file: ranked.to_csv(file, index=False))
    except (script.UserError, KeyboardInterrupt) as error:
        print(f"check_labels.py: error: {str(error) or 'interrupted'}", file=sys.stderr)
        return 2 if isinstance(error, script.UserError) else 130
    shown = ranked[["waveform_path", "ecg_category", "says", "probability", "of_label", *UNITS]]
    print(f"\nOf {len(table)} training records, the {own.top} whose labels models that never saw "
          "their patients most disagree with\n")
    print(shown.head(own.top).round(3).to_string(index=False))
    print("\nWhat decides, as medians (and numbers of records), where the models found a class, "
          "missed it, or saw it in vain\n")
    print(explain(table, classes).to_string(index=False))
    print(f"\nleft out: {script.reasons(left_out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""List the training records whose labels the models most disagree with, and explain the errors.

    python tools/check_labels.py                                    # the demo
    python tools/check_labels.py --labels my.csv --data-dir data    # and all flags of the script

The records that a run trains on are cut into five parts by patient, and each part is judged by a
model that never saw it (out-of-fold probabilities). Where such a model is sure of another class,
either it is wrong or the label is: this is a list of records to look at, not of labels to change.
Five trainings take five times as long as a run.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

import too_feature as script
from ecg import files
from ecg.errors import UserError, exit_code, user_errors
from ecg.left_out import reasons
from ecg.metrics import soften
from ecg.output.read import probability_column
from ecg.settings import Parser, whole_number

FOLDS = 5
MOST_LISTED = 10**7
MOST_LETTERS = 20    # of a path in a printed table, which is some 100 wide
# What decides on a class, by a part of its name: the feature, and what speaks for the class
DECISIVE = {"brady": ("heart rate", "low"), "tachy": ("heart rate", "high"),
            "fibrillation": ("CV_RR", "high: irregular"), "bundle": ("QRS width", "high: wide")}
UNITS = {"heart rate": "bpm", "CV_RR": "", "QRS width": "ms"}


# ------------------------------------------------------------------------------------- out of fold
def pick(records: script.Records, which: np.ndarray) -> script.Records:
    """Return some of the records, by their places or a mask."""
    return script.Records(records.rows.iloc[which], records.signals[which],
                          records.features[which], records.targets[which])


def out_of_fold(records: script.Records, n_classes: int,
                settings: script.Settings) -> np.ndarray:
    """Return the probabilities (n, n_classes) of each record by a model that never saw its patient.

    A record that is repeated counts once where its model's temperature is fitted, and as often as
    it is repeated in training.
    """
    # The held-out records must not choose when training ends or how its learning rate falls
    recipe = dataclasses.replace(settings.recipe, stop_patience=settings.recipe.epochs,
                                 reduce_patience=settings.recipe.epochs, keep="last")
    settings = dataclasses.replace(settings, recipe=recipe)
    n_features = len(script.feature_names(recipe))
    records = records._replace(features=records.features[:, :n_features])

    probabilities = np.zeros((len(records.targets), n_classes))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=settings.seed)
    patients = records.rows["subject_id"]
    parts = folds.split(patients, records.targets, patients)
    for number, (seen, unseen) in enumerate(parts, 1):
        print(f"part {number} of {FOLDS}")
        held_out = pick(records, unseen)
        once = ~held_out.rows["waveform_path"].duplicated().to_numpy()
        model, temperature, _ = script.train(pick(records, seen), pick(held_out, once), n_classes,
                                             settings)
        # The temperature was fitted on these very records, so it is taken out again
        predicted = script.predict(model, held_out)
        probabilities[unseen] = soften(predicted, 1 / temperature)

    return probabilities


# ------------------------------------------------------------------------------------------ tables
def suspects(table: pd.DataFrame, classes: list[str], probabilities: np.ndarray) -> pd.DataFrame:
    """Sort records by the doubt in their labels, the most doubtful first.

    `table` has a column `target`, the number of the label's class. The result has four more: the
    likeliest other class (`says`), its `probability`, that of the label (`of_label`), and their
    difference (`doubt`).
    """
    places = np.arange(len(table))
    of_label = probabilities[places, table["target"]]
    others = probabilities.copy()
    others[places, table["target"]] = 0
    probability = others.max(axis=1)
    table = table.assign(says=np.array(classes)[others.argmax(axis=1)], probability=probability,
                         of_label=of_label, doubt=probability - of_label)
    return table.sort_values("doubt", ascending=False, kind="stable")


def decisive(name: str) -> tuple[str, str] | None:
    """Return the feature that decides on a class and what speaks for it; None if none is known."""
    for part, found in DECISIVE.items():
        if part in name.casefold():
            return found
    return None


def medians_by_outcome(table: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Compare the deciding feature of each class between right and wrong predictions.

    `table` has the label (`ecg_category`), the prediction (`called`) and the features of a record
    in each row. The result has, for each class that a known feature decides on, that feature and
    its median (and the number of records) for the records found, missed, false alarms, and
    all others.
    """
    rows = []
    for name in classes:
        known = decisive(name)
        if known is None:
            continue

        feature, speaks_for_it = known
        labelled = table["ecg_category"] == name
        called = table["called"] == name
        outcomes = {"found": labelled & called, "missed": labelled & ~called,
                    "false alarm": ~labelled & called, "all others": ~labelled & ~called}
        row = {"class": name, "figure": f"{feature} {UNITS[feature]}".strip(),
               "speaks for it": speaks_for_it}
        for outcome, which in outcomes.items():
            values = table.loc[which, feature]
            row[outcome] = f"{values.median():.3g} ({len(values)})"
        rows.append(row)

    return pd.DataFrame(rows)


def tabulate(records: script.Records, classes: list[str],
             probabilities: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """Put records, deciding features and probabilities into a table, each record once.

    A class's column is "p CLASS", as in all tables of this project. Returns the table and the
    probabilities of its rows.
    """
    names = [name for name, _, _ in script.feature_names(script.RECIPES["large"])]
    table = records.rows.assign(target=records.targets)
    for name in UNITS:
        table[name] = records.features[:, names.index(name)]
    for name, column in zip(classes, probabilities.T, strict=True):
        table[probability_column(name)] = column
    table["called"] = np.array(classes)[probabilities.argmax(axis=1)]

    once = ~table["waveform_path"].duplicated().to_numpy()
    return table[once].reset_index(drop=True), probabilities[once]


# -------------------------------------------------------------------------------------------- main
def parse_arguments(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Return this program's own arguments, and a list of the others, which are the script's."""
    parser = Parser(__doc__, epilog="All flags of too_feature.py are taken too.")
    parser.add_argument("--top", type=whole_number, default=20,
                        help="number of records to list (default: %(default)s)")
    parser.add_argument("--csv", help="file for all records, with their out-of-fold probabilities; "
                        "cells are as in the label file, also those that a spreadsheet takes for "
                        "formulas (=, +, -, @)")
    return parser.parse_known_args(arguments)


def check_arguments(own: argparse.Namespace, settings: script.Settings) -> None:
    """Raise `UserError` for what would only fail, or destroy something, after five trainings."""
    if not 0 <= own.top <= MOST_LISTED:
        raise UserError(f"--top {own.top}: expected a number from 0 to {MOST_LISTED}")
    if settings.start_from:
        raise UserError(f"--start-from {settings.start_from}: may have seen the patients that its "
                        "copies would judge; leave it out")
    if own.csv:
        with user_errors("--csv", UserError):
            files.check_target(own.csv, [settings.labels])


def load_training(settings: script.Settings) -> tuple[script.Records, list[str]]:
    """Return the records that a run would train on, with all features, and the class names."""
    labels = script.read_labels(settings.labels)
    script.ensure_demo(labels, settings.data_dir)
    classes = sorted(labels["ecg_category"].unique())
    splits = script.split_patients(labels, settings.test_share, settings.val_share, settings.seed)

    # The QRS width is one of the large model's features
    large = dataclasses.replace(settings.recipe, model="large")
    settings = dataclasses.replace(settings, recipe=large)
    records = script.load_split("train", splits["train"], classes, settings)
    if pd.Series(records.targets).value_counts().min() < FOLDS:
        raise UserError(f"--train-samples {settings.train_samples}: too few for {FOLDS} parts of "
                        "every class")
    return records, classes


def shortened(path: str) -> str:
    """Return the end of a path, which tells records apart, where all of it is too wide."""
    return path if len(path) <= MOST_LETTERS else "..." + path[3 - MOST_LETTERS:]


def print_tables(ranked: pd.DataFrame, classes: list[str], top: int) -> None:
    """Print the most doubtful labels, and what decides on the classes."""
    doubtful = ranked.head(top)
    shown = pd.DataFrame({
        "record": doubtful["waveform_path"].map(shortened),
        "label": doubtful["ecg_category"],
        "p": doubtful["of_label"].map("{:.2f}".format),
        "models say": doubtful["says"],
        "p ": doubtful["probability"].map("{:.2f}".format)})
    for name, unit in UNITS.items():
        digits = 0 if unit else 2
        shown[f"{name} {unit}".strip()] = doubtful[name].map(f"{{:.{digits}f}}".format)

    print(f"\nOf {len(ranked)} training records, the {len(doubtful)} whose labels are most in "
          "doubt, by models that\nnever saw their patients (p: probability)\n")
    print(shown.to_string(index=False))
    print("\nWhat decides, as medians (and numbers of records), where the models found a class, "
          "missed it,\nor saw it where it was not\n")
    print(medians_by_outcome(ranked, classes).to_string(index=False))


def run(own: argparse.Namespace, others: list[str]) -> None:
    """Train on the labels in parts, and print which of them are in doubt."""
    settings = script.parse_settings(others)
    check_arguments(own, settings)
    records, classes = load_training(settings)
    share = 1 - 1 / FOLDS
    print(f"{FOLDS} trainings of {settings.recipe.epochs} epochs follow, each on about "
          f"{share * len(records.targets):.0f} records: together some {FOLDS} times a run's")
    probabilities = out_of_fold(records, len(classes), settings)

    table, probabilities = tabulate(records, classes, probabilities)
    ranked = suspects(table, classes, probabilities)
    if own.csv:
        files.write_whole(Path(own.csv), lambda file: ranked.to_csv(file, index=False))
    print_tables(ranked, classes, own.top)
    print(f"\nleft out: {reasons(records.left_out)}")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    own, others = parse_arguments(arguments)
    return exit_code("check_labels.py", run, own, others, traceback="--traceback" in others)


if __name__ == "__main__":
    sys.exit(main())

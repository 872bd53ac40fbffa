"""List the training records whose labels the models most disagree with.

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
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

import too_feature as script
from ecg import files, label_rows, patients
from ecg.adaptation import each_once, pick
from ecg.errors import UserError, exit_code
from ecg.left_out import count_reasons
from ecg.metrics import soften
from ecg.output.read import probability_column
from ecg.settings import Parser

FOLDS = 5
LISTED = 20    # records; all are in --csv
FIGURES = ["heart rate", "CV_RR", "QRS width"]    # features that decide on the five classes


# ------------------------------------------------------------------------------------- out of fold
def folds(records: script.Records, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the places of records that a part's model sees, and of those it judges, by patient."""
    persons = patients.join_copies(records.rows, records.signals)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    return splitter.split(persons, records.targets, persons)


def out_of_fold(records: script.Records, n_classes: int,
                settings: script.Settings) -> np.ndarray:
    """Return the probabilities (n, n_classes) of each record by a model that never saw its patient.

    A record that is repeated counts once where its model's temperature is fitted, and as often as
    it is repeated in training.
    """
    # The held-out records must not choose when training ends or how its learning rate falls
    recipe = dataclasses.replace(settings.recipe, stop_patience=settings.recipe.epochs,
                                 reduce_patience=settings.recipe.epochs, keep_weights="last")
    settings = dataclasses.replace(settings, recipe=recipe)
    n_features = len(script.feature_names(recipe))
    records = records._replace(features=records.features[:, :n_features])

    probabilities = np.zeros((len(records.targets), n_classes))
    for number, (seen, unseen) in enumerate(folds(records, settings.seed), 1):
        print(f"part {number} of {FOLDS}")
        held_out = pick(records, unseen)
        model, temperature, _ = script.train(
            pick(records, seen), each_once(held_out), n_classes, settings)
        # The temperature was fitted on these very records, so it is taken out again
        predicted = script.predict(model, held_out)
        probabilities[unseen] = soften(predicted, 1 / temperature)

    return probabilities


# ------------------------------------------------------------------------------------------ tables
def rank_by_doubt(records: script.Records, classes: list[str],
                  probabilities: np.ndarray) -> pd.DataFrame:
    """Return a table of the records, each once, the one whose label is most in doubt first.

    It has the deciding features, the probability of each class ("p CLASS", as in all tables of this
    project), the likeliest class but the label's (`says`) with its `probability`, that of the label
    (`of_label`), and the difference of these two (`doubt`).
    """
    names = [name for name, _, _ in script.feature_names(script.RECIPES["large"])]
    features = pd.DataFrame(records.features, columns=names)[FIGURES]
    p = pd.DataFrame(probabilities, columns=list(map(probability_column, classes)))
    is_label = np.eye(len(classes), dtype=bool)[records.targets]
    of_label = probabilities[is_label]
    others = np.where(is_label, 0, probabilities)

    table = pd.concat([records.rows.reset_index(drop=True), features, p], axis=1).assign(
        says=np.array(classes)[others.argmax(axis=1)], probability=others.max(axis=1),
        of_label=of_label, doubt=others.max(axis=1) - of_label)
    return table.drop_duplicates("waveform_path").sort_values(
        "doubt", ascending=False, kind="stable")


def print_table(ranked: pd.DataFrame) -> None:
    """Print the most doubtful labels, with the features that decide on classes."""
    doubtful = ranked.head(LISTED)
    print(f"\nOf {len(ranked)} training records, the {len(doubtful)} whose labels are most in "
          "doubt, by models that\nnever saw their patients: the label and its probability p, and "
          "another class and its;\nheart rate in bpm, QRS width in ms\n")
    columns = ["record", "ecg_category", "of_label", "says", "probability", *FIGURES]
    print(doubtful.assign(record=doubtful["waveform_path"].str[-20:]).to_string(
        index=False, columns=columns, header=["record", "label", "p", "says", "p", *FIGURES],
        float_format="{:.3g}".format))


# -------------------------------------------------------------------------------------------- main
def run(own: argparse.Namespace, others: list[str]) -> None:
    """Train on the labels in parts, and print which of them are in doubt."""
    settings = script.parse_settings(others)
    if settings.start_from:
        raise UserError(f"--start-from {settings.start_from}: may have seen the patients that its "
                        "copies would judge; leave it out")
    if own.csv:
        files.check_target(own.csv, [settings.labels])

    labels, external = label_rows.read_files(settings)
    script.ensure_demo(labels, settings.data_dir)
    classes = sorted(labels["ecg_category"].unique())
    splits = script.split_labels(labels, classes, settings, external)

    # With the features of the large model, among which is the QRS width
    large = dataclasses.replace(settings.recipe, model="large")
    records = script.load_split("train", splits["train"], classes,
                                dataclasses.replace(settings, recipe=large))
    if np.bincount(records.targets).min() < FOLDS:
        raise UserError(f"--train-samples {settings.train_samples}: too few for {FOLDS} parts of "
                        "every class")
    probabilities = out_of_fold(records, len(classes), settings)
    ranked = rank_by_doubt(records, classes, probabilities)
    if own.csv:
        files.write_bytes(own.csv, ranked.to_csv(index=False).encode())
    print_table(ranked)
    print(f"\nleft out: {count_reasons(reason for _, reason in records.left_out)}")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = Parser(__doc__, epilog="All flags of too_feature.py are taken too.")
    parser.add_argument("--csv", help="file for all records, with their out-of-fold probabilities; "
                        "cells are as in the label file, also those that a spreadsheet takes for "
                        "formulas (=, +, -, @)")
    own, others = parser.parse_known_args(arguments)
    return exit_code("check_labels.py", run, own, others, traceback="--traceback" in others)


if __name__ == "__main__":
    sys.exit(main())

"""Write the results folder of a run: its tables, and what its figures are drawn from.

`ecg.output.figures` draws from these files alone; notebooks read them.
"""

import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ecg import files
from ecg.output.read import feature_column, probability_column

ReadEcg = Callable[[str], tuple[np.ndarray, float, np.ndarray]]
TABLES = "predictions", "history", "left_out", "split"
FILES = ("report.txt", "metrics.json", "run.json", "examples.npz", "errors.npz",
         *(f"{name}.csv" for name in TABLES))
PAGES = {    # that show these files, each with what only ours holds
    "MODEL_CARD.md": b"# Model card: ECG classifier",
    "index.html": b"<title>ECG classifier "}
FIGURES = "confusion_matrix", "training_curves", "roc_precision_recall", "reliability", "features"
OWN_FIGURE = re.compile(rf"({'|'.join(FIGURES)}|ecg_\d+(_[a-z0-9_]+)?)\.(pdf|png)")
KEPT_ERRORS = 12    # most confident errors whose ECGs are kept for index.html
OWN_FILES = "history", "left_out", "metrics"    # parts of the card that run.json leaves out


def write_bytes(path: Path, content: bytes, mark: bytes = b"", force: bool = True) -> None:
    """Write a file as a whole; `UserError` if it cannot be written."""
    files.write_whole(path, lambda scratch: scratch.write_bytes(content))


class Tested(Protocol):
    """The n records of the test, as the script's `Records`."""

    @property
    def rows(self) -> pd.DataFrame:
        """Their subject_id, waveform_path and ecg_category."""

    @property
    def features(self) -> np.ndarray:
        """Their features, (n, 8 or more)."""


def predictions(test: Tested, probabilities: np.ndarray, classes: Sequence[str],
                features: Sequence[tuple]) -> pd.DataFrame:
    """Return a table with a row per test record: labels, probabilities and features.

    Parameters
    ----------
    test : the n records
    probabilities : ndarray, shape (n, n_classes)
    classes : names of the classes
    features : name, unit and usual range of each feature
    """
    names = np.array(classes)
    columns = {
        "subject_id": test.rows["subject_id"],
        "record": test.rows["waveform_path"],
        "true": test.rows["ecg_category"],
        "predicted": names[probabilities.argmax(axis=1)],
    }
    for number, name in enumerate(classes):
        columns[probability_column(name)] = probabilities[:, number]
    for number, (name, unit, _) in enumerate(features):
        columns[feature_column(name, unit)] = test.features[:, number]

    return pd.DataFrame(columns)


def choose_example(rows: pd.DataFrame, probabilities: np.ndarray, number: int,
                   name: str) -> int | None:
    """Choose a record of class `number`: neither the best case nor the worst.

    It is the one with the median probability of its class, of the rightly predicted records, or of
    all where none is right.

    Returns
    -------
    int or None
        Its place among the rows; None if the class has no record.
    """
    own = np.flatnonzero(rows["ecg_category"] == name)
    if not len(own):
        return None

    right = own[probabilities[own].argmax(axis=1) == number]
    candidates = right if len(right) else own
    order = np.argsort(probabilities[candidates, number], kind="stable")
    return int(candidates[order[len(candidates) // 2]])


def kept_ecg(rows: pd.DataFrame, place: int, number: int, read_ecg: ReadEcg) -> dict[str, Any]:
    """Return the arrays of one ECG, each name with `number` after it."""
    record = rows["waveform_path"].iloc[place]
    signal, fs, r_peaks = read_ecg(record)
    return {
        f"signal_{number}": signal.astype(np.float32),
        f"fs_{number}": fs,
        f"r_peaks_{number}": r_peaks,
        f"record_{number}": record,
    }


def examples(rows: pd.DataFrame, probabilities: np.ndarray, classes: Sequence[str],
             read_ecg: ReadEcg) -> dict[str, Any]:
    """Return the arrays of examples.npz: one ECG per class, as `choose_example` chooses."""
    arrays: dict[str, Any] = {}
    for number, name in enumerate(classes):
        place = choose_example(rows, probabilities, number, name)
        if place is not None:
            arrays |= kept_ecg(rows, place, number, read_ecg)
            arrays[f"probabilities_{number}"] = probabilities[place]

    return arrays


def errors(rows: pd.DataFrame, probabilities: np.ndarray, classes: Sequence[str],
           read_ecg: ReadEcg, most: int = KEPT_ERRORS) -> dict[str, Any]:
    """Return the arrays of errors.npz: the ECGs of the most confident errors, in that order."""
    predicted = np.array(classes)[probabilities.argmax(axis=1)]
    wrong = np.flatnonzero(predicted != rows["ecg_category"].to_numpy())
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")[:most]
    arrays: dict[str, Any] = {}
    for number, place in enumerate(wrong[order]):
        arrays |= kept_ecg(rows, int(place), number, read_ecg)
    return arrays


def as_npz(arrays: dict[str, Any]) -> bytes:
    """Return arrays as the content of an .npz file."""
    archive = io.BytesIO()    # not the file itself: on a full disk, NumPy would print a traceback
    np.savez_compressed(archive, **arrays)
    return archive.getvalue()


def history_table(histories: Sequence[Sequence[dict[str, float]]]) -> pd.DataFrame:
    """Return a table with a row per epoch of each repeat."""
    tables = []
    for repeat, epochs in enumerate(histories):
        numbers = range(1, len(epochs) + 1)
        tables.append(pd.DataFrame(epochs).assign(repeat=repeat, epoch=numbers))
    return pd.concat(tables)


def split_table(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return a table with a row per labelled record and the split in which it is."""
    return pd.concat([rows.assign(split=name) for name, rows in splits.items()])


def remove_pictures(folder: Path) -> None:
    """Remove pages and figures that show an earlier run: they are made anew, or not at all.

    What has another name in `figures/` is not ours, and stays.
    """
    paths = [Path(folder) / name for name in PAGES]
    paths += [path for path in Path(folder).glob("figures/*") if OWN_FIGURE.fullmatch(path.name)]
    for path in paths:
        path.unlink(missing_ok=True)


def write_results(folder: Path, card: dict[str, Any], report: str,
                  splits: dict[str, pd.DataFrame], test: Tested, probabilities: np.ndarray,
                  read_ecg: ReadEcg) -> None:
    """Write all files of a results folder but its figures, each as a whole.

    Parameters
    ----------
    folder : the results folder
    card : the model's card, ready for JSON: classes, features, history, left_out, metrics and more
    report : the report, as printed
    splits : rows of the label file (subject_id, waveform_path, ecg_category) by name of the split
    test : the n records of the test
    probabilities : ndarray, shape (n, n_classes)
    read_ecg : called with a waveform_path of the test; returns signal (samples, 12) in mV, its rate
        in Hz, and its R peaks in samples

    Raises
    ------
    UserError
        If a file cannot be written.
    """
    classes = card["classes"]
    tables = {
        "predictions": predictions(test, probabilities, classes, card["features"]),
        "history": history_table(card["history"]),
        "left_out": pd.DataFrame(card["left_out"], columns=["record", "why"]),
        "split": split_table(splits),
    }
    run = {name: value for name, value in card.items() if name not in OWN_FILES}

    contents = {
        "report.txt": report.encode(),
        "metrics.json": json.dumps(card["metrics"], indent=1).encode(),
        "run.json": json.dumps(run, indent=1).encode(),
    }
    for name, table in tables.items():
        contents[f"{name}.csv"] = table.to_csv(index=False).encode()
    for kind, choose in (("examples", examples), ("errors", errors)):
        arrays = choose(test.rows, probabilities, classes, read_ecg)
        contents[f"{kind}.npz"] = as_npz(arrays)

    remove_pictures(folder)
    for name, content in contents.items():
        write_bytes(Path(folder) / name, content)

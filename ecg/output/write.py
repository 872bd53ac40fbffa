"""Write the results folder of a run: its tables, and what its figures are drawn from.

`ecg.output.figures` draws from these files alone; notebooks read them.
"""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ecg.files import write_whole
from ecg.output.read import feature_column, probability_column

ReadEcg = Callable[[str], tuple[np.ndarray, float, np.ndarray]]
TABLES = "predictions.csv", "history.csv", "left_out.csv", "split.csv"
FILES = "report.txt", "metrics.json", "run.json", "ecgs.npz", *TABLES
FIGURES = "confusion_matrix", "training_curves", "roc_precision_recall", "reliability", "features"
DRAWN = (    # what shows an earlier run, also one of version 2.0: made anew, or not at all
    "MODEL_CARD.md", "index.html", "examples.npz", "errors.npz", "figures/ecg_*_*.p*",
    *(f"figures/{name}.p*" for name in (*FIGURES, "ecgs")))
KEPT_ERRORS = 12    # most confident errors whose ECGs are kept


class Tested(Protocol):
    """The n records of the test, as the script's `Records`."""

    @property
    def rows(self) -> pd.DataFrame:
        """Their subject_id, waveform_path and ecg_category."""

    @property
    def features(self) -> np.ndarray:
        """Their features, (n, 8 or more)."""

    @property
    def targets(self) -> np.ndarray:
        """The numbers of their classes, (n,)."""


def predictions(test: Tested, probabilities: np.ndarray, classes: Sequence[str],
                features: Sequence[tuple]) -> pd.DataFrame:
    """Return a table with a row per test record: labels, probabilities and features.

    Parameters
    ----------
    test : the n records
    probabilities : ndarray, shape (n, n_classes)
    classes : names of the classes
    features : name, unit and reference range of each feature
    """
    columns = {
        "subject_id": test.rows["subject_id"],
        "record": test.rows["waveform_path"],
        "true": test.rows["ecg_category"],
        "predicted": np.array(classes)[probabilities.argmax(axis=1)],
    }
    for number, name in enumerate(classes):
        columns[probability_column(name)] = probabilities[:, number]
    for number, (name, unit, _) in enumerate(features):
        columns[feature_column(name, unit)] = test.features[:, number]
    return pd.DataFrame(columns)


def choose_examples(true: np.ndarray, probabilities: np.ndarray) -> dict[int, int]:
    """Choose a record of each class: neither the best case nor the worst.

    It is the one with the median probability of its class, of the rightly predicted records, or of
    all where none is right.

    Parameters
    ----------
    true : ndarray of int, shape (n,), numbers of the labelled classes
    probabilities : ndarray, shape (n, n_classes)

    Returns
    -------
    dict
        By number of a class that has records, the row of its example.
    """
    is_right = probabilities.argmax(axis=1) == true
    chosen = {}
    for number in np.unique(true):
        own = true == number
        candidates = np.flatnonzero(own & is_right if is_right[own].any() else own)
        order = np.argsort(probabilities[candidates, number], kind="stable")
        chosen[int(number)] = int(candidates[order[len(candidates) // 2]])
    return chosen


def confident_errors(true: np.ndarray, probabilities: np.ndarray, most: int) -> list[int]:
    """Return the rows of wrongly classified records, the most confident first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != true)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order[:most]].tolist()


def kept_ecgs(records: Sequence[str], read_ecg: ReadEcg) -> bytes:
    """Return the content of ecgs.npz: signal, rate and R peaks of these records, in order."""
    arrays: dict[str, Any] = {"records": np.array(records)}
    rates = []
    for number, record in enumerate(records):
        signal, fs, r_peaks = read_ecg(record)
        arrays[f"signal_{number}"] = signal.astype(np.float32)
        arrays[f"r_peaks_{number}"] = r_peaks
        rates.append(fs)

    archive = io.BytesIO()    # not the file itself: on a full disk, NumPy would print a traceback
    np.savez_compressed(archive, fs=np.array(rates), **arrays)
    return archive.getvalue()


def history_table(histories: Sequence[Sequence[dict[str, float]]]) -> pd.DataFrame:
    """Return a table with a row per epoch of each repeat."""
    tables = []
    for repeat, epochs in enumerate(histories):
        numbers = range(1, len(epochs) + 1)
        tables.append(pd.DataFrame(epochs).assign(repeat=repeat, epoch=numbers))
    return pd.concat(tables)


def write_results(folder: Path, card: dict[str, Any], text: str, splits: dict[str, pd.DataFrame],
                  tested: Tested, mean: np.ndarray, read_ecg: ReadEcg) -> None:
    """Write all files of a results folder but its figures and pages, each as a whole.

    What is drawn of an earlier run is removed.

    Parameters
    ----------
    folder : the results folder
    card : the model's card, ready for JSON: classes, features, history, left_out, metrics and more
    text : the report, as printed
    splits : rows of the label file (subject_id, waveform_path, ecg_category) by name of the split
    tested : the n records of the test
    mean : ndarray, shape (n, n_classes), their probabilities, the mean over the repeats
    read_ecg : called with a waveform_path of the test; returns signal (samples, 12) in mV, its rate
        in Hz, and its R peaks in samples

    Raises
    ------
    UserError
        If a file cannot be written.
    """
    folder = Path(folder)
    for pattern in DRAWN:
        for path in folder.glob(pattern):
            path.unlink()

    others = "history", "left_out", "metrics"    # parts of the card that have files of their own
    run = {name: value for name, value in card.items() if name not in others}
    contents = {
        "report.txt": text,
        "metrics.json": json.dumps(card["metrics"], indent=1),
        "run.json": json.dumps(run, indent=1),
        "predictions.csv": predictions(tested, mean, card["classes"], card["features"]),
        "history.csv": history_table(card["history"]),
        "left_out.csv": pd.DataFrame(card["left_out"], columns=["record", "why"]),
        "split.csv": pd.concat([rows.assign(split=name) for name, rows in splits.items()]),
    }
    for name, content in contents.items():
        is_table = isinstance(content, pd.DataFrame)
        write_text(folder / name, content.to_csv(index=False) if is_table else content)

    examples = choose_examples(tested.targets, mean).values()
    errors = confident_errors(tested.targets, mean, KEPT_ERRORS)
    rows = list(dict.fromkeys([*examples, *errors]))    # each once
    kept = kept_ecgs(tested.rows["waveform_path"].iloc[rows].tolist(), read_ecg)
    write_whole(folder / "ecgs.npz", lambda scratch: scratch.write_bytes(kept))


def write_text(path: Path, text: str) -> Path:
    """Write a file as a whole; return its path. `UserError` if it cannot be written."""
    write_whole(path, lambda scratch: scratch.write_bytes(text.encode()))
    return path

"""Write the results folder of a run: its tables, and what its figures are drawn from.

`ecg.output.figures` draws from these files alone; notebooks read them.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecg import cohort, files
from ecg.files import write_bytes
from ecg.output.read import feature_column, probability_column

ReadEcg = Callable[[str], tuple[np.ndarray, float, np.ndarray]]
FIGURES = "confusion_matrix", "training_curves", "roc_precision_recall", "reliability", "features"
METRICS = ["section", "of", "figure", "value", "low", "high"]    # columns of metrics.csv
MAX_ERRORS = 8    # most confident ones, whose ECGs are kept and drawn


def predictions(tested: Any, probabilities: np.ndarray, classes: Sequence[str],
                features: Sequence[tuple]) -> pd.DataFrame:
    """Return a table with a row per test record: labels, probabilities and features.

    Parameters
    ----------
    tested : the n records of the test, as the script's `Records`
    probabilities : ndarray, shape (n, n_classes)
    classes : names of the classes
    features : name, unit and reference range of each feature
    """
    columns = {
        "subject_id": tested.rows["subject_id"],
        "record": tested.rows["waveform_path"],
        "true": tested.rows["ecg_category"],
        "predicted": np.array(classes)[probabilities.argmax(axis=1)]}
    columns |= zip(map(probability_column, classes), probabilities.T, strict=True)
    names = [feature_column(name, unit) for name, unit, _ in features]
    return pd.DataFrame(columns | dict(zip(names, tested.features.T, strict=True)))


def flat(metrics: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple]:
    """Yield a row of metrics.csv for each number of metrics.json, with its interval if it has one.

    `section` is all of the path to it but the last two names, which are `of` and `figure`.
    """
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from flat(value, (*path, name))
        elif not isinstance(value, str):
            *section, of = path or [""]
            numbers = value if isinstance(value, list) else [value]
            yield ", ".join(section), of, name, *numbers


def choose_examples(true: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Choose a record of each class that has records: neither the best case nor the worst.

    It is the one with the median probability of its class.

    Parameters
    ----------
    true : ndarray of int, shape (n,), numbers of the labelled classes
    probabilities : ndarray, shape (n, n_classes)
    """
    rows = []
    for number in np.unique(true):
        own = np.flatnonzero(true == number)
        order = np.argsort(probabilities[own, number], kind="stable")
        rows.append(int(own[order[len(order) // 2]]))
    return rows


def choose_errors(true: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Choose the wrongly classified records that are most confident; return them in that order."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != true)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order[:MAX_ERRORS]].tolist()


def ecgs(tested: Any, probabilities: np.ndarray, read_ecg: ReadEcg) -> bytes:
    """Return the content of ecgs.npz: signal, rate and R peaks of examples and errors, by row."""
    examples = choose_examples(tested.targets, probabilities)
    errors = choose_errors(tested.targets, probabilities)
    arrays: dict[str, Any] = {"examples": examples, "errors": np.array(errors, int)}
    for row in (*examples, *errors):
        ecg = read_ecg(tested.rows["waveform_path"].iloc[row])
        names = f"signal_{row}", f"fs_{row}", f"r_peaks_{row}"
        arrays |= zip(names, ecg, strict=True)
    return files.npz(**arrays)


def remove_pages(folder: Path) -> None:
    """Remove the figures and pages of an earlier run."""
    drawn = [
        f"figures/{name}.{kind}"
        for name in (*FIGURES, "ecgs")
        for kind in ("pdf", "png")]
    for name in (*drawn, "index.html", "MODEL_CARD.md", "reporting_checklist.md"):
        (folder / name).unlink(missing_ok=True)


def write_results(
    folder: Path,
    card: dict[str, Any],
    text: str,
    split: pd.DataFrame,
    tested: Any,
    mean: np.ndarray,
    read_ecg: ReadEcg,
) -> None:
    """Write all files of a results folder but its figures and pages; old ones of these go.

    Parameters
    ----------
    folder : the results folder
    card : the model's card, ready for JSON: classes, features, history, left_out, metrics and more
    text : the report, as printed
    split : what `ecg.cohort.join` returned
    tested : the n records of the test, as the script's `Records`
    mean : ndarray, shape (n, n_classes), their probabilities, the mean over the repeats
    read_ecg : called with a waveform_path of the test; returns signal (samples, 12) in mV, its rate
        in Hz, and its R peaks in samples

    Raises
    ------
    UserError
        If a file cannot be written.
    """
    remove_pages(folder)
    repeats = enumerate(map(pd.DataFrame, card["history"]))
    tables = {
        "predictions": predictions(tested, mean, card["classes"], card["features"]),
        "history": pd.concat(
            [own.assign(repeat=number, epoch=own.index + 1) for number, own in repeats]),
        "metrics": pd.DataFrame(flat(card["metrics"]), columns=METRICS),
        "left_out": pd.DataFrame(card["left_out"], columns=["record", "why"]),
        "split": split,
        "flow": cohort.flow(split, card),
        "table1": cohort.table1(split, cohort.groups_of(split))}

    write_text(folder / "report.txt", text)
    write_text(folder / "metrics.json", json.dumps(card["metrics"], indent=1))
    write_text(folder / "run.json", json.dumps(card, indent=1))
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False))
    write_bytes(folder / "ecgs.npz", ecgs(tested, mean, read_ecg))


def write_text(path: Path, text: str) -> Path:
    """Write a file as a whole; return its path. `UserError` if it cannot be written."""
    write_bytes(path, text.encode())
    return path

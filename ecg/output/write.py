"""Write the results folder of a run: its tables, and what its figures are drawn from.

`ecg.output.figures` draws from these files alone; notebooks read them.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecg import cohort
from ecg.files import write_whole
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
        "predicted": np.array(classes)[probabilities.argmax(axis=1)],
    }
    columns |= zip(map(probability_column, classes), probabilities.T, strict=True)
    names = [feature_column(name, unit) for name, unit, _ in features]
    return pd.DataFrame(columns | dict(zip(names, tested.features.T, strict=True)))


def flat(metrics: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple]:
    """Yield a row of metrics.csv for each number of metrics.json, with its interval if it has one.

    `section` is all of the path but its last two names: "at prevalence, by class".
    """
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from flat(value, (*path, name))
        elif not isinstance(value, str):
            section = ", ".join(path[:-1] or path)
            of = path[-1] if len(path) > 1 else ""
            numbers = value if isinstance(value, list) else [value, None, None]
            yield section, of, name, *numbers


def choose_examples(true: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Choose a record of each class that has records: neither the best case nor the worst.

    It is the one with the median probability of its class, of the rightly predicted records, or of
    all where none is right.

    Parameters
    ----------
    true : ndarray of int, shape (n,), numbers of the labelled classes
    probabilities : ndarray, shape (n, n_classes)
    """
    is_right = probabilities.argmax(axis=1) == true
    rows = []
    for number in np.unique(true):
        own = true == number
        candidates = np.flatnonzero(own & is_right if is_right[own].any() else own)
        order = np.argsort(probabilities[candidates, number], kind="stable")
        rows.append(int(candidates[order[len(order) // 2]]))
    return rows


def choose_errors(true: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Choose the wrongly classified records that are most confident; return them in that order."""
    is_wrong = probabilities.argmax(axis=1) != true
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    return order[is_wrong[order]][:MAX_ERRORS].tolist()


def ecgs(tested: Any, probabilities: np.ndarray, read_ecg: ReadEcg) -> bytes:
    """Return the content of ecgs.npz: signal, rate and R peaks of examples and errors, by row."""
    examples = choose_examples(tested.targets, probabilities)
    errors = choose_errors(tested.targets, probabilities)
    arrays: dict[str, Any] = {"examples": examples, "errors": np.array(errors, int)}
    for row in (*examples, *errors):
        signal, fs, r_peaks = read_ecg(tested.rows["waveform_path"].iloc[row])
        arrays |= {f"signal_{row}": signal.astype(np.float32), f"fs_{row}": fs,
                   f"r_peaks_{row}": r_peaks}

    archive = io.BytesIO()    # not the file itself: on a full disk, NumPy would print a traceback
    np.savez_compressed(archive, **arrays)
    return archive.getvalue()


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

    others = "history", "left_out", "metrics"    # parts of the card that have files of their own
    run = {name: value for name, value in card.items() if name not in others}
    epochs = []
    for repeat, history in enumerate(card["history"]):
        numbers = range(1, len(history) + 1)
        epochs.append(pd.DataFrame(history).assign(repeat=repeat, epoch=numbers))
    tables = {
        "predictions": predictions(tested, mean, card["classes"], card["features"]),
        "history": pd.concat(epochs),
        "metrics": pd.DataFrame(flat(card["metrics"]), columns=METRICS),
        "left_out": pd.DataFrame(card["left_out"], columns=["record", "why"]),
        "split": split,
        "flow": cohort.flow(split, card),
        "table1": cohort.table1(split, cohort.groups_of(split)),
    }

    write_text(folder / "report.txt", text)
    write_text(folder / "metrics.json", json.dumps(card["metrics"], indent=1))
    write_text(folder / "run.json", json.dumps(run, indent=1))
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False))
    content = ecgs(tested, mean, read_ecg)
    write_whole(folder / "ecgs.npz", lambda scratch: scratch.write_bytes(content))


def write_text(path: Path, text: str) -> Path:
    """Write a file as a whole; return its path. `UserError` if it cannot be written."""
    write_whole(path, lambda scratch: scratch.write_text(text, encoding="utf-8"))
    return path

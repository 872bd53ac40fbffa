"""Read the files of a results folder; one that is missing or damaged is named in one line."""

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ecg.errors import UserError
from ecg.origin import DEMO

MOST_BYTES = 2**30         # of a file
MOST_TEXT = 2**25          # bytes of a JSON, which takes ten times that in memory
MOST_ARRAYS = 2**28        # bytes of all arrays of an .npz once they are unpacked
MOST_REPEATS = 100         # of a history, as the script makes
MOST_CLASSES = 100
MOST_LETTERS = 200         # of the name of a column
MOST_VALUE = 1e15          # beyond it, figures cannot be drawn

Folder = str | os.PathLike[str]


class ResultsError(UserError):
    """A file of a results folder is missing or damaged: one line that names it."""


class Feature(NamedTuple):
    """A feature of the model."""

    name: str
    unit: str
    usual: tuple[float, float] | None    # its usual range

    @property
    def column(self) -> str:
        """Its column in predictions.csv."""
        return feature_column(self.name, self.unit)


class Predictions(NamedTuple):
    """predictions.csv, checked against run.json."""

    run: dict[str, Any]          # as `read_run` returns it
    table: pd.DataFrame          # n rows: record, subject_id, true, predicted, and all numbers
    true: np.ndarray             # (n,), number of the labelled class
    predicted: np.ndarray        # (n,), number of the predicted class
    probabilities: np.ndarray    # (n, n_classes)


@contextlib.contextmanager
def reading(path: Folder) -> Iterator[None]:
    """Turn whatever a damaged file leads to into a `ResultsError` that names the file."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):    # a pipe would keep us waiting
            raise ValueError("not a plain file")
        most = MOST_TEXT if Path(path).suffix == ".json" else MOST_BYTES
        if os.path.isfile(path) and os.path.getsize(path) > most:
            raise ValueError(f"larger than {most} bytes")
        yield
    except ResultsError:    # of another file, read on the way
        raise
    except FileNotFoundError as error:
        raise ResultsError(f"{path} is missing") from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ResultsError(f"{path} is damaged: {reason[:150]}") from error


@contextlib.contextmanager
def reading_arrays(path: Folder) -> Iterator[Mapping[str, Any]]:
    """Give the arrays of an .npz file, as `reading`: no pickles, no more than `MOST_ARRAYS`."""
    with reading(path), zipfile.ZipFile(path) as archive:
        if sum(part.file_size for part in archive.infolist()) > MOST_ARRAYS:
            raise ValueError(f"its arrays are larger than {MOST_ARRAYS} bytes")
    with reading(path), np.load(path, allow_pickle=False) as data:
        yield data


def feature_column(name: str, unit: str) -> str:
    """Return the name of a feature's column in predictions.csv."""
    return f"{name} [{unit}]" if unit else name


def probability_column(name: str) -> str:
    """Return the name of a class's column in predictions.csv."""
    return f"p {name}"


def check_names(names: Sequence[str]) -> None:
    """Raise `ValueError` if a name is too long, or two are alike."""
    if max(map(len, names)) > MOST_LETTERS:
        raise ValueError(f"a name of more than {MOST_LETTERS} letters")
    if len(set(names)) < len(names):
        raise ValueError("two classes or features have the same name")


def read_table(folder: Folder, name: str, columns: Sequence[str],
               numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Return these columns of a CSV file: `columns` as text, then `numbers` as floats."""
    path = Path(folder) / name
    with reading(path):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table = table[[*columns, *numbers]]
        floats = {column: table[column].replace("", "nan").astype(float) for column in numbers}
        if any((column.abs() > MOST_VALUE).any() for column in floats.values()):
            raise ValueError(f"a number beyond {MOST_VALUE:g}")
        return pd.concat([table[[*columns]], pd.DataFrame(floats, table.index)], axis=1)


def _read_feature(name, unit, limits):
    """Return a feature as run.json describes it, checked."""
    usual = (float(limits[0]), float(limits[1])) if limits else None
    if usual and not all(abs(value) < MOST_VALUE for value in usual):
        raise ValueError(f"a limit of {name} is not finite, or huge")
    return Feature(str(name), str(unit), usual)


def read_run(folder: Folder) -> dict[str, Any]:
    """Return run.json, checked.

    Its features have become `Feature`s. Added are `method`, the fields of its recipe, which an
    older run.json has among its settings, and `is_demo`: model or test records are synthetic.
    """
    path = Path(folder) / "run.json"
    with reading(path):
        run = json.loads(path.read_text(encoding="utf-8"))
        classes = [str(name) for name in run["classes"]]
        if not 2 <= len(set(classes)) == len(classes) <= MOST_CLASSES:
            raise ValueError(f"expected two to {MOST_CLASSES} different classes")

        features = [_read_feature(*described) for described in run["features"]]
        check_names([*map(probability_column, classes), *(one.column for one in features)])
        if not features:
            raise ValueError("no features")

        run["classes"] = classes
        run["features"] = features
        run["method"] = dict(run["recipe"]) if "recipe" in run else dict(run["settings"])
        run["synthetic"] = bool(run["synthetic"])
        run["is_demo"] = run["synthetic"] or run.get("test_labels_origin") == DEMO
        run["leads"] = [str(name) for name in run["leads"]]
        run["temperature"] = [float(value) for value in run["temperature"]]
    return run


def has_epochs(run: dict[str, Any]) -> bool:
    """Tell whether a run of this run.json trained epochs, rather than a last layer or nothing."""
    is_last_layer = run.get("start_from") and run["settings"].get("adapt") == "last"
    return not is_last_layer and run["method"].get("epochs") != 0


def read_predictions(folder: Folder) -> Predictions:
    """Return predictions.csv, checked against run.json."""
    run = read_run(folder)
    path = Path(folder) / "predictions.csv"
    classes = pd.Index(run["classes"])
    p_columns = [probability_column(name) for name in classes]
    features = [feature.column for feature in run["features"]]
    words = ["subject_id", "record", "true", "predicted"]
    table = read_table(folder, path.name, words, [*p_columns, *features])
    with reading(path):
        true = classes.get_indexer(table["true"])
        predicted = classes.get_indexer(table["predicted"])
        if not len(table) or min(true.min(), predicted.min()) < 0:
            raise ValueError("no records, or a class that run.json does not name")

        p = table[p_columns].to_numpy()
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError("a probability is not between 0 and 1")

    return Predictions(run, table, true, predicted, p)


def read_metrics(folder: Folder) -> dict[str, Any]:
    """Return metrics.json, checked to be of the same run as predictions.csv."""
    found = read_predictions(folder)
    path = Path(folder) / "metrics.json"
    with reading(path):
        metrics = json.loads(path.read_text(encoding="utf-8"))
        accuracy = np.mean(found.true == found.predicted)
        same = abs(metrics["model"]["accuracy"][0] - accuracy) <= 1e-6
        if metrics["records"] != len(found.true) or not same:
            raise ValueError("not of the same run as predictions.csv")

    return metrics

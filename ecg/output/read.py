"""Read the results folder of a run, from which its figures and pages are made."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ecg import origin


class Results(NamedTuple):
    """What a run has measured on its n test records."""

    folder: Path
    run: dict[str, Any]          # run.json: the model's card
    table: pd.DataFrame          # predictions.csv: n rows, as `write.predictions` returns it
    true: np.ndarray             # (n,), number of the labelled class
    predicted: np.ndarray        # (n,), number of the predicted class
    probabilities: np.ndarray    # (n, n_classes)
    examples: list[int]          # rows of the example of each class that has records
    errors: list[int]            # rows of the most confident errors, in order
    ecgs: dict[int, tuple]       # by row: signal (samples, 12) in mV, fs in Hz, R peaks in samples

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.run["classes"]

    @property
    def metrics(self) -> dict[str, Any]:
        """What `evaluate` of the script measures."""
        return self.run["metrics"]

    @property
    def is_demo(self) -> bool:
        """Whether training or test records are synthetic."""
        return self.run["synthetic"] or self.run.get("test_labels_origin") == origin.DEMO


def feature_column(name: str, unit: str) -> str:
    """Return the name of a feature's column in predictions.csv."""
    return f"{name} [{unit}]" if unit else name


def probability_column(name: str) -> str:
    """Return the name of a class's column in predictions.csv."""
    return f"p {name}"


def read_texts(path: Path) -> pd.DataFrame:
    """Return a CSV file as text: a class or a reason may be called NA."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def read_results(folder: Path | str) -> Results:
    """Return what a run has written into its results folder; `OSError` if a file is missing."""
    folder = Path(folder)
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    table = read_texts(folder / "predictions.csv")
    names = pd.Index(run["classes"])
    numbers = table.columns[4:]    # after subject_id, record, true and predicted
    table[numbers] = table[numbers].replace("", "nan").astype(float)
    with np.load(folder / "ecgs.npz", allow_pickle=False) as data:
        examples, errors = data["examples"].tolist(), data["errors"].tolist()
        ecgs = {row: (data[f"signal_{row}"], float(data[f"fs_{row}"]), data[f"r_peaks_{row}"])
                for row in (*examples, *errors)}
    return Results(
        folder, run, table, names.get_indexer(table["true"]),
        names.get_indexer(table["predicted"]), table[map(probability_column, names)].to_numpy(),
        examples, errors, ecgs)

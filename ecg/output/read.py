"""Read the results folder of a run, from which its figures and pages are made."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ecg import origin


class Feature(NamedTuple):
    """A feature of the model."""

    name: str
    unit: str
    reference: tuple[float, float] | None    # its reference range

    @property
    def column(self) -> str:
        """Its column in predictions.csv."""
        return feature_column(self.name, self.unit)


class Ecg(NamedTuple):
    """An ECG of the test, as it was recorded."""

    signal: np.ndarray     # (samples, 12), in mV
    fs: float              # Hz
    r_peaks: np.ndarray    # in samples


class Results(NamedTuple):
    """What a run has measured on its n test records."""

    folder: Path
    run: dict[str, Any]          # run.json: the model's card without metrics and history
    metrics: dict[str, Any]      # metrics.json
    table: pd.DataFrame          # predictions.csv: n rows, as `write.predictions` returns it
    true: np.ndarray             # (n,), number of the labelled class
    predicted: np.ndarray        # (n,), number of the predicted class
    probabilities: np.ndarray    # (n, n_classes)
    ecgs: dict[str, Ecg]         # ecgs.npz, by record

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.run["classes"]

    @property
    def features(self) -> list[Feature]:
        """The features of the model."""
        return [Feature(*feature) for feature in self.run["features"]]

    @property
    def is_demo(self) -> bool:
        """Whether training or test records are synthetic."""
        return self.run["synthetic"] or self.run.get("test_labels_origin") == origin.DEMO

    @property
    def has_epochs(self) -> bool:
        """Whether epochs were trained, rather than a last layer or nothing."""
        return not self.run.get("start_from")


def feature_column(name: str, unit: str) -> str:
    """Return the name of a feature's column in predictions.csv."""
    return f"{name} [{unit}]" if unit else name


def probability_column(name: str) -> str:
    """Return the name of a class's column in predictions.csv."""
    return f"p {name}"


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_texts(path: Path) -> pd.DataFrame:
    """Return a CSV file as text: a class or a reason may be called NA."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def read_ecgs(path: Path) -> dict[str, Ecg]:
    """Return the ECGs that `write.write_ecgs` has kept, by record."""
    with np.load(path, allow_pickle=False) as data:
        return {str(record): Ecg(data[f"signal_{i}"], float(data["fs"][i]), data[f"r_peaks_{i}"])
                for i, record in enumerate(data["records"])}


def read_results(folder: Path | str) -> Results:
    """Return what a run has written into its results folder; `OSError` if a file is missing."""
    folder = Path(folder)
    run = read_json(folder / "run.json")
    table = read_texts(folder / "predictions.csv")
    names = pd.Index(run["classes"])
    p_columns = [probability_column(name) for name in names]
    numbers = table.columns[4:]    # after subject_id, record, true and predicted
    table[numbers] = table[numbers].replace("", "nan").astype(float)

    return Results(
        folder, run, read_json(folder / "metrics.json"), table,
        names.get_indexer(table["true"]), names.get_indexer(table["predicted"]),
        table[p_columns].to_numpy(), read_ecgs(folder / "ecgs.npz"))

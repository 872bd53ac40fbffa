"""Read a results folder's files, checked, and write whole files into it."""

import contextlib
import json
import os
import sys
import uuid
from pathlib import Path

import numpy as np
import pandas as pd


class ResultsError(ValueError):
    """A file of a results folder is missing or damaged: one line that names it."""


@contextlib.contextmanager
def reading(path):
    """Name the file in a `ResultsError` for whatever its damage leads to."""
    try:
        yield
    except ResultsError:    # of a file read on the way
        raise
    except FileNotFoundError as error:
        raise ResultsError(f"{path} is missing") from error
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        raise ResultsError(f"{path} is damaged: {why}") from error


def read_table(folder, name, columns, numbers=()):
    """Return these columns of a CSV file, `numbers` as floats, the others as text."""
    path = Path(folder) / name
    with reading(path):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)[[*columns, *numbers]]
        return table.assign(**{x: table[x].replace("", "nan").astype(float) for x in numbers})


def read_run(folder):
    """Return run.json, checked, and as `shown` the first eight features' columns and ranges."""
    path = Path(folder) / "run.json"
    with reading(path):
        run = json.loads(path.read_text(encoding="utf-8"))
        classes = [str(name) for name in run["classes"]]
        if len(set(classes)) != len(classes) or len(classes) < 2:
            raise ValueError("expected two or more different classes")
        shown = [(f"{name} [{unit}]" if unit else name, limits and tuple(map(float, limits)))
                 for name, unit, limits in run["features"][:8]]
        return run | {"classes": classes, "shown": shown, "synthetic": bool(run["synthetic"]),
                      "leads": list(map(str, run["leads"])),
                      "temperature": list(map(float, run["temperature"]))}


def read_predictions(folder):
    """Return run.json, predictions.csv, its true and predicted class numbers, and (n, classes)."""
    run, path = read_run(folder), Path(folder) / "predictions.csv"
    names = [f"p {name}" for name in run["classes"]]
    table = read_table(folder, path.name, ["true", "predicted"],
                       [*names, *(name for name, _ in run["shown"])])
    with reading(path):
        true, predicted = (pd.Index(run["classes"]).get_indexer(table[name])
                           for name in ("true", "predicted"))
        p = table[names].to_numpy()
        if not len(table) or min(true.min(), predicted.min()) < 0:
            raise ValueError("no records, or a class that run.json does not name")
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError("a probability is not between 0 and 1")
    return run, table, true, predicted, p


def read_metrics(folder):
    """Return metrics.json, checked to be of the same run as predictions.csv."""
    (_, _, true, predicted, _), path = read_predictions(folder), Path(folder) / "metrics.json"
    with reading(path):
        metrics = json.loads(path.read_text(encoding="utf-8"))
        accuracy = metrics["model"]["accuracy"][0]
        if metrics["records"] != len(true) or abs(accuracy - np.mean(true == predicted)) > 1e-6:
            raise ValueError("not of the same run as predictions.csv")
        return metrics


def write_whole(path, write):
    """Let `write` fill a file beside `path`, then move it there: `path` is never half written."""
    scratch = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(scratch)
        os.replace(scratch, path)
    except OSError as error:
        raise OSError(f"{path}: {error.strerror or error}; choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()
    return path


def report(make):
    """Print the paths that `make` returns, or one line on what failed; return the exit code."""
    try:
        print(*make(), sep="\n")
    except (ResultsError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        return 2
    return 0

"""A results folder as the script would write it, with plausible numbers."""

import dataclasses

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import too_feature as script
from ecg.output import style, write
from ecg.output.read import read_results
from tests.support import ecgs

CLASSES = ["Atrial Fibrillation", "Bundle Branch Block", "Never tested", "Normal", "Tachycardia"]
FEATURES = [*script.FEATURES, ("QRS width", "ms", None)]
draw = style.styled()(lambda figure: FigureCanvasAgg(figure).draw())


def texts(figure):
    """Return what can be read on a figure."""
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def words(figure):
    return "\n".join(text.get_text().replace("\xa0", " ") for text in texts(figure))


def simulated_ecg(record):
    """Return signal, rate and R peaks of a record "files/r7"."""
    signal, r_peaks = ecgs.simulated(seed=int(record.removeprefix("files/r")))
    return signal, 500.0, r_peaks


def history(repeats, epochs):
    """Return histories of random numbers, each repeat an epoch shorter than the one before."""
    rng = np.random.default_rng(1)
    names = "loss", "accuracy", "val_loss", "val_accuracy"
    return [[{**dict(zip(names, rng.random(4), strict=True)), "learning_rate": 5e-4 / 2**(i // 3)}
             for i in range(max(1, epochs - repeat))] for repeat in range(repeats)]


def write_results(folder, classes=CLASSES, synthetic=True, n=90, tested=(0, 1, 3, 4), repeats=2,
                  epochs=6, unknown=0.1, typical=3, spread=0.7, separation=2.5, **card):
    """Write a results folder; by default the third class has no test record."""
    rng = np.random.default_rng(0)
    k = len(classes)
    targets = rng.choice(tested, n)
    logits = rng.normal(size=(n, k)) + separation * np.eye(k)[targets]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    features = rng.lognormal(typical, spread, (n, 9))
    features[:, 2] -= np.exp(typical)
    features[rng.random((n, 9)) < unknown] = np.nan
    features[targets == 4, 5] = np.nan
    features[:, 8] = 99

    rows = pd.DataFrame({
        "subject_id": rng.integers(100, 150, n), "waveform_path": [f"files/r{i}" for i in range(n)],
        "ecg_category": np.array(classes)[targets]})
    test = script.Records(rows, None, features, targets)
    predicted = script.Predicted(test, p[None])
    _, metrics = script.evaluate(
        predicted, predicted, [1.0], classes, np.full(k, 1 / k), p[:, ::-1], "labels.csv")
    labelled = pd.DataFrame({
        "subject_id": np.arange(200) // 2, "waveform_path": [f"r{i}" for i in range(200)],
        "ecg_category": np.array(classes)[rng.integers(k, size=200)]})
    split = labelled.assign(
        split=["train"] * 120 + ["validation"] * 40 + ["test"] * 40, end="used")
    left_out = [("r1", "too short: 3 s"), ("r2", "too short: 4 s"), ("r3", "header is damaged")]

    write.write_results(folder, {
        "classes": list(classes), "leads": script.LEADS, "features": FEATURES,
        "synthetic": synthetic, "recipe": dataclasses.asdict(script.Recipe()),
        "rows": {"duplicate": 0, "ambiguous": 0, "records": 200},
        "settings": {"seed": 7, "data_dir": "/home/me", "test_labels": "", "groups": "age,sex"},
        "versions": {"python": "3.11.7"}, "commit": "0123456", "temperature": [1.234],
        "labels_sha256": "abc123",
        "records": 200, "patients": 100, "history": history(repeats, epochs), "metrics": metrics,
        "left_out": left_out, **card}, "the report", split, test, p, simulated_ecg)
    return read_results(folder)

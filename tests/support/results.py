"""A results folder as the script would write it, with plausible numbers."""

import dataclasses
import json

import numpy as np
import pandas as pd

import too_feature as script
from ecg.output import write
from tests.support import ecgs

CLASSES = ["Atrial Fibrillation", "Bundle Branch Block", "Never tested", "Normal", "Tachycardia"]
FEATURES = [f"{name} [{unit}]" if unit else name for name, unit, _ in script.FEATURES]


def write_results(folder, classes=CLASSES, synthetic=True, n=90, tested=(0, 1, 3, 4), repeats=2,
                  epochs=6, unknown=0.1, typical=3, spread=0.7):
    """Write a results folder as the script would, with plausible numbers; the third has no test."""
    rng = np.random.default_rng(0)
    k = len(classes)
    folder.mkdir(parents=True)
    targets = rng.choice(tested, n)
    logits = rng.normal(size=(n, k)) + 2.5 * np.eye(k)[targets]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    feature = rng.lognormal(typical, spread, (n, 8))
    feature[:, 2] -= np.exp(typical)
    feature[rng.random((n, 8)) < unknown] = np.nan
    feature[targets == 4, 5] = np.nan
    subjects, names = rng.integers(100, 150, n), np.array(classes)
    records = [f"files/r{i}" for i in range(n)]
    pd.DataFrame({"subject_id": subjects, "record": records, "true": names[targets],
                  "predicted": names[p.argmax(axis=1)],
                  **{f"p {name}": p[:, i] for i, name in enumerate(classes)},
                  **{name: feature[:, i] for i, name in enumerate(FEATURES)},
                  "QRS width [ms]": 99.0}).to_csv(folder / "predictions.csv", index=False)
    test = script.Records(pd.DataFrame({"subject_id": subjects}), None, feature, targets)
    predicted = script.Predicted(test, p[None])
    _, metrics = script.evaluate(
        predicted, predicted, [1.0], classes, np.full(k, 1 / k), p[:, ::-1], "labels.csv")
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    pd.DataFrame([{"repeat": repeat, "epoch": epoch + 1, "learning_rate": 5e-4 / 2 ** (epoch // 3),
                   **dict(zip(("loss", "accuracy", "val_loss", "val_accuracy"), rng.random(4),
                              strict=True))}
                  for repeat in range(repeats) for epoch in range(max(1, epochs - repeat))]
                 ).to_csv(folder / "history.csv", index=False)
    pd.DataFrame({"subject_id": np.arange(200) // 2, "waveform_path": [f"r{i}" for i in range(200)],
                  "ecg_category": names[rng.integers(k, size=200)],
                  "split": np.repeat(["train", "validation", "test"], [120, 40, 40])}
                 ).to_csv(folder / "split.csv", index=False)
    pd.DataFrame([("r1", "too short: 3 s"), ("r2", "too short: 4 s"), ("r3", "header is damaged")],
                 columns=["record", "why"]).to_csv(folder / "left_out.csv", index=False)
    (folder / "run.json").write_text(json.dumps({
        "classes": list(classes), "leads": script.LEADS, "features": [
            *script.FEATURES, ("QRS width", "ms", None)], "synthetic": synthetic,
        "sampling_rate_hz": 50.0, "recipe": dataclasses.asdict(script.Recipe()),
        "settings": {"seed": 7, "data_dir": "/home/me", "test_labels": "", "jit": None},
        "versions": {"python": "3.11.7"}, "temperature": [1.234], "labels_sha256": "abc123",
        "records": 200, "patients": 100}))
    examples = {}
    for i in sorted(set(targets.tolist()))[:5]:
        signal, peaks = ecgs.simulated(seed=i)
        examples |= {f"signal_{i}": signal.astype("f4"), f"fs_{i}": 500, f"r_peaks_{i}": peaks,
                     f"record_{i}": records[np.argmax(targets == i)],
                     f"probabilities_{i}": p[targets == i][0]}
    np.savez(folder / "examples.npz", **examples)
    rows = pd.DataFrame({"ecg_category": names[targets], "waveform_path": records})
    np.savez(folder / "errors.npz", **write.errors(
        rows, p, classes, lambda record: (np.zeros((5000, 12)), 500, np.array([400.5, 900]))))
    return folder

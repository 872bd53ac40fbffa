"""The origin of the labels in all that a run leaves behind, and what is said of the demo's."""

import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest

import too_feature as script
from ecg import origin
from tests.support.runs import LABELS, TINY, card_of

DEMO = "synthetic records, not patients"


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """A function that runs the script without training; returns what it printed."""
    def train(training, _validation, n_classes, settings, _folder):
        logs = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy"), 1.0)
        return script.build_model(n_classes, training, settings.recipe), 1.0, [logs]

    monkeypatch.setattr(script, "train", train)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        given = [*TINY, "--no-cache", "--output", "m.keras", "--sequence-length", "250", *arguments]
        assert script.main([*map(str, given)]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def own(demo_dir, tmp_path):
    """A function: copies of some of the demo's records, as somebody's own; returns the labels."""
    def write(name, rows):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for path in rows["waveform_path"]:
            for ending in (".hea", ".dat"):
                os.link(demo_dir / f"{path}{ending}", folder / f"{Path(path).name}{ending}")

        names = [f"{name}/{Path(path).name}" for path in rows["waveform_path"]]
        labels = tmp_path / f"{name}.csv"
        rows.assign(waveform_path=names).to_csv(labels, header=False, index=False)
        return labels

    return write


def rows_of(patients):
    """Return the rows of the demo's label file of some of its patients."""
    rows = script.read_labels(LABELS)
    return rows[rows["subject_id"].astype(int) % 6 == patients]


def assert_said(words, origin, printed):
    """Check that printed report, written report, run.json and card all say an origin."""
    assert f"{words} This is not a medical device.\n" in printed
    assert f"{words} This is not a medical device.\n" in Path("results/m/report.txt").read_text()
    assert json.loads(Path("results/m/run.json").read_text())["labels_origin"] == origin
    assert card_of("m.keras")["labels_origin"] == origin


def test_a_test_file_states_its_own_origin_and_copies_of_its_records_leave_training(own, start):
    labels = own("mine", rows_of(0))
    trained_on = script.split_patients(rows_of(0))["train"]
    both = pd.concat([rows_of(1), trained_on.iloc[::12].assign(subject_id=7)])
    printed = start("--labels", labels, "--data-dir", "data", "--test-labels",
                    own("theirs", both), "--labels-origin", "two cardiologists",
                    "--test-labels-origin", "a nurse")
    words = "Origin of the labels: two cardiologists. Origin of the test labels: a nurse."
    assert_said(words, "two cardiologists", printed)
    assert card_of("m.keras")["test_labels_origin"] == "a nurse"
    assert "ynthetic" not in printed
    words = r"left out: patient with a copy of a test record \((\d+)\)"
    n_copies = int(re.search(words, printed)[1])
    assert n_copies > 2
    assert Path("results/m/left_out.csv").read_text().count("patient with a copy") == n_copies


def test_the_demo_is_called_synthetic_and_its_origin_cannot_be_changed(demo_dir, start):
    printed = start("--labels", LABELS, "--data-dir", demo_dir, "--labels-origin", "a cardiologist")
    assert "notice: --labels-origin is not used" in printed
    assert_said(f"Origin of the labels: {DEMO}.", DEMO, printed)
    assert "THIS DATA IS SYNTHETIC" in printed


def test_the_demo_as_a_test_file_is_called_synthetic():
    settings = script.Settings(labels="mine.csv", test_labels=str(LABELS), labels_origin="a nurse")
    origins = origin.of_run(settings, False, rows_of(1))
    assert origins["labels_origin"] == "a nurse" and origins["test_labels_origin"] == DEMO

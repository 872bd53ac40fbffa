"""The command line of the accuracy benchmark, with systems that need no training."""

import argparse
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks import accuracy
from benchmarks.common import Store
from benchmarks.folds import Fold
from benchmarks.runs import Runner
from benchmarks.systems import OURS, Fitted, System

REQUIRED = ["--labels", "labels.csv", "--data-dir", "data"]
TARGETS = np.tile([0, 1], 20)
FOLDS = [Fold(np.arange(20), np.arange(20), np.arange(20, 40))]


def fit_right(task):
    """Stand in for a system that knows the truth."""
    return Fitted(lambda numbers: np.eye(2)[TARGETS[numbers]], 1)


def fit_interrupted(task):
    """Stand in for a system during whose training Ctrl-C is pressed."""
    raise KeyboardInterrupt


def fit_without_package(task):
    """Stand in for a system whose package is not installed."""
    raise ModuleNotFoundError("No module named 'aeon'")


@pytest.fixture
def compare(monkeypatch):
    """Return a function that compares hand-made systems {name: fit}."""
    rows = pd.DataFrame({"subject_id": range(40), "waveform_path": [f"r{i}" for i in range(40)]})
    pool = SimpleNamespace(rows=rows, classes=["a", "b"], targets=TARGETS, seconds=0.0)

    def run(**fits):
        systems = {name: System(f"**{name}**", fit) for name, fit in fits.items()}
        monkeypatch.setattr(accuracy, "SYSTEMS", systems)
        options = argparse.Namespace(systems=list(fits), seeds=1, quick=False)
        runner = Runner(pool, Store(None, {}), 1, quick=False)
        accuracy.compare(runner, "by hand", FOLDS, options)

    return run


def test_the_recipe_best_has_left_the_comparison():
    assert list(accuracy.SYSTEMS) == [
        "rule", "thesis", "forest", "minirocket", "cnn", "default", "large"]
    assert list(OURS) == ["default", "large"]


def test_defaults_of_the_command_line():
    options = accuracy.parse_options(REQUIRED)
    assert (options.seeds, options.folds, options.quick) == (3, 1, False)
    assert options.systems == list(accuracy.SYSTEMS)
    assert accuracy.parse_options([*REQUIRED, "--quick"]).seeds == 1
    assert accuracy.parse_options([*REQUIRED, "--quick", "--seeds", "2"]).seeds == 2


def test_an_unknown_system_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit) as error:
        accuracy.parse_options([*REQUIRED, "--systems", "rule,best"])
    assert error.value.code == 2
    assert "--systems best: expected some of rule,thesis,forest" in capsys.readouterr().err


def test_a_missing_label_file_is_one_line(capsys, tmp_path):
    arguments = ["--labels", str(tmp_path / "no.csv"), "--data-dir", str(tmp_path)]
    assert accuracy.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("accuracy.py: error: ")
    assert captured.err.count("\n") == 1


def test_results_of_other_records_or_options_are_not_taken(tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("1,a,Normal\n")
    arguments = ["--labels", str(labels), "--data-dir", "data"]
    before = accuracy.about(accuracy.parse_options(arguments))
    assert accuracy.about(accuracy.parse_options([*arguments, "--systems", "rule"])) == before
    assert accuracy.about(accuracy.parse_options([*arguments, "--seeds", "9"])) == before
    assert accuracy.about(accuracy.parse_options([*arguments, "--folds", "5"])) != before
    assert accuracy.about(accuracy.parse_options([*arguments, "--quick"])) != before
    labels.write_text("1,b,Normal\n")
    assert accuracy.about(accuracy.parse_options(arguments)) != before


def test_all_systems_stand_in_one_table(compare, capsys):
    compare(first=fit_right, second=fit_right)
    out = capsys.readouterr().out
    assert "| **first** | 1.000 (1.000 to 1.000) |" in out
    assert "| **second** | 1.000 (1.000 to 1.000) |" in out


def test_an_interrupted_comparison_shows_what_is_finished(compare, capsys):
    with pytest.raises(KeyboardInterrupt):
        compare(first=fit_right, second=fit_interrupted, third=fit_right)
    out = capsys.readouterr().out
    assert "**first**" in out
    assert "**third**" not in out


def test_a_system_whose_package_is_missing_is_skipped_and_named(compare, capsys):
    compare(first=fit_right, second=fit_without_package)
    captured = capsys.readouterr()
    assert "**first**" in captured.out
    assert "Skipped: second (No module named 'aeon')." in captured.out
    assert "second is skipped" in captured.err


def test_where_nothing_is_finished_no_table_is_printed(compare, capsys):
    with pytest.raises(KeyboardInterrupt):
        compare(first=fit_interrupted)
    assert capsys.readouterr().out == ""

"""The command line of the accuracy benchmark, with systems that need no training."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

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


def fit_wrong(task):
    """Stand in for a system that is always wrong."""
    return Fitted(lambda numbers: np.eye(2)[1 - TARGETS[numbers]], 1)


def fit_interrupted(task):
    """Stand in for a system during whose training Ctrl-C is pressed."""
    raise KeyboardInterrupt


def fit_without_package(task):
    """Stand in for a system whose package is not installed."""
    raise ModuleNotFoundError("No module named 'aeon'")


def pool_by_hand():
    """Return a pool of 40 records of two classes."""
    rows = pd.DataFrame({"subject_id": range(40), "waveform_path": [f"r{i}" for i in range(40)],
                         "ecg_category": np.array(["a", "b"])[TARGETS]})
    return SimpleNamespace(rows=rows, classes=["a", "b"], targets=TARGETS,
                           digest=lambda fold: str(fold))


@pytest.fixture
def compare(monkeypatch):
    """Return a function that compares hand-made systems {name: fit}."""
    def run(**fits):
        systems = {name: System(f"**{name}**", fit) for name, fit in fits.items()}
        monkeypatch.setattr(accuracy, "SYSTEMS", systems)
        arguments = [*REQUIRED, "--seeds", "1", "--systems", ",".join(fits)]
        runner = Runner(pool_by_hand(), Store(None), 1)
        accuracy.compare(runner, {"by hand": FOLDS}, accuracy.parse_options(arguments))

    return run


def test_the_recipe_best_has_left_the_comparison():
    assert list(accuracy.SYSTEMS) == [
        "rule", "criteria", "thesis", "fixed", "regression8", "regression", "forest", "minirocket",
        "cnn", "default", "large"]
    assert list(OURS) == ["default", "large"]


def test_defaults_of_the_command_line():
    options = accuracy.parse_options(REQUIRED)
    assert (options.seeds, options.baseline_seeds, options.folds, options.jobs) == (3, 3, 1, 1)
    assert options.systems == list(accuracy.SYSTEMS)
    curve = accuracy.parse_options([*REQUIRED, "--learning-curve"])
    assert curve.systems == ["regression", "minirocket", "default", "large"]
    assert curve.sizes == [300, 600, 1200]
    assert accuracy.parse_options([*REQUIRED, "--quick"]).seeds == 1
    assert accuracy.parse_options([*REQUIRED, "--quick", "--seeds", "2"]).seeds == 2


def test_an_unknown_system_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit) as error:
        accuracy.parse_options([*REQUIRED, "--systems", "rule,best"])
    assert error.value.code == 2
    assert "--systems best: expected some of rule,criteria,thesis" in capsys.readouterr().err


def test_a_missing_label_file_is_one_line(capsys, tmp_path):
    arguments = ["--labels", str(tmp_path / "no.csv"), "--data-dir", str(tmp_path)]
    assert accuracy.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("accuracy.py: error: ")
    assert captured.err.count("\n") == 1


def test_a_file_without_a_place_for_a_table_is_refused_before_anything_is_trained(
        tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accuracy, "read_pool", lambda options: (pool_by_hand(), {"ours": FOLDS}))
    monkeypatch.setattr(accuracy, "SYSTEMS", {"first": System("first", fit_interrupted)})
    (tmp_path / "results.md").write_text("<!-- theirs -->\n<!-- end -->\n")
    arguments = [*REQUIRED, "--systems", "first", "--write", str(tmp_path / "results.md")]
    assert accuracy.main(arguments) == 2
    assert "expected the lines <!-- ours --> and <!-- end -->" in capsys.readouterr().err


def test_finished_tables_are_written_between_their_markers(tmp_path, capsys, monkeypatch):
    file = tmp_path / "results.md"
    file.write_text("before\n<!-- ours -->\noutdated\n<!-- end -->\nafter\n")
    monkeypatch.setattr(accuracy, "read_pool", lambda options: (pool_by_hand(), {"ours": FOLDS}))
    monkeypatch.setattr(accuracy, "SYSTEMS", {
        "first": System("first", fit_right), "second": System("second", fit_interrupted)})
    arguments = [*REQUIRED, "--seeds", "1", "--write", str(file), "--systems"]
    assert accuracy.main([*arguments, "second,first"]) == 130
    assert "outdated" in file.read_text()    # an unfinished table replaces none

    assert accuracy.main([*arguments, "first"]) == 0
    text = file.read_text()
    assert text.startswith("before\n<!-- ours -->\n\n### Ours\n")
    assert "| first | 1.000 (1.000 to 1.000) |" in text
    assert text.endswith("\n\n<!-- end -->\nafter\n")
    assert "outdated" not in text


def fit_with_enough(task):
    """Stand in for a system that is right from ten training records on."""
    answers = TARGETS if len(task.fold.train) >= 10 else 1 - TARGETS
    return Fitted(lambda numbers: np.eye(2)[answers[numbers]], 1)


def test_the_learning_curve_has_a_column_for_each_size_and_all_records(
        capsys, monkeypatch, tmp_path):
    folds = [Fold(np.arange(16), np.arange(16, 20), np.arange(20, 40))]
    (tmp_path / "curve.png").write_text("of an earlier version: replaced")
    monkeypatch.setattr(accuracy, "SYSTEMS", {
        "regression": System("regression", fit_right),
        "default": System("**ours**", fit_with_enough)})
    options = accuracy.parse_options([
        *REQUIRED, "--learning-curve", "--systems", "regression,default", "--seeds", "1",
        "--sizes", "10", "15", "99", "--picture", str(tmp_path / "curve.png")])
    accuracy.learn(Runner(pool_by_hand(), Store(None), 1), {"by hand": folds}, options)
    out = capsys.readouterr().out
    assert "### Learning curve, by hand" in out
    assert "| system | 10 records | 15 records | 20 records |" in out    # there are no 99
    # 10 and 15 records are 8 and 12 for training, the rest of them for validation
    assert "| **ours** | -1.000 (-1.000 to -1.000), loses | +0.000 (+0.000 to +0.000) |" in out
    with Image.open(tmp_path / "curve.png") as picture:
        colours = {colour[:3] for _, colour in picture.getcolors(1 << 24)}
    assert {(0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)} <= colours    # one for each system


def test_all_systems_stand_in_one_table(compare, capsys):
    compare(first=fit_right, second=fit_right)
    out = capsys.readouterr().out
    assert "| **first** | 1.000 (1.000 to 1.000) |" in out
    assert "| **second** | 1.000 (1.000 to 1.000) |" in out


def test_an_interrupted_comparison_shows_what_is_finished(compare, capsys):
    with pytest.raises(KeyboardInterrupt):
        compare(first=fit_right, second=fit_interrupted, third=fit_with_enough)    # from the last
    out = capsys.readouterr().out
    assert "**third**" in out
    assert "**first**" not in out


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


def test_the_ablation_has_a_row_for_each_step(capsys, monkeypatch):
    monkeypatch.setattr(accuracy.ablation, "steps", lambda: {"start": None, "+ better": None})
    monkeypatch.setattr(accuracy.ablation, "step_system", lambda step, _: System(
        step, fit_with_enough if step == "+ better" else fit_wrong))
    options = accuracy.parse_options([*REQUIRED, "--ablation", "--seeds", "2"])
    accuracy.ablate(Runner(pool_by_hand(), Store(None), 2), {"by hand": FOLDS}, options)
    out = capsys.readouterr().out
    assert "| start | 0.000 ± 0.000 |  |" in out
    assert "| + better | 1.000 ± 0.000 | +1.000 (+1.000 to +1.000) |" in out

"""The accuracy benchmark's tables and command line, with systems that need no training."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd

import too_feature as script
from benchmarks import accuracy
from benchmarks.folds import Fold
from benchmarks.runs import Wanted
from benchmarks.systems import Fitted, System
from tests.support.runs import LABELS

REQUIRED = ["--labels", "labels.csv", "--data-dir", "data"]
N = 40
TRUTH = np.tile([0, 1], N)
FOLDS = [Fold(np.arange(N, N + 20), np.arange(N + 20, 2 * N), np.arange(N))]


def system(title, answers, is_ours=False):
    """Return a system that is 0.75 sure of these answers."""
    wanted = np.resize(answers, 2 * N)
    probabilities = np.where(wanted[:, None] == [0, 1], 0.75, 0.25)
    return System(title, lambda task: Fitted(lambda numbers: probabilities[numbers], 8461),
                  lambda pool: None, is_ours=is_ours)


RULE = system("rate rule", [0])    # all are fast
OURS = system("**our default**", TRUTH, is_ours=True)


def measure(systems, *arguments):
    """Measure {name: System} on 40 test records."""
    options = accuracy.parse_options([*REQUIRED, "--seeds", "1", *arguments])
    rows = pd.DataFrame({
        "subject_id": range(2 * N), "ecg_category": np.array(["fast", "slow"])[TRUTH],
        "waveform_path": [f"r{i}" for i in range(2 * N)]})
    pool = SimpleNamespace(rows=rows, classes=["fast", "slow"], targets=TRUTH, digest=str)
    wanted = {"by hand": {(name, N): Wanted(each, FOLDS) for name, each in systems.items()}}
    accuracy.measure(pool, wanted, options)


def cells(text):
    """Return the rows of a printed table, split into cells."""
    rows = [line.strip("| ").split(" |") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows if row[0] != "---"]


# ----------------------------------------------------------------------------------------- tables
def test_all_systems_stand_in_one_table_each_less_the_default(capsys):
    measure({"rule": RULE, "default": OURS}, "--seeds", "3", "--baseline-seeds", "1")
    out = capsys.readouterr().out
    header, rule, ours = cells(out)
    assert header == ["system", "balanced accuracy", "95 %", "less our default"]
    # All called fast: recalls 1 and 0, so 0.5 in every resample
    assert rule == ["rate rule", "0.500", "0.500 to 0.500", "-0.500 (-0.500 to -0.500), loses"]
    assert ours[:3] == ["**our default**", "1.000 ± 0.000", "1.000 to 1.000"]    # of the seeds
    assert "40 test records of 40 patients: fast 20, slow 20. 3 seed(s), baselines 1." in out


def test_the_ablation_leads_from_the_thesis_to_the_default_in_steps_that_each_change_it():
    steps = list(accuracy.ablation_steps().values())
    assert steps[-1].training == steps[-2].training    # the rate decides behind the same training
    recipes = [dataclasses.replace(each.fit.keywords["recipe"], rate_limits=each.rate_limits)
               for each in steps]
    default, thesis = (dataclasses.replace(script.RECIPES[name], name=recipes[0].name)
                       for name in ("default", "thesis"))
    assert (recipes[0], recipes[-1]) == (thesis, default)
    assert all(before != after for before, after in itertools.pairwise(recipes))


# ------------------------------------------------------------------------------------------ files
def test_tables_are_written_between_their_markers_and_details_into_a_csv(tmp_path):
    file = tmp_path / "results.md"
    file.write_text("before\n<!-- by hand -->\noutdated\n<!-- end -->\nafter\n")
    measure({"rule": RULE, "default": OURS}, "--write", str(file))
    text = file.read_text()
    assert text.startswith("before\n<!-- by hand -->\n\n### By hand\n\n| system |")
    assert text.endswith("\n\n<!-- end -->\nafter\n")
    assert "outdated" not in text

    rule, ours = pd.read_csv(tmp_path / "results.csv").to_dict("records")
    assert (rule["table"], rule["system"]) == ("by hand", "rate rule")
    assert (rule["recall of fast"], rule["recall of slow"]) == (1, 0)
    # 0.75 sure and all right: error 0.25; Brier score 2 * 0.25**2
    assert ours["expected calibration error"] == 0.25
    assert ours["Brier score"] == 0.125
    assert ours["accuracy at coverage 25%"] == 1
    assert np.isnan(rule["Brier score"])    # of ours alone


# ----------------------------------------------------------------------------------- command line
def test_the_whole_benchmark_runs_on_records_of_the_demo(demo_dir, tmp_path, capsys):
    file = tmp_path / "results.md"
    arguments = ["--labels", str(LABELS), "--data-dir", str(demo_dir), "--folds", "2", "--paths",
                 "demo/p1900/p190000[0-1]*", "--systems", "rule", "regression8",
                 "--keep", str(tmp_path / "kept"), "--write", str(file)]
    file.write_text("<!-- another -->\n<!-- end -->\n")
    assert accuracy.main(arguments) == 2    # before anything is trained
    assert "expected the lines <!-- 2 patient-wise folds, pooled -->" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()

    file.write_text("<!-- 2 patient-wise folds, pooled -->\n<!-- end -->\n")
    assert accuracy.main(arguments) == 0
    assert "| logistic regression, 8 features | " in file.read_text()

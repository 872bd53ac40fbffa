"""Tables of the accuracy benchmark, of results made up by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks import tables
from benchmarks.folds import Fold
from benchmarks.runs import Result
from benchmarks.scores import ENOUGH, Scorer

CLASSES = ["fast", "slow"]
N = 2 * ENOUGH


def result(title, *seeds, seconds=2.0, parameters=1000, chosen=None, sure=0.75):
    """Return a result that predicts these class numbers, one sequence for each seed."""
    predicted = np.array(seeds)
    probabilities = np.where(predicted[..., None] == [0, 1], sure, 1 - sure)
    return Result(title, probabilities, probabilities, seconds, parameters, chosen or {})


def made_up_pool(paths=None):
    """Return a pool of `N` test records, half of each class, and as many for training."""
    targets = np.tile([0, 1], N)
    rows = pd.DataFrame({
        "subject_id": np.arange(2 * N),
        "waveform_path": paths if paths is not None else [f"a/b/{i}" for i in range(2 * N)]})
    return SimpleNamespace(rows=rows, classes=CLASSES, targets=targets)


FOLD = Fold(np.arange(N, 2 * N), np.arange(N, 2 * N), np.arange(N))
TRUTH = np.tile([0, 1], ENOUGH)
ALL_FAST = np.zeros(N, dtype=int)
OPTIONS = SimpleNamespace(seeds=1, baseline_seeds=1, quick=False, epochs=None)


def cells(table):
    """Return the cells of a markdown table, row by row, without its rule."""
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in [rows[0], *rows[2:]]]


def test_the_main_table_of_a_baseline_and_of_ours():
    scorer = Scorer(TRUTH, np.arange(N), 2)
    results = {"rule": result("rate rule", ALL_FAST, seconds=0.2, parameters=0),
               "default": result("**our default**", TRUTH, seconds=95.4, parameters=8461)}
    header, rule, ours = cells(tables.main_table(results, CLASSES, scorer))
    assert header == ["system", "balanced accuracy (95 %)", "over all classes", "macro F1",
                      "fast (20)", "slow (20)", "training s", "parameters",
                      "less our default (95 %)"]
    # All called fast: recalls 1 and 0, so 0.5 in every resample; F1 2/3 and 0
    assert rule == ["rate rule", "0.500 (0.500 to 0.500)", "0.500", "0.333", "1.00", "0.00", "0",
                    "0", "-0.500 (-0.500 to -0.500), loses"]
    assert ours == ["**our default**", "1.000 (1.000 to 1.000)", "1.000", "1.000", "1.00", "1.00",
                    "95", "8,461", ""]


def test_a_class_without_test_records_has_an_empty_recall():
    scorer = Scorer(ALL_FAST, np.arange(N), 2)
    _, row = cells(tables.main_table({"rule": result("rule", ALL_FAST)}, CLASSES, scorer))
    assert row[4:6] == ["1.00", ""]


def test_several_seeds_get_a_deviation_and_ours_an_ensemble():
    results = {"rule": result("rate rule", ALL_FAST, ALL_FAST),
               "default": result("**our default**", TRUTH, ALL_FAST, sure=0.9)}
    options = SimpleNamespace(seeds=2, baseline_seeds=2, quick=False, epochs=None)
    text = tables.protocol_tables(results, made_up_pool(), "one split", [FOLD], options, {})
    rows = {row[0]: row for row in cells(text)[1:4]}
    assert set(rows) == {"rate rule", "**our default**", "**our default**, ensemble of 2"}
    assert rows["**our default**"][1].startswith("0.750 ± 0.354 (")    # of 1.0 and 0.5
    assert "loses" in rows["rate rule"][-1]


def test_the_notes_say_what_was_averaged_chosen_skipped_and_cut_short():
    scorer = Scorer(TRUTH[:-1], np.arange(N - 1) // 2, 2)    # slow lacks one record
    results = {"forest": result("forest", TRUTH[:-1], chosen={"leaf": 5})}
    text = tables.notes(results, CLASSES, scorer, OPTIONS, {"minirocket": "No module 'aeon'"})
    assert "39 test records of 20 patients" in text
    assert "Averaged over: fast (classes with 20 test records" in text
    assert "forest {'leaf': 5}" in text
    assert "Skipped: minirocket (No module 'aeon')." in text
    assert "--quick" not in text

    quick = SimpleNamespace(seeds=3, baseline_seeds=1, quick=True)
    text = tables.notes(results, CLASSES, scorer, quick, {})
    assert "3 seed(s), baselines 1:" in text
    assert "**--quick: one trial" in text
    few = SimpleNamespace(seeds=1, baseline_seeds=1, quick=False, epochs=2)
    assert "**--epochs 2: these are not the systems' results.**" in tables.notes(
        results, CLASSES, scorer, few, {})


def test_all_systems_are_compared_with_the_regression_and_the_default():
    scorer = Scorer(TRUTH, np.arange(N), 2)
    results = {"regression": result("regression", ALL_FAST),
               "default": result("**our default**", TRUTH),
               "large": result("**large**", TRUTH)}
    header, *rows = cells(tables.main_table(results, CLASSES, scorer))
    assert header[-2:] == ["less regression (95 %)", "less our default (95 %)"]
    better, worse = "+0.500 (+0.500 to +0.500), beats", "-0.500 (-0.500 to -0.500), loses"
    assert [row[-2:] for row in rows] == [
        ["", worse], [better, ""], [better, "+0.000 (+0.000 to +0.000)"]]


def test_scores_by_hospital():
    paths = [f"data/{'north' if i < N // 2 else 'south'}/{i}" for i in range(2 * N)]
    half_right = np.where(np.arange(N) < N // 2, TRUTH, 1 - TRUTH)
    table = tables.hospital_table({"rule": result("rule", half_right)}, made_up_pool(paths),
                                  FOLD.test)
    header, row = cells(table)
    assert header[1:] == ["north (fast 10, slow 10)", "south (fast 10, slow 10)"]
    assert row == ["rule", "1.000", "0.000"]


@pytest.mark.parametrize("path", ["a/b/{}", "a/{}/b"])
def test_one_hospital_or_a_folder_for_each_patient_makes_no_table(path):
    pool = made_up_pool([path.format(i) for i in range(2 * N)])
    assert tables.hospital_table({"rule": result("rule", TRUTH)}, pool, FOLD.test) == ""


def test_how_far_probabilities_of_ours_can_be_trusted():
    scorer = Scorer(TRUTH, np.arange(N), 2)
    results = {"rule": result("rate rule", ALL_FAST),
               "default": result("**our default**", ALL_FAST, sure=0.75)}
    header, row = cells(tables.trust_table(results, scorer, np.array([0.9, 0.1])))
    assert row[0] == "**our default**"
    # 0.75 sure and half right: error 0.25; Brier score (2 * 0.25**2 + 2 * 0.75**2) / 2
    assert row[1:3] == ["0.250, 0.250", "0.625, 0.625"]
    # At label shares 90 % are fast: error 0.15; Brier score 0.9 * 0.125 + 0.1 * 1.125
    assert row[3:5] == ["0.150, 0.150", "0.225, 0.225"]
    assert header[5:] == [f"accuracy, {share} kept" for share in ("100%", "90%", "75%", "50%",
                                                                  "25%")]
    assert tables.trust_table({"rule": results["rule"]}, scorer, np.array([0.9, 0.1])) == ""


def test_each_step_of_the_ablation_is_compared_with_the_one_before():
    worse = np.where(np.arange(N) < 10, 1 - TRUTH, TRUTH)
    results = {"start": {"split": result("start", ALL_FAST)},
               "+ good": {"split": result("+ good", TRUTH)},
               "+ bad": {"split": result("+ bad", worse)},
               "+ interrupted": {},
               "+ last": {"split": result("+ last", TRUTH)}}
    text = tables.ablation_table(results, made_up_pool(), {"split": [FOLD]}, OPTIONS)
    header, start, good, bad, unfinished, last = cells(text)
    assert header == ["cumulative change", "split: balanced accuracy", "gain (95 %)",
                      "over all classes"]
    assert start == ["start", "0.500", "", "0.500"]
    assert good == ["+ good", "1.000", "+0.500 (+0.500 to +0.500)", "1.000"]
    assert bad[1] == "0.750"
    assert bad[2].startswith("-0.250 (-")
    assert unfinished == ["+ interrupted", "", "", ""]
    assert last == ["+ last", "1.000", "", "1.000"]    # the step before it is not known
    assert "fast 20, slow 20" in text


def test_the_learning_curve_compares_at_each_size_on_the_same_resamples():
    results = {"regression": {10: result("regression", ALL_FAST), 20: result("regression", TRUTH)},
               "large": {10: result("**large**", TRUTH, ALL_FAST), 30: result("**large**", TRUTH)}}
    text = tables.curve_tables(results, made_up_pool(), "one split", [FOLD], OPTIONS)
    scores = cells(text.partition("less regression")[0])
    assert text.startswith("### Learning curve, one split\n")
    assert scores[0] == ["system", "10 records", "20 records", "30 records"]
    assert scores[1][1:] == ["0.500 (0.500 to 0.500)", "1.000 (1.000 to 1.000)", ""]
    assert scores[2][1].startswith("0.750 ± 0.354 (")    # of 1.0 and 0.5
    assert "| **large** | +0.250 (+0.250 to +0.250), beats |  |  |" in text
    assert "fast 20, slow 20 (test records, the same at each size)" in text

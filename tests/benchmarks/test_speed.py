"""The tables of the speed benchmark, of numbers made up by hand; nothing is timed here."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import wfdb

import too_feature as script
from benchmarks import speed, speed_workers


@pytest.fixture
def options(tmp_path):
    """Return the options of speed.py, with files of a test."""
    return SimpleNamespace(labels=tmp_path / "labels.csv", data_dir=tmp_path / "data",
                           scratch=tmp_path, rounds=2, quick=True)


@pytest.mark.parametrize(("x", "text"), [
    (0.012345, "0.0123"), (6.157, "6.16"), (99.94, "99.9"), (100.4, "100"), (12345.6, "12,346")])
def test_numbers_have_three_digits_and_large_ones_none_after_the_point(x, text):
    assert speed.short(x) == text


def test_a_row_is_median_smallest_and_largest():
    assert speed.spread([3.0, 1.0, 2.0]) == "2 (1-3)"
    assert speed.spread([3.0]) == "3"
    assert speed.spread("not installed") == "not installed"


def test_a_ratio_is_taken_within_each_round():
    # The second round was slow for both: the ratio of medians would be 5 / 3
    assert speed.over([2.0, 8.0], [1.0, 5.0]) == [2.0, 1.6]
    assert speed.over("failed: x", [1.0]) == []
    assert speed.over([1.0], "not installed") == []


def test_ways_are_measured_in_turn_and_a_failure_stops_only_its_own():
    order = []

    def measure(name, fails_at=None):
        order.append(name)
        if order.count(name) == fails_at:
            raise speed.ProcessError("Traceback\n  ...\nValueError: broken\n")
        return float(order.count(name))

    ways = {"a": lambda: measure("a"), "b": lambda: measure("b", fails_at=2),
            "c": lambda: measure("c")}
    values = speed.alternate(ways, 3, "test")
    assert order == ["a", "b", "c", "a", "b", "c", "a", "c"]
    assert values == {"a": [1, 2, 3], "b": "failed: ValueError: broken", "c": [1, 2, 3]}


def test_a_baseline_that_is_not_installed_is_not_measured(monkeypatch):
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda package: None)
    ways = {"PyTorch, 1 thread": lambda: pytest.fail("measured"), "Keras": lambda: 1.0}
    values = speed.alternate(ways, 1, "test")
    assert values == {"PyTorch, 1 thread": "not installed", "Keras": [1.0]}


def test_rows_are_compared_with_the_script():
    values = {speed.OWN: [2.0, 4.0], "baseline": [6.0, 8.0], "torch": "not installed"}
    slower = speed.compare(values, "ms")
    assert "| **the script** | 3 (2-4) | 1 |" in slower
    assert "| baseline | 7 (6-8) | 2.5 (2-3) |" in slower
    assert "| torch | not installed |  |" in slower
    per_second = speed.compare(values, "records per second", less_is_faster=False)
    assert "| baseline | 7 (6-8) | 0.417 (0.333-0.5) |" in per_second


def test_targets_are_met_by_the_median():
    targets = speed.Targets()
    targets.at_most(1.5, "time", [1.0, 1.4, 9.0])
    targets.at_least(4, "factor", [3.0, 3.9, 9.0])
    targets.at_least(4, "not measured", [])
    assert targets.rows == [["time", "at most 1.5", "1.4 (1-9)", "met"],
                            ["factor", "at least 4", "3.9 (3-9)", "**missed**"]]


def test_the_reason_of_a_failed_process_is_its_last_line():
    assert str(speed.ProcessError("a\nb: why\n\n")) == "b: why"
    assert str(speed.ProcessError("")) == "?"


# ------------------------------------------------------------------------- what the script accepts
def test_the_command_lines_are_ones_that_the_script_accepts(options):
    flags = speed.command_line(options, epochs=2, train_samples=200, val_samples=60,
                               test_samples=80, batch_size=64, cache_dir=options.scratch)
    more = ["--no-cache", "--set", f"stop_patience={speed.NEVER}"]
    settings = script.parse_settings([*map(str, flags), *more])
    assert settings.labels == str(options.labels)
    assert settings.train_samples == 200
    assert not settings.cache
    assert settings.recipe.epochs == 2
    assert settings.recipe.batch_size == 64
    assert settings.recipe.stop_patience == speed.NEVER


def test_a_worker_makes_settings_of_its_task(options):
    task = {"settings": speed.worker_settings(options, train_samples=320, cache=False),
            "recipe": {"epochs": 3, "freeze_bn_after": 0, "stop_patience": speed.NEVER}}
    settings = speed_workers.settings_of(json.loads(json.dumps(task)))
    assert settings.data_dir == str(options.data_dir)
    assert (settings.train_samples, settings.jobs, settings.cache) == (320, 1, False)
    assert (settings.recipe.epochs, settings.recipe.freeze_bn_after) == (3, 0)


def test_every_worker_that_is_asked_for_exists():
    text = Path(speed.__file__).read_text(encoding="utf-8")
    asked = set(speed.re.findall(r'ask\(\s*"(\w+)"', text))
    assert asked == set(speed_workers.WORKERS)


def test_the_time_of_a_step_leaves_out_the_first_epoch():
    times = [20.0, 22.0, 25.0, 27.0]    # the first epoch took long, the others 2, 3 and 2 s
    assert speed_workers.per_step(times, steps=100) == pytest.approx(20)    # ms


def test_copies_are_of_new_patients_with_classes_in_equal_shares_and_all_can_be_used(options):
    options.data_dir.mkdir()
    records = [("a", "Normal"), ("b", "Normal"), ("c", "Bradycardia")]
    for name, _ in records:
        wfdb.wrsamp(name, 500, ["mV"], ["I"], d_signal=np.array([[7], [ord(name)]]), fmt=["16"],
                    adc_gain=[200.0], baseline=[0], write_dir=str(options.data_dir))
    lines = [f"{i},{name},{category}\n" for i, (name, category) in enumerate(records)]
    options.labels.write_text("".join([*lines, "9,missing,Normal\n"]))

    labels, folder = speed.copies(options, 6)
    rows = script.read_labels(str(labels))
    assert rows["subject_id"].nunique() == 6
    assert rows["ecg_category"].value_counts().to_dict() == {"Normal": 3, "Bradycardia": 3}
    found = set()
    for path in rows["waveform_path"]:
        record = wfdb.rdrecord(str(folder / path), physical=False)
        assert record.checksum == [int(record.d_signal.sum())]
        assert record.init_value == [record.d_signal[0, 0]]
        found.add(record.d_signal.tobytes())
    assert len(found) == 6    # the script leaves out copies

"""The tables of the speed benchmark, of numbers made up by hand; nothing is timed here."""

import pandas as pd

import too_feature as script
from benchmarks import speed
from benchmarks.speed import Part

PART = Part("Step", "ms", {"**the script**": "a", "baseline": "b", "torch": "c"}, "A note.")


def test_ways_are_measured_in_turn_and_a_failure_stops_only_its_own():
    order = []

    def measure(way):
        order.append(way)
        if way == "b":
            raise ValueError("broken")
        return float(len(order))

    values = speed.alternate(PART, measure)
    assert order == ["a", "b", "c"] * 2
    assert values["**the script**"].tolist() == [1, 4]
    assert values["baseline"].isna().all()
    assert values["torch"].tolist() == [3, 6]


def test_rows_have_median_smallest_and_largest_and_ratios_within_each_round():
    values = pd.DataFrame({"**the script**": [2.0, 4.0], "baseline": [6.0, 8.0]})
    table = speed.table(PART, values)
    assert "|  | ms | the script is so many times as fast |" in table
    assert "| **the script** | 3 (2-4) |  |" in table
    # The second round was slow for both: the ratio of medians would be 7 / 3
    assert "| baseline | 7 (6-8) | 2.5 (2-3) |" in table


def test_the_flags_of_a_run_are_the_scripts():
    _, *flags = speed.script_command("folder", "--no-cache", "--set", "stop_patience=10000")
    settings = script.parse_settings(flags)
    assert (settings.cache_dir, settings.recipe.stop_patience) == ("folder", 10000)


def test_a_way_is_measured_in_a_process_of_its_own_whose_output_is_not_for_the_table(capfd):
    assert speed.measure_alone(print_and_count, "folder") == 6
    assert capfd.readouterr().out == ""


def print_and_count(scratch):
    print("not for the table")
    return len(scratch)

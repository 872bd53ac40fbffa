"""The tables of the speed benchmark, of numbers made up by hand; nothing is timed here."""


import too_feature as script
from benchmarks import speed, speed_workers
from benchmarks.speed import Part, Way

WAYS = [Way("**the script**", "a"), Way("baseline", "b"), Way("torch", "c")]
PART = Part("Step", "ms", WAYS, "A note.")


def test_ways_are_measured_in_turn_and_a_failure_stops_only_its_own():
    order = []

    def measure(way):
        order.append(way.worker)
        if way.worker == "b" and order.count("b") == 2:
            raise RuntimeError("ValueError: broken")
        return float(order.count(way.worker))

    assert speed.alternate(PART, 3, measure) == {
        "**the script**": [1, 2, 3], "baseline": "failed: ValueError: broken", "torch": [1, 2, 3]}
    assert order == ["a", "b", "c", "a", "b", "c", "a", "c"]


def test_rows_have_median_smallest_and_largest_and_ratios_within_each_round():
    values = {"**the script**": [2.0, 4.0], "baseline": [6.0, 8.0], "torch": "failed: x"}
    table = speed.table(PART, values)
    assert "|  | ms | the script is so many times as fast |" in table
    assert "| **the script** | 3 (2-4) |  |" in table
    # The second round was slow for both: the ratio of medians would be 7 / 3
    assert "| baseline | 7 (6-8) | 2.5 (2-3) |" in table
    assert "| torch | failed: x |  |" in table


def test_every_way_has_a_worker_and_the_flags_of_a_run_are_the_scripts():
    workers = {way.worker for part in speed.PARTS.values() for way in part.ways}
    assert workers == set(speed_workers.WORKERS)
    flags = speed_workers.flags_of({"scratch": "folder", "epochs": 2})
    settings = script.parse_settings([*flags, "--no-cache", "--set", "stop_patience=10000"])
    assert (settings.cache_dir, settings.recipe.epochs) == ("folder", 2)

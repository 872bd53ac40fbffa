"""The tables of the speed benchmark, of numbers made up by hand; nothing is timed here."""

import pandas as pd

from benchmarks import speed
from benchmarks.speed import Part

PART = Part("Step", "ms", {"**the script**": "a", "baseline": "b", "torch": "c"}, "A note.")


def test_rows_have_median_smallest_and_largest_and_ratios_within_each_round():
    values = pd.DataFrame({"**the script**": [2.0, 4.0], "baseline": [6.0, 8.0]})
    table = speed.table(PART, values)
    assert "|  | ms | the script is so many times as fast |" in table
    assert "| **the script** | 3 (2-4) |  |" in table
    # The second round was slow for both: the ratio of medians would be 7 / 3
    assert "| baseline | 7 (6-8) | 2.5 (2-3) |" in table

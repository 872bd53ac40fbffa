"""What `balanced_sampling` promises about any frame of records."""

from collections import Counter

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from too_feature import balanced_sampling


def frame(sizes):
    """Return a frame with `sizes[i]` records of class number i."""
    rows = [(100 * i + r, f"files/c{i}/r{r}", f"class {i}")
            for i, size in enumerate(sizes) for r in range(size)]
    return pd.DataFrame(rows, columns=["subject_id", "waveform_path", "ecg_category"])


def drawn(sample):
    """Return how often each record was drawn."""
    return Counter(sample["waveform_path"])


several = st.lists(st.integers(1, 30), min_size=2, max_size=6)
targets, seeds = st.integers(6, 120), st.integers(0, 2**32 - 1)


@given(sizes=several, target=targets, seed=seeds)
def test_classes_have_equal_shares_and_only_a_short_one_repeats_records_evenly(
        sizes, target, seed):
    sample = balanced_sampling(frame(sizes), target, seed)
    assert set(sample["ecg_category"].value_counts()) == {target // len(sizes)}
    times = drawn(sample)
    for i, size in enumerate(sizes):
        of_class = [times[f"files/c{i}/r{r}"] for r in range(size)]
        assert max(of_class) - min(of_class) <= 1
        assert max(of_class) == 1 or size < target // len(sizes)


@given(sizes=several, target=targets, seed=seeds)
def test_without_repeats_a_short_class_gives_each_record_once(sizes, target, seed):
    sample = balanced_sampling(frame(sizes), target, seed, repeat=False)
    assert max(drawn(sample).values()) == 1
    counts = sample["ecg_category"].value_counts()
    assert [counts[f"class {i}"] for i in range(len(sizes))] == [
        min(size, target // len(sizes)) for size in sizes]


@given(sizes=several, target=targets, seed=seeds, repeat=st.booleans(), data=st.data())
def test_taking_records_out_only_lets_as_many_others_in(sizes, target, seed, repeat, data):
    df = frame(sizes)    # of which no class may lose its last record
    spare = [row for row, path in enumerate(df["waveform_path"]) if not path.endswith("/r0")]
    out = data.draw(st.sets(st.sampled_from(spare), max_size=5) if spare else st.just(set()))
    before = drawn(balanced_sampling(df, target, seed, repeat))
    after = drawn(balanced_sampling(df.drop(out), target, seed, repeat))
    removed = set(df["waveform_path"][list(out)]) & set(before)
    assert set(before) - removed <= set(after)
    assert len(set(after) - set(before)) <= len(removed)


@given(sizes=several, target=targets, seed=seeds, repeat=st.booleans(), order=st.randoms())
def test_the_order_of_the_rows_does_not_matter(sizes, target, seed, repeat, order):
    df, rows = frame(sizes), list(range(sum(sizes)))
    order.shuffle(rows)
    assert drawn(balanced_sampling(df, target, seed, repeat)) == drawn(
        balanced_sampling(df.iloc[rows], target, seed, repeat))


def test_the_same_seed_draws_the_same_and_another_seed_another():
    df = frame([100, 100])
    before = df.copy()
    first, again, other = (balanced_sampling(df, 50, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    pd.testing.assert_frame_equal(df, before)
    assert drawn(first) != drawn(other)


def test_no_record_is_favoured():
    df, n = frame([20, 20]), 400
    times = sum((drawn(balanced_sampling(df, 20, seed)) for seed in range(n)), Counter())
    deviations = np.array([times[path] - n / 2 for path in df["waveform_path"]]) / np.sqrt(n / 4)
    assert np.abs(deviations).max() < 4.5    # of 40 draws of a half, in standard deviations

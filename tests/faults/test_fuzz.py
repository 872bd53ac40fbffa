"""Fuzzing, a bounded part of it: any bytes as a record, any array as a signal, any frame."""

import os
import threading
import warnings

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import fuzz_records
from tests.support.ecgs import NOT_AN_ECG, beats, simulated
from tests.support.ecgs import signals as ecgs
from tests.support.fuzz_records import fuzz, run_case, whole_records
from too_feature import (
    Recipe,
    balanced_sampling,
    detect_r_peaks,
    extract_core_medical_features,
    lightweight_augmentation,
    stable_preprocess_ecg,
    vary_recording,
)


# --------------------------------------------------------------------------------- bytes of records
def test_any_damage_to_the_bytes_of_a_record_gives_an_ecg_or_a_record_error():
    ends = fuzz(seed=0, cases=2000)
    for reason in ("read", "header is damaged", "cannot be read", "wrong checksum",
                   "file is cut short", "lead missing or doubled", "file is missing"):
        assert ends[reason] > 0    # or the damage does not get far enough


@pytest.mark.slow
def test_a_hundred_thousand_damaged_records_give_an_ecg_or_a_record_error():
    fuzz(seed=1, cases=100_000)


@pytest.mark.parametrize(("misdeed", "said"), [
    (lambda path: 1 / 0, "ZeroDivisionError"),
    (lambda path: warnings.warn("odd", stacklevel=1), "a warning: odd"),
    (lambda path: print("odd"), "it prints"),
    (lambda path: open(os.devnull).close(), "it opens"),
    (lambda path: open(f"{path}.log", "w").close(), "it writes"),
    (lambda path: __import__("socket").socket().close(), "socket"),
    (lambda path: os.system("true"), "os.system"),    # noqa: S605
    (lambda path: np.empty(30_000_000), "MB"),
    (lambda path: threading.Event().wait(), "it hangs")],
    ids=lambda value: value if isinstance(value, str) else "")
def test_the_fuzzer_notices_what_a_reader_must_not_do(misdeed, said, tmp_path, monkeypatch):
    def reader(path):
        misdeed(path)
        return np.zeros((500, 12)), 50.0

    header, files = whole_records()[0]
    monkeypatch.setattr(fuzz_records, "HANG", 1 if said == "it hangs" else 60)
    monkeypatch.setattr(fuzz_records, "read_record", lambda path: (np.zeros((500, 12)), 50.0))
    assert run_case(tmp_path, header, files, traced=True) == ""
    monkeypatch.setattr(fuzz_records, "read_record", reader)
    with pytest.raises(AssertionError, match=said):
        run_case(tmp_path, header, files, traced=True)


@pytest.mark.parametrize(("ecg", "fs"), [
    (np.zeros((400, 12)), 50.0), (np.zeros((500, 11)), 50.0), (np.zeros((500, 12)), 49.0),
    (np.full((500, 12), np.nan), 50.0), (np.full((500, 12), 1001.0), 50.0),
    (np.zeros((500, 12), np.float32), 50.0)])
def test_the_fuzzer_notices_what_is_not_an_ecg(ecg, fs, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_records, "read_record", lambda path: (ecg, fs))
    with pytest.raises(AssertionError):
        run_case(tmp_path, *whole_records()[0])


# What the fuzzer found: a replacement in the header, and the reason since then
@pytest.mark.parametrize(("old", "new", "reason"), [
    (b"/mV", b"/" + b"9" * 400, "unit is not a voltage"),    # reasons were as long
    (b"/mV", b"/\x1b[2J", "unit is not a voltage"),          # and spoke to the terminal
    (b"x.dat", b"x" * 20_000, "header is damaged"),
    (b" 16 100", b" 999 100", "cannot be read")])
def test_findings_stay_fixed(old, new, reason, tmp_path):
    header, files = whole_records()[0]
    assert old in header
    lines = header.replace(old, new, 1 if old == b"x.dat" else -1)
    assert run_case(tmp_path, lines, files, traced=True).split(":")[0] == reason


# ----------------------------------------------------------------------------------------- arrays
@st.composite
def layouts(draw, values):
    """Draw an array as another object of equal values: strided, read-only, byte-swapped, ..."""
    array, way = draw(values), draw(st.integers(0, 7))
    if way == 1:
        array = np.repeat(array, 2, axis=0)[::2]
    elif way == 2:
        array = array[::-1].copy()[::-1]
    elif way == 3:
        array = np.asfortranarray(array)
    elif way == 4:
        array = array.astype(array.dtype.newbyteorder())
    elif way == 5:
        array = np.ma.masked_array(array, mask=np.zeros(array.shape, bool))
    elif way == 6 and array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = array.astype(np.longdouble)
    array.flags.writeable = way == 0
    return array


anything = st.one_of(
    st.sampled_from([signal for signal, _ in NOT_AN_ECG.values()]),
    hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=4, max_side=13)),
    hnp.arrays(st.sampled_from(["f8", "i4", "?"]), st.tuples(st.integers(0, 70), st.just(12))),
    st.builds(lambda n: np.zeros(n, [("I", "f8"), ("II", "f8")]), st.integers(0, 600)),
    st.builds(lambda shape: np.full(shape, object()), st.sampled_from([(), (600,), (600, 12)])),
    st.builds(lambda x: np.array(x, dtype=object), st.lists(st.floats(), max_size=20)),
    st.text(max_size=3), st.floats(), st.none(), st.booleans())


def outcome(function, *arguments):
    """Return what a function gives, or None where it says by a ValueError what was wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")    # no warning but for an array of strange objects
        try:
            return function(*arguments)
        except ValueError as error:
            assert len(str(error)) > 10
            return None


@given(anything | layouts(ecgs(1, 120)))
def test_anything_is_preprocessed_to_finite_numbers_or_refused(signal):
    result = outcome(stable_preprocess_ecg, signal)
    shape = np.shape(signal) if hasattr(signal, "shape") else ()
    if result is None:
        assert len(shape) != 2 or shape[1] != 12 or shape[0] < 10 or signal.dtype.kind not in "biuf"
    else:
        assert result.shape == (500, 12)
        assert result.dtype == np.float32
        assert np.all(np.abs(result) <= 3)


@given(anything | layouts(ecgs(40, 300)), st.sampled_from([50, 99.5, 250]))
def test_anything_has_features_that_are_finite_or_not_measurable_or_is_refused(signal, fs):
    result = outcome(extract_core_medical_features, signal, fs)
    if result is not None:
        assert result.shape == (8,)
        assert np.isfinite(result[:2]).all()
        assert not np.isinf(result).any()


@given(anything | layouts(ecgs(40, 700).map(lambda signal: signal[:, 1])),
       st.sampled_from([50, 100, 257.3, 500]))
def test_r_peaks_of_anything_are_increasing_places_in_it_or_it_is_refused(lead, fs):
    result = outcome(detect_r_peaks, lead, fs)
    if result is None:
        assert (np.ndim(np.asarray(lead, object)) != 1 or len(lead) < fs
                or np.asarray(lead).dtype.kind not in "biuf")
    else:
        assert result.ndim == 1
        assert result.dtype == np.float64
        assert np.all(np.diff(result) > 0)
        assert np.all((result >= 0) & (result < len(lead)))


@pytest.mark.parametrize("fs", [0, -500, 49, 4001, np.nan, np.inf])
def test_r_peaks_at_an_impossible_rate_are_a_value_error(fs):
    with pytest.raises(ValueError, match=f"got {fs}"):
        detect_r_peaks(np.zeros(5000), fs)


@pytest.mark.parametrize("change", [
    lambda x: x.tolist(), lambda x: np.repeat(x, 2, axis=0)[::2], np.asfortranarray,
    lambda x: x.astype(">f8"), lambda x: x.astype(np.longdouble)])
def test_the_layout_of_an_array_changes_no_result(change):
    signal = simulated(rate=75)[0]
    for function in (stable_preprocess_ecg, lambda x: extract_core_medical_features(x, 500)):
        np.testing.assert_array_equal(function(change(signal)), function(signal))
    lead = beats(1, 2, 3.5, 5, noise=0.01)[:, 1]
    assert len(detect_r_peaks(lead, 500)) == 4
    np.testing.assert_array_equal(detect_r_peaks(change(lead), 500), detect_r_peaks(lead, 500))


floats = hnp.arrays("f4", st.tuples(st.integers(0, 3), st.integers(1, 9), st.just(12)),
                    elements=st.floats(-3, 3, width=32))


@given(layouts(floats), st.integers(0, 2**32))
def test_augmentation_takes_prepared_signals_of_any_layout(batch, seed):
    for signal in (batch, *batch[:1]):
        before = signal.copy()
        result = outcome(lightweight_augmentation, signal, np.random.default_rng(seed))
        assert result.shape == signal.shape
        assert result.dtype == np.float32
        assert np.all(np.abs(result) <= 3)
        np.testing.assert_array_equal(signal, before)


@given(anything | layouts(ecgs(1, 120)))
def test_anything_is_augmented_to_finite_numbers_or_refused(signal):
    result = outcome(lightweight_augmentation, signal)
    if result is not None:
        assert result.shape == np.shape(signal)
        assert np.all(np.abs(result) <= 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_not_augmented(value):
    signal = np.zeros((500, 12))
    signal[3, 4] = value
    with pytest.raises(ValueError, match="expected finite numbers"):
        lightweight_augmentation(signal)


@given(layouts(floats), st.integers(0, 2**32), st.booleans())
def test_varied_recordings_of_any_layout_stay_finite_and_not_measurable_stays_so(
        batch, seed, missing):
    features = np.full((len(batch), 8), np.nan if missing else 1.0, np.float32)
    moved, changed = outcome(vary_recording, batch, features, np.random.default_rng(seed),
                             Recipe(), 0.5)
    assert moved.shape == batch.shape
    assert changed.shape == features.shape
    assert np.isfinite(np.asarray(moved)).all()
    assert np.isnan(changed).all() == (missing or not len(batch))


# ----------------------------------------------------------------------------------------- frames
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)


@settings(max_examples=100)
@given(st.lists(st.tuples(names, names), min_size=1, max_size=30, unique_by=lambda row: row[0]),
       st.integers(-1, 90), st.integers(0, 2**32 - 1), st.booleans(), st.integers(0, 5))
def test_frames_of_any_names_index_and_columns_give_every_class_its_share(
        rows, target, seed, repeat, way):
    frame = pd.DataFrame(rows, columns=["waveform_path", "ecg_category"])
    sizes = frame["ecg_category"].value_counts()
    frame.index = [range(len(rows)), [0] * len(rows), pd.MultiIndex.from_product([[1], rows]),
                   pd.date_range("2000", periods=len(rows)), [None] * len(rows),
                   np.arange(len(rows))[::-1]][way]
    if way == 1:
        frame = frame.assign(more=object())[["more", "ecg_category", "waveform_path"]]
    sample = balanced_sampling(frame, target, seed, repeat)
    wanted = max(1, target // len(sizes))
    assert sample["ecg_category"].value_counts().to_dict() == {
        name: wanted if repeat else min(wanted, n) for name, n in sizes.items()}
    assert list(sample.columns) == list(frame.columns)
    assert sample.index.tolist() == list(range(len(sample)))

"""The large model's features against simulated truth, and what must not change them."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal as dsp

from ecg import demo, large_features
from ecg.signals import as_leads
from tests.support.ecgs import drawn, signals, simulated

NAMES = [name for name, _, _ in large_features.EXTRA_FEATURES]


def measure(signal, r_peaks, fs=500, rr=None):
    """Return the features by name; a warning is an error, and none is infinite."""
    rr = np.diff(r_peaks) / fs if rr is None else rr
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = large_features.extra_features(signal, fs, r_peaks, rr)
    assert not np.isinf(values).any()
    return dict(zip(NAMES, values, strict=True))


@given(signals(475, 700), st.sampled_from([50, 61.5, 250]),
       st.lists(st.floats(0, 699), max_size=40))
def test_no_record_and_no_peaks_raise_or_give_an_infinity(signal, fs, peaks):
    leads = np.clip(as_leads(signal), -1000, 1000)    # as read_record returns it
    before = leads.copy()
    peaks = np.array(sorted({float(p) for p in peaks if p < len(leads) - 1}))
    values = large_features.extra_features(leads, fs, peaks, np.diff(peaks) / fs)
    assert not np.isinf(values).any()
    assert np.array_equal(leads, before)


@pytest.mark.parametrize("peaks", [[], [3], [2, 5, 7], range(11)])
def test_few_peaks_and_flat_leads_give_nan_and_no_warning(peaks):
    signal, true = simulated(rate=70)
    for flat in ([], [0, 1, 6, 11]):
        leads = signal.copy()
        leads[:, flat] = 0
        values = measure(leads, true[peaks])
        if not len(peaks):
            assert np.isnan(values["QRS width"])
        if 1 in flat:
            assert np.isnan(values["T wave II"])
    assert not np.isnan(list(measure(signal, true).values())).any()


@pytest.mark.parametrize("category", demo.CLASSES)
@pytest.mark.parametrize(("gain", "offset"), [(20, 0), (0.3, -2)])
def test_gain_and_offset_of_the_record_change_nothing(category, gain, offset):
    signal, r_peaks = drawn(category, "medium", 3)
    before, after = measure(signal, r_peaks), measure(gain * signal + offset, r_peaks)
    assert after == pytest.approx(before, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("fs", [100, 250, 1000])
def test_the_sampling_rate_changes_next_to_nothing(fs):
    signal, r_peaks = simulated(rate=80)
    before = measure(signal, r_peaks)
    after = measure(dsp.resample(signal, 10 * fs), r_peaks * fs / 500, fs)
    grid_ms = 1000 / large_features.GRID    # a complex begins and ends at a sample of it
    for name, unit, _ in large_features.EXTRA_FEATURES:
        assert after[name] == pytest.approx(before[name], rel=0.02, nan_ok=True,
                                            abs=grid_ms if unit == "ms" else 0.02), name


@pytest.mark.parametrize("noise", ["clean", "high"])
def test_qrs_is_wider_in_every_bundle_branch_block_than_in_any_other_record(noise):
    width = {category: [measure(*drawn(category, noise, seed))["QRS width"] for seed in range(6)]
             for category in demo.CLASSES}
    blocked = width.pop(demo.BBB)
    assert min(blocked) > 130    # ms; 120 is the limit that cardiologists draw
    for widths in width.values():
        assert 70 < min(widths) <= max(widths) < 120


@pytest.mark.parametrize("noise", ["clean", "high"])
def test_fibrillation_is_irregular_has_no_p_wave_that_repeats_and_waves_in_between(noise):
    records = {category: [measure(*drawn(category, noise, seed, ectopic=False))
                          for seed in range(20)] for category in (demo.AF, demo.NORMAL)}

    def values(category, name):
        return np.array([record[name] for record in records[category]])

    def share_higher(name):
        return (values(demo.AF, name)[:, None] > values(demo.NORMAL, name)).mean()

    for name in ("RR deviation", "RR change", "irregular RR share", "fibrillatory power",
                 "fibrillatory size"):
        assert share_higher(name) > 0.95, name
    for name in ("P consistency", "best P consistency", "P consistency II"):
        assert share_higher(name) < 0.02, name
    assert values(demo.AF, "best P consistency").max() < 0.5
    assert values(demo.NORMAL, "best P consistency").min() > 0.7


def test_rhythm_features_are_those_of_the_rr_intervals():
    signal, _ = simulated()
    peaks = 500 + 400 * np.array([0, 1, 2, 3, 3.6, 5, 6])    # 75 bpm, one beat early, a pause
    values = measure(signal, peaks)
    assert values["median heart rate"] == pytest.approx(75)
    assert values["shortest RR"] == pytest.approx(0.6)
    assert values["longest RR"] == pytest.approx(1.4)
    assert values["RR deviation"] == pytest.approx(0)    # of the median beat
    assert values["irregular RR share"] == pytest.approx(3 / 5)
    assert np.isnan(measure(signal, peaks[:1])["median heart rate"])
    assert np.isnan(measure(signal, peaks[:3])["RR change"])


def test_intervals_that_cannot_be_measured_are_left_out_of_the_rhythm():
    signal, true = simulated(demo.AF, rate=80)
    rr = np.diff(true) / 500
    assert measure(signal, true, rr=rr) == pytest.approx(measure(signal, true), nan_ok=True)
    odd = rr.copy()
    odd[4] = np.nan
    values = measure(signal, true, rr=odd)
    median = np.nanmedian(odd)
    assert values["median heart rate"] == pytest.approx(60 / median)
    assert values["longest RR"] == pytest.approx(np.nanmax(odd) / median)
    assert values["RR change"] == pytest.approx(np.nanmedian(np.abs(np.diff(odd))) / median)

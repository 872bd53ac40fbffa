"""The large model's features against simulated truth, and what must not change them."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal as dsp

import too_feature as script
from ecg import demo, large_features
from ecg.signals import as_leads
from tests.support.ecgs import drawn, signals, simulated

NAMES = [name for name, _, _ in large_features.EXTRA_FEATURES]


def measure(signal, r_peaks, fs=500):
    """Return the features by name; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return dict(zip(NAMES, large_features.extra_features(signal, fs, r_peaks), strict=True))


def test_every_feature_has_a_name_of_its_own_and_a_unit():
    assert len(set(NAMES)) == len(NAMES) >= 20
    assert not set(NAMES) & {name for name, _, _ in script.FEATURES}
    assert {type(unit) for _, unit, _ in large_features.EXTRA_FEATURES} == {str}
    assert not any("mV" in unit for _, unit, _ in large_features.EXTRA_FEATURES)    # see invariance


@given(signals(475, 700), st.sampled_from([50, 61.5, 100, 250]),
       st.lists(st.floats(0, 699), max_size=40))
def test_no_record_and_no_peaks_raise_or_give_an_infinity(signal, fs, peaks):
    leads = np.clip(as_leads(signal), -1000, 1000)    # as read_record returns it
    before = leads.copy()
    found = large_features.extra_features(leads, fs, [p for p in peaks if p < len(leads) - 1])
    assert found.shape == (len(NAMES),)
    assert not np.isinf(found).any()
    assert np.array_equal(leads, before)


@pytest.mark.parametrize("fs", [50, 500, 4000])
@pytest.mark.parametrize("peaks", ["none", "one", "two", "at the ends", "unsorted", "all"])
def test_few_or_odd_peaks_and_flat_leads_give_nan_and_no_warning(peaks, fs):
    signal, true = simulated(rate=70)
    signal, true = dsp.resample(signal, 10 * fs), true * fs / 500
    chosen = {"none": [], "one": true[3:4], "two": true[3:5], "unsorted": true[[5, 2, 2, 7]],
              "at the ends": [0, 10 * fs - 1], "all": true}[peaks]
    for flat in ([], [1], [0, 6, 11], range(12)):
        leads = signal.copy()
        leads[:, flat] = 0
        found = measure(leads, chosen, fs)
        assert not np.isinf(list(found.values())).any()
        if peaks in ("none", "at the ends") or len(flat) == 12:
            assert np.isnan(found["QRS width"])
        if 1 in flat:
            assert np.isnan(found["T wave II"])
    whole = measure(signal, true, fs)
    assert not np.isnan(list(whole.values())).any()


@pytest.mark.parametrize("category", demo.CLASSES)
@pytest.mark.parametrize(("gain", "offset"), [(0.05, 0), (20, 0), (1, 5), (0.3, -2)])
def test_gain_and_offset_of_the_record_change_nothing(category, gain, offset):
    signal, r_peaks = drawn(category, "medium", 3)
    before, after = measure(signal, r_peaks), measure(gain * signal + offset, r_peaks)
    np.testing.assert_allclose(list(after.values()), list(before.values()), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("fs", [100, 250, 1000])
def test_the_sampling_rate_changes_next_to_nothing(fs):
    signal, r_peaks = simulated(rate=80)
    before = measure(signal, r_peaks)
    after = measure(dsp.resample(signal, 10 * fs), r_peaks * fs / 500, fs)
    grid_ms = 1000 / large_features.GRID    # a complex begins and ends at a sample of it
    for name, unit, _ in large_features.EXTRA_FEATURES:
        assert after[name] == pytest.approx(before[name], rel=0.02, nan_ok=True,
                                            abs=grid_ms if unit == "ms" else 0.02), name


@pytest.mark.parametrize("noise", ["clean", "low", "medium", "high"])
def test_qrs_is_wider_in_every_bundle_branch_block_than_in_any_other_record(noise):
    width = {category: [measure(*drawn(category, noise, seed))["QRS width"] for seed in range(6)]
             for category in demo.CLASSES}
    blocked = width.pop(demo.BBB)
    assert min(blocked) > 130    # ms; 120 is the limit that cardiologists draw
    for widths in width.values():
        assert 70 < min(widths) <= max(widths) < 120


def test_of_the_demos_records_too_those_of_bundle_branch_block_are_the_wide_ones(demo_dir):
    widths = {demo.BBB: [], demo.NORMAL: []}
    recipe = script.RECIPES["large"]
    for _, path, category, _ in demo.catalogue():
        if category in widths and len(widths[category]) < 25:
            features = script.prepare_record(demo_dir / path, demo_dir, recipe)[1]
            assert features.shape == (len(script.FEATURES) + len(NAMES),)
            widths[category].append(features[len(script.FEATURES) + NAMES.index("QRS width")])
    blocked, normal = map(np.array, widths.values())
    higher = (blocked[:, None] > normal).mean()    # area under the ROC curve
    assert higher > 0.95
    assert np.median(blocked) > 120 > np.median(normal)


@pytest.mark.parametrize("noise", ["clean", "medium", "high"])
def test_fibrillation_is_irregular_has_no_p_wave_that_repeats_and_waves_in_between(noise):
    found = {category: [measure(*drawn(category, noise, seed, ectopic=False)) for seed in range(20)]
             for category in (demo.AF, demo.NORMAL)}

    def values(category, name):
        return np.array([one[name] for one in found[category]])

    def higher(name):
        return (values(demo.AF, name)[:, None] > values(demo.NORMAL, name)).mean()

    for name in ("RR deviation", "RR change", "irregular RR share", "fibrillatory power",
                 "fibrillatory size"):
        assert higher(name) > 0.95, name
    for name in ("P consistency", "best P consistency", "P consistency II"):
        assert higher(name) < 0.02, name
    assert values(demo.AF, "best P consistency").max() < 0.5
    assert values(demo.NORMAL, "best P consistency").min() > 0.7


def test_rhythm_features_are_those_of_the_rr_intervals():
    signal, _ = simulated()
    peaks = 500 + 400 * np.array([0, 1, 2, 3, 3.6, 5, 6])    # 75 bpm, one beat early, a pause
    found = measure(signal, peaks)
    assert found["median heart rate"] == pytest.approx(75)
    assert found["shortest RR"] == pytest.approx(0.6)
    assert found["longest RR"] == pytest.approx(1.4)
    assert found["RR deviation"] == pytest.approx(0)    # of the median beat
    assert found["irregular RR share"] == pytest.approx(3 / 5)
    assert np.isnan(measure(signal, peaks[:1])["median heart rate"])
    assert np.isnan(measure(signal, peaks[:3])["RR change"])


@pytest.mark.parametrize("rhythm", [demo.NORMAL, demo.AF])
def test_intervals_that_cannot_be_measured_are_left_out_of_the_rhythm(rhythm):
    signal, true = simulated(rhythm, rate=80)
    rr = np.diff(true) / 500
    given = {name: float(value) for name, value in zip(NAMES, large_features.extra_features(
        signal, 500, true, rr), strict=True)}
    assert given == pytest.approx(measure(signal, true), nan_ok=True)    # the default
    odd = rr.copy()
    odd[4] = np.nan
    found = dict(zip(NAMES, large_features.extra_features(signal, 500, true, odd), strict=True))
    left = np.delete(rr, 4)
    change = np.abs(np.concatenate([np.diff(rr[:4]), np.diff(rr[5:])])) / np.median(left)
    assert found["median heart rate"] == pytest.approx(60 / np.median(left))
    assert found["longest RR"] == pytest.approx(left.max() / np.median(left))
    assert found["RR change"] == pytest.approx(np.median(change))
    assert found["irregular RR share"] == pytest.approx(np.mean(change > 0.1))


@pytest.mark.parametrize("usable", [[], [3], [1, 3, 5], [2, 3], [0, 1, 2]])
def test_few_measurable_intervals_give_no_infinity_and_no_warning(usable):
    signal, true = simulated(rate=80)
    rr = np.full(len(true) - 1, np.nan)
    rr[usable] = 0.75
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = large_features.extra_features(signal, 500, true, rr)
    found = dict(zip(NAMES, values, strict=True))
    assert not np.isinf(values).any()
    assert np.isnan(found["median heart rate"]) == (not usable)
    assert np.isnan(found["RR deviation"]) == (len(usable) < 3)
    assert np.isnan(found["RR change"]) == (usable != [0, 1, 2])
    assert np.isfinite(found["QRS width"])

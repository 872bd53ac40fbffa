"""The eight features, and above all the R peaks they rest on, against the simulator's truth."""

import functools

import neurokit2
import numpy as np
import pytest
import sleepecg
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal as dsp
from scipy import stats

from ecg.demo import BBB, BRADY, CLASSES, NOISE_LEVELS, NORMAL, TACHY, Anatomy, catalogue
from tests.support.ecgs import (
    NOT_AN_ECG,
    TIME,
    beats,
    bpm,
    drawn,
    f1,
    r_peaks_of,
    signals,
    simulated,
)
from too_feature import extract_core_medical_features, measure_rhythm, read_record

RATE, SDNN, RMSSD = 4, 5, 6
SEEDS = pytest.mark.parametrize("seeds", [10, pytest.param(100, marks=pytest.mark.slow)])


@functools.cache
def sweep(category, noise, seeds):
    """Return detected and true R peaks of lead II, and the heart rate, of `seeds` records."""
    records = [drawn(category, noise, seed) for seed in range(seeds)]
    return [(r_peaks_of(signal[:, 1]), true,
             extract_core_medical_features(signal, 500)[RATE]) for signal, true in records]


@pytest.fixture(scope="module")
def demo_records(demo_dir, demo_truth):
    """Every fifteenth record of the demo: lead II, its features, its true R peaks."""
    records = []
    for _, path, _, seed in catalogue()[::15]:
        signal, fs, *_ = read_record(demo_dir / path)
        features = extract_core_medical_features(signal, fs)
        records.append((signal[:, 1], features, demo_truth[seed]))
    return records


def test_statistics_are_those_of_scipy_on_lead_ii():
    signal, _ = drawn(BBB, "medium", 3)
    two = signal[:, 1]
    expected = two.mean(), two.std(), stats.skew(two), stats.kurtosis(two)
    np.testing.assert_allclose(extract_core_medical_features(signal, 500)[:4], expected, rtol=1e-9)


@SEEDS
@pytest.mark.parametrize("category", CLASSES)
def test_r_peaks_are_within_50_ms_of_the_true_ones_in_every_class_and_noise(
        category, seeds, request):
    if category == TACHY and seeds == 100:
        request.applymarker(pytest.mark.xfail(
            reason="between fast beats T and P waves of lead II alone look like noise: 2 of 100 "
                   "such records are not measurable, F1 0.989; with all leads they are"))
    for noise in NOISE_LEVELS:
        assert f1([row[:2] for row in sweep(category, noise, seeds)]) >= 0.995


@SEEDS
def test_r_peaks_and_heart_rate_hold_over_all_classes_and_noises(seeds):
    rows = [row for c in CLASSES for noise in NOISE_LEVELS for row in sweep(c, noise, seeds)]
    assert f1([row[:2] for row in rows]) >= 0.998
    assert np.mean([abs(rate - bpm(true)) <= 1 for _, true, rate in rows]) >= 0.99


@pytest.mark.parametrize("rate", range(30, 221, 20))
def test_sinus_rates_from_30_to_220_read_back_within_1_bpm(rate):
    signal, true = simulated(NORMAL, rate, "high", seed=rate)
    assert abs(extract_core_medical_features(signal, 500)[RATE] - bpm(true)) < 1
    assert abs(bpm(true) - rate) < 0.06 * rate    # the truth itself is of that rate


@pytest.mark.parametrize("fs", [100, 1000])
@pytest.mark.parametrize(("category", "rate", "left"), [
    (NORMAL, 75, True), (BRADY, 45, True), (TACHY, 130, True), (BBB, 75, True), (BBB, 75, False)])
def test_variability_is_within_5_ms_in_clean_sinus_rhythm_at_any_sampling_rate(
        category, rate, left, fs):
    for seed in range(3):
        signal, true = simulated(
            category, rate, "clean", seed, anatomy=Anatomy(left_block=left))
        signal = dsp.resample_poly(signal, fs // 50, 10, padtype="line")
        features = extract_core_medical_features(signal, fs)
        rr = np.diff(true) / 500 * 1000
        assert abs(features[SDNN] - rr.std(ddof=1)) < 5
        assert abs(features[RMSSD] - np.sqrt(np.mean(np.diff(rr) ** 2))) < 5
        assert features[7] == pytest.approx(features[SDNN] * features[RATE] / 60_000)


@pytest.mark.parametrize("fs", [360, 1000])
def test_the_declared_sampling_rate_is_the_clock(fs):
    signal, _ = simulated(NORMAL, 75)
    at_500, declared = (extract_core_medical_features(signal, x)[4:] for x in (500, fs))
    np.testing.assert_allclose(declared[0], at_500[0] * fs / 500, rtol=1e-3)
    np.testing.assert_allclose(declared[1:3], at_500[1:3] * 500 / fs, atol=1)


@pytest.mark.parametrize("value", [0, -5, 1234.5, 3e-7])
def test_of_a_flat_signal_nothing_is_measurable(value):
    assert np.isnan(extract_core_medical_features(np.full((5000, 12), value), 500)).all()


def test_a_lead_ii_without_signal_leaves_the_rhythm_of_the_others():
    signal, _ = simulated(NORMAL, 75)
    signal[:, 1] = 0
    features = extract_core_medical_features(signal, 500)
    np.testing.assert_array_equal(np.isnan(features), [True] * 4 + [False] * 4)


@pytest.mark.parametrize("signal", [
    0.3 * TIME * np.ones(12), np.sin(0.4 * np.pi * TIME) * np.ones(12),
    *(beats(*times, noise=noise) for times in [(5,), (0.3,), (0.01, 5)] for noise in (0, 0.005))])
def test_baseline_wander_or_a_single_beat_has_no_rhythm(signal):
    assert np.isnan(extract_core_medical_features(signal, 500)[4:]).all()


@pytest.mark.parametrize("times", [(1, 2, 3), (2, 4.5, 7), (6, 7.2, 8)])
def test_three_beats_have_a_rate_and_variability(times):
    features, rr = extract_core_medical_features(beats(*times), 500), np.diff(times)
    np.testing.assert_allclose(features[4:6], [60 / rr.mean(), 1000 * rr.std(ddof=1)], atol=0.5)
    assert features[RMSSD] == pytest.approx(1000 * abs(rr[1] - rr[0]), abs=0.5)


@pytest.mark.parametrize("change", ["flat", "inverted", "missing"])
@pytest.mark.parametrize("category", CLASSES)
def test_a_bad_lead_ii_does_not_spoil_the_rate(category, change):
    signal, true = drawn(category, "low", 1, ectopic=False)
    signal[:, 1] = {"flat": 0, "inverted": -signal[:, 1], "missing": np.nan}[change]
    assert abs(extract_core_medical_features(signal, 500)[RATE] - bpm(true)) < 1


@given(signals(50, 700), st.sampled_from([50, 100, 257.3, 500]))
def test_any_real_array_gives_eight_numbers_without_infinity_or_a_value_error(signal, fs):
    if len(signal) < fs:
        with pytest.raises(ValueError, match="samples or more"):
            extract_core_medical_features(signal, fs)
        return

    features = extract_core_medical_features(signal, fs)
    assert features.shape == (8,)
    assert not np.isinf(features).any()
    assert np.isfinite(features[:4]).all() or np.isnan(features[:4]).all()
    peaks = measure_rhythm(signal, fs).r_peaks
    assert np.all(np.diff(peaks) > 0)
    assert np.all((peaks >= 0) & (peaks < len(signal)))


@pytest.mark.parametrize(("signal", "message"), NOT_AN_ECG.values(), ids=NOT_AN_ECG)
def test_what_is_not_an_ecg_is_a_value_error_that_says_what_came(signal, message):
    with pytest.raises(ValueError, match=message):
        extract_core_medical_features(signal, 50)


@pytest.mark.parametrize("fs", [0, -500, 49, 4001, np.nan, np.inf])
def test_impossible_sampling_rates_are_value_errors(fs):
    with pytest.raises(ValueError, match=f"got {fs}"):
        extract_core_medical_features(np.zeros((5000, 12)), fs)


@pytest.mark.parametrize("category", CLASSES)
def test_a_delay_of_the_signal_moves_the_peaks_inside_by_as_much(category):
    lead = drawn(category, "medium", 2)[0][:, 1]
    still = r_peaks_of(lead)
    for delay in (1, 37, 250):
        moved = r_peaks_of(np.pad(lead, (delay, 0), "edge")) - delay
        inside = [peaks[(peaks > 200) & (peaks < 4800)] for peaks in (still, moved)]
        np.testing.assert_allclose(*inside, atol=1)


def test_peaks_agree_with_two_detectors_of_other_projects(demo_records):
    """Within 150 ms, as ANSI/AAMI EC57 asks: neither of the two puts a wide QRS's peak exactly."""
    ours = [r_peaks_of(lead) for lead, *_ in demo_records]
    sleep = [sleepecg.detect_heartbeats(lead, 500) for lead, *_ in demo_records]
    neuro = [neurokit2.ecg_peaks(neurokit2.ecg_clean(lead, 500), 500)[1]["ECG_R_Peaks"]
             for lead, *_ in demo_records]
    truth = [true for *_, true in demo_records]
    assert f1(list(zip(ours, sleep, strict=True)), 75) >= 0.98
    assert f1(list(zip(ours, neuro, strict=True)), 75) >= 0.975
    best = max(f1(list(zip(theirs, truth, strict=True)), 75) for theirs in (sleep, neuro))
    assert f1(list(zip(ours, truth, strict=True))) > max(best, 0.995)


@pytest.mark.parametrize("seed", range(5))
def test_t_waves_taller_than_r_waves_are_not_taken_for_beats(seed):
    signal, true = simulated(NORMAL, 62, "low", seed, anatomy=Anatomy(t_size=4.2))
    assert signal[:, 1].max() > 1.2    # T waves: R waves are 1.1 mV high
    assert abs(extract_core_medical_features(signal, 500)[RATE] - bpm(true)) < 1

"""The original of the thesis is measured with its mistakes, which the script does not make."""

import numpy as np
import pytest

import too_feature as script
from benchmarks import thesis
from tests.support.ecgs import beats

RATE = script.HEART_RATE


def at_75_bpm():
    """Return ten seconds at 500 Hz with a beat each 0.8 s."""
    return beats(*np.arange(0.4, 10, 0.8))


def test_the_wrong_clock_doubles_the_heart_rate():
    signal = at_75_bpm()
    _, features = thesis.prepare(signal)
    assert features[RATE] == pytest.approx(150, rel=0.02)
    right = script.extract_core_medical_features(signal, 500)
    assert right[RATE] == pytest.approx(75, rel=0.02)


def test_the_wrong_clock_halves_the_variability():
    rng = np.random.default_rng(0)
    signal = beats(*np.cumsum(rng.uniform(0.6, 1.0, 11)))
    _, features = thesis.prepare(signal)
    right = script.extract_core_medical_features(signal, 500)
    assert features[5:7] == pytest.approx(right[5:7] / 2, rel=0.1)     # SDNN, RMSSD
    assert features[7] == pytest.approx(right[7], rel=0.1)             # a ratio has no clock


def test_beats_less_than_half_a_second_apart_are_taken_for_one():
    signal = beats(*np.arange(0.4, 9.9, 0.4))    # 150 bpm, of which some half of all are missed
    _, features = thesis.prepare(signal)
    assert features[RATE] == pytest.approx(150, rel=0.1)    # doubled it would be 300
    right = script.extract_core_medical_features(signal, 500)
    assert right[RATE] == pytest.approx(150, rel=0.02)


def test_peaks_are_found_in_the_unfiltered_lead_so_that_drift_moves_them():
    seconds = np.arange(5000)[:, None] / 500
    signal = at_75_bpm() + 2.0 * np.sin(2 * np.pi * 0.3 * seconds)
    _, features = thesis.prepare(signal)
    assert not 140 < features[RATE] < 160
    right = script.extract_core_medical_features(signal, 500)
    assert right[RATE] == pytest.approx(75, rel=0.02)


def test_features_enter_unscaled():
    signal = at_75_bpm() + 5.0
    _, features = thesis.prepare(signal)
    assert features[0] == pytest.approx(signal.mean(), abs=0.01)    # mV
    assert features[RATE] > 100


def test_what_cannot_be_measured_is_0():
    scaled, features = thesis.prepare(np.zeros((5000, 12)))
    assert not features.any()
    assert not scaled.any()


def test_a_lead_with_a_gap_is_lost_as_a_whole():
    signal = at_75_bpm()
    signal[100, 3] = np.nan
    scaled, _ = thesis.prepare(signal)
    assert not scaled[:, 3].any()
    assert scaled[:, 4].any()


def test_leads_are_scaled_by_their_quartiles_and_cut_off_at_3():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(500, 12)) * np.arange(1, 13) + 7
    signal[50] = 1000
    scaled, _ = thesis.prepare(signal)
    assert scaled.shape == (500, 12)
    assert scaled.dtype == np.float32
    low, median, high = np.percentile(scaled, [25, 50, 75], axis=0)
    assert median == pytest.approx(0, abs=1e-5)
    assert high - low == pytest.approx(1, abs=1e-5)
    assert scaled.max() == 3


def test_the_rhythm_is_of_the_lead_that_is_named():
    signal = np.zeros((5000, 12))
    signal[:, 5] = at_75_bpm()[:, 0]
    _, features = thesis.prepare(signal, lead_ii=5)
    assert features[RATE] == pytest.approx(150, rel=0.02)
    _, features = thesis.prepare(signal)
    assert features[RATE] == 0

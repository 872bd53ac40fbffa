"""The original of the thesis is measured with its mistakes, which the script does not make."""

import numpy as np
import pytest

import too_feature as script
from benchmarks import thesis
from tests.support.ecgs import beats

RATE = script.HEART_RATE


def right(signal):
    """Return the features that the script measures."""
    return script.extract_core_medical_features(signal, 500)


def test_the_wrong_clock_doubles_the_heart_rate_and_halves_the_variability():
    rng = np.random.default_rng(0)
    signal = beats(*np.cumsum(rng.uniform(0.6, 1.0, 11)))
    _, features = thesis.prepare(signal)
    assert features[RATE] == pytest.approx(2 * right(signal)[RATE], rel=0.02)
    assert features[5:7] == pytest.approx(right(signal)[5:7] / 2, rel=0.1)    # SDNN, RMSSD
    assert features[7] == pytest.approx(right(signal)[7], rel=0.1)            # has no clock


def test_beats_less_than_half_a_second_apart_are_taken_for_one():
    signal = beats(*np.arange(0.4, 9.9, 0.4))    # 150 bpm, of which some half of all are missed
    _, features = thesis.prepare(signal)
    assert features[RATE] == pytest.approx(150, rel=0.1)    # doubled it would be 300
    assert right(signal)[RATE] == pytest.approx(150, rel=0.02)


def test_features_enter_unscaled_and_what_cannot_be_measured_is_0():
    signal = beats(*np.arange(0.4, 10, 0.8)) + 5.0
    _, features = thesis.prepare(signal)
    assert features[0] == pytest.approx(signal.mean(), abs=0.01)    # mV
    scaled, features = thesis.prepare(np.zeros((5000, 12)))
    assert not features.any()
    assert not scaled.any()


def test_leads_are_scaled_by_their_quartiles_cut_off_at_3_and_lost_by_a_gap():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(500, 12)) * np.arange(1, 13) + 7
    signal[50] = 1000
    signal[100, 3] = np.nan
    scaled, _ = thesis.prepare(signal)
    assert (scaled.shape, scaled.dtype) == ((500, 12), np.float32)
    assert not scaled[:, 3].any()
    others = np.delete(scaled, 3, axis=1)
    low, median, high = np.percentile(others, [25, 50, 75], axis=0)
    assert median == pytest.approx(0, abs=1e-5)
    assert high - low == pytest.approx(1, abs=1e-5)
    assert others.max() == 3

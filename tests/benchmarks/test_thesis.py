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

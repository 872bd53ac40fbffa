"""stable_preprocess_ecg: any ECG becomes float32 (500, 12) within [-3, 3], in time and scale."""

import numpy as np
import pytest
from hypothesis import given
from scipy import signal as dsp

from tests.support.ecgs import NOT_AN_ECG, signals, simulated
from too_feature import stable_preprocess_ecg


def in_all_leads(values):
    return np.tile(np.asarray(values, dtype=float)[:, None], (1, 12))


def seconds(fs):
    return np.arange(10 * fs) / fs


def scaled(values):
    """Scale as the pipeline does, so that another way of resampling can be held against it."""
    low, median, high = np.percentile(values, [0.5, 50, 99.5])
    return np.clip((values - median) / ((high - low) / 3), -3, 3)


def ours(values, length=500, high_pass=0.0):
    return stable_preprocess_ecg(in_all_leads(values), length, high_pass)[:, 0]


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


@given(signals(10, 700))
def test_any_real_array_becomes_finite_float32_within_three(signal):
    before = signal.copy()
    result = stable_preprocess_ecg(signal)
    assert result.shape == (500, 12)
    assert result.dtype == np.float32
    assert np.all(np.abs(result) <= 3)    # false for NaN
    assert np.array_equal(signal, before, equal_nan=signal.dtype.kind == "f")


@pytest.mark.parametrize(("signal", "message"), NOT_AN_ECG.values(), ids=NOT_AN_ECG)
def test_what_is_not_an_ecg_is_a_value_error_that_says_what_came(signal, message):
    with pytest.raises(ValueError, match=message):
        stable_preprocess_ecg(signal)


@pytest.mark.parametrize("change", [
    np.asfortranarray, lambda x: x.tolist(), lambda x: x.astype(">f8"),
    lambda x: np.repeat(x, 2, axis=0)[::2]])
def test_the_layout_of_an_array_changes_nothing(change):
    signal = simulated()[0]
    assert np.array_equal(stable_preprocess_ecg(change(signal)), stable_preprocess_ecg(signal))


@pytest.mark.parametrize("value", [0, 5.5, -1e8, np.nan, np.inf])
def test_flat_leads_become_zeros_and_leave_the_others_alone(value):
    signal = simulated()[0]
    whole = stable_preprocess_ecg(signal)
    signal[:, [1, 7]] = value
    whole[:, [1, 7]] = 0
    assert np.array_equal(stable_preprocess_ecg(signal), whole)


@pytest.mark.parametrize(("gain", "offset"), [(37, -12), (0.01, 3), (1, 500)])
def test_gain_and_offset_of_one_lead_change_nothing(gain, offset):
    signal = simulated("Atrial Fibrillation", 90, "medium", 4)[0]
    before = stable_preprocess_ecg(signal)
    signal[:, 1] = gain * signal[:, 1] + offset
    np.testing.assert_allclose(stable_preprocess_ecg(signal), before, atol=1e-4)


@pytest.mark.parametrize(("share", "scale_span"), [(0.99, 3.0), (0.5, 1.0), (0.9, 2.0)])
def test_each_lead_is_centred_on_its_median_and_its_central_share_spans_the_given_units(
        share, scale_span):
    result = stable_preprocess_ecg(simulated()[0], central_share=share, scale_span=scale_span)
    low, median, high = np.quantile(result, [(1 - share) / 2, 0.5, (1 + share) / 2], axis=0)
    np.testing.assert_allclose(median, 0, atol=1e-5)
    np.testing.assert_allclose(high - low, scale_span, rtol=1e-4)


@pytest.mark.parametrize("phase", [0, np.pi / 2])
def test_the_high_pass_takes_out_wander_and_leaves_the_beat_where_it_is(phase):
    beat = np.sin(2 * np.pi * 4 * seconds(500))
    wander = 3 * np.sin(2 * np.pi * 0.1 * seconds(500) + phase)
    whole, clean = ours(beat + wander, high_pass=0.5), ours(beat, high_pass=0.5)
    assert rms(whole - clean) < 0.05 * 3 * rms(clean)    # of the wander, a twentieth is left
    assert rms(ours(beat + wander) - clean) > 0.5 * rms(clean)    # without it they differ
    assert dsp.correlate(whole, ours(beat), "same").argmax() == 250    # not moved in time


@pytest.mark.parametrize("fs", [100, 500])
@pytest.mark.parametrize("corner", [0.5, 1.0])
@pytest.mark.parametrize("frequency", [0.3, 1.0, 2.0])
def test_the_high_pass_has_a_squared_butterworth_response_in_hertz(frequency, corner, fs):
    def wave(hertz):    # half a sample in: the only ones that mirroring leaves whole
        return np.cos(2 * np.pi * hertz * (seconds(fs) + 0.5 / fs))

    result = ours(wave(10) + wave(frequency), high_pass=corner)
    small, large = (np.abs(np.mean(result * np.exp(2j * np.pi * hertz * seconds(50))))
                    for hertz in (frequency, 10))
    assert small / large == pytest.approx(1 / (1 + (corner / frequency) ** 4), abs=0.02)


@pytest.mark.parametrize("frequency", [40, 60])
def test_frequencies_above_25_hz_do_not_alias(frequency):
    slow = np.sin(2 * np.pi * seconds(500))
    both = slow + np.sin(2 * np.pi * frequency * seconds(500) + 0.5)

    def left_over(resample):
        return rms(resample(both) - resample(slow)) / rms(resample(slow))

    assert left_over(ours) < 0.05
    assert left_over(lambda values: scaled(values[::10])) > 0.2    # naive slicing aliases


@pytest.mark.parametrize("fs", [100, 257, 1000])
@pytest.mark.parametrize("length", [50, 500, 5000])
def test_a_slow_wave_keeps_its_time_and_shape_at_any_rate_and_length(fs, length):
    result = ours(np.cos(np.pi * (seconds(fs) - 3)), length)    # tops at 1, 3, 5 ... s
    expected = scaled(np.cos(np.pi * (np.arange(length) * 10 / length - 3)))
    np.testing.assert_allclose(result, expected, atol=0.1 if length < 100 else 0.03)


@pytest.mark.parametrize("drift", [5, -20])
def test_strong_baseline_drift_does_not_ring_at_the_ends(drift):
    def ends(resample):
        values = resample(drift * seconds(500) / 10 + 0.1 * np.sin(2 * np.pi * seconds(500)))
        ideal = scaled(drift * seconds(50) / 10 + 0.1 * np.sin(2 * np.pi * seconds(50)))
        return np.abs(values - ideal).max()

    assert ends(ours) < 0.03
    assert ends(lambda values: scaled(dsp.resample(values, 500))) > 0.3    # not mirrored: it rings


def test_short_gaps_are_interpolated():
    signal = in_all_leads(np.cos(2 * np.pi * 0.7 * seconds(500)))
    whole = stable_preprocess_ecg(signal)
    for start, value in [(0, np.nan), (2000, np.inf), (4990, -np.inf), (3000, 1e30)]:
        signal[start:start + 10, start % 7] = value
    np.testing.assert_allclose(stable_preprocess_ecg(signal), whole, atol=0.05)

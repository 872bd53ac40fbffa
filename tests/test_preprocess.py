"""stable_preprocess_ecg: any ECG becomes float32 (500, 12) within [-3, 3], in time and scale."""

import numpy as np
import pytest
from hypothesis import given
from scipy import signal as dsp

from helpers import NOT_AN_ECG, signals, simulated
from too_feature import stable_preprocess_ecg


def in_all_leads(values):
    return np.tile(np.asarray(values, dtype=float)[:, None], (1, 12))


def seconds(fs):
    return np.arange(10 * fs) / fs


def scaled(values):
    """Scale as the pipeline does, so that another way of resampling can be held against it."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return np.clip((values - median) / (high - low), -3, 3)


def ours(values, length=500):
    return stable_preprocess_ecg(in_all_leads(values), length)[:, 0]


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
def test_what_is_no_ecg_is_a_value_error_that_says_what_came(signal, message):
    with pytest.raises(ValueError, match=message):
        stable_preprocess_ecg(signal)


def test_lists_of_integers_are_taken_like_arrays():
    values = np.random.default_rng(0).integers(-900, 900, (60, 12))
    assert np.array_equal(stable_preprocess_ecg(values.tolist()), stable_preprocess_ecg(values))


@pytest.mark.parametrize("value", [0, 5.5, -1e8, 1e-300, np.nan, np.inf, -np.inf])
def test_flat_leads_become_zeros_and_leave_the_others_alone(value):
    signal = simulated()[0]
    whole = stable_preprocess_ecg(signal)
    signal[:, [1, 7]] = value
    result = stable_preprocess_ecg(signal)
    assert not result[:, [1, 7]].any()
    others = np.delete(np.arange(12), [1, 7])
    assert np.array_equal(result[:, others], whole[:, others])
    assert whole.std(axis=0).min() > 0.1


@pytest.mark.parametrize("lead", [0, 1, 11])
@pytest.mark.parametrize(("gain", "offset"), [(37, -12), (0.01, 3), (1000, 0), (1, 500)])
def test_gain_and_offset_of_one_lead_change_nothing(lead, gain, offset):
    signal = simulated("Atrial Fibrillation", 90, "medium", 4)[0]
    before = stable_preprocess_ecg(signal)
    signal[:, lead] = gain * signal[:, lead] + offset
    after = stable_preprocess_ecg(signal)
    others = np.arange(12) != lead
    assert np.array_equal(after[:, others], before[:, others])
    np.testing.assert_allclose(after[:, lead], before[:, lead], atol=1e-4)


def test_each_lead_is_centred_on_its_median_and_scaled_by_its_quartiles():
    low, median, high = np.percentile(stable_preprocess_ecg(simulated()[0]), [25, 50, 75], axis=0)
    np.testing.assert_allclose(median, 0, atol=1e-5)
    np.testing.assert_allclose(high - low, 1, atol=1e-5)


@pytest.mark.parametrize("frequency", [40, 60])
def test_frequencies_above_25_hz_do_not_alias(frequency):
    time = seconds(500)
    slow = np.sin(2 * np.pi * time)
    both = slow + np.sin(2 * np.pi * frequency * time + 0.5)

    def left_over(resample):
        return rms(resample(both) - resample(slow)) / rms(resample(slow))

    assert left_over(ours) < 0.05
    assert left_over(lambda values: scaled(values[::10])) > 0.2    # naive slicing aliases


@pytest.mark.parametrize("fs", [100, 250, 257, 500, 1000])
def test_a_slow_wave_keeps_its_time_and_shape(fs):
    result = ours(np.cos(np.pi * (seconds(fs) - 3)))    # tops at 1, 3, 5 ... s
    assert 125 + result[125:175].argmax() == 150
    np.testing.assert_allclose(result, scaled(np.cos(np.pi * (seconds(50) - 3))), atol=0.03)


@pytest.mark.parametrize("drift", [5, -20])
def test_strong_baseline_drift_does_not_ring_at_the_ends(drift):
    def ends(resample):
        values = resample(drift * seconds(500) / 10 + 0.1 * np.sin(2 * np.pi * seconds(500)))
        ideal = scaled(drift * seconds(50) / 10 + 0.1 * np.sin(2 * np.pi * seconds(50)))
        return np.abs(values - ideal).max()

    assert ends(ours) < 0.03
    assert ends(lambda values: scaled(dsp.resample(values, 500))) > 0.3    # not mirrored: it rings


@pytest.mark.parametrize("length", [50, 333, 1000, 5000])
def test_other_target_lengths_show_the_same_wave(length):
    result = ours(np.sin(2 * np.pi * 0.4 * seconds(500)), length)
    expected = scaled(np.sin(2 * np.pi * 0.4 * np.arange(length) * 10 / length))
    assert result.shape == (length,)
    np.testing.assert_allclose(result, expected, atol=0.1 if length < 100 else 0.03)


def test_short_gaps_are_interpolated():
    signal = in_all_leads(np.sin(np.pi * seconds(500)))
    whole = stable_preprocess_ecg(signal)
    for start, value in [(0, np.nan), (2000, np.inf), (4990, -np.inf), (3000, 1e30)]:
        signal[start:start + 10, start % 7] = value
    np.testing.assert_allclose(stable_preprocess_ecg(signal), whole, atol=0.05)


def test_a_lead_of_rare_spikes_stays_in_range_and_shows_them():
    signal = np.zeros((5000, 12))
    signal[1000:4000:1000] = 1.0
    result = stable_preprocess_ecg(signal)
    assert np.all(np.abs(result) <= 3)
    assert np.all(result[100:400:100] > 1)

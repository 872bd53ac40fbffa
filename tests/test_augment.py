"""lightweight_augmentation: seeded, harmless to its input, and as often and as strong as set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from too_feature import Settings, lightweight_augmentation

NEVER = Settings(noise_probability=0, scaling_probability=0)
ONLY_NOISE = Settings(noise_probability=1, scaling_probability=0)
ONLY_SCALING = Settings(noise_probability=0, scaling_probability=1)
MANY = np.full((4000, 20, 12), 0.5, np.float32)


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(*shape):
    return rng(9).normal(0, 2, shape).clip(-3, 3).astype(np.float32)


@pytest.mark.parametrize("shape", [(500, 12), (1, 500, 12), (4, 500, 12), (0, 500, 12)])
def test_shape_type_and_range_are_kept(shape):
    result = lightweight_augmentation(normal(*shape), rng())
    assert result.shape == shape
    assert result.dtype == np.float32
    assert np.all(np.abs(result) <= 3)


@given(st.integers(0, 2**32), st.floats(0, 3), st.floats(0, 0.9), st.floats(0, 1), st.floats(0, 1))
def test_no_setting_leaves_the_range(seed, noise, scaling, noise_share, scaling_share):
    settings = Settings(noise_size=noise, scaling_size=scaling, noise_probability=noise_share,
                        scaling_probability=scaling_share)
    result = lightweight_augmentation(normal(5, 20, 12), rng(seed), settings)
    assert np.all(np.abs(result) <= 3)    # false for NaN


@pytest.mark.parametrize("shape", [(500, 12), (8, 500, 12)])
def test_input_is_not_modified(shape):
    signal = normal(*shape)
    before = signal.copy()
    result = lightweight_augmentation(signal, rng(), Settings(noise_probability=1,
                                                              scaling_probability=1))
    assert np.array_equal(signal, before)
    assert not np.array_equal(result, before)
    assert not np.shares_memory(result, signal)


def test_a_seed_reproduces_and_later_draws_and_other_seeds_differ():
    signal, source = normal(16, 500, 12), rng(1)
    first, second = (lightweight_augmentation(signal, source) for _ in range(2))
    assert np.array_equal(first, lightweight_augmentation(signal, rng(1)))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, lightweight_augmentation(signal, rng(2)))


def test_without_a_generator_draws_differ():
    first, second = (lightweight_augmentation(normal(500, 12), None, ONLY_NOISE) for _ in range(2))
    assert not np.array_equal(first, second)


def test_records_of_a_batch_draw_for_themselves():
    result = lightweight_augmentation(MANY[:50], rng(), ONLY_NOISE)
    assert len(np.unique(result[:, 0, 0])) == 50
    assert np.all(result.std(axis=(1, 2)) > 0)
    result = lightweight_augmentation(MANY[:50], rng(), ONLY_SCALING)
    assert len(np.unique(result[:, 0, 0])) == 50


def test_three_in_ten_get_noise_and_two_in_ten_are_scaled_independently():
    result = lightweight_augmentation(MANY, rng(5))
    noisy = np.ptp(result, axis=(1, 2)) > 0
    middle = result.mean(axis=(1, 2)) / 0.5     # of a noisy record exact to 0.1 / sqrt(240) = 0.006
    scaled = np.where(noisy, np.abs(middle - 1) > 0.03, middle != 1)    # misses 30 % of the noisy
    assert abs(noisy.mean() - 0.3) < 0.03       # four deviations
    assert abs(scaled[~noisy].mean() - 0.2) < 0.03
    assert abs(scaled[noisy].mean() - 0.7 * 0.2) < 0.045


def test_noise_is_gaussian_of_the_size_set_and_white():
    noise = lightweight_augmentation(MANY, rng(), ONLY_NOISE) - 0.5
    assert abs(noise.std() - 0.05) < 0.0005
    assert abs(noise.mean()) < 0.0005
    assert abs(np.mean(np.abs(noise) < 0.05) - 0.683) < 0.005
    assert abs(np.mean(noise[:, 1:] * noise[:, :-1])) < 1e-5     # from sample to sample
    assert abs(np.mean(noise[:, :, 0] * noise[:, :, 1])) < 5e-5    # from lead to lead
    louder = Settings(noise_probability=1, scaling_probability=0, noise_size=0.2)
    assert abs((lightweight_augmentation(MANY, rng(), louder) - 0.5).std() - 0.2) < 0.002


def test_scaling_is_one_factor_per_record_evenly_within_a_tenth():
    signal = normal(3000, 20, 12) / 2
    factors = lightweight_augmentation(signal, rng(), ONLY_SCALING) / signal
    np.testing.assert_allclose(factors.min(axis=(1, 2)), factors.max(axis=(1, 2)), rtol=1e-4)
    factor = np.median(factors, axis=(1, 2))
    assert 0.9 - 1e-5 < factor.min() < 0.902
    assert 1.098 < factor.max() < 1.1 + 1e-5
    assert abs(factor.mean() - 1) < 0.005
    assert abs(factor.std() - 0.2 / np.sqrt(12)) < 0.002


@pytest.mark.parametrize("settings", [
    NEVER, Settings(noise_size=0, scaling_size=0, noise_probability=1, scaling_probability=1)])
def test_with_probability_or_size_zero_records_come_back_as_they_are(settings):
    signal = normal(300, 50, 12)
    assert np.array_equal(lightweight_augmentation(signal, rng(), settings), signal)

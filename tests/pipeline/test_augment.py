"""Augmentation: seeded, harmless to its input, and as often and as strong as set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from too_feature import (
    Recipe,
    Records,
    Settings,
    lightweight_augmentation,
    training_batches,
    vary_recording,
)

NEVER = Recipe(noise_probability=0, scaling_probability=0)
ONLY_NOISE = Recipe(noise_probability=1, scaling_probability=0)
ONLY_SCALING = Recipe(noise_probability=0, scaling_probability=1)
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
    recipe = Recipe(noise_size=noise, scaling_size=scaling, noise_probability=noise_share,
                        scaling_probability=scaling_share)
    result = lightweight_augmentation(normal(5, 20, 12), rng(seed), recipe)
    assert np.all(np.abs(result) <= 3)    # false for NaN


@pytest.mark.parametrize("shape", [(500, 12), (8, 500, 12)])
def test_input_is_not_modified(shape):
    signal = normal(*shape)
    before = signal.copy()
    result = lightweight_augmentation(signal, rng(), Recipe(noise_probability=1,
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
    louder = Recipe(noise_probability=1, scaling_probability=0, noise_size=0.2)
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


@pytest.mark.parametrize("recipe", [
    NEVER, Recipe(noise_size=0, scaling_size=0, noise_probability=1, scaling_probability=1)])
def test_with_probability_or_size_zero_records_come_back_as_they_are(recipe):
    signal = normal(300, 50, 12)
    assert np.array_equal(lightweight_augmentation(signal, rng(), recipe), signal)


# What another moment, electrode or device would have changed
STILL = Recipe(shift=0, lead_gain=0)
ONLY_SHIFT = Recipe(shift=5, lead_gain=0)
ONLY_GAIN = Recipe(shift=0, lead_gain=0.2)


def recordings(n=40, samples=500):
    """Signals without two equal samples, and features whose fourth is not measurable."""
    signals = rng(3).permutation(n * samples * 12).reshape(n, samples, 12).astype(np.float32)
    features = rng(4).normal(size=(n, 10)).astype(np.float32)
    features[::3, 3] = np.nan
    return signals, features


def shifts(signals, moved):
    """By how many samples each record was moved, proving that nothing else was changed."""
    found = []
    for before, after in zip(signals, moved, strict=True):
        (by,) = np.flatnonzero(before[:, 0] == after[0, 0])
        assert np.array_equal(np.roll(before, -by, axis=0), after)
        found.append((by + len(before) // 2) % len(before) - len(before) // 2)
    return np.array(found)


def test_a_shift_keeps_every_sample_and_the_leads_together():
    signals, features = recordings()
    moved, same = vary_recording(signals, features, rng(), ONLY_SHIFT)
    assert np.ptp(shifts(signals, moved)) > 300    # 40 of -250 to 250
    assert np.array_equal(same, features, equal_nan=True)


@pytest.mark.parametrize(("samples", "shift", "most"), [(500, 0.5, 25), (500, 0.1, 5),
                                                        (100, 1.0, 10), (50, 5.0, 25)])
def test_a_shift_is_any_up_to_the_seconds_set_either_way(samples, shift, most):
    signals, features = recordings(400, samples)
    moved, _ = vary_recording(signals, features, rng(), Recipe(shift=shift, lead_gain=0))
    found = set(shifts(signals, moved).tolist())
    both_ends = {-most, most} if most < samples // 2 else {-most}    # half a record: the same
    assert both_ends <= found <= set(range(-most, most + 1))
    assert len(found) > 1.4 * most


def test_gains_are_log_normal_and_each_leads_own_and_the_same_all_along_it():
    signals = np.ones((3000, 4, 12), np.float32)
    gains, _ = vary_recording(signals, np.zeros((3000, 8), np.float32), rng(), ONLY_GAIN)
    assert np.array_equal(gains, np.repeat(gains[:, :1], 4, axis=1))
    log = np.log(gains[:, 0])
    assert abs(log.mean()) < 0.004    # four deviations
    assert abs(log.std() - 0.2) < 0.003
    assert abs(np.mean(np.abs(log) < 0.2) - 0.683) < 0.01    # Gaussian
    np.testing.assert_allclose(np.corrcoef(log.T), np.eye(12), atol=0.08)    # from lead to lead
    wide, _ = vary_recording(signals, np.zeros((3000, 8)), rng(), Recipe(shift=0, lead_gain=0.5))
    assert abs(np.log(wide).std() - 0.5) < 0.008


def test_noise_comes_upon_mean_and_standard_deviation_only_and_of_the_size_asked():
    signals, features = recordings(5000, 2)
    same, noisy = vary_recording(signals, features, rng(), STILL, np.array([0.1, 3.0]))
    assert np.array_equal(same, signals)
    assert np.array_equal(noisy[:, 2:], features[:, 2:], equal_nan=True)
    noise = (noisy - features)[:, :2]
    np.testing.assert_allclose(noise.std(axis=0), [0.1, 3.0], rtol=0.04)
    np.testing.assert_allclose(noise.mean(axis=0) / [0.1, 3.0], 0, atol=0.06)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.06


def test_with_all_settings_zero_recordings_come_back_as_they_are():
    signals, features = recordings()
    same, equal = vary_recording(signals, features, rng(), STILL, 0.0)
    assert np.array_equal(same, signals)
    assert np.array_equal(equal, features, equal_nan=True)


def test_varying_leaves_its_input_alone_keeps_types_and_is_seeded():
    signals, features = recordings()
    copies = signals.copy(), features.copy()
    first, again, other = (vary_recording(signals, features, rng(seed), Recipe(), 0.5)
                           for seed in (1, 1, 2))
    for i, before in enumerate((signals, features)):
        assert np.array_equal(before, copies[i], equal_nan=True)
        assert first[i].dtype == np.float32
        assert first[i].shape == before.shape
        assert not np.shares_memory(first[i], before)
        assert np.array_equal(first[i], again[i], equal_nan=True)
        assert not np.array_equal(first[i], other[i], equal_nan=True)


# What training is given
def training_set(n=3000):
    targets = np.arange(n) % 3 // 2    # two of three records are of class 0
    features = rng(5).normal([0.1, 0.5, *[0] * 6], [0.02, 0.3, *[1] * 6], (n, 8))
    signals = np.repeat(np.arange(n, dtype=np.float32)[:, None, None] / n, 12, axis=2)
    return Records(None, np.repeat(signals, 2, axis=1), features.astype(np.float32), targets)


def test_training_adds_noise_of_so_many_deviations_of_the_training_features_as_set():
    records = training_set()
    for size in (0.0, 0.5, 2.0):
        recipe = Recipe(batch_size=3000, shift=0, lead_gain=0, noise_probability=0,
                            scaling_probability=0, amplitude_noise=size)
        (signals, features), targets, _ = next(training_batches(records, Settings(recipe=recipe)))
        order = np.rint(signals[:, 0, 0] * 3000).astype(int)    # which record is which
        assert np.array_equal(np.sort(order), np.arange(3000))
        assert np.array_equal(targets, records.targets[order])
        noise = features - records.features[order]
        np.testing.assert_allclose(noise[:, :2].std(axis=0), size * np.array([0.02, 0.3]),
                                   rtol=0.06)
        assert not noise[:, 2:].any()


def test_each_pass_shows_every_record_once_anew_and_weighs_the_classes_alike():
    records = training_set(30)
    recipe = Recipe(batch_size=10, noise_probability=1, noise_size=0.001, shift=0, lead_gain=0,
                        scaling_probability=0)
    batches, orders = training_batches(records, Settings(recipe=recipe)), []
    first, second = ([next(batches) for _ in range(3)] for _ in range(2))
    for batches_of_pass in (first, second):
        targets = np.concatenate([targets for _, targets, _ in batches_of_pass])
        weights = np.concatenate([weights for _, _, weights in batches_of_pass])
        signals = np.concatenate([signals for (signals, _), _, _ in batches_of_pass])
        assert signals.std(axis=(1, 2)).min() > 0    # which noise alone brings about
        orders.append(np.rint(30 * signals.mean(axis=(1, 2))).astype(int))
        assert np.array_equal(np.sort(orders[-1]), np.arange(30))
        assert np.array_equal(np.bincount(targets), [20, 10])
        assert weights[targets == 0].sum() == pytest.approx(weights[targets == 1].sum())
    assert not np.array_equal(*orders)
    assert not np.array_equal(orders[0], np.arange(30))
    again = next(training_batches(records, Settings(recipe=recipe)))
    assert np.array_equal(first[0][0][0], again[0][0])

"""Augmentation: seeded, harmless to its input, and as often and as strong as documented."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import too_feature as script
from too_feature import (
    Recipe,
    Records,
    Settings,
    lightweight_augmentation,
    training_batches,
    vary_recording,
)

MANY = np.full((4000, 20, 12), 0.5, np.float32)


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(*shape):
    return rng(9).normal(0, 2, shape).clip(-3, 3).astype(np.float32)


@given(st.sampled_from([(500, 12), (1, 500, 12), (4, 50, 12)]), st.integers(0, 2**32))
def test_shape_type_and_range_are_kept_and_the_input_as_it_was(shape, seed):
    signal = normal(*shape)
    before = signal.copy()
    result = lightweight_augmentation(signal, rng(seed))
    assert result.shape == shape
    assert result.dtype == np.float32
    assert np.all(np.abs(result) <= 3)    # false for NaN
    assert np.array_equal(signal, before)
    assert not np.shares_memory(result, signal)


def test_three_in_ten_get_noise_and_two_in_ten_are_scaled_independently():
    result = lightweight_augmentation(MANY, rng(5))
    noisy = np.ptp(result, axis=(1, 2)) > 0
    middle = result.mean(axis=(1, 2)) / 0.5     # of a noisy record exact to 0.1 / sqrt(240) = 0.006
    scaled = np.where(noisy, np.abs(middle - 1) > 0.03, middle != 1)    # misses 30 % of the noisy
    assert abs(noisy.mean() - 0.3) < 0.03       # four deviations
    assert abs(scaled[~noisy].mean() - 0.2) < 0.03
    assert abs(scaled[noisy].mean() - 0.7 * 0.2) < 0.045

    noise = result[noisy & ~scaled] - 0.5    # of the size documented, each record's own
    assert abs(noise.std() - 0.05) < 0.001
    change = middle[~noisy & scaled] - 1    # evenly within a tenth
    assert np.abs(change).max() < 0.1 + 1e-5
    assert abs(change.std() - 0.2 / np.sqrt(12)) < 0.004


# --------------------------- what another moment, electrode or device would have changed


def recordings(n=40, samples=500):
    """Signals without two equal samples, and features whose fourth is not measurable."""
    signals = rng(3).permutation(n * samples * 12).reshape(n, samples, 12).astype(np.float32)
    features = rng(4).normal(size=(n, 10)).astype(np.float32)
    features[::3, 3] = np.nan
    return signals, features


@pytest.mark.parametrize(("samples", "shift", "most"), [(500, 0.5, 25), (50, 5.0, 25)])
def test_a_shift_moves_all_leads_together_by_any_time_up_to_that_set(samples, shift, most):
    signals, features = recordings(400, samples)
    moved, same = vary_recording(signals, features, rng(), Recipe(shift=shift, lead_gain=0))
    assert np.array_equal(same, features, equal_nan=True)
    shifts = set()
    for before, after in zip(signals, moved, strict=True):
        (by,) = np.flatnonzero(before[:, 0] == after[0, 0])
        assert np.array_equal(np.roll(before, -by, axis=0), after)
        shifts.add((int(by) + samples // 2) % samples - samples // 2)
    both_ends = {-most, most} if most < samples // 2 else {-most}    # half a record: the same
    assert both_ends <= shifts <= set(range(-most, most + 1))
    assert len(shifts) > 1.4 * most


def test_gains_are_log_normal_each_leads_own_and_the_same_all_along_it():
    signals, features = np.ones((3000, 4, 12), np.float32), np.zeros((3000, 8), np.float32)
    gains, _ = vary_recording(signals, features, rng(), Recipe(shift=0, lead_gain=0.2))
    assert gains.dtype == np.float32
    assert np.array_equal(gains, np.repeat(gains[:, :1], 4, axis=1))
    log = np.log(gains[:, 0])
    assert abs(log.std() - 0.2) < 0.003
    np.testing.assert_allclose(np.corrcoef(log.T), np.eye(12), atol=0.08)    # from lead to lead
    assert np.all(signals == 1)    # the input stays as it was


# ------------------------------------------------------------------------ what training is given
def training_set(n):
    targets = np.arange(n) % 3 // 2    # two of three records are of class 0
    features = rng(5).normal([0.1, 0.5, *[0] * 6], [0.02, 0.3, *[1] * 6], (n, 8))
    signals = np.repeat(np.arange(n, dtype=np.float32)[:, None, None] / n, 12, axis=2)
    return Records(None, np.repeat(signals, 2, axis=1), features.astype(np.float32), targets)


def test_training_adds_noise_of_two_deviations_of_the_training_features(monkeypatch):
    monkeypatch.setattr(script, "NOISE_PROBABILITY", 0)
    monkeypatch.setattr(script, "SCALING_PROBABILITY", 0)
    records = training_set(3000)
    settings = Settings(recipe=Recipe(batch_size=3000, shift=0, lead_gain=0))
    (signals, features), _ = next(training_batches(records, settings))
    order = np.rint(signals[:, 0, 0] * 3000).astype(int)    # which record is which
    noise = features - records.features[order]
    np.testing.assert_allclose(noise[:, :2].std(axis=0), [0.04, 0.6], rtol=0.06)
    assert not noise[:, 2:].any()


def test_each_pass_shows_every_record_once_in_a_new_order(monkeypatch):
    monkeypatch.setattr(script, "NOISE_SD", 0.001)
    monkeypatch.setattr(script, "SCALING_PROBABILITY", 0)
    records = training_set(30)
    settings = Settings(recipe=Recipe(batch_size=10, shift=0, lead_gain=0))
    batches, orders = training_batches(records, settings), []
    for _ in range(2):
        inputs, targets = zip(*(next(batches) for _ in range(3)), strict=True)
        signals = np.concatenate([signals for signals, _ in inputs])
        orders.append(np.rint(30 * signals.mean(axis=(1, 2))).astype(int))
        assert np.array_equal(np.sort(orders[-1]), np.arange(30))
        assert np.array_equal(np.concatenate(targets), records.targets[orders[-1]])
    assert not np.array_equal(*orders)
    assert not np.array_equal(orders[0], np.arange(30))
    again = next(training_batches(records, settings))[0][0]
    assert np.array_equal(np.rint(30 * again.mean(axis=(1, 2))), orders[0][:10])

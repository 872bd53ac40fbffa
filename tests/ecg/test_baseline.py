"""The baseline, a logistic regression with hinges of the heart rate, on small cases."""

import warnings

import numpy as np
import pytest

from ecg.baseline import LinearBaseline

RATE = 2    # its place among these tests' features


def made(n=200, seed=0):
    """Return features (n, 4) of noise, whose heart rates are from 40 to 140 bpm."""
    rng = np.random.default_rng(seed)
    features = rng.normal(5, 2, (n, 4))
    features[:, RATE] = rng.uniform(40, 140, n)
    return features


def by_rate(features):
    """Return 0 below 60 bpm, 2 above 100, else 1."""
    return np.digitize(features[:, RATE], [60, 100])


def test_classes_that_end_at_60_and_100_bpm_are_told_apart_on_other_records():
    features, others = made(400), made(1000, seed=1)
    probabilities = LinearBaseline.fit(features, by_rate(features), 3, RATE).predict(others)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    is_right = probabilities.argmax(axis=1) == by_rate(others)
    assert is_right.mean() > 0.93
    distance = np.abs(others[:, [RATE]] - [60, 100]).min(axis=1)
    assert is_right[distance > 5].all()


def test_a_feature_that_is_not_measured_counts_as_the_mean_and_far_ones_are_cut_off():
    features = made()
    features[::3, 0] = np.nan
    baseline = LinearBaseline.fit(features, by_rate(features), 3, RATE)
    assert baseline.mean[0] == pytest.approx(np.nanmean(features[:, 0]))
    records = np.tile(baseline.mean, (4, 1))
    records[1, 0] = np.nan
    records[2:, 0] += np.array([2.5, 1e30]) * np.sqrt(baseline.variance[0])
    at_mean, at_missing, at_limit, far = baseline.predict(records)
    np.testing.assert_array_equal(at_mean, at_missing)
    np.testing.assert_allclose(at_limit, far)
    assert not np.allclose(at_mean, far, atol=1e-3)


def test_features_that_were_never_measured_or_never_differ_do_no_harm():
    features = made()
    features[:, 0] = np.nan
    features[:, 1] = 3.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        baseline = LinearBaseline.fit(features, by_rate(features), 3, RATE)
        assert np.isfinite(baseline.predict(np.full((1, 4), np.nan))).all()


def test_two_classes_get_the_same_probabilities_as_two_of_three():
    features = made()
    targets = (features[:, 0] > 5).astype(int)
    two = LinearBaseline.fit(features, targets, 2, RATE).predict(features)
    assert np.corrcoef(np.log(two[:, 1] / two[:, 0]), features[:, 0])[0, 1] > 0.9
    three = LinearBaseline.fit(features, 2 * targets, 3, RATE).predict(features)
    np.testing.assert_allclose(three[:, [0, 2]], two, atol=1e-6)
    assert three[:, 1].max() < 1e-4    # a class without records is never chosen

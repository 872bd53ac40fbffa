"""The large model: its size, its form, the regression in it, its recipe, and a whole run."""

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from ecg.baseline import LinearBaseline
from ecg.files import ROOT
from ecg.large_features import EXTRA_FEATURES
from ecg.large_model import blend_with_regression, create_large_model

INPUTS = len(script.FEATURES) + len(EXTRA_FEATURES)


@pytest.fixture(scope="module")
def model():
    keras = script.load_tensorflow()[1]
    return create_large_model(
        keras, 5, 500, np.zeros(INPUTS), np.ones(INPUTS), script.HEART_RATE)


@pytest.fixture(scope="module")
def records():
    """ECGs and features of 60 records, some features not measured."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, INPUTS))
    features[:, script.HEART_RATE] = rng.uniform(30, 150, 60)
    features[::7, ::3] = np.nan
    return rng.normal(size=(60, 500, 12)).astype("float32"), features.astype("float32")


@pytest.fixture(scope="module")
def baseline(records):
    """A regression on the features that the large model sees."""
    return LinearBaseline.fit(
        records[1], np.arange(60) % 5, 5, script.HEART_RATE, script.HEART_RATE)


def blended(model, baseline, share):
    return blend_with_regression(script.load_tensorflow()[1], model, baseline, share)


def test_the_large_model_has_88_119_parameters_and_a_softmax_that_takes_a_temperature(
        model, baseline):
    both = blended(model, baseline, 0.5)
    assert (model.count_params(), both.count_params()) == (88_119, 88_359)
    assert f"| {both.count_params():,} |" in (ROOT / "README.md").read_text(encoding="utf-8")
    for one in (model, both):
        last = one.layers[-1]    # by whose weights `calibrate` divides
        assert (type(last).__name__, last.activation.__name__) == ("Dense", "softmax")


@pytest.mark.parametrize("share", [0.0, 2 / 3, 1.0])
def test_the_regression_shares_in_the_geometric_mean_of_both_probabilities(
        share, model, baseline, records):
    deep, linear = np.asarray(model(records)), baseline.predict(records[1])
    assert np.ptp(linear, axis=0).min() > 0.1    # else this would say little
    product = deep ** (1 - share) * linear ** share
    np.testing.assert_allclose(
        np.asarray(blended(model, baseline, share)(records)),
        product / product.sum(axis=1, keepdims=True), atol=1e-5)


def test_a_training_of_the_large_recipe_ends_with_the_regression_in_the_model(monkeypatch, records):
    """Fitted on each training record once, although some are repeated."""
    rows = pd.DataFrame({"waveform_path": [f"r{i % 40}" for i in range(60)]})
    training = script.Records(rows, records[0], records[1], np.arange(60) % 5)
    monkeypatch.setattr(script, "fit", lambda *_: [])    # as it was built
    settings = script.Settings(recipe=script.RECIPES["large"])
    model, temperature, _ = script.train(training, training, 5, settings)
    once = LinearBaseline.fit(
        records[1][:40], np.arange(40) % 5, 5, script.HEART_RATE, script.HEART_RATE)
    kernel, _ = model.layers[-1].get_weights()
    np.testing.assert_allclose(
        temperature * kernel[-len(once.weights):], 2 / 3 * once.weights, atol=1e-5)

"""The large model: its size, its form, the regression in it, its recipe, and a whole run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from ecg.baseline import LinearBaseline
from ecg.large_features import EXTRA_FEATURES
from ecg.large_model import blend_with_regression, create_large_model
from tests.support import models
from tools import classify

ROOT = Path(script.__file__).parent
INPUTS = len(script.FEATURES) + len(EXTRA_FEATURES)


def built(sequence_length=500, mean=(0.0,) * INPUTS, variance=(1.0,) * INPUTS):
    keras = script.load_tensorflow()[1]
    return create_large_model(keras, 5, sequence_length, mean, variance, script.HEART_RATE)


@pytest.fixture(scope="module")
def model():
    return built()


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
    return LinearBaseline(records[1], np.arange(60) % 5, 5, script.HEART_RATE, script.HEART_RATE)


def blended(model, baseline, share):
    return blend_with_regression(script.load_tensorflow()[1], model, baseline, share)


def test_the_large_model_has_at_most_200_000_parameters(model, baseline):
    assert 8461 < model.count_params() < blended(model, baseline, 2 / 3).count_params() <= 200_000


def test_its_inputs_are_ecg_and_all_features_and_its_output_probabilities(model):
    assert [tuple(x.shape) for x in model.inputs] == [(None, 500, 12), (None, INPUTS)]
    assert [x.name for x in model.inputs] == ["ecg", "features"]
    rng = np.random.default_rng(0)
    out = np.asarray(model([rng.normal(size=(3, 500, 12)), rng.normal(size=(3, INPUTS))]))
    assert out.shape == (3, 5)
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(out, axis=0).max() > 1e-4


def test_its_last_layer_takes_a_temperature(model, baseline):
    """`calibrate` divides the weights of the last layer: it has to be the softmax's own."""
    for one in (model, blended(model, baseline, 0.5)):
        last = one.layers[-1]
        assert (type(last).__name__, last.activation.__name__) == ("Dense", "softmax")


# ------------------------------------------------------------------------ the regression in it
def test_a_share_of_one_gives_the_probabilities_of_the_regression(model, baseline, records):
    found = np.asarray(blended(model, baseline, 1.0)(records))
    np.testing.assert_allclose(found, baseline.predict(records[1]), atol=1e-5)
    assert np.ptp(found, axis=0).min() > 0.1    # else this would say little


def test_a_share_of_none_leaves_the_network_as_it_was(model, baseline, records):
    found = np.asarray(blended(model, baseline, 0.0)(records))
    np.testing.assert_allclose(found, np.asarray(model(records)), atol=1e-6)


def test_a_share_between_gives_the_weighted_geometric_mean(model, baseline, records):
    deep, linear = np.asarray(model(records)), baseline.predict(records[1])
    product = deep ** (1 / 3) * linear ** (2 / 3)
    np.testing.assert_allclose(
        np.asarray(blended(model, baseline, 2 / 3)(records)),
        product / product.sum(axis=1, keepdims=True), atol=1e-5)


def test_a_training_of_the_large_recipe_ends_with_the_regression_in_the_model(monkeypatch, records):
    """Fitted on each training record once, although some are repeated."""
    rows = pd.DataFrame({"waveform_path": [f"r{i % 40}" for i in range(60)]})
    training = script.Records(rows, records[0], records[1], np.arange(60) % 5)
    monkeypatch.setattr(script, "fit", lambda *_: None)    # as it was built
    monkeypatch.setattr(script, "calibrate", lambda *_: 1.0)
    settings = script.Settings(recipe=script.RECIPES["large"], jit=False)
    model, _, _ = script.train(training, training, 5, settings)
    once = LinearBaseline(
        records[1][:40], np.arange(40) % 5, 5, script.HEART_RATE, script.HEART_RATE)
    kernel, _ = model.layers[-1].get_weights()
    np.testing.assert_allclose(kernel[-len(once.weights):], 2 / 3 * once.weights, atol=1e-6)


@pytest.mark.slow
def test_it_is_saved_without_custom_objects_and_opens_in_safe_mode(model, baseline, tmp_path):
    model = blended(model, baseline, 2 / 3)
    script.save(model, models.card("large"), tmp_path / "large.keras")
    code = ("import sys, json, numpy as np, keras\n"
            "model = keras.models.load_model('large.keras', safe_mode=True)\n"
            "x = np.load('inputs.npz')\n"
            "np.save('out.npy', model.predict([x['a'], x['b']], verbose=0))\n"
            "print('ecg' in sys.modules, 'too_feature' in sys.modules)")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3, 500, 12)), rng.normal(size=(3, INPUTS))
    inputs[1][0, ::2] = np.nan
    inputs[1][:, script.HEART_RATE] = np.nan, 45, 120
    np.savez(tmp_path / "inputs.npz", a=inputs[0], b=inputs[1])
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True,
                            text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["False", "False"]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), np.asarray(model(inputs)), atol=1e-5)


def test_features_that_are_missing_count_as_the_mean_and_far_ones_are_cut_off():
    mean = np.linspace(-5, 50, INPUTS)
    model = built(100, mean, np.full(INPUTS, 4.0))
    ecg = np.random.default_rng(0).normal(size=(1, 100, 12))

    def at(features):
        return np.asarray(model([ecg, np.array(features, dtype=float)[None]]))

    assert np.array_equal(at(mean), at(np.full(INPUTS, np.nan)))
    assert np.isfinite(at(np.full(INPUTS, np.nan))).all()
    far, farther = at(mean + 2 * 1e3), at(mean + 2 * 1e30)
    assert np.array_equal(far, farther)
    assert not np.allclose(far, at(mean), atol=1e-4)


def test_heart_rates_are_spared_noise_and_dropout_and_amplitudes_are_not_used():
    model = built(100)
    branch = script.load_tensorflow()[1].Model(model.inputs[1], [
        layer.output for layer in model.layers if layer.name.startswith("concatenate")
        and layer.output.shape[1:] == (2 + INPUTS - script.HEART_RATE,)])
    features = np.arange(INPUTS, dtype=float)[None] / INPUTS
    for training in (False, True):
        found = np.asarray(branch(features, training=training))[0]
        median_heart_rate = len(script.FEATURES)    # the first of the large model's own
        assert found[:2] == pytest.approx(features[0, [script.HEART_RATE, median_heart_rate]])
        rest = features[0, script.HEART_RATE:]
        assert np.allclose(found[2:], rest, atol=1e-6) != training


def test_its_recipe_can_be_overridden():
    settings = script.parse_settings(["--recipe", "large"])
    assert settings.recipe == script.RECIPES["large"]
    one = script.parse_settings(["--recipe", "large", "--epochs", "3"])
    assert (one.recipe.epochs, one.recipe.batch_size) == (3, settings.recipe.batch_size)


def test_its_training_is_not_cut_off_before_the_learning_rate_has_fallen_to_zero():
    recipe = script.RECIPES["large"]
    assert recipe.schedule == "cosine"    # over all epochs: halfway the learning rate is large
    assert recipe.stop_patience >= recipe.epochs


@pytest.mark.slow
def test_from_labels_to_a_saved_large_model_that_classifies_a_record(demo_dir, tmp_path):
    result = subprocess.run(
        [sys.executable, str(ROOT / "too_feature.py"), "--recipe", "large", "--labels",
         str(ROOT / "ecg_5_class_data.csv"), "--data-dir", str(demo_dir), "--output",
         "large.keras", "--train-samples", "100", "--val-samples", "25", "--test-samples", "25",
         "--epochs", "3"], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    card = json.loads((tmp_path / "large.json").read_text())
    assert card["recipe"]["model"] == "large"
    assert 1 <= len(card["history"][0]) <= 3
    model, classes, recipe, _ = script.load(tmp_path / "large.keras")
    assert model.count_params() <= 200_000

    settings = script.Settings(
        recipe=recipe, labels=str(ROOT / "ecg_5_class_data.csv"), data_dir=str(demo_dir),
        test_samples=25, cache=False)
    split = script.split_patients(script.read_labels(settings.labels))["test"]
    test = script.load_split("test", split, classes, settings)
    out = script.predict(model, test)
    assert np.mean(out.argmax(axis=1) == test.targets) == card["metrics"]["model"]["accuracy"][0]
    for i in range(3):
        found = classify.classify_record(
            demo_dir / test.rows["waveform_path"][i], tmp_path / "large.keras")
        assert found == pytest.approx(dict(zip(classes, out[i], strict=True)), abs=1e-5)

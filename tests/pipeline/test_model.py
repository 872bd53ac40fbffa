"""The model: its layers, scaling and curve of the rate, its LSTM's memory at the start."""

import os

import numpy as np
import pytest

import too_feature as script
from too_feature import (
    HEART_RATE,
    RECIPES,
    create_lightweight_lstm_model,
    load_tensorflow,
    sharpen_rate,
)


@pytest.fixture(scope="module")
def short():
    """A model of records of 50 points, whose features have a mean of 80 and a variance of 4."""
    return create_lightweight_lstm_model(5, 50, np.full(8, 80.0), np.full(8, 4.0))


@pytest.mark.parametrize("name", ["default", "thesis"])
def test_the_lstm_of_each_recipe_has_the_layers_and_the_8461_parameters_of_the_thesis(name):
    model = script.create_model(5, RECIPES[name], np.zeros(8), np.ones(8))
    assert model.count_params() == 8461
    layers = [(type(layer).__name__, getattr(layer, "units", None) or getattr(layer, "rate", None))
              for layer in model.layers]
    assert sorted(layer for layer in layers if layer[0] in ("LSTM", "Dense", "Dropout")) == sorted([
        ("LSTM", 32), ("Dense", 24), ("Dropout", 0.3), ("Dense", 16), ("Dropout", 0.2),
        ("Dense", 32), ("Dropout", 0.3), ("Dense", 5)])
    assert [layer[0] for layer in layers].count("BatchNormalization") == 3
    assert next(layer.dropout for layer in model.layers if type(layer).__name__ == "LSTM") == 0.2


def test_a_feature_that_is_not_measurable_counts_as_the_training_mean(short):
    ecg = np.random.default_rng(0).normal(size=(1, 50, 12)).astype("float32")
    mean = np.full((1, 8), 80.0, dtype="float32")
    missing, other = mean.copy(), mean.copy()
    missing[0, 4:], other[0, 4:] = np.nan, 30
    at_mean, at_missing, at_other = (np.asarray(short([ecg, x])) for x in (mean, missing, other))
    np.testing.assert_array_equal(at_mean, at_missing)
    assert not np.allclose(at_mean, at_other)


def test_features_are_cut_off_at_so_many_deviations_and_not_before():
    limit = 4.0    # deviations, which are 2 here, from the mean
    model = create_lightweight_lstm_model(
        5, 50, np.arange(8.0), np.full(8, 4.0), feature_limit=limit, rate_curve=False)

    def at(deviations):
        features = np.arange(8.0) + 2 * np.multiply.outer(deviations, np.ones(8))
        return np.asarray(model([np.zeros((len(features), 50, 12)), features]))

    np.testing.assert_array_equal(at([10, 1e6, -10, -1e30]), at([limit, limit, -limit, -limit]))
    inside = at(limit * np.array([-1, -0.9, 0, 0.9, 1]))
    assert np.abs(np.diff(inside, axis=0)).max(axis=1).min() > 1e-4


def test_the_curve_of_the_heart_rate_is_steep_where_classes_part_and_has_no_weights():
    keras = load_tensorflow()[1]
    features = keras.Input((8,))
    curve = keras.Model(features, sharpen_rate(keras, features))
    assert curve.count_params() == 0
    rates = np.array([20, 40, 60, 70, 80, 90, 100, 120, 240, np.nan])
    records = np.full((len(rates), 8), 7.0)
    records[:, HEART_RATE] = rates
    expected = [-2, -2, -1, -0.036, 0, 0.036, 1, 2, 2, 0]    # tanh(2) is 0.964
    np.testing.assert_allclose(np.asarray(curve(records))[:, 0], expected, atol=0.002)


@pytest.mark.parametrize(("lstm_memory", "length"), [(4.0, 500), (8.0, 50)])
def test_memories_of_all_lengths_up_to_that_set_are_there_at_the_start(lstm_memory, length):
    model = create_lightweight_lstm_model(5, length, lstm_memory=lstm_memory)
    cell = next(layer for layer in model.layers if type(layer).__name__ == "LSTM").cell
    _, (_, kept) = cell(np.zeros((1, 12)), [np.zeros((1, 32)), np.ones((1, 32))])    # one step
    seconds = 10 / length / (1 - np.asarray(kept, float)[0])    # until a share of 1 / e is left
    assert seconds.max() == pytest.approx(lstm_memory, rel=0.01)
    assert seconds.min() == pytest.approx(2 * 10 / length)    # two steps
    np.testing.assert_allclose(np.diff(seconds, 2), 0, atol=0.01 * lstm_memory)    # evenly between


def test_every_gpu_is_hidden_and_one_thread_computes():
    tf, _ = load_tensorflow()
    assert {device.device_type for device in tf.config.get_visible_devices()} == {"CPU"}
    assert tf.config.threading.get_intra_op_parallelism_threads() == 1
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
    assert os.environ["TF_METAL_DEVICE_ENABLE"] == "0"

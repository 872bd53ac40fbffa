"""The model, its inputs' scaling, and one compiled step."""

import numpy as np
import pytest

import too_feature
from too_feature import create_lightweight_lstm_model, load_tensorflow


@pytest.fixture(scope="module")
def model():
    return create_lightweight_lstm_model(5, 500, np.arange(8.0), np.full(8, 4.0))


def test_model_has_exactly_8461_parameters(model):
    assert model.count_params() == 8461
    assert create_lightweight_lstm_model().count_params() == 8461


def test_layers_are_those_of_the_thesis(model):
    layers = [(type(layer).__name__, getattr(layer, "units", None) or getattr(layer, "rate", None))
              for layer in model.layers]
    assert sorted(layer for layer in layers if layer[0] in ("LSTM", "Dense", "Dropout")) == sorted([
        ("LSTM", 32), ("Dense", 24), ("Dropout", 0.3), ("Dense", 16), ("Dropout", 0.2),
        ("Dense", 32), ("Dropout", 0.3), ("Dense", 5)])
    assert [layer[0] for layer in layers].count("BatchNormalization") == 3
    assert next(layer.dropout for layer in model.layers if type(layer).__name__ == "LSTM") == 0.2


def test_inputs_and_outputs_are_as_documented(model):
    assert [tuple(x.shape) for x in model.inputs] == [(None, 500, 12), (None, 8)]
    out = np.asarray(model([np.zeros((3, 500, 12)), np.zeros((3, 8))]))
    assert out.shape == (3, 5)
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-5)


def test_a_feature_that_is_not_measurable_counts_as_the_training_mean(model):
    ecg = np.random.default_rng(0).normal(size=(1, 500, 12)).astype("float32")
    mean = np.arange(8.0, dtype="float32")[None]
    missing, other = mean.copy(), mean.copy()
    missing[0, 4:], other[0, 4:] = np.nan, 30
    at_mean, at_missing, at_other = (np.asarray(model([ecg, x])) for x in (mean, missing, other))
    np.testing.assert_array_equal(at_mean, at_missing)
    assert not np.allclose(at_mean, at_other)


def test_features_are_scaled_inside_the_model():
    _, keras = load_tensorflow()
    mean, variance = np.arange(8.0), np.arange(1.0, 9.0)
    keras.utils.set_random_seed(1)
    scaled = create_lightweight_lstm_model(5, 50, mean, variance)
    keras.utils.set_random_seed(1)
    plain = create_lightweight_lstm_model(5, 50)
    ecg, features = np.zeros((2, 50, 12)), np.array([mean + 3, mean - 1])
    np.testing.assert_allclose(np.asarray(scaled([ecg, features])),
                               np.asarray(plain([ecg, (features - mean) / np.sqrt(variance)])),
                               rtol=1e-4)


def test_every_gpu_is_hidden_and_one_thread_computes():
    tf, _ = load_tensorflow()
    assert {device.device_type for device in tf.config.get_visible_devices()} == {"CPU"}
    assert tf.config.threading.get_intra_op_parallelism_threads() == 1
    import os
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
    assert os.environ["TF_METAL_DEVICE_ENABLE"] == "0"


def test_missing_xla_falls_back_with_one_line(monkeypatch, capsys):
    _, keras = load_tensorflow()
    assert too_feature.xla_works()

    def broken(*_, **__):
        raise RuntimeError("could not find registered platform")

    monkeypatch.setattr(keras.Sequential, "train_on_batch", broken)
    assert not too_feature.xla_works()
    assert len(capsys.readouterr().out.strip().splitlines()) == 1

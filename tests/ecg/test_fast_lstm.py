"""What makes training fast changes no result: the LSTM's own gradients, and how records are fed."""

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from ecg import fast_lstm
from tests.support import models
from too_feature import Recipe, Records, Settings, create_lightweight_lstm_model

tf, keras = script.load_tensorflow()


def pair(units, steps, leads):
    """Return a stock LSTM and a fast one, of the same weights and the same random numbers."""
    layers, rng = [], np.random.default_rng(0)
    for _ in range(2):
        keras.utils.set_random_seed(3)
        layers.append(keras.layers.LSTM(units, dropout=0.2, seed=7))
        layers[-1].build((None, steps, leads))
    for variables in zip(*(layer.trainable_variables for layer in layers), strict=True):
        value = rng.normal(0, 0.3, variables[0].shape)
        for variable in variables:
            variable.assign(value)
    fast_lstm.speed_up(keras, layers[1])
    return layers


def computed(layer, x, xla):
    """Return the layer's output in training, and the gradients of its input and its weights."""
    @tf.function(jit_compile=xla)
    def compute(x, mix):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(tf.sin(y) * mix)
        return y, tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])

    mix = np.random.default_rng(5).normal(size=(len(x), layer.units)).astype(np.float32)
    y, gradients = compute(tf.constant(x), tf.constant(mix))
    return [y.numpy(), *(gradient.numpy() for gradient in gradients)]


@pytest.mark.parametrize(("shape", "units", "size", "xla"), [
    ((4, 50, 12), 32, 1.0, True), ((4, 20, 3), 8, 30.0, False),    # gates open or shut
    pytest.param((7, 500, 12), 32, 1.0, True, marks=pytest.mark.slow)])
def test_outputs_and_gradients_are_those_of_the_stock_layer(shape, units, size, xla):
    """To 1e-5; of each gradient, in parts of its largest number."""
    x = size * np.random.default_rng(1).normal(size=shape).astype(np.float32)
    stock, fast = (computed(layer, x, xla) for layer in pair(units, *shape[1:]))
    assert len(stock) == len(fast) == 5    # output, input, kernel, recurrent kernel, bias
    for one, other in zip(stock, fast, strict=True):
        largest = np.abs(one).max() or 1.0
        np.testing.assert_allclose(other / largest, one / largest, atol=1e-5)


def lstm_of(model):
    return next(layer for layer in model.layers if isinstance(layer, keras.layers.LSTM))


def records(n, steps=30, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"waveform_path": range(n)})
    return Records(rows, rng.normal(size=(n, steps, 12)).astype(np.float32),
                   rng.normal(size=(n, 8)).astype(np.float32), rng.integers(0, n_classes, n))


def test_a_trained_model_is_fast_but_saved_as_keras_own_and_predicts_the_same(tmp_path):
    some = records(60, 50, 5)
    recipe = Recipe(sequence_length=50, epochs=1, batch_size=20, xla=False)
    model = script.train(some, some, 5, Settings(recipe=recipe))[0]
    assert "inner_loop" in vars(lstm_of(model))
    assert int(model.optimizer.iterations) == 60 // 20    # a step for each batch
    script.save(model, models.card(sequence_length=50), tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras", compile=False, safe_mode=True)
    assert type(lstm_of(loaded)) is keras.layers.LSTM
    assert "inner_loop" not in vars(lstm_of(loaded))
    np.testing.assert_allclose(loaded.predict((some.signals, some.features), verbose=0),
                               script.predict(model, some), atol=1e-5)


def test_where_xla_does_not_work_training_goes_on_without_it_and_one_line_says_so(
        monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("could not find registered platform")

    with monkeypatch.context() as patched:
        patched.setattr(tf, "while_loop", broken)
        assert not fast_lstm.try_xla(tf, Recipe())
    announced, failed = capsys.readouterr().out.splitlines()
    assert "lines of absl or XLA that follow are harmless" in announced
    assert "XLA does not work here (RuntimeError)" in failed
    assert fast_lstm.try_xla(tf, Recipe())


# --------------------------------------------------------------------------- predict and validate
def test_validation_figures_are_the_plain_ones_with_classes_in_balance():
    model = create_lightweight_lstm_model(3, 30)
    some = records(230)
    targets = np.where(np.arange(230) < 100, 0, some.targets)    # more of the first class
    figures = script.validate(model, some._replace(targets=targets))
    p = np.asarray(model((some.signals, some.features), training=False), float)
    losses = -np.log(p[np.arange(230), targets])
    right = p.argmax(axis=1) == targets
    each = [(losses[targets == c].mean(), right[targets == c].mean()) for c in range(3)]
    assert list(figures.values()) == pytest.approx(np.mean(each, axis=0).tolist(), rel=1e-5)
    assert abs(figures["val_loss"] - losses.mean()) > 1e-3    # the balance counts

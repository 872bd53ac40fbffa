"""What makes training fast changes no result: the LSTM's own gradients, several steps at once."""

import json
import zipfile

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from ecg import fast_lstm
from tests.support import models
from too_feature import Recipe, Records, Settings, create_lightweight_lstm_model

tf, keras = script.load_tensorflow()
DROPOUT = 0.2


def pair(units, steps, leads, dropout=DROPOUT, quick=True):
    """Return a stock LSTM and a speed_uped one, of the same weights and the same random numbers."""
    layers, rng = [], np.random.default_rng(0)
    for _ in range(2):
        keras.utils.set_random_seed(3)
        layers.append(keras.layers.LSTM(units, dropout=dropout, seed=7))
        layers[-1].build((None, steps, leads))
    for variables in zip(*(layer.trainable_variables for layer in layers), strict=True):
        value = rng.normal(0, 0.3, variables[0].shape)
        for variable in variables:
            variable.assign(value)
    assert not quick or fast_lstm.speed_up(keras, layers[1])
    return layers


def computed(layer, x, training, jit):
    """Return the layer's output, and the gradients of its input and its weights."""
    @tf.function(jit_compile=jit)
    def compute(x, mix):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(tf.sin(y) * mix)
        return y, tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])

    mix = np.random.default_rng(5).normal(size=(len(x), layer.units)).astype(np.float32)
    y, gradients = compute(tf.constant(x), tf.constant(mix))
    return [y.numpy(), *(gradient.numpy() for gradient in gradients)]


def assert_same(one, two):
    """Output, and each gradient in parts of its largest number: to 1e-5."""
    assert len(one) == len(two) == 5    # output, input, kernel, recurrent kernel, bias
    for a, b in zip(one, two, strict=True):
        assert a.shape == b.shape
        size = np.abs(a).max() or 1.0
        np.testing.assert_allclose(b / size, a / size, atol=1e-5)
    assert all(np.abs(a).max() > 0 for i, a in enumerate(one) if i != 3)    # h is 0 at first


@pytest.mark.parametrize(("n", "steps", "leads", "units", "training", "jit"), [
    (4, 50, 12, 32, True, True), (4, 50, 12, 32, False, False), (2, 1, 3, 4, True, False),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        (33, 20, 12, 32, True, False), (3, 2, 5, 8, False, True), (1, 9, 1, 1, True, True)))])
def test_outputs_and_gradients_are_those_of_the_stock_layer(n, steps, leads, units, training, jit):
    x = np.random.default_rng(1).normal(size=(n, steps, leads)).astype(np.float32)
    stock, quick = pair(units, steps, leads)
    results = computed(stock, x, training, jit), computed(quick, x, training, jit)
    assert_same(*results)
    if training:    # and the same dropout was there
        assert np.abs(results[0][0] - computed(stock, x, False, jit)[0]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("jit", [True, False])
def test_outputs_and_gradients_are_those_of_the_stock_layer_over_500_steps(jit):
    x = np.random.default_rng(1).normal(size=(7, 500, 12)).astype(np.float32)
    stock, quick = pair(32, 500, 12)
    assert_same(computed(stock, x, True, jit), computed(quick, x, True, jit))


@pytest.mark.parametrize("size", [1e-3, 30.0])
def test_outputs_and_gradients_are_the_same_where_gates_are_open_or_shut(size):
    x = size * np.random.default_rng(1).normal(size=(4, 20, 3)).astype(np.float32)
    stock, quick = pair(8, 20, 3, dropout=0.0)
    assert_same(computed(stock, x, True, False), computed(quick, x, True, False))


def lstm_of(model):
    (layer,) = [layer for layer in model.layers if isinstance(layer, keras.layers.LSTM)]
    return layer


def records(n, steps=30, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return Records(pd.DataFrame({"n": range(n)}),
                   rng.normal(size=(n, steps, 12)).astype(np.float32),
                   rng.normal(size=(n, 8)).astype(np.float32), rng.integers(0, n_classes, n))


def test_one_training_step_moves_all_weights_of_the_model_as_the_stock_layer_does():
    """A step of plain gradient descent on 40 records: of few, batch normalisation amplifies."""
    some, ends = records(40), []
    for quick in (False, True):
        keras.utils.set_random_seed(1)
        model = create_lightweight_lstm_model(3, 30)
        if quick:
            assert fast_lstm.speed_up(keras, lstm_of(model))
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy",
                      jit_compile=False)
        before = model.get_weights()
        model.train_on_batch((some.signals, some.features), some.targets)
        ends.append(model.get_weights())
    moved = [np.abs(a - b).max() for a, b in zip(before, ends[0], strict=True)]
    # all that it trains; the seed generators' states and what the batch says nothing of stay
    assert sum(change > 1e-5 for change in moved) >= len(model.trainable_weights) - 3
    for stock, quick in zip(*ends, strict=True):
        np.testing.assert_allclose(quick, stock, atol=1e-5)


def test_the_layers_own_weights_are_trained():
    model, some = create_lightweight_lstm_model(3, 30), records(40)
    lstm = lstm_of(model)
    fast_lstm.speed_up(keras, lstm)
    before = lstm.get_weights()
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy",
                  jit_compile=False)
    model.train_on_batch((some.signals, some.features), some.targets)
    after = lstm.get_weights()
    assert [x.shape for x in after] == [(12, 128), (32, 128), (128,)]
    assert all(np.abs(a - b).max() > 1e-6 for a, b in zip(after, before, strict=True))
    lstm.set_weights(before)    # and those set are computed with
    quick = np.asarray(model((some.signals, some.features)))
    del lstm.inner_loop
    np.testing.assert_allclose(np.asarray(model((some.signals, some.features))), quick, atol=1e-5)


@pytest.fixture(scope="module")
def trained():
    """A model that `train` has trained, and its records."""
    some = records(60, 50)
    recipe = Recipe(sequence_length=50, epochs=1, batch_size=20)
    return script.train(some, some, 3, Settings(recipe=recipe, jit=False))[0], some


def test_a_trained_model_is_speed_uped_but_saved_as_keras_own_and_predicts_the_same(
        trained, tmp_path):
    model, some = trained
    assert "inner_loop" in vars(lstm_of(model))
    script.save(model, models.card(), tmp_path / "m.keras")
    model.save(tmp_path / "direct.keras")
    expected = script.predict(model, some)
    for name in ("m.keras", "direct.keras"):
        with zipfile.ZipFile(tmp_path / name) as file:
            config = json.loads(file.read("config.json"))
        (saved,) = [x for x in config["config"]["layers"] if x["class_name"] == "LSTM"]
        assert saved["module"] == "keras.layers"
        assert saved["registered_name"] is None
        loaded = keras.models.load_model(tmp_path / name, compile=False, safe_mode=True)
        assert type(lstm_of(loaded)) is keras.layers.LSTM
        assert "inner_loop" not in vars(lstm_of(loaded))
        np.testing.assert_allclose(loaded.predict((some.signals, some.features), verbose=0),
                                   expected, atol=1e-5)


REFUSED = {
    "all outputs": lambda: keras.layers.LSTM(4, return_sequences=True),
    "backwards": lambda: keras.layers.LSTM(4, go_backwards=True),
    "recurrent dropout": lambda: keras.layers.LSTM(4, recurrent_dropout=0.1),
    "another activation": lambda: keras.layers.LSTM(4, activation="relu"),
    "another gate": lambda: keras.layers.LSTM(4, recurrent_activation="hard_sigmoid"),
    "no bias": lambda: keras.layers.LSTM(4, use_bias=False),
    "GRU": lambda: keras.layers.GRU(4),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_layer_that_it_cannot_compute_is_refused_and_left_as_it_is(kind):
    layers = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        layers.append(REFUSED[kind]())
        layers[-1].build((None, 6, 3))
    assert fast_lstm.speed_up(keras, layers[1]) is False
    assert "inner_loop" not in vars(layers[1])
    x = np.random.default_rng(1).normal(size=(2, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(*(np.asarray(layer(x, training=True)) for layer in layers))


def test_a_mask_is_not_ignored():
    """Masked steps change nothing in the stock layer: a speed_uped one does so too, or refuses."""
    stock, quick = pair(4, 6, 3, dropout=0.0)
    x = np.random.default_rng(1).normal(size=(2, 6, 3)).astype(np.float32)
    mask = tf.constant([[True] * 4 + [False] * 2] * 2)
    try:
        output = quick(x, mask=mask)
    except (NotImplementedError, ValueError):
        return
    np.testing.assert_allclose(np.asarray(output), np.asarray(stock(x, mask=mask)), atol=1e-5)


def test_a_state_to_start_from_is_used_and_returned():
    stock, quick = pair(4, 6, 3, dropout=0.0)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 6, 3)).astype(np.float32)
    state = [rng.normal(size=(2, 4)).astype(np.float32) for _ in range(2)]
    for layer in (stock, quick):
        layer.return_state = True
    state = [tf.constant(a) for a in state]
    one, two = (layer(x, initial_state=state) for layer in (stock, quick))
    assert len(one) == len(two) == 3
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)
    assert np.abs(np.asarray(one[0]) - np.asarray(stock(x)[0])).max() > 1e-3


def test_deleting_inner_loop_gives_back_keras_own():
    stock, quick = pair(4, 6, 3, dropout=0.0)
    del quick.inner_loop
    assert quick.inner_loop.__func__ is type(quick).inner_loop
    x = np.random.default_rng(1).normal(size=(2, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(stock(x)), np.asarray(quick(x)))


# ------------------------------------------------------------------------------- batches and steps
@pytest.fixture(scope="module")
def model():
    return create_lightweight_lstm_model(3, 30)


@pytest.mark.parametrize("n", [1, 100, 250])
def test_predict_gives_the_probabilities_of_each_record_in_order(n, model):
    some = records(n)
    expected = np.asarray(model((some.signals, some.features), training=False))
    got = script.predict(model, some)
    assert got.shape == (n, 3)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert n == 1 or np.abs(np.diff(expected, axis=0)).min(axis=0).max() > 1e-5    # all differ


def compiled(at_once, n_classes=3):
    keras.utils.set_random_seed(1)
    model = create_lightweight_lstm_model(n_classes, 30)
    script.compile_model(model, 100, Recipe(learning_rate=1e-3), jit=False, at_once=at_once)
    return model


def test_validation_figures_are_the_plain_ones_with_classes_in_balance(model):
    some = records(230)
    targets = np.where(np.arange(230) < 100, 0, some.targets)    # more of the first class
    found = script.validate(model, some._replace(targets=targets))
    p = np.asarray(model((some.signals, some.features), training=False), float)
    losses = -np.log(p[np.arange(230), targets])
    right = p.argmax(axis=1) == targets
    each = [(losses[targets == c].mean(), right[targets == c].mean()) for c in range(3)]
    assert list(found.values()) == pytest.approx(np.mean(each, axis=0).tolist(), rel=1e-5)
    assert abs(found["val_loss"] - losses.mean()) > 1e-3    # the balance counts


@pytest.mark.slow
def test_steps_at_once_are_as_many_and_learn_the_same():
    """Compared after few steps of a small size: rounding grows in training."""
    some, results = records(105), []
    for at_once in (1, 2):
        model = compiled(at_once)
        batches = script.training_batches(some, Settings(recipe=Recipe(batch_size=20)))
        fed = script.feed(batches, at_once)
        history = model.fit(fed, steps_per_epoch=4, epochs=2, verbose=0)
        assert int(model.optimizer.iterations) == 8
        results.append((history.history | script.validate(model, some), model.get_weights()))
    (one, weights), (two, weights2) = results
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        np.testing.assert_allclose(two[name], one[name], atol=1e-3)
    assert one["loss"][0] != one["loss"][1]
    for a, b in zip(weights, weights2, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-3)


class Enough(Exception):  # noqa: N818 - it is not an error
    """Ends a training before it begins."""


@pytest.mark.parametrize(("n", "batch_size", "jit", "expected"), [
    (14, 4, True, 3), (58, 2, True, 1), (120, 2, True, 20), (14, 4, False, 1)],
    ids=["all of 3", "29 is a prime above 25", "20 of 60", "without XLA"])
def test_as_many_steps_go_at_once_as_divide_an_epoch(n, batch_size, jit, expected, monkeypatch):
    def note(*arguments):
        assert arguments[4] == expected    # at_once
        raise Enough

    monkeypatch.setattr(script, "compile_model", note)
    recipe = Recipe(sequence_length=50, batch_size=batch_size)
    with pytest.raises(Enough):
        script.train(records(n, 50), records(20, 50, seed=1), 3, Settings(recipe=recipe, jit=jit))


def test_an_epoch_of_train_has_a_step_for_each_batch(trained):
    assert int(trained[0].optimizer.iterations) == 60 // 20

"""Batch normalisation frozen by a variable learns as Keras's own, frozen by a new compilation."""

import numpy as np
import pytest

from ecg import two_phases
from too_feature import load_tensorflow

_, keras = load_tensorflow()


def small_model():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((3,)), *layers])


def train(model):
    """Take three steps with a fresh Adam, on numbers that are not centred."""
    rng = np.random.default_rng(0)
    for _ in range(3):
        model.train_on_batch(rng.normal(2, 3, (8, 3)), rng.normal(size=(8, 2)))


def compile_anew(model):
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)


def train_stock():
    """Train with Keras's own layer, compiled anew to freeze it; return all after both phases."""
    model = small_model()
    ends = []
    for is_frozen in (False, True):
        model.layers[1].trainable = not is_frozen
        compile_anew(model)
        train(model)
        ends.append([np.array(x) for x in model.variables])
    return ends


@pytest.fixture(scope="module")
def ours():
    """Train with our layer, compiled once; return the model and all after both phases."""
    model = small_model()
    frozen = two_phases.let_freeze(keras, model)
    compile_anew(model)
    model.optimizer.build(model.trainable_variables)
    fresh = [np.array(x) for x in model.optimizer.variables]
    ends = []
    for is_frozen in (False, True):
        frozen.assign(is_frozen)
        for variable, value in zip(model.optimizer.variables, fresh, strict=True):
            variable.assign(value)
        train(model)
        ends.append([np.array(x) for x in model.variables])
    return model, ends


def test_it_learns_as_keras_own_before_and_while_it_is_frozen(ours):
    model, (before, after) = ours
    for found, expected in zip((before, after), train_stock(), strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
    names = [x.path.split("/")[-1] for x in model.variables]
    moved = {name for name, *pair in zip(names, before, after, strict=True)
             if not np.array_equal(*pair)}
    assert moved == {"kernel", "bias"}    # Dense goes on


def test_it_is_saved_as_keras_own_and_loads_without_ours(ours, tmp_path):
    model = ours[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert type(loaded.layers[1]) is keras.layers.BatchNormalization
    assert "call" not in vars(loaded.layers[1])
    assert len(loaded.variables) == len(model.variables)
    x = np.random.default_rng(1).normal(size=(5, 3))
    np.testing.assert_array_equal(loaded.predict_on_batch(x), model.predict_on_batch(x))

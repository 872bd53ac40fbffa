"""Batch normalisation frozen by a variable learns as Keras's own, frozen by a new compilation."""


import numpy as np
import pytest

from ecg import two_phases
from too_feature import load_tensorflow

tf, keras = load_tensorflow()


@pytest.mark.parametrize(("freeze_bn_after", "phases"), [
    (0, [(0, 4)]), (1, [(0, 1), (1, 4)]), (5, [(0, 1), (1, 4)]), (6, [(0, 2), (2, 4)]),
    (16, [(0, 4)]), (10**9, [(0, 4)])])
def test_the_second_phase_begins_with_the_epoch_after_so_many_steps(freeze_bn_after, phases):
    assert two_phases.phases(4, freeze_bn_after, steps=5) == phases


def small_model():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((3,)), *layers])


def train(model):
    """Take three steps on numbers that are not centred; return all that training changes."""
    rng = np.random.default_rng(0)
    for _ in range(3):
        model.train_on_batch(rng.normal(2, 3, (8, 3)), rng.normal(size=(8, 2)))
    return [np.array(x) for x in model.variables]


def compile_anew(model):
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)


@pytest.fixture(scope="module")
def ours():
    """Train a model that is compiled once; return it and what it was after both phases."""
    model = small_model()
    compile_anew(model)
    n_steps = keras.Variable(1.0, trainable=False)
    phased = two_phases.TwoPhases(keras, model, n_steps)
    ends = []
    for is_frozen in (False, True):
        phased.begin(7, is_frozen)
        ends.append(train(model))
    assert float(n_steps) == 7
    return model, ends


def test_it_learns_as_keras_own_compiled_anew_before_and_while_it_is_frozen(ours):
    model, (before, after) = ours
    stock = small_model()
    for end, is_frozen in ((before, False), (after, True)):
        stock.layers[1].trainable = not is_frozen
        compile_anew(stock)
        for one, other in zip(end, train(stock), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
    names = [x.path.split("/")[-1] for x in model.variables]
    moved = {name for name, *pair in zip(names, before, after, strict=True)
             if not np.array_equal(*pair)}
    assert moved == {"kernel", "bias"}    # Dense goes on


@pytest.mark.parametrize(("steps", "xla", "at_once"), [
    (3, True, 3), (29, True, 1), (60, True, 20), (60, False, 1)])
def test_as_many_steps_go_at_once_as_divide_an_epoch(steps, xla, at_once):
    assert two_phases.steps_at_once(steps, xla) == at_once


def test_batches_are_fed_in_their_order_whatever_goes_at_once():
    batches = (((np.full((2, 3), i),), np.full(2, i)) for i in range(10**9))
    fed = two_phases.feed(tf, batches, at_once=4)
    values = [(int(inputs[0][0, 0]), int(targets[1])) for (inputs, targets), _ in zip(
        fed, range(10), strict=False)]
    assert values == [(i, i) for i in range(10)]

"""What a system is to the benchmark, and the systems of this repository.

A system is a function that trains on the records of a `Task` and returns something `Fitted`.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import too_feature as script
from benchmarks.common import log
from benchmarks.folds import Fold, Pool


class Task(NamedTuple):
    """What a system is given to train with."""

    pool: Pool
    fold: Fold
    seed: int
    epochs: int | None          # at most; None: the system's own number
    change: dict[str, Any]      # the candidate settings to train with


class Fitted(NamedTuple):
    """A trained system."""

    predict: Callable           # from record numbers to probabilities (n, n_classes)
    parameters: int
    temperature: float = 1.0    # which `predict` has divided the logits by


class System(NamedTuple):
    """One row of the table."""

    title: str
    fit: Callable[[Task], Fitted]
    candidates: tuple[dict, ...] = ({},)      # settings from which validation patients choose
    quick_epochs: int | None = None           # at most, with --quick; None: not trained in epochs
    warm_up: Callable[[], None] | None = None    # called before anything is timed
    prepare: Callable[[Pool], Any] | None = None    # has the pool prepare what `fit` needs
    is_random: bool = True      # whether the seed changes anything


def fit_recipe(task, recipe):
    """Train what the script trains with this recipe."""
    recipe = dataclasses.replace(recipe, **task.change)
    if task.epochs:
        recipe = dataclasses.replace(recipe, epochs=min(task.epochs, recipe.epochs))
    settings = script.Settings(seed=task.seed, recipe=recipe)
    training, validation = task.pool.drawn(task.fold, settings)

    with contextlib.redirect_stdout(sys.stderr):
        model, temperature, _ = script.train(training, validation, len(task.pool.classes),
                                             settings)
    return fitted(model, task.pool.inputs(recipe), temperature)


def recipe_system(title, recipe, quick_epochs=8):
    """Return the system that a recipe of the script makes."""
    fit = functools.partial(fit_recipe, recipe=recipe)
    return System(title, fit, quick_epochs=quick_epochs, prepare=inputs_of(recipe))


def inputs_of(recipe):
    """Return what has a pool prepare the inputs of a recipe."""
    return functools.partial(Pool.inputs, recipe=recipe)


# Ours take part as they are shipped: users of the script do not have the gain of a choice here.
OURS = {
    "default": recipe_system("**our default**", script.RECIPES["default"]),
    "large": recipe_system("**our large model**", script.RECIPES["large"]),
}


# ---------------------------------------------------------------- what Keras models have in common
def fitted(model, inputs, temperature=1.0):
    """Wrap a Keras model; `inputs` are the two arrays of all records."""
    signals, features = inputs

    def predict(numbers):
        n = len(numbers)
        batches = -(-n // 100)
        whole = np.resize(numbers, 100 * batches)    # a short batch would be compiled anew
        probabilities = model.predict((signals[whole], features[whole]), batch_size=100, verbose=0)
        return probabilities[:n]

    return Fitted(predict, model.count_params(), temperature)


def epoch_log(keras):
    """Return a callback that reports each epoch on standard error."""

    def report(epoch, logs):
        values = [f" {name} {value:.3f}" for name, value in logs.items() if name != "learning_rate"]
        log(f"epoch {epoch + 1:2} {' '.join(values)}")

    return keras.callbacks.LambdaCallback(on_epoch_end=report)

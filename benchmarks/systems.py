"""What a system is to the benchmark, and the systems of this repository.

A system is a function that trains on the records of a `Task` and returns something `Fitted`.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import too_feature as script
from benchmarks.folds import Fold, Pool


class Task(NamedTuple):
    """What a system is given to train with."""

    pool: Pool
    fold: Fold
    seed: int
    change: dict[str, Any]      # the candidate settings to train with


class Fitted(NamedTuple):
    """A trained system, without the rate step."""

    predict: Callable           # from record numbers to probabilities (n, n_classes)
    parameters: int


def choose_step(task, limits):
    """Return the rate step: limits fixed, or fitted to the records that the script would draw."""
    settings = script.Settings(seed=task.seed, recipe=script.Recipe(rate_limits=limits))
    training, _ = task.pool.drawn(task.fold, settings)
    return script.choose_rate_step(training, task.pool.classes, settings)


class System(NamedTuple):
    """One row of the table."""

    title: str
    fit: Callable[[Task], Fitted]
    prepare: Callable[[Pool], Any]    # has the pool prepare what `fit` needs
    candidates: tuple[dict, ...] = ({},)      # settings from which validation patients choose
    is_ours: bool = False
    rate_limits: str = "none"         # of the rate step, as in the script's recipes
    choose_step: Callable = choose_step

    @property
    def training(self):
        """What is trained, in words: systems that differ in the rate step alone share it."""
        if isinstance(self.fit, functools.partial):
            return f"{self.fit.func.__name__} {self.fit.keywords}"
        return self.title

    def decide(self, task, probabilities):
        """Return probabilities of all records of the pool after the rate step."""
        if self.rate_limits == "none":
            return probabilities
        step = self.choose_step(task, self.rate_limits)
        return step.apply(probabilities, task.pool.rates)


def recipe_system(title, recipe, is_ours=True):
    """Return the system that a recipe of the script makes."""
    core = dataclasses.replace(recipe, name="core", rate_limits="none")
    fit = functools.partial(fit_recipe, recipe=core)
    return System(
        title, fit, inputs_of(recipe), is_ours=is_ours, rate_limits=recipe.rate_limits)


def with_limits(systems):
    """Return systems with the rate step, and each again with fixed limits and without the step."""
    rows = {}
    for name, system in systems.items():
        rows[name] = system._replace(rate_limits="")
        rows[f"{name}-fixed"] = system._replace(
            title=f"{system.title}, limits 60 and 100", rate_limits="60,100")
        rows[f"{name}-core"] = system._replace(
            title=f"{system.title}, no rate step", rate_limits="none")
    return rows


def inputs_of(recipe):
    """Return what has a pool prepare the inputs of a recipe."""
    return functools.partial(Pool.inputs, recipe=recipe)


def fit_recipe(task, recipe):
    """Train what the script trains with this recipe."""
    settings = script.Settings(seed=task.seed, recipe=recipe)
    training, validation = task.pool.drawn(task.fold, settings)
    return train(task.pool, training, validation, settings)


def train(pool, training, validation, settings):
    """Train by the script on these `Records`."""
    with contextlib.redirect_stdout(sys.stderr):
        model, _, _ = script.train(training, validation, len(pool.classes), settings)
    return fitted(model, pool.inputs(settings.recipe))


# Ours take part as they are: users of the script do not have the gain of a choice here.
OURS = {
    "default": recipe_system("**our default**", script.RECIPES["default"]),
    "large": recipe_system("**our large model**", script.RECIPES["large"]),
}


# ---------------------------------------------------------------- what Keras models have in common
def fitted(model, inputs):
    """Wrap a Keras model; `inputs` are the two arrays of all records."""
    signals, features = inputs

    def predict(numbers):
        records = script.Records(None, signals[numbers], features[numbers], targets=numbers)
        return script.predict(model, records)

    return Fitted(predict, model.count_params())

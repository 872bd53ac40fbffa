"""Models of this project with random weights, and their cards."""

import dataclasses
import json

import numpy as np

import too_feature as script
from ecg import __version__, files, large_features, large_model, models
from ecg.baseline import LinearBaseline

CLASSES = ["Atrial Fibrillation", "Bradycardia", "Bundle Branch Block", "Normal", "Tachycardia"]
MEAN = [0, 0.2, 1, 2, 75, 80, 80, 0.1]                # of the eight features
VARIANCE = [0.01, 0.04, 4, 9, 400, 6400, 6400, 0.01]


def recipe_of(kind="lstm", **changes):
    """Return the recipe that prepares records for a kind of model."""
    recipe = script.RECIPES["large" if kind == "large" else "default"]
    return dataclasses.replace(recipe, **changes)


def card(kind="lstm", **changes):
    """Return what a card says about a kind of model, with some of its recipe changed."""
    recipe = recipe_of(kind, **changes)
    names = script.feature_names(recipe)
    scaling = {"mean": [0.5] * len(names), "variance": [1.0] * len(names)}
    if recipe.regression_share:
        width = len(names) - script.first_baseline_feature(recipe)
        scaling |= {"baseline_mean": [0.5] * width, "baseline_variance": [1.0] * width}
    return {"version": __version__, "classes": CLASSES, "leads": script.LEADS, "features": names,
            "scaling": [scaling], "recipe": dataclasses.asdict(recipe)}


def build(kind="lstm"):
    """Return a model with random weights: an "lstm", a "large" one, or an "ensemble" of two."""
    keras = script.load_tensorflow()[1]
    keras.utils.set_random_seed(1)
    if kind == "large":
        return large(keras)
    if kind == "ensemble":
        return models.average(keras, [lstm(), lstm()])
    return lstm()


def lstm():
    """Return a lightweight LSTM with the weights that are next by chance."""
    return script.create_lightweight_lstm_model(5, 500, MEAN, VARIANCE)


def large(keras):
    """Return a large model with the weights that are next by chance, and a regression in it."""
    width = len(MEAN) + len(large_features.EXTRA_FEATURES)
    model = large_model.create_large_model(
        keras, 5, 500, np.full(width, 0.5), np.ones(width), script.HEART_RATE)
    rng = np.random.default_rng(1)
    features = rng.normal(0.5, 1, (50, width))
    features[:, script.HEART_RATE] = rng.uniform(40, 140, 50)
    baseline = LinearBaseline.fit(
        features, np.arange(50) % 5, 5, script.HEART_RATE, script.HEART_RATE)
    return large_model.blend_with_regression(keras, model, baseline, 2 / 3)


def save(kind, path, **changes):
    """Save a model with its card, some of which is changed; return its path."""
    script.save(build(kind), card(kind) | changes, path)
    return path


def save_card(path, kind="lstm", **changes):
    """Save a card next to a file that is no model, for what only reads cards; return its path."""
    path.write_bytes(b"no model")
    content = {**card(kind), **changes, "model_sha256": files.sha256(path)}
    path.with_suffix(".json").write_text(json.dumps(content), encoding="utf-8")
    return path

"""Which leads, moments and features moved the probability of a class: integrated gradients."""

import atexit
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.ndimage import uniform_filter1d

from ecg.models import SCALING

STEPS = 64          # points on the path of integrated gradients, at first
MAX_DOUBLINGS = 4    # of the number of points
MAX_REST = 0.005     # of the change in probability that may be missed
MOST = 3             # features named in brief


class Importance(NamedTuple):
    """What moved the probability of one class away from that of a flat ECG with average features.

    `ecg` (sequence_length, 12), `features` (8 or more) and `rest`, what the approximation missed,
    add up to `probability` - `baseline`.
    """

    ecg: np.ndarray
    features: np.ndarray
    baseline: float
    probability: float
    rest: float


def flat_layers(model: Any) -> Iterator[Any]:
    """Yield all layers of a Keras model, those of the models inside it included."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from flat_layers(layer)
        else:
            yield layer


@functools.lru_cache(maxsize=2)
def _gradient_function(model: Any) -> Callable:
    """Return a function: probabilities of a class along a batch, and their gradients."""
    import tensorflow as tf

    @tf.function
    def gradients(ecg, features, target):
        with tf.GradientTape() as tape:
            tape.watch((ecg, features))
            probability = model([ecg, features], training=False)[:, target]

        by_ecg, by_features = tape.gradient(
            probability, (ecg, features), unconnected_gradients="zero")
        return probability, by_ecg, by_features

    return gradients


atexit.register(_gradient_function.cache_clear)    # before TensorFlow, which it needs, is gone


def _integrate(gradients, ecg, mean, far, target, steps) -> Importance:
    """Integrate the gradients along the path, at `steps` points that are denser near its start."""
    places = (np.arange(steps) + 0.5) / steps
    by_ecg = np.zeros_like(ecg, float)
    by_features = np.zeros_like(far, float)
    for part in np.split(places, steps // STEPS):
        share = np.append(part**3, [0, 1])     # both ends of the path too, with no weight
        weight = np.append(3 * part**2 / steps, [0, 0])
        ecgs = (share[:, None, None] * ecg).astype(np.float32)
        features = (mean + share[:, None] * far).astype(np.float32)
        probability, ecg_slopes, feature_slopes = gradients(ecgs, features, np.int32(target))
        by_ecg += ecg * np.tensordot(weight, ecg_slopes, 1)
        by_features += far * np.tensordot(weight, feature_slopes, 1)

    baseline, end = map(float, probability[-2:])
    rest = end - baseline - by_ecg.sum() - by_features.sum()
    return Importance(by_ecg, by_features, baseline, end, float(rest))


def explain(model: Any, ecg: np.ndarray, features: np.ndarray, target: int) -> Importance:
    """Explain the probability of one class for one record.

    Integrated gradients (Sundararajan et al., ICML 2017) from a flat ECG with average features: all
    inputs grow together, and each gets what its growth adds to the probability. Features that could
    not be measured count as they do in the model. Points are denser near the start,
    where large values pass the model's limits, and their number is doubled until less than
    `MAX_REST` is missed.

    Parameters
    ----------
    model : keras.Model
        With two inputs, "ecg" and "features".
    ecg : ndarray, shape (sequence_length, 12)
        As prepared for the model.
    features : ndarray, shape (8 or more,)
        NaN where one could not be measured.
    target : int
        The number of the class.

    Returns
    -------
    Importance
    """
    gradients = _gradient_function(model)
    # In an ensemble, the average of its models' means
    means = [np.ravel(layer.mean) for layer in flat_layers(model) if layer.name == SCALING]
    is_missing = np.isnan(features)    # stays so: the model has its own value for it
    mean = np.where(is_missing, np.nan, np.mean(means, axis=0))
    far = np.where(is_missing, 0, features - mean)
    for doubling in range(MAX_DOUBLINGS + 1):
        importance = _integrate(gradients, ecg, mean, far, target, STEPS * 2**doubling)
        if abs(importance.rest) < MAX_REST:
            break
    return importance


def share_of_leads(importance: Importance) -> float:
    """Return which share of all that moved the probability came by the leads, 0 to 1.

    What each lead and each feature moved it by counts by its size, up or down.
    """
    by_lead = np.abs(importance.ecg.sum(axis=0)).sum()
    by_feature = np.abs(importance.features).sum()
    return float(by_lead / ((by_lead + by_feature) or 1))


def spread(importance: Importance, samples: int) -> tuple[np.ndarray, float]:
    """Spread the importance of the leads over the samples of a recording, to colour its page.

    Parameters
    ----------
    importance : Importance
    samples : int
        Samples of the recording.

    Returns
    -------
    colours : ndarray, shape (samples, 12)
        From -1 to 1. The largest 0.5 % reach 1 where the leads carry half of what moved the
        probability, or more; where they carry less, the colours are paler in proportion.
    at_full_colour : float
        What 0.1 s of a lead of colour 1 moves the probability by.
    """
    points = len(importance.ecg)
    tenth = max(1, points // 100)    # of a second, for the eye
    smooth = uniform_filter1d(importance.ecg, tenth, axis=0)
    raw = smooth[np.arange(samples) * points // samples]
    sizes = np.abs(raw)
    largest = np.quantile(sizes, 0.995)
    if largest <= 1e-9 * sizes.max():    # less than 0.5 % of all moments count; a mean rounds
        largest = sizes.max() or 1
    full = largest / np.clip(2 * share_of_leads(importance), 1e-6, 1)
    return np.clip(raw / full, -1, 1), float(full * tenth)


def in_brief(importance: Importance, feature_names: Sequence[str]) -> str:
    """Return how much leads and features carry, and what moved most among the features."""
    leads = round(100 * share_of_leads(importance))
    order = np.argsort(-np.abs(importance.features), kind="stable")[:MOST]
    telling = ", ".join(
        f"{feature_names[place]} {importance.features[place]:+.2f}" for place in order)
    return (f"Of what moved it, up or down: leads {leads} %, features {100 - leads} % "
            f"(most: {telling})")


def summed(
    importance: Importance,
    leads: Sequence[str],
    feature_names: Sequence[str],
    seconds: int,
) -> dict[str, Any]:
    """Add an importance up by lead, by second and by feature.

    Parameters
    ----------
    importance : Importance
    leads : sequence of str
        Names of the 12 leads, in the order of the model's input.
    feature_names : sequence of str
    seconds : int
        Length of a record.

    Returns
    -------
    dict
        "lead", "second" and "feature", each a {name: change in probability}; "baseline",
        "probability" and "rest" as in `Importance`.
    """
    points = len(importance.ecg)
    second = np.arange(points) * seconds // points
    by_second = np.bincount(second, importance.ecg.sum(axis=1))
    names = [f"{i}-{i + 1} s" for i in range(seconds)]
    return {
        "lead": pd.Series(importance.ecg.sum(axis=0), leads).to_dict(),
        "second": pd.Series(by_second, names).to_dict(),
        "feature": pd.Series(importance.features, feature_names).to_dict(),
        "baseline": importance.baseline,
        "probability": importance.probability,
        "rest": importance.rest}

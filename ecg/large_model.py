"""The large classifier: 12-lead ECG and shape features in, class probabilities out.

Its features are those of the script followed by `EXTRA_FEATURES`.
"""

from typing import Any

import numpy as np

from ecg.baseline import LinearBaseline, with_hinges
from ecg.large_features import EXTRA_FEATURES
from ecg.models import BASELINE_SCALING, SCALING

FEATURE_LIMIT = 2.5         # deviations from the mean at which a feature is cut off
FEATURE_NOISE = 0.5         # deviations; rates are spared, since 60 and 100 bpm divide classes
FEATURE_DROPOUT = 0.2       # share of the features set to their mean; rates are spared too


def create_large_model(keras: Any, n_classes: int, sequence_length: int, feature_mean: np.ndarray,
                       feature_variance: np.ndarray, heart_rate: int) -> Any:
    """Build a network of multi-scale convolutions, lead mixing and attention over time.

    Parameters
    ----------
    keras : module
        Keras 3.
    n_classes, sequence_length : int
    feature_mean, feature_variance : array_like, shape (n_features,)
        Of the training records: constants in the model, not weights. The last features are
        `EXTRA_FEATURES`.
    heart_rate : int
        Place of the heart rate among the features. Those before it are amplitudes in mV, which
        differ between hospitals; the model leaves them out.

    Returns
    -------
    keras.Model
        From (n, sequence_length, 12) "ecg" and (n, n_features) "features", raw, where NaN counts
        as the mean, to probabilities (n, n_classes). 88,119 parameters for five classes; with
        the logistic regression, 88,359.
    """
    layers = keras.layers
    ecg = keras.Input((sequence_length, 12), name="ecg")
    features = keras.Input((len(feature_mean),), name="features")
    x = _ecg_branch(keras, ecg)
    y = _feature_branch(keras, features, feature_mean, feature_variance, heart_rate)

    z = layers.Concatenate()([x, y])
    z = layers.Dense(64, activation="relu")(z)
    z = _regularise(layers, z)
    probabilities = layers.Dense(n_classes, activation="softmax")(z)
    return keras.Model([ecg, features], probabilities, name="ecg_large")


def _normalise(layers, x):
    """Normalise by the batch, with averages that follow within some ten batches."""
    return layers.BatchNormalization(momentum=0.9)(x)


def _regularise(layers, x):
    """Normalise the outputs of a Dense layer, and drop some out."""
    return layers.Dropout(0.3)(_normalise(layers, x))


def _ecg_branch(keras, ecg):
    """Reduce the ECG to 16 numbers: few, since it is by its details that hospitals differ."""
    layers = keras.layers
    # Filters over all leads: 60, 180 and 500 ms long at 50 Hz, about a Q wave, a QRS, a beat
    scales = [
        layers.Conv1D(12, size, strides=2, padding="same")(ecg)
        for size in (3, 9, 25)
    ]
    x = layers.Concatenate()(scales)
    x = layers.SpatialDropout1D(0.1)(x)
    x = layers.MaxPooling1D(2)(x)
    for width in (36, 48):
        x = _multi_scale(layers, x, width)
        x = layers.MaxPooling1D(2)(x)

    # Attention between moments, then one weighted mean over time for each head
    x = layers.LayerNormalization()(x)
    attended = layers.MultiHeadAttention(4, 16, dropout=0.1)(x, x)
    x = layers.Add()([x, attended])
    weight = layers.Dense(4)(x)
    weight = layers.Softmax(axis=1)(weight)
    means = keras.ops.einsum("nth,ntc->nhc", weight, x)

    # A layer draws its seed when it is made: the order in which they are made decides the weights
    few = layers.Dense(16, activation="relu")
    x = layers.Flatten()(means)
    x = layers.Dropout(0.5)(x)
    x = few(x)
    x = _regularise(layers, x)
    # Half of the training records come without an ECG, so that the features learn to do alone
    return layers.Dropout(0.5, noise_shape=(None, 1))(x)


def _multi_scale(layers, x, width):
    """Convolve at three lengths in parallel, with a way past them (residual)."""
    y = _normalise(layers, x)
    y = layers.Activation("relu")(y)
    scales = [
        layers.Conv1D(width // 2, size, padding="same")(y)
        for size in (3, 7, 15)
    ]
    y = layers.Concatenate()(scales)
    y = _normalise(layers, y)
    y = layers.Activation("relu")(y)
    y = layers.Conv1D(width, 1)(y)

    if x.shape[-1] != width:
        x = layers.Conv1D(width, 1)(x)
    return layers.Add()([y, x])


def _feature_branch(keras, features, mean, variance, heart_rate):
    """Scale the features but those in mV; limit, noise and dropout keep any one from ruling."""
    layers = keras.layers
    y = layers.Normalization(mean=mean, variance=variance, name=SCALING)(features)
    y = keras.ops.nan_to_num(y, nan=0.0)
    y = keras.ops.clip(y, -FEATURE_LIMIT, FEATURE_LIMIT)
    y = y[:, heart_rate:]

    median_heart_rate = len(mean) - len(EXTRA_FEATURES) - heart_rate    # the first of them
    rates = keras.ops.take(y, (0, median_heart_rate), axis=1)
    dropout = layers.Dropout(FEATURE_DROPOUT)    # made first: see the ECG branch
    y = layers.GaussianNoise(FEATURE_NOISE)(y)
    y = dropout(y)
    y = layers.Concatenate()([rates, y])
    for width in (128, 64):
        y = layers.Dense(width, activation="relu")(y)
        y = _regularise(layers, y)

    return y


# ------------------------------------------------------------------------------------- regression
def blend_with_regression(keras: Any, model: Any, baseline: LinearBaseline, share: float) -> Any:
    """Return a trained model that averages its logits with those of a logistic regression.

    That is the geometric mean of both probabilities, in one last Dense layer. With few records, the
    regression alone is better than the network; with more, the two err on different records.

    Parameters
    ----------
    keras : module
    model : keras.Model
        Its second input takes the features; its last layer is Dense with softmax.
    baseline : LinearBaseline
        Fitted on the same training records.
    share : float
        Weight of the regression, 0 to 1.
    """
    layers = keras.layers
    last = model.layers[-1]
    features = model.inputs[1]
    scaled = layers.Normalization(
        mean=baseline.mean, variance=baseline.variance, name=BASELINE_SCALING)(
        features[:, baseline.first:])
    rate = features[:, baseline.heart_rate:baseline.heart_rate + 1]
    inputs = with_hinges(scaled, rate, keras.ops)    # without weights
    blend = layers.Dense(last.units, activation="softmax")
    probabilities = blend(layers.Concatenate()([last.input, inputs]))

    deep_weights, deep_bias = last.get_weights()
    weights = np.vstack([(1 - share) * deep_weights, share * baseline.weights])
    bias = (1 - share) * deep_bias + share * baseline.bias
    blend.set_weights([weights, bias])
    return keras.Model(model.inputs, probabilities, name=model.name)

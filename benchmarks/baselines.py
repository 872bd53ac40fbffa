"""Baselines: two rules, a logistic regression, a forest, MiniRocket and a residual CNN.

The candidate settings of each did well on folds of the records that we develop on.
"""

import functools

import numpy as np
from scipy.special import softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifierCV
from sklearn.preprocessing import StandardScaler

import too_feature as script
from benchmarks.systems import Fitted, System, epoch_log, fitted, inputs_of
from ecg import metrics
from ecg.baseline import LinearBaseline

DEFAULT = script.RECIPES["default"]    # what baselines of the eight features see
LARGE = script.RECIPES["large"]        # and those of all features


# ------------------------------------------------------------------------------------- rate rule
def fit_rule(task):
    """Predict by heart rate alone."""
    _, features = task.pool.inputs(DEFAULT)
    rates = features[:, script.HEART_RATE]
    n_classes = len(task.pool.classes)
    counts = np.bincount(task.pool.targets[task.fold.train], minlength=n_classes)
    shares = counts / len(task.fold.train)

    def predict(numbers):
        predicted = metrics.rate_rule(rates[numbers], task.pool.classes, shares)
        return np.eye(n_classes)[predicted]

    return Fitted(predict, parameters=0)


# --------------------------------------------------------------------------------- readable rule
WIDE = 120    # ms: a complete bundle branch block (Surawicz et al., Circulation 2009;119:e235-e240)


def fit_criteria(task):
    """Predict as one reads an ECG: is it regular, is QRS narrow, what is the rate?"""
    _, features = task.pool.inputs(LARGE)
    classes = task.pool.classes
    counts = np.bincount(task.pool.targets[task.fold.train], minlength=len(classes))

    def predict(numbers):
        predicted = read_criteria(features[numbers], classes, counts, task.change["irregular"])
        return np.eye(len(classes))[predicted]

    return Fitted(predict, parameters=0)


def read_criteria(features, classes, counts, irregular):
    """Return class numbers (n,): the first criterion that holds decides.

    Irregular RR intervals are atrial fibrillation, a wide QRS complex is a bundle branch block, and
    the rate tells the others apart. What is not measurable does not hold.

    Parameters
    ----------
    features : ndarray (n, n_features), all of recipe large
    classes : list of str, whose names tell what they are
    counts : ndarray (n_classes,), how common each class is
    irregular : float, share of RR intervals that change by more than a tenth of the median
    """
    names = [name for name, *_ in script.feature_names(LARGE)]
    fibrillation = ["fibrillation" in name.casefold() for name in classes]
    block = ["block" in name.casefold() for name in classes]
    others = np.where(np.logical_or(fibrillation, block), 0, counts)
    by_rate = metrics.rate_rule(features[:, script.HEART_RATE], classes, others)

    is_irregular = features[:, names.index("irregular RR share")] > irregular
    is_wide = features[:, names.index("QRS width")] >= WIDE
    return np.select(
        [is_irregular & any(fibrillation), is_wide & any(block)],
        [np.argmax(fibrillation), np.argmax(block)],
        by_rate)


# --------------------------------------------------------------------------- logistic regression
def fit_regression(task, recipe, first):
    """Fit the regression of each run's report to the features of a recipe from `first` on."""
    _, features = task.pool.inputs(recipe)
    train = task.fold.train
    regression = LinearBaseline(features[train], task.pool.targets[train], len(task.pool.classes),
                             script.HEART_RATE, first, **task.change)

    def predict(numbers):
        return regression.predict(features[numbers])

    return Fitted(predict, regression.weights.size + regression.bias.size)


# ---------------------------------------------------------------------------------------- forest
def fit_forest(task):
    """Fit a random forest to the eight features as measured: trees need no scaling."""
    _, features = task.pool.inputs(DEFAULT)
    train = task.fold.train
    forest = RandomForestClassifier(500, random_state=task.seed, **task.change)
    forest.fit(features[train], task.pool.targets[train])

    def predict(numbers):
        found = forest.predict_proba(features[numbers])
        return of_all_classes(found, forest.classes_, len(task.pool.classes))

    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    return Fitted(predict, nodes)


def of_all_classes(probabilities, classes, n_classes):
    """Add columns of 0 for the classes that a classifier has not seen in training."""
    whole = np.zeros((len(probabilities), n_classes))
    whole[:, classes] = probabilities
    return whole


# ------------------------------------------------------------------------------------ MiniRocket
def fit_minirocket(task):
    """Fit a ridge classifier to MiniRocket's features and the eight (Dempster et al., 2021)."""
    from aeon.transformations.collection.convolution_based import MiniRocket

    signals, features = task.pool.inputs(DEFAULT)
    # In this order in memory, or numba compiles all of it once more
    signals = np.ascontiguousarray(signals.transpose(0, 2, 1))
    train = task.fold.train
    medians = np.nanmedian(features[train], axis=0)
    features = np.where(np.isnan(features), medians, features)
    limit = DEFAULT.feature_limit

    rocket = MiniRocket(random_state=task.seed).fit(signals[train])
    kernels = np.asarray(rocket.transform(signals[train]))
    kernel_scaler = StandardScaler().fit(kernels)
    feature_scaler = StandardScaler().fit(features[train])

    def describe(kernels, eight):
        # Unless the eight weigh more, the ridge hardly sees them among ten thousand
        eight = np.clip(feature_scaler.transform(eight), -limit, limit)
        return np.hstack([kernel_scaler.transform(kernels), task.change["weight"] * eight])

    ridge = RidgeClassifierCV(np.logspace(0, 6, 13), class_weight="balanced")
    ridge.fit(describe(kernels, features[train]), task.pool.targets[train])

    def predict(numbers):
        kernels = np.asarray(rocket.transform(signals[numbers]))
        scores = ridge.decision_function(describe(kernels, features[numbers]))
        if scores.ndim == 1:    # two classes only
            scores = np.stack([-scores, scores], axis=1)
        return of_all_classes(softmax(scores, axis=1), ridge.classes_, len(task.pool.classes))

    return Fitted(predict, ridge.coef_.size + ridge.intercept_.size)


@functools.cache
def warm_up_minirocket():
    """Have numba compile MiniRocket, which takes half a minute, before anything is timed."""
    from aeon.transformations.collection.convolution_based import MiniRocket

    noise = np.random.default_rng(0).normal(size=(4, 12, 50))
    MiniRocket(84).fit_transform(noise)


# ---------------------------------------------------------------------------------- residual CNN
KERNEL = 7                                       # points, 140 ms
BLOCKS = (48, 4), (64, 2), (80, 2), (84, 2)      # filters, and how many times shorter
CNN_BATCH_SIZE = 32
CNN_EPOCHS = 24


def residual_cnn(keras, points, n_classes, mean, variance, dropout):
    """Build a residual network as Ribeiro et al. did (Nature Communications 2020;11:1760).

    Each block shortens the record, and its skip connection is max-pooled. The features, which
    their network did not have, join before the last layer; `mean` and `variance` scale them.
    """
    layers = keras.layers

    def finish(x):
        # Keras's momentum of 0.99 would take ten epochs of so few steps to follow
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
        return layers.Dropout(dropout)(x)

    def convolve(x, filters, size=KERNEL, strides=1):
        convolution = layers.Conv1D(filters, size, strides, "same", use_bias=False,
                                    kernel_initializer="he_normal")
        return convolution(x)

    ecg = keras.Input((points, 12))
    features = keras.Input((len(mean),))

    x = finish(convolve(ecg, 32))
    skip = x
    for filters, shorter in BLOCKS:
        y = finish(convolve(x, filters))
        y = convolve(y, filters, strides=shorter)
        skip = layers.MaxPooling1D(shorter, padding="same")(skip)
        skip = convolve(skip, filters, size=1)
        skip = layers.Add()([y, skip])
        x = finish(skip)

    z = layers.Normalization(mean=mean, variance=variance)(features)
    z = keras.ops.clip(keras.ops.nan_to_num(z), -2.5, 2.5)
    z = layers.Concatenate()([layers.GlobalAveragePooling1D()(x), z])
    return keras.Model([ecg, features], layers.Dense(n_classes, activation="softmax")(z))


def shifted_batches(records, size, rng):
    """Yield batches forever, each record moved around in a circle of time."""
    n, points, _ = records.signals.shape
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            batch = order[start:start + size]
            shifts = rng.integers(0, points, (size, 1))
            places = (np.arange(points) + shifts) % points
            signals = records.signals[batch][np.arange(size)[:, None], places]
            yield (signals, records.features[batch]), records.targets[batch]


def fit_cnn(task):
    """Train the residual network with early stopping on validation patients."""
    _, keras = script.load_tensorflow()
    keras.utils.set_random_seed(task.seed)
    settings = script.Settings(seed=task.seed)
    training, validation = task.pool.drawn(task.fold, settings)

    mean = np.nanmean(training.features, axis=0)
    variance = np.nanvar(training.features, axis=0) + 1e-12
    points = training.signals.shape[1]
    n_classes = len(task.pool.classes)
    model = residual_cnn(keras, points, n_classes, mean, variance, task.change["dropout"])
    model.compile(
        keras.optimizers.Adam(task.change["learning_rate"]),
        "sparse_categorical_crossentropy",
        weighted_metrics=["accuracy"],
        jit_compile=False)    # XLA slows convolutions on a CPU

    size = min(CNN_BATCH_SIZE, len(training.targets))
    batches = shifted_batches(training, size, np.random.default_rng(task.seed))
    callbacks = [
        epoch_log(keras),
        keras.callbacks.EarlyStopping(
            "val_accuracy", mode="max", patience=7, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.3, patience=3),
    ]

    inputs = validation.signals, validation.features
    weights = balanced_weights(validation.targets)
    model.fit(
        batches,
        steps_per_epoch=len(training.targets) // size,
        epochs=task.epochs or CNN_EPOCHS,
        validation_data=(inputs, validation.targets, weights),
        validation_batch_size=100,
        callbacks=callbacks,
        verbose=0)
    return fitted(model, task.pool.inputs(settings.recipe))


def balanced_weights(targets):
    """Return weights of records that give every class the same sum."""
    counts = np.bincount(targets)
    return len(targets) / counts[targets]


# ---------------------------------------------------------------------------------------- table
CRITERIA_CANDIDATES = {"irregular": 0.4}, {"irregular": 0.3}, {"irregular": 0.5}
REGRESSION_CANDIDATES = {"regularisation": 0.1}, {"regularisation": 0.03}, {"regularisation": 1.0}
FOREST_CANDIDATES = (
    {"min_samples_leaf": 5, "class_weight": "balanced"},
    {"min_samples_leaf": 10, "class_weight": "balanced_subsample"},
    {"min_samples_leaf": 3, "class_weight": "balanced_subsample", "max_features": 4},
)
MINIROCKET_CANDIDATES = {"weight": 20.0}, {"weight": 1.0}, {"weight": 10.0}
CNN_CANDIDATES = (
    {"learning_rate": 3e-3, "dropout": 0.2},
    {"learning_rate": 1e-3, "dropout": 0.2},
    {"learning_rate": 3e-3, "dropout": 0.4},
)

BASELINES = {
    "rule": System("rate rule", fit_rule, prepare=inputs_of(DEFAULT), is_random=False),
    "criteria": System(
        "readable rule: RR, QRS, rate", fit_criteria, CRITERIA_CANDIDATES,
        prepare=inputs_of(LARGE), is_random=False),

    "regression8": System(
        "logistic regression, 8 features",
        functools.partial(fit_regression, recipe=DEFAULT, first=0),
        REGRESSION_CANDIDATES, prepare=inputs_of(DEFAULT), is_random=False),
    "regression": System(
        "logistic regression, 44 features",
        functools.partial(fit_regression, recipe=LARGE, first=script.HEART_RATE),
        REGRESSION_CANDIDATES, prepare=inputs_of(LARGE), is_random=False),

    "forest": System(
        "random forest, 8 features", fit_forest, FOREST_CANDIDATES, prepare=inputs_of(DEFAULT)),
    "minirocket": System(
        "MiniRocket + ridge", fit_minirocket, MINIROCKET_CANDIDATES,
        warm_up=warm_up_minirocket, prepare=inputs_of(DEFAULT)),
    "cnn": System(
        "residual CNN", fit_cnn, CNN_CANDIDATES, quick_epochs=8, prepare=inputs_of(DEFAULT)),
}

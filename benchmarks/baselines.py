"""Baselines: two rules, a logistic regression and MiniRocket.

The candidate settings of each did well on folds of the records that we develop on.
"""

import functools

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import RidgeClassifierCV
from sklearn.preprocessing import StandardScaler

import too_feature as script
from benchmarks.systems import Fitted, System, inputs_of
from ecg import metrics
from ecg.baseline import LinearBaseline, all_classes

DEFAULT = script.RECIPES["default"]    # what baselines of the eight features see
LARGE = script.RECIPES["large"]        # and those of all features


# ------------------------------------------------------------------------------------- rate rule
def fit_rule(task):
    """Predict by heart rate alone."""
    return by_rule(task, DEFAULT, read_rate)


def read_rate(features, classes, counts):
    """Return class numbers (n,) by heart rate alone; parameters as of `read_criteria`."""
    return metrics.rate_rule(features[:, script.HEART_RATE], classes, counts)


def by_rule(task, recipe, rule):
    """Return what a rule predicts from the features, the classes, and how common each is."""
    _, features = task.pool.inputs(recipe)
    classes = task.pool.classes
    counts = np.bincount(task.pool.targets[task.fold.train], minlength=len(classes))

    def predict(numbers):
        return np.eye(len(classes))[rule(features[numbers], classes, counts)]

    return Fitted(predict, parameters=0)


# --------------------------------------------------------------------------------- readable rule
# A complete bundle branch block (Surawicz et al., Circulation 2009;119:e235-e240)
WIDE_QRS_MS = 120


def fit_criteria(task):
    """Predict as one reads an ECG: is it regular, is QRS narrow, what is the rate?"""
    return by_rule(task, LARGE, functools.partial(read_criteria, **task.change))


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
    by_rate = read_rate(features, classes, others)

    is_irregular = features[:, names.index("irregular RR share")] > irregular
    is_wide = features[:, names.index("QRS width")] >= WIDE_QRS_MS
    return np.select(
        [is_irregular & any(fibrillation), is_wide & any(block)],
        [np.argmax(fibrillation), np.argmax(block)],
        by_rate)


# --------------------------------------------------------------------------- logistic regression
def fit_regression(task, recipe, first):
    """Fit the regression of each run's report to the features of a recipe from `first` on."""
    _, features = task.pool.inputs(recipe)
    train = task.fold.train
    regression = LinearBaseline.fit(
        features[train], task.pool.targets[train], len(task.pool.classes), script.HEART_RATE,
        first, **task.change)

    return Fitted(lambda numbers: regression.predict(features[numbers]),
                  regression.weights.size + regression.bias.size)


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
    weights, bias = all_classes(ridge, len(task.pool.classes))

    def predict(numbers):
        kernels = np.asarray(rocket.transform(signals[numbers]))
        return softmax(describe(kernels, features[numbers]) @ weights + bias, axis=1)

    return Fitted(predict, ridge.coef_.size + ridge.intercept_.size)


def prepare_minirocket(pool):
    """Have numba compile MiniRocket, which takes half a minute, before anything is timed."""
    from aeon.transformations.collection.convolution_based import MiniRocket

    pool.inputs(DEFAULT)
    noise = np.random.default_rng(0).normal(size=(4, 12, 50))
    MiniRocket(84).fit_transform(noise)


# ----------------------------------------------------------------------------------------- table
REGRESSION_CANDIDATES = {"regularisation": 0.1}, {"regularisation": 0.03}, {"regularisation": 1.0}
BASELINES = {
    "rule": System("rate rule", fit_rule, inputs_of(DEFAULT)),
    "criteria": System(
        "readable rule: RR, QRS, rate",
        fit_criteria,
        inputs_of(LARGE),
        ({"irregular": 0.4}, {"irregular": 0.3}, {"irregular": 0.5})),
    "minirocket": System(
        "MiniRocket + ridge",
        fit_minirocket,
        prepare_minirocket,
        ({"weight": 20.0}, {"weight": 1.0}, {"weight": 10.0})),
}

REGRESSIONS = {    # shown with the rate step, as in the report
    "regression8": System(
        "logistic regression, 8 features",
        functools.partial(fit_regression, recipe=DEFAULT, first=0),
        inputs_of(DEFAULT),
        REGRESSION_CANDIDATES),
    "regression": System(
        "logistic regression, 44 features",
        functools.partial(fit_regression, recipe=LARGE, first=script.HEART_RATE),
        inputs_of(LARGE),
        REGRESSION_CANDIDATES),
}

"""The baseline of a network: a logistic regression on the same features and records.

With little data it is hard to beat. Classes end at 60 and 100 bpm, so the heart rate gets hinges
there: a straight line that bends where one class becomes another. It trains in a second.
"""

import warnings
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

MAX_DEVIATIONS = 2.5             # standard deviations at which scaled features are cut off
HINGES_BPM = 60, 65, 90, 100     # the ends of the reference range, and 5 and 10 bpm inside it
MIDDLE_BPM = 80                  # hinges of a lower rate count below, the others above
HINGE_UNIT_BPM = 10
MAX_HINGE = 6                    # of these units, at which a hinge is cut off
REGULARISATION = 0.1             # scikit-learn's C
ABSENT_CLASS_BIAS = -20.0        # logit of a class without a record


class LinearBaseline:
    """A logistic regression on standardised features, with hinges of the heart rate.

    Parameters
    ----------
    mean, variance : array_like, shape (n_features - first,), by which the features are scaled
    n_classes : int
    heart_rate : int, its place among the features, in bpm
    first : int, place of the first feature to use

    Attributes
    ----------
    weights : ndarray, shape (n_features - first + 4, n_classes); the last four are the hinges'
    bias : ndarray, shape (n_classes,); both are 0 unless fitted
    """

    def __init__(
        self, mean: Any, variance: Any, n_classes: int, heart_rate: int, first: int = 0
    ) -> None:
        self.mean = np.array(mean)
        self.variance = np.array(variance)
        self.heart_rate = heart_rate
        self.first = first
        self.weights = np.zeros((len(mean) + len(HINGES_BPM), n_classes))
        self.bias = np.zeros(n_classes)

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        targets: np.ndarray,
        n_classes: int,
        heart_rate: int,
        first: int = 0,
        regularisation: float = REGULARISATION,
    ) -> "LinearBaseline":
        """Fit a regression to training records; every class counts the same.

        Parameters
        ----------
        features : ndarray, shape (n, n_features); NaN counts as the mean
        targets : ndarray of int, shape (n,)
        n_classes, heart_rate, first : int, as of the class
        regularisation : float, scikit-learn's C; the smaller, the smaller the weights
        """
        used = features[:, first:].astype(float)
        with warnings.catch_warnings():    # a feature that was never measured
            warnings.simplefilter("ignore", RuntimeWarning)
            mean = np.nan_to_num(np.nanmean(used, axis=0))
            variance = np.nan_to_num(np.nanvar(used, axis=0))

        variance = np.where(variance > 0, variance, 1.0)
        baseline = cls(mean, variance, n_classes, heart_rate, first)
        regression = LogisticRegression(
            C=regularisation, class_weight="balanced", max_iter=5000)
        regression.fit(baseline.inputs(features), targets)
        baseline.weights, baseline.bias = all_classes(regression, n_classes)
        return baseline

    def inputs(self, features: np.ndarray) -> np.ndarray:
        """Return what the regression sees of features: scaled, cut off, and the hinges."""
        features = features.astype(float)
        scaled = (features[:, self.first:] - self.mean) / np.sqrt(self.variance)
        return with_hinges(scaled, features[:, [self.heart_rate]])

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the probabilities (n, n_classes) of records with these features."""
        logits = self.inputs(features) @ self.weights + self.bias
        return softmax(logits, axis=1)


def with_hinges(scaled: Any, rate: Any, xp: Any = np) -> Any:
    """Cut features off that are scaled, and append the hinges of the heart rate.

    Parameters
    ----------
    scaled : ndarray, shape (n, n_features), in standard deviations from the mean; NaN counts as 0
    rate : ndarray, shape (n, 1), bpm; NaN counts as `MIDDLE_BPM`
    xp : module
        NumPy, or `keras.ops` for Keras's tensors.
    """
    columns = [xp.clip(xp.nan_to_num(scaled, nan=0.0), -MAX_DEVIATIONS, MAX_DEVIATIONS)]
    rate = xp.nan_to_num(rate, nan=MIDDLE_BPM)
    for limit in HINGES_BPM:
        reach = (-MAX_HINGE, 0) if limit < MIDDLE_BPM else (0, MAX_HINGE)
        columns.append(xp.clip((rate - limit) / HINGE_UNIT_BPM, *reach))
    return xp.hstack(columns)


def all_classes(
    regression: LogisticRegression, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (inputs, n_classes) and bias (n_classes,), also for classes without records.

    Of two classes, scikit-learn gives one column, for the second.
    """
    weights = regression.coef_.T
    bias = regression.intercept_
    if len(regression.classes_) == 2:
        weights = np.hstack([-weights, weights]) / 2
        bias = np.append(-bias, bias) / 2

    every_weight = np.zeros((len(weights), n_classes))
    every_bias = np.full(n_classes, ABSENT_CLASS_BIAS)
    every_weight[:, regression.classes_] = weights
    every_bias[regression.classes_] = bias
    return every_weight, every_bias

"""Adapt a trained model to few labels of another hospital, and keep it as it was if that is better.

Hospitals differ above all in where they draw the line between classes, and that line is the last
layer. It is fitted again by a logistic regression whose weights are held near those of the start
(a Gaussian prior around them: maximum a posteriori). Cross-validation by patient then chooses
between the start, the fitted layer, and the mean of the two. Measured by benchmarks/adapt.py.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.utils.class_weight import compute_sample_weight

from ecg.errors import UserError
from ecg.files import ROOT

SHIPPED = "real_large", "real_default"    # trained on real ECGs, in models/; the better one first
PRIOR_STRENGTH = 10.0     # records' worth of loss for each unit of squared distance
MAX_CLASS_WEIGHT = 1.5    # of a record of a rare class, in records
N_FOLDS = 5
FEW_LABELS = 200          # with fewer, those who are tested are too few to tell much
SHARES = {"start": 0.0, "half way": 0.5, "fitted": 1.0}    # of the way from the start
AN_ENSEMBLE = ("an ensemble of models, which has no last layer of its own; name a single model "
               "(--start-from with --epochs 0 can evaluate an ensemble)")


class LastLayer(NamedTuple):
    """Weights (inputs, n_classes) and bias (n_classes,) of a Dense layer with softmax."""

    weights: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, dense: Any) -> "LastLayer":
        """Return weights and bias of a Keras layer."""
        return cls(*[array.astype(float) for array in dense.get_weights()])

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Return the logits (n, n_classes) of records with these inputs (n, inputs)."""
        return inputs @ self.weights + self.bias


class Adapted(NamedTuple):
    """The last layer that cross-validation chose."""

    layer: LastLayer
    chosen: str                  # one of `SHARES`
    scores: dict[str, float]     # weighted accuracy of each of `SHARES` on patients held out

    def in_words(self) -> str:
        """Return what was chosen, and why."""
        scores = ", ".join(f"{name} {value:.3f}" for name, value in self.scores.items())
        return (f"kept: {self.chosen}\n"
                f"accuracy by cross-validation, rare classes weighed more: {scores}")


# ----------------------------------------------------------------------------------------- models
def find_model(name: str) -> str:
    """Return the path of a model; `name` is a path, or one of `SHIPPED`."""
    return str(ROOT / "models" / f"{name}.keras") if name in SHIPPED else name


def split_model(keras: Any, model: Any, name: str) -> tuple:
    """Return a Keras model of all layers but the last, and the last, which is Dense.

    Raises
    ------
    UserError
        The model is an ensemble; its message starts with `name`.
    """
    last = model.layers[-1]
    if not isinstance(last, keras.layers.Dense):
        raise UserError(f"{name}: {AN_ENSEMBLE}")
    return keras.Model(model.inputs, last.input), last


def check_recipes(start: str, of_start: Any, recipe: Any, names: list[str]) -> None:
    """Raise `UserError` if a run's model or inputs differ from those of the model it starts from.

    `of_start` and `recipe` are recipes, compared by the fields `names`.
    """
    for name in names:
        theirs, ours = getattr(of_start, name), getattr(recipe, name)
        if theirs != ours:
            raise UserError(f"--start-from {start}: has {name} {theirs}, not {ours}: leave out "
                            "--recipe, --set and --sequence-length")


def each_once(records: Any) -> Any:
    """Return the script's `Records` without what oversampling has repeated."""
    return pick(records, np.flatnonzero(~records.rows["waveform_path"].duplicated()))


def pick(records: Any, places: np.ndarray) -> Any:
    """Return some of the script's `Records`, by their places."""
    return records._replace(
        rows=records.rows.iloc[places], signals=records.signals[places],
        features=records.features[places], targets=records.targets[places])


# -------------------------------------------------------------------------------------------- fit
def class_weights(targets: np.ndarray) -> np.ndarray:
    """Return balanced class weights of records, but none above `MAX_CLASS_WEIGHT`."""
    weights = np.minimum(compute_sample_weight("balanced", targets), MAX_CLASS_WEIGHT)
    return weights / weights.mean()


def fit_last_layer(
    inputs: np.ndarray,
    targets: np.ndarray,
    start: LastLayer,
    strength: float = PRIOR_STRENGTH,
) -> LastLayer:
    """Fit a last layer to records, held near `start`; classes without a record keep their weights.

    Parameters
    ----------
    inputs : ndarray, shape (n, n_inputs), of the layer
    targets : ndarray of int, shape (n,)
    start : LastLayer
    strength : float, larger than 0: the precision of the prior
    """
    n_classes = len(start.bias)
    truth = np.eye(n_classes)[targets]
    weights = class_weights(targets)[:, None]
    is_there = truth.any(axis=0)
    before = start.logits(inputs)
    columns = np.hstack([inputs, np.ones((len(inputs), 1))])    # the last one for the bias

    def cost(flat):
        change = flat.reshape(-1, n_classes)
        log_p = log_softmax(before + columns @ change, axis=1)
        loss = -(weights * truth * log_p).sum() + strength / 2 * (flat**2).sum()
        gradient = columns.T @ (weights * (np.exp(log_p) - truth)) + strength * change
        return loss, (gradient * is_there).ravel()

    nothing = np.zeros(columns.shape[1] * n_classes)
    fitted = minimize(cost, nothing, jac=True, method="L-BFGS-B")
    change = fitted.x.reshape(-1, n_classes)
    return LastLayer(start.weights + change[:-1], start.bias + change[-1])


# ----------------------------------------------------------------------------------------- choose
def patient_folds(patients: np.ndarray, targets: np.ndarray, seed: int) -> np.ndarray:
    """Return each record's fold: patients stay whole, classes are spread evenly."""
    table = pd.DataFrame({"patient": patients, "target": targets})
    of_patient = table.groupby("patient")["target"].min()
    shuffled = of_patient.sample(frac=1, random_state=seed).sort_values(kind="stable")
    fold = pd.Series(np.arange(len(shuffled)) % N_FOLDS, index=shuffled.index)
    return table["patient"].map(fold).to_numpy()


def score(probabilities: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Return weighted accuracy, and the mean log-likelihood, which breaks ties.

    Balanced accuracy would let a class of one record decide.
    """
    weights = class_weights(targets)
    is_right = probabilities.argmax(axis=1) == targets
    of_truth = probabilities[np.arange(len(targets)), targets]
    log_p = np.log(np.maximum(of_truth, 1e-12))
    accuracy = np.average(is_right, weights=weights)
    return round(float(accuracy), 9), float(np.average(log_p, weights=weights))


def adapt(
    inputs: np.ndarray,
    targets: np.ndarray,
    patients: np.ndarray,
    start: LastLayer,
    seed: int = 42,
    decide: Callable = np.asarray,
) -> Adapted:
    """Fit a last layer to records, and choose by cross-validation how much of the change to keep.

    Parameters
    ----------
    inputs : ndarray, shape (n, n_inputs), of the layer; each record once
    targets : ndarray of int, shape (n,)
    patients : ndarray, shape (n,); none is both fitted to and tested on
    start : LastLayer
    seed : int, of the folds
    decide : function, optional, applied to probabilities after the layer: the rate step
    """
    fold = patient_folds(patients, targets, seed)
    before = start.logits(inputs)
    moved = before.copy()
    for number in np.unique(fold):
        is_seen = fold != number
        if is_seen.any():
            fitted = fit_last_layer(inputs[is_seen], targets[is_seen], start)
            moved[~is_seen] = fitted.logits(inputs[~is_seen])

    scores = {
        name: score(decide(softmax(before + share * (moved - before), axis=1)), targets)
        for name, share in SHARES.items()}
    chosen = max(SHARES, key=lambda name: scores[name])    # of equal ones, the first
    fitted = fit_last_layer(inputs, targets, start)
    layer = LastLayer(*(a + SHARES[chosen] * (b - a) for a, b in zip(start, fitted, strict=True)))
    return Adapted(layer, chosen, {name: accuracy for name, (accuracy, _) in scores.items()})


def cross_validate(
    inputs: np.ndarray,
    targets: np.ndarray,
    patients: np.ndarray,
    start: LastLayer,
    seed: int,
    choose_step: Callable,
    rate: np.ndarray,
) -> np.ndarray:
    """Return the predicted class (n,) of each record by nested cross-validation of `adapt`.

    Each fold is predicted by a layer that `adapt` fitted and chose on the others, and by the rate
    step that `choose_step` returns for the mask of these records. `rate` (n, 1) are heart rates;
    the other parameters are as in `adapt`.
    """
    fold = patient_folds(patients, targets, seed)
    predicted = np.zeros(len(targets), int)
    for number in np.unique(fold):
        is_seen = fold != number
        step = choose_step(is_seen)
        decide = functools.partial(step.apply, rate=rate[is_seen])
        own = adapt(inputs[is_seen], targets[is_seen], patients[is_seen], start, seed, decide)
        probabilities = softmax(own.layer.logits(inputs[~is_seen]), axis=1)
        predicted[~is_seen] = step.apply(probabilities, rate[~is_seen]).argmax(axis=1)
    return predicted

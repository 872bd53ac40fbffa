"""Figures of a test with 95 % intervals over its patients.

How an interval is made; nothing is random:

1. Each record has an influence on a figure: by how much that would change, to first order, if the
   record counted more (the infinitesimal jackknife: Efron & Tibshirani, An Introduction to the
   Bootstrap, 1993, section 20.3; of an area under the ROC curve: DeLong et al., Biometrics
   1988;44:837-845, and Obuchowski, Biometrics 1997;53:567-578, of patients with several records).
   The records of a patient are summed up, and the root of the sum of squares is the deviation; of a
   share with its n patients, times the root of n / (n - 1).
2. Student's t times the deviation is added to the figure and subtracted. For areas this is done on
   the logit scale, for calibration slope and intercept on the plain one, and for all others on
   both: each end is then the farther one. What chance agrees on counts as known in Cohen's kappa.
3. The degrees of freedom are one less than the patients whom the figure is about, on the rarer side
   if there are two. Of the area under the ROC curve they are one more than patients share what is
   out of order, sum(x)^2 / sum(x^2) of their losses x (Kish, Survey Sampling, 1965).
4. Where all are right there is no deviation. The lower end is then that of Jeffreys' posterior of n
   patients, Beta(n + 1/2, 1/2) (Brown, Cai & DasGupta, Statistical Science 2001;16:101-133). In a
   mean over k classes of n_i patients n is k^2 / sum(1/n_i); and so in an area under the ROC curve,
   whose two sides are the classes. Where only some classes of a mean are all right, the distance
   below becomes the root of the sum of its square and those of their own lower ends (square-and-
   add, as `metrics.difference`), times 2 / k where k is above 2: many classes tell of one another.
   So above, where none is right.

Areas and calibration slopes have no interval below `MIN_PATIENTS` on either side.

Whoever has predictions.csv of a run can make them again:

    table = pandas.read_csv("results/NAME/predictions.csv")
    classes = [name[2:] for name in table.columns if name.startswith("p ")]
    overall, by_class = measure(
        table.filter(regex="^p ").to_numpy(),
        pandas.Index(classes).get_indexer(table["true"]), table["subject_id"])
    print(overall["macro F1"].interval(), by_class["recall"][0].interval())
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

MIN_PATIENTS = 10    # on either side, for the interval of an area or of a calibration slope
N_BINS = 10          # of the confidence

IN_WORDS = f"""\
95 % intervals are over the test patients: Student's t times the deviation that patients cause (the
infinitesimal jackknife), on the logit scale; shares also without it, and each end is the farther
one. Where all of a class are right, Jeffreys' posterior of its patients tells: few patients without
an error give a wide interval. Too few: less than {MIN_PATIENTS} patients on one of the two sides.
The docstring of ecg/intervals.py has the details, and how to make them again from
predictions.csv."""


class Figure(NamedTuple):
    """A figure of a test, and what its interval is made of."""

    value: float
    by_patient: np.ndarray    # the influence of each patient
    n: float                  # patients: one more than the degrees of freedom
    unseen: Any = (0, 0)      # how far it may be below and above, by what shows no deviation
    scale: str = "both"       # or "plain" or "logit"
    n_rarer: int = MIN_PATIENTS    # patients on the rarer side, where that matters

    def reach(self, other: Any = 0) -> float:
        """Return how far the ends are from the value; or from its difference to another figure.

        `other` is the influence of each patient on that.
        """
        deviation = np.linalg.norm(self.by_patient - other)
        return float(stats.t.ppf(0.975, max(1, self.n - 1)) * deviation)

    def interval(self) -> Any:
        """Return [value, low, high], [value, None, None] of too few patients, or None of none."""
        value = float(self.value)
        if not np.isfinite(value):
            return None
        if self.n_rarer < MIN_PATIENTS:
            return [value, None, None]
        if value in (0, 1):
            low = float(stats.beta.ppf(0.025, self.n + 0.5, 0.5))
            return [value, low, value] if value else [value, value, 1 - low]

        reach = self.reach() * np.array([-1, 1])
        plain = value + reach
        if self.scale == "plain" or not 0 < value < 1:    # a kappa below 0, a Brier score above 1
            return [value, *plain.tolist()]
        scaled = reach / (value * (1 - value))    # the delta method
        ends = expit(logit(value) + scaled)
        if self.scale == "both":
            ends = np.append(ends, plain)
        reached = value - ends.min(), ends.max() - value
        below, above = np.hypot(reached, self.unseen).tolist()
        return [value, max(0.0, value - below), min(1.0, value + above)]


NOTHING = Figure(np.nan, np.zeros(0), 0)


class Patients:
    """The patients of a test, and how much each record counts.

    Parameters
    ----------
    subjects : ndarray, shape (n,)
    targets : ndarray of int, shape (n,)
    prevalence : ndarray, shape (n_classes,), optional
        What the classes are weighted to.
    """

    def __init__(
        self,
        subjects: np.ndarray,
        targets: np.ndarray,
        prevalence: np.ndarray | None = None,
    ) -> None:
        self.number, names = pd.factorize(subjects)
        self.n = len(names)
        self.targets = targets
        self.is_weighted = prevalence is not None
        self.weight = np.ones(len(targets))
        if prevalence is not None:
            drawn = np.bincount(targets, minlength=len(prevalence))
            self.weight = (prevalence / drawn.clip(1))[targets]

    def count(self, records: np.ndarray) -> np.ndarray:
        """Return for each column of a mask (n, columns) how many patients have such a record."""
        return pd.DataFrame(records).groupby(self.number).any().sum().to_numpy()

    def count_sides(self, records: np.ndarray) -> np.ndarray:
        """Return how many patients have one of these records, and how many another."""
        return self.count(np.column_stack([records, ~records]))

    def sums(self, influence: np.ndarray) -> np.ndarray:
        """Return the influence (n, columns) of records by patient (columns, patients)."""
        table = pd.DataFrame(influence)
        if self.is_weighted:    # what a class weighs is fixed
            table -= table.groupby(self.targets).transform("mean")
        return table.groupby(self.number).sum().to_numpy().T

    def shares(self, right: np.ndarray, of: np.ndarray) -> list[Figure]:
        """Return for each column which share of `of` is right; both have the shape (n, columns)."""
        n = self.count(of > 0)
        with np.errstate(invalid="ignore"):    # of nothing
            total = self.weight @ of
            values = self.weight @ right / total
            excess = self.weight[:, None] * (right - values * of)
            influence = self.sums(excess / total)
        correction = np.sqrt(n / np.maximum(1, n - 1))
        influence *= correction[:, None]
        of_one_patient = np.outer(n == 1, [1, 1])    # who shows no deviation
        return list(map(Figure, values, influence, n, of_one_patient))

    def mean_share(self, figures: list[Figure]) -> Figure:
        """Return the mean of the shares that there are."""
        figures = [figure for figure in figures if np.isfinite(figure.value)]
        values, n = np.array([(figure.value, figure.n) for figure in figures]).T
        mean, k = values.mean(), len(values)
        if mean in (0, 1):
            return figures[0]._replace(n=k**2 / (1 / n).sum())

        losses = 1 - stats.beta.ppf(0.025, n + 0.5, 0.5)
        beyond = min(1, 2 / k) / k * losses
        unseen = [np.linalg.norm(beyond[values == end]) for end in (1, 0)]
        by_patient = np.mean([figure.by_patient for figure in figures], axis=0)
        return Figure(mean, by_patient, self.n, unseen)

    def areas(self, positive: np.ndarray, p: np.ndarray) -> tuple[Figure, Figure]:
        """Return the area under the ROC curve and the average precision of one class.

        Parameters
        ----------
        positive : ndarray of bool, shape (n,)
        p : ndarray, shape (n,), probabilities of the class
        """
        n = self.count_sides(positive)
        if not n.all():
            return NOTHING, NOTHING

        order = np.argsort(p)

        def below(weights, side="left"):
            """Sum up the weights of records with a lower p; if side is "right", or the same."""
            sums = np.append(0, np.cumsum(weights[order]))
            return sums[np.searchsorted(p[order], p, side)]

        sides = np.column_stack([positive, ~positive]) * self.weight[:, None]
        sides /= sides.sum(axis=0)
        own, others = sides.T
        beaten = (below(others) + below(others, "right")) / 2
        beating = 1 - (below(own) + below(own, "right")) / 2
        in_order = np.where(positive, beaten, beating)
        area = round(own @ in_order, 12)
        effective = 4 / (1 / n).sum()
        if area < 1:
            lost = sides * (1 - in_order)[:, None]
            losses = pd.DataFrame(lost).groupby(self.number).sum()
            shared = losses.sum() ** 2 / (losses**2).sum()
            effective = 2 + shared.min()

        odds = self.weight @ ~positive / (self.weight @ positive)
        sensitivity = 1 - below(own)
        called = sensitivity + odds * (1 - below(others))
        precision = sensitivity / called
        average = round(own @ precision, 12)
        gain = positive * (precision - average + below(own / called, "right"))
        gain -= below(own * precision / called, "right")
        of_area = sides.sum(axis=1) * (in_order - area)
        of_average = self.weight / (self.weight @ positive) * gain
        own_area, own_average = self.sums(np.column_stack([of_area, of_average]))
        n_rarer = n.min()
        return (
            Figure(area, own_area, effective, (0, 0), "logit", n_rarer),
            Figure(average, own_average, n_rarer, (0, 0), "logit", n_rarer))


def calibration_losses(
    probabilities: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return for each record (n,) of what expected calibration error and Brier score are the means.

    The error is over 10 bins of the confidence (Guo et al., ICML 2017); the score is from 0 to 2
    (Brier, Monthly Weather Review 1950;78:1-3).
    """
    confidence = probabilities.max(axis=1)
    excess = confidence - (probabilities.argmax(axis=1) == targets)
    bins = (confidence * N_BINS).astype(int).clip(max=N_BINS - 1)
    side = np.sign(np.bincount(bins, weights * excess))
    truth = np.eye(probabilities.shape[1])[targets]
    return {
        "expected calibration error": side[bins] * excess,
        "Brier score": ((probabilities - truth) ** 2).sum(axis=1)}


def calibration(
    patients: Patients,
    probabilities: np.ndarray,
) -> dict[str, Figure]:
    """Return expected calibration error, Brier score, and calibration slope and intercept.

    The last two are of a logistic regression of being right on the logit of the confidence (Cox,
    Biometrika 1958;45:562-565). Ideal are 1 and 0.
    """
    losses = calibration_losses(probabilities, patients.targets, patients.weight)
    columns = np.column_stack(list(losses.values()))
    means = patients.shares(columns, np.ones_like(columns))
    figures = dict(zip(losses, means, strict=True))

    is_right = probabilities.argmax(axis=1) == patients.targets
    n_rarer = patients.count_sides(is_right).min()
    names = "calibration intercept", "calibration slope"
    if not n_rarer:
        return figures | dict.fromkeys(names, NOTHING)
    confidence = probabilities.max(axis=1).clip(1e-6, 1 - 1e-6)
    x = logit(confidence)[:, None]
    regression = LogisticRegression(C=1000).fit(x, is_right, patients.weight)
    p = regression.predict_proba(x)[:, 1:]
    columns = np.hstack([x**0, x])
    weighted = columns * patients.weight[:, None]
    curvature = (weighted * p * (1 - p)).T @ columns
    influence = patients.sums(weighted * (is_right[:, None] - p) @ np.linalg.pinv(curvature))
    fitted = *regression.intercept_, *regression.coef_[0]
    return figures | {
        name: Figure(value, own, n_rarer, (0, 0), "plain", n_rarer)
        for name, value, own in zip(names, fitted, influence, strict=True)}


def labels_alone(
    patients: Patients,
    predicted: np.ndarray,
    n_classes: int,
) -> tuple[dict, dict]:
    """Return the figures that predicted classes give: overall, and by class."""
    truth = np.eye(n_classes)[patients.targets]
    called = np.eye(n_classes)[predicted]
    hits = truth * called
    passed = (1 - truth) * (1 - called)
    in_either = (truth + called) * truth.any(axis=0)    # of no record, there is no F1
    shares = patients.shares
    by_class = {
        "recall": shares(hits, truth),
        "precision": shares(hits, called),
        "F1": shares(2 * hits, in_either),
        "specificity": shares(passed, 1 - truth),
        "negative predictive value": shares(passed, 1 - called)}

    is_right = hits.sum(axis=1, keepdims=True)
    accuracy, = shares(is_right, np.ones_like(is_right))
    weight = patients.weight / patients.weight.sum()
    beyond_chance = 1 - (weight @ truth) @ (weight @ called) or np.nan    # all of one class
    kappa = accuracy._replace(
        value=1 - (1 - accuracy.value) / beyond_chance,
        by_patient=accuracy.by_patient / beyond_chance,
        n=accuracy.n * beyond_chance)
    return {
        "accuracy": accuracy,
        "balanced accuracy": patients.mean_share(by_class["recall"]),
        "macro F1": patients.mean_share(by_class["F1"]),
        "Cohen's kappa": kappa,
    }, by_class


def measure(
    probabilities: np.ndarray,
    targets: np.ndarray,
    subjects: np.ndarray,
    prevalence: np.ndarray | None = None,
) -> tuple[dict, dict]:
    """Return all figures of a test, overall and by class.

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_classes)
    targets : ndarray of int, shape (n,)
    subjects : ndarray, shape (n,), patients
    prevalence : ndarray, shape (n_classes,), optional
        What the classes are weighted to; without it, all records count alike.

    Returns
    -------
    overall, by_class : dict
        By name, a `Figure`, or one for each class.
    """
    patients = Patients(subjects, targets, prevalence)
    n_classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    overall, by_class = labels_alone(patients, predicted, n_classes)

    areas = [
        patients.areas(targets == number, p)
        for number, p in enumerate(probabilities.T)]
    by_class["AUROC"], by_class["average precision"] = map(list, zip(*areas, strict=True))
    return overall | calibration(patients, probabilities), by_class

"""Figures of a test with 95 % intervals, all of them from one bootstrap of its patients.

How an interval is made (`RESAMPLES`, `SEED`; nothing else is random):

1. Patients are drawn with replacement, as many as there are, and each figure is computed from all
   records of those drawn. The ends are percentiles (Efron & Tibshirani, An Introduction to the
   Bootstrap, 1993).
2. A share of which all are right, or none, has no width there. Its resamples are then drawn from
   Jeffreys' posterior of its n patients, Beta(n + 1/2, 1/2) (Brown, Cai & DasGupta, Statistical
   Science 2001;16:101-133). In a mean over classes they count as deviations from their own mean: it
   lies below 1, and over many classes these shifts would add up; and with the variance that a prior
   worth one patient, at the mean of all k classes, would leave, or 4/k^2 of it. Where all classes
   are right, or none, they count as they are. Each end is the farther one of with and without.
3. All of these, area under the ROC curve and average precision: value +-
   t * deviation of the resamples, on the logit scale (by the delta method), where that reaches
   farther. Student's t has one degree of freedom less than the share has patients; of areas, one
   more than patients share what is out of order (`Resamples.effective`): few tell little of it.
4. Areas where all are in order have no width either way: half a patient of the class who looks like
   the others, and half a patient of them who looks like the class, are added to each resample with
   random weights, Gamma(1/2). Below `MIN_PATIENTS` on either side areas have no interval.

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
from scipy import stats
from scipy.integrate import trapezoid
from scipy.special import expit, logit

RESAMPLES = 1000            # of the patients
SEED = 42                   # of the resamples
MAX_DRAWN_RECORDS = 1_000_000    # records times resamples: fewer of these where records are many
MIN_RESAMPLES = 100
FEW_RESAMPLES = 200         # where a deviation is enough, or fits are slow
MIN_PATIENTS = 10           # on either side, for the interval of an area or of a calibration slope
NEWTON_STEPS = 20           # at most
TOLERANCE = 1e-4            # of a slope: fitted
RIDGE = 1e-3                # weight of a slope of 0, so that separable resamples have one
N_BINS = 10                 # of the confidence

IN_WORDS = f"""\
95 % intervals are from a bootstrap of the test patients ({RESAMPLES:,} resamples). Where all of a
class are right, it has no width, and Jeffreys' posterior of its patients is drawn from instead: few
patients without an error give a wide interval. All but kappa, Brier score and calibration have one
on the logit scale as well; each end is the farthest. Too few: less than {MIN_PATIENTS}
patients on one of the two sides. The docstring of ecg/intervals.py has the details, and how to make
them again from predictions.csv."""


class Figure(NamedTuple):
    """A figure of the test (first) and of its resamples, shape (1 + resamples,)."""

    plain: np.ndarray
    widened: np.ndarray      # by step 2 or 4 above, where all or none are right; else as plain
    freedom: float = 0       # degrees of it, where an interval is made on the logit scale too
    patients: int = MIN_PATIENTS    # of the rarer side, where that matters

    def interval(self) -> Any:
        """Return [value, low, high], [value, None, None] of too few patients, or None of none."""
        value = float(self.plain[0])
        if not np.isfinite(value) or not self.patients:
            return None
        if self.patients < MIN_PATIENTS:
            return [value, None, None]

        both = self.plain[1:], self.widened[1:]
        ends = np.nanpercentile(both, [2.5, 97.5], axis=1).ravel()
        if self.freedom and 0 < value < 1:
            deviation = np.nanstd(self.widened[1:]) / (value * (1 - value))    # the delta method
            reach = stats.t.ppf(0.975, self.freedom) * deviation
            lower = expit(logit(value) - reach)
            upper = expit(logit(value) + reach)
            ends = np.append(ends, [lower, upper])

        low, *_, high = sorted([value, *ends.tolist()])
        return [value, low, high]


class Resamples:
    """Resamples of the patients of a test.

    Attributes
    ----------
    patient : ndarray of int, shape (n,)
    n_patients : int
    times : ndarray, shape (1 + resamples, n), how often each record counts; first: once
    """

    def __init__(self, subjects: np.ndarray) -> None:
        names, self.patient = np.unique(subjects, return_inverse=True)
        self.n_patients = n = len(names)
        fitting = MAX_DRAWN_RECORDS // len(self.patient)
        n_draws = int(np.clip(fitting, MIN_RESAMPLES, RESAMPLES))
        self.rng = np.random.default_rng(SEED)
        draws = self.rng.multinomial(n, [1 / n] * n, n_draws)
        self.times = np.vstack([np.ones(n), draws])[:, self.patient]

    def weight(self, targets: np.ndarray, prevalence: np.ndarray) -> None:
        """Give each class its prevalence in `times`."""
        drawn = self.times @ np.eye(len(prevalence))[targets]
        weights = prevalence / drawn.clip(1)
        self.times = self.times * weights[:, targets]

    def count(self, records: np.ndarray) -> int:
        """Return how many patients have one of these records, given as a mask."""
        return len(np.unique(self.patient[records]))

    def shares(self, right: np.ndarray, of: np.ndarray) -> list[Figure]:
        """Return for each column which share of `of` is right; both have the shape (n, columns)."""
        with np.errstate(invalid="ignore"):    # what was not drawn
            plain = (self.times @ right) / (self.times @ of)

        figures = []
        for number, values in enumerate(plain.T):
            n = max(1, self.count(of[:, number] > 0))
            widened = values
            if values[0] in (0, 1):
                drawn = self.rng.beta(n + 0.5, 0.5, len(values) - 1)
                if values[0] == 0:
                    drawn = 1 - drawn
                widened = np.append(values[0], drawn)
            freedom = max(1, n - 1)
            figures.append(Figure(values, widened, freedom))
        return figures

    def areas(self, positive: np.ndarray, p: np.ndarray) -> list[Figure]:
        """Return the area under the ROC curve and the average precision of one class.

        Parameters
        ----------
        positive : ndarray of bool, shape (n,)
        p : ndarray, shape (n,), probabilities of the class
        """
        times = self.times[:1 + FEW_RESAMPLES]
        widened = plain = weighted_areas(positive, p, times)
        if plain[0, 0] == 1:
            shape = len(times), 2    # half a patient on either side, of a patient's mean weight
            halves = self.rng.gamma(0.5, size=shape)
            halves *= times.sum(axis=1, keepdims=True) / self.n_patients
            like_others = np.median(p[~positive]), np.median(p[positive])
            widened = weighted_areas(
                np.append(positive, [True, False]),
                np.append(p, like_others),
                np.hstack([times, halves]))

        freedom = 1 + self.effective(positive, p)
        n_rarer = min(self.count(positive), self.count(~positive))
        return [Figure(*both, freedom, n_rarer) for both in zip(plain, widened, strict=True)]

    def effective(self, positive: np.ndarray, p: np.ndarray) -> float:
        """Return the number of patients who share what is out of order, on the side with fewer.

        Of losses x by patient it is sum(x)^2 / sum(x^2) (Kish, Survey Sampling, 1965): 1 if all is
        one patient's.
        """
        own = np.sort(p[positive])
        others = np.sort(p[~positive])
        above = len(others) - np.searchsorted(others, p)
        below = np.searchsorted(own, p, "right")
        numbers = []
        for side, n_wrong in ((positive, above), (~positive, below)):
            losses = np.bincount(self.patient[side], n_wrong[side])
            squares = (losses**2).sum()
            numbers.append(losses.sum() ** 2 / max(1, squares))
        return max(1, min(numbers))


def weighted_areas(positive: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve and the average precision for each row of weights.

    Parameters
    ----------
    positive : ndarray of bool, shape (n,)
    p : ndarray, shape (n,), probabilities of the class
    weights : ndarray, shape (draws, n), how often each record counts

    Returns
    -------
    ndarray, shape (2, draws); NaN where one of the two sides has no record
    """
    order = np.argsort(-p, kind="stable")
    is_cut = np.append(np.diff(p[order]) != 0, True)    # after records of the same probability
    weights = weights[:, order]
    of_class = weights * positive[order]
    sums = np.cumsum([of_class, weights], axis=2)[:, :, is_cut]
    from_zero = (0, 0), (0, 0), (1, 0)
    true_positives, called = np.pad(sums, from_zero)
    false_positives = called - true_positives
    n_positive = true_positives[:, -1]
    n_negative = false_positives[:, -1]

    with np.errstate(invalid="ignore", divide="ignore"):
        area = trapezoid(true_positives, false_positives)
        area /= n_positive * n_negative
        precision = np.nan_to_num(true_positives / called)[:, 1:]
        gains = np.diff(true_positives) * precision
        average = gains.sum(axis=1) / n_positive
    return np.stack([area, average])


def logistic(x: np.ndarray, is_right: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Fit a logistic regression for each row of weights, by Newton's method.

    Parameters
    ----------
    x : ndarray, shape (n,)
    is_right : ndarray of bool, shape (n,)
    times : ndarray, shape (draws, n)

    Returns
    -------
    ndarray, shape (2, draws), intercepts and slopes
    """
    columns = np.stack([x**0, x])
    products = np.stack([x**0, x, x, x**2], axis=1)
    fitted = np.zeros((len(times), 2))
    for _ in range(NEWTON_STEPS):
        p = expit(fitted @ columns)
        gradient = (times * (is_right - p)) @ columns.T - RIDGE * fitted
        curvature = (times * p * (1 - p)) @ products
        matrices = curvature.reshape(-1, 2, 2) + RIDGE * np.eye(2)
        step = np.linalg.solve(matrices, gradient[:, :, None])[:, :, 0]
        fitted += step.clip(-2, 2)
        if np.abs(step).max() < TOLERANCE:
            break
    return fitted.T


def calibration_errors(
    probabilities: np.ndarray,
    targets: np.ndarray,
    times: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return expected calibration error, over 10 bins of the confidence, and Brier score, 0 to 2.

    Guo et al., ICML 2017; Brier, Monthly Weather Review 1950;78:1-3. Each has the shape (draws,),
    for `times` of shape (draws, n).
    """
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == targets
    tenths = (confidence * N_BINS).astype(int)
    bins = np.eye(N_BINS)[np.minimum(tenths, N_BINS - 1)]
    gaps = times @ (bins.T * (confidence - is_right)).T

    truth = np.eye(probabilities.shape[1])[targets]
    distance = ((probabilities - truth) ** 2).sum(axis=1)
    total = times.sum(axis=1)
    return {
        "expected calibration error": np.abs(gaps).sum(axis=1) / total,
        "Brier score": times @ distance / total}


def calibration(
    resamples: Resamples,
    probabilities: np.ndarray,
    targets: np.ndarray,
) -> dict[str, Figure]:
    """Return `calibration_errors`, and calibration slope and intercept.

    These are of a logistic regression of being right on the logit of the confidence (Cox,
    Biometrika 1958;45:562-565). Ideal are 1 and 0.
    """
    errors = calibration_errors(probabilities, targets, resamples.times)
    figures = {name: Figure(values, values) for name, values in errors.items()}

    is_right = probabilities.argmax(axis=1) == targets
    n_rarer = min(resamples.count(is_right), resamples.count(~is_right))
    confidence = probabilities.max(axis=1).clip(1e-6, 1 - 1e-6)
    few = resamples.times[:1 + FEW_RESAMPLES]
    fitted = logistic(logit(confidence), is_right, few)
    for name, values in zip(("intercept", "slope"), fitted, strict=True):
        figures[f"calibration {name}"] = Figure(values, values, patients=n_rarer)
    return figures


def labels_alone(
    resamples: Resamples,
    targets: np.ndarray,
    predicted: np.ndarray,
    n_classes: int,
) -> tuple[dict[str, Figure], dict[str, list[Figure]]]:
    """Return the figures that predicted classes give: overall, and by class."""
    truth = np.eye(n_classes)[targets]
    called = np.eye(n_classes)[predicted]
    hits = truth * called
    passed = (1 - truth) * (1 - called)
    in_either = (truth + called) * truth.any(axis=0)    # of no record, there is no F1
    shares = resamples.shares
    by_class = {
        "recall": shares(hits, truth),
        "precision": shares(hits, called),
        "F1": shares(2 * hits, in_either),
        "specificity": shares(passed, 1 - truth),
        "negative predictive value": shares(passed, 1 - called)}

    times = resamples.times
    total = times.sum(axis=1)
    weights = (times @ truth).T / total
    by_chance = (weights.T * (times @ called)).sum(axis=1) / total
    by_chance[by_chance == 1] = np.nan    # all of one class, and called it
    freedom = max(1, resamples.n_patients - 1)

    def mean(kind: str) -> Figure:
        own = [figure for figure in by_class[kind] if np.isfinite(figure.plain[0])]
        plain = np.array([figure.plain for figure in own])
        widened = np.array([figure.widened for figure in own])
        wrong = 1 - plain[:, 0].mean()
        if 0 < wrong < 1:    # wider, but not shifted
            centre = np.nanmean(plain, axis=1, keepdims=True)
            deviation = widened - np.nanmean(widened, axis=1, keepdims=True)
            share = max(2 * wrong, (2 / len(own)) ** 2)    # of the posterior's variance
            factor = min(1, share) ** 0.5
            is_perfect = plain[:, :1] == 1
            widened = centre + deviation * np.where(is_perfect, factor, 1)
        return Figure(np.nanmean(plain, axis=0), np.nanmean(widened, axis=0), freedom)

    is_right = hits.sum(axis=1, keepdims=True)
    accuracy, = shares(is_right, np.ones_like(is_right))
    kappas = [
        (scores - by_chance) / (1 - by_chance)
        for scores in (accuracy.plain, accuracy.widened)]
    return {
        "accuracy": accuracy,
        "balanced accuracy": mean("recall"),
        "macro F1": mean("F1"),
        "Cohen's kappa": Figure(*kappas),
    }, by_class


def measure(
    probabilities: np.ndarray,
    targets: np.ndarray,
    subjects: np.ndarray,
    prevalence: np.ndarray | None = None,
) -> tuple[dict[str, Figure], dict[str, list[Figure]]]:
    """Return all figures of a test, overall and by class, with their resamples.

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
    resamples = Resamples(subjects)
    if prevalence is not None:
        resamples.weight(targets, prevalence)
    n_classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    overall, by_class = labels_alone(resamples, targets, predicted, n_classes)

    areas = [resamples.areas(targets == number, p) for number, p in enumerate(probabilities.T)]
    by_class["AUROC"], by_class["average precision"] = map(list, zip(*areas, strict=True))
    return overall | calibration(resamples, probabilities, targets), by_class

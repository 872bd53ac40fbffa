"""Intervals: each figure is what its name says, and nominal 95 % cover."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as scores

from ecg import intervals
from ecg.intervals import Resamples, measure
from ecg.metrics import all_figures


def example(n=200, k=3, seed=0):
    """Return probabilities, targets and patients of a test."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, k, n)
    p = rng.dirichlet(np.ones(k), n) + rng.random((n, 1)) * np.eye(k)[targets]
    return p / p.sum(axis=1, keepdims=True), targets, rng.integers(0, n // 2, n)


def test_every_figure_is_that_of_scikit_learn():
    p, targets, subjects = example()
    overall, by_class = measure(p, targets, subjects)
    predicted = p.argmax(axis=1)
    value = {name: figure.plain[0] for name, figure in overall.items()}
    assert value["accuracy"] == scores.accuracy_score(targets, predicted)
    assert value["balanced accuracy"] == pytest.approx(
        scores.balanced_accuracy_score(targets, predicted))
    assert value["Cohen's kappa"] == pytest.approx(scores.cohen_kappa_score(targets, predicted))
    assert value["macro F1"] == pytest.approx(
        scores.f1_score(targets, predicted, average="macro"))
    table = scores.precision_recall_fscore_support(targets, predicted)
    for number in range(3):
        of_class, called = targets == number, predicted == number
        expected = {
            "precision": table[0][number], "recall": table[1][number], "F1": table[2][number],
            "specificity": np.mean(~called[~of_class]),
            "negative predictive value": np.mean(~of_class[~called]),
            "AUROC": scores.roc_auc_score(of_class, p[:, number]),
            "average precision": scores.average_precision_score(of_class, p[:, number])}
        assert {name: figures[number].plain[0] for name, figures in by_class.items()} == (
            pytest.approx(expected))


def test_a_perfect_area_has_an_interval_with_width_but_not_that_of_the_worst_case():
    resamples = Resamples(np.arange(60))
    area, average = (figure.interval() for figure in resamples.areas(
        np.arange(60) < 12, 1 - np.arange(60) / 60))
    worst = stats.beta.ppf(0.025, 12.5, 0.5)    # a patient of the class below all others
    for value, low, high in (area, average):
        assert (value, high) == (1, 1)
        assert worst < low < 0.98


@pytest.mark.parametrize(("n_of_class", "is_few"), [(9, True), (10, False)])
def test_with_too_few_patients_there_is_an_area_and_no_interval(n_of_class, is_few):
    targets = (np.arange(80) < n_of_class).astype(int)
    p = np.random.default_rng(0).random(80)
    area = all_figures(np.column_stack([1 - p, p]), targets, np.arange(80), ["a", "b"])[
        "by class"]["b"]["AUROC"]
    assert area[0] is not None
    assert (area[1] is None) == is_few


def test_an_untested_class_has_neither_recall_nor_areas():
    p, targets, subjects = example()
    of_third = all_figures(p, targets.clip(0, 1), subjects, ["a", "b", "c"])["by class"]["c"]
    assert {name for name, figure in of_third.items() if not figure} == {
        "recall", "F1", "AUROC", "average precision"}


def test_predictive_values_at_a_prevalence_are_those_of_bayes():
    p, targets, subjects = example()
    prevalence = np.array([0.7, 0.2, 0.1])
    _, even = measure(p, targets, subjects)
    _, by_class = measure(p, targets, subjects, prevalence)
    called = p.argmax(axis=1)
    rates = np.array([[np.mean(called[targets == i] == j) for j in range(3)] for i in range(3)])
    joint = prevalence[:, None] * rates
    for j in range(3):
        assert by_class["recall"][j].plain[0] == pytest.approx(even["recall"][j].plain[0])
        assert by_class["precision"][j].plain[0] == pytest.approx(joint[j, j] / joint[:, j].sum())
        others = np.delete(joint, j, axis=0)
        assert by_class["specificity"][j].plain[0] == pytest.approx(
            np.delete(others, j, axis=1).sum() / others.sum())


def test_the_calibration_slope_and_intercept_are_those_that_were_put_in():
    rng = np.random.default_rng(0)
    logit = rng.normal(1.5, 0.5, 20000)
    p = 1 / (1 + np.exp(-logit.clip(0.01)))
    is_right = rng.random(20000) < 1 / (1 + np.exp(-0.5 * logit.clip(0.01)))
    overall, _ = measure(np.column_stack([p, 1 - p]), 1 - is_right, np.arange(20000))
    slope, intercept = (overall[f"calibration {name}"].interval()
                        for name in ("slope", "intercept"))
    assert slope[0] == pytest.approx(0.5, abs=0.1)
    assert slope[1] < 0.5 < slope[2]
    assert intercept[1] < 0 < intercept[2]
    assert measure(np.eye(2)[[0, 1] * 20] * 0.8 + 0.1, np.array([0, 1] * 20), np.arange(40))[0][
        "calibration slope"].interval() is None    # all right: not known


# ---------------------------------------------------------------------------------------- coverage
CELLS = list(itertools.product((2, 5, 20), (80, 400), (1, 4), (0.9, 0.99)))
ENOUGH = 0.93 - 2 * np.sqrt(0.93 * 0.07 / 400)    # less two standard errors of 400 runs


def simulated(rng, k, n_patients, each, truth):
    """Return targets, predicted classes and patients, whose records are right alike."""
    subjects = np.repeat(np.arange(n_patients), each)
    own = rng.beta(truth * 4, (1 - truth) * 4, n_patients)    # how often a patient's are right
    targets = subjects % k
    is_right = rng.random(len(subjects)) < own[subjects]
    others = (targets + rng.integers(1, k, len(subjects))) % k
    return targets, np.where(is_right, targets, others), subjects


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_nominal_95_percent_of_both_accuracies_cover(cell):
    k, *_, truth = cell
    rng = np.random.default_rng(7)
    ends, plain = [], []
    for _ in range(400):
        targets, predicted, subjects = simulated(rng, *cell)
        resamples = Resamples(subjects)
        overall, _ = intervals.labels_alone(resamples, targets, predicted, k)
        both = overall["accuracy"], overall["balanced accuracy"]
        ends.append([figure.interval()[1:] for figure in both])
        plain.append([np.percentile(figure.plain[1:], [2.5, 97.5]) for figure in both])
    check_coverage(np.array(ends), np.array(plain), truth)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell[1] / cell[0] >= 10], ids=str)
def test_nominal_95_percent_of_the_area_under_the_roc_curve_cover(cell):
    """Normal scores of two groups whose patients differ as much as a patient's records do."""
    k, n_patients, each, truth = cell
    rng = np.random.default_rng(7)
    subjects = np.repeat(np.arange(n_patients), each)
    positive = subjects % k == 0
    ends, plain = [], []
    for _ in range(400):
        own = rng.normal(size=n_patients)[subjects] + rng.normal(size=len(subjects))
        p = own / np.sqrt(2) + positive * np.sqrt(2) * stats.norm.ppf(truth)
        resamples = Resamples(subjects)
        area, _ = resamples.areas(positive, p)
        ends.append([area.interval()[1:]])
        plain.append([np.percentile(area.plain[1:], [2.5, 97.5])])
    check_coverage(np.array(ends), np.array(plain), truth)


def check_coverage(ends, plain, truth):
    """Of each figure: (runs, figures, low and high) cover, and are not much wider than need be."""
    def covered(pairs):
        return ((pairs[..., 0] <= truth) & (truth <= pairs[..., 1])).mean(axis=0)

    widths = (np.ptp(pairs, axis=2).mean(axis=0) for pairs in (ends, plain))
    ratio = np.divide(*widths)
    print(f"covers {covered(ends).round(3)}, plain {covered(plain).round(3)}, "
          f"width {ratio.round(2)} of it")
    assert (covered(ends) >= ENOUGH).all()
    assert (ratio[covered(plain) >= 0.95] <= 1.25).all()

"""Intervals: each figure is what its name says, and nominal 95 % cover."""

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import trapezoid
from sklearn import metrics as scores

from ecg.intervals import Patients, labels_alone, measure
from ecg.metrics import accuracies, all_figures


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
    value = {name: figure.value for name, figure in overall.items()}
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
        assert {name: figures[number].value for name, figures in by_class.items()} == (
            pytest.approx(expected))


def test_where_all_are_in_order_the_area_is_as_sure_as_the_accuracies_and_the_precision_less():
    targets = (np.arange(60) < 12).astype(int)
    p = 1 - np.arange(60) / 60
    _, by_class = measure(np.column_stack([1 - p, p]) ** 9, targets, np.arange(60))
    low = stats.beta.ppf(0.025, 4 / (1 / 12 + 1 / 48) + 0.5, 0.5)
    assert by_class["AUROC"][1].interval() == pytest.approx([1, low, 1])
    of_12 = stats.beta.ppf(0.025, 12.5, 0.5)
    assert by_class["average precision"][1].interval() == pytest.approx([1, of_12, 1])


def test_a_class_of_few_patients_without_an_error_lowers_the_low_end_of_the_mean():
    targets = np.repeat([0, 1], [10, 200])
    predicted = np.where(np.arange(210) % 10 == 9, 0, targets)    # all of class 0 are right
    value, low, high = accuracies(targets, predicted, np.arange(210))["balanced accuracy"]
    assert value == pytest.approx(0.95)
    assert low == pytest.approx((stats.beta.ppf(0.025, 10.5, 0.5) + 0.9) / 2, abs=0.01)
    assert value < high < 0.98


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
        assert by_class["recall"][j].value == pytest.approx(even["recall"][j].value)
        assert by_class["precision"][j].value == pytest.approx(joint[j, j] / joint[:, j].sum())
        others = np.delete(joint, j, axis=0)
        assert by_class["specificity"][j].value == pytest.approx(
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
MOST_CELLS = [cell for cell in CELLS if cell[1] / cell[0] >= 10]    # patients of a class
RUNS = 400
SKEWED = 20, 400, 4, 0.99    # the losses of 20 patients, of whom few have any


def check_coverage(ends, plain, truth, least=0.93):
    """Of each figure: (runs, figures, low and high) cover, and are not much wider than need be."""
    def covered(pairs):
        return ((pairs[..., 0] <= truth) & (truth <= pairs[..., 1])).mean(axis=0)

    ends, plain = np.array(ends), np.array(plain)
    widths = (np.ptp(pairs, axis=2).mean(axis=0) for pairs in (ends, plain))
    ratio = np.divide(*widths)
    print(f"covers {covered(ends).round(3)}, plain {covered(plain).round(3)}, "
          f"width {ratio.round(2)} of it")
    assert (covered(ends) >= least).all()
    assert (ratio[covered(plain) >= 0.93] <= 1.25).all()


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_nominal_95_percent_of_both_accuracies_cover(cell):
    k, n_patients, each, truth = cell
    rng = np.random.default_rng(7)
    subjects = np.repeat(np.arange(n_patients), each)
    targets = subjects % k
    ends, plain = [], []
    for _ in range(RUNS):
        own = rng.beta(truth * 4, (1 - truth) * 4, n_patients)    # how often a patient's are right
        is_right = rng.random(len(subjects)) < own[subjects]
        overall, _ = labels_alone(
            Patients(subjects, targets), np.where(is_right, targets, (targets + 1) % k), k)
        ends.append([overall[name].interval()[1:] for name in ("accuracy", "balanced accuracy")])

        times = rng.multinomial(n_patients, [1 / n_patients] * n_patients, 500)
        of_class = times[:, :, None] * np.eye(k)[targets[::each]]
        n_right = is_right.reshape(-1, each).mean(axis=1) @ of_class
        with np.errstate(invalid="ignore"):    # a class that was not drawn
            recall = n_right / of_class.sum(axis=1)
        both = n_right.sum(axis=1) / n_patients, np.nanmean(recall, axis=1)
        plain.append(np.percentile(both, [2.5, 97.5], axis=1).T)
    check_coverage(ends, plain, truth)


def average_precision(share, shift):
    """Return that of a class whose scores are N(shift, 1), the others' N(0, 1)."""
    scores = np.linspace(-8, shift + 8, 100_001)
    of_class = share * stats.norm.sf(scores - shift)
    precision = of_class / (of_class + (1 - share) * stats.norm.sf(scores))
    return trapezoid(precision * stats.norm.pdf(scores - shift), scores)


def bootstrap_areas(positive, p, times):
    """Return area under the ROC curve and average precision (draws, 2) of resamples (draws, n)."""
    order = np.argsort(-p)
    called = times[:, order].cumsum(axis=1)
    of_class = times[:, order] * positive[order]
    hits = of_class.cumsum(axis=1)
    false = called - hits
    total = hits[:, -1]
    area = 1 - (of_class * false).sum(axis=1) / (total * false[:, -1])
    with np.errstate(invalid="ignore"):
        precision = np.nan_to_num(hits / called)
    return np.column_stack([area, (of_class * precision).sum(axis=1) / total])


@pytest.mark.slow
@pytest.mark.parametrize("cell", MOST_CELLS, ids=str)
def test_nominal_95_percent_of_both_areas_cover(cell):
    """Normal scores of two groups whose patients differ as much as a patient's records do."""
    k, n_patients, each, truth = cell
    rng = np.random.default_rng(7)
    subjects = np.repeat(np.arange(n_patients), each)
    positive = subjects % k == 0
    shift = np.sqrt(2) * stats.norm.ppf(truth)
    ends, plain = [], []
    for _ in range(RUNS):
        own = rng.normal(size=n_patients)[subjects] + rng.normal(size=len(subjects))
        p = own / np.sqrt(2) + positive * shift
        areas = Patients(subjects, positive).areas(positive, p)
        ends.append([area.interval()[1:] for area in areas])
        times = rng.multinomial(n_patients, [1 / n_patients] * n_patients, 100)[:, subjects]
        plain.append(np.percentile(bootstrap_areas(positive, p, times), [2.5, 97.5], axis=0).T)
    least = 0.91 if cell == SKEWED else 0.93, 0.93
    check_coverage(ends, plain, [truth, average_precision(1 / k, shift)], least)

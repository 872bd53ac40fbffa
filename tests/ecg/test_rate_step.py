"""The rate step: the heart rate decides between bradycardia, normal and tachycardia."""

import numpy as np
import pytest

import too_feature as script
from ecg.errors import UserError
from ecg.rate_step import NO_STEP, RateStep, fit_limits, fixed_limits, of_card, rate_places
from tests.support import models

STEP = RateStep([1, 3, 4], [60.0, 100.0])
THREE = [0, 1, 2]    # bradycardia, normal, tachycardia alone


def labelled(limits, n=300, seed=0):
    """Return rates, and the classes that these limits give them."""
    rate = np.random.default_rng(seed).uniform(35, 150, n)
    return rate, np.digitize(rate, limits)


def test_the_sum_of_the_rate_classes_goes_to_the_class_of_the_rate_and_all_else_stays():
    core = np.array([[0.2, 0.1, 0.1, 0.5, 0.1]] * 5)
    after = STEP.apply(core, np.array([[40], [60], [80], [100], [150]]))
    np.testing.assert_allclose(after[:, [0, 2]], core[:, [0, 2]])
    half, whole = 0.35, 0.7
    np.testing.assert_allclose(
        after[:, [1, 3, 4]],
        [[whole, 0, 0], [half, half, 0], [0, whole, 0], [0, half, half], [0, 0, whole]], atol=1e-4)


def test_without_a_rate_the_cores_split_stays_but_for_what_is_above_half():
    core = np.array([[0.2, 0.1, 0.1, 0.5, 0.1], [0.0, 0.1, 0.0, 0.9, 0.0]])
    after = STEP.apply(core, np.full((2, 1), np.nan))
    np.testing.assert_allclose(after, [core[0], [0.0, 0.3, 0.0, 0.5, 0.2]])


def test_the_keras_model_does_the_same_without_a_weight_more():
    core = models.build("ensemble")
    model = STEP.behind(script.load_tensorflow()[1], core, script.HEART_RATE)
    rng = np.random.default_rng(0)
    ecg = rng.normal(size=(40, 500, 12)).astype(np.float32)
    features = rng.uniform(40, 130, (40, 8)).astype(np.float32)
    features[:10] = np.nan
    before = core.predict([ecg, features], verbose=0)
    after = model.predict([ecg, features], verbose=0)
    np.testing.assert_allclose(
        after, STEP.apply(before, features[:, [script.HEART_RATE]]), atol=1e-6)
    np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-6)
    assert np.abs(after - before).max() > 0.1    # without the step, predictions change
    assert model.count_params() == core.count_params()


# ----------------------------------------------------------------------------------------- limits
@pytest.mark.parametrize(("limits", "n", "least", "most"), [
    ((60, 100), 300, [58, 97], [62, 103]),
    ((50, 110), 300, [50, 104], [55, 110]),    # as many labels outweigh the reference range,
    ((50, 110), 12, [56, 99], [60, 104])])     # as few do not
def test_limits_are_those_that_labels_imply_as_far_as_there_are_labels(limits, n, least, most):
    fitted = fit_limits(*labelled(limits, n), THREE)
    assert least[0] <= fitted[0] <= most[0]
    assert least[1] <= fitted[1] <= most[1]


def test_other_classes_and_a_few_wrong_labels_move_no_limit():
    rate, targets = labelled((60, 100))
    before = fit_limits(rate, targets, THREE)
    others = np.append(rate, [55.0] * 50)
    np.testing.assert_allclose(
        fit_limits(others, np.append(targets, [3] * 50), THREE), before, atol=0.11)
    targets[np.argmax(rate)] = 0    # a rate of almost 150 that is labelled bradycardia
    np.testing.assert_allclose(fit_limits(rate, targets, THREE), before, atol=1)


# ---------------------------------------------------------------------------------------- classes
@pytest.mark.parametrize(("classes", "places"), [
    (models.CLASSES, [1, 3, 4]),
    (["SINUS TACHYCARDIA", "Sinus Bradycardia", "normal sinus rhythm", "Flutter"], [1, 2, 0]),
    (["Bradycardia", "Normal"], []),
    (["Bradycardia", "Tachycardia", "Abnormal"], []),
    (["Bradycardia", "Normal", "Ventricular Tachycardia"], []),
    (["Bradycardia", "Normal", "Tachycardia", "Sinus Tachycardia"], [])])
def test_there_is_a_step_where_each_rate_class_is_there_once(classes, places):
    assert rate_places(classes) == places


@pytest.mark.parametrize("text", ["60", "100,60", "60,nan", "slow,fast", "60,80,100"])
def test_a_setting_that_is_no_pair_of_limits_is_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"--set rate_limits=.*: expected two heart rates"):
        script.parse_settings(["--set", f"rate_limits={text}"])


def test_limits_are_fixed_fitted_or_none_as_the_recipe_says():
    assert fixed_limits("58.5,102") == [58.5, 102.0]
    assert fixed_limits(script.RECIPES["default"].rate_limits) == []
    assert script.RECIPES["thesis"].rate_limits == "none"
    assert of_card({"classes": models.CLASSES}) == NO_STEP
    assert of_card({"classes": models.CLASSES, "rate_limits": [60, 100]}) == STEP

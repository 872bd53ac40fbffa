"""A last layer fitted to few labels: near the start, and only where cross-validation speaks for it.

No TensorFlow.
"""

import numpy as np
import pandas as pd
import pytest

from ecg import adaptation
from ecg.adaptation import LastLayer
from ecg.errors import UserError

N, INPUTS, CLASSES = 60, 6, 3


@pytest.fixture
def start():
    rng = np.random.default_rng(0)
    return LastLayer(rng.normal(size=(INPUTS, CLASSES)), np.zeros(CLASSES))


@pytest.fixture
def inputs():
    return np.random.default_rng(1).normal(size=(N, INPUTS))


def distance(one, other):
    return np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(one, other, strict=True)))


def accuracy(layer, inputs, targets):
    return (layer.logits(inputs).argmax(axis=1) == targets).mean()


def other_hospital(start, inputs):
    """Return labels of a hospital that draws one line elsewhere."""
    moved = LastLayer(start.weights, np.add(start.bias, [1.5, 0, 0]))
    return moved.logits(inputs).argmax(axis=1)


# -------------------------------------------------------------------------------------------- fit
def test_a_fitted_layer_agrees_more_with_the_labels(start, inputs):
    targets = other_hospital(start, inputs)
    fitted = adaptation.fit_last_layer(inputs, targets, start)
    assert accuracy(fitted, inputs, targets) > accuracy(start, inputs, targets) + 0.1
    assert fitted.bias[0] - start.bias[0] > 0.2


def test_the_prior_holds_the_layer_near_the_start(start, inputs):
    targets = other_hospital(start, inputs)
    far = [distance(start, adaptation.fit_last_layer(inputs, targets, start, strength))
           for strength in (1, 10, 100, 1e6)]
    assert far == sorted(far, reverse=True)
    assert far[0] > 1
    assert far[-1] < 1e-3


def test_a_class_without_a_record_keeps_its_weights(start, inputs):
    fitted = adaptation.fit_last_layer(inputs, np.arange(N) % 2, start)
    np.testing.assert_array_equal(fitted.weights[:, 2], start.weights[:, 2])
    assert fitted.bias[2] == start.bias[2]
    assert distance(fitted, start) > 0.1


def test_the_fit_is_the_least_of_loss_and_prior(start, inputs):
    """Against numbers, not the gradient: no small step in any direction is better."""
    targets = other_hospital(start, inputs)

    def cost(layer):
        logits = layer.logits(inputs)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        weights = adaptation.class_weights(targets)
        return -(weights * log_p[np.arange(N), targets]).sum() + 5 * distance(layer, start) ** 2

    fitted = adaptation.fit_last_layer(inputs, targets, start)
    rng = np.random.default_rng(2)
    for _ in range(20):
        step = LastLayer(rng.normal(0, 0.02, start.weights.shape), rng.normal(0, 0.02, CLASSES))
        other = LastLayer(fitted.weights + step.weights, fitted.bias + step.bias)
        assert cost(other) > cost(fitted)


def test_no_record_of_a_rare_class_counts_as_much_as_three_others():
    weights = adaptation.class_weights(np.array([0] * 30 + [1]))
    assert weights[0] < weights[-1] < 3 * weights[0]
    assert weights.mean() == pytest.approx(1)


# ----------------------------------------------------------------------------------------- choose
def judged(monkeypatch, start, inputs, targets, change, patients=None):
    """Return what `adapt` makes of fits that are all the start with its bias changed like this."""
    seen = []

    def fit(inputs, targets, start, strength=None):
        seen.append(len(inputs))
        return LastLayer(start.weights, start.bias + change)

    monkeypatch.setattr(adaptation, "fit_last_layer", fit)
    patients = np.arange(len(inputs)) if patients is None else patients
    return adaptation.adapt(inputs, targets, patients, start), seen


def test_a_fit_that_is_worse_on_patients_held_out_is_dropped(monkeypatch, start, inputs):
    targets = start.logits(inputs).argmax(axis=1)
    found, _ = judged(monkeypatch, start, inputs, targets, [9, 0, 0])
    assert found.chosen == "start"
    assert distance(found.layer, start) == 0
    assert found.scores["start"] == 1 > found.scores["fitted"]


def test_a_fit_that_is_better_on_patients_held_out_is_kept(monkeypatch, start, inputs):
    targets = other_hospital(start, inputs)
    found, seen = judged(monkeypatch, start, inputs, targets, [1.5, 0, 0])
    assert found.chosen == "fitted"
    np.testing.assert_allclose(found.layer.bias, np.add(start.bias, [1.5, 0, 0]))
    assert seen == [48] * 5 + [60]    # four fifths of the patients, five times; then all


def test_half_of_a_change_that_goes_too_far_is_kept(monkeypatch, start, inputs):
    targets = other_hospital(start, inputs)
    found, _ = judged(monkeypatch, start, inputs, targets, [3, 0, 0])
    assert found.chosen == "half way"
    np.testing.assert_allclose(found.layer.bias, np.add(start.bias, [1.5, 0, 0]))


def test_no_patient_is_both_fitted_and_judged(monkeypatch, start, inputs):
    patients = np.arange(N) // 3
    targets = np.arange(N) // 3 % CLASSES
    fold = adaptation.patient_folds(patients, targets, 42)
    assert pd.Series(fold).groupby(patients).nunique().max() == 1
    assert np.ptp(np.bincount(fold)) <= 3
    assert pd.crosstab(fold, targets).to_numpy().min() >= 3    # classes are spread evenly
    assert judged(monkeypatch, start, inputs, targets, [0, 0, 0], patients)[1] == [48] * 5 + [60]


@pytest.mark.parametrize("n", [1, 2, 7])
def test_any_number_of_records_gives_a_layer(n, start, inputs):
    found = adaptation.adapt(inputs[:n], np.arange(n) % 2, np.arange(n), start)
    assert np.isfinite(found.layer.weights).all()
    assert n > 1 or found.chosen == "start"


# ----------------------------------------------------------------------------------------- models
def test_a_shipped_model_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(adaptation, "MODELS", tmp_path)
    with pytest.raises(UserError, match=r"models/README\.md says how it is made"):
        adaptation.find_model("real_large")
    (tmp_path / "real_large.keras").touch()
    assert adaptation.find_model("real_large") == str(tmp_path / "real_large.keras")
    assert adaptation.find_model("my/real_large") == "my/real_large"


def test_a_class_of_one_record_does_not_decide():
    targets = np.array([0] * 10 + [1] * 10 + [2])
    start = np.eye(3)[targets]
    start[:3] = [0, 1, 0]    # three wrong
    fitted = np.eye(3)[targets]
    fitted[-1] = [1, 0, 0]    # the only one of its class is wrong
    assert adaptation.score(fitted, targets) > adaptation.score(start, targets)

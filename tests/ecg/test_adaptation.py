"""A last layer fitted to few labels: near the start, and only where cross-validation speaks for it.

No TensorFlow.
"""

import numpy as np
import pandas as pd
import pytest

from ecg import adaptation
from ecg.adaptation import LastLayer
from ecg.rate_step import NO_STEP

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


def elsewhere(start, inputs):
    """Return labels of a hospital that draws one line elsewhere."""
    moved = LastLayer(start.weights, np.add(start.bias, [1.5, 0, 0]))
    return moved.logits(inputs).argmax(axis=1)


# -------------------------------------------------------------------------------------------- fit
def test_the_prior_holds_the_layer_near_the_start(start, inputs):
    targets = elsewhere(start, inputs)
    layers = [adaptation.fit_last_layer(inputs, targets, start, strength)
              for strength in (1, 10, 100, 1e6)]
    far = [distance(start, layer) for layer in layers]
    assert far == sorted(far, reverse=True)
    assert far[0] > 1
    assert far[-1] < 1e-3
    accuracies = [(layer.logits(inputs).argmax(axis=1) == targets).mean() for layer in layers]
    assert accuracies[1] > accuracies[-1] + 0.1


def test_a_class_without_a_record_keeps_its_weights(start, inputs):
    fitted = adaptation.fit_last_layer(inputs, np.arange(N) % 2, start)
    np.testing.assert_array_equal(fitted.weights[:, 2], start.weights[:, 2])
    assert fitted.bias[2] == start.bias[2]
    assert distance(fitted, start) > 0.1


# ----------------------------------------------------------------------------------------- choose
def test_a_class_of_one_record_does_not_decide():
    weights = adaptation.class_weights(np.repeat([0, 1, 2], [10, 9, 1]))
    assert weights[0] < weights[-1] < 3 * weights[0]


@pytest.mark.parametrize(("change", "is_elsewhere", "chosen", "bias"), [
    (9, False, "start", 0), (1.5, True, "fitted", 1.5), (3, True, "half way", 1.5)])
def test_as_much_of_a_fit_is_kept_as_patients_held_out_speak_for(
        change, is_elsewhere, chosen, bias, monkeypatch, start, inputs):
    seen = []

    def fit(inputs, targets, start, strength=None):
        seen.append(len(inputs))
        return LastLayer(start.weights, np.add(start.bias, [change, 0, 0]))

    monkeypatch.setattr(adaptation, "fit_last_layer", fit)
    targets = (elsewhere(start, inputs) if is_elsewhere else start.logits(inputs).argmax(axis=1))
    adapted = adaptation.adapt(inputs, targets, np.arange(N), start)
    assert adapted.chosen == chosen
    np.testing.assert_allclose(adapted.layer.bias, np.add(start.bias, [bias, 0, 0]))
    assert seen == [48] * 5 + [60]    # four fifths of the patients, five times; then all
    assert f"kept: {chosen}\n" in adapted.in_words()


def test_no_patient_is_both_fitted_and_judged():
    patients = np.arange(N) // 3
    targets = patients % CLASSES
    fold = adaptation.patient_folds(patients, targets, 42)
    assert pd.Series(fold).groupby(patients).nunique().max() == 1
    assert np.ptp(np.bincount(fold)) <= 3
    assert pd.crosstab(fold, targets).to_numpy().min() >= 3    # classes are spread evenly


def test_cross_validation_fits_and_chooses_without_whom_it_judges(monkeypatch, inputs):
    fitted, chosen = [], []
    zero = LastLayer(np.zeros((INPUTS, 5)), np.zeros(5))
    patients = np.arange(N) // 3

    def adapt(inputs, targets, own, start, seed, decide):    # a layer that names its own fold
        fitted.append(set(own))
        return adaptation.Adapted(zero._replace(bias=np.eye(5)[len(fitted) - 1]), "fitted", {})

    def choose(is_seen):
        chosen.append(set(patients[is_seen]))
        return NO_STEP

    monkeypatch.setattr(adaptation, "adapt", adapt)
    predicted = adaptation.cross_validate(
        inputs, patients % CLASSES, patients, zero, 42, choose, np.ones((N, 1)))
    assert len(fitted) == 5 and fitted == chosen
    for number, own in enumerate(fitted):
        assert own == set(patients) - set(patients[predicted == number])


def test_a_shipped_model_is_found_by_its_name():
    assert adaptation.find_model("real_large").endswith("models/real_large.keras")
    assert adaptation.find_model("my/real_large") == "my/real_large"

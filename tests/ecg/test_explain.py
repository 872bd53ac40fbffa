"""ecg/explain.py: integrated gradients add up, lie where the model looks, and are shaded fairly."""

import numpy as np
import pytest

import too_feature as script
from ecg import explain
from ecg.explain import Importance
from tests.support.ecgs import simulated
from tests.support.models import MEAN, VARIANCE, build


def of_parts(by_ecg, by_features):
    return Importance(by_ecg, np.array(by_features), 0.0, 0.0, 0.0)


@pytest.mark.parametrize("kind", ["lstm", pytest.param("large", marks=pytest.mark.slow),
                                  pytest.param("ensemble", marks=pytest.mark.slow)])
def test_importance_adds_up_to_the_change_of_the_probability(kind):
    """Completeness, and the two ends are those of the model itself."""
    model = build(kind)
    width = model.input_shape[1][1]
    average = np.full(width, 0.5) if kind == "large" else np.array(MEAN)
    ecg = script.stable_preprocess_ecg(simulated(rate=75)[0])
    features = average + np.random.default_rng(0).normal(0, 3, width)
    features[3] = average[3] = np.nan    # not measurable
    for target in (0, 3):
        importance = explain.explain(model, ecg, features, target)
        total = importance.ecg.sum() + importance.features.sum()
        change = importance.probability - importance.baseline
        assert total + importance.rest == pytest.approx(change, abs=1e-6)
        assert abs(importance.rest) < 0.005
        assert importance.features[3] == 0
        ends = model.predict(
            [np.stack([0 * ecg, ecg]), np.stack([average, features])], verbose=0)[:, target]
        assert importance.baseline == pytest.approx(ends[0], abs=1e-5)
        assert importance.probability == pytest.approx(ends[1], abs=1e-5)
    assert abs(ends[1] - ends[0]) > 0.01    # else all this would say little


def only(where, last):
    """A model whose probability depends on the first second of V1 alone, or on heart rate."""
    keras = script.load_tensorflow()[1]
    ecg = keras.Input((500, 12), name="ecg")
    features = keras.Input((8,), name="features")
    scaled = keras.layers.Normalization(
        mean=MEAN, variance=VARIANCE, name=explain.SCALING)(features)
    scaled = keras.ops.clip(keras.ops.nan_to_num(scaled, nan=0.0), -2.5, 2.5)
    used = (keras.layers.Flatten()(ecg[:, :50, 6:7]) + 0 * scaled[:, :1] if where == "V1" else
            scaled[:, 4:5] + 0 * ecg[:, 0, :1])
    total = keras.layers.Dense(1, kernel_initializer="ones")(used)
    model = keras.Model([ecg, features], keras.layers.Dense(5, activation="softmax")(total))
    model.layers[-1].set_weights([np.array([[last, 0, 0, 0, -last]]), np.zeros(5)])
    return model


@pytest.mark.parametrize("where", ["V1", "heart rate"])
def test_importance_lies_where_alone_the_model_looks(where):
    ecg = np.random.default_rng(0).normal(size=(500, 12)).astype(np.float32)
    features = np.array([0.1, 0.4, 2, 1, 90, 60, np.nan, 0.2], np.float32)
    importance = explain.explain(only(where, 0.3), ecg, features, 0)
    inside = importance.ecg[:50, 6].sum() if where == "V1" else importance.features[4]
    assert abs(inside) > 0.02
    sizes = np.abs(importance.ecg).sum() + np.abs(importance.features).sum()
    assert sizes == np.abs(importance.ecg[:50, 6]).sum() + abs(importance.features[4])


def test_a_feature_far_beyond_the_models_limit_is_not_missed():
    """Its probability changes within the first hundredth of the path only."""
    features = np.array(MEAN, np.float32)
    features[4] += 250 * 20    # 250 deviations; the model cuts off at 2.5
    flat = np.zeros((500, 12), np.float32)
    importance = explain.explain(only("heart rate", 1.0), flat, features, 0)
    assert importance.probability - importance.baseline > 0.3
    assert abs(importance.rest) < 0.005


@pytest.mark.parametrize(("of_features", "fullest"), [(0.5, 1.0), (4.5, 0.2)])
def test_leads_that_carry_little_are_shaded_little_and_the_scale_says_how_much(
        of_features, fullest):
    by_ecg = np.zeros((500, 12))
    by_ecg[200:210, 3] = 0.05    # 0.2 s that move it by 0.5
    importance = of_parts(by_ecg, [of_features, 0.0])
    colours, at_full_colour = explain.spread(importance, 5000)
    assert colours.max() == pytest.approx(fullest)
    assert colours.max() * at_full_colour == pytest.approx(5 * 0.05)    # of 0.1 s
    share = round(100 * 0.5 / (0.5 + of_features))
    assert explain.in_brief(importance, ["a", "b"]) == (
        f"Of what moved it, up or down: leads {share} %, features {100 - share} % "
        f"(most: a {of_features:+.2f}, b +0.00)")

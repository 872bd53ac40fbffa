"""The benchmark of adaptation tests on patients that no label was taken from; shipped models."""

import functools
import types

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from benchmarks import adapt, shipped
from benchmarks.folds import Fold
from ecg import adaptation, rate_step

N = 100
FIRST, OTHER = np.arange(40), np.arange(40, N)
SUBJECTS = np.arange(N) // 2


@pytest.fixture
def bench():
    """Two hospitals of noise, a last layer to start from, and its rate step."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"subject_id": SUBJECTS, "number": range(N)})
    classes = ["Bradycardia", "Normal", "Tachycardia"]
    pool = types.SimpleNamespace(
        rows=rows, classes=classes, targets=np.arange(N) % 3, rates=np.full((N, 1), 80.0))
    layer = adaptation.LastLayer(rng.normal(size=(4, 3)), np.zeros(3))
    bench = types.SimpleNamespace(
        pool=pool, layer=layer, inputs=rng.normal(size=(N, 4)), step=rate_step.NO_STEP)
    bench.fit_step = functools.partial(adapt.Bench.fit_step, bench)
    return bench


def draws_of(bench, n):
    return adapt.make_draws(bench.pool, Fold(FIRST, FIRST[:0], OTHER), n)


def test_each_draw_labels_no_patient_that_it_tests_on_and_all_records_are_of_the_other_hospital(
        bench):
    draws = draws_of(bench, 3)
    for draw in draws:
        assert not set(SUBJECTS[draw.pool]) & set(SUBJECTS[draw.test])
        assert sorted([*draw.pool, *draw.test]) == OTHER.tolist()
        assert len(draw.test) == 24
    assert draws[0].test.tolist() != draws[1].test.tolist()


def test_the_last_layer_and_the_rate_step_see_the_labels_of_local_records_only(bench):
    draw, = draws_of(bench, 1)
    local = draw.pool[:10]
    step, probabilities = adapt.last_layer(bench, local, draw, "")
    np.testing.assert_allclose(probabilities.sum(axis=1), np.ones(N))
    unseen = np.setdiff1d(np.arange(N), local)
    bench.pool.targets[unseen] = 1 - bench.pool.targets[unseen] % 2
    again, others = adapt.last_layer(bench, local, draw, "")
    np.testing.assert_array_equal(others, probabilities)
    assert again == step


def test_predictions_are_those_after_the_rate_step_with_fitted_or_fixed_limits(bench):
    draws = draws_of(bench, 1)
    at_80_bpm = [
        adapt.predict_draws(bench, adapt.as_it_is, 0, draws, limits)
        for limits in ("", "60,100", "90,100")]
    assert len(np.unique(at_80_bpm[0])) == 3    # by the start's own step, which is none
    assert np.unique(at_80_bpm[1]) == [1]
    assert np.unique(at_80_bpm[2]) == [0]


# -------------------------------------------------------------------------------- shipped models
def test_amplitudes_that_nobody_knows_count_as_not_measurable():
    rows = pd.DataFrame({"waveform_path": ["files/z/1", "files/zz/z1"]})
    records = script.Records(rows, None, np.ones((2, 8), np.float32), np.zeros(2, int))
    features = shipped.forget_amplitudes(records, ["files/z/*"]).features
    assert np.isfinite(features[1]).all()
    assert np.isfinite(records.features).all()    # nothing was taken from the original
    assert np.isnan(features[0]).tolist() == [True, True] + [False] * 6

"""The benchmark of adaptation tests on patients that no label was taken from; shipped models."""

import types

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from benchmarks import adapt, shipped
from benchmarks.folds import Fold
from benchmarks.systems import Task
from ecg import adaptation, rate_step

N = 100
FIRST, OTHER = np.arange(40), np.arange(40, N)
SUBJECTS = np.arange(N) // 2
STEP = rate_step.RateStep([0, 1, 2], [90.0, 100.0])


@pytest.fixture
def pool():
    """Records of two hospitals, all of 80 bpm."""
    rows = pd.DataFrame({"subject_id": SUBJECTS, "number": range(N)})
    return types.SimpleNamespace(
        rows=rows, classes=["Bradycardia", "Normal", "Tachycardia"], targets=np.arange(N) % 3,
        rates=np.full((N, 1), 80.0))


@pytest.fixture
def systems():
    """What is compared, from a last layer of noise and a start whose own limit is 90 bpm."""
    rng = np.random.default_rng(0)
    start = adapt.Start.__new__(adapt.Start)
    start.sha256, start.recipe, start.step = "1", script.Recipe(), STEP
    start.layer = adaptation.LastLayer(rng.normal(size=(4, 3)), np.zeros(3))
    start.inputs = rng.normal(size=(N, 4))
    return adapt.methods(start, len(FIRST))


def make_draws(pool, n):
    return adapt.make_draws(pool.rows, Fold(FIRST, FIRST[:0], OTHER), n)


def predict(system, pool, fold):
    task = Task(pool, fold, 0, {})
    return system.decide(task, system.fit(task).predict(np.arange(N)))


def test_each_draw_labels_no_patient_that_it_tests_on_and_all_records_are_of_the_other_hospital(
        pool):
    draws = make_draws(pool, 3)
    for none, few, many in zip(draws[0], draws[10], draws[40], strict=True):
        assert none.train.tolist() == FIRST.tolist()
        assert set(none.train) < set(few.train) < set(many.train)
        assert len(few.train) == len(FIRST) + 10
        assert not set(SUBJECTS[many.train]) & set(SUBJECTS[many.test])
        assert set(many.test) < set(OTHER)
        assert len(many.test) == 24
        assert many.test.tolist() == few.test.tolist()
    assert len({tuple(fold.test) for fold in draws[0]}) == 3


def test_the_last_layer_and_the_rate_step_see_the_labels_of_local_records_only(pool, systems):
    fold, = make_draws(pool, 1)[10]
    before = predict(systems["last"], pool, fold)
    np.testing.assert_allclose(before.sum(axis=1), np.ones(N))
    unseen = np.setdiff1d(np.arange(N), fold.train[len(FIRST):])
    pool.targets[unseen] = 1 - pool.targets[unseen] % 2
    np.testing.assert_array_equal(predict(systems["last"], pool, fold), before)


def test_the_start_has_its_own_rate_step_or_fixed_limits(pool, systems):
    fold, = make_draws(pool, 1)[0]
    classes = [set(predict(systems[name], pool, fold).argmax(axis=1))
               for name in ("start", "start-fixed")]
    assert classes == [{0}, {1}]    # all are of 80 bpm


# -------------------------------------------------------------------------------- shipped models
def test_amplitudes_that_nobody_knows_count_as_not_measurable():
    rows = pd.DataFrame({"waveform_path": ["files/z/1", "files/zz/z1"]})
    records = script.Records(rows, None, np.ones((2, 8), np.float32), np.zeros(2, int))
    features = shipped.forget_amplitudes(records, ["files/z/*"]).features
    assert np.isfinite(features[1]).all()
    assert np.isfinite(records.features).all()    # nothing was taken from the original
    assert np.isnan(features[0]).tolist() == [True, True] + [False] * 6

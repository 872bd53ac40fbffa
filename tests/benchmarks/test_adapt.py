"""The benchmark of adaptation tests on patients that no label was taken from; shipped models."""

import types

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from benchmarks import adapt, shipped
from ecg import adaptation


@pytest.fixture
def bench():
    """Two hospitals of noise, and a last layer to start from."""
    rng = np.random.default_rng(0)
    n = 100
    rows = pd.DataFrame({
        "subject_id": np.arange(n) // 2, "waveform_path": [f"r{i}" for i in range(n)],
        "ecg_category": np.where(np.arange(n) % 2, "Normal", "Other"), "number": range(n),
        "other": np.arange(n) >= 40})
    pool = types.SimpleNamespace(rows=rows, classes=["Normal", "Other"], targets=np.arange(n) % 2)
    layer = adaptation.LastLayer(rng.normal(size=(4, 2)), np.zeros(2))
    return types.SimpleNamespace(pool=pool, layer=layer, inputs=rng.normal(size=(n, 4)))


def test_each_draw_labels_no_patient_that_it_tests_on_and_all_records_are_of_the_other_hospital(
        bench):
    subjects = bench.pool.rows["subject_id"].to_numpy()
    draws = adapt.make_draws(bench.pool, 3)
    for draw in draws:
        assert not set(subjects[draw.pool]) & set(subjects[draw.test])
        assert sorted([*draw.pool, *draw.test]) == list(range(40, 100))
        assert len(draw.test) == 24
    assert draws[0].test.tolist() != draws[1].test.tolist()


def test_the_last_layer_sees_the_labels_of_local_records_only(bench):
    draw, = adapt.make_draws(bench.pool, 1)
    local = draw.pool[:10]
    probabilities = adapt.last_layer(bench, local, draw)
    np.testing.assert_allclose(probabilities.sum(axis=1), np.ones(24))
    unseen = np.setdiff1d(np.arange(100), local)
    bench.pool.targets[unseen] = 1 - bench.pool.targets[unseen]
    np.testing.assert_array_equal(adapt.last_layer(bench, local, draw), probabilities)


# -------------------------------------------------------------------------------- shipped models
def test_amplitudes_that_nobody_knows_count_as_not_measurable():
    rows = pd.DataFrame({"waveform_path": ["files/z/1", "files/zz/z1"]})
    records = script.Records(rows, None, np.ones((2, 8), np.float32), np.zeros(2, int))
    features = shipped.forget_amplitudes(records, ["files/z/*"]).features
    assert np.isfinite(features[1]).all()
    assert np.isfinite(records.features).all()    # nothing was taken from the original
    assert np.isnan(features[0]).tolist() == [True, True] + [False] * 6

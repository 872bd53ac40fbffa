"""The benchmark of adaptation tests on patients that no label was taken from, all methods alike."""

import types

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from benchmarks import adapt, shipped
from ecg import adaptation
from tests.support.models import recipe_of


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


@pytest.mark.parametrize("method", [adapt.as_it_is, adapt.last_layer, adapt.last_layer_unchosen,
                                    adapt.last_layer_of_chosen])
def test_methods_of_the_last_layer_see_the_labels_of_local_records_only(method, bench):
    draw, = adapt.make_draws(bench.pool, 1)
    local = draw.pool[:10]
    found = method(bench, local, draw)
    assert found.shape == (24, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    unseen = np.setdiff1d(np.arange(100), draw.pool)
    bench.pool.targets[unseen] = 1 - bench.pool.targets[unseen]
    np.testing.assert_array_equal(method(bench, local, draw), found)


def test_scores_pool_all_draws_and_compare_with_the_start_on_the_same_records(bench):
    options = types.SimpleNamespace(draws=4, slow_draws=2, scratch_draws=1)
    draws = adapt.make_draws(bench.pool, 4)
    truth = [np.eye(2)[bench.pool.targets[draw.test]] for draw in draws]
    found = {"as it is": {0: 1 - np.concatenate(truth)},
             "all weights (`--adapt all`)": {10: np.concatenate(truth[:2])}}
    balanced, before = adapt.scores_of(bench, found, options)["all weights (`--adapt all`)"][10]
    assert (balanced[0], before[0]) == (1, 0)
    text = adapt.table(adapt.scores_of(bench, found, options), options)
    assert "1.000, +1.000 (+1.000 to +1.000)" in text


# -------------------------------------------------------------------------------- shipped models
def test_training_on_all_takes_as_many_steps_as_it_was_to_take():
    labels = pd.DataFrame({"ecg_category": ["Normal"] * 900 + ["Other"] * 100})
    settings = script.Settings(train_samples=600, recipe=recipe_of("large"))
    found = shipped.for_all(settings, labels)
    assert found.train_samples == 1800
    assert found.recipe.epochs == 10    # of 30
    assert found.recipe.stop_patience == 10
    assert shipped.for_all(settings, labels[::100]).recipe.epochs == 30 * 600 // 18


def test_amplitudes_that_nobody_knows_count_as_not_measurable():
    rows = pd.DataFrame({"waveform_path": ["files/z/1", "files/zz/z1"]})
    records = script.Records(rows, None, np.ones((2, 8), np.float32), np.zeros(2, int))
    found = shipped.forget_amplitudes(records, ["files/z/*"]).features
    assert np.isfinite(found[1]).all()
    assert np.isfinite(records.features).all()    # nothing was taken from the original
    assert np.isnan(found[0]).tolist() == [True, True] + [False] * 6

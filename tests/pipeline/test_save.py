"""`save` and `load` are twins: what one wrote, the other gives back; nothing is half written."""

import json
import os
import re
import shutil
import zipfile

import numpy as np
import pytest

import too_feature as script
from ecg import files
from ecg.card import contract
from ecg.errors import UserError
from ecg.models import check_ecgs, read_card
from tests.support import models


@pytest.mark.parametrize("kind", ["ensemble", "large"])
def test_what_was_saved_is_loaded_again(kind, tmp_path):
    path = tmp_path / "model.keras"
    model = models.build(kind)
    card = models.card(kind, epochs=3)
    script.save(model, card, path)
    loaded = script.load(path)

    for before, after in zip(model.get_weights(), loaded.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(2, *x.shape[1:])).astype(np.float32) for x in model.inputs]
    plain = script.load_tensorflow()[1].models.load_model(path, compile=False)
    np.testing.assert_array_equal(
        plain.predict_on_batch(inputs), loaded.model.predict_on_batch(inputs))

    assert loaded.classes == models.CLASSES
    assert loaded.recipe == models.recipe_of(kind, epochs=3)
    stated = json.loads(json.dumps(card)) | {
        "contract": contract(card), "model_sha256": files.sha256(path)}
    del stated["scaling"]    # which is measured on the model
    assert stated.items() <= loaded.card.items()
    assert loaded.card.keys() - stated.keys() == {"check", "scaling"}
    assert len(loaded.card["scaling"]) == (2 if kind == "ensemble" else 1)
    assert sorted(os.listdir(tmp_path)) == ["model.json", "model.keras"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    return models.save("lstm", path, rate_limits=[60, 100])


@pytest.fixture
def path(saved, tmp_path):
    """A saved model, to be changed."""
    for file in (saved, saved.with_suffix(".json")):
        shutil.copy(file, tmp_path)
    return tmp_path / saved.name


def change_card(path, **changes):
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**card, **changes}))


def test_a_trained_model_is_saved_without_its_optimizer_and_as_keras_3_5_reads_it(tmp_path):
    model = models.build()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    script.save(model, models.card(), tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        parts = []
        json.loads(archive.read("config.json"), object_hook=lambda x: parts.append(x) or x)
    assert not any(part.get("compile_config") for part in parts)
    operations = [part for part in parts if str(part.get("module")).startswith("keras.src.ops")]
    assert len(operations) > 2
    assert not [part for part in operations if {"name"} < part["config"].keys()]
    assert model.optimizer is not None    # of which nothing was taken


def test_a_save_that_fails_leaves_the_older_model_and_its_card_whole(path, monkeypatch):
    before = {file: file.read_bytes() for file in path.parent.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        script.save(models.build(), models.card(epochs=3), path)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


@pytest.mark.parametrize(("step", "epochs"), [(1, 15), (2, 3)])
def test_at_any_moment_of_saving_there_is_a_whole_model_with_its_card(
        step, epochs, path, monkeypatch):
    """The older one, or the newer: a run may be killed before or after the model is in place."""
    replace, calls = os.replace, []

    def killed(source, target):
        calls.append(target)    # the new card, the model, the new card in the place of the old one
        if len(calls) > step:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        script.save(models.build(), models.card(epochs=3), path)
    assert read_card(path)["recipe"]["epochs"] == epochs


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0", [2]])
def test_a_model_of_another_version_is_refused_by_saying_so(version, path):
    change_card(path, version=version)
    with pytest.raises(UserError, match=re.escape(f"trained by version {version}: train it again")):
        script.load(path)


# ------------------------------------------------------------------------------ the same model?
@pytest.mark.parametrize("recipe", ["default", "large"])
def test_a_shipped_model_gives_the_two_ecgs_the_probabilities_in_its_card(recipe):
    loaded = script.load(files.ROOT / f"models/real_{recipe}.keras")
    assert loaded.recipe.name == recipe
    assert loaded.classes == models.CLASSES


@pytest.mark.parametrize("changes", [
    {"recipe": models.card(central_share=0.9)["recipe"]},    # which only prepares records
    {"classes": models.CLASSES[::-1]},
    {"rate_limits": [58, 100]},
    {"rate_limits": []},
    {"scaling": [{"mean": models.MEAN, "variance": [2 * value for value in models.VARIANCE]}]},
    {"check": [dict.fromkeys(models.CLASSES, 0.2)] * 2},    # of other weights
    {"check": [dict.fromkeys(models.CLASSES, float("nan"))] * 2}],
    ids=["recipe", "classes", "rate limits", "no rate step", "scaling", "weights", "no number"])
def test_a_model_that_gives_the_two_ecgs_other_probabilities_is_refused(changes, path):
    change_card(path, **changes)
    with pytest.raises(UserError, match="it gives the two ECGs of its card other probabilities"):
        script.load(path)


def test_a_model_of_code_that_prepares_records_in_another_way_is_refused(saved, monkeypatch):
    preprocess = script.stable_preprocess_ecg
    monkeypatch.setattr(script, "stable_preprocess_ecg", lambda *given: -preprocess(*given))
    with pytest.raises(UserError, match="it gives the two ECGs of its card other probabilities"):
        script.load(saved)


@pytest.mark.parametrize("recipe", ["default", "large"])
def test_the_two_ecgs_have_all_features_and_rounding_changes_none(recipe):
    for ecg in check_ecgs():
        noise = 1e-9 * np.random.default_rng(0).normal(size=ecg.shape)
        exact, rounded = (script.prepare_signal(x, 500, script.RECIPES[recipe])
                          for x in (ecg, ecg + noise))
        assert np.isfinite(exact[1]).all()
        for one, other in zip(exact, rounded, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)

"""`save` and `load` are twins: what one wrote, the other gives back; nothing is half written."""

import json
import os
import zipfile

import numpy as np
import pytest

import too_feature as script
from ecg import files
from ecg.card import contract
from ecg.errors import UserError
from tests.support import models


@pytest.mark.parametrize("kind", ["ensemble", "lstm", "large"])
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
    probabilities = loaded.model.predict(inputs, verbose=0)
    np.testing.assert_allclose(model.predict(inputs, verbose=0), probabilities, atol=1e-6)
    plain = script.load_tensorflow()[1].models.load_model(path, compile=False)
    np.testing.assert_array_equal(plain.predict(inputs, verbose=0), probabilities)

    assert loaded.classes == models.CLASSES
    assert loaded.recipe == models.recipe_of(kind, epochs=3)
    stated = json.loads(json.dumps(card)) | {
        "contract": contract(card), "model_sha256": files.sha256(path)}
    assert stated.items() <= loaded.card.items()
    assert loaded.card.keys() - stated.keys() == {"scaling", "check"}
    assert len(loaded.card["scaling"]) == (2 if kind == "ensemble" else 1)
    assert sorted(os.listdir(tmp_path)) == ["model.json", "model.keras"]


def test_a_trained_model_is_saved_without_its_optimizer(tmp_path):
    path = tmp_path / "model.keras"
    model = models.build()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    script.save(model, models.card(), path)
    with zipfile.ZipFile(path) as archive:
        assert not json.loads(archive.read("config.json")).get("compile_config")
    assert model.optimizer is not None    # of which nothing was taken


def test_each_load_gives_a_model_of_its_own(tmp_path):
    path = models.save("lstm", tmp_path / "model.keras")
    assert script.load(path).model is not script.load(path).model


def test_a_save_that_fails_leaves_the_older_model_and_its_card_whole(tmp_path, monkeypatch):
    path = models.save("lstm", tmp_path / "model.keras")
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        script.save(models.build("ensemble"), models.card(), path)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_between_the_moves_of_model_and_card_the_new_card_lies_ready(tmp_path, monkeypatch):
    path = models.save("lstm", tmp_path / "model.keras")
    replace = os.replace

    def stopped(source, target):
        if str(target).endswith(".json"):
            raise OSError(5, "killed")
        replace(source, target)

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(UserError, match=r"whose card stays .*model\.json\.new"):
        script.save(models.build("ensemble"), models.card(), path)
    assert script.load(path).model.name == "ensemble"


def test_the_shipped_models_are_loaded_and_give_the_probabilities_in_their_cards():
    for recipe in ("default", "large"):
        loaded = script.load(script.files.ROOT / f"models/real_{recipe}.keras")
        assert loaded.recipe.name == recipe
        assert loaded.classes == models.CLASSES


def change_card(path, **changes):
    """Change what the card of a model says; of a key whose value is None, nothing."""
    card = {**json.loads(path.with_suffix(".json").read_text()), **changes}
    kept = {key: value for key, value in card.items() if value is not None}
    path.with_suffix(".json").write_text(json.dumps(kept))
    return card


@pytest.mark.parametrize(("version", "stated"), [(None, "1"), ("2.0.0", "2.0.0"), ([2], r"\[2\]")])
def test_a_model_of_another_version_is_refused_by_saying_so(version, stated, tmp_path):
    path = models.save_card(tmp_path / "model.keras")
    change_card(path, version=version)
    with pytest.raises(UserError, match=f"trained by version {stated}: train it again"):
        script.load(path)


def test_a_model_of_another_bug_fix_of_this_version_is_loaded(tmp_path):
    path = models.save("lstm", tmp_path / "model.keras")
    change_card(path, version=script.__version__.rpartition(".")[0] + ".99")
    assert script.load(path).classes == models.CLASSES


# ------------------------------------------------------------------------------ the same model?
@pytest.mark.parametrize("change", ["recipe", "classes", "scaling", "weights", "code", "no number"])
def test_a_model_that_gives_the_two_ecgs_other_probabilities_is_refused(
        change, tmp_path, monkeypatch):
    path = models.save("lstm", tmp_path / "model.keras")
    card = json.loads(path.with_suffix(".json").read_text())
    if change == "recipe":    # which only changes how records are prepared
        change_card(path, recipe={**card["recipe"], "central_share": 0.9})
    elif change == "classes":
        change_card(path, classes=card["classes"][::-1])
    elif change == "scaling":
        wide = [2 * value for value in card["scaling"][0]["variance"]]
        change_card(path, scaling=[{**card["scaling"][0], "variance": wide}])
    elif change == "weights":
        model = models.build()
        model.layers[-1].bias.assign([0.1, 0, 0, 0, 0])
        script.save(model, models.card(), path)
        change_card(path, check=card["check"])
    elif change == "code":
        preprocess = script.stable_preprocess_ecg
        monkeypatch.setattr(script, "stable_preprocess_ecg", lambda *given: -preprocess(*given))
    else:
        change_card(path, check=[dict.fromkeys(models.CLASSES, float("nan"))] * 2)

    with pytest.raises(UserError, match="it gives the two ECGs of its card other probabilities"):
        script.load(path)


@pytest.mark.parametrize("recipe", ["default", "large"])
def test_the_two_ecgs_have_all_features_and_rounding_changes_none(recipe):
    for ecg in script.models.check_ecgs():
        noise = 1e-9 * np.random.default_rng(0).normal(size=ecg.shape)
        exact, rounded = (script.prepare_signal(x, 500, script.RECIPES[recipe])
                          for x in (ecg, ecg + noise))
        assert np.isfinite(exact[1]).all()
        for one, other in zip(exact, rounded, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_the_two_ecgs_are_slow_and_steady_and_fast_and_irregular():
    features = [script.extract_core_medical_features(ecg, 500)
                for ecg in script.models.check_ecgs()]
    rates, sdnn = np.transpose(features)[[4, 5]]
    np.testing.assert_allclose(rates, [56, 104], rtol=0.05)
    assert sdnn[0] < 30 < 60 < sdnn[1]

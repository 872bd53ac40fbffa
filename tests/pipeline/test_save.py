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


@pytest.mark.parametrize("kind", ["ensemble", pytest.param("lstm", marks=pytest.mark.slow),
                                  pytest.param("large", marks=pytest.mark.slow)])
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
    found = loaded.model.predict(inputs, verbose=0)
    np.testing.assert_allclose(model.predict(inputs, verbose=0), found, atol=1e-6)
    plain = script.load_tensorflow()[1].models.load_model(path, compile=False)
    np.testing.assert_array_equal(plain.predict(inputs, verbose=0), found)
    assert loaded.classes == models.CLASSES
    assert loaded.recipe == models.recipe_of(kind, epochs=3)
    as_json = json.loads(json.dumps(card))
    assert loaded.card == as_json | {
        "contract": contract(card), "model_sha256": files.sha256(path)}
    assert sorted(os.listdir(tmp_path)) == ["model.json", "model.keras"]


def test_a_trained_model_is_saved_without_its_optimizer(tmp_path):
    path = tmp_path / "model.keras"
    model = models.build()
    script.compile_model(model, 1, script.Recipe(), jit=False)
    script.save(model, models.card(), path)
    with zipfile.ZipFile(path) as archive:
        assert not json.loads(archive.read("config.json")).get("compile_config")
    assert getattr(script.load(path).model, "optimizer", None) is None
    assert model.optimizer is not None    # of which nothing was taken


def test_a_model_is_kept_in_memory_until_its_file_changes(tmp_path):
    path = models.save("lstm", tmp_path / "model.keras")
    first = script.load(path)
    assert script.load(path) is first
    os.utime(path, ns=(0, 0))
    assert script.load(path) is not first


def test_a_save_that_fails_leaves_the_older_model_and_its_card_whole(tmp_path, monkeypatch):
    path = models.save("lstm", tmp_path / "model.keras")
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
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


@pytest.mark.parametrize(("version", "said"), [
    (None, "1"), ("1.0.0", "1.0.0"), ("3.1.0", "3.1.0"), (["2.0.0"], r"\['2\.0\.0'\]")])
def test_a_model_of_another_version_is_refused_by_saying_so(version, said, tmp_path):
    path = models.save("lstm", tmp_path / "model.keras")
    card = json.loads(path.with_suffix(".json").read_text())
    card["version"] = version
    if version is None:    # as in a card of version 1
        del card["version"]
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=f"trained by version {said}: train it again"):
        script.load(path)


def test_a_model_of_another_bug_fix_of_this_version_is_loaded(tmp_path):
    path = models.save("lstm", tmp_path / "model.keras")
    card = json.loads(path.with_suffix(".json").read_text())
    card["version"] = ".".join([*card["version"].split(".")[:2], "99"])
    path.with_suffix(".json").write_text(json.dumps(card))
    assert script.load(path).classes == models.CLASSES

"""tools/export_onnx.py: onnxruntime gives the same probabilities as the model."""

import json
import sys

import numpy as np
import pytest

import too_feature as script
from ecg import files
from ecg.card import contract
from tests.support.models import CLASSES, MEAN, build, card, recipe_of, save
from tools import export_onnx


@pytest.fixture(scope="module")
def packages():
    script.load_tensorflow()
    for package in export_onnx.PACKAGES:
        pytest.importorskip(package, exc_type=ImportError)


@pytest.fixture(scope="module")
def exported(packages, tmp_path_factory):
    """Path of a model of each kind that was saved and exported, when it is first asked for."""
    folder, done = tmp_path_factory.mktemp("onnx"), {}

    def path(kind):
        if kind not in done:
            done[kind] = save(kind, folder / f"{kind}.keras")
            assert export_onnx.main([str(done[kind])]) == 0
        return done[kind]

    return path


def session(path):
    import onnxruntime
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", ["lstm", pytest.param("large", marks=pytest.mark.slow),
                                  pytest.param("ensemble", marks=pytest.mark.slow)])
def test_onnxruntime_gives_the_models_probabilities_for_any_number_of_records(kind, exported):
    path = exported(kind)
    model = script.load_tensorflow()[1].models.load_model(path, compile=False)
    rng = np.random.default_rng(7)
    width = model.input_shape[1][1]
    for n in (1, 2, 64):
        ecg = rng.normal(size=(n, 500, 12)).astype(np.float32)
        features = (rng.normal(size=(n, width)) * 100).astype(np.float32)
        features[:, ::3] = np.nan
        features[0, 1] = 1e30
        found, = session(path.with_suffix(".onnx")).run(
            ["probabilities"], {"ecg": ecg, "features": features})
        assert found.shape == (n, 5)
        np.testing.assert_allclose(found, model.predict([ecg, features], verbose=0), atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01    # else all this would say little


def test_nan_features_count_as_the_mean_in_the_onnx_file_too(exported):
    run = session(exported("lstm").with_suffix(".onnx")).run
    ecg = np.zeros((1, 500, 12), np.float32)
    mean = np.array([MEAN], np.float32)
    mean[0, script.HEART_RATE] = 80    # the middle of its curve
    np.testing.assert_allclose(*(run(None, {"ecg": ecg, "features": x})[0] for x in (
        mean, mean * np.nan)), atol=1e-6)


def test_the_file_says_what_its_inputs_and_outputs_mean(exported):
    path = exported("lstm")
    it = session(path.with_suffix(".onnx"))
    meta = {name: json.loads(text) for name, text in
            it.get_modelmeta().custom_metadata_map.items()}
    recipe = recipe_of("lstm")
    assert meta["classes"] == CLASSES
    assert meta["leads"] == list(script.LEADS)
    assert meta["sampling_rate_hz"] == 50
    assert meta["preparation"] == {
        name: getattr(recipe, name) for name in script.PREPARATION}
    assert [x["name"] for x in meta["features"]] == [
        name for name, _, _ in script.feature_names(recipe)]
    assert {"name": "heart rate", "unit": "bpm"} in meta["features"]
    assert meta["model_sha256"] == files.sha256(path)
    assert meta["labels_origin"] == "not stated"
    assert meta["note"] == "Origin of the labels: not stated. This is not a medical device."
    assert meta["synthetic"] is False
    assert meta["contract"] == contract(card())
    assert [(x.name, x.shape) for x in it.get_inputs()] == [
        ("ecg", ["n", 500, 12]), ("features", ["n", 8])]
    assert [(x.name, x.shape) for x in it.get_outputs()] == [("probabilities", ["n", 5])]


def test_a_model_of_the_demo_says_so_in_its_metadata(exported):
    loaded = script.load(exported("lstm"))
    loaded = loaded._replace(card={**loaded.card, "synthetic": True})
    meta = {name: json.loads(text) for name, text in
            export_onnx.describe(loaded, exported("lstm")).items()}
    assert meta["synthetic"] is True
    assert meta["labels_origin"] == "synthetic records, not patients"
    assert meta["note"].startswith("This model was trained on synthetic records. Origin of")


def test_exporting_leaves_the_model_in_memory_as_it_was(exported):
    model = script.load(exported("lstm")).model
    before = [layer.get_config() for layer in model.layers]
    dropout = next(layer for layer in model.layers if hasattr(layer, "cell")).cell.dropout
    export_onnx.to_onnx(model, {})
    assert [layer.get_config() for layer in model.layers] == before
    assert next(x for x in model.layers if hasattr(x, "cell")).cell.dropout == dropout == 0.2


def test_another_models_does_not_pass_the_check(exported, tmp_path, capsys):
    path = exported("lstm")
    assert export_onnx.main([str(path), "--check"]) == 0
    assert "the same probabilities" in capsys.readouterr().out
    model = build()
    model.layers[-1].bias.assign([0.01, 0, 0, 0, 0])
    other = tmp_path / "other.keras"
    script.save(model, card(), other)
    output = path.with_suffix(".onnx")
    before = output.read_bytes()
    assert export_onnx.main([str(other), "--output", str(output), "--check"]) == 2
    assert "differ by up to" in capsys.readouterr().err
    assert output.read_bytes() == before
    save("large", other)
    assert export_onnx.main([str(other), "--output", str(output), "--check"]) == 2
    error = capsys.readouterr().err.strip()
    assert str(output) in error
    assert len(error.splitlines()) == 1


def test_what_differs_from_the_model_is_not_written(exported, tmp_path, monkeypatch, capsys):
    output = tmp_path / "x.onnx"
    output.write_text("older")
    convert = export_onnx.to_onnx

    def worse(model, metadata):
        keras = script.load_tensorflow()[1]
        other = keras.models.clone_model(model)
        other.set_weights([x + 0.01 for x in model.get_weights()])
        return convert(other, metadata)

    monkeypatch.setattr(export_onnx, "to_onnx", worse)
    assert export_onnx.main([str(exported("lstm")), "--output", str(output), "--force"]) == 2
    assert "cannot be exported" in capsys.readouterr().err
    assert output.read_text() == "older"
    assert [x.name for x in tmp_path.iterdir()] == ["x.onnx"]


@pytest.mark.parametrize(("arguments", "words"), [
    (["no.keras"], "no.keras and its .json cannot be loaded"),
    (["no.keras", "--output", "x.keras"], "ends in .onnx"),
])
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, packages, capsys):
    assert export_onnx.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert len(error.splitlines()) == 1


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)    # as where it is not installed
    assert export_onnx.main(["m.keras"]) == 2
    error = capsys.readouterr().err.strip()
    assert "tf2onnx (" in error
    assert error.endswith("tf2onnx==1.17.0")
    assert "pip install onnx==" in error
    assert len(error.splitlines()) == 1

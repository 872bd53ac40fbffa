"""tools/export_onnx.py: onnxruntime gives the same probabilities as the model."""

import json
import sys

import numpy as np
import pytest

import too_feature as script
from ecg import files, origin
from ecg.card import contract
from tests.support.models import CLASSES, card, save
from tools import export_onnx


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Return the paths of a model of some kind and of its ONNX file, exported at the first call."""
    script.load_tensorflow()
    for package in export_onnx.PACKAGES.split():
        pytest.importorskip(package.partition("==")[0], exc_type=ImportError)
    folder = tmp_path_factory.mktemp("onnx")

    def exported(kind):
        path = folder / f"{kind}.keras"
        if not path.exists():
            save(kind, path, rate_limits=[60.0, 100.0])
            assert export_onnx.main([str(path)]) == 0
        return path, path.with_suffix(".onnx")

    return exported


def session(path):
    import onnxruntime
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", ["lstm", pytest.param("large", marks=pytest.mark.slow),
                                  pytest.param("ensemble", marks=pytest.mark.slow)])
def test_onnxruntime_gives_the_models_probabilities_for_any_number_of_records(kind, export):
    path, onnx = export(kind)
    model = script.load_tensorflow()[1].models.load_model(path, compile=False)
    rng = np.random.default_rng(7)
    for n in (1, 64):
        ecg = rng.normal(size=(n, 500, 12)).astype(np.float32)
        features = (rng.normal(size=(n, model.input_shape[1][1])) * 100).astype(np.float32)
        features[:, ::3] = np.nan
        features[0, 1] = 1e30
        found, = session(onnx).run(["probabilities"], {"ecg": ecg, "features": features})
        assert found.shape == (n, 5)
        np.testing.assert_allclose(found, model.predict([ecg, features], verbose=0), atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01    # else all this would say little


def test_the_file_says_what_its_inputs_and_outputs_mean(export):
    path, onnx = export("lstm")
    it = session(onnx)
    meta = {name: json.loads(text)
            for name, text in it.get_modelmeta().custom_metadata_map.items()}
    assert (meta["classes"], meta["leads"]) == (CLASSES, list(script.LEADS))
    assert meta["sampling_rate_hz"] == 50
    assert [x["name"] for x in meta["features"]] == [name for name, _, _ in script.FEATURES]
    assert meta["model_sha256"] == files.sha256(path)
    assert (meta["synthetic"], meta["labels_origin"]) == (False, "not stated")
    assert meta["note"] == origin.note(card())
    assert meta["contract"] == contract(card() | {"rate_limits": [60.0, 100.0]})
    assert [(x.name, x.shape) for x in it.get_inputs()] == [
        ("ecg", ["n", 500, 12]), ("features", ["n", 8])]
    assert [(x.name, x.shape) for x in it.get_outputs()] == [("probabilities", ["n", 5])]


def test_what_differs_from_the_model_is_not_written(export, tmp_path, monkeypatch):
    model, onnx = export("lstm")
    monkeypatch.setattr(export_onnx, "to_onnx", lambda *_: onnx.read_bytes())    # at once
    monkeypatch.setattr(export_onnx, "MAX_DIFFERENCE", 0.0)
    (tmp_path / "x.onnx").write_text("older")
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        export_onnx.main([str(model), "--output", str(tmp_path / "x.onnx")])
    assert [x.read_text() for x in tmp_path.iterdir()] == ["older"]


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)    # as where it is not installed
    assert export_onnx.main(["m.keras"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"export_onnx.py: error: pip install {export_onnx.PACKAGES}: ")
    assert "tf2onnx" in error

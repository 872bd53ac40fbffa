"""Write a saved model as an ONNX file, which onnxruntime runs anywhere without TensorFlow.

    python tools/export_onnx.py my_model.keras                     # writes my_model.onnx
    python tools/export_onnx.py my_model.keras --output x.onnx

It needs three more packages: pip install onnx==1.18.0 onnxruntime==1.23.2 tf2onnx==1.17.0
Inputs are "ecg" (n, sequence_length, 12) and "features" (n, 8 or more), float32 as `prepare_record`
of too_feature.py gives them; a feature is finite or NaN, which counts as the training mean. The
output is "probabilities". The metadata say in JSON what they mean: classes, leads, features,
sampling rate, and "contract", each step in words and numbers. The file is compared
with the model on random and extreme inputs before it gets its name. One difference: where a feature
is infinite, the probabilities are NaN.
"""

import argparse
import importlib
import json
import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import numpy as np

import too_feature as script
from ecg import adaptation, files, origin
from ecg.card import contract
from ecg.errors import exit_code, user_errors
from ecg.explain import flat_layers
from ecg.settings import Parser

PACKAGES = "onnx==1.18.0 onnxruntime==1.23.2 tf2onnx==1.17.0"
MAX_DIFFERENCE = 1e-5       # of two probabilities
EXTREMES = 0.0, 3.0, -3.0, 1e-30, 1e6, -1e6, 1e30, -1e30, np.nan    # no infinity, see above


def check_packages() -> None:
    """Raise `UserError`, with the command that installs them, if packages are missing."""
    script.load_tensorflow()    # else tf2onnx imports it, with its GPUs and messages
    # Not installed, or with a numpy that does not fit
    with user_errors(f"pip install {PACKAGES}", Exception):
        for name in ("onnx", "onnxruntime", "tf2onnx"):
            importlib.import_module(name)


# ---------------------------------------------------------------------------------------- convert
def to_onnx(model, metadata: dict[str, str]) -> bytes:
    """Convert a model of this project, which changes it; return the content of an ONNX file."""
    import onnx

    _, keras = script.load_tensorflow()
    for layer in flat_layers(model):    # what ONNX cannot say; the probabilities stay the same
        if isinstance(layer, keras.layers.LSTM):
            layer.cell.dropout = 0.0    # Keras draws its mask even where it is not used
        elif isinstance(layer, keras.layers.Normalization):    # its tensors would become inputs
            layer.mean = np.array(layer.mean)
            layer.variance = np.array(layer.variance)

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        model.export(f"{folder}/model.onnx", format="onnx", verbose=False)
        converted = onnx.load(f"{folder}/model.onnx")

    graph = converted.graph
    output, = graph.output
    graph.node.append(onnx.helper.make_node("Identity", [output.name], ["probabilities"]))
    output.name = "probabilities"
    for value in (*graph.input, output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"

    onnx.helper.set_model_props(converted, metadata)
    return converted.SerializeToString()


def describe(loaded: script.Loaded, model_path: str) -> dict[str, str]:
    """Return the metadata of a model, as JSON: what its inputs and outputs mean."""
    recipe = loaded.recipe
    values = {
        "classes": loaded.classes,
        "leads": script.LEADS,
        "features": [{"name": name, "unit": unit or "1"}
                     for name, unit, _ in script.feature_names(recipe)],
        "sampling_rate_hz": recipe.sequence_length / script.RECORD_SECONDS,
        "synthetic": bool(loaded.card.get("synthetic")),
        "model_sha256": files.sha256(model_path),
        "labels_origin": origin.of_card(loaded.card),
        "note": origin.note(loaded.card),
        "contract": contract(loaded.card),
    }
    return {name: json.dumps(value) for name, value in values.items()}


# ------------------------------------------------------------------------------------------ check
def trial_inputs(ecg_shape: tuple, features_shape: tuple) -> dict[str, np.ndarray]:
    """Return inputs of 100 records: random, extreme and missing values."""
    rng = np.random.default_rng(0)
    ecg = rng.uniform(-3, 3, (100, *ecg_shape[1:]))    # a lead is never beyond these
    ecg[:3] = np.array([0, 3, -3])[:, None, None]
    features = rng.choice([*EXTREMES, *rng.normal(0, 100, 20)], (100, *features_shape[1:]))
    features[:len(EXTREMES)] = np.array(EXTREMES)[:, None]
    return {"ecg": ecg.astype(np.float32), "features": features.astype(np.float32)}


def check(model, content: bytes) -> None:
    """Raise `AssertionError` if an ONNX file's content gives other probabilities than a model."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    inputs = trial_inputs(*model.input_shape)
    for n in (1, 100):    # any number of records
        some = {name: array[:n] for name, array in inputs.items()}
        got, = session.run(["probabilities"], some)
        np.testing.assert_allclose(
            got, model.predict_on_batch(some), rtol=0, atol=MAX_DIFFERENCE, equal_nan=False)


# ------------------------------------------------------------------------------------------- main
def run(flags: argparse.Namespace) -> None:
    """Export a model."""
    path = adaptation.find_model(flags.model)
    output = Path(flags.output or Path(path).with_suffix(".onnx"))
    check_packages()
    files.check_target(output)
    loaded = script.load(path)
    content = to_onnx(loaded.model, describe(loaded, path))
    check(script.load(path).model, content)
    files.write_bytes(output, content)
    print(f"{output}: the same probabilities as {path}, to {MAX_DIFFERENCE:.0e}")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("model", help=".keras file with its .json next to it, or real_large or "
                                      "real_default")
    parser.add_argument("--output", help="file to write (default: the model's name with .onnx)")
    return exit_code("export_onnx.py", run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

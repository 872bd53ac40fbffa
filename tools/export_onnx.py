"""Write a saved model as an ONNX file, which onnxruntime runs anywhere without TensorFlow.

    python tools/export_onnx.py my_model.keras                     # writes my_model.onnx
    python tools/export_onnx.py my_model.keras --output x.onnx
    python tools/export_onnx.py my_model.keras --output x.onnx --check    # only compares the two

It needs three packages more: pip install onnx==1.18.0 onnxruntime==1.23.2 tf2onnx==1.17.0
Inputs are "ecg" (n, sequence_length, 12) and "features" (n, 8 or more), finite or NaN, which
counts as the training mean; float32, as `prepare_record` of too_feature.py gives them; output
"probabilities". The metadata say in JSON what they mean: classes, leads, features, sampling rate,
preparation. The file is compared with the model on random and extreme inputs before it gets its
name. One difference: where a feature is infinite, the probabilities are NaN.
"""

import argparse
import importlib
import json
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import too_feature as script

PACKAGES = {"onnx": "1.18.0", "onnxruntime": "1.23.2", "tf2onnx": "1.17.0"}
MOST_APART = 1e-5           # of two probabilities
EXTREMES = 0.0, 3.0, -3.0, 1e-30, 1e6, -1e6, 1e30, -1e30, np.nan    # not infinity, see below


def packages():
    """Import and return onnx and onnxruntime, or `UserError` says what to install."""
    missing = []
    script.load_tensorflow()    # tf2onnx would import it with its GPUs and messages
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except Exception as error:    # not installed, or beside a numpy that does not fit
            missing.append(f"{name} ({str(error).splitlines()[0] if str(error) else error!r})")
    if missing:
        raise script.UserError(f"{', '.join(missing)}: pip install " + " ".join(
            f"{name}=={version}" for name, version in PACKAGES.items()))
    return sys.modules["onnx"], importlib.import_module("onnxruntime")


def to_onnx(model, metadata):
    """Convert a model of this project; return the bytes of an ONNX file with that metadata."""
    onnx, keras = packages()[0], script.load_tensorflow()[1]
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in script.tool("classify")._layers(copy):
        if isinstance(layer, keras.layers.LSTM):
            layer.cell.dropout = 0.0    # Keras draws its mask even where it is not used
        elif isinstance(layer, keras.layers.Normalization):    # tensors would become inputs
            layer.mean, layer.variance = np.array(layer.mean), np.array(layer.variance)
    copy([np.zeros((1, *shape[1:]), np.float32) for shape in copy.input_shape])
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        copy.export(f"{folder}/model.onnx", format="onnx", verbose=False)
        converted = onnx.load(f"{folder}/model.onnx")
    graph = converted.graph
    if [x.name for x in graph.input] != [x.name for x in model.inputs] or len(graph.output) != 1:
        raise ValueError(f"inputs became {', '.join(x.name for x in graph.input)}")
    old, graph.output[0].name = graph.output[0].name, "probabilities"
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = "probabilities"
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.helper.set_model_props(converted, metadata)
    onnx.checker.check_model(converted, full_check=True)
    return converted.SerializeToString()


def describe(model_path):
    """Return the metadata of a model as a dict of str: what its inputs and outputs mean."""
    _, classes, settings = script.tool("safe_model").load_model(model_path)
    card = script.tool("safe_model").read_card(model_path)
    values = {
        "classes": classes, "leads": script.LEADS,
        "features": [{"name": name, "unit": unit or "1"} for name, unit, _ in
                     script.feature_names(settings)],
        "missing_features": "NaN, which counts as the mean of training",
        "sampling_rate_hz": settings.sequence_length / script.RECORD_SECONDS,
        "record_seconds": script.RECORD_SECONDS,
        "preparation": {name: getattr(settings, name) for name in script.PREPARATION},
        "synthetic": bool(card.get("synthetic")), "model_sha256": script.sha256(model_path),
        "note": "trained on machine-read labels; not a medical device"}
    return {name: json.dumps(value) for name, value in values.items()}


def trial_inputs(shapes, seed=0):
    """Return batches of inputs of several sizes: random ones, then extreme and missing values."""
    rng, batches = np.random.default_rng(seed), []
    (_, samples, leads), (_, width) = shapes
    for n in (1, 2, 37, 100):
        features = rng.normal(size=(n, width)) * 10.0 ** rng.uniform(-3, 4, (n, 1))
        features[rng.random((n, width)) < 0.2] = np.nan
        batches.append((rng.normal(size=(n, samples, leads)).clip(-3, 3), features))
    ecg = rng.normal(size=(len(EXTREMES), samples, leads)).clip(-3, 3)
    ecg[:3] = np.array(EXTREMES[:3])[:, None, None]    # a lead is never beyond them
    batches.append((ecg, np.tile(np.array(EXTREMES)[:, None], width)))
    batches.append((ecg, np.where(rng.random((len(ecg), width)) < 0.5, np.nan,
                                  rng.choice(EXTREMES, (len(ecg), width)))))
    return [tuple(x.astype(np.float32) for x in batch) for batch in batches]


def check(model, content):
    """Compare an ONNX file's content (bytes) with its model; return the largest difference.

    `ValueError` if it takes or gives something else, or a probability differs by 1e-5 or more.
    """
    onnxruntime, worst = packages()[1], 0.0
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    if {x.name for x in session.get_inputs()} != {x.name for x in model.inputs}:
        raise ValueError("it takes other inputs than the model")
    for ecg, features in trial_inputs(model.input_shape):
        expected = np.asarray(model.predict_on_batch([ecg, features]))
        found = session.run(["probabilities"], {"ecg": ecg, "features": features})[0]
        if found.shape != expected.shape:
            raise ValueError(f"it gives {found.shape}, the model {expected.shape}")
        apart = np.abs(found - expected)
        worst = max(worst, float(np.where(np.isnan(apart), np.inf, apart).max()))
    if not worst < MOST_APART:
        raise ValueError(f"probabilities differ by up to {worst:.1e} from the model's")
    return worst


def run(model_path, output, check_only):
    """Export a model, or only compare; return the largest difference."""
    packages()
    model, _, _ = script.tool("safe_model").load_model(model_path)
    try:
        if check_only:
            return check(model, output.read_bytes())
        content = to_onnx(model, describe(model_path))
        worst = check(model, content)
    except Exception as error:    # the three packages raise whatever they meet
        if isinstance(error, script.UserError):
            raise
        what = f"{output}: not the model {model_path}" if check_only else (
            f"{model_path}: cannot be exported")
        raise script.UserError(f"{what}: {type(error).__name__} {error}"[:300]) from error
    script.write_whole(output, lambda file: file.write_bytes(content))
    return worst


def main(arguments=None):
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False,
                                     usage=argparse.SUPPRESS)    # so that an error takes one line
    parser.add_argument("model", help=".keras file with its .json beside it")
    parser.add_argument("--output", help="file to write (default: the model's name with .onnx)")
    parser.add_argument("--check", action="store_true",
                        help="write nothing: compare the file that is there with the model")
    asked = parser.parse_args(arguments)
    output = Path(asked.output or Path(asked.model).with_suffix(".onnx"))
    try:
        if output.suffix != ".onnx" or output.is_dir():
            raise script.UserError(f"--output {output}: expected a file name that ends in .onnx")
        worst = run(asked.model, output, asked.check)
    except (script.UserError, KeyboardInterrupt) as error:
        print(f"export_onnx.py: error: {str(error) or 'interrupted'}", file=sys.stderr)
        return 2 if isinstance(error, script.UserError) else 130
    print(f"{output}: the same probabilities as {asked.model}, to {worst:.0e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

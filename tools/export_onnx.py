"""Write a saved model as an ONNX file, which onnxruntime runs anywhere without TensorFlow.

    python tools/export_onnx.py my_model.keras                     # writes my_model.onnx
    python tools/export_onnx.py my_model.keras --output x.onnx
    python tools/export_onnx.py my_model.keras --output x.onnx --check    # only compares the two

It needs three more packages: pip install onnx==1.18.0 onnxruntime==1.23.2 tf2onnx==1.17.0
Inputs are "ecg" (n, sequence_length, 12) and "features" (n, 8 or more), float32 as `prepare_record`
of too_feature.py gives them; a feature is finite or NaN, which counts as the training mean. The
output is "probabilities". The metadata say in JSON what they mean: classes, leads, features,
sampling rate, preparation, and "contract", each step in words and numbers. The file is compared
with the model on random and extreme inputs before it gets its name. One difference: where a feature
is infinite, the probabilities are NaN.
"""

import argparse
import contextlib
import importlib
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import numpy as np

import too_feature as script
from ecg import files, origin
from ecg.card import contract
from ecg.errors import UserError, exit_code, user_errors
from ecg.explain import flat_layers
from ecg.settings import Parser

PACKAGES = {"onnx": "1.18.0", "onnxruntime": "1.23.2", "tf2onnx": "1.17.0"}
MOST_APART = 1e-5           # of two probabilities
EXTREMES = 0.0, 3.0, -3.0, 1e-30, 1e6, -1e6, 1e30, -1e30, np.nan    # no infinity, see above


def packages():
    """Import and return onnx and onnxruntime; `UserError` says what to install."""
    script.load_tensorflow()    # else tf2onnx imports it, with its GPUs and messages
    missing = []
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except Exception as error:    # not installed, or with a numpy that does not fit
            why = str(error).splitlines()[0] if str(error) else repr(error)
            missing.append(f"{name} ({why})")

    if missing:
        pinned = " ".join(f"{name}=={version}" for name, version in PACKAGES.items())
        raise UserError(f"{', '.join(missing)}: pip install {pinned}")
    return sys.modules["onnx"], sys.modules["onnxruntime"]


# ---------------------------------------------------------------------------------------- convert
def exportable(model):
    """Return a copy of a model in which nothing is left that ONNX cannot say."""
    _, keras = script.load_tensorflow()
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in flat_layers(copy):
        if isinstance(layer, keras.layers.LSTM):
            layer.cell.dropout = 0.0    # Keras draws its mask even where it is not used
        elif isinstance(layer, keras.layers.Normalization):    # its tensors would become inputs
            layer.mean = np.array(layer.mean)
            layer.variance = np.array(layer.variance)

    copy([np.zeros((1, *shape[1:]), np.float32) for shape in copy.input_shape])
    return copy


def rename_output(graph, new: str) -> None:
    """Rename the one output of an ONNX graph."""
    old = graph.output[0].name
    graph.output[0].name = new
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def to_onnx(model, metadata: dict[str, str]) -> bytes:
    """Convert a model of this project; return the content of an ONNX file with that metadata."""
    onnx, _ = packages()
    copy = exportable(model)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        copy.export(f"{folder}/model.onnx", format="onnx", verbose=False)
        converted = onnx.load(f"{folder}/model.onnx")

    graph = converted.graph
    inputs = [x.name for x in graph.input]
    if inputs != [x.name for x in model.inputs] or len(graph.output) != 1:
        raise ValueError(f"inputs became {', '.join(inputs)}")
    rename_output(graph, "probabilities")
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"

    onnx.helper.set_model_props(converted, metadata)
    onnx.checker.check_model(converted, full_check=True)
    return converted.SerializeToString()


def describe(loaded: script.Loaded, model_path) -> dict[str, str]:
    """Return the metadata of a model, as JSON: what its inputs and outputs mean."""
    recipe = loaded.recipe
    features = [{"name": name, "unit": unit or "1"}
                for name, unit, _ in script.feature_names(recipe)]
    values = {
        "classes": loaded.classes,
        "leads": script.LEADS,
        "features": features,
        "missing_features": "NaN, which counts as the mean of training",
        "sampling_rate_hz": recipe.sequence_length / script.RECORD_SECONDS,
        "record_seconds": script.RECORD_SECONDS,
        "preparation": {name: getattr(recipe, name) for name in script.PREPARATION},
        "synthetic": bool(loaded.card.get("synthetic")),
        "model_sha256": files.sha256(model_path),
        "labels_origin": origin.of_card(loaded.card),
        "note": origin.note(loaded.card),
        "contract": contract(loaded.card),
    }
    return {name: json.dumps(value) for name, value in values.items()}


# ------------------------------------------------------------------------------------------ check
def trial_inputs(shapes, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return batches of inputs of several sizes: random ones, then extreme and missing values."""
    (_, samples, leads), (_, width) = shapes
    rng = np.random.default_rng(seed)
    batches = []
    for n in (1, 2, 37, 100):
        features = rng.normal(size=(n, width)) * 10.0 ** rng.uniform(-3, 4, (n, 1))
        features[rng.random((n, width)) < 0.2] = np.nan
        batches.append((rng.normal(size=(n, samples, leads)).clip(-3, 3), features))

    n = len(EXTREMES)
    ecg = rng.normal(size=(n, samples, leads)).clip(-3, 3)
    ecg[:3] = np.array(EXTREMES[:3])[:, None, None]    # a lead is never beyond these
    all_alike = np.tile(np.array(EXTREMES)[:, None], width)
    missing = rng.random((n, width)) < 0.5
    mixed = np.where(missing, np.nan, rng.choice(EXTREMES, (n, width)))
    batches += [(ecg, all_alike), (ecg, mixed)]
    return [(ecg.astype(np.float32), features.astype(np.float32)) for ecg, features in batches]


def check(model, content: bytes) -> float:
    """Compare an ONNX file's content with its model; return the largest difference.

    `ValueError` if it takes or gives something else, or a probability differs by 1e-5 or more.
    """
    _, onnxruntime = packages()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    if {x.name for x in session.get_inputs()} != {x.name for x in model.inputs}:
        raise ValueError("it takes other inputs than the model")

    worst = 0.0
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


# ------------------------------------------------------------------------------------------- main
@contextlib.contextmanager
def package_errors(what: str) -> Iterator[None]:
    """Turn whatever the three packages raise into a `UserError` that starts with `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {type(error).__name__} {error}"[:300]) from error


def compare(model_path, output: Path) -> float:
    """Compare a model with an ONNX file; return the largest difference."""
    loaded = script.load(model_path)
    with package_errors(f"{output}: not the model {model_path}"):
        return check(loaded.model, output.read_bytes())


def export(model_path, output: Path) -> float:
    """Write a model as an ONNX file; return the largest difference between the two."""
    loaded = script.load(model_path)
    with package_errors(f"{model_path}: cannot be exported"):
        content = to_onnx(loaded.model, describe(loaded, model_path))
        worst = check(loaded.model, content)

    files.write_whole(output, lambda file: file.write_bytes(content))
    return worst


def run(asked: argparse.Namespace) -> None:
    """Export a model, or only compare."""
    output = Path(asked.output or Path(asked.model).with_suffix(".onnx"))
    if output.suffix != ".onnx" or output.is_dir():
        raise UserError(f"--output {output}: expected a file name that ends in .onnx")

    if not asked.check:
        read = [asked.model, str(Path(asked.model).with_suffix(".json"))]
        with user_errors("--output", UserError):
            files.check_target(output, read)

    packages()
    work = compare if asked.check else export
    worst = work(asked.model, output)
    print(f"{output}: the same probabilities as {asked.model}, to {worst:.0e}")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("model", help=".keras file with its .json next to it")
    parser.add_argument("--output", help="file to write (default: the model's name with .onnx)")
    parser.add_argument("--check", action="store_true",
                        help="compare an existing ONNX file with the model and write nothing")
    return exit_code("export_onnx.py", run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

"""Load a model of this project, and nothing else that a .keras file might hold.

Keras's safe mode alone does not suffice: files of strangers have got round it. So before Keras sees
a file, its parts, its layers (an allowlist) and its weights are checked here, and its .json is
compared with it.
"""

import contextlib
import functools
import io
import json
import os
import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import too_feature as script

MOST_BYTES = 2**28          # of a model; an ensemble of 100 large ones has 50 MB
MOST_TEXT = 2**25           # bytes of its .json and of its own description
MOST_UNITS = 10_000         # in any layer, and samples
MOST_WEIGHTS = 2**31        # bytes that its layers may ask for, estimated generously
FILES = ["config.json", "metadata.json", "model.weights.h5"]
# What the models of this project are made of: nothing that runs code or reads other files
PARTS = {
    "Functional", "InputLayer", "Dense", "LSTM", "Conv1D", "MultiHeadAttention", "Normalization",
    "BatchNormalization", "LayerNormalization", "Dropout", "SpatialDropout1D", "GaussianNoise",
    "MaxPooling1D", "Activation", "Softmax", "Add", "Average", "Concatenate", "Flatten", "NanToNum",
    "Clip", "GetItem", "Take", "Einsum", "DTypePolicy", "Zeros", "Ones", "GlorotUniform",
    "Orthogonal", "__keras_tensor__", "__slice__"}


def _check_file(path, most):
    """Raise ValueError if there is no plain file (a pipe never ends), or too large a one."""
    if os.stat(path).st_size > most or not os.path.isfile(path):
        raise ValueError(f"{os.path.basename(path)} is no file, or larger than any of this project")


def _check_weights(content):
    """Raise ValueError if an HDF5 file leads out of itself, or grows when it is read."""
    import h5py  # Keras brings it

    with h5py.File(io.BytesIO(content)) as file:
        todo, size, seen = [file], 0, set()
        while todo:
            group = todo.pop()
            for name in group:
                plain = isinstance(group.get(name, getlink=True), h5py.HardLink)
                item = group[name] if plain else None
                if plain and isinstance(item, h5py.Group):
                    address = h5py.h5o.get_info(item.id).addr
                    plain = address not in seen    # of one that holds itself there is no end
                    seen.add(address)
                    todo.append(item)
                elif plain:
                    plain = not (item.external or item.is_virtual or item.chunks
                                 or item.dtype.kind not in "iuf")
                    size += item.nbytes
                if not plain or size > MOST_BYTES:
                    raise ValueError("its weights are not plain arrays")


def _asked_bytes(part):
    """Return a generous estimate of the bytes that the weights of a layer take."""
    config, shapes = part.get("config"), part.get("build_config")
    if not isinstance(config, dict):
        return 0
    width = max(config.get("units", 0), config.get("filters", 0), config.get("num_heads", 0)
                * max(config.get("key_dim", 0), config.get("value_dim") or 0))
    if not width:
        return 0
    shapes = [shapes["input_shape"]] if "input_shape" in shapes else shapes["shapes_dict"].values()
    inputs = sum(shape[-1] for shape in shapes)
    return 16 * width * (width + inputs) * max([1, *config.get("kernel_size", ())])    # an LSTM's


def _check_parts(path):
    """Raise ValueError if a .keras file is huge, or holds what no model of this project does.

    Keras tells by the ending of a name how to read a file, and of an .h5 it runs the code.
    """
    if Path(path).suffix != ".keras":
        raise ValueError("its name does not end in .keras")
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if sorted(part.filename for part in parts) != FILES or any(x.compress_type for x in parts):
            raise ValueError("it holds other files than a model of this project, or packed ones")
        if archive.getinfo("config.json").file_size > MOST_TEXT:
            raise ValueError("its description is larger than any of this project")
        description = json.loads(archive.read("config.json"))
        if description["class_name"] != "Functional":
            raise ValueError("its description is of something else")
        _check_weights(archive.read("model.weights.h5"))
    todo, asked = [description], 0
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            name, module = value.get("class_name", "Dense"), value.get("module") or "keras"
            if (name not in PARTS or module.split(".")[0] != "keras"
                    or value.get("registered_name") not in (None, name)):
                raise ValueError(f"it holds {module}.{name}, which no model of this project does")
            asked += _asked_bytes(value)
            todo += [x for key, x in value.items()
                     if key not in ("shared_object_id", "seed") or not isinstance(x, int)]
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, int) and value > MOST_UNITS:
            raise ValueError(f"it holds the number {value}, larger than any of this project")
        if asked > MOST_WEIGHTS:
            raise ValueError("it asks for more weights than any model of this project")


def read_card(path):
    """Return the card of a model; `ValueError` if there is none that describes it.

    Where a run was killed between moving the model and its .json into place, that is a .json.new.
    """
    _check_file(path, MOST_BYTES)
    digest, card_path = script.sha256(path), Path(path).with_suffix(".json")
    for place in (card_path, Path(f"{card_path}.new"), card_path):    # which it may just become
        with contextlib.suppress(FileNotFoundError):
            _check_file(place, MOST_TEXT)
            card = json.loads(place.read_text(encoding="utf-8"))
            if card["model_sha256"] == digest:
                return card
    raise ValueError(f"{card_path.name} is missing or describes another model")


@contextlib.contextmanager
def _loading(path):
    """Say in one line what is wrong with a model."""
    try:
        yield
    except Exception as error:    # Keras raises whatever the damage leads to
        why = f"{type(error).__name__} {error}"[:150]
        raise script.UserError(f"{path} and its .json cannot be loaded: {why}; name the model of a "
                               "run of this version (python too_feature.py makes one)") from error


@functools.lru_cache(maxsize=2)
def _load_model(path, _modified):
    with _loading(path):
        card = read_card(path)
        _check_parts(path)
        settings = script.Settings(**{name: card["settings"][name] for name in script.PREPARATION},
                                   cache=False)
        names = [name for name, _, _ in script.feature_names(settings)]
        classes, widths = card["classes"], [settings.sequence_length, len(names)]
        if (not isinstance(classes, list)
                or not all(name.isprintable() and len(name) <= 100 for name in classes)
                or card["leads"] != list(script.LEADS)
                or [name for name, _, _ in card["features"]] != names):
            raise ValueError("its .json describes other classes, leads or features")
    keras = script.load_tensorflow()[1]
    with _loading(path):
        model = keras.models.load_model(path, compile=False, safe_mode=True)
        if (model.output_shape[1] != len(set(classes))
                or [shape[1] for shape in model.input_shape] != widths):
            raise ValueError("its .json describes other classes or inputs")
    model.jit_compile = False    # as fast here, at once, and XLA is broken on some machines
    return model, classes, settings


def load_model(path):
    """Load a .keras file with its .json beside it, safely; return model, classes and settings.

    It is kept, so asking again costs nothing until the file changes. `UserError` if it cannot be
    used.
    """
    modified = os.stat(path).st_mtime_ns if os.path.exists(path) else None
    return _load_model(str(path), modified)

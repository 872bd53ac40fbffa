"""Refuse a .keras file that holds anything but a model of this project.

Keras's safe mode alone is not enough: crafted files have got around it. So before Keras opens a
file, its parts, its layers (by an allowlist) and its weights are checked here, and its hash is
compared with the one in its card, the .json next to it.
"""

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ecg import files

MOST_BYTES = 2**28          # of a model; an ensemble of 100 large ones has 50 MB
MOST_TEXT = 2**25           # bytes of a card and of a model's own description
MOST_UNITS = 10_000         # in any layer, and samples of an ECG
MOST_WEIGHTS = 2**31        # bytes that the layers may ask for, estimated generously
FILES = ["config.json", "metadata.json", "model.weights.h5"]
# What the models of this project are made of: nothing that runs code or reads other files
PARTS = {
    "Functional", "InputLayer", "Dense", "LSTM", "Conv1D", "MultiHeadAttention", "Normalization",
    "BatchNormalization", "LayerNormalization", "Dropout", "SpatialDropout1D", "GaussianNoise",
    "MaxPooling1D", "Activation", "Softmax", "Add", "Average", "Concatenate", "Flatten", "NanToNum",
    "Clip", "GetItem", "Take", "Einsum", "DTypePolicy", "Zeros", "Ones", "GlorotUniform",
    "Orthogonal", "__keras_tensor__", "__slice__"}


# ------------------------------------------------------------------------------------------ card
def _check_size(path: str | Path, most: int) -> None:
    """Raise ValueError if there is no plain file (a pipe never ends), or too large a one."""
    if os.stat(path).st_size > most or not os.path.isfile(path):
        name = os.path.basename(path)
        raise ValueError(f"{name} is not a plain file, or larger than any of this project")


def read_card(path: str | Path) -> dict[str, Any]:
    """Read the card of a model.

    A run that was killed between moving the model and its card into place has left the card as a
    .json.new; the card is whichever of the two holds the model's hash.

    Parameters
    ----------
    path : the .keras file

    Returns
    -------
    dict
        What the .json holds, whose values nobody has checked.

    Raises
    ------
    ValueError
        No card describes this model, or one of the files is too large. `OSError` if the model
        cannot be read, `KeyError` or `TypeError` if the .json is of something else.
    """
    _check_size(path, MOST_BYTES)
    digest = files.sha256(path)
    card_path = Path(path).with_suffix(".json")
    new_path = Path(f"{card_path}.new")
    for place in (card_path, new_path, card_path):    # the new one may just become the other
        with contextlib.suppress(FileNotFoundError):
            _check_size(place, MOST_TEXT)
            card = json.loads(place.read_text(encoding="utf-8"))
            if card["model_sha256"] == digest:
                return card

    raise ValueError(f"{card_path.name} is missing or describes another model")


def is_own_card(path: Path) -> bool:
    """Tell whether a file is the card of a model of this project, of any version."""
    try:
        _check_size(path, MOST_TEXT)
        return "model_sha256" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def is_own_model(path: Path) -> bool:
    """Tell whether a file is a model with its card, of any version of this project."""
    try:
        read_card(path)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False
    return True


# --------------------------------------------------------------------------------------- weights
NOT_PLAIN = "its weights are not plain arrays"


def _items(group: Any) -> Iterator[Any]:
    """Yield what an HDF5 group holds; ValueError if one of its names is a link."""
    import h5py  # Keras brings it

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(NOT_PLAIN)
        yield group[name]


def _array_bytes(item: Any) -> int:
    """Return the size of an HDF5 array when read; ValueError if it is not stored as it is."""
    import h5py

    if not isinstance(item, h5py.Dataset):
        raise ValueError(NOT_PLAIN)
    if item.external or item.is_virtual or item.chunks or item.dtype.kind not in "iuf":
        raise ValueError(NOT_PLAIN)
    return item.nbytes


def _check_weights(content: bytes) -> None:
    """Raise ValueError if an HDF5 file leads out of itself, or grows when it is read."""
    import h5py

    size = 0
    seen = set()
    with h5py.File(io.BytesIO(content)) as file:
        groups = [file]
        while groups:
            for item in _items(groups.pop()):
                if not isinstance(item, h5py.Group):
                    size += _array_bytes(item)
                    if size > MOST_BYTES:
                        raise ValueError(NOT_PLAIN)
                    continue

                address = h5py.h5o.get_info(item.id).addr
                if address in seen:    # a group that holds itself has no end
                    raise ValueError(NOT_PLAIN)
                seen.add(address)
                groups.append(item)


# ---------------------------------------------------------------------------------------- layers
def _asked_bytes(part: dict[str, Any]) -> int:
    """Return a generous estimate of the bytes that the weights of a layer take."""
    config = part.get("config")
    if not isinstance(config, dict):
        return 0

    head = max(config.get("key_dim", 0), config.get("value_dim") or 0)
    heads = config.get("num_heads", 0) * head
    width = max(config.get("units", 0), config.get("filters", 0), heads)
    if not width:
        return 0

    build = part["build_config"]
    shapes = [build["input_shape"]] if "input_shape" in build else build["shapes_dict"].values()
    inputs = sum(shape[-1] for shape in shapes)
    longest = max([1, *config.get("kernel_size", ())])
    return 16 * width * (width + inputs) * longest    # 16: the four gates of an LSTM, 4 bytes each


def _check_part(part: dict[str, Any]) -> None:
    """Raise ValueError if a part of a description is not a layer or initialiser of `PARTS`."""
    name = part.get("class_name", "Dense")
    module = part.get("module") or "keras"
    registered = part.get("registered_name")
    known = name in PARTS and module.split(".")[0] == "keras"
    if not known or registered not in (None, name):
        raise ValueError(f"it holds {module}.{name}, which no model of this project does")


def _check_description(description: dict[str, Any]) -> None:
    """Raise ValueError if a model holds, or asks for, what no model of this project does."""
    asked = 0
    waiting: list[Any] = [description]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            _check_part(value)
            asked += _asked_bytes(value)
            for key, inner in value.items():
                if key in ("shared_object_id", "seed") and isinstance(inner, int):
                    continue    # numbers of any size, which nothing is made by
                waiting.append(inner)
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, int) and value > MOST_UNITS:
            raise ValueError(f"it holds the number {value}, larger than any of this project")

        if asked > MOST_WEIGHTS:
            raise ValueError("it asks for more weights than any model of this project")


# ------------------------------------------------------------------------------------------ file
def check_file(path: str | Path) -> None:
    """Check that a .keras file holds a model of this project, without Keras.

    Keras decides by the ending of a name how to read a file, and runs the code in an .h5.

    Parameters
    ----------
    path : the .keras file, whose size `read_card` has checked

    Raises
    ------
    ValueError
        The file holds something else, or is too large. A damaged file raises what zipfile, h5py
        and json raise, or `KeyError` or `TypeError`: whoever loads models catches `Exception`.
    """
    if Path(path).suffix != ".keras":
        raise ValueError("its name does not end in .keras")

    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        names = sorted(part.filename for part in parts)
        if names != FILES or any(part.compress_type for part in parts):
            raise ValueError("it holds other files than a model of this project, or packed ones")
        if archive.getinfo("config.json").file_size > MOST_TEXT:
            raise ValueError("its description is larger than any of this project")

        description = json.loads(archive.read("config.json"))
        if description["class_name"] != "Functional":
            raise ValueError("its description is of something else")
        _check_weights(archive.read("model.weights.h5"))

    _check_description(description)

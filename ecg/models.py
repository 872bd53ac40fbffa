"""Refuse a .keras file that holds anything but a model that this project builds.

Keras's safe mode alone is not enough: crafted files have got around it. So Keras never builds what
a file describes. Whoever loads a model builds it anew, by the recipe in its card (the .json next to
it, which holds its hash), and has the two descriptions compared here; then only arrays are read.
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
MOST_MODELS = 100           # in an ensemble
FILES = ["config.json", "metadata.json", "model.weights.h5"]
# In a description, what says nothing about what a model computes
BY_THE_WAY = {"name", "trainable", "seed", "shared_object_id", "build_config", "compile_config"}
NOT_OURS = "it is not a model that this version builds by its card's recipe"


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


# ----------------------------------------------------------------------------------- description
def member_descriptions(description: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the descriptions of the models that an ensemble averages; of another, none."""
    layers = description["config"]["layers"]
    members = [layer for layer in layers if layer["class_name"] == "Functional"]
    if len(members) > MOST_MODELS:
        raise ValueError(NOT_OURS)
    return members


def scalings(description: dict[str, Any], width: int) -> list[tuple[list[float], list[float]]]:
    """Return mean and variance of each layer of a description that scales `width` features.

    They are constants of a model, not weights. The first are those farthest from its output.
    `ValueError` if there are none.
    """
    found = []
    for layer in description["config"]["layers"]:
        if layer["class_name"] == "Normalization":
            constants = layer["config"]["mean"], layer["config"]["variance"]
            if all(len(values) == width for values in constants):
                found.append(constants)

    if not found:
        raise ValueError(NOT_OURS)
    return found


def _essence(value: Any, places: dict[str, int] | None = None) -> Any:
    """Return what a description says about what is computed.

    Layers are known by their places in the list of layers, not by their names, which depend on what
    else a process has built. What is off or not given is left out: versions of Keras add options.
    """
    if isinstance(value, list):
        return [_essence(inner, places) for inner in value]
    if not isinstance(value, dict):
        return value

    if "layers" in value:
        places = {layer["name"]: place for place, layer in enumerate(value["layers"])}
    essence = {}
    for key, inner in value.items():
        if key in ("input_layers", "output_layers", "keras_history") and places is not None:
            essence[key] = json.dumps(_placed(inner, places))
        elif key == "module":
            essence[key] = inner.split(".")[0]
        elif inner and key not in BY_THE_WAY and not (
                key == "registered_name" and inner == value.get("class_name")):
            essence[key] = _essence(inner, places)
    return essence


def _placed(history: Any, places: dict[str, int]) -> Any:
    """Return which layer, or layers, something comes from, with places instead of names."""
    if isinstance(history, str):
        return places[history]
    if isinstance(history, list):
        return [_placed(inner, places) for inner in history]
    return history


def check_same(description: dict[str, Any], own: dict[str, Any]) -> None:
    """Raise ValueError if two descriptions are not of the same computation."""
    if _essence(description) != _essence(own):
        raise ValueError(NOT_OURS)


# ------------------------------------------------------------------------------------------ file
def read_description(path: str | Path) -> dict[str, Any]:
    """Return the description of the model in a .keras file, without Keras.

    Keras decides by the ending of a name how to read a file, runs the code in an .h5, and fetches
    what looks like a URL.

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
    if "://" in str(path):
        raise ValueError("its name looks like a URL")

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
    return description

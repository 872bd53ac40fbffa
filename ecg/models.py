"""Read a stranger's model: refuse it in one line, or take its arrays and nothing else.

Keras's safe mode alone is not enough: crafted files have got around it. So what a .keras file says
of itself (config.json) is never read. The model is built by the recipe and the feature scaling in
its card (the .json next to it, which holds its hash), and only arrays come from the file. Two
probabilities in the card then tell whether it is the same model.
"""

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecg import __version__, files, label_file, origin, recordings
from ecg.errors import UserError, user_errors

MAX_MODEL_BYTES = 2**28    # an ensemble of 100 large ones has 50 MB
MAX_CARD_BYTES = 2**25
MAX_MEMBERS = 100          # of an ensemble
MAX_LETTERS = 100          # of a class name
NOT_PLAIN = "its weights are not plain arrays"
FILES = ["config.json", "metadata.json", "model.weights.h5"]


@contextlib.contextmanager
def refusing(path: str | Path) -> Iterator[None]:
    """Say in one line what is wrong with a model: Keras raises whatever the damage leads to."""
    try:
        yield
    except Exception as error:
        why = f"{type(error).__name__} {error}"[:150]
        raise UserError(f"{path} and its .json cannot be loaded: {why}; name the model of a run of "
                        "this version (python too_feature.py makes one)") from error


# ------------------------------------------------------------------------------------------ card
def _check_size(path, most):
    """Raise ValueError if there is no plain file (a pipe never ends), or too large a one."""
    if os.stat(path).st_size > most or not os.path.isfile(path):
        raise ValueError(f"{os.path.basename(path)} is not a plain file, or larger than any of "
                         "this project")


def read_card(path: str | Path) -> dict:
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
        No card of this version describes this model, or one of the files is too large. `OSError`
        if the model cannot be read, `KeyError` or `TypeError` if the .json is of something else.
    """
    _check_size(path, MAX_MODEL_BYTES)
    digest = files.sha256(path)
    card_path = Path(path).with_suffix(".json")
    new_path = Path(f"{card_path}.new")
    for place in (card_path, new_path, card_path):    # the new one may just become the other
        with contextlib.suppress(FileNotFoundError):
            _check_size(place, MAX_CARD_BYTES)
            card = json.loads(place.read_text(encoding="utf-8"))
            if card["model_sha256"] == digest:
                version = str(card.get("version", "1"))
                if version.split(".")[:2] != __version__.split(".")[:2]:
                    raise ValueError(f"trained by version {version:.20}: train it again")
                return card

    raise ValueError(f"{card_path.name} is missing or describes another model")


def check_card(card: dict, leads: Sequence[str], features: Sequence[tuple],
               n_linear: int) -> None:
    """Check what a card says of a model's inputs and outputs.

    Parameters
    ----------
    card : what `read_card` returned
    leads, features : names of the leads and (name, unit, range) of the features that are expected
    n_linear : features of a blended regression, or 0

    Raises
    ------
    ValueError
        It describes others. `KeyError`, `TypeError` or `AttributeError` if it has another form.
    """
    classes = card["classes"]
    most = label_file.MAX_CLASSES
    if not isinstance(classes, list) or not 2 <= len(set(classes)) == len(classes) <= most:
        raise ValueError("its .json describes other classes")
    if not all(name.isprintable() and len(name) <= MAX_LETTERS for name in classes):
        raise ValueError("its .json has a class name that is not printable text")

    names = [name for name, _, _ in card["features"]]
    if card["leads"] != list(leads) or names != [name for name, _, _ in features]:
        raise ValueError("its .json describes other leads or features")
    check_scaling(card["scaling"], len(features), n_linear)
    origin.check_card(card)


# --------------------------------------------------------------------------------------- weights
def _check_weights(content):
    """Raise ValueError if an HDF5 file leads out of itself, or grows when it is read."""
    import h5py  # Keras brings it

    size = 0
    seen = set()
    with h5py.File(io.BytesIO(content)) as file:
        todo = [file["/"]]
        while todo:
            item = todo.pop()
            if isinstance(item, h5py.Group):
                links = [item.get(name, getlink=True) for name in item]
                is_plain = {type(link) for link in links} <= {h5py.HardLink}
                if item in seen or not is_plain:    # a group that holds itself has no end
                    raise ValueError(NOT_PLAIN)
                seen.add(item)
                todo += item.values()
                continue

            if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "iuf":
                raise ValueError(NOT_PLAIN)
            size += item.nbytes
            if item.external or item.is_virtual or item.chunks or size > MAX_MODEL_BYTES:
                raise ValueError(NOT_PLAIN)


# --------------------------------------------------------------------------------------- scaling
SCALING = "feature_scaling"              # name of the layer that scales the features
BASELINE_SCALING = "baseline_scaling"    # and of the one of a blended regression
PREFIXES = {SCALING: "", BASELINE_SCALING: "baseline_"}    # in a card


def scaling_of(model: Any) -> list[dict[str, list[float]]]:
    """Return what scales the features in a model: constants of the training records, not weights.

    Returns
    -------
    list of dict, one for each member of an ensemble
        "mean" and "variance" of each feature; where a regression is blended in, its "baseline_mean"
        and "baseline_variance" as well.
    """
    members = [layer for layer in model.layers if hasattr(layer, "layers")] or [model]
    return [
        {PREFIXES[layer.name] + kind: np.ravel(layer.get_config()[kind]).tolist()
         for layer in member.layers if layer.name in PREFIXES for kind in ("mean", "variance")}
        for member in members]


def check_scaling(scaling: Any, width: int, baseline_width: int = 0) -> None:
    """Raise ValueError unless a card's scaling is of `width` features, and of a regression's."""
    if not isinstance(scaling, list) or not 1 <= len(scaling) <= MAX_MEMBERS:
        raise ValueError(f"its .json has no scaling of 1 to {MAX_MEMBERS} models")

    widths = {"mean": width, "variance": width,
              "baseline_mean": baseline_width, "baseline_variance": baseline_width}
    for entry in scaling:
        for name, expected in widths.items():
            values = np.array(entry.get(name, []))
            least = 0 if "variance" in name else -np.inf
            is_shaped = values.shape == (expected,) and values.dtype.kind in "if"
            if not is_shaped or not ((values > least) & (values < np.inf)).all():
                raise ValueError(f"{name} in its .json: expected {expected} numbers in range")


# -------------------------------------------------------------------------------------- ensemble
def average(keras: Any, members: list) -> Any:
    """Return a model of the same inputs that averages the probabilities of several; of one, it."""
    if len(members) == 1:
        return members[0]
    named = [    # a layer needs a name of its own, and one output, not a list of one
        keras.Model(model.inputs, model.outputs[0], name=f"{model.name}_{i}")
        for i, model in enumerate(members)]
    inputs = [keras.Input(array.shape[1:], name=array.name) for array in members[0].inputs]
    average = keras.layers.Average()([model(inputs) for model in named])
    return keras.Model(inputs, average, name="ensemble")


# ----------------------------------------------------------------------------------------- check
CHECK_FS = 500                # Hz
CHECK_TOLERANCE = 1e-3        # of a probability
# Height in mV, time after the R peak and standard deviation in s of P, Q, R, S and T in lead II
WAVES = (
    (0.12, -0.16, 0.025), (-0.1, -0.03, 0.010), (1.0, 0.0, 0.012), (-0.25, 0.03, 0.012),
    (0.3, 0.26, 0.050))
# Heart rate in bpm, relative change of the RR intervals, and how many times as wide all waves are
CHECK_RHYTHMS = (56, 0.03, 1.0), (104, 0.20, 1.4)


def check_ecgs() -> list[np.ndarray]:
    """Return two synthetic ECGs in mV, of shape (samples, 12), the same on every machine."""
    seconds = np.arange(10 * CHECK_FS) / CHECK_FS
    angles = np.outer(1 + np.arange(len(WAVES)) / 5, np.arange(12) - 1) / 2    # 0 in lead II
    ecgs = []
    for bpm, change, width in CHECK_RHYTHMS:
        intervals = 60 / bpm * (1 + change * np.sin(2.3 * np.arange(20)))
        since = seconds[:, None] + 0.3 - np.cumsum(intervals)    # s since each R peak
        waves = [height * np.exp(-((since - delay) / (width * deviation))**2 / 2).sum(axis=1)
                 for height, delay, deviation in WAVES]
        ecgs.append(np.transpose(waves) @ np.cos(angles))
    return ecgs


def check_same(expected: Any, probabilities: list[dict[str, float]]) -> None:
    """Raise ValueError if probabilities, by class for each ECG, are not those of a card."""
    for stated, own in zip(expected, probabilities, strict=True):
        if not all(abs(stated[name] - own[name]) <= CHECK_TOLERANCE for name in own):
            raise ValueError("it gives the two ECGs of its card other probabilities: another "
                             "recipe, order of classes or version of the code")


# ------------------------------------------------------------------------------------------ file
def check_file(path: str | Path) -> None:
    """Raise an error unless a .keras file holds three files, and its weights are plain arrays.

    Keras decides by the ending of a name how to read a file, runs the code in an .h5, and fetches
    what looks like a URL.

    Parameters
    ----------
    path : the .keras file, whose size `read_card` has checked

    Raises
    ------
    ValueError
        The file holds something else, or is too large. A damaged file raises what zipfile and h5py
        raise: whoever loads models catches `Exception`.
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
        _check_weights(archive.read("model.weights.h5"))


# What newer releases of Keras add to the description of a layer, each at its default in our models
NEWER_SETTINGS = {"quantization_config", "input_axes", "output_axes", "renorm", "use_gate",
                  "sliding_window"}


def write(model: Any, card: dict, path: Path) -> None:
    """Write a model and its card, to which the hash of the model's file is added.

    The card is first written as .json.new, so that a card that fits the model exists at every
    moment.
    """
    new = path.with_suffix(".json.new")

    def write_both(scratch):
        model.save(scratch)
        make_portable(scratch)
        write_card(card, scratch, new)

    files.write_whole(path, write_both)
    with user_errors(f"{path}, whose card stays {new}"):
        os.replace(new, path.with_suffix(".json"))


def write_card(card: dict, path: Path, card_path: Path | None = None) -> None:
    """Write the card of a model whose file is there, by default next to it as .json."""
    text = json.dumps({**card, "model_sha256": files.sha256(path)}, indent=1)
    files.write_bytes(card_path or path.with_suffix(".json"), text.encode())


def make_portable(path: Path) -> None:
    """Rewrite a .keras file that we have just saved so that Keras 3.5 and later open it.

    Releases differ in what they write of a layer at its defaults, and refuse what they do not know.
    """
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    description = json.loads(parts["config.json"], object_hook=_portable)
    parts["config.json"] = json.dumps(description).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for part in parts.items():
            archive.writestr(*part)


def _portable(part):
    """Return a dict of a description without what some releases do not know.

    That is `NEWER_SETTINGS`, and the name among the settings of an operation that has others.
    """
    kept = {name: inner for name, inner in part.items() if name not in NEWER_SETTINGS}
    if str(kept.get("module")).startswith("keras.src.ops") and len(kept["config"]) > 1:
        kept["config"].pop("name", None)
    return kept


def count_known(path: str | Path, signals: Any) -> int | None:
    """Count the recordings among prepared ECGs that a model has learnt from.

    None if no file beside the model tells: runs of users write none.
    """
    with refusing(path):
        known = recordings.read_known(path)
    return None if known is None else int(recordings.is_known(signals, known).sum())

"""Models from strangers: arrays are taken from them, or they are refused in one line."""

import io
import json
import os
import zipfile

import h5py
import numpy as np
import pytest

import too_feature as script
from ecg import files, models
from ecg.errors import UserError
from tests.support.models import card, save


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Path of a model of this project."""
    return save("lstm", tmp_path_factory.mktemp("good") / "m.keras")


@pytest.fixture
def parts(good):
    """The content of its three files, to be changed."""
    with zipfile.ZipFile(good) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def pack(good, tmp_path):
    """Write a model of these parts, with a card that vouches for it."""
    def write(parts, name="m.keras", packed=zipfile.ZIP_STORED, **changes):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", packed) as archive:
            for part, content in parts.items():
                archive.writestr(part, content)
        return vouch(path, good, **changes)
    return write


@pytest.fixture
def unopened(monkeypatch):
    """Fail if a model is built, or its file given to Keras."""
    monkeypatch.setattr(script, "load_tensorflow", lambda: pytest.fail("Keras has opened it"))


def vouch(path, good, **changes):
    """Write the card of the good model, with some values changed, for a file."""
    own = json.loads(good.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(
        {**own, "model_sha256": files.sha256(path), **changes}))
    return path


def refused(path, words=None):
    """Check that a model is refused in one line that says these words."""
    with pytest.raises(UserError, match=words) as caught:
        script.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path} and its .json cannot be loaded: ")
    assert len(text.replace(str(path.parent), "")) < 400
    assert text.isprintable()


# ------------------------------------------------------------------------------------ the archive
@pytest.mark.parametrize("description", [b"no JSON", b"[" * 10**6])
def test_what_a_file_says_of_itself_is_never_read(description, good, parts, pack):
    loaded = script.load(pack({**parts, "config.json": description}))
    for own, other in zip(script.load(good).model.get_weights(), loaded.model.get_weights(),
                          strict=True):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize("name", ["metadata.json", "config.json", "model.weights.h5"])
def test_a_file_without_one_of_its_parts_is_refused(name, parts, pack, unopened):
    del parts[name]
    refused(pack(parts), "other files")


@pytest.mark.parametrize("extra", ["assets/x", "../x", "config.json"])
def test_a_file_with_a_part_too_many_is_refused(extra, good, parts, pack, unopened):
    path = pack(parts)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning) if (
            extra in parts) else io.StringIO():
        archive.writestr(extra, parts["config.json"])
    refused(vouch(path, good), "other files")


@pytest.mark.parametrize("share", [0, 0.9])
def test_a_truncated_file_is_refused(share, good, parts, pack, unopened):
    path, content = pack(parts), parts["model.weights.h5"]
    path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])
    refused(vouch(path, good))
    refused(pack({**parts, "model.weights.h5": content[:int(share * len(content))]}))


def test_a_zip_bomb_is_refused_unpacked_by_nobody(parts, pack, unopened):
    bomb = {**parts, "model.weights.h5": bytes(2 * 10**8)}
    refused(pack(bomb, packed=zipfile.ZIP_DEFLATED), "packed")


@pytest.mark.parametrize("name", ["m.h5", "m"])
def test_a_file_that_keras_would_read_in_another_way_is_refused(name, parts, pack, unopened):
    """Such as an .h5 with code before a sound archive: both readers find what they look for."""
    refused(pack(parts, name), "not end in .keras")


# ----------------------------------------------------------------------------------- the weights
def many(group, _):
    for i in range(40):
        group.create_dataset(str(i), (2 * 10**6,), "f4")


def virtual(group, secret):
    layout = h5py.VirtualLayout((10,), "f4")
    layout[:] = h5py.VirtualSource(secret, "x", (10,))
    group.create_virtual_dataset("0", layout)


def link(group, target):
    group["0"] = target


ODD_WEIGHTS = {    # by kind, what puts them into a group of an HDF5 file; `secret` is another file
    "huge": lambda group, _: group.create_dataset("0", (10**5, 10**6), "f4"),    # zeros, not stored
    "many": many,
    "chunked": lambda group, _: group.create_dataset(
        "0", (10**6,), "f4", chunks=True, compression="gzip"),
    "external": lambda group, secret: group.create_dataset("0", (10,), "f4", external=secret),
    "link": lambda group, secret: link(group, h5py.ExternalLink(secret, "/x")),
    "virtual": virtual,
    "ring": lambda group, _: link(group, group.file["layers"]),
    "text": lambda group, _: group.create_dataset("0", data=["text"])}


@pytest.mark.parametrize("kind", ODD_WEIGHTS)
def test_weights_that_lead_elsewhere_or_grow_when_read_are_refused(
        kind, parts, pack, tmp_path, unopened):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1000))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        ODD_WEIGHTS[kind](file.create_group("layers/dense/vars"), str(secret))
    content = (tmp_path / "w.h5").read_bytes()
    refused(pack({**parts, "model.weights.h5": content}), "not plain arrays")


@pytest.mark.parametrize("change", ["missing", "of another shape"])
def test_an_array_that_is_missing_or_of_another_shape_is_refused(change, parts, pack, tmp_path):
    file = tmp_path / "w.h5"
    file.write_bytes(parts["model.weights.h5"])
    with h5py.File(file, "r+") as weights:
        group = weights["layers/dense/vars"]
        del group["0"]
        if change != "missing":
            group["0"] = np.zeros((3, 3), "f4")
    refused(pack({**parts, "model.weights.h5": file.read_bytes()}))


# -------------------------------------------------------------------------------------- the card
@pytest.mark.parametrize("change", [
    {"classes": None}, {"classes": "ABCDE"}, {"classes": ["a"]}, {"classes": ["a"] * 5},
    {"classes": [1, 2, 3, 4, 5]}, {"classes": ["a\nb", "c"]}, {"classes": ["x" * 101, "y"]},
    {"classes": [*map(str, range(101))]}, {"leads": ["I"]}, {"features": [["mean"]]},
    {"recipe": None}, {"recipe": {}}, {"model_sha256": "0" * 64}],
    ids=lambda change: str(change)[:30])
def test_a_card_of_wrong_values_is_refused(change, parts, pack, unopened):
    refused(pack(parts, **change))


@pytest.mark.parametrize("check", [None, [{}, {}]])
def test_a_card_without_its_probabilities_is_refused(check, parts, pack):
    refused(pack(parts, check=check))


@pytest.mark.parametrize(("name", "value"), [
    ("model", "other"), ("sequence_length", 10**12), ("high_pass", float("nan")),
    ("central_share", None), ("scale_span", [])])
def test_a_recipe_out_of_range_in_the_card_is_refused(name, value, parts, pack, unopened):
    refused(pack(parts, recipe={**card()["recipe"], name: value}))


SCALE = {"mean": [0.0] * 8, "variance": [1.0] * 8}


@pytest.mark.parametrize("scaling", [
    None, {}, [], [{}], [SCALE] * 101, [SCALE, {**SCALE, "mean": [0.0] * 7}],
    [{**SCALE, "variance": [0.0] * 8}], [{**SCALE, "mean": [float("nan")] * 8}],
    [{**SCALE, "mean": ["0"] * 8}], [{**SCALE, "mean": [[0]] * 8}]],
    ids=lambda scaling: str(scaling)[-30:])
def test_a_scaling_of_anything_but_a_number_a_feature_is_refused(scaling, parts, pack, unopened):
    refused(pack(parts, scaling=scaling))


def test_a_blended_regression_needs_a_scaling_of_its_own():
    models.check_scaling([{**SCALE, "baseline_mean": [0], "baseline_variance": [1]}], 8, 1)
    with pytest.raises(ValueError, match="baseline_mean"):
        models.check_scaling([SCALE], 8, 1)


@pytest.mark.parametrize("text", ['{"a":' * 10**5 + "1" + "}" * 10**5, "[]", "null", "{", "\0"],
                         ids=lambda text: text[:6])
def test_json_that_is_deep_or_of_another_kind_is_refused(text, parts, pack, unopened):
    path = pack(parts)
    path.with_suffix(".json").write_text(text)
    refused(path)


@pytest.mark.parametrize("name", ["m.keras", "m.json"])
@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "link to zero", "gigabytes"])
def test_what_is_not_a_plain_file_of_fair_size_is_refused_unread(
        name, kind, parts, pack, tmp_path, unopened):
    path = pack(parts)
    file = tmp_path / name
    if kind == "gigabytes":
        os.truncate(file, 5 * 10**9)
    else:
        file.unlink()
    if kind == "folder":
        file.mkdir()
        (file / "config.json").write_bytes(parts["config.json"])    # Keras reads such folders
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "link to zero":
        file.symlink_to("/dev/zero")
    refused(path, name)

"""Models from strangers: refused in one line unless this project builds them; code never run."""

import copy
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import too_feature as script
from ecg import files, models
from ecg.errors import UserError
from tests.support.models import card, save
from tools import classify, export_onnx

NOT_OURS = "not a model that this version builds"


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
def unseen(monkeypatch):
    """Fail if Keras gets to build what a file describes, or to read it."""
    keras = script.load_tensorflow()[1]
    for owner, name in ((keras.models, "load_model"), (keras.Model, "load_weights"),
                        (keras.saving, "deserialize_keras_object"), (keras.Model, "from_config")):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("Keras has opened it"))


@pytest.fixture
def as_built(parts, monkeypatch):
    """Have the good model's description in place of one that is built anew each time."""
    own = json.loads(parts["config.json"])
    monkeypatch.setattr(script, "rebuild", lambda description, *_: models.check_same(
        description, own))


def pack(folder, parts, name="m.keras", packed=zipfile.ZIP_STORED):
    """Write a model of these parts, with a .json that vouches for it."""
    path = folder / name
    with zipfile.ZipFile(path, "w", packed) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    return vouch(path)


def vouch(path, **changes):
    path.with_suffix(".json").write_text(json.dumps(
        {**card(), "model_sha256": files.sha256(path), **changes}))
    return path


def refused(path, words=""):
    """Return the one line with which a model is refused."""
    with pytest.raises(UserError) as caught:
        script.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path} and its .json cannot be loaded: ")
    assert re.search(words, text)
    assert len(text.replace(str(path.parent), "")) < 400
    assert text.isprintable()
    return text


def changed(parts, change):
    """Return the parts with the description of the model changed by a function of its layers."""
    config = json.loads(parts["config.json"])
    layers = {layer["config"]["name"]: layer for layer in config["config"]["layers"]}
    change(layers)
    return {**parts, "config.json": json.dumps(config)}


def first(layers, kind):
    return next(layer for layer in layers.values() if layer["class_name"] == kind)


def test_the_model_of_these_tests_is_loaded_as_it_is_and_packed_anew(good, parts, tmp_path):
    assert len(script.load(good).classes) == 5
    assert len(script.load(pack(tmp_path, parts)).classes) == 5


# ------------------------------------------------------------------------------------ the archive
@pytest.mark.parametrize("part", ["metadata.json", "config.json", "model.weights.h5"])
@pytest.mark.parametrize("damage", ["cut", "missing", "empty", "bytes", "byte in place"])
def test_a_file_with_a_damaged_part_is_refused(part, damage, good, parts, tmp_path):
    if part == "metadata.json" and damage != "missing":
        pytest.skip("it only says when the model was saved")
    content = parts.pop(part)
    if damage != "missing":
        parts[part] = {"cut": content[:len(content) // 2], "empty": b"", "bytes": bytes(1000),
                       "byte in place": content}[damage]
    path = pack(tmp_path, parts)
    if damage == "byte in place":    # whose checksum in the archive no longer fits
        whole = bytearray(path.read_bytes())
        whole[whole.index(content) + len(content) // 2] ^= 0xFF
        path.write_bytes(whole)
        vouch(path)
    refused(path)


@pytest.mark.parametrize("share", [0, 0.1, 0.9, 0.999])
def test_a_truncated_file_is_refused(share, good, tmp_path, unseen):
    path = tmp_path / "m.keras"
    path.write_bytes(good.read_bytes()[:int(share * good.stat().st_size)])
    refused(vouch(path))


@pytest.mark.parametrize("extra", ["assets/x", "../x", "/x", "config.json", "m.py"])
def test_a_file_with_a_part_too_many_is_refused(extra, parts, tmp_path, unseen):
    path = pack(tmp_path, parts)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning) if (
            extra in parts) else io.StringIO():
        archive.writestr(extra, parts["config.json"])
    refused(vouch(path), "other files")


def test_a_zip_bomb_is_refused_unpacked_by_nobody(parts, tmp_path, unseen):
    for name in parts:
        refused(pack(tmp_path, {**parts, name: bytes(2 * 10**8)}, packed=zipfile.ZIP_DEFLATED),
                "packed")


@pytest.mark.parametrize("name", ["m.h5", "m", "m.keras.h5"])
def test_a_file_that_keras_would_read_in_another_way_is_refused(name, parts, tmp_path, unseen):
    """Such as an .h5 with code before a sound archive: both readers find what they look for."""
    path = pack(tmp_path, parts, name)
    refused(path, "not end in .keras")


@pytest.mark.parametrize("name", ["m.h5", "m.keras"])
def test_a_model_of_keras_2_is_refused(name, tmp_path, unseen):
    path = tmp_path / name
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {}})
    refused(vouch(path))


def test_a_description_in_the_style_of_keras_2_is_refused(parts, tmp_path, unseen):
    layers = [{"class_name": "Lambda", "config": {"function": ["4wAAAA", None, None],
                                                  "function_type": "lambda"}}]
    refused(pack(tmp_path, {**parts, "config.json": json.dumps(
        {"class_name": "Sequential", "config": {"layers": layers}})}), "something else")
    refused(pack(tmp_path, {**parts, "config.json": json.dumps(
        {"class_name": "Functional", "config": {"layers": layers}})}), NOT_OURS)


# ---------------------------------------------------------------------------------- code and files
def proof(folder):
    """Return the path of a file, and code that would make it."""
    return folder / "code_was_run", f"open({str(folder / 'code_was_run')!r}, 'w')"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A layer with a lambda that, where it is run, makes a file; as Keras itself writes it."""
    keras = script.load_tensorflow()[1]
    file, code = proof(tmp_path_factory.mktemp("hostile"))
    layer = keras.layers.Lambda(eval(f"lambda x: ({code}, x)[1]"), (2,))    # noqa: S307
    path = tmp_path_factory.mktemp("lambda") / "m.keras"
    keras.Sequential([keras.Input((2,)), layer]).save(path)
    file.unlink(missing_ok=True)
    with zipfile.ZipFile(path) as archive:
        return file, json.loads(archive.read("config.json"))["config"]["layers"][1]


def test_the_hostile_layer_of_these_tests_would_run_its_code(hostile):
    file, layer = hostile
    keras = script.load_tensorflow()[1]
    again = keras.saving.deserialize_keras_object(copy.deepcopy(layer), safe_mode=False)
    again(np.zeros((1, 2)))
    assert file.exists()
    file.unlink()


@pytest.mark.parametrize("place", ["layer", "submodel", "initializer", "activation", "dtype",
                                   "list"])
def test_a_lambda_is_found_wherever_it_hides_and_never_run(
        place, hostile, parts, tmp_path, unseen, as_built):
    file, code = hostile

    def hide(layers):
        dense = first(layers, "Dense")
        if place == "layer":
            first(layers, "Dropout").update(code)
        elif place == "submodel":
            first(layers, "Dropout").update(class_name="Functional", module="keras", config={
                "name": "x", "layers": [code], "input_layers": [], "output_layers": []})
        elif place == "initializer":
            dense["config"]["kernel_initializer"] = code
        elif place == "activation":
            dense["config"]["activation"] = code
        elif place == "dtype":
            dense["config"]["dtype"] = code
        else:
            dense["inbound_nodes"].append([[[code]]])

    refused(pack(tmp_path, changed(parts, hide)))
    assert not file.exists()


def test_a_lambda_where_nothing_is_computed_is_ignored_and_never_run(hostile, parts, tmp_path):
    file, code = hostile

    def hide(layers):
        first(layers, "LSTM")["config"]["seed"] = code
        first(layers, "Dense")["build_config"] = code
        first(layers, "Dropout")["config"]["shared_object_id"] = code

    assert script.load(pack(tmp_path, changed(parts, hide))).model.count_params() == 8461
    assert not file.exists()


@pytest.mark.parametrize(("module", "name", "registered"), [
    ("builtins", "Dense", None), ("evil", "Dense", None), ("kerasx.layers", "Dense", None),
    ("keras.layers", "TFSMLayer", None), ("keras.utils", "get_file", None),
    ("builtins", "function", "get_file"), ("keras.layers", "Dense", "evil>Dense"),
    (7, "Dense", None), ("keras.layers", ["Dense"], None), ("keras.layers", None, None)], ids=str)
def test_a_layer_or_initialiser_that_is_not_this_projects_is_refused(
        module, name, registered, parts, tmp_path, unseen, as_built):
    """Also one that another package has registered under its own name."""
    other = {"class_name": name, "module": module, "registered_name": registered,
             "config": {"filepath": str(tmp_path), "origin": "http://127.0.0.1:9/x"}}

    refused(pack(tmp_path, changed(parts, lambda all_: first(all_, "Dropout").update(other))))
    refused(pack(tmp_path, changed(parts, lambda all_: first(all_, "Dense")["config"].update(
        kernel_initializer=other))))


# Each alone exhausts memory or time where Keras builds it, or when it is used
GREEDY = {
    "MultiHeadAttention": {"num_heads": 4, "key_dim": 16, "output_shape": [10_000, 10_000]},
    "LSTM": {"units": 8000},
    "Conv1D": {"filters": 4, "kernel_size": [3], "padding": "causal", "dilation_rate": [10**9]},
    "Einsum": {"subscripts": "nth,ntc->nthc"}}


@pytest.mark.parametrize("name", GREEDY)
def test_a_layer_that_would_exhaust_the_machine_is_refused_before_it_is_built(
        name, parts, tmp_path, unseen):
    refused(pack(tmp_path, changed(parts, lambda all_: first(all_, "Dropout").update(
        class_name=name, config={"name": "dropout", **GREEDY[name]}))), NOT_OURS)


@pytest.mark.parametrize(("name", "value"), [
    ("units", 8000), ("units", 31), ("activation", "relu"), ("recurrent_activation", "tanh"),
    ("go_backwards", True), ("dropout", 0.3), ("dtype", "float64"), ("units", [32]),
    ("unheard_of", 1)])
def test_a_layer_that_computes_anything_else_is_refused(
        name, value, parts, tmp_path, unseen, as_built):
    refused(pack(tmp_path, changed(parts, lambda all_: first(all_, "LSTM")["config"].update(
        {name: value}))), NOT_OURS)


def test_models_in_models_are_refused_however_deep(parts, tmp_path, unseen):
    deep = json.loads(parts["config.json"])
    for i in range(40):
        node = {"args": [], "kwargs": {}}
        deep = {"class_name": "Functional", "name": f"m{i}", "config": {
            "layers": [{**deep, "name": "a", "inbound_nodes": [node, node]}],
            "input_layers": [], "output_layers": []}}
    refused(pack(tmp_path, {**parts, "config.json": json.dumps(deep)}))


def test_each_member_of_an_ensemble_is_compared_and_their_number_is_limited(
        tmp_path, unseen, monkeypatch):
    path = save("ensemble", tmp_path / "e.keras")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def second(layers):
        member = [layer for layer in layers.values() if layer["class_name"] == "Functional"][1]
        lstm = next(x for x in member["config"]["layers"] if x["class_name"] == "LSTM")
        lstm["config"]["units"] = 8000

    refused(pack(tmp_path, changed(parts, second)), NOT_OURS)
    many = json.loads(parts["config.json"])
    many["config"]["layers"] *= 51
    monkeypatch.setattr(script, "rebuild_one", lambda *_: pytest.fail("102 models are built"))
    refused(pack(tmp_path, {**parts, "config.json": json.dumps(many)}), NOT_OURS)


@pytest.mark.parametrize(("values", "words"), [
    ([0] * 7, NOT_OURS), ([[0]] * 8, ""), (["0"] * 8, ""), ([{}] * 8, ""), (None, ""), (8, "")])
def test_a_scaling_of_anything_but_a_number_a_feature_is_refused(
        values, words, parts, tmp_path, unseen):
    refused(pack(tmp_path, changed(parts, lambda all_: [
        x["config"].update(mean=values) for x in all_.values()
        if x["class_name"] == "Normalization" and len(x["config"]["mean"]) == 8])), words)


# ----------------------------------------------------------------------------------------- memory
def many(group, _secret):
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
    "soft link": lambda group, _: link(group, h5py.SoftLink("/layers")),
    "virtual": virtual,
    "ring": lambda group, _: link(group, group.file["layers"]),
    "text": lambda group, _: group.create_dataset("0", data=["text"])}


@pytest.mark.parametrize("kind", ODD_WEIGHTS)
def test_weights_that_lead_elsewhere_or_grow_when_read_are_refused(kind, parts, tmp_path, unseen):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1000))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        ODD_WEIGHTS[kind](file.create_group("layers/dense/vars"), str(secret))

    content = (tmp_path / "w.h5").read_bytes()
    refused(pack(tmp_path, {**parts, "model.weights.h5": content}), "not plain arrays")


@pytest.mark.parametrize("change", ["missing", "of another shape"])
def test_an_array_that_is_missing_or_of_another_shape_is_refused(change, parts, tmp_path):
    file = tmp_path / "w.h5"
    file.write_bytes(parts["model.weights.h5"])
    with h5py.File(file, "r+") as weights:
        group = weights["layers/dense/vars"]
        del group["0"]
        if change != "missing":
            group["0"] = np.zeros((3, 3), "f4")
    refused(pack(tmp_path, {**parts, "model.weights.h5": file.read_bytes()}))


@pytest.mark.parametrize("text", [
    '{"a":' * 10**5 + "1" + "}" * 10**5, "[" * 10**5, "NaN", "1", "[]", '"' + "x" * 10**6 + '"',
    "null", "{}", "{", "\0", ""], ids=lambda text: text[:6])
@pytest.mark.parametrize("which", ["description", ".json"])
def test_json_that_is_deep_or_of_another_kind_is_refused(which, text, parts, tmp_path, unseen):
    if which == "description":
        refused(pack(tmp_path, {**parts, "config.json": text}))
    else:
        path = pack(tmp_path, parts)
        path.with_suffix(".json").write_text(text)
        refused(path)


@pytest.mark.parametrize("which", ["m.keras", "m.json"])
def test_gigabytes_are_refused_unread(which, parts, tmp_path, unseen):
    path = pack(tmp_path, parts)
    os.truncate(tmp_path / which, 5 * 10**9)
    refused(path, f"{which} is not a plain file, or larger")


# -------------------------------------------------------------------------------------- the card
@pytest.mark.parametrize(("key", "value"), [
    ("classes", None), ("classes", "ABCDE"), ("classes", [1, 2, 3, 4, 5]), ("classes", ["a"] * 5),
    ("classes", {"a": 1}), ("leads", None), ("leads", ["I"]), ("leads", 12),
    ("features", None), ("features", [1]),
    ("features", [["mean"]]), ("recipe", None), ("recipe", []), ("recipe", {}),
    ("model_sha256", None), ("model_sha256", "0" * 64), ("model_sha256", 7)])
def test_a_json_of_wrong_values_is_refused(key, value, parts, tmp_path):
    path = pack(tmp_path, parts)
    vouch(path, **{key: value})
    refused(path)


@pytest.mark.parametrize("classes", [
    ["a"], [*map(str, range(101))], ["x" * 101, "y"], ["a\nb", "c"]])
def test_a_card_of_classes_that_no_run_has_is_refused_whatever_its_model(classes):
    whole = json.loads(json.dumps(card()))
    assert script.read_card({**whole, "classes": [*map(str, range(100))]})
    with pytest.raises(ValueError, match=r"its \.json (describes other classes|has a class name)"):
        script.read_card({**whole, "classes": classes})


@pytest.mark.parametrize("name", script.PREPARATION)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, [], {}, "x", -1, 10**12])
def test_a_recipe_out_of_range_in_the_json_is_refused(name, value, parts, tmp_path, unseen):
    path = pack(tmp_path, parts)
    vouch(path, recipe={**card()["recipe"], name: value})
    refused(path)


def test_the_json_of_another_model_is_refused(good, parts, tmp_path, unseen):
    path = pack(tmp_path, changed(parts, lambda x: first(x, "Dropout")["config"].update(rate=0)))
    path.with_suffix(".json").write_bytes(good.with_suffix(".json").read_bytes())
    refused(path, "describes another model")


@pytest.mark.parametrize("which", ["m.keras", "m.json"])
@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "link to zero", "broken link"])
def test_what_is_not_a_plain_file_is_refused_unread(which, kind, parts, tmp_path, unseen):
    path, file = pack(tmp_path, parts), tmp_path / which
    file.unlink()
    if kind == "folder":
        file.mkdir()
        (file / "config.json").write_bytes(parts["config.json"])    # Keras reads such folders
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind != "missing":
        file.symlink_to("/dev/zero" if kind == "link to zero" else "nowhere")
    refused(path, which)


# ------------------------------------------------------------------------------- the command lines
def test_both_tools_refuse_a_model_in_one_line_with_exit_code_2(hostile, parts, tmp_path, capsys,
                                                                monkeypatch):
    file, code = hostile
    path = pack(tmp_path, changed(parts, lambda all_: first(all_, "Dropout").update(code)))
    monkeypatch.setattr(export_onnx, "packages", lambda: None)
    for tool, arguments in ((classify, ["x", "--model", str(path)]), (export_onnx, [str(path)])):
        assert tool.main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and str(path) in err and NOT_OURS in err
    assert not file.exists()
    assert not path.with_suffix(".onnx").exists()


def test_a_refused_model_costs_neither_tensorflow_nor_much_memory(parts, tmp_path):
    path = pack(tmp_path, parts)
    os.truncate(path, 5 * 10**9)
    code = ("import resource, sys; resource.setrlimit(resource.RLIMIT_AS, [2 * 2**30] * 2)\n"
            f"from tools import classify\ncode = classify.main(['x', '--model', {str(path)!r}])\n"
            "print(code, 'tensorflow' in sys.modules)")
    result = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True,
                            text=True, cwd=Path(script.__file__).parent,
                            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    assert result.stdout.split() == ["2", "False"], result.stderr
    assert result.stderr.count("\n") == 1

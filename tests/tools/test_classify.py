"""tools/classify.py: many records by one model, in every form, and what is left out and why."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import too_feature as script
from ecg import files, origin
from ecg.demo import BBB, TACHY
from tests.support.ecgs import simulated, write_record
from tests.support.models import CLASSES, build, card, recipe_of, save
from tools import classify

KINDS = ["lstm", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("large", "ensemble"))]


@pytest.fixture(scope="module")
def records(demo_dir):
    return [str(path)[:-4] for path in sorted(demo_dir.rglob("*.hea"))[:20]]


def copy_record(record, folder, name=None):
    folder.mkdir(parents=True, exist_ok=True)
    for ending in (".hea", ".dat"):
        shutil.copy(record + ending, folder / f"{name or Path(record).name}{ending}")
    return str(folder / (name or Path(record).name))


@pytest.fixture
def data(records, tmp_path):
    """A folder with four records, two of them below another folder, the last of them damaged."""
    names = [copy_record(record, tmp_path / "data" / ("deeper" if i > 1 else ""))
             for i, record in enumerate(records[:4])]
    Path(f"{names[-1]}.dat").write_bytes(b"")
    return tmp_path / "data"


def run(capsys, *arguments):
    code = classify.main([str(x) for x in arguments])
    return code, *capsys.readouterr()


# -------------------------------------------------------------------------------------- classify
@pytest.mark.parametrize("kind", KINDS)
def test_many_records_get_what_keras_gives_each_alone(kind, tmp_path, records):
    path = save(kind, tmp_path / "m.keras")
    table = classify.classify(records[:5], path)
    model = script.load_tensorflow()[1].models.load_model(path, compile=False)
    prepared = [script.prepare_record(record, None, recipe_of(kind))[:2] for record in records[:5]]
    expected = model.predict([np.array(array) for array in zip(*prepared, strict=True)], verbose=0)
    assert table["record"].tolist() == records[:5]
    assert table["predicted"].tolist() == [CLASSES[best] for best in expected.argmax(axis=1)]
    given = table[[f"p {name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(given, expected, atol=1e-5)
    alone = classify.classify_record(records[4] + ".hea", path)
    assert list(alone.values()) == pytest.approx(given[4], abs=1e-6)


def test_a_model_is_loaded_once_and_again_when_its_file_changes(tmp_path):
    path = save("lstm", tmp_path / "m.keras")
    loaded = classify.load(path)
    assert classify.load(path) is loaded
    os.utime(path, ns=(1, 1))
    assert classify.load(path) is not loaded


@pytest.mark.parametrize("worth", [2000, pytest.param(1, marks=pytest.mark.slow)])
def test_any_number_of_chunks_and_processes_gives_the_same(
        worth, model, data, records, monkeypatch):
    damaged = str(data / "deeper" / Path(records[3]).name)
    names = [*records[:9], damaged, *records[9:]]
    whole = classify.classify(names, model)
    assert whole["left_out"].astype(bool).sum() == 1
    monkeypatch.setattr(classify, "CHUNK_RECORDS", 7)
    monkeypatch.setattr(classify, "WORTH_WORKERS", worth)
    windows = classify.classify(names, model, windows=True)
    assert not windows.pop("start [s]").any()
    pd.testing.assert_frame_equal(windows, whole, atol=1e-6)


# --------------------------------------------------------------------------------------- records
def test_a_record_a_folder_a_file_and_stdin_name_the_same_records(data, tmp_path, monkeypatch):
    found = list(classify.find_records([data]))
    assert sorted(found) == sorted(str(path)[:-4] for path in data.rglob("*.hea"))
    named = classify.find_records([f"{found[0]}.hea", f"{found[1]}.dat", *found[2:]])
    assert named == dict.fromkeys(found)    # in order
    text = "\n".join([found[0] + ".hea", "", *found[1:], found[1]])
    (tmp_path / "list.txt").write_text("\ufeff" + text + "\r\n", encoding="utf-8")
    assert classify.find_records([f"@{tmp_path / 'list.txt'}"]) == named
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert classify.find_records(["-"]) == named


def test_no_link_leads_out_of_the_folder_that_was_named(data, tmp_path, model):
    record = sorted(classify.find_records([data]))[0]
    Path(f"{record}.dat").rename(tmp_path / "samples")
    Path(f"{record}.dat").symlink_to(tmp_path / "samples")
    table = classify.classify(data, model).set_index("record")
    assert table.loc[record, "left_out"].startswith("link out of the data folder")


def test_bad_records_are_skipped_with_a_reason_and_the_exit_code_says_so(data, model, capsys):
    code, out, err = run(capsys, data, "no/such", "--model", model, "--csv")
    damaged, missing = err.strip().splitlines()
    assert "deeper" in damaged
    assert "file is cut short" in damaged
    assert missing == "classify.py: left out no/such: file is missing: such.hea"
    good = pd.read_csv(io.StringIO(out))["record"]
    assert (code, len(good)) == (1, 3)
    assert run(capsys, *good, "--model", model)[0] == 0


@pytest.mark.parametrize(("arguments", "words"), [
    (["no/such"], "none of the 1 records can be used: file is missing (1)"),
    (["{tmp}"], "no record there"),
    (["@{tmp}/no.txt"], "No such file"),
    (["x", "--model", "{tmp}/no.keras"], "no.keras and its .json cannot be loaded"),
    (["x", "--embeddings", "{model}"], "read as well as written"),
    (["https://example.org/1"], "path looks like a URL"),
    (["\x1b[31m\0"], "file is missing")])
def test_where_nothing_can_be_done_one_line_says_why(arguments, words, model, tmp_path, capsys):
    code, out, err = run(
        capsys, "--model", model, *(text.format(tmp=tmp_path, model=model) for text in arguments))
    assert (code, out) == (2, "")
    assert words in err.splitlines()[-1]
    assert "\x1b" not in err


def test_a_name_cannot_write_to_the_terminal(data, records, model, capsys):
    odd = copy_record(records[0], data, "a\x1b[2Jb")
    header = Path(f"{odd}.hea")
    header.write_text(header.read_text().replace(Path(records[0]).name + " ", "r ", 1))
    for form in ([], ["--csv"], ["--json"]):
        _, out, err = run(capsys, odd, data, "--model", model, *form)
        assert "a?[2Jb" in out + err
        assert "\x1b" not in out + err


# ----------------------------------------------------------------------------------------- models
def test_where_no_model_is_named_it_is_that_of_a_run_then_a_quick_one_then_the_large_one(
        tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = str(files.ROOT / "models" / "real_large.keras")
    assert classify.choose_model() == classify.choose_model("real_large") == shipped
    Path("ecg_quick_model.keras").touch()
    assert classify.choose_model() == "ecg_quick_model.keras"
    Path(script.Settings.output).touch()
    assert classify.choose_model() == script.Settings.output
    assert classify.choose_model("real_large") == shipped


def test_it_says_which_model_it_chose_and_warns_where_one_of_the_demo_meets_other_records(
        tmp_path, monkeypatch, records, data, capsys):
    monkeypatch.chdir(tmp_path)
    script.save(build(), {**card(), "synthetic": True}, tmp_path / script.Settings.output)
    code, out, err = run(capsys, records[0])
    assert (code, err) == (
        0, f"classify.py: no --model is named: using {script.Settings.output}\n")
    assert out.splitlines()[-1].startswith("This model was trained on synthetic records. Origin ")
    assert "warning: this model has learnt from synthetic records" in run(capsys, data)[2]


# ------------------------------------------------------------------------------------------ forms
def test_the_table_fits_the_terminal_and_stars_what_is_outside_its_reference_range(
        data, model, capsys):
    lines = run(capsys, data, "--model", model)[1].splitlines()
    table = classify.classify(data, model).query("left_out == ''")
    assert max(map(len, lines[:-1])) <= 80
    assert "heart rate 60-100 bpm" in " ".join(lines)
    for line, (_, row) in zip(lines[1:], table.iterrows(), strict=False):
        for column, p in row[[f"p {name}" for name in CLASSES]].astype(float).nlargest(2).items():
            assert column[2:14] in line
            assert f" {p:.2f}" in line
        rate = row["heart rate [bpm]"]
        assert line.endswith(f" {rate:.0f}{' ' if 60 <= rate <= 100 else '*'}")
        assert row["record"].endswith(line.split()[0][-12:])


@pytest.mark.parametrize(("per_millivolt", "is_told"), [(1, False), (0.1, True), (8, True)])
def test_amplitudes_far_from_those_of_training_ask_for_gain_or_unit(
        model, tmp_path, capsys, per_millivolt, is_told):
    signal = simulated()[0]
    signal[:, [2, 6]] = signal[:, [6, 2]]
    path = write_record(tmp_path / "x", signal * per_millivolt)
    said = run(capsys, path, "--model", model)[2]
    assert ("training records" in said and "gain or unit?" in said) == is_told
    assert "limb leads do not add up (1)" in said


def test_json_is_one_document_of_the_tables_rows_and_what_the_model_was_trained_on(
        data, model, capsys):
    code, out, _ = run(capsys, data, "--json", "--model", model)
    document = json.loads(out, parse_constant=pytest.fail)    # NaN is not JSON
    assert code == 1
    assert document["reference_ranges"]["heart rate"] == [60, 100]
    assert (document["synthetic"], document["labels_origin"]) == (False, "not stated")
    assert document["note"] == origin.note(card())
    table = pd.DataFrame(document["records"]).fillna(np.nan)
    pd.testing.assert_frame_equal(table, classify.classify(data, model), check_dtype=False)


def test_a_feature_that_was_not_measured_is_null_in_json_and_the_table_says_no_heart_rate(model):
    loaded = classify.load(model)
    features = np.array([0, 0.1, 1, 2, np.nan, np.nan, np.nan, np.nan], np.float32)
    frame = classify.as_frame(
        [classify.Result("r", None, None, features=features, probabilities=np.eye(5)[0])], loaded)
    record, = json.loads(classify.as_json(frame, loaded, model))["records"]
    assert (record["heart rate [bpm]"], record["kurtosis"]) == (None, 2)
    assert "no heart rate" in classify.as_table(frame, CLASSES)


def test_a_class_of_the_rate_is_not_given_with_confidence_where_no_rate_was_measured(tmp_path):
    """A regular tachycardia of 220 bpm with an aberrant run: some of its beats are missed."""
    signal, r_peaks = simulated(TACHY, 220, seed=1)
    run_of_four = slice(int(r_peaks[10]) - 50, int(r_peaks[14]) - 50)
    signal[run_of_four] = simulated(BBB, 220, seed=1)[0][run_of_four]
    frame = classify.classify([write_record(tmp_path / "x", signal)], "real_large")
    assert "no heart rate" in classify.as_table(frame, CLASSES)
    assert frame.filter(regex="^p (Normal|Tachy|Brady)").to_numpy().max() <= 0.5


# ---------------------------------------------------------------------------------------- explain
def test_explain_says_by_lead_second_and_feature_what_moved_the_class(records, model, capsys):
    flags = records[0], "--model", model, "--explain"
    table = pd.read_csv(io.StringIO(run(capsys, *flags, "--csv")[1])).iloc[0]
    moved = {kind: table.filter(regex=f"^importance {kind} ") for kind in ("lead", "second")}
    assert table["importance probability"] == pytest.approx(table["confidence"], abs=1e-5)
    assert list(moved["lead"].index) == [f"importance lead {lead}" for lead in script.LEADS]
    assert moved["second"].sum() == pytest.approx(moved["lead"].sum())
    assert len(moved["second"]) == 10
    lines = run(capsys, *flags)[1].splitlines()
    assert max(len(line) for line in lines[:-1] if records[0] not in line) <= 80
    words = " ".join(" ".join(lines).split())
    assert f"from {table['importance baseline']:.3f} (flat ECG, average features)" in words
    assert f"V1 {moved['lead']['importance lead V1']:+.3f}" in words


# ------------------------------------------------------------------------------------------- plot
def test_a_page_is_drawn_of_each_record_that_can_be_used_also_where_names_repeat(
        data, records, model, tmp_path, capsys):
    copy_record(records[0], data / "same")    # as another hospital may number its records
    pages = tmp_path / "pages"
    code, _, err = run(capsys, data, "--model", model, "--plot", pages)
    assert code == 1
    assert f"classify.py: drawn: 4 ECG page(s) in {pages}\n" in err
    assert [page.suffix for page in pages.iterdir()] == [".png"] * 4


def test_the_page_says_what_was_predicted_measured_and_what_moved_it(records, model):
    loaded = classify.load(model)
    result, = classify.results({records[0]: None}, loaded, with_importance=True)
    figure = classify.page(result, CLASSES, origin.note({"synthetic": True}))
    text = " ".join(words.get_text() for words in figure.findobj(Text))
    assert f"Predicted {CLASSES[result.probabilities.argmax()]}" in text
    assert Path(records[0]).name in text
    assert f"Heart rate {result.features[script.HEART_RATE]:.0f} bpm" in text
    assert "Of what moved it, up or down: leads" in text
    assert "This model was trained on synthetic records." in text


# ------------------------------------------------------------------------------------- embeddings
def test_embeddings_are_what_the_last_layer_sees(tmp_path, model, records, capsys):
    file = tmp_path / "e.npz"
    _, out, _ = run(capsys, *records[:3], "--model", model, "--embeddings", file, "--csv")
    last = classify.load(model).model.layers[-1]
    with np.load(file) as found:
        assert found["names"].tolist() == records[:3]
        odds = np.exp(found["embeddings"] @ last.kernel + last.bias)
    expected = pd.read_csv(io.StringIO(out))[[f"p {name}" for name in CLASSES]]
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), expected, atol=1e-5)

"""tools/classify.py: many records by one model, why, and what is not to be trusted."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import too_feature as script
from ecg import adaptation, explain, files
from ecg import models as models_file
from ecg.errors import UserError
from ecg.explain import Importance
from ecg.output import ecg_page, write
from ecg.output.read import feature_column
from tests.support.models import CLASSES, MEAN, VARIANCE, build, card, recipe_of, save
from tools import classify


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Path of a saved model of each kind, saved when it is first asked for."""
    folder, paths = tmp_path_factory.mktemp("models"), {}

    def path(kind="lstm"):
        if kind not in paths:
            paths[kind] = save(kind, folder / f"{kind}.keras")
        return paths[kind]

    return path


@pytest.fixture(scope="module")
def records(demo_dir):
    return [str(path)[:-4] for path in sorted(demo_dir.rglob("*.hea"))[:7]]


@pytest.fixture
def data(records, tmp_path):
    """A folder with four records, two of them below another folder, one of which is damaged."""
    for i, record in enumerate(records[:4]):
        folder = tmp_path / "data" / ("deeper" if i > 1 else "")
        folder.mkdir(parents=True, exist_ok=True)
        for ending in (".hea", ".dat"):
            shutil.copy(record + ending, folder)
    damaged = tmp_path / "data" / "deeper" / Path(records[3]).name
    damaged.with_suffix(".dat").write_bytes(b"")
    return tmp_path / "data"


def run(capsys, *arguments):
    code = classify.main([str(x) for x in arguments])
    return code, *capsys.readouterr()


# -------------------------------------------------------------------------------------- classify
@pytest.mark.parametrize("kind", ["lstm", pytest.param("large", marks=pytest.mark.slow),
                                  pytest.param("ensemble", marks=pytest.mark.slow)])
def test_many_records_get_what_the_model_gives_each_alone(kind, models, records):
    table = classify.classify(records, models(kind))
    keras = script.load_tensorflow()[1]
    model = keras.models.load_model(models(kind), compile=False)
    recipe = recipe_of(kind)
    for record, (_, row) in zip(records, table.iterrows(), strict=True):
        ecg, features, _ = script.prepare_record(record, None, recipe)
        expected = model.predict([ecg[None], features[None]], verbose=0)[0]
        assert row["record"] == record
        assert row["predicted"] == CLASSES[expected.argmax()]
        np.testing.assert_allclose(row[[f"p {name}" for name in CLASSES]].astype(float), expected,
                                   atol=1e-5)
        measured = [row[feature_column(name, unit)] for name, unit, _ in
                    script.feature_names(recipe)]
        np.testing.assert_array_equal(np.array(measured, np.float32), features)


def test_one_record_gets_the_same_as_among_others(models, records):
    table = classify.classify(records[:3], models())
    alone = classify.classify_record(records[1] + ".hea", models())
    assert list(alone) == CLASSES
    assert alone == pytest.approx({name: table.loc[1, f"p {name}"] for name in CLASSES}, abs=1e-6)


def test_records_are_prepared_by_the_recipe_in_the_models_card(tmp_path, records, models):
    """Whatever the defaults of today are."""
    path = tmp_path / "m.keras"
    script.save(build(), card(high_pass=0.0, central_share=0.5, span=1.0), path)
    other = classify.classify_record(records[0], path)
    assert other != pytest.approx(classify.classify_record(records[0], models()), abs=1e-4)
    ecg, features, _ = script.prepare_record(
        records[0], None, recipe_of(high_pass=0.0, central_share=0.5, span=1.0))
    expected = build().predict([ecg[None], features[None]], verbose=0)[0]
    assert list(other.values()) == pytest.approx(expected, abs=1e-5)


def test_a_model_is_loaded_once_for_all_records_and_again_when_its_file_changes(
        tmp_path, records, monkeypatch):
    path, opened = tmp_path / "m.keras", []
    save("lstm", path)
    rebuild = script.rebuild
    monkeypatch.setattr(script, "rebuild", lambda *args: opened.append(args) or rebuild(*args))
    before = classify.classify_record(records[0], path)
    classify.classify_record(records[1], path)
    classify.classify(records, path)
    assert len(opened) == 1
    model = build()
    model.layers[-1].bias.assign([9, 0, 0, 0, 0])
    script.save(model, card(), path)
    assert classify.classify_record(records[0], path)[CLASSES[0]] > before[CLASSES[0]] + 0.1
    assert len(opened) == 2


def test_any_number_of_chunks_and_processes_gives_the_same(models, data, records, demo_dir,
                                                           monkeypatch):
    many = [str(path) for path in sorted(demo_dir.rglob("*.hea"))[:110]]
    many.insert(50, str(data / "deeper" / Path(records[3]).name))
    whole = classify.classify(many, models(), jobs=2)
    assert whole["left_out"].astype(bool).sum() == 1
    monkeypatch.setattr(classify, "CHUNK", 30)
    pd.testing.assert_frame_equal(classify.classify(many, models()), whole, atol=1e-6)


# --------------------------------------------------------------------------------------- records
def test_a_record_a_folder_a_file_and_stdin_name_the_same_records(data, tmp_path, monkeypatch):
    found = classify.find_records([data])
    assert sorted(found) == sorted(str(path)[:-4] for path in data.rglob("*.hea"))
    assert len(found) == 4
    assert not any(path.endswith(".hea") for path in found)
    assert classify.find_records([f"{found[0]}.hea", f"{found[1]}.dat", *found[2:]]) == found
    text = "\n".join([found[0] + ".hea", "", *found[1:], found[1]])
    (tmp_path / "list.txt").write_text("\ufeff" + text + "\r\n", encoding="utf-8")
    assert classify.find_records([f"@{tmp_path / 'list.txt'}"]) == found
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert classify.find_records(["-"]) == found


def test_nothing_outside_a_records_own_folder_is_read(data, models, tmp_path, capsys):
    good = classify.find_records([data])[0]
    outside = tmp_path / "outside.dat"
    shutil.move(f"{good}.dat", outside)
    header = Path(f"{good}.hea")
    name = Path(good).name + ".dat"
    for text in (header.read_text().replace(name, "../outside.dat"),
                 header.read_text().replace(name, str(outside))):
        header.write_text(text)
        assert run(capsys, good, "--model", models())[0] == 2
    shutil.copy(outside, f"{good}.dat")
    header.write_text(text.replace(str(outside), name))
    assert run(capsys, good, "--model", models())[0] == 0
    Path(f"{good}.dat").unlink()
    Path(f"{good}.dat").symlink_to(outside)
    assert "link out of the data folder" in run(capsys, good, "--model", models())[2]


# ---------------------------------------------------------------------------------- command line
def test_bad_records_are_reported_and_skipped_and_the_exit_code_says_so(data, models, capsys):
    code, out, err = run(capsys, data, "no/such", "--model", models(), "--csv")
    assert code == 1
    lines = err.strip().splitlines()
    assert len(lines) == 2
    assert "deeper" in lines[0]
    assert "file is cut short" in lines[0]
    assert lines[1] == "classify.py: left out no/such: file is missing: such.hea"
    assert len(pd.read_csv(io.StringIO(out))) == 3
    good = pd.read_csv(io.StringIO(out))["record"]
    assert run(capsys, *good, "--model", models())[0] == 0


@pytest.mark.parametrize(("arguments", "words"), [
    (["no/such"], "none of the 1 records can be used: file is missing (1)"),
    (["{tmp}"], "no record there"),
    (["@{tmp}/no.txt"], "no.txt: No such file"),
    (["{data}", "--model", "{tmp}/no.keras"], "no.keras and its .json cannot be loaded"),
    (["{data}", "--pdf"], "--plot"),
    (["{data}", "--jobs", "-1"], "--jobs -1"),
    (["https://example.org/1"], "path looks like a URL"),
    (["\x1b[31m\0"], "file is missing"),
])
def test_where_nothing_can_be_done_one_line_says_why(arguments, words, data, models, tmp_path,
                                                     capsys):
    (tmp_path / "empty").mkdir()
    arguments = [x.format(tmp=tmp_path / "empty", data=data) for x in arguments]
    code, out, err = run(capsys, "--model", models(), *arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("classify.py: error: ")
    assert words in err
    assert "\x1b" not in err
    assert "Traceback" not in err


def test_table_shows_class_probabilities_and_features_with_units_and_marks_the_unusual(
        data, models, capsys):
    _, out, _ = run(capsys, data, "--wide", "--model", models())
    table = classify.classify(data, models()).query("left_out == ''")
    lines = out.splitlines()
    assert lines[-1] == "Origin of the labels: not stated. This is not a medical device."
    for line, (_, row) in zip(lines[3:6], table.iterrows(), strict=True):
        cells = re.split(r" {2,}", line.strip())
        assert cells[:3] == [row["record"], row["predicted"], f"{row['confidence']:.3f}"]
        assert cells[3:8] == [f"{row[f'p {name}']:.3f}" for name in CLASSES]
        for cell, (name, unit, usual) in zip(cells[8:], script.FEATURES, strict=True):
            value = row[feature_column(name, unit)]
            assert float(cell.rstrip("*")) == pytest.approx(value, rel=0.006)
            assert cell.endswith("*") == bool(usual and not usual[0] <= value <= usual[1])
    for word in ("Tachycardia", "bpm", "mV", "CV_RR", "deviation"):
        assert word in " ".join(lines[:3])
    assert "60-100 bpm" in out
    assert out.count("*") > 1


@pytest.mark.parametrize("width", [80, 120])
def test_the_short_table_fits_the_terminal_and_keeps_the_end_of_long_names(
        data, models, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = run(capsys, data, "--model", models())
    table = classify.classify(data, models()).query("left_out == ''")
    lines = out.splitlines()
    assert max(map(len, lines)) <= width
    for line, (_, row) in zip(lines[2:], table.iterrows(), strict=False):
        name, first, p, second, p_second, rate = re.split(r" {2,}", line.strip())[:6]
        assert rate.endswith("*") != (60 <= row["heart rate [bpm]"] <= 100)
        assert row["record"].endswith(name.removeprefix("..."))
        assert row["predicted"].startswith(first)
        assert float(p) == pytest.approx(row[f"p {row['predicted']}"], abs=0.0051)
        assert float(p_second) == pytest.approx(
            sorted(row[f"p {name}"] for name in CLASSES)[-2], abs=0.0051)
        assert second != first
        assert float(rate.strip("*")) == pytest.approx(row["heart rate [bpm]"], abs=0.51)


def test_a_table_of_notes_and_long_classes_fits_80_columns():
    probabilities = {f"p {name}": [0.5 - 0.1 * i] for i, name in enumerate(CLASSES)}
    features = {classify.feature_column(name, unit): [0.0] for name, unit, _ in script.FEATURES}
    frame = pd.DataFrame({"record": ["x" * 60], **probabilities, **features})
    lines = classify.as_table(frame, CLASSES, wide=False, width=80)
    assert lines[2].split() == ["..." + "x" * 13, "Atrial", "Fibr", "0.50", "Bradycardia", "0.40",
                                "0*", "SDNN*", "RMSSD*", "CV_RR*"]
    assert max(map(len, lines)) <= 80


def test_names_can_start_from_the_data_folder_so_that_predictions_can_be_joined(
        data, models, capsys):
    out = run(capsys, data, "--csv", "--data-dir", data, "--model", models())[1]
    printed = pd.read_csv(io.StringIO(out))
    table = classify.classify(data, models()).query("left_out == ''")
    assert printed["record"].tolist() == [os.path.relpath(name, data) for name in table["record"]]
    rows = pd.DataFrame({name: ["x"] for name in script.COLUMNS})
    tested = SimpleNamespace(rows=rows, features=np.zeros((1, 8)))
    saved = write.predictions(tested, np.eye(5)[:1], CLASSES, script.FEATURES)
    assert set(saved) - {"subject_id", "true"} <= set(printed)


def test_csv_keeps_full_precision(data, models, capsys):
    printed = pd.read_csv(io.StringIO(run(capsys, data, "--csv", "--model", models())[1]))
    table = classify.classify(data, models()).query("left_out == ''").reset_index(drop=True)
    pd.testing.assert_frame_equal(printed, table.drop(columns="left_out"), rtol=0, atol=1e-15)
    assert "heart rate [bpm]" in printed


def test_json_is_one_document_with_units_where_the_unmeasurable_is_null(data, models, capsys,
                                                                       monkeypatch):
    prepare = script.prepare_record

    def without_rate(path, data_dir, recipe):
        ecg, features, remark = prepare(path, data_dir, recipe)
        features[4:] = np.nan
        return ecg, features, remark

    monkeypatch.setattr(script, "prepare_record", without_rate)
    code, out, _ = run(capsys, data, "--json", "--model", models())
    document = json.loads(out, parse_constant=pytest.fail)    # NaN is not JSON
    assert code == 1
    assert document["units"]["heart rate"] == "bpm"
    assert document["usual"]["heart rate"] == [60, 100]
    assert "not a medical device" in document["note"]
    assert len(document["records"]) == 3
    assert [x["reason"].split(":")[0] for x in document["left_out"]] == ["file is cut short"]
    first = document["records"][0]
    assert first["features"]["heart rate"] is None
    assert first["features"]["standard deviation"] > 0
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert first["confidence"] == max(first["probabilities"].values())
    assert first["predicted"] == max(first["probabilities"], key=first["probabilities"].get)


@pytest.mark.parametrize(("synthetic", "origin", "note"), [
    (True, "synthetic records, not patients", "This model was trained on synthetic records. Origin "
     "of the labels: synthetic records, not patients. This is not a medical device."),
    (False, "two cardiologists",
     "Origin of the labels: two cardiologists. This is not a medical device.")])
def test_on_screen_in_json_and_on_the_page_the_model_says_what_it_was_trained_on(
        synthetic, origin, note, models, records, tmp_path, capsys, monkeypatch):
    model = tmp_path / "m.keras"
    shutil.copy(models(), model)
    stated = json.loads(models().with_suffix(".json").read_text())
    stated |= {"synthetic": synthetic, "labels_origin": origin}
    model.with_suffix(".json").write_text(json.dumps(stated))
    drawn = []

    def draw_ecg(_signal, _fs, _leads, _r_peaks, _title, _text, note, _reasons, _measured):
        drawn.append(note)
        return Figure((2, 1))

    monkeypatch.setattr(ecg_page, "draw_ecg", draw_ecg)
    _, out, _ = run(capsys, records[0], "--model", model, "--plot", tmp_path)
    assert out.splitlines()[-1] == note
    assert drawn == [note]
    document = json.loads(run(capsys, records[0], "--model", model, "--json")[1])
    assert document["note"] == note
    assert document["synthetic"] is synthetic
    assert document["labels_origin"] == origin


def test_a_name_cannot_write_to_the_terminal(data, models, capsys):
    good = classify.find_records([data])[0]
    odd = Path(good).with_name("a\x1b[2Jb")
    for ending in (".hea", ".dat"):
        shutil.copy(good + ending, odd.with_name(odd.name + ending))
    header = odd.with_name(odd.name + ".hea")
    header.write_text(header.read_text().replace(Path(good).name + ".dat", "x.dat"))
    odd.with_name(odd.name + ".dat").rename(odd.with_name("x.dat"))
    for form in ([], ["--csv"], ["--json"]):
        _, out, err = run(capsys, data, "--model", models(), *form)
        assert "a?[2Jb" in out + err
        assert "\x1b" not in out + err


def test_it_runs_alone_as_a_program_from_any_folder(tmp_path):
    result = subprocess.run([sys.executable, classify.__file__, "-"], input="\n", cwd=tmp_path,
                            capture_output=True, text=True, timeout=200)
    assert result.returncode == 2
    assert result.stderr.startswith("classify.py: error: -: no record there")
    assert len(result.stderr.splitlines()) == 1


# ------------------------------------------------------------------------------------------ plot
def test_plot_draws_a_page_for_each_record_that_can_be_used(data, models, tmp_path, capsys,
                                                            monkeypatch):
    drawn = []

    def draw_ecg(*drawn_with):
        drawn.append(drawn_with)
        return Figure((2, 1))

    monkeypatch.setattr(ecg_page, "draw_ecg", draw_ecg)
    same = tmp_path / "data" / "same"    # as another hospital may number its records
    same.mkdir()
    first = classify.find_records([data])[0]
    for ending in (".hea", ".dat"):
        shutil.copy(first + ending, same)
    pages = tmp_path / "pages"
    code, _, _ = run(capsys, data, "--model", models(), "--plot", pages, "--pdf", "--explain")
    assert code == 1
    assert len(drawn) == 4
    assert len(list(pages.glob("*.png"))) == len(list(pages.glob("*.pdf"))) == 4
    assert len(list(pages.iterdir())) == 8
    assert next(pages.glob("*.png")).read_bytes()[1:4] == b"PNG"
    assert next(pages.glob("*.pdf")).read_bytes()[:4] == b"%PDF"
    signal, fs, leads, r_peaks, title, _, note, reasons, measured = drawn[0]
    np.testing.assert_array_equal(signal, script.read_record(first)[0])
    assert (fs, leads) == (500, script.LEADS)
    assert 4 < len(r_peaks) < 30
    assert Path(first).name in title
    assert "not a medical device" in note
    assert reasons.importance.shape == signal.shape
    assert 0 < np.abs(reasons.importance).max() <= 1
    assert re.fullmatch(r"Of what moved it: leads \d+ %, features \d+ % \(most: .*\)",
                        reasons.words)
    rate = classify.classify(first, models())["heart rate [bpm]"][0]
    assert measured == f"Heart rate {rate:.0f} bpm"


def test_the_projects_own_page_takes_what_is_given_to_it(data, models, tmp_path, capsys):
    first = classify.find_records([data])[0]
    code, _, err = run(capsys, first, "--model", models(), "--plot", tmp_path, "--explain")
    assert code == 0
    page = tmp_path / f"{Path(first).name}.png"
    assert page.stat().st_size > 10_000
    assert f"classify.py: drawn: {page}\n" in err


# --------------------------------------------------------------------------------------- explain
@pytest.mark.parametrize("kind", ["lstm", pytest.param("large", marks=pytest.mark.slow),
                                  pytest.param("ensemble", marks=pytest.mark.slow)])
def test_importance_adds_up_to_the_change_of_the_probability(kind, models, records):
    """Completeness, and the two ends are those of the model itself."""
    model, _, recipe, _ = script.load(models(kind))
    ecg, features, _ = script.prepare_record(records[0], None, recipe)
    features[3] = np.nan
    for target, rate in ((0, features[script.HEART_RATE]), (3, np.nan)):    # also not measurable
        features[script.HEART_RATE] = rate
        average = np.full(features.size, 0.5) if kind == "large" else np.array(MEAN)
        average[np.isnan(features)] = np.nan
        found = explain.explain(model, ecg, features, target)
        total = found.ecg.sum() + found.features.sum()
        assert total + found.rest == pytest.approx(found.probability - found.baseline, abs=1e-6)
        assert abs(found.rest) < 0.005
        assert found.features[3] == 0
        ends = model.predict(
            [np.stack([0 * ecg, ecg]), np.stack([average, features])], verbose=0)[:, target]
        assert [found.baseline, found.probability] == pytest.approx(ends.tolist(), abs=1e-5)
        assert abs(ends[1] - ends[0]) > 0.01    # else all this would say little


def only(keras, where):
    """A model whose probability depends on the first second of V1 alone, or on heart rate."""
    ecg = keras.Input((500, 12), name="ecg")
    features = keras.Input((8,), name="features")
    scaled = keras.layers.Normalization(
        mean=MEAN, variance=VARIANCE, name="feature_scaling")(features)
    scaled = keras.ops.clip(keras.ops.nan_to_num(scaled, nan=0.0), -2.5, 2.5)
    used = (keras.layers.Flatten()(ecg[:, :50, 6:7]) + 0 * scaled[:, :1] if where == "V1" else
            scaled[:, 4:5] + 0 * ecg[:, 0, :1])
    return keras.Model([ecg, features], keras.layers.Dense(
        5, activation="softmax", kernel_initializer="ones" if where == "V1" else "orthogonal")(
            keras.layers.Dense(1, kernel_initializer="ones")(used)))


@pytest.mark.parametrize("where", ["V1", "heart rate"])
def test_importance_lies_where_alone_the_model_looks(where):
    keras = script.load_tensorflow()[1]
    keras.utils.set_random_seed(3)
    model = only(keras, where)
    model.layers[-1].set_weights([np.array([[0.3, 0, 0, 0, -0.3]]), np.zeros(5)])
    rng = np.random.default_rng(0)
    ecg = rng.normal(size=(500, 12)).astype(np.float32)
    features = np.array([0.1, 0.4, 2, 1, 90, 60, np.nan, 0.2], np.float32)
    found = explain.explain(model, ecg, features, 0)
    seen = np.zeros((500, 12), bool)
    seen[:50, 6] = where == "V1"
    assert (found.ecg[~seen] == 0).all()
    assert (np.delete(found.features, 4) == 0).all()
    assert (found.ecg[seen] != 0).all()
    assert (found.features[4] != 0) == (where != "V1")
    moved = found.ecg.sum() + found.features.sum()
    assert moved == pytest.approx(found.probability - found.baseline, abs=0.005)
    assert abs(moved) > 0.02
    if where == "V1":    # all weights are alike, so the sign and size are those of the signal
        assert np.corrcoef(found.ecg[seen], ecg[seen])[0, 1] > 0.999


def test_a_feature_far_beyond_the_models_limit_is_not_missed():
    """Its probability changes within the first hundredth of the path only."""
    keras = script.load_tensorflow()[1]
    keras.utils.set_random_seed(3)
    model = only(keras, "heart rate")
    model.layers[-1].set_weights([np.array([[1.0, 0, 0, 0, -1]]), np.zeros(5)])
    features = np.array(MEAN, np.float32)
    features[4] += 250 * 20    # 250 deviations; the model cuts off at 2.5
    found = explain.explain(model, np.zeros((500, 12), np.float32), features, 0)
    assert found.probability - found.baseline > 0.3
    assert abs(found.rest) < 0.005


def test_importance_is_spread_over_the_raw_samples_of_its_moment():
    importance = np.zeros((500, 12))
    importance[100, 3], importance[300, 8] = 0.2, -0.1    # at 2 and 6 s
    raw, _ = explain.spread(Importance(importance, np.zeros(8), 0, 0, 0), 5000)
    assert raw.shape == (5000, 12)
    assert raw.max() == 1
    assert abs(raw[:, 3].argmax() - 1000) <= 25
    assert abs(raw[:, 8].argmin() - 3000) <= 25
    assert (np.flatnonzero(raw[:, 3]) / 500).round(2).min() >= 1.9
    assert (np.flatnonzero(raw[:, 3]) / 500).max() <= 2.1
    assert not np.delete(raw, [3, 8], axis=1).any()
    assert not explain.spread(Importance(0 * importance, np.zeros(8), 0, 0, 0), 100)[0].any()


def test_explain_says_by_lead_second_and_feature_what_moved_the_class(data, models, capsys):
    document = json.loads(run(capsys, data, "--model", models(), "--explain", "--json")[1])
    for record in document["records"]:
        it = record["importance"]
        assert it["probability"] == pytest.approx(record["confidence"], abs=1e-5)
        assert sum(it["lead"].values()) == pytest.approx(sum(it["second"].values()))
        assert list(it["lead"]) == list(script.LEADS)
        assert len(it["second"]) == 10
        assert sum(it["lead"].values()) + sum(it["feature"].values()) + it["rest"] == (
            pytest.approx(it["probability"] - it["baseline"]))
    out = run(capsys, data, "--model", models(), "--explain", "--csv")[1]
    table = pd.read_csv(io.StringIO(out))
    assert table["importance of lead V1"].tolist() == pytest.approx(
        [record["importance"]["lead"]["V1"] for record in document["records"]])
    out = run(capsys, data, "--model", models(), "--explain")[1]
    assert max(map(len, out.splitlines())) <= 100    # without a terminal
    words = " ".join(out.split())
    assert words.count("flat ECG, average features") == 3
    assert f"V1 {document['records'][0]['importance']['lead']['V1']:+.3f}" in words


# -------------------------------------------------------------------------------------- security
@pytest.fixture
def copied(models, tmp_path):
    """Path of a copy of a model and its card, to be damaged."""
    for file in (models(), models().with_suffix(".json")):
        shutil.copy(file, tmp_path)
    return tmp_path / "lstm.keras"


def repacked(source, path, change, *more):
    """Write a model whose parts are changed and packed, with more parts (name, content)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)))
        for name, content in more:
            new.writestr(name, content)


def assert_refused(model, records):
    """Check that a model is refused in one line that names it."""
    with pytest.raises(UserError, match=re.escape(str(model))) as error:
        classify.classify_record(records[0], model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["truncated", "text", "number", "bomb"])
def test_a_damaged_model_is_refused_in_one_line(damage, models, copied, records):
    """Even where its card vouches for it."""
    if damage == "truncated":
        copied.write_bytes(copied.read_bytes()[:1000])
    elif damage == "text":
        copied.write_text("not a model")
    elif damage == "number":
        repacked(models(), copied,
                 lambda part: part.replace(b'"units": 32', b'"units": 3200000000'))
    else:
        zeros = bytes(models.MAX_MODEL_BYTES)
        repacked(models(), copied, lambda part: part, ("assets/zeros", zeros))
    changed = json.loads(copied.with_suffix(".json").read_text())
    changed["model_sha256"] = files.sha256(copied)
    copied.with_suffix(".json").write_text(json.dumps(changed))
    assert_refused(copied, records)


@pytest.mark.parametrize(("keys", "value"), [
    (["features", 2, 0], "another"), (["classes", 0], "\x1b[31m"), (["recipe", "span"], "wide"),
    (["recipe", "sequence_length"], 10**9), (["model_sha256"], "0" * 64)], ids=str)
def test_a_card_of_other_values_is_refused_in_one_line(keys, value, copied, records):
    changed = inner = json.loads(copied.with_suffix(".json").read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    copied.with_suffix(".json").write_text(json.dumps(changed))
    assert_refused(copied, records)


@pytest.mark.parametrize("name", script.PREPARATION)
def test_a_card_without_what_prepares_records_is_refused_in_one_line(name, copied, records):
    """Such as one of an older version."""
    changed = json.loads(copied.with_suffix(".json").read_text())
    del changed["recipe"][name]
    copied.with_suffix(".json").write_text(json.dumps(changed))
    assert_refused(copied, records)


def test_a_model_without_a_card_is_refused_in_one_line(copied, records):
    copied.with_suffix(".json").unlink()
    assert_refused(copied, records)


def test_a_model_larger_than_any_of_this_project_is_refused_in_one_line(
        copied, records, monkeypatch):
    monkeypatch.setattr(models_file, "MAX_MODEL_BYTES", copied.stat().st_size - 1)
    assert_refused(copied, records)


def test_a_model_without_numbers_is_not_taken_for_one(tmp_path, records):
    model = build()
    model.layers[-1].bias.assign([np.nan] * 5)
    script.save(model, card(), tmp_path / "m.keras")
    with pytest.raises(UserError, match="no probabilities"):
        classify.classify(records, tmp_path / "m.keras")


# ----------------------------------------------------------------------------- models, embeddings
def test_where_no_model_is_named_it_is_that_of_a_run_else_the_large_one_of_models(
        tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(adaptation, "MODELS", tmp_path / "models")
    own = script.Settings.output
    assert classify.choose_model() == own    # neither is there: the error will name it
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "real_large.keras").touch()
    assert classify.choose_model() == str(tmp_path / "models" / "real_large.keras")
    assert classify.choose_model("real_large") == classify.choose_model()
    Path(own).touch()
    assert classify.choose_model() == own
    assert classify.choose_model("m.keras") == "m.keras"


def test_it_says_which_model_it_chose_and_warns_where_one_of_the_demo_meets_other_records(
        tmp_path, monkeypatch, records, data, capsys):
    monkeypatch.chdir(tmp_path)
    script.save(build(), {**card(), "synthetic": True}, tmp_path / script.Settings.output)
    code, _, err = run(capsys, records[0])
    assert (code, "warning" in err) == (0, False)
    assert f"using {script.Settings.output}" in err
    _, _, err = run(capsys, data)
    assert "warning: this model has learnt from synthetic records" in err
    assert "--model real_large" in err


def test_embeddings_are_what_the_last_layer_sees_and_no_record_is_prepared_twice(
        tmp_path, models, records, capsys, monkeypatch):
    file = tmp_path / "e.npz"
    prepared = []
    prepare = classify.prepare
    monkeypatch.setattr(classify, "prepare", lambda paths, settings: [
        prepared.extend(paths), prepare(paths, settings)][1])
    for _ in range(2):    # the second replaces the first
        code, out, _ = run(capsys, *records[:3], "--model", models(), "--embeddings", file, "--csv")
        assert code == 0
    assert prepared == 2 * records[:3]
    with np.load(file) as found:
        assert found["names"].tolist() == records[:3]
        last = script.load(models()).model.layers[-1]
        logits = found["embeddings"] @ last.kernel + last.bias
    odds = np.exp(logits)
    expected = pd.read_csv(io.StringIO(out))[[f"p {name}" for name in CLASSES]]
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), expected, atol=1e-5)


def test_embeddings_replace_nobody_elses_file(tmp_path, models, records, capsys):
    file = tmp_path / "e.npz"
    for fill in (lambda: np.savez(file, years_of_work=1), lambda: file.write_text("years")):
        fill()
        before = file.read_bytes()
        code, out, err = run(capsys, records[0], "--model", models(), "--embeddings", file)
        assert (code, out) == (2, "")
        assert "e.npz was not written by this program" in err
        assert file.read_bytes() == before


@pytest.mark.parametrize("flag", ["--plot", "--embeddings"])
def test_classes_are_printed_though_there_is_no_room_for_files(
        flag, tmp_path, models, records, capsys, monkeypatch):
    model, written = models(), []

    def write_whole(path, write):
        written.append(path)
        if flag == "--embeddings" or len(written) == 2:
            raise UserError(f"{path}: No space left on device")

    monkeypatch.setattr("ecg.files.write_whole", write_whole)
    code, out, err = run(capsys, *records[:3], "--model", model, flag, tmp_path / "e.npz",
                         "--csv")
    assert code == 2
    assert len(out.splitlines()) == 1 + 3
    assert "No space left on device" in err
    assert len(written) == (2 if flag == "--plot" else 1)


@pytest.mark.slow
def test_an_ensemble_has_no_embeddings(models, records, capsys, tmp_path):
    code, out, err = run(capsys, records[0], "--model", models("ensemble"), "--embeddings",
                         tmp_path / "e.npz")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "ensemble" in err


# --------------------------------------------------------------------------------------- shading
@pytest.mark.parametrize(("of_features", "fullest"), [(0.0, 1.0), (0.5, 1.0), (4.5, 0.2)])
def test_leads_that_carry_little_are_shaded_little_and_the_scale_says_how_much(
        of_features, fullest):
    by_ecg = np.zeros((500, 12))
    by_ecg[200:210, 3] = 0.05    # 0.2 s that move it by 0.5
    importance = Importance(by_ecg, np.array([of_features, 0.0]), 0.0, 0.0, 0.0)
    colours, at_full_colour = explain.spread(importance, 5000)
    assert colours.max() == pytest.approx(fullest)
    assert colours[2040:2060, 3].min() == pytest.approx(fullest)
    assert colours[:, [2, 4]].max() == 0
    # What 0.1 s of that lead moved it by
    assert colours.max() * at_full_colour == pytest.approx(5 * 0.05)
    share = round(100 * 0.5 / (0.5 + of_features))
    assert explain.share_of_leads(importance) == pytest.approx(share / 100, abs=0.01)
    assert explain.in_brief(importance, ["a", "b"], 1) == (
        f"Of what moved it: leads {share} %, features {100 - share} % (most: a {of_features:+.2f})")


def test_the_three_most_telling_features_are_named():
    importance = Importance(np.zeros((500, 12)), np.array([0.1, -0.4, 0.0, 0.2]), 0, 0, 0)
    assert explain.in_brief(importance, ["a", "b", "c", "d"]) == (
        "Of what moved it: leads 0 %, features 100 % (most: b -0.40, d +0.20, a +0.10)")

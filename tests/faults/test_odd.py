"""Odd input lists, caches, servers and names: refused in one line or used, never waited for."""

import os
import subprocess
import sys

import numpy as np
import pytest

import too_feature as script
from ecg import cache, demo, files
from ecg.errors import UserError
from tests.support import stores
from tests.support.runs import LABELS, TINY, copy_project, one_line
from tools import check_labels, classify, fetch_records

SLOW = pytest.mark.slow


@pytest.mark.parametrize("kind", ["pipe", "folder", "zeros"])
def test_a_list_of_records_that_is_not_a_plain_file_is_refused_unread(kind, tmp_path):
    name = tmp_path / "list"
    if kind == "pipe":
        os.mkfifo(name)
    elif kind == "folder":
        name.mkdir()
    else:
        name.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="list: not a plain file"):
        classify.find_records([f"@{name}"])


@pytest.mark.parametrize("text", ["1_0", "\N{ARABIC-INDIC DIGIT ONE}0", "\N{FULLWIDTH DIGIT ONE}"])
@pytest.mark.parametrize(("program", "flags"), [
    (script, ["--epochs"]), (classify, ["x", "--jobs"]), (check_labels, ["--top"]),
    (fetch_records, ["--connections"]), (fetch_records, ["--spares"])], ids=str)
def test_digits_that_could_be_misread_are_refused(program, flags, text, capsys):
    try:
        code = program.main([*flags, text])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("header", [
    "id1,path,class", "Größe,Pfad,Klasse", "Größe,path,class", "患者,路径,类别"])
def test_a_header_of_any_words_is_recognised(header, tmp_path):
    path = tmp_path / "labels.csv"
    rows = "".join(f"{i},r{i},{demo.CLASSES[i % 5]}\n" for i in range(20))
    path.write_text(f"{header}\n{rows}", encoding="utf-8")
    labels = script.read_labels(str(path))
    assert len(labels) == 20
    assert labels["subject_id"].dtype == np.int64


def test_a_disk_without_room_for_the_demo_is_named(tmp_path, monkeypatch):
    def full(_):
        raise OSError("120000 requested and 28672 written")    # as NumPy says it

    monkeypatch.setattr(demo, "write_demo", full)
    labels = script.read_labels(str(LABELS))
    with pytest.raises(UserError, match=r"data: the demo's waveforms .*is the disk full\?"):
        script.ensure_demo(labels, str(tmp_path / "data"))


# ------------------------------------------------------------------------------------------ cache
@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A function that prepares all records, and the file of its cache."""
    monkeypatch.setattr(cache, "BATCH", 1000)
    stores.write_all(tmp_path / "data")

    def prepare():
        paths = [f"{tmp_path / 'data'}/{path}" for path in stores.PATHS]
        return cache.prepare_many(
            paths, stores.prepare, stores.SHAPES, "key", tmp_path / "cache", jobs=1)

    prepare()
    file, = (tmp_path / "cache").iterdir()
    return prepare, file


def test_a_worker_marks_what_it_writes_with_the_run_that_it_works_for(
        stored, tmp_path, monkeypatch):
    """So that the next run of that model removes it, should both be killed."""
    prepare, file = stored
    file.unlink()
    files.claim(tmp_path / "run")
    run = files.owner()
    prepare_batch, marks = cache.prepare_batch, []

    def in_a_worker(batch):
        monkeypatch.setattr(files, "_owner", "")
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", lambda scratch, _: marks.append(scratch.name[1:17]))
            prepare_batch(batch)
        return prepare_batch(batch)

    monkeypatch.setattr(cache, "prepare_batch", in_a_worker)
    prepare()
    assert marks == [run]


def test_a_row_of_nan_with_a_right_checksum_is_prepared_anew(stored):
    prepare, file = stored
    expected = stores.told(prepare())
    row_type = np.dtype([("signal", "<f4", stores.SHAPES[0]), ("features", "<f4", stores.SHAPES[1]),
                         ("left_out", "S120"), ("remark", "S60"), ("checksum", "<u4")])
    rows = np.fromfile(file, row_type)
    rows["signal"][1] = np.nan
    for row in rows:
        row["checksum"] = cache.checksum(row)
    rows.tofile(file)
    assert stores.told(prepare()) == expected


def test_a_cache_that_is_cut_while_it_is_used_is_one_line_and_no_bus_error(stored):
    prepare, file = stored
    signals = cache.Signals(prepare(), range(len(stores.PATHS)))
    assert signals[:2].shape == (2, *stores.SHAPES[0])
    os.truncate(file, 4096)
    with pytest.raises(UserError, match=r"\.rows was cut while it was in use"):
        signals[-1:]


# ----------------------------------------------------------------------------- another name
@pytest.mark.parametrize("name", ["too_feature.v2.py", "too feature (1).py"])
def test_a_copy_of_the_script_under_another_name_starts(name, tmp_path):
    program = copy_project(tmp_path).rename(tmp_path / name)
    result = subprocess.run([sys.executable, program, "--labels", "none.csv"], cwd=tmp_path,
                            capture_output=True, text=True, timeout=200)
    assert result.returncode == 2
    assert "none.csv: expected a label file" in one_line(result.stderr)


@SLOW
def test_a_copy_with_a_point_in_its_name_trains_with_several_jobs(demo_dir, tmp_path):
    program = copy_project(tmp_path).rename(tmp_path / "too_feature.v2.py")
    result = subprocess.run(
        [sys.executable, program, *TINY, "--data-dir", demo_dir, "--jobs", "2", "--epochs", "1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "ecg_stable_lstm_model.keras").exists()

"""Label files that are damaged, mistaken or hostile: one line of error, in little memory."""

import difflib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import too_feature as script
from ecg import demo
from ecg.errors import UserError
from tests.support.labels import HEADER, PLAIN, ROWS, read, refusal, write
from tests.support.runs import ROOT

FIVE = [f"{i},r{i},{demo.CLASSES[i % 5]}\n" for i in range(100)]


def read_in_two_gigabytes(paths, before=""):
    """Read label files in a process of 2 GB at most; return a line for each."""
    code = (f"import resource, os, too_feature as s\n"
            f"resource.setrlimit(resource.RLIMIT_AS, [2 * 2**30] * 2)\n{before}\n"
            f"for path in {[str(path) for path in paths]!r}:\n"
            f"    try: print(len(s.read_labels(path)))\n"
            f"    except s.UserError as error: print('refused', error)")
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True,
                          timeout=120, cwd=ROOT, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    return done.stdout.splitlines()


# ------------------------------------------------------------------------------- how it is saved
@pytest.mark.parametrize("content", [PLAIN.replace("\n", "\r"), HEADER + PLAIN.replace("\n", "\r")])
def test_line_ends_of_an_old_mac_change_nothing(tmp_path, content):
    assert read(tmp_path, content) == ROWS


@pytest.mark.parametrize("content", [
    PLAIN.encode("utf-16"), PLAIN.encode("utf-16-le"), PLAIN.encode("utf-16-be"),
    PLAIN.replace(",", ";"), PLAIN.replace(",", "\t"), HEADER.replace(",", ";") + PLAIN,
    PLAIN.replace("AF", "é").encode("latin-1")])
def test_another_encoding_or_separator_is_refused_by_saying_how_to_save_the_file(tmp_path, content):
    text = refusal(write(tmp_path, content))
    assert "CSV UTF-8" in text
    if isinstance(content, str):
        assert "line 1" in text and "with commas" in text


@pytest.mark.parametrize("row", ["2,AF", "2,p/2,AF,x", "2", "2,p/2,AF,x,y"])
def test_too_few_or_many_columns_are_named_by_line(tmp_path, row):
    assert "line 4" in refusal(write(tmp_path, PLAIN + row + "\n" + PLAIN))


@pytest.mark.parametrize("row", ['3,"p/3,AF', '3,p/3,"AF', '"3,p/3,AF', '3,p/3,A"F'])
@pytest.mark.parametrize("after", ["", "\n4,p/4,AF\n", '\n4,p/4,AF\n5,p/5,"AF\n6,p/6,AF\n'])
def test_an_open_quote_is_named_by_line_and_swallows_no_rows(tmp_path, row, after):
    text = refusal(write(tmp_path, PLAIN + row + after))
    assert "line 4" in text
    assert "quote" in text


def test_a_number_that_a_spreadsheet_rounded_is_refused_by_saying_what_to_do(tmp_path):
    text = refusal(write(tmp_path, PLAIN + "1.0E+07,p/3,AF\n"))
    assert "line 4" in text and "format it as text in a spreadsheet" in text and "1.0E+07" in text


# --------------------------------------------------------------------------------------- classes
@pytest.mark.parametrize(("typo", "right"), [
    ("Bradycrdia", "Bradycardia"), ("Nornal", "Normal"), ("Tachycardia?", "Tachycardia"),
    ("Atrial Fibrilation", "Atrial Fibrillation"), ("Bundle-branch block", "Bundle Branch Block")])
@pytest.mark.parametrize("missing", [0, 1])
def test_a_typo_in_a_class_is_pointed_out_with_the_class_it_resembles(tmp_path, capsys, typo, right,
                                                                      missing):
    """Also where it makes four classes five."""
    left_out = [name for name in demo.CLASSES if name != right][:missing]
    rows = read(tmp_path, "".join(row for row in FIVE if row.strip().split(",")[2] not in left_out)
                + f"900,x,{typo}\n")
    assert [900, "x", typo] in rows    # the user decides
    assert f"{typo!r} (1 record), did you mean {right!r}?" in capsys.readouterr().out


def test_classes_that_are_common_or_unlike_are_not_taken_for_typos(tmp_path, capsys):
    rows = "".join(FIVE).replace("Normal", "Left bundle branch block").replace(
        "Tachycardia", "Right bundle branch block")
    read(tmp_path, rows + "900,x,Paced\n")
    assert "did you mean" not in capsys.readouterr().out


@pytest.mark.parametrize("n", [0, 1, 101])
def test_a_number_of_classes_that_no_model_can_learn_is_refused_without_comparing_their_names(
        tmp_path, monkeypatch, n):
    monkeypatch.setattr(difflib, "get_close_matches", lambda *_: pytest.fail("names are compared"))
    text = refusal(write(tmp_path, "".join(
        f"{i},r{i},class number {i % n}\n" for i in range(3 * n))))
    assert f"expected 2 to 100 classes in column 3, got {n}" in text


def test_a_hundred_classes_are_read(tmp_path):
    rows = read(tmp_path, "".join(f"{i},r{i},{i % 100}\n" for i in range(300)))
    assert len({name for _, _, name in rows}) == 100


def test_one_patient_alone_is_refused_by_saying_what_is_missing(tmp_path):
    labels = script.read_labels(write(tmp_path, "".join(
        f"7,r{i},{demo.CLASSES[i % 5]}\n" for i in range(50))))
    with pytest.raises(UserError, match="too few patients"):
        script.split_patients(labels)


def test_a_patient_with_records_in_all_classes_stays_whole(tmp_path):
    labels = script.read_labels(write(tmp_path, "".join(FIVE) + "".join(
        f"7000,x{i},{name}\n" for i, name in enumerate(demo.CLASSES))))
    parts = script.split_patients(labels).values()
    assert sorted((part["subject_id"] == 7000).sum() for part in parts) == [0, 0, 5]


# ------------------------------------------------------------------------------------------ size
@pytest.mark.parametrize("row", [
    "5,p/5," + "x" * 10**7, "5," + "a/" * 5_000_000 + "a,AF", "5" * 10**7 + ",p/5,AF",
    "5,p/5,AF" + "," * 10**7, '"' * 10**7, "x" * 10**7],
    ids=["class", "path", "id", "commas", "quotes", "word"])
def test_a_line_of_ten_megabytes_is_refused_by_its_number_in_a_short_line(tmp_path, row):
    text = refusal(write(tmp_path, PLAIN + row + "\n"))
    assert "line 4" in text
    assert len(text.replace(str(tmp_path), "")) < 300


def test_no_class_name_or_path_of_a_file_is_longer_than_a_line(tmp_path):
    good = f"5,{'p' * 999},{'x' * 100}\n"
    assert len(read(tmp_path, PLAIN + good)) == 4
    for bad in (good.replace("p", "pp", 1), good.replace("x", "xx", 1)):
        assert "line 4" in refusal(write(tmp_path, PLAIN + bad))


def test_more_lines_than_any_data_set_has_are_refused_in_little_memory(tmp_path):
    (line,) = read_in_two_gigabytes([write(tmp_path, bytes([10]) * 20_000_000)])
    assert line.startswith("refused") and "more than 3,000,000 lines" in line


# ------------------------------------------------------------------------- in place of the file
def test_what_is_not_a_plain_file_of_little_size_is_refused_and_not_read(tmp_path):
    large = write(tmp_path, PLAIN)
    os.truncate(large, 5 * 10**9)
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")    # nobody ever writes to it
    (tmp_path / "link.csv").symlink_to("/dev/zero")
    paths = [large, *(tmp_path / f"{name}.csv" for name in ("folder", "pipe", "link")),
             *filter(Path.exists, map(Path, ("/dev/zero", "/dev/full")))]
    assert len(paths) >= 5
    for path, line in zip(paths, read_in_two_gigabytes(paths), strict=True):
        assert line.startswith(f"refused {path}")
        assert "not a plain file of at most 200 MB" in line


def test_a_file_that_may_not_be_read_is_named_with_the_reason():
    with tempfile.TemporaryDirectory() as folder:    # tmp_path lies where only its owner may look
        Path(folder).chmod(0o755)
        path = write(folder, PLAIN)
        path.chmod(0)
        nobody = "" if os.geteuid() else (    # root may read everything
            "''.encode('utf-8-sig'); os.seteuid(65534)")    # who might not read Python's modules
        (line,) = read_in_two_gigabytes([path], nobody)
        assert line.startswith(f"refused {path}") and "Permission denied" in line


def test_both_label_files_are_checked_before_tensorflow_is_imported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "load_tensorflow", lambda: pytest.fail("TensorFlow"))
    good, bad = write(tmp_path, "".join(FIVE)), write(tmp_path, "x", "bad.csv")
    for flags in (["--labels", bad], ["--labels", good, "--test-labels", bad],
                  ["--labels", good, "--test-labels", tmp_path / "none.csv"],
                  ["--labels", good, "--test-labels", tmp_path]):
        arguments = [*map(str, flags), "--output", str(tmp_path / "m.keras")]
        assert script.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and str(flags[-1]) in error
    assert not (tmp_path / "m.keras").exists()

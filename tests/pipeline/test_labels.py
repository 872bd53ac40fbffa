"""What `read_labels` promises about any label file, also a damaged, mistaken or hostile one."""

import csv
import io
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecg import demo, label_file
from ecg.errors import UserError
from tests.support.labels import HEADER, PLAIN, ROWS, read, refusal, write
from too_feature import read_labels

FIVE = "".join(f"{i},r{i},{demo.CLASSES[i % 5]}\n" for i in range(100))


# ------------------------------------------------------------------------------- how it is written
@pytest.mark.parametrize("content", [
    PLAIN.rstrip(), "\ufeff\n\n" + HEADER.upper() + PLAIN, "患者,路径,类别\n" + PLAIN,
    '"subject_id","waveform_path","ecg_category"\n' + PLAIN, PLAIN.replace("\n", "\r\n"),
    PLAIN.replace("\n", "\r"), PLAIN.replace("\n", "\n  \n,,\n"), PLAIN + PLAIN,
    re.sub(r"([^,\n]+)", r'" \1 "', PLAIN), PLAIN + PLAIN.replace(",A", ".hea,A"),
    PLAIN.replace("/2,", "/2.dat,"), PLAIN.replace(",p", ",mimic-iv-ecg/p"),
    PLAIN + "13,p2/s3/3,NORMAL\n" + PLAIN, PLAIN.replace("13,", "0013,"),
    PLAIN.replace("Normal", "Normal,")])
def test_how_a_file_is_dressed_changes_nothing_that_is_read(tmp_path, content):
    assert read(tmp_path, content) == ROWS


@pytest.mark.parametrize("first", ["5,rec,Rare", "anna,a/b,Rare", "anna,rec1,Rare", "anna,rec,AF"])
def test_a_first_row_that_could_be_a_record_is_never_taken_for_a_header(tmp_path, first):
    """It would be a record lost without a word."""
    assert len(read(tmp_path, f"{first}\n{PLAIN}")) == 4


@pytest.mark.parametrize("first", [HEADER, "Größe,Pfad,Klasse\n", ""])
def test_the_header_of_a_second_file_is_no_record(tmp_path, first):
    text = refusal(write(tmp_path, first + PLAIN + (first or HEADER) + "4,a/4,AF\n"))
    assert f"line {len((first + PLAIN).splitlines()) + 1}" in text
    assert "second header (files joined?)" in text


def test_named_columns_are_kept_and_others_are_not_without_a_word(tmp_path, capsys):
    header = HEADER.strip() + ",Sex,note,Age\n"
    rows = "1,p1/s1/1,AF,male,x,40\n2,p1/s2/2,AF,Male,y,\n13,p2/s3/3,Normal,male,,50\n"
    labels = read_labels(write(tmp_path, header + rows + rows))
    assert labels.columns.tolist() == [*HEADER.strip().split(","), "sex", "age"]
    assert labels.iloc[:, :3].to_numpy().tolist() == ROWS
    assert labels["sex"].tolist() == ["male"] * 3 and labels["age"].tolist() == ["40", "", "50"]
    assert capsys.readouterr().out.endswith("not used: column note\n")
    assert "note" in read_labels(write(tmp_path, header + rows), "note,sex")


@pytest.mark.parametrize(("names", "cell", "what"), [
    ("sex,sex", "m,m", "two columns are called sex"), ("sex,", "m,m", "line 4"),
    ("sex,excess", "m,a,b", "line 4"), ("sex,age", "m\u202e,1", "sex in 100 printable"),
    ("sex,split", "m,testing", "train or validation or test as split")])
def test_columns_that_cannot_be_told_apart_or_shown_are_refused(tmp_path, names, cell, what):
    rows = PLAIN.replace("AF\n", "AF,m,test\n").replace("Normal\n", f"Normal,{cell}\n")
    if names.endswith(","):
        rows = rows.replace(",test", "")
    assert what in refusal(write(tmp_path, f"{HEADER.strip()},{names}\n{rows}"))


# ----------------------------------------------------------------------------------------- refused
@pytest.mark.parametrize("row", [
    "3,p/3", "3,p/3,AF,x", "3,p/3,AF,x,y", ",p/3,AF", "3,,AF", "3,p/3, ", "3;p/3;AF", "-3,p/3,AF",
    "1.0E+07,p/3,AF", '"3,5",p/3,AF', "3\a4,p/3,AF", "3\u202e4,p/3,AF", "3" * 101 + ",p/3,AF",
    "3,p/3," + "x" * 101, "3,p/3,A\u200bF", '3,"p/3,AF', '3,p/3,"AF\n4,p/4,"AF', "3,p/3,AF\0"])
def test_a_malformed_row_is_named_by_file_and_line(tmp_path, row):
    before = "\ufeff\n\n" + HEADER + "\n  \n"    # lines that hold no record count, too
    text = refusal(write(tmp_path, f"{before}{PLAIN}{row}\n{PLAIN}"))
    line = len((before + PLAIN).splitlines()) + 1
    assert re.search(rf"labels\.csv.*\bline {line}\b", text)


@pytest.mark.parametrize("path", [
    "..", "../x", "a/../x", "a/..", "mimic-iv-ecg/../x", "mimic-iv-ecg//x", "/etc/passwd", "~/x",
    "http://host/x", "s3://bucket/x", "a::b", "C:\\x", "a\\x", "a/...hea", ".hea", "a\x1bb",
    "a\tb", "a\u202eb", "p" * 1000])
def test_a_path_that_could_leave_the_data_folder_is_refused(tmp_path, path):
    assert "line 5" in refusal(write(tmp_path, HEADER + PLAIN + f'3,"{path}",AF\n'))


@settings(max_examples=150)
@given(path=st.text(alphabet="ab1./~:\\ \t\0\n-,\"'é", max_size=12) | st.text(max_size=12))
@example("a  b")
def test_a_path_is_refused_or_kept_to_the_letter(tmp_path_factory, path):
    text = io.StringIO()
    csv.writer(text).writerow([3, path, "AF"])
    try:
        rows = read(tmp_path_factory.getbasetemp(), PLAIN + text.getvalue())
    except UserError:
        return
    (kept,) = (row[1] for row in rows if row[0] == "3")
    bare = path.strip().removeprefix("mimic-iv-ecg/")
    assert kept in {bare, bare.removesuffix(".hea"), bare.removesuffix(".dat")}
    assert not Path(kept).is_absolute() and not {"", ".", ".."} & set(kept.split("/"))


@pytest.mark.parametrize("content", [
    b"", b"\n\n", HEADER, PLAIN.encode("utf-16"), PLAIN.encode("utf-16-le"),
    PLAIN.replace("AF", "é").encode("latin-1"), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    PLAIN.replace(",", ";"), HEADER.replace(",", "\t") + PLAIN])
def test_a_file_that_holds_no_labels_is_one_line_of_error_that_names_it(tmp_path, content):
    assert "labels.csv" in refusal(write(tmp_path, content))


@pytest.mark.parametrize("name", [
    "missing.csv", ".", "", "a\0b", "two\nlines.csv", "s3://bucket/x.csv", "pipe", "large"])
def test_what_is_no_plain_file_of_little_size_is_refused_unread(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")    # nobody ever writes to it
    write(".", PLAIN, "large")
    os.truncate("large", 5 * 10**9)
    refusal(name)


def test_a_text_file_with_the_extension_of_an_archive_is_read_as_text(tmp_path):
    assert read_labels(write(tmp_path, PLAIN, "labels.gz")).to_numpy().tolist() == ROWS


@settings(max_examples=150)
@given(content=st.binary(max_size=60)
       | st.lists(st.text(alphabet="12,,,a/.AF\"\n\r;\t\0 ", max_size=12), max_size=6).map(
           lambda rows: (PLAIN + "\n".join(rows)).encode()))
def test_any_bytes_are_labels_or_one_line_of_error(tmp_path_factory, content):
    try:
        labels = read_labels(write(tmp_path_factory.getbasetemp(), content))
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert labels["ecg_category"].nunique() >= 2 and labels["waveform_path"].is_unique


@pytest.mark.parametrize("row", [
    "5,p/5," + "x" * 10**7, "5," + "a/" * 5_000_000 + "a,AF", "," * 10**7],
    ids=["class", "path", "commas"])
def test_a_line_of_ten_megabytes_is_refused_by_its_number_in_a_short_line(tmp_path, row):
    text = refusal(write(tmp_path, PLAIN + row + "\n"))
    assert "line 4" in text
    assert len(text.replace(str(tmp_path), "")) < 300


# ----------------------------------------------------------------------------------------- patients
@pytest.mark.parametrize("subject", [
    "x3", "3 4", "3" * 19, "d41d8cd98f00b204", "Müller, A.", "张\u3000三"])
def test_any_other_text_names_a_patient(tmp_path, subject):
    rows = read(tmp_path, PLAIN + f'"{subject}",p/3,AF\n')
    assert [row[0] for row in rows] == ["1", "2", "13", subject]


@pytest.mark.parametrize("others", ["", "x,a/3,AF\n"])
def test_leading_zeros_of_whole_numbers_never_count_and_it_is_said(tmp_path, capsys, others):
    rows = read(tmp_path, "00123,a/1,AF\n123,a/2,Other\n" + others)
    assert [row[0] for row in rows[:2]] == ["123", "123"]
    assert "123 and 00123, for example, are one patient" in capsys.readouterr().out


@pytest.mark.parametrize("extra", [
    "7,x,AF\n7,x,Normal\n", "7,x.hea,AF\n7,mimic-iv-ecg/x,Normal\n", "7,x,a\n8,x,b\n9,x,c\n"])
def test_a_record_of_several_classes_is_left_out_with_a_notice(tmp_path, capsys, extra):
    assert read(tmp_path, PLAIN + extra) == ROWS
    notice = capsys.readouterr().out
    assert f"{len(extra.splitlines())} rows" in notice and "line 4" in notice


def test_a_record_under_two_patients_is_read_once_and_joins_them(tmp_path, capsys):
    rows = read(tmp_path, PLAIN + "8,x,AF\n7,x.dat,AF\n8,y,Normal\n")
    assert rows == [*ROWS, ["7", "x", "AF"], ["7", "y", "Normal"]]
    assert "8 and 7, for example, are one patient" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ classes
def test_spellings_of_a_class_become_the_commonest(tmp_path):
    names = ["af", "Atrial  fibrillation", " atrial fibrillation ", "Atrial Fibrillation",
             "Atrial Fibrillation", "ATRIAL\tFIBRILLATION", "Größe", "Gro\u0308ße"]
    rows = read(tmp_path, "".join(f"{i},r{i},{name}\n" for i, name in enumerate(names)))
    assert [row[2] for row in rows] == ["af"] + ["Atrial Fibrillation"] * 5 + ["Größe"] * 2


@pytest.mark.parametrize(("typo", "right"), [
    ("Bradycrdia", "Bradycardia"), ("Tachycardia?", "Tachycardia"),
    ("Bundle-branch block", "Bundle Branch Block")])
def test_a_typo_in_a_class_is_pointed_out_with_the_class_it_resembles(
        tmp_path, capsys, typo, right):
    rows = read(tmp_path, FIVE + f"900,x,{typo}\n")
    assert rows[-1] == ["900", "x", typo]    # the user decides
    assert f"{typo!r} (1 of the records), did you mean {right!r}?" in capsys.readouterr().out


def test_classes_that_are_common_or_unlike_are_not_taken_for_typos(tmp_path, capsys):
    rows = FIVE.replace("Normal", "Left bundle branch block").replace(
        "Tachycardia", "Right bundle branch block")
    read(tmp_path, rows + "900,x,Paced\n")
    assert "did you mean" not in capsys.readouterr().out


@pytest.mark.parametrize("n", [1, 101])
def test_a_number_of_classes_that_no_model_can_learn_is_refused(tmp_path, n):
    text = refusal(write(tmp_path, "".join(f"{i},r{i},class {i % n}\n" for i in range(3 * n))))
    assert f"expected 2 to 100 classes in column 3, got {n}" in text


def test_names_take_a_models_spelling_and_what_it_does_not_know_is_named():
    names = pd.Series(["normal", "TACHYCARDIA"])
    classes = ["Bradycardia", "Normal", "Tachycardia"]
    assert label_file.spell_classes(names, classes).tolist() == ["Normal", "Tachycardia"]
    with pytest.raises(ValueError, match=r"^unknown class TACHYCARDIA; expected one of A, Normal$"):
        label_file.spell_classes(names, ["A", "Normal"])

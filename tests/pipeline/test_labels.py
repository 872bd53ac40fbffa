"""What `read_labels` promises about any label file."""

import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecg import demo
from ecg.errors import UserError
from tests.support.labels import HEADER, PLAIN, ROWS, read, refusal, write
from tests.support.runs import ROOT
from too_feature import read_labels


@pytest.mark.parametrize("content", [
    PLAIN, PLAIN.rstrip(), "\ufeff" + PLAIN, HEADER + PLAIN, "\ufeff\n\n" + HEADER.upper() + PLAIN,
    '"subject_id","waveform_path","ecg_category"\n' + PLAIN, PLAIN.replace("\n", "\r\n"),
    PLAIN.replace("\n", "\n\n"), PLAIN.replace("\n", "\n  \n,,\n"), PLAIN + PLAIN,
    re.sub(r"([^,\n]+)", r'"\1"', PLAIN), re.sub(r"([^,\n]+)", r"  \1 ", PLAIN),
    PLAIN.replace("/1,", "/1.hea,").replace("/2,", "/2.dat,"),
    PLAIN + PLAIN.replace(",A", ".hea,A"),
    PLAIN.replace(",p", ",mimic-iv-ecg/p"), PLAIN + PLAIN.replace(",p", ",mimic-iv-ecg/p"),
    PLAIN.replace("13,", "0013,"), PLAIN.replace("Normal", "Normal,")])
def test_how_a_file_is_dressed_changes_nothing_that_is_read(tmp_path, content):
    assert read(tmp_path, content) == ROWS


def test_columns_index_and_types_are_the_same_after_rows_were_left_out(tmp_path):
    labels = read_labels(write(tmp_path, HEADER + PLAIN + "5,a,x\n5,a,y\n"))
    assert labels.columns.tolist() == HEADER.strip().split(",")
    assert labels.index.tolist() == [0, 1, 2]
    assert labels["subject_id"].dtype == "int64"


def test_case_and_space_variants_of_a_class_merge_into_the_commonest_spelling(tmp_path):
    names = ["af", "Atrial  fibrillation", " atrial fibrillation ", "Atrial Fibrillation",
             "Atrial Fibrillation", "ATRIAL\tFIBRILLATION"]
    rows = read(tmp_path, "".join(f"{i},r{i},{name}\n" for i, name in enumerate(names)))
    assert [row[2] for row in rows] == ["af"] + ["Atrial Fibrillation"] * 5


def test_the_same_row_in_another_case_is_a_duplicate_and_not_a_conflict(tmp_path):
    assert read(tmp_path, PLAIN + "1,p1/s1/1,Af\n13,p2/s3/3.dat,NORMAL\n" + PLAIN) == ROWS


def test_two_classes_are_enough_and_give_no_notice(tmp_path, capsys):
    assert read(tmp_path, PLAIN) == ROWS
    assert capsys.readouterr().out == ""


def test_five_clean_classes_give_no_notice(tmp_path, capsys):
    assert len(read(tmp_path, demo.label_text())) == len(demo.catalogue())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", ["1,a,AF\n2,b,AF\n", "1,a,AF\n2,b,af\n", "1,a,AF\n1,a,VT\n"])
def test_fewer_than_two_classes_are_an_error(tmp_path, content):
    assert "labels.csv" in refusal(write(tmp_path, content))


@pytest.mark.parametrize("before", ["", "\ufeff", HEADER, "\n\n" + HEADER + "\n  \n",
                                    (HEADER + PLAIN + "\n" + PLAIN).replace("\n", "\r\n")])
@pytest.mark.parametrize("row", [
    "3,p/3", "3,p/3,AF,x", "3,p/3,AF,x,y", ",p/3,AF", "3,,AF", "3,p/3,", "3,p/3, ", "3", "3;p/3;AF",
    "-3,p/3,AF", "+3,p/3,AF", "1.0E+07,p/3,AF", "3.0,p/3,AF", '"3,5",p/3,AF', "3\a4,p/3,AF",
    "3" * 101 + ",p/3,AF", "3,../3,AF"])
def test_a_malformed_row_is_named_by_file_and_line(tmp_path, before, row):
    content = before + PLAIN + row + "\n" + PLAIN + row + "\n"
    text = refusal(write(tmp_path, content))
    line = len((before + PLAIN).splitlines()) + 1
    assert "labels.csv" in text and re.search(rf"\bline {line}\b", text)


@pytest.mark.parametrize("subject", [
    "x3", "3 4", "0x3", "９", "3" * 19, "d41d8cd98f00b204", "1e5a", "#7", "Müller, A.",
    "张\u3000三"])
def test_any_other_text_names_a_patient_and_makes_all_of_them_text(tmp_path, capsys, subject):
    found = read(tmp_path, PLAIN + f'"{subject}",p/3,AF\n')
    assert [row[0] for row in found] == ["1", "2", "13", subject]
    assert f"subject_id is text, such as {subject}" in capsys.readouterr().out


def test_a_first_row_with_a_patients_number_is_never_taken_for_a_header(tmp_path):
    """It would be a record lost without a word."""
    assert read(tmp_path, "5,rec,Rare\n" + PLAIN) == [[5, "rec", "Rare"], *ROWS]


@pytest.mark.parametrize("row", ["5;rec;Rare", "5,,Rare", "5"])
def test_a_malformed_first_row_is_not_taken_for_a_header(tmp_path, row):
    assert "line 1" in refusal(write(tmp_path, f"{row}\n{PLAIN}"))


@pytest.mark.parametrize("path", [
    "..", "../x", "a/../x", "a/..", "mimic-iv-ecg/../x", "mimic-iv-ecg//x", "/etc/passwd",
    "//host/x", "~", "~/x", "~root/x", "http://host/x", "s3://bucket/x", "file:///x", "a::b",
    "C:\\x", "C:/x", "\\\\host\\x", "a\\x", "..\\x", "a/...hea", "a/...dat", ".hea",
    "mimic-iv-ecg/.dat", "a\0b", "a\0", "a\1b", "a\x1bb", "a\x1fb", "a\x7fb", "a\x85b",
    "a\tb", "a\nb", "a\u202eb"])
def test_a_path_that_could_leave_the_data_folder_is_refused(tmp_path, path):
    content = HEADER + PLAIN + f'3,"{path}",AF\n'
    assert "line 5" in refusal(write(tmp_path, content))


@settings(max_examples=150)
@given(path=st.text(alphabet="ab1./~:\\ \t\0\n-,\"'é", max_size=12) | st.text(max_size=12))
@example("a  b")
@example("a/...hea")
def test_a_path_is_refused_or_kept_to_the_letter(tmp_path_factory, path):
    text = io.StringIO()
    csv.writer(text).writerow([3, path, "AF"])
    folder = tmp_path_factory.getbasetemp()
    try:
        (kept,) = (row[1] for row in read(folder, PLAIN + text.getvalue()) if row[0] == 3)
    except UserError:
        return
    bare = path.strip().removeprefix("mimic-iv-ecg/")
    assert kept in {bare, bare.removesuffix(".hea"), bare.removesuffix(".dat")}
    assert not Path(kept).is_absolute() and not {"", ".", ".."} & set(kept.split("/"))


@pytest.mark.parametrize("row", ["3\0,p/3,AF", "3,p/3,A\0F", "3,p/3,AF\0"])
def test_a_nul_anywhere_is_refused_and_cuts_no_cell_short(tmp_path, row):
    refusal(write(tmp_path, PLAIN + row + "\n"))


@pytest.mark.parametrize("content", [
    b"", b"\n\n", b"\xef\xbb\xbf", HEADER, PLAIN.encode("utf-16"), PLAIN.encode("utf-16-le"),
    PLAIN.replace("AF", "é").encode("latin-1"), b"\0" * 100, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    PLAIN + '3,"p/3,AF\n'])
def test_a_file_that_holds_no_labels_is_one_line_of_error_that_names_it(tmp_path, content):
    assert "labels.csv" in refusal(write(tmp_path, content))


@pytest.mark.parametrize("name", ["missing.csv", ".", "", "a\0b", "two\nlines.csv", "x" * 5000,
                                  "s3://bucket/x.csv", "http://127.0.0.1:9/x.csv"])
def test_a_label_file_that_cannot_be_opened_is_one_line_of_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refusal(name)


@pytest.mark.parametrize("name", ["labels.gz", "labels.zip", "labels.xz", "labels.tar"])
def test_a_text_file_with_the_extension_of_an_archive_gives_no_traceback(tmp_path, name):
    path = write(tmp_path, PLAIN, name)
    try:
        assert read_labels(path).to_numpy().tolist() == ROWS
    except UserError:
        refusal(path)


@settings(max_examples=150)
@given(content=st.binary(max_size=60)
       | st.lists(st.text(alphabet="12,,,a/.AF\"\n\r;\t\0 ", max_size=12), max_size=6).map(
           lambda rows: (PLAIN + "\n".join(rows)).encode()))
def test_any_bytes_are_labels_or_one_line_of_error(tmp_path_factory, content):
    try:
        labels = read_labels(write(tmp_path_factory.getbasetemp(), content))
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert labels["ecg_category"].nunique() >= 2 and labels["waveform_path"].is_unique


@pytest.mark.parametrize("extra", [
    "7,x,AF\n7,x,Normal\n", "7,x.hea,AF\n7,mimic-iv-ecg/x,Normal\n", "7,x,a\n8,x,b\n9,x,c\n"])
def test_a_record_of_several_classes_is_left_out_with_a_notice(tmp_path, capsys, extra):
    assert read(tmp_path, PLAIN + extra) == ROWS
    notice = capsys.readouterr().out
    assert f"{len(extra.splitlines())} rows" in notice and "line 4" in notice


def test_a_record_under_two_patients_is_read_once_and_joins_them(tmp_path, capsys):
    found = read(tmp_path, PLAIN + "8,x,AF\n7,x.dat,AF\n8,y,Normal\n")
    assert found == [*ROWS, [7, "x", "AF"], [7, "y", "Normal"]]
    assert "8 and 7, for example, are one patient" in capsys.readouterr().out


@pytest.mark.slow
def test_a_million_rows_are_read_within_the_memory_of_a_laptop(tmp_path):
    resource = pytest.importorskip("resource")
    path = write(tmp_path, "".join(
        f"{10_000_000 + i // 5},files/p{1000 + i // 1000}/p{10_000_000 + i // 5}/s{i}/{i},"
        f"{demo.CLASSES[i % 5]}\n" for i in range(1_000_000)))
    code = f"import too_feature; assert len(too_feature.read_labels({str(path)!r})) == 10**6"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=500)
    unit = 1 if sys.platform == "darwin" else 1024
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit < 2e9

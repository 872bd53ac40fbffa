"""Records of one's own: any patient names, headers, class names that look alike, wrong folders."""

import pytest

import too_feature
from ecg.errors import UserError
from too_feature import Settings, ensure_demo, load_split, read_labels


def read(tmp_path, *lines):
    """Read a label file of these lines."""
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return read_labels(str(tmp_path / "labels.csv"))


def test_hashed_patient_names_are_taken_as_text_and_it_is_said(tmp_path, capsys):
    found = read(tmp_path, "9f86d081,a/1,Normal", "00123,a/2,Normal", "123,a/3,Other")
    assert found["subject_id"].tolist() == ["9f86d081", "00123", "123"]
    assert "subject_id is text, such as 9f86d081" in capsys.readouterr().out


def test_where_all_are_whole_numbers_leading_zeros_are_of_no_account_and_it_is_said(
        tmp_path, capsys):
    found = read(tmp_path, "00123,a/1,Normal", "123,a/2,Other")
    assert found["subject_id"].tolist() == [123, 123]
    assert "whole numbers: 00123 and 123 are one patient" in capsys.readouterr().out
    read(tmp_path, "10,a/1,Normal", "123,a/2,Other")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("subject", [
    "1.0E+07", "12.5", "-3", "a\x07b", "x" * 101, "a\u202eb", "a\u200bb"])
def test_what_a_spreadsheet_made_of_a_number_and_what_no_screen_shows_is_refused(tmp_path, subject):
    with pytest.raises(UserError, match=r"labels.csv, line 2: .*subject_id"):
        read(tmp_path, "1,a/1,Normal", f"{subject},a/2,Other")


@pytest.mark.parametrize("header", [
    "subject_id,waveform_path,ecg_category", "id1,path,class", "Größe,Pfad,Klasse",
    "患者,路径,类别"])
def test_a_header_in_any_words_is_skipped(tmp_path, header):
    assert len(read(tmp_path, header, "1,a/1,Normal", "2,a/2,Other")) == 2


@pytest.mark.parametrize(("first", "second"), [
    ("subject_id,waveform_path,ecg_category", "Subject_ID,waveform_path,ecg_category"),
    ("患者,路径,类别", "患者,路径,类别"),
    ("1,a/0,Normal", "subject_id,waveform_path,ecg_category")])
def test_the_header_of_a_second_file_is_no_record(tmp_path, first, second):
    with pytest.raises(UserError, match=r"labels.csv, line 3: .*second header \(files joined\?\)"):
        read(tmp_path, first, "1,a/1,Normal", second, "2,a/2,Other", second, "3,a/3,Other")


def test_a_first_row_with_a_path_is_no_header(tmp_path):
    assert len(read(tmp_path, "1,a/b,Rare", "2,a/2,Other", "3,40689238,Normal")) == 3


def test_composed_and_decomposed_letters_are_one_class(tmp_path):
    found = read(tmp_path, "1,a/1,Größe", "2,a/2,Gro\u0308ße", "3,a/3,Other")
    assert found["ecg_category"].nunique() == 2


@pytest.mark.parametrize(("name", "twin"), [
    ("Normal", "N\u043ermal"), ("Normal", "Normal\ufe0f"), ("Naive", "Naïve")])
def test_class_names_that_look_alike_are_asked_about(tmp_path, capsys, name, twin):
    assert skeleton(name) == skeleton(twin)
    read(tmp_path, f"1,a/1,{name}", f"2,a/2,{name}", f"3,a/3,{twin}", "4,a/4,Other")
    assert f"{twin!r} (1 record), did you mean {name!r}?" in capsys.readouterr().out


def test_unlike_class_names_are_not_asked_about(tmp_path, capsys):
    read(tmp_path, "1,a/1,Normal", "2,a/2,Other")
    assert "did you mean" not in capsys.readouterr().out


def test_a_wrong_data_folder_names_the_first_missing_file(tmp_path):
    labels = read(tmp_path, "1,lab/1,Normal", "2,lab/2,Other")
    with pytest.raises(UserError, match=r"paths start from --data-dir, where lab/1.hea is missing"
                       ) as found:
        load_split("train", labels, ["Normal", "Other"], Settings(data_dir=str(tmp_path)))
    assert "fetch_records" not in str(found.value)


def test_where_files_of_mimic_are_missing_it_says_how_to_fetch_them(tmp_path):
    labels = read(tmp_path, "1,files/p1000/p10000032/s1/1,Normal",
                  "2,files/p1000/p10000033/s2/2,Other")
    with pytest.raises(UserError, match=r"tools/fetch_records\.py"):
        load_split("train", labels, ["Normal", "Other"], Settings(data_dir=str(tmp_path)))


def test_the_demo_is_not_written_into_a_folder_of_other_records(tmp_path):
    (tmp_path / "mine.dat").touch()
    labels = read_labels(too_feature.Path(too_feature.__file__).parent / Settings.labels)
    with pytest.raises(UserError, match="name the label file of these records"):
        ensure_demo(labels, str(tmp_path))
    assert not (tmp_path / "demo").exists()


def test_a_folder_that_gets_a_demo_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ecg.demo.write_demo", lambda folder: None)
    labels = read_labels(too_feature.Path(too_feature.__file__).parent / Settings.labels)
    assert ensure_demo(labels, str(tmp_path / "typo"))
    assert f"written to {tmp_path / 'typo'}" in capsys.readouterr().out


def test_the_default_folder_takes_the_demo_however_its_path_is_written(
        tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / Settings.data_dir
    folder.mkdir()
    (folder / "README.md").write_text("what belongs here")
    written = []
    monkeypatch.setattr("ecg.demo.write_demo", written.append)
    labels = read_labels(too_feature.Path(too_feature.__file__).parent / Settings.labels)
    assert ensure_demo(labels, str(folder))
    assert written == [str(folder)]
    assert "notice" not in capsys.readouterr().out

"""Never trained on and tested: a patient under several numbers, a record under several names."""

import shutil

import pandas as pd
import pytest

import too_feature
from ecg.errors import UserError
from ecg.patients import join_patients
from too_feature import COLUMNS, Settings, load_split, read_labels, split_patients

CLASSES = ["Atrial Fibrillation", "Bradycardia", "Bundle Branch Block", "Normal", "Tachycardia"]


def rows(*lines):
    """Return rows of a label file."""
    return pd.DataFrame(lines, columns=COLUMNS)


@pytest.fixture
def labels():
    """The demo's label file."""
    return read_labels(too_feature.Path(too_feature.__file__).parent / Settings.labels)


@pytest.fixture
def few(demo_dir, labels, tmp_path):
    """Three records of each class, in a folder that a test may change; and settings for it."""
    chosen = labels.groupby("ecg_category").head(3).reset_index(drop=True)
    for path in chosen["waveform_path"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        for ending in (".hea", ".dat"):
            shutil.copy(f"{demo_dir}/{path}{ending}", f"{tmp_path}/{path}{ending}")
    return chosen, Settings(data_dir=str(tmp_path), cache=False)


def copy_record(folder, path, new):
    """Copy a record under another name, which its header has to tell too."""
    (folder / new).parent.mkdir(parents=True, exist_ok=True)
    old_name, new_name = path.rsplit("/", 1)[-1], new.rsplit("/", 1)[-1]
    text = (folder / f"{path}.hea").read_text().replace(old_name, new_name)
    (folder / f"{new}.hea").write_text(text)
    shutil.copy(folder / f"{path}.dat", folder / f"{new}.dat")


# -------------------------------------------------------------------- one patient, two numbers
def test_several_numbers_for_one_patients_folder_become_one_patient(capsys):
    found = join_patients(rows(
        (7, "files/p1000/p10000032/s1/1", "a"), (5, "files/p1000/p10000032/s2/2", "a"),
        (9, "files/p1000/p10000033/s3/3", "a")))
    assert found["subject_id"].tolist() == [5, 5, 9]
    assert "7 and 5" in capsys.readouterr().out


def test_patients_who_share_a_record_are_one_and_chains_of_them_too():
    found = join_patients(rows((3, "x", "a"), (2, "x", "a"), (2, "y", "a"), (1, "y", "a"),
                               (4, "z", "a")))
    assert found["subject_id"].tolist() == [1, 1, 1, 1, 4]


def test_numbers_are_left_alone_where_nothing_says_that_they_are_one_patient(labels, capsys):
    assert join_patients(labels).equals(labels)
    assert capsys.readouterr().out == ""


def test_patients_in_text_are_joined_as_well():
    found = join_patients(rows(("b", "p10000001/1", "a"), ("a", "p10000001/2", "a")))
    assert found["subject_id"].tolist() == ["a", "a"]


def test_one_folder_under_many_numbers_is_in_one_split(labels, tmp_path, capsys):
    scattered = labels.assign(subject_id=range(1, len(labels) + 1))
    scattered.to_csv(tmp_path / "l.csv", header=False, index=False)
    splits = split_patients(read_labels(tmp_path / "l.csv"))
    folders = [set(part["waveform_path"].str.extract(r"/(p\d{8})/")[0]) for part in splits.values()]
    assert "one patient" in capsys.readouterr().out
    assert not folders[0] & folders[1] | folders[0] & folders[2] | folders[1] & folders[2]


# ---------------------------------------------------------------------- one record, two names
def test_a_copy_of_a_held_out_record_is_replaced_and_listed(few, tmp_path):
    chosen, settings = few
    test_rows = chosen.groupby("ecg_category").head(1)
    test = load_split("test", test_rows, CLASSES, settings)
    copied = test_rows["waveform_path"].iloc[0]
    copy_record(tmp_path, copied, "other/77")
    others = chosen.drop(test_rows.index)
    train_rows = pd.concat([others, rows(
        (10**9, "other/77", test_rows["ecg_category"].iloc[0]))], ignore_index=True)
    training = load_split("train", train_rows, CLASSES, settings, {"test": test})
    assert training.left_out == (("other/77", f"copy of a test record: {copied}"),)
    assert set(training.rows["waveform_path"]) == set(others["waveform_path"])


def test_without_held_out_splits_a_copy_is_an_ordinary_record(few, tmp_path):
    chosen, settings = few
    copy_record(tmp_path, chosen["waveform_path"].iloc[0], "other/77")
    both = pd.concat([chosen, rows((1, "other/77", chosen["ecg_category"].iloc[0]))])
    training = load_split("train", both.reset_index(drop=True), CLASSES, settings)
    assert training.left_out == ()
    assert "other/77" in set(training.rows["waveform_path"])


def test_where_most_of_training_is_in_the_test_file_the_run_stops(few):
    chosen, settings = few
    test = load_split("test", chosen, CLASSES, settings)
    with pytest.raises(UserError, match=r"no usable train record .*copy of a test record \(15\)"):
        load_split("train", chosen, CLASSES, settings, {"test": test})


def test_a_patient_in_two_splits_stops_a_run_under_python_o_too(labels, monkeypatch):
    monkeypatch.setattr(too_feature.pd.Series, "map", lambda self, other: pd.Series(
        [i % 3 for i in range(len(self))]))
    with pytest.raises(RuntimeError, match="two splits"):
        too_feature.split_records(labels, pd.Series(0, index=labels["subject_id"].unique()))

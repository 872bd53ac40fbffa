"""Never trained on and tested: a patient under several numbers, a record under several names."""

import shutil

import pandas as pd
import pytest

from ecg.demo import CLASSES
from ecg.errors import UserError
from ecg.patients import join_patients
from tests.support.runs import LABELS
from too_feature import COLUMNS, Settings, load_split, read_labels


def joined(*lines):
    """Return the patients of these rows of a label file once those who are the same are one."""
    return join_patients(pd.DataFrame(lines, columns=COLUMNS))["subject_id"].tolist()


# ----------------------------------------------------------------------- one patient, two numbers
def test_several_numbers_for_one_patients_folder_become_one_patient(capsys):
    assert joined(
        (7, "files/p1000/p10000032/s1/1", "a"), (5, "files/p1000/p10000032/s2/2", "a"),
        (9, "files/p1000/p10000033/s3/3", "a")) == [5, 5, 9]
    assert "7 and 5" in capsys.readouterr().out


def test_patients_who_share_a_record_are_one_and_chains_of_them_too():
    assert joined(("c", "x", "a"), ("b", "x", "a"), ("b", "y", "a"), ("a", "y", "a"),
                  ("d", "z", "a")) == ["a", "a", "a", "a", "d"]


def test_numbers_are_left_alone_where_nothing_says_that_they_are_one_patient(capsys):
    labels = read_labels(LABELS)
    assert join_patients(labels).equals(labels)
    assert capsys.readouterr().out == ""


# -------------------------------------------------------------------------- one record, two names
@pytest.fixture
def few(demo_dir, tmp_path):
    """Three records of each class, in a folder that a test may change; and settings for it."""
    chosen = read_labels(LABELS).groupby("ecg_category").head(3).reset_index(drop=True)
    for path in chosen["waveform_path"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        for ending in (".hea", ".dat"):
            shutil.copy(f"{demo_dir}/{path}{ending}", f"{tmp_path}/{path}{ending}")
    return chosen, Settings(data_dir=str(tmp_path), cache=False)


def test_a_copy_of_a_held_out_record_is_replaced_and_listed(few, tmp_path):
    chosen, settings = few
    held_out = chosen.groupby("ecg_category").head(1)
    path = held_out["waveform_path"].iloc[0]
    text = (tmp_path / f"{path}.hea").read_text().replace(path.rpartition("/")[2], "77")
    (tmp_path / "77.hea").write_text(text)
    shutil.copy(tmp_path / f"{path}.dat", tmp_path / "77.dat")
    others = chosen.drop(held_out.index)
    copy = held_out[:1].assign(subject_id=10**9, waveform_path="77")
    rows = pd.concat([others, copy], ignore_index=True)

    test = load_split("test", held_out, CLASSES, settings)
    training = load_split("train", rows, CLASSES, settings, {"test": test})
    assert training.left_out == (("77", f"copy of a test record: {path}"),)
    assert set(training.rows["waveform_path"]) == set(others["waveform_path"])
    assert load_split("train", rows, CLASSES, settings).left_out == ()


def test_where_most_of_training_is_in_the_test_file_the_run_stops(few):
    chosen, settings = few
    test = load_split("test", chosen, CLASSES, settings)
    with pytest.raises(UserError, match=r"3 of 3 train records .*copy of a test record \(3\)"):
        load_split("train", chosen, CLASSES, settings, {"test": test})

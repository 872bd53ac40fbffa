"""Folds of the accuracy benchmark: no patient is on two sides, and no record is prepared twice."""

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from benchmarks import accuracy, folds
from ecg import label_rows
from ecg.errors import RecordError, UserError


def many_rows(n_patients=60):
    """Return rows of patients with one to three records each, of three classes."""
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    return pd.DataFrame({
        "subject_id": subjects,
        "waveform_path": [f"r{i}" for i in range(len(subjects))],
        "ecg_category": np.array(["a", "b", "c"])[subjects % 3],
        "number": np.arange(len(subjects))})


def check_fold(rows, fold):
    """Assert that the parts of a fold share no patient, and that all of them have all classes."""
    rows = rows.set_index("number")
    patients = [set(rows["subject_id"][part]) for part in fold]
    assert all(patients)
    assert not patients[0] & patients[1]
    assert not patients[2] & (patients[0] | patients[1])


# ------------------------------------------------------------------------------------------ folds
def test_cross_validation_tests_on_each_record_once_and_all_parts_have_all_classes():
    rows = many_rows()
    classes = rows.set_index("number")["ecg_category"]
    five = folds.cross_validation(rows, 5)
    for fold in five:
        check_fold(rows, fold)
        assert all(set(classes[part]) == {"a", "b", "c"} for part in fold)
        assert sorted(np.concatenate(fold)) == rows["number"].tolist()
    assert sorted(np.concatenate([fold.test for fold in five])) == rows["number"].tolist()


def test_smaller_sets_are_parts_of_larger_ones_of_whole_patients_and_are_tested_on_the_same():
    rows = many_rows(300)
    whole = folds.one_split(rows)
    small, large = (folds.smaller(rows, whole, n, seed=1) for n in (80, 320))
    check_fold(rows, large)
    assert 316 <= folds.size_of(large) <= 320    # a patient's records stay together
    assert large.test.tolist() == whole.test.tolist()
    assert set(small.train) < set(large.train) < set(whole.train)
    assert set(small.validation) < set(large.validation)
    shares = [rows["ecg_category"][fold.train].value_counts(normalize=True)
              for fold in (large, whole)]
    assert abs(shares[0] - shares[1]).max() < 0.08


# ------------------------------------------------------------------------------------------- pool
@pytest.fixture
def calls(monkeypatch):
    """Stand in for the script's preparation: r3 is too short, r7 missing, r9 a copy of r8."""
    calls = []

    def prepare_record(path, data_dir, recipe):
        calls.append(path)
        number = int(path.rsplit("r", 1)[1])
        if number in (3, 7):
            raise RecordError("too short: 1 s")
        number = 8 if number == 9 else number
        signal = np.random.default_rng(number).normal(size=(recipe.sequence_length, 12))
        signal[0] = number
        return signal, np.full(8, float(number)), ""

    monkeypatch.setattr(script, "prepare_record", prepare_record)
    return calls


@pytest.fixture
def rows(calls):
    """Rows of records that need not be on disk."""
    return many_rows().drop(columns="number").assign(folder="data")


def test_a_pool_holds_usable_records_and_copies_are_of_one_patient(rows):
    pool = folds.Pool(rows)
    assert set(rows["waveform_path"]) - set(pool.rows["waveform_path"]) == {"r3", "r7"}
    assert pool.rows["number"].tolist() == list(range(len(rows) - 2))
    assert [pool.classes[k] for k in pool.targets] == pool.rows["ecg_category"].tolist()
    signals, features = pool.inputs(script.Recipe())
    expected = [int(path[1:]) for path in pool.rows["waveform_path"].replace("r9", "r8")]
    assert signals[:, 0, 0].tolist() == features[:, 0].tolist() == expected

    assert rows["subject_id"][8] != rows["subject_id"][9]    # else this would prove nothing
    subjects = pool.rows.set_index("waveform_path")["subject_id"]
    assert subjects["r8"] == subjects["r9"] == rows["subject_id"][8]
    with pytest.raises(UserError, match="records on disk which can be used"):
        folds.Pool(rows[3:4])


# -------------------------------------------------------------------------------------- protocols
def read_pool(folder, rows, *arguments):
    """Return what `read_pool` does where the label file holds these rows."""
    rows[label_rows.COLUMNS].to_csv(folder / "labels.csv", header=False, index=False)
    required = ["--labels", str(folder / "labels.csv"), "--data-dir", str(folder)]
    return folds.read_pool(accuracy.parse_options([*required, *arguments]))


@pytest.mark.parametrize("is_same_tree", [True, False])
def test_an_external_test_set_shares_neither_patients_nor_recordings(
        rows, tmp_path, is_same_tree):
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    (own / "more").mkdir()
    other.mkdir()
    labels = other / "labels.csv"
    labels.write_text("1,r900,A\n9,r8,b\n")    # classes are spelt as in the own file
    pool, protocols = read_pool(
        own, rows, "--test-labels", str(labels),
        "--test-data-dir", str(own / "more" if is_same_tree else other))

    [fold] = protocols["tested on the other label file"]
    is_other = pool.rows["other"].to_numpy()
    assert fold.test.tolist() == np.flatnonzero(is_other).tolist()
    assert pool.rows["ecg_category"][is_other].tolist() == ["a", "b"]
    learnt = pool.rows.iloc[np.concatenate([fold.train, fold.validation])]
    assert not {"r8", "r9"} & set(learnt["waveform_path"])    # copies of the second record there
    assert ("1" in set(learnt["subject_id"])) != is_same_tree    # else number 1 is somebody else

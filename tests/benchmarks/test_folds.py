"""Folds of the accuracy benchmark: no patient is on two sides, and no record is prepared twice."""

import argparse

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from benchmarks import folds
from ecg.errors import RecordError, UserError


def many_rows(n_patients=60, seed=0):
    """Return rows of patients with one to three records each, of three classes."""
    rng = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    return pd.DataFrame({
        "subject_id": subjects,
        "waveform_path": [f"r{i}" for i in range(len(subjects))],
        "ecg_category": np.array(["a", "b", "c"])[subjects % 3],
        "number": np.arange(len(subjects)) + 100})


def patients(rows, numbers):
    """Return the patients of these records."""
    return set(rows["subject_id"][rows["number"].isin(numbers)])


def check_fold(rows, fold):
    """Assert that the parts of a fold share no patient."""
    parts = [patients(rows, part) for part in fold]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_no_patient_is_in_two_parts_of_a_fold():
    rows = many_rows()
    for fold in folds.cross_validation(rows, 5):
        check_fold(rows, fold)
        assert sorted(np.concatenate(fold)) == rows["number"].tolist()


def test_cross_validation_tests_on_each_record_once():
    rows = many_rows()
    tested = np.concatenate([fold.test for fold in folds.cross_validation(rows, 5)])
    assert sorted(tested) == rows["number"].tolist()


def test_all_folds_have_all_classes():
    rows = many_rows()
    classes = rows.set_index("number")["ecg_category"]
    for fold in folds.cross_validation(rows, 5):
        assert all(set(classes[part]) == {"a", "b", "c"} for part in fold)


def test_one_split_is_the_split_of_the_script():
    rows = many_rows()
    fold = folds.one_split(rows)
    check_fold(rows, fold)
    expected = script.split_patients(rows, seed=folds.SEED)
    assert fold.test.tolist() == expected["test"]["number"].tolist()


def test_a_test_of_another_hospital_leaves_all_own_records_for_training_and_validation():
    rows = many_rows()
    own, other = rows[:80], rows[80:]
    fold = folds.fold_of(own, other)
    assert fold.test.tolist() == other["number"].tolist()
    assert sorted([*fold.train, *fold.validation]) == own["number"].tolist()
    assert not patients(rows, fold.train) & patients(rows, fold.validation)


# ------------------------------------------------------------------------------- another hospital
OWN = [(1, "own/1", "Normal"), (2, "own/2", "Normal"), (3, "own/3", "Atrial Fibrillation")]
OTHER = [(2, "other/2", "NORMAL"), (9, "other/9", "atrial fibrillation")]


def label_file(path, rows):
    """Write a label file."""
    path.write_text("".join(f"{subject},{record},{name}\n" for subject, record, name in rows))
    return str(path)


def add(tmp_path, own_dir, other_dir, other=OTHER):
    """Return OWN with the other rows added."""
    rows = pd.DataFrame(OWN, columns=script.COLUMNS).assign(folder=own_dir, other=False)
    return folds.add_other(rows, label_file(tmp_path / "other.csv", other), own_dir, other_dir)


def test_in_one_tree_of_folders_patients_of_the_other_file_leave_training(tmp_path):
    rows = add(tmp_path, str(tmp_path), str(tmp_path / "below"))
    assert rows["subject_id"][~rows["other"]].tolist() == [1, 3]
    assert rows["subject_id"][rows["other"]].tolist() == [2, 9]


def test_in_different_folders_the_same_number_is_another_patient(tmp_path):
    rows = add(tmp_path, str(tmp_path / "here"), str(tmp_path / "there"))
    assert rows["subject_id"][~rows["other"]].tolist() == [1, 2, 3]
    assert rows["folder"].tolist() == [str(tmp_path / "here")] * 3 + [str(tmp_path / "there")] * 2


def test_classes_of_the_other_file_are_spelt_as_in_the_own(tmp_path):
    rows = add(tmp_path, "here", "there")
    assert rows["ecg_category"].tolist()[-2:] == ["Normal", "Atrial Fibrillation"]


def test_a_class_that_training_lacks_is_refused(tmp_path):
    with pytest.raises(UserError, match="only classes that --labels has: Normal"):
        add(tmp_path, "here", "there", [(5, "x/5", "Normal"), (6, "x/6", "Pacemaker")])


# ------------------------------------------------------------------------------------------- pool
@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Stand in for the script's preparation; return (calls, rows of records on disk)."""
    calls = []

    def prepare_record(path, data_dir, recipe):
        calls.append((path, recipe.sequence_length))
        if path.endswith("r3"):
            raise RecordError("too short: 1 s")
        number = int(path.rsplit("r", 1)[1])
        return np.full((recipe.sequence_length, 12), number), np.full(8, number)

    monkeypatch.setattr(script, "prepare_record", prepare_record)
    rows = many_rows().drop(columns="number").assign(folder=str(tmp_path))
    for path in rows["waveform_path"].drop(7):
        (tmp_path / f"{path}.hea").touch()
    return calls, rows


def test_a_pool_holds_the_records_that_are_there_and_usable(prepared):
    _, rows = prepared
    pool = folds.Pool(rows)
    assert len(pool.rows) == len(rows) - 2    # r3 cannot be used, r7 is not on disk
    assert not {"r3", "r7"} & set(pool.rows["waveform_path"])
    assert pool.rows["number"].tolist() == list(range(len(pool.rows)))
    assert [pool.classes[k] for k in pool.targets] == pool.rows["ecg_category"].tolist()

    signals, features = pool.inputs(script.Recipe())
    expected = [int(path[1:]) for path in pool.rows["waveform_path"]]
    assert signals[:, 0, 0].tolist() == features[:, 0].tolist() == expected


def test_records_are_prepared_once_for_each_way_of_preparing_them(prepared):
    calls, rows = prepared
    pool = folds.Pool(rows)
    n = len(calls)
    pool.inputs(script.Recipe(learning_rate=0.1, epochs=3))    # prepared in the same way
    assert len(calls) == n

    for _ in range(2):
        signals, _ = pool.inputs(script.Recipe(sequence_length=60))
    assert signals.shape == (len(pool.rows), 60, 12)
    assert len(calls) == n + len(pool.rows)


def test_training_repeats_records_of_a_short_class_and_validation_does_not(prepared):
    _, rows = prepared
    pool = folds.Pool(rows)
    fold = folds.one_split(pool.rows)
    settings = script.Settings(train_samples=300, val_samples=300)
    training, validation = pool.drawn(fold, settings)
    assert np.bincount(training.targets).tolist() == [100, 100, 100]
    assert set(training.rows["number"]) <= set(fold.train)
    assert sorted(validation.rows["number"]) == sorted(fold.validation)
    assert training.features[:, 0].tolist() == [
        int(path[1:]) for path in training.rows["waveform_path"]]


def test_no_usable_record_is_said_in_one_line(tmp_path):
    rows = many_rows().assign(folder=str(tmp_path))
    with pytest.raises(UserError, match="records on disk which can be used"):
        folds.Pool(rows)


@pytest.mark.parametrize(("n_folds", "other", "protocols"), [
    (1, False, {"one patient-wise split": 1}),
    (5, False, {"5 patient-wise folds, pooled": 5}),
    (1, True, {"tested on the other label file": 1}),
    (3, True, {"3 patient-wise folds, pooled": 3, "tested on the other label file": 1})])
def test_protocols_by_options(prepared, tmp_path, n_folds, other, protocols):
    _, rows = prepared
    lines = rows[script.COLUMNS].itertuples(index=False)
    labels = label_file(tmp_path / "labels.csv", list(lines))
    options = argparse.Namespace(labels=labels, data_dir=str(tmp_path), test_labels=None,
                                 test_data_dir=None, folds=n_folds)
    if other:
        elsewhere = tmp_path.parent / f"{tmp_path.name}-other"
        elsewhere.mkdir()
        few = [(1, "r900", "a"), (2, "r901", "b")]
        for _, name, _ in few:
            (elsewhere / f"{name}.hea").touch()
        options.test_labels = label_file(elsewhere / "labels.csv", few)
        options.test_data_dir = str(elsewhere)

    pool, found = folds.read_pool(options)
    assert {name: len(each) for name, each in found.items()} == protocols
    for name, each in found.items():
        tested = pool.rows["other"].to_numpy()[np.concatenate([fold.test for fold in each])]
        assert tested.all() if "other" in name else not tested.any()

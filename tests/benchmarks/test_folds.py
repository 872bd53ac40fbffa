"""Folds of the accuracy benchmark: no patient is on two sides, and no record is prepared twice."""

import argparse
import itertools

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
    whole, *_ = folds.cross_validation(rows, 5)
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
def test_who_is_tested_on_teaches_nothing_and_other_hospitals_are_in_no_fold(rows, tmp_path):
    rows.loc[rows.index[-20:], "waveform_path"] = [f"b/r{i}" for i in range(20)]    # r8, r9 again
    rows[label_rows.COLUMNS].to_csv(tmp_path / "labels.csv", header=False, index=False)
    options = accuracy.parse_options([
        "--labels", str(tmp_path / "labels.csv"), "--data-dir", str(tmp_path), "--folds", "2",
        "--paths", "r*", "--test-paths", "b/*", "r1?"])
    pool = folds.read_pool(options)
    protocols = folds.find_protocols(pool.rows, options)
    paths = pool.rows["waveform_path"].to_numpy()
    is_other = np.char.startswith(paths.astype(str), "b/")
    for fold in itertools.chain.from_iterable(protocols.values()):
        check_fold(pool.rows, fold)
        assert not is_other[np.concatenate([fold.train, fold.validation])].any()

    across, within = (protocols[f"tested on {pattern}"][0] for pattern in ("b/*", "r1?"))
    assert across.test.tolist() == np.flatnonzero(is_other).tolist()
    assert not {"r8", "r9"} & set(paths[np.concatenate([across.train, across.validation])])
    assert set(paths[within.test]) == {f"r1{i}" for i in range(10)}
    with pytest.raises(UserError, match=r"expected paths that match c/\*"):
        folds.read_pool(argparse.Namespace(**vars(options) | {"test_paths": ["c/*"]}))

"""Folds of the accuracy benchmark: no patient is on two sides, and no record is prepared twice."""

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from benchmarks import accuracy, folds
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
    rows = pd.DataFrame(OWN, columns=script.COLUMNS).assign(
        folder=own_dir, other=False, own=True)
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
        if path.endswith("r9"):
            number = 8    # a copy of r8
        return np.full((recipe.sequence_length, 12), number), np.full(8, float(number)), ""

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
    expected = [int(path[1:]) for path in pool.rows["waveform_path"].replace("r9", "r8")]
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
        int(path[1:]) for path in training.rows["waveform_path"].replace("r9", "r8")]


def test_no_usable_record_is_said_in_one_line(tmp_path):
    rows = many_rows().assign(folder=str(tmp_path))
    with pytest.raises(UserError, match="records on disk which can be used"):
        folds.Pool(rows)


def test_copies_of_a_recording_are_of_one_patient(prepared):
    _, rows = prepared
    assert rows["subject_id"][8] != rows["subject_id"][9]    # else this would prove nothing
    found = folds.Pool(rows).rows.set_index("waveform_path")["subject_id"]
    assert found["r8"] == found["r9"] == rows["subject_id"][8]
    assert found["r10"] == rows["subject_id"][10]


def test_amplitudes_that_are_not_real_are_not_measured(prepared):
    _, rows = prepared
    pool = folds.Pool(rows, ["r1*"])
    is_unreal = pool.rows["waveform_path"].str.startswith("r1").to_numpy()
    for length in 500, 60:
        _, features = pool.inputs(script.Recipe(sequence_length=length))
        assert np.isnan(features[is_unreal, :2]).all()
        assert np.isfinite(features[is_unreal, 2:]).all()
        assert np.isfinite(features[~is_unreal]).all()


def test_the_digest_of_a_fold_changes_with_its_records_and_with_nothing_else(prepared):
    _, rows = prepared
    pool = folds.Pool(rows)
    fold = folds.one_split(pool.rows)
    before = pool.digest(fold)
    assert folds.Pool(rows.iloc[::-1]).digest(fold) != before
    assert folds.Pool(rows, ["r1*"]).digest(fold) != before
    assert pool.digest(fold._replace(train=fold.train[1:])) != before

    relabelled = rows.assign(ecg_category=rows["ecg_category"].replace({"a": "b", "b": "a"}))
    assert folds.Pool(relabelled).digest(fold) != before
    pool.inputs(script.Recipe(sequence_length=60))
    assert pool.digest(fold) == folds.Pool(rows).digest(fold) == before


# ------------------------------------------------------------------------------------ protocols
def options_for(tmp_path, rows, *arguments):
    """Return options whose label file holds these rows."""
    labels = label_file(tmp_path / "labels.csv", rows[script.COLUMNS].itertuples(index=False))
    return accuracy.parse_options(["--labels", labels, "--data-dir", str(tmp_path), *arguments])


@pytest.mark.parametrize(("arguments", "own", "protocols"), [
    ([], "r*", {"one patient-wise split": None}),
    (["--folds", "3"], "r*", {"3 patient-wise folds, pooled": "r*"}),
    (["--test-paths", "r1*", "r2*"], "r*", {"tested on r1*": "r1*", "tested on r2*": "r2*"}),
    (["--paths", "r[12]*", "--folds", "3"], "r[12]*", {"3 patient-wise folds, pooled": "r[12]*"}),
    (["--paths", "r1*", "--test-paths", "r2*", "--folds", "3"], "r1*",
     {"3 patient-wise folds, pooled": "r1*", "tested on r2*": "r2*"})])
def test_protocols_by_paths(prepared, tmp_path, arguments, own, protocols):
    _, rows = prepared
    pool, found = folds.read_pool(options_for(tmp_path, rows, *arguments))
    is_own = folds.matching(pool.rows, [own])
    assert list(found) == list(protocols)
    for title, pattern in protocols.items():
        tested = np.concatenate([fold.test for fold in found[title]])
        if pattern:    # all of these, and each once
            to_test = folds.matching(pool.rows, [pattern])
            assert sorted(tested) == np.flatnonzero(to_test).tolist()
        for fold in found[title]:
            check_fold(pool.rows, fold)
            learnt = np.concatenate([fold.train, fold.validation])
            assert is_own[learnt].all()
            left_out = patients(pool.rows, np.flatnonzero(is_own)) - patients(pool.rows, learnt)
            assert left_out <= patients(pool.rows, fold.test)    # and nobody else


@pytest.mark.parametrize("option", ["--paths", "--test-paths", "--no-amplitudes"])
def test_a_pattern_without_a_record_is_refused(prepared, tmp_path, option):
    _, rows = prepared
    with pytest.raises(UserError, match=r"expected paths that match files/\*, such as r0"):
        folds.read_pool(options_for(tmp_path, rows, option, "files/*"))


@pytest.mark.parametrize("n_folds", [1, 3])
def test_another_label_file_is_tested_on_as_a_whole(prepared, tmp_path, n_folds):
    _, rows = prepared
    elsewhere = tmp_path.parent / f"{tmp_path.name}-other"
    elsewhere.mkdir()
    few = [(1, "r900", "a"), (2, "r8", "b")]    # the patients' numbers mean others there
    for _, name, _ in few:
        (elsewhere / f"{name}.hea").touch()
    pool, found = folds.read_pool(options_for(
        tmp_path, rows, "--test-labels", label_file(elsewhere / "labels.csv", few),
        "--test-data-dir", str(elsewhere), "--folds", str(n_folds)))

    *own, [fold] = found.values()
    is_other = pool.rows["other"].to_numpy()
    assert sorted(fold.test) == np.flatnonzero(is_other).tolist()
    assert len(own) == (n_folds > 1)
    assert not any(is_other[each.test].any() for folds_of in own for each in folds_of)
    learnt = np.concatenate([fold.train, fold.validation])
    copies = {"r8", "r9"}    # of the second record there
    assert set(pool.rows["waveform_path"][learnt]) == set(
        pool.rows["waveform_path"][~is_other]) - copies


# --------------------------------------------------------------------------------- learning curve
def test_smaller_sets_are_parts_of_larger_ones_and_are_tested_on_the_same():
    rows = many_rows(300).assign(number=lambda rows: np.arange(len(rows)))
    whole = folds.one_split(rows)
    everything = folds.size_of(whole)
    before = folds.smaller(rows, whole, 80, seed=1)
    for n in 160, 240, 320:
        fold = folds.smaller(rows, whole, n, seed=1)
        check_fold(rows, fold)
        assert n - 4 <= folds.size_of(fold) <= n    # a patient's records stay together
        assert fold.test.tolist() == whole.test.tolist()
        for smaller, larger in zip(before[:2], fold[:2], strict=True):
            assert set(smaller) < set(larger)
            assert set(rows["ecg_category"][smaller]) == {"a", "b", "c"}

        shares = [rows["ecg_category"][part].value_counts(normalize=True) for part in (
            fold.train, whole.train)]
        assert abs(shares[0] - shares[1]).max() < 0.08
        before = fold
    assert folds.smaller(rows, whole, everything, seed=1) is whole


def test_whole_patients_leave_and_another_seed_draws_others():
    rows = many_rows(300).assign(number=lambda rows: np.arange(len(rows)))
    whole = folds.one_split(rows)
    one, same, another = (folds.smaller(rows, whole, 160, seed) for seed in (1, 1, 2))
    gone = set(whole.train) - set(one.train)
    assert not patients(rows, one.train) & patients(rows, gone)
    assert one.train.tolist() == same.train.tolist() != another.train.tolist()

"""What `split_patients` promises about any labels; an external test set in place of the split."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ecg import patients
from ecg.errors import UserError
from too_feature import SPLITS, Settings, read_labels, split_labels, split_patients


def frame(classes, repeats=2):
    """Return labels where class number i has the patients `classes[i]`, and each some records."""
    rows = [(100 + p, f"c{i}/p{p}/{r}", f"class {i}") for i, patients in enumerate(classes)
            for p in sorted(patients) for r in range(1 + (p + i) % repeats)]
    return pd.DataFrame(rows, columns=["subject_id", "waveform_path", "ecg_category"])


def frames(n_patients):
    """Draw 2 to 6 classes of 1 to 12 patients out of `n_patients`, so that many are shared."""
    patients = st.sets(st.integers(0, n_patients - 1), min_size=1, max_size=min(12, n_patients))
    return st.lists(patients, min_size=2, max_size=6).map(frame)


def classes_of(labels):
    """Return the patients of each class, as sets."""
    return labels.groupby("ecg_category")["subject_id"].agg(set)


def check(labels, splits):
    """Assert all that holds of every split; written without a look at how it is made."""
    assert tuple(splits) == SPLITS == ("train", "validation", "test")
    patients = [set(part["subject_id"]) for part in splits.values()]
    assert all(patients), "a split is empty"
    assert not any(a & b for a, b in itertools.combinations(patients, 2)), "a patient leaks"
    joined = pd.concat(splits.values())
    assert sorted(map(tuple, joined.to_numpy())) == sorted(map(tuple, labels.to_numpy()))
    for name, members in classes_of(labels).items():
        where = [split for split, ids in zip(SPLITS, patients, strict=True) if ids & members]
        assert len(where) == 3 if len(members) >= 3 else "train" in where, name


def some_assignment_works(labels):
    """Try all 3**n assignments of the patients to splits."""
    ids = sorted(set(labels["subject_id"]))
    member = np.array([[p in members for members in classes_of(labels)] for p in ids])
    tried = np.array(list(itertools.product(range(3), repeat=len(ids))))
    has = np.stack([(tried == s).astype(int) @ member > 0 for s in range(3)])    # split, try, class
    good = np.where(member.sum(axis=0) >= 3, has.all(axis=0), has[0]).all(axis=1)
    filled = np.all([(tried == s).any(axis=1) for s in range(3)], axis=0)
    return bool((good & filled).any())


shares = st.floats(0.01, 0.9)


@settings(max_examples=100)
@given(labels=frames(40), seed=st.integers(0, 2**32 - 1), test_share=shares, val_share=shares)
def test_no_patient_is_in_two_splits_and_every_record_in_one(labels, seed, test_share, val_share):
    try:
        splits = split_patients(labels, test_share, val_share, seed)
    except UserError:
        assume(False)
    check(labels, splits)


@settings(max_examples=80)
@given(labels=st.integers(1, 8).flatmap(frames), seed=st.integers(0, 2**32 - 1),
       test_share=shares, val_share=shares)
@example(labels=frame([{0, 1, 2}, {0, 1, 2}]), seed=1, test_share=0.9, val_share=0.9)
@example(labels=frame([{0}, {1}, {2}]), seed=1, test_share=0.15, val_share=0.15)
@example(labels=frame([{0, 1}, {0, 1}]), seed=1, test_share=0.15, val_share=0.15)
def test_a_split_is_made_exactly_when_there_is_one(labels, seed, test_share, val_share):
    if some_assignment_works(labels):
        check(labels, split_patients(labels, test_share, val_share, seed))
    else:
        with pytest.raises(UserError, match="too few patients"):
            split_patients(labels, test_share, val_share, seed)


@pytest.fixture(scope="module")
def large():
    """2000 patients of five classes, of which one has 5 % of them; every tenth has two classes."""
    drawn = np.random.default_rng(0).choice(5, 2000, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    return frame([[p for p in range(2000) if c in (drawn[p], drawn[p] + (p % 10 == 0))]
                  for c in range(5)])


def test_a_large_file_is_split_in_the_shares_that_are_set_and_its_rarest_class_as_well(large):
    rarest = classes_of(large)["class 4"]    # by chance, 3 or 4 patients more or fewer were usual
    for share, seed in itertools.product((0.15, 0.5), range(4)):
        splits = split_patients(large, test_share=share, seed=seed)
        _, validation, test = (set(part["subject_id"]) for part in splits.values())
        assert len(test) == pytest.approx(share * 2000, abs=10)
        assert len(validation) == pytest.approx(0.15 * (2000 - len(test)), abs=10)
        assert len(rarest & test) == pytest.approx(share * len(rarest), abs=2)


def test_the_same_seed_gives_the_same_split_and_another_seed_another(large):
    before = large.copy()
    first, again, other = (split_patients(large, seed=seed) for seed in (1, 1, 2))
    for name in SPLITS:
        pd.testing.assert_frame_equal(first[name], again[name])
        assert set(first[name]["subject_id"]) != set(other[name]["subject_id"])
    pd.testing.assert_frame_equal(large, before)


def test_a_split_that_is_hard_to_repair_is_made_within_a_limit_of_work(monkeypatch):
    """A hundred classes of patients who each have ten: the best split would take minutes."""
    limits = []
    milp = patients.milp

    def spy(*arguments, options, **others):
        limits.append(options["node_limit"])
        return milp(*arguments, options=options, **others)

    monkeypatch.setattr(patients, "milp", spy)
    monkeypatch.setattr(patients, "NODE_LIMIT", 3)
    rng = np.random.default_rng(0)
    members = [set() for _ in range(100)]
    for patient in range(60):
        for number in rng.choice(100, 10, replace=False):
            members[number].add(patient)
    labels = frame(members)
    check(labels, split_patients(labels))
    assert limits == [3]


# ------------------------------------------------------------------------------ external test set
def test_a_class_that_loses_its_last_record_to_the_test_file_is_named():
    labels = frame([range(20), range(20, 23)], repeats=1)
    splits = split_patients(labels)
    with pytest.raises(ValueError, match="leaves no train record of class 1"):
        patients.replace_test(splits, labels[20:])


# ---------------------------------------------------------------------------------- published folds
PARTS = ["train", "train", "validation", "test", "train"]


def published(tmp_path, change=lambda labels: labels, **settings):
    """Return the splits of a label file with a column `split`, after a change of its rows."""
    labels = pd.DataFrame({"subject_id": np.arange(40) // 2, "waveform_path": np.arange(40),
                           "ecg_category": ["A", "B"] * 20, "split": np.repeat(PARTS, 8)})
    path = tmp_path / "labels.csv"
    change(labels).to_csv(path, index=False)
    rows = read_labels(str(path))
    return split_labels(rows, ["A", "B"], Settings(labels=str(path), **settings))


def test_a_column_split_is_the_split(tmp_path):
    splits = published(tmp_path)
    assert {name: rows["waveform_path"].astype(int).tolist() for name, rows in splits.items()} == {
        "train": [*range(16), *range(32, 40)], "validation": [*range(16, 24)],
        "test": [*range(24, 32)]}


@pytest.mark.parametrize(("change", "what"), [
    (lambda labels: labels.assign(split=np.resize(PARTS, 40)), "has 12 patients in more than one"),
    (lambda labels: labels[labels["split"] != "validation"], "expected records in all of"),
    (lambda labels: labels[(labels["split"] != "train") | (labels["ecg_category"] == "A")],
     "of all classes in train")])
def test_a_column_split_that_mixes_patients_or_lacks_records_is_refused(tmp_path, change, what):
    with pytest.raises(UserError, match=what):
        published(tmp_path, change)


@pytest.mark.parametrize("setting", [
    {"test_share": 0.2}, {"val_share": 0.2}, {"test_labels": "other.csv"}])
def test_a_column_split_beside_another_way_to_split_is_refused(tmp_path, setting):
    with pytest.raises(UserError, match="leave out --test-labels"):
        published(tmp_path, **setting)

"""What `split_patients` promises about any labels."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ecg import patients
from ecg.errors import UserError
from tests.support.runs import ROOT, python
from too_feature import split_patients

SPLITS = ("train", "validation", "test")


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
    assert tuple(splits) == SPLITS
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
def test_a_split_is_found_exactly_when_one_exists(labels, seed, test_share, val_share):
    if some_assignment_works(labels):
        check(labels, split_patients(labels, test_share, val_share, seed))
    else:
        with pytest.raises(UserError) as caught:
            split_patients(labels, test_share, val_share, seed)
        assert len(str(caught.value).splitlines()) == 1


@settings(max_examples=50)
@given(sizes=st.lists(st.integers(3, 12), min_size=2, max_size=6), seed=st.integers(0, 1000))
def test_classes_of_three_or_more_patients_of_their_own_are_always_split(sizes, seed):
    ends = list(itertools.accumulate(sizes, initial=0))
    labels = frame([range(a, b) for a, b in itertools.pairwise(ends)])
    check(labels, split_patients(labels, seed=seed))


@pytest.fixture(scope="module")
def large():
    """2000 patients of five classes, of which one has 5 % of them; every tenth has two classes."""
    drawn = np.random.default_rng(0).choice(5, 2000, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    return frame([[p for p in range(2000) if c in (drawn[p], drawn[p] + (p % 10 == 0))]
                  for c in range(5)])


@pytest.mark.parametrize("seed", range(3))
def test_a_large_file_is_split_in_the_shares_asked_for(large, seed):
    splits = split_patients(large, seed=seed)
    _, validation, test = (part["subject_id"].nunique() for part in splits.values())
    assert test == pytest.approx(0.15 * 2000, abs=10)
    assert validation == pytest.approx(0.15 * (2000 - test), abs=10)
    check(large, splits)
    half = split_patients(large, test_share=0.5, seed=seed)["test"]
    assert half["subject_id"].nunique() == pytest.approx(1000, abs=10)


def test_the_rarest_class_gets_its_share_of_every_split(large):
    members = classes_of(large)["class 4"]    # by chance, 3 or 4 patients more or fewer were usual
    for seed in range(8):
        test = set(split_patients(large, seed=seed)["test"]["subject_id"])
        assert len(members & test) == pytest.approx(0.15 * len(members), abs=2)


def test_the_same_seed_gives_the_same_split_and_another_seed_another(large):
    first, again, other = (split_patients(large, seed=seed) for seed in (1, 1, 2))
    for name in SPLITS:
        pd.testing.assert_frame_equal(first[name], again[name])
        assert set(first[name]["subject_id"]) != set(other[name]["subject_id"])


def test_labels_are_not_modified(large):
    before = large.copy()
    split_patients(large)
    pd.testing.assert_frame_equal(large, before)


@pytest.mark.parametrize("classes", [[{0}, {0}], [{0}, {1}], [{0, 1}, {0, 1}]])
def test_fewer_than_three_patients_are_an_error(classes):
    with pytest.raises(UserError):
        split_patients(frame(classes))


@pytest.mark.parametrize("few", [{0}, {50}, {0, 1}, {50, 51}])
@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_one_or_two_patients_stops_nothing_and_is_in_training(few, seed):
    labels = frame([range(20), range(20, 40), few])
    splits = split_patients(labels, seed=seed)
    check(labels, splits)
    assert few & set(splits["train"]["subject_id"] - 100)


def other_hospital(folder, other, subjects, category="A"):
    labels = pd.DataFrame({"subject_id": range(60), "waveform_path": [f"r{i}" for i in range(60)],
                           "ecg_category": ["A", "B", "C"] * 20})
    test = pd.DataFrame({"subject_id": subjects, "waveform_path": [f"t{i}" for i in subjects],
                         "ecg_category": category})
    splits = patients.replace_test(
        split_patients(labels), test, ["A", "B", "C"], str(folder), str(other))
    return labels, splits


@pytest.mark.parametrize(("folder", "other"), [
    ("data", "data"), ("data", "data/demo"), ("data/demo", "data"), ("data", "x/../data")])
def test_patients_of_the_test_file_are_never_trained_on_in_one_tree_of_folders(
        folder, other, tmp_path, capsys):
    labels, splits = other_hospital(tmp_path / folder, tmp_path / other, [0, 3, 6])
    own = pd.concat([splits["train"], splits["validation"]])["subject_id"]
    assert set(own) == set(labels["subject_id"]) - {0, 3, 6}
    assert splits["test"]["subject_id"].tolist() == [0, 3, 6]
    assert "3 records of patients in the test file are kept out" in capsys.readouterr().out


def test_equal_numbers_in_another_hospitals_folder_are_other_patients(tmp_path):
    labels, splits = other_hospital(tmp_path / "data", tmp_path / "data2", [0, 3, 6])
    own = pd.concat([splits["train"], splits["validation"]])["subject_id"]
    assert sorted(own) == labels["subject_id"].tolist()


def test_a_class_of_the_test_file_takes_the_spelling_of_the_training_file(tmp_path):
    _, splits = other_hospital(tmp_path / "a", tmp_path / "b", [0], "a")
    assert splits["test"]["ecg_category"].tolist() == ["A"]
    with pytest.raises(ValueError, match="has X, but the model tells A, B, C"):
        other_hospital(tmp_path / "a", tmp_path / "b", [0], "X")


@pytest.mark.slow
def test_no_patient_gets_into_two_splits_under_python_without_asserts_either():
    """`python -O` drops asserts: the guard is none."""
    printed = python(ROOT, """
import itertools, pandas as pd, too_feature as s
assert False, "this is dropped"
labels = pd.DataFrame({"subject_id": [i // 3 for i in range(90)], "ecg_category": ["A", "B"] * 45})
for seed in range(5):
    splits = s.split_patients(labels, seed=seed).values()
    patients = [set(part["subject_id"]) for part in splits]
    print(len(set.union(*patients)), sum(map(len, patients)))

class Wrong:    # gives each record another split, whoever's it is
    numbers = itertools.cycle([0, 1, 2])
    def __len__(self): return 30
    def __call__(self, patient): return next(self.numbers)

try: s.split_records(labels, Wrong())
except RuntimeError as error: print(error)""", "-O")
    assert printed.splitlines() == ["30 30"] * 5 + ["a patient is in two splits"]


def test_a_split_that_is_hard_to_repair_is_found_within_a_limit_of_work(monkeypatch):
    """A hundred classes of patients who each have ten: the best split would take minutes."""
    limits = []
    milp = patients.milp

    def spy(*arguments, options, **others):
        limits.append(options["node_limit"])
        return milp(*arguments, options=options, **others)

    monkeypatch.setattr(patients, "milp", spy)
    rng = np.random.default_rng(0)
    rows = [(patient, f"{patient}/{name}", f"class {name}") for patient in range(60)
            for name in rng.choice(100, 10, replace=False)]
    labels = pd.DataFrame(rows, columns=["subject_id", "waveform_path", "ecg_category"])
    splits = split_patients(labels)
    n_patients = labels.groupby("ecg_category")["subject_id"].nunique()
    for part in splits.values():
        assert set(n_patients.index[n_patients >= 3]) <= set(part["ecg_category"])
    assert limits == [patients.NODE_LIMIT]

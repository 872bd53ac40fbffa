"""Nobody is trained on and tested: who is one person, by names in all files and by recordings."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import wfdb
from scipy.signal import resample_poly

import too_feature as script
from ecg import label_rows, origin, patients
from ecg.demo import CLASSES
from ecg.errors import UserError
from tests.support.labels import write
from tests.support.runs import LABELS
from too_feature import Settings, load_split, read_labels


# ----------------------------------------------------------------------------------------- by names
def read_both(folder, own, test, **folders):
    """Return splits of two label files, each of (subject_id, path); classes take turns."""
    for name, rows in (("own", own), ("test", test)):
        lines = [f'"{who}",{path},class {i % 2}' for i, (who, path) in enumerate(rows)]
        write(folder, "\n".join(lines), f"{name}.csv")
    places = {name: str(folder / place) for name, place in folders.items()}
    settings = Settings(labels=str(folder / "own.csv"), test_labels=str(folder / "test.csv"),
                        **{"data_dir": str(folder / "h"), **places})
    labels, external = label_rows.read_files(settings)
    return script.split_labels(labels, ["class 0", "class 1"], settings, external)


def learnt(splits):
    """Return the paths that are trained or validated on."""
    return set(splits["train"]["waveform_path"]) | set(splits["validation"]["waveform_path"])


OWN = [(i, f"own/{i}") for i in range(100, 160)]


def test_one_id_that_is_text_does_not_make_other_people_of_all_others(tmp_path, capsys):
    test = [(f"0{i}", f"test/{i}") for i in range(100, 140)] + [("X-17", "test/x")]
    splits = read_both(tmp_path, OWN, test)
    assert learnt(splits) == {path for who, path in OWN if who >= 140}
    assert "40 records of patients in the test file are kept out" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["h/files", "link/files"])
def test_a_renumbered_test_file_is_known_by_its_folders(folder, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "h")
    own = [(i, f"files/p10000{i}/s1/1") for i in range(100, 160)]
    test = [(f"new {i}", f"p10000{i}/s2/2") for i in range(100, 140)]
    splits = read_both(tmp_path, own, test, test_data_dir=folder)
    assert learnt(splits) == {path for who, path in own if who >= 140}


def test_a_number_that_joining_has_renamed_in_one_file_is_known_in_the_other(tmp_path, capsys):
    own = [*OWN, *((i + 500, f"own/{i}") for i in range(100, 140)),
           *((i + 500, f"own/later/{i}") for i in range(100, 140))]
    splits = read_both(tmp_path, own, [(i + 500, f"test/{i}") for i in range(100, 140)])
    assert learnt(splits) == {path for who, path in OWN if who >= 140}
    assert "600 and 100, for example, are one patient" in capsys.readouterr().out


def test_equal_numbers_in_two_trees_are_other_people_and_a_caution(tmp_path):
    test = [(i, f"p10000{i}/{i}") for i in range(100, 140)]
    splits = read_both(tmp_path, OWN, test, data_dir="h/2023", test_data_dir="h/2024")
    assert learnt(splits) == {path for _, path in OWN}
    persons = [set(part["subject_id"]) for part in splits.values()]
    assert not persons[2] & (persons[0] | persons[1])
    card = origin.of_run(Settings(test_labels="x"), False, splits["test"])
    assert origin.caution(card).startswith("40 test patients have a number or folder")
    assert "number" not in origin.unseen(card, True)


@pytest.mark.parametrize("name", [
    "anna b-c", "Anna  B-C", "Anna\u00a0B-C", "Anna B\u2013C", "Anna B - C"])
def test_an_id_is_the_same_in_another_spelling(tmp_path, name):
    own = [*OWN, ("Anna B-C", "own/anna"), ("Jose\u0301", "own/jose")]
    splits = read_both(tmp_path, own, [(name, "t/1"), ("José", "t/2")])
    assert learnt(splits) == {path for _, path in OWN}


def test_rows_that_share_a_folder_or_a_record_are_one_person_and_chains_of_them_too():
    rows = pd.DataFrame([
        ("c", "x"), ("b", "x"), ("b", "y"), ("a", "y"), ("d", "z"), ("e", "p10000032/s1/1"),
        ("f", "files/p10000032/s2/2"), ("", "files/p10000032/3"), ("", "other")],
        columns=["subject_id", "waveform_path"])
    persons, _ = patients.identify([rows], ["."])
    assert persons[0].tolist() == ["a", "a", "a", "a", "d", "e", "e", "e", ""]


# ------------------------------------------------------------------------------------ by recordings
@pytest.fixture
def few(demo_dir, tmp_path):
    """Six records of each class, in a folder that a test may change; and settings for it."""
    labels = read_labels(LABELS).drop_duplicates("subject_id")
    chosen = labels.groupby("ecg_category").head(6).reset_index(drop=True)
    for path in chosen["waveform_path"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        for ending in (".hea", ".dat"):
            shutil.copy(f"{demo_dir}/{path}{ending}", f"{tmp_path}/{path}{ending}")
    return chosen, Settings(data_dir=str(tmp_path), cache=False)


def derive(ecg):
    """Return an ECG whose four derived limb leads are computed again from I and II."""
    one, two = ecg[:, 0], ecg[:, 1]
    return np.column_stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2,
                            ecg[:, 6:]])


COPIES = {    # how: (rate, gain, ECG)
    "as it is": lambda ecg: (500, 1000, ecg),
    "250 Hz": lambda ecg: (250, 1000, resample_poly(ecg, 1, 2)),
    "100 Hz": lambda ecg: (100, 1000, resample_poly(ecg, 1, 5)),
    "gain 204.8": lambda ecg: (500, 204.8, ecg),
    "gain 200": lambda ecg: (500, 200, ecg),
    "a sample cut off": lambda ecg: (500, 1000, ecg[1:]),
    "shifted by a sample": lambda ecg: (500, 1000, np.roll(ecg, 1, axis=0)),
    "shifted by 0.2 s": lambda ecg: (500, 1000, np.roll(ecg, 100, axis=0)),
    "noise of one bit": lambda ecg: (
        500, 1000, ecg + np.random.default_rng(0).integers(-1, 2, ecg.shape) / 1000),
    "limb leads derived again": lambda ecg: (500, 1000, derive(ecg)),
    "upside down": lambda ecg: (500, 1000, -ecg)}


def write_copy(folder, row, name, how="as it is"):
    """Write a copy of a record as somebody else's; return its row."""
    ecg = script.read_record(f"{folder}/{row['waveform_path']}").signal
    fs, gain, copy = COPIES[how](ecg)
    wfdb.wrsamp(name, fs, ["mV"] * 12, list(script.LEADS), p_signal=copy, fmt=["16"] * 12,
                adc_gain=[gain] * 12, baseline=[0] * 12, write_dir=str(folder))
    return {**row, "subject_id": f"somebody {name}", "waveform_path": name}


@pytest.mark.parametrize("how", COPIES)
def test_whoever_has_a_copy_of_a_test_record_is_not_trained_on(few, tmp_path, how):
    """Their other recordings leave too, though no name tells, also those that were drawn before."""
    chosen, settings = few
    held_out = chosen.groupby("ecg_category").head(1)
    others = chosen.drop(held_out.index)
    copies = [write_copy(tmp_path, row, f"copy{i}", how)
              for i, row in enumerate(held_out.to_dict("records"))]
    second = [{**others.iloc[0], "subject_id": copies[0]["subject_id"]}]
    rows = pd.concat([others[1:], pd.DataFrame([*second, *copies])], ignore_index=True)

    test = load_split("test", held_out, CLASSES, settings)
    training = load_split("train", rows, CLASSES, settings, {"test": test})
    assert set(training.rows["waveform_path"]) == set(others["waveform_path"][1:])
    reasons = dict(training.left_out)
    assert reasons.pop(others["waveform_path"].iloc[0]) == reasons["copy0"]
    assert reasons == {
        f"copy{i}": f"patient with a copy of a test record: copy{i} is {path}"
        for i, path in enumerate(held_out["waveform_path"])}


def test_who_has_a_copy_of_another_recording_of_such_a_person_is_out_too(few, tmp_path):
    chosen, settings = few
    held_out = chosen.groupby("ecg_category").head(1)
    first, second, *rest = chosen.drop(held_out.index).to_dict("records")
    copy = write_copy(tmp_path, held_out.iloc[1], "copy")
    friend = write_copy(tmp_path, first, "friend") | {"ecg_category": "Tachycardia"}
    first["subject_id"], second["subject_id"] = copy["subject_id"], friend["subject_id"]
    test = load_split("test", held_out, CLASSES, settings)
    rows = pd.DataFrame([*rest, first, second, copy, friend])
    training = load_split("train", rows, CLASSES, settings, {"test": test})
    assert set(training.rows["waveform_path"]) == {row["waveform_path"] for row in rest}


def test_a_recording_that_stands_twice_in_the_test_counts_once(few, tmp_path):
    chosen, settings = few
    copies = [write_copy(tmp_path, row, f"copy{i}", "250 Hz")
              for i, row in enumerate(chosen.to_dict("records"))]
    rows = pd.concat([chosen, pd.DataFrame(copies)], ignore_index=True)
    test = load_split("test", rows, CLASSES, settings)
    assert len(test.targets) == len(test.left_out) == len(chosen)
    assert all(re.match("copy of a test record: ", why) for _, why in test.left_out)


def test_who_shares_a_test_recording_is_one_patient_of_the_test(few, tmp_path):
    chosen, settings = few
    copy = write_copy(tmp_path, chosen.iloc[0], "copy")
    chosen.loc[1, "subject_id"] = copy["subject_id"]    # who has another recording, too
    rows = pd.concat([chosen, pd.DataFrame([copy])], ignore_index=True)
    test = load_split("test", rows, CLASSES, settings)
    assert len(test.targets) == len(chosen)
    assert test.rows["subject_id"].nunique() == len(chosen) - 1


def test_where_most_of_training_is_in_the_test_file_the_run_stops(few):
    chosen, settings = few
    test = load_split("test", chosen, CLASSES, settings)
    with pytest.raises(UserError, match=r"6 of 6 train records .*copy of a test record \(6\)"):
        load_split("train", chosen, CLASSES, settings, {"test": test})


def test_cross_validation_takes_copies_for_one_person():
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(5, 500, 12)).astype(np.float32)
    signals[3] = np.roll(signals[0], 7, axis=0)
    rows = pd.DataFrame({"subject_id": ["a", "b", "c", "d", "d"]})
    assert patients.join_copies(rows, signals).tolist() == ["a", "b", "c", "a", "a"]

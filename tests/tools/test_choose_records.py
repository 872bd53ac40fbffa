"""tools/choose_records.py: one record of each patient, at random, in a label file to fill in."""

import collections
import shutil
from pathlib import Path

import pandas as pd
import pytest

import too_feature as script
from ecg import origin
from tools import choose_records, classify


@pytest.fixture
def folder(tmp_path, demo_dir, monkeypatch):
    """A folder of twelve records of six patients, of one of whom all records are damaged."""
    for i, header in enumerate(sorted(demo_dir.rglob("*.hea"))[:12]):
        place = tmp_path / "data" / f"p1000000{i % 6}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(header, place)
        if i % 6 != 3:
            shutil.copy(header.with_suffix(".dat"), place)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def choose(model, *arguments):
    return choose_records.main([str(model), *arguments])


def test_the_label_file_is_one_to_fill_in(folder, model, capsys):
    assert choose(model, "data", "--number", "4", "--plot", "pages") == 0
    out = capsys.readouterr().out
    assert "4 of 12 records to label, drawn at random, are in to_label.csv: 4 of as many" in out
    assert "Fill in column 1 (the patient, where it is empty) and column 3 (the class)" in out
    assert len(list(Path("pages").iterdir())) == 4
    with pytest.raises(script.UserError, match="line 1"):    # nothing is filled in yet
        script.read_labels("to_label.csv")
    table = pd.read_csv("to_label.csv", header=None, names=["subject", "path", "label"])
    table.assign(label=["Normal", "Other"] * 2).to_csv("labels.csv", index=False, header=False)
    labels = script.read_labels("labels.csv")
    assert labels["subject_id"].is_unique
    for path, patient in zip(labels["waveform_path"], labels["subject_id"], strict=True):
        assert path.startswith(f"p{patient}/")
        assert (folder / "data" / f"{path}.hea").exists()


def test_each_record_of_a_patient_and_each_patient_is_as_likely():
    patients = choose_records.patients_of([f"p1000000{i % 2}/{i}" for i in range(6)], ".", "")
    drawn = [choose_records.draw_one_per_patient(patients, seed) for seed in range(300)]
    assert all(len({path[:9] for path in two}) == len(two) == 2 for two in drawn)
    counts = collections.Counter(two[0] for two in drawn)
    assert set(counts) == set(patients.index)
    assert min(counts.values()) > 25    # of 50


def test_who_is_not_known_gets_an_empty_cell_that_has_to_be_filled_in(folder, model, capsys):
    Path("data/p10000001").rename("data/ward")
    assert choose(model, "data") == 0
    out = capsys.readouterr().out
    assert "4 of as many patients, 2 of patients that no folder or --labels tells" in out
    rows = pd.read_csv("to_label.csv", header=None, dtype=str, names=["who", "path", "class"])
    is_ward = rows["path"].str.startswith("ward/")
    assert is_ward.sum() == 2 and rows["who"].isna().equals(is_ward)

    rows["who"] = rows["who"].fillna("7")
    rows["class"] = ["Normal", "Other"] * 3
    rows.to_csv("labels.csv", index=False, header=False)
    assert choose(model, "data", "--labels", "labels.csv", "--force") == 0
    assert len(Path("to_label.csv").read_text().splitlines()) == 5    # those two are one patient's


def test_a_list_of_paths_gives_the_same_rows_as_the_folder(folder, model):
    paths = [str(path.relative_to("data"))[:-4] for path in Path("data").rglob("*.hea")]
    Path("list.txt").write_text("\n".join(paths))
    assert choose(model, "data", "--output", "a.csv") == 0
    assert choose(model, "@list.txt", "--data-dir", "data", "--output", "b.csv") == 0
    assert Path("a.csv").read_text() == Path("b.csv").read_text() != ""


def test_by_uncertainty_the_least_certain_come_first_and_are_said_to_be_no_sample(
        folder, model, capsys):
    assert choose(model, "data", "--number", "2", "--by", "uncertainty") == 0
    assert "which are no sample" in capsys.readouterr().out
    chosen = pd.read_csv("to_label.csv", header=None)[1].tolist()
    paths = [str(path.relative_to("data"))[:-4] for path in Path("data").rglob("*.hea")]
    patients = choose_records.patients_of(paths, "data", "")
    drawn = choose_records.draw_one_per_patient(patients, 42)
    table = classify.classify([f"data/{path}" for path in drawn], model)
    expected = table.sort_values("confidence")["record"].head(2)
    assert [f"data/{path}" for path in chosen] == expected.tolist()
    assert origin.chosen_by("to_label.csv") == "uncertainty"
    Path("to_label.csv").write_text("filled in")    # by somebody, so that its hash is another
    settings = script.Settings(labels="to_label.csv")
    card = origin.of_run(settings, False, pd.DataFrame())
    assert origin.caution(card) == origin.NO_SAMPLE
    assert card["labels_origin"] == origin.NOT_STATED


def test_labels_that_may_have_been_filled_in_are_replaced_only_with_force(folder, model, capsys):
    Path("to_label.csv").write_text("1,a,Normal\n")
    assert choose(model, "data") == 2
    assert "is there already" in capsys.readouterr().err
    assert Path("to_label.csv").read_text() == "1,a,Normal\n"
    assert choose(model, "data", "--force") == 0
    out, err = capsys.readouterr()
    assert "5 of 12 records to label" in out
    assert err.startswith("choose_records.py: left out data/p10000003/")
    assert len(Path("to_label.csv").read_text().splitlines()) == 5

"""tools/choose_records.py: uncertain and different records first, at most one a patient."""

import os

import numpy as np
import pandas as pd
import pytest

import too_feature
from tools import choose_records, classify
from tools.classify import Result


def test_the_first_record_is_an_uncertain_one_and_none_comes_twice():
    probabilities = np.full((40, 2), [0.999999, 0.000001])
    probabilities[7] = 0.5
    inputs = np.ones((40, 3))
    assert choose_records.choose(inputs, probabilities, 1)[0] == 7
    chosen = choose_records.choose(inputs, probabilities, 40)
    assert sorted(chosen) == list(range(40))
    assert len(choose_records.choose(inputs, probabilities, 99)) == 40


def test_of_equally_uncertain_records_another_kind_is_chosen_next():
    inputs = np.repeat(np.eye(2), 20, axis=0)    # two kinds of records
    probabilities = np.full((40, 2), 0.5)
    for seed in range(5):
        chosen = choose_records.choose(inputs, probabilities, 3, seed)
        assert len({place // 20 for place in chosen}) == 2


def test_certain_records_are_drawn_at_random():
    chosen = choose_records.choose(np.ones((9, 2)), np.tile([1.0, 0.0], (9, 1)), 5)
    assert len(set(chosen)) == 5


@pytest.mark.parametrize(("path", "patient"), [
    ("files/p1000/p10000032/s40689238/40689238", "10000032"), ("rec1", "rec1"),
    ("p10000032x/1", "p10000032x/1"), ("a/" * 60 + "r", ("a/" * 60 + "r")[-100:])])
def test_a_patient_is_told_by_the_folder_or_each_record_is_one(path, patient):
    assert choose_records.patient_of(path) == patient


def test_at_most_one_record_of_a_patient_is_a_candidate():
    paths = [f"p1000000{i % 3}/{i}" for i in range(9)]
    found = choose_records.one_a_patient(paths, 42)
    assert sorted(map(choose_records.patient_of, found)) == ["10000000", "10000001", "10000002"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of twelve records of six patients, one of them damaged, and a model that saw them.

    Neither is read.
    """
    for i in range(12):
        place = tmp_path / "data" / f"p1000000{i % 6}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.hea").touch()

    def results(paths, model_path, jobs, with_embedding):
        rng = np.random.default_rng(0)
        for path in paths:
            if "p10000003" in path:
                yield Result(path, "too short: 5 s")
            else:
                p = rng.dirichlet([1, 1, 1])
                yield Result(path, "", p, embedding=rng.normal(size=4))

    monkeypatch.setattr(classify, "results", results)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_label_file_is_one_to_fill_in(folder, capsys):
    assert choose_records.main(["m.keras", "data", "--number", "4"]) == 0
    out, err = capsys.readouterr()
    assert "4 of 12 records to label" in out
    assert "too short: 5 s" in err
    with pytest.raises(too_feature.UserError, match="line 1"):    # nothing is filled in yet
        too_feature.read_labels("to_label.csv")
    table = pd.read_csv("to_label.csv", header=None, names=["subject", "path", "label"])
    assert table["label"].isna().all()
    assert table["subject"].is_unique
    table.assign(label=["Normal", "Other"] * 2).to_csv("labels.csv", index=False, header=False)
    labels = too_feature.read_labels("labels.csv")
    assert all((folder / "data" / f"{path}.hea").exists() for path in labels["waveform_path"])


def test_names_that_no_label_file_takes_are_left_out(folder, capsys):
    names = [b"it's.hea", b"a\xff.hea", b"\x1b[2J.hea", b"1.5.hea", "\u200b.hea".encode()]
    for name in names:
        (folder / "data" / os.fsdecode(name)).touch()
    (folder / "list.txt").write_text("../data/p10000000/0\np10000001/1\np10000002/2\n")
    for data in (["data"], ["@list.txt", "--data-dir", "data"]):
        assert choose_records.main(["m.keras", *data, "--output", f"{len(data)}.csv"]) == 0
        table = pd.read_csv(f"{len(data)}.csv", header=None, dtype=str)
        assert set(table[1].str[:4]) == {"p100"}
        table.assign(**{"2": ["Normal", "Other"] * (len(table) // 2) + ["Other"] * (len(table) % 2)}
                     )[[0, 1, "2"]].to_csv("labels.csv", index=False, header=False)
        assert len(too_feature.read_labels("labels.csv")) == len(table)
    error = capsys.readouterr().err
    assert error.count("no name that a label file takes") == len(names) + 1
    assert "\x1b" not in error


def test_a_list_of_paths_gives_the_same_rows_as_the_folder(folder):
    found = (folder / "data").rglob("*.hea")
    paths = sorted(path.relative_to(folder / "data").as_posix()[:-4] for path in found)
    (folder / "list.txt").write_text("\n".join(paths))
    flags = ["--number", "5", "--output"]
    assert choose_records.main(["m.keras", "data", *flags, "a.csv"]) == 0
    assert choose_records.main(["m.keras", "@list.txt", "--data-dir", "data", *flags, "b.csv"]) == 0
    assert (folder / "a.csv").read_text() == (folder / "b.csv").read_text() != ""


def test_the_pages_are_those_of_the_chosen_records_which_are_not_read_again(folder, monkeypatch):
    drawn = []
    monkeypatch.setattr(too_feature, "load", lambda path: path)
    monkeypatch.setattr(
        classify, "plot", lambda result, loaded, asked, taken: drawn.append(result))
    assert choose_records.main(["m.keras", "data", "--number", "3", "--plot", "pages"]) == 0
    chosen = pd.read_csv("to_label.csv", header=None)[1]
    assert [result.record for result in drawn] == [f"data/{path}" for path in chosen]
    assert all(result.embedding is not None for result in drawn)    # what `results` gave, once


def test_a_label_file_that_cannot_be_written_is_noticed_before_records_are_read(
        folder, capsys, monkeypatch):
    monkeypatch.setattr(classify, "find_records", lambda _: pytest.fail("records are looked for"))
    assert choose_records.main(["m.keras", "data", "--output", "none/to_label.csv"]) == 2
    assert "--output: none/to_label.csv: No such file" in capsys.readouterr().err


def test_labels_that_may_have_been_filled_in_are_not_overwritten(folder, capsys):
    (folder / "to_label.csv").write_text("1,a,Normal\n")
    assert choose_records.main(["m.keras", "data"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (folder / "to_label.csv").read_text() == "1,a,Normal\n"

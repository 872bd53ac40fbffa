"""What is told of patients and records: none is lost on the way, groups are what they say."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import too_feature as script
from ecg import cohort, metrics
from ecg.errors import UserError
from ecg.output import tables
from tests.support.labels import write

KINDS = ["plain", "again", "two classes", "two patients", "blank"]    # of rows of a label file


def label_text(kinds, with_columns, first=0):
    """Return a label file with a row or more of each kind, and how many rows it has."""
    rows = []
    for i, kind in enumerate(kinds, start=first):
        row = f"{i // 2},r{i},{'AF' if i % 3 else 'Normal'}"
        extra = f",{20 + i},{'male' if i % 2 else ''}" if with_columns else ""
        again = {"again": row, "two classes": f"{i // 2},r{i},AFL", "blank": ""}.get(kind)
        again = f"{i // 2 + 1},r{i},AF" if kind == "two patients" else again
        rows += [row + extra, *([again + extra * bool(again)] if again is not None else [])]
    header = "subject_id,waveform_path,ecg_category" + ",age,sex" * with_columns
    return "\n".join([header, *rows]), sum(row != "" for row in rows)


def fake_records(rows, ends):
    """Return what a split's `Records` say, if its rows came to these ends, taken in turn."""
    end = np.resize(ends, len(rows))
    path = rows["waveform_path"].to_numpy()
    return SimpleNamespace(
        rows=rows[end == "used"], missing=tuple(path[end == "not on disk"]),
        left_out=tuple((name, "too short: 3 s") for name in path[end == "too short"]))


@given(kinds=st.lists(st.sampled_from(KINDS), min_size=12, max_size=40), is_external=st.booleans(),
       with_columns=st.booleans(), seed=st.integers(0, 99))
def test_the_ends_of_all_records_sum_to_the_rows_of_the_label_files(
        tmp_path_factory, kinds, is_external, with_columns, seed):
    folder = tmp_path_factory.getbasetemp()
    text, n_rows = label_text(kinds, with_columns)
    settings = script.Settings(labels=str(write(folder, text)), seed=seed)
    if is_external:    # of which some patients are in the other file too
        text, n_more = label_text(kinds, with_columns=False, first=len(kinds) - 3)
        n_rows += n_more
        settings = script.Settings(labels=settings.labels, seed=seed,
                                   test_labels=str(write(folder, text, "test.csv")))
    try:
        labels, *external = (script.read_labels(path)
                             for path in (settings.labels, settings.test_labels) if path)
        splits = script.split_labels(labels, sorted(set(labels["ecg_category"])), settings)
    except UserError:    # too few patients or classes are left
        return

    ends = np.random.default_rng(seed).choice(["used", "not on disk", "too short", "not drawn"], 7)
    split = cohort.join(splits, {name: fake_records(rows, ends) for name, rows in splits.items()})
    card = {"rows": labels.attrs["rows"]}
    if external:
        card["test_rows"] = external[0].attrs["rows"]
    flow = cohort.flow(split, card)
    assert flow["records"].sum() == n_rows and (flow["records"] > 0).all()
    by_end = flow.groupby("end")["records"].sum()
    assert is_external or "patient of the external test set" not in by_end
    for name, rows in splits.items():
        assert flow.loc[flow["split"] == name, "records"].sum() == len(rows)


def test_each_record_has_the_end_that_it_came_to():
    rows = pd.DataFrame({"waveform_path": ["a", "b", "c", "d"], "subject_id": 1})
    records = SimpleNamespace(rows=rows[:1], missing=("b",), left_out=(("c", "too short: 3 s"),))
    split = cohort.join({"test": rows}, {"test": records})
    assert split["end"].tolist() == ["used", "not on disk", "too short", "not drawn"]
    flow = cohort.flow(split, {"rows": {"duplicate": 3, "records": 4}})
    assert flow.to_numpy().tolist() == [
        ["in no split", "duplicate", 3],
        *(["test", end, 1] for end in ("used", "not on disk", "too short", "not drawn"))]


def test_table_1_counts_used_records_and_each_patient_once():
    split = pd.DataFrame({
        "subject_id": [1, 1, 2, 3, 4], "ecg_category": ["AF", "AF", "AF", "Normal", "AF"],
        "age": ["40", "41", "60", "x", "90"], "sex": ["male", "male", "", "female", "male"],
        "split": "train", "end": ["used", "used", "used", "used", "not drawn"]})
    table = cohort.table1(split, ["age", "sex"]).set_index("class").T.to_dict()
    assert table["AF"] == {
        "split": "train", "records": 3, "patients": 2, "age: median (quartiles)":
        "50 (45-55), 0 unknown", "sex: female": 0, "sex: male": 1, "sex: unknown": 1}
    assert table["Normal"]["age: median (quartiles)"] == "–, 1 unknown"
    assert table["all classes"]["patients"] == 3
    assert table["all classes"]["age: median (quartiles)"] == "50 (45-55), 1 unknown"


def example(n, values):
    """Return n test records of as many patients, with a column `sex`, and probabilities."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, n)
    rows = pd.DataFrame({"subject_id": np.arange(n), "waveform_path": "", "ecg_category": "",
                         "sex": np.resize(values, n)})
    right = np.where(rows["sex"] == "male", 0.9, 0.6)
    predicted = np.where(rng.random(n) < right, targets, 1 - targets)
    return SimpleNamespace(rows=rows, targets=targets), np.eye(2)[predicted]


def test_a_group_has_the_figures_of_its_records_alone_and_its_difference_from_the_rest():
    test, probabilities = example(200, ["male", "female", "female"])
    groups = cohort.by_group(test, probabilities, ["A", "B"])
    assert list(groups) == ["all", "sex: female", "sex: male"]
    is_right = pd.Series(probabilities.argmax(axis=1) == test.targets)
    recalls = is_right.groupby([test.rows["sex"], test.targets]).mean()
    male = groups["sex: male"]
    assert male["patients"] == sum(test.rows["sex"] == "male")
    assert male["accuracy"][0] == pytest.approx(is_right[test.rows["sex"] == "male"].mean())
    assert [male[f"sensitivity, {name}"][0] for name in "AB"] == pytest.approx(recalls["male"])
    value, low, high = male["difference"]
    assert value == pytest.approx(recalls["male"].mean() - recalls["female"].mean())
    assert 0 < low < value < high    # 0.9 and 0.6
    assert groups["sex: female"]["difference"] == pytest.approx([-value, -high, -low])


def test_small_groups_have_no_figures_and_ages_are_in_bands():
    test, probabilities = example(60, ["male"])
    test.rows["age"] = ["17"] * 19 + ["18"] * 20 + ["300"] * 20 + ["?"]
    groups = cohort.by_group(test, probabilities, ["A", "B"])
    assert groups["age: under 18"] == {"patients": 19, "accuracy": "too few"}
    assert groups["age: unknown"] == {"patients": 1, "accuracy": "too few"}
    assert groups["age: 18-39"]["patients"] == groups["age: 80 and more"]["patients"] == 20
    texts = tables.figures(groups, heading="group").set_index("group").loc["age: under 18"]
    assert texts[["accuracy", "difference"]].tolist() == ["too few", "–"]


def test_a_difference_counts_only_classes_that_both_have():
    test, probabilities = example(120, ["male", "female"])
    is_female = (test.rows["sex"] == "female").to_numpy()
    test.targets[is_female] = 0
    groups = cohort.by_group(test, probabilities, ["A", "B"])
    is_right = probabilities.argmax(axis=1) == test.targets
    rest = is_right[~is_female & (test.targets == 0)].mean()
    difference = groups["sex: female"]["difference"][0]
    assert difference == pytest.approx(is_right[is_female].mean() - rest)


def test_the_interval_of_a_difference_is_that_of_newcombe():
    """56/70 and 48/80, Newcombe 1998, table II (a), method 10 from Wilson's intervals."""
    interval = metrics.difference([0.8, 0.6918, 0.8767], [0.6, 0.4905, 0.7003])
    assert interval == pytest.approx([0.2, 0.0524, 0.3339], abs=1e-3)

"""tools/check_labels.py: which labels are in doubt, by small cases worked by hand."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from tests.support import models
from tools import check_labels

LABELS = Path(script.__file__).with_name("ecg_5_class_data.csv")
CLASSES = ["Bradycardia", "Normal", "Tachycardia"]


def records_of(rows, n_features=8):
    """Return records of (patient, path, class number); the first feature is a record's place."""
    table = pd.DataFrame(rows, columns=["subject_id", "waveform_path", "target"])
    targets = table.pop("target").to_numpy()
    table["ecg_category"] = [CLASSES[target] for target in targets]
    features = np.zeros((len(rows), n_features), np.float32)
    features[:, 0] = np.arange(len(rows))
    return script.Records(table, np.zeros((len(rows), 5, 12), np.float32), features, targets)


# ------------------------------------------------------------------------------------ out of fold
@pytest.fixture
def trained(monkeypatch):
    """What each training was given; model i gives class 0 a probability of 0.5 + i / 10."""
    calls = []

    def train(training, validation, n_classes, settings):
        calls.append((training, validation, settings))
        return len(calls) - 1, 2.0, []

    def predict(model, records):
        return np.tile([0.5 + model / 10, 0.5 - model / 10], (len(records.targets), 1))

    monkeypatch.setattr(script, "train", train)
    monkeypatch.setattr(script, "predict", predict)
    return calls


# Ten patients, of each class five; patient 3 has two records, one of which is repeated
TEN = [(i, f"r{i}", i % 2) for i in range(10)] + [(3, "r3b", 1), (3, "r3b", 1)]


def test_each_record_is_judged_by_the_one_model_that_never_saw_its_patient(trained):
    records = records_of(TEN)
    probabilities = check_labels.out_of_fold(records, 2, script.Settings())
    assert len(trained) == 5
    judged = []
    for i, (training, validation, _) in enumerate(trained):
        assert not set(training.rows["subject_id"]) & set(validation.rows["subject_id"])
        unseen = ~records.rows["subject_id"].isin(training.rows["subject_id"])
        assert len(training.targets) + unseen.sum() == 12    # repeats are kept in training
        judged += np.flatnonzero(unseen).tolist()
        # A temperature of 2 is taken out again: odds of (0.5 + i/10) to (0.5 - i/10) are squared
        high, low = (5 + i) ** 2, (5 - i) ** 2
        np.testing.assert_allclose(probabilities[unseen, 0], high / (high + low), rtol=1e-6)
    assert sorted(judged) == list(range(12))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_rows_signals_features_and_targets_stay_together(trained):
    check_labels.out_of_fold(records_of(TEN), 2, script.Settings())
    for training, validation, _ in trained:
        for part in (training, validation):
            places = part.features[:, 0].astype(int)
            assert part.targets.tolist() == [TEN[i][2] for i in places]
            assert part.rows["waveform_path"].tolist() == [TEN[i][1] for i in places]
            assert part.signals.shape == (len(places), 5, 12)


def test_a_repeated_record_counts_once_where_the_temperature_is_fitted(trained):
    check_labels.out_of_fold(records_of(TEN), 2, script.Settings())
    held_out = [path for _, validation, _ in trained
                for path in validation.rows["waveform_path"]]
    assert sorted(held_out) == sorted({path for _, path, _ in TEN})


def test_held_out_records_do_not_choose_when_a_training_ends(trained):
    recipe = script.Recipe(epochs=7, keep="best", learning_rate=0.01)
    check_labels.out_of_fold(records_of(TEN), 2, script.Settings(seed=3, recipe=recipe))
    for _, _, settings in trained:
        assert settings.seed == 3
        assert settings.recipe == dataclasses.replace(
            recipe, keep="last", stop_patience=7, reduce_patience=7)


@pytest.mark.parametrize(("name", "width"), [("default", 8), ("large", 48)])
def test_a_model_gets_the_features_of_its_recipe_alone(name, width, trained):
    settings = script.Settings(recipe=script.RECIPES[name])
    check_labels.out_of_fold(records_of(TEN, n_features=48), 2, settings)
    assert {training.features.shape[1] for training, _, _ in trained} == {width}


# ----------------------------------------------------------------------------------------- tables
def test_suspects_are_sorted_by_how_much_likelier_another_class_is():
    table = pd.DataFrame({"waveform_path": ["sure", "wrong", "torn", "odd"],
                          "target": [0, 0, 1, 2]})
    probabilities = np.array([[0.9, 0.06, 0.04], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3],
                              [0.5, 0.2, 0.3]])
    found = check_labels.suspects(table, CLASSES, probabilities)
    assert found["waveform_path"].tolist() == ["wrong", "odd", "torn", "sure"]
    assert found["says"].tolist() == ["Tachycardia", "Bradycardia", "Bradycardia", "Normal"]
    assert found["probability"].tolist() == [0.7, 0.5, 0.3, 0.06]
    assert found["of_label"].tolist() == [0.1, 0.3, 0.4, 0.9]
    assert found["doubt"].tolist() == pytest.approx([0.6, 0.2, -0.1, -0.84])
    assert probabilities[0, 0] == 0.9    # what was given is left as it was


def test_records_of_equal_doubt_stay_in_their_order():
    table = pd.DataFrame({"waveform_path": list("abc"), "target": [0, 1, 0]})
    found = check_labels.suspects(table, ["A", "B"], np.full((3, 2), 0.5))
    assert found["waveform_path"].tolist() == list("abc")


@pytest.mark.parametrize(("name", "feature"), [
    ("Sinus BRADYCARDIA", "heart rate"), ("tachycardia", "heart rate"),
    ("Atrial Fibrillation", "CV_RR"), ("Left Bundle Branch Block", "QRS width"),
    ("Normal", None)])
def test_the_deciding_feature_is_known_by_a_part_of_the_classes_name(name, feature):
    known = check_labels.decisive(name)
    assert (known and known[0]) == feature


def test_medians_are_those_of_records_found_missed_and_wrongly_called():
    # label, prediction and heart rate of each record
    cases = [("Bradycardia", "Bradycardia", 50), ("Bradycardia", "Bradycardia", 54),
             ("Bradycardia", "Normal", 62), ("Normal", "Bradycardia", 58),
             ("Normal", "Bradycardia", np.nan), ("Normal", "Normal", 70), ("Normal", "Normal", 80),
             ("Normal", "Normal", 90)]
    table = pd.DataFrame(cases, columns=["ecg_category", "called", "heart rate"])
    found = check_labels.medians_by_outcome(table, ["Bradycardia", "Normal"])
    assert found.to_dict("records") == [{
        "class": "Bradycardia", "figure": "heart rate bpm", "speaks for it": "low",
        "found": "52 (2)", "missed": "62 (1)",
        "false alarm": "58 (2)",    # one of the two could not be measured
        "all others": "80 (3)"}]


def test_an_outcome_without_records_has_no_median():
    table = pd.DataFrame({"ecg_category": ["Tachycardia"], "called": ["Tachycardia"],
                          "heart rate": [120.4]})
    row, = check_labels.medians_by_outcome(table, CLASSES[2:]).to_dict("records")
    assert (row["found"], row["missed"], row["all others"]) == ("120 (1)", "nan (0)", "nan (0)")


def test_the_table_holds_each_record_once_with_its_own_values():
    records = records_of([(1, "a", 0), (2, "b", 1), (1, "a", 0), (3, "c", 2)], n_features=48)
    names = [name for name, _, _ in script.feature_names(script.RECIPES["large"])]
    for size, name in ((1, "heart rate"), (10, "CV_RR"), (100, "QRS width")):
        records.features[:, names.index(name)] = size * (records.targets + 1)
    probabilities = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    table, kept = check_labels.tabulate(records, CLASSES, probabilities)
    assert table["waveform_path"].tolist() == ["a", "b", "c"]
    assert table.index.tolist() == [0, 1, 2]
    assert table["heart rate"].tolist() == [1, 2, 3]
    assert table["CV_RR"].tolist() == [10, 20, 30]
    assert table["QRS width"].tolist() == [100, 200, 300]
    assert table["called"].tolist() == ["Bradycardia", "Bradycardia", "Tachycardia"]
    assert table["p Normal"].tolist() == [0.3, 0.4, 0.2]
    assert kept.tolist() == probabilities[[0, 1, 3]].tolist()


def test_classes_named_as_columns_are_change_no_column():
    words = ["target", "ecg_category", "heart rate"]
    records = records_of([(1, "a", 0), (2, "b", 1), (3, "c", 2)], n_features=48)
    probabilities = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    table, kept = check_labels.tabulate(records, words, probabilities)
    assert table["target"].tolist() == [0, 1, 2]
    assert table["ecg_category"].tolist() == CLASSES
    assert table["heart rate"].tolist() == [0, 0, 0]
    found = check_labels.suspects(table, words, kept)
    assert found["says"].tolist() == ["target", "ecg_category", "ecg_category"]
    assert found.columns.is_unique


# ------------------------------------------------------------------------------------ the program
def run(demo_dir, *more):
    return check_labels.main(["--labels", str(LABELS), "--data-dir", str(demo_dir), "--no-cache",
                              "--train-samples", "50", *more])


@pytest.fixture
def sees_the_rate(monkeypatch):
    """In place of training: a model that knows classes 1 and 4 by the heart rate, no other."""
    def predict(_model, records):
        probabilities = np.full((len(records.targets), 5), 0.02)
        rate = records.features[:, script.HEART_RATE]
        best = np.select([rate < 60, rate > 100], [1, 4], 3)
        probabilities[np.arange(len(best)), best] = 0.92
        return probabilities

    monkeypatch.setattr(script, "train", lambda *_: (None, 1.0, []))
    monkeypatch.setattr(script, "predict", predict)


def test_the_program_lists_the_most_doubtful_records_and_what_decides(
        demo_dir, tmp_path, sees_the_rate, capsys):
    assert run(demo_dir, "--top", "3", "--csv", str(tmp_path / "all.csv")) == 0
    out = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "all.csv")
    assert table["waveform_path"].is_unique
    assert table["doubt"].is_monotonic_decreasing
    assert (table["heart rate"] < 60).tolist() == (table["called"] == "Bradycardia").tolist()
    listed = [line.split()[0] for line in out.splitlines() if line.strip().startswith("...")]
    for shown, path in zip(listed, table["waveform_path"][:3], strict=True):
        assert path.endswith(shown.removeprefix("..."))
    assert max(map(len, out.splitlines())) <= 100
    assert f"Of {len(table)} training records, the 3 whose labels are most in" in out
    for name, feature in (("Bradycardia", "heart rate bpm"), ("Atrial Fibrillation", "CV_RR"),
                          ("Bundle Branch Block", "QRS width ms")):
        assert [line for line in out.splitlines() if line.strip().startswith(name)
                and feature in line]
    assert out.endswith("left out: none\n")


def test_records_left_out_are_counted(demo_dir, tmp_path, sees_the_rate, capsys):
    shutil.copytree(demo_dir, tmp_path / "data")
    for path in sorted((tmp_path / "data").rglob("*.dat"))[::4]:
        path.write_bytes(b"")
    assert run(tmp_path / "data") == 0
    assert "left out: file is cut short (" in capsys.readouterr().out


def test_too_few_records_for_five_parts_are_one_line(demo_dir, capsys):
    assert run(demo_dir, "--train-samples", "20") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == ("check_labels.py: error: --train-samples 20: too few for 5 parts of every "
                     "class")


def test_a_start_that_may_have_seen_the_patients_is_refused(demo_dir, tmp_path, capsys):
    start = models.save_card(tmp_path / "m.keras")
    assert run(demo_dir, "--start-from", str(start)) == 2
    assert "may have seen the patients" in capsys.readouterr().err

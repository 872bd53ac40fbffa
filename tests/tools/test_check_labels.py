"""tools/check_labels.py: which labels are in doubt, by small cases worked by hand."""

import re

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from tests.support.runs import LABELS, ROOT
from tools import check_labels

CLASSES = ["Bradycardia", "Normal", "heart rate"]    # one has the name of a column


def records_of(rows):
    """Return records of (patient, path, class number); the first feature is a record's place."""
    table = pd.DataFrame(rows, columns=["subject_id", "waveform_path", "target"])
    targets = table.pop("target").to_numpy()
    table["ecg_category"] = [CLASSES[target] for target in targets]
    features = np.zeros((len(rows), 48), np.float32)
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
    judged, fitted = [], []
    for i, (training, validation, settings) in enumerate(trained):
        recipe = settings.recipe    # by which the held-out records do not choose the end
        assert (recipe.keep_weights, recipe.stop_patience) == ("last", recipe.epochs)
        assert training.features.shape[1] == 8
        unseen = ~records.rows["subject_id"].isin(training.rows["subject_id"])
        assert len(training.targets) + unseen.sum() == 12    # repeats are kept in training
        judged += np.flatnonzero(unseen).tolist()
        fitted += validation.rows["waveform_path"].tolist()
        # A temperature of 2 is taken out again: odds of (0.5 + i/10) to (0.5 - i/10) are squared
        high, low = (5 + i) ** 2, (5 - i) ** 2
        np.testing.assert_allclose(probabilities[unseen, 0], high / (high + low), rtol=1e-6)

        places = training.features[:, 0].astype(int)    # a record stays together
        assert training.targets.tolist() == [TEN[i][2] for i in places]
        assert training.rows["waveform_path"].tolist() == [TEN[i][1] for i in places]

    assert len(trained) == 5
    assert sorted(judged) == list(range(12))
    assert sorted(fitted) == sorted({path for _, path, _ in TEN})    # where repeats count once


# ----------------------------------------------------------------------------------------- tables
def test_each_record_is_ranked_once_by_how_much_likelier_another_class_is():
    records = records_of([(1, "sure", 0), (2, "wrong", 0), (3, "torn", 1), (1, "sure", 0),
                          (4, "odd", 2), (5, "also torn", 1)])
    names = [name for name, _, _ in script.feature_names(script.RECIPES["large"])]
    records.features[:, names.index("QRS width")] = np.arange(6)
    torn, sure = [0.3, 0.4, 0.3], [0.9, 0.06, 0.04]
    probabilities = np.array([sure, [0.1, 0.2, 0.7], torn, sure, [0.5, 0.2, 0.3], torn])
    table = check_labels.rank_by_doubt(records, CLASSES, probabilities)
    assert table["waveform_path"].tolist() == ["wrong", "odd", "torn", "also torn", "sure"]
    assert table["QRS width"].tolist() == [1, 4, 2, 5, 0]
    assert table["p heart rate"].tolist() == [0.7, 0.3, 0.3, 0.3, 0.04]
    assert table["says"].tolist() == ["heart rate", *["Bradycardia"] * 3, "Normal"]
    assert table["of_label"].tolist() == [0.1, 0.3, 0.4, 0.4, 0.9]
    assert table["doubt"].tolist() == pytest.approx([0.6, 0.2, -0.1, -0.1, -0.84])


# ------------------------------------------------------------------------------------ the program
def run(demo_dir, *more):
    return check_labels.main(["--labels", str(LABELS), "--data-dir", str(demo_dir), "--no-cache",
                              "--train-samples", "50", *more])


@pytest.fixture
def sees_the_rate(monkeypatch):
    """In place of training: a model that knows classes 1 and 4 by the heart rate, no other."""
    def predict(_model, records):
        rate = records.features[:, script.HEART_RATE]
        return np.eye(5)[np.select([rate < 60, rate > 100], [1, 4], 3)] * 0.9 + 0.02

    monkeypatch.setattr(script, "train", lambda *_: (None, 1.0, []))
    monkeypatch.setattr(script, "predict", predict)


def test_the_program_lists_the_most_doubtful_records_with_what_decides(
        demo_dir, tmp_path, sees_the_rate, capsys):
    assert run(demo_dir, "--csv", str(tmp_path / "all.csv")) == 0
    out = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "all.csv")
    assert table["waveform_path"].is_unique
    assert table["doubt"].is_monotonic_decreasing
    assert ((table["heart rate"] < 60) == (table["p Bradycardia"] > 0.5)).all()

    listed = re.findall(r"^ *(\S*/\S*) ", out, re.MULTILINE)
    assert listed == [path[-20:] for path in table["waveform_path"][:20]]
    assert max(map(len, out.splitlines())) <= 100
    assert f"Of {len(table)} training records, the 20 whose labels are most in" in out
    assert "QRS width in ms" in out
    assert "left out: none" in out


@pytest.mark.parametrize(("flags", "words"), [
    (["--train-samples", "20"], "--train-samples 20: too few for 5 parts of every class"),
    (["--start-from", str(ROOT / "models" / "real_default.keras")], "may have seen the patients"),
    (["--csv", str(LABELS)], "is read as well as written")])
def test_what_would_fail_after_five_trainings_is_refused_before(flags, words, demo_dir, capsys):
    labels = LABELS.read_bytes()
    assert run(demo_dir, *flags) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert LABELS.read_bytes() == labels

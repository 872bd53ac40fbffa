"""tools/check_labels.py: which labels are in doubt, by small cases worked by hand."""

import shutil

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
    for i, (training, validation, _) in enumerate(trained):
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


@pytest.mark.parametrize(("name", "width"), [("default", 8), ("large", 48)])
def test_trainings_get_their_features_and_do_not_end_by_the_held_out_records(name, width, trained):
    recipe = script.RECIPES[name]
    check_labels.out_of_fold(records_of(TEN), 2, script.Settings(seed=3, recipe=recipe))
    for training, _, settings in trained:
        assert training.features.shape[1] == width
        assert settings.seed == 3
        assert settings.recipe.keep_weights == "last"
        assert settings.recipe.stop_patience == settings.recipe.reduce_patience == recipe.epochs


# ----------------------------------------------------------------------------------------- tables
def test_each_record_is_ranked_once_by_how_much_likelier_another_class_is():
    records = records_of([(1, "sure", 0), (2, "wrong", 0), (3, "torn", 1), (1, "sure", 0),
                          (4, "odd", 2), (5, "also torn", 1)])
    names = [name for name, _, _ in script.feature_names(script.RECIPES["large"])]
    for size, name in ((1, "heart rate"), (10, "CV_RR"), (100, "QRS width")):
        records.features[:, names.index(name)] = size * np.arange(6)
    probabilities = np.array([[0.9, 0.06, 0.04], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3],
                              [0.9, 0.06, 0.04], [0.5, 0.2, 0.3], [0.3, 0.4, 0.3]])
    table = check_labels.rank_by_doubt(records, CLASSES, probabilities)

    assert table["waveform_path"].tolist() == ["wrong", "odd", "torn", "also torn", "sure"]
    assert table["heart rate"].tolist() == [1, 4, 2, 5, 0]
    assert table["QRS width"].tolist() == [100, 400, 200, 500, 0]
    assert table["p heart rate"].tolist() == [0.7, 0.3, 0.3, 0.3, 0.04]
    assert table["called"].tolist() == ["heart rate", "Bradycardia", "Normal", "Normal",
                                        "Bradycardia"]
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
    shutil.copytree(demo_dir, tmp_path / "data")
    for path in sorted((tmp_path / "data").rglob("*.dat"))[::4]:
        path.write_bytes(b"")
    assert run(tmp_path / "data", "--csv", str(tmp_path / "all.csv")) == 0
    out = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "all.csv")
    assert table["waveform_path"].is_unique
    assert table["doubt"].is_monotonic_decreasing
    assert ((table["heart rate"] < 60) == (table["called"] == "Bradycardia")).all()

    listed = [line.split()[0] for line in out.splitlines() if line.strip().startswith("...")]
    assert listed == [f"...{path[-17:]}" for path in table["waveform_path"][:20]]
    assert max(map(len, out.splitlines())) <= 100
    assert f"Of {len(table)} training records, the 20 whose labels are most in" in out
    assert "QRS width ms" in out
    assert "left out: file is cut short (" in out


@pytest.mark.parametrize(("flags", "words"), [
    (["--train-samples", "20"], "--train-samples 20: too few for 5 parts of every class"),
    (["--start-from", str(ROOT / "models" / "real_default.keras")], "may have seen the patients"),
    (["--csv", str(LABELS)], "is read as well as written")])
def test_what_would_fail_after_five_trainings_is_refused_before(flags, words, demo_dir, capsys):
    labels = LABELS.read_bytes()
    assert run(demo_dir, *flags) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert LABELS.read_bytes() == labels

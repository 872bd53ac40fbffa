"""--start-from: what is taken from the start, what is refused, and what is left as it was."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from ecg import adaptation, files, origin, recordings
from tests.support import models
from tests.support.runs import LABELS, TINY, card_of

POINTS = 50


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A saved model of 50 points a record, with random weights."""
    path = tmp_path_factory.mktemp("start") / "start.keras"
    script.load_tensorflow()[1].utils.set_random_seed(1)
    model = script.create_lightweight_lstm_model(5, POINTS, models.MEAN, models.VARIANCE)
    card = models.card(sequence_length=POINTS, epochs=1)
    script.save(model, {**card, "labels_origin": "three nurses", "synthetic": True}, path)
    return path


def noise(n):
    """Return records of noise, of which every second is repeated."""
    rng = np.random.default_rng(0)
    place = np.arange(n) // 2
    rows = pd.DataFrame({"subject_id": place, "waveform_path": place.astype(str)})
    return script.Records(rows, rng.normal(size=(n, POINTS, 12)).astype(np.float32)[place],
                          rng.normal(size=(n, 8)).astype(np.float32)[place], place % 5)


def settings_of(start, **recipe):
    recipe = dataclasses.replace(script.read_start(str(start))[0], **recipe)
    return script.Settings(recipe=recipe, start_from=str(start))


@pytest.fixture
def refused(capsys, monkeypatch, tmp_path):
    """Return a function that runs the script and returns the one line by which it refuses."""
    def refusal(*flags):
        assert script.main([*map(str, flags)]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        return line

    monkeypatch.setattr(script, "load_tensorflow", lambda: pytest.fail("TensorFlow"))
    monkeypatch.setattr(script, "ensure_demo", lambda *_: True)
    monkeypatch.chdir(tmp_path)
    return refusal


# --------------------------------------------------------------------------------------- settings
def test_the_recipe_is_that_of_the_start(tmp_path):
    path = models.save_card(tmp_path / "m.keras", "large")
    settings = script.parse_settings(["--start-from", str(path)])
    assert settings.recipe == script.RECIPES["large"]


def test_the_start_is_not_replaced_by_what_is_made_of_it(tmp_path, refused):
    models.save_card(tmp_path / "m.keras")
    line = refused("--start-from", "m.keras", "--output", "./m.keras")
    assert "m.keras is read as well as written" in line


def test_other_inputs_or_classes_are_refused_by_one_line_with_both(tmp_path, refused):
    path = models.save_card(tmp_path / "m.keras", "large")
    line = refused("--labels", LABELS, "--start-from", path, "--recipe", "default")
    assert "has model large, not lstm" in line

    path = models.save_card(tmp_path / "m.keras", classes=["Flutter", "Normal"])
    line = refused("--labels", LABELS, "--start-from", path)
    assert "Flutter, Normal" in line
    assert "Atrial Fibrillation, Bradycardia" in line


def test_an_ensemble_is_refused_before_records_are_read(tmp_path, refused):
    one = {"mean": models.MEAN, "variance": models.VARIANCE}
    path = models.save_card(tmp_path / "m.keras", scaling=[one, one])
    assert "an ensemble" in refused("--labels", LABELS, "--start-from", path)


# ----------------------------------------------------------------------------------------- adapt
def test_only_the_last_layer_changes_and_each_record_counts_once(start, capsys):
    model, _, history = script.train(noise(20), noise(8), 5, settings_of(start))
    assert history == []
    for before, after in zip(script.load(start).model.get_weights()[:-2],
                             model.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(before, after)
    assert "last layer fitted to 10 records" in capsys.readouterr().out


def test_limits_are_the_starts_where_nothing_is_fitted_else_those_of_the_labels(start, tmp_path):
    path = tmp_path / "m.keras"
    card = models.card(rate_limits="58,104") | {"rate_limits": [58, 104]}
    script.save(models.build(), card, path)
    features = np.full((40, 8), 70, np.float32)
    features[:20, script.HEART_RATE] = 50    # labelled normal, as all are
    rows = pd.DataFrame({"waveform_path": np.arange(40).astype(str)})
    records = script.Records(rows, None, features, np.full(40, 3))

    def limits(*flags):
        settings = script.parse_settings(["--start-from", str(path), *flags])
        return script.choose_rate_step(records, models.CLASSES, settings).limits

    assert limits("--epochs", "0") == [58, 104]
    assert limits("--set", "rate_limits=55,101") == [55, 101]
    low, high = limits()
    assert low < 58
    assert high == pytest.approx(100, abs=1)
    script.save(models.build(), models.card(rate_limits="none"), path)
    assert limits() == []


def test_candidates_are_scored_with_the_rate_step(start, monkeypatch):
    decided = []
    adapt = adaptation.adapt

    def spy(*given):
        decided.append(given[-1](np.full((10, 5), 0.2)))
        return adapt(*given)

    monkeypatch.setattr(adaptation, "adapt", spy)
    records = noise(20)
    records.features[:, script.HEART_RATE] = 40
    script.train(records, noise(8), 5, settings_of(start))
    np.testing.assert_allclose(decided[0], [[0.2, 0.6, 0.2, 0, 0]] * 10, atol=1e-3)


# ------------------------------------------------------------------------------------ whole runs
def test_epochs_0_evaluates_the_start_and_says_whose_labels_it_learnt(
        start, demo_dir, tmp_path, monkeypatch, capsys):
    """Also where --test-labels has classes that --labels lacks, and is what the start has seen."""
    monkeypatch.chdir(tmp_path)
    rows = script.read_labels(LABELS)
    few = rows[rows["ecg_category"].isin(["Normal", "Tachycardia"])].iloc[::4]
    few.to_csv("few.csv", index=False, header=False)    # two of the start's five classes
    others = rows[~rows["subject_id"].isin(few["subject_id"])].groupby("ecg_category").head(2)
    others.to_csv("others.csv", index=False, header=False)
    seen = tmp_path / "start.keras"
    seen.write_bytes(start.read_bytes())
    card = card_of(start) | {"trained_on": [files.sha256("others.csv")]}
    seen.with_suffix(".json").write_text(json.dumps(card))
    recipe = script.read_start(str(seen))[0]
    learnt = [script.prepare_record(demo_dir / path, recipe=recipe)[0]
              for path in others["waveform_path"][:3]]
    recordings.known_file(seen).write_bytes(
        files.npz(recordings=recordings.as_known(np.stack(learnt))))

    code = script.main(["--labels", "few.csv", "--data-dir", str(demo_dir), *TINY, "--epochs", "0",
                        "--test-labels", "others.csv", "--start-from", str(seen),
                        "--output", "out.keras"])
    assert code == 0, capsys.readouterr().err
    for one, other in zip(script.load(start).model.get_weights(),
                          script.load("out.keras").model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    card = card_of("out.keras")
    assert card["classes"] == models.CLASSES
    assert card["start_from"] == [{"model": str(seen), "sha256": files.sha256(start),
                                   "labels_origin": "three nurses"}]
    assert card["trained_on"] == [files.sha256("others.csv")]    # not few.csv, which it only saw
    report = Path("results/out/report.txt").read_text()
    assert f"of {card['metrics']['patients']} patients; nothing was trained\n" in report
    for said in (report, " ".join(card["contract"]["Labels"]), capsys.readouterr().out):
        assert origin.MAY_HAVE_SEEN in said
        assert "3 of the test recordings are recordings that the start has learnt from" in said
    assert card["labels_origin"] == "three nurses"
    assert card["test_labels_origin"] == "synthetic records, not patients"
    assert card["history"] == [[]]
    assert card["metrics"]["records"] == len(others) == 10    # of all five classes


def test_with_few_labels_adapting_is_also_judged_by_cross_validation_over_all_of_them(
        start, demo_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = script.read_labels(LABELS).drop_duplicates("subject_id").iloc[::6]
    rows.to_csv("few.csv", index=False, header=False)
    code = script.main(["--labels", "few.csv", "--data-dir", str(demo_dir), "--no-figures",
                        "--start-from", str(start), "--output", "out.keras"])
    printed, err = capsys.readouterr()
    assert code == 0, err
    card = card_of("out.keras")
    before = printed.partition("reading test")[0]
    assert f"{len(rows)} labels: {card['metrics']['patients']} patients are tested" in before
    nested = card["metrics"]["nested cross-validation"]
    assert nested["records"] == len(rows)
    n = nested["patients"]    # with 50 points, two ECGs of the demo look like copies
    words = f"by nested cross-validation over all {n} labelled people\naccuracy "
    assert f"{words}{nested['accuracy'][0]:.3f} (95 % interval" in printed

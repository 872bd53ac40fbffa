"""--start-from: what is taken from the start, what is refused, and what is left as it was."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from ecg import adaptation, checkpoint, files, origin
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


def settings_of(start, method=(), **changes):
    recipe = dataclasses.replace(script.read_start(str(start))[0], **dict(method))
    return script.Settings(recipe=recipe, start_from=str(start), jit=False, **changes)


def refused(capsys, *flags):
    assert script.main([*map(str, flags)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


# --------------------------------------------------------------------------------------- settings
def test_the_recipe_is_that_of_the_start_and_all_weights_learn_a_tenth_as_fast(tmp_path):
    path = models.save_card(tmp_path / "m.keras", "large")
    large = script.RECIPES["large"]
    assert script.parse_settings(["--start-from", str(path)]).recipe == large
    for flags, rate in ((["--adapt", "all"], large.learning_rate / 10),
                        (["--adapt", "all", "--learning-rate", "0.3"], 0.3)):
        found = script.parse_settings(["--start-from", str(path), *flags]).recipe
        assert found == dataclasses.replace(large, learning_rate=rate)


def test_a_model_that_was_only_evaluated_is_trained_by_its_recipe_when_started_from(tmp_path):
    recipe = dataclasses.asdict(models.recipe_of("large", epochs=0))
    path = models.save_card(tmp_path / "m.keras", "large", recipe=recipe)
    flags = ["--start-from", str(path), "--adapt", "all"]
    assert script.parse_settings(flags).recipe.epochs == script.RECIPES["large"].epochs
    assert script.parse_settings([*flags, "--epochs", "0"]).recipe.epochs == 0


def test_the_start_is_not_replaced_by_what_is_made_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "load_tensorflow", lambda: pytest.fail("TensorFlow"))
    monkeypatch.chdir(tmp_path)
    models.save_card(tmp_path / "m.keras")
    for output in ("m.keras", "./m.keras"):
        line = refused(capsys, "--start-from", "m.keras", "--output", output, "--force")
        assert "m.keras is read as well as written" in line


def test_flags_that_would_do_nothing_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "load_tensorflow", lambda: pytest.fail("TensorFlow"))
    path = models.save_card(tmp_path / "m.keras")
    assert "--start-from" in refused(capsys, "--epochs", 0)
    assert "--start-from" in refused(capsys, "--adapt", "all")
    assert "--adapt all" in refused(capsys, "--start-from", path, "--epochs", 3)
    assert "cannot be loaded" in refused(capsys, "--start-from", tmp_path / "none.keras")
    for nothing_drawn in (["--epochs", 0], []):
        assert "--repeats 2" in refused(
            capsys, "--start-from", path, "--repeats", 2, *nothing_drawn)
    assert script.parse_settings(
        ["--start-from", str(path), "--repeats", "2", "--adapt", "all"]).repeats == 2


def test_other_inputs_or_classes_are_refused_by_one_line_with_both(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "load_tensorflow", lambda: pytest.fail("TensorFlow"))
    monkeypatch.setattr(script, "ensure_demo", lambda *_: True)
    monkeypatch.chdir(tmp_path)
    path = models.save_card(tmp_path / "m.keras", "large")
    line = refused(capsys, "--labels", LABELS, "--start-from", path, "--recipe", "default")
    assert "model large" in line
    assert "model lstm" in line

    path = models.save_card(tmp_path / "m.keras", classes=["Flutter", "Normal"])
    line = refused(capsys, "--labels", LABELS, "--start-from", path)
    assert "tells Flutter, Normal" in line
    assert "has Atrial Fibrillation, Bradycardia" in line

    path = models.save_card(tmp_path / "m.keras", temperature=[1.0, 1.2])
    assert "an ensemble" in refused(capsys, "--labels", LABELS, "--start-from", path)


def test_labels_that_the_start_was_trained_on_are_told_of_before_the_work(tmp_path, capsys):
    path = models.save_card(tmp_path / "m.keras", labels_sha256=files.sha256(LABELS))
    settings = script.Settings(labels=str(LABELS), start_from=str(path))
    card = script.describe_run(settings, script.read_labels(LABELS), models.CLASSES, True)
    script.describe_start(settings, card | {"labels_origin": "two nurses"})
    assert f"notice: {origin.MAY_HAVE_SEEN}" in capsys.readouterr().out


def test_an_interrupted_run_is_not_continued_from_another_start(start, tmp_path):
    other = models.save_card(tmp_path / "m.keras", sequence_length=POINTS)
    keys = [script.training_key(noise(8), noise(8), settings)
            for settings in (settings_of(start), dataclasses.replace(
                settings_of(start), start_from=str(other)))]
    found, = checkpoint.differences(*keys)
    assert found.startswith(f"start_from {files.sha256(start)[:12]}, not ")


# ----------------------------------------------------------------------------------------- adapt
def test_only_the_last_layer_changes_and_each_record_counts_once(start, monkeypatch, capsys):
    seen = []
    adapt = adaptation.adapt
    moved = adaptation.LastLayer(np.ones((32, 5)), np.arange(5.0))

    def spy(inputs, targets, *rest):
        seen.append((len(inputs), len(targets)))
        return adapt(inputs, targets, *rest)._replace(layer=moved)

    monkeypatch.setattr(adaptation, "adapt", spy)
    model, temperature, history = script.train(noise(20), noise(8), 5, settings_of(start))
    before = script.load(start).model.get_weights()
    after = model.get_weights()
    assert seen == [(10, 10)]
    assert history == []
    for one, other in zip(before[:-2], after[:-2], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(after[-1] * temperature, moved.bias, rtol=1e-5)
    assert "last layer fitted to 10 records" in capsys.readouterr().out


@pytest.mark.parametrize(("scores", "kept"), [([(0.5, -1), (0.6, -1)], "trained further"),
                                              ([(0.5, -1), (0.5, -1)], "start")])
def test_weights_trained_further_are_kept_where_validation_patients_speak_for_it(
        scores, kept, start, monkeypatch, capsys):
    given = iter(scores)
    monkeypatch.setattr(adaptation, "score", lambda *_: next(given))
    decaying = {"freeze_bn_after": 0, "weight_decay": 0.5}    # as the large model's, but more
    settings = settings_of(start, decaying, adapt="all")
    model, _, history = script.train(noise(20), noise(8), 5, settings)
    assert len(history) == 1
    assert f"kept: {kept}" in capsys.readouterr().out
    before = script.load(start).model
    pairs = zip(before.layers[1:], model.layers[1:], strict=True)
    changed = {one.name for one, other in pairs for a, b in zip(
        one.get_weights(), other.get_weights(), strict=True) if not np.allclose(a, b, rtol=1e-3)}
    assert bool(changed) == (kept == "trained further")
    keras = script.load_tensorflow()[1]
    for one, other in zip(before.layers, model.layers, strict=True):
        if isinstance(one, keras.layers.BatchNormalization):    # which stays as the start's
            for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("epochs", "adapt"), [(0, "last"), (1, "last"), (1, "all")])
def test_a_start_that_gives_no_probabilities_is_refused(epochs, adapt, tmp_path, start):
    model = script.load(str(start)).model
    weights, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([np.full_like(weights, 1e38), bias])
    script.save(model, models.card(sequence_length=POINTS), tmp_path / "nan.keras")
    settings = settings_of(tmp_path / "nan.keras", {"epochs": epochs}, adapt=adapt)
    with pytest.raises(script.UserError, match=r"no probabilities \(NaN\)"):
        script.train(noise(20), noise(8), 5, settings)


def test_an_ensemble_is_refused_unless_it_is_only_evaluated(tmp_path, start):
    keras = script.load_tensorflow()[1]
    both = [script.load(str(start)).model for _ in range(2)]
    path = tmp_path / "both.keras"
    script.save(script.average_models(keras, both), models.card(sequence_length=POINTS), path)
    with pytest.raises(script.UserError, match="ensemble"):
        script.train(noise(8), noise(8), 5, settings_of(path))
    settings = settings_of(path, {"epochs": 0})
    assert script.train(noise(8), noise(8), 5, settings)[0].name == "ensemble"


# ------------------------------------------------------------------------------------ whole runs
def with_card(model, path, **changes):
    """Copy a model with its card changed; return its path."""
    path.write_bytes(model.read_bytes())
    path.with_suffix(".json").write_text(json.dumps(card_of(model) | changes))
    return path


def test_epochs_0_evaluates_the_start_and_says_whose_labels_it_learnt(
        start, demo_dir, tmp_path, monkeypatch, capsys):
    """Also where --test-labels has classes that --labels lacks, and is what the start has seen."""
    monkeypatch.chdir(tmp_path)
    rows = script.read_labels(LABELS)
    few = rows[rows["ecg_category"].isin(["Normal", "Tachycardia"])].iloc[::4]
    few.to_csv("few.csv", index=False, header=False)    # two of the start's five classes
    others = rows[~rows["subject_id"].isin(few["subject_id"])].groupby("ecg_category").head(2)
    others.to_csv("others.csv", index=False, header=False)
    start = with_card(start, tmp_path / "start.keras", trained_on=[files.sha256("others.csv")])
    names = ".lock", "index.html", "figures/features.png"    # of a run
    old = [tmp_path / "results/out" / name for name in names]
    for path in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("an earlier run")
    code = script.main(["--labels", "few.csv", "--data-dir", str(demo_dir), *TINY, "--epochs", "0",
                        "--test-labels", "others.csv", "--start-from", str(start),
                        "--output", "out.keras"])
    assert code == 0, capsys.readouterr().err
    for one, other in zip(script.load(start).model.get_weights(),
                          script.load("out.keras").model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    card = card_of("out.keras")
    assert card["classes"] == models.CLASSES
    assert card["start_from"] == [{"model": str(start), "sha256": files.sha256(start),
                                   "labels_origin": "three nurses"}]
    assert card["trained_on"] == [files.sha256("others.csv")]    # not few.csv, which it only saw
    assert card["labels_sha256"] == files.sha256("few.csv")
    report = Path("results/out/report.txt").read_text()
    assert f"of {card['metrics']['patients']} patients; nothing was trained\n" in report
    assert "training never saw" not in report
    for said in (report, card["contract"]["Labels"]):
        assert origin.MAY_HAVE_SEEN in said
    assert card["labels_origin"] == "three nurses"
    assert card["test_labels_origin"] == "synthetic records, not patients"
    assert card["history"] == [[]]
    assert card["metrics"]["records"] == len(others) == 10    # of all five classes
    assert not any(path.exists() for path in old[1:])    # --no-figures makes no new ones

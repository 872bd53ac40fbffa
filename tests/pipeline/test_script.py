"""The whole script, as a user runs it: from nothing to a saved model that a notebook can use."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

import too_feature as script
from ecg import __version__, files, metrics
from ecg.errors import UserError
from tests.support import golden_run
from tests.support.runs import LABELS, TINY, WITH_ALL, card_of, one_line, python, run_script


def records_of(name, run):
    """Return the records of one split, as the run drew and prepared them."""
    settings = script.Settings(**{
        **run.card["settings"], "recipe": script.Recipe(**run.card["recipe"]), "cache": False,
        "data_dir": str(run.data_dir), "labels": str(LABELS)})
    splits = script.split_patients(script.read_labels(settings.labels), seed=settings.seed)
    return script.load_split(name, splits[name], run.card["classes"], settings)


@pytest.fixture
def run_here(monkeypatch, tmp_path, demo_dir):
    """Return a function that runs the script in this process; it returns the exit code."""
    def run(*arguments, data_dir=demo_dir):
        return script.main(["--labels", str(LABELS), "--data-dir", str(data_dir), *TINY,
                            "--no-cache", *map(str, arguments)])

    monkeypatch.chdir(tmp_path)
    return run


# --------------------------------------------------------------------------------- a finished run
def test_from_a_fresh_copy_to_a_saved_model_and_at_most_28_files(demo_run):
    assert len(list(demo_run.data_dir.rglob("*.dat"))) == 597    # missing ones were written
    folder = demo_run.model.parent
    left = [demo_run.model, demo_run.model.with_suffix(".json"),
            *(path for path in (folder / "results").rglob("*")
              if path.is_file() and "events" not in path.name)]
    assert all(path.is_file() for path in left)
    assert len(left) <= 28
    assert not [path for path in folder.iterdir() if path.name.startswith(".part")]
    assert "SYNTHETIC" in demo_run.printed


def test_a_run_prints_what_the_golden_run_printed_but_for_its_numbers(demo_run):
    own = ("using ", "results are in", "saved ", "to classify", "stopped after", "kept are",
           "expected calibration", "Brier", "temperature", "trying XLA", "8,461 parameters",
           "train: ", "validation: ", "test: ", "too few", "    ")    # may be otherwise in each run
    shapes = {golden_run.shape(line).replace("XLA off", "XLA on")
              for line in demo_run.printed.splitlines()}
    golden = golden_run.GOLDEN.read_text(encoding="utf-8").splitlines()
    missing = [line for line in golden if not line.startswith(own)
               and golden_run.shape(line) not in shapes
               and "%  " not in line    # "–" where a class is never called
               and "physical_device" not in line]    # the rest of the line of versions
    assert missing == []
    assert max(map(len, demo_run.printed.splitlines())) <= 100
    assert len(golden) > 50


def test_the_card_holds_all_that_is_needed_to_use_and_trace_the_model(demo_run):
    card = demo_run.card
    assert card["classes"] == sorted(card["classes"])
    assert card["leads"] == list(script.LEADS)
    assert [name for name, _, _ in card["features"]] == [name for name, _, _ in script.FEATURES]
    assert script.Recipe(**card["recipe"]) == script.Recipe(
        epochs=3, freeze_bn_after=25, xla=False)    # what ran
    assert card["settings"]["train_samples"] == 100
    assert card["labels_sha256"] == files.sha256(LABELS)
    assert card["model_sha256"] == files.sha256(demo_run.model)
    assert card["code_sha256"] == files.code_sha256()
    assert card["version"] == __version__
    assert card["commit"] == ""    # no repository there
    assert card["versions"]["keras"]
    assert card["synthetic"] is True
    assert [len(epochs) for epochs in card["history"]] == [3]    # one model


def test_a_model_opens_with_keras_alone_in_safe_mode_and_gives_the_same_probabilities(
        ensemble_run, tmp_path):
    """In a new process that does not import this project."""
    loaded = script.load(ensemble_run.model)
    record = next(ensemble_run.data_dir.rglob("*.hea")).with_suffix("")
    ecg, features, _ = script.prepare_record(record, recipe=loaded.recipe)
    np.savez(tmp_path / "inputs.npz", ecg[None], features[None])
    there = json.loads(python(tmp_path, f"""
import json, sys, numpy as np, keras
model = keras.models.load_model({str(ensemble_run.model)!r}, safe_mode=True)
print(json.dumps(model.predict_on_batch(list(np.load("inputs.npz").values())).tolist()))
assert "too_feature" not in sys.modules""").splitlines()[-1])
    here = loaded.model.predict_on_batch([ecg[None], features[None]])
    np.testing.assert_allclose(there, here, atol=1e-5)


def test_a_loaded_ensemble_gives_the_figures_of_its_run_again(ensemble_run):
    """So records are prepared as they were for it, whatever the defaults of today are."""
    card = ensemble_run.card
    loaded = script.load(ensemble_run.model)
    assert loaded.recipe == script.Recipe(**card["recipe"])
    members = [layer for layer in loaded.core.layers if hasattr(layer, "layers")]
    test, validation = (records_of(name, ensemble_run) for name in ("test", "validation"))
    tested = script.predict_each(members, test)
    accuracy = np.mean(tested.mean.argmax(axis=1) == test.targets)
    assert accuracy == card["metrics"]["model"]["accuracy"][0]
    each = [balanced_accuracy_score(test.targets, p.argmax(axis=1)) for p in tested.each]
    assert list(card["metrics"]["balanced accuracy of each"].values()) == pytest.approx(each)
    assert (f"single models: balanced accuracy {np.mean(each):.3f} +- "
            f"{np.std(each, ddof=1):.3f} (n = 2)" in ensemble_run.printed)

    weights = script.compute_sample_weight("balanced", validation.targets)
    for one, temperature in zip(members, card["temperature"], strict=True):
        raw = metrics.soften(script.predict(one, validation), 1 / temperature)
        fitted = metrics.fit_temperature(raw, validation.targets, weights)
        assert fitted == pytest.approx(temperature, rel=0.01)    # so the saved one is calibrated


def test_the_limits_of_the_rate_step_are_in_card_report_and_page(demo_run, ensemble_run):
    low, high = demo_run.card["rate_limits"]
    assert (low, high) == pytest.approx((60, 100), abs=3)    # by which the demo is labelled
    words = f"Rate step: bradycardia below {low:.0f} bpm here, tachycardia above {high:.0f}"
    assert words in demo_run.printed
    assert words in (demo_run.results / "index.html").read_text()
    assert ensemble_run.card["rate_limits"] == []    # by the thesis recipe
    assert "Rate step: none, as the recipe has none" in ensemble_run.printed


@pytest.mark.slow
def test_the_same_seed_gives_the_same_report_and_another_seed_another(demo_run, tmp_path):
    def tidied(text):
        """Leave out seconds, and the page that only one of the two runs draws."""
        return re.sub(r"\d+ s\n|; to look at them.+\n", "\n", text)

    def printed(seed):
        result = run_script(tmp_path, "--labels", LABELS, "--data-dir", demo_run.data_dir,
                            "--output", "my model.keras", "--seed", seed, *WITH_ALL, "--no-figures")
        assert result.returncode == 0, result.stderr
        return tidied(result.stdout)

    first = tidied(demo_run.printed)
    assert printed(42) == first
    assert printed(43) != first


# ------------------------------------------------------------------------------ external test set
def test_an_external_test_set_is_used_with_exactly_its_usable_records(
        demo_dir, tmp_path, monkeypatch, capsys, run_here):
    path = tmp_path / "other.csv"
    rows = script.read_labels(LABELS).iloc[::15]
    rows.to_csv(path, header=False, index=False)
    paths = rows["waveform_path"].tolist()
    for name in paths[1:]:    # the first is not on disk
        target = tmp_path / "theirs" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(f"{demo_dir / name}.dat", f"{target}.dat")
        header = (demo_dir / f"{name}.hea").read_text()
        swapped = header.replace(" V1\n", " V9\n").replace(" V2\n", " V1\n")
        Path(f"{target}.hea").write_text(swapped.replace(" V9\n", " V2\n"))    # no copies
    (tmp_path / "theirs" / f"{paths[1]}.dat").write_bytes(b"")

    def train(training, _validation, n_classes, settings, _folder):
        logs = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy"), 1.0)
        return script.build_model(n_classes, training, settings.recipe), 1.0, [logs]

    monkeypatch.setattr(script, "train", train)
    assert run_here("--test-labels", path, "--test-data-dir", tmp_path / "theirs",
                    "--output", "m.keras", "--sequence-length", "50") == 0
    card = card_of(tmp_path / "m.keras")
    assert card["metrics"]["records"] == len(rows) - 2 > 25    # whatever --test-samples says
    assert [name for name, why in card["left_out"] if "copy of" not in why] == [paths[1]]
    split = (tmp_path / "results/m/split.csv").read_text()
    assert split.count(",test") == len(rows)    # who is in which split, used or not
    printed = capsys.readouterr().out
    patients = rows["subject_id"][2:].nunique()
    assert f"Test on {len(rows) - 2} records of {patients} patients" in printed
    assert "kept out of training" not in printed    # other people, equal numbers
    assert "at prevalence" not in card["metrics"]    # which is that of another hospital


@pytest.mark.parametrize(("content", "words"), [
    (None, "No such file"), ("1,a,Normal\n2,b,Flutter\n", "Flutter"), ("all", "other.csv")])
def test_a_test_file_that_cannot_be_used_is_one_line_before_tensorflow_is_imported(
        content, words, tmp_path, monkeypatch, capsys, run_here):
    path = tmp_path / "other.csv"
    if content:
        path.write_text(LABELS.read_text() if content == "all" else content)
    monkeypatch.setattr(script, "load_tensorflow", lambda: pytest.fail("TensorFlow"))
    assert run_here("--test-labels", path) == 2
    line = one_line(capsys.readouterr().err)
    assert words in line
    assert str(path) in line
    assert os.listdir(tmp_path) == (["other.csv"] if content else [])    # nothing was trained


# ----------------------------------------------------------------------------------------- output
@pytest.mark.parametrize(("labels", "output", "words"), [
    ("lab.json", "lab.keras", "lab.json is read as well as written"),
    ("my.csv", "my.labels.keras", "my.labels.json is read as well as written"),
    ("results/m/split.csv", "m.keras", "lies in the results folder"),
    ("lab.json", "none/m.keras", "its folder is missing"),
    ("lab.json", "m.h5", "expected a .keras file")])
def test_an_output_that_is_an_input_or_cannot_be_written_is_refused_before_any_work(
        labels, output, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("lab.json", "my.csv", "my.labels.json"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=words):
        script.check_output(script.Settings(output=output, labels=labels))


def test_a_run_that_replaces_a_model_says_what_that_model_was(demo_run, capsys):
    script.check_output(script.Settings(output=str(demo_run.model)))
    tested = demo_run.card["metrics"]
    assert capsys.readouterr().out == (
        f"this run replaces {demo_run.model}, which reached balanced accuracy "
        f"{tested['model']['balanced accuracy'][0]:.3f} on {tested['patients']} test patients\n")


def test_the_command_that_resumes_a_run_names_its_output(monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "run", stop)
    for arguments, end in ((["--quick"], "--quick --output ecg_quick_model.keras --resume"),
                           (["--output=m.keras"], "too_feature.py --output=m.keras --resume")):
        monkeypatch.setattr(sys, "argv", ["too_feature.py"])
        with pytest.raises(KeyboardInterrupt, match=f"{end}$"):
            script.start(arguments)


def test_missing_waveforms_stop_the_run_with_one_line_that_says_how_to_fetch_them(
        tmp_path, monkeypatch, capsys):
    labels = "".join(f"{i},files/p1000/p{10000000 + i}/r{i},{'AB'[i % 2]}\n" for i in range(20))
    (tmp_path / "labels.csv").write_text(labels)
    monkeypatch.chdir(tmp_path)
    arguments = ["--labels", "labels.csv", "--data-dir", "my data"]
    monkeypatch.setattr(sys, "argv", ["too_feature.py", *arguments])
    assert script.main(arguments) == 2
    assert one_line(capsys.readouterr().err).endswith(
        "python tools/fetch_records.py --labels labels.csv --data-dir 'my data'")

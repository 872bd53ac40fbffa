"""The whole script, as a user runs it: from nothing to a saved model that a notebook can use."""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss

import too_feature as script
from ecg import files, metrics
from ecg.errors import UserError
from tests.support import golden_run
from tests.support.runs import (
    LABELS,
    ROOT,
    TINY,
    WITH_ALL,
    card_of,
    one_line,
    python,
    run_script,
)


def records_of(name, run):
    """The records of one split, as the run drew and prepared them."""
    card = run.card
    recipe = script.Recipe(**card["recipe"])
    settings = script.Settings(**{
        **card["settings"], "recipe": recipe, "data_dir": str(run.data_dir), "cache": False,
        "labels": str(LABELS)})
    splits = script.split_patients(script.read_labels(settings.labels), seed=settings.seed)
    return script.load_split(name, splits[name], card["classes"], settings)


def members_of(model):
    """The models that an ensemble averages, in their order; of another, itself."""
    keras = script.load_tensorflow()[1]
    return [layer for layer in model.layers if isinstance(layer, keras.Model)] or [model]


def in_this_process(monkeypatch, folder, demo_dir, *arguments):
    """Run the script here, in a folder; return its exit code."""
    monkeypatch.chdir(folder)
    given = ["--labels", str(LABELS), "--data-dir", str(demo_dir), *TINY, "--no-cache", *arguments]
    monkeypatch.setattr(sys, "argv", ["too_feature.py", *given])
    return script.main(given)


# --------------------------------------------------------------------------------- a finished run
def test_from_a_fresh_copy_to_a_saved_model(demo_run):
    assert len(list(demo_run.data_dir.rglob("*.dat"))) == 597    # missing ones were written
    assert {path.name for path in demo_run.model.parent.iterdir()} >= {
        "my model.keras", "my model.json", "results"}
    assert not list(demo_run.model.parent.glob("*.new"))
    assert "SYNTHETIC" in demo_run.printed


def test_the_report_is_printed_in_full(demo_run):
    for text in ("597 records of 300 patients", "tensorflow", "/physical_device:CPU:0",
                 "8,461 parameters", "epoch  1/3", "epoch  3/3", "precision", "best class",
                 "Rate rule", "Baseline: a logistic regression on the same features", "SDNN",
                 "left out: none",
                 "at the prevalence of ecg_5_class_data.csv: accuracy 0.",
                 "Atrial Fibrillation: too few validation records to choose a probability",
                 "Origin of the labels: synthetic records, not patients. This is not",
                 "THIS DATA IS SYNTHETIC", "saved my model.keras"):
        assert text in demo_run.printed
    assert re.search(r"balanced accuracy 0\.\d{3} \(95 % interval 0\.\d\d-[01]\.\d\d\)",
                     demo_run.printed)
    assert "GPU" not in demo_run.printed
    assert (demo_run.results / "report.txt").read_text() in demo_run.printed


def test_a_run_prints_what_the_golden_run_printed_but_for_its_numbers(demo_run):
    own = ("using ", "results are in", "saved ", "to classify", "best class", "stopped after",
           "expected calibration", "Brier", "temperature")    # what may be otherwise in each run
    shapes = {golden_run.shape(line).replace("XLA off", "XLA on")
              for line in demo_run.printed.splitlines()}
    golden = golden_run.GOLDEN.read_text(encoding="utf-8").splitlines()
    missing = [line for line in golden if not line.startswith(own)
               and golden_run.shape(line) not in shapes
               and "physical_device" not in line]    # the rest of the line of versions
    assert missing == []
    assert max(map(len, demo_run.printed.splitlines())) <= 100
    assert len(golden) > 50


def test_the_card_holds_all_that_is_needed_to_use_and_trace_the_model(demo_run):
    card = demo_run.card
    assert card["classes"] == sorted(card["classes"])
    assert card["leads"] == list(script.LEADS)
    assert card["sampling_rate_hz"] == 50
    assert [name for name, _, _ in card["features"]] == [name for name, _, _ in script.FEATURES]
    assert script.Recipe(**card["recipe"]) == script.Recipe(
        epochs=3, freeze_bn_after=25)    # what ran
    assert card["settings"]["train_samples"] == 100
    assert "recipe" not in card["settings"]
    assert [len(epochs) for epochs in card["history"]] == [3]    # one model
    assert card["labels_sha256"] == files.sha256(LABELS)
    assert card["model_sha256"] == files.sha256(demo_run.model)
    assert card["version"] == script.__version__
    assert card["commit"] == ""    # no repository there
    rooms = sorted((ROOT / "ecg").glob("**/*.py"))
    code = b"".join(file.read_bytes() for file in [ROOT / "too_feature.py", *rooms])
    assert card["code_sha256"] == hashlib.sha256(code).hexdigest()
    assert card["versions"]["keras"]
    assert card["synthetic"] is True
    assert len(card["temperature"]) == 1
    assert card["temperature"][0] > 0
    value, low, high = card["metrics"]["model"]["balanced accuracy"]
    assert 0 <= low <= value <= high <= 1
    assert set(card["metrics"]["calibration"]) == {"test", "at prevalence"}
    kept = card["metrics"]["accuracy at coverage"]
    assert kept["1.00"] == card["metrics"]["model"]["accuracy"][0]


def test_models_open_with_keras_alone_in_safe_mode_and_give_the_same_probabilities(
        demo_run, ensemble_run, tmp_path):
    """In a new process that does not import this project."""
    here, inputs = [], []
    for run in (demo_run, ensemble_run):
        loaded = script.load(run.model)
        record = next(demo_run.data_dir.rglob("*.hea")).with_suffix("")
        ecg, features, _ = script.prepare_record(record, recipe=loaded.recipe)
        inputs.append([ecg[None].tolist(), features[None].tolist()])
        here.append(loaded.model.predict([ecg[None], features[None]], verbose=0))
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    paths = [str(demo_run.model), str(ensemble_run.model)]
    found = json.loads(python(tmp_path, f"""
import json, sys, numpy as np, keras
found = []
for path, inputs in zip({paths}, json.load(open("inputs.json"))):
    model = keras.models.load_model(path, safe_mode=True)
    members = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    inputs = [np.array(x) for x in inputs]
    predictions = [one.predict(inputs, verbose=0) for one in [model, *members]]
    found.append([model.count_params(), np.array(predictions).tolist()])
assert "too_feature" not in sys.modules
print(json.dumps(found))""").splitlines()[-1])
    (n, (alone,)), (n_ensemble, (averaged, *each)) = found
    assert (n, n_ensemble) == (8461, 2 * 8461)
    np.testing.assert_allclose(alone, here[0], atol=1e-5)
    np.testing.assert_allclose(averaged, here[1], atol=1e-5)
    np.testing.assert_allclose(averaged, np.mean(each, axis=0), atol=1e-6)
    assert len(each) == 2
    assert not np.array_equal(*each)    # other seeds, other models


def test_a_loaded_model_gives_the_figures_of_its_run_again(any_run):
    """So records are prepared as they were for it, whatever the defaults of today are."""
    validation, test, training = (
        records_of(name, any_run) for name in ("validation", "test", "train"))
    loaded = script.load(any_run.model)
    assert loaded.recipe == script.Recipe(**any_run.card["recipe"])
    models = members_of(loaded.model)
    baseline = script.fit_baseline(training, len(loaded.classes), loaded.recipe)
    shares = script.read_labels(LABELS)["ecg_category"].value_counts(normalize=True)
    text, figures = script.evaluate(
        script.predict_each(models, validation), script.predict_each(models, test),
        any_run.card["temperature"], loaded.classes, shares[loaded.classes].to_numpy(),
        baseline.predict(test.features), LABELS.name)
    expected = any_run.card["metrics"]
    for name in ("model", "rate rule", "logistic regression", "per class", "thresholds"):
        assert figures[name] == expected[name]
    assert figures["confidence"] == pytest.approx(expected["confidence"], abs=1e-5)
    for when in ("before", "after"):
        for where in ("test", "at prevalence"):
            brier = [x["calibration"][where][when]["Brier score"] for x in (figures, expected)]
            assert brier[0] == pytest.approx(brier[1], abs=1e-4)
    for line in text.splitlines():
        if line.startswith(("accuracy 0", "balanced accuracy 0")):
            assert line in any_run.printed


def test_one_record_is_prepared_as_those_of_the_run(any_run):
    records = records_of("test", any_run)
    for i in (0, 1):
        path = records.rows["waveform_path"][i]
        ecg, features, _ = script.prepare_record(
            any_run.data_dir / path, recipe=script.load(any_run.model).recipe)
        np.testing.assert_array_equal(ecg, records.signals[i])
        np.testing.assert_array_equal(features, records.features[i])


def test_repeats_report_the_mean_and_deviation_of_the_models_alone(ensemble_run):
    records = records_of("test", ensemble_run)
    model = script.load(ensemble_run.model).model
    each = [balanced_accuracy_score(records.targets, script.predict(one, records).argmax(axis=1))
            for one in members_of(model)]
    card = ensemble_run.card
    assert len(each) == len(card["temperature"]) == len(card["history"]) == 2
    assert card["metrics"]["balanced accuracy of each"] == pytest.approx(each)
    assert (f"balanced accuracy {np.mean(each):.3f} +- {np.std(each, ddof=1):.3f}\n"
            in ensemble_run.printed)


def test_saved_models_are_calibrated_and_the_card_says_by_what_temperature(any_run):
    card = any_run.card
    records = records_of("validation", any_run)
    weights = script.compute_sample_weight("balanced", records.targets)
    models = members_of(script.load(any_run.model).model)
    for one, temperature, history in zip(models, card["temperature"], card["history"], strict=True):
        raw = metrics.soften(script.predict(one, records), 1 / temperature)
        found = metrics.fit_temperature(raw, records.targets, weights)
        assert found == pytest.approx(temperature, rel=0.01)
        best = max(history, key=lambda epoch: epoch["val_accuracy"])
        kept = {"last": history[-1], "best": best}[card["recipe"]["keep_weights"]]
        loss = log_loss(records.targets, raw, sample_weight=weights, labels=range(5))
        assert loss == pytest.approx(kept["val_loss"], abs=1e-3)    # so training's were the raw


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


def test_seeds_of_repeats_follow_the_seed_and_start_again_after_the_last(
        monkeypatch, demo_dir, tmp_path):
    seeds = []

    def train(_training, _validation, _n, settings, folder):
        seeds.append((settings.seed, folder.name))
        if len(seeds) == 3:
            raise UserError("far enough")
        return None, 1.0, []

    monkeypatch.setattr(script, "train", train)
    assert in_this_process(monkeypatch, tmp_path, demo_dir, "--seed", str(2**32 - 2),
                           "--repeats", "3", "--jobs", "1") == 2
    assert seeds == [(2**32 - 2, "0"), (2**32 - 1, "1"), (0, "2")]


# ------------------------------------------------------------------------ tests of other hospitals
def some_records(folder, n=40):
    """Write a label file of some of the demo's records; return its path and its rows."""
    rows = script.read_labels(LABELS).iloc[::597 // n]
    rows.to_csv(folder / "other.csv", header=False, index=False)
    return folder / "other.csv", rows


def leave_one_lead_flat(record):
    """Set the first lead of a record of the demo to zero, and its checksum."""
    signal = np.fromfile(f"{record}.dat", "<i2").reshape(-1, 12)
    signal[:, 0] = 0
    signal.tofile(f"{record}.dat")
    header = record.with_name(f"{record.name}.hea")
    header.write_text(re.sub(r"-?\d+ 0 I$", "0 0 I", header.read_text(), flags=re.MULTILINE))


def test_another_hospital_is_tested_on_exactly_the_usable_records_of_its_file(
        demo_dir, tmp_path, monkeypatch, capsys):
    path, rows = some_records(tmp_path)
    paths = rows["waveform_path"].tolist()
    for name in paths[1:]:    # the first is not on disk
        target = tmp_path / "theirs" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(f"{demo_dir / name}.dat", f"{target}.dat")
        header = (demo_dir / f"{name}.hea").read_text()
        swapped = header.replace(" V1\n", " V9\n").replace(" V2\n", " V1\n")
        Path(f"{target}.hea").write_text(swapped.replace(" V9\n", " V2\n"))    # no copies
    (tmp_path / "theirs" / f"{paths[1]}.dat").write_bytes(b"")
    leave_one_lead_flat(tmp_path / "theirs" / paths[2])

    def train(training, _validation, n_classes, settings, _folder):
        logs = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy"), 1.0)
        return script.build_model(n_classes, training, settings.recipe), 1.0, [logs]

    monkeypatch.setattr(script, "train", train)
    theirs = str(tmp_path / "theirs")
    assert in_this_process(
        monkeypatch, tmp_path, demo_dir, "--test-labels", str(path), "--test-data-dir", theirs,
        "--output", "m.keras", "--sequence-length", "50") == 0
    card = card_of(tmp_path / "m.keras")
    assert card["metrics"]["records"] == len(rows) - 2 > 25    # whatever --test-samples says
    assert [name for name, why in card["left_out"] if "copy of" not in why] == [paths[1]]
    assert [name for name, why in card["unusual"] if why == "flat lead"] == [paths[2]]
    assert [card["settings"][name] for name in ("test_labels", "test_data_dir")] == [
        str(path), theirs]
    split = (tmp_path / "results/m/split.csv").read_text()
    tested = [line for line in split.splitlines() if ",test" in line]
    assert len(tested) == len(rows)    # who is in which split, used or not
    printed = capsys.readouterr().out
    assert "\nused although unusual: flat lead (1), gaps (" in printed
    patients = rows["subject_id"][2:].nunique()
    assert f"Test on {len(rows) - 2} records of {patients} patients" in printed
    assert "kept out of training" not in printed    # other people, equal numbers
    assert "at the class shares of" not in printed    # which are those of another hospital


@pytest.mark.parametrize("how", ["unnamed", "named", "linked", "above", "other"])
def test_a_test_files_patients_leave_training_only_where_the_folders_are_of_one_tree(
        how, demo_dir, tmp_path, monkeypatch, capsys):
    parts = {}

    def listening(name, labels, *_):
        parts[name] = labels
        if len(parts) == 3:
            raise UserError("far enough")

    monkeypatch.setattr(script, "load_split", listening)
    monkeypatch.setattr(script, "ensure_demo", lambda *_: False)
    data, link = tmp_path / "data", tmp_path / "link"
    data.mkdir()
    link.symlink_to(data)
    path, rows = some_records(tmp_path)
    folder = {"unnamed": "", "named": f"{data}/", "linked": str(link), "above": str(tmp_path),
              "other": str(tmp_path / "other")}[how]
    everyone = script.read_labels(LABELS)
    own = script.split_patients(everyone)
    assert in_this_process(monkeypatch, tmp_path, data, "--test-labels", str(path),
                           "--test-data-dir", folder) == 2
    kept = [set(parts[name]["waveform_path"]) for name in ("train", "validation")]
    all_of = [set(own["train"]["waveform_path"]) | set(own["test"]["waveform_path"]),
              set(own["validation"]["waveform_path"])]
    gone = set() if how == "other" else set(rows["subject_id"])
    assert kept == [{path for path in paths if int(path.split("/")[2][1:]) not in gone}
                    for paths in all_of]
    assert set(parts["test"]["waveform_path"]) == set(rows["waveform_path"])
    theirs = everyone["subject_id"].isin(gone).sum()
    notice = f"notice: {theirs} records of patients in the test file are kept out of training"
    assert (notice in capsys.readouterr().out) == (how != "other")


@pytest.mark.parametrize(("content", "words"), [
    (None, "No such file"), ("1,a,Normal\n2,b,Flutter\n3,c,Unheard Of\n", "Flutter, Unheard Of"),
    ("1,a,Normal\n2,../b,Tachycardia\n", "line 2"), ("1,a,Normal\n", "2 to 100 classes"),
    ("all", "other.csv"), ("all of a class", "Normal")])
def test_a_test_file_that_cannot_be_used_is_one_line_before_tensorflow_is_imported(
        content, words, demo_dir, tmp_path, monkeypatch, capsys):
    path, everyone = tmp_path / "other.csv", LABELS.read_text()
    if content == "all of a class":
        content = "".join(line for line in everyone.splitlines(True) if "Normal" in line)
        content += next(line for line in everyone.splitlines(True) if "Tachycardia" in line)
    if content:
        path.write_text(everyone if content == "all" else content)
    monkeypatch.setattr(script, "load_tensorflow", lambda: pytest.fail("TensorFlow"))
    assert in_this_process(monkeypatch, tmp_path, demo_dir, "--test-labels", str(path)) == 2
    line = one_line(capsys.readouterr().err)
    assert words in line
    assert str(path) in line
    assert os.listdir(tmp_path) == (["other.csv"] if content else [])    # nothing was trained


# ------------------------------------------------------------------------------------------ faults
@pytest.mark.slow
def test_damaged_records_are_replaced_counted_and_listed(demo_dir, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(demo_dir, data)
    headers = sorted(data.rglob("*.hea"))
    for i, header in enumerate(headers[::15]):
        if i % 2:
            header.with_suffix(".dat").write_bytes(b"")
        else:
            header.with_suffix(".dat").unlink()
    result = run_script(tmp_path, "--labels", LABELS, "--data-dir", data, "--output", "m.keras",
                        "--train-samples", "1500", "--epochs", "1", "--set", "xla=false",
                        "--batch-size", "50")
    assert result.returncode == 0, result.stderr
    assert len(card_of(tmp_path / "m.keras")["left_out"]) == len(headers[::15])
    assert "left out: file is cut short (20), file is missing (20)" in result.stdout


def test_missing_waveforms_stop_the_run_with_one_line_that_says_how_to_fetch_them(
        tmp_path, monkeypatch, capsys):
    labels = "".join(f"{i},files/p1000/p{10000000 + i}/r{i},{'AB'[i % 2]}\n" for i in range(20))
    (tmp_path / "labels.csv").write_text(labels)
    monkeypatch.chdir(tmp_path)
    arguments = ["--labels", "labels.csv", "--data-dir", "my data"]
    monkeypatch.setattr(sys, "argv", ["too_feature.py", *arguments])
    assert script.main(arguments) == 2
    printed = capsys.readouterr()
    assert "notice: test: 3 of 3 records that were drawn are not on disk" in printed.out
    assert one_line(printed.err).endswith(
        "python tools/fetch_records.py --labels labels.csv --data-dir 'my data'")


def test_the_script_runs_by_a_link_of_another_name(tmp_path):
    (tmp_path / "a link.py").symlink_to(ROOT / "too_feature.py")
    result = run_script(tmp_path, "--labels", "none.csv", program="a link.py")
    assert result.returncode == 2
    assert result.stderr.startswith("too_feature.py: error: none.csv")

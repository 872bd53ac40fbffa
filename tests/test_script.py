"""The whole script, as a user runs it: from nothing to a saved model that a notebook can use."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import too_feature
from tools import classify

ROOT = Path(too_feature.__file__).parent
report = too_feature.tool("report")
TINY = ["--train-samples", "40", "--val-samples", "25", "--test-samples", "25", "--epochs", "2",
        "--no-jit", "--no-figures"]


def run_script(folder, *arguments, script=ROOT / "too_feature.py"):
    return subprocess.run([sys.executable, str(script), *arguments], cwd=folder, timeout=500,
                          capture_output=True, text=True)


def python(folder, code):
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True,
                            text=True, timeout=200,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    return result.stdout


def value_of(card, name):
    return card["metrics"]["model"][name][0]


def records_of(name, card, data_dir):
    """The records of one split, as the run that wrote this card drew and prepared them."""
    settings = too_feature.Settings(**{**card["settings"], "data_dir": str(data_dir)})
    splits = too_feature.split_patients(too_feature.read_labels(settings.labels),
                                        seed=settings.seed)
    return too_feature.load_split(name, splits[name], card["classes"], settings, [])


def finished(folder, demo_dir, *arguments):
    """Run the script on the demo; return its folder, its card and what it printed."""
    result = run_script(folder, "--labels", str(ROOT / "ecg_5_class_data.csv"), "--data-dir",
                        str(demo_dir), "--output", "model.keras", *TINY, *arguments)
    assert result.returncode == 0, result.stderr
    return folder, json.loads((folder / "model.json").read_text()), result.stdout


@pytest.fixture(scope="module")
def thesis_run(demo_dir, tmp_path_factory):
    """A finished tiny ensemble by the thesis recipe, which prepares records in another way."""
    return finished(tmp_path_factory.mktemp("thesis"), demo_dir, "--recipe", "thesis",
                    "--repeats", "2", "--epochs", "3")


@pytest.fixture(scope="module")
def demo_run(demo_dir, tmp_path_factory):
    """A finished tiny run: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    result = run_script(folder, "--labels", str(ROOT / "ecg_5_class_data.csv"), "--data-dir",
                        str(demo_dir), "--output", "model.keras", *TINY)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_from_nothing_to_a_saved_model(tmp_path):
    """A fresh copy, as after git clone, with nothing but what is committed."""
    (tmp_path / "tools").mkdir()
    for name in ("too_feature.py", "ecg_5_class_data.csv", "tools/make_demo.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    result = run_script(tmp_path, *TINY, script="too_feature.py")
    assert result.returncode == 0, result.stderr
    assert "SYNTHETIC" in result.stdout
    assert len(list((tmp_path / "mimic-iv-ecg/demo").rglob("*.dat"))) > 500
    printed = python(tmp_path, "import keras\n"
                     "m = keras.models.load_model('ecg_stable_lstm_model.keras')\n"
                     "print(m.count_params())")
    assert printed.split()[-1] == "8461"


def test_report_is_printed_in_full(demo_run):
    printed = demo_run[1]
    for text in ("597 records of 300 patients", "tensorflow", "/physical_device:CPU:0",
                 "8,461 parameters", "epoch  1/2", "epoch  2/2", "precision", "best class",
                 "rate rule", "at the label file's own class shares", "SDNN", "left out: none",
                 "The labels are machine reads", "THIS DATA IS SYNTHETIC", "saved model.keras"):
        assert text in printed
    assert re.search(r"balanced accuracy 0\.\d{3} \(95 % interval 0\.\d\d-[01]\.\d\d\)", printed)
    assert "GPU" not in printed


def test_card_holds_all_that_is_needed_to_use_the_model(demo_run):
    card = json.loads((demo_run[0] / "model.json").read_text())
    assert card["classes"] == sorted(card["classes"])
    assert card["leads"] == list(too_feature.LEADS)
    assert card["sampling_rate_hz"] == 50
    assert [feature[0] for feature in card["features"]][4:] == ["heart rate", "SDNN", "RMSSD",
                                                                "CV_RR"]
    assert card["settings"]["epochs"] == 2
    assert card["labels_sha256"] == too_feature.sha256(ROOT / "ecg_5_class_data.csv")
    assert card["model_sha256"] == too_feature.sha256(demo_run[0] / "model.keras")
    assert card["versions"]["keras"]
    assert card["synthetic"] is True
    value, low, high = card["metrics"]["model"]["balanced accuracy"]
    assert 0 <= low <= value <= high <= 1
    assert [len(epochs) for epochs in card["history"]] == [2]    # one model
    assert set(too_feature.PREPARATION) < set(card["settings"])
    assert len(card["temperature"]) == 1
    assert card["temperature"][0] > 0
    assert set(card["metrics"]["calibration"]) == {"test", "at label shares"}
    assert card["metrics"]["accuracy by share kept"]["1.00"] == value_of(card, "accuracy")


def test_model_opens_in_a_fresh_process_in_safe_mode_and_gives_the_same_probabilities(
        demo_run, demo_dir):
    record = next(demo_dir.rglob("*.hea")).with_suffix("")
    here = classify.classify_record(record, demo_run[0] / "model.keras")
    assert sum(here.values()) == pytest.approx(1, abs=1e-5)
    printed = python(demo_run[0], f"""
import json, numpy as np, keras
from too_feature import prepare_record
model = keras.models.load_model('model.keras', safe_mode=True)
signal, features = prepare_record({str(record)!r})
classes = json.load(open('model.json'))['classes']
out = model.predict([signal[None], features[None]], verbose=0)[0]
print(json.dumps(dict(zip(classes, out.tolist()))))""")
    assert json.loads(printed.splitlines()[-1]) == pytest.approx(here, abs=1e-5)


@pytest.mark.slow
def test_same_seed_gives_the_same_report_and_another_seed_another(demo_run, demo_dir, tmp_path):
    def printed(seed):
        result = run_script(tmp_path, "--labels", str(ROOT / "ecg_5_class_data.csv"), "--data-dir",
                            str(demo_dir), "--output", "model.keras", "--seed", seed, *TINY)
        assert result.returncode == 0, result.stderr
        return re.sub(r"\d+ s\n", "\n", result.stdout)

    first = re.sub(r"\d+ s\n", "\n", demo_run[1])
    assert printed("42") == first
    assert printed("43") != first


def test_compiled_and_plain_steps_learn_the_same():
    """XLA changes the speed only; without dropout, whose random numbers differ, weights agree."""
    _, keras = too_feature.load_tensorflow()
    ends = []
    for jit in (True, False):
        keras.utils.set_random_seed(0)
        config = too_feature.create_lightweight_lstm_model(5, 50).get_config()
        for layer in config["layers"]:
            rates = {"rate", "dropout"} & set(layer["config"])
            layer["config"].update(dict.fromkeys(rates, 0.0))
        model = keras.Model.from_config(config)
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=jit)
        rng = np.random.default_rng(0)
        for _ in range(3):
            model.train_on_batch([rng.normal(size=(4, 50, 12)), rng.normal(size=(4, 8))],
                                 np.arange(4))
        ends.append(model.get_weights())
    for compiled, plain in zip(*ends, strict=True):
        np.testing.assert_allclose(compiled, plain, atol=1e-4)


def balanced_accuracy(model, records):
    predicted = model.predict([records.signals[:], records.features], verbose=0).argmax(axis=1)
    return np.mean([np.mean(predicted[records.targets == k] == k) for k in range(5)])


def members_of(model):
    """The models that an ensemble averages, in their order."""
    keras = too_feature.load_tensorflow()[1]
    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


def test_best_weights_are_kept_if_asked_and_the_temperature_goes_into_the_last_layer(monkeypatch):
    """Told by the validation accuracy, in training on what can only be learnt by heart."""
    rng, given = np.random.default_rng(0), []
    training, validation = (too_feature.Records(
        None, rng.normal(size=(n, 50, 12)).astype(np.float32),
        rng.normal(size=(n, 8)).astype(np.float32), np.arange(n) % 5) for n in (40, 200))
    settings = too_feature.Settings(keep="best", jit=False, epochs=12, stop_patience=4,
                                    batch_size=20, learning_rate=0.02, sequence_length=50)
    monkeypatch.setattr(report, "fit_temperature", lambda *them: given.append(them) or 3.0)
    model, temperature, history = too_feature.train(training, validation, 5, settings)
    accuracy = [epoch["val_accuracy"] for epoch in history]
    assert accuracy[-1] < max(accuracy) - 0.002    # else this would prove nothing
    assert len(accuracy) == 1 + 4 + np.argmax(accuracy) or len(accuracy) == 12    # patience
    assert balanced_accuracy(model, validation) == pytest.approx(max(accuracy), abs=1e-3)
    ((raw, targets, weights),) = given
    assert temperature == 3.0
    assert targets is validation.targets
    np.testing.assert_allclose(weights, 1)    # equal classes
    calibrated = model.predict([validation.signals[:], validation.features], verbose=0)
    np.testing.assert_allclose(calibrated, report.soften(raw, 3.0), atol=1e-5)
    assert model.count_params() == 8461


def test_best_weights_are_those_of_the_best_epoch_of_each_model(thesis_run, demo_dir):
    folder, card, _ = thesis_run
    assert card["settings"]["keep"] == "best"
    records = records_of("validation", card, demo_dir)
    members = members_of(too_feature.load_tensorflow()[1].models.load_model(folder / "model.keras"))
    for member, history in zip(members, card["history"], strict=True):
        best = max(epoch["val_accuracy"] for epoch in history)
        assert balanced_accuracy(member, records) == pytest.approx(best, abs=1e-3)


# ------------------------------------------------------------------------- recipes and ensembles
def test_an_ensemble_opens_with_keras_alone_in_safe_mode_and_averages_its_members(thesis_run):
    folder, card, _ = thesis_run
    printed = python(folder, """
import json, numpy as np, keras
model = keras.models.load_model('model.keras', safe_mode=True)
members = [layer for layer in model.layers if isinstance(layer, keras.Model)]
rng = np.random.default_rng(0)
inputs = [rng.normal(size=(9, 500, 12)), rng.normal(50, 30, (9, 8))]
each = [member.predict(inputs, verbose=0) for member in members]
print(json.dumps([model.predict(inputs, verbose=0).tolist(), np.array(each).tolist(),
                  model.count_params()]))""")
    whole, each, parameters = json.loads(printed.splitlines()[-1])
    assert len(each) == len(card["temperature"]) == len(card["history"]) == 2
    assert parameters == 2 * 8461
    assert not np.allclose(*each, atol=1e-3)    # other seeds, other models
    np.testing.assert_allclose(whole, np.mean(each, axis=0), atol=1e-6)


def test_repeats_report_the_mean_and_deviation_of_the_models_alone(thesis_run, demo_dir):
    folder, card, printed = thesis_run
    records = records_of("test", card, demo_dir)
    model = too_feature.load_tensorflow()[1].models.load_model(folder / "model.keras")
    each = [balanced_accuracy(member, records) for member in members_of(model)]
    assert card["metrics"]["balanced accuracy of each"] == pytest.approx(each)
    assert (f"balanced accuracy {np.mean(each):.3f} +- {np.std(each, ddof=1):.3f}\n") in printed
    assert value_of(card, "balanced accuracy") == pytest.approx(balanced_accuracy(model, records))


@pytest.mark.parametrize("recipe", ["default", "thesis"])
def test_classify_record_prepares_a_record_as_its_models_run_did(recipe, request, demo_dir):
    """So the run's own figures come out again, whatever the defaults of today are."""
    folder = request.getfixturevalue("demo_run" if recipe == "default" else "thesis_run")[0]
    card = json.loads((folder / "model.json").read_text())
    assert card["settings"]["recipe"] == recipe
    assert card["settings"]["central_share"] == (0.99 if recipe == "default" else 0.5)
    records = records_of("test", card, demo_dir)
    model = too_feature.load_tensorflow()[1].models.load_model(folder / "model.keras")
    expected = model.predict([records.signals[:], records.features], verbose=0)
    assert np.mean(expected.argmax(axis=1) == records.targets) == value_of(card, "accuracy")
    assert [expected.max(axis=1).mean(), expected.max(axis=1).std()] == pytest.approx(
        card["metrics"]["confidence"], abs=1e-5)
    for i in (0, 1):
        found = classify.classify_record(demo_dir / records.rows["waveform_path"][i],
                                         folder / "model.keras")
        assert found == pytest.approx(dict(zip(card["classes"], expected[i], strict=True)),
                                      abs=1e-5)


@pytest.mark.parametrize("run", ["demo_run", "thesis_run"])
def test_the_saved_model_is_calibrated_and_its_card_says_by_what_temperature(
        run, request, demo_dir):
    folder = request.getfixturevalue(run)[0]
    card = json.loads((folder / "model.json").read_text())
    model = too_feature.load_tensorflow()[1].models.load_model(folder / "model.keras")
    records = records_of("validation", card, demo_dir)
    weights = too_feature.compute_sample_weight("balanced", records.targets)
    models = members_of(model) or [model]
    for one, temperature, history in zip(models, card["temperature"], card["history"], strict=True):
        saved = one.predict([records.signals[:], records.features], verbose=0)
        raw = report.soften(saved, 1 / temperature)
        assert report.fit_temperature(raw, records.targets, weights) == pytest.approx(
            temperature, rel=0.01)
        kept = (history[-1] if card["settings"]["keep"] == "last" else
                max(history, key=lambda epoch: epoch["val_accuracy"]))
        loss = report.log_loss(records.targets, raw, sample_weight=weights, labels=range(5))
        assert loss == pytest.approx(kept["val_loss"], abs=1e-3)    # so training's were the raw
        assert abs(temperature - 1) > 0.05    # else this would prove nothing
    records = records_of("test", card, demo_dir)
    inputs = [records.signals[:], records.features]
    after = np.mean([one.predict(inputs, verbose=0) for one in models], axis=0)
    before = np.mean([report.soften(one.predict(inputs, verbose=0), 1 / t)
                      for one, t in zip(models, card["temperature"], strict=True)], axis=0)
    found = card["metrics"]["calibration"]["test"]
    for when, p in (("before", before), ("after", after)):
        expected = report.calibration(p, records.targets)
        assert found[when]["Brier score"] == pytest.approx(expected["Brier score"], abs=1e-4)
        name = "expected calibration error"    # a confidence may lie at the edge of two bins
        assert found[when][name] == pytest.approx(expected[name], abs=0.02)


def test_seeds_of_repeats_follow_the_seed_and_start_again_after_the_last(
        monkeypatch, demo_dir, tmp_path):
    seeds = []

    def train(_training, _validation, _n, settings, folder):
        seeds.append((settings.seed, folder.name))
        if len(seeds) == 3:
            raise too_feature.UserError("far enough")
        return None, 1.0, []

    monkeypatch.setattr(too_feature, "train", train)
    monkeypatch.chdir(tmp_path)
    assert too_feature.main(["--labels", str(ROOT / "ecg_5_class_data.csv"), "--data-dir",
                             str(demo_dir), *TINY, "--seed", str(2**32 - 2),
                             "--repeats", "3"]) == 2
    assert seeds == [(2**32 - 2, "0"), (2**32 - 1, "1"), (0, "2")]


# ------------------------------------------------------------------------ tests of other hospitals
def some_records(folder, n=40):
    """Write a label file of some of the demo's records; return its path and its rows."""
    rows = too_feature.read_labels(ROOT / "ecg_5_class_data.csv").iloc[::597 // n]
    rows.to_csv(folder / "other.csv", header=False, index=False)
    return folder / "other.csv", rows


def run_here(monkeypatch, demo_dir, output, *arguments):
    """Run in this process; return the rows of each split and the card."""
    splits, load_split = {}, too_feature.load_split

    def listening(name, *more):
        splits[name] = load_split(name, *more)
        return splits[name]

    monkeypatch.setattr(too_feature, "load_split", listening)
    code = too_feature.main(["--labels", str(ROOT / "ecg_5_class_data.csv"), "--data-dir",
                             str(demo_dir), "--output", str(output), "--results",
                             str(output.parent / "results"), *TINY, "--epochs", "1", *arguments])
    assert code == 0
    return {name: one.rows for name, one in splits.items()}, json.loads(
        output.with_suffix(".json").read_text())


def test_patients_of_a_test_file_in_the_same_folder_are_never_trained_on(
        demo_dir, tmp_path, monkeypatch, capsys):
    path, rows = some_records(tmp_path)
    splits, card = run_here(monkeypatch, demo_dir, tmp_path / "m.keras", "--test-labels", str(path))
    assert set(splits["test"]["waveform_path"]) == set(rows["waveform_path"])
    assert len(splits["test"]) == len(rows) == card["metrics"]["records"] > 40    # whatever TINY
    for name in ("train", "validation"):
        assert not set(splits[name]["subject_id"]) & set(rows["subject_id"])
    everyone = too_feature.read_labels(ROOT / "ecg_5_class_data.csv")
    theirs = everyone["subject_id"].isin(rows["subject_id"]).sum()
    printed = capsys.readouterr().out
    assert f"notice: {theirs} records of patients in the test file are kept out of" in printed
    assert f"Test on {len(rows)} records of {rows['subject_id'].nunique()} patients" in printed


def test_another_hospital_is_tested_on_exactly_the_usable_records_of_its_file(
        demo_dir, tmp_path, monkeypatch, capsys):
    path, rows = some_records(tmp_path)
    rows = rows.reset_index(drop=True)
    for name in rows["waveform_path"][1:]:    # the first is not on disk
        target = tmp_path / "theirs" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        for end in (".hea", ".dat"):
            shutil.copy(f"{demo_dir / name}{end}", f"{target}{end}")
    (tmp_path / "theirs" / f"{rows['waveform_path'][1]}.dat").write_bytes(b"")
    splits, card = run_here(monkeypatch, demo_dir, tmp_path / "m.keras", "--test-labels", str(path),
                          "--test-data-dir", str(tmp_path / "theirs"))
    assert sorted(splits["test"]["waveform_path"]) == sorted(rows["waveform_path"][2:])
    assert card["metrics"]["records"] == len(rows) - 2
    assert [name for name, _ in card["left_out"]] == [rows["waveform_path"][1]]
    assert [card["settings"][name] for name in ("test_labels", "test_data_dir")] == [
        str(path), str(tmp_path / "theirs")]
    assert "kept out of training" not in capsys.readouterr().out    # other people, equal numbers


@pytest.mark.parametrize("how", ["unnamed", "named", "linked", "above", "other"])
def test_a_test_files_patients_leave_training_only_where_the_folders_are_of_one_tree(
        how, demo_dir, tmp_path, monkeypatch):
    parts = {}

    def listening(name, labels, *_):
        parts[name] = labels
        if len(parts) == 3:
            raise too_feature.UserError("far enough")

    monkeypatch.setattr(too_feature, "load_split", listening)
    monkeypatch.setattr(too_feature, "ensure_demo", lambda *_: False)
    data, link = tmp_path / "data", tmp_path / "link"
    data.mkdir()
    link.symlink_to(data)
    path, rows = some_records(tmp_path)
    folder = {"unnamed": "", "named": f"{data}/", "linked": str(link), "above": str(tmp_path),
              "other": str(tmp_path / "other")}[how]
    own = too_feature.split_patients(too_feature.read_labels(ROOT / "ecg_5_class_data.csv"))
    assert too_feature.main([
        "--labels", str(ROOT / "ecg_5_class_data.csv"), "--data-dir", str(data), "--test-labels",
        str(path), "--test-data-dir", folder, "--output", str(tmp_path / "m.keras")]) == 2
    kept = [set(parts[name]["waveform_path"]) for name in ("train", "validation")]
    all_of = [set(own["train"]["waveform_path"]) | set(own["test"]["waveform_path"]),
              set(own["validation"]["waveform_path"])]
    gone = set() if how == "other" else set(rows["subject_id"])
    assert kept == [{path for path in paths if int(path.split("/")[2][1:]) not in gone}
                    for paths in all_of]
    assert set(parts["test"]["waveform_path"]) == set(rows["waveform_path"])


@pytest.mark.parametrize(("content", "words"), [
    (None, "No such file"), ("1,a,Normal\n2,b,Flutter\n3,c,Unheard Of\n", "Flutter, Unheard Of"),
    ("1,a,Normal\n2,../b,Tachycardia\n", "line 2"), ("1,a,Normal\n", "2 to 100 classes"),
    ("all", "other.csv"), ("all of a class", "Normal")])
def test_a_test_file_that_cannot_be_used_is_one_line_and_exit_code_2(content, words, demo_dir,
                                                                     tmp_path):
    path, everyone = tmp_path / "other.csv", (ROOT / "ecg_5_class_data.csv").read_text()
    if content == "all of a class":
        content = "".join(line for line in everyone.splitlines(True) if "Normal" in line)
        content += next(line for line in everyone.splitlines(True) if "Tachycardia" in line)
    if content:
        path.write_text(everyone if content == "all" else content)
    result = run_script(tmp_path, "--labels", str(ROOT / "ecg_5_class_data.csv"), "--data-dir",
                        str(demo_dir), "--test-labels", str(path), *TINY)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert words in result.stderr
    assert str(path) in result.stderr
    assert os.listdir(tmp_path) == (["other.csv"] if content else [])    # and nothing was trained


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
    result = run_script(tmp_path, "--labels", str(ROOT / "ecg_5_class_data.csv"), "--data-dir",
                        str(data), "--output", "m.keras", "--train-samples", "1500", "--epochs",
                        "1", "--no-jit", "--batch-size", "50")
    assert result.returncode == 0, result.stderr
    left_out = json.loads((tmp_path / "m.json").read_text())["left_out"]
    assert len(left_out) == len(headers[::15])
    assert "left out: file is cut short (20), file is missing (20)" in result.stdout


def test_missing_waveforms_stop_the_run_with_one_line(tmp_path):
    labels = "".join(f"{i},files/p{i}/r{i},{'AB'[i % 2]}\n" for i in range(20))
    (tmp_path / "labels.csv").write_text(labels)
    result = run_script(tmp_path, "--labels", "labels.csv", "--data-dir", "my data")
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]    # TensorFlow may have said something before
    assert "Traceback" not in result.stderr
    assert "notice: train draws from 0 records" in result.stdout
    assert last.endswith("python tools/fetch_records.py --labels labels.csv --data-dir 'my data'")


def test_script_alone_says_what_is_missing_for_the_demo(tmp_path):
    shutil.copy(ROOT / "too_feature.py", tmp_path)
    shutil.copy(ROOT / "ecg_5_class_data.csv", tmp_path)
    result = run_script(tmp_path, script="too_feature.py")
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "make_demo.py" in result.stderr


@pytest.mark.parametrize(("flags", "missing"), [
    (["--repeats", "2"], "extras"), (["--resume"], "results"), (["--tensorboard"], "results"),
    (["--recipe", "best"], "recipes"), (["--model", "large"], "recipes")])
def test_script_alone_refuses_at_once_what_it_cannot_do_without_tools(flags, missing, tmp_path):
    shutil.copy(ROOT / "too_feature.py", tmp_path)
    result = run_script(tmp_path, *flags, script="too_feature.py")
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert f"tools/{missing}.py is missing" in result.stderr


def test_a_failed_write_leaves_the_older_model_whole(tmp_path):
    model = tmp_path / "model.keras"
    model.write_text("older")

    def fail(scratch):
        scratch.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(too_feature.UserError, match="No space left"):
        too_feature.write_whole(model, fail)
    assert model.read_text() == "older"
    assert os.listdir(tmp_path) == ["model.keras"]


@pytest.mark.parametrize("damage", ["no model", "no json", "truncated", "other json", "text",
                                    *too_feature.PREPARATION, "no settings", "wrong settings"])
def test_models_not_to_be_trusted_are_refused_in_one_line(damage, demo_run, demo_dir, tmp_path):
    for name in ("model.keras", "model.json"):
        shutil.copy(demo_run[0] / name, tmp_path)
    model, card = tmp_path / "model.keras", tmp_path / "model.json"
    if damage == "no model":
        model.unlink()
    elif damage == "no json":
        card.unlink()
    elif damage == "truncated":
        model.write_bytes(model.read_bytes()[:1000])
    elif damage == "other json":
        card.write_text(json.dumps(json.loads(card.read_text()) | {"model_sha256": "0" * 64}))
    elif damage in (*too_feature.PREPARATION, "no settings", "wrong settings"):
        changed = json.loads(card.read_text())    # such as one of an older version
        if damage == "no settings":
            del changed["settings"]
        elif damage == "wrong settings":
            changed["settings"]["span"] = "wide"
        else:
            del changed["settings"][damage]
        card.write_text(json.dumps(changed))
    else:
        model.write_text("not a model")
        card.write_text(json.dumps(json.loads(card.read_text())
                                   | {"model_sha256": too_feature.sha256(model)}))
    with pytest.raises(too_feature.UserError) as error:
        classify.classify_record(next(demo_dir.rglob("*.hea")), model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a link.py", "copy (1).py"])
def test_the_script_runs_under_another_name(name, tmp_path):
    other = tmp_path / name
    if "link" in name:
        other.symlink_to(Path(too_feature.__file__))
    else:
        shutil.copy(too_feature.__file__, other)
    done = subprocess.run([sys.executable, "-P"[:2 * (sys.version_info >= (3, 11))] or "-B", other,
                           "--labels", "none.csv"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("too_feature.py: error: none.csv")

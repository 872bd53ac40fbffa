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

ROOT = Path(too_feature.__file__).parent
TINY = ["--train-samples", "40", "--val-samples", "25", "--test-samples", "25", "--epochs", "2",
        "--no-jit"]


def run_script(folder, *arguments, script=ROOT / "too_feature.py"):
    return subprocess.run([sys.executable, str(script), *arguments], cwd=folder, timeout=500,
                          capture_output=True, text=True)


def python(folder, code):
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True,
                            text=True, timeout=200,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    return result.stdout


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
    assert len(card["history"]) == 2


def test_model_opens_in_a_fresh_process_in_safe_mode_and_gives_the_same_probabilities(
        demo_run, demo_dir):
    record = next(demo_dir.rglob("*.hea")).with_suffix("")
    here = too_feature.classify_record(record, demo_run[0] / "model.keras")
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


def test_same_seed_gives_the_same_report_and_another_seed_another(demo_run, demo_dir, tmp_path):
    def report(seed):
        result = run_script(tmp_path, "--labels", str(ROOT / "ecg_5_class_data.csv"), "--data-dir",
                            str(demo_dir), "--output", "model.keras", "--seed", seed, *TINY)
        assert result.returncode == 0, result.stderr
        return re.sub(r"\d+ s\n", "\n", result.stdout)

    first = re.sub(r"\d+ s\n", "\n", demo_run[1])
    assert report("42") == first
    assert report("43") != first


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


def test_best_weights_are_those_of_the_best_epoch(demo_run, demo_dir):
    card = json.loads((demo_run[0] / "model.json").read_text())
    best = max(epoch["val_accuracy"] for epoch in card["history"])
    settings = too_feature.Settings(**{**card["settings"], "data_dir": str(demo_dir)})
    labels = too_feature.read_labels(settings.labels)
    split = too_feature.split_patients(labels, seed=settings.seed)["validation"]
    records = too_feature.load_split("validation", split, card["classes"], settings.val_samples,
                                     settings, [])
    import keras
    model = keras.models.load_model(demo_run[0] / "model.keras")
    predicted = model.predict([records.signals, records.features], verbose=0).argmax(axis=1)
    recalls = [np.mean(predicted[records.targets == k] == k) for k in range(5)]
    assert np.mean(recalls) == pytest.approx(best, abs=1e-3)


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
    assert "left out: cannot be read (20), file is missing (20)" in result.stdout


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


@pytest.mark.parametrize("damage", ["no model", "no json", "truncated", "other json", "text"])
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
    else:
        model.write_text("not a model")
        card.write_text(json.dumps(json.loads(card.read_text())
                                   | {"model_sha256": too_feature.sha256(model)}))
    with pytest.raises(too_feature.UserError) as error:
        too_feature.classify_record(next(demo_dir.rglob("*.hea")), model)
    assert "\n" not in str(error.value)

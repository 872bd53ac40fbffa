"""The results folder of a run: every file, and that its numbers are those of the saved model."""

import errno
import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

import too_feature as script
from ecg import checkpoint, files
from ecg.card import contract
from ecg.output import figures, write
from tests.support.runs import LABELS

FIGURES = ["confusion_matrix", "training_curves", "roc_precision_recall", "reliability", "features",
           "ecg_1_atrial_fibrillation", "ecg_2_bradycardia", "ecg_3_bundle_branch_block",
           "ecg_4_normal", "ecg_5_tachycardia"]


@pytest.fixture(scope="module")
def predictions(demo_run):
    return pd.read_csv(demo_run.results / "predictions.csv")


def test_every_file_that_is_promised_is_there_and_nothing_else(demo_run):
    results = demo_run.results
    found = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    events = {name for name in found if "events.out.tfevents" in name}
    assert {name.split("/")[2] for name in events} == {"train", "validation"}
    assert found - events == {
        "report.txt", "metrics.json", "run.json", "predictions.csv", "split.csv", "history.csv",
        "left_out.csv", "examples.npz", "errors.npz", "MODEL_CARD.md", "index.html", ".lock",
        "progress/0/state.npz", "progress/0/history.csv",
        *(f"figures/{name}.{kind}" for name in FIGURES for kind in ("png", "pdf"))}


def test_pictures_of_an_earlier_run_go_and_other_peoples_stay(tmp_path):
    drawn = {f"{name}.{kind}" for name in [*FIGURES, "ecg_6"] for kind in ("png", "pdf")}
    others = {"mine.png", "features.svg", "ecg_study.png", "old features.png"}
    for name in drawn | others:
        files.write_whole(tmp_path / "figures" / name, lambda path: path.touch())
    write.remove_pictures(tmp_path)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == others


def test_the_report_is_what_was_printed(demo_run):
    report = (demo_run.results / "report.txt").read_text()
    assert report in demo_run.printed
    for words in ("Test on", "balanced accuracy", "Rate rule", "left out: none", "SYNTHETIC"):
        assert words in report


def test_predictions_are_those_of_the_saved_model_on_the_records_named(demo_run, predictions):
    model = script.load(demo_run.model).model
    some, data = predictions.iloc[::7], demo_run.data_dir
    inputs = [script.prepare_record(data / path, data)[:2] for path in some["record"]]
    signals, features = map(np.stack, zip(*inputs, strict=True))
    expected = model.predict([signals, features], verbose=0)
    classes = demo_run.card["classes"]
    np.testing.assert_allclose(some[[f"p {name}" for name in classes]], expected, atol=1e-5)
    assert list(some["predicted"]) == [classes[i] for i in expected.argmax(axis=1)]
    names = [f"{name} [{unit}]" if unit else name for name, unit, _ in script.FEATURES]
    np.testing.assert_allclose(some[names], features, rtol=1e-5)
    labels = script.read_labels(LABELS).set_index("waveform_path")
    assert list(some["true"]) == list(labels.loc[some["record"], "ecg_category"])
    assert list(some["subject_id"]) == list(labels.loc[some["record"], "subject_id"])


def test_metrics_are_those_of_the_predictions_and_of_the_models_card(demo_run, predictions):
    metrics = json.loads((demo_run.results / "metrics.json").read_text())
    assert metrics == demo_run.card["metrics"]
    assert metrics["records"] == len(predictions)
    assert metrics["patients"] == predictions["subject_id"].nunique()
    for name, score in (("accuracy", accuracy_score), ("balanced accuracy",
                                                       balanced_accuracy_score)):
        value = score(predictions["true"], predictions["predicted"])
        assert metrics["model"][name][0] == pytest.approx(value)
        assert f"\n{name} {value:.3f} (" in demo_run.printed


def test_the_split_lists_every_labelled_record_once_and_no_patient_twice(demo_run, predictions):
    split = pd.read_csv(demo_run.results / "split.csv")
    labels = script.read_labels(LABELS)
    assert sorted(split["waveform_path"]) == sorted(labels["waveform_path"])
    assert split.groupby("subject_id")["split"].nunique().max() == 1
    assert set(split["split"]) == {"train", "validation", "test"}
    tested = split["waveform_path"][split["split"] == "test"]
    assert set(predictions["record"]) <= set(tested)


def test_the_history_has_a_row_per_epoch_as_printed(demo_run):
    history = pd.read_csv(demo_run.results / "history.csv")
    assert list(history["epoch"]) == [1, 2, 3]
    assert set(history["repeat"]) == {0}
    printed = re.findall(r"epoch +(\d)/3  loss ([\d.]+)  accuracy ([\d.]+)  val_loss ([\d.]+)  "
                         r"val_accuracy ([\d.]+) ", demo_run.printed)
    columns = ["loss", "accuracy", "val_loss", "val_accuracy"]
    np.testing.assert_allclose(history[columns], [[float(x) for x in row[1:]] for row in printed],
                               atol=5.1e-4)
    assert history["learning_rate"][0] == pytest.approx(0.0005)
    live = pd.read_csv(demo_run.results / "progress/0/history.csv")
    np.testing.assert_allclose(live[columns], history[columns])
    kept, = demo_run.card["history"]
    assert [epoch["loss"] for epoch in kept] == pytest.approx(list(history["loss"]))


def test_events_hold_the_same_losses_for_tensorboard(demo_run):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    tensors = pytest.importorskip("tensorboard.util.tensor_util")
    found = {}
    for path in sorted((demo_run.results / "progress/0/validation").glob("events*"),
                       key=lambda path: path.stat().st_mtime_ns):
        for event in loader.EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag == "epoch_loss":
                    found[event.step] = float(tensors.make_ndarray(value.tensor))
    history = pd.read_csv(demo_run.results / "history.csv")
    assert [found[step] for step in sorted(found)] == pytest.approx(list(history["val_loss"]))


def test_settings_and_versions_of_the_run_are_kept(demo_run):
    kept = json.loads((demo_run.results / "run.json").read_text())
    assert {name: demo_run.card[name] for name in kept} == kept
    assert kept["settings"]["train_samples"] == 100
    assert kept["recipe"]["freeze_bn_after"] == 25
    assert kept["versions"]["keras"]
    assert kept["synthetic"] is True
    assert kept["records"] == 597


def test_an_example_of_each_class_is_the_record_it_names(demo_run, predictions):
    data = np.load(demo_run.results / "examples.npz")
    table, classes = predictions.set_index("record"), demo_run.card["classes"]
    for i, name in enumerate(classes):
        record = str(data[f"record_{i}"])
        assert table.loc[record, "true"] == name
        signal, fs, *_ = script.read_record(demo_run.data_dir / record)
        np.testing.assert_allclose(data[f"signal_{i}"], signal, atol=1e-6)
        assert data[f"fs_{i}"] == fs
        np.testing.assert_allclose(data[f"r_peaks_{i}"], script.measure_rhythm(signal, fs).r_peaks)
        given = table.loc[record, [f"p {other}" for other in classes]].astype(float)
        np.testing.assert_allclose(data[f"probabilities_{i}"], given, atol=1e-6)


def test_the_most_confident_errors_are_kept_in_order(demo_run, predictions):
    wrong = predictions[predictions["true"] != predictions["predicted"]]
    confidence = wrong.filter(regex="^p ").max(axis=1).sort_values(
        ascending=False, kind="stable")
    records = wrong.loc[confidence.index, "record"].tolist()[:write.KEPT_ERRORS]
    data = np.load(demo_run.results / "errors.npz")
    kept = [str(data[f"record_{i}"]) for i in range(write.KEPT_ERRORS) if f"record_{i}" in data]
    assert kept == records
    for i, record in enumerate(records):
        signal, *_ = script.read_record(demo_run.data_dir / record)
        np.testing.assert_allclose(data[f"signal_{i}"], signal, atol=1e-6)
    page = (demo_run.results / "index.html").read_text()
    assert page.count("<article") == min(len(records), figures.ERRORS_OF_A_RUN)
    assert "Not drawn" not in page


def test_the_card_of_a_run_holds_its_contract_with_thresholds(demo_run):
    card = demo_run.card
    assert card["contract"] == contract(card)
    assert sum("To find 95 %" in words for words in card["contract"]["Outputs"]) == sum(
        found is not None for found in card["metrics"]["thresholds"].values())
    assert "already: do not divide again" in " ".join(card["contract"]["Outputs"])


def test_an_example_is_the_median_of_the_right_ones_or_of_all():
    test = pd.DataFrame({"ecg_category": list("AAAAABBBCC"), "waveform_path": list("0123456789")})
    p = np.array([0.9, 0.6, 0.7, 0.8, 0.2, 0.9, 0.7, 0.8, 0.3, 0.1])    # of A
    p = np.column_stack([p, 0.9 - p / 2, np.zeros(10)])
    found = write.examples(test, p, list("ABCD"), lambda path: (np.zeros((2, 12)), 500, []))
    assert str(found["record_0"]) == "3"    # of 2, 3, 0, sorted by their probability of A
    assert str(found["record_1"]) == "7"    # none is B: of 5, 7, 6
    assert str(found["record_2"]) in "89"
    assert "record_3" not in found


def test_a_file_system_without_locks_is_used_without_them(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    assert files.claim(tmp_path / "m") == tmp_path / "m"


def test_without_tensorboard_its_flag_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        checkpoint.tensorboard_callback(None, tmp_path)

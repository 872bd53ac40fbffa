"""The results folder of a run: every file, and that its numbers are those of the saved model."""

import json
import re

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from ecg import intervals
from ecg.output import write
from ecg.output.read import read_results
from tests.support.results import write_results
from tests.support.runs import LABELS


def approx(value):
    """Compare numbers of nested dicts and lists nearly, and None exactly."""
    if isinstance(value, dict):
        return {name: approx(own) for name, own in value.items()}
    if isinstance(value, list):
        return [approx(own) for own in value]
    # Probabilities are float32 in the table
    return value if value is None else pytest.approx(value, abs=1e-6, rel=1e-5)


@pytest.fixture(scope="module")
def predictions(demo_run):
    return pd.read_csv(demo_run.results / "predictions.csv", dtype={"subject_id": str})


def test_every_file_that_is_promised_is_there_and_nothing_else(demo_run):
    results = demo_run.results
    names = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    events = {name for name in names if "events.out.tfevents" in name}
    assert {name.split("/")[2] for name in events} == {"train", "validation"}
    assert names - events == {
        "report.txt", "metrics.json", "run.json", "predictions.csv", "split.csv", "history.csv",
        "left_out.csv", "table1.csv", "flow.csv", "metrics.csv", "ecgs.npz", "MODEL_CARD.md",
        "reporting_checklist.md", "index.html", "figures/ecgs.pdf", "progress/0/state.npz",
        *(f"figures/{name}.{kind}" for name in write.FIGURES for kind in ("png", "pdf"))}


def test_pictures_of_an_earlier_run_go_and_other_peoples_stay(tmp_path):
    (tmp_path / "figures").mkdir()
    drawn = {"index.html", "MODEL_CARD.md", "figures/ecgs.pdf", "figures/features.png"}
    for name in (*drawn, "figures/mine.png"):
        (tmp_path / name).touch()
    write_results(tmp_path)
    assert not [name for name in drawn if (tmp_path / name).exists()]
    assert (tmp_path / "figures/mine.png").exists()


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
    labels = script.read_labels(LABELS).set_index("waveform_path").loc[some["record"]]
    assert list(some["true"]) == list(labels["ecg_category"])
    assert list(some["subject_id"]) == list(labels["subject_id"])


def test_whoever_has_predictions_csv_makes_all_intervals_again(demo_run, predictions):
    metrics = json.loads((demo_run.results / "metrics.json").read_text())
    assert metrics == demo_run.card["metrics"]
    assert metrics["records"] == len(predictions)
    classes = [name[2:] for name in predictions.columns if name.startswith("p ")]
    overall, by_class = intervals.measure(
        predictions.filter(regex="^p ").to_numpy(),
        pd.Index(classes).get_indexer(predictions["true"]), predictions["subject_id"])
    again = {name: figure.interval() for name, figure in overall.items()}
    assert json.loads(json.dumps(again)) == approx(metrics["model"])
    for kind, figures in by_class.items():
        for name, figure in zip(classes, figures, strict=True):
            assert figure.interval() == approx(metrics["by class"][name][kind])


def test_metrics_csv_has_a_row_for_each_figure_of_metrics_json(demo_run):
    metrics = json.loads((demo_run.results / "metrics.json").read_text())
    table = pd.read_csv(demo_run.results / "metrics.csv", keep_default_na=False)
    table = table.set_index(["section", "of", "figure"])[["value", "low"]].to_dict("index")
    for place, scores in ((("", "model"), metrics["model"]),
                          (("at prevalence", "model"), metrics["at prevalence"]["model"]),
                          (("by class", "Normal"), metrics["by class"]["Normal"])):
        for name, (value, low, _) in scores.items():
            row = table[(*place, name)]
            assert (row["value"], row["low"]) == (str(value), "" if low is None else str(low))


def test_the_checklist_has_27_items_and_the_runs_own_figures(demo_run):
    text = (demo_run.results / "reporting_checklist.md").read_text()
    assert re.findall(r"^\| (\d+) ", text, re.MULTILINE) == [str(i) for i in range(1, 28)]
    value, low, high = demo_run.card["metrics"]["model"]["balanced accuracy"]
    assert f"balanced accuracy {value:.3f} ({low:.2f} to {high:.2f})" in text
    assert "Patient numbers" not in text and "patients in more than one split: 0;" in text


def test_the_split_lists_every_labelled_record_once_and_no_patient_twice(demo_run, predictions):
    split = pd.read_csv(demo_run.results / "split.csv")
    labels = script.read_labels(LABELS)
    assert sorted(split["waveform_path"]) == sorted(labels["waveform_path"])
    assert split.groupby("subject_id")["split"].nunique().max() == 1
    tested = split["waveform_path"][split["split"] == "test"]
    assert set(predictions["record"]) <= set(tested)


def test_the_history_has_a_row_per_epoch_as_printed(demo_run):
    history = pd.read_csv(demo_run.results / "history.csv")
    assert list(history["epoch"]) == [1, 2, 3]
    assert set(history["repeat"]) == {0}
    printed = re.findall(r"epoch +(\d)/3  loss ([\d.]+)  accuracy ([\d.]+)  val_loss ([\d.]+)  "
                         r"val_accuracy ([\d.]+) ", demo_run.printed)
    columns = ["loss", "accuracy", "val_loss", "val_accuracy"]
    np.testing.assert_allclose(
        history[columns], [[float(x) for x in row[1:]] for row in printed], atol=5.1e-4)
    assert history["learning_rate"][0] == pytest.approx(0.0005)


def test_examples_and_the_most_confident_errors_are_the_records_of_their_rows(demo_run):
    results = read_results(demo_run.results)
    table = results.table
    assert list(table["true"][results.examples]) == results.classes
    wrong = table[table["true"] != table["predicted"]]
    confidence = wrong.filter(regex="^p ").max(axis=1)
    order = confidence.sort_values(ascending=False, kind="stable").index
    assert results.errors == order.tolist()[:write.MAX_ERRORS]
    for row, (signal, fs, r_peaks) in results.ecgs.items():
        record = script.read_record(demo_run.data_dir / table["record"][row])
        np.testing.assert_allclose(signal, record.signal, atol=1e-6)
        np.testing.assert_allclose(
            r_peaks, script.measure_rhythm(record.signal, fs).r_peaks)

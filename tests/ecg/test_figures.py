"""What figures and the model card promise: every number is the results folder's, and is readable.

Each is computed again here from `predictions.csv` (or the file it comes from) by plain loops, and
compared with what is drawn: texts, lines, boxes, bars.
"""

import dataclasses
import functools
import itertools
import re
import shutil

import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.text import Text
from sklearn import metrics as scores

import too_feature as script
from ecg import origin
from ecg.output import ecg_page, figures, model_card, read, style
from tests.support.results import CLASSES, FEATURES, draw, texts, words, write_results
from tools import figures as program

RHYTHMS = [f"{where} {what}" for where in ("Atrial", "Junctional", "Ventricular")
           for what in ("Tachycardia", "Bradycardia", "Fibrillation", "Rhythm")]
ODD = ["A $class^$ of_money", "<b>bold</b> | pipe", "NA", "_hidden/name",
       "Complete Left Bundle Branch Block With First Degree Atrioventricular Block"]
RUNS = {    # by name, what `write_results` is given
    "usual": {},
    "odd names of patients": {"classes": ODD, "synthetic": False},
    "two classes, wide ranges": {
        "classes": ["AF", "100 % & <none>"], "tested": [0, 1], "typical": -3.5, "spread": 1.2},
    "twelve classes": {"classes": RHYTHMS, "tested": range(12), "n": 200, "repeats": 3},
    "no spaces": {"classes": [name.replace(" ", "") * 4 for name in CLASSES]},
    "no letters": {"classes": ["心房颤动" * 5, "\U0010fffd", "é ü", "正常", "\ue000 x"]},
    "one record, nothing measured": {"n": 1, "epochs": 1, "repeats": 1, "unknown": 1.1}}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return what gives the results of one of `RUNS`."""
    return functools.cache(lambda name: write_results(
        tmp_path_factory.mktemp("results") / "run", **RUNS[name]))


@pytest.fixture(scope="module")
def drawn(written):
    """Return what gives all figures, and the first ECG, of one of `RUNS`."""
    return functools.cache(lambda name: {
        **{kind: function(written(name)) for kind, function in figures.FIGURES.items()},
        "ecg": ecg_page.draw_tested(written(name), written(name).examples[0])})


@pytest.fixture(scope="module")
def results(written):
    return written("usual")


def with_run(results, **changes):
    """Return results whose run.json has other entries."""
    return results._replace(run={**results.run, **changes})


# ---------------------------------------------------------------------------------- each number
def test_confusion_matrix_has_counts_shares_and_the_interval(results):
    figure = figures.confusion_matrix(results)
    table = results.table
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert len(cells) == 25
    assert cells[0.5, 2.5] == "0\n–"    # the class without a record
    recalls = []
    for i in (0, 1, 3, 4):
        row = table[table["true"] == CLASSES[i]]
        counts = [sum(row["predicted"] == name) for name in CLASSES]
        recalls.append(counts[i] / len(row))
        assert [cells[j + 0.5, i + 0.5] for j in range(5)] == [
            f"{n}\n{n / len(row):.0%}" for n in counts]

    low, high = results.metrics["model"]["balanced accuracy"][1:]
    assert figure.get_suptitle() == (
        "90 records, shares of the true class\nbalanced accuracy "
        f"{np.mean(recalls):.2f} (95 % interval {low:.2f}–{high:.2f})")
    assert figure.axes[0].get_ylim() == (5, 0)    # rows from top to bottom


def test_training_curves_are_the_history(results):
    history = pd.read_csv(results.folder / "history.csv")
    figure = figures.training_curves(results)
    for axes, column in zip(figure.axes, ("loss", "accuracy", "learning_rate"), strict=True):
        curves = [line for line in axes.lines if line.get_marker() == ""]
        columns = [column] if column == "learning_rate" else [column, f"val_{column}"]
        pairs = [(name, repeat) for name in columns for repeat in range(2)]
        for line, (name, repeat) in zip(curves, pairs, strict=False):
            rows = history[history["repeat"] == repeat]
            assert np.allclose(line.get_xydata(), rows[["epoch", name]])
            assert line.get_linestyle() == ("--" if name.startswith("val") else "-")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "training (augmented records, with dropout)", "weights kept: of epoch 5 to 6 (of 15)",
        "validation", "stopped early, after epoch 5 to 6"]


def ranked_area(positive, p):
    """The share of pairs, one of the class and one of the rest, in the right order."""
    pairs = p[positive][:, None] - p[~positive]
    return np.mean((pairs > 0) + 0.5 * (pairs == 0))


def test_roc_and_precision_recall(results):
    roc, pr, *below = figures.roc_precision_recall(results).axes
    of_roc, of_pr = ([text.get_text().strip() for text in axes.get_legend().get_texts()]
                     for axes in below)
    assert (of_roc[2], of_pr[2]) == ("–  Never tested", "–  0.00")
    for i in (0, 1, 3, 4):
        positive, p = results.true == i, results.probabilities[:, i]
        called = p >= np.sort(p)[::-1][:, None]    # all different: each is a point of both curves
        recall = (called & positive).sum(axis=1) / positive.sum()
        false = (called & ~positive).sum(axis=1) / (~positive).sum()
        precision = (called & positive).sum(axis=1) / called.sum(axis=1)
        steps = pr.lines[i].get_xydata()
        assert np.allclose(roc.lines[i].get_xydata()[1:], np.column_stack([false, recall]))
        assert np.allclose(steps[-2::-1], np.column_stack([recall, precision])[:len(steps) - 1])

        area, average = ranked_area(positive, p), sum(precision * np.diff(recall, prepend=0))
        assert re.fullmatch(rf"{area:.3f} \(.*–.*\)  {CLASSES[i]}", of_roc[i])
        assert re.fullmatch(rf"{average:.3f} \(.*–.*\)  {positive.mean():.2f}", of_pr[i])
    looks = {(line.get_color(), line.get_linestyle()) for line in pr.lines}
    assert len(looks) == len({colour for colour, _ in looks}) == 5


def test_reliability(results):
    confidence, right = results.probabilities.max(axis=1), results.true == results.predicted
    points, bars, intervals, error = [], [], [], 0
    for number in range(10):
        here = (confidence >= number / 10) & (confidence < number / 10 + 0.1)
        if here.any():
            n, share = here.sum(), right[here].mean()
            points.append((confidence[here].mean(), share))
            bars.append((number / 10 + 0.05, n))
            error += abs(right[here].sum() - confidence[here].sum()) / 90
            # Wilson: the shares q whose own deviation reaches to what was seen
            q = np.roots([1 + 1.96**2 / n, -2 * share - 1.96**2 / n, share**2])
            intervals.append(sorted(q.real))
    top, bottom = figures.reliability(results).axes
    assert np.allclose(top.lines[1].get_xydata(), points)
    assert np.allclose([(bar.get_x() + bar.get_width() / 2, bar.get_height())
                        for bar in bottom.patches], bars)
    segments = top.collections[0].get_segments()
    assert np.allclose([segment[:, 1] for segment in segments], intervals, atol=1e-4)
    assert top.get_title() == f"expected calibration error {error:.3f}"


def test_features_are_boxes_by_class_over_their_reference_range(results):
    figure = figures.features(results)
    by_title = {" ".join(axes.get_title().split()): axes for axes in figure.axes}
    assert len(by_title) == 8
    assert "QRS width [ms]" not in by_title    # of nine, the one that is the same in all
    for name, unit, reference in FEATURES[4:8]:
        title = read.feature_column(name, unit)
        axes = by_title[title]
        values = [results.table[title][results.true == i].dropna() for i in range(5)]
        boxes = [patch.get_path().vertices for patch in axes.patches[:5]]
        for own, box in zip(values, boxes, strict=True):
            if len(own):
                quartiles = np.percentile(own, [25, 75])
                assert [box[:4, 0].min(), box[:4, 0].max()] == pytest.approx(quartiles)
        band = axes.patches[5].get_extents().transformed(axes.transData.inverted())
        assert band.intervalx.tolist() == pytest.approx(reference)


# ---------------------------------------------------------------------------------------- looks
def tick_labels(axis):
    """Return the labels of an axis that are drawn."""
    return [tick.label1 for tick in axis._update_ticks()
            if tick.label1.get_visible() and tick.label1.get_text()]


@pytest.mark.parametrize("which", RUNS)
def test_all_text_is_readable_and_on_the_page(which, drawn):
    for name, figure in drawn(which).items():
        draw(figure)
        axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
        labels = [tick_labels(axis) if axis.axes.axison else [] for axis in axes]
        of_ticks = {text for axis in axes for text in axis.findobj(Text)} - {
            axis.label for axis in axes}
        for text in [*(set(texts(figure)) - of_ticks), *itertools.chain(*labels)]:
            box = text.get_window_extent()
            assert text.get_fontsize() >= 9, (name, text)
            assert min(box.x0, box.y0) >= -1, (name, text)
            assert box.x1 <= figure.bbox.width + 1, (name, text)
            assert box.y1 <= figure.bbox.height + 1, (name, text)
        for of_axis in labels:
            boxes = [label.get_window_extent() for label in of_axis]
            assert not [pair for pair in itertools.combinations(boxes, 2)
                        if pair[0].overlaps(pair[1])], name


def test_letters_that_no_font_has_become_a_number_and_all_others_are_drawn(drawn):
    assert style.drawable(["心", "é", "\U0010fffd", "a\ue000", "_$"])[1:] == [
        "é", "class 3", "class 4", "_$"]
    shown = words(drawn("odd names of patients")["roc_precision_recall"])
    assert all(f"  {name}" in shown for name in ODD[:4])    # no mathematics, none hidden


def test_synthetic_data_is_marked_and_no_other(drawn, written):
    assert all("synthetic" in words(figure) for figure in drawn("usual").values())
    patients = drawn("odd names of patients").values()
    assert not any("synthetic" in words(figure) for figure in patients)
    on_demo = with_run(written("odd names of patients"), test_labels_origin=origin.DEMO)
    assert origin.SYNTHETIC_MARK in words(figures.reliability(on_demo))


def test_files_are_vector_truetype_and_the_same_each_time(results, tmp_path):
    first = style.save(figures.confusion_matrix(results), tmp_path / "a" / "matrix")
    with matplotlib.rc_context({"font.size": 30, "pdf.fonttype": 3, "axes.facecolor": "black"}):
        mine = dict(matplotlib.rcParams)
        again = style.save(figures.confusion_matrix(results), tmp_path / "b" / "matrix")
        assert dict(matplotlib.rcParams) == mine    # a notebook's style is left alone
    assert [path.suffix for path in first] == [".pdf", ".png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    pdf = first[0].read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"/Subtype /Image" not in pdf


# ------------------------------------------------------------------------------- card and folder
def test_model_card(results):
    card = model_card.model_card(results)
    assert origin.TRAINED_ON_SYNTHETIC in card.split("\n\n")[1]
    for text in ("not a medical device", "Not to be used", "### Preparation",
                 "Temperature, fitted on the validation patients: 1.234",
                 "200 records of 100 patients", "abc123",
                 f"90 test records of {results.table['subject_id'].nunique()} patients",
                 "more than one split: 0.",
                 "- label file: 200 rows", "python 3.11.7", "seed 7",
                 "No test record of Never tested", "recipe default"):
        assert text in card
    assert "/home/me" not in card
    split = pd.read_csv(results.folder / "split.csv")
    train = split[(split["ecg_category"] == "Normal") & (split["split"] == "train")]
    assert f"| Normal | train | {len(train)} | {train['subject_id'].nunique()} |" in card


def test_a_model_card_begins_with_what_hubs_of_models_read(results):
    head = yaml.safe_load(model_card.model_card(results).split("---\n")[1])
    (entry,) = head["model-index"]
    values = {metric["type"]: metric["value"] for metric in entry["results"][0]["metrics"]}
    scores = results.metrics["model"]
    assert head["license"] == "mit" and "ecg" in head["tags"]
    assert entry["name"] == results.folder.name
    assert values == {"accuracy": round(scores["accuracy"][0], 4),
                      "balanced_accuracy": round(scores["balanced accuracy"][0], 4)}


def test_the_tables_of_a_model_card_are_those_of_the_predictions(results):
    card = model_card.model_card(results)
    true, predicted, p = results.true, results.predicted, results.probabilities
    right, confidence = true == predicted, p.max(axis=1)
    assert "| Never tested | 0 | – | – | – | " in card
    recalls = []
    for i in (0, 1, 3, 4):
        precision, recall, f1 = (score(true == i, predicted == i) for score in (
            scores.precision_score, scores.recall_score, scores.f1_score))
        recalls.append(recall)
        row = card.split(f"| {CLASSES[i]} | {sum(true == i)} | ")[1].split(" |")
        assert [cell.split()[0] for cell in row[2:5]] == [
            f"{score:.3f}" for score in (recall, precision, f1)]
    assert re.search(rf"\| this model \| {np.mean(recalls):.3f} \(.*\| {right.mean():.3f} \(", card)
    rule = np.where(results.table["heart rate [bpm]"] > 100, 4, 0)
    assert re.search(rf"heart rate alone \|.*\| {np.mean(true == rule):.3f} \(", card)
    error = sum(abs(sum(right[here]) - sum(confidence[here])) for here in (
        (confidence * 10).astype(int) == i for i in range(10))) / 90
    brier = np.mean(((p - np.eye(5)[true]) ** 2).sum(axis=1))
    assert f"| after | {error:.3f} | {brier:.3f} |" in card
    sure = right[np.argsort(-confidence, kind="stable")]
    assert f"50% {sure[:45].mean():.3f}" in card


def test_model_card_counts_patients_in_two_splits(tmp_path):
    results = write_results(tmp_path / "run")
    path = tmp_path / "run/split.csv"
    pd.read_csv(path).assign(subject_id=np.arange(200) // 2 % 58).to_csv(path, index=False)
    assert "more than one split: 40." in model_card.model_card(results)    # 60 to 99 are 2 to 41


def test_model_card_takes_no_name_for_markup(written):
    card = model_card.model_card(written("odd names of patients"))
    assert r"\<b\>bold\</b\> \| pipe" in card and "<b>" not in card
    widths = {line.count("|") - line.count(r"\|") for line in card.splitlines()
              if line.startswith("| ") and "pipe" in line}
    assert widths == {5, 8, 9, 10}    # table 1; prevalence, classes and groups


@pytest.mark.parametrize("epochs", [0, 5])
def test_a_run_that_starts_from_a_model_has_no_training_curves(epochs, tmp_path):
    recipe = dataclasses.asdict(script.Recipe(epochs=epochs))
    start = {"model": "m.keras", "sha256": "abc", "labels_origin": "two nurses"}
    write_results(tmp_path, start_from=[start], history=[[]], recipe=recipe)
    assert "training_curves.png" not in {path.name for path in figures.make_all(tmp_path)}
    assert "No epoch was trained." in (tmp_path / "index.html").read_text()
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert ("weights and temperature are those of the start" in card) == (epochs == 0)
    assert ("calibrated on validation patients of this data" in card) == (epochs > 0)


def test_the_program_draws_all_and_changes_nothing_else(results, tmp_path, capsys):
    folder = shutil.copytree(results.folder, tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert program.main([str(folder)]) == 0
    printed = set(capsys.readouterr().out.split())
    expected = {f"figures/{name}.{kind}" for name in figures.FIGURES for kind in ("pdf", "png")}
    expected |= {"figures/ecgs.pdf", "MODEL_CARD.md", "reporting_checklist.md", "index.html"}
    assert printed == {str(folder / name) for name in expected}
    assert {str(path) for path in folder.rglob("*.*")} == printed | set(map(str, before))
    assert {path: path.read_bytes() for path in before} == before
    pdf = (folder / "figures/ecgs.pdf").read_bytes()
    assert pdf.count(b"/Type /Page ") == len(set(results.examples + results.errors))


@pytest.mark.parametrize("name", ["run.json", "ecgs.npz", "figures"])
def test_a_file_that_is_missing_or_in_the_way_is_one_line(name, results, tmp_path, capsys):
    folder = shutil.copytree(results.folder, tmp_path / "run")
    if name == "figures":
        (folder / name).touch()
    else:
        (folder / name).unlink()
    assert program.main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("figures.py: error: ") and error.count("\n") == 1
    assert str(folder / name) in error

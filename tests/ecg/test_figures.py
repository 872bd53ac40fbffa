"""What figures and the model card promise: every number is the results folder's, and is readable.

Each is computed again here from `predictions.csv` (or the file it comes from), and compared with
what is drawn: texts, lines, boxes, bars.
"""

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
from sklearn.calibration import calibration_curve

from ecg.origin import TRAINED_ON_SYNTHETIC
from ecg.output import ecg_page, figures, model_card, read, style, write
from tests.support.results import CLASSES, FEATURES, draw, texts, words, write_results
from tools import figures as program

RHYTHMS = [f"{where} {what}" for where in ("Atrial", "Junctional", "Ventricular")
           for what in ("Tachycardia", "Bradycardia", "Fibrillation", "Rhythm")]
ODD = ["A $class^$ of_money", "<b>bold</b> | pipe", "NA", "_hidden/name",
       "Complete Left Bundle Branch Block With First Degree Atrioventricular Block"]
RUNS = {    # by name, what `write_results` is given
    "usual": {},
    "odd names of patients": {"classes": ODD, "synthetic": False, "separation": 1},
    "two classes, wide ranges": {
        "classes": ["AF", "心房颤动" * 5], "tested": [0, 1], "typical": -3.5, "spread": 1.2},
    "twelve classes": {"classes": RHYTHMS, "tested": range(12), "n": 200, "repeats": 3},
    "good": {"separation": 6},
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
        **{draw.__name__: draw(written(name)) for draw in figures.FIGURES},
        "ecg": ecg_page.draw_tested(written(name), written(name).examples[0])})


@pytest.fixture(scope="module")
def results(written):
    return written("usual")


# ---------------------------------------------------------------------------------- each number
def test_confusion_matrix_has_counts_shares_and_the_interval(drawn, results):
    figure = drawn("usual")["confusion_matrix"]
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    counts = scores.confusion_matrix(results.true, results.predicted, labels=range(5))
    for (i, j), n in np.ndenumerate(counts):
        assert cells[j, i] == (f"{n}\n{n / counts[i].sum():.0%}" if n else "0")
    value, low, high = results.metrics["model"]["balanced accuracy"]
    assert figure.get_suptitle() == (
        "90 records, shares of the true class\nbalanced accuracy "
        f"{value:.2f} (95 % interval {low:.2f} to {high:.2f})")


def test_training_curves_are_the_history(drawn, results):
    history = pd.read_csv(results.folder / "history.csv")
    figure = drawn("usual")["training_curves"]
    for axes, column in zip(figure.axes, ("loss", "accuracy", "learning_rate"), strict=True):
        columns = [column] if column == "learning_rate" else [column, f"val_{column}"]
        pairs = [(name, repeat) for name in columns for repeat in range(2)]
        for line, (name, repeat) in zip(axes.lines, pairs, strict=True):
            rows = history[history["repeat"] == repeat]
            assert np.allclose(line.get_xydata()[:len(rows)], rows[["epoch", name]])
            assert line.get_linestyle() == ("--" if name.startswith("val") else "-")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "training (augmented records, with dropout)", "validation"]


def test_roc_and_precision_recall(drawn, results):
    figure = drawn("usual")["roc_precision_recall"]
    roc, pr = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    for place, i in enumerate((0, 1, 3, 4)):    # not the class that was never tested
        positive, p = results.true == i, results.probabilities[:, i]
        false, true, _ = scores.roc_curve(positive, p)
        precision, recall, _ = scores.precision_recall_curve(positive, p)
        assert np.allclose(roc.lines[place + 1].get_data(), [false, true])
        assert np.allclose(pr.lines[place].get_data(), [recall, precision])
        area, average = scores.auc(false, true), scores.average_precision_score(positive, p)
        assert re.fullmatch(
            rf"{CLASSES[i]}: AUROC {area:.3f} \(.* to .*\), AP {average:.3f} \(.* to .*\), "
            rf"prevalence {positive.mean():.2f}", labels[place])
    looks = {(line.get_color(), line.get_linestyle()) for line in pr.lines}
    assert len(looks) == len({colour for colour, _ in looks}) == len(labels) == 4


@pytest.mark.parametrize(("name", "n_insets"), [("odd names of patients", 0), ("good", 1)])
def test_good_curves_are_drawn_once_more_in_their_corner(name, n_insets, drawn):
    for axes in drawn(name)["roc_precision_recall"].axes:
        assert len(axes.child_axes) == n_insets
        assert axes.get_xlim() == axes.get_ylim() == (-0.02, 1.02)    # all of it


def test_reliability(drawn, results):
    confidence, is_right = results.probabilities.max(axis=1), results.true == results.predicted
    right, mean = calibration_curve(is_right, confidence, n_bins=10)
    counts = np.histogram(confidence, np.linspace(0, 1, 11))[0]
    top, bottom = drawn("usual")["reliability"].axes
    assert np.allclose(top.lines[1].get_data(), [mean, right])
    assert [bar.get_height() for bar in bottom.patches] == counts.tolist()
    # Wilson: the ends are the shares whose own deviation reaches to what was seen
    for line, share, n in zip(top.collections[0].get_segments(), right, counts[counts > 0],
                              strict=True):
        end = line[:, 1]
        assert np.abs(end - share) == pytest.approx(1.96 * np.sqrt(end * (1 - end) / n), abs=1e-3)


def test_features_are_boxes_by_class_over_their_reference_range(drawn, results):
    for axes, (name, unit, reference) in zip(
            drawn("usual")["features"].axes[4:], FEATURES[4:8], strict=True):
        values = results.table[read.feature_column(name, unit)]
        assert " ".join(axes.get_title().split()) == values.name
        for number, patch in enumerate(axes.patches[:5]):
            own = values[results.true == number].dropna()
            if len(own):
                box = patch.get_path().vertices[:4, 0]
                assert [box.min(), box.max()] == pytest.approx(own.quantile([0.25, 0.75]).tolist())
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
        insets = [inset for axes in figure.axes for inset in axes.child_axes]
        axes = [axis for axes in figure.axes + insets for axis in (axes.xaxis, axes.yaxis)]
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


def test_synthetic_data_is_marked_and_no_other(drawn):
    assert all("synthetic" in words(figure) for figure in drawn("usual").values())
    patients = drawn("odd names of patients").values()
    assert not any("synthetic" in words(figure) for figure in patients)


def test_files_have_truetype_fonts_and_are_the_same_each_time(results, tmp_path):
    first = style.save(figures.confusion_matrix(results), tmp_path / "a" / "matrix")
    with matplotlib.rc_context({"font.size": 30, "pdf.fonttype": 3, "axes.facecolor": "black"}):
        mine = dict(matplotlib.rcParams)
        again = style.save(figures.confusion_matrix(results), tmp_path / "b" / "matrix")
        assert dict(matplotlib.rcParams) == mine    # a notebook's style is left alone
    assert [path.suffix for path in first] == [".pdf", ".png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    pdf = first[0].read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf


# ------------------------------------------------------------------------------- card and folder
def test_model_card(results):
    card = model_card.model_card(results)
    assert TRAINED_ON_SYNTHETIC in card.split("\n\n")[1]
    for text in ("not a medical device", "Not to be used", "### Preparation", "Temperature: 1.234.",
                 "calibrated, by the temperature, on validation patients of this data",
                 "200 records of 100 patients", "abc123",
                 f"90 test records of {results.table['subject_id'].nunique()} patients",
                 "more than one split: 0.", "| train | used | 120 |", "python 3.11.7", "seed 7",
                 "No test record of Never tested", "recipe default"):
        assert text in card
    assert "/home/me" not in card
    split = pd.read_csv(results.folder / "split.csv")
    train = split[(split["ecg_category"] == "Normal") & (split["split"] == "train")]
    assert f"| Normal | train | {len(train)} | {train['subject_id'].nunique()} |" in card


def test_a_model_card_begins_with_what_hubs_of_models_read(results):
    head = yaml.safe_load(model_card.model_card(results).split("---\n")[1])
    (entry,) = head["model-index"]
    assert (head["license"], entry["name"]) == ("mit", results.folder.name)
    for metric in entry["results"][0]["metrics"]:
        value = results.metrics["model"][metric["type"].replace("_", " ")][0]
        assert metric["value"] == round(value, 4)


def test_the_tables_of_a_model_card_have_the_figures_of_metrics_json(results):
    card, metrics = model_card.model_card(results), results.metrics
    for scores_of, kind in ((metrics["model"], "macro F1"), (metrics["rate rule"], "accuracy"),
                            (metrics["by class"]["Normal"], "F1"),
                            (metrics["at prevalence"]["by class"]["Normal"], "precision"),
                            (metrics["groups"]["all"], "sensitivity, Normal")):
        assert re.search(r"\| {:.3f} \({:.2f} to {:.2f}\) \|".format(*scores_of[kind]), card)
    assert "| Never tested | 0 | – | – | – | " in card
    error = metrics["calibration"]["after"]["expected calibration error"]
    assert f"| after | {error:.3f} | " in card


def test_model_card_takes_no_name_for_markup(written):
    card = model_card.model_card(written("odd names of patients"))
    assert r"\<b\>bold\</b\> \| pipe" in card and "<b>" not in card
    widths = {line.count("|") - line.count(r"\|") for line in card.splitlines()
              if line.startswith("| ") and "pipe" in line}
    assert widths == {5, 8, 9, 10}    # table 1 and thresholds; prevalence, classes and groups


def test_a_run_that_starts_from_a_model_has_no_training_curves(tmp_path):
    start = {"model": "m.keras", "sha256": "abc", "labels_origin": "two nurses"}
    write_results(tmp_path, n=3, start_from=[start], history=[[]])
    assert "training_curves.png" not in {path.name for path in figures.make_all(tmp_path)}
    assert "No epoch was trained." in (tmp_path / "index.html").read_text()


def test_the_program_draws_all_and_changes_nothing_else(tmp_path, capsys):
    results = write_results(tmp_path / "run", n=3)
    folder = results.folder
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert program.main([str(folder)]) == 0
    printed = set(capsys.readouterr().out.split())
    expected = {f"figures/{name}.{kind}" for name in write.FIGURES for kind in ("pdf", "png")}
    expected |= {"figures/ecgs.pdf", "MODEL_CARD.md", "reporting_checklist.md", "index.html"}
    assert printed == {str(folder / name) for name in expected}
    assert {path: path.read_bytes() for path in before} == before
    pdf = (folder / "figures/ecgs.pdf").read_bytes()
    assert pdf.count(b"/Type /Page ") == len(set(results.examples + results.errors))
    wide = matplotlib.image.imread(folder / "figures/roc_precision_recall.png")
    assert wide.shape[1] == 300 * 7.2    # dpi, inches


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

"""What figures, ECG pages and model cards promise: every number is the results folder's.

Each is computed again here from `predictions.csv` (or the file it comes from) by plain loops, and
compared with what is on the drawn page: texts, lines, boxes, bars.
"""

import base64
import colorsys
import contextlib
import errno
import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from sklearn import metrics as scores

import too_feature as script
from ecg import explain, origin
from ecg.errors import UserError
from ecg.output import areas, ecg_page, figures, model_card, style
from tests.support.results import CLASSES, FEATURES, write_results
from tools import figures as door
from tools import make_labels

ROOT = Path(script.__file__).parent
RHYTHMS = [f"{where} {what}" for where in ("Atrial", "Junctional", "Ventricular")
           for what in ("Tachycardia", "Bradycardia", "Fibrillation", "Rhythm")]
ODD = ["A $class^$ of_money", "<b>bold</b> | pipe", "NA", "_hidden/name",
       "Complete Left Bundle Branch Block With First Degree Atrioventricular Block"]
TITLES = [f"{feature}, lead II" if i in (2, 3) else feature.replace(" [mV]", ", lead II [mV]")
          for i, feature in enumerate(FEATURES)]
DRAWN = {name: getattr(figures, name) for name in (
    "confusion_matrix", "training_curves", "roc_precision_recall", "reliability", "features")}
draw = style.styled()(lambda figure: FigureCanvasAgg(figure).draw())
RUNS = {    # by name, what `write_results` is given
    "results": {}, "odd": {"classes": ODD, "synthetic": False},
    "two classes": {"classes": ["AF", "100 % & <none>"], "tested": [0, 1]},
    "twelve classes": {"classes": RHYTHMS, "tested": range(12), "n": 200},
    "long names": {"classes": [f"{name} of the whole electrocardiogram, {'unspecified ' * 5}"
                               for name in CLASSES], "synthetic": False},
    "no spaces": {"classes": [name.replace(" ", "") * 4 for name in CLASSES]},
    "no letters": {"classes": ["心房颤动", "\U0010fffd", "é ü", "正常", "\ue000 x"]},
    "one record": {"n": 1}, "nothing measured": {"unknown": 1.1},
    "wide ranges": {"typical": -3.5, "spread": 1.2},
    "one epoch": {"epochs": 1, "repeats": 1}, "three repeats": {"repeats": 3}}


ONLY = {    # of these runs, what differs from the first alone is drawn
    "nothing measured": ["features"], "wide ranges": ["features"],
    "one epoch": ["training_curves"], "three repeats": ["training_curves"]}
FAST = {"results", "odd", "long names", *ONLY}


def each(runs):
    """Return parameters for these runs, most of them slow."""
    return [pytest.param(which, marks=() if which in FAST else pytest.mark.slow) for which in runs]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return what gives the results folder of one of `RUNS`, not to be changed."""
    return functools.cache(lambda name: write_results(
        tmp_path_factory.mktemp("results") / "run", **RUNS[name]))


@pytest.fixture(scope="module")
def results(written):
    return written("results")


@pytest.fixture(scope="module")
def odd(written):
    """One of real patients, whose class names are as awkward as they may be."""
    return written("odd")


@pytest.fixture(scope="module")
def table(results):
    return pd.read_csv(results / "predictions.csv")


def texts(figure):
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def page(figure):
    return "\n".join(text.get_text() for text in texts(figure))


# ---------------------------------------------------------------------------------- each number
def test_confusion_matrix_counts_and_shares(results, table):
    figure = figures.confusion_matrix(results)
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert len(cells) == 25
    for i, true in enumerate(CLASSES):
        row = table[table["true"] == true]
        for j, predicted in enumerate(CLASSES):
            n = sum(row["predicted"] == predicted)
            share = f"{100 * n / len(row):.0f}%" if len(row) else "–"
            assert cells[j + 0.5, i + 0.5] == f"{n}\n{share}"
    assert cells[0.5, 2.5] == "0\n–"    # the class without a record
    colours = figure.axes[0].collections[0].get_array()
    shares = pd.crosstab(table["true"], table["predicted"], normalize="index")
    assert np.allclose(colours, shares.reindex(index=CLASSES, columns=CLASSES, fill_value=0))
    draw(figure)    # rows from top to bottom as columns from left to right
    for labels in (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()):
        assert [" ".join(text.get_text().split()) for text in labels] == CLASSES
    assert figure.axes[0].get_ylim() == (5, 0)


def test_confusion_matrix_gives_the_interval(results, table):
    right = table["true"] == table["predicted"]
    low, high = json.loads((results / "metrics.json").read_text())["model"]["balanced accuracy"][1:]
    balanced = np.mean([right[table["true"] == name].mean() for name in set(table["true"])])
    assert figures.confusion_matrix(results).get_suptitle() == (
        f"90 records, shares of the true class\n"
        f"balanced accuracy {balanced:.2f} (95 % interval {low:.2f}–{high:.2f})")


def test_training_curves(results):
    history = pd.read_csv(results / "history.csv")
    figure = figures.training_curves(results)
    expected = [[("loss", 0), ("loss", 1), ("val_loss", 0), ("val_loss", 1)],
                [("accuracy", 0), ("accuracy", 1), ("val_accuracy", 0), ("val_accuracy", 1)],
                [("learning_rate", 0), ("learning_rate", 1)]]
    for axes, lines in zip(figure.axes, expected, strict=True):
        for line, (column, repeat) in zip(axes.lines, lines, strict=False):
            rows = history[history["repeat"] == repeat]
            assert np.allclose(line.get_xydata(), rows[["epoch", column]])
            assert line.get_linestyle() == ("--" if column.startswith("val") else "-")
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [
        "training (augmented records, with dropout)", "weights kept: of epoch 5, 6 (of 15)",
        "validation", "stopped early, after epoch 5, 6"]
    assert [legend.get_lines()[i].get_color() for i in (0, 2)] == [
        figure.axes[0].lines[i].get_color() for i in (0, 2)]
    assert figure.axes[2].get_ylabel() == "learning rate"
    assert figure.axes[2].get_yscale() == "linear"
    draw(figure)
    ticks = [text.get_text() for text in figure.axes[2].get_yticklabels()]
    assert len(ticks) > 2
    assert all(re.fullmatch(r"0|0\.\d{1,5}", tick) for tick in ticks)


@pytest.mark.parametrize(("freeze_bn_after", "best"), [(0, 2), (5, 4)])
def test_training_curves_mark_whose_weights_are_kept_and_where_training_stopped(
        freeze_bn_after, best, results, tmp_path):
    folder = shutil.copytree(results, tmp_path / "run")
    edit("run.json", lambda run: run["recipe"].update(
        keep_weights="best", freeze_bn_after=freeze_bn_after, batch_size=10))(folder)
    edit("run.json", lambda run: run["settings"].update(train_samples=22))(folder)
    history = pd.read_csv(folder / "history.csv")
    history = history[history["repeat"] == 0].assign(
        val_accuracy=[0.1, 0.9, 0.2, 0.8, 0.8, 0.3])    # 20 records, 2 steps: settled after 3
    history.to_csv(folder / "history.csv", index=False)
    for axes, column in zip(figures.training_curves(folder).axes, ("val_loss", "val_accuracy"),
                            strict=False):
        circle, = (line for line in axes.lines if line.get_marker() == "o")
        row = history[history["epoch"] == best]
        assert circle.get_xydata().tolist() == row[["epoch", column]].to_numpy().tolist()
        stop, = (line for line in axes.lines if line.get_linestyle() == ":")
        assert set(stop.get_xdata()) == {6}


def test_training_that_was_not_stopped_early_has_no_line(results, tmp_path):
    folder = shutil.copytree(results, tmp_path / "run")
    edit("run.json", lambda run: run["recipe"].update(epochs=5))(folder)
    figure = figures.training_curves(folder)
    assert "stopped" not in page(figure)
    assert all(line.get_linestyle() != ":" for axes in figure.axes for line in axes.lines)


@pytest.mark.parametrize("change", [
    lambda run: run["recipe"].update(epochs=0),
    lambda run: run.update(settings={"adapt": "last"}, start_from=[{
        "model": "m.keras", "sha256": "abc", "labels_origin": "two nurses"}])])
def test_a_run_without_epochs_has_no_training_curves_not_even_those_of_an_earlier_run(
        change, results, tmp_path, monkeypatch):
    folder = shutil.copytree(results, tmp_path / "run")
    edit("run.json", change)(folder)
    pd.DataFrame(columns=["repeat", "epoch"]).to_csv(folder / "history.csv", index=False)
    (folder / "figures").mkdir()
    (folder / "figures/training_curves.png").write_bytes(b"of an earlier run")
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path, **_: drawn.append(path.name) or [])
    monkeypatch.setattr(figures, "example_pages", lambda _: {})
    monkeypatch.setattr(figures, "FIGURES", dict.fromkeys(figures.FIGURES, lambda _: None))
    figures.make_all(folder)
    assert drawn == ["confusion_matrix", "roc_precision_recall", "reliability", "features"]
    shown = (folder / "index.html").read_text()
    assert "No epoch was trained." in shown
    is_evaluation = json.loads((folder / "run.json").read_text())["recipe"]["epochs"] == 0
    assert ("weights and temperature are those of the start" in shown) == is_evaluation
    assert ("calibrated on validation patients of this data" in shown) != is_evaluation
    assert base64.b64encode(b"of an earlier run").decode() not in shown
    with pytest.raises(UserError, match="no epoch was trained"):
        DRAWN["training_curves"](folder)


def test_figures_of_a_model_of_patients_that_is_tested_on_the_demo_are_marked(results, tmp_path):
    folder = shutil.copytree(results, tmp_path / "run")
    edit("run.json", lambda run: run.update(synthetic=False))(folder)
    assert origin.SYNTHETIC_MARK not in page(figures.reliability(folder))
    edit("run.json", lambda run: run.update(test_labels_origin=origin.DEMO))(folder)
    assert origin.SYNTHETIC_MARK in page(figures.reliability(folder))


def test_training_curves_without_learning_rate(results, tmp_path):
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    history = pd.read_csv(tmp_path / "history.csv").drop(columns="learning_rate")
    history[history["epoch"] == 1].to_csv(tmp_path / "history.csv", index=False)    # one epoch
    assert len(figures.training_curves(tmp_path).axes) == 2


def ranked_area(positive, p):
    """The share of pairs, one of the class and one of the rest, in the right order."""
    pairs = p[positive][:, None] - p[~positive]
    return np.mean((pairs > 0) + 0.5 * (pairs == 0))


def test_roc_and_precision_recall(results, table):
    figure = figures.roc_precision_recall(results)
    roc, pr = figure.axes
    legends = [[text.get_text().strip() for text in axes.get_legend().get_texts()]
               for axes in (roc, pr)]
    assert np.array_equal(roc.lines[0].get_xydata(), [[0, 0], [1, 1]])
    for i, name in enumerate(CLASSES):
        curve, steps = roc.lines[i + 1].get_xydata(), pr.lines[i].get_xydata()
        positive, p = (table["true"] == name).to_numpy(), table[f"p {name}"].to_numpy()
        if name == "Never tested":
            assert len(curve) == len(steps) == 0
            assert (legends[0][i], legends[1][i]) == ("–  Never tested", "–")
            continue
        cuts = np.sort(p)[::-1]    # all different: each is a point of both curves
        called = p >= cuts[:, None]
        recall, false = (called & positive).sum(1) / positive.sum(), (called & ~positive).sum(1)
        precision = (called & positive).sum(1) / called.sum(1)
        assert np.allclose(curve[1:], np.column_stack([false / (~positive).sum(), recall]))
        assert np.allclose(steps[:-1][::-1], np.column_stack([recall, precision])[:len(steps) - 1])
        assert steps[0, 0] == 1    # all of them found; what follows the last is the same recall
        area, (x, y) = ranked_area(positive, p), curve.T
        assert sum(np.diff(x) * (y[1:] + y[:-1]) / 2) == pytest.approx(area)
        average = sum(precision * np.diff(recall, prepend=0))
        assert re.fullmatch(rf"{area:.3f} \((.*)–(.*)\)  {name}", legends[0][i])
        assert re.fullmatch(rf"{average:.3f} \((.*)–(.*)\)  {positive.mean():.2f}", legends[1][i])
    looks = {(line.get_color(), line.get_linestyle()) for line in pr.lines}
    assert len(looks) == len({colour for colour, _ in looks}) == 5


def test_no_two_classes_have_the_same_hue():
    hues = [colorsys.rgb_to_hsv(*to_rgb(colour))[0] for colour in style.COLOURS[:5]]
    assert min(abs(a - b) for a, b in itertools.combinations(hues, 2)) > 10 / 360


def test_areas_and_intervals_are_those_of_a_plain_bootstrap_of_patients():
    rng = np.random.default_rng(1)
    positive = rng.random(60) < 0.4
    p = np.round(rng.normal(positive, 1), 1)    # with ties
    subjects = rng.integers(0, 20, 60)
    area, average = areas.areas(positive, p, subjects)
    assert area[0] == pytest.approx(ranked_area(positive, p))
    assert average[0] == pytest.approx(scores.average_precision_score(positive, p))
    drawn = []
    for _ in range(1500):
        who = rng.integers(0, 20, 20)
        places = np.concatenate([np.flatnonzero(subjects == one) for one in who])
        own = positive[places]
        drawn.append((ranked_area(own, p[places]),
                      scores.average_precision_score(own, p[places])))
    for found, plain in zip((area, average), np.array(drawn).T, strict=True):
        assert found[1:] == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.03)


def test_a_perfect_area_has_an_interval_with_width():
    area, average = areas.areas(np.arange(10) < 4, 1 - np.arange(10) / 10, np.arange(10))
    assert area == average == [1, pytest.approx(0.5555, abs=1e-3), 1]    # Jeffreys', 4 of 4


@pytest.mark.parametrize(("reach", "side"), [(0.001, 0.1), (0.08, 0.2), (0.2, 0.5), (0.4, 1)])
def test_roc_shows_the_corner_that_the_curves_need(reach, side, results, tmp_path):
    folder = shutil.copytree(results, tmp_path / "run")
    table = pd.read_csv(folder / "predictions.csv")
    columns = [f"p {name}" for name in CLASSES]
    for column, name in zip(columns, CLASSES, strict=True):
        is_of_class = (table["true"] == name).to_numpy()
        rank = np.linspace(0, 1, len(table))[::-1]
        table[column] = np.where(is_of_class, 1, rank * 0.5)
        others = np.flatnonzero(~is_of_class)
        table.loc[others[:int(reach * len(others))], column] = 1
    table.to_csv(folder / "predictions.csv", index=False)
    roc = figures.roc_precision_recall(folder).axes[0]
    assert roc.get_xlim()[1] == side
    assert roc.get_ylim()[0] == pytest.approx(1 - side)
    assert ("corner" in roc.get_title()) == (side < 1)


def test_reliability(results, table):
    p = table[[f"p {name}" for name in CLASSES]].to_numpy()
    confidence, right = p.max(axis=1), (table["true"] == table["predicted"]).to_numpy()
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
    drawn = [segment[:, 1] for segment in top.collections[0].get_segments()]
    assert np.allclose(drawn, intervals, atol=1e-6)
    assert top.get_title() == f"expected calibration error {error:.3f}"
    assert error == pytest.approx(json.loads((results / "metrics.json").read_text())[
        "calibration"]["test"]["after"]["expected calibration error"])


def test_features(results, table):
    figure = figures.features(results)
    panels = {" ".join(axes.get_title().split()): axes for axes in figure.axes}
    assert sorted(panels) == sorted(TITLES)    # not the ninth, which tells nothing
    for title, feature, (_, _, limits) in zip(TITLES, FEATURES, script.FEATURES, strict=True):
        axes = panels[title]
        boxes = {round(box.get_y() + 0.3): box for box in axes.patches if box.get_height() < 0.9}
        bands = [band for band in axes.patches if band.get_height() == 1]
        lines = [tuple(line.ravel()) for part in axes.collections for line in part.get_segments()]
        points = np.concatenate([line.get_xydata() for line in axes.lines])
        for i, name in enumerate(CLASSES):
            values = table[feature][table["true"] == name].dropna()
            assert (i in boxes) == bool(len(values))
            if len(values):
                q1, middle, q3 = np.percentile(values, [25, 50, 75])
                near = values[(values >= 2.5 * q1 - 1.5 * q3) & (values <= 2.5 * q3 - 1.5 * q1)]
                box = boxes.pop(i)
                assert (box.get_x(), box.get_width()) == pytest.approx((q1, q3 - q1))
                for line in ((near.min(), i, q1, i), (q3, i, near.max(), i),
                             (middle, i - 0.3, middle, i + 0.3)):
                    assert any(line == pytest.approx(drawn) for drawn in lines)
                assert sorted(points[points[:, 1] == i, 0]) == pytest.approx(
                    sorted(values[~values.index.isin(near.index)]))
        assert not boxes
        assert [(band.get_x(), band.get_x() + band.get_width()) for band in bands] == (
            [pytest.approx(limits)] if limits else [])


def test_of_more_features_the_most_telling_are_shown_first(results, tmp_path):
    folder = shutil.copytree(results, tmp_path / "run")
    table = pd.read_csv(folder / "predictions.csv")
    number = table["true"].map(CLASSES.index)
    table["QRS width [ms]"] = 100 + number + np.where(np.arange(90) % 7, 0, np.nan)
    table["SDNN [ms]"] = 1.0    # tells nothing
    table.to_csv(folder / "predictions.csv", index=False)
    figure = figures.features(folder)
    titles = [" ".join(axes.get_title().split()) for axes in figure.axes]
    assert titles[0] == "QRS width [ms]"
    assert sorted(titles[1:]) == sorted(set(TITLES) - {"SDNN [ms]"})
    assert "the 8 of 9 features that differ most between the classes" in page(figure)


# ------------------------------------------------------------------------------------------- ECG
def test_ecg_has_the_physical_scale(tmp_path):
    fs, seconds = 500, np.arange(5000) / 500
    signal = np.column_stack([0.1 * i + seconds * (i + 1) / 100 for i in range(12)])    # mV, ramps
    leads = list(script.LEADS)[::-1]
    peaks = np.array([100, 2500.5, 4900])
    figure = ecg_page.draw_ecg(signal, fs, leads, peaks, "Title", "Text", "Note")
    axes, = figure.axes
    millimetre = axes.get_window_extent().width / figure.dpi * 25.4 / np.diff(axes.get_xlim())
    assert millimetre == pytest.approx(1)
    assert axes.get_window_extent().height / figure.dpi * 25.4 == pytest.approx(
        np.diff(axes.get_ylim())[0])
    by_name = {}
    for line in axes.lines:
        by_name.setdefault(line.get_label(), []).append(line.get_xydata())
    start = by_name["I"][0][0, 0]
    for row in (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6")):
        for place, name in enumerate(row):
            line, slope = by_name[name][0], (leads.index(name) + 1) / 100
            assert line[0, 0] == pytest.approx(start + 62.5 * place)        # 2.5 s are 62.5 mm
            assert np.ptp(line[:, 0]) == pytest.approx(62.5, abs=26 / fs)
            assert np.ptp(line[:, 1]) == pytest.approx(10 * slope * np.ptp(line[:, 0]) / 25)
            base = by_name[row[0]][0][0, 1] + 5 * (leads.index(row[0]) + 1) / 10
            assert line[0, 1] == pytest.approx(base + 10 * slope * (2.5 * place - 5), abs=0.01)
    rhythm = by_name["II"][1]
    assert (len(rhythm), rhythm[0, 0]) == (5000, start)
    assert np.allclose(by_name["R peaks"][0][:, 0], start + 25 * peaks / fs)
    for pulse in by_name["pulse"]:    # 1 mV for 0.2 s
        assert np.ptp(pulse[:, 1]) == 10
        assert np.ptp(pulse[pulse[:, 1] == pulse[:, 1].max(), 0]) == 5
    assert len(by_name["pulse"]) == 4
    grid = [np.array(lines.get_segments()) for lines in axes.collections]
    assert [np.unique(np.diff(x[:, 0, i])) for x, i in zip(grid, (0, 1, 0, 1), strict=True)] == [
        1, 1, 5, 5]
    for text in ("25 mm/s, 10 mm/mV", "Title", "Text", "Note", *leads):
        assert text in page(figure)
    pdf = style.save(figure, tmp_path / "ecg")[0].read_bytes()
    box = [float(x) for x in re.search(rb"/MediaBox \[ *([\d. ]+)\]", pdf)[1].split()]
    assert box == pytest.approx([0, 0, 297 / 25.4 * 72, 210 / 25.4 * 72], abs=0.01)


@pytest.mark.parametrize(("peak", "gain"), [(1.9, 10), (2.1, 5), (-2.1, 5)])
def test_a_trace_that_leaves_its_row_halves_the_gain_and_the_page_says_so(peak, gain):
    signal = np.zeros((5000, 12))
    signal[4000:4005, 11] = peak    # V6, where it is drawn
    signal[0, 11] = 9               # where it is not
    figure = ecg_page.draw_ecg(signal, 500, script.LEADS)
    pulses = [line.get_ydata() for line in figure.axes[0].lines if line.get_label() == "pulse"]
    assert {np.ptp(pulse) for pulse in pulses} == {gain}
    trace, = (line.get_ydata() for line in figure.axes[0].lines if line.get_label() == "V6")
    assert np.ptp(trace) == pytest.approx(gain * abs(peak))
    assert f"25 mm/s, {gain} mm/mV" in page(figure)
    assert ("HALF THE GAIN" in page(figure)) == (gain == 5)


def test_no_triangle_is_on_a_label():
    beats = np.arange(0, 5000, 100)
    signal = np.zeros((5000, 12))
    for height in np.linspace(0.2, 1.9, 9):    # mV
        signal[beats] = height
        figure = ecg_page.draw_ecg(signal, 500, script.LEADS, beats)
        draw(figure)
        triangles, = (line for line in figure.axes[0].lines if line.get_label() == "R peaks")
        places = figure.axes[0].transData.transform(triangles.get_xydata())
        labels = [text.get_window_extent() for text in texts(figure) if text.get_text() == "II"]
        assert len(labels) == 2
        assert not [place for place in places for box in labels if box.padded(12).contains(*place)]


def test_ecg_colours_what_is_important():
    importance = np.random.default_rng(0).uniform(-1, 1, (5000, 12))
    importance[7, 1] = np.nan
    reasons = ecg_page.Reasons(importance, 0.0123, "leads 4 %, features 96 %")
    figure = ecg_page.draw_ecg(np.zeros((5000, 12)), 500, script.LEADS, reasons=reasons)
    images = figure.axes[0].images
    assert len(images) == 13
    for image in images[:12]:
        column = script.LEADS.index(image.get_label())
        place = {0: 0, 1: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 2, 7: 2, 8: 2}.get(column, 3)
        expected = np.nan_to_num(importance[place * 1250:(place + 1) * 1250 + 1, column])
        assert np.array_equal(np.asarray(image.get_array())[0], expected)
        assert image.get_clim() == (-1, 1)
        assert image.get_extent()[0] == pytest.approx(31 + 62.5 * place)
    alpha = ecg_page.IMPORTANCE(np.linspace(0, 1, 11))[:, 3]    # none at 0, more to both sides
    assert alpha[5] < 0.01 and (np.diff(alpha[:6]) < 0).all() and (np.diff(alpha[5:]) > 0).all()
    for words in ("against the class −0.012", "+0.012 for the class, by 0.1 s", "features 96 %"):
        assert words in page(figure)


@pytest.mark.parametrize("origin", [
    origin.NOT_STATED, origin.DEMO, make_labels.ORIGIN_OTHER, "o" * 100, "心" * 100])
def test_ecg_texts_do_not_cover_each_other_or_the_colour_bar(origin):
    note = origin.about_model(origin, is_synthetic=True)
    spikes = 3.0 * (np.arange(5000) % 500 < 20)[:, None] * np.ones(12)    # mV: half the gain
    names = [name for name, _, _ in script.feature_names(script.RECIPES["large"])]
    importance = explain.Importance(np.zeros((500, 12)), np.linspace(1, 0, 48), 0, 1, 0)
    reasons = ecg_page.Reasons(spikes, 0.0123, explain.in_brief(importance, sorted(
        names, key=len, reverse=True)))
    figure = ecg_page.draw_ecg(
        spikes, 500, script.LEADS, [900, 1800], "title", "text\ntext\ntext", note, reasons,
        "Heart rate 60 bpm, PR 140 ms, QRS 90 ms, QT 400 ms")
    draw(figure)
    boxes = [text.get_window_extent() for text in texts(figure)]
    assert min(min(box.x0, box.y0) for box in boxes) >= 0
    shown = "".join(text.get_text() for text in texts(figure)).replace(" ", "")
    assert note.replace(" ", "") in shown
    boxes.append(figure.axes[1].get_window_extent())
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


@pytest.mark.parametrize("samples, fs", [(1, 500), (900, 100), (30_000, 1000), (40, 10)])
def test_ecg_of_any_length_with_gaps(samples, fs):
    signal = np.random.default_rng(0).normal(size=(samples, 12))
    signal[:, 3], signal[0] = np.nan, np.inf
    reasons = ecg_page.Reasons(np.zeros((samples, 12)), 0.1, "")
    figure = ecg_page.draw_ecg(
        signal, fs, script.LEADS, [-5, 0, samples - 1, 1e9], reasons=reasons)
    draw(figure)
    for line in figure.axes[0].lines:
        assert line.get_xdata().max() <= 281.3    # at the right edge of the paper at most


@pytest.mark.parametrize("change", [
    {"signal": np.zeros(100)}, {"signal": np.zeros((100, 11))}, {"fs": 0}, {"fs": float("nan")},
    {"leads": ["X", *script.LEADS[1:]]}, {"reasons": ecg_page.Reasons(np.zeros((99, 12)), 1, "")}])
def test_ecg_says_what_does_not_fit(change):
    with pytest.raises(ValueError, match="shape"):
        ecg_page.draw_ecg(**{"signal": np.zeros((100, 12)), "fs": 100,
                            "leads": script.LEADS, **change})


def test_example_pages(results, table):
    pages = ecg_page.example_pages(results)
    assert list(pages) == ["ecg_1_atrial_fibrillation", "ecg_2_bundle_branch_block",
                           "ecg_4_normal", "ecg_5_tachycardia"]
    data, rows = np.load(results / "examples.npz"), table.set_index("record")
    for (_, figure), i in zip(pages.items(), (0, 1, 3, 4), strict=True):
        shown, record = page(figure), str(data[f"record_{i}"])
        assert f"Label {rows['true'][record]}, predicted {rows['predicted'][record]}" in shown
        assert f", record {record}" in shown
        assert "500 Hz, unfiltered" in shown
        rate = rows["heart rate [bpm]"][record]
        assert f"Heart rate {'not measurable' if np.isnan(rate) else f'{rate:.0f} bpm'}" in shown
        assert "QRS 99 ms, record" in shown
        for name in CLASSES:
            assert f"{name} {rows[f'p {name}'][record]:.2f}" in shown
        lines = {}
        for line in figure.axes[0].lines:
            lines.setdefault(line.get_label(), []).append(line.get_xydata())
        signal, peaks = data[f"signal_{i}"].astype(float), np.rint(data[f"r_peaks_{i}"])
        millimetres = 10 * (signal - np.median(signal, axis=0))
        for place, row in enumerate(("I aVR V1 V4", "II aVL V2 V5", "III aVF V3 V6")):
            for column, name in enumerate(row.split()):
                here = slice(1250 * column, 1250 * (column + 1) + 1)
                expected = millimetres[here, script.LEADS.index(name)]
                assert np.allclose(lines[name][0], np.column_stack([
                    31 + 25 * np.arange(5000)[here] / 500, 22 + 140 - 40 * place + expected]))
        strip = 22 + 20 + millimetres[:, 1]
        assert np.allclose(lines["II"][1], np.column_stack([31 + np.arange(5000) / 20, strip]))
        assert np.allclose(lines["R peaks"][0], np.column_stack([31 + peaks / 20, np.clip(
            strip[peaks.astype(int)], 42, 72) + 2]), atol=0.03)


def test_probabilities_fit_above_the_paper():
    names, p = [f"{name} " * 6 for name in RHYTHMS], np.linspace(0, 1, 12)
    text = ecg_page.write_probabilities(names, p)
    assert text.count("\n") == 2
    assert re.findall(r"\d\.\d\d", text) == [f"{x:.2f}" for x in p]
    assert ecg_page.write_probabilities(RHYTHMS * 9, np.zeros(108)).count("\n") == 2


# ---------------------------------------------------------------------------------------- looks
@functools.cache
def all_figures(folder):
    return {name: function(folder) for name, function in DRAWN.items()} | ecg_page.example_pages(
        folder)


@pytest.mark.parametrize("which", each(RUNS))
def test_all_text_is_readable_and_on_the_page(which, written):
    folder = written(which)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = ({name: DRAWN[name](folder) for name in ONLY[which]} if which in ONLY
                 else all_figures(folder))
        for figure in drawn.values():
            draw(figure)
    for name, figure in drawn.items():
        unseen = [text for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)
                  for text in [*axis.get_ticklabels(), *axis.get_ticklabels(minor=True)]
                  if not axes.axison or text not in [tick.label1 for tick in axis._update_ticks()]]
        for text in texts(figure):
            box = text.get_window_extent()
            if text in unseen:
                continue
            assert text.get_fontsize() >= 9, (name, text)
            assert min(box.x0, box.y0) >= -1 and box.x1 <= figure.bbox.width + 1 and (
                box.y1 <= figure.bbox.height + 1), (name, text)
            if name.startswith("ecg"):    # above, below or on the paper
                low, high = figure.axes[0].transData.inverted().transform(box)[:, 1]
                assert high < 22 or low > 182 or (low > 22 and high < 182), (name, text)
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                boxes = [tick.label1.get_window_extent() for tick in axis._update_ticks()
                         if tick.label1.get_visible() and tick.label1.get_text()]
                assert not axes.axison or not any(
                    a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]), (name, axis)


@pytest.mark.parametrize("which", each(which for which in RUNS if which not in ONLY))
def test_cells_of_the_confusion_matrix_are_square_and_hold_their_text(which, written):
    figure = all_figures(written(which))["confusion_matrix"]
    draw(figure)
    cells = figure.axes[0]
    side, height = cells.bbox.size / len(RUNS[which].get("classes", CLASSES))
    assert height == pytest.approx(side, rel=0.03)
    assert all(text.get_window_extent().width < side for text in cells.texts)


def test_no_epoch_between_two(written):
    for axes in figures.training_curves(written("one epoch")).axes:
        low, high = axes.get_xlim()
        assert [x for x in axes.get_xticks() if low <= x <= high] == [1]


def test_letters_that_no_font_has(written):
    assert style.drawable(["心", "é", "\U0010fffd", "a\ue000", "_$"])[1:] == [
        "é", "class 3", "class 4", "_$"]
    shown = page(figures.roc_precision_recall(written("no letters")))
    assert "class 2" in shown and "class 5" in shown and "  é ü" in shown
    assert list(ecg_page.example_pages(written("no letters"))) == [
        "ecg_1", "ecg_2", "ecg_4", "ecg_5_x"]


def test_chinese_letters_are_twice_as_broad():
    assert style.short("心房颤动", 8) == "心房颤动"
    assert style.short("心房颤动", 7) == "心房颤…"
    assert style.short("AF 心房颤动", 6) == "AF 心…"
    assert style.short("Normal rhythm", 8) == "Normal…"
    text = ecg_page.write_probabilities(["心" * 10] * 9, np.zeros(9))
    assert max(map(style.breadth, text.split("\n"))) <= 130


def test_nothing_measured_is_said(written):
    assert page(figures.features(written("nothing measured"))).count("not measured") == 8


def test_widths_are_a_papers(results):
    for name, inches in {"confusion_matrix": 3.5, "reliability": 3.5, "training_curves": 7.2,
                         "roc_precision_recall": 7.2, "features": 7.2}.items():
        assert DRAWN[name](results).get_figwidth() == pytest.approx(inches, abs=0.01)


def test_synthetic_data_is_marked_and_no_other(results, odd):
    for name, figure in all_figures(results).items():
        mark = origin.TRAINED_ON_SYNTHETIC if name.startswith("ecg") else "synthetic demo data"
        assert mark in page(figure)
    assert not any("synthetic" in page(figure) for figure in all_figures(odd).values())


def test_names_are_drawn_as_they_are(odd):
    shown = page(figures.roc_precision_recall(odd))
    for name in ODD[:4]:
        assert f"  {name}" in shown    # no mathematics, none hidden
    assert list(ecg_page.example_pages(odd)) == [
        "ecg_1_a_class_of_money", "ecg_2_b_bold_b_pipe", "ecg_4_hidden_name",
        "ecg_5_complete_left_bundle_branch_block_with_f"]


def test_files_are_vector_truetype_and_the_same_each_time(results, tmp_path):
    first = style.save(figures.confusion_matrix(results), tmp_path / "a" / "one")
    with matplotlib.rc_context({"font.size": 30, "pdf.fonttype": 3, "axes.facecolor": "black"}):
        mine = dict(matplotlib.rcParams)
        again = style.save(figures.confusion_matrix(results), tmp_path / "b" / "one")
        assert dict(matplotlib.rcParams) == mine    # a notebook's style is left alone
    assert [path.suffix for path in first] == [".pdf", ".png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    pdf = first[0].read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf
    assert b"/Subtype /Image" not in pdf
    size = np.frombuffer(first[1].read_bytes()[16:24], ">u4")    # a PNG's width and height
    assert size[0] == 700


# ------------------------------------------------------------------------------- card and folder
def test_model_card(results):
    card = model_card.model_card(results)
    metrics = json.loads((results / "metrics.json").read_text())
    split = pd.read_csv(results / "split.csv")
    assert origin.TRAINED_ON_SYNTHETIC in card.split("\n\n")[1]
    assert "**Origin of the labels: synthetic records, not patients.**" in card
    for text in ("not a medical device", "Intended use", "Not to be used", "### Preparation",
                 r"mean, lead II \[mV\]: mean of x", "temperature (1.234) is inside",
                 "200 records of 100 patients", "abc123", "more than one split: 0.",
                 "too short (2)", "header is damaged (1)",
                 "python 3.11.7", "high-pass of 0.5 Hz", "Resample to 500 points", "QRS width",
                 "seed 7, recipe default, ", "sequence_length 500, ",
                 "No test record of Never tested", ", ".join(script.LEADS)):
        assert text in card
    assert "/home/me" not in card and "jit" not in card
    for who in ("model", "rate rule"):
        cells = ["{:.3f} ({:.2f} to {:.2f})".format(*x) for x in metrics[who].values()]
        assert f"| {who} | {' | '.join(cells)} |" in card
    for name in CLASSES:
        rows = split[split["ecg_category"] == name]
        cells = [f"{len(x)} ({x['subject_id'].nunique()})" for x in (
            rows[rows["split"] == part] for part in ("train", "validation", "test"))]
        assert f"| {name} | {' | '.join(cells)} |" in card
        row = metrics["per class"][name]
        numbers = [f"{row[x]:.3f}" if row["support"] else "–"
                   for x in ("precision", "recall", "f1-score")]
        assert f"| {name} | {' | '.join(numbers)} | {row['support']:.0f} |" in card
    for where, of in metrics["calibration"].items():
        for when, errors in of.items():
            cells = " | ".join(f"{x:.3f}" for x in errors.values())
            assert f"| {where}, {when} | {cells} |" in card


def test_model_card_again_from_the_predictions(results, table):
    card = model_card.model_card(results)
    p = table[[f"p {name}" for name in CLASSES]].to_numpy()
    right, confidence = (table["true"] == table["predicted"]).to_numpy(), p.max(axis=1)
    assert f"{len(table)} test records of {table['subject_id'].nunique()} patients" in card
    recalls, rule = [], np.where(table["heart rate [bpm]"] > 100, "Tachycardia", CLASSES[0])
    for name in CLASSES:
        true, called = table["true"] == name, table["predicted"] == name
        if not true.any():
            assert f"| {name} | – | – | – | 0 |" in card
            continue
        recalls.append(right[true].mean())
        scores = right[called].mean(), recalls[-1], 2 * sum(true & called) / sum([*true, *called])
        assert f"| {name} | {' | '.join(f'{x:.3f}' for x in scores)} | {sum(true)} |" in card
    assert re.search(rf"\| model \| {right.mean():.3f} \(.*\| {np.mean(recalls):.3f} \(", card)
    assert f"| rate rule | {np.mean(table['true'] == rule):.3f} (" in card
    assert f"Confidence {confidence.mean():.1%}, standard deviation {confidence.std():.1%}" in card
    error = sum(abs(sum(right[here]) - sum(confidence[here])) for here in (
        (confidence * 10).astype(int) == i for i in range(10))) / len(table)
    brier = np.mean(sum((p[:, i] - (table["true"] == name)) ** 2 for i, name in enumerate(CLASSES)))
    assert f"| test, after | {error:.3f} | {brier:.3f} |" in card
    sure = right[np.argsort(-confidence, kind="stable")]
    for share in (100, 75, 50, 25):
        kept = round(share / 100 * len(table))
        assert f"{share}% {sure[:kept].mean():.3f}" in card


def test_model_card_counts_patients_in_two_splits(results, tmp_path):
    folder = shutil.copytree(results, tmp_path / "run")
    split = pd.read_csv(folder / "split.csv")
    split.assign(subject_id=np.arange(200) // 2 % 58).to_csv(folder / "split.csv", index=False)
    assert "more than one split: 40." in model_card.model_card(folder)    # 60 to 99 are 2 to 41


def test_model_card_takes_no_name_for_markup(odd):
    card = model_card.model_card(odd)
    assert "synthetic" not in card
    assert r"\<b\>bold\</b\> \| pipe" in card and "<b>" not in card
    widths = {line.count("|") - line.count(r"\|") for line in card.splitlines()
              if line.startswith("| ") and "pipe" in line}
    assert widths == {5, 6}    # the tables of splits and of classes


def test_a_run_before_recipes_has_a_card_as_well(results, tmp_path):
    folder = shutil.copytree(results, tmp_path / "run")
    run = json.loads((folder / "run.json").read_text())
    recipe = run.pop("recipe")
    run["settings"] |= {"recipe": recipe.pop("name"), **recipe}
    (folder / "run.json").write_text(json.dumps(run))
    assert model_card.model_card(folder) == model_card.model_card(results)


@pytest.mark.slow
def test_command_line_makes_all_and_changes_nothing_else(results, tmp_path):
    folder = shutil.copytree(results, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "importtime", ROOT / "tools/figures.py", folder],
        capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "matplotlib.figure" in done.stderr    # else this would prove nothing
    assert "matplotlib.pyplot" not in done.stderr
    stems = [*DRAWN, *ecg_page.example_pages(results)]
    expected = [folder / "figures" / f"{stem}.{kind}" for stem in stems for kind in ("pdf", "png")]
    expected += [folder / "MODEL_CARD.md", folder / "index.html"]
    assert done.stdout.split() == list(map(str, expected))
    assert {path for path in folder.rglob("*.*") if path.is_file()} == {
        *expected, *(folder / name for name in before)}
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_only(results, tmp_path, capsys):
    folder = shutil.copytree(results, tmp_path / "run")
    assert door.main([str(folder), "--only", "model_card"]) == 0
    assert capsys.readouterr().out == f"{folder / 'MODEL_CARD.md'}\n"
    assert (folder / "MODEL_CARD.md").read_text() == model_card.model_card(results)
    for name in ("examples.npz", "metrics.json", "predictions.csv"):
        (folder / name).unlink()    # not needed for this one
    assert door.main([str(folder), "--only", "training_curves"]) == 0
    assert len(capsys.readouterr().out.split()) == 2
    with pytest.raises(SystemExit) as stop:
        door.main([str(folder), "--only", "nonsense"])
    assert stop.value.code == 2


def edit(name, change):
    """Return what applies `change` to the JSON file of that name."""
    def damage(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
    return damage


def replace(name, old, new):
    """Return what replaces bytes in the file of that name."""
    def damage(folder):
        content = (folder / name).read_bytes()
        assert old in content
        (folder / name).write_bytes(content.replace(old, new))
    return damage


DAMAGES = {
    "a record less": ("metrics.json", edit("metrics.json", lambda x: x.update(records=89))),
    "another accuracy": ("metrics.json", edit(
        "metrics.json", lambda x: x["model"].update(accuracy=[0.1, 0, 1]))),
    "no interval": ("metrics.json", edit(
        "metrics.json", lambda x: x["model"].update({"balanced accuracy": [0.5]}))),
    "no class": ("metrics.json", edit("metrics.json", lambda x: x["per class"].pop("Normal"))),
    "a class twice": ("run.json", edit("run.json", lambda x: x.update(classes=["a", "a"]))),
    "no temperature": ("run.json", edit("run.json", lambda x: x.pop("temperature"))),
    "no setting": ("run.json", edit("run.json", lambda x: x["recipe"].pop("scale_span"))),
    "a list": ("run.json", lambda folder: (folder / "run.json").write_text("[]")),
    "another class": ("predictions.csv", edit(
        "run.json", lambda x: x["classes"].__setitem__(3, "Else"))),
    "a feature more": ("predictions.csv", edit(
        "run.json", lambda x: x["features"].insert(0, ["no such", "", None]))),
    "unknown class": ("predictions.csv", replace("predictions.csv", b",Normal,", b",Odd,")),
    "a word": ("predictions.csv", replace("predictions.csv", b",0.0", b",zero")),
    "not a probability": ("predictions.csv", replace("predictions.csv", b",0.0", b",7.0")),
    "no rows": ("history.csv", lambda folder: (folder / "history.csv").write_text(
        "repeat,epoch,loss,accuracy,val_loss,val_accuracy\n")),
    "no column": ("history.csv", replace("history.csv", b"val_loss", b"other")),
    "other columns": ("split.csv", replace("split.csv", b"ecg_category", b"kind")),
    "cut off": ("examples.npz", lambda folder: (folder / "examples.npz").write_bytes(
        (folder / "examples.npz").read_bytes()[:5000])),
    "pickled": ("examples.npz", lambda folder: np.savez(
        folder / "examples.npz", signal_0=np.array([{}], dtype=object))),
    "a short signal": ("examples.npz", lambda folder: np.savez(
        folder / "examples.npz", signal_0=np.zeros(9), fs_0=500, r_peaks_0=[], record_0="x",
        probabilities_0=np.zeros(5)))}
FILES = ("run.json", "metrics.json", "predictions.csv", "history.csv", "split.csv", "left_out.csv",
         "examples.npz", "errors.npz")
DAMAGES |= {f"{name} missing": (name, lambda folder, name=name: (folder / name).unlink())
            for name in FILES if name != "errors.npz"}    # which older runs have not
DAMAGES |= {f"{name} empty": (name, lambda folder, name=name: (folder / name).write_bytes(b""))
            for name in FILES}
DAMAGES |= {f"{name} binary": (name, lambda folder, name=name: (folder / name).write_bytes(
    bytes(range(256)) * 9)) for name in FILES}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line_that_names_the_file(damage, results, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(results, tmp_path / "run")
    name, harm = DAMAGES[damage]
    harm(folder)
    monkeypatch.setattr(figures, "save", lambda figure, stem, **_: [])    # half a second each
    reader = {"history.csv": ["training_curves"], "examples.npz": ["examples"],
              "split.csv": ["model_card"], "left_out.csv": ["model_card"], "errors.npz": ["page"]}
    only = reader.get(name, ["confusion_matrix", "model_card"])
    assert door.main([str(folder), "--only", *only]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"figures.py: error: {folder / name} is ") and error.count("\n") == 1
    assert ("missing" in error) == ("missing" in damage)


def test_no_folder_and_no_place_to_write(results, tmp_path, capsys):
    assert door.main([str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    folder = shutil.copytree(results, tmp_path / "run")
    (folder / "figures").write_text("a file in the way")
    assert door.main([str(folder), "--only", "reliability"]) == 2
    assert "figures" in capsys.readouterr().err


@contextlib.contextmanager
def small_disk(most):
    """Let no file of this process grow beyond so many bytes: then it is as if a disk were full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("only, name", [
    ("reliability", "figures/reliability.png"), ("model_card", "MODEL_CARD.md")])
def test_no_room_leaves_what_was_there(only, name, results, tmp_path):
    folder = shutil.copytree(results, tmp_path / "run")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("of the run before")
    before = sorted(folder.rglob("*"))
    with small_disk(2000), pytest.raises(UserError) as error:
        figures.make_all(folder, [only], force=True)
    why = os.strerror(errno.EFBIG)
    assert str(error.value) == f"{folder / name}: {why}; choose another folder"
    assert sorted(folder.rglob("*")) == before
    assert (folder / name).read_text() == "of the run before"

"""Draw the figures of a run and write its model card, from the files of its results folder alone.

    python tools/figures.py results/my_model                                         # all of it
    python tools/figures.py results/my_model --only confusion_matrix training_curves

Figures go to `figures/` in that folder, as PDF (fonts embedded) and as PNG (200 dpi), in the widths
of a paper's column or page; `MODEL_CARD.md` goes beside it. Nothing is trained, and nothing of the
script is needed. `draw_ecg` draws any 12-lead ECG as clinicians read it.
"""

import argparse
import contextlib
import io
import json
import os
import re
import sys
import textwrap
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.cbook import boxplot_stats
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator
from sklearn import metrics as scores

COLUMN, PAGE = 3.5, 7.2    # inches, widths of a paper's column and page
# Okabe & Ito, Color Universal Design, 2008; without the yellow, which is faint on white
BLUE, ORANGE, GREEN, VERMILLION, SKY, _ = COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
DASHES = "-", "--", "-.", ":"
SHARES = LinearSegmentedColormap.from_list("shares", ["white", BLUE])
IMPORTANCE = LinearSegmentedColormap.from_list("importance", [    # the paper shows through
    (0, to_rgba(BLUE, 0.7)), (0.5, to_rgba(BLUE, 0)), (0.5, to_rgba(ORANGE, 0)),
    (1, to_rgba(ORANGE, 0.7))])
SYNTHETIC = "synthetic demo data"
styled = style.context({    # whatever the user's own style
    "font.size": 9, "axes.titlesize": 9, "figure.titlesize": 9, "legend.frameon": False,
    "legend.fontsize": 9, "axes.spines.top": False, "axes.spines.right": False,
    "lines.linewidth": 1.2, "text.parse_math": False,    # a class name may hold a $
    "pdf.fonttype": 42, "savefig.dpi": 200}, after_reset=True)


class ResultsError(ValueError):
    """A file of a results folder is missing or damaged: one line that names it."""


# ------------------------------------------------------------------------------------------ read
@contextlib.contextmanager
def reading(path):
    """Name the file in a `ResultsError` for whatever its damage leads to."""
    try:
        yield
    except FileNotFoundError as error:
        raise ResultsError(f"{path} is missing") from error
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        raise ResultsError(f"{path} is damaged: {why}") from error


def read_table(folder, name, columns, numbers=()):
    """Return these columns of a CSV file, `numbers` as floats, the others as text."""
    path = Path(folder) / name
    with reading(path):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)[[*columns, *numbers]]
        return table.assign(**{x: table[x].replace("", "nan").astype(float) for x in numbers})


def read_run(folder):
    """Return run.json, checked, and as `shown` the first eight features' columns and ranges."""
    path = Path(folder) / "run.json"
    with reading(path):
        run = json.loads(path.read_text(encoding="utf-8"))
        classes = [str(name) for name in run["classes"]]
        if len(set(classes)) != len(classes) or len(classes) < 2:
            raise ValueError("expected two or more different classes")
        shown = [(f"{name} [{unit}]" if unit else name, limits and tuple(map(float, limits)))
                 for name, unit, limits in run["features"][:8]]
        return run | {"classes": classes, "shown": shown, "synthetic": bool(run["synthetic"]),
                      "leads": list(map(str, run["leads"])),
                      "temperature": list(map(float, run["temperature"]))}


def read_predictions(folder):
    """Return run.json, predictions.csv, its true and predicted class numbers, and (n, classes)."""
    run, path = read_run(folder), Path(folder) / "predictions.csv"
    names = [f"p {name}" for name in run["classes"]]
    table = read_table(folder, path.name, ["true", "predicted"],
                       [*names, *(name for name, _ in run["shown"])])
    with reading(path):
        true, predicted = (pd.Index(run["classes"]).get_indexer(table[name])
                           for name in ("true", "predicted"))
        p = table[names].to_numpy()
        if not len(table) or min(true.min(), predicted.min()) < 0:
            raise ValueError("no records, or a class that run.json does not name")
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError("a probability is not between 0 and 1")
    return run, table, true, predicted, p


def read_metrics(folder):
    """Return metrics.json, checked to be of the same run as predictions.csv."""
    (_, _, true, predicted, _), path = read_predictions(folder), Path(folder) / "metrics.json"
    with reading(path):
        metrics = json.loads(path.read_text(encoding="utf-8"))
        accuracy = metrics["model"]["accuracy"][0]
        if metrics["records"] != len(true) or abs(accuracy - np.mean(true == predicted)) > 1e-6:
            raise ValueError("not of the same run as predictions.csv")
        return metrics


# ------------------------------------------------------------------------------------------ draw
def new_figure(width, height, run):
    """Return a figure of that size (inches), marked if the run's data is synthetic."""
    figure = Figure((width, height), layout="constrained")
    if run["synthetic"]:
        figure.get_layout_engine().set(rect=(0, 0.2 / height, 1, 1 - 0.2 / height))
        figure.text(1 - 0.05 / width, 0.05 / height, SYNTHETIC, ha="right", color="0.35")
    return figure


def short(name, most):
    return name if len(name) <= most else name[:most - 1] + "…"


def wrapped(names, most=26):
    """Break names into at most two lines each, as narrow as goes; cut off what is longer."""
    width = next((width for width in range(12, most) if all(
        len(textwrap.wrap(name, width)) <= 2 for name in names)), most)
    return ["\n".join(textwrap.wrap(name, width, max_lines=2, placeholder="…")) for name in names]


def plain_ticks(axis, *digits):
    """Put few and plain numbers on a logarithmic axis, those with one of these first digits."""
    axis.set_major_locator(LogLocator(subs=digits, numticks=4))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


@styled
def confusion_matrix(folder):
    """Draw counts and shares of the true class; the title has the interval of metrics.json."""
    run, _, true, predicted, _ = read_predictions(folder)
    metrics, names = read_metrics(folder), wrapped(run["classes"])
    n = len(names)
    counts = np.bincount(true * n + predicted, minlength=n * n).reshape(n, n)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    margin = 0.45 + 0.075 * max(len(line) for name in names for line in name.split("\n"))
    size = max(0.42 * n, COLUMN - margin)
    figure = new_figure(size + margin, size + margin + 0.55, run)
    axes = figure.add_subplot(aspect="equal")
    axes.pcolormesh(shares, cmap=SHARES, vmin=0, vmax=1, edgecolor="0.8", linewidth=0.5)
    for (i, j), share in np.ndenumerate(shares):
        percent = f"{share:.0%}" if counts[i].any() else "–"
        axes.text(j + 0.5, i + 0.5, f"{counts[i, j]}\n{percent}", ha="center", va="center",
                  color="white" if share > 0.55 else "black", linespacing=1.1)
    axes.set_xticks(np.arange(n) + 0.5, names, rotation=90)
    axes.set_yticks(np.arange(n) + 0.5, names)
    axes.set(xlabel="predicted class", ylabel="true class", ylim=(n, 0))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    with reading(Path(folder) / "metrics.json"):
        value, low, high = metrics["model"]["balanced accuracy"]
        figure.suptitle(f"{len(true)} records, shares of the true class\nbalanced accuracy "
                        f"{value:.2f} (95 % interval {low:.2f}–{high:.2f})")
    return figure


@styled
def training_curves(folder):
    """Draw loss, accuracy and step size by epoch, a line per repeat."""
    run, path = read_run(folder), Path(folder) / "history.csv"
    columns = ["repeat", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    with reading(path):
        has_rate = "learning_rate" in pd.read_csv(path, nrows=1).columns
        history = read_table(folder, path.name, [], columns + ["learning_rate"] * has_rate)
        figure = new_figure(PAGE, 2.6, run)
        panels = figure.subplots(1, 2 + has_rate)
        lines = [(0, "loss", "training"), (0, "val_loss", "validation"),
                 (1, "accuracy", "training"), (1, "val_accuracy", "validation"),
                 (2, "learning_rate", "step size")]
        for number, column, label in lines[:4 + has_rate]:
            validation = label == "validation"
            for repeat, rows in history.groupby("repeat"):
                panels[number].plot(
                    rows["epoch"], rows[column], "--" if validation else "-",
                    color=VERMILLION if validation else BLUE, marker="." if len(rows) < 3 else "",
                    alpha=1 if repeat == 0 else 0.5, label=label if repeat == 0 else f"_{repeat}")
            panels[number].set(xlabel="epoch", ylabel=column.removeprefix("val_").replace(
                "learning_rate", "step size"))
            panels[number].xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if history.empty:
            raise ValueError("no epoch")
    if has_rate and (history["learning_rate"] > 0).all():
        panels[2].set_yscale("log")
        plain_ticks(panels[2].yaxis, 1, 2, 5)
    panels[0].legend()
    panels[1].set_ylim(0, 1.02)
    return figure


@styled
def roc_precision_recall(folder):
    """Draw each class against the rest; the legends give areas, and chance for precision."""
    run, _, true, _, p = read_predictions(folder)
    figure = new_figure(PAGE, 3.4 + 0.17 * len(run["classes"]), run)
    roc, pr = figure.subplots(1, 2)
    roc.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    for number, name in enumerate(run["classes"]):
        positive, by, name = true == number, p[:, number], short(name, 26)
        how = {"color": COLOURS[number % 6], "linestyle": DASHES[number % 4]}
        if positive.all() or not positive.any():    # then no curve is defined
            for axes in (roc, pr):
                axes.plot([], [], label=f"  –  {name}", **how)
            continue
        false_rate, true_rate, _ = scores.roc_curve(positive, by, drop_intermediate=False)
        precision, recall, _ = scores.precision_recall_curve(positive, by)
        average = scores.average_precision_score(positive, by)
        roc.plot(false_rate, true_rate, **how,
                 label=f"{scores.roc_auc_score(positive, by):.3f}  {name}")
        pr.plot(recall, precision, drawstyle="steps-post", **how,
                label=f"{average:.3f} ({positive.mean():.2f})  {name}")
    roc.set(xlabel="false positive rate (1 − specificity)", ylabel="true positive rate (recall)")
    pr.set(xlabel="recall", ylabel="precision")
    for axes, title in ((roc, "area under the ROC curve"), (pr, "average precision (by chance)")):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.legend(title=title, loc="upper center", bbox_to_anchor=(0.5, -0.2), handlelength=3)
    return figure


def wilson(right, n, z=1.96):
    """Return the 95 % interval of a share (Wilson, JASA 1927;22:209-212)."""
    centre, half = right + z * z / 2, z * np.sqrt(right * (n - right) / n + z * z / 4)
    return (centre - half) / (n + z * z), (centre + half) / (n + z * z)


@styled
def reliability(folder):
    """Draw accuracy by confidence in ten bins, and how many records are in each."""
    run, _, true, predicted, p = read_predictions(folder)
    confidence = p.max(axis=1)
    bins = pd.DataFrame({"right": true == predicted, "confidence": confidence}).groupby(
        np.minimum((confidence * 10).astype(int), 9))
    n, right, mean = bins.size(), bins["right"].sum(), bins["confidence"].mean()
    accuracy, (low, high) = right / n, wilson(right, n)
    error = (np.abs(accuracy - mean) * n).sum() / n.sum()
    figure = new_figure(COLUMN, 4.2, run)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, label="perfectly calibrated")
    top.errorbar(mean, accuracy, [(accuracy - low).clip(0), (high - accuracy).clip(0)], fmt="o-",
                 markersize=4, capsize=2, elinewidth=0.8, color=BLUE,
                 label="records (95 % Wilson intervals)")
    top.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.02, 1.02),
            title=f"expected calibration error {error:.3f}")
    top.legend(loc="upper center", bbox_to_anchor=(0.45, -0.04))
    bottom.bar(n.index / 10 + 0.05, n, width=0.09, color=SKY)
    bottom.set(xlabel="confidence: probability of the predicted class", ylabel="records")
    figure.align_ylabels()
    return figure


def box_plot(axes, y, stats):
    """Draw median, quartiles, and whiskers of 1.5 times their distance (boxplot imports pyplot)."""
    axes.barh(y, stats["q3"] - stats["q1"], 0.6, stats["q1"], color=COLOURS[y % 6],
              edgecolor="black", linewidth=0.6)
    axes.hlines([y, y], [stats["whislo"], stats["q3"]], [stats["q1"], stats["whishi"]], "black",
                linewidth=0.8)
    axes.vlines(stats["med"], y - 0.3, y + 0.3, "black", linewidth=1.5)
    axes.plot(stats["fliers"], np.full(len(stats["fliers"]), y), ".", color="0.3", markersize=3)


@styled
def features(folder):
    """Draw the first eight features by true class: boxes, and the usual ranges as bands."""
    run, table, true, _, _ = read_predictions(folder)
    names, shown = run["classes"], run["shown"]
    rows = -(-len(shown) // 4)
    figure = new_figure(PAGE, rows * (1.0 + 0.25 * len(names)) + 0.4, run)
    panels = figure.subplots(rows, 4, sharey=True, squeeze=False).ravel()
    for axes, (feature, limits) in zip(panels, shown, strict=False):
        values = table[feature].to_numpy()
        known = values[np.isfinite(values)]
        for number in range(len(names)):
            if len(x := values[np.isfinite(values) & (true == number)]):
                box_plot(axes, number, boxplot_stats(x)[0])
        if limits:
            axes.axvspan(*limits, color=GREEN, alpha=0.2, linewidth=0, zorder=0)
        axes.set_title(feature)
        axes.set_yticks(range(len(names)), wrapped(names))
        axes.xaxis.set_major_locator(MaxNLocator(3))
        if len(known) and known.min() > 0 and known.max() > 20 * known.min():
            axes.set_xscale("log")
            low, high = axes.get_xlim()
            plain_ticks(axes.xaxis, *((1, 3) if high < 300 * low else (1,)))
    for axes in panels[len(shown):]:
        axes.remove()
    panels[0].set_ylim(len(names) - 0.5, -0.5)    # sharey: of all
    if any(limits for _, limits in shown):
        figure.suptitle("green: usual range (those of SDNN, RMSSD and CV_RR are meant for longer "
                        "recordings than 10 s)")
    return figure


# ------------------------------------------------------------------------------------------- ECG
A4 = 297, 210                    # mm
SPEED, GAIN = 25, 10             # mm/s, mm/mV
LEFT, BOTTOM, ROW = 16, 18, 40   # mm: lower left corner of the paper, height of a row
PULSE, WIDTH = 15, 265           # mm: room for the calibration pulse, width of the paper with it
ROWS = ("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"), ("II",)


def _paper(axes):
    """Draw millimetre paper, each row with a calibration pulse of 1 mV and 0.2 s."""
    for step, width, colour in ((1, 0.25, "#F7CFCF"), (5, 0.6, "#EBA4A4")):
        x, y = np.arange(0, WIDTH + 1, step) + LEFT, np.arange(0, 4 * ROW + 1, step) + BOTTOM
        axes.vlines(x, y[0], y[-1], colour, linewidth=width, zorder=0)
        axes.hlines(y, x[0], x[-1], colour, linewidth=width, zorder=0)
    for row in range(4):
        axes.plot(LEFT + np.array([3, 5, 5, 10, 10, 12]), BOTTOM + (row + 0.5) * ROW
                  + GAIN * np.array([0, 0, 1, 1, 0, 0]), color="black", lw=0.8, label="pulse")


def _lead(axes, time, trace, base, name, importance):
    """Draw a piece of a lead, all in mm, and the colour under it."""
    axes.plot(time, trace, color="black", linewidth=0.7, label=name, clip_path=Rectangle(
        (LEFT, BOTTOM), WIDTH, 4 * ROW, transform=axes.transData))
    axes.text(time[0] + 1, base + 14, name, fontsize=10, weight="bold", zorder=1.5, bbox={
        "facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.8})
    if time[0] > LEFT + PULSE:    # where one lead ends and the next starts
        axes.plot([time[0]] * 2, [base - 4, base + 4], color="0.4", linewidth=0.6)
    if importance is not None:
        axes.imshow(np.nan_to_num(importance)[None], cmap=IMPORTANCE, vmin=-1, vmax=1, zorder=0.5,
                    aspect="auto", interpolation="none", label=name,
                    extent=(time[0], time[-1], base - 0.45 * ROW, base + 0.45 * ROW))


@styled
def draw_ecg(signal, fs, leads, r_peaks=None, title="", text="", note="", importance=None):
    """Draw a 12-lead ECG on millimetre paper: 3 x 4 leads of 2.5 s and lead II for 10 s.

    One axes covers the page and its unit is the millimetre, so a PDF printed at 100 % on A4
    landscape has 25 mm/s and 10 mm/mV. Each lead is drawn from its median. `save` writes it; in a
    notebook it shows itself after `%matplotlib inline`.

    Parameters
    ----------
    signal : array_like (samples, 12), in mV; NaN leaves a gap, and of more than 10 s the first
    fs : float, its rate in Hz
    leads : sequence of str, names of its columns, in any order
    r_peaks : array_like, in samples; marked on the rhythm strip
    title, text, note : str, printed large above, below the title, and at the foot
    importance : array_like (samples, 12), -1 to 1; colours the paper under each lead

    Returns
    -------
    matplotlib.figure.Figure
        `ValueError` if shapes do not fit, or one of the 12 standard leads is missing.
    """
    signal, names = np.asarray(signal, dtype=float), [str(name).casefold() for name in leads]
    missing = [name for row in ROWS for name in row if name.casefold() not in names]
    if signal.ndim != 2 or signal.shape[1] != len(names) or missing or not fs >= 10:
        raise ValueError(f"expected (samples, 12) in mV, 12 leads and their rate, got shape "
                         f"{signal.shape}, {len(names)} leads without {missing}, {fs} Hz")
    if importance is not None and np.shape(importance) != signal.shape:
        raise ValueError(f"importance: shape {np.shape(importance)}, not {signal.shape}")
    figure = Figure(np.array(A4) / 25.4)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, A4[0]), ylim=(0, A4[1]), autoscale_on=False)
    axes.set_axis_off()
    _paper(axes)
    signal = signal[:round(10 * fs)]
    time = LEFT + PULSE + SPEED * np.arange(len(signal)) / fs
    middle = np.nan_to_num([np.median(x[np.isfinite(x)]) if np.isfinite(x).any() else 0.0
                            for x in signal.T])
    for number, row in enumerate(ROWS):
        base = BOTTOM + (3.5 - number) * ROW
        for place, name in enumerate(row):
            column, share = names.index(name.casefold()), 10 * fs / len(row)
            # One sample more: to where the next lead starts
            part = slice(round(place * share), round((place + 1) * share) + 1)
            if len(time[part]):
                _lead(axes, time[part], base + GAIN * (signal[part, column] - middle[column]),
                      base, name, None if importance is None else
                      np.asarray(importance, dtype=float)[:len(signal)][part, column])
    if r_peaks is not None:    # on the last row, whose base and column these are
        peaks = np.asarray(r_peaks, dtype=float).ravel()
        peaks = peaks[(peaks >= 0) & (peaks <= len(signal) - 1)]
        height = GAIN * (signal[np.rint(peaks).astype(int), column] - middle[column])
        axes.plot(LEFT + PULSE + SPEED * peaks / fs, base + np.nan_to_num(height).clip(0, 30) + 2,
                  "v", color=BLUE, markersize=5, label="R peaks")
    axes.text(LEFT, 196, title, fontsize=12, weight="bold")
    axes.text(LEFT, 192, text, fontsize=10, va="top", linespacing=1.4)
    axes.text(LEFT, 7, f"{SPEED} mm/s, {GAIN} mm/mV (printed at 100 % on A4)"
              + ("" if r_peaks is None else "; triangles: R peaks"))
    axes.text(LEFT + WIDTH, 7, note, ha="right", color="0.35")
    if importance is not None:
        bar = figure.add_axes((150 / A4[0], 12.5 / A4[1], 70 / A4[0], 2.5 / A4[1]))
        figure.colorbar(ScalarMappable(Normalize(-1, 1), IMPORTANCE), bar, ticks=[-1, 0, 1],
                        orientation="horizontal", label="importance: against and for the class")
    return figure


def example_pages(folder):
    """Return {file name: page with an example of that class, as `draw_ecg` draws it}."""
    run, path, pages = read_run(folder), Path(folder) / "examples.npz", {}
    with reading(path), np.load(path, allow_pickle=False) as data:
        for number, name in enumerate(run["classes"]):
            if f"signal_{number}" not in data:
                continue
            signal, fs, peaks, record, p = (data[f"{key}_{number}"] for key in (
                "signal", "fs", "r_peaks", "record", "probabilities"))
            each = [f"{other} {x:.2f}".replace(" ", "\0") for other, x in
                    zip(run["classes"], p, strict=True)]    # \0: no line ends there
            text = textwrap.fill("Probabilities: " + "   ".join(each), 120).replace("\0", " ")
            slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:40]
            pages[f"ecg_{number + 1}_{slug}"] = draw_ecg(
                signal, float(fs), run["leads"], peaks, short(f"Label {name}, record {record}", 95),
                text, SYNTHETIC if run["synthetic"] else "")
    return pages


# ------------------------------------------------------------------------------------------ card
def plain(text):
    """Keep a name from being read as Markdown or HTML."""
    return re.sub(r"([\\|`*\[\]<>#]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(str(text).split()))


def markdown_table(*rows):
    """Return a Markdown table; the first row is its heading."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]])


def count_splits(folder, classes):
    """Return in Markdown the records (patients) of each class and split, and who is in two."""
    split = read_table(folder, "split.csv", [
        "subject_id", "waveform_path", "ecg_category", "split"])
    order = sorted(set(split["split"]), key="train validation test".find)

    def cells(rows):
        groups = {part: rows["subject_id"][rows["split"] == part] for part in order}
        return [f"{len(x)} ({x.nunique()})" for x in groups.values()]

    pairs = split[["subject_id", "split"]].drop_duplicates()
    shared = (pairs["subject_id"].value_counts() > 1).sum()
    return f"Patient numbers in more than one split: {shared}.\n\n" + markdown_table(
        ["class", *order], *([plain(name), *cells(split[split["ecg_category"] == name])]
                             for name in classes), ["all", *cells(split)])


def write_results(run, metrics):
    """Return the scores with their intervals, the calibration and the classes, in Markdown."""
    kinds = "accuracy", "balanced accuracy"
    both = markdown_table(["95 % interval: bootstrap over patients", *kinds], *(
        [who, *("{:.3f} ({:.2f} to {:.2f})".format(*metrics[who][kind]) for kind in kinds)]
        for who in ("model", "rate rule")))
    kinds = "precision", "recall", "f1-score"
    rows = {plain(name): metrics["per class"][name] for name in run["classes"]}
    per_class = markdown_table(["class", *kinds, "test records"], *(
        [name, *(f"{row[kind]:.3f}" if row["support"] else "–" for kind in kinds),
         f"{row['support']:g}"] for name, row in rows.items()))
    kinds = "expected calibration error", "Brier score"
    calibrated = markdown_table(["temperature scaling", *kinds], *(
        [f"{where}, {when}", *(f"{of[when][kind]:.3f}" for kind in kinds)]
        for where, of in metrics["calibration"].items() for when in ("before", "after")))
    kept = ", ".join(f"{float(share):.0%} {value:.3f}" for share, value in
                     metrics["accuracy by share kept"].items() if float(share) * 100 % 25 == 0)
    absent = ", ".join(name for name, row in rows.items() if not row["support"])
    absent = absent and f" **No test record of {absent}: nothing is known of it.**"
    return f"""{metrics["records"]} test records of {metrics["patients"]} patients.{absent}

{both}

The rate rule calls slow, fast or the commonest other class by heart rate alone.

{per_class}

Confidence {metrics["confidence"][0]:.1%}, standard deviation {metrics["confidence"][1]:.1%}.
Temperature, fitted on the validation patients: {", ".join(f"{x:.3f}" for x in run["temperature"])}.

{calibrated}

Accuracy where the least certain are left undecided, by share kept: {kept}."""


CARD = """# Model card: ECG classifier

{synthetic}Tells 10-second, 12-lead ECGs apart: {classes}. **This is not a medical device.**

## Intended use

Research and teaching: comparing methods, finding labels to look at again, trying out ideas.

**Not to be used** to diagnose, treat, triage or monitor anyone, to rule an illness out, or without
a physician's own reading of the ECG; nor on children, paced rhythms, other leads or other lengths
unless it has been tested on them.

## Data

{records} records of {patients} patients; SHA-256 of the label file `{labels_sha256}`.
Below, the records (patients) that a run draws from; training repeats records of a short class, the
test never does. {splits}

Left out as unusable: {left_out}.

**Origin of the labels.** For MIMIC-IV-ECG they are made from the statements of the ECG cart's own
program, machine reads, **not a cardiologist's**: the results say how well the model agrees with
them. Of other data, ask whoever made the label file.

## Inputs

Ten seconds of the leads {leads} in mV at their true rate;
high-pass {high_pass:g} Hz; resampled to {sequence_length} points ({rate:g} Hz); each lead scaled so
that the central {central_share:.0%} of its samples span {span:g} units, clipped to [-3, 3]. Beside
them features, of which those not measurable count as training's mean: {features}.

## Results

{results}

## Limits

- One class per record: of two findings in an ECG the labels name one, and an ECG of no class here
  is given one all the same.
- Other hospitals, devices and filters differ; results there are usually worse: test there first.
- Probabilities are calibrated on validation patients of this data, every class counting alike.
- Ten seconds are shorter than the usual ranges of heart rate variability are meant for.
- Results by sex, age or origin are unknown: the label file does not hold them.

## Versions and settings

{versions}

{settings}
"""


def model_card(folder):
    """Return the model card of a run, in Markdown, from the files of its folder."""
    run, metrics, folder = read_run(folder), read_metrics(folder), Path(folder)
    why = read_table(folder, "left_out.csv", ["record", "why"])["why"].str.split(":").str[0]
    splits = count_splits(folder, run["classes"])
    with reading(folder / "metrics.json"):
        results = write_results(run, metrics)
    with reading(folder / "run.json"):
        settings, versions = (", ".join(f"{plain(name)} {plain(x)}" for name, x in run[key].items()
                              if x not in ("", None)) for key in ("settings", "versions"))
        return CARD.format(
            synthetic="**The data is synthetic: nothing here is about real patients.**\n\n"
            if run["synthetic"] else "", classes=", ".join(map(plain, run["classes"])),
            splits=splits, results=results, versions=versions, settings=settings,
            left_out=", ".join(f"{plain(reason)} ({n})" for reason, n in
                               why.value_counts().sort_index().items()) or "none",
            leads=", ".join(run["leads"]), rate=run["settings"]["sequence_length"] / 10,
            features=", ".join(plain(name) for name, _, _ in run["features"]),
            **{name: run[name] for name in ("records", "patients", "labels_sha256")},
            **{name: run["settings"][name] for name in (
                "high_pass", "sequence_length", "central_share", "span")})


# ------------------------------------------------------------------------------------------ main
FIGURES = {"confusion_matrix": confusion_matrix, "training_curves": training_curves,
           "roc_precision_recall": roc_precision_recall, "reliability": reliability,
           "features": features}
NAMES = (*FIGURES, "examples", "model_card")


def write_whole(path, write):
    """Let `write` fill a file beside `path`, then move it there: `path` is never half written."""
    scratch = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(scratch)
        os.replace(scratch, path)
    except OSError as error:
        raise OSError(f"{path}: {error.strerror or error}; choose another folder") from error
    finally:
        scratch.unlink(missing_ok=True)
    return path


@styled
def save(figure, stem):
    """Write a figure as `stem`.pdf and .png, the same bytes each time; return both paths."""
    paths = []
    for kind, more in (("pdf", {"metadata": {"CreationDate": None}}), ("png", {})):
        content = io.BytesIO()    # on a full disk, Matplotlib would raise anything
        figure.savefig(content, format=kind, **more)
        path = Path(f"{stem}.{kind}")
        paths.append(write_whole(path, lambda file, content=content: file.write_bytes(
            content.getvalue())))
    return paths


def make_all(folder, only=None):
    """Make what `only` names of `NAMES`, by default all; return the paths of what was written."""
    folder, paths = Path(folder), []
    for name in only or NAMES:
        if name == "model_card":
            card = model_card(folder)
            paths.append(write_whole(folder / "MODEL_CARD.md", lambda file, card=card:
                                     file.write_text(card, encoding="utf-8")))
            continue
        pages = example_pages(folder) if name == "examples" else {name: FIGURES[name](folder)}
        for stem, figure in pages.items():
            paths += save(figure, folder / "figures" / stem)
    return paths


def main(arguments=None):
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="results folder of a run")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME",
                        help=f"some of: {', '.join(NAMES)}")
    asked = parser.parse_args(arguments)
    try:
        print(*make_all(asked.folder, asked.only), sep="\n")
    except (ResultsError, OSError) as error:
        print(f"figures.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Draw the figures of a run, from the files of its results folder alone.

Figures go to `figures/` in that folder, as PDF (fonts embedded) and as PNG (200 dpi), in the widths
of a paper's column or page. Class names in Chinese, Japanese or Korean need a font that has them,
such as Noto Sans CJK.
"""

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.cbook import boxplot_stats
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from sklearn import metrics as scores

from ecg.card import feature_title
from ecg.origin import SYNTHETIC_MARK
from ecg.output.areas import areas
from ecg.output.ecg_page import example_pages
from ecg.output.model_card import write_card
from ecg.output.page import write_page
from ecg.output.read import (
    MOST_REPEATS,
    Feature,
    Folder,
    Predictions,
    ResultsError,
    has_epochs,
    read_metrics,
    read_predictions,
    read_run,
    read_table,
    reading,
)

# isort: split
from ecg.output.style import (
    BLUE,
    COLOURS,
    COLUMN,
    GREEN,
    PAGE,
    SKY,
    VERMILLION,
    breadth,
    drawable,
    save,
    short,
    styled,
)

DASHES = ["-", "--", "-.", ":"]
SHARES = LinearSegmentedColormap.from_list("shares", ["white", BLUE])
TRAINING = "training (augmented records, with dropout)"
CURVES = [    # panel, column of history.csv and label of each line
    (0, "loss", TRAINING),
    (0, "val_loss", "validation"),
    (1, "accuracy", TRAINING),
    (1, "val_accuracy", "validation"),
    (2, "learning_rate", "learning rate"),
]
CORNERS = 0.1, 0.2, 0.3, 0.5, 1.0    # sides of the part of a plot that may be shown
N_FEATURES = 8                       # that are drawn, of more the most telling


def new_figure(width: float, height: float, synthetic: bool) -> Figure:
    """Return a figure of that size (inches), marked if the run's data is synthetic."""
    foot = 0.2 / height if synthetic else 0    # 0.2 inches stay free for the mark
    layout = ConstrainedLayoutEngine(rect=(0, foot, 1, 1 - foot))
    figure = Figure((width, height), layout=layout)
    if synthetic:
        figure.text(1 - 0.05 / width, 0.05 / height, SYNTHETIC_MARK, ha="right", color="0.35")
    return figure


def wrapped(names: Sequence[str], most: int = 26) -> list[str]:
    """Break names into at most two lines each, as narrow as possible; cut off what is longer."""
    names = [short(name, 2 * most) for name in names]
    for width in range(12, most + 1):
        if all(len(textwrap.wrap(name, width)) <= 2 for name in names):
            break

    lines = [textwrap.wrap(name, width, max_lines=2, placeholder="…") for name in names]
    return ["\n".join(two) for two in lines]


def plain_ticks(axis: Axis, *digits: int) -> None:
    """Put few and plain numbers on a logarithmic axis, those with one of these first digits."""
    axis.set_major_locator(LogLocator(subs=digits, numticks=4))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def plain(number: float, _place: int = 0) -> str:
    """Write a number without an exponent: 0.00025."""
    return np.format_float_positional(round(number, 12), trim="-")


# ------------------------------------------------------------------------------ confusion matrix
def _margin(names):
    """Return how many inches the names take beside the matrix."""
    lines = [line for name in names for line in name.split("\n")]
    return 0.45 + 0.075 * max(breadth(line) for line in lines)


def _draw_cells(axes, counts, shares):
    """Draw a square per pair of classes: its colour is the share, its text both."""
    axes.pcolormesh(shares, cmap=SHARES, vmin=0, vmax=1, edgecolor="0.8", linewidth=0.5)
    for (i, j), share in np.ndenumerate(shares):
        percent = f"{share:.0%}" if counts[i].any() else "–"
        colour = "white" if share > 0.7 else "black"
        axes.text(
            j + 0.5, i + 0.5, f"{counts[i, j]}\n{percent}",
            ha="center", va="center", color=colour, linespacing=1.1)


@styled()
def confusion_matrix(folder: Folder) -> Figure:
    """Draw counts and shares of the true class; the title has the interval of metrics.json."""
    found = read_predictions(folder)
    metrics = read_metrics(folder)
    names = wrapped(drawable(found.run["classes"]))
    n = len(names)
    pairs = found.true * n + found.predicted
    counts = np.bincount(pairs, minlength=n * n).reshape(n, n)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)

    margin = _margin(names)
    side = margin + max(0.4 * n, COLUMN - margin)
    figure = new_figure(side, side, found.run["is_demo"])
    axes = figure.add_subplot()
    _draw_cells(axes, counts, shares)
    axes.set_xticks(np.arange(n) + 0.5, names, rotation=90)
    axes.set_yticks(np.arange(n) + 0.5, names)
    axes.set(xlabel="predicted class", ylabel="true class", ylim=(n, 0))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)

    with reading(Path(folder) / "metrics.json"):
        value, low, high = metrics["model"]["balanced accuracy"]
        figure.suptitle(
            f"{len(found.true)} records, shares of the true class\n"
            f"balanced accuracy {value:.2f} (95 % interval {low:.2f}–{high:.2f})")

    figure.draw_without_rendering()    # only now is known how much room the names take
    width, height = axes.get_position().size * figure.get_size_inches()
    figure.set_figheight(figure.get_figheight() + width - height)    # squares
    return figure


# ------------------------------------------------------------------------------- training curves
def _read_history(folder):
    """Return history.csv; older ones hold no learning rate."""
    path = Path(folder) / "history.csv"
    columns = ["repeat", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    with reading(path):
        if "learning_rate" in pd.read_csv(path, nrows=1).columns:
            columns.append("learning_rate")

        history = read_table(folder, path.name, [], columns)
        if history.empty or history["repeat"].nunique() > MOST_REPEATS:
            raise ValueError("no epoch, or more repeats than a run makes")
    return history


def _draw_curve(axes, history, column, label):
    """Draw a column of the history by epoch, a line per repeat."""
    validation = label == "validation"
    for repeat, rows in history.groupby("repeat"):
        first = repeat == 0
        axes.plot(
            rows["epoch"], rows[column],
            linestyle="--" if validation else "-",
            color=VERMILLION if validation else BLUE,
            marker="." if len(rows) < 3 else "",
            alpha=1 if first else 0.5,
            label=label if first else f"_{repeat}")    # _: not in the legend


def kept_epoch(run: dict[str, Any], rows: pd.DataFrame) -> int:
    """Return the epoch whose weights a training has kept.

    Parameters
    ----------
    run : as `read_run` returns it
    rows : the history of one repeat; where the best weights are kept, those of its last phase
        count, as training begins anew with a phase
    """
    method = run["method"]
    if method["keep_weights"] == "last":
        return int(rows["epoch"].iloc[-1])

    n_classes = len(run["classes"])
    records = run["settings"]["train_samples"] // n_classes * n_classes
    steps = max(1, records // method["batch_size"])
    settled = math.ceil(method["freeze_bn_after"] / steps)
    last_phase = rows[rows["epoch"] > settled] if settled < len(rows) else rows
    return int(last_phase["epoch"][last_phase["val_accuracy"].idxmax()])


def _mark_kept(panels, run, history):
    """Circle the epoch whose weights are kept, and draw a line where training stopped early."""
    most = int(run["method"]["epochs"])
    kept = []
    stopped = []
    for _, rows in history.groupby("repeat"):
        epoch = kept_epoch(run, rows)
        kept.append(epoch)
        if len(rows) < most:
            stopped.append(len(rows))
        row = rows[rows["epoch"] == epoch]
        for axes, column in zip(panels, ("val_loss", "val_accuracy"), strict=False):
            axes.plot(row["epoch"], row[column], "o", color=VERMILLION, fillstyle="none",
                      markersize=8, label=f"weights kept: of epoch {_listed(kept)} (of {most})")

    for axes in panels:
        for epoch in stopped:
            axes.axvline(epoch, color="0.6", linestyle=":", linewidth=1,
                         label=f"stopped early, after epoch {_listed(stopped)}")


def _listed(epochs):
    """Return numbers of epochs as text, each once; of many the first and the last."""
    numbers = sorted(set(epochs))
    if len(numbers) > 4:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def _curves_legend(figure, axes):
    """Say what lines and marks mean; of several repeats, the marks of the last name them all."""
    by_kind = {}
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
        by_kind[label[:7]] = handle, label
    training, validation, *marks = by_kind.values()
    columns = [training, *marks[:1], validation, *marks[1:]]    # filled column by column
    handles, labels = zip(*columns, strict=True)
    figure.legend(handles, labels, loc="outside upper center", ncols=2)


@styled()
def training_curves(folder: Folder) -> Figure:
    """Draw loss, accuracy and learning rate by epoch, a line per repeat."""
    run = read_run(folder)
    with reading(Path(folder) / "run.json"):
        if not has_epochs(run):
            raise ResultsError(f"{folder}: no epoch was trained, so there are no training curves")
    history = _read_history(folder)
    curves = [curve for curve in CURVES if curve[1] in history]
    n_panels = 1 + max(panel for panel, _, _ in curves)

    figure = new_figure(PAGE, 3.1, run["is_demo"])
    panels = figure.subplots(1, n_panels)
    for panel, column, label in curves:
        axes = panels[panel]
        _draw_curve(axes, history, column, label)
        quantity = column.removeprefix("val_").replace("_", " ")
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))

    with reading(Path(folder) / "run.json"):
        _mark_kept(panels, run, history)
    _curves_legend(figure, panels[0])
    panels[1].set_ylim(0, 1.02)
    if n_panels == 3:
        panels[2].set_ylim(0, 1.1 * history["learning_rate"].max() or 1)
        panels[2].yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        panels[2].yaxis.set_major_formatter(plain)
    return figure


# ------------------------------------------------------------------------------------- ROC and PR
def _with_interval(found):
    """Write [value, low, high]."""
    value, low, high = found
    return f"{value:.3f} ({low:.2f}–{high:.2f})"


def _reach(x, y):
    """Return how far a curve passes the corner at (0, 0), as the side of the smallest square."""
    return np.maximum(np.abs(x), np.abs(y)).min()


def _draw_class(roc, pr, positive, found, p, name, look):
    """Draw both curves of a class against the rest; none is defined if one of the two is empty.

    Returns
    -------
    tuple of float
        How far both pass the corner of a perfect classifier.
    """
    if positive.all() or not positive.any():
        roc.plot([], [], label=f"  –  {name}", **look)
        pr.plot([], [], label="  –", **look)
        return 0.0, 0.0

    area, average = areas(positive, p, found.table["subject_id"].to_numpy())
    false_rate, true_rate, _ = scores.roc_curve(positive, p, drop_intermediate=False)
    roc.plot(false_rate, true_rate, label=f"{_with_interval(area)}  {name}", **look)

    precision, recall, _ = scores.precision_recall_curve(positive, p)
    label = f"{_with_interval(average)}  {positive.mean():.2f}"
    pr.plot(recall, precision, drawstyle="steps-post", label=label, **look)
    return _reach(false_rate, 1 - true_rate), _reach(1 - recall, 1 - precision)


def _zoom(axes, reaches, is_left):
    """Show the corner of a perfect classifier, twice as wide as all curves need."""
    needed = 2 * max(reaches)
    side = next((side for side in CORNERS if side >= needed), 1.0)
    margin = 0.02 * side
    x = (-margin, side) if is_left else (1 - side, 1 + margin)
    axes.set(xlim=x, ylim=(1 - side, 1 + margin), aspect="equal")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if side < 1:
        axes.set_title(f"the upper {'left' if is_left else 'right'} corner, {side:g} wide")


@styled()
def roc_precision_recall(folder: Folder) -> Figure:
    """Draw each class against the rest, in the corner where the curves pass.

    The legends give areas with 95 % intervals, and what chance gives for precision.
    """
    found = read_predictions(folder)
    names = drawable(found.run["classes"])
    figure = new_figure(PAGE, 4.25 + 0.17 * len(names), found.run["is_demo"])
    roc, pr = figure.subplots(1, 2)
    roc.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    reaches = []
    for number, name in enumerate(names):
        look = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": DASHES[number % len(DASHES)],
        }
        positive = found.true == number
        p = found.probabilities[:, number]
        reaches.append(_draw_class(roc, pr, positive, found, p, short(name, 24), look))

    of_roc, of_pr = zip(*reaches, strict=True)
    _zoom(roc, of_roc, is_left=True)
    _zoom(pr, of_pr, is_left=False)
    roc.set(xlabel="false positive rate (1 − specificity)", ylabel="true positive rate (recall)")
    pr.set(xlabel="recall", ylabel="precision")
    for axes, title in (
            (roc, "area under the ROC curve (95 % interval)"),
            (pr, "average precision (95 % interval)  by chance")):
        axes.legend(title=title, loc="upper center", bbox_to_anchor=(0.5, -0.17), handlelength=3)
    return figure


# ----------------------------------------------------------------------------------- reliability
def wilson(right: np.ndarray, n: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of the 95 % interval of a share (Wilson, JASA 1927;22:209-212)."""
    centre = right + z * z / 2
    half = z * np.sqrt(right * (n - right) / n + z * z / 4)
    return (centre - half) / (n + z * z), (centre + half) / (n + z * z)


def _confidence_bins(found):
    """Return a row per tenth of confidence that has records: n, right ones, mean confidence."""
    confidence = found.probabilities.max(axis=1)
    records = pd.DataFrame({
        "right": found.true == found.predicted,
        "confidence": confidence,
    })
    tenth = np.minimum((confidence * 10).astype(int), 9)
    bins = records.groupby(tenth)
    return pd.DataFrame({
        "n": bins.size(),
        "right": bins["right"].sum(),
        "confidence": bins["confidence"].mean(),
    })


@styled()
def reliability(folder: Folder) -> Figure:
    """Draw accuracy by confidence in ten bins, and how many records are in each."""
    found = read_predictions(folder)
    bins = _confidence_bins(found)
    n = bins["n"].to_numpy()
    right = bins["right"].to_numpy()
    confidence = bins["confidence"].to_numpy()
    accuracy = right / n
    low, high = wilson(right, n)
    error = (np.abs(accuracy - confidence) * n).sum() / n.sum()

    figure = new_figure(COLUMN, 4.2, found.run["is_demo"])
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, label="perfectly calibrated")
    reach = np.clip([accuracy - low, high - accuracy], 0, 1).tolist()    # an array of one warns
    top.errorbar(
        confidence, accuracy, reach, fmt="o-", markersize=4, capsize=2, elinewidth=0.8,
        color=BLUE, label="records (95 % Wilson intervals)")
    top.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.02, 1.02))
    top.set_title(f"expected calibration error {error:.3f}")
    top.legend(loc="upper center", bbox_to_anchor=(0.45, -0.04))

    bottom.bar(bins.index.to_numpy() / 10 + 0.05, n, width=0.09, color=SKY)
    bottom.set(xlabel="confidence: probability of the predicted class", ylabel="records")
    figure.align_ylabels()
    return figure


# -------------------------------------------------------------------------------------- features
def _draw_box(axes, y, values):
    """Draw median, quartiles, and whiskers of 1.5 times their distance.

    Matplotlib's own boxplot imports pyplot, which looks for a screen.
    """
    stats = boxplot_stats(values)[0]
    width = stats["q3"] - stats["q1"]
    axes.barh(
        y, width, 0.6, stats["q1"],
        color=COLOURS[y % len(COLOURS)], edgecolor="black", linewidth=0.6)
    starts = [stats["whislo"], stats["q3"]]
    ends = [stats["q1"], stats["whishi"]]
    axes.hlines([y, y], starts, ends, "black", linewidth=0.8)
    axes.vlines(stats["med"], y - 0.3, y + 0.3, "black", linewidth=1.5)
    outside = stats["fliers"]
    axes.plot(outside, np.full(len(outside), y), ".", color="0.3", markersize=3)


def _draw_feature(axes, values, true, n_classes, limits):
    """Draw a feature's boxes, a row per class, and its usual range as a band."""
    known = np.isfinite(values)
    for number in range(n_classes):
        own = values[known & (true == number)]
        if len(own):
            _draw_box(axes, number, own)

    if limits:
        axes.axvspan(*limits, color=GREEN, alpha=0.2, linewidth=0, zorder=0)
    axes.use_sticky_edges = False    # so that margins show where a box or a range ends
    axes.xaxis.set_major_locator(MaxNLocator(3))
    if not known.any():
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
        return

    least = values[known].min()
    if least > 0 and values[known].max() > 20 * least:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        digits = (1, 3) if high < 100 * low else (1,)
        plain_ticks(axes.xaxis, *digits)


def most_telling(found: Predictions, most: int = N_FEATURES) -> list[Feature]:
    """Return the features that differ most between the true classes; all if there are no more.

    By the share of the variance of their ranks that is between classes (Kruskal & Wallis, JASA
    1952;47:583-621); a feature that is rarely measured counts by what is known of it.
    """
    features = found.run["features"]
    if len(features) <= most:
        return features

    ranks = found.table[[feature.column for feature in features]].rank()
    centred = ranks - ranks.mean()
    of_class = centred.groupby(found.true)
    between = (of_class.mean() ** 2 * of_class.count()).sum()
    share = (between / (centred**2).sum()).fillna(0).to_numpy()
    order = np.argsort(-share, kind="stable")[:most]
    return [features[place] for place in order]


@styled()
def features(folder: Folder) -> Figure:
    """Draw up to eight features by true class: boxes, and the usual ranges as bands."""
    found = read_predictions(folder)
    names = wrapped(drawable(found.run["classes"]))
    shown = most_telling(found)
    rows = math.ceil(len(shown) / 4)
    height = rows * (1.05 + 0.3 * len(names)) + 0.5
    figure = new_figure(PAGE, height, found.run["is_demo"])
    panels = figure.subplots(rows, 4, sharey=True, squeeze=False).ravel()
    for axes, feature in zip(panels, shown, strict=False):
        values = found.table[feature.column].to_numpy()
        _draw_feature(axes, values, found.true, len(names), feature.usual)
        axes.set_title(_two_lines(feature_title(feature.name, feature.unit)))

    for axes in panels[len(shown):]:
        axes.remove()
    panels[0].set_yticks(range(len(names)), names)    # sharey: of all
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle("\n".join(_about_features(found.run["features"], shown)))
    return figure


def _two_lines(title, most=22):
    """Break a title that is too long for a panel, before its unit where that fits."""
    name, bracket, unit = title.partition(" [")
    if len(title) > most >= len(name) and bracket:
        return f"{name}\n[{short(unit, most)}"
    return "\n".join(textwrap.wrap(title, most, max_lines=2, placeholder="…"))


def _about_features(features, shown):
    """Return the lines above the features."""
    lines = []
    if len(shown) < len(features):
        lines.append(f"the {len(shown)} of {len(features)} features that differ most between "
                     "the classes, by rank")
    if any(feature.usual for feature in shown):
        lines.append("green: usual range (those of SDNN, RMSSD and CV_RR are meant for longer "
                     "recordings than 10 s)")
    return lines


# ------------------------------------------------------------------------------------------- all
FIGURES: dict[str, Callable[[Folder], Figure]] = {
    "confusion_matrix": confusion_matrix,
    "training_curves": training_curves,
    "roc_precision_recall": roc_precision_recall,
    "reliability": reliability,
    "features": features,
}
NAMES = [*FIGURES, "examples", "model_card", "page"]    # the page shows what was drawn before it


ERRORS_OF_A_RUN = 4    # drawn at its end, a tenth of a second each; tools/figures.py draws more


def make_all(folder: Folder, only: Sequence[str] | None = None,
             errors: int = ERRORS_OF_A_RUN, force: bool = False) -> list[Path]:
    """Draw figures, and write the model card and index.html into the results folder of a run.

    Parameters
    ----------
    folder : the results folder
    only : some of `NAMES`; by default all, without training curves where no epoch was trained
    errors : how many of the most confident errors index.html shows
    force : whether files of somebody else are replaced, too

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    UserError
        If a file of the folder is missing or damaged (`ResultsError`) or cannot be written.
    """
    if not only:
        with reading(Path(folder) / "run.json"):
            is_trained = has_epochs(read_run(folder))
        only = [name for name in NAMES if is_trained or name != "training_curves"]

    paths = []
    for name in only:
        if name == "model_card":
            paths.append(write_card(folder, force))
            continue
        if name == "page":
            paths.append(write_page(folder, errors, force))
            continue

        pages = example_pages(folder) if name == "examples" else {name: FIGURES[name](folder)}
        for stem, figure in pages.items():
            paths += save(figure, Path(folder) / "figures" / stem, force=force)

    return paths

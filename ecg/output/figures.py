"""Draw the figures of a run, from the files of its results folder alone.

Figures go to `figures/` in that folder, as PDF (fonts embedded) and as PNG (300 dpi), in the widths
of a paper's column or page. Class names in Chinese, Japanese or Korean need a font that has them,
such as Noto Sans CJK.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from scipy.stats import binomtest
from sklearn import metrics as scores

from ecg.card import feature_title
from ecg.errors import user_errors
from ecg.origin import SYNTHETIC_MARK
from ecg.output import style
from ecg.output.ecg_page import write_pages
from ecg.output.model_card import model_card, reporting_checklist, with_interval
from ecg.output.page import page
from ecg.output.read import Results, feature_column, read_results
from ecg.output.style import BLUE, COLOURS, VERMILLION, drawable, styled, wrap
from ecg.output.write import write_text

DASHES = "-", "--", "-.", ":"
SHARES = LinearSegmentedColormap.from_list("shares", ["white", BLUE])
TRAINING = "training (augmented records, with dropout)"
MAX_FEATURES = 8     # that are drawn, of more the most telling
MAX_LETTERS = 26     # of a line of a class's name


def new_figure(width: float, height: float, results: Results) -> Figure:
    """Return a figure of that size (inches), marked if the run's data is synthetic."""
    foot = 0.2 / height if results.is_demo else 0    # 0.2 inches stay free for the mark
    layout = ConstrainedLayoutEngine(rect=(0, foot, 1, 1 - foot))
    figure = Figure((width, height), layout=layout)
    if results.is_demo:
        figure.text(1 - 0.05 / width, 0.05 / height, SYNTHETIC_MARK, ha="right", color="0.35")
    return figure


def two_lines(names: Sequence[str]) -> list[str]:
    """Break names into at most two lines each, as narrow as possible; cut off what is longer."""
    names = [style.short(name, 2 * MAX_LETTERS) for name in names]
    for width in range(12, MAX_LETTERS + 1):
        if max(len(wrap(name, width)) for name in names) <= 2:
            break
    return ["\n".join(wrap(name, width, max_lines=2, placeholder="…")) for name in names]


# ------------------------------------------------------------------------------ confusion matrix
@styled()
def confusion_matrix(results: Results) -> Figure:
    """Draw counts and shares of the true class; the title has the interval of metrics.json."""
    names = two_lines(drawable(results.classes))
    n = len(names)
    counts = scores.confusion_matrix(results.true, results.predicted, labels=range(n))
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)

    lines = "\n".join(names).split("\n")
    margin = 0.45 + 0.075 * max(map(style.breadth, lines))    # inches, beside the matrix
    side = margin + max(0.4 * n, style.COLUMN - margin)
    figure = new_figure(side, side, results)
    axes = figure.add_subplot()
    axes.pcolormesh(shares, cmap=SHARES, vmin=0, vmax=1, edgecolor="0.8", linewidth=0.5)
    for (i, j), share in np.ndenumerate(shares):
        percent = f"{share:.0%}" if counts[i].any() else "–"
        colour = "white" if share > 0.7 else "black"
        axes.text(
            j + 0.5, i + 0.5, f"{counts[i, j]}\n{percent}",
            ha="center", va="center", color=colour, linespacing=1.1)

    axes.set_xticks(np.arange(n) + 0.5, names, rotation=90)
    axes.set_yticks(np.arange(n) + 0.5, names)
    axes.set(xlabel="predicted class", ylabel="true class", ylim=(n, 0))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    value, low, high = results.metrics["model"]["balanced accuracy"]
    figure.suptitle(
        f"{len(results.true)} records, shares of the true class\n"
        f"balanced accuracy {value:.2f} (95 % interval {low:.2f}–{high:.2f})")

    figure.draw_without_rendering()    # only now is known how much room the names take
    width, height = axes.get_position().size * figure.get_size_inches()
    figure.set_figheight(figure.get_figheight() + width - height)    # squares
    return figure


# ------------------------------------------------------------------------------- training curves
def kept_epoch(run: dict[str, Any], rows: pd.DataFrame) -> int:
    """Return the epoch whose weights a training has kept.

    Parameters
    ----------
    run : run.json
    rows : the history of one repeat; where the best weights are kept, those of its last phase
        count, as training begins anew with a phase
    """
    recipe = run["recipe"]
    if recipe["keep_weights"] == "last":
        return int(rows["epoch"].iloc[-1])

    n_classes = len(run["classes"])
    records = run["settings"]["train_samples"] // n_classes * n_classes
    steps = max(1, records // recipe["batch_size"])
    frozen_from = math.ceil(recipe["freeze_bn_after"] / steps)
    last_phase = rows[rows["epoch"] > frozen_from] if frozen_from < len(rows) else rows
    return int(last_phase["epoch"][last_phase["val_accuracy"].idxmax()])


def _listed(epochs):
    """Return the number of an epoch, or of the first and the last, as text."""
    first, last = min(epochs), max(epochs)
    return str(first) if first == last else f"{first} to {last}"


def _draw_curve(axes, repeats, column, label, colour, dash="-"):
    """Draw a column of the history by epoch, a line per repeat; the first one is labelled."""
    for repeat, rows in enumerate(repeats):
        axes.plot(
            rows["epoch"], rows[column], dash, color=colour, label="_" if repeat else label,
            marker="." if len(rows) < 3 else "", alpha=0.5 if repeat else 1)
    axes.set(xlabel="epoch", ylabel=column.removeprefix("val_").replace("_", " "))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))


def _draw_loss_or_accuracy(axes, quantity, repeats, run):
    """Draw it in training and validation, which epoch's weights are kept, and early stops.

    In this order, the legend has what belongs together in one of its two columns.
    """
    epochs = run["recipe"]["epochs"]
    validation = f"val_{quantity}"
    _draw_curve(axes, repeats, quantity, TRAINING, BLUE)
    kept = [kept_epoch(run, rows) for rows in repeats]
    there = [rows[rows["epoch"] == epoch] for rows, epoch in zip(repeats, kept, strict=True)]
    y = pd.concat(there)[validation]
    axes.plot(
        kept, y, "o", color=VERMILLION, fillstyle="none", markersize=8, zorder=3,
        label=f"weights kept: of epoch {_listed(kept)} (of {epochs})")

    _draw_curve(axes, repeats, validation, "validation", VERMILLION, "--")
    stopped = [len(rows) for rows in repeats if len(rows) < epochs]
    text = f"stopped early, after epoch {_listed(stopped)}" if stopped else ""
    for number, epoch in enumerate(stopped):
        axes.axvline(
            epoch, color="0.6", linestyle=":", linewidth=1, label="_" if number else text)


@styled()
def training_curves(results: Results) -> Figure:
    """Draw loss, accuracy and, unless it is on a cosine, the learning rate; a line per repeat."""
    history = pd.read_csv(results.folder / "history.csv")
    repeats = [rows for _, rows in history.groupby("repeat")]

    figure = new_figure(style.PAGE, 3.1, results)
    loss, accuracy, *rates = figure.subplots(1, 2 + ("learning_rate" in history))
    _draw_loss_or_accuracy(loss, "loss", repeats, results.run)
    _draw_loss_or_accuracy(accuracy, "accuracy", repeats, results.run)
    figure.legend(*loss.get_legend_handles_labels(), loc="outside upper center", ncols=2)

    accuracy.set_ylim(0, 1.02)
    for rate in rates:
        _draw_curve(rate, repeats, "learning_rate", "_", BLUE)
        rate.set_ylim(bottom=0)
        rate.ticklabel_format(axis="y", style="plain")    # without an exponent
    return figure


# ------------------------------------------------------------------------------------- ROC and PR
def _draw_class(roc, pr, positive, p, look):
    """Draw both curves of a class against the rest; none is defined if one of the two is empty.

    Returns
    -------
    tuple of float
        How far both pass the corner of a perfect classifier, as the side of a square.
    """
    if positive.all() or not positive.any():
        roc.plot([], [], **look)
        pr.plot([], [], **look)
        return 0.0, 0.0

    false_rate, true_rate, _ = scores.roc_curve(positive, p, drop_intermediate=False)
    roc.plot(false_rate, true_rate, **look)
    precision, recall, _ = scores.precision_recall_curve(positive, p)
    pr.plot(recall, precision, drawstyle="steps-post", **look)
    return (np.maximum(false_rate, 1 - true_rate).min(),
            np.maximum(1 - recall, 1 - precision).min())


def _zoom(axes, reaches, is_left):
    """Show all of the axes, and inside it the corner, twice as wide as all curves need."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    side = max(0.05, 2 * max(reaches))
    if side >= 0.5:
        return
    margin = 0.02 * side
    x = (-margin, side) if is_left else (1 - side, 1 + margin)
    inset = axes.inset_axes(
        (0.3 if is_left else 0.14, 0.14, 0.56, 0.56), xlim=x, ylim=(1 - side, 1 + margin))
    for line in axes.lines:
        inset.plot(*line.get_data(), line.get_linestyle(), color=line.get_color(),
                   linewidth=line.get_linewidth(), drawstyle=line.get_drawstyle())
    inset.locator_params(nbins=3)
    if is_left:
        inset.yaxis.tick_right()    # on the left is the diagonal
    axes.indicate_inset_zoom(inset)


@styled()
def roc_precision_recall(results: Results) -> Figure:
    """Draw each class against the rest, and the corner where the curves pass once more, larger.

    Below are the areas with 95 % intervals of metrics.json, and the prevalence, which is what
    chance gives for precision.
    """
    names = drawable(results.classes)
    legend_height = 0.35 + 0.18 * len(names)    # inches
    figure = new_figure(style.PAGE, 3.7 + legend_height, results)
    (roc, pr), below = figure.subplots(2, 2, height_ratios=[3.6, legend_height])
    reaches = []
    for number in range(len(names)):
        look = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": DASHES[number % len(DASHES)],
        }
        reaches.append(_draw_class(
            roc, pr, results.true == number, results.probabilities[:, number], look))

    figures_of = list(results.metrics["by class"].values())
    prevalence = [f"{np.mean(results.true == number):.2f}" for number in range(len(names))]
    lines = list(roc.lines)
    for axes, kind, title, others in (
            (below[0], "AUROC", "area under the ROC curve (95 % interval)",
             [style.short(name, 20) for name in names]),
            (below[1], "average precision", "average precision (95 % interval)  prevalence",
             prevalence)):
        labels = [f"{with_interval(own[kind])}  {other}"
                  for own, other in zip(figures_of, others, strict=True)]
        axes.legend(lines, labels, title=title, loc="upper center", handlelength=2.4,
                    labelspacing=0.35, borderaxespad=0)
        axes.set_axis_off()

    of_roc, of_pr = zip(*reaches, strict=True)
    roc.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    _zoom(roc, of_roc, is_left=True)
    _zoom(pr, of_pr, is_left=False)
    roc.set(xlabel="false positive rate (1 − specificity)", ylabel="true positive rate (recall)")
    pr.set(xlabel="recall", ylabel="precision")
    return figure


# ----------------------------------------------------------------------------------- reliability
@styled()
def reliability(results: Results) -> Figure:
    """Draw accuracy by confidence in ten bins, and how many records are in each."""
    sure = results.probabilities.max(axis=1)
    is_right = results.true == results.predicted
    bins = np.minimum(10 * sure, 9).astype(int)
    tenths, n = np.unique(bins, return_counts=True)
    right = np.bincount(bins, is_right)[tenths].astype(int)
    confidence = np.bincount(bins, sure)[tenths] / n
    accuracy = right / n
    intervals = [binomtest(k, of).proportion_ci(method="wilson")
                 for k, of in zip(right, n, strict=True)]
    below, above = np.abs(np.transpose(intervals) - accuracy)

    figure = new_figure(style.COLUMN, 4.2, results)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot(
        [0, 1], [0, 1],
        color="0.6", linewidth=0.8, label="perfectly calibrated")
    top.errorbar(
        confidence, accuracy, [below, above],
        fmt="o-", markersize=4, capsize=2, elinewidth=0.8,
        color=BLUE, label="records (95 % Wilson intervals)")
    top.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.02, 1.02))
    error = results.metrics["calibration"]["after"]["expected calibration error"]
    top.set_title(f"expected calibration error {error:.3f}")
    top.legend(loc="upper center", bbox_to_anchor=(0.45, -0.04))

    bottom.bar(tenths / 10 + 0.05, n, width=0.09, color=style.SKY)
    bottom.set(xlabel="confidence: probability of the predicted class", ylabel="records")
    figure.align_ylabels()
    return figure


# -------------------------------------------------------------------------------------- features
def _draw_feature(axes, values, true, n_classes, reference):
    """Draw a feature's boxes, a row per class, and its reference range as a band.

    A box: median, quartiles, and whiskers of at most 1.5 times their distance.
    """
    known = np.isfinite(values)
    boxes = axes.boxplot(
        [values[known & (true == number)] for number in range(n_classes)],
        positions=range(n_classes), orientation="horizontal", widths=0.6, showcaps=False,
        patch_artist=True, manage_ticks=False, boxprops={"linewidth": 0.6},
        medianprops={"color": "black", "linewidth": 1.5},
        flierprops={"marker": ".", "markersize": 3, "markerfacecolor": "black"})
    for number, box in enumerate(boxes["boxes"]):
        box.set_facecolor(COLOURS[number % len(COLOURS)])

    if reference:
        axes.axvspan(*reference, color=style.GREEN, alpha=0.2, linewidth=0, zorder=0)
    axes.use_sticky_edges = False    # so that margins show where a box or a range ends
    axes.xaxis.set_major_locator(MaxNLocator(3))
    if not known.any():
        axes.text(
            0.5, 0.5, "not measured",
            ha="center", va="center", transform=axes.transAxes)
        return

    least = values[known].min()
    if least > 0 and values[known].max() > 20 * least:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        digits = (1, 3) if high < 100 * low else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=digits, numticks=4))    # few and plain numbers
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())


def most_telling(results: Results, most: int = MAX_FEATURES) -> list[tuple]:
    """Return the features that differ most between the true classes, as run.json lists them.

    By the share of the variance of their ranks that is between classes (Kruskal & Wallis, JASA
    1952;47:583-621); a feature that is rarely measured counts by what is known of it.
    """
    features = results.run["features"]
    if len(features) <= most:
        return features

    columns = [feature_column(name, unit) for name, unit, _ in features]
    ranks = results.table[columns].rank()
    of_class = ranks.groupby(results.true).transform("mean")
    of_class = of_class.where(ranks.notna())
    share = (of_class.var() / ranks.var()).fillna(0)
    order = np.argsort(-share.to_numpy(), kind="stable")
    return [features[place] for place in order[:most]]


@styled()
def features(results: Results) -> Figure:
    """Draw up to eight features by true class: boxes, and the reference ranges as bands."""
    names = two_lines(drawable(results.classes))
    shown = most_telling(results)
    rows = math.ceil(len(shown) / 4)
    height = rows * (1.05 + 0.3 * len(names)) + 0.5
    figure = new_figure(style.PAGE, height, results)
    panels = figure.subplots(rows, 4, sharey=True, squeeze=False).ravel()
    for axes, (name, unit, reference) in zip(panels, shown, strict=False):
        values = results.table[feature_column(name, unit)].to_numpy()
        _draw_feature(axes, values, results.true, len(names), reference)
        title = wrap(feature_title(name, unit), 22, max_lines=2, placeholder="…")
        axes.set_title("\n".join(title))

    for axes in panels[len(shown):]:
        axes.remove()
    panels[0].set_yticks(range(len(names)), names)    # sharey: of all
    panels[0].set_ylim(len(names) - 0.5, -0.5)

    lines = []
    n_all = len(results.run["features"])
    if len(shown) < n_all:
        lines.append(f"the {len(shown)} of {n_all} features that differ most between the classes, "
                     "by rank")
    if any(reference for _, _, reference in shown):
        lines.append("green: reference range (those of SDNN, RMSSD and CV_RR are meant for longer "
                     "recordings than 10 s)")
    figure.suptitle("\n".join(lines))
    return figure


# ------------------------------------------------------------------------------------------- all
FIGURES: dict[str, Callable[[Results], Figure]] = {
    "confusion_matrix": confusion_matrix,
    "training_curves": training_curves,
    "roc_precision_recall": roc_precision_recall,
    "reliability": reliability,
    "features": features,
}


def make_all(folder: Path | str) -> list[Path]:
    """Draw all figures; write model card, checklist and index.html, from the files of a folder.

    There are no training curves of a run that starts from a model: no epoch was trained.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    UserError
        If a file of the folder is missing, or one cannot be written.
    """
    paths = []
    with user_errors(folder, OSError):
        results = read_results(folder)
        for name, draw in FIGURES.items():
            if name != "training_curves" or not results.run.get("start_from"):
                paths += style.save(draw(results), results.folder / "figures" / name)
        paths.append(write_pages(results))
        paths.append(write_text(results.folder / "MODEL_CARD.md", model_card(results)))
        paths.append(write_text(
            results.folder / "reporting_checklist.md", reporting_checklist(results)))
        paths.append(write_text(results.folder / "index.html", page(results)))
    return paths

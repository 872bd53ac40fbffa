"""Draw the figures of a run, from the files of its results folder alone.

Figures go to `figures/` in that folder, as PDF (fonts embedded) and as PNG (300 dpi), in the widths
of a paper's column or page. Class names in Chinese, Japanese or Korean need a font that has them,
such as Noto Sans CJK.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from scipy.stats import binomtest
from sklearn import metrics as scores

from ecg.card import feature_title
from ecg.errors import user_errors
from ecg.origin import SYNTHETIC_MARK
from ecg.output import style
from ecg.output.ecg_page import write_pages
from ecg.output.model_card import model_card, reporting_checklist
from ecg.output.page import page
from ecg.output.read import Results, feature_column, read_results
from ecg.output.style import BLUE, COLOURS, GREEN, VERMILLION, styled, wrap
from ecg.output.tables import as_text
from ecg.output.write import write_text

LOOKS = cycler(color=COLOURS * 2) + cycler(linestyle=["-", "--", "-.", ":"] * 3)
MAX_LETTERS = 16     # of a line of a class's name
CORNER = 0.25        # side of what is drawn once more, larger
MIN_AREA = 0.95      # under each curve; others would be covered by that


def new_figure(width: float, height: float, results: Results) -> Figure:
    """Return a figure of that size (inches), marked if the run's data is synthetic."""
    figure = Figure((width, height), layout="constrained")
    if results.is_demo:
        figure.supxlabel(SYNTHETIC_MARK, x=0.99, ha="right", fontsize=9, color="0.35")
    return figure


def two_lines(names: Sequence[str], width: int = MAX_LETTERS) -> list[str]:
    """Break names into at most two lines each, and cut off what is longer."""
    return ["\n".join(wrap(name, width, max_lines=2, placeholder="…")) for name in names]


@styled()
def confusion_matrix(results: Results) -> Figure:
    """Draw counts and shares of the true class; the title has the interval of metrics.json."""
    names = two_lines(results.classes)
    n_classes = len(names)
    counts = scores.confusion_matrix(results.true, results.predicted, labels=range(n_classes))
    n_labelled = counts.sum(axis=1, keepdims=True)
    shares = counts / n_labelled.clip(1)

    side = max(style.COLUMN, 1.4 + 0.42 * n_classes)
    figure = new_figure(side, side + 0.4, results)
    display = scores.ConfusionMatrixDisplay(shares, display_labels=names)
    display.plot(
        ax=figure.add_subplot(), cmap="Blues", colorbar=False, xticks_rotation="vertical",
        im_kw={"vmin": 0, "vmax": 1})
    for text, n, share in zip(display.text_.flat, counts.flat, shares.flat, strict=True):
        text.set_text(f"{n}\n{share:.0%}" if n else "0")

    display.ax_.set(xlabel="predicted class", ylabel="true class")
    value, low, high = results.metrics["model"]["balanced accuracy"]
    figure.suptitle(
        f"{len(results.true)} records, shares of the true class\n"
        f"balanced accuracy {value:.2f} (95 % interval {low:.2f} to {high:.2f})")
    return figure


@styled()
def training_curves(results: Results) -> Figure:
    """Draw loss, accuracy and, unless it is on a cosine, the learning rate; a line per repeat."""
    history = pd.read_csv(results.folder / "history.csv")
    quantities = [name for name in ("loss", "accuracy", "learning_rate") if name in history]
    figure = new_figure(style.PAGE, 3, results)
    panels = figure.subplots(1, len(quantities))
    for axes, quantity in zip(panels, quantities, strict=True):
        curves = [
            (quantity, "-", BLUE, "training (augmented records, with dropout)"),
            (f"val_{quantity}", "--", VERMILLION, "validation")]
        for name, dash, colour, label in curves:
            if name in history:
                by_repeat = history.pivot_table(name, "epoch", "repeat")
                lines = axes.plot(by_repeat.index, by_repeat, dash, color=colour, marker=".")
                lines[0].set_label(label)

        axes.set(xlabel="epoch", ylabel=quantity.replace("_", " "), ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))

    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


@styled()
def roc_precision_recall(results: Results) -> Figure:
    """Draw each class against the rest, and the corner where the curves pass once more, larger.

    Below are the areas with 95 % intervals of metrics.json, and the prevalence, which is what
    chance gives for precision.
    """
    figure = new_figure(style.PAGE, 4.2 + 0.17 * len(results.classes), results)
    roc, pr = figure.subplots(1, 2)
    roc_curves, pr_curves, labels = [], [], []
    for number, (name, own) in enumerate(results.metrics["by class"].items()):
        positive = results.true == number
        p = results.probabilities[:, number]
        if own["AUROC"] is None:    # there is no record of the class, or no other
            continue
        roc_curves.append(scores.roc_curve(positive, p)[:2])
        pr_curves.append(scores.precision_recall_curve(positive, p)[1::-1])
        areas = [as_text(own[kind]) for kind in ("AUROC", "average precision")]
        labels.append(f"{style.short(name, 22)}: AUROC {areas[0]}, AP {areas[1]}, "
                      f"prevalence {positive.mean():.2f}")

    roc.axline((0, 0), slope=1, color="0.6", linewidth=0.8)
    _draw_curves(roc, roc_curves, results, "AUROC", (-0.01, CORNER))
    _draw_curves(pr, pr_curves, results, "average precision", (1 - CORNER, 1.01))
    roc.set(xlabel="false positive rate (1 − specificity)", ylabel="true positive rate (recall)")
    pr.set(xlabel="recall", ylabel="precision")
    figure.legend(
        pr.lines, labels, loc="outside lower left", handlelength=2.4, alignment="left",
        title="area under the ROC curve and average precision (AP) with 95 % intervals")
    return figure


def _draw_curves(axes, curves, results, kind, corner):
    """Draw curves in all of the axes and, where they are good enough, their corner inside."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    places = [axes]
    by_class = results.metrics["by class"].values()
    areas = [own[kind][0] for own in by_class if own[kind]]
    if areas and min(areas) > MIN_AREA:
        inset = axes.inset_axes(
            (0.25, 0.14, 0.56, 0.56), xlim=corner, ylim=(1 - CORNER, 1.01))
        inset.locator_params(nbins=3)
        axes.indicate_inset_zoom(inset)
        places.append(inset)

    drawstyle = "default" if kind == "AUROC" else "steps-post"
    for place in places:
        place.set_prop_cycle(LOOKS)
        for x, y in curves:
            place.plot(x, y, drawstyle=drawstyle)


@styled()
def reliability(results: Results) -> Figure:
    """Draw accuracy by confidence in ten bins, and how many records are in each."""
    tested = pd.DataFrame({
        "confidence": results.probabilities.max(axis=1),
        "is_right": results.true == results.predicted})
    tenths = 10 * tested["confidence"]
    bins = tested.groupby(tenths.clip(upper=9).astype(int).to_numpy())
    confidence = bins["confidence"].mean()
    right = bins["is_right"].agg(["sum", "size", "mean"])
    counts = right[["sum", "size"]].to_numpy().tolist()
    intervals = [binomtest(k, n).proportion_ci(method="wilson") for k, n in counts]

    figure = new_figure(style.COLUMN, 4.2, results)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.axline((0, 0), slope=1, color="0.6", linewidth=0.8, label="perfectly calibrated")
    top.plot(
        confidence, right["mean"], "o-",
        color=BLUE, label="records, 95 % Wilson intervals")
    top.vlines(confidence, *np.transpose(intervals), color=BLUE, linewidth=0.8)
    top.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.02, 1.02))
    error = results.metrics["calibration"]["after"]["expected calibration error"]
    top.set_title(f"expected calibration error {error:.3f}")
    top.legend(loc="upper center", bbox_to_anchor=(0.45, -0.04))

    bottom.hist(tested["confidence"], np.linspace(0, 1, 11), rwidth=0.9, color=style.SKY)
    bottom.set(xlabel="confidence: probability of the predicted class", ylabel="records")
    figure.align_ylabels()
    return figure


def _draw_feature(axes, values, true, n_classes, reference):
    """Draw a feature's boxes, a row per class, and its reference range as a band.

    A box: median, quartiles, and whiskers of at most 1.5 times their distance.
    """
    axes.boxplot(
        [values[true == number].dropna() for number in range(n_classes)],
        positions=range(n_classes),
        orientation="horizontal",
        widths=0.6,
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": style.SKY},
        medianprops={"color": "black"},
        flierprops={"marker": "."})
    if reference:
        axes.axvspan(*reference, color=GREEN, alpha=0.2, linewidth=0, zorder=0)

    axes.xaxis.set_major_locator(MaxNLocator(3))
    if 0 < 20 * values.min() < values.max():
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        digits = (1, 3) if high < 100 * low else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=digits, numticks=4))    # few plain numbers
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())


@styled()
def features(results: Results) -> Figure:
    """Draw the eight features of every model by true class, and reference ranges as bands."""
    names = two_lines(results.classes)
    figure = new_figure(style.PAGE, 2.6 + 0.6 * len(names), results)
    panels = figure.subplots(2, 4, sharey=True).ravel()
    for axes, (name, unit, reference) in zip(panels, results.run["features"], strict=False):
        values = results.table[feature_column(name, unit)]
        _draw_feature(axes, values, results.true, len(names), reference)
        axes.set_title(*two_lines([feature_title(name, unit)], 22))

    panels[0].set_yticks(range(len(names)), names)    # sharey: of all
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle("green: reference range (those of SDNN, RMSSD and CV_RR are meant for longer "
                    "recordings than 10 s)")
    return figure


FIGURES = [confusion_matrix, training_curves, roc_precision_recall, reliability, features]


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
        for draw in FIGURES:
            if draw != training_curves or not results.run.get("start_from"):
                paths += style.save(draw(results), results.folder / "figures" / draw.__name__)
        paths.append(write_pages(results))
        for name, write in (("MODEL_CARD.md", model_card), ("index.html", page),
                            ("reporting_checklist.md", reporting_checklist)):
            paths.append(write_text(results.folder / name, write(results)))
    return paths

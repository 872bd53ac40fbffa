"""Draw the figures of a run and write its model card, from the files of its results folder alone.

    python tools/figures.py results/my_model                                         # all of it
    python tools/figures.py results/my_model --only confusion_matrix training_curves

Figures go to `figures/` in that folder, as PDF (fonts embedded) and as PNG (200 dpi), in the widths
of a paper's column or page; `MODEL_CARD.md` goes beside it. Nothing is trained, and nothing of the
script is needed. `draw_ecg` draws any 12-lead ECG as clinicians read it. Class names in Chinese,
Japanese or Korean need a font that has them, such as Noto Sans CJK.
"""

import argparse
import contextlib
import gc
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.cbook import boxplot_stats
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from sklearn import metrics as scores

ROOT = str(Path(__file__).resolve().parent.parent)
if sys.path[0] != ROOT:    # to run from anywhere
    sys.path.insert(0, ROOT)
from tools.ecg_page import draw_ecg, example_pages  # noqa: E402
from tools.figure_style import (  # noqa: E402
    BLUE,
    COLOURS,
    COLUMN,
    GREEN,
    PAGE,
    SKY,
    SYNTHETIC,
    VERMILLION,
    breadth,
    drawable,
    save,
    short,
    styled,
)
from tools.model_card import write_card  # noqa: E402
from tools.results_folder import (  # noqa: E402
    read_metrics,
    read_predictions,
    read_run,
    read_table,
    reading,
    report,
)

__all__ = ["draw_ecg", "main", "make_all", "save"]
DASHES = "-", "--", "-.", ":"
SHARES = LinearSegmentedColormap.from_list("shares", ["white", BLUE])


def new_figure(width, height, run):
    """Return a figure of that size (inches), marked if the run's data is synthetic."""
    figure = Figure((width, height), layout="constrained")
    if run["synthetic"]:
        figure.get_layout_engine().set(rect=(0, 0.2 / height, 1, 1 - 0.2 / height))
        figure.text(1 - 0.05 / width, 0.05 / height, SYNTHETIC, ha="right", color="0.35")
    return figure


def wrapped(names, most=26):
    """Break names into at most two lines each, as narrow as goes; cut off what is longer."""
    names = [short(name, 2 * most) for name in names]
    width = next((width for width in range(12, most) if all(
        len(textwrap.wrap(name, width)) <= 2 for name in names)), most)
    return ["\n".join(textwrap.wrap(name, width, max_lines=2, placeholder="…")) for name in names]


def plain_ticks(axis, *digits):
    """Put few and plain numbers on a logarithmic axis, those with one of these first digits."""
    axis.set_major_locator(LogLocator(subs=digits, numticks=4))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


@styled()
def confusion_matrix(folder):
    """Draw counts and shares of the true class; the title has the interval of metrics.json."""
    run, _, true, predicted, _ = read_predictions(folder)
    metrics, names = read_metrics(folder), wrapped(drawable(run["classes"]))
    n = len(names)
    counts = np.bincount(true * n + predicted, minlength=n * n).reshape(n, n)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    margin = 0.45 + 0.075 * max(breadth(line) for name in names for line in name.split("\n"))
    size = max(0.4 * n, COLUMN - margin)
    figure = new_figure(size + margin, size + margin, run)
    axes = figure.add_subplot()
    axes.pcolormesh(shares, cmap=SHARES, vmin=0, vmax=1, edgecolor="0.8", linewidth=0.5)
    for (i, j), share in np.ndenumerate(shares):
        percent = f"{share:.0%}" if counts[i].any() else "–"
        axes.text(j + 0.5, i + 0.5, f"{counts[i, j]}\n{percent}", ha="center", va="center",
                  color="white" if share > 0.7 else "black", linespacing=1.1)
    axes.set_xticks(np.arange(n) + 0.5, names, rotation=90)
    axes.set_yticks(np.arange(n) + 0.5, names)
    axes.set(xlabel="predicted class", ylabel="true class", ylim=(n, 0))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    with reading(Path(folder) / "metrics.json"):
        value, low, high = metrics["model"]["balanced accuracy"]
        figure.suptitle(f"{len(true)} records, shares of the true class\nbalanced accuracy "
                        f"{value:.2f} (95 % interval {low:.2f}–{high:.2f})")
    figure.draw_without_rendering()    # only now is known how much room the names take
    width, height = axes.get_position().size * figure.get_size_inches()
    figure.set_figheight(figure.get_figheight() + width - height)    # squares
    return figure


@styled()
def training_curves(folder):
    """Draw loss, accuracy and step size by epoch, a line per repeat."""
    run, path = read_run(folder), Path(folder) / "history.csv"
    columns = ["repeat", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    with reading(path):
        has_rate = "learning_rate" in pd.read_csv(path, nrows=1).columns
        history = read_table(folder, path.name, [], columns + ["learning_rate"] * has_rate)
        figure = new_figure(PAGE, 2.8, run)
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
            panels[number].xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        if history.empty:
            raise ValueError("no epoch")
    if has_rate and (history["learning_rate"] > 0).all():
        panels[2].set_yscale("log")
        plain_ticks(panels[2].yaxis, 1, 2, 5)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    panels[1].set_ylim(0, 1.02)
    return figure


@styled()
def roc_precision_recall(folder):
    """Draw each class against the rest; the legends give areas, and chance for precision."""
    run, _, true, _, p = read_predictions(folder)
    figure = new_figure(PAGE, 3.4 + 0.17 * len(run["classes"]), run)
    roc, pr = figure.subplots(1, 2)
    roc.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    for number, name in enumerate(drawable(run["classes"])):
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
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal",
                 xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))
        axes.legend(title=title, loc="upper center", bbox_to_anchor=(0.5, -0.2), handlelength=3)
    return figure


def wilson(right, n, z=1.96):
    """Return the 95 % interval of a share (Wilson, JASA 1927;22:209-212)."""
    centre, half = right + z * z / 2, z * np.sqrt(right * (n - right) / n + z * z / 4)
    return (centre - half) / (n + z * z), (centre + half) / (n + z * z)


@styled()
def reliability(folder):
    """Draw accuracy by confidence in ten bins, and how many records are in each."""
    run, _, true, predicted, p = read_predictions(folder)
    confidence = p.max(axis=1)
    bins = pd.DataFrame({"right": true == predicted, "confidence": confidence}).groupby(
        np.minimum((confidence * 10).astype(int), 9))
    n, right, mean = (x.to_numpy() for x in (
        bins.size(), bins["right"].sum(), bins["confidence"].mean()))
    accuracy, (low, high) = right / n, wilson(right, n)
    error = (np.abs(accuracy - mean) * n).sum() / n.sum()
    figure = new_figure(COLUMN, 4.2, run)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, label="perfectly calibrated")
    reach = np.clip([accuracy - low, high - accuracy], 0, 1).tolist()    # an array of one warns
    top.errorbar(mean, accuracy, reach, fmt="o-", markersize=4, capsize=2, elinewidth=0.8,
                 color=BLUE, label="records (95 % Wilson intervals)")
    top.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.02, 1.02),
            title=f"expected calibration error {error:.3f}")
    top.legend(loc="upper center", bbox_to_anchor=(0.45, -0.04))
    bottom.bar(np.array(list(bins.groups)) / 10 + 0.05, n, width=0.09, color=SKY)
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


@styled()
def features(folder):
    """Draw the first eight features by true class: boxes, and the usual ranges as bands."""
    run, table, true, _, _ = read_predictions(folder)
    names, shown = wrapped(drawable(run["classes"])), run["shown"]
    rows = -(-len(shown) // 4)
    figure = new_figure(PAGE, rows * (0.9 + 0.3 * len(names)) + 0.4, run)
    panels = figure.subplots(rows, 4, sharey=True, squeeze=False).ravel()
    for axes, (feature, limits) in zip(panels, shown, strict=False):
        values = table[feature].to_numpy()
        known = values[np.isfinite(values)]
        for number in range(len(names)):
            if len(x := values[np.isfinite(values) & (true == number)]):
                box_plot(axes, number, boxplot_stats(x)[0])
        if limits:
            axes.axvspan(*limits, color=GREEN, alpha=0.2, linewidth=0, zorder=0)
        if not len(known):
            axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
        axes.set_title(feature)
        axes.use_sticky_edges = False    # so that margins show where a box or a range ends
        axes.xaxis.set_major_locator(MaxNLocator(3))
        if len(known) and known.min() > 0 and known.max() > 20 * known.min():
            axes.set_xscale("log")
            low, high = axes.get_xlim()
            plain_ticks(axes.xaxis, *((1, 3) if high < 100 * low else (1,)))
    for axes in panels[len(shown):]:
        axes.remove()
    panels[0].set_yticks(range(len(names)), names)    # sharey: of all
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    if any(limits for _, limits in shown):
        figure.suptitle("green: usual range (those of SDNN, RMSSD and CV_RR are meant for longer "
                        "recordings than 10 s)")
    return figure


FIGURES = {"confusion_matrix": confusion_matrix, "training_curves": training_curves,
           "roc_precision_recall": roc_precision_recall, "reliability": reliability,
           "features": features}
NAMES = (*FIGURES, "examples", "model_card")


@contextlib.contextmanager
def no_garbage_collection():
    """Pause it: with a model in memory it takes a fifth of the time; costs some 30 MB."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@no_garbage_collection()
def make_all(folder, only=None):
    """Make what `only` names of `NAMES`, by default all; return the paths of what was written."""
    folder, paths = Path(folder), []
    for name in only or NAMES:
        if name == "model_card":
            paths.append(write_card(folder))
            continue
        pages = example_pages(folder) if name == "examples" else {name: FIGURES[name](folder)}
        for stem, figure in pages.items():
            paths += save(figure, folder / "figures" / stem)
    return paths


def main(arguments=None):
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     usage=argparse.SUPPRESS)    # so that an error takes one line
    parser.add_argument("folder", help="results folder of a run")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME",
                        help=f"some of: {', '.join(NAMES)}")
    asked = parser.parse_args(arguments)
    return report(lambda: make_all(asked.folder, asked.only))


if __name__ == "__main__":
    sys.exit(main())

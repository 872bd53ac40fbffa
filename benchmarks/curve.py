"""Learning curves: how good each system is with how many records, as a picture."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.tables import curve_title, scorer_of
from ecg.output import style

SIZES = 300, 600, 1200    # records to learn from; all of them come last
SYSTEMS = "regression", "minirocket", "default", "large"
MARKERS = "osD^vP"
APART = 1.03              # a system's points lie so many times further right than another's


def draw(curves, pool, protocols, path):
    """Draw one panel for each protocol.

    Parameters
    ----------
    curves : dict of dict of dict of Result
        By protocol, name of the system and number of records.
    pool : Pool
    protocols : dict of list of Fold
    path : str
        A PNG file.
    """
    with style.styled():
        figure = Figure((style.PAGE, 3.2), layout="constrained")
        panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for axes, (protocol, results) in zip(panels, curves.items(), strict=True):
            draw_panel(axes, results, scorer_of(pool, protocols[protocol]))
            axes.set_title(curve_title(protocol).partition(", ")[2])

        panels[0].set_ylabel("balanced accuracy (95 %)")
        handles, titles = panels[0].get_legend_handles_labels()
        figure.legend(handles, titles, loc="outside lower center", ncols=2)
    style.save(figure, Path(path).with_suffix(""), ["png"])


def draw_panel(axes, results, scorer):
    """Draw mean and interval of each system against the number of records."""
    for place, by_size in enumerate(results.values()):
        sizes = np.array(sorted(by_size))
        scores = [scorer.balanced(by_size[size].predicted) for size in sizes]
        means = np.array([score[0] for score in scores])
        low, high = np.percentile([score[1:] for score in scores], [2.5, 97.5], axis=1)

        lengths = np.clip([means - low, high - means], 0, None)    # not -1e-17
        shift = APART ** (place - (len(results) - 1) / 2)
        axes.errorbar(
            sizes * shift,
            means,
            lengths,
            label=by_size[sizes[0]].title.strip("*"),
            color=style.COLOURS[place % len(style.COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=4,
            capsize=2)

    every = sorted({size for by_size in results.values() for size in by_size})
    axes.set_xscale("log")
    axes.set_xticks(every, [f"{size:,}" for size in every])
    axes.minorticks_off()
    axes.set_xlabel("records to learn from")

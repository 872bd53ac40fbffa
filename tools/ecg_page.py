"""Draw a 12-lead ECG as clinicians read it, and the example pages of a results folder."""

import re
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tools.figure_style import BLUE, ORANGE, SYNTHETIC, breadth, drawable, short, styled
from tools.results_folder import read_run, reading

A4 = 297, 210                    # mm
SPEED, GAIN = 25, 10             # mm/s, mm/mV
LEFT, BOTTOM, ROW = 16, 18, 40   # mm: lower left corner of the paper, height of a row
PULSE, WIDTH = 15, 265           # mm: room for the calibration pulse, width of the paper with it
ROWS = ("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"), ("II",)
IMPORTANCE = LinearSegmentedColormap.from_list("importance", [    # the paper shows through
    (0, to_rgba(BLUE, 0.7)), (0.5, to_rgba(BLUE, 0)), (0.5, to_rgba(ORANGE, 0)),
    (1, to_rgba(ORANGE, 0.7))])


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
    axes.text(time[0] + 1, base + 15.5, name, fontsize=10, weight="bold", zorder=1.5, bbox={
        "facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.8})
    if time[0] > LEFT + PULSE:    # where one lead ends and the next starts
        axes.plot([time[0]] * 2, [base - 4, base + 4], color="0.4", linewidth=0.6)
    if importance is not None:
        axes.imshow(np.nan_to_num(importance)[None], cmap=IMPORTANCE, vmin=-1, vmax=1, zorder=0.5,
                    aspect="auto", interpolation="none", label=name,
                    extent=(time[0], time[-1], base - 0.45 * ROW, base + 0.45 * ROW))


@styled()
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
    axes.text(LEFT, 192, text, fontsize=10, va="top", linespacing=1.25)
    axes.text(LEFT, 7, f"{SPEED} mm/s, {GAIN} mm/mV (printed at 100 % on A4)"
              + ("" if r_peaks is None else "; triangles: R peaks"))
    axes.text(LEFT + WIDTH, 7, note, ha="right", color="0.35")
    if importance is not None:
        bar = figure.add_axes((118 / A4[0], 13 / A4[1], 60 / A4[0], 2.5 / A4[1]))
        figure.colorbar(ScalarMappable(Normalize(-1, 1), IMPORTANCE), bar, ticks=[],
                        orientation="horizontal")
        axes.text(116, 13, "importance: against the class", ha="right")
        axes.text(180, 13, "for the class")
    return figure


def write_probabilities(names, p):
    """Return them in three lines, for which there is room: names are cut off until they fit."""
    for most in range(95, 0, -5):
        each = [f"{short(name, most)} {x:.2f}".replace(" ", "\0") for name, x in
                zip(names, p, strict=True)]    # \0: no line ends there
        text = "Probabilities: " + "   ".join(each)
        lines = textwrap.wrap(text, 120 * len(text) // breadth(text))
        if len(lines) <= 3:
            break
    return "\n".join(lines[:3]).replace("\0", " ")


def example_pages(folder):
    """Return {file name: page with an example of that class, as `draw_ecg` draws it}."""
    run, path, pages = read_run(folder), Path(folder) / "examples.npz", {}
    names = drawable(run["classes"])
    with reading(path), np.load(path, allow_pickle=False) as data:
        for number, name in enumerate(run["classes"]):
            if f"signal_{number}" not in data:
                continue
            signal, fs, peaks, record, p = (data[f"{key}_{number}"] for key in (
                "signal", "fs", "r_peaks", "record", "probabilities"))
            slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:40]
            pages[f"ecg_{number + 1}_{slug}".rstrip("_")] = draw_ecg(
                signal, float(fs), run["leads"], peaks,
                short(f"Label {short(names[number], 50)}, record {record}", 95),
                write_probabilities(names, p), SYNTHETIC if run["synthetic"] else "")
    return pages

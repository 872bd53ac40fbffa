"""Draw a 12-lead ECG as clinicians read it, and the example pages of a results folder."""

import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ecg import labels_origin
from ecg.escape import shown
from ecg.output.read import read_run, reading
from ecg.output.style import BLUE, ORANGE, breadth, drawable, short, styled

A4 = 297, 210                    # mm
SPEED, GAIN = 25, 10             # mm/s, mm/mV
LEFT, BOTTOM, ROW = 16, 18, 40   # mm: lower left corner of the paper, height of a row
PULSE, WIDTH = 15, 265           # mm: room for the calibration pulse, width of the paper with it
SECONDS = 10                     # length of a row
LAYOUT = [
    ["I", "aVR", "V1", "V4"],
    ["II", "aVL", "V2", "V5"],
    ["III", "aVF", "V3", "V6"],
    ["II"],    # the rhythm strip
]
IMPORTANCE = LinearSegmentedColormap.from_list("importance", [    # the paper shows through
    (0, to_rgba(BLUE, 0.7)),
    (0.5, to_rgba(BLUE, 0)),
    (0.5, to_rgba(ORANGE, 0)),
    (1, to_rgba(ORANGE, 0.7)),
])


class Recording(NamedTuple):
    """An ECG to draw; positions on the page are in mm."""

    signal: np.ndarray               # (samples, n_leads), in mV
    fs: float                        # Hz
    leads: list[str]                 # names of its columns, casefolded
    medians: np.ndarray              # (n_leads,), in mV: from there a lead is drawn
    importance: np.ndarray | None    # (samples, n_leads), -1 to 1

    def times(self) -> np.ndarray:
        """Return where the samples lie, from left to right."""
        return LEFT + PULSE + SPEED * np.arange(len(self.signal)) / self.fs

    def heights(self, column: int) -> np.ndarray:
        """Return how far above its base each sample of a lead lies."""
        return GAIN * (self.signal[:, column] - self.medians[column])


def _base(row):
    """Return the height on the page at which a row's leads have their medians."""
    return BOTTOM + (len(LAYOUT) - 0.5 - row) * ROW


def _check(signal, fs, leads, importance):
    """Raise `ValueError` if shapes do not fit, or one of the 12 leads is missing."""
    missing = [name for row in LAYOUT for name in row if name.casefold() not in leads]
    if signal.ndim != 2 or signal.shape[1] != len(leads) or missing or not fs >= 10:
        raise ValueError(
            "expected (samples, 12) in mV, 12 leads and their rate, got shape "
            f"{signal.shape}, {len(leads)} leads without {missing}, {fs} Hz")
    if importance is not None and np.shape(importance) != signal.shape:
        raise ValueError(f"importance: shape {np.shape(importance)}, not {signal.shape}")


def _median(lead):
    """Return the median of a lead's finite samples, 0 if it has none."""
    finite = lead[np.isfinite(lead)]
    return np.median(finite) if len(finite) else 0.0


def _draw_paper(axes):
    """Draw millimetre paper, each row with a calibration pulse of 1 mV and 0.2 s."""
    height = len(LAYOUT) * ROW
    for step, width, colour in ((1, 0.25, "#F7CFCF"), (5, 0.6, "#EBA4A4")):
        x = LEFT + np.arange(0, WIDTH + 1, step)
        y = BOTTOM + np.arange(0, height + 1, step)
        axes.vlines(x, y[0], y[-1], colour, linewidth=width, zorder=0)
        axes.hlines(y, x[0], x[-1], colour, linewidth=width, zorder=0)

    pulse_x = LEFT + np.array([3, 5, 5, 10, 10, 12])
    pulse_y = GAIN * np.array([0, 0, 1, 1, 0, 0])
    for row in range(len(LAYOUT)):
        base = BOTTOM + (row + 0.5) * ROW
        axes.plot(pulse_x, base + pulse_y, color="black", lw=0.8, label="pulse")


def _draw_lead(axes, recording, name, row, part):
    """Draw the part (a slice) of a lead that has its place in this row, and the colour under it."""
    base = _base(row)
    column = recording.leads.index(name.casefold())
    x = recording.times()[part]
    if not len(x):
        return

    paper = Rectangle((LEFT, BOTTOM), WIDTH, len(LAYOUT) * ROW, transform=axes.transData)
    trace = base + recording.heights(column)[part]
    axes.plot(x, trace, color="black", linewidth=0.7, label=name, clip_path=paper)
    box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.8}
    axes.text(x[0] + 1, base + 15.5, name, fontsize=10, weight="bold", zorder=1.5, bbox=box)
    if x[0] > LEFT + PULSE:    # where one lead ends and the next starts
        axes.plot([x[0], x[0]], [base - 4, base + 4], color="0.4", linewidth=0.6)

    if recording.importance is not None:
        colours = np.nan_to_num(recording.importance[part, column])
        axes.imshow(
            colours[None], cmap=IMPORTANCE, vmin=-1, vmax=1, zorder=0.5,
            aspect="auto", interpolation="none", label=name,
            extent=(x[0], x[-1], base - 0.45 * ROW, base + 0.45 * ROW))


def _draw_leads(axes, recording):
    """Draw the four rows of leads."""
    for row, names in enumerate(LAYOUT):
        samples = SECONDS * recording.fs / len(names)
        for place, name in enumerate(names):
            start = round(place * samples)
            end = round((place + 1) * samples)
            # One sample more: to where the next lead starts
            _draw_lead(axes, recording, name, row, slice(start, end + 1))


def _draw_r_peaks(axes, recording, r_peaks):
    """Mark R peaks (in samples) on the rhythm strip, the last row."""
    row = len(LAYOUT) - 1
    column = recording.leads.index(LAYOUT[row][0].casefold())
    peaks = np.asarray(r_peaks, dtype=float).ravel()
    peaks = peaks[(peaks >= 0) & (peaks <= len(recording.signal) - 1)]

    x = LEFT + PULSE + SPEED * peaks / recording.fs
    heights = recording.heights(column)[np.rint(peaks).astype(int)]
    y = _base(row) + np.nan_to_num(heights).clip(0, 30) + 2
    axes.plot(x, y, "v", color=BLUE, markersize=5, label="R peaks")


def _draw_colour_bar(figure, axes):
    """Draw what the colours of the importance mean, below the paper."""
    width, height = A4
    bar = figure.add_axes((118 / width, 13 / height, 60 / width, 2.5 / height))
    colours = ScalarMappable(Normalize(-1, 1), IMPORTANCE)
    figure.colorbar(colours, bar, ticks=[], orientation="horizontal")
    axes.text(116, 13, "importance: against the class", ha="right")
    axes.text(180, 13, "for the class")


def _new_page() -> tuple[Figure, Axes]:
    """Return a figure of A4 landscape and its axes, whose unit is the millimetre."""
    width, height = A4
    figure = Figure((width / 25.4, height / 25.4))
    axes = figure.add_axes(
        (0, 0, 1, 1), xlim=(0, width), ylim=(0, height), autoscale_on=False)
    axes.set_axis_off()
    return figure, axes


@styled()
def draw_ecg(signal: np.ndarray, fs: float, leads: Sequence[str],
             r_peaks: np.ndarray | None = None, title: str = "", text: str = "", note: str = "",
             importance: np.ndarray | None = None) -> Figure:
    """Draw a 12-lead ECG on millimetre paper: 3 x 4 leads of 2.5 s and lead II for 10 s.

    One axes covers the page and its unit is the millimetre, so a PDF printed at 100 % on A4
    landscape has 25 mm/s and 10 mm/mV. Each lead is drawn from its median. `style.save` writes the
    page; in a notebook it shows itself after `%matplotlib inline`.

    Parameters
    ----------
    signal : array_like (samples, 12), in mV; NaN leaves a gap; of more than 10 s the first
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
    signal = np.asarray(signal, dtype=float)
    names = [str(name).casefold() for name in leads]
    _check(signal, fs, names, importance)
    signal = signal[:round(SECONDS * fs)]
    medians = np.nan_to_num([_median(lead) for lead in signal.T])
    if importance is not None:
        importance = np.asarray(importance, dtype=float)[:len(signal)]
    recording = Recording(signal, fs, names, medians, importance)

    figure, axes = _new_page()
    _draw_paper(axes)
    _draw_leads(axes, recording)
    if r_peaks is not None:
        _draw_r_peaks(axes, recording, r_peaks)
    _write_texts(axes, title, text, note, with_peaks=r_peaks is not None)
    if importance is not None:
        _draw_colour_bar(figure, axes)
    return figure


def _write_texts(axes, title, text, note, with_peaks):
    """Write above the paper what it shows, and below it the scale."""
    scale = f"{SPEED} mm/s, {GAIN} mm/mV (printed at 100 % on A4)"
    if with_peaks:
        scale += "; triangles: R peaks"
    axes.text(LEFT, 196, title, fontsize=12, weight="bold")
    axes.text(LEFT, 192, text, fontsize=10, va="top", linespacing=1.25)
    lines = wrap_note(note)
    top = max(7, 4 * len(lines) - 3)    # mm: the last of three lines ends at the foot of the page
    axes.text(LEFT, top, scale)
    for number, line in enumerate(lines):
        axes.text(LEFT + WIDTH, top - 4 * number, line, ha="right", color="0.35")


def wrap_note(note: str) -> list[str]:
    """Return the lines of a note: the first has the scale to its left, the others have not."""
    share = len(note) / breadth(note) if note else 1
    lines = textwrap.wrap(note, int(130 * share), initial_indent=" " * int(45 * share))
    return [line.strip() for line in lines]


def write_probabilities(names: Sequence[str], probabilities: Sequence[float]) -> str:
    """Return them in at most three lines, for which there is room.

    Names are cut off until all fit; what still does not fit is left out.
    """
    lines: list[str] = []
    for most in range(95, 0, -5):
        entries = [f"{short(name, most)} {p:.2f}"
                   for name, p in zip(names, probabilities, strict=True)]
        unbroken = [entry.replace(" ", "\0") for entry in entries]    # no line ends within one
        text = "Probabilities: " + "   ".join(unbroken)
        lines = textwrap.wrap(text, 120 * len(text) // breadth(text))
        if len(lines) <= 3:
            break

    return "\n".join(lines[:3]).replace("\0", " ")


def _file_name(number, name):
    """Return the file name, without extension, of the example of a class."""
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return f"ecg_{number + 1}_{slug[:40]}".rstrip("_")


def example_pages(folder: str | os.PathLike[str]) -> dict[str, Figure]:
    """Return {file name: page with an example of that class, as `draw_ecg` draws it}.

    `ResultsError` if run.json or examples.npz of the results folder is missing or damaged.
    """
    run = read_run(folder)
    note = labels_origin.note(run)
    names = drawable(run["classes"])
    path = Path(folder) / "examples.npz"
    pages = {}
    with reading(path), np.load(path, allow_pickle=False) as data:
        for number, name in enumerate(run["classes"]):
            if f"signal_{number}" not in data:
                continue

            title = f"Label {short(names[number], 50)}, record " \
                + shown(data[f"record_{number}"], 200)
            pages[_file_name(number, name)] = draw_ecg(
                data[f"signal_{number}"],
                float(data[f"fs_{number}"]),
                run["leads"],
                data[f"r_peaks_{number}"],
                title=short(title, 95),
                text=write_probabilities(names, data[f"probabilities_{number}"]),
                note=note)

    return pages

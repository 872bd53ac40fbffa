"""Draw a 12-lead ECG as clinicians read it, and the test ECGs of a results folder."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ecg import origin
from ecg.errors import printable
from ecg.files import write_whole
from ecg.output.read import Results
from ecg.output.style import BLUE, NO_DATE, ORANGE, breadth, drawable, short, styled

A4 = 297, 210                    # mm
SPEED, GAIN = 25, 10             # mm/s, mm/mV; half of that where a trace leaves its row
LEFT, BOTTOM, ROW = 16, 22, 40   # mm: lower left corner of the paper, height of a row
PULSE, WIDTH = 15, 265           # mm: room for the calibration pulse, width of the paper with it
SECONDS = 10                     # length of a row
LAYOUT = [
    ["I", "aVR", "V1", "V4"],
    ["II", "aVL", "V2", "V5"],
    ["III", "aVF", "V3", "V6"],
    ["II"],    # the rhythm strip
]
INTERVALS = {"PR interval": "PR", "QRS width": "QRS", "QT interval": "QT"}    # if they are measured
IMPORTANCE = LinearSegmentedColormap.from_list("importance", [    # the paper shows through
    (0, to_rgba(BLUE, 0.7)),
    (0.5, to_rgba(BLUE, 0)),
    (0.5, to_rgba(ORANGE, 0)),
    (1, to_rgba(ORANGE, 0.7)),
])


class Reasons(NamedTuple):
    """What moved a class's probability, to be drawn over its ECG."""

    importance: np.ndarray    # (samples, 12), -1 to 1: the colours under the leads
    at_full_colour: float     # change of probability by 0.1 s of a lead, there
    words: str                # how much leads and features carry, and the most telling features


class Recording(NamedTuple):
    """An ECG to draw; positions on the page are in mm."""

    signal: np.ndarray               # (samples, n_leads), in mV
    fs: float                        # Hz
    leads: list[str]                 # names of its columns, casefolded
    medians: np.ndarray              # (n_leads,), in mV: from there a lead is drawn
    importance: np.ndarray | None    # (at least so many samples, n_leads), -1 to 1
    gain: float                      # mm/mV

    def times(self) -> np.ndarray:
        """Return where the samples lie, from left to right."""
        return LEFT + PULSE + SPEED * np.arange(len(self.signal)) / self.fs

    def heights(self, column: int) -> np.ndarray:
        """Return how far above its base each sample of a lead lies."""
        return self.gain * (self.signal[:, column] - self.medians[column])


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
    if importance is not None and importance.shape != signal.shape:
        raise ValueError(f"importance: shape {importance.shape}, not {signal.shape}")


def _parts(fs: float) -> Iterator[tuple[int, int, str, slice]]:
    """Yield row, place in the row, and name of each lead that is drawn, and which of its samples.

    The last of these is where the next lead starts.
    """
    for row, names in enumerate(LAYOUT):
        samples = SECONDS * fs / len(names)
        for place, name in enumerate(names):
            end = round((place + 1) * samples)
            yield row, place, name, slice(round(place * samples), end + 1)


def _gain(signal, leads, medians, fs):
    """Return 10 mm/mV, or 5 where a trace would leave its row."""
    heights = np.nan_to_num(np.abs(signal - medians))
    tallest = max(heights[part, leads.index(name.casefold())].max(initial=0)
                  for _, _, name, part in _parts(fs))
    return GAIN if GAIN * tallest <= ROW / 2 else GAIN / 2


def _draw_paper(axes, gain):
    """Draw millimetre paper, each row with a calibration pulse of 1 mV and 0.2 s."""
    height = len(LAYOUT) * ROW
    for step, width, colour in ((1, 0.25, "#F7CFCF"), (5, 0.6, "#EBA4A4")):
        x = LEFT + np.arange(0, WIDTH + 1, step)
        y = BOTTOM + np.arange(0, height + 1, step)
        axes.vlines(x, y[0], y[-1], colour, linewidth=width, zorder=0)
        axes.hlines(y, x[0], x[-1], colour, linewidth=width, zorder=0)

    pulse_x = LEFT + np.array([3, 5, 5, 10, 10, 12])
    pulse_y = gain * np.array([0, 0, 1, 1, 0, 0])
    for row in range(len(LAYOUT)):
        base = BOTTOM + (row + 0.5) * ROW
        axes.plot(pulse_x, base + pulse_y, color="black", lw=0.8, label="pulse")


def _draw_lead(axes, recording, row, place, name, part):
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
    is_first = place == 0    # then above the pulse, where no trace and no triangle comes
    label_x = LEFT + 4 if is_first else x[0] + 1
    axes.text(label_x, base + 15.5, name, fontsize=10, weight="bold", zorder=1.5, bbox=box)
    if not is_first:    # where one lead ends and the next starts
        axes.plot([x[0], x[0]], [base - 4, base + 4], color="0.4", linewidth=0.6)

    if recording.importance is not None:
        colours = np.nan_to_num(recording.importance[part, column])
        axes.imshow(
            colours[None], cmap=IMPORTANCE, vmin=-1, vmax=1, zorder=0.5,
            aspect="auto", interpolation="none", label=name,
            extent=(x[0], x[-1], base - 0.45 * ROW, base + 0.45 * ROW))


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


def _draw_colour_bar(figure, axes, reasons):
    """Draw what the colours of the importance mean, below the paper."""
    width, height = A4
    bar = figure.add_axes((128 / width, 13.2 / height, 40 / width, 2.5 / height))
    colours = ScalarMappable(Normalize(-1, 1), IMPORTANCE)
    figure.colorbar(colours, bar, ticks=[], orientation="horizontal")
    change = f"{reasons.at_full_colour:.2g}"
    axes.text(126, 13.2, f"against the class −{change}", ha="right")
    axes.text(170, 13.2, f"+{change} for the class, by 0.1 s of a lead")
    axes.text(LEFT, 17.6, short(reasons.words, 150))


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
             reasons: Reasons | None = None, measured: str = "") -> Figure:
    """Draw a 12-lead ECG on millimetre paper: 3 x 4 leads of 2.5 s and lead II for 10 s.

    One axes covers the page and its unit is the millimetre, so a PDF printed at 100 % on A4
    landscape has 25 mm/s and 10 mm/mV, or 5 mm/mV where a trace would leave its row. Each lead is
    drawn from its median, unfiltered. `ecg.output.style.save` writes the page.

    Parameters
    ----------
    signal : array_like (samples, 12), in mV; NaN leaves a gap; of more than 10 s the first
    fs : float, its rate in Hz
    leads : sequence of str, names of its columns, in any order
    r_peaks : array_like, in samples; marked on the rhythm strip
    title, text, note : str, printed large above, below the title, and at the foot
    reasons : what coloured the paper under each lead, and the words below it
    measured : str, such as the heart rate, printed between title and text

    Returns
    -------
    Figure; `ValueError` if shapes do not fit, or one of the 12 standard leads is missing
    """
    names = [name.casefold() for name in leads]
    signal = np.asarray(signal, dtype=float)
    importance = None if reasons is None else reasons.importance
    _check(signal, fs, names, importance)
    samples = round(SECONDS * fs)
    signal = np.where(np.isfinite(signal), signal, np.nan)[:samples]
    medians = pd.DataFrame(signal).median().fillna(0).to_numpy()
    gain = _gain(signal, names, medians, fs)
    recording = Recording(signal, fs, names, medians, importance, gain)

    figure, axes = _new_page()
    _draw_paper(axes, gain)
    for part in _parts(fs):
        _draw_lead(axes, recording, *part)
    if r_peaks is not None:
        _draw_r_peaks(axes, recording, r_peaks)
    _write_scale(axes, gain, note, with_peaks=r_peaks is not None)
    if reasons is not None:
        _draw_colour_bar(figure, axes, reasons)

    _write_heading(axes, title, measured, fs, text)
    return figure


def _write_heading(axes, title, measured, fs, text):
    """Write what the page shows above the paper."""
    axes.text(LEFT, 203, title, fontsize=12, weight="bold")
    axes.text(LEFT, 197.5, measured, fontsize=10)
    axes.text(LEFT + WIDTH, 197.5, f"{fs:g} Hz, unfiltered", fontsize=10, ha="right")
    axes.text(LEFT, 195.5, text, fontsize=10, va="top", linespacing=1.2)


def _write_scale(axes, gain, note, with_peaks):
    """Write scale and note below the paper."""
    scale = f"{SPEED} mm/s, {gain:g} mm/mV"
    scale += " (HALF THE GAIN; printed" if gain < GAIN else " (printed"
    scale += " at 100 % on A4)"
    if with_peaks:
        scale += "; triangles: R peaks"

    lines = wrap_note(note, breadth(scale))
    top = max(7, 4 * len(lines) - 3)    # mm: the last of three lines ends at the foot of the page
    axes.text(LEFT, top, scale)
    for number, line in enumerate(lines):
        axes.text(LEFT + WIDTH, top - 4 * number, line, ha="right", color="0.35")


def wrap_note(note: str, taken: int = 55) -> list[str]:
    """Return the lines of a note: to the left of the first, `taken` letters of the scale stand."""
    room = 130 - round(0.82 * taken)    # letters; those of the note are narrower
    lines = []
    rest = note.strip()
    while rest:
        end = len(rest)
        while breadth(rest[:end]) > room:
            end -= 1
        if end < len(rest) and " " in rest[:end + 1]:    # a word without blanks is broken
            end = rest[:end + 1].rindex(" ")
        lines.append(rest[:end].strip())
        rest = rest[end:].strip()
        room = 130
    return lines


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


def write_measured(values: Mapping[str, float]) -> str:
    """Return heart rate and intervals, as far as they are measured: "Heart rate 97 bpm".

    Parameters
    ----------
    values : by name of a feature; NaN where it could not be measured
    """
    rate = values.get("heart rate", np.nan)
    words = [f"Heart rate {rate:.0f} bpm" if np.isfinite(rate) else "Heart rate not measurable"]
    for name, interval in INTERVALS.items():
        value = values.get(name, np.nan)
        if np.isfinite(value):
            words.append(f"{interval} {value:.0f} ms")
    return ", ".join(words)


def draw_tested(results: Results, row: int) -> Figure:
    """Draw the ECG of a test record with its label, its predicted class and what was measured.

    Parameters
    ----------
    results : of its run
    row : which of the test records, one whose ECG the run has kept
    """
    record = results.table["record"].iloc[row]
    ecg = results.ecgs[record]
    names = drawable(results.classes)
    label = short(names[results.true[row]], 40)
    predicted = short(names[results.predicted[row]], 40)
    values = {feature.name: results.table[feature.column].iloc[row]
              for feature in results.features}
    return draw_ecg(
        ecg.signal, ecg.fs, results.run["leads"], ecg.r_peaks,
        title=f"Label {label}, predicted {predicted}",
        text=write_probabilities(names, results.probabilities[row]),
        note=origin.note(results.run),
        measured=short(f"{write_measured(values)}, record {printable(record)}", 100))


@styled()
def write_pages(results: Results, rows: Sequence[int], path: Path) -> Path:
    """Write the ECGs of these test records into one PDF; `UserError` if it cannot be written."""
    def write(scratch: Path) -> None:
        with PdfPages(scratch, metadata=NO_DATE) as pages:
            for row in rows:
                pages.savefig(draw_tested(results, row))

    write_whole(path, write)
    return path

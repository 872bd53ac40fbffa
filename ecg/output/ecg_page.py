"""Draw a 12-lead ECG as clinicians read it, and the test ECGs of a results folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ecg import origin
from ecg.errors import printable
from ecg.files import write_whole
from ecg.output.read import Results, feature_column
from ecg.output.style import BLUE, OPTIONS, ORANGE, drawable, short, styled, wrap

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
HEIGHT = ROW * len(LAYOUT)       # mm, of the paper
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


def _base(row):
    """Return the height on the page at which a row's leads have their medians."""
    return BOTTOM + (len(LAYOUT) - 0.5 - row) * ROW


def _as_frame(values, fs, leads):
    """Return 10 s of a signal by name of the lead, and by place on the page in mm."""
    values = np.asarray(values, dtype=float)[:round(SECONDS * fs)]
    x = LEFT + PULSE + SPEED * np.arange(len(values)) / fs
    names = [name.casefold() for name in leads]
    return pd.DataFrame(values, x, names).replace([np.inf, -np.inf], np.nan)


def _parts(fs):
    """Yield row, place in the row, and name of each lead that is drawn, and which of its samples.

    The last of these is where the next lead starts.
    """
    for row, names in enumerate(LAYOUT):
        samples = SECONDS * fs / len(names)
        for place, name in enumerate(names):
            end = round((place + 1) * samples)
            yield row, place, name, slice(round(place * samples), end + 1)


def _draw_paper(axes, gain):
    """Draw millimetre paper, each row with a calibration pulse of 1 mV and 0.2 s."""
    for step, width, colour in ((1, 0.25, "#F7CFCF"), (5, 0.6, "#EBA4A4")):
        x = LEFT + np.arange(0, WIDTH + 1, step)
        y = BOTTOM + np.arange(0, HEIGHT + 1, step)
        axes.vlines(x, y[0], y[-1], colour, linewidth=width, zorder=0)
        axes.hlines(y, x[0], x[-1], colour, linewidth=width, zorder=0)

    pulse_x = LEFT + np.array([3, 5, 5, 10, 10, 12])
    pulse_y = gain * np.array([0, 0, 1, 1, 0, 0])
    for row in range(len(LAYOUT)):
        axes.plot(pulse_x, _base(row) + pulse_y, color="black", lw=0.8, label="pulse")


def _draw_lead(axes, name, row, place, trace, colours):
    """Draw the part of a lead that has its place in this row, and the colours under it.

    `trace` holds heights in mm by place on the page; `colours` are -1 to 1, or None.
    """
    if trace.empty:
        return

    base = _base(row)
    x = trace.index.to_numpy()
    paper = Rectangle((LEFT, BOTTOM), WIDTH, HEIGHT, transform=axes.transData)
    axes.plot(
        x, base + trace,
        color="black", linewidth=0.7, label=name, clip_path=paper)
    box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.8}
    is_first = place == 0    # then above the pulse, where no trace and no triangle comes
    label_x = LEFT + 4 if is_first else x[0] + 1
    axes.text(
        label_x, base + 15.5, name,
        fontsize=10, weight="bold", zorder=1.5, bbox=box)
    if not is_first:    # where one lead ends and the next starts
        axes.vlines(x[0], base - 4, base + 4, color="0.4", linewidth=0.6)

    if colours is not None:
        axes.imshow(
            colours.to_numpy()[None], cmap=IMPORTANCE, vmin=-1, vmax=1, zorder=0.5,
            aspect="auto", interpolation="none", label=name,
            extent=(x[0], x[-1], base - 0.45 * ROW, base + 0.45 * ROW))


def _draw_r_peaks(axes, trace, r_peaks):
    """Mark R peaks (in samples) above the rhythm strip, the last row."""
    peaks = np.asarray(r_peaks, dtype=float)
    peaks = peaks[(peaks >= 0) & (peaks <= len(trace) - 1)]
    x = np.interp(peaks, np.arange(len(trace)), trace.index)
    nearest = np.rint(peaks).astype(int)
    heights = trace.fillna(0).to_numpy()[nearest]
    y = _base(len(LAYOUT) - 1) + heights.clip(0, 30) + 2
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


def _new_page():
    """Return a figure of A4 landscape and its axes, whose unit is the millimetre."""
    width, height = A4
    figure = Figure((width / 25.4, height / 25.4))
    axes = figure.add_axes(
        (0, 0, 1, 1), xlim=(0, width), ylim=(0, height), autoscale_on=False)
    axes.set_axis_off()
    return figure, axes


@styled()
def draw_ecg(
    signal: np.ndarray,
    fs: float,
    leads: Sequence[str],
    r_peaks: Sequence[float] = (),
    title: str = "",
    text: str = "",
    note: str = "",
    reasons: Reasons | None = None,
    measured: str = "",
) -> Figure:
    """Draw a 12-lead ECG on millimetre paper: 3 x 4 leads of 2.5 s and lead II for 10 s.

    The unit of its axes is the millimetre: printed at 100 % on A4 landscape, it has 25 mm/s and 10
    mm/mV, or 5 mm/mV where a trace would leave its row. Leads are drawn from their medians.

    Parameters
    ----------
    signal : array_like (samples, 12), in mV; NaN leaves a gap; of more than 10 s the first
    fs : float, its rate in Hz
    leads : sequence of str, names of its columns, in any order
    r_peaks : array_like, in samples; marked on the rhythm strip
    title, text, note, measured : str, above, below the title, at the foot, and between the first
    reasons : what coloured the paper under each lead, and the words below it

    Raises
    ------
    ValueError
        If signal and leads do not fit; `KeyError` if one of the 12 standard leads is missing.
    """
    millivolts = _as_frame(signal, fs, leads)
    millivolts -= millivolts.median()
    traces = {name: millivolts[name.casefold()] for row in LAYOUT for name in row}
    tallest = max(traces[name].iloc[part].abs().max() for _, _, name, part in _parts(fs))
    gain = GAIN / 2 if GAIN * tallest > ROW / 2 else GAIN
    importance = reasons and _as_frame(reasons.importance, fs, leads).fillna(0)
    figure, axes = _new_page()
    _draw_paper(axes, gain)
    for row, place, name, part in _parts(fs):
        colours = None if importance is None else importance[name.casefold()].iloc[part]
        _draw_lead(axes, name, row, place, gain * traces[name].iloc[part], colours)
    if len(r_peaks):
        _draw_r_peaks(axes, gain * traces["II"], r_peaks)
    if reasons is not None:
        _draw_colour_bar(figure, axes, reasons)

    _write_scale(axes, gain, note, with_peaks=len(r_peaks) > 0)
    axes.text(LEFT, 203, title, fontsize=12, weight="bold")
    axes.text(LEFT, 197.5, measured, fontsize=10)
    axes.text(LEFT + WIDTH, 197.5, f"{fs:g} Hz, unfiltered", fontsize=10, ha="right")
    axes.text(LEFT, 195.5, text, fontsize=10, va="top", linespacing=1.2)
    return figure


def _write_scale(axes, gain, note, with_peaks):
    """Write scale and note below the paper."""
    half = "HALF THE GAIN; " if gain < GAIN else ""
    scale = f"{SPEED} mm/s, {gain:g} mm/mV ({half}printed at 100 % on A4)"
    if with_peaks:
        scale += "; triangles: R peaks"

    # 130 letters fit, less what stands to the left of the first line, whose letters are narrower
    lines = wrap(note, 130, initial_indent=" " * round(0.82 * len(scale)))
    top = max(7, 4 * len(lines) - 3)    # mm: the last of three lines ends at the foot of the page
    axes.text(LEFT, top, scale)
    for number, line in enumerate(lines):
        axes.text(LEFT + WIDTH, top - 4 * number, line.strip(), ha="right", color="0.35")


def write_probabilities(names: Sequence[str], probabilities: Sequence[float]) -> str:
    """Return them in at most three lines, for which there is room.

    Names are cut off until all fit; what still does not fit is left out.
    """
    for most in range(95, 0, -5):
        entries = [f"{short(name, most)} {p:.2f}"
                   for name, p in zip(names, probabilities, strict=True)]
        unbroken = [entry.replace(" ", "\1") for entry in entries]    # no line ends within one
        lines = wrap("Probabilities: " + "   ".join(unbroken), 120)
        if len(lines) <= 3:
            break
    return "\n".join(lines[:3]).replace("\1", " ")


def write_measured(values: Mapping[str, float]) -> str:
    """Return heart rate and intervals, as far as they are measured: "Heart rate 97 bpm".

    Parameters
    ----------
    values : by name of a feature; NaN where it could not be measured
    """
    rate = values.get("heart rate", np.nan)
    words = [f"Heart rate {rate:.0f} bpm" if np.isfinite(rate) else "Heart rate not measurable"]
    words += [f"{interval} {values[name]:.0f} ms" for name, interval in INTERVALS.items()
              if np.isfinite(values.get(name, np.nan))]
    return ", ".join(words)


def draw_tested(results: Results, row: int) -> Figure:
    """Draw the ECG of a test record with its label, its predicted class and what was measured.

    Parameters
    ----------
    results : of its run
    row : which of the test records: an example or an error, whose ECG the run has kept
    """
    tested = results.table.iloc[row]
    names = drawable(results.classes)
    label = short(names[results.true[row]], 40)
    predicted = short(names[results.predicted[row]], 40)
    values = {name: tested[feature_column(name, unit)]
              for name, unit, _ in results.run["features"]}
    signal, fs, r_peaks = results.ecgs[row]
    return draw_ecg(
        signal, fs, results.run["leads"], r_peaks,
        title=f"Label {label}, predicted {predicted}",
        text=write_probabilities(names, results.probabilities[row]),
        note=origin.note(results.run, is_tested=True),
        measured=short(f"{write_measured(values)}, record {printable(tested['record'])}", 100))


@styled()
def write_pages(results: Results) -> Path:
    """Write figures/ecgs.pdf, examples and errors; `UserError` if it cannot be written."""
    def write(scratch: Path) -> None:
        with PdfPages(scratch, **OPTIONS["pdf"]) as pages:
            for row in results.ecgs:
                pages.savefig(draw_tested(results, row))

    path = results.folder / "figures/ecgs.pdf"
    write_whole(path, write)
    return path

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

from ecg import origin
from ecg.errors import printable
from ecg.files import write_whole
from ecg.output.read import Results, feature_column
from ecg.output.style import BLUE, OPTIONS, ORANGE, short, styled, wrap

# In mm, from the lower left corner of the paper
A4 = 297, 210
LEFT, BOTTOM = 16, 22            # corner of the paper on the page
SPEED, GAIN = 25, 10             # mm/s, mm/mV; half of that where a trace leaves its row
PULSE, WIDTH = 15, 265           # room for the calibration pulse, width of the paper with it
ROW = 40                         # height of a row
SECONDS = 10                     # length of a row
LAYOUT = [
    ["I", "aVR", "V1", "V4"],
    ["II", "aVL", "V2", "V5"],
    ["III", "aVF", "V3", "V6"],
    ["II"],    # the rhythm strip
]
HEIGHT = ROW * len(LAYOUT)       # of the paper

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
    """Return the height on the paper at which a row's leads have their medians."""
    return (len(LAYOUT) - 0.5 - row) * ROW


def _as_frame(values, fs, leads):
    """Return 10 s of a signal by name of the lead, and by place on the paper."""
    values = np.asarray(values, dtype=float)[:round(SECONDS * fs)]
    x = PULSE + SPEED * np.arange(len(values)) / fs
    return pd.DataFrame(values, x, leads)


def _parts(fs):
    """Yield row, name of each lead that is drawn there, and which of its samples.

    The last of these is where the next lead starts.
    """
    for row, names in enumerate(LAYOUT):
        samples = SECONDS * fs / len(names)
        for place, name in enumerate(names):
            yield row, name, slice(round(place * samples), round((place + 1) * samples) + 1)


def _new_page(gain):
    """Return a figure of A4 landscape and axes in mm: paper, with pulses of 1 mV and 0.2 s."""
    broad, high = A4
    figure = Figure((broad / 25.4, high / 25.4))
    axes = figure.add_axes(
        (LEFT / broad, BOTTOM / high, WIDTH / broad, HEIGHT / high),
        xlim=(0, WIDTH), ylim=(0, HEIGHT), autoscale_on=False)
    axes.set_axis_off()
    for step, width, colour in ((1, 0.25, "#F7CFCF"), (5, 0.6, "#EBA4A4")):
        x = np.arange(0, WIDTH + 1, step)
        y = np.arange(0, HEIGHT + 1, step)
        axes.vlines(x, 0, HEIGHT, colour, linewidth=width, zorder=0, clip_on=False)
        axes.hlines(y, 0, WIDTH, colour, linewidth=width, zorder=0, clip_on=False)

    for row in range(len(LAYOUT)):
        pulse = _base(row) + gain * np.array([0, 0, 1, 1, 0, 0])
        axes.plot([3, 5, 5, 10, 10, 12], pulse, color="black", linewidth=0.8, label="pulse")
    return figure, axes


def _draw_lead(axes, name, row, trace, colours):
    """Draw the part of a lead that is in this row, and the colours under it.

    `trace` holds heights in mm by place on the paper; `colours` are -1 to 1, or None.
    """
    base = _base(row)
    first, last = trace.index[[0, -1]]
    axes.plot(trace.index, base + trace, color="black", linewidth=0.7, label=name)
    label_x = first + 1
    if first == PULSE:
        label_x = 4    # above the pulse, where no trace and no triangle comes
    else:    # where one lead ends and the next starts
        axes.vlines(first, base - 4, base + 4, color="0.4", linewidth=0.6)
    axes.text(label_x, base + 15.5, name, fontsize=10, weight="bold")

    if colours is not None:
        axes.imshow(
            colours.to_numpy()[None], cmap=IMPORTANCE, vmin=-1, vmax=1, zorder=0.5,
            aspect="auto", interpolation="none", label=name,
            extent=(first, last, base - 0.45 * ROW, base + 0.45 * ROW))


def _draw_colour_bar(figure, axes, reasons):
    """Draw what the colours of the importance mean, below the paper."""
    bar = axes.inset_axes((0, -9, 40, 2.5), transform=axes.transData)
    colours = ScalarMappable(Normalize(-1, 1), IMPORTANCE)
    figure.colorbar(colours, bar, ticks=[], orientation="horizontal")
    change = f"{reasons.at_full_colour:.2g}"
    axes.text(
        42, -9, f"−{change} to +{change}: change of the class's probability by 0.1 s of a lead")
    axes.text(0, -4.4, short(reasons.words, 150))


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
    r_peaks : array_like, in samples; marked above the rhythm strip
    title, text, note, measured : str, above, below the title, at the foot, and between the first
    reasons : what coloured the paper under each lead, and the words below it

    Raises
    ------
    ValueError
        If signal and leads do not fit; `KeyError` if one of the 12 standard leads is missing.
    """
    millivolts = _as_frame(signal, fs, leads)
    millivolts -= millivolts.median()
    tallest = max(millivolts[name].iloc[part].abs().max() for _, name, part in _parts(fs))
    gain = GAIN / 2 if GAIN * tallest > ROW / 2 else GAIN
    importance = reasons and _as_frame(reasons.importance, fs, leads).fillna(0)

    figure, axes = _new_page(gain)
    for row, name, part in _parts(fs):
        colours = None if importance is None else importance[name].iloc[part]
        _draw_lead(axes, name, row, gain * millivolts[name].iloc[part], colours)
    if reasons is not None:
        _draw_colour_bar(figure, axes, reasons)

    if len(r_peaks):
        x = PULSE + SPEED * np.asarray(r_peaks) / fs
        axes.plot(x, np.full_like(x, ROW - 2.5), "v", color=BLUE, markersize=5, label="R peaks")
    _write_foot(axes, gain, note)

    axes.text(0, HEIGHT + 21, title, fontsize=12, weight="bold")
    axes.text(0, HEIGHT + 15.5, measured, fontsize=10)
    axes.text(WIDTH, HEIGHT + 15.5, f"{fs:g} Hz, unfiltered", fontsize=10, ha="right")
    axes.text(0, HEIGHT + 13.5, text, fontsize=10, va="top", linespacing=1.2)
    return figure


def _write_foot(axes, gain, note):
    """Write scale and note below the paper."""
    half = "HALF THE GAIN; " if gain < GAIN else ""
    scale = f"{SPEED} mm/s, {gain:g} mm/mV ({half}printed at 100 % on A4); triangles: R peaks"
    # 130 letters fit, less what stands to the left of the first line, whose letters are narrower
    lines = wrap(note, 130, initial_indent=" " * round(0.82 * len(scale)))
    top = max(7, 4 * len(lines) - 3) - BOTTOM    # the last of three lines ends the page
    axes.text(0, top, scale)
    for number, line in enumerate(lines):
        axes.text(WIDTH, top - 4 * number, line.strip(), ha="right", color="0.35")


def write_probabilities(names: Sequence[str], probabilities: Sequence[float]) -> str:
    """Return them in at most three lines, for which there is room; the rest is left out."""
    entries = [f"{short(name, 40)} {p:.2f}".replace(" ", "\xa0")    # no line ends within one
               for name, p in zip(names, probabilities, strict=True)]
    return "\n".join(wrap(f"Probabilities: {'   '.join(entries)}", 120)[:3])


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
    label, predicted = (short(tested[name], 40) for name in ("true", "predicted"))
    values = {name: tested[feature_column(name, unit)]
              for name, unit, _ in results.run["features"]}
    signal, fs, r_peaks = results.ecgs[row]
    return draw_ecg(
        signal, fs, results.run["leads"], r_peaks,
        title=f"Label {label}, predicted {predicted}",
        text=write_probabilities(results.classes, results.probabilities[row]),
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

"""Read WFDB records: a header that is checked before it is believed, leads in mV without gaps.

In this order: `read_header`, `select_samples`, `read_leads` and `keep_usable_leads`. Each raises
`RecordError` with the reason why a record cannot be used.

The header is read here alone. Samples of format 16 are read five times as fast as by wfdb, bit for
bit the same; wfdb reads the others, from a header that holds what ours was understood to say.
"""

import math
import os
import re
import tempfile
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import wfdb
from scipy.ndimage import binary_opening

from ecg.errors import RecordError, printable
from ecg.signals import MAX_FS, MIN_FS, as_leads, limb_leads_add_up

RECORD_SECONDS = 10         # of a longer record, the first, or those from a given start on
MIN_SECONDS = 9.5           # a shorter one would be stretched by more than 5 % when resampled
MIN_LEADS = 6               # of 12 must carry a signal
MIN_LEAD_RANGE_MV = 0.02    # a lead that moves less carries none
MAX_GAP_SHARE = 0.2         # of a lead may be missing and interpolated; beyond that it carries none
MAX_AMPLITUDE_MV = 1000.0   # no electrode gives more, so such a sample counts as missing
MAX_PEAK_MV = 30.0          # from a lead's median; peaks of 10 s beyond it are no heart's
MAX_PEAK_SHARE = 0.01       # of a lead may be beyond it: a few bad samples, not a wrong gain
UNUSUAL_PEAK_MV = 10.0      # a record with more is used, but is unusual
MIN_HELD_S = 0.5            # for which most leads hold their value at once: no signal was recorded

MILLIVOLTS = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "\N{GREEK SMALL LETTER MU}v": 1e-3, "nv": 1e-6}
MAX_HEADER_BYTES = 65_536   # far more than twelve leads need
NO_SAMPLE = -32768          # what format 16 keeps where there is no sample
SAMPLE_BITS = {"8": 8, "16": 16, "24": 24, "32": 32, "80": 8, "212": 12, "310": 32 / 3,
               "311": 32 / 3}
STRANGE_FILES = {
    b"version https://git-lfs": "a Git LFS pointer (run git lfs pull)",
    BOM_UTF16_LE: "UTF-16, not UTF-8",
    BOM_UTF16_BE: "UTF-16, not UTF-8"}

RECORD_LINE = re.compile(
    r"[\w.-]+(/[0-9]+)?[ \t]+"            # name, number of segments if there are several
    r"([1-9][0-9]?)[ \t]+"                # number of signals
    r"([0-9]{1,5}(?:\.[0-9]+)?(?:e[0-9])?)(?![\w.])\S*"      # sampling rate, Hz
    r"(?:[ \t]*$|[ \t]+(?:([0-9]{1,12})(?!\S)|\S*[:/-]))")    # samples, or a time or date alone

SIGNAL_LINE = re.compile(
    r"(?P<file>\w[\w.-]{0,99})[ \t]+"      # no folder
    r"(?P<fmt>[0-9]{1,3})(?:x(?P<per_frame>[0-9]{1,9}))?"
    r"(?::(?P<skew>[0-9]{1,4}))?(?:\+(?P<offset>[0-9]{1,6}))?[ \t]+"
    r"(?!-?[0.]+(?:e\S*)?[(/ \t])"          # a gain that is not 0, which wfdb would take for 200
    r"(?P<gain>-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?)"
    r"(?:\((?P<baseline>-?[0-9]+)\))?(?:/(?P<unit>\S+))?(?!\S)"
    r"(?P<numbers>(?:[ \t]+-?[0-9]+(?!\S)"              # resolution
    r"(?:[ \t]+(?P<zero>-?[0-9]+)(?!\S)"
    r"(?:[ \t]+-?[0-9]+(?!\S)"                         # first sample
    r"(?:[ \t]+(?P<checksum>-?[0-9]+)(?!\S)"
    r"(?:[ \t]+-?[0-9]+(?!\S))?)?)?)?)?)"              # block size
    r"(?:[ \t]+(?P<lead>\S[^\t]*))?")


class Header(NamedTuple):
    """What a checked header says."""

    fs: float                   # sampling rate, Hz
    samples: int
    signals: list[re.Match]     # of `SIGNAL_LINE`

    @property
    def skews(self) -> list[int]:
        """Samples by which each signal lags behind in the file."""
        return [int(signal["skew"] or 0) for signal in self.signals]


def _check_file(file, root):
    """Refuse a file that is missing, no plain file, or reached by a link out of `root`."""
    if not os.path.isfile(file):
        raise RecordError(f"file is missing: {os.path.basename(file)}")
    real = os.path.realpath(file) if os.path.islink(file) else file    # the other is slow
    if os.path.commonpath([root, real]) != root:
        raise RecordError(f"link out of the data folder: {os.path.basename(file)}")


def _refuse_strange(content):
    """Name what a file is that begins as no record's does."""
    for start, name in STRANGE_FILES.items():
        if content.startswith(start):
            raise RecordError(f"file is damaged: {name}")


def _read_lines(file):
    """Return the lines of a header, without comments; `RecordError` if it is too long.

    They are UTF-8 or Latin-1: without its micro sign, the unit µV would be V.
    """
    with open(file, "rb") as stream:
        content = stream.read(MAX_HEADER_BYTES + 1)
    if len(content) > MAX_HEADER_BYTES:
        raise RecordError("header is damaged: too long")
    _refuse_strange(content)
    lines = [line.strip() for line in content.removeprefix(BOM_UTF8).splitlines()]
    text = b"\n".join(line for line in lines if line and not line.startswith(b"#"))
    try:
        return text.decode().split("\n")
    except UnicodeDecodeError:
        return text.decode("latin-1").split("\n")


def read_header(path: str, data_dir: str) -> Header:
    """Read the header of a record and check it before anything that it names is opened.

    Parameters
    ----------
    path : str
        Of the record, without extension.
    data_dir : str
        Folder outside of which nothing is read.

    Raises
    ------
    RecordError
        The header is damaged or of a kind that is not supported, or names files that are missing
        or outside of `data_dir`.
    """
    if "://" in path:    # no file is meant
        raise RecordError("path looks like a URL")
    root = os.path.realpath(data_dir)
    folder, name = os.path.split(path)
    folder = os.path.realpath(folder)
    _check_file(f"{folder}/{name}.hea", root)
    lines = _read_lines(f"{folder}/{name}.hea")
    record = RECORD_LINE.match(lines[0])
    if record is None:
        why = "a folder in the record's name" if "/" in lines[0].partition(" ")[0] else "first line"
        raise RecordError(f"header is damaged: {why}")
    if record[1]:
        raise RecordError(f"several segments are not supported: {record[1][1:]:.9}")

    signals: list[Any] = [SIGNAL_LINE.match(line) for line in lines[1:]]
    if len(signals) != int(record[2]):
        raise RecordError(f"header is damaged: {len(signals)} signal lines, not {record[2]} "
                          "(comments begin with #)")
    if None in signals:
        raise RecordError(f"header is damaged: line of signal {signals.index(None) + 1}")
    per_frame = {signal["per_frame"] for signal in signals} - {None, "1"}
    if per_frame:
        raise RecordError(f"several samples per frame are not supported: x{max(per_frame)}")

    for file in dict.fromkeys(signal["file"] for signal in signals):
        _check_file(f"{folder}/{file}", root)
    samples = int(record[4]) if record[4] else _infer_samples(folder, signals)
    return Header(float(record[3]), samples, signals)


def _infer_samples(folder, signals):
    """Return the samples of each signal where the header names none: the file's size tells."""
    first = signals[0]
    if first["fmt"] not in SAMPLE_BITS:
        raise RecordError(f"length is not given: needed for format {first['fmt']}")
    size = os.path.getsize(os.path.join(folder, first["file"])) - int(first["offset"] or 0)
    n = sum(signal["file"] == first["file"] for signal in signals)
    return int(size * 8 / SAMPLE_BITS[first["fmt"]] / n)


def select_samples(header: Header, start: float) -> tuple[int, int]:
    """Return the first sample and the number of samples of the ten seconds from `start` (s) on."""
    fs = header.fs
    if not MIN_FS <= fs <= MAX_FS:
        raise RecordError(f"sampling rate not supported: {fs:.9g} Hz, not {MIN_FS} to {MAX_FS}")
    first = round(start * fs)
    left = header.samples - first
    if left < MIN_SECONDS * fs:
        raise RecordError(
            f"too short: {max(left, 0) / fs:.9g} s, not {MIN_SECONDS} or more")
    return first, min(left, int(RECORD_SECONDS * fs))


def _find_leads(header, leads):
    """Return the places of these leads among a record's signals, and their factors to mV."""
    there = [(signal["lead"] or "").strip() for signal in header.signals]
    names = [name.casefold() for name in there]
    odd = [lead for lead in leads if names.count(lead.casefold()) != 1]
    if odd:
        raise RecordError(printable(
            f"lead missing or doubled: {' '.join(odd)}; there are {' '.join(there)}", 110))

    places = [names.index(lead.casefold()) for lead in leads]
    factors = []
    for place in places:
        unit = header.signals[place]["unit"] or "mV"    # WFDB's own default
        if unit.casefold() not in MILLIVOLTS:    # there, the micro sign is a Greek mu
            raise RecordError(f"unit is not a voltage: {unit!r:.20}")
        factors.append(MILLIVOLTS[unit.casefold()])
    return places, np.array(factors)


def _read_plain(folder, header, places, start, end):
    """Read digital samples (samples, signals) of format 16 in one file, else None.

    The signals at `places` are returned in units of their gains as well.
    """
    (name, fmt, offset), *others = {
        signal.group("file", "fmt", "offset") for signal in header.signals}
    if others or fmt != "16":
        return None

    shape = end - start, len(header.signals)
    file = os.path.join(folder, name)
    digital = np.fromfile(file, "<i2", shape[0] * shape[1],
                          offset=int(offset or 0) + 2 * start * shape[1])
    if len(digital) < shape[0] * shape[1]:
        with open(file, "rb") as stream:
            _refuse_strange(stream.read(99))
        raise RecordError(f"file is cut short: {name}")

    digital = digital.reshape(shape)
    chosen = digital.T[places]
    chosen_signals = [header.signals[place] for place in places]
    baselines = [float(signal["baseline"] or signal["zero"] or 0) for signal in chosen_signals]
    gains = [float(signal["gain"]) for signal in chosen_signals]
    signal = chosen - np.array(baselines)[:, None]
    signal /= np.array(gains)[:, None]
    if chosen.min() == NO_SAMPLE:
        signal[chosen == NO_SAMPLE] = np.nan
    return digital, signal.T


def _read_any(folder, header, places, start, end):
    """Do so for any form, by wfdb, which is given the header as ours was understood."""
    if start and "8" in {signal["fmt"] for signal in header.signals}:    # they are differences
        raise RecordError("format 8 is not supported after the start of a record")
    names = list(dict.fromkeys(signal["file"] for signal in header.signals))
    with tempfile.TemporaryDirectory(prefix="ecg-") as place:
        for number, name in enumerate(names):
            os.symlink(os.path.abspath(os.path.join(folder, name)), f"{place}/{number}.dat")
        lines = [f"x {len(header.signals)} {header.fs:.9f} {header.samples}"]
        for signal in header.signals:
            lines.append(f"{names.index(signal['file'])}.dat {signal['fmt']}"
                         f"+{signal['offset'] or 0} {signal['gain']}"
                         f"({signal['baseline'] or signal['zero'] or 0})/mV{signal['numbers']}")
        Path(place, "x.hea").write_text("\n".join(lines) + "\n")
        record = wfdb.rdrecord(f"{place}/x", start, end, physical=False)
    return record.d_signal, record.dac()[:, places]


def _without_skew(signal, skews, samples):
    """Move each signal to its own start; NaN where the file ends before it does."""
    padded = np.full((samples + max(skews), len(skews)), np.nan, order="F")
    padded[:len(signal)] = signal
    return padded[np.arange(samples)[:, None] + skews, np.arange(len(skews))]


def read_leads(
    path: str,
    header: Header,
    leads: Sequence[str],
    first: int,
    samples: int,
) -> np.ndarray:
    """Read some samples of the leads of a record.

    Parameters
    ----------
    path : str
        Of the record, without extension.
    header : Header
        Of this record, from `read_header`.
    leads : sequence of str
    first, samples : int
        From `select_samples`.

    Returns
    -------
    ndarray of float64, shape (samples, leads)
        In mV; NaN where there is no sample.

    Raises
    ------
    RecordError
        The files are damaged, or leads are missing or not in volts.
    """
    places, factors = _find_leads(header, leads)
    try:
        end = min(first + samples + max(header.skews), header.samples)
        span = os.path.dirname(path), header, places, first, end
        digital, signal = _read_plain(*span) or _read_any(*span)
    except RecordError:
        raise
    except Exception as error:    # wfdb raises whatever the damage leads to
        raise RecordError(f"cannot be read: {error!r:.99}") from error

    # Checksums are those of the whole record, or all 0 if the writer computed none
    expected = np.array([int(signal["checksum"] or 0) for signal in header.signals]) % 65_536
    if samples == header.samples and expected.any():
        is_wrong = np.einsum("ij->j", digital).astype(np.uint16) != expected
        wrong = [lead for lead, place in zip(leads, places, strict=True) if is_wrong[place]]
        if wrong:
            raise RecordError(f"wrong checksum: {' '.join(wrong)}")

    if any(header.skews):
        signal = _without_skew(signal, np.array(header.skews)[places], samples)
    if (factors != 1).any():
        signal = signal * factors
    return signal


def _refuse_wrong_gain(signal, leads):
    """Raise `RecordError` if leads of a signal (samples, leads), mV, peak higher than any heart."""
    table = pd.DataFrame(signal, columns=list(leads))
    distances = (table - table.median()).abs()
    peaks = distances.quantile(1 - MAX_PEAK_SHARE, interpolation="lower")
    wrong = peaks.index[peaks > MAX_PEAK_MV]
    if len(wrong):
        raise RecordError(f"gain or unit?: peaks of {peaks.max():.4g} mV in lead(s) "
                          f"{' '.join(wrong)}")


def _find_held(signal, fs):
    """Return where most of the leads that move at all hold one value at once, (samples, leads)."""
    far = signal[::max(1, int(MIN_HELD_S * fs / 2))]
    n_equal = (np.diff(far, axis=0) == 0).sum(axis=1)
    if n_equal.max(initial=0) <= signal.shape[1] / 2:    # nearly always
        return False
    is_held = np.diff(signal, axis=0, prepend=signal[:1]) == 0
    moving = is_held[:, ~is_held.all(axis=0)]
    shortest = np.ones(math.ceil(MIN_HELD_S * fs))
    is_gap = binary_opening(moving.sum(axis=1) > moving.shape[1] / 2, shortest)
    return is_gap[:, None] & is_held


def keep_usable_leads(
    signal: np.ndarray,
    fs: float,
    leads: Sequence[str],
) -> tuple[np.ndarray, str, np.ndarray]:
    """Interpolate gaps in a signal (samples, leads) in mV, and set leads without signal to zero.

    Its first leads are I, II, III and aVR. Where most leads stay constant at once, nothing was
    recorded: that is a gap, too.

    Returns
    -------
    signal : ndarray of float64, shape (samples, leads)
    remark : what is unusual about it, or ""
    is_missing : ndarray of bool, shape (samples, leads), where it was interpolated

    Raises
    ------
    RecordError
        Peaks are no heart's, or fewer than `MIN_LEADS` carry a signal.
    """
    size = np.abs(signal)
    largest = np.fmax.reduce(size, axis=None)    # without NaN
    if largest > MAX_PEAK_MV / 2:    # nearly never; from the median, it is at most twice that
        _refuse_wrong_gain(signal, leads)
    is_missing = ~(size <= MAX_AMPLITUDE_MV) | _find_held(signal, fs)
    has_gaps = is_missing.any()
    if has_gaps:
        signal = as_leads(np.where(is_missing, np.nan, signal))
    extent = np.ptp(signal, axis=0)
    moves = extent >= MIN_LEAD_RANGE_MV
    is_usable = moves & (is_missing.mean(axis=0) <= MAX_GAP_SHARE) if has_gaps else moves
    if is_usable.sum() < MIN_LEADS:
        is_tiny = (extent > 0) & ~moves
        hint = "; gain or unit?" if is_tiny.sum() > len(is_tiny) / 2 else ""
        raise RecordError(
            f"too little signal: in {is_usable.sum()} leads, not {MIN_LEADS} or more{hint}")

    unusual = {
        "gaps": has_gaps,
        "flat lead": not moves.all(),
        f"beyond {UNUSUAL_PEAK_MV:g} mV": largest > UNUSUAL_PEAK_MV,
        "limb leads do not add up": is_usable[:4].all() and not limb_leads_add_up(signal)}
    remark = "; ".join(name for name, is_so in unusual.items() if is_so)
    if not is_usable.all():
        signal = np.where(is_usable, signal, 0.0)
    return signal, remark, is_missing

"""Read WFDB records: a header that is checked before it is believed, leads in mV without gaps.

In this order: `read_header`, `select_samples`, `read_leads`, `refuse_wrong_gain` and
`keep_usable_leads`. Each raises `RecordError` with the reason why a record cannot be used.

wfdb would trust a header's sizes and file names. Records of the usual form (format 16, all fields
given) are read five times as fast as by wfdb, bit for bit the same; all others by wfdb.
"""

import os
import re
from codecs import BOM_UTF8
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import wfdb

from ecg.errors import RecordError
from ecg.signals import as_leads

RECORD_SECONDS = 10         # of a longer record, the first, or those from a given start on
MIN_SECONDS = 9.5           # a shorter one would be stretched by more than 5 % when resampled
MIN_FS, MAX_FS = 50, 4000   # Hz; the QRS band reaches to 20 Hz
MIN_LEADS = 6               # of 12 must carry a signal
MIN_LEAD_RANGE_MV = 0.02    # a lead that moves less carries none
MAX_GAP_SHARE = 0.2         # of a lead may be missing and interpolated; beyond that it carries none
MAX_AMPLITUDE_MV = 1000.0   # no electrode gives more, so such a sample counts as missing
MAX_PEAK_MV = 30.0          # from a lead's median; peaks of 10 s beyond it are no heart's
MAX_PEAK_SHARE = 0.01       # of a lead may be beyond it: a few bad samples, not a wrong gain
UNUSUAL_PEAK_MV = 10.0      # a record with more is used, but is unusual

MILLIVOLTS = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "\N{GREEK SMALL LETTER MU}v": 1e-3, "nv": 1e-6}
MAX_HEADER_BYTES = 65_536   # far more than twelve leads need
NO_SAMPLE = -32768          # what format 16 keeps where there is no sample
LINE_ENDS = re.compile(rb"[\n\r\v\f\x1c-\x1e]+")    # as wfdb splits what it has read as ASCII

RECORD_LINE = re.compile(
    r"[\w.-]+(/\d+)?[ \t]+"                # name, number of segments if there are several
    r"([1-9]\d?)[ \t]+"                    # number of signals
    r"(\d{1,5}(?:\.\d+)?)\S*[ \t]+"       # sampling rate, Hz
    r"(\d{1,12})(?!\S)",                   # samples
    re.ASCII)

SIGNAL_LINE = re.compile(
    r"(\w[\w.-]{0,99})[ \t]+"             # file name: no folder
    r"\d{1,3}(?:x(\d{1,9}))?"             # format, samples per frame
    r"(?::(\d{1,4}))?(?:\+\d{1,6})?[ \t]+"      # skew, offset in bytes
    r"(?!-?[0.]+(?:e\S*)?[(/ \t])"        # a gain that is not 0, which wfdb would take for 200
    r"-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"         # gain
    r"(?:\(-?\d+\))?(?:/(\S+))?(?!\S)"     # baseline, unit
    r"(?:[ \t]+-?\d+(?!\S)){0,5}"         # resolution, zero, first, checksum, block size
    r"(?:[ \t]+(\S[^\t]*))?",             # lead
    re.ASCII)

# All fields given, format 16: file name, gain, baseline, checksum
PLAIN_LINE = re.compile(
    r"(\S+)[ \t]+16[ \t]+(\d+\.?\d*)\((-?\d{1,9})\)/\S+"
    r"[ \t]+\d+[ \t]+-?\d+[ \t]+-?\d+[ \t]+(-?\d{1,9})[ \t]+0[ \t]+\S[^\t]*",
    re.ASCII)


class Header(NamedTuple):
    """What a checked header says."""

    fs: float                # sampling rate, Hz
    samples: int
    lines: list[str]         # one of each signal
    names: list[str]         # of the signals
    units: list[str]
    skews: list[int]         # samples by which a signal lags behind in the file


def _check_file(file, root):
    """Refuse a file that is missing, no plain file, or reached by a link out of `root`."""
    if not os.path.isfile(file):
        raise RecordError(f"file is missing: {os.path.basename(file)}")
    if os.path.commonpath([root, os.path.realpath(file)]) != root:
        raise RecordError(f"link out of the data folder: {os.path.basename(file)}")


def _read_lines(file):
    """Return the lines of a header, without comments; `RecordError` if it is too long.

    They are UTF-8 or Latin-1: without its micro sign, the unit µV would be V.
    """
    with open(file, "rb") as stream:
        content = stream.read(MAX_HEADER_BYTES + 1)
    if len(content) > MAX_HEADER_BYTES:
        raise RecordError("header is damaged")

    lines = []
    for raw in LINE_ENDS.split(content.removeprefix(BOM_UTF8)):
        try:
            line = raw.decode().strip()
        except UnicodeDecodeError:
            line = raw.decode("latin-1").strip()
        if line and line[0] != "#":
            lines.append(line)
    return lines


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
    if "://" in path:    # wfdb would open the network, even where a folder of that name exists
        raise RecordError("path looks like a URL")
    root = os.path.realpath(data_dir)
    _check_file(f"{path}.hea", root)
    lines = _read_lines(f"{path}.hea") or [""]
    record = RECORD_LINE.match(lines[0])
    if record and record[1]:
        raise RecordError(f"several segments are not supported: {record[1][1:]:.9}")

    matches = [SIGNAL_LINE.match(line) for line in lines[1:]]
    signals = [match for match in matches if match]
    if record is None or not len(matches) == len(signals) == int(record[2]):
        raise RecordError("header is damaged")
    per_frame = {match[2] for match in signals} - {None, "1"}
    if per_frame:
        raise RecordError(f"several samples per frame are not supported: x{max(per_frame)}")

    if "::" in os.path.abspath(path):    # wfdb's file layer would take it for a chain of URLs
        raise RecordError("path holds '::'")
    for name in dict.fromkeys(match[1] for match in signals):
        _check_file(os.path.join(os.path.dirname(path), name), root)

    return Header(
        float(record[3]),
        int(record[4]),
        lines[1:],
        [match[5] or "" for match in signals],
        [match[4] or "mV" for match in signals],    # mV is what WFDB means where it says none
        [int(match[3] or 0) for match in signals])


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
    names = [name.strip().casefold() for name in header.names]
    odd = [lead for lead in leads if names.count(lead.casefold()) != 1]
    if odd:
        raise RecordError(f"lead missing or doubled: {' '.join(odd)}")

    places = [names.index(lead.casefold()) for lead in leads]
    units = [header.units[place] for place in places]
    for unit in units:
        if unit.casefold() not in MILLIVOLTS:
            raise RecordError(f"unit is not a voltage: {unit!r:.20}")
    return places, [MILLIVOLTS[unit.casefold()] for unit in units]    # micro sign: a Greek mu


def _read_plain(path, header, start, end):
    """Read digital and physical samples (samples, signals), and the header's checksums.

    None if the record is not of the usual form.
    """
    matches = [PLAIN_LINE.fullmatch(line) for line in header.lines]
    fields = [match.groups() for match in matches if match]
    if len(fields) < len(matches) or len({name for name, *_ in fields}) > 1:
        return None

    names, gains, baselines, checksums = zip(*fields, strict=True)
    file = os.path.join(os.path.dirname(path), names[0])
    shape = end - start, len(names)
    digital = np.fromfile(file, "<i2", shape[0] * shape[1], offset=2 * start * shape[1])
    if len(digital) < shape[0] * shape[1]:
        raise RecordError(f"file is cut short: {names[0]}")

    digital = digital.reshape(shape)
    signal = digital.T - np.array(baselines, float)[:, None]
    signal /= np.array(gains, float)[:, None]
    signal = signal.T
    is_lost = digital == NO_SAMPLE
    if is_lost.any():
        signal[is_lost] = np.nan
    return digital, signal, checksums


def _read_any(path, start, end):
    """Do so for a record of any form, by wfdb."""
    record = wfdb.rdrecord(path, start, end, physical=False, ignore_skew=True)
    if start and "8" in record.fmt:    # it holds differences, which add up from the start
        raise RecordError("format 8 is not supported after the start of a record")
    return record.d_signal, record.dac(), record.checksum


def _without_skew(signal, skews, samples):
    """Move each signal to its own start; NaN where the file ends before it does."""
    padded = np.full((samples + max(skews), len(skews)), np.nan)
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
    end = min(first + samples + max(header.skews), header.samples)
    try:
        digital, signal, checksums = (
            _read_plain(path, header, first, end) or _read_any(path, first, end))
    except RecordError:
        raise
    except Exception as error:    # wfdb raises whatever the damage leads to
        raise RecordError(f"cannot be read: {error!r:.99}") from error

    # Checksums are those of the whole record, or all 0 if the writer computed none
    expected = np.array([int(x or 0) % 65_536 for x in checksums])
    if samples == header.samples and expected.any():
        is_wrong = np.einsum("ij->j", digital).astype(np.uint16) != expected
        wrong = [lead for lead, place in zip(leads, places, strict=True) if is_wrong[place]]
        if wrong:
            raise RecordError(f"wrong checksum: {' '.join(wrong)}")

    if any(header.skews):
        signal = _without_skew(signal, header.skews, samples)
    return signal.T[places].T * factors


def refuse_wrong_gain(signal: np.ndarray, leads: Sequence[str]) -> None:
    """Raise `RecordError` if leads of a signal (samples, leads) in mV have peaks of no heart."""
    largest = np.fmax.reduce(np.abs(signal), axis=None)    # without NaN
    if largest <= MAX_PEAK_MV / 2:    # nearly always; from the median, it is at most twice that
        return

    table = pd.DataFrame(signal, columns=list(leads))
    distances = (table - table.median()).abs()
    peaks = distances.quantile(1 - MAX_PEAK_SHARE, interpolation="lower")
    wrong = peaks.index[peaks > MAX_PEAK_MV]
    if len(wrong):
        raise RecordError(f"gain or unit?: peaks of {peaks.max():.4g} mV in lead(s) "
                          f"{' '.join(wrong)}")


def keep_usable_leads(signal: np.ndarray) -> tuple[np.ndarray, str, np.ndarray]:
    """Interpolate gaps in a signal (samples, 12) in mV, and set leads without signal to zero.

    Returns
    -------
    leads : ndarray of float64, shape (samples, 12)
    remark : what is unusual about them, or ""
    is_missing : ndarray of bool, shape (samples, 12), where they were interpolated

    Raises
    ------
    RecordError
        Fewer than `MIN_LEADS` carry a signal.
    """
    size = np.abs(signal)
    is_valid = size <= MAX_AMPLITUDE_MV
    if not is_valid.all():
        signal = np.where(is_valid, signal, np.nan)
    leads = as_leads(signal)
    moves = np.ptp(leads, axis=0) >= MIN_LEAD_RANGE_MV
    is_usable = moves & (is_valid.mean(axis=0) >= 1 - MAX_GAP_SHARE)
    if is_usable.sum() < MIN_LEADS:
        raise RecordError(f"too little signal: in {is_usable.sum()} leads, not {MIN_LEADS} or more")

    unusual = {
        "gaps": not is_valid.all(),
        "flat lead": not moves.all(),
        f"beyond {UNUSUAL_PEAK_MV:g} mV": (size > UNUSUAL_PEAK_MV).any()}
    remark = "; ".join(name for name, is_so in unusual.items() if is_so)
    if not is_usable.all():
        leads = np.where(is_usable, leads, 0.0)
    return leads, remark, ~is_valid

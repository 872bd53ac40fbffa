"""Read WFDB records: a header that is checked before it is believed, and samples in millivolts.

wfdb would trust a header's sizes and file names. Records of the usual form (format 16, all fields
given) are read five times as fast as by wfdb, bit for bit the same; all others by wfdb.
"""

import os
import re
from codecs import BOM_UTF8
from typing import Any, NamedTuple

import numpy as np
import wfdb

from ecg.errors import RecordError

MOST_HEADER = 65_536        # bytes; far more than twelve leads need
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


class Recording(NamedTuple):
    """The signals of a record."""

    signal: np.ndarray       # float (samples, signals) in the header's units; NaN: no sample
    checksums: np.ndarray    # uint16 (signals,), computed from what was read
    expected: np.ndarray     # int (signals,), as the header gives them


class PlainRecord(NamedTuple):
    """A record of the usual form, under the names that `wfdb.Record` has for its parts."""

    d_signal: np.ndarray     # int16 (samples, signals)
    adc_gain: tuple
    baseline: tuple
    checksum: tuple

    def dac(self) -> np.ndarray:
        """Return the signals in physical units, NaN where there is no sample."""
        signal = self.d_signal.T - np.array(self.baseline, float)[:, None]
        signal /= np.array(self.adc_gain, float)[:, None]
        lost = self.d_signal == NO_SAMPLE
        if lost.any():
            signal.T[lost] = np.nan
        return signal.T


def check_file(file: str, root: str) -> None:
    """Refuse a file that is missing, no plain file, or reached by a link out of `root`."""
    if not os.path.isfile(file):
        raise RecordError(f"file is missing: {os.path.basename(file)}")
    if os.path.commonpath([root, os.path.realpath(file)]) != root:
        raise RecordError(f"link out of the data folder: {os.path.basename(file)}")


def read_lines(file: str) -> list[str]:
    """Return the lines of a header, without comments; `RecordError` if it is too long.

    They are UTF-8 or Latin-1: without its micro sign, the unit µV would be V.
    """
    with open(file, "rb") as stream:
        content = stream.read(MOST_HEADER + 1)
    if len(content) > MOST_HEADER:
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
    check_file(f"{path}.hea", root)
    lines = read_lines(f"{path}.hea") or [""]
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
    for name in {match[1] for match in signals}:
        check_file(os.path.join(os.path.dirname(path), name), root)

    return Header(
        float(record[3]),
        int(record[4]),
        lines[1:],
        [match[5] or "" for match in signals],
        [match[4] or "mV" for match in signals],    # mV is what WFDB means where it says none
        [int(match[3] or 0) for match in signals])


def read_plain(path: str, lines: list[str], start: int, end: int) -> PlainRecord | None:
    """Read samples of a record of the usual form; None if it is of another."""
    plain = [PLAIN_LINE.fullmatch(line) for line in lines]
    matches = [match for match in plain if match]
    if len(matches) < len(plain) or len({match[1] for match in matches}) > 1:
        return None

    name = matches[0][1]
    file = os.path.join(os.path.dirname(path), name)
    shape = end - start, len(matches)
    digital = np.fromfile(file, "<i2", shape[0] * shape[1], offset=2 * start * shape[1])
    if len(digital) < shape[0] * shape[1]:
        raise RecordError(f"file is cut short: {name}")
    _, *fields = zip(*(match.groups() for match in matches), strict=True)
    return PlainRecord(digital.reshape(shape), *fields)


def without_skew(signal: np.ndarray, skews: list[int], samples: int) -> np.ndarray:
    """Move each signal to its own start; NaN where the file ends before it does."""
    moved = np.full((samples, len(skews)), np.nan)
    for column, skew in enumerate(skews):
        part = signal[skew:skew + samples, column]
        moved[:len(part), column] = part
    return moved


def read_signals(path: str, header: Header, samples: int, start: int = 0) -> Recording:
    """Read some samples of all signals of a record.

    Parameters
    ----------
    path : str
        Of the record, without extension.
    header : Header
        Of this record, from `read_header`.
    samples : int
    start : int
        Samples before the first that is read.

    Raises
    ------
    RecordError
        The files are damaged.
    """
    record: Any
    end = min(start + samples + max(header.skews), header.samples)
    try:
        record = read_plain(path, header.lines, start, end)
        if record is None:
            record = wfdb.rdrecord(path, start, end, physical=False, ignore_skew=True)
            if start and "8" in record.fmt:    # it holds differences, which add up from the start
                raise RecordError("format 8 is not supported after the start of a record")

        signal = record.dac()
        if any(header.skews):
            signal = without_skew(signal, header.skews, samples)
        return Recording(
            signal,
            np.einsum("ij->j", record.d_signal).astype(np.uint16),
            np.array([int(x or 0) % 65_536 for x in record.checksum]))
    except RecordError:
        raise
    except EOFError as error:
        raise RecordError(str(error)) from error
    except Exception as error:    # wfdb raises whatever the damage leads to
        raise RecordError(f"cannot be read: {error!r:.99}") from error

"""Read WFDB records: a header that is checked before it is believed, and samples in millivolts.

wfdb would trust a header's sizes and file names. Records of the usual form (format 16, all fields
given) are read five times as fast as by wfdb, bit for bit the same; all others by wfdb.
"""

import os
import re
from typing import Any, NamedTuple

import numpy as np
import wfdb

from ecg.errors import RecordError

MOST_HEADER = 65_536        # characters; far more than twelve leads need
NO_SAMPLE = -32768          # what format 16 keeps where there is no sample

RECORD_LINE = re.compile(
    r"[\w.-]+ +"                      # name
    r"([1-9]\d?) +"                   # number of signals
    r"(\d{1,5}(?:\.\d+)?)\S* +"       # sampling rate, Hz
    r"(\d{1,12})(?!\S)")              # samples

SIGNAL_LINE = re.compile(
    r"(\w[\w.-]{0,99}) +"                  # file name: no folder
    r"\d{1,3}(?:x1)?(?:\+\d{1,6})? +"      # format, one sample a frame, offset in bytes
    r"(?!-?[0.]+(?:e\S*)?[(/ ])")          # a gain that is not 0, which wfdb would take for 200

# All fields given, format 16: file name, gain, baseline, unit, checksum, lead
PLAIN_LINE = re.compile(
    r"(\S+) 16 (\d+\.?\d*)\((-?\d{1,9})\)/(\S+) \d+ -?\d+ -?\d+ (-?\d{1,9}) 0 (\S.*)")


class Header(NamedTuple):
    """What a checked header says."""

    fs: float                # sampling rate, Hz
    samples: int
    lines: list[str]         # one of each signal


class Recording(NamedTuple):
    """The signals of a record."""

    signal: np.ndarray       # float (samples, signals) in the units below; NaN: no sample
    names: list[str]
    units: list[str]
    checksums: np.ndarray    # uint16 (signals,), computed from what was read
    expected: np.ndarray     # int (signals,), as the header gives them


class PlainRecord(NamedTuple):
    """A record of the usual form, under the names that `wfdb.Record` has for its parts."""

    d_signal: np.ndarray     # int16 (samples, signals)
    adc_gain: tuple
    baseline: tuple
    units: tuple
    checksum: tuple
    sig_name: tuple

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
        The header is damaged, or names files that are missing or outside of `data_dir`.
    """
    root = os.path.realpath(data_dir)
    check_file(f"{path}.hea", root)
    with open(f"{path}.hea", encoding="ascii", errors="ignore") as file:
        text = file.read(MOST_HEADER + 1)

    lines = [line for line in text.splitlines() if line.strip() and line[0] != "#"] or [""]
    record = RECORD_LINE.match(lines[0])
    signals = [SIGNAL_LINE.match(line) for line in lines[1:]]
    names = {match[1] for match in signals if match}
    is_whole = len(text) <= MOST_HEADER and all(signals)
    if record is None or not is_whole or len(signals) != int(record[1]):
        raise RecordError("header is damaged")

    if "::" in os.path.abspath(path):    # wfdb's file layer would take it for a chain of URLs
        raise RecordError("path holds '::'")
    for name in names:
        check_file(os.path.join(os.path.dirname(path), name), root)
    return Header(float(record[2]), int(record[3]), lines[1:])


def read_plain(path: str, lines: list[str], samples: int) -> PlainRecord | None:
    """Read the first samples of a record of the usual form; None if it is of another."""
    plain = [PLAIN_LINE.fullmatch(line) for line in lines]
    matches = [match for match in plain if match]
    if len(matches) < len(plain) or len({match[1] for match in matches}) > 1:
        return None

    name = matches[0][1]
    file = os.path.join(os.path.dirname(path), name)
    digital = np.fromfile(file, "<i2", samples * len(matches))
    if len(digital) < samples * len(matches):
        raise RecordError(f"file is cut short: {name}")
    _, *fields = zip(*(match.groups() for match in matches), strict=True)
    return PlainRecord(digital.reshape(samples, len(matches)), *fields)


def read_signals(path: str, header: Header, samples: int) -> Recording:
    """Read the first samples of all signals of a record.

    Parameters
    ----------
    path : str
        Of the record, without extension.
    header : Header
        Of this record, from `read_header`.
    samples : int

    Raises
    ------
    RecordError
        The files are damaged.
    """
    record: Any
    try:
        record = read_plain(path, header.lines, samples)
        if record is None:
            record = wfdb.rdrecord(path, sampto=samples, physical=False)

        return Recording(
            record.dac(),
            [str(name) for name in record.sig_name],
            [str(unit) for unit in record.units],
            np.einsum("ij->j", record.d_signal).astype(np.uint16),
            np.array([int(x or 0) % 65_536 for x in record.checksum]))
    except RecordError:
        raise
    except EOFError as error:
        raise RecordError(str(error)) from error
    except Exception as error:    # wfdb raises whatever the damage leads to
        raise RecordError(f"cannot be read: {error!r:.99}") from error

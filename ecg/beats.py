"""Which peaks of a QRS envelope are beats: not T waves, and also those at very fast rates.

The rule that finds the peaks is in the script (Pan & Tompkins, IEEE TBME 1985;32:230-236).
"""

import numpy as np
from scipy.signal import find_peaks

LEAST_ENERGY = 0.5          # (mV/s)^2; what is less steep is no QRS complex
LEAST_SIZE = 1 / 8          # of the largest beat but one; smaller waves are P or T waves
REFRACTORY = 0.2            # s for which ventricles cannot beat again
T_WAVE_DELAY = 0.36         # s after a beat, within which its T wave comes
LATE_T_WAVE_DELAY = 0.5     # s; the same where the rate is slow
SLOW_INTERVAL = 1.2         # s without another beat: a rate of 50 bpm, where T waves are late
WEAK = 0.33                 # energy, over that of the usual peak, below which one may be noise,
NOISE_REACHES = 42          # if it is not so many times that of the quietest fiftieth of the lead
CUT = 0.1                   # s at a record's ends, where a peak may be a part of a beat
CLOSE_INTERVAL = 0.3        # s; at over 200 bpm, beats may come as soon as T waves do


def least_energy(energy: np.ndarray, fs: float) -> float:
    """Return the energy that a QRS complex has at least.

    It depends on the largest complex but one: the largest of all may be an artefact.
    """
    largest = energy.argmax()
    around = round(0.5 * fs)
    before = energy[:max(0, largest - around)]
    after = energy[largest + around:]
    second = max(before.max(initial=0), after.max(initial=0))
    return max(LEAST_ENERGY, second * LEAST_SIZE**2)


def drop_t_waves(
    peaks: np.ndarray,
    energy: np.ndarray,
    envelope: np.ndarray,
    fs: float,
) -> np.ndarray:
    """Leave out the T waves among peaks (int, samples) of the envelope."""
    after = np.diff(peaks) / fs
    # A T wave comes soon after a beat and is less than half as steep
    is_low = envelope[peaks[1:]] < envelope[peaks[:-1]] / 2**2
    is_t_wave = (after < T_WAVE_DELAY) & is_low

    # At a slow rate it may come later: then only what is less than a quarter as steep is one
    without = np.append(after[:-1] + after[1:], np.inf)    # s from its beat to the next peak
    is_slow = without[:len(after)] > SLOW_INTERVAL
    beat = energy[peaks[:-1]]
    if len(peaks) > 3:    # the largest may be an artefact
        beat = np.minimum(beat, np.sort(energy[peaks])[-2])
    is_lowest = energy[peaks[1:]] < beat / 4**2
    is_t_wave |= (after < LATE_T_WAVE_DELAY) & is_slow & is_lowest
    return np.delete(peaks, np.flatnonzero(is_t_wave) + 1)


def add_close_beats(peaks: np.ndarray, envelope: np.ndarray, fs: float) -> np.ndarray:
    """Add the beats that the rule's distance of 0.25 s left out, as it does near 240 bpm.

    They are half as high as usual, and farther than `REFRACTORY` from every peak. They count if a
    quarter of the intervals are then below `CLOSE_INTERVAL`; if a beat is missing nevertheless,
    the rate cannot be measured, and no peaks are returned.
    """
    height = 0.5 * np.median(envelope[peaks])
    refractory = round(REFRACTORY * fs)
    summits = find_peaks(envelope, height=height, distance=refractory)[0]
    distance = np.abs(summits[:, None] - peaks).min(axis=1)
    close = np.union1d(peaks, summits[distance >= refractory])
    if len(close) == len(peaks):
        return peaks

    rr = np.diff(close)
    short = np.quantile(rr, 0.25)
    if short > CLOSE_INTERVAL * fs:
        return peaks
    has_gap = rr.max() >= 1.5 * short
    return close[:0] if has_gap else close


def has_noise_peak(peaks: np.ndarray, energy: np.ndarray, fs: float) -> bool:
    """Tell whether a peak (int, samples) is weak and little above the noise of its lead.

    It may be noise: one more or fewer is another rate.
    """
    if not len(peaks):
        return False
    edge = CUT * fs
    is_inside = (peaks >= edge) & (peaks < len(energy) - edge)
    size = energy[peaks]
    most = min(WEAK * np.median(size), NOISE_REACHES * np.quantile(energy, 0.02))
    return bool((size[is_inside] < most).any())


def drop_nan(values: np.ndarray) -> np.ndarray:
    """Return the values (n,) that are numbers."""
    return values[~np.isnan(values)]

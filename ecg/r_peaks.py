"""Refine R peaks that were found on a QRS envelope: to the sample and below, in noise too.

Which peaks count is decided in the script; here each is moved to where it fits the median beat.
Peaks that are not like one another are noise, and an interval with a gap in it is none.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks

HALF_BEAT = 0.1             # s on either side of a beat's centre: its QRS complex
MOST_SHIFT = 0.06           # s by which a peak of the envelope is moved at most
NEAR = 0.07                 # s around a beat unlike the others, in which its own top is looked for
EDGE = 0.05                 # s at the record's ends, in which no R peak is whole
ALIKE = 0.7                 # correlation below which a beat is unlike the median beat
NADIR = 1.6                 # times the top: a beat's negative peak is its R peak
BEATS = 0.9                 # likeness of heart beats; white noise reaches 0.6, of the QRS band 0.83
SAME_SHAPE = 0.8            # correlation of a wave with the median beat, from which it is one more,
SAME_SIZE = 0.5             # and its size, over that of the median beat
REPEATED = 0.1, 0.2         # s from a beat, where ventricles are still recovering
MOST_REPEATED = 1 / 3       # of the beats may have such a wave so close
GAP = 0.08                  # s that may hide a QRS complex
GAP_EDGE = 0.1              # s; a beat so close to a gap may be the step at its end


@functools.lru_cache
def _band_response(low: float, high: float, fs: float, samples: int) -> np.ndarray:
    hertz = np.arange(samples) * fs / (2 * samples)
    width = np.maximum(hertz * (high - low), 1e-9)
    distance = (hertz**2 - low * high) / width
    return 1 / (1 + distance**4)


def band_pass(lead: np.ndarray, low: float, high: float, fs: float) -> np.ndarray:
    """Filter by a squared second-order Butterworth response (Hz), without phase shift."""
    response = _band_response(low, high, fs, len(lead))
    return fft.idct(fft.dct(lead) * response)


class Aligned(NamedTuple):
    """Beats moved to where they fit their median."""

    centres: np.ndarray        # int (n,), samples
    beat: np.ndarray           # (width,), the median beat
    correlation: np.ndarray    # (samples,), of the window around each with the median beat


class Beats:
    """A lead cut into windows, so that beats can be compared with one another.

    Parameters
    ----------
    lead : ndarray, shape (samples,), mV
    fs : float, Hz
    """

    def __init__(self, lead: np.ndarray, fs: float):
        self.half = round(HALF_BEAT * fs)
        self.width = 2 * self.half + 1
        smooth = band_pass(lead, 1, 40, fs)
        smooth -= np.median(smooth)
        self.smooth = smooth
        padded = np.pad(smooth, self.half)
        self.windows = sliding_window_view(padded, self.width)    # the i-th is centred on sample i

        square = uniform_filter1d(smooth**2, self.width, mode="constant")
        mean = uniform_filter1d(smooth, self.width, mode="constant")
        variance = np.maximum(square - mean**2, 0)
        self.deviation = np.sqrt(variance) + 1e-12

    def align(self, coarse: np.ndarray, fs: float) -> Aligned:
        """Move each peak by up to `MOST_SHIFT` to where it fits the median beat best."""
        reach = round(MOST_SHIFT * fs)
        reachable = coarse[:, None] + np.arange(-reach, reach + 1)
        reachable = np.clip(reachable, 0, len(self.smooth) - 1)
        rows = np.arange(len(coarse))
        centres = coarse
        for _ in range(2):    # the second median beat is sharper, being made of aligned beats
            beat = np.median(self.windows[centres], axis=0)
            correlation = self.correlate(beat)
            best = correlation[reachable].argmax(axis=1)
            centres = reachable[rows, best]
        return Aligned(centres, beat, correlation)

    def correlate(self, beat: np.ndarray) -> np.ndarray:
        """Return the correlation of each window with a beat (width,)."""
        pattern = beat - beat.mean()
        pattern = pattern / (beat.std() + 1e-12)
        product = np.correlate(self.smooth, pattern, "same")
        return product / (self.width * self.deviation)

    def own_tops(self, coarse: np.ndarray, fs: float) -> np.ndarray:
        """Return where each beat by itself is largest, up or down, near its peak."""
        near = round(NEAR * fs)
        middle = slice(self.half - near, self.half + near + 1)
        around = np.abs(self.windows[coarse])[:, middle]
        return around.argmax(axis=1) + coarse - near


def interpolate_summit(aligned: Aligned) -> tuple[np.ndarray, np.ndarray]:
    """Fit a parabola through each summit of the correlation and its two neighbours.

    Returns
    -------
    shift : ndarray, shape (n,), -0.5 to 0.5 samples from the centre to the parabola's vertex
    at : ndarray, shape (n,), the correlation at the centre
    """
    correlation = aligned.correlation
    last = len(correlation) - 1
    before = correlation[np.maximum(aligned.centres - 1, 0)]
    at = correlation[aligned.centres]
    after = correlation[np.minimum(aligned.centres + 1, last)]
    bend = np.minimum(before - 2 * at + after, -1e-9)
    vertex = (before - after) / (2 * bend)
    return np.clip(vertex, -0.5, 0.5), at


def are_beats(aligned: Aligned, size: np.ndarray, fs: float) -> bool:
    """Tell whether peaks are heart beats, and not noise, mains or half the beats of a fast rate.

    Parameters
    ----------
    aligned : Aligned
    size : ndarray, shape (samples,)
        Standard deviation of the window around each sample, over that of the median beat.
    fs : float, Hz
    """
    is_alike = likeness(aligned, size) > BEATS
    return bool(is_alike and share_repeated(aligned, size, fs) < MOST_REPEATED)


def likeness(aligned: Aligned, size: np.ndarray) -> float:
    """Return how like the median beat the usual beat is, in shape and size: 1 is equal.

    Lin's concordance (Biometrics 1989;45:255-268) of windows less their means. The median of n
    beats holds a share 1/n of each, which is taken out: with two or three beats it is large.
    """
    correlation = aligned.correlation[aligned.centres]
    size = size[aligned.centres]
    alike = float(np.median(2 * correlation * size / (1 + size**2)))
    n = len(aligned.centres)
    return (n * alike - 1) / (n - 1) if n > 1 else alike


def share_repeated(aligned: Aligned, size: np.ndarray, fs: float) -> float:
    """Return the share of beats with one more such wave within 0.2 s, before and after them.

    Ventricles need that time to recover: these are waves of a sine, or of a rate beyond 300 bpm of
    which half is found. On one side only it may be a T wave, so the lesser share of the two counts.
    """
    is_similar = aligned.correlation > SAME_SHAPE
    is_similar &= aligned.correlation * size > SAME_SIZE
    similar = np.flatnonzero(is_similar)
    low, high = REPEATED
    later = (similar - aligned.centres[:, None]) / fs
    is_after = (later > low) & (later < high)
    is_before = (-later > low) & (-later < high)
    return min(is_after.any(axis=1).mean(), is_before.any(axis=1).mean())


def find_gaps(lead: np.ndarray, is_missing: np.ndarray, fs: float) -> np.ndarray:
    """Return where samples of a lead were missing for long enough to hide a QRS complex.

    Parameters
    ----------
    lead : ndarray, shape (samples,), mV
    is_missing : ndarray of bool, shape (samples,)
        Where it is known. A gap that was interpolated before is found as well: a sloping line that
        is straight to the last digit, as no electrode gives.
    fs : float, Hz

    Returns
    -------
    ndarray of int, shape (gaps, 2), first sample of each gap and the first after it
    """
    step = np.diff(lead)
    is_straight = np.abs(np.diff(step)) < 1e-9
    is_sloping = np.abs(step[1:]) > 1e-7
    is_gap = is_missing.copy()
    is_gap[1:-1] |= is_straight & is_sloping
    ends = np.flatnonzero(np.diff(is_gap, prepend=False, append=False)).reshape(-1, 2)
    is_long = np.diff(ends, axis=1)[:, 0] >= GAP * fs
    return ends[is_long]


def rr_intervals(peaks: np.ndarray, gaps: np.ndarray, fs: float) -> np.ndarray:
    """Return the RR intervals (s) between R peaks (samples), NaN where a gap may hide a beat."""
    rr = np.diff(peaks) / fs
    near = GAP_EDGE * fs
    for start, end in gaps:
        is_touched = (peaks[:-1] < end + near) & (peaks[1:] > start - near)
        rr[is_touched] = np.nan
    return rr


def refine(lead: np.ndarray, coarse: np.ndarray, fs: float) -> np.ndarray:
    """Move R peaks to where each fits the median beat, to a fraction of a sample.

    The R peak is the median beat's top (or its nadir, if `NADIR` times as large): so neither noise
    nor the notch of a wide QRS complex moves it. A beat unlike the others, as an ectopic one, has
    its own top. Complexes that the record's ends cut are left out.

    Parameters
    ----------
    lead : ndarray, shape (samples,), mV
    coarse : ndarray of int, shape (n,)
        Peaks of the QRS envelope, in samples.
    fs : float, Hz

    Returns
    -------
    ndarray, shape (n or fewer,), positions in samples; none if the peaks are not heart beats
    """
    if not len(coarse):
        return np.zeros(0)
    beats = Beats(lead, fs)
    half = beats.half
    aligned = beats.align(coarse, fs)
    beat = aligned.beat
    if not are_beats(aligned, beats.deviation / (beat.std() + 1e-12), fs):
        return np.zeros(0)

    shift, at = interpolate_summit(aligned)
    is_negative = -beat.min() > NADIR * beat.max()
    top = beat.argmin() if is_negative else beat.argmax()
    peaks = aligned.centres + shift + top - half

    nearest = np.rint(peaks).astype(int)
    nearest = np.clip(nearest, 0, len(lead) - 1)
    size = beats.smooth[nearest] / beat[top]
    is_at_end = (coarse < half) | (coarse >= len(lead) - half)
    is_cut = is_at_end & (size < 0.5)
    is_odd = (at < ALIKE) | is_cut    # ectopic, or what the record leaves of one
    peaks = np.where(is_odd, beats.own_tops(coarse, fs), peaks)

    edge = EDGE * fs
    is_inside = (peaks >= edge) & (peaks < len(lead) - edge)
    is_whole = is_inside & ~(is_odd & is_at_end)
    return np.unique(peaks[is_whole])


# -------------------------------------------------------------------------- which peaks are beats
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

"""Find the R peaks of an ECG: which waves are beats, and where each beat's peak is.

In this order: `order_leads`, `qrs_envelope`, the thesis's `find_peaks` rule (in
`too_feature.measure_rhythm`), `refine` and `rr_intervals`. The rule's peaks are candidates: T waves
among them are dropped, close beats that its distance left out are added, and each is moved to where
it fits the median beat. Peaks that are not like one another are noise; an interval with a gap in it
is none.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks

# ------------------------------------------------------------------------- the envelope of a lead
MIN_STEEPNESS = 0.4         # of the median lead's: a flatter lead II gives way to another
MIN_QRS_ENERGY = 0.5        # (mV/s)^2; what is less steep is no QRS complex
MIN_QRS_SIZE = 1 / 8        # of the largest beat but one; smaller waves are P or T waves


def order_leads(leads: np.ndarray, fs: float, first: int) -> list[int]:
    """Return the leads in which to look for beats, the steepest first; none that is flat.

    Parameters
    ----------
    leads : ndarray, shape (samples, leads), mV
    fs : float, Hz
    first : int
        A lead that comes first unless it is much flatter than the others.
    """
    step = round(0.02 * fs)
    steps = leads[step:] - leads[:-step]
    steepness = np.sqrt(np.einsum("ij,ij->j", steps, steps))
    order = [lead for lead in np.argsort(-steepness, kind="stable").tolist() if steepness[lead]]
    if order and steepness[first] >= MIN_STEEPNESS * np.median(steepness[order]):
        order.sort(key=lambda lead: lead != first)    # the others stay in their order
    return order or [first]


@functools.lru_cache
def _band_response(low, high, fs, samples):
    """Return a squared second-order Butterworth response (Hz) for a cosine transform."""
    hertz = np.arange(samples) * fs / (2 * samples)
    width = np.maximum(hertz * (high - low), 1e-9)
    distance = (hertz**2 - low * high) / width
    return 1 / (1 + distance**4)


def _band_pass(lead, low, high, fs):
    """Filter a lead by `_band_response`, without phase shift."""
    return fft.idct(fft.dct(lead) * _band_response(low, high, fs, len(lead)))


def qrs_envelope(lead: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where a lead (samples,) in mV has QRS complexes: as energy, and as its envelope.

    The energy is averaged twice, so that each complex has a single summit. Averaged once, it would
    have a plateau, whose largest value jitters.

    The envelope is cut off at the bottom, where no QRS complex is, and at twice the typical beat:
    the median over those 2-second windows that hold one, so that a pause does not lower it to the T
    waves. Cut off there (but not below 1/400 of the largest), a large ectopic beat or artefact does
    not hide the others.

    Returns
    -------
    energy, envelope : ndarray, shape (samples,), (mV/s)^2
    """
    energy = (np.gradient(_band_pass(lead, 5, 20, fs)) * fs) ** 2
    for _ in range(2):
        energy = uniform_filter1d(energy, round(0.08 * fs), mode="constant")

    # A QRS complex has a share of the largest but one: the largest of all may be an artefact
    largest = energy.argmax()
    around = round(0.5 * fs)
    before = energy[:max(0, largest - around)]
    after = energy[largest + around:]
    second = max(before.max(initial=0), after.max(initial=0))
    above = np.maximum(energy - max(MIN_QRS_ENERGY, second * MIN_QRS_SIZE**2), 0)

    window = int(2 * fs)
    starts = range(0, max(1, len(above) - window // 2), window)
    tops = np.array([above[start:start + window].max() for start in starts])
    typical = np.median(tops[tops > 0]) if tops.any() else 0.0
    return energy, np.minimum(above, max(2 * typical, above.max() / 400))


# -------------------------------------------------------------------------- which peaks are beats
T_WAVE_DELAY_S = 0.36       # after a beat, within which its T wave comes
LATE_T_WAVE_DELAY_S = 0.5   # the same where the rate is slow
SLOW_RR_S = 1.2             # without another beat: a rate of 50 bpm, where T waves are late
REFRACTORY_S = 0.2          # for which ventricles cannot beat again
SHORT_RR_S = 0.3            # at over 200 bpm, beats may come as soon as T waves do
WEAK_ENERGY = 0.33          # of the median peak's, below which a peak may be noise,
NOISE_ENERGY_RATIO = 42     # if it is not so many times that of the quietest fiftieth of the lead
CUT_BEAT_S = 0.1            # at a record's ends, where a peak may be a part of a beat


def _drop_t_waves(peaks, energy, envelope, fs):
    """Leave out the T waves among peaks (int, samples) of the envelope."""
    after = np.diff(peaks) / fs
    # A T wave comes soon after a beat and is less than half as steep
    is_low = envelope[peaks[1:]] < envelope[peaks[:-1]] / 2**2
    is_t_wave = (after < T_WAVE_DELAY_S) & is_low

    # At a slow rate it may come later: then only what is less than a quarter as steep is one
    without = np.append(after[:-1] + after[1:], np.inf)    # s from its beat to the next peak
    is_slow = without[:len(after)] > SLOW_RR_S
    beat = energy[peaks[:-1]]
    if len(peaks) > 3:    # the largest may be an artefact
        beat = np.minimum(beat, np.sort(energy[peaks])[-2])
    is_lowest = energy[peaks[1:]] < beat / 4**2
    is_t_wave |= (after < LATE_T_WAVE_DELAY_S) & is_slow & is_lowest
    return np.delete(peaks, np.flatnonzero(is_t_wave) + 1)


def _add_close_beats(peaks, envelope, fs):
    """Add the beats that the rule's distance of 0.25 s left out, as it does near 240 bpm.

    They are half as high as the median beat, and farther than `REFRACTORY_S` from every peak. They
    count if a quarter of the intervals are then below `SHORT_RR_S`; if a beat is missing
    nevertheless, the rate cannot be measured, and no peaks are returned.
    """
    height = 0.5 * np.median(envelope[peaks])
    refractory = round(REFRACTORY_S * fs)
    summits = find_peaks(envelope, height=height, distance=refractory)[0]
    distance = np.abs(summits[:, None] - peaks).min(axis=1)
    close = np.union1d(peaks, summits[distance >= refractory])
    if len(close) == len(peaks):
        return peaks

    rr = np.diff(close)
    short = np.quantile(rr, 0.25)
    if short > SHORT_RR_S * fs:
        return peaks
    return close[:0] if rr.max() >= 1.5 * short else close


def _has_noise_peak(peaks, energy, fs):
    """Tell whether a peak (int, samples) is weak and little above the noise of its lead.

    It may be noise: one more or fewer is another rate.
    """
    edge = CUT_BEAT_S * fs
    is_inside = (peaks >= edge) & (peaks < len(energy) - edge)
    size = energy[peaks]
    weak = min(WEAK_ENERGY * np.median(size), NOISE_ENERGY_RATIO * np.quantile(energy, 0.02))
    return bool((size[is_inside] < weak).any())


def refine(
    lead: np.ndarray,
    candidates: np.ndarray,
    energy: np.ndarray,
    envelope: np.ndarray,
    fs: float,
) -> np.ndarray:
    """Return the R peaks of a lead, to a fraction of a sample.

    Parameters
    ----------
    lead : ndarray, shape (samples,), mV
    candidates : ndarray of int
        Peaks of the envelope, in samples.
    energy, envelope : ndarray, shape (samples,)
        From `qrs_envelope`.
    fs : float, Hz

    Returns
    -------
    ndarray, positions in samples
        Empty: there are no beats, or none that can be told from noise.
    """
    if len(candidates):
        candidates = _drop_t_waves(candidates, energy, envelope, fs)
        candidates = _add_close_beats(candidates, envelope, fs)
    if not len(candidates) or _has_noise_peak(candidates, energy, fs):
        return np.zeros(0)

    smooth = _band_pass(lead, 1, 40, fs)
    smooth -= np.median(smooth)
    aligned = _align(smooth, candidates, fs)
    are_beats = (_likeness(aligned) > MIN_LIKENESS
                 and _share_repeated(aligned, fs) < MAX_REPEATED_SHARE)
    return _place_peaks(smooth, candidates, aligned, fs) if are_beats else np.zeros(0)


# ------------------------------------------------------------------------- the place of each peak
HALF_QRS_S = 0.1            # on either side of a beat's centre
MAX_SHIFT_S = 0.06          # by which a peak of the envelope is moved at most
OWN_TOP_S = 0.07            # around a beat unlike the others, in which its own top is looked for
EDGE_S = 0.05               # at the record's ends, in which no R peak is whole
MIN_CORRELATION = 0.7       # with the median beat; a beat with less is unlike it
NADIR_RATIO = 1.6           # times the top: a beat's negative peak is its R peak
MIN_LIKENESS = 0.9          # of heart beats; white noise reaches 0.6, of the QRS band 0.83
REPEAT_CORRELATION = 0.8    # of a wave with the median beat, from which it is one more such wave,
REPEAT_SIZE = 0.5           # and its size, over that of the median beat
REPEAT_DELAY_S = 0.1, 0.2   # from a beat, where ventricles are still recovering
MAX_REPEATED_SHARE = 1 / 3  # of the beats may have such a wave so close


class Aligned(NamedTuple):
    """Beats moved to where they fit their median."""

    centres: np.ndarray        # int (beats,), samples
    beat: np.ndarray           # (width,), the median beat
    correlation: np.ndarray    # (samples,), of the window around each with the median beat
    size: np.ndarray           # (samples,), SD of that window, over that of the median beat


def _align(smooth, candidates, fs):
    """Move each peak by up to `MAX_SHIFT_S` to where the lead fits the median beat best."""
    half = round(HALF_QRS_S * fs)
    width = 2 * half + 1
    windows = sliding_window_view(np.pad(smooth, half), width)    # the i-th is centred on sample i
    square = uniform_filter1d(smooth**2, width, mode="constant")
    mean = uniform_filter1d(smooth, width, mode="constant")
    deviation = np.sqrt(np.maximum(square - mean**2, 0)) + 1e-12

    reach = round(MAX_SHIFT_S * fs)
    reachable = candidates[:, None] + np.arange(-reach, reach + 1)
    reachable = np.clip(reachable, 0, len(smooth) - 1)
    centres = candidates
    for _ in range(2):    # the second median beat is sharper, being made of aligned beats
        beat = np.median(windows[centres], axis=0)
        spread = beat.std() + 1e-12
        product = np.correlate(smooth, (beat - beat.mean()) / spread, "same")
        correlation = product / (width * deviation)
        best = correlation[reachable].argmax(axis=1)
        centres = reachable[np.arange(len(centres)), best]
    return Aligned(centres, beat, correlation, deviation / spread)


def _likeness(aligned):
    """Return how like the median beat most beats are, in shape and size: 1 is equal.

    Lin's concordance (Biometrics 1989;45:255-268) of windows less their means. The median of n
    beats holds a share 1/n of each, which is taken out: with two or three beats it is large.
    """
    correlation = aligned.correlation[aligned.centres]
    size = aligned.size[aligned.centres]
    alike = float(np.median(2 * correlation * size / (1 + size**2)))
    n = len(aligned.centres)
    return (n * alike - 1) / (n - 1) if n > 1 else alike


def _share_repeated(aligned, fs):
    """Return the share of beats with one more such wave within 0.2 s, before and after them.

    Ventricles need that time to recover: these are waves of a sine, or of a rate beyond 300 bpm of
    which half is detected. On one side only it may be a T wave, so the lesser of the two counts.
    """
    is_similar = aligned.correlation > REPEAT_CORRELATION
    is_similar &= aligned.correlation * aligned.size > REPEAT_SIZE
    delay = (np.flatnonzero(is_similar) - aligned.centres[:, None]) / fs
    low, high = REPEAT_DELAY_S
    is_after = (low < delay) & (delay < high)
    is_before = (low < -delay) & (-delay < high)
    return min(is_after.any(axis=1).mean(), is_before.any(axis=1).mean())


def _place_peaks(smooth, candidates, aligned, fs):
    """Return the R peak of each aligned beat, to a fraction of a sample.

    It is the median beat's top (or its nadir, if `NADIR_RATIO` times as large): so neither noise
    nor the notch of a wide QRS complex moves it. A beat unlike the others, as an ectopic one, has
    its own top. Complexes that the record's ends cut are left out.
    """
    centres, beat, correlation, _ = aligned
    half, last = len(beat) // 2, len(smooth) - 1
    # A parabola through each summit of the correlation and its two neighbours
    before, at, after = (correlation[np.clip(centres + i, 0, last)] for i in (-1, 0, 1))
    bend = np.minimum(before - 2 * at + after, -1e-9)
    vertex = np.clip((before - after) / (2 * bend), -0.5, 0.5)

    is_negative = -beat.min() > NADIR_RATIO * beat.max()
    top = beat.argmin() if is_negative else beat.argmax()
    peaks = centres + vertex + top - half

    nearest = np.clip(np.rint(peaks).astype(int), 0, last)
    is_at_end = (candidates < half) | (candidates > last - half)
    is_cut = is_at_end & (smooth[nearest] / beat[top] < 0.5)
    is_odd = (at < MIN_CORRELATION) | is_cut    # ectopic, or what the record leaves of one
    reach = round(OWN_TOP_S * fs)
    size = np.pad(np.abs(smooth), reach)
    around = sliding_window_view(size, 2 * reach + 1)[candidates]
    own_top = around.argmax(axis=1) + candidates - reach
    peaks = np.where(is_odd, own_top, peaks)

    edge = EDGE_S * fs
    is_inside = (peaks >= edge) & (peaks < len(smooth) - edge)
    return np.unique(peaks[is_inside & ~(is_odd & is_at_end)])


# ------------------------------------------------------------------------------------ RR intervals
MIN_GAP_S = 0.08            # a gap that may hide a QRS complex
GAP_EDGE_S = 0.1            # a beat so close to a gap may be the step at its end


def _find_gaps(lead, is_missing, fs):
    """Return where samples of a lead were missing for long enough to hide a QRS complex.

    Where it is not known from `is_missing`, a gap that was interpolated before is noticed as well:
    a sloping line that is straight to the last digit, as no electrode gives. Each row holds the
    first sample of a gap and the first after it.
    """
    step = np.diff(lead)
    is_straight = np.abs(np.diff(step)) < 1e-9
    is_sloping = np.abs(step[1:]) > 1e-7
    is_gap = is_missing.copy()
    is_gap[1:-1] |= is_straight & is_sloping
    ends = np.flatnonzero(np.diff(is_gap, prepend=False, append=False)).reshape(-1, 2)
    length = np.diff(ends, axis=1)[:, 0]
    return ends[length >= MIN_GAP_S * fs]


def rr_intervals(
    peaks: np.ndarray,
    lead: np.ndarray,
    is_missing: np.ndarray,
    fs: float,
) -> np.ndarray:
    """Return the RR intervals between R peaks.

    Parameters
    ----------
    peaks : ndarray, shape (n,), samples
    lead : ndarray, shape (samples,), mV
    is_missing : ndarray of bool, shape (samples,)
        Where it is known that the lead was interpolated.
    fs : float, Hz

    Returns
    -------
    ndarray, shape (n - 1,), s; NaN where a gap may hide a beat
    """
    rr = np.diff(peaks) / fs
    near = GAP_EDGE_S * fs
    for start, end in _find_gaps(lead, is_missing, fs):
        is_touched = (peaks[:-1] < end + near) & (peaks[1:] > start - near)
        rr[is_touched] = np.nan
    return rr

"""Find the R peaks of an ECG: which waves are beats, and where each beat's peak is.

In this order: `qrs_energies`, `qrs_envelope`, the thesis's `find_peaks` rule (in
`too_feature.measure_rhythm`), `locate` and `rr_intervals`. The rule's peaks are candidates, which
several leads agree on: T waves among them are dropped, close beats that its distance left out are
added, and each is moved to where it fits the median beat of one lead. Peaks that are not like one
another are noise; an interval with a gap in it is none.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.ndimage import binary_opening, uniform_filter1d
from scipy.signal import find_peaks

GRID = 125                  # Hz, to which leads are resampled: one sample is 8 ms

# ------------------------------------------------------------------------ the envelope of a record
MIN_QRS_ENERGY = 0.5        # (mV/s)^2; what is less steep is no QRS complex
MIN_QRS_SIZE = 1 / 8        # of the usual beat; smaller waves are P or T waves
MIN_BEAT_SIZE = 1 / 4       # of the largest beat but one, in windows that count as having a beat
WINDOW_S = 2                # the energy of a lead's usual beat is the median over such windows
MAX_ENERGY = 4              # of a lead's usual beat: a larger artefact counts no more than that
MIN_BEATING_LEADS = 3       # with fewer, lead II is taken alone
NOISE_FACTOR = 5            # times the energy of the quietest tenth of a record may be noise;
MIN_BEAT_TO_NOISE = 3       # where beats have not so many times more, noise may hide some;
MIN_IN_ONE_LEAD = 2.7       # in one lead alone, where T and P waves look more like noise
MIN_CONTRAST = 0.5          # of the clearest lead's: a less clear lead is not refined in


@functools.lru_cache
def _gains(samples, low, high, fs):
    """Return frequencies (Hz) and a squared second-order Butterworth response, onto `GRID`."""
    n = round(samples * GRID / fs)
    hertz = np.arange(min(n, samples), dtype="f4") * (fs / (2 * samples))
    width = np.maximum(hertz * (high - low), 1e-3)
    distance = (hertz**2 - low * high) / width
    return hertz, n / samples / (1 + distance**4)


def qrs_energies(leads: np.ndarray, fs: float) -> np.ndarray:
    """Return where each lead has QRS complexes, as energy.

    It is averaged twice, so that each complex has a single summit. Averaged once, it would have a
    plateau, whose largest value jitters.

    Parameters
    ----------
    leads : ndarray, shape (samples, leads), mV
    fs : float, Hz

    Returns
    -------
    ndarray, shape (leads, n), (mV/s)^2 at `GRID` Hz
    """
    samples = len(leads)
    hertz, gain = _gains(samples, 5, 20, fs)
    spectrum = fft.dct(leads.T.astype("f4"))[:, :len(gain)] * (2 * np.pi * hertz * gain)
    # The slope of cosines are sines, of which there is none of 0 Hz
    energies = fft.idst(spectrum[:, 1:], n=round(samples * GRID / fs)) ** 2
    for _ in range(2):
        energies = uniform_filter1d(energies, 2 * round(0.04 * GRID) + 1, mode="constant")
    return energies


def qrs_envelope(energies: np.ndarray, alone: int) -> np.ndarray:
    """Return where several leads at once have QRS complexes: one envelope of `qrs_energies`.

    At each moment it is the median over the leads of the energy over that of the lead's usual beat:
    what one lead alone has, or lacks, is not seen. It is cut off at the bottom, where no QRS
    complex is, and at twice the usual beat; nothing is left where noise may hide beats.

    Parameters
    ----------
    energies : ndarray, shape (leads, n)
    alone : int
        The lead that is taken where fewer than three have beats.

    Returns
    -------
    ndarray, shape (n,), (mV/s)^2
    """
    n = energies.shape[1]
    # A beat has a share of the largest but one: the largest of all may be an artefact
    tops = np.maximum.reduceat(energies, range(0, n, GRID // 4), axis=1)
    is_far = np.abs(np.arange(tops.shape[1]) - tops.argmax(axis=1)[:, None]) > 2    # 0.5 s
    second = np.max(tops, axis=1, where=is_far, initial=0)
    least = np.maximum(MIN_QRS_ENERGY, second * MIN_BEAT_SIZE**2)

    window = 4 * WINDOW_S
    starts = range(0, max(1, tops.shape[1] - window // 2), window)
    tops = np.sort(np.maximum.reduceat(tops, starts, axis=1))
    n_beating = (tops > least[:, None]).sum(axis=1)    # windows
    usual = tops[np.arange(len(tops)), -1 - n_beating // 2]
    has_beats = n_beating > 0
    if has_beats.sum() < MIN_BEATING_LEADS and has_beats[alone]:
        has_beats = np.arange(len(tops)) == alone
    if not has_beats.any():
        return np.zeros(n)

    relative = np.minimum(energies[has_beats] / usual[has_beats, None], MAX_ENERGY)
    typical = np.median(usual[has_beats])
    energy = np.median(relative, axis=0) * typical
    noise = NOISE_FACTOR * np.partition(energy, n // 10)[n // 10]
    if typical < noise * (MIN_BEAT_TO_NOISE if has_beats.sum() > 1 else MIN_IN_ONE_LEAD):
        return np.zeros(n)
    lowest = max(MIN_QRS_ENERGY, noise, typical * MIN_QRS_SIZE**2)
    return np.clip(energy - lowest, 0, 2 * typical)


# -------------------------------------------------------------------------- which peaks are beats
T_WAVE_DELAY_S = 0.36       # after a beat, within which its T wave comes
T_WAVE_ENERGY = 1 / 6       # of that beat's, which it does not reach
REFRACTORY_S = 0.2          # for which ventricles cannot beat again
SHORT_RR_S = 0.3            # at over 200 bpm, beats may come as soon as T waves do


def _drop_t_waves(peaks, envelope):
    """Leave out the T waves among peaks (int, samples): what is low and comes soon after a beat."""
    is_soon = np.diff(peaks) < T_WAVE_DELAY_S * GRID
    is_low = envelope[peaks[1:]] < T_WAVE_ENERGY * envelope[peaks[:-1]]
    return np.delete(peaks, np.flatnonzero(is_soon & is_low) + 1)


def _add_close_beats(peaks, envelope):
    """Add the beats that the rule's distance of 0.25 s left out, as it does near 240 bpm.

    They are half as high as the median beat, and farther than `REFRACTORY_S` from every peak. They
    count if a quarter of the intervals are then below `SHORT_RR_S`; if a beat is missing
    nevertheless, the rate cannot be measured, and no peaks are returned.
    """
    height = 0.5 * np.median(envelope[peaks])
    refractory = round(REFRACTORY_S * GRID)
    summits = find_peaks(envelope, height=height, distance=refractory)[0]
    missed = summits[np.abs(summits[:, None] - peaks).min(axis=1) >= refractory]
    if not len(missed):
        return peaks

    close = np.union1d(peaks, missed)
    rr = np.diff(close)
    short = np.quantile(rr, 0.25)
    if short > SHORT_RR_S * GRID:
        return peaks
    return close[:0] if rr.max() >= 1.5 * short else close


def locate(
    leads: np.ndarray,
    fs: float,
    energies: np.ndarray,
    envelope: np.ndarray,
    candidates: np.ndarray,
    first: int,
) -> tuple[int, np.ndarray]:
    """Locate the R peaks, to a fraction of a sample, in the clearest lead that shows beats.

    Parameters
    ----------
    leads : ndarray, shape (samples, leads), mV
    fs : float, Hz
    energies, envelope : ndarray
        From `qrs_energies` and `qrs_envelope`.
    candidates : ndarray of int
        Peaks of the envelope, places on `GRID`.
    first : int
        The lead that comes first, if it shows the candidates well.

    Returns
    -------
    lead : int
        In which they were located; without beats, `first`.
    peaks : ndarray, positions in samples
        Empty: there are no beats, or none that can be told from noise.
    """
    if len(candidates):
        # Beats stand out by their median energy over the mean of the lead's
        contrast = np.median(energies[:, candidates], axis=1) / (energies.mean(axis=1) + 1e-12)
        clear = np.flatnonzero(contrast >= MIN_CONTRAST * contrast.max()).tolist()
        beats = _add_close_beats(_drop_t_waves(candidates, envelope), envelope)
        for lead in sorted(clear, key=lambda lead: (lead != first, -contrast[lead])):
            peaks = _refine(leads[:, lead], fs, beats) if len(beats) else beats
            if len(peaks):
                return lead, peaks
    return first, np.zeros(0)


def _refine(lead, fs, candidates):
    """Return the R peaks of a lead (mV), to a fraction of a sample; none if they are noise."""
    n = round(len(lead) * GRID / fs)
    _, gain = _gains(len(lead), 1, 40, fs)
    # The cosine transform continues a lead by its mirror image
    smooth = fft.idct(fft.dct(lead)[:len(gain)] * gain, n=n)
    smooth -= np.median(smooth)
    aligned = _align(smooth, candidates)
    if _likeness(aligned) <= MIN_LIKENESS or _share_repeated(aligned) >= MAX_REPEATED_SHARE:
        return candidates[:0]
    peaks = _place_peaks(smooth, candidates, aligned)
    return (peaks + 0.5) * len(lead) / n - 0.5    # samples have a width


# ------------------------------------------------------------------------- the place of each peak
HALF_QRS_S = 0.1            # on either side of a beat's centre
MAX_SHIFT_S = 0.06          # by which a peak of the envelope is moved at most
MIN_SIZE = 0.5              # of the median beat; a smaller one is unlike it
EDGE_S = 0.048              # at the record's ends, in which no R peak is whole
MIN_CORRELATION = 0.8       # with the median beat; a beat with less is unlike it
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


def _align(smooth, candidates):
    """Move each peak by up to `MAX_SHIFT_S` to where the lead fits the median beat best."""
    half = round(HALF_QRS_S * GRID)
    width = 2 * half + 1
    window = np.arange(-half, half + 1)
    square = uniform_filter1d(smooth**2, width, mode="constant")
    mean = uniform_filter1d(smooth, width, mode="constant")
    deviation = np.sqrt(np.maximum(square - mean**2, 0)) + 1e-12

    reach = round(MAX_SHIFT_S * GRID)
    reachable = candidates[:, None] + np.arange(-reach, reach + 1)
    reachable = np.clip(reachable, 0, len(smooth) - 1)
    centres = candidates
    for _ in range(2):    # the second median beat is sharper, being made of aligned beats
        beat = np.median(smooth.take(centres[:, None] + window, mode="clip"), axis=0)
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


def _share_repeated(aligned):
    """Return the share of beats with one more such wave within 0.2 s, before and after them.

    Ventricles need that time to recover: these are waves of a sine, or of a rate beyond 300 bpm of
    which half is detected. On one side only it may be a T wave, so the lesser of the two counts.
    """
    is_similar = aligned.correlation > REPEAT_CORRELATION
    is_similar &= aligned.correlation * aligned.size > REPEAT_SIZE
    delay = (np.flatnonzero(is_similar) - aligned.centres[:, None]) / GRID
    low, high = REPEAT_DELAY_S
    is_after = (low < delay) & (delay < high)
    is_before = (low < -delay) & (-delay < high)
    return min(is_after.any(axis=1).mean(), is_before.any(axis=1).mean())


def _vertex(before, at, after):
    """Return where between -0.5 and 0.5 a parabola through a summit and its neighbours peaks."""
    bend = np.minimum(before - 2 * at + after, -1e-9)
    return np.clip((before - after) / (2 * bend), -0.5, 0.5)


def _place_peaks(smooth, candidates, aligned):
    """Return the R peak of each aligned beat, to a fraction of a sample.

    It is the median beat's top (or its nadir, if `NADIR_RATIO` times as large): so neither noise
    nor the notch of a wide QRS complex moves it. A beat unlike the others, as an ectopic one, lies
    where the other leads have it. Complexes that the record's ends cut are left out.
    """
    centres, beat, correlation, size = aligned
    half, last = len(beat) // 2, len(smooth) - 1
    near = correlation.take(np.add.outer([-1, 0, 1], centres), mode="clip")
    wave = -beat if -beat.min() > NADIR_RATIO * beat.max() else beat
    top = np.clip(wave.argmax(), 1, len(wave) - 2)
    peaks = centres + _vertex(*near) + top + _vertex(*wave[top - 1:top + 2]) - half

    is_at_end = (candidates < half) | (candidates > last - half)
    nearest = np.rint(peaks).astype(int)
    is_cut = is_at_end & (smooth.take(nearest, mode="clip") / beat[top] < 0.5)
    # An ectopic beat, one that this lead shows badly, or what the record leaves of one
    is_odd = (near[1] < MIN_CORRELATION) | (size[centres] < MIN_SIZE) | is_cut
    usual = np.median((peaks - candidates)[~is_odd]) if not is_odd.all() else 0.0
    peaks = np.where(is_odd, candidates + usual, peaks)

    edge = EDGE_S * GRID - 0.5    # samples have a width
    is_inside = (peaks >= edge) & (peaks < last - edge)
    return np.unique(peaks[is_inside & ~(is_odd & is_at_end)])


# ------------------------------------------------------------------------------------ RR intervals
MIN_GAP_S = 0.08            # a gap that may hide a QRS complex
GAP_EDGE_S = 0.1            # a beat so close to a gap may be the step at its end


def _find_gaps(lead, is_missing, fs):
    """Return where samples of a lead were missing for long enough to hide a QRS complex.

    Where it is not known from `is_missing`, a gap that was interpolated before is noticed as well:
    a sloping line that is straight to the last digit, as no electrode gives.
    """
    step = np.diff(lead)
    is_straight = np.abs(np.diff(step)) < 1e-9
    is_sloping = np.abs(step[1:]) > 1e-7
    is_gap = is_missing.copy()
    is_gap[1:-1] |= is_straight & is_sloping
    return binary_opening(is_gap, np.ones(math.ceil(MIN_GAP_S * fs)))


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
    gaps = np.flatnonzero(_find_gaps(lead, is_missing, fs))
    near = GAP_EDGE_S * fs
    before, after = np.searchsorted(gaps, [peaks[:-1] - near - 1, peaks[1:] + near])
    rr[after > before] = np.nan    # a sample of a gap lies between
    return rr

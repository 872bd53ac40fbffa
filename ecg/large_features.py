"""Features of rhythm, shape and spectrum, for the large model.

Amplitudes, filters and gains differ between hospitals, so every feature here is a time, a ratio or
a correlation: each lead is band-passed to what all recorders keep, and its size cancels out.
"""

import numpy as np
from scipy import fft
from scipy.ndimage import minimum_filter1d, uniform_filter1d

GRID = 250           # Hz, to which the features resample: one sample is 4 ms
BAND = 0.5, 35       # Hz; recorders differ below and above
BEFORE = 70          # samples of a beat before its R peak: 280 ms
AFTER = 120          # samples of a beat after it: 480 ms

LEAD_I, LEAD_II, V1, V6 = 0, 1, 6, 11    # places among the 12 leads
SHAPE_LEADS = {"I": LEAD_I, "V1": V1, "V6": V6}
SHAPES = {
    "QRS net area": "QRS area",
    "QRS end": "QRS height",
    "QRS area over height": "ms",
    "ST level": "QRS height",
    "T wave": "QRS height",
}

_UNITS = {
    "median heart rate": "bpm",
    "shortest RR": "median RR",
    "longest RR": "median RR",
    "RR deviation": "median RR",
    "RR change": "median RR",
    "irregular RR share": "",

    "QRS width": "ms",
    "QRS energy spread": "ms",
    "QRS area over height": "ms",
    "QRS consistency": "",
    **{f"{shape} {lead}": unit for lead in SHAPE_LEADS for shape, unit in SHAPES.items()},
    "R-wave peak time V1": "ms",
    "ST deviation": "QRS height",
    "T wave II": "QRS height",

    "P consistency": "",
    "P consistency II": "",
    "best P consistency": "",
    "P size": "QRS height",
    "P noise": "QRS height",
    "P II": "QRS height",
    "P peak to QRS onset II": "ms",

    "fibrillatory power": "residual power",
    "fibrillatory size": "QRS height",
    "fibrillatory size V1": "QRS height",
    "power 2-4 Hz": "power 0.5-30 Hz",
    "power 15-30 Hz": "power 0.5-30 Hz",
}
# Name, unit and reference range (none is given) of each feature
EXTRA_FEATURES = tuple((name, unit, None) for name, unit in _UNITS.items())


def extra_features(
    signal: np.ndarray,
    fs: float,
    r_peaks: np.ndarray,
    rr: np.ndarray,
) -> np.ndarray:
    """Measure the rhythm, shape and spectral features of `EXTRA_FEATURES`.

    Parameters
    ----------
    signal : ndarray, shape (samples, 12)
        In mV, leads I, II, III, aVR, aVL, aVF, V1-V6; a lead without signal is all zeros.
    fs : float
        Sampling rate in Hz, 50 to 4000.
    r_peaks : ndarray
        Positions of the R peaks in samples, in order; they may lie between two.
    rr : ndarray
        RR intervals in s, NaN where one cannot be measured.

    Returns
    -------
    ndarray, shape (len(EXTRA_FEATURES),)
        NaN where a feature cannot be measured.
    """
    leads = _condition(signal, fs)
    peaks = np.rint((r_peaks + 0.5) * GRID / fs - 0.5).astype(int)    # samples have a width
    whole = peaks[(peaks >= BEFORE) & (peaks < len(leads) - AFTER)]
    # What is relative to a lead without signal is NaN or infinite, and not measured
    with np.errstate(divide="ignore", invalid="ignore"):
        measured = _rhythm(rr) | _spectral_shares(leads)
        if len(whole):
            rr_samples = GRID * np.nan_to_num(_median(rr), nan=0.8)
            measured |= _beat_features(leads, peaks, whole, rr_samples)

    values = np.array([measured.get(name, np.nan) for name in _UNITS], dtype=float)
    return np.where(np.isfinite(values), values, np.nan)


def _condition(signal, fs):
    """Return leads on the grid, in `BAND` and of deviation 1; those without signal are 0."""
    # A cosine transform continues the signal by its mirror image: no step at the ends that rings
    spectrum = fft.dct(signal.T.copy(), norm="ortho")
    f = np.arange(len(signal)) * fs / (2 * len(signal))

    # Butterworth gains of order 2 and 4, squared as if run forwards and backwards
    low, high = BAND
    spectrum *= 1 / (1 + (low / np.maximum(f, 1e-9)) ** 4) / (1 + (f / high) ** 8)

    samples = round(len(signal) * GRID / fs)
    leads = fft.idct(spectrum, n=samples, norm="ortho").T
    leads -= np.median(leads, axis=0)
    deviation = leads.std(axis=0)
    return leads / np.where(deviation > 1e-6, deviation, np.inf)


def _median(values):
    """Return the median of the finite values, NaN if there is none."""
    values = values[np.isfinite(values)]
    return np.median(values) if len(values) else np.nan


# ---------------------------------------------------------------------------------------- rhythm
def _rhythm(rr):
    """Measure the rhythm in units of the median RR interval (s); an ectopic beat changes little."""
    change = np.abs(np.diff(rr))
    change = change[np.isfinite(change)]    # between intervals that meet
    rr = rr[np.isfinite(rr)]
    if not len(rr):
        return {}

    middle = np.median(rr)
    measured = {
        "median heart rate": 60 / middle,
        "shortest RR": rr.min() / middle,
        "longest RR": rr.max() / middle,
    }
    if len(rr) >= 3:
        measured["RR deviation"] = np.median(np.abs(rr / middle - 1))
    if len(change) >= 2:
        measured["RR change"] = np.median(change / middle)
        measured["irregular RR share"] = np.mean(change / middle > 0.1)

    return measured


# ----------------------------------------------------------------------------------------- beats
def _beat_features(leads, peaks, whole, rr_samples):
    """Measure the median beat, from the R peaks `whole` whose beats are not cut off."""
    beats, median = _beats(leads, whole)
    slope = uniform_filter1d(np.abs(np.gradient(median, axis=0)).mean(axis=1), 3)
    steepest = BEFORE - 20 + slope[BEFORE - 20:BEFORE + 21].argmax()
    onset, end = _qrs_limits(slope, steepest)
    measured = {
        "QRS width": (end - onset) * 1000 / GRID,
        "QRS energy spread": _energy_spread(slope, steepest) * 1000 / GRID,
        "QRS consistency": _similarity(beats, median).mean(),
    }

    end = max(end, onset + 5)
    level = median - np.median(median[onset - 8:onset - 1], axis=0)    # just before QRS, 0
    height = np.ptp(level[onset:end], axis=0)    # of the QRS complex; 0 in a lead without signal
    measured |= _shape(level, onset, end, rr_samples, height)
    measured |= _p_wave(beats, onset, rr_samples, height)
    measured |= _fibrillatory_waves(leads, peaks, median, height)
    return measured


def _centred_qrs(beats):
    """Cut the QRS complexes out of beats (..., BEFORE + AFTER, 12), their means taken away."""
    qrs = beats[..., BEFORE - 25:BEFORE + 35, :]
    return qrs - qrs.mean(axis=-2, keepdims=True)


def _similarity(beats, median):
    """Correlate the QRS complex of each beat, over all leads, with that of the median beat."""
    each = _centred_qrs(beats)
    typical = _centred_qrs(median)
    powers = np.sum(each**2, axis=(1, 2)) * np.sum(typical**2)
    return np.sum(each * typical, axis=(1, 2)) / np.sqrt(powers + 1e-12)


def _beats(leads, peaks):
    """Cut out the beats, (n, BEFORE + AFTER, 12), ectopic ones left out, and their median."""
    beats = leads[peaks[:, None] + np.arange(-BEFORE, AFTER)]
    median = np.median(beats, axis=0)
    is_typical = _similarity(beats, median) > 0.7
    if 3 <= is_typical.sum() < len(beats):
        beats = beats[is_typical]
        median = np.median(beats, axis=0)

    return beats, median


def _qrs_limits(slope, steepest):
    """Return where the QRS complex begins and ends, in samples of the beat.

    It reaches from its steepest sample both ways to where the slope stays for 28 ms within 6 % of
    the way from its floor to its largest value.
    """
    floor = np.percentile(slope[BEFORE - 40:BEFORE + 70], 20)
    quiet = slope < floor + 0.06 * (slope[steepest] - floor)
    quiet = minimum_filter1d(quiet, 7)
    quiet[[steepest - 43, steepest + 53]] = True    # it is 160 ms before and 200 ms after at most
    before = quiet[:steepest][::-1].argmax()
    after = quiet[steepest:].argmax()
    return steepest - before + 2, steepest + after - 3    # half of the 28 ms


def _energy_spread(slope, steepest):
    """Return the standard deviation (samples) of the slope's energy over time, around QRS."""
    near = np.arange(steepest - 35, steepest + 36)
    weight = slope[near] ** 2 + 1e-12
    centre = np.average(near, weights=weight)
    return np.sqrt(np.average((near - centre) ** 2, weights=weight))


def _shape(level, onset, end, rr, height):
    """Measure QRS, ST and T of the median beat by lead; `rr` is in samples.

    Bundle branch block shows late: a last part of QRS that is positive in V1 (right) or negative
    there and slow in I and V6 (left), with ST and T opposed (Surawicz et al., Circulation
    2009;119:e235-e240).
    """
    qrs = level[onset:end]
    area = np.abs(qrs).sum(axis=0)
    lasting = 1000 / GRID * area / np.abs(qrs).max(axis=0)
    st = level[end + 5:end + 17].mean(axis=0)

    t_end = int(min(BEFORE + 0.65 * rr, len(level)))
    t_start = min(end + 15, t_end - 5)
    t_wave = level[t_start:t_end]
    t_wave = t_wave[np.abs(t_wave).argmax(axis=0), np.arange(12)]

    by_lead = {
        "QRS net area": qrs.sum(axis=0) / area,
        "QRS end": qrs[-10:].mean(axis=0) / height,    # the last 40 ms
        "QRS area over height": lasting,
        "ST level": st / height,
        "T wave": t_wave / height,
    }
    measured = {f"{shape} {name}": values[lead] for shape, values in by_lead.items()
                for name, lead in SHAPE_LEADS.items()}

    measured["T wave II"] = by_lead["T wave"][LEAD_II]
    measured["QRS area over height"] = _median(lasting)
    measured["ST deviation"] = _median(np.abs(by_lead["ST level"]))
    if height[V1]:
        measured["R-wave peak time V1"] = 1000 / GRID * qrs[:, V1].argmax()
    return measured


def _without_trend(part):
    """Take mean and linear trend out of each beat and lead of (beats, samples, 12)."""
    line = np.linspace(-1, 1, part.shape[1])[:, None]
    part = part - part.mean(axis=1, keepdims=True)
    trend = np.sum(part * line, axis=1, keepdims=True) / np.sum(line**2)
    part -= line * trend
    return part


def _p_wave(beats, onset, rr, height):
    """Measure the P wave: it is the same before each QRS complex, fibrillation is not.

    Its consistency is the share of the mean beat in the power of the beats, their trends taken out.
    """
    start = max(0, int(BEFORE - 0.45 * rr), onset - 62)
    end = onset - 4
    if end - start < 15:
        return {}

    part = _without_trend(beats[:, start:end])
    mean = part.mean(axis=0)
    common = np.mean(mean**2, axis=0)
    power = np.mean(part**2, axis=(0, 1))
    noise = np.sqrt(np.maximum(power - common, 0))
    wave = uniform_filter1d(mean[:, LEAD_II], 5)
    peak = wave.argmax()
    rise = wave[peak] - (wave[0] + wave[-1]) / 2
    measured = {
        "P size": _median(np.sqrt(common) / height),
        "P noise": _median(noise / height),
        "P II": rise / height[LEAD_II],
    }

    if height[LEAD_II]:
        measured["P peak to QRS onset II"] = (onset - start - peak) * 1000 / GRID
    if len(beats) >= 3:    # one beat always agrees with itself
        consistency = common / power
        measured["P consistency"] = _median(consistency)
        measured["P consistency II"] = consistency[LEAD_II]
        measured["best P consistency"] = np.nanmax(consistency, initial=-np.inf)
    return measured


# -------------------------------------------------------------------------------------- spectrum
def _band_powers(leads, *bands):
    """Return the power of leads (samples, 12) from one frequency (Hz) to another, for each band."""
    n = fft.next_fast_len(len(leads), real=True)
    power = np.abs(fft.rfft(leads, n, axis=0)) ** 2
    frequency = np.arange(len(power)) * GRID / n
    return [power[(frequency >= low) & (frequency < high)].sum(axis=0) for low, high in bands]


def _spectral_shares(leads):
    """Measure the shares of the spectral power at 2-4 Hz and at 15-30 Hz."""
    whole, slow, fast = _band_powers(leads, (0.5, 30), (2, 4), (15, 30))
    return {"power 2-4 Hz": _median(slow / whole), "power 15-30 Hz": _median(fast / whole)}


def _residual(median, leads, peaks):
    """Subtract the median beat at each R peak, from the first beat to the end of the last.

    The ends of the record, where a beat may have been cut and not detected, are left out. Where two
    beats overlap, the first is subtracted: the next one's P wave is not taken twice.
    """
    time = np.arange(max(peaks[0] - BEFORE, 0), min(peaks[-1] + AFTER, len(leads)))
    place = time - peaks[np.searchsorted(peaks + AFTER, time, side="right")] + BEFORE
    beat = median.take(place, axis=0, mode="clip") * (place >= 0)[:, None]
    rest = leads[time] - beat
    return rest - rest.mean(axis=0)


def _fibrillatory_waves(leads, peaks, median, height):
    """Measure the 4-9 Hz waves of atrial fibrillation in what the median beat leaves over.

    Average beat subtraction (Slocum et al., J Electrocardiol 1992;25:1-8).
    """
    rest = _residual(median, leads, peaks)
    power, whole = _band_powers(rest, (4, 9), (1, 30))
    size = np.sqrt(2 * power) / len(rest) / height
    return {
        "fibrillatory power": _median(power / whole),
        "fibrillatory size": _median(size),
        "fibrillatory size V1": size[V1],
    }

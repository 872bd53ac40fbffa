"""The large classifier: 12-lead ECG and shape features in, class probabilities out.

Imported by `too_feature.py` when it is asked for; knows nothing of it. Amplitudes, filters and
gains differ between hospitals, so every feature here is a time, a ratio or a correlation: each lead
is band-passed to what all recorders keep, and what is left of its size cancels out.
"""

import numpy as np
from scipy import fft
from scipy.ndimage import uniform_filter1d

GRID = 250                        # Hz, to which the features resample: one sample is 4 ms
BAND = 0.5, 35                    # Hz; recorders differ below and above
BEFORE, AFTER = 70, 120           # samples of a beat around its R peak: 280 and 480 ms
LEAD_I, LEAD_II, V1, V6 = 0, 1, 6, 11    # places among the 12 leads
SHAPE_LEADS = {"I": LEAD_I, "V1": V1, "V6": V6}

# Name, unit and usual range (none is given) of each extra feature
EXTRA_FEATURES = tuple((name, unit, None) for name, unit in (
    ("median heart rate", "bpm"), ("shortest RR", "median RR"), ("longest RR", "median RR"),
    ("RR deviation", "median RR"), ("RR change", "median RR"), ("irregular RR share", ""),
    ("QRS width", "ms"), ("QRS energy spread", "ms"), ("QRS area over height", "ms"),
    ("QRS consistency", ""),
    *((f"{what} {lead}", unit) for lead in SHAPE_LEADS for what, unit in (
        ("QRS net area", "QRS area"), ("QRS end", "QRS height"), ("QRS area over height", "ms"),
        ("ST level", "QRS height"), ("T wave", "QRS height"))),
    ("QRS summit time V1", "ms"),
    ("ST deviation", "QRS height"), ("T wave II", "QRS height"),
    ("P consistency", ""), ("P consistency II", ""), ("best P consistency", ""),
    ("P size", "QRS height"), ("P noise", "QRS height"), ("P II", "QRS height"),
    ("P summit to QRS II", "ms"),
    ("fibrillatory power", "residual power"), ("fibrillatory size", "QRS height"),
    ("fibrillatory size V1", "QRS height"),
    ("power 2-4 Hz", "power 0.5-30 Hz"), ("power 15-30 Hz", "power 0.5-30 Hz")))


def extra_features(signal, fs, r_peaks):
    """Measure the rhythm, shape and spectral features of `EXTRA_FEATURES`.

    Parameters
    ----------
    signal : ndarray, shape (samples, 12)
        In mV, leads I, II, III, aVR, aVL, aVF, V1-V6; a lead without signal is all zeros.
    fs : float
        Sampling rate in Hz, 50 to 4000.
    r_peaks : array_like
        Positions of the R peaks in samples; fractions are meant.

    Returns
    -------
    ndarray, shape (len(EXTRA_FEATURES),)
        NaN: not measurable.
    """
    r_peaks = np.unique(np.asarray(r_peaks, dtype=float))
    rr = np.diff(r_peaks) / fs
    leads, present = _condition(np.asarray(signal, dtype=float), fs)
    measured = {**_rhythm(rr), **_spectrum(leads, present)}
    peaks = np.rint((r_peaks + 0.5) * GRID / fs - 0.5).astype(int)    # samples have a width
    inside = peaks[(peaks >= BEFORE) & (peaks < len(leads) - AFTER)]
    if len(inside) and present.any():
        beats, beat = _beats(leads, inside)
        rr_samples = GRID * (np.median(rr) if len(rr) else 0.8)
        onset, end, measured["QRS width"], measured["QRS energy spread"] = _qrs(beat, present)
        shape, height = _shape(beat, onset, end, rr_samples, present)
        measured |= shape | _p_wave(beats, onset, rr_samples, height)
        measured |= _residual(leads, beat, peaks, height)
        measured["QRS consistency"] = _similarity(beats, beat).mean()
    values = np.array([measured.get(name, np.nan) for name, _, _ in EXTRA_FEATURES], dtype=float)
    return np.where(np.isfinite(values), values, np.nan)


def _condition(signal, fs):
    """Return leads on the grid, in `BAND` and of deviation 1, and which of them carry a signal."""
    # A cosine transform continues the signal by its mirror image: no step at the ends that rings
    spectrum = fft.dct(signal.T.copy(), norm="ortho")
    f = np.arange(len(signal)) * fs / (2 * len(signal))
    # Butterworth gains of order 2 and 4, squared as if run forwards and backwards
    spectrum *= 1 / (1 + (BAND[0] / np.maximum(f, 1e-9)) ** 4) / (1 + (f / BAND[1]) ** 8)
    leads = fft.idct(spectrum, n=round(len(signal) * GRID / fs), norm="ortho").T
    leads -= np.median(leads, axis=0)
    deviation = leads.std(axis=0)
    present = deviation > 1e-6
    return leads / np.where(present, deviation, np.inf), present


def _divide(a, b):
    """Divide; NaN where the divisor is next to nothing."""
    return a / np.where(np.abs(b) > 1e-9, b, np.nan)


def _median(values):
    values = values[np.isfinite(values)]
    return np.median(values) if len(values) else np.nan


# ---------------------------------------------------------------------------------------- rhythm
def _rhythm(rr):
    """Measure RR intervals (s) in units of their median; one odd beat moves few of these."""
    if not len(rr):
        return {}
    middle = np.median(rr)
    measured = {"median heart rate": 60 / middle, "shortest RR": rr.min() / middle,
                "longest RR": rr.max() / middle}
    if len(rr) >= 3:
        change = np.abs(np.diff(rr)) / middle
        measured |= {"RR deviation": np.median(np.abs(rr / middle - 1)),
                     "RR change": np.median(change),
                     "irregular RR share": np.mean(change > 0.1)}
    return measured


# ----------------------------------------------------------------------------------------- beats
def _similarity(beats, beat):
    """Correlate the QRS complex of each beat, over all leads, with the median beat's."""
    near = slice(BEFORE - 25, BEFORE + 35)
    a, b = (x[..., near, :] - x[..., near, :].mean(axis=-2, keepdims=True) for x in (beats, beat))
    return np.sum(a * b, axis=(1, 2)) / np.sqrt(np.sum(a**2, axis=(1, 2)) * np.sum(b**2) + 1e-12)


def _beats(leads, peaks):
    """Cut out the beats, (n, BEFORE + AFTER, 12), ectopic ones left out, and their median."""
    beats = leads[peaks[:, None] + np.arange(-BEFORE, AFTER)]
    beat = np.median(beats, axis=0)
    usual = _similarity(beats, beat) > 0.7
    if 3 <= usual.sum() < len(beats):
        beats = beats[usual]
        beat = np.median(beats, axis=0)
    return beats, beat


def _qrs(beat, present):
    """Return onset and end (samples), width and energy spread (ms) of the median beat's QRS.

    It reaches from the steepest moment, both ways, to where the mean slope of the leads stays for
    28 ms within 6 % of the way from its floor to its summit.
    """
    slope = np.abs(np.gradient(beat[:, present], axis=0)).mean(axis=1)
    slope = uniform_filter1d(slope, 3)
    summit = BEFORE - 20 + slope[BEFORE - 20:BEFORE + 21].argmax()
    floor = np.percentile(slope[BEFORE - 40:BEFORE + 70], 20)
    quiet = slope < floor + 0.06 * (slope[summit] - floor)
    quiet = uniform_filter1d(quiet.astype(float), 7) > 0.99
    before, after = np.flatnonzero(quiet[:summit]), np.flatnonzero(quiet[summit:])
    onset = max(before[-1] + 3 if len(before) else 0, summit - 40)
    end = summit + min(after[0] - 3 if len(after) else 50, 50)
    near = np.arange(summit - 35, summit + 36)
    weight = slope[near] ** 2 + 1e-12
    centre = np.average(near, weights=weight)
    spread = np.sqrt(np.average((near - centre) ** 2, weights=weight))
    return onset, max(end, onset + 5), (end - onset) * 1000 / GRID, spread * 1000 / GRID


def _shape(beat, onset, end, rr_samples, present):
    """Measure QRS, ST and T of the median beat by lead; also return the QRS heights (12,).

    Bundle branch block shows late: a last part of QRS that is positive in V1 (right) or negative
    there and slow in I and V6 (left), with ST and T opposed (Surawicz et al., Circulation
    2009;119:e235-e240). The level before QRS counts as zero.
    """
    level = beat - np.median(beat[max(onset - 8, 0):max(onset - 1, 1)], axis=0)
    qrs = level[onset:end]
    height = np.where(present, np.ptp(qrs, axis=0), 0)
    area = np.abs(qrs).sum(axis=0)
    st = level[min(end + 5, len(beat) - 12):end + 17].mean(axis=0)
    t_end = int(min(BEFORE + 0.65 * rr_samples, len(beat)))
    t_wave = level[min(end + 15, t_end - 5):t_end]
    t_wave = t_wave[np.abs(t_wave).argmax(axis=0), np.arange(12)]
    lasting = 1000 / GRID * _divide(area, np.abs(qrs).max(axis=0))
    by_lead = {
        "QRS net area": _divide(qrs.sum(axis=0), area),
        "QRS end": _divide(qrs[-10:].mean(axis=0), height),       # the last 40 ms
        "QRS area over height": lasting,
        "ST level": _divide(st, height), "T wave": _divide(t_wave, height)}
    measured = {f"{what} {name}": values[lead] for what, values in by_lead.items()
                for name, lead in (SHAPE_LEADS | {"II": LEAD_II}).items()}
    measured |= {"QRS area over height": _median(lasting),
                 "QRS summit time V1": 1000 / GRID * qrs[:, V1].argmax() if present[V1] else np.nan,
                 "ST deviation": _median(np.abs(by_lead["ST level"]))}
    return measured, height


def _p_wave(beats, onset, rr_samples, height):
    """Measure what comes before QRS: a P wave is the same in each beat, fibrillation is not.

    Consistency is the share of the mean beat in the power of the beats, their trends taken out.
    """
    start, end = max(0, int(BEFORE - 0.45 * rr_samples), onset - 62), onset - 4
    if end - start < 15:
        return {}
    part = beats[:, start:end]
    line = np.linspace(-1, 1, end - start)[:, None]
    part = part - part.mean(axis=1, keepdims=True)
    part -= line * (np.sum(part * line, axis=1, keepdims=True) / np.sum(line**2))
    mean = part.mean(axis=0)
    common, power = np.mean(mean**2, axis=0), np.mean(part**2, axis=(0, 1))
    consistency = np.where(height > 0, _divide(common, power), np.nan)
    wave = uniform_filter1d(mean[:, LEAD_II], 5)
    summit = wave.argmax()
    measured = {
        "P size": _median(_divide(np.sqrt(common), height)),
        "P noise": _median(_divide(np.sqrt(np.maximum(power - common, 0)), height)),
        "P II": _divide(wave[summit] - (wave[0] + wave[-1]) / 2, height[LEAD_II])}
    if height[LEAD_II]:
        measured["P summit to QRS II"] = (onset - start - summit) * 1000 / GRID
    if len(beats) >= 3:    # one beat always agrees with itself
        measured |= {"P consistency": _median(consistency),
                     "P consistency II": consistency[LEAD_II],
                     "best P consistency": np.nanmax(consistency, initial=-np.inf)}
    return measured


# -------------------------------------------------------------------------------------- spectrum
def _powers(leads):
    """Return a function that sums the spectral power of the leads from one frequency to another."""
    n = fft.next_fast_len(len(leads), real=True)
    power = np.abs(fft.rfft(leads, n, axis=0)) ** 2
    f = np.arange(len(power)) * GRID / n
    return lambda low, high: power[(f >= low) & (f < high)].sum(axis=0)


def _spectrum(leads, present):
    between = _powers(leads)
    whole = np.where(present, between(0.5, 30), 0)
    return {"power 2-4 Hz": _median(_divide(between(2, 4), whole)),
            "power 15-30 Hz": _median(_divide(between(15, 30), whole))}


def _residual(leads, beat, peaks, height):
    """Measure the 4-9 Hz waves of atrial fibrillation in what the median beat leaves over.

    Average beat subtraction (Slocum et al., J Electrocardiol 1992;25:1-8); the ends of the record,
    where a beat may have been cut and not found, are left out.
    """
    rest, taken = leads.copy(), np.zeros(len(leads), dtype=bool)
    for peak in peaks:
        start, end = max(peak - BEFORE, 0), min(peak + AFTER, len(leads))
        free = np.flatnonzero(~taken[start:end])    # the next beat's P wave is not taken twice
        rest[start + free] -= beat[start - peak + BEFORE + free]
        taken[start:end] = True
    rest = rest[max(peaks[0] - BEFORE, 0):peaks[-1] + AFTER]
    rest -= rest.mean(axis=0)
    between = _powers(rest)
    fibrillatory = between(4, 9)
    size = _divide(np.sqrt(2 * fibrillatory) / len(rest), height)
    share = np.where(height > 0, _divide(fibrillatory, between(1, 30)), np.nan)
    return {"fibrillatory power": _median(share), "fibrillatory size": _median(size),
            "fibrillatory size V1": size[V1]}


# ----------------------------------------------------------------------------------------- model
HEART_RATE = 4              # its place in the features; before it, statistics of lead II in mV
RATES = 0, 4                # heart rate and median heart rate, counted from there
FEATURE_NOISE = 0.5         # deviations; rates are spared, since 60 and 100 bpm divide classes
FEATURE_DROPOUT = 0.2       # share set to the mean; likewise


def create_large_model(keras, n_classes, sequence_length, feature_mean, feature_variance):
    """Build a network of multi-scale convolutions, lead mixing and attention over time.

    Parameters
    ----------
    keras : module
        Keras 3.
    n_classes, sequence_length : int
    feature_mean, feature_variance : array_like, shape (8 + len(EXTRA_FEATURES),)
        Of the training records: constants in the model, not weights.

    Returns
    -------
    keras.Model
        From (n, sequence_length, 12) "ecg" and (n, 8 + len(EXTRA_FEATURES)) "features", raw, where
        NaN counts as the mean, to probabilities (n, n_classes). 88,119 parameters for five classes.
    """
    layers = keras.layers
    ecg = keras.Input((sequence_length, 12), name="ecg")
    features = keras.Input((len(feature_mean),), name="features")
    x = _ecg_branch(keras, ecg)
    y = _feature_branch(keras, features, feature_mean, feature_variance)
    z = layers.Concatenate()([x, y])
    z = layers.Dense(64, activation="relu")(z)
    z = layers.Dropout(0.3)(layers.BatchNormalization(momentum=0.9)(z))
    probabilities = layers.Dense(n_classes, activation="softmax")(z)
    return keras.Model([ecg, features], probabilities, name="ecg_large")


def _ecg_branch(keras, ecg):
    """Reduce the ECG to 16 numbers: few, since it is by its details that hospitals differ."""
    layers = keras.layers
    # Filters over all leads: 60, 180 and 500 ms long at 50 Hz, about a Q wave, a QRS, a beat
    x = layers.Concatenate()([
        layers.Conv1D(12, size, strides=2, padding="same")(ecg) for size in (3, 9, 25)])
    x = layers.MaxPooling1D(2)(layers.SpatialDropout1D(0.1)(x))
    for width in (36, 48):
        x = layers.MaxPooling1D(2)(_multi_scale(layers, x, width))
    # Attention between moments, then one weighted mean over time for each head
    x = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(4, 16, dropout=0.1)(x, x)])
    weight = layers.Softmax(axis=1)(layers.Dense(4)(x))
    x = layers.Flatten()(keras.ops.einsum("nth,ntc->nhc", weight, x))
    x = layers.Dense(16, activation="relu")(layers.Dropout(0.5)(x))
    x = layers.Dropout(0.3)(layers.BatchNormalization(momentum=0.9)(x))
    # Half of the training records come without, so that the features learn to do alone
    return layers.Dropout(0.5, noise_shape=(None, 1))(x)


def _multi_scale(layers, x, width):
    """Three lengths of convolution side by side, and a way past them (residual)."""
    y = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
    y = layers.Concatenate()([
        layers.Conv1D(width // 2, size, padding="same")(y) for size in (3, 7, 15)])
    y = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(y))
    y = layers.Conv1D(width, 1)(y)
    return layers.Add()([y, x if x.shape[-1] == width else layers.Conv1D(width, 1)(x)])


def _feature_branch(keras, features, mean, variance):
    """Scale the features, in mV none; clips and noise keep the model from trusting any one."""
    layers, ops = keras.layers, keras.ops
    y = layers.Normalization(mean=mean, variance=variance)(features)
    y = ops.clip(ops.nan_to_num(y, nan=0.0), -2.5, 2.5)[:, HEART_RATE:]
    rates = ops.take(y, RATES, axis=1)
    y = layers.Dropout(FEATURE_DROPOUT)(layers.GaussianNoise(FEATURE_NOISE)(y))
    y = layers.Concatenate()([rates, y])
    for width in (128, 64):
        y = layers.Dense(width, activation="relu")(y)
        y = layers.Dropout(0.3)(layers.BatchNormalization(momentum=0.9)(y))
    return y


# Training settings that belong to this model, with AdamW: the learning rate falls to zero along a
# cosine over all steps, and the last weights are kept, without early stopping. XLA is slower here.
RECIPE = {
    "batch_size": 32, "epochs": 30, "learning_rate": 0.002, "weight_decay": 0.01,
    "sequence_length": 500, "schedule": "cosine", "stop_patience": 30, "settle": 0, "jit": False,
    "shift": 5.0, "lead_gain": 0.2, "amplitude_noise": 0.0}

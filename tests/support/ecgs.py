"""What several test files need: simulated records in the pipeline's lead order, scores, arrays."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import too_feature as script
from ecg import demo

ORDER = [demo.LEADS.index(lead) for lead in script.LEADS]
TIME = np.arange(5000)[:, None] / 500    # s


def simulated(category=demo.NORMAL, rate=75, noise="low", seed=0, **options):
    """Return a simulated record, in the order of script.LEADS, and its true R peaks."""
    signal, r_peaks = demo.simulate(category, rate, noise, seed, **options)
    return signal[:, ORDER], r_peaks


def drawn(category, noise, seed, **options):
    """Return the same with patient, rate and (in one of ten) an ectopic beat drawn by `seed`."""
    place = demo.CLASSES.index(category), list(demo.NOISE_LEVELS).index(noise)
    rng = np.random.default_rng([seed, *place])
    options = {"anatomy": demo.draw_anatomy(rng), "ectopic": rng.random() < 0.1, **options}
    rate = rng.uniform(*demo.RATES[category])
    return simulated(category, rate, noise, int(rng.integers(2**31)), **options)


def beats(*times, noise=0.0):
    """Return ten seconds at 500 Hz with a pulse like an R wave (1 mV) at each of `times` (s)."""
    pulses = sum(np.exp(-0.5 * ((TIME - time) / 0.012) ** 2) for time in times)
    return pulses + noise * np.random.default_rng(0).normal(size=(5000, 12))


def bpm(r_peaks, fs=500):
    """Return the mean heart rate over R peaks in samples."""
    return 60 * fs / np.diff(r_peaks).mean()


def matched(found, true, tolerance=25):
    """Count pairs of a found and a true peak within `tolerance` samples, each used once."""
    pairs = i = j = 0
    while i < len(found) and j < len(true):
        if abs(found[i] - true[j]) <= tolerance:
            pairs += 1
            i += 1
            j += 1
        elif found[i] < true[j]:
            i += 1
        else:
            j += 1
    return pairs


def f1(pairs, tolerance=25):
    """Return the F1 score of many (found, true) pairs of peak lists, pooled."""
    hits = sum(matched(found, true, tolerance) for found, true in pairs)
    return 2 * hits / sum(len(found) + len(true) for found, true in pairs)


@st.composite
def signals(draw, shortest, longest):
    """Draw any real (samples, 12) array: any dtype, NaN, infinities, huge, tiny, constant."""
    shape = draw(st.integers(shortest, longest)), 12
    if draw(st.booleans()):
        dtypes = ["f8", "f4", "f2", ">f8", "i1", "i2", "i8", "u1", "u8", "?"]
        return draw(hnp.arrays(draw(st.sampled_from(dtypes)), shape))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    signal = rng.normal(size=shape) * 10.0 ** draw(st.integers(-12, 12))
    signal += draw(st.sampled_from([0, 0.1, -5, 1e6, 1e300]))
    signal[:, : draw(st.integers(0, 12))] = draw(st.floats())
    for value in draw(st.lists(st.floats(), max_size=4)):
        signal[rng.random(shape) < draw(st.sampled_from([0.001, 0.1, 0.9]))] = value
    return signal


# What neither function takes for an ECG, and what its message must mention.
NOT_AN_ECG = {
    "text": ("abc", "abc|str|<U"),
    "words": ([["x"] * 12] * 600, "x|str|<U"),
    "digits in strings": (np.full((600, 12), "1.5"), "str|<U"),
    "bytes": (np.full((600, 12), b"1"), r"byte|\|S"),
    "None": (None, r"None|\(\)"),
    "one lead": (np.zeros(600), r"\(600,\)"),
    "a batch": (np.zeros((2, 600, 12)), r"\(2, 600, 12\)"),
    "11 leads": (np.zeros((600, 11)), r"\(600, 11\)"),
    "leads in rows": (np.zeros((12, 600)), r"\(12, 600\)"),
    "complex": (np.zeros((600, 12), complex), "complex"),
    "complex numbers in lists": ([[1j] * 12] * 600, "complex"),
    "empty": ([], r"\(0,\)"),
    "no samples": (np.zeros((0, 12)), "got.* 0|0, 12"),
    "too short": (np.zeros((9, 12)), "got.* 9|9, 12"),
    "ragged": ([[1.0] * 12, [2.0] * 11] * 300, "inhomogeneous"),
    "dates": (np.zeros((600, 12), "M8[s]"), "date"),
    "durations": (np.zeros((600, 12), "m8[s]"), "timedelta"),
    "a number no float holds": ([[10**400] * 12] * 600, "object|large|real numbers"),
    "a mapping": ({"I": [1.0]}, "dict|object"),
}

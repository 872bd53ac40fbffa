"""What several test files need: simulated records in the pipeline's lead order, scores, arrays."""

import re
from pathlib import Path

import numpy as np
import wfdb
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import too_feature as script
from ecg import demo

ORDER = [demo.LEADS.index(lead) for lead in script.LEADS]
TIME = np.arange(5000)[:, None] / 500    # s
GAIN = 200    # per mV


def simulated(category=demo.NORMAL, rate=75, noise="low", seed=0, **options):
    """Return a simulated record, in the order of script.LEADS, and its true R peaks."""
    signal, r_peaks = demo.simulate(category, rate, noise, seed, **options)
    return signal[:, ORDER], r_peaks


def drawn(category, noise, seed, **options):
    """Return the same with patient, rate and (in one of ten) an ectopic beat drawn by `seed`."""
    place = demo.CLASSES.index(category), list(demo.NOISE_LEVELS).index(noise)
    rng = np.random.default_rng([seed, *place])
    options = {"anatomy": demo.draw_anatomy(rng), "ectopic": rng.random() < 0.1, **options}
    rate = rng.uniform(*demo.RATES[category][0])
    return simulated(category, rate, noise, int(rng.integers(2**31)), **options)


def beats(*times, noise=0.0):
    """Return ten seconds at 500 Hz with a pulse like an R wave (1 mV) at each of `times` (s)."""
    pulses = sum(np.exp(-0.5 * ((TIME - time) / 0.012) ** 2) for time in times)
    return pulses + noise * np.random.default_rng(0).normal(size=(5000, 12))


def write_record(path, signal, fs=500, fmt="16", leads=script.LEADS, per_millivolt=1.0):
    """Write mV (samples, leads) as a WFDB record; return its path. NaN becomes "no sample"."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    digital = np.where(np.isnan(signal), demo.NO_SAMPLE, np.round(signal * GAIN)).astype(int)
    n = len(leads)
    wfdb.wrsamp(path.name, fs, ["mV"] * n, list(leads), d_signal=digital, fmt=[fmt] * n,
                adc_gain=[GAIN / per_millivolt] * n, baseline=[0] * n, write_dir=str(path.parent))
    return path


def edit_header(path, pattern, replacement):
    """Replace bytes for each match of a pattern in the header of a record."""
    header = Path(f"{path}.hea")
    content, changes = re.subn(pattern, replacement, header.read_bytes(), flags=re.MULTILINE)
    assert changes
    header.write_bytes(content)


def flip_bit(path, place):
    """Change one bit of a record's signal file."""
    content = bytearray(Path(f"{path}.dat").read_bytes())
    content[place] ^= 16
    Path(f"{path}.dat").write_bytes(content)


def r_peaks_of(lead, fs=500):
    """Return the R peaks of an ECG that has this lead (samples,) alone, as lead II."""
    signal = np.zeros((len(lead), 12))
    signal[:, script.LEAD_II] = lead
    return script.measure_rhythm(signal, fs).r_peaks


def bpm(r_peaks, fs=500):
    """Return the mean heart rate over R peaks in samples."""
    return 60 * fs / np.diff(r_peaks).mean()


def f1(pairs, tolerance=25):
    """Return the F1 score of many (detected, true) pairs of peak lists, pooled.

    A detected peak is right within `tolerance` samples of a true one, each used once.
    """
    hits = total = 0
    for detected, true in pairs:
        distance = np.abs(np.subtract.outer(detected, true))
        near = distance <= tolerance
        hits += min(near.any(axis=0).sum(), near.any(axis=1).sum())
        total += len(detected) + len(true)
    return 2 * hits / total


@st.composite
def signals(draw, shortest, longest):
    """Draw any real (samples, 12) array: any dtype and layout, NaN, infinities, huge, constant."""
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
    signal.flags.writeable = False
    return draw(st.sampled_from([signal, np.asfortranarray(signal), signal[::-1]]))


# What no function takes for an ECG, and what its message must mention
NOT_AN_ECG = {
    "text": ("abc", "abc|str|<U"),
    "one lead": (np.zeros(600), r"\(600,\)"),
    "11 leads": (np.zeros((600, 11)), r"\(600, 11\)"),
    "complex": (np.zeros((600, 12), complex), "complex"),
    "too short": (np.zeros((9, 12)), "got.* 9|9, 12"),
    "ragged": ([[1.0] * 12, [2.0] * 11] * 300, "inhomogeneous"),
}

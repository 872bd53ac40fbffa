"""The demo: about 600 synthetic 12-lead ECGs in MIMIC-IV-ECG's own format.

They stand in for data; they are not data. A beat is a sum of Gaussian waves of one cardiac vector
(after McSharry et al., IEEE Trans Biomed Eng 2003;50:289-294), projected on the leads with Dower's
matrix (Dower et al., J Electrocardiol 1980;13:251-258). III, aVR, aVL and aVF are computed from I
and II, so Einthoven's and Goldberger's laws hold. `simulate` also returns where every R peak truly
is.
"""

import datetime
import functools
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.signal import butter, sosfilt
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from ecg import files
from ecg.errors import UserError

FS = 500                    # Hz, as MIMIC-IV-ECG
SECONDS = 10
SAMPLES = SECONDS * FS
EDGE = 0.05 * FS            # samples at either end in which the record cuts a QRS complex
GAIN = 200.0                # ADC units per mV, as MIMIC-IV-ECG
NO_SAMPLE = -32768          # what format 16 keeps for "no sample"; readers return NaN
DEFAULT_DATA_DIR = "mimic-iv-ecg"
DEMO_FOLDER = "demo/p1900/"    # of all records of the demo, in the data folder
SEED = 20260                # changing it changes every record of the demo
N_PATIENTS = 300

# MIMIC-IV-ECG's lead order: aVF stands before aVL.
LEADS = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]

AF = "Atrial Fibrillation"
BRADY = "Bradycardia"
BBB = "Bundle Branch Block"
NORMAL = "Normal"
TACHY = "Tachycardia"

# Heart rates in bpm: the range of a class, and of borderline records of it, which could be taken
# for another class
RATES = {
    AF: ((55, 150), (60, 80)),
    BRADY: ((35, 58), (54, 59)),
    BBB: ((55, 98), (60, 100)),
    NORMAL: ((61, 98), (60, 66)),
    TACHY: ((102, 160), (101, 106)),
}
CLASSES = list(RATES)
CLASS_SHARES = [0.28, 0.18, 0.15, 0.24, 0.15]

# Power of the clean lead II over the power of muscle noise plus mains, in dB.
NOISE_LEVELS = {"clean": np.inf, "low": 24.0, "medium": 18.0, "high": 12.0}

# Dower's matrix: rows I, II, V1..V6; columns x (left), y (down), z (back).
DOWER = np.array([
    [0.632, -0.235, 0.059],
    [0.235, 1.066, -0.132],
    [-0.515, 0.157, -0.917],
    [0.044, 0.164, -1.387],
    [0.882, 0.098, -1.277],
    [1.213, 0.127, -0.601],
    [1.125, 0.127, -0.086],
    [0.831, 0.076, 0.230],
])
# Einthoven's and Goldberger's laws: I and II (rows) in I, II, III, aVR, aVF, aVL
LIMB_LEADS = np.array([
    [1, 0, -1, -0.5, -0.5, 1],
    [0, 1, 1, -0.5, 1, -0.5],
])


P_WAVE = [
    (-0.165, 0.020, 0.05, 0.10, -0.04),
    (-0.140, 0.018, 0.04, 0.04, 0.03)]


class Beat(NamedTuple):
    """The waves of one kind of beat.

    Each is a row of: time after the R wave's centre (s), standard deviation (s), x (left), y (down)
    and z (back) in mV. QRS times and widths are fixed; those of T are for RR = 1 s and scale with
    its root (Bazett).
    """

    qrs: list[tuple]
    t: list[tuple]
    p: list[tuple] = P_WAVE


NARROW_QRS = [
    (-0.022, 0.008, -0.12, 0.02, -0.26),
    (0.000, 0.011, 1.10, 0.85, 0.35),
    (0.023, 0.010, -0.15, -0.12, 0.55)]

USUAL_BEAT = Beat(
    NARROW_QRS,
    t=[(0.255, 0.048, 0.12, 0.13, -0.09),
       (0.295, 0.036, 0.17, 0.17, -0.12)])
LEFT_BLOCK_BEAT = Beat(
    qrs=[(-0.045, 0.014, 0.20, 0.10, 0.15),
         (-0.012, 0.019, 0.60, 0.60, 0.75),
         (0.040, 0.022, 0.75, 0.40, 0.70)],
    t=[(0.300, 0.060, -0.28, -0.13, -0.33)])

RIGHT_BLOCK_BEAT = Beat(
    qrs=[*NARROW_QRS, (0.062, 0.021, -0.42, -0.06, -0.62)],    # a late wave to the right
    t=[(0.270, 0.048, 0.14, 0.14, 0.10),
       (0.310, 0.036, 0.17, 0.16, 0.09)])
ECTOPIC_BEAT = Beat(
    qrs=[(-0.020, 0.020, -0.70, 1.70, 0.70),
         (0.040, 0.025, -0.75, 0.50, -0.45)],
    t=[(0.310, 0.060, 0.35, -0.50, -0.10)],
    p=[])


class Anatomy(NamedTuple):
    """What one patient's records share."""

    rotation: np.ndarray = np.eye(3)   # of the cardiac vector
    size: float = 1.0                  # of all waves
    t_size: float = 1.0                # of the T wave
    qrs_width: float = 1.0             # factor on QRS times and widths
    left_block: bool = True            # which bundle, if one is blocked


STANDARD = Anatomy()


class DemoRecord(NamedTuple):
    """A record of the demo: its row of the label file, and what it is drawn from."""

    subject_id: int
    waveform_path: str
    ecg_category: str
    seed: int


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient: axis within some 15 degrees, size, T wave, QRS width."""
    degrees = rng.normal(0, 12, 3) * [1, 1, -1]    # in the frontal, sagittal, horizontal plane
    return Anatomy(
        Rotation.from_euler("ZXY", degrees, degrees=True).as_matrix(),
        size=rng.uniform(0.65, 1.4),
        t_size=rng.uniform(0.5, 1.9),
        qrs_width=rng.uniform(0.92, 1.12),
        left_block=rng.random() < 0.5,
    )


# ---------------------------------------------------------------------------------------- rhythm
def _rr_intervals(category, heart_rate, rng):
    """Draw RR intervals (s) for more than a record: irregular in fibrillation, else breathing."""
    mean = 60.0 / heart_rate
    n = int(np.ceil((SECONDS + 3) / mean)) + 3
    if category == AF:
        spread = rng.uniform(0.13, 0.28)
        drawn = mean * rng.gamma(1 / spread**2, spread**2, n)
        return np.maximum(drawn, 0.27)

    depth = rng.uniform(0.01, 0.06) * min(1.0, mean)    # less sinus arrhythmia at high rates
    breath = rng.uniform(0.15, 0.35) * np.arange(n) * mean + rng.random()
    jitter = rng.normal(0, 0.004, n)
    return mean * (1 + depth * np.sin(2 * np.pi * breath) + jitter)


# ----------------------------------------------------------------------------------------- waves
def _usual_beat(category, anatomy):
    """Return the beat of a class: fibrillation has no P wave, and a block a wide QRS complex."""
    if category == BBB:
        return LEFT_BLOCK_BEAT if anatomy.left_block else RIGHT_BLOCK_BEAT
    return USUAL_BEAT._replace(p=[]) if category == AF else USUAL_BEAT


def _make_ectopic(rr, beats, heart_rate, rng):
    """Draw which beat is ectopic and change it and its RR intervals, in place.

    It comes a third early, but never before the ventricle has recovered.
    """
    last = int(SECONDS * heart_rate / 60 - 1)
    beat = int(rng.integers(3, max(4, last)))
    early = min(0.35 * rr[beat], max(0.0, rr[beat] - 0.34))
    rr[beat] -= early         # the interval before the beat
    rr[beat + 1] += early     # the compensatory pause after it
    beats[beat] = ECTOPIC_BEAT


def _add_waves(vector, time, waves, centre, size=1.0, stretch=1.0):
    """Add Gaussian `waves` around `centre` (s) to `vector` (samples, 3), in place."""
    for offset, width, *xyz in waves:
        distance = (time - centre - offset * stretch) / (width * stretch)
        near = np.abs(distance) < 5
        bell = np.exp(-0.5 * distance[near] ** 2)
        vector[near] += size * bell[:, None] * np.array(xyz)


def _r_offset(qrs, anatomy):
    """Return the time (s) from a beat's centre to its R peak: the top of clean QRS in lead II.

    Where the downward deflection is over 1.6 times the upward one, it is the nadir instead.
    """
    time = np.arange(-0.15, 0.15, 0.0005)
    vector = np.zeros((len(time), 3))
    _add_waves(vector, time, qrs, 0.0, stretch=anatomy.qrs_width)
    lead_ii = vector @ anatomy.rotation.T @ DOWER[1]
    is_down = -lead_ii.min() > 1.6 * lead_ii.max()
    return time[np.argmin(lead_ii) if is_down else np.argmax(lead_ii)]


def _fibrillatory_waves(rng):
    """Draw the cardiac vector (samples, 3) of fibrillating atria: large in V1 and lower leads."""
    frequency = rng.uniform(4.5, 8) + np.cumsum(rng.normal(0, 0.02, SAMPLES))
    phase = 2 * np.pi * np.cumsum(frequency) / FS
    waves = rng.uniform(0.02, 0.07) * (np.sin(phase) + 0.3 * np.sin(2 * phase))
    return waves[:, None] * np.array([0.1, 0.7, -1.0])


# ----------------------------------------------------------------------------------------- leads
def _noise(time, lead_ii_power, level, wander, rng):
    """Draw noise (mV) of the eight measured leads: baseline wander, muscle and mains."""
    angle = 2 * np.pi * time[:, None]
    phases = rng.random((8, 2)) * 2 * np.pi
    breathing = rng.uniform(0.15, 0.4)
    noise = np.sin(breathing * angle + phases[:, 0]) * wander * rng.uniform(0.4, 1, 8)
    band = butter(2, [15, 150], "bandpass", fs=FS, output="sos")
    muscle = sosfilt(band, rng.normal(size=(SAMPLES, 8)), axis=0)
    mains = rng.choice([50, 60])    # Hz
    hum = np.sin(mains * angle + phases[:, 1])
    disturbance = muscle / muscle.std() + rng.uniform(0.1, 0.6) * hum
    power = lead_ii_power / 10 ** (NOISE_LEVELS[level] / 10)
    return noise + disturbance * np.sqrt(power / disturbance.var(axis=0))


def simulate(category: str, heart_rate: float, noise_level: str = "low", seed: int = 0,
             anatomy: Anatomy = STANDARD, ectopic: bool = False, wander: float = 0.1,
             ) -> tuple[np.ndarray, np.ndarray]:
    """Simulate one 10-second ECG.

    Parameters
    ----------
    category : one of `CLASSES`
        Decides rhythm and QRS shape; the rate is `heart_rate` whatever the class.
    heart_rate : mean rate of the underlying rhythm, in bpm
    noise_level : a key of `NOISE_LEVELS`
    seed : the same arguments give the same record
    anatomy : the patient
    ectopic : whether there is one ventricular ectopic beat with a compensatory pause
    wander : amplitude of the baseline wander, in mV

    Returns
    -------
    signal : ndarray, shape (5000, 12), in mV, leads in the order of `LEADS`
    r_peaks : ndarray of float
        True positions in samples, but for those within 50 ms of either end.
    """
    rng = np.random.default_rng(seed)
    rr = _rr_intervals(category, heart_rate, rng)
    beats = [_usual_beat(category, anatomy)] * len(rr)
    if ectopic:
        _make_ectopic(rr, beats, heart_rate, rng)

    centres = np.cumsum(rr) - rr[0] - rng.random() * rr[0]
    time = np.arange(SAMPLES) / FS
    vector = np.zeros((SAMPLES, 3))
    for beat, centre, interval in zip(beats, centres, rr, strict=True):
        slow = np.sqrt(np.clip(interval, 0.25, 1.6))    # after a long interval, waves are wider
        _add_waves(vector, time, beat.qrs, centre, stretch=anatomy.qrs_width)
        _add_waves(vector, time, beat.t, centre, anatomy.t_size, slow)
        _add_waves(vector, time, beat.p, centre, stretch=np.clip(slow, 0.75, 1.0))

    if category == AF:
        vector += _fibrillatory_waves(rng)

    clean = anatomy.size * vector @ anatomy.rotation.T @ DOWER.T
    measured = clean + _noise(time, clean[:, 1].var(), noise_level, wander, rng)
    r_peaks = FS * (centres + [_r_offset(beat.qrs, anatomy) for beat in beats])
    inside = (r_peaks >= EDGE) & (r_peaks < SAMPLES - EDGE)
    leads = np.hstack([measured[:, :2] @ LIMB_LEADS, measured[:, 2:]])
    return leads, r_peaks[inside]


# --------------------------------------------------------------------------------------- records
def catalogue() -> list[DemoRecord]:
    """List the demo's records.

    About one patient in six has records of two classes, as real patients have.
    """
    rng = np.random.default_rng(SEED)
    study = 49_000_000
    records = []
    for subject_id in range(19_000_001, 19_000_001 + N_PATIENTS):
        usual = rng.choice(CLASSES, p=CLASS_SHARES)
        for _ in range(rng.choice([1, 2, 3, 4], p=[0.35, 0.35, 0.2, 0.1])):
            study += int(rng.integers(1, 40))
            category = rng.choice(CLASSES, p=CLASS_SHARES) if rng.random() < 0.12 else usual
            path = f"{DEMO_FOLDER}p{subject_id}/s{study}/{study}"
            records.append(DemoRecord(subject_id, path, str(category), study))

    return records


def _digital(record):
    """Draw one record of the demo, in ADC units with some samples missing."""
    anatomy = draw_anatomy(np.random.default_rng(record.subject_id))
    rng = np.random.default_rng(record.seed)
    is_borderline = rng.random() < 0.15
    signal, _ = simulate(
        record.ecg_category,
        heart_rate=rng.uniform(*RATES[record.ecg_category][is_borderline]),
        noise_level=rng.choice(["low", "medium", "high"]),
        seed=record.seed,
        anatomy=anatomy,
        ectopic=rng.random() < 0.06,
        wander=rng.uniform(0, 0.25))

    digital = np.clip(np.round(signal * GAIN), -32767, 32767).astype("<i2")
    if rng.random() < 0.1:
        start = rng.integers(0, SAMPLES - 60)
        length = rng.integers(3, 60)
        digital[start:start + length, rng.integers(12)] = NO_SAMPLE

    return digital


def _header(record, digital):
    """Return the text of a record's WFDB header, as `wfdb.wrsamp` would write it, but faster."""
    name = Path(record.waveform_path).name
    when = datetime.datetime(2180, 1, 1) + datetime.timedelta(minutes=record.seed % 500_000)
    lines = [f"{name} 12 {FS} {SAMPLES} {when:%H:%M:%S %d/%m/%Y}"]
    for lead, samples in zip(LEADS, digital.T, strict=True):
        checksum = samples.sum() % 2**16
        lines.append(f"{name}.dat 16 {GAIN:.1f}(0)/mV 16 0 {samples[0]} {checksum} 0 {lead}")

    lines += [f"# <subject_id>: {record.subject_id}", "# synthetic demo record"]
    return "\n".join(lines) + "\n"


def write_demo(data_dir: str | os.PathLike[str]) -> int:
    """Write the demo's records that `data_dir` lacks, moving each into place when whole.

    Parameters
    ----------
    data_dir : str or Path
        The folder that will hold `demo/`.

    Returns
    -------
    int
        How many records were written.
    """
    missing = [record for record in catalogue()
               if not os.path.exists(f"{data_dir}/{record.waveform_path}.hea")]
    for record in tqdm(missing, "writing demo", mininterval=1):
        digital = _digital(record)
        header = functools.partial(Path.write_text, data=_header(record, digital))
        stem = f"{data_dir}/{record.waveform_path}"
        files.write_whole(f"{stem}.dat", digital.tofile)
        files.write_whole(f"{stem}.hea", header)    # last: a record that has it is whole
    return len(missing)


def ensure_demo(labels: pd.DataFrame, data_dir: str) -> bool:
    """Write missing waveforms of the demo; return whether `labels` is the demo's.

    Raises
    ------
    UserError
        They cannot be written, or `data_dir` holds something else: then --labels was forgotten.
    """
    ours = [path for path in labels["waveform_path"] if path.startswith(DEMO_FOLDER)]
    if all(os.path.exists(f"{data_dir}/{path}.hea") for path in ours):
        return bool(ours)

    is_usual = os.path.abspath(data_dir) == os.path.abspath(DEFAULT_DATA_DIR)
    there = os.listdir(data_dir) if os.path.exists(data_dir) else []
    if there and "demo" not in there and not is_usual:
        raise UserError(f"--data-dir {data_dir}: holds no demo, but --labels is the demo's: "
                        "name the label file of these records")
    write_demo(data_dir)
    return True

"""Write the demo: about 600 synthetic 12-lead ECGs in MIMIC-IV-ECG's own format.

    python tools/make_demo.py                           # write mimic-iv-ecg/demo/
    python tools/make_demo.py --labels demo_labels.csv  # write the label file that names them

They stand in for data; they are not data. A beat is a sum of Gaussian waves of one cardiac vector
(after McSharry et al., IEEE Trans Biomed Eng 2003;50:289-294), projected on the leads with Dower's
matrix (Dower et al., J Electrocardiol 1980;13:251-258). III, aVR, aVL and aVF are computed from I
and II, so Einthoven's and Goldberger's laws hold. `simulate` also returns where every R peak truly
is. This file knows nothing of the training script, which imports it only when the demo's label file
is in use and its waveforms are missing.
"""

import argparse
import datetime
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import wfdb
from scipy.signal import butter, sosfilt
from tqdm import tqdm

FS = 500                    # Hz, as MIMIC-IV-ECG
SECONDS = 10
GAIN = 200.0                # ADC units per mV, as MIMIC-IV-ECG
NO_SAMPLE = -32768          # what format 16 keeps for "no sample"; readers return NaN
SEED = 20260                # changing it changes every record of the demo
N_PATIENTS = 300

# MIMIC-IV-ECG's lead order: aVF stands before aVL.
LEADS = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]

AF, BRADY, BBB, NORMAL, TACHY = CLASSES = [
    "Atrial Fibrillation", "Bradycardia", "Bundle Branch Block", "Normal", "Tachycardia"]
CLASS_SHARES = [0.28, 0.18, 0.15, 0.24, 0.15]

# Heart rates in bpm: the range of a class, and that of borderline records, next to another class.
RATES = {AF: (55, 150), BRADY: (35, 58), BBB: (55, 98), NORMAL: (61, 98), TACHY: (102, 160)}
BORDERLINE_RATES = {
    AF: (60, 80), BRADY: (54, 59), BBB: (60, 100), NORMAL: (60, 66), TACHY: (101, 106)}

# Power of the clean lead II over the power of muscle noise plus mains, in dB.
NOISE_LEVELS = {"clean": np.inf, "low": 24.0, "medium": 18.0, "high": 12.0}

# Dower's matrix: rows I, II, V1..V6; columns x (left), y (down), z (back).
DOWER = np.array([
    [0.632, -0.235, 0.059], [0.235, 1.066, -0.132],
    [-0.515, 0.157, -0.917], [0.044, 0.164, -1.387], [0.882, 0.098, -1.277],
    [1.213, 0.127, -0.601], [1.125, 0.127, -0.086], [0.831, 0.076, 0.230]])

# A wave: time after the R wave's centre (s), standard deviation (s), x (left), y (down), z (back)
# in mV. QRS times and widths are fixed; those of T are for RR = 1 s and scale with its root
# (Bazett).
P_WAVE = [(-0.165, 0.020, 0.05, 0.10, -0.04), (-0.140, 0.018, 0.04, 0.04, 0.03)]
T_WAVE = [(0.255, 0.048, 0.12, 0.13, -0.09), (0.295, 0.036, 0.17, 0.17, -0.12)]
QRS_NARROW = [
    (-0.022, 0.008, -0.12, 0.02, -0.26), (0.000, 0.011, 1.10, 0.85, 0.35),
    (0.023, 0.010, -0.15, -0.12, 0.55)]
QRS_LEFT_BLOCK = [
    (-0.045, 0.014, 0.20, 0.10, 0.15), (-0.012, 0.019, 0.60, 0.60, 0.75),
    (0.040, 0.022, 0.75, 0.40, 0.70)]
T_LEFT_BLOCK = [(0.300, 0.060, -0.28, -0.13, -0.33)]
QRS_RIGHT_BLOCK = [*QRS_NARROW, (0.062, 0.021, -0.42, -0.06, -0.62)]
T_RIGHT_BLOCK = [(0.270, 0.048, 0.14, 0.14, 0.10), (0.310, 0.036, 0.17, 0.16, 0.09)]
QRS_ECTOPIC = [(-0.020, 0.020, -0.70, 1.70, 0.70), (0.040, 0.025, -0.75, 0.50, -0.45)]
T_ECTOPIC = [(0.310, 0.060, 0.35, -0.50, -0.10)]


class Anatomy(NamedTuple):
    """What one patient's records share."""

    rotation: np.ndarray = np.eye(3)   # of the cardiac vector
    size: float = 1.0                  # of all waves
    t_size: float = 1.0                # of the T wave
    qrs_width: float = 1.0             # factor on QRS times and widths
    left_block: bool = True            # which bundle, if one is blocked


def draw_anatomy(rng):
    """Draw a patient: axis within some 15 degrees, size, T wave, QRS width."""
    rotation = np.eye(3)
    for plane in [(0, 1), (1, 2), (0, 2)]:
        angle, turn = np.radians(rng.normal(0, 12)), np.eye(3)
        cos, sin = np.cos(angle), np.sin(angle)
        turn[np.ix_(plane, plane)] = [[cos, -sin], [sin, cos]]
        rotation = rotation @ turn
    return Anatomy(rotation, size=rng.uniform(0.65, 1.4), t_size=rng.uniform(0.5, 1.9),
                   qrs_width=rng.uniform(0.92, 1.12), left_block=rng.random() < 0.5)


def _rr_intervals(category, heart_rate, rng):
    """RR intervals (s) for more than a record: irregular in fibrillation, else breathing."""
    mean = 60.0 / heart_rate
    n = int(np.ceil((SECONDS + 3) / mean)) + 3
    if category == AF:
        spread = rng.uniform(0.13, 0.28)
        return np.maximum(mean * rng.gamma(1 / spread**2, spread**2, n), 0.27)
    depth = rng.uniform(0.01, 0.06) * min(1.0, mean)    # less sinus arrhythmia at high rates
    breath = rng.uniform(0.15, 0.35) * np.arange(n) * mean + rng.random()
    return mean * (1 + depth * np.sin(2 * np.pi * breath) + rng.normal(0, 0.004, n))


def _add_waves(vector, time, waves, centre, size=1.0, stretch=1.0):
    """Add Gaussian `waves` round `centre` (s) to `vector` (samples, 3), in place."""
    for offset, width, *xyz in waves:
        distance = (time - centre - offset * stretch) / (width * stretch)
        near = np.abs(distance) < 5
        vector[near] += size * np.exp(-0.5 * distance[near] ** 2)[:, None] * np.array(xyz)


def _r_offset(qrs, anatomy):
    """Time (s) from a beat's centre to its R peak: the top of the clean QRS complex in lead II.

    Where the downward deflection is over 1.6 times the upward one, it is the nadir instead.
    """
    time = np.arange(-0.15, 0.15, 0.0005)
    vector = np.zeros((len(time), 3))
    _add_waves(vector, time, qrs, 0.0, stretch=anatomy.qrs_width)
    lead_ii = vector @ anatomy.rotation.T @ DOWER[1]
    return time[np.argmin(lead_ii) if -lead_ii.min() > 1.6 * lead_ii.max() else np.argmax(lead_ii)]


def _noise(n, lead_ii_power, level, wander, rng):
    """Noise (mV) of the eight measured leads: muscle and mains at `level`, and baseline wander."""
    time = np.arange(n) / FS
    phases = rng.random((8, 2)) * 2 * np.pi
    breathing = rng.uniform(0.15, 0.4)
    noise = np.sin(2 * np.pi * breathing * time[:, None] + phases[:, 0])
    noise *= wander * rng.uniform(0.4, 1, 8)
    if np.isfinite(NOISE_LEVELS[level]):
        band = butter(2, [15, 150], "bandpass", fs=FS, output="sos")
        muscle = sosfilt(band, rng.normal(size=(n, 8)), axis=0)
        hum = np.sin(2 * np.pi * rng.choice([50, 60]) * time[:, None] + phases[:, 1])
        disturbance = muscle / muscle.std() + rng.uniform(0.1, 0.6) * hum
        power = lead_ii_power / 10 ** (NOISE_LEVELS[level] / 10)
        noise += disturbance * np.sqrt(power / disturbance.var(axis=0))
    return noise


def _twelve_leads(measured):
    """All twelve leads in MIMIC-IV-ECG's order from I, II and V1..V6 (Einthoven, Goldberger)."""
    i, ii = measured[:, 0], measured[:, 1]
    return np.column_stack([i, ii, ii - i, -(i + ii) / 2, ii - i / 2, i - ii / 2, measured[:, 2:]])


def simulate(category, heart_rate, noise_level="low", seed=0, anatomy=None, ectopic=False,
             wander=0.1):
    """Simulate one 10-second ECG.

    Parameters
    ----------
    category : str
        One of `CLASSES`: decides rhythm and QRS shape; the rate is `heart_rate` whatever the class.
    heart_rate : float
        Mean rate of the underlying rhythm, in bpm.
    noise_level : str
        A key of `NOISE_LEVELS`.
    seed : int
        The same arguments give the same record.
    anatomy : Anatomy, optional
        The patient; a standard one if left out.
    ectopic : bool
        Whether one ventricular ectopic beat with a compensatory pause is put in.
    wander : float
        Amplitude of the baseline wander, in mV.

    Returns
    -------
    signal : ndarray, shape (5000, 12)
        In mV, leads in the order of `LEADS`.
    r_peaks : ndarray of float
        True R-peak positions in samples, but for those within 50 ms of either end, whose complex
        the record cuts.
    """
    rng = np.random.default_rng(seed)
    anatomy = anatomy or Anatomy()
    blocked = category == BBB
    qrs = (QRS_LEFT_BLOCK if anatomy.left_block else QRS_RIGHT_BLOCK) if blocked else QRS_NARROW
    t_wave = (T_LEFT_BLOCK if anatomy.left_block else T_RIGHT_BLOCK) if blocked else T_WAVE
    rr = _rr_intervals(category, heart_rate, rng)
    ectopic_beat = int(rng.integers(3, max(4, SECONDS * heart_rate / 60 - 1))) if ectopic else -1
    if ectopic:    # a third early, but never before the ventricle has recovered
        early = min(0.35 * rr[ectopic_beat], max(0.0, rr[ectopic_beat] - 0.34))
        rr[ectopic_beat] -= early         # the interval before the beat
        rr[ectopic_beat + 1] += early     # the compensatory pause after it
    centres = np.cumsum(rr) - rr[0] - rng.random() * rr[0]

    time = np.arange(SECONDS * FS) / FS
    vector, r_peaks = np.zeros((len(time), 3)), []
    for beat, centre in enumerate(centres):
        is_ectopic = beat == ectopic_beat
        shape = QRS_ECTOPIC if is_ectopic else qrs
        slow = np.sqrt(np.clip(rr[beat], 0.25, 1.6))
        _add_waves(vector, time, shape, centre, stretch=anatomy.qrs_width)
        t_shape = T_ECTOPIC if is_ectopic else t_wave
        _add_waves(vector, time, t_shape, centre, anatomy.t_size, slow)
        if category != AF and not is_ectopic:
            _add_waves(vector, time, P_WAVE, centre, stretch=np.clip(slow, 0.75, 1.0))
        r_peaks.append(centre + _r_offset(shape, anatomy))
    if category == AF:    # fibrillatory waves, largest in V1 and the lower leads
        frequency = rng.uniform(4.5, 8) + np.cumsum(rng.normal(0, 0.02, len(time)))
        phase = 2 * np.pi * np.cumsum(frequency) / FS
        waves = rng.uniform(0.02, 0.07) * (np.sin(phase) + 0.3 * np.sin(2 * phase))
        vector += waves[:, None] * np.array([0.1, 0.7, -1.0])

    clean = anatomy.size * vector @ anatomy.rotation.T @ DOWER.T
    measured = clean + _noise(len(time), clean[:, 1].var(), noise_level, wander, rng)
    r_peaks, edge = np.array(r_peaks) * FS, 0.05 * FS
    return _twelve_leads(measured), r_peaks[(r_peaks >= edge) & (r_peaks < len(time) - edge)]


def catalogue():
    """List the demo's records: (subject_id, waveform_path, ecg_category, seed).

    About one patient in six has records of two classes, as real patients have.
    """
    rng = np.random.default_rng(SEED)
    rows, study = [], 49_000_000
    for subject_id in range(19_000_001, 19_000_001 + N_PATIENTS):
        usual = rng.choice(CLASSES, p=CLASS_SHARES)
        for _ in range(rng.choice([1, 2, 3, 4], p=[0.35, 0.35, 0.2, 0.1])):
            study += int(rng.integers(1, 40))
            category = rng.choice(CLASSES, p=CLASS_SHARES) if rng.random() < 0.12 else usual
            folder = f"demo/p{str(subject_id)[:4]}/p{subject_id}/s{study}"
            rows.append((subject_id, f"{folder}/{study}", str(category), study))
    return rows


def _demo_record(subject_id, category, seed):
    """Draw one record of the demo, in ADC units with some samples missing."""
    anatomy = draw_anatomy(np.random.default_rng(subject_id))
    rng = np.random.default_rng(seed)
    rates = BORDERLINE_RATES if rng.random() < 0.15 else RATES
    signal, _ = simulate(category, rng.uniform(*rates[category]),
                         rng.choice(["low", "medium", "high"]), seed, anatomy,
                         ectopic=rng.random() < 0.06, wander=rng.uniform(0, 0.25))
    digital = np.clip(np.round(signal * GAIN), -32767, 32767).astype(np.int64)
    if rng.random() < 0.1:
        start, length = rng.integers(0, len(digital) - 60), rng.integers(3, 60)
        digital[start:start + length, rng.integers(12)] = NO_SAMPLE
    return digital


def write_demo(data_dir):
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
    data_dir = Path(data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    missing = [row for row in catalogue() if not (data_dir / f"{row[1]}.hea").exists()]
    for subject_id, path, category, seed in tqdm(missing, desc="writing demo", mininterval=1,
                                                 disable=not missing):
        target = data_dir / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data_dir) as scratch:
            when = datetime.datetime(2180, 1, 1) + datetime.timedelta(minutes=seed % 500_000)
            wfdb.wrsamp(target.name, write_dir=scratch, sig_name=LEADS, fs=FS,
                        d_signal=_demo_record(subject_id, category, seed), fmt=["16"] * 12,
                        units=["mV"] * 12, adc_gain=[GAIN] * 12, baseline=[0] * 12,
                        base_time=when.time(), base_date=when.date(),
                        comments=[f"<subject_id>: {subject_id}", "synthetic demo record"])
            for ending in (".dat", ".hea"):    # the header last: a record with a header is whole
                os.replace(Path(scratch) / f"{target.name}{ending}", f"{target}{ending}")
    return len(missing)


def label_text():
    """Return the text of the label file that names the demo's records."""
    return "".join(f"{subject_id},{path},{name}\n" for subject_id, path, name, _ in catalogue())


def main(arguments=None):
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     usage=argparse.SUPPRESS)    # so that an error takes one line
    parser.add_argument("--data-dir", default="mimic-iv-ecg", type=Path,
                        help="folder that will hold demo/ (default: mimic-iv-ecg)")
    parser.add_argument("--labels", type=Path, help="write this label file, not the records")
    args = parser.parse_args(arguments)
    try:
        if args.labels:
            args.labels.write_text(label_text())
            return 0
        n = write_demo(args.data_dir)
    except OSError as error:
        print(f"make_demo.py: error: {error}", file=sys.stderr)
        return 2
    print(f"{n} synthetic records written below {args.data_dir}/demo")
    return 0


if __name__ == "__main__":
    sys.exit(main())

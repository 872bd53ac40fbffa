"""Train a five-class ECG classifier on MIMIC-IV-ECG: labels and waveforms in, report and model out.

    python too_feature.py                                             # the built-in synthetic demo
    python too_feature.py --labels my_labels.csv --data-dir my_data   # your own records
    python too_feature.py --help                                      # every setting, with its unit

The file reads in the order in which the data flows: settings, environment, labels, split, sample,
read, preprocess, features, prepare, augment, model, train, evaluate, save, main.
"""

import sys

if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    print("error: Python 3.10, 3.11 or 3.12 is needed, for TensorFlow 2.16", file=sys.stderr)
    raise SystemExit(2)

import runpy
from pathlib import Path

TOOLS = Path(__file__).resolve().parent / "tools"
if __name__ == "__main__" and (TOOLS / "stop.py").exists():    # Ctrl-C may come during imports
    runpy.run_path(str(TOOLS / "stop.py"))["watch"](Path(__file__).name)

import argparse
import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib.metadata
import io
import itertools
import json
import os
import re
import shlex
import time
from typing import NamedTuple

import numpy as np
import pandas as pd
import wfdb
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks
from sklearn.metrics import classification_report
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_sample_weight
from tqdm import tqdm

# -------------------------------------------------------------------------------------- settings
TRAIN_SAMPLES = 1500        # in equal shares of the classes; an 8 GB laptop trains on it in minutes
SEQUENCE_LENGTH = 500       # 10 s at 50 Hz: QRS and P waves survive, and every LSTM step costs time
BATCH_SIZE = 4              # small enough for any laptop; its noisy gradients also regularise
EPOCHS = 15                 # at most: early stopping may end before

class UserError(Exception):
    """Something the user can mend: printed as one line, exit code 2."""
    def __init__(self, message):
        super().__init__(" ".join(message.split()))

class RecordError(ValueError):
    """A record that cannot be used: 'reason: detail', and the report counts by reason."""

def flag(default, text, *limits):
    """Declare a field of `Settings`: default, help text, and its range or its choices."""
    return dataclasses.field(default=default, metadata={"help": text, "limits": limits})

@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run; each is also a flag (`batch_size` is --batch-size)."""
    labels: str = flag("ecg_5_class_data.csv", "label file: subject_id,waveform_path,ecg_category")
    data_dir: str = flag("mimic-iv-ecg", "folder that waveform paths start from")
    output: str = flag("ecg_stable_lstm_model.keras", "model to write; a .json goes beside it")
    results: str = flag("results", "folder for report, figures and tables, in one of model's name")
    figures: bool = flag(True, "draw figures and write a model card there")
    tensorboard: bool = flag(False, "write events for TensorBoard there")
    jobs: int = flag(0, "processes that prepare records; 0: as many as pay", 0, 1024)
    scheduler: str = flag("", "tcp://host:port of a Dask scheduler, to prepare them there instead")
    cache: bool = flag(True, "keep prepared records for the next run")
    cache_dir: str = flag(".ecg_cache", "folder to keep them in")
    resume: bool = flag(False, "go on after the last epoch that an interrupted run finished")
    seed: int = flag(42, "seed of everything random", 0, 2**32 - 1)
    recipe: str = flag("default", "thesis: mended; best: more epochs", "default", "thesis", "best")
    model: str = flag("lstm", "lstm; or large, with more features (tools/)", "lstm", "large")
    repeats: int = flag(1, "models to train on other seeds; saved as one ensemble", 1, 100)
    test_labels: str = flag("", "label file of another hospital, to test on instead")
    test_data_dir: str = flag("", "folder that its paths start from (default: --data-dir)")
    train_samples: int = flag(TRAIN_SAMPLES, "training records over all classes", 2, 10**7)
    val_samples: int = flag(300, "validation records at most", 2, 10**7)
    test_samples: int = flag(400, "test records at most", 2, 10**7)
    max_unusable: float = flag(0.5, "share of a class's records that may be damaged", 0, 1)
    test_share: float = flag(0.15, "test patients, share of all", 0.01, 0.9)
    val_share: float = flag(0.15, "validation patients, share of the rest", 0.01, 0.9)
    # Preprocessing: hospitals differ in filters; quartiles as the unit would clip QRS complexes
    sequence_length: int = flag(SEQUENCE_LENGTH, "points per 10-second record", 50, 5000)
    high_pass: float = flag(0.5, "Hz below which baseline wander is taken out; 0: none", 0, 5)
    central_share: float = flag(0.99, "share of a lead's samples that sets its scale", 0.1, 1)
    span: float = flag(3.0, "units that they span", 0.1, 6)
    # Model: Keras's own start forgets a beat in 60 ms; normalisation by four records is noise
    memory: float = flag(4.0, "s of the LSTM's longest memory at first; 0: as in Keras", 0, 10)
    settle: int = flag(375, "steps after which batch normalisation is kept; 0: never", 0, 10**9)
    feature_limit: float = flag(2.5, "deviations at which scaled features are cut off", 0.5, 1000)
    batch_size: int = flag(BATCH_SIZE, "records per training step", 2, 4096)
    epochs: int = flag(EPOCHS, "passes over the training records at most", 1, 10_000)
    learning_rate: float = flag(0.0005, "Adam's step size at the start", 1e-8, 1)
    weight_decay: float = flag(0.0, "share of a weight lost per step and unit of step size", 0, 1)
    schedule: str = flag("plateau", "step size: halved on plateaus, or cosine", "plateau", "cosine")
    reduce_patience: int = flag(3, "epochs without a better loss make a plateau", 1, 10_000)
    stop_patience: int = flag(5, "epochs without better validation accuracy to stop", 1, 10_000)
    keep: str = flag("last", "weights: last, or best by accuracy once settled", "last", "best")
    # Augmentation: noise small beside a lead's span, gains as electrodes' contact varies
    noise_probability: float = flag(0.3, "share of records given noise", 0, 1)
    noise_size: float = flag(0.05, "its deviation, in scaled units", 0, 3)
    scaling_probability: float = flag(0.2, "share of records scaled", 0, 1)
    scaling_size: float = flag(0.1, "largest relative change of amplitude", 0, 0.9)
    shift: float = flag(5.0, "s at most by which a record is moved around in time", 0, 5)
    lead_gain: float = flag(0.2, "deviation of each lead's log gain", 0, 2)
    amplitude_noise: float = flag(2.0, "noise on the features mean and SD, in deviations", 0, 10)
    jit: bool = flag(None, "compile the step with XLA (default: if a tiny trial works)")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, limits = getattr(self, field.name), field.metadata["limits"]
            with contextlib.suppress(ValueError):    # text that is no number stays, to be refused
                value = field.type(value) if isinstance(value, str) else value
                object.__setattr__(self, field.name, value)
            if limits and not (value in limits if isinstance(value, str) else
                               limits[0] <= value <= limits[1]):
                kind = "a whole number" if field.type is int else "a number"
                expected = (f"one of {', '.join(limits)}" if field.type is str else
                            f"{kind} from {limits[0]} to {limits[1]}")
                name = field.name.replace("_", "-")
                raise UserError(f"--{name} {value!s:.80}: expected {expected}")
        if self.test_data_dir and not self.test_labels:
            raise UserError("--test-data-dir: expected --test-labels beside it")
        for file in filter(os.path.isfile, (self.data_dir, self.test_data_dir, self.cache_dir)):
            raise UserError(f"{file}: expected a folder for --data-dir or --cache-dir, got a file")

def parse_settings(arguments=None):
    """Read the command line, which is built from `Settings`, into one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False,
                                     usage=argparse.SUPPRESS)    # so that an error takes one line
    for field in dataclasses.fields(Settings):
        kind = ({"action": argparse.BooleanOptionalAction} if field.type is bool else
                {"metavar": field.type.__name__.upper()})
        default = " (default: %(default)s)" if field.default not in (None, "") else ""
        parser.add_argument("--" + field.name.replace("_", "-"), default=field.default,
                            help=field.metadata["help"] + default, **kind)
    asked = Settings(**vars(parser.parse_args(arguments)))
    if (asked.recipe, asked.model) != ("default", "lstm"):
        parser.set_defaults(**tool("recipes").defaults(asked.recipe, asked.model))
    return Settings(**vars(parser.parse_args(arguments)))

@functools.cache
def _defined_in(source):
    return argparse.Namespace(**runpy.run_path(str(source))) if source.exists() else None

def tool(name, needed=True):
    """Return what tools/`name`.py defines; if it is missing and not `needed`, None."""
    found = _defined_in(TOOLS / f"{name}.py")
    if needed and not found:
        raise UserError(f"tools/{name}.py is missing: copy tools/ beside the script for this")
    return found

@contextlib.contextmanager
def mendable(what, errors=(OSError, ImportError)):
    """Report such errors, which the user can mend, in one line that says about what."""
    try:
        yield
    except errors as error:
        raise UserError(f"{what}: {error}") from error

# ----------------------------------------------------------------------------------- environment
@functools.cache
def load_tensorflow():
    """Import TensorFlow, only where a model is built, with all GPUs hidden; return it and Keras."""
    os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_METAL_DEVICE_ENABLE="0",
                      TF_USE_LEGACY_KERAS="0")    # Keras 2 would give other optimizers
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")    # where KERAS_BACKEND=jax is asked for
    try:
        import tensorflow as tf
        if tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16):
            raise ImportError(f"{tf.__version__} is too old")
        import keras
    except Exception as error:    # not installed, or beside a tensorflow-metal that does not fit
        raise UserError(f"TensorFlow 2.16 or newer is needed ({str(error).splitlines()[0]}): "
                        "pip install -r requirements.txt") from error
    with contextlib.suppress(RuntimeError):    # a notebook may have used TensorFlow before
        tf.config.set_visible_devices([], "GPU")    # Metal crashes (SIGBUS) or slows LSTMs
        tf.config.threading.set_intra_op_parallelism_threads(1)   # so small a model is not shared
    return tf, keras

def versions():
    """Return name and version of what could change a result."""
    names = r"tensorflow(.cpu|.macos|.metal)?|keras|jax|numpy|scipy|pandas|scikit.learn|wfdb"
    return {"python": sys.version.split()[0], "platform": sys.platform} | {
        package.name: package.version for package in importlib.metadata.distributions()
        if re.fullmatch(names, package.name or "")}    # a broken installation has no name

# ---------------------------------------------------------------------------------------- labels
COLUMNS = ["subject_id", "waveform_path", "ecg_category"]
# Folders and a name below the data folder: no '..', no leading '/' or '~', no drive, no URL.
SAFE_PATH = r"(?!.{1000})(?!(?:.*/)?\.\.?(?:/|$))[\w.][\w .,+=@()-]*(?:/[\w.][\w .,+=@()-]*)*"

def read_labels(path):
    """Read a label file (UTF-8, a row per record, no header) into a DataFrame of `COLUMNS`.

    A byte order mark, a header, blank lines and duplicates are passed over, extensions cut off, and
    case variants of a class merged. `UserError` names the first malformed row.
    """
    try:    # pandas itself would also open a URL or an archive, and cut a cell at a NUL
        if os.stat(path).st_size > 2e8 or not os.path.isfile(path):    # MIMIC-IV-ECG has 6e7 bytes
            raise ValueError("not a plain file of at most 200 MB")
        text = Path(path).read_text(encoding="utf-8-sig")
        for number, line in enumerate(io.StringIO(text), 1):
            if line.count('"') % 2 or "\0" in line or number > 3e6:
                raise ValueError(f"line {number}: open quote, NUL (UTF-16?), or too many lines")
        rows = pd.read_csv(io.StringIO(text), header=None, names=[*COLUMNS, "excess"], dtype=str,
                           index_col=False, na_filter=False, skip_blank_lines=False)
    except (OSError, ValueError) as error:    # parser errors and UnicodeDecodeError among them
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: expected a label file, as CSV UTF-8: {why}") from error

    def refuse(bad, why):
        if bad.any():
            raise UserError(f"{path}, line {bad.idxmax() + 1}: expected {why}, got "
                            f"{','.join(rows.loc[bad.idxmax()]).rstrip(',')[:80]!r}")

    rows = rows.fillna("").apply(lambda column: column.str.strip())
    rows = rows[(rows != "").any(axis=1)]
    if len(rows) and re.fullmatch(r"[A-Za-z_ ]+", "".join(rows.iloc[0])):
        rows = rows.iloc[1:]    # a header: letters only
    refuse((rows[COLUMNS] == "").any(axis=1) | (rows["excess"] != ""),
           f"three columns {','.join(COLUMNS)} with commas, as CSV UTF-8")
    refuse(~rows["subject_id"].str.fullmatch(r"[0-9]{1,18}"),
           "a whole number as subject_id (format it as text in a spreadsheet)")
    rows["waveform_path"] = rows["waveform_path"].str.replace(
        r"^mimic-iv-ecg/|\.(?:hea|dat)$", "", regex=True)
    refuse(~rows["waveform_path"].str.fullmatch(SAFE_PATH),
           "a waveform path inside the data folder (short, no '..', no '/' in front, no URL)")
    rows["ecg_category"] = rows["ecg_category"].str.split().str.join(" ")
    refuse(~rows["ecg_category"].map(lambda name: name.isprintable() and len(name) <= 100),
           "a class name of at most 100 printable characters")
    rows = rows[COLUMNS].astype({"subject_id": "int64"})
    folded = rows["ecg_category"].str.casefold()
    rows["ecg_category"] = rows["ecg_category"].groupby(folded).transform(lambda c: c.mode()[0])
    rows = rows.drop_duplicates()
    ambiguous = rows["waveform_path"].duplicated(keep=False)
    if ambiguous.any():
        print(f"notice: left out {ambiguous.sum()} rows that give a record several classes or "
              f"patients, the first on line {ambiguous.idxmax() + 1}")
    rows = rows[~ambiguous].reset_index(drop=True)
    counts = rows["ecg_category"].value_counts()
    if not 2 <= len(counts) <= 100:
        raise UserError(f"{path}: expected 2 to 100 classes in column 3, got {len(counts)}")
    for name, n in counts.items():
        for like in difflib.get_close_matches(name, counts.index[counts >= 10 * n], 1, 0.8):
            print(f"notice: {name!r} ({n} record{'s' * (n > 1)}), did you mean {like!r}?")
    return rows

# ----------------------------------------------------------------------------------------- split
def split_patients(labels, test_share=0.15, val_share=0.15, seed=42):
    """Split records by patient; return {'train', 'validation', 'test': DataFrame}.

    Stratified by each patient's rarest class, then repaired: every class of three patients or more
    is in all three (a smaller one in training), or `UserError` where no assignment can do that.
    """
    table = pd.crosstab(labels["subject_id"], labels["ecg_category"]) > 0
    table[""] = True    # as if of a class that all are in: no split may be empty
    member = table.to_numpy().astype(int)                            # (patients, classes)
    size = member.sum(axis=0)
    rarest = np.where(member, size, np.inf).argmin(axis=1)
    split = np.zeros(len(member), dtype=int)
    for number, share in ((2, test_share), (1, val_share)):
        pool = np.flatnonzero(split == 0)
        strata = rarest[pool]
        strata[np.bincount(strata)[strata] < 2] = np.bincount(strata).argmax()    # one joins most
        for stratify in (strata, None):    # None: too few patients, the repair will see to it
            with contextlib.suppress(ValueError):
                split[train_test_split(pool, test_size=share, random_state=seed,
                                       stratify=stratify)[1]] = number
                break
    needed = np.where((size < 3) & (table.columns != ""), [[1], [0], [0]], 1)    # (splits, classes)
    if any((member[split == i].sum(axis=0) < needed[i]).any() for i in range(3)):
        split = tool("extras").repair(split, member, needed, np.random.default_rng(seed))
    if split is None:
        scarce = ", ".join(table.columns[np.argsort(size[:-1])[:3]])
        raise UserError(f"too few patients, or the same, for every class in each split: {scarce}")
    of_record = labels["subject_id"].map(pd.Series(split, index=table.index))
    splits = {name: labels[of_record == i].reset_index(drop=True)
              for i, name in enumerate(("train", "validation", "test"))}
    assert sum(part["subject_id"].nunique() for part in splits.values()) == len(table)
    return splits

# ---------------------------------------------------------------------------------------- sample
def balanced_sampling(df, target_samples, random_state=42, repeat=True):
    """Draw `target_samples // n_classes` records from every class of a DataFrame; shuffle them.

    A record's rank depends on the seed and its path alone: taking one out changes no other's. Only
    with `repeat`, meant for training, a class that is short repeats its records, evenly.
    """
    if df.empty:
        raise ValueError("expected records to draw from, got none")
    paths = df["waveform_path"].to_numpy(dtype=object)
    rank = pd.util.hash_array(paths, hash_key=f"{random_state:016d}"[-16:])
    wanted, drawn = max(1, target_samples // df["ecg_category"].nunique()), []
    ranked = df.iloc[np.argsort(rank, kind="stable")]
    for _, records in ranked.groupby("ecg_category", observed=True):
        places = np.arange(wanted if repeat else min(wanted, len(records)))
        drawn.append(records.iloc[places % len(records)])
    return pd.concat(drawn).sample(frac=1, random_state=random_state).reset_index(drop=True)

# ------------------------------------------------------------------------------------------ read
RECORD_SECONDS = 10         # of a longer record, the first
MIN_SECONDS = 9.5           # a shorter one would be stretched by more than 5 % when resampled
MIN_FS, MAX_FS = 50, 4000   # Hz; the QRS band reaches to 20 Hz
MIN_LEADS = 6               # of 12 must carry a signal
MIN_LEAD_RANGE = 0.02       # mV; a lead that moves less carries none
MAX_GAP_SHARE = 0.2         # of a lead may be missing and interpolated; beyond that it carries none
MAX_AMPLITUDE = 1000.0      # mV; no electrode gives more, so such a sample counts as missing
# MIMIC-IV-ECG stores aVF before aVL: leads are picked by name, into this order.
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LEAD_II, HEART_RATE = 1, 4    # their places in LEADS and FEATURES
FEATURES = (    # name, unit and, where users are shown one, the usual range
    ("mean", "mV", None), ("standard deviation", "mV", None), ("skewness", "", None),
    ("kurtosis", "", None), ("heart rate", "bpm", (60, 100)), ("SDNN", "ms", (20, 50)),
    ("RMSSD", "ms", (15, 40)), ("CV_RR", "", (0.03, 0.07)))
MILLIVOLTS = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "nv": 1e-6}    # WFDB headers are ASCII

# A signal's line: file name, format, and a gain that is not 0, which wfdb would take for 200
SIGNAL = re.compile(r"(\w[\w.-]{0,99}) +\d{1,3}(?:x1)?(?:\+\d{1,6})? +(?!-?[0.]+(?:e\S*)?[(/ ])")

def _read_header(path, data_dir):
    """Check sizes and file names, which wfdb would trust; return rate, length and signal lines."""
    root = os.path.realpath(data_dir)

    def check_file(file):
        if not os.path.isfile(file):
            raise RecordError(f"file is missing: {os.path.basename(file)}")
        if os.path.commonpath([root, os.path.realpath(file)]) != root:
            raise RecordError(f"link out of the data folder: {os.path.basename(file)}")

    check_file(f"{path}.hea")
    with open(f"{path}.hea", encoding="ascii", errors="ignore") as file:
        text = file.read(65_537)    # far more than twelve leads need
    lines = [line for line in text.splitlines() if line.strip() and line[0] != "#"] or [""]
    record = re.match(r"[\w.-]+ +([1-9]\d?) +(\d{1,5}(?:\.\d+)?)\S* +(\d{1,12})(?!\S)", lines[0])
    signals = [SIGNAL.match(line) for line in lines[1:]]
    if not record or not all(signals) or len(signals) != int(record[1]) or len(text) > 65_536:
        raise RecordError("header is damaged")
    if "::" in os.path.abspath(path):    # wfdb's file layer would take it for a chain of URLs
        raise RecordError("path holds '::'")
    for name in {match[1] for match in signals}:
        check_file(os.path.join(os.path.dirname(path), name))
    return float(record[2]), int(record[3]), lines[1:]

@np.errstate(all="ignore")    # what damaged numbers lead to is checked
def read_record(path, data_dir=None):
    """Read ten seconds of a 12-lead WFDB record, by its path without extension.

    Returns float (samples, 12) in mV in the order of `LEADS`, gaps interpolated and leads without
    signal all zeros, and the rate in Hz; or `RecordError` says why it cannot be used. Nothing
    outside `data_dir` (by default the record's own folder) is read.
    """
    path = str(path)
    try:
        fs, length, lines = _read_header(path, data_dir or os.path.dirname(path) or ".")
        if not MIN_FS <= fs <= MAX_FS:
            raise RecordError(f"sampling rate not supported: {fs:g} Hz, not {MIN_FS} to {MAX_FS}")
        if length < MIN_SECONDS * fs:
            raise RecordError(f"too short: {length / fs:.1f} s, not {MIN_SECONDS} or more")
        samples = min(length, int(RECORD_SECONDS * fs))
        fast = tool("fast_read", needed=False)
        record = (fast and fast.read(path, lines, samples)) or wfdb.rdrecord(
            path, sampto=samples, physical=False)
        signal, names, units = record.dac(), record.sig_name, record.units
        sums = np.einsum("ij->j", record.d_signal).astype(np.uint16)
        given = np.array([int(x or 0) % 65_536 for x in record.checksum])
    except Exception as error:    # wfdb raises whatever the damage leads to
        known = isinstance(error, RecordError | EOFError)
        raise RecordError(str(error) if known else f"cannot be read: {error!r:.99}") from error
    names = [str(name).strip().casefold() for name in names]
    if odd := [lead for lead in LEADS if names.count(lead.casefold()) != 1]:
        raise RecordError(f"lead missing or doubled: {' '.join(odd)}")
    columns = [names.index(lead.casefold()) for lead in LEADS]
    scale = [MILLIVOLTS.get(str(units[column]).casefold()) for column in columns]
    if None in scale:
        raise RecordError(f"unit is not a voltage: {units[columns[scale.index(None)]]!r:.20}")
    wrong = (sums != given)[columns]
    if samples == length and given.any() and wrong.any():    # all 0: nobody computed them
        raise RecordError(f"wrong checksum: {' '.join(np.array(LEADS)[wrong])}")
    signal = signal.T[columns].T * scale
    valid = np.abs(signal) <= MAX_AMPLITUDE
    signal = _as_leads(signal if valid.all() else np.where(valid, signal, np.nan))
    usable = np.ptp(signal, axis=0) >= MIN_LEAD_RANGE
    usable &= valid.all() or valid.mean(axis=0) >= 1 - MAX_GAP_SHARE
    if usable.sum() < MIN_LEADS:
        raise RecordError(f"too little signal: in {usable.sum()} leads, not {MIN_LEADS} or more")
    return signal if usable.all() else np.where(usable, signal, 0.0), fs

# ------------------------------------------------------------------------------------ preprocess
def _as_leads(signal, shortest=1, fs=None, n_leads=12):
    """Validate an ECG; return float64 (samples, n_leads), not to be changed, each lead contiguous.

    Gaps in a lead are interpolated; a lead of gaps alone is 0. With `fs`, a second is the shortest.
    """
    if fs is not None and not MIN_FS <= fs <= MAX_FS:
        raise ValueError(f"expected fs from {MIN_FS} to {MAX_FS} Hz, got {fs}")
    leads, shortest = np.asarray(signal), shortest if fs is None else int(np.ceil(fs))
    if leads.ndim != 2 or leads.shape[1] != n_leads or leads.dtype.kind not in "biuf":
        raise ValueError(f"expected real numbers of shape (samples, {n_leads}), got "
                         f"{leads.dtype} of shape {leads.shape}")
    if len(leads) < shortest:
        raise ValueError(f"expected {shortest} samples or more, got {len(leads)}")
    leads = leads.astype(np.float64, copy=False)
    if not (leads.min() > -1e9 and leads.max() < 1e9):    # NaN, infinities, what no converter gives
        leads = pd.DataFrame(np.where(np.abs(leads) < 1e9, leads, np.nan))
        leads = leads.interpolate(limit_direction="both").fillna(0.0).to_numpy()
    return np.asfortranarray(leads)

def stable_preprocess_ecg(raw_signal, target_length=500, high_pass=0.5, central_share=0.99,
                          span=3.0):
    """Band-limit and resample a 12-lead ECG, and scale each lead robustly.

    Parameters
    ----------
    raw_signal : array_like (10 or more samples, 12), ten seconds; NaN and infinities interpolated
    target_length : int, points to resample to
    high_pass : float, Hz of a squared second-order Butterworth response without phase shift, or 0
    central_share, span : float, the central share of a lead's samples spans that much (0.5: IQR)

    Returns
    -------
    ndarray of float32 (target_length, 12): leads less their medians, scaled, clipped to [-3, 3], 0
        where flat. `ValueError` if the input is not of that shape or not real numbers.
    """
    signal = _as_leads(raw_signal, shortest=10)
    flat = np.ptp(signal, axis=0) < 1e-6
    # In the frequency domain nothing aliases. The cosine transform is the Fourier transform of the
    # signal and its mirror image: with no step from the last sample to the first, which would ring.
    spectrum = fft.dct((signal - signal.mean(axis=0)).astype("f4"), axis=0)[:target_length]
    wave = np.arange(len(spectrum))[:, None]    # half waves in the record
    hertz4 = (wave / (2 * RECORD_SECONDS)) ** 4
    response = hertz4 / np.maximum(hertz4 + high_pass**4, 1e-12) if high_pass else 1.0
    start = np.exp(0.5j * np.pi * wave / len(signal))    # the transform starts half a sample late
    leads = fft.irfft(spectrum * response * start, 2 * target_length, axis=0)[:target_length]
    leads *= target_length / len(signal)
    low, median, high = np.quantile(leads, 0.5 + np.array([-0.5, 0, 0.5]) * central_share, axis=0)
    spikes_only = high - low < 1e-3 * np.ptp(leads, axis=0)    # their range says nothing
    spread = np.where(spikes_only, leads.std(axis=0), (high - low) / span)
    scaled = np.where(flat, 0.0, (leads - median) / np.where(flat, 1.0, spread))
    return np.clip(scaled, -3, 3).astype(np.float32, order="C")

# -------------------------------------------------------------------------------------- features
@functools.lru_cache
def _band_response(low, high, fs, samples):
    hertz = np.arange(samples) * fs / (2 * samples)
    return 1 / (1 + ((hertz**2 - low * high) / np.maximum(hertz * (high - low), 1e-9)) ** 4)

def _band_pass(lead, low, high, fs):
    """Filter by a squared second-order Butterworth response (Hz), without phase shift."""
    return fft.idct(fft.dct(lead) * _band_response(low, high, fs, len(lead)))

def _qrs_envelope(lead, fs):
    """Return the energy of a lead's QRS complexes (Pan & Tompkins, IEEE TBME 1985;32:230-236).

    The two moving averages have a single summit, where a boxcar's plateau would jitter. Under 0.5
    (mV/s)^2 nothing is a QRS complex; cut off at twice the usual beat (but not below 1/400 of the
    largest), so that a large ectopic beat or artefact does not hide the others.
    """
    energy = (np.gradient(_band_pass(lead, 5, 20, fs)) * fs) ** 2
    for _ in range(2):
        energy = uniform_filter1d(energy, round(0.08 * fs), mode="constant")
    window = int(2 * fs)
    starts = range(0, max(1, len(energy) - window // 2), window)
    usual = np.median([energy[i:i + window].max() for i in starts])
    return np.clip(energy - 0.5, 0, max(2 * usual, energy.max() / 400))

def detect_r_peaks(lead, fs):
    """Find the R peaks of one lead (a second or more, `fs` in Hz); return positions in samples.

    Peaks of the QRS envelope are shifted by up to 60 ms to where each fits the median beat best;
    the R peak is that beat's top (or its nadir, if 1.6 times as large): so neither noise nor the
    notch of a wide QRS moves it. Complexes that the record's ends cut are left out.
    """
    lead = _as_leads(np.expand_dims(lead, -1), fs=fs, n_leads=1)[:, 0]
    envelope = _qrs_envelope(lead, fs)
    coarse = find_peaks(envelope, height=np.std(envelope) * 0.5, distance=fs // 4)[0]
    if not len(coarse):
        return np.zeros(0)
    # A T wave comes soon after a beat and is less than half as steep (Pan & Tompkins)
    t_wave = (np.diff(coarse) < 0.36 * fs) & (envelope[coarse[1:]] < 0.25 * envelope[coarse[:-1]])
    coarse = np.delete(coarse, np.flatnonzero(t_wave) + 1)
    half, near, edge = round(0.1 * fs), round(0.07 * fs), 0.05 * fs
    width = 2 * half + 1
    smooth = _band_pass(lead, 1, 40, fs)
    smooth -= np.median(smooth)
    beats = sliding_window_view(np.pad(smooth, half), width)    # beats[i] is centred on sample i
    square, mean = (uniform_filter1d(x, width, mode="constant") for x in (smooth**2, smooth))
    deviation = np.sqrt(np.maximum(square - mean**2, 0)) + 1e-12
    around = coarse[:, None] + np.arange(-round(0.06 * fs), round(0.06 * fs) + 1)
    around, centres = np.clip(around, 0, len(lead) - 1), coarse
    for _ in range(2):    # the second median beat is sharper, being made of aligned beats
        beat = np.median(beats[centres], axis=0)
        pattern = (beat - beat.mean()) / (beat.std() + 1e-12)
        correlation = np.correlate(smooth, pattern, "same") / (width * deviation)
        centres = around[np.arange(len(coarse)), correlation[around].argmax(axis=1)]
    three = centres + np.array([[-1], [0], [1]])
    before, at, after = correlation[np.clip(three, 0, len(lead) - 1)]
    bend = np.minimum(before - 2 * at + after, -1e-9)    # vertex of the parabola through the three
    top = beat.argmin() if -beat.min() > 1.6 * beat.max() else beat.argmax()
    peaks = centres + np.clip((before - after) / (2 * bend), -0.5, 0.5) + top - half
    own = np.abs(beats[coarse])[:, half - near:half + near + 1].argmax(axis=1) + coarse - near
    size = smooth[np.clip(np.rint(peaks).astype(int), 0, len(lead) - 1)] / beat[top]
    at_end = (coarse < half) | (coarse >= len(lead) - half)
    odd = (at < 0.7) | at_end & (size < 0.5)    # an ectopic beat, or what the record leaves of one
    peaks = np.where(odd, own, peaks)
    return np.unique(peaks[(peaks >= edge) & (peaks < len(lead) - edge) & ~(odd & at_end)])

def find_r_peaks(leads, fs):
    """Find the R peaks of an ECG (samples, 12) in lead II or, if that is flat, the steepest."""
    step = round(0.02 * fs)
    steps = leads[step:] - leads[:-step]
    steepness = np.sqrt(np.einsum("ij,ij->j", steps, steps))
    flat = steepness[LEAD_II] < 0.4 * np.median(steepness[steepness > 0] if steepness.any() else 0)
    return detect_r_peaks(leads[:, steepness.argmax() if flat else LEAD_II], fs)

def extract_core_medical_features(signal, fs=100):
    """Measure the eight features of `FEATURES`.

    Parameters
    ----------
    signal : array_like (samples, 12), a second or more in mV, in the order of `LEADS`
    fs : float, its true sampling rate in Hz

    Returns
    -------
    ndarray (8,)
        Mean, standard deviation, skewness and excess kurtosis of lead II; heart rate (bpm), SDNN
        (ms), RMSSD (ms) and CV_RR = SDNN / mean RR over all beats found (Task Force of the ESC and
        NASPE, Circulation 1996;93:1043-1065). NaN: not measurable, as on a flat lead, or with
        fewer than two beats (rate) or three (the others). `ValueError` if the input is not so.
    """
    leads = _as_leads(signal, fs=fs)
    features = np.full(len(FEATURES), np.nan)
    lead = leads[:, LEAD_II]
    mean, deviation = features[:2] = lead.mean(), lead.std()
    if deviation > 1e-6:
        z = (lead - mean) / deviation
        features[2:4] = np.mean(z * z * z), np.mean((z * z) ** 2) - 3
    rr = np.diff(find_r_peaks(leads, fs)) / fs    # RR intervals, s
    if len(rr) >= 1:
        features[4] = 60 / rr.mean()
    if len(rr) >= 2:
        sdnn, rmssd = rr.std(ddof=1), np.sqrt(np.mean(np.diff(rr) ** 2))
        features[5:] = 1000 * sdnn, 1000 * rmssd, sdnn / rr.mean()
    return features

# --------------------------------------------------------------------------------------- prepare
PREPARATION = "model", "sequence_length", "high_pass", "central_share", "span"    # shape the inputs

class Records(NamedTuple):
    """The prepared records of one split."""
    rows: pd.DataFrame          # subject_id, waveform_path, ecg_category
    signals: np.ndarray         # float32 (n, sequence_length, 12), or as such from disk
    features: np.ndarray        # float32 (n, 8); NaN: not measurable
    targets: np.ndarray         # int (n,), index into the class names

def prepare_record(path, data_dir=None, settings=None):
    """Read one record; return the model's inputs, float32 (sequence_length, 12) and (8 or more)."""
    settings = settings or Settings()
    signal, fs = read_record(path, data_dir)
    features = extract_core_medical_features(signal, fs)
    if settings.model == "large":    # its own features follow the eight
        features = np.append(features, tool("large_model").extra_features(
            signal, fs, find_r_peaks(signal, fs)))
    ecg = stable_preprocess_ecg(signal, settings.sequence_length, settings.high_pass,
                                settings.central_share, settings.span)
    return ecg, features.astype(np.float32)

def feature_names(settings):
    """Return `FEATURES`, for the large model with its own after them."""
    return FEATURES + (tool("large_model").EXTRA_FEATURES if settings.model == "large" else ())

# What prepares records, as it is now: a file of the cache tells by its name which code made it
CODE = re.search(r"-- read\n.*-- augment\n", Path(__file__).read_text(encoding="utf-8"), re.S)[0]

def prepare_or_say_why(path, data_dir, settings, code=None):
    """Do as `prepare_record`; return its two arrays and "", or two None and why it cannot."""
    if code not in (None, CODE):    # that of the process which asks
        raise UserError("a worker runs another version of the script: restart the workers")
    try:
        return *prepare_record(path, data_dir, settings), ""
    except RecordError as error:
        return None, None, str(error)

def prepare(paths, settings, data_dir, title):
    """Prepare records; return (signal, features, why it is left out) of each."""
    one = functools.partial(prepare_or_say_why, data_dir=data_dir, settings=settings, code=CODE)
    paths = [f"{data_dir}/{path}" for path in paths]
    if not (store := tool("store", needed=settings.scheduler != "")):
        return [one(path) for path in tqdm(paths, title, disable=not paths)]
    shapes = (settings.sequence_length, len(LEADS)), (len(feature_names(settings)),)
    key = CODE, versions(), [getattr(settings, name) for name in PREPARATION]
    with mendable(title):    # on all cores, and kept in a cache
        return store.prepare_or_recall(paths, one, shapes, key, write_whole, settings, title)

def load_split(name, labels, classes, settings, left_out):
    """Sample and prepare the records of one split; add those not usable to `left_out`, with why.

    Each makes place for another of its class; one that is not on disk is never drawn.
    """
    data_dir, prepared, new = os.path.abspath(settings.data_dir), {}, [None]
    class_of = labels.set_index("waveform_path")["ecg_category"]
    target_samples = getattr(settings, {"validation": "val"}.get(name, name) + "_samples")
    elsewhere = name == "test" and settings.test_labels
    if elsewhere:    # every record there is
        data_dir, target_samples = os.path.abspath(settings.test_data_dir or data_dir), 10**9
    usable = labels[[os.path.exists(f"{data_dir}/{x}.hea") for x in labels["waveform_path"]]]
    if missing := len(labels) - len(usable):
        print(f"notice: {name} draws from {len(usable)} records, {missing} more are not on disk")
    while new and len(usable):
        sample = balanced_sampling(usable, target_samples, settings.seed, name == "train")
        new = [path for path in sample["waveform_path"].unique() if path not in prepared]
        prepared |= zip(new, prepare(new, settings, data_dir, f"reading {name}"), strict=True)
        whys = pd.Series({path: why for path, (_, _, why) in prepared.items()})
        left_out += whys[new][whys[new] != ""].items()
        usable = usable[~usable["waveform_path"].isin(whys.index[whys != ""])]
        if extras := tool("extras", needed=False):
            tried = whys.groupby(class_of)
            with mendable(data_dir, ValueError):
                extras.stop_if_unusable(tried, settings.max_unusable, name, not new)
    have = usable["ecg_category"].value_counts()
    gone = sorted(set(labels["ecg_category"]) - set(have.index))
    if gone and not (elsewhere and len(have)):
        raise UserError(f"{data_dir}: no usable {name} record of {', '.join(gone)} (left out: "
                        f"{reasons(left_out)}); to fetch those that a run draws: "
                        f"python tools/fetch_records.py {shlex.join(sys.argv[1:])}")
    if absent := sorted(set(classes) - set(have.index)):
        print(f"notice: {name} has no record of {', '.join(absent)}")
    signals, features, _ = zip(*map(prepared.get, sample["waveform_path"]), strict=True)
    store = tool("store", needed=False)
    return Records(sample, store.Signals(signals) if store else np.stack(signals),
                   np.stack(features), pd.Index(classes).get_indexer(sample["ecg_category"]))

def reasons(left_out):
    """Count left-out records by reason, as in 'file is missing (1), too short (3)'."""
    counts = pd.Series([why.split(":")[0] for _, why in left_out], dtype=str).value_counts()
    return ", ".join(f"{reason} ({n})" for reason, n in counts.sort_index().items()) or "none"

# --------------------------------------------------------------------------------------- augment
def lightweight_augmentation(signal, rng=None, settings=None):
    """Add noise to some records and change the amplitude of some; for training only.

    Each record of `signal`, (samples, 12) or (n, samples, 12), draws for itself from the NumPy
    generator `rng`. Returns float32 of that shape, clipped to [-3, 3]; `ValueError` if not finite.
    """
    rng, settings = rng or np.random.default_rng(), settings or Settings()
    batch = np.array(signal, ndmin=3)
    if batch.ndim > 3 or batch.dtype.kind not in "biuf" or not np.isfinite(batch).all():
        raise ValueError(f"expected finite numbers, got {batch.dtype} of shape {batch.shape}")
    batch = np.clip(batch, -1e9, 1e9).astype(np.float32)
    scaled = rng.random(len(batch)) < settings.scaling_probability
    noisy = rng.random(len(batch)) < settings.noise_probability
    change = rng.uniform(-settings.scaling_size, settings.scaling_size, len(batch))
    batch *= np.float32(1 + scaled * change)[:, None, None]
    noise = rng.standard_normal((noisy.sum(), *batch.shape[1:]), dtype=np.float32)
    batch[noisy] += np.float32(settings.noise_size) * noise
    return np.clip(batch, -3, 3).reshape(np.shape(signal))

def vary_recording(signals, features, rng, settings, amplitude_noise=0.0):
    """Vary what another moment, electrode or device would have changed; for training only.

    `signals` (n, samples, 12) are moved in a circle of time and each lead gets a gain of its own;
    mean and deviation in `features` (n, 8 or more) get noise, in mV. Returns float32 copies.
    """
    n, samples, leads = signals.shape
    most = round(settings.shift * samples / RECORD_SECONDS)
    places = (np.arange(samples) + rng.integers(-most, most + 1, (n, 1))) % samples
    gain = np.exp(rng.normal(0, settings.lead_gain, (n, 1, leads))).astype(np.float32)
    features = features.copy()
    features[:, :2] += rng.normal(0, amplitude_noise, (n, 2))
    return signals[np.arange(n)[:, None], places] * gain, features

# ----------------------------------------------------------------------------------------- model
def create_lightweight_lstm_model(n_classes=5, sequence_length=SEQUENCE_LENGTH,
                                  feature_mean=(0.0,) * 8, feature_variance=(1.0,) * 8,
                                  feature_limit=2.5, memory=4.0):
    """Build the dual-branch LSTM, 8,461 parameters for five classes.

    Parameters
    ----------
    feature_mean, feature_variance : array_like (8,), constants in the model, not weights
    feature_limit : float, deviations from the mean at which scaled features are cut off
    memory : float, s; forget gates start with memories of all lengths up to it (Tallec & Ollivier,
        Can recurrent neural networks warp time?, ICLR 2018), or for 0 as Keras starts them

    Returns
    -------
    keras.Model: (n, sequence_length, 12) and (n, 8), NaN counting as the mean, to (n, n_classes)
    """
    keras = load_tensorflow()[1]
    layers = keras.layers

    def dense(x, units, dropout):
        x = layers.BatchNormalization()(layers.Dense(units, activation="relu")(x))
        return layers.Dropout(dropout)(x)

    ecg = keras.Input((sequence_length, len(LEADS)), name="ecg")
    lstm = layers.LSTM(32, dropout=0.2)
    x = lstm(ecg)
    if memory:    # a gate of bias b forgets in some exp(b) steps
        steps = np.linspace(1, max(2, memory * sequence_length / RECORD_SECONDS - 1), lstm.units)
        lstm.cell.bias.assign(np.concatenate([-np.log(steps), np.log(steps), 0 * steps, 0 * steps]))
    x = dense(x, 24, 0.3)
    features = keras.Input((len(FEATURES),), name="features")
    y = layers.Normalization(mean=feature_mean, variance=feature_variance)(features)
    y = keras.ops.clip(keras.ops.nan_to_num(y, nan=0.0), -feature_limit, feature_limit)
    z = dense(layers.Concatenate()([x, dense(y, 16, 0.2)]), 32, 0.3)
    probabilities = layers.Dense(n_classes, activation="softmax")(z)
    return keras.Model([ecg, features], probabilities, name="ecg_lightweight_lstm")

# ----------------------------------------------------------------------------------------- train
def training_batches(records, settings, first_epoch=0):
    """Yield (inputs, targets, weights) for ever, shuffled and augmented afresh in each pass."""
    rng, n = np.random.default_rng([settings.seed, first_epoch]), len(records.targets)
    weights = compute_sample_weight("balanced", records.targets).astype(np.float32)
    noise = settings.amplitude_noise * pd.DataFrame(records.features[:, :2]).std(ddof=0).fillna(0)
    size = min(settings.batch_size, n)
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):    # a short last batch would be compiled anew
            batch = order[start:start + size]
            signals, features = vary_recording(records.signals[batch], records.features[batch],
                                               rng, settings, noise)
            signals = lightweight_augmentation(signals, rng, settings)
            yield (signals, features), records.targets[batch], weights[batch]

def whole_batches(records, weights):
    """Return all records in batches that Keras takes, each with its weight."""
    tf, keras = load_tensorflow()
    arrays = (records.signals, records.features), records.targets, weights
    if store := tool("store", needed=False):    # from disk as needed; for XLA, of one shape
        return store.whole_batches(keras, *arrays)
    return tf.data.Dataset.from_tensor_slices(arrays).batch(100)

def predict(model, records):
    """Return the probabilities (n, n_classes) that a model gives to records."""
    n = len(records.targets)
    return model.predict(whole_batches(records, np.ones(n)), verbose=0)[:n]

def compile_model(model, schedule_steps, settings, jit, at_once=1):
    """Prepare the model for training with a fresh Adam, on a cosine of so many steps if asked."""
    optimizers, rate = load_tensorflow()[1].optimizers, settings.learning_rate
    if settings.schedule == "cosine":
        rate = optimizers.schedules.CosineDecay(rate, schedule_steps)
    model.compile(optimizers.Adam(rate, weight_decay=settings.weight_decay or None),
                  "sparse_categorical_crossentropy", weighted_metrics=["accuracy"],
                  jit_compile=jit, steps_per_execution=at_once)

def train(training, validation, n_classes, settings, folder=None):
    """Train a model; return it, its temperature already divided out, that, and its history."""
    keras = load_tensorflow()[1]
    keras.utils.set_random_seed(settings.seed)    # Python's, NumPy's and TensorFlow's
    features = pd.DataFrame(training.features, dtype=float)    # whose statistics pass over NaN
    mean, variance = features.mean().fillna(0), features.var(ddof=0).fillna(1).replace(0, 1)
    shape = n_classes, settings.sequence_length, mean, variance
    model = (tool("large_model").create_large_model(keras, *shape) if settings.model == "large" else
             create_lightweight_lstm_model(*shape, settings.feature_limit, settings.memory))
    jit = settings.jit
    if fast := tool("fast_lstm", needed=False):    # as exact, and twice as fast
        fast.quicken_all(keras, model)
        jit = fast.xla_works(keras) if jit is None else jit
    n, start, history, done = len(training.targets), time.monotonic(), [], 0
    print(f"{model.count_params():,} parameters, {n} training and {len(validation.targets)} "
          f"validation records, XLA {'on' if jit else 'off'}")

    def print_epoch(epoch, logs):
        history.append(logs)
        names = "loss", "accuracy", "val_loss", "val_accuracy"
        print(f"epoch {epoch + 1:2}/{settings.epochs}", *(f" {x} {logs[x]:.3f}" for x in names),
              f" {time.monotonic() - start:.0f} s", flush=True)

    callbacks = [keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=settings.stop_patience,
        restore_best_weights=settings.keep == "best")]
    if settings.schedule == "plateau":
        callbacks.append(keras.callbacks.ReduceLROnPlateau(
            factor=0.5, patience=settings.reduce_patience, min_lr=1e-6))
    callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=print_epoch))
    if folder:    # which gets after each epoch what --resume goes on from
        content = [*training[2:], *validation[2:], np.fromfile(__file__, "u1")]
        with mendable(str(folder), (ValueError, ImportError)):
            done = tool("progress").follow(keras, callbacks, history, folder, settings, versions(),
                                           content, write_whole)
    weights = compute_sample_weight("balanced", validation.targets)
    steps = max(1, n // settings.batch_size)
    at_once = max(i for i in range(1, 26 if jit else 2) if steps % i == 0)    # per call of Keras
    settle = min(-(-settings.settle // steps), settings.epochs)    # in epochs
    normalisations = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for first, last in itertools.pairwise(sorted({0, settle, settings.epochs})):
        if last < done or callbacks[0].stopped_epoch:    # done before, or stopped early
            continue
        for layer in normalisations:
            layer.trainable = not first    # if not, Keras normalises by what it has gathered
        compile_model(model, steps * (settings.epochs - first), settings, jit, at_once)
        batches, passed = training_batches(training, settings, first), max(0, done - first)
        for _ in range(passed * steps):    # so that the next is the one it would have been
            next(batches)
        model.fit(batches, steps_per_epoch=steps, initial_epoch=first + passed, epochs=last,
                  verbose=0, callbacks=callbacks, shuffle=False,
                  validation_data=whole_batches(validation, weights))
    for layer in normalisations:
        layer.trainable = True    # as whoever goes on training the model would expect
    temperature, found = 1.0, predict(model, validation)
    if report := tool("report", needed=False):    # softmax(x / temperature), without another layer
        temperature = report.fit_temperature(found, validation.targets, weights)
        model.layers[-1].set_weights([x / temperature for x in model.layers[-1].get_weights()])
    return model, temperature, history

# -------------------------------------------------------------------------------------- evaluate
def evaluate(each, temperatures, test, classes, shares):
    """Return the report on the test `Records` as text, and its figures ready for JSON.

    `each` is (models, n, n_classes), probabilities; `shares` are the classes' in the label file.
    """
    if not (report := tool("report", needed=False)):    # intervals, rate rule, calibration
        predicted = np.array(classes)[np.mean(each, axis=0).argmax(axis=1)]
        return classification_report(test.rows["ecg_category"], predicted, zero_division=0), {}
    vitals = slice(HEART_RATE, len(FEATURES))
    return report.evaluate(np.array(each), temperatures, test.targets,
                           test.rows["subject_id"].to_numpy(), test.features[:, vitals], classes,
                           FEATURES[vitals], shares)

# ------------------------------------------------------------------------------------------ save
def write_whole(path, write):
    """Let `write` fill a file beside `path`, then move it there: `path` is never half written."""
    scratch = path.with_name(f".{os.urandom(16).hex()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(scratch)
        os.replace(scratch, path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()

def sha256(path):
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()

def save(model, card, path):
    """Save the model, and beside it as .json its card: all that is needed to use it.

    Until both are in place, the card is a .json.new: at any moment, a whole one fits the model.
    """
    keras, new = load_tensorflow()[1], path.with_suffix(".json.new")

    def write_both(scratch):
        keras.Model(model.inputs, model.outputs, name=model.name).save(scratch)    # no optimizer
        text = json.dumps({**card, "model_sha256": sha256(scratch)}, indent=1)
        write_whole(new, lambda file: file.write_text(text, encoding="utf-8"))

    write_whole(path, write_both)
    with mendable(f"{path}, whose card stays {new}"):
        os.replace(new, path.with_suffix(".json"))

# ------------------------------------------------------------------------------------------ main
def ensure_demo(labels, data_dir):
    """Have missing waveforms of the demo written; return whether `labels` is the demo's."""
    ours = [x for x in labels["waveform_path"] if x.startswith("demo/p1900/")]
    if not all(os.path.exists(f"{data_dir}/{path}.hea") for path in ours):
        with mendable("the demo's waveforms cannot be written"):
            tool("make_demo").write_demo(data_dir)
    return bool(ours)

def run(settings):
    """Do all of it, from labels to a saved model and its results folder."""
    output, kept = Path(settings.output), settings.resume or settings.tensorboard
    results, extras = tool("results", needed=kept), tool("extras", needed=settings.repeats > 1)
    if (output.suffix != ".keras" or not 0 < len(output.stem.strip(".")) < 60 or output.is_dir()
            or not os.access(f"{output.absolute().parent}/", os.W_OK)):
        raise UserError(f"--output {output!s:.99}: expected a .keras file in a writable folder")
    labels, left_out = read_labels(settings.labels), []
    is_demo, label_hash = ensure_demo(labels, settings.data_dir), sha256(settings.labels)
    print("demo: synthetic records; name your own with --labels and --data-dir\n" * is_demo, end="")
    by_class, patients = labels.groupby("ecg_category")["subject_id"], set(labels["subject_id"])
    print(by_class.agg(records="size", patients="nunique").to_string(index_names=False))
    print(f"{len(labels)} records of {len(patients)} patients\n")
    shares = by_class.size() / len(labels)
    classes = shares.index.tolist()    # alphabetical: the order of the model's outputs
    splits = split_patients(labels, settings.test_share, settings.val_share, settings.seed)
    if settings.test_labels:
        other = read_labels(settings.test_labels)
        with mendable(settings.test_labels, ValueError):
            splits = tool("extras").replace_test(splits, other, settings)
    with mendable("--results"):
        folder = results and results.claim(Path(settings.results) / output.stem,
                                           (output.parent, settings.cache_dir))
    (tf, keras), used = load_tensorflow(), versions()    # a bad one shows before the reading
    print("using " + ", ".join(f"{name} {version}" for name, version in used.items())
          + "; devices " + ", ".join(device.name for device in tf.config.get_visible_devices()))
    training, validation, test = (load_split(name, part, classes, settings, left_out)
                                  for name, part in splits.items())
    models, temperatures, histories = zip(*(
        train(training, validation, len(classes),
              dataclasses.replace(settings, seed=(settings.seed + i) % 2**32),
              folder and folder / "progress" / str(i))
        for i in range(settings.repeats)), strict=True)
    model = models[0] if len(models) == 1 else extras.average_models(keras, models)
    card = {"classes": classes, "leads": LEADS, "features": feature_names(settings),
            "synthetic": is_demo, "sampling_rate_hz": settings.sequence_length / RECORD_SECONDS,
            "settings": dataclasses.asdict(settings), "versions": used, "records": len(labels),
            "patients": len(patients), "labels_sha256": label_hash, "history": histories,
            "temperature": temperatures, "left_out": left_out}
    save(model, card, output)    # before the evaluation, so that nothing can lose it
    each = [predict(one, test) for one in models]
    report, card["metrics"] = evaluate(each, temperatures, test, classes, shares.to_numpy())
    report += f"""
left out: {reasons(left_out)}
The labels are machine reads, not a cardiologist's. This is not a medical device.
""" + is_demo * "THIS DATA IS SYNTHETIC (the demo): its figures say nothing about real patients.\n"
    print(report, end="")
    save(model, card, output)
    if folder:
        with mendable(f"results in {folder}", (OSError, ImportError, ValueError)):
            results.write(folder, write_whole, card, report, splits, test, np.mean(each, axis=0),
                          read_record, find_r_peaks)
            if settings.figures:
                tool("figures").make_all(folder)
        print(f"results are in {folder}")
    print(f"saved {settings.output}, and all that is needed to use it in the .json beside it")

def main(arguments=None):
    """Run from the command line; return the exit code."""
    try:
        with mendable("stopped", OSError):    # such as for a full disk that takes no output
            run(parse_settings(arguments))
        return 0
    except (UserError, KeyboardInterrupt) as error:
        print(f"too_feature.py: error: {str(error) or 'interrupted'}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 130

if __name__ == "__main__":    # as a module, so that worker processes find its functions
    sys.path.insert(0, str(TOOLS.parent))
    sys.exit(importlib.import_module(Path(__file__).resolve().stem).main())

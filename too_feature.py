# /// script
# requires-python = ">=3.10,<3.14"
# dependencies = [
#     "tensorflow-macos==2.16.2; python_version < '3.13' and sys_platform == 'darwin' and platform_machine == 'arm64'",  # noqa: E501
#     "tensorflow-metal==1.2.0; python_version < '3.13' and sys_platform == 'darwin' and platform_machine == 'arm64'",  # noqa: E501
#     "tensorflow-cpu==2.16.2; python_version < '3.13' and sys_platform == 'linux' and platform_machine == 'x86_64'",  # noqa: E501
#     "tensorflow-cpu==2.21.0; python_version >= '3.13' and sys_platform == 'linux' and platform_machine == 'x86_64'",  # noqa: E501
#     "tensorflow==2.16.2; python_version < '3.13' and (sys_platform != 'darwin' or platform_machine != 'arm64') and (sys_platform != 'linux' or platform_machine != 'x86_64')",  # noqa: E501
#     "tensorflow==2.20.0; python_version >= '3.13' and sys_platform == 'linux' and platform_machine != 'x86_64'",  # noqa: E501
#     "tensorflow==2.21.0; python_version >= '3.13' and sys_platform != 'linux'",
#     "keras==3.12.4; python_version < '3.13'", "keras==3.15.1; python_version >= '3.13'",
#     "numpy==1.26.4; python_version < '3.13'", "numpy==2.4.6; python_version >= '3.13'",
#     "scipy==1.15.3; python_version < '3.13'", "scipy==1.17.1; python_version >= '3.13'",
#     "pandas==2.3.3", "wfdb==4.3.1", "tqdm==4.70.1", "joblib==1.6.0", "requests==2.34.2", "urllib3==2.8.0",  # noqa: E501
#     "scikit-learn==1.7.2; python_version < '3.13'", "scikit-learn==1.9.1; python_version >= '3.13'",  # noqa: E501
#     "matplotlib==3.10.9; python_version < '3.13'", "matplotlib==3.11.2; python_version >= '3.13'",
# ]
# ///
"""Train a five-class ECG classifier on MIMIC-IV-ECG: labels and waveforms in, report and model out.

    python too_feature.py                                             # the built-in synthetic demo
    python too_feature.py --labels my_labels.csv --data-dir my_data   # your own records
    python too_feature.py --help                                      # every setting, with its unit

The file reads in the order in which the data flows: settings, environment, labels, split, sample,
read, preprocess, features, prepare, augment, model, train, adapt, evaluate, save, main. What it
imports from ecg/ is detail that a reader may skip. "The thesis" is the master's thesis that this
began as; --recipe thesis is its method with its bugs fixed.

Measured: on two cores of an AMD EPYC the demo takes about 30 s; its test patients, who are as
synthetic as all others, are classified with balanced accuracy 0.954 (95 % interval 0.89-0.99).
"""

import sys

if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    print(f"error: TensorFlow needs Python 3.10 to 3.13, this is {sys.version.split()[0]}: "
          "run `uv run too_feature.py`, which brings one, or use python3.13 in a new environment",
          file=sys.stderr)
    raise SystemExit(2)

from ecg import packages

packages.require_packages()    # before the first import that could fail

import dataclasses
import functools
import gc
import importlib
import importlib.util
import itertools
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ecg import old_names
from ecg.errors import UserError
from ecg.settings import check_fields, flag, names_of, parse_assignments, read_flags

# -------------------------------------------------------------------------------------- settings
TRAIN_SAMPLES = 1500        # the same number of each class; an 8 GB laptop trains on it in minutes
SEQUENCE_LENGTH = 500       # 10 s at 50 Hz: QRS and P waves survive, and every LSTM step costs time
BATCH_SIZE = 4              # small enough for any laptop; its noisy gradients also regularise
EPOCHS = 15                 # at most: early stopping may end sooner

# Each declares a field: a flag under this heading of --help, or without one a name for --set
data = functools.partial(flag, "your data")
this_run = functools.partial(flag, "this run")
tuned = functools.partial(flag, "what people tune")
method = functools.partial(flag, "")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The method: how records are prepared, and how a model is built and trained."""

    name: str = method("default", "name in RECIPES")
    model: str = method("lstm", "architecture", "lstm", "large")
    epochs: int = tuned(EPOCHS, "passes over the training records at most; 0 evaluates "
                        "the model of --start-from", 0, 10_000)
    batch_size: int = tuned(BATCH_SIZE, "records per training step", 2, 4096)
    learning_rate: float = tuned(0.0005, "Adam's learning rate at the start", 1e-8, 1)
    sequence_length: int = tuned(SEQUENCE_LENGTH, "points per 10-second record", 50, 5000)

    # Recorders filter differently, so we remove slow drift ourselves. Scaling by the interquartile
    # range would clip QRS complexes.
    high_pass: float = method(0.5, "Hz below which baseline wander is removed; 0: none", 0, 5)
    central_share: float = method(
        0.99, "central share of a lead's samples used to set its scale", 0.1, 1)
    scale_span: float = method(3.0, "scaled units that this central share covers", 0.1, 6)

    # With Keras's default bias, an LSTM forgets within 60 ms, less than a beat
    lstm_memory: float = method(
        4.0, "seconds of the LSTM's longest memory at the start; 0: as in Keras", 0, 10)
    # Statistics of a batch of four are noisy: training soon goes on with their moving averages
    freeze_bn_after: int = method(
        375, "training steps after which batch-norm layers are frozen (375: one default epoch); "
        "0: never", 0, 10**9)
    feature_limit: float = method(
        2.5, "standard deviations at which scaled features are cut off", 0.5, 1000)

    rate_curve: bool = method(
        True, "whether the heart rate enters as a curve that is steep at 60 and 100 bpm")
    regression_share: float = method(
        0.0, "share of a logistic regression on the same features in the logits", 0, 1)
    rate_limits: str = method(
        "", "bpm that part bradycardia, normal and tachycardia, such as 60,100; none: the network "
        "alone parts them; empty: fitted to the training labels")

    weight_decay: float = method(
        0.0, "share of a weight lost per step and unit of learning rate", 0, 1)
    schedule: str = method(
        "plateau", "learning rate: halved on plateaus of the validation loss, or a cosine",
        "plateau", "cosine")
    reduce_patience: int = method(
        3, "epochs without a better validation loss that make a plateau", 1, 10_000)
    stop_patience: int = method(
        5, "epochs without better validation accuracy before training stops", 1, 10_000)
    # Which of 15 epochs is best on 300 validation records is mostly chance, so we keep the last
    keep_weights: str = method(
        "last", "weights to keep: the last, or the best by validation accuracy", "last", "best")
    xla: bool = method(True, "whether the training step is compiled with XLA, where that works")

    shift: float = method(5.0, "largest circular shift of a record in time, in seconds", 0, 5)
    # Electrode contact varies, and the gain of a lead with it
    lead_gain: float = method(0.2, "standard deviation of each lead's log gain", 0, 2)
    amplitude_noise: float = method(
        2.0, "noise on the features mean and SD of lead II, in standard deviations", 0, 10)

    def __post_init__(self) -> None:
        check_fields(self)


RECIPES = {
    "default": Recipe(),
    # The thesis's method with only its bugs fixed: the true sampling rate, features scaled inside
    # the model, no record repeated in validation or test.
    "thesis": Recipe(
        name="thesis", high_pass=0.0, central_share=0.5, scale_span=1.0, lstm_memory=0.0,
        freeze_bn_after=0, feature_limit=1000.0, rate_curve=False, rate_limits="none",
        keep_weights="best", shift=0.0, lead_gain=0.0, amplitude_noise=0.0),
    # Convolutions, attention and 48 features; weight decay makes Keras's Adam an AdamW.
    # The learning rate falls to zero along a cosine, without early stopping. XLA is off: it slows
    # convolutions down on a CPU. The logits are blended with those of a logistic regression on the
    # same features, which needs fewer records.
    "large": Recipe(
        name="large", model="large", epochs=30, batch_size=32, learning_rate=0.002,
        weight_decay=0.01, schedule="cosine", stop_patience=10_000, freeze_bn_after=0,
        amplitude_noise=0.0, regression_share=2 / 3, xla=False)}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a user sets for a run; each is also a flag (`data_dir` is --data-dir)."""

    labels: str = data("ecg_5_class_data.csv", "label file: subject_id,waveform_path,ecg_category")
    data_dir: str = data("mimic-iv-ecg", "folder that waveform paths start from")
    test_labels: str = data("", "label file of an external test set, to test on instead")
    test_data_dir: str = data("", "folder that the paths of --test-labels start from "
                              "(default: that of --data-dir)")
    train_samples: int = data(TRAIN_SAMPLES, "training records over all classes", 2, 10**7)
    val_samples: int = data(300, "validation records at most", 2, 10**7)
    test_samples: int = data(400, "test records at most", 2, 10**7)
    test_share: float = data(0.15, "test patients, as a share of all patients", 0.01, 0.9)
    val_share: float = data(0.15, "validation patients, as a share of the others", 0.01, 0.9)
    groups: str = data("age,sex,site", "columns of the label file to report results by, where it "
                       "has them; they need a header")
    labels_origin: str = data("", "who or what made the labels, such as \"two cardiologists\" "
                              "(default: what the .labels.json of make_labels.py says)")
    test_labels_origin: str = data("", "the same for --test-labels")
    start_from: str = data("", "trained model whose last layer is fitted to --labels: a .keras "
                           "file, real_default or real_large; --epochs 0 only evaluates it")
    output: str = data("ecg_stable_lstm_model.keras",
                       "model to write; its card (.json) gets the same name")

    seed: int = this_run(42, "seed of everything random", 0, 2**32 - 1)
    recipe: Recipe = this_run(RECIPES["default"], "method: default; thesis (as published, its bugs "
                              "fixed); large (convolutions, attention, 48 features)")
    repeats: int = this_run(1, "models to train with other seeds; saved as one ensemble", 1, 100)
    resume: bool = this_run(False, "continue an interrupted run after its last finished epoch")
    results: str = this_run("results", "folder for the results folders, one for each model")
    figures: bool = this_run(True, "draw figures and write a model card")
    tensorboard: bool = this_run(False, "write events for TensorBoard into the results folder")
    jobs: int = this_run(0, "processes that read records; 0 chooses for you", 0, 1024)
    scheduler: str = this_run("", "tcp://host:port of a Dask scheduler whose workers read records")
    cache: bool = this_run(True, "keep prepared records for the next run")
    cache_dir: str = this_run(".ecg_cache", "folder to keep prepared records in")
    quick: bool = this_run(False, "a first result in a third of the time: fewer records and epochs")
    traceback: bool = this_run(False, "show the whole traceback of an error")

    def __post_init__(self) -> None:
        check_fields(self)    # origin, rate_step: imported below, before Settings are made
        origin.check_flag("--labels-origin", self.labels_origin)
        origin.check_flag("--test-labels-origin", self.test_labels_origin)
        rate_step.fixed_limits(self.recipe.rate_limits)
        if (self.test_data_dir or self.test_labels_origin) and not self.test_labels:
            raise UserError("--test-data-dir, --test-labels-origin: expected --test-labels as well")
        if not self.start_from and self.recipe.epochs == 0:
            raise UserError("--epochs 0: expected a whole number from 1 to 10000, or --start-from")
        if self.start_from and self.repeats > 1:
            raise UserError(f"--repeats {self.repeats}: all models from --start-from would be the "
                            "same; leave it out")
        if self.tensorboard and not importlib.util.find_spec("tensorboard"):
            raise UserError("--tensorboard: pip install tensorboard")


QUICK_SETTINGS = {"train_samples": 300, "val_samples": 100, "test_samples": 200,
                  "output": "ecg_quick_model.keras"}    # not over a better model
QUICK_RECIPE = {"epochs": 5}
METHOD = names_of(Recipe)


if __name__ == "__main__":    # answers --help and refuses unknown flags before the slow imports
    read_flags(None, __doc__, Settings, Recipe, old_names.FLAGS)


def choose_recipe(name: str | None, start_from: str | None) -> Recipe:
    """Return the recipe of this name; without one, that of --start-from, else the default."""
    if start_from and name is None:
        recipe = read_start(start_from)[0]
        epochs = recipe.epochs or EPOCHS    # 0: that model's own run only evaluated another
        # Limits belong to the labels, not to the model: they are fitted anew
        limits = recipe.rate_limits if recipe.rate_limits == "none" else ""
        return dataclasses.replace(recipe, epochs=epochs, rate_limits=limits)
    if name is None:
        return RECIPES["default"]
    if name not in RECIPES:
        raise UserError(f"--recipe {name:.80}: expected one of {', '.join(RECIPES)}")
    return RECIPES[name]


def parse_settings(arguments: list[str] | None = None) -> Settings:
    """Read the command line. Flags win over --set, which wins over --quick and the recipe.

    Raises
    ------
    UserError
        A value is not of its type, or out of range.
    """
    flags = read_flags(arguments, __doc__, Settings, Recipe, old_names.FLAGS)
    recipe = choose_recipe(flags.pop("recipe", None), flags.get("start_from"))
    changes: dict[str, Any] = dict(parse_assignments(flags.pop("set"), METHOD, old_names.METHOD))
    changes |= {name: flags.pop(name) for name in METHOD if name in flags}
    has_epochs = "epochs" in changes
    if flags.get("quick"):
        changes = QUICK_RECIPE | changes
        flags = QUICK_SETTINGS | flags

    settings = Settings(recipe=dataclasses.replace(recipe, **changes), **flags)
    if settings.start_from and has_epochs and settings.recipe.epochs:
        raise UserError(f"--epochs {settings.recipe.epochs}: the last layer is fitted without "
                        "epochs; leave it out, or give --epochs 0 to evaluate the model")
    return settings


# ----------------------------------------------------------------------------------- environment
# Imported after --help has answered: together they take a second
import numpy as np
import pandas as pd
from scipy import fft
from scipy.signal import find_peaks
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils.class_weight import compute_sample_weight

from ecg import (
    adaptation,
    cache,
    checkpoint,
    cohort,
    fast_lstm,
    files,
    label_file,
    label_rows,
    left_out,
    metrics,
    models,
    origin,
    patients,
)

# isort: split
from ecg import r_peaks, rate_step, report, two_phases, wfdb_files
from ecg.baseline import LinearBaseline
from ecg.card import contract, describe_run
from ecg.demo import ensure_demo
from ecg.draw import draw_usable, rank
from ecg.environment import load_tensorflow
from ecg.errors import exit_code, printable, raise_at_sigterm, saying_how_to_resume, user_errors
from ecg.label_rows import SPLITS
from ecg.large_features import EXTRA_FEATURES, extra_features
from ecg.output.place import MODEL_FILES, check_output
from ecg.rate_step import NO_STEP, RateStep
from ecg.signals import BEYOND_ANY_CONVERTER, as_leads, check_rate
from ecg.wfdb_files import RECORD_SECONDS


# ---------------------------------------------------------------------------------------- labels
def read_labels(path: str, groups: str = Settings.groups) -> pd.DataFrame:
    """Read a label file: UTF-8, one row per record, a header or none.

    A byte order mark and blank lines are ignored, duplicate rows and records of several classes
    left out, file extensions cut off, and case variants of a class merged. `run` calls
    `label_rows.read_files` instead, which reads --test-labels as well.

    Returns
    -------
    DataFrame of str
        subject_id (one for each person: see `patients.identify`), waveform_path, ecg_category and,
        where the header has them, "split" and the columns in `groups`. `attrs["rows"]` counts the
        records kept and the rows left out.

    Raises
    ------
    UserError
        Names the file and the first malformed row, such as a second header.
    """
    return label_rows.read_together([path], ["."], groups)[0]


# ----------------------------------------------------------------------------------------- split
def split_patients(
    labels: pd.DataFrame,
    test_share: float = 0.15,
    val_share: float = 0.15,
    seed: int = 42,
) -> dict[str, pd.DataFrame]:
    """Split records by patient, so that nobody is both trained and tested on.

    The split is stratified by each patient's rarest class. Then as few patients as possible move,
    until each class with three or more patients is in all splits, and a smaller one in training.

    Parameters
    ----------
    labels : DataFrame with subject_id and ecg_category
    test_share, val_share : float, of all patients, and of those not in the test split

    Returns
    -------
    dict of DataFrame: 'train', 'validation' and 'test'

    Raises
    ------
    UserError
        No split has every class in training, validation and test.
    """
    table = pd.crosstab(labels["subject_id"], labels["ecg_category"]) > 0
    table[""] = True    # a class of every patient, so that no split can be empty
    has_class = table.to_numpy().astype(int)                         # (patients, classes)
    n_patients = has_class.sum(axis=0)
    rarest = np.where(has_class, n_patients, np.inf).argmin(axis=1)

    split = np.zeros(len(has_class), dtype=int)                      # indices into SPLITS
    for number, share in ((2, test_share), (1, val_share)):
        pool = np.flatnonzero(split == 0)
        split[patients.draw(pool, share, rarest[pool], seed)] = number

    is_scarce = (n_patients < 3) & (table.columns != "")
    needed = np.ones((3, len(n_patients)), dtype=int)                # (splits, classes)
    needed[1:, is_scarce] = 0
    repaired = patients.repair(split, has_class, needed, np.random.default_rng(seed))
    if repaired is None:
        scarce = table.columns[np.argsort(n_patients[:-1])[:3]]    # without the added ""
        raise UserError("no split has every class in training, validation and test: too few "
                        f"patients, or the same ones, in {', '.join(scarce)}")
    split_of = pd.Series(repaired, index=table.index)
    row_split = labels["subject_id"].map(split_of)
    return {name: labels[row_split == i].reset_index(drop=True) for i, name in enumerate(SPLITS)}


# ---------------------------------------------------------------------------------------- sample
def balanced_sampling(
    df: pd.DataFrame,
    target_samples: int,
    random_state: int = 42,
    repeat: bool = True,
) -> pd.DataFrame:
    """Draw `target_samples // n_classes` records from every class, and shuffle them.

    A record's rank depends only on the seed and its path: removing one changes no other's.

    Parameters
    ----------
    df : DataFrame with waveform_path and ecg_category
    target_samples : int
    random_state : int
    repeat : bool
        Whether to oversample classes with too few records, evenly; for training only.

    Returns
    -------
    DataFrame of rows of `df`, with a new index
    """
    ranked = rank(df, random_state)
    wanted = max(1, target_samples // df["ecg_category"].nunique())

    drawn = []
    for _, records in ranked.groupby("ecg_category", observed=True):
        n = wanted if repeat else min(wanted, len(records))
        drawn.append(records.iloc[np.arange(n) % len(records)])
    return pd.concat(drawn).sample(frac=1, random_state=random_state).reset_index(drop=True)


# ------------------------------------------------------------------------------------------ read
# MIMIC-IV-ECG stores aVF before aVL: leads are picked by name, into this order.
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LEAD_II = 1    # its index in `LEADS`
INDEPENDENT = [0, 1, 6, 7, 8, 9, 10, 11]    # I, II, V1-V6: I and II determine the other limb leads
MAX_LOST_LEADS = 1 / 3    # of them; where more are missing, a beat may be missed


class Recording(NamedTuple):
    """Ten seconds of an ECG, with what is unusual about them."""

    signal: np.ndarray        # float64 (samples, 12), mV, in the order of `LEADS`; no NaN
    fs: float                 # sampling rate, Hz
    remark: str               # such as 'gaps; flat lead', or ""
    is_missing: np.ndarray    # bool (samples, 12), where `signal` was interpolated


def read_record(path: str | Path, data_dir: str | None = None, start: float = 0) -> Recording:
    """Read ten seconds of a 12-lead WFDB record.

    Parameters
    ----------
    path : str
        Without extension.
    data_dir : str, optional
        Nothing outside of this folder is read; by default the record's own.
    start : float
        When in a longer record the ten seconds begin, in seconds.

    Returns
    -------
    Recording
        Gaps are interpolated, leads without signal are all zeros.

    Raises
    ------
    RecordError
        The record cannot be used.
    """
    path = str(path)
    header = wfdb_files.read_header(path, data_dir or os.path.dirname(path) or ".")
    first, samples = wfdb_files.select_samples(header, start)
    with np.errstate(all="ignore"):    # damaged files may overflow: the checks below refuse them
        signal = wfdb_files.read_leads(path, header, LEADS, first, samples)
        leads, remark, is_missing = wfdb_files.keep_usable_leads(signal, header.fs, LEADS)
    return Recording(leads, header.fs, remark, is_missing)


# ------------------------------------------------------------------------------------ preprocess
def stable_preprocess_ecg(
    raw_signal: Any,
    target_length: int = 500,
    high_pass: float = 0.5,
    central_share: float = 0.99,
    scale_span: float = 3.0,
) -> np.ndarray:
    """High-pass filter and resample a 12-lead ECG, and scale each lead robustly.

    Parameters
    ----------
    raw_signal : array_like, shape (10 or more samples, 12)
        Ten seconds; NaN and infinities are interpolated.
    target_length : int, points to resample to
    high_pass : float
        Cut-off in Hz of a second-order Butterworth filter, forwards and backwards; 0: none.
    central_share, scale_span : float
        Leads are scaled so that this central share of their samples spans so many units: 0.5 and 1
        divide by the interquartile range.

    Returns
    -------
    ndarray of float32, shape (target_length, 12)
        Each lead minus its median, scaled, clipped to [-3, 3]; flat leads are 0.

    Raises
    ------
    ValueError
        The input is not of that shape or not real numbers.
    """
    signal = as_leads(raw_signal, shortest=10)
    # Dropping high frequencies avoids aliasing. The DCT is the Fourier transform of the signal
    # followed by its mirror image, so there is no step at the record's ends that would ring
    centred = signal - np.mean(signal, axis=0)
    spectrum = fft.dct(centred.astype("f4"), axis=0)[:target_length]
    half_waves = np.arange(len(spectrum))[:, None]    # of each DCT component, in the record
    gain = np.exp(0.5j * np.pi * half_waves / len(signal))    # a DCT is off by half a sample
    if high_pass:
        hertz4 = (half_waves / (2 * RECORD_SECONDS)) ** 4
        gain *= hertz4 / np.maximum(hertz4 + high_pass**4, 1e-12)
    gain *= target_length / len(signal)
    leads = fft.irfft(spectrum * gain.astype("c8"), 2 * target_length, axis=0)[:target_length]

    ordered = np.sort(leads, axis=0)    # np.quantile does the following in twice the time
    places = (0.5 + np.array([-0.5, 0, 0.5]) * central_share) * (target_length - 1)
    below, above = ordered[places.astype(int)], ordered[np.ceil(places).astype(int)]
    low, median, high = below + (places % 1)[:, None] * (above - below)
    whole = ordered[-1] - ordered[0]
    has_spikes_only = high - low < 1e-3 * whole    # quantiles miss rare spikes
    spread = np.where(has_spikes_only, leads.std(axis=0), (high - low) / scale_span)
    scaled = (leads - median) / np.where(whole < 1e-6, np.inf, spread)    # a flat lead is 0
    return np.clip(scaled, -3, 3).astype(np.float32, order="C")


# -------------------------------------------------------------------------------------- features
# Name, unit and reference range; the heart rate's also shapes the network's input (`sharpen_rate`)
FEATURES: tuple[tuple[str, str, Any], ...] = (
    ("mean", "mV", None), ("standard deviation", "mV", None), ("skewness", "", None),
    ("kurtosis", "", None), ("heart rate", "bpm", (60, 100)), ("SDNN", "ms", (20, 50)),
    ("RMSSD", "ms", (15, 40)), ("CV_RR", "", (0.03, 0.07)))
HEART_RATE = 4    # its index in `FEATURES`
VITALS = list(FEATURES[HEART_RATE:])    # heart rate and its variability


class Rhythm(NamedTuple):
    """The beats of a record, with the lead in which their peaks were measured."""

    lead: int              # its index in `LEADS`; without beats, lead II
    r_peaks: np.ndarray    # positions in samples, with fractions; empty if no lead shows beats
    rr: np.ndarray         # RR intervals, s; NaN where a gap may hide a beat


def measure_rhythm(signal: Any, fs: float, is_missing: np.ndarray | None = None) -> Rhythm:
    """Find the R peaks of an ECG, and the intervals between them.

    A beat is a QRS complex that several leads show at once. R peaks are located in lead II or, if
    that does not show the beats well, in the lead that shows them best.

    Parameters
    ----------
    signal : array_like, shape (samples, 12)
        A second or more in mV, in the order of `LEADS`.
    fs : float, Hz
    is_missing : ndarray of bool, shape (samples, 12), optional
        Where samples have been interpolated, if that is known.
    """
    leads = as_leads(signal, check_rate(fs))
    if is_missing is None:
        is_missing = ~(np.abs(np.asarray(signal, float)) < BEYOND_ANY_CONVERTER)    # NaN as well

    independent = leads[:, INDEPENDENT]
    energies = r_peaks.qrs_energies(independent, fs)
    envelope = r_peaks.qrs_envelope(energies, LEAD_II)
    # The thesis applied this rule to lead II itself, where it takes tall T waves for R peaks
    distance = r_peaks.GRID // 4
    candidates = find_peaks(envelope, height=np.std(envelope) * 0.5, distance=distance)[0]
    place, peaks = r_peaks.locate(independent, fs, energies, envelope, candidates, LEAD_II)
    lead = INDEPENDENT[place]
    is_gap = is_missing[:, lead] | (is_missing[:, INDEPENDENT].mean(axis=1) > MAX_LOST_LEADS)
    rr = r_peaks.rr_intervals(peaks, leads[:, lead], is_gap, fs)
    return Rhythm(lead, peaks, rr)


def extract_core_medical_features(
    signal: Any,
    fs: float = 100,
    rhythm: Rhythm | None = None,
) -> np.ndarray:
    """Measure the eight `FEATURES`.

    Parameters
    ----------
    signal : array_like, shape (samples, 12)
        A second or more in mV, in the order of `LEADS`.
    fs : float
        True sampling rate, Hz.
    rhythm : Rhythm, optional
        Its beats, if they have been measured already.

    Returns
    -------
    ndarray, shape (8,)
        Mean, standard deviation, skewness and excess kurtosis of lead II; heart rate (bpm), SDNN
        (ms), RMSSD (ms) and CV_RR = SDNN / mean RR (Task Force of the ESC and NASPE, Circulation
        1996;93:1043-1065). RR intervals that touch a gap do not count. NaN: not measurable. The
        first four need a lead II that is not flat, the heart rate one RR interval, SDNN and CV_RR
        two, and RMSSD two in succession.

    Raises
    ------
    ValueError
        The signal is too short or not real numbers, or `fs` is out of range.
    """
    intervals = (rhythm or measure_rhythm(signal, fs)).rr
    lead = as_leads(signal, check_rate(fs))[:, LEAD_II]
    measured = {}
    mean, deviation = np.mean(lead), np.std(lead)
    if deviation > 1e-6:
        z = (lead - mean) / deviation
        measured = {"mean": mean, "standard deviation": deviation,
                    "skewness": np.mean(z * z * z), "kurtosis": np.mean((z * z) ** 2) - 3}

    rr = intervals[~np.isnan(intervals)]
    change = np.diff(intervals)    # NaN beside a gap
    change = change[~np.isnan(change)]
    if len(rr) >= 1:
        measured["heart rate"] = 60 / rr.mean()
    if len(rr) >= 2:
        sdnn = rr.std(ddof=1)
        measured["SDNN"] = 1000 * sdnn
        measured["CV_RR"] = sdnn / rr.mean()
    if len(change) >= 1:
        measured["RMSSD"] = 1000 * np.sqrt(np.mean(change**2))
    return np.array([measured.get(name, np.nan) for name, _, _ in FEATURES])


# --------------------------------------------------------------------------------------- prepare
# Fields of `Recipe` on which the prepared inputs of a model depend
PREPARATION = "model", "sequence_length", "high_pass", "central_share", "scale_span"


class Records(NamedTuple):
    """The prepared records of one split."""

    rows: pd.DataFrame          # rows of the label file, repeated where a record is oversampled
    signals: Any                # float32 (n, sequence_length, 12): ndarray, or cache.Signals
    features: np.ndarray        # float32 (n, 8 or more); NaN: not measurable
    targets: np.ndarray         # int (n,), index into the class names
    left_out: tuple = ()        # (path, reason) of each record that could not be used
    unusual: tuple = ()         # (path, remark) of each odd record that was used nevertheless
    missing: tuple = ()         # paths that are not on disk


def prepare_record(
    path: str | Path,
    data_dir: str | None = None,
    recipe: Recipe | None = None,
    start: float = 0,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Read ten seconds of a record, from `start` (s) on, and return the model's inputs.

    Returns
    -------
    ecg : ndarray of float32, shape (sequence_length, 12)
    features : ndarray of float32, shape (8,), or (48,) for the large model
    remark : what is unusual about the record, or ""

    Raises
    ------
    RecordError
        The record cannot be used.
    """
    signal, fs, remark, is_missing = read_record(path, data_dir, start)
    ecg, features = prepare_signal(signal, fs, recipe or Recipe(), is_missing)
    return ecg, features, remark


def prepare_signal(
    signal: np.ndarray,
    fs: float,
    recipe: Recipe,
    is_missing: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the model's inputs for an ECG (samples, 12) in mV at `fs` Hz: ecg and features."""
    rhythm = measure_rhythm(signal, fs, is_missing)
    features = extract_core_medical_features(signal, fs, rhythm)
    if recipe.model == "large":    # its 40 features come after the eight
        extra = extra_features(signal, fs, rhythm.r_peaks, rhythm.rr)
        features = np.append(features, extra)

    ecg = stable_preprocess_ecg(signal, recipe.sequence_length, recipe.high_pass,
                                recipe.central_share, recipe.scale_span)
    return ecg, features.astype(np.float32)


def feature_names(recipe: Recipe) -> tuple:
    """Return the names, units and reference ranges of the model's features, in order."""
    return FEATURES + EXTRA_FEATURES if recipe.model == "large" else FEATURES


def prepare_many(
    paths: list[str],
    data_dir: str | None,
    settings: Settings,
    title: str,
) -> cache.Rows:
    """Prepare records on all cores or a Dask cluster, or take them from the cache.

    Parameters
    ----------
    paths : list of str
        Relative to `data_dir`, if there is one.
    data_dir : str, or None to confine each record to its own folder

    Returns
    -------
    sequence of (signal, features, reason, remark)
        `reason` says why a record cannot be used, and its arrays are zeros; "" if it can.
    """
    recipe = settings.recipe
    prepare = functools.partial(prepare_record, data_dir=data_dir, recipe=recipe)
    if data_dir is not None:
        paths = [f"{data_dir}/{path}" for path in paths]
    shapes = (recipe.sequence_length, len(LEADS)), (len(feature_names(recipe)),)
    key = origin.versions(), [getattr(recipe, name) for name in PREPARATION]
    folder = Path(settings.cache_dir).absolute() if settings.cache else None
    with user_errors(title):
        return cache.prepare_many(
            paths, prepare, shapes, key, folder, settings.jobs, settings.scheduler, title)


def load_split(
    name: str,
    labels: pd.DataFrame,
    classes: list[str],
    settings: Settings,
    held_out: dict[str, Records] | None = None,
) -> Records:
    """Sample and prepare the records of one split: 'train', 'validation' or 'test'.

    Records that are missing or unusable are replaced by others of their class. An external test set
    is used whole. Patients with a copy of a record in the `held_out` splits are left out; of copies
    within the test split, only the first is used.

    Raises
    ------
    UserError
        A class has no usable record (in an external test set: no class has), or more than half of
        its records are unusable.
    """
    target_samples = {"train": settings.train_samples, "validation": settings.val_samples,
               "test": settings.test_samples}[name]
    data_dir = os.path.abspath(settings.data_dir)
    is_external = name == "test" and bool(settings.test_labels)
    if is_external:
        data_dir = os.path.abspath(settings.test_data_dir or data_dir)
        target_samples = len(labels) * len(classes)    # enough for every record

    def sample(usable: pd.DataFrame) -> pd.DataFrame:
        return balanced_sampling(usable, target_samples, settings.seed, repeat=name == "train")

    def prepare(paths: list[str]) -> cache.Rows:
        return prepare_many(paths, data_dir, settings, f"reading {name}")

    watch = patients.CopyWatch(held_out or {}, is_test=name == "test")
    rows, prepared, reasons, missing = draw_usable(
        name, labels, target_samples, settings.seed, data_dir, watch, sample, prepare)
    drawn = set(rows["ecg_category"])
    if not (is_external and drawn):    # an external test set may lack classes
        left_out.check_classes_left(name, labels, drawn, data_dir, missing, reasons.values())
    if drawn < set(classes):
        print(f"notice: {name} has no record of {', '.join(sorted(set(classes) - drawn))}")

    indices = pd.Index(reasons).get_indexer(rows["waveform_path"])    # of `rows` in `prepared`
    return Records(
        rows=rows.assign(subject_id=patients.join(rows["subject_id"], watch.joined)),
        signals=cache.Signals(prepared, indices),
        features=prepared.features()[indices],
        targets=pd.Index(classes).get_indexer(rows["ecg_category"]),    # never -1: all are known
        left_out=tuple((path, reason) for path, reason in reasons.items() if reason),
        unusual=left_out.list_unusual(rows["waveform_path"], indices, prepared),
        missing=tuple(missing))


# --------------------------------------------------------------------------------------- augment
NOISE_PROBABILITY = 0.3     # that a record gets noise
NOISE_SD = 0.05             # of that noise, in scaled units: 3 span the central 99 % of a lead
SCALING_PROBABILITY = 0.2   # that a record's amplitude is changed
MAX_SCALING = 0.1           # largest relative change of amplitude


def lightweight_augmentation(
    signal: Any,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Add noise to some records and change the amplitude of some; for training only.

    Parameters
    ----------
    signal : array_like, shape (samples, 12) or (n, samples, 12)
        Each record is augmented independently.
    rng : numpy.random.Generator, optional

    Returns
    -------
    ndarray of float32, of that shape, clipped to [-3, 3]
    """
    rng = rng or np.random.default_rng()
    batch = np.array(signal, np.float32, ndmin=3)
    is_scaled = rng.random(len(batch)) < SCALING_PROBABILITY
    is_noisy = rng.random(len(batch)) < NOISE_PROBABILITY
    change = rng.uniform(-MAX_SCALING, MAX_SCALING, len(batch))
    batch *= (1 + is_scaled * change).astype(np.float32)[:, None, None]
    noise = rng.standard_normal((is_noisy.sum(), *batch.shape[1:]), dtype=np.float32)
    batch[is_noisy] += np.float32(NOISE_SD) * noise
    return np.clip(batch, -3, 3).reshape(np.shape(signal))


def vary_recording(
    signals: np.ndarray,
    features: np.ndarray,
    rng: np.random.Generator,
    recipe: Recipe,
    amplitude_noise: Any = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Vary recordings as another moment, electrode or device would have; for training only.

    Parameters
    ----------
    signals : ndarray, shape (n, samples, 12)
        Shifted circularly in time; each lead gets a gain of its own.
    features : ndarray, shape (n, 8 or more)
        Mean and standard deviation of lead II get noise.
    rng : numpy.random.Generator
    recipe : Recipe
    amplitude_noise : float or array_like, shape (2,), SD of that noise; here in mV

    Returns
    -------
    signals, features : ndarray of float32, copies
    """
    n, samples, leads = signals.shape
    limit = round(recipe.shift * samples / RECORD_SECONDS)
    shifted = (np.arange(samples) + rng.integers(-limit, limit + 1, (n, 1))) % samples
    gain = np.exp(rng.normal(0, recipe.lead_gain, (n, 1, leads))).astype(np.float32)
    features = features.copy()
    features[:, :2] += rng.normal(0, amplitude_noise, (n, 2))
    return signals[np.arange(n)[:, None], shifted] * gain, features


# ----------------------------------------------------------------------------------------- model
RATE_STEP = 5.0             # bpm, scale of each tanh in `sharpen_rate`; no part of a `RateStep`


def create_lightweight_lstm_model(
    n_classes: int = 5,
    sequence_length: int = SEQUENCE_LENGTH,
    feature_mean: Any = (0.0,) * 8,
    feature_variance: Any = (1.0,) * 8,
    feature_limit: float = 2.5,
    lstm_memory: float = 4.0,
    rate_curve: bool = True,
) -> Any:
    """Build the dual-branch LSTM, 8,461 parameters for five classes.

    Parameters
    ----------
    n_classes, sequence_length : int
    feature_mean, feature_variance : array_like, shape (8,), constants in the model, not weights
    feature_limit : float, standard deviations at which scaled features are cut off
    lstm_memory : float, s; longest memory of the forget gates at initialisation; 0: as in Keras
    rate_curve : bool, whether `sharpen_rate` replaces the scaled heart rate

    Returns
    -------
    keras.Model
        From ECGs (n, sequence_length, 12) and features (n, 8), where NaN counts as the mean, to
        probabilities (n, n_classes).
    """
    keras = load_tensorflow()[1]
    layers = keras.layers
    ecg = keras.Input((sequence_length, len(LEADS)), name="ecg")
    lstm = layers.LSTM(32, dropout=0.2)
    x = lstm(ecg)
    if lstm_memory:
        start_with_memory(lstm, lstm_memory * sequence_length / RECORD_SECONDS)
    x = dense_block(layers, x, 24, 0.3)

    features = keras.Input((len(FEATURES),), name="features")
    y = layers.Normalization(
        mean=feature_mean, variance=feature_variance, name=models.SCALING)(features)
    y = keras.ops.clip(keras.ops.nan_to_num(y, nan=0.0), -feature_limit, feature_limit)
    if rate_curve:
        rate = sharpen_rate(keras, features)
        y = layers.Concatenate()([y[:, :HEART_RATE], rate, y[:, HEART_RATE + 1:]])
    y = dense_block(layers, y, 16, 0.2)

    z = dense_block(layers, layers.Concatenate()([x, y]), 32, 0.3)
    probabilities = layers.Dense(n_classes, activation="softmax")(z)
    return keras.Model([ecg, features], probabilities, name="ecg_lightweight_lstm")


def dense_block(layers: Any, x: Any, units: int, dropout: float) -> Any:
    """Apply Dense, batch normalisation and dropout."""
    x = layers.Dense(units, activation="relu")(x)
    return layers.Dropout(dropout)(layers.BatchNormalization()(x))


def sharpen_rate(keras: Any, features: Any) -> Any:
    """Map heart rates to a curve that is steep at 60 and 100 bpm, where the rate classes divide.

    It is about -2 below the reference range, 0 inside and 2 above; a missing rate counts as inside.
    It has no weights and is made of stock layers: a saved model needs no code of ours.
    """
    layers = keras.layers
    reference_range = FEATURES[HEART_RATE][2]
    rate = features[:, HEART_RATE:HEART_RATE + 1]
    rate = keras.ops.nan_to_num(rate, nan=sum(reference_range) / 2)
    steps = []
    for limit in reference_range:
        distance = layers.Normalization(mean=[limit], variance=[RATE_STEP**2])(rate)
        steps.append(layers.Activation("tanh")(distance))
    return layers.Add()(steps)


def start_with_memory(lstm: Any, longest: float) -> None:
    """Initialise the forget gates of an LSTM to memories of 2 to `longest` steps.

    This is chrono initialisation: a gate of bias b forgets within about exp(b) steps (Tallec &
    Ollivier, Can recurrent neural networks warp time?, ICLR 2018).
    """
    steps = np.linspace(1, max(2, longest - 1), lstm.units)
    zero = 0 * steps
    gates = [-np.log(steps), np.log(steps), zero, zero]    # input, forget, cell, output
    lstm.cell.bias.assign(np.concatenate(gates))


# ----------------------------------------------------------------------------------------- train
PREDICTED_AT_ONCE = 100     # batch size of inference


def training_batches(records: Records, settings: Settings, first_epoch: int = 0) -> Iterator[tuple]:
    """Yield batches (inputs, targets) endlessly; each epoch shuffles and augments anew."""
    recipe = settings.recipe
    rng = np.random.default_rng([settings.seed, first_epoch])
    n = len(records.targets)
    deviation = pd.DataFrame(records.features[:, :2]).std(ddof=0).fillna(0)
    noise = recipe.amplitude_noise * deviation
    size = min(recipe.batch_size, n)
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):    # a short last batch would compile again
            batch = order[start:start + size]
            signals, features = vary_recording(
                records.signals[batch], records.features[batch], rng, recipe, noise)
            signals = lightweight_augmentation(signals, rng)
            yield (signals, features), records.targets[batch]


def predict(model: Any, records: Records) -> np.ndarray:
    """Return the probabilities (n, n_classes) that a model gives records.

    Raises
    ------
    UserError
        They are NaN: the model's training has diverged.
    """
    n = len(records.targets)
    parts = []
    for start in range(0, n, PREDICTED_AT_ONCE):
        # The last batch is filled up with the first records: XLA would compile anew for its size
        rows = np.arange(start, start + PREDICTED_AT_ONCE) % n
        parts.append(model.predict_on_batch((records.signals[rows], records.features[rows])))
    probabilities = np.concatenate(parts)[:n]
    if not np.isfinite(probabilities).all():
        raise UserError("the model has diverged (NaN): lower --learning-rate, or name another "
                        "--start-from")
    return probabilities


def validate(model: Any, validation: Records) -> dict[str, float]:
    """Return loss and accuracy on validation records; all classes have equal weight."""
    weights = compute_sample_weight("balanced", validation.targets)
    probabilities = predict(model, validation)
    of_truth = probabilities[np.arange(len(weights)), validation.targets]
    losses = -np.log(of_truth.clip(1e-7))    # as Keras clips them
    is_right = probabilities.argmax(axis=1) == validation.targets
    return {"val_loss": float(np.average(losses, weights=weights)),
            "val_accuracy": float(np.average(is_right, weights=weights))}


def create_model(n_classes: int, recipe: Recipe, mean: Any, variance: Any) -> Any:
    """Build the recipe's model with random weights, from its features' mean and variance."""
    if recipe.model == "large":
        from ecg.large_model import create_large_model

        return create_large_model(
            load_tensorflow()[1], n_classes, recipe.sequence_length, mean, variance, HEART_RATE)
    return create_lightweight_lstm_model(
        n_classes, recipe.sequence_length, mean, variance, recipe.feature_limit, recipe.lstm_memory,
        recipe.rate_curve)


def build_model(n_classes: int, training: Records, recipe: Recipe) -> Any:
    """Build the recipe's model for training; its features are standardised by training records."""
    features = pd.DataFrame(training.features, dtype=float)    # pandas ignores NaN
    mean = features.mean().fillna(0)
    variance = features.var(ddof=0).fillna(1).replace(0, 1)
    model = create_model(n_classes, recipe, mean, variance)
    fast_lstm.speed_up_lstms(load_tensorflow()[1], model)    # the same results, twice as fast
    return model


def compile_model(model: Any, recipe: Recipe, steps: int, xla: bool) -> two_phases.TwoPhases:
    """Compile a model for Adam, with weight decay and a cosine schedule if the recipe has them.

    An epoch has `steps` training steps. The second phase of training has batch norm frozen.
    """
    keras = load_tensorflow()[1]
    n_steps = keras.Variable(1.0, trainable=False)    # of a phase, which `TwoPhases.begin` sets
    rate: Any = recipe.learning_rate
    if recipe.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, n_steps)
    adam = keras.optimizers.Adam(rate, weight_decay=recipe.weight_decay or None)
    if recipe.freeze_bn_after:    # weight decay would shrink even frozen weights
        adam.exclude_from_weight_decay(var_names=["gamma", "beta"])

    model.compile(
        adam, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=xla,
        steps_per_execution=two_phases.steps_at_once(steps, xla))
    return two_phases.TwoPhases(keras, model, n_steps)


def fit(
    model: Any,
    training: Records,
    validation: Records,
    settings: Settings,
    state: checkpoint.Checkpoint | None = None,
) -> list[dict]:
    """Train a model, or resume from the state of an interrupted run; return each epoch's logs."""
    tf, keras = load_tensorflow()
    recipe = settings.recipe
    xla = fast_lstm.try_xla(tf, recipe)
    two_phases.print_start(model, training, validation, xla)
    steps = max(1, len(training.targets) // recipe.batch_size)    # full batches per epoch
    phased = compile_model(model, recipe, steps, xla)
    history, done = (list(state.history), state.done) if state else ([], 0)

    stopping = two_phases.early_stopping(keras, recipe)
    counting = [stopping]    # callbacks with counters, which --resume restores
    if recipe.schedule == "plateau":
        counting.append(keras.callbacks.ReduceLROnPlateau(
            factor=0.5, patience=recipe.reduce_patience, min_lr=1e-6))
    validating = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(validate(model, validation)))
    callbacks = [validating, two_phases.epoch_bar(keras), *counting,
                 two_phases.epoch_lines(keras, recipe.epochs, history)]
    if state and settings.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(state.folder, write_graph=False))
    if state:    # last, so that it saves what all others have done
        callbacks.append(state.callback(keras, counting, history))

    for first, end in two_phases.phases(recipe.epochs, recipe.freeze_bn_after, steps):
        if end < done or stopping.stopped_epoch:    # if end == done, fit only restores the state
            continue
        # Each phase resets Adam, its learning rate and the callbacks' patience
        phased.begin(steps * (recipe.epochs - first), is_frozen=first > 0)
        passed = max(0, done - first)    # epochs of this phase that the interrupted run finished
        batches = itertools.islice(
            training_batches(training, settings, first), passed * steps, None)
        model.fit(
            two_phases.feed(tf, batches, model.steps_per_execution), steps_per_epoch=steps,
            initial_epoch=first + passed, epochs=end, shuffle=False, verbose=0, callbacks=callbacks)

    if stopping.stopped_epoch:
        two_phases.print_stop(stopping, recipe)
    phased.frozen.assign(False)    # for whoever trains the model further
    return history


def calibrate(model: Any, validation: Records) -> float:
    """Calibrate a model by temperature scaling on validation patients; return the temperature.

    It is from 1 to 2, and divides weights and bias of the last layer. It stays 1, which changes
    nothing, unless a higher one makes the validation labels likelier.
    """
    weights = compute_sample_weight("balanced", validation.targets)
    temperature = metrics.fit_temperature(predict(model, validation), validation.targets, weights)
    last = model.layers[-1]
    last.set_weights([array / temperature for array in last.get_weights()])
    return temperature


def fit_baseline(training: Records, n_classes: int, recipe: Recipe) -> LinearBaseline:
    """Fit the baseline: a logistic regression on the features that the network uses."""
    once = ~training.rows["waveform_path"].duplicated().to_numpy()
    return LinearBaseline.fit(
        training.features[once], training.targets[once], n_classes, HEART_RATE,
        first_baseline_feature(recipe))


def choose_rate_step(training: Records, classes: list[str], settings: Settings) -> RateStep:
    """Return a run's rate step: the heart rate decides bradycardia, normal or tachycardia.

    It follows the network. Its limits are those of the recipe, or fitted to the training labels. A
    model that is only evaluated keeps its own.
    """
    recipe = settings.recipe
    if not recipe.epochs and not recipe.rate_limits:
        return rate_step.of_card(read_start(settings.start_from)[2])
    once = ~training.rows["waveform_path"].duplicated().to_numpy()
    return rate_step.choose(
        recipe.rate_limits, classes, training.features[once, HEART_RATE], training.targets[once])


def first_baseline_feature(recipe: Recipe) -> int:
    """Return the index of the first feature that a recipe's model and its baseline use."""
    return HEART_RATE if recipe.model == "large" else 0    # large ignores amplitudes


def train(
    training: Records,
    validation: Records,
    n_classes: int,
    settings: Settings,
    folder: Path | None = None,
) -> tuple[Any, float, list[dict]]:
    """Train one model from random weights, or adapt that of --start-from.

    Each epoch saves its state in `folder`, for --resume.

    Returns
    -------
    model : keras.Model, without the rate step
    temperature : float, by which the last layer's weights are already divided
    history : list of dict, the logs of each epoch
    """
    if settings.start_from:
        return adapt(training, validation, settings)
    keras = load_tensorflow()[1]
    recipe = settings.recipe
    state = checkpoint.of_run(folder, training, validation, settings) if folder else None
    keras.utils.set_random_seed(settings.seed)    # Python's, NumPy's and TensorFlow's
    model = build_model(n_classes, training, recipe)
    history = fit(model, training, validation, settings, state)
    if recipe.regression_share:
        from ecg.large_model import blend_with_regression

        baseline = fit_baseline(training, n_classes, recipe)
        model = blend_with_regression(keras, model, baseline, recipe.regression_share)
        print(f"with the logistic regression {model.count_params():,} parameters")
    return model, calibrate(model, validation), history


def train_each(
    training: Records,
    validation: Records,
    n_classes: int,
    settings: Settings,
    folder: Path,
) -> list[tuple[Any, float, list[dict]]]:
    """Train `repeats` models, each with a seed of its own; see `train`."""
    if not settings.resume:
        shutil.rmtree(folder, ignore_errors=True)
    trained = []
    for i in range(settings.repeats):
        seeded = dataclasses.replace(settings, seed=(settings.seed + i) % 2**32)
        trained.append(train(training, validation, n_classes, seeded, folder / str(i)))
    return trained


# ----------------------------------------------------------------------------------------- adapt
def read_start(name: str) -> tuple[Recipe, list[str], dict[str, Any]]:
    """Return recipe, classes and card of the --start-from model; needs no TensorFlow."""
    return read_card(adaptation.find_model(name))


def take_classes(labels: pd.DataFrame, settings: Settings) -> tuple[pd.DataFrame, list[str]]:
    """Return labels, and the classes in the order of the outputs: sorted, or as in --start-from.

    Raises
    ------
    UserError
        The model of --start-from has other classes or inputs, or is an ensemble to be trained.
    """
    if not settings.start_from:
        return labels, sorted(labels["ecg_category"].unique())
    recipe, classes, card = read_start(settings.start_from)
    if settings.recipe.epochs and len(card["scaling"]) > 1:    # refused before records are read
        raise UserError(f"--start-from {settings.start_from}: {adaptation.AN_ENSEMBLE}")
    fixed = [*PREPARATION, "feature_limit", "rate_curve", "regression_share"]    # in the model
    adaptation.check_recipes(settings.start_from, recipe, settings.recipe, fixed)
    with user_errors(f"--start-from {settings.start_from}", ValueError):
        spelt = label_file.spell_classes(labels["ecg_category"], classes)
    return labels.assign(ecg_category=spelt), classes


def adapt(
    training: Records,
    validation: Records,
    settings: Settings,
) -> tuple[Any, float, list[dict]]:
    """Fit the last layer of the --start-from model, as far as cross-validation favours that.

    With 0 epochs, the model stays as it is, to be evaluated.

    Returns
    -------
    model, temperature, history
        As `train` returns them; the history is empty.

    Raises
    ------
    UserError
        The model cannot be loaded, or is an ensemble that would have to be trained.
    """
    start_model = load(adaptation.find_model(settings.start_from))
    model = start_model.core
    if not settings.recipe.epochs:
        return model, 1.0, []

    body, last = adaptation.split_model(load_tensorflow()[1], model, settings.start_from)
    training = adaptation.each_once(training)
    activations = predict(body, training).astype(float)    # inputs of the last layer
    before = adaptation.LastLayer.of(last)
    persons = patients.join_copies(training.rows, training.signals).to_numpy()
    step = choose_rate_step(training, start_model.classes, settings)
    decide = functools.partial(step.apply, rate=training.features[:, [HEART_RATE]])
    adapted = adaptation.adapt(
        activations, training.targets, persons, before, settings.seed, decide)
    last.set_weights(list(adapted.layer))
    print(f"last layer fitted to {len(activations)} records; {adapted.in_words()}")
    return model, calibrate(model, validation), []


def cross_validate(settings: Settings, splits: list[Records]) -> dict[str, Any]:
    """Evaluate `adapt` on all labelled patients by nested cross-validation.

    Whatever judges a patient, last layer or rate step, was fitted and chosen without them.
    """
    start_model = load(adaptation.find_model(settings.start_from))
    body, last = adaptation.split_model(
        load_tensorflow()[1], start_model.core, settings.start_from)
    splits = [adaptation.each_once(records) for records in splits]
    activations = np.concatenate([predict(body, records) for records in splits]).astype(float)
    rows = pd.concat([records.rows for records in splits], ignore_index=True)
    signals, features, targets = (
        np.concatenate([records[field] for records in splits]) for field in (1, 2, 3))

    def choose_step(is_seen: np.ndarray) -> RateStep:
        seen = Records(rows[is_seen], signals, features[is_seen], targets[is_seen])
        return choose_rate_step(seen, start_model.classes, settings)

    persons = patients.join_copies(rows, signals).to_numpy()
    predicted = adaptation.cross_validate(
        activations, targets, persons, adaptation.LastLayer.of(last), settings.seed, choose_step,
        features[:, [HEART_RATE]])
    return {"records": len(targets), "patients": len(np.unique(persons)),
            **metrics.accuracies(targets, predicted, persons)}


# -------------------------------------------------------------------------------------- evaluate
class Predicted(NamedTuple):
    """Records, and the probabilities that each of the models gives them."""

    records: Records
    each: np.ndarray            # (models, n, n_classes), before the rate step
    step: RateStep = NO_STEP

    @property
    def mean(self) -> np.ndarray:
        """Mean probabilities (n, n_classes) of the models, after the rate step."""
        return self.decide(self.each.mean(axis=0))

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Apply the rate step to any probabilities (n, n_classes) of these records."""
        return self.step.apply(probabilities, self.records.features[:, [HEART_RATE]])


def predict_each(members: list, records: Records, step: RateStep = NO_STEP) -> Predicted:
    """Return records with the probabilities that each of these models gives them."""
    return Predicted(records, np.array([predict(model, records) for model in members]), step)


def evaluate(
    validation: Predicted,
    test: Predicted,
    temperatures: list[float],
    classes: list[str],
    prevalence: np.ndarray,
    baseline: np.ndarray,
    label_file: str,
) -> tuple[str, dict[str, Any]]:
    """Evaluate the models' mean on test patients; return the report, and its figures for JSON.

    Parameters
    ----------
    temperatures : list of float, by which the models' logits have been divided
    prevalence : ndarray, shape (n_classes,), share of each class in the label file
    baseline : ndarray, shape (n, n_classes), probabilities of the baseline before the rate step
    label_file : str, name of that file; "": do not reweight results to its prevalence
    """
    rows, _, features, targets, *_ = test.records
    subjects = rows["subject_id"].to_numpy()
    confidence = test.mean.max(axis=1)
    predicted = test.mean.argmax(axis=1)
    rule = metrics.rate_rule(features[:, HEART_RATE], classes, prevalence)
    by_regression = test.decide(baseline).argmax(axis=1)
    n_tested = np.bincount(targets, minlength=len(classes))

    figures = {
        "records": len(targets),
        "patients": rows["subject_id"].nunique(),
        **metrics.all_figures(test.mean, targets, subjects, classes),
        "rate rule": metrics.accuracies(targets, rule, subjects),
        "logistic regression": metrics.accuracies(targets, by_regression, subjects),
        "confidence": {"mean": float(confidence.mean()), "deviation": float(confidence.std())},
        "calibration": metrics.calibrations(test.each, temperatures, targets, test.decide),
        "accuracy at coverage": metrics.accuracy_at_coverage(test.mean, targets),
        "thresholds": metrics.thresholds(
            validation.mean, validation.records.targets, test.mean, targets, classes),
        "records by class": dict(zip(classes, n_tested.tolist(), strict=True)),
        "groups": cohort.by_group(test.records, test.mean, classes)}

    if label_file:
        figures["at prevalence"] = {
            "label file": label_file,
            "prevalence": dict(zip(classes, prevalence.tolist(), strict=True)),
            **metrics.all_figures(test.mean, targets, subjects, classes, prevalence)}
    if len(test.each) > 1:
        figures["balanced accuracy of each"] = {
            f"model {number}": balanced_accuracy_score(targets, test.decide(p).argmax(axis=1))
            for number, p in enumerate(test.each, start=1)}

    names = np.array(classes)
    vitals = features[:, HEART_RATE:len(FEATURES)]
    return report.in_words(
        figures, names[targets], names[predicted], vitals, VITALS, test.step), figures


# ------------------------------------------------------------------------------------------ save
def save(model: Any, card: dict[str, Any], path: Path) -> dict[str, Any]:
    """Save a model and, in a .json of the same name, its card: all that is needed to use it.

    `model` is the network alone; the rate step that the card describes is appended to it. The card
    gains the scaling of the features, a description of inputs and outputs, the probabilities of two
    fixed ECGs, and the hash of the model's file. All but the last are in the card returned.
    """
    keras = load_tensorflow()[1]
    model = rate_step.of_card(card).behind(keras, model, HEART_RATE)    # without the optimizer
    full = {
        **card,
        "scaling": models.scaling_of(model),
        "check": check_probabilities(model, card["classes"], Recipe(**card["recipe"])),
        "contract": contract(card)}

    models.write(model, full, path)
    return full


def check_probabilities(
    model: Any,
    classes: list[str],
    recipe: Recipe,
) -> list[dict[str, float]]:
    """Return the probabilities, by class, that a model gives two fixed synthetic ECGs.

    They depend on the weights, the scaling, the recipe, the order of the classes, and the code that
    prepares records: `load` compares them with those in the card.
    """
    prepared = [prepare_signal(ecg, models.CHECK_FS, recipe) for ecg in models.check_ecgs()]
    signals, features = map(np.stack, zip(*prepared, strict=True))
    records = Records(pd.DataFrame(), signals, features, np.zeros(len(signals), int))
    probabilities = predict(model, records).tolist()
    return [dict(zip(classes, row, strict=True)) for row in probabilities]


class Loaded(NamedTuple):
    """A model that was loaded, with what is needed to use it."""

    model: Any                  # keras.Model
    classes: list[str]          # in the order of its outputs
    recipe: Recipe              # by which its inputs are prepared
    card: dict[str, Any]
    core: Any                   # the network alone, without the rate step behind it


def read_card(path: str | Path) -> tuple[Recipe, list[str], dict[str, Any]]:
    """Return recipe, classes and card of a saved model, each checked; needs no TensorFlow.

    Raises
    ------
    UserError
        The card does not fit the model or this version.
    """
    with models.refusing(path):
        card = models.read_card(path)
        recipe = Recipe(**{name: card["recipe"][name] for name in ("name", *METHOD)})
        features = feature_names(recipe)
        # A blended regression has a scaling of its own, for the features from `first` on
        first = first_baseline_feature(recipe) if recipe.regression_share else len(features)
        models.check_card(card, LEADS, features, len(features) - first)
        rate_step.of_card(card)
    return recipe, card["classes"], card


def load(path: str | Path) -> Loaded:
    """Load a model that `save` wrote.

    The file may be a stranger's. So the model is built from the recipe and the scaling in its card,
    and nothing but arrays is read from the file. It then has to give two fixed ECGs the card's
    probabilities.

    Raises
    ------
    UserError
        The model or its card cannot be used.
    """
    recipe, classes, card = read_card(path)
    with models.refusing(path):
        models.check_file(path)
    load_tensorflow()    # outside of `refusing`: if it is missing, the model is not to blame
    with models.refusing(path):
        core = rebuild(card["scaling"], len(classes), recipe)
        model = rate_step.of_card(card).behind(load_tensorflow()[1], core, HEART_RATE)
        model.load_weights(path)
        model.jit_compile = False    # XLA delays the first prediction, and fails on some machines
        models.check_same(card["check"], check_probabilities(model, classes, recipe))
    return Loaded(model, classes, recipe, card, core)


def rebuild(scaling: list[dict[str, list[float]]], n_classes: int, recipe: Recipe) -> Any:
    """Build a model, or an ensemble, by its recipe and scaling; its weights are still random."""
    keras = load_tensorflow()[1]
    members = []
    for scale in scaling:
        model = create_model(n_classes, recipe, scale["mean"], scale["variance"])
        if recipe.regression_share:
            from ecg.large_model import blend_with_regression

            baseline = LinearBaseline(
                scale["baseline_mean"], scale["baseline_variance"], n_classes, HEART_RATE,
                first_baseline_feature(recipe))
            model = blend_with_regression(keras, model, baseline, recipe.regression_share)
        members.append(model)
    return models.average(keras, members)


# ------------------------------------------------------------------------------------------ main
def split_labels(
    labels: pd.DataFrame,
    classes: list[str],
    settings: Settings,
    test: pd.DataFrame | None = None,
) -> dict[str, pd.DataFrame]:
    """Split by patient, or as the label file's column `split` says.

    An external test set `test` becomes the test split. The internal test patients are then trained
    on, and patients of the external test set are neither trained nor validated on.
    """
    if "split" in labels:
        shares = settings.test_share, settings.val_share
        if settings.test_labels or shares != (Settings.test_share, Settings.val_share):
            raise UserError(f"{settings.labels} has a column split: leave out --test-labels, "
                            "--test-share and --val-share, or the column")
        return label_rows.published_split(settings.labels, labels)
    splits = split_patients(labels, settings.test_share, settings.val_share, settings.seed)
    if test is None:
        return splits
    with user_errors(settings.test_labels, ValueError):
        test["ecg_category"] = label_file.spell_classes(test["ecg_category"], classes)
        return patients.replace_test(splits, test)


def load_splits(
    splits: dict[str, pd.DataFrame],
    classes: list[str],
    settings: Settings,
    card: dict[str, Any],
) -> tuple[Records, Records, Records]:
    """Return training, validation and test records; list left-out and unusual ones in the card."""
    print("loading TensorFlow while records are read")
    loading = ThreadPoolExecutor(1).submit(load_tensorflow)

    # Test first: nobody in it is trained on, even under another id, as copied recordings reveal
    test = load_split("test", splits["test"], classes, settings)
    if settings.start_from:
        card["start_knows"] = models.count_known(
            adaptation.find_model(settings.start_from), test.signals)
    if caution := origin.caution(card):
        print(f"notice: {caution}")
    validation = load_split(
        "validation", splits["validation"], classes, settings, {"test": test})
    tf, _ = loading.result()    # a broken installation shows before training records are read
    devices = ", ".join(device.name for device in tf.config.get_visible_devices())
    print(report.using(card["versions"], devices))
    training = load_split(
        "train", splits["train"], classes, settings, {"test": test, "validation": validation})
    card["left_out"] = [*training.left_out, *validation.left_out, *test.left_out]
    card["unusual"] = [*training.unusual, *validation.unusual, *test.unusual]
    return training, validation, test


def run(settings: Settings) -> None:
    """Run the whole pipeline, from the label file to a saved model and its results folder."""
    began = time.monotonic()
    output, folder = check_output(settings)
    labels, external = label_rows.read_files(settings)
    is_demo = ensure_demo(labels, settings.data_dir)
    labels, classes = take_classes(labels, settings)
    prevalence = report.print_classes(labels, is_demo).reindex(classes, fill_value=0.0)
    card = describe_run(
        settings, labels, classes, LEADS, feature_names(settings.recipe), is_demo)
    splits = split_labels(labels, classes, settings, external)
    card |= origin.of_run(settings, is_demo, splits["test"])
    if settings.start_from:
        card |= origin.describe_start(
            settings.start_from, read_start(settings.start_from)[2], card,
            is_trained=settings.recipe.epochs > 0)

    files.claim(folder, *map(output.with_suffix, MODEL_FILES))    # no other run may write there
    is_few = bool(settings.start_from) and len(labels) < adaptation.FEW_LABELS
    if is_few:
        print(f"notice: {len(labels)} labels: {splits['test']['subject_id'].nunique()} patients "
              "are tested, too few to tell much")
    training, validation, test = load_splits(splits, classes, settings, card)
    step = choose_rate_step(training, classes, settings)
    card["rate_limits"] = step.limits
    trained = train_each(training, validation, len(classes), settings, folder / "progress")
    members, card["temperature"], card["history"] = map(list, zip(*trained, strict=True))
    model = models.average(load_tensorflow()[1], members)
    saved = save(model, card, output)    # already now, so that no later error loses it

    tested = predict_each(members, test, step)
    baseline = fit_baseline(training, len(classes), settings.recipe).predict(test.features)
    label_name = "" if settings.test_labels else printable(Path(settings.labels).name)
    words, card["metrics"] = evaluate(
        predict_each(members, validation, step), tested, card["temperature"], classes,
        prevalence.to_numpy(), baseline, label_name)
    if is_few and settings.recipe.epochs:
        labelled = [training, validation] if settings.test_labels else [training, validation, test]
        card["metrics"]["nested cross-validation"] = cross_validate(settings, labelled)
    rows = cohort.join(splits, {"train": training, "validation": validation, "test": test})
    text = report.in_full(words, rows, card)
    print(text, end="")
    models.write_card({**saved, **card, "contract": contract(card)}, output)    # with the figures
    write_results(settings, folder, card, text, rows, tested)
    print(report.at_end(settings, time.monotonic() - began))


def write_results(
    settings: Settings,
    folder: Path,
    card: dict[str, Any],
    text: str,
    rows: pd.DataFrame,
    tested: Predicted,
) -> None:
    """Write tables, figures and the model card; `rows` say what became of each labelled record."""
    from ecg.output import write

    data_dir = settings.test_data_dir or settings.data_dir

    def read_ecg(path: str) -> tuple[np.ndarray, float, np.ndarray]:
        record = read_record(f"{data_dir}/{path}", data_dir)
        rhythm = measure_rhythm(record.signal, record.fs)
        return record.signal, record.fs, rhythm.r_peaks

    with user_errors(f"results in {folder}"):
        write.write_results(
            folder, card, text, rows, tested.records, tested.mean, read_ecg)
        if settings.figures:
            from ecg.output import figures  # matplotlib, only where it draws

            figures.make_all(folder)
    page = "; to look at them, open its index.html in a browser" if settings.figures else ""
    print(f"results are in {folder}{page}")


def start(arguments: list[str]) -> None:
    """Run with the settings of a command line; if interrupted, say how to resume."""
    settings = parse_settings(arguments)
    with saying_how_to_resume(arguments, settings.output):
        run(settings)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    return exit_code("too_feature.py", start, given, traceback="--traceback" in given)


if __name__ == "__main__":
    raise_at_sigterm()
    # As a module of its own name, not __main__, so that worker processes can import its functions
    code = importlib.import_module(Path(__file__).stem).main()
    gc.freeze()    # spares the exit a search through TensorFlow's objects
    sys.exit(code)

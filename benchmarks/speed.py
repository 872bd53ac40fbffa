"""Measure speed and memory of the script beside its rivals, each pair alternately in one run.

    pip install -r benchmarks/requirements.txt
    python benchmarks/speed.py                             # all, on the demo; about an hour
    python benchmarks/speed.py --quick                     # small sizes, some minutes
    python benchmarks/speed.py --only step run             # parts of it
    python benchmarks/speed.py --labels F --data-dir D     # other records
    python benchmarks/speed.py --help

The tables go to standard output in markdown, progress to standard error. A figure is the median of
several rounds, with smallest and largest; a ratio the same of the ratios within each round.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import wfdb
from scipy import signal as dsp
from scipy import stats
from sklearn.metrics import classification_report
from sklearn.preprocessing import RobustScaler

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import too_feature as ours  # noqa: E402  it lies in the folder above

OWN, OWN_JAX = "**the script**", "**the script**, Keras on JAX"
GROWTH_BATCH = 64           # records per step while only growth is of interest, to save time
ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu",
               "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1"}
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
THREADS = {n: f"{n} thread{'s' * (n > 1)}" for n in sorted({1, CORES})}
# What the script prints and when: the first epoch's line also matches the last's
LINES = {"libraries": r"using ", "training": r"[\d,]+ parameters", "first epoch": r"epoch +1/",
         "last epoch": r"epoch "}


def log(text):
    """Print a line to standard error: standard output is for the tables."""
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------- processes
class ProcessError(Exception):
    """A process that did not end as it should; says why."""

    def __init__(self, errors):
        super().__init__(([x.strip() for x in errors.splitlines() if x.strip()] or ["?"])[-1])


def ask(worker, environment=None, **task):
    """Have a worker do a task in a process of its own; return what it returns."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, __file__, "worker", worker, json.dumps(task)], capture_output=True,
        text=True, env=ENVIRONMENT | (environment or {}))
    if done.returncode:
        raise ProcessError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def run_script(arguments, until=None):
    """Run the script as a command; return seconds to each of `LINES`, and its peak memory in MB.

    After the line `until` it is stopped. Memory: of the process, and with those it started.
    """
    said, peak, start = {}, [0.0, 0.0], time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(  # noqa: S603
            [sys.executable, ROOT / "too_feature.py", *map(str, arguments)], env=ENVIRONMENT,
            stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        threading.Thread(target=watch, args=(process, peak), daemon=True).start()
        for line in process.stdout:
            said |= {name: time.perf_counter() - start for name, pattern in LINES.items()
                     if re.match(pattern, line)}
            if until in said:
                for one in family(process.pid):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.terminate()
        said["end"] = time.perf_counter() - start
        if process.wait() and until not in said:
            errors.seek(0)
            raise ProcessError(errors.read())
    return said, peak


def family(pid):
    """Return a process and all that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def watch(process, peak):
    """Note the peaks of private memory of a process, alone and with all it started."""
    while process.poll() is None:
        each = [private_memory(one.pid) for one in family(process.pid)] or [0.0]
        peak[:] = max(peak[0], each[0]), max(peak[1], sum(each))
        time.sleep(0.2)


def private_memory(pid):
    """Return a process's anonymous resident memory in MB; 0 if it has ended, or not on Linux."""
    with contextlib.suppress(OSError):
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) * 1024 / 1e6 if found else 0.0
    return 0.0


# ---------------------------------------------------------------------------------------- tables
def short(x):
    """Return a number in three digits, larger ones whole."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def spread(values):
    """Return median (smallest-largest); in place of values, why there are none."""
    if isinstance(values, str):
        return values
    low, middle, high = (short(f(values)) for f in (np.min, np.median, np.max))
    return middle if len(values) < 2 else f"{middle} ({low}-{high})"


def over(values, others):
    """Return the ratios of two rows, round by round; none if one was not measured."""
    return [] if isinstance(values, str) or isinstance(others, str) else [
        a / b for a, b in zip(values, others, strict=True)]


def markdown(header, rows):
    """Return a markdown table."""
    table = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in table)


def alternate(ways, rounds, what):
    """Call all `ways` {name: function} in turn, in each round; return {name: values or why not}."""
    packages = {"PyTorch": "torch", "JAX": "jax"}
    values = {name: "not installed" if any(word in name and not importlib.util.find_spec(package)
                                           for word, package in packages.items()) else []
              for name in ways}
    for i, name in itertools.product(range(rounds), ways):
        if not isinstance(values[name], str):
            try:
                values[name].append(ways[name]())
            except ProcessError as error:
                values[name] = f"failed: {error}"
            log(f"{what}, round {i + 1}/{rounds}, {name}: {spread(values[name][-1:])}"
                if not isinstance(values[name], str) else f"{what}, {name}: {values[name]}")
    return values


def compare(values, unit, own=OWN, less_is_faster=True):
    """Return a table of rows {name: values or why not}, each beside row `own`."""
    rows = []
    for name, row in values.items():
        ratio = over(row, values[own]) if less_is_faster else over(values[own], row)
        rows.append([name, spread(row), "1" if name == own else spread(ratio) if ratio else ""])
    return markdown(["", unit, f"{own.strip('*')} is so many times as fast"], rows)


def target(options, text, values, limit, least=True):
    """Note whether the median of `values` is `limit` at least, or at most."""
    if values:
        met = np.median(values) >= limit if least else np.median(values) <= limit
        options.targets.append([text, f"{'at least' if least else 'at most'} {short(limit)}",
                                spread(values), "met" if met else "**missed**"])


def machine():
    """Return processor, cores, memory and versions as a line."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, IndexError):
        cpu = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    parts = [cpu, platform.system(), f"{CORES} cores",
             f"{psutil.virtual_memory().total / 1e9:.0f} GB", f"Python {platform.python_version()}"]
    for name in ("tensorflow-cpu", "tensorflow-macos", "tensorflow", "keras", "jax", "torch",
                 "numpy", "scipy", "pandas", "scikit-learn", "wfdb", "joblib"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            parts.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(parts)


# ---------------------------------------------------------------------------------------- rivals
def stock_model(keras, n_classes):
    """Build the same architecture of Keras's own layers, for features scaled before."""
    layers = keras.layers

    def dense(x, units, dropout):
        x = layers.BatchNormalization()(layers.Dense(units, activation="relu")(x))
        return layers.Dropout(dropout)(x)

    ecg, features = keras.Input((ours.SEQUENCE_LENGTH, 12)), keras.Input((8,))
    x = dense(layers.LSTM(32, dropout=0.2)(ecg), 24, 0.3)
    z = dense(layers.Concatenate()([x, dense(features, 16, 0.2)]), 32, 0.3)
    return keras.Model([ecg, features], layers.Dense(n_classes, activation="softmax")(z))


def torch_model(torch, n_classes):
    """Build the same architecture in PyTorch; its LSTM has 128 more biases."""
    nn = torch.nn

    def dense(width, units, dropout):
        return nn.Sequential(nn.Linear(width, units), nn.ReLU(), nn.BatchNorm1d(units),
                             nn.Dropout(dropout))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.drop = nn.LSTM(12, 32, batch_first=True), nn.Dropout(0.2)
            self.ecg, self.features = dense(32, 24, 0.3), dense(8, 16, 0.2)
            self.last = nn.Sequential(dense(40, 32, 0.3), nn.Linear(32, n_classes))

        def forward(self, signals, features):
            # Keras drops a lead of a record for all of its time steps
            signals = signals * self.drop(torch.ones(len(signals), 1, 12))
            x = self.ecg(self.lstm(signals)[1][0][0])
            return self.last(torch.cat([x, self.features(features)], dim=1))

    return Model()


def thesis_prepare(path):
    """Prepare one record by the thesis's own calls."""
    record = wfdb.rdrecord(path)
    resampled = np.stack([dsp.resample(lead, 500) for lead in record.p_signal.T], axis=1)
    resampled = np.nan_to_num(resampled)    # a lead with a gap is lost as a whole
    scaled = np.clip(RobustScaler().fit_transform(resampled), -3, 3).astype(np.float32)
    x, fs = resampled[:, record.sig_name.index("II")], 100
    peaks = dsp.find_peaks(x, height=np.std(x) * 0.5, distance=fs // 4)[0]
    rr, rhythm = np.diff(peaks) / fs, [0.0] * 4
    if len(rr) >= 2:
        rhythm = [60 / np.mean(rr), 1000 * np.std(rr),
                  1000 * np.sqrt(np.mean(np.diff(rr) ** 2)), np.std(rr) / np.mean(rr)]
    features = [np.mean(x), np.std(x), stats.skew(x), stats.kurtosis(x), *rhythm]
    return scaled, np.nan_to_num(np.array(features, np.float32))


# --------------------------------------------------------------------------------------- workers
def drawn(task):
    """Return training records, prepared by the script, seconds it took, classes and settings."""
    settings = ours.Settings(**task["settings"])
    labels = ours.read_labels(settings.labels)
    classes, part = sorted(labels["ecg_category"].unique()), ours.split_patients(labels)["train"]
    start = time.perf_counter()
    records = ours.load_split("train", part, classes, settings, [])
    return records, time.perf_counter() - start, classes, settings


def arrays(task):
    """Return signals, scaled features and targets as plain arrays, and the number of classes."""
    records, _, classes, _ = drawn(task)
    features = np.asarray(records.features, float)
    features = (features - np.nanmean(features, 0)) / (np.nanstd(features, 0) + 1e-9)
    return (np.ascontiguousarray(records.signals[:]), np.nan_to_num(features).astype(np.float32),
            np.asarray(records.targets, np.int64), len(classes))


class EpochTimes:
    """A standard output that notes when the line of an epoch is written."""

    def __init__(self):
        self.times, self.flush = [], sys.stderr.flush

    def write(self, text):
        """Write to standard error instead."""
        if text.startswith("epoch"):
            self.times.append(time.perf_counter())
        return sys.stderr.write(text)


def per_step(times, steps):
    """Return ms of a step from the times at which epochs ended; the first, compiling, is out."""
    return float(np.median(np.diff(times))) / steps * 1000


def step_script(task):
    """Time a step of the script's own `train`, with ten validation records only."""
    records, _, classes, settings = drawn(task)
    few = ours.Records(*(field[:10] for field in records))
    with contextlib.redirect_stdout(EpochTimes()) as output:
        ours.train(records, few, len(classes), settings)
    return per_step(output.times, len(records.targets) // settings.batch_size)


def step_keras(task):
    """Time a step of stock Keras on arrays, on the backend of the environment."""
    *inputs, targets, n_classes = arrays(task)
    import keras
    if task.get("threads"):
        import tensorflow as tf
        tf.config.threading.set_intra_op_parallelism_threads(task["threads"])
    model, times = stock_model(keras, n_classes), []
    adam = keras.optimizers.Adam(ours.Settings.learning_rate)
    model.compile(adam, "sparse_categorical_crossentropy", metrics=["accuracy"],
                  **task.get("compile", {}))
    stamp = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()))
    model.fit(inputs, targets, batch_size=ours.BATCH_SIZE, epochs=task["settings"]["epochs"],
              verbose=0, callbacks=[stamp])
    return per_step(times, len(targets) // ours.BATCH_SIZE)


def step_torch(task):
    """Time a step of PyTorch in a loop by hand."""
    *inputs, n_classes = arrays(task)
    import torch
    torch.set_num_threads(task["threads"])
    torch.backends.mkldnn.enabled = task.get("onednn", True)
    signals, features, targets = map(torch.from_numpy, inputs)
    model, times, size = torch_model(torch, n_classes).train(), [], ours.BATCH_SIZE
    adam = torch.optim.Adam(model.parameters(), ours.Settings.learning_rate, fused=True)
    for _ in range(task["settings"]["epochs"]):
        order = torch.randperm(len(targets))
        for batch in order[:len(order) // size * size].split(size):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(
                model(signals[batch], features[batch]), targets[batch]).backward()
            adam.step()
        times.append(time.perf_counter())
    return per_step(times, len(targets) // size)


def infer(task):
    """Count records per second of one of the models, after a first call."""
    signals, features, _, n_classes = arrays(task)
    many = np.arange(task["records"]) % len(signals)
    inputs = signals[many], features[many]
    if task["of"] == "torch":
        import torch
        torch.set_num_threads(task["threads"])
        model = torch_model(torch, n_classes).eval()
        batches = list(zip(*(torch.from_numpy(x).split(100) for x in inputs), strict=True))

        def predict():
            with torch.inference_mode():
                torch.cat([torch.softmax(model(*batch), dim=1) for batch in batches])
    else:
        if task["of"] == "script":
            model = ours.create_lightweight_lstm_model(n_classes)
        else:
            import keras
            model = stock_model(keras, n_classes)

        def predict():
            model.predict(inputs, batch_size=task["batch"], verbose=0)
    predict()
    start = time.perf_counter()
    predict()
    return len(many) / (time.perf_counter() - start)


def load(task):
    """Count records per second of the script's `load_split`."""
    records, seconds, *_ = drawn(task)
    return records.rows["waveform_path"].nunique() / seconds


def thesis(task):
    """Go from label file to evaluated model by the thesis's way; return seconds of training.

    One process, one record at a time (none twice), Keras as it comes; the script's own split and
    draw, so that the records are the same.
    """
    import keras
    settings, data = ours.Settings(**task["settings"]), []
    keras.utils.set_random_seed(settings.seed)
    labels = ours.read_labels(settings.labels)
    classes = sorted(labels["ecg_category"].unique())
    for name, part in ours.split_patients(labels).items():
        samples = getattr(settings, {"validation": "val"}.get(name, name) + "_samples")
        part = part[[os.path.exists(f"{settings.data_dir}/{x}.hea") for x in part["waveform_path"]]]
        rows = ours.balanced_sampling(part, samples, settings.seed, repeat=name == "train")
        prepared = {path: thesis_prepare(f"{settings.data_dir}/{path}")
                    for path in rows["waveform_path"].unique()}
        signals, features = map(np.stack, zip(*map(prepared.get, rows["waveform_path"]),
                                              strict=True))
        data.append(((signals, features), pd.Index(classes).get_indexer(rows["ecg_category"])))
    (inputs, targets), validation, (unseen, truth) = data
    inputs, start = (ours.lightweight_augmentation(inputs[0]), inputs[1]), time.perf_counter()
    model = stock_model(keras, len(classes))
    model.compile(keras.optimizers.Adam(settings.learning_rate), "sparse_categorical_crossentropy",
                  metrics=["accuracy"])
    model.fit(inputs, targets, batch_size=settings.batch_size, epochs=settings.epochs, verbose=0,
              validation_data=validation, callbacks=[keras.callbacks.ReduceLROnPlateau(
                  factor=0.5, patience=3, min_lr=1e-6)])
    seconds = time.perf_counter() - start
    predicted = model.predict(unseen, verbose=0).argmax(axis=1)
    log(classification_report(truth, predicted, labels=range(len(classes)), zero_division=0))
    return seconds


# ----------------------------------------------------------------------------------------- parts
def worker_settings(options, **settings):
    """Return settings of the script for a worker, by name."""
    return {"labels": str(options.labels), "data_dir": str(options.data_dir), "jobs": 1,
            "cache_dir": str(options.scratch / "cache"), **settings}


def command_line(options, **settings):
    """Return the script's arguments for these settings."""
    named = {"labels": options.labels, "data_dir": options.data_dir,
             "output": options.scratch / "model.keras", **settings}
    return [x for name, value in named.items() for x in ("--" + name.replace("_", "-"), value)]


def measure_step(options):
    """Time training steps of the script, of Keras and of PyTorch."""
    task = {"settings": worker_settings(
        options, train_samples=320 if options.quick else 1500, epochs=3, settle=0,
        stop_patience=10_000)}
    jax, xla = {"KERAS_BACKEND": "jax"}, {"compile": {"jit_compile": True}, "threads": 1}
    values = alternate({
        OWN: lambda: ask("step_script", **task),
        OWN_JAX: lambda: ask("step_script", jax, **task),
        "Keras as it comes": lambda: ask("step_keras", **task),
        "Keras, XLA, 1 thread": lambda: ask("step_keras", **task, **xla),
        "Keras as it comes, on JAX": lambda: ask("step_keras", jax, **task),
        **{f"PyTorch, {name}": lambda n=n: ask("step_torch", **task, threads=n)
           for n, name in THREADS.items()},
        "PyTorch without oneDNN, 1 thread":
            lambda: ask("step_torch", **task, threads=1, onednn=False)}, options.rounds, "step, ms")
    print(f"\n## Training step\n\n{compare(values, 'ms a step')}\n\nBatches of {ours.BATCH_SIZE}, "
          f"{ours.SEQUENCE_LENGTH} points, 12 leads. Without the first epoch, which compiles. The "
          "script's step includes augmentation and class weights, the others' do not; its batch "
          "normalisation learns all the time, as theirs does (`--settle 0`).", flush=True)
    torch = min((row for name, row in values.items() if "PyTorch" in name
                 and not isinstance(row, str)), key=np.median, default="")
    for name, limit in ((OWN, 1.8), (OWN_JAX, 1.1)):
        target(options, f"step, time of {name} over that of PyTorch (its fastest row; goal 1)",
               over(values[name], torch), limit, least=False)
    return values


def measure_preparation(options):
    """Time the preparation of single records, three ways, and of many on one core and all."""
    rows, settings = ours.read_labels(options.labels)["waveform_path"], ours.Settings()
    paths = [f"{options.data_dir}/{x}" for x in rows
             if os.path.exists(f"{options.data_dir}/{x}.hea")][:50 if options.quick else 300]
    ways = {OWN: lambda path: ours.prepare_record(path, options.data_dir, settings),
            "`wfdb.rdrecord` alone": wfdb.rdrecord, "the thesis's way": thesis_prepare}
    values = {name: [] for name in ways}
    for i in range(options.rounds + 1):
        seconds = {name: [] for name in ways}
        for path, name in itertools.product(paths, ways):
            start = time.perf_counter()
            ways[name](path)
            seconds[name].append(time.perf_counter() - start)
        for name in ways if i else ():    # the first round fills the system's file cache
            values[name].append(1000 * float(np.median(seconds[name])))
    log("preparation, ms: " + ", ".join(f"{name} {spread(row)}" for name, row in values.items()))
    target(options, "preparation, our time over that of `wfdb.rdrecord`",
           over(values[OWN], values["`wfdb.rdrecord` alone"]), 1.5, least=False)
    n = 1000 if options.quick else 5000
    labels, folder = copies(options, n)
    many = worker_settings(options, labels=str(labels), data_dir=str(folder), cache=False,
                           train_samples=n)
    rates = alternate({f"--jobs {jobs}": lambda jobs=jobs: ask("load", settings={
        **many, "jobs": jobs}) for jobs in THREADS}, options.rounds, "records per second")
    print(f"\n## Preparation\n\n{compare(values, 'ms a record, one process')}\n\n{len(paths)} "
          f"records, read alternately: median of the records in each round.\n\n"
          f"{compare(rates, 'records per second', '--jobs 1', False)}\n\n`load_split` without "
          f"cache, some {n * 72 // 100:,} records, start of its processes included.", flush=True)
    return {**values, **rates}


def measure_inference(options):
    """Count records per second of the models' predictions."""
    n = 1000 if options.quick else 10_000
    task = {"settings": worker_settings(options, train_samples=160), "records": n}
    values = alternate({
        OWN: lambda: ask("infer", **task, of="script", batch=100),
        "Keras as it comes": lambda: ask("infer", **task, of="keras", batch=None),
        "Keras, batches of 100": lambda: ask("infer", **task, of="keras", batch=100),
        **{f"PyTorch, batches of 100, {name}": lambda k=k: ask("infer", **task, of="torch",
                                                               threads=k)
           for k, name in THREADS.items()}}, options.rounds, "inference, records per second")
    print(f"\n## Inference\n\n{compare(values, 'records per second', less_is_faster=False)}\n\n"
          f"{n:,} prepared records, after a first call.", flush=True)
    return values


def measure_run(options):
    """Time whole runs, ours and the thesis's, at equal epochs; and starts cold and warm."""
    sizes = {"epochs": options.epochs or (2 if options.quick else ours.EPOCHS)}
    if options.quick:
        sizes |= {"train_samples": 200, "val_samples": 60, "test_samples": 80}
    flags, rival = command_line(options, **sizes), "the thesis's way"
    training = {OWN: [], rival: []}

    def run_ours():
        said, _ = run_script([*flags, "--no-cache", "--stop-patience", 10_000])
        training[OWN].append(said["last epoch"] - said["training"])
        return said["end"]

    def run_thesis():
        start = time.perf_counter()
        training[rival].append(ask("thesis", settings=worker_settings(options, **sizes)))
        return time.perf_counter() - start

    values = alternate({OWN: run_ours, rival: run_thesis}, min(options.rounds, 2), "whole run, s")
    print(f"\n## Whole run\n\n{compare(values, 's from command to report')}\n\n"
          + compare({name: row or "not measured" for name, row in training.items()},
                    's of these in training')
          + f"\n\n{sizes['epochs']} epochs both, without cache.", flush=True)
    target(options, "whole run, the thesis's time over ours", over(values[rival], values[OWN]), 4)
    starts = {"cold cache": ([], []), "warm cache": ([], [])}
    for i, (name, both) in itertools.product(range(options.rounds), starts.items()):
        said, _ = run_script([*flags, "--cache-dir", options.scratch / f"cache{i}"], "first epoch")
        both[0].append(said["training"])
        both[1].append(said["first epoch"])
        log(f"start, {name}, round {i + 1}/{options.rounds}: training after {both[0][-1]:.1f} s")
    print("\n" + markdown(
        ["from the command, imports included", "s to the start of training",
         "s to the end of its first epoch"],
        [[name, *map(spread, both)] for name, both in starts.items()]), flush=True)
    target(options, "warm cache, s from the command to the first epoch's start",
           starts["warm cache"][0], 10, least=False)
    return {**values, "training": training, **starts}


def copies(options, n):
    """Return label file and folder of `n` records: those there are, linked under new names.

    Classes in equal shares, one record to a patient. Hard links: the script refuses others.
    """
    folder, rows = options.scratch / "copies", ours.read_labels(options.labels)
    rows = rows[[os.path.exists(f"{options.data_dir}/{x}.hea") for x in rows["waveform_path"]]]
    groups, lines = [list(x.itertuples()) for _, x in rows.groupby("ecg_category")], []
    for i in range(n):
        group = groups[i % len(groups)]
        row = group[i // len(groups) % len(group)]
        source, new = options.data_dir / row.waveform_path, f"files/{i // 1000:03}/{i:06}"
        lines.append(f"{20_000_000 + i},{new}/{source.name},{row.ecg_category}\n")
        if not (folder / new).exists():
            (folder / new).mkdir(parents=True)
            for file in source.parent.glob(source.name + ".*"):
                try:
                    os.link(file, folder / new / file.name)
                except OSError:    # another file system, or too many links
                    shutil.copy(file, folder / new)
    labels = options.scratch / f"{n}.csv"
    labels.write_text("".join(lines), encoding="utf-8")
    return labels, folder


def measure_growth(options):
    """Run the script on more and more records, from a cold and a warm cache."""
    found = {}
    for n in options.sizes:
        labels, folder = copies(options, n)
        flags = command_line(options, labels=labels, data_dir=folder, train_samples=n * 72 // 100,
                             val_samples=n * 12 // 100, test_samples=n * 15 // 100, epochs=1,
                             batch_size=GROWTH_BATCH, cache_dir=options.scratch / "growth")
        cold, (alone, together) = run_script(flags)
        warm, _ = run_script(flags, "training")
        shutil.rmtree(options.scratch / "growth", ignore_errors=True)
        found[n] = {"preparation, s": cold["training"] - cold["libraries"],
                    "epoch, s": cold["first epoch"] - cold["training"],
                    "whole run, s": cold["end"], "warm start, s": warm["training"],
                    "peak memory, MB": alone, "with its processes, MB": together}
        log(f"growth, {n:,} records: " + "; ".join(
            f"{name} {short(x)}" for name, x in found[n].items()))
        target(options, f"peak private memory, {n:,} records, MB with its processes",
               [together] if together else [], 2000, least=False)
    rows = [[f"{n:,}", *(short(x) if x else "not measured" for x in row.values())]
            for n, row in found.items()]
    print(f"\n## Growth\n\n{markdown(['records', *next(iter(found.values()))], rows)}\n\nOne run "
          "each of the records under new names, one epoch of nearly all of them in batches of "
          f"{GROWTH_BATCH}. Preparation: from the versions' line to the start of training, the "
          "trial of XLA included; epoch: compilation and validation included; warm start: from the "
          "command to the start of training, the second time. Memory: private (RssAnon, on Linux), "
          "polled every 0.2 s, of the script's process and with those it started.", flush=True)
    if options.picture:
        draw(found, options.picture)
    return found


def draw(found, path):
    """Draw time and memory against records, both axes logarithmic."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker
    plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
    sizes, panels = np.array(list(found)), {
        "seconds": ("preparation, s", "epoch, s", "warm start, s"),
        "peak private memory, MB": ("peak memory, MB", "with its processes, MB")}
    figure, both = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    for axes, (title, columns) in zip(both, panels.items(), strict=True):
        for name, colour, marker, width in zip(    # Okabe & Ito's, told apart by all eyes
                columns, ("#0072B2", "#D55E00", "#009E73"), "os^", (5, 2, 2), strict=False):
            axes.loglog(sizes, [row[name] or np.nan for row in found.values()], color=colour,
                        marker=marker, linewidth=width, markersize=2 * width ** 0.5 + 5,
                        label=name.split(",")[0])
        largest = max(found[sizes[-1]][name] for name in columns)
        axes.loglog(sizes, largest * sizes / sizes[-1], "--", color="0.5",
                    label="in proportion to the records")
        axes.set(xlabel="records", ylabel=title, xticks=sizes)
        axes.set_xticklabels([f"{n:,}" for n in sizes], rotation=40)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:,g}"))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    both[1].axhline(2000, color="black", linewidth=1, label="limit of 2 GB")
    both[1].set_ylim(100, 3000)
    for axes, place in zip(both, ("upper left", "lower left"), strict=True):
        axes.legend(frameon=False, fontsize=11, loc=place)
    figure.savefig(path, dpi=120)


# ------------------------------------------------------------------------------------------ main
PARTS = {"step": measure_step, "preparation": measure_preparation, "inference": measure_inference,
         "run": measure_run, "growth": measure_growth}
WORKERS = {worker.__name__: worker for worker in (
    step_script, step_keras, step_torch, infer, load, thesis)}


def parse_options(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, default=ROOT / ours.Settings.labels,
                        help="label file (default: the demo's)")
    parser.add_argument("--data-dir", type=Path, default=ROOT / ours.Settings.data_dir,
                        help="folder that its paths start from")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds")
    parser.add_argument("--rounds", type=int,
                        help="(default: 3, --quick 2; whole runs: 2 at most)")
    parser.add_argument("--epochs", type=int, help="of whole runs (default: 15, --quick 2)")
    parser.add_argument("--sizes", type=int, nargs="+",
                        help="records of the growth (default: 1000 to 50000, --quick 300 and 1000)")
    parser.add_argument("--picture", type=Path, help="file for a picture of the growth")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--scratch", type=Path, help="existing folder for links and caches, best on"
                        " the records' file system (default: the system's temporary one)")
    options = parser.parse_args(arguments)
    options.labels, options.data_dir = options.labels.resolve(), options.data_dir.resolve()
    options.rounds = options.rounds or (2 if options.quick else 3)
    options.sizes = sorted(options.sizes or ((300, 1000) if options.quick else
                                             (1000, 2000, 5000, 10_000, 20_000, 50_000)))
    options.targets = []
    return options


def main(arguments=None):
    """Run the benchmark; return the exit code."""
    options, found, code = parse_options(arguments), {"machine": machine()}, 0
    print(f"# Speed\n\n{found['machine']}." + options.quick * (
        "\n\n**--quick: small sizes, where fixed costs weigh more.**"), flush=True)
    try:
        with contextlib.redirect_stdout(sys.stderr):    # the script's notices are no tables
            ours.ensure_demo(ours.read_labels(options.labels), str(options.data_dir))
        with tempfile.TemporaryDirectory(prefix="speed-", dir=options.scratch) as scratch:
            options.scratch = Path(scratch).resolve()
            for part in [part for part in PARTS if part in options.only]:
                try:
                    found[part] = PARTS[part](options)
                except ProcessError as error:    # the other parts can go on
                    log(f"speed.py: {part} failed: {error}")
                    code = 1
                if options.json:
                    options.json.write_text(json.dumps(found | {"targets": options.targets}))
    except (ours.UserError, KeyboardInterrupt) as error:
        log(f"speed.py: error: {str(error) or 'interrupted'}")
        code = 2
    if options.targets:
        print("\n## Targets\n\n" + markdown(["", "target", "measured", ""], options.targets))
    return code


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        with contextlib.redirect_stdout(sys.stderr):
            answer = WORKERS[sys.argv[2]](json.loads(sys.argv[3]))
        print(json.dumps(answer))
    else:
        sys.exit(main())

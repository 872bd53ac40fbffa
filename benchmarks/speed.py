"""Measure the speed of the script and its baselines, alternately in one run.

    pip install -r benchmarks/requirements.txt
    python benchmarks/speed.py                  # all, on the demo; ten minutes
    python benchmarks/speed.py --only step      # a part of it: step, record or run

The tables go to standard output in Markdown, progress to standard error. A figure is the median of
several rounds, with smallest and largest; a ratio the same of the ratios within each round. Each
measurement has a process of its own, so that none warms up another.
"""

import contextlib
import functools
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import wfdb
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere

import too_feature as script
from benchmarks import thesis
from ecg import files, origin
from ecg.errors import exit_code
from ecg.output.tables import markdown_table
from ecg.settings import Parser

ROUNDS = 2
CORES = os.cpu_count()
SINGLE_RECORDS = 300     # prepared one by one
STEP_SAMPLES = 320       # training records, in batches of four
RECIPE = script.Recipe(epochs=3, freeze_bn_after=0)    # few and short epochs, to time steps


# ---------------------------------------------------------------------------------------- records
def time_preparation(scratch, prepare):
    """Return ms for one record, the median of many, prepared by this function of a path."""
    folder = Path(script.Settings.data_dir)
    paths = [str(path.with_suffix("")) for path in sorted(folder.rglob("*.hea"))[:SINGLE_RECORDS]]
    for _ in range(2):    # the first time fills the system's file cache
        times = [time.perf_counter()]
        for path in paths:
            prepare(path)
            times.append(time.perf_counter())
    return 1000 * float(np.median(np.diff(times)))


def draw_records(scratch):
    """Return training records prepared by the script, the number of classes, and the settings."""
    settings = script.Settings(train_samples=STEP_SAMPLES, recipe=RECIPE, cache_dir=scratch)
    labels = script.read_labels(settings.labels)
    classes = sorted(labels["ecg_category"].unique())
    part = script.split_patients(labels)["train"]
    return script.load_split("train", part, classes, settings), len(classes), settings


def draw_arrays(scratch):
    """Return signals, scaled features and targets as plain arrays, and the number of classes."""
    records, n_classes, _ = draw_records(scratch)
    features = np.nan_to_num(StandardScaler().fit_transform(records.features))
    return records.signals[:], features, records.targets, n_classes


# ------------------------------------------------------------------------------------------ steps
class EpochTimes(list):
    """Takes the place of standard output: when the line of each epoch was written."""

    def write(self, text):
        """Keep the time."""
        if text.startswith("epoch"):
            self.append(time.perf_counter())

    def flush(self):
        """Do nothing."""


def per_step(times):
    """Return ms of a step from the times at which epochs ended; the first compiled, and is out."""
    steps = STEP_SAMPLES // RECIPE.batch_size
    return 1000 * float(np.median(np.diff(times))) / steps


def step_script(scratch):
    """Time a step of the script's own `train`, with ten validation records only."""
    records, n_classes, settings = draw_records(scratch)
    few = script.Records(*(field[:10] for field in records))
    with contextlib.redirect_stdout(EpochTimes()) as times:
        script.train(records, few, n_classes, settings)
    return per_step(times)


def step_keras(scratch, **compile_options):
    """Time a step of stock Keras on arrays, with ten validation records as well."""
    *training, n_classes = draw_arrays(scratch)
    few = [array[:10] for array in training]
    times = []
    stamp = script.load_tensorflow()[1].callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()))
    thesis.train(training, few, n_classes, 0, epochs=RECIPE.epochs, callbacks=[stamp],
                 **compile_options)
    return per_step(times)


def torch_model(torch, n_classes):
    """Build the same architecture in PyTorch; its LSTM has 128 more biases."""
    nn = torch.nn

    def dense(width, units, dropout):
        return nn.Sequential(
            nn.Linear(width, units), nn.ReLU(), nn.BatchNorm1d(units), nn.Dropout(dropout))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.lstm = nn.Dropout(0.2), nn.LSTM(12, 32, batch_first=True)
            self.ecg, self.features = dense(32, 24, 0.3), dense(8, 16, 0.2)
            self.last = nn.Sequential(dense(40, 32, 0.3), nn.Linear(32, n_classes))

        def forward(self, signals, features):
            # Keras drops a lead of a record for all of its time steps
            kept = self.drop(torch.ones(len(signals), 1, 12))
            _, (hidden, _) = self.lstm(signals * kept)
            return self.last(torch.hstack([self.ecg(hidden[0]), self.features(features)]))

    return Model()


def step_torch(scratch, threads):
    """Time a step of PyTorch in a plain training loop."""
    *inputs, n_classes = draw_arrays(scratch)
    import torch

    torch.set_num_threads(threads)
    signals, features, targets = map(torch.from_numpy, inputs)
    model = torch_model(torch, n_classes).train()
    adam = torch.optim.Adam(model.parameters(), RECIPE.learning_rate, fused=True)
    loss_of = torch.nn.functional.cross_entropy

    times = []
    for _ in range(RECIPE.epochs):
        for batch in torch.randperm(len(targets)).split(RECIPE.batch_size):
            adam.zero_grad()
            loss_of(model(signals[batch], features[batch]), targets[batch]).backward()
            adam.step()
        times.append(time.perf_counter())
    return per_step(times)


# --------------------------------------------------------------------------------------- commands
def time_python(*arguments, until="\0"):
    """Run Python to the end, or to a line that begins with `until`; return the seconds."""
    start = time.perf_counter()
    command = [sys.executable, "-u", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        for line in process.stdout:
            if line.startswith(until):
                process.terminate()
                return time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"the command failed with code {process.returncode}")
    return time.perf_counter() - start


def run_script(scratch, *flags, until="\0"):
    """Time a whole run of the script in a scratch folder, without early stopping."""
    return time_python(
        script.__file__, "--output", f"{scratch}/model.keras", "--results",
        f"{scratch}/results", "--cache-dir", scratch, "--epochs", str(thesis.EPOCHS),
        "--set", "stop_patience=10000", *flags, until=until)


def run_uncached(scratch):
    """Time a whole run that prepares all records."""
    return run_script(scratch, "--no-cache")


def first_epoch(scratch):
    """Time the script to the end of the first epoch, where all records are in the cache."""
    run_script(scratch, until="epoch")
    return run_script(scratch, until="epoch")


def run_thesis(scratch):
    """Time the thesis's way from label file to predictions."""
    return time_python("-c", "from benchmarks import thesis; thesis.run()")


# ----------------------------------------------------------------------------------------- tables
class Part(NamedTuple):
    """One table: ways to do the same, each compared with the first."""

    title: str
    unit: str
    ways: dict[str, Callable]    # by title: takes a scratch folder and returns a number
    note: str


PARTS = {
    "step": Part("Training step", "ms", {
        "**the script**": step_script,
        "Keras as it comes": step_keras,
        "Keras, XLA": functools.partial(step_keras, jit_compile=True),
        "PyTorch, 1 thread": functools.partial(step_torch, threads=1),
        f"PyTorch, {CORES} threads": functools.partial(step_torch, threads=CORES)},
        "Batches of 4, 500 points, 12 leads, without the first epoch, which compiles. The script's "
        "step includes augmentation and, as Keras's, class weights; its batch normalisation "
        "learns all the time, as theirs does (`--set freeze_bn_after=0`)."),

    "record": Part("Preparing one record", "ms", {
        "**the script**": functools.partial(time_preparation, prepare=script.prepare_record),
        "`wfdb.rdrecord` alone": functools.partial(time_preparation, prepare=wfdb.rdrecord),
        "the thesis's way": functools.partial(time_preparation, prepare=thesis.prepare_record)},
        "Median of 300 records in one process."),

    "run": Part("Whole run", "s", {
        "**the script**": run_uncached,
        "the thesis's way": run_thesis,
        "the script to the end of its first epoch, warm cache": first_epoch},
        "From the command to the report, equal epochs, without cache."),
}


def measure_alone(way, scratch):
    """Measure a way in a process of its own, with what it prints on standard error."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=os.dup2, initargs=(2, 1)) as executor:
        return executor.submit(way, scratch).result()


def alternate(part, scratch):
    """Measure all ways of a part in turn; return a row for each round, a column for each way."""
    return pd.DataFrame([
        {title: measure_alone(way, scratch) for title, way in tqdm(part.ways.items(), part.title)}
        for _ in range(ROUNDS)])


def spread(values):
    """Return median (smallest-largest)."""
    return f"{values.median():.3g} ({values.min():.3g}-{values.max():.3g})"


def table(part, values):
    """Return a part's table in Markdown, each row compared with the first, round by round."""
    first = values.columns[0]
    times = values.div(values[first], axis=0)
    rows = [[title, spread(values[title]), spread(times[title]) if title != first else ""]
            for title in values]
    heading = f"{first.strip('*')} is so many times as fast"
    return f"### {part.title}\n\n{markdown_table(['', part.unit, heading], rows)}\n\n{part.note}\n"


def machine():
    """Return processor, cores and versions as a line."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if platform.system() == "Linux" else ""
    processor = re.search("model name\t: (.*)|$", cpuinfo)[1] or platform.processor()
    versions = [f"{name} {version}" for name, version in origin.versions().items()]
    return ", ".join([processor, f"{CORES} cores", *versions])


# ------------------------------------------------------------------------------------------ main
def run(options):
    """Measure, and print a table for each part."""
    os.chdir(files.ROOT)    # where the demo is
    script.ensure_demo(script.read_labels(script.Settings.labels), script.Settings.data_dir)
    print(f"{machine()}.\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="speed-") as scratch:
        for name in options.only:
            print(table(PARTS[name], alternate(PARTS[name], scratch)), flush=True)


def main(arguments=None):
    """Run the benchmark; return the exit code."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    return exit_code("speed.py", run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

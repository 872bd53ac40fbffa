"""Measure speed and memory of the script and its baselines, each pair alternately in one run.

    pip install -r benchmarks/requirements.txt
    python benchmarks/speed.py                             # all, on the demo; 12 minutes
    python benchmarks/speed.py --quick                     # small sizes, some minutes
    python benchmarks/speed.py --rounds 3 --sizes 1000 10000 50000    # an hour
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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere

import too_feature as script
from benchmarks import thesis
from benchmarks.common import log
from ecg.errors import UserError
from ecg.files import write_whole
from ecg.output.model_card import markdown_table

OWN = "**the script**"
THESIS = "the thesis's way"
WFDB = "`wfdb.rdrecord` alone"
GROWTH_BATCH = 64           # records per step while only growth is of interest, to save time
ALL_RECORDS = 800_000       # of MIMIC-IV-ECG
LEAST_GROWTH = 20_000       # records; over fewer, starting worker processes outweighs the slope
NEVER = 10_000              # epochs of patience: no early stopping
ENVIRONMENT = {
    **os.environ,
    "CUDA_VISIBLE_DEVICES": "-1",
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "PYTHONUNBUFFERED": "1",
}
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
THREADS = {n: "1 thread" if n == 1 else f"{n} threads" for n in sorted({1, CORES})}
PACKAGES = ("tensorflow-cpu", "tensorflow-macos", "tensorflow", "keras", "jax", "torch", "numpy",
            "scipy", "pandas", "scikit-learn", "wfdb", "joblib")

HARD_CLASSES = 100          # of the label file that is hardest to split
REPEATS = 5

# What the script prints and when; the line of the first epoch also matches that of the last
LINES = {
    "reading": r"loading TensorFlow",
    "repeats": r"using ",
    "training": r"[\d,]+ parameters|training \d+ models",
    "first epoch": r"epoch +1/",
    "last epoch": r"epoch ",
}


# ------------------------------------------------------------------------------------- processes
class ProcessError(Exception):
    """A process that did not end as it should; its message is the last line of what it wrote."""

    def __init__(self, errors):
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        super().__init__(lines[-1] if lines else "?")


def ask(worker, environment=None, **task):
    """Have a worker do a task in a process of its own; return what it returns."""
    program = Path(__file__).with_name("speed_workers.py")
    done = subprocess.run(  # noqa: S603
        [sys.executable, program, worker, json.dumps(task)], capture_output=True, text=True,
        env=ENVIRONMENT | (environment or {}))
    if done.returncode:
        raise ProcessError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def run_script(arguments, until=None):
    """Run the script as a command.

    Parameters
    ----------
    arguments : list
    until : str, optional
        The name of one of `LINES`, after which the script is stopped.

    Returns
    -------
    dict
        Seconds from the start to each of `LINES`, and to the end.
    Peak
        Its memory.
    """
    said = {}
    peak = Peak()
    command = [sys.executable, ROOT / "too_feature.py", *map(str, arguments)]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(  # noqa: S603
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        threading.Thread(target=peak.watch, args=(process,), daemon=True).start()
        for line in process.stdout:
            for name, pattern in LINES.items():
                if re.match(pattern, line):
                    said[name] = time.perf_counter() - start
            if until in said:
                terminate(process.pid)

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


def terminate(pid):
    """Ask a process and all that it started to end."""
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()


class Peak:
    """The peak of private memory of a process in MB, `alone` and `together` with its children."""

    def __init__(self):
        self.alone = 0.0
        self.together = 0.0

    def watch(self, process):
        """Look at the memory again and again until the process ends."""
        while process.poll() is None:
            each = [private_memory(one.pid) for one in family(process.pid)]
            if each:
                self.alone = max(self.alone, each[0])
                self.together = max(self.together, sum(each))
            time.sleep(0.2)


def private_memory(pid):
    """Return a process's anonymous resident memory in MB; 0 if it has ended, or not on Linux."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        if found:
            return int(found[1]) * 1024 / 1e6
    return 0.0


# --------------------------------------------------------------------------------- rows and tables
def short(x):
    """Return a number in three digits, larger ones whole."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def spread(values):
    """Return median (smallest-largest), or the text that stands for values not measured."""
    if isinstance(values, str):
        return values
    middle = short(np.median(values))
    if len(values) < 2:
        return middle
    return f"{middle} ({short(min(values))}-{short(max(values))})"


def over(values, others):
    """Return the ratios of two rows, round by round; none if one was not measured."""
    if isinstance(values, str) or isinstance(others, str):
        return []
    return [a / b for a, b in zip(values, others, strict=True)]


def not_installed(name):
    """Tell whether a row needs a package that is not there, by the row's name."""
    packages = {"PyTorch": "torch", "JAX": "jax"}
    needed = [package for word, package in packages.items() if word in name]
    return any(importlib.util.find_spec(package) is None for package in needed)


def alternate(ways, rounds, what):
    """Measure all ways in turn, in each round.

    Parameters
    ----------
    ways : dict of callable
        By name; each returns a number.
    rounds : int
    what : str
        For the progress that is printed.

    Returns
    -------
    dict
        By name, a list of numbers or a text that says why there are none.
    """
    values = {name: "not installed" if not_installed(name) else [] for name in ways}
    for i in range(rounds):
        for name, measure in ways.items():
            if isinstance(values[name], str):
                continue
            try:
                values[name].append(measure())
                log(f"{what}, round {i + 1}/{rounds}, {name}: {short(values[name][-1])}")
            except ProcessError as error:
                values[name] = f"failed: {error}"
                log(f"{what}, {name}: {values[name]}")
    return values


def compare(values, unit, own=OWN, less_is_faster=True):
    """Return a table of rows {name: values or why not}, each compared with the row `own`."""
    rows = []
    for name, row in values.items():
        ratio = over(row, values[own]) if less_is_faster else over(values[own], row)
        factor = "1" if name == own else spread(ratio or "")
        rows.append([name, spread(row), factor])
    return markdown_table(["", unit, f"{own.strip('*')} is so many times as fast"], rows)


class Targets:
    """Rows of the table of targets."""

    def __init__(self):
        self.rows = []

    def at_least(self, limit, text, values):
        """Note whether the median of `values` is `limit` or more."""
        self._add(text, f"at least {short(limit)}", values, lambda median: median >= limit)

    def at_most(self, limit, text, values):
        """Note whether the median of `values` is `limit` or less."""
        self._add(text, f"at most {short(limit)}", values, lambda median: median <= limit)

    def _add(self, text, wanted, values, is_met):
        if values:    # nothing measured, nothing to say
            verdict = "met" if is_met(np.median(values)) else "**missed**"
            self.rows.append([text, wanted, spread(values), verdict])


def machine():
    """Return processor, cores, memory and versions as a line."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, IndexError):
        cpuinfo = Path("/proc/cpuinfo").read_text()
        processor = re.findall(r"model name\s*: (.*)", cpuinfo)[0]

    memory = psutil.virtual_memory().total / 1e9
    parts = [processor, platform.system(), f"{CORES} cores", f"{memory:.0f} GB",
             f"Python {platform.python_version()}"]
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            parts.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(parts)


# ----------------------------------------------------------------------------------------- inputs
def worker_settings(options, **settings):
    """Return settings of the script for a worker, by name."""
    return {
        "labels": str(options.labels),
        "data_dir": str(options.data_dir),
        "jobs": 1,
        "cache_dir": str(options.scratch / "cache"),
        **settings,
    }


def command_line(options, **settings):
    """Return the script's arguments for these settings."""
    named = {
        "labels": options.labels,
        "data_dir": options.data_dir,
        "output": options.scratch / "model.keras",
        "results": options.scratch / "results",
        **settings,
    }
    flags = []
    for name, value in named.items():
        flags += ["--" + name.replace("_", "-"), value]
    return flags


def on_disk(options):
    """Return the rows of the label file whose records are on disk."""
    rows = script.read_labels(options.labels)
    there = [os.path.exists(f"{options.data_dir}/{path}.hea") for path in rows["waveform_path"]]
    return rows[there]


def copies(options, n):
    """Return label file and folder of `n` records: those there are, copied under new names.

    Classes in equal shares, one record to a patient.
    """
    folder = options.scratch / "copies"
    classes = [list(rows.itertuples()) for _, rows in on_disk(options).groupby("ecg_category")]
    lines = []
    for i in range(n):
        records = classes[i % len(classes)]
        turn, place = divmod(i // len(classes), len(records))
        row = records[place]
        source = options.data_dir / row.waveform_path
        new = f"files/{i // 1000:03}/{i:06}"
        lines.append(f"{20_000_000 + i},{new}/{source.name},{row.ecg_category}\n")
        if not (folder / new).exists():
            (folder / new).mkdir(parents=True)
            copy_record(source, folder / new, turn)

    labels = options.scratch / f"{n}.csv"
    labels.write_text("".join(lines), encoding="utf-8")
    return labels, folder


def copy_record(source, folder, steps):
    """Copy a record into a folder, its first sample raised by some steps of the converter.

    Without that, the script would know it for a copy, and leave it out.
    """
    header, first, *others = source.with_suffix(".hea").read_text().splitlines()
    fields = first.split()    # file, format, gain, bits, zero, first sample, checksum, block, lead
    fields[5] = str(int(fields[5]) + steps)
    fields[6] = str((int(fields[6]) + steps) % 2**16)
    text = "\n".join([header, " ".join(fields), *others, ""])
    (folder / f"{source.name}.hea").write_text(text)

    samples = np.fromfile(source.with_suffix(".dat"), "<i2")
    samples[0] += steps
    samples.tofile(folder / f"{source.name}.dat")


# ------------------------------------------------------------------------------------------- step
def measure_step(options, targets):
    """Time training steps of the script, of Keras and of PyTorch."""
    recipe = script.Recipe()
    task = {"settings": worker_settings(options, train_samples=320),
            "recipe": {"epochs": 3, "freeze_bn_after": 0, "stop_patience": NEVER}}
    # Of the baselines that take 60 ms a step, fewer steps
    slow = task | {"settings": worker_settings(options, train_samples=120)}
    jax = {"KERAS_BACKEND": "jax"}
    xla = {"compile": {"jit_compile": True}, "threads": 1}

    ways = {
        OWN: lambda: ask("step_script", **task),
        "Keras as it comes": lambda: ask("step_keras", **slow),
        "Keras, XLA, 1 thread": lambda: ask("step_keras", **task, **xla),
        "Keras as it comes, on JAX": lambda: ask("step_keras", jax, **task),
    }
    for n, name in THREADS.items():
        ways[f"PyTorch, {name}"] = lambda n=n: ask("step_torch", **task, threads=n)
    ways["PyTorch without oneDNN, 1 thread"] = lambda: ask(
        "step_torch", **slow, threads=1, onednn=False)

    values = alternate(ways, options.rounds, "step, ms")
    print(f"\n## Training step\n\n{compare(values, 'ms a step')}\n\nBatches of "
          f"{recipe.batch_size}, {recipe.sequence_length} points, 12 leads. Without the first "
          "epoch, which compiles. The script's step includes augmentation and class weights, the "
          "others' do not; its batch normalisation learns all the time, as theirs does (`--set "
          "freeze_bn_after=0`).", flush=True)

    torch = [row for name, row in values.items() if "PyTorch" in name and not isinstance(row, str)]
    fastest = min(torch, key=np.median, default="not measured")
    targets.at_most(1, "step, our time over that of PyTorch (its fastest row)",
                    over(values[OWN], fastest))
    return values


# ------------------------------------------------------------------------------------ preparation
def measure_preparation(options, targets):
    """Time the preparation of single records, three ways, and of many on one core and all."""
    n_single = 50 if options.quick else 300
    paths = [f"{options.data_dir}/{path}" for path in on_disk(options)["waveform_path"][:n_single]]
    ways = {
        OWN: lambda path: script.prepare_record(path, options.data_dir),
        WFDB: wfdb.rdrecord,
        THESIS: thesis.prepare_record,
    }
    values = time_each(ways, paths, options.rounds)
    log("preparation, ms: " + ", ".join(f"{name} {spread(row)}" for name, row in values.items()))
    targets.at_most(1.5, "preparation, our time over that of `wfdb.rdrecord`",
                    over(values[OWN], values[WFDB]))

    n_many = 1000 if options.quick else 3000
    labels, folder = copies(options, n_many)
    many = worker_settings(options, labels=str(labels), data_dir=str(folder), cache=False,
                           train_samples=n_many)
    jobs = {f"--jobs {n}": lambda n=n: ask("load", settings=many | {"jobs": n}) for n in THREADS}
    rates = alternate(jobs, options.rounds, "records per second")

    print(f"\n## Preparation\n\n{compare(values, 'ms a record, one process')}\n\n{len(paths)} "
          f"records, read alternately: median of the records in each round.\n\n"
          f"{compare(rates, 'records per second', '--jobs 1', less_is_faster=False)}\n\n"
          f"`load_split` without cache, some {n_many * 72 // 100:,} records, start of its "
          "processes included.", flush=True)
    return {**values, **rates}


def time_each(ways, paths, rounds):
    """Call each way on each path, alternately; return {name: ms in each round, median of paths}."""
    values = {name: [] for name in ways}
    for i in range(rounds + 1):
        seconds = {name: [] for name in ways}
        for path in paths:
            for name, prepare in ways.items():
                start = time.perf_counter()
                prepare(path)
                seconds[name].append(time.perf_counter() - start)

        if i > 0:    # the first round fills the system's file cache
            for name, row in values.items():
                row.append(1000 * float(np.median(seconds[name])))
    return values


# -------------------------------------------------------------------------------------- inference
def measure_inference(options, targets):
    """Count records per second of the models' predictions."""
    n = 1000 if options.quick else 3000
    task = {"settings": worker_settings(options, train_samples=160), "records": n}
    ways = {
        OWN: lambda: ask("infer", **task, of="script", batch=100),
        "Keras as it comes": lambda: ask("infer", **task, of="keras", batch=None),
        "Keras, batches of 100": lambda: ask("infer", **task, of="keras", batch=100),
    }
    for threads, name in THREADS.items():
        ways[f"PyTorch, batches of 100, {name}"] = lambda threads=threads: ask(
            "infer", **task, of="torch", threads=threads)

    values = alternate(ways, options.rounds, "inference, records per second")
    print(f"\n## Inference\n\n{compare(values, 'records per second', less_is_faster=False)}\n\n"
          f"{n:,} prepared records, after a first call.", flush=True)
    return values


# ---------------------------------------------------------------------------------------- command
def measure_command(options, targets):
    """Time --help, the split of label files that are hard to split, and repeats side by side."""
    values = alternate({"--help": time_help, "split": time_split}, options.rounds, "command, s")
    rows = [["`--help`", spread(values["--help"])],
            [f"`split_patients`, {HARD_CLASSES} classes that share patients",
             spread(values["split"])]]
    print(f"\n## Command\n\n{markdown_table(['', 's'], rows)}", flush=True)
    targets.at_most(1, "`--help`, s", values["--help"])
    targets.at_most(10, f"`split_patients` of {HARD_CLASSES} classes that share patients, s",
                    values["split"])
    return values


def time_help():
    """Return the seconds that --help takes."""
    start = time.perf_counter()
    run_script(["--help"])
    return time.perf_counter() - start


def time_split():
    """Return the seconds that it takes to split 60 patients, each of ten of a hundred classes."""
    rng = np.random.default_rng(0)
    lines = [(patient, f"{patient}/{name}", f"class {name:02}")
             for patient in range(60)
             for name in rng.choice(HARD_CLASSES, 10, replace=False)]
    labels = pd.DataFrame(lines, columns=script.COLUMNS)
    start = time.perf_counter()
    script.split_patients(labels)
    return time.perf_counter() - start


def measure_repeats(options, targets):
    """Time five repeats, one after the other and side by side."""
    n = 2 if options.quick else REPEATS
    flags = command_line(options, epochs=3, repeats=n, train_samples=600)

    def run_repeats(jobs):
        said, _ = run_script([*flags, "--jobs", jobs, "--no-figures"])
        return said["end"] - said["repeats"]

    ways = {f"--jobs {n}": lambda n=n: run_repeats(n) for n in THREADS}
    values = alternate(ways, 1, f"{n} repeats, s")
    rows = [[name, spread(row)] for name, row in values.items()]
    print(f"\n## Repeats\n\n{markdown_table(['', f's for {n} models'], rows)}", flush=True)
    if len(ways) > 1:
        targets.at_least(1.7, f"{n} repeats, time of one after the other over ours",
                         over(values["--jobs 1"], values[f"--jobs {CORES}"]))
    return values


# -------------------------------------------------------------------------------------- whole run
def measure_run(options, targets):
    """Time whole runs, ours and the thesis's, at equal epochs; and starts cold and warm."""
    epochs = options.epochs or (2 if options.quick else script.Recipe().epochs)
    sizes = {}
    if options.quick:
        sizes = {"train_samples": 200, "val_samples": 60, "test_samples": 80}
    flags = command_line(options, epochs=epochs, **sizes)
    task = {"settings": worker_settings(options, **sizes), "recipe": {"epochs": epochs}}
    training = {OWN: [], THESIS: []}

    def run_ours():
        said, _ = run_script([*flags, "--no-cache", "--set", f"stop_patience={NEVER}"])
        training[OWN].append(said["last epoch"] - said["training"])
        return said["end"]

    def run_thesis():
        start = time.perf_counter()
        training[THESIS].append(ask("thesis_run", **task))
        return time.perf_counter() - start

    ways = {OWN: run_ours, THESIS: run_thesis}
    values = alternate(ways, 1 if options.rounds < 3 else 2, "whole run, s")
    measured = {name: row or "not measured" for name, row in training.items()}
    print(f"\n## Whole run\n\n{compare(values, 's from command to report')}\n\n"
          f"{compare(measured, 's of these in training')}\n\n{epochs} epochs both, without cache.",
          flush=True)
    targets.at_least(6, "whole run, the thesis's time over ours",
                     over(values[THESIS], values[OWN]))

    starts = measure_starts(options, flags)
    targets.at_most(6, "warm cache, s from the command to the end of the first epoch",
                    starts["warm cache"]["first epoch"])
    return {**values, "training": training, **starts}


def measure_starts(options, flags):
    """Time starts of the script with an empty cache, once, and with a filled one."""
    starts = {name: {"training": [], "first epoch": []} for name in ("cold cache", "warm cache")}
    names = ["cold cache"] + options.rounds * ["warm cache"]    # the first one fills the cache
    for name in names:
        said, _ = run_script([*flags, "--cache-dir", options.scratch / "starts"],
                             until="first epoch")
        for line, row in starts[name].items():
            row.append(said[line])
        log(f"start, {name}: training after {said['training']:.1f} s")

    header = ["from the command, imports included", "s to the start of training",
              "s to the end of its first epoch"]
    rows = [[name, *map(spread, seconds.values())] for name, seconds in starts.items()]
    print("\n" + markdown_table(header, rows), flush=True)
    return starts


# ----------------------------------------------------------------------------------------- growth
def measure_growth(options, targets):
    """Run the script on more and more records, from a cold and a warm cache."""
    found = {}
    for n in options.sizes:
        found[n] = measure_size(options, n)
        words = [f"{name} {short(x)}" for name, x in found[n].items()]
        log(f"growth, {n:,} records: {'; '.join(words)}")
        together = found[n]["with its processes, MB"]
        targets.at_most(2000, f"peak private memory, {n:,} records, MB with its processes",
                        [together] if together else [])

    header = ["records", *found[options.sizes[0]]]
    rows = []
    for n, row in found.items():
        cells = [short(x) if x else "not measured" for x in row.values()]
        rows.append([f"{n:,}", *cells])
    print(f"\n## Growth\n\n{markdown_table(header, rows)}\n\nOne run each of the records under new "
          f"names, one epoch of nearly all of them in batches of {GROWTH_BATCH}. Preparation: to "
          "the start of training, TensorFlow's loading and the trial of XLA included; epoch: "
          "compilation and validation included; warm start: from the command to the start of "
          "training, the second time. Memory: private (RssAnon, on Linux), polled every 0.2 s, of "
          "the script's process and with those it started.", flush=True)
    check_slope(found, targets)
    if options.picture:
        draw(found, options.picture)
    return found


def check_slope(found, targets):
    """Hold against 2 GB what all of MIMIC-IV-ECG would take, by the slope between two sizes."""
    sizes = np.array(list(found))
    memory = np.array([row["with its processes, MB"] for row in found.values()])
    if sizes[-1] - sizes[0] >= LEAST_GROWTH and memory.all():
        slope = (memory[-1] - memory[0]) / (sizes[-1] - sizes[0])
        targets.at_most(2000, f"memory of {ALL_RECORDS:,} records, MB, by the slope measured",
                        [float(memory[-1] + slope * (ALL_RECORDS - sizes[-1]))])


def measure_size(options, n):
    """Run the script on `n` records, twice; return its times and its memory."""
    labels, folder = copies(options, n)
    cache = options.scratch / "growth"
    flags = command_line(
        options, labels=labels, data_dir=folder, train_samples=n * 72 // 100,
        val_samples=n * 12 // 100, test_samples=n * 15 // 100, epochs=1, batch_size=GROWTH_BATCH,
        cache_dir=cache)
    cold, peak = run_script(flags)
    warm, _ = run_script(flags, until="training")
    shutil.rmtree(cache, ignore_errors=True)
    return {
        "preparation, s": cold["training"] - cold["reading"],
        "epoch, s": cold["first epoch"] - cold["training"],
        "whole run, s": cold["end"],
        "warm start, s": warm["training"],
        "peak memory, MB": peak.alone,
        "with its processes, MB": peak.together,
    }


def draw(found, path):
    """Draw time and memory against records, both axes logarithmic."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
    figure, (time_axes, memory_axes) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    draw_growth(time_axes, found, "seconds", ("preparation, s", "epoch, s", "warm start, s"))
    draw_growth(memory_axes, found, "peak private memory, MB",
                ("peak memory, MB", "with its processes, MB"))
    memory_axes.axhline(2000, color="black", linewidth=1, label="limit of 2 GB")
    memory_axes.set_ylim(100, 3000)
    time_axes.legend(frameon=False, fontsize=11, loc="upper left")
    memory_axes.legend(frameon=False, fontsize=11, loc="lower left")
    figure.savefig(path, dpi=120)


def draw_growth(axes, found, title, columns):
    """Draw some columns of the growth table into one panel."""
    from matplotlib import ticker

    sizes = np.array(list(found))
    colours = ("#0072B2", "#D55E00", "#009E73")    # Okabe & Ito's, told apart by all eyes
    for name, colour, marker, width in zip(columns, colours, "os^", (5, 2, 2), strict=False):
        values = [row[name] or np.nan for row in found.values()]
        axes.loglog(sizes, values, color=colour, marker=marker, linewidth=width,
                    markersize=2 * width ** 0.5 + 5, label=name.split(",")[0])

    largest = max(found[sizes[-1]][name] for name in columns)
    axes.loglog(sizes, largest * sizes / sizes[-1], "--", color="0.5",
                label="in proportion to the records")
    axes.set(xlabel="records", ylabel=title, xticks=sizes)
    axes.set_xticklabels([f"{n:,}" for n in sizes], rotation=40)
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:,g}"))
    axes.minorticks_off()
    axes.grid(alpha=0.3)


# ------------------------------------------------------------------------------------------ main
PARTS = {
    "command": measure_command,
    "repeats": measure_repeats,
    "step": measure_step,
    "preparation": measure_preparation,
    "inference": measure_inference,
    "run": measure_run,
    "growth": measure_growth,
}


def parse_options(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, default=ROOT / script.Settings.labels,
                        help="label file (default: the demo's)")
    parser.add_argument("--data-dir", type=Path, default=ROOT / script.Settings.data_dir,
                        help="folder that the paths in the label file start from")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds")
    parser.add_argument("--rounds", type=int,
                        help="rounds (default: 2; of whole runs one, from 3 on two)")
    parser.add_argument("--epochs", type=int,
                        help="epochs of whole runs (default: 15, with --quick 2)")
    parser.add_argument("--sizes", type=int, nargs="+",
                        help="numbers of records to measure the growth at (default: 1000 and 5000, "
                        "with --quick 300 and 1000); from 20,000 between the first and the last "
                        "on, with what 800,000 would take")

    parser.add_argument("--picture", type=Path, help="file for a picture of the growth")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--scratch", type=Path,
                        help="existing folder for links and caches, best on the file system of the "
                        "records (default: the system's temporary folder)")

    options = parser.parse_args(arguments)
    options.labels = options.labels.resolve()
    options.data_dir = options.data_dir.resolve()
    if options.rounds is None:
        options.rounds = 2
    if options.sizes is None:
        options.sizes = [300, 1000] if options.quick else [1000, 5000]
    options.sizes = sorted(options.sizes)
    return options


def measure_parts(options, found, targets):
    """Measure the parts asked for, adding each to `found`; return the exit code."""
    code = 0
    with contextlib.redirect_stdout(sys.stderr):    # the script's notices do not belong in a table
        script.ensure_demo(script.read_labels(options.labels), str(options.data_dir))

    with tempfile.TemporaryDirectory(prefix="speed-", dir=options.scratch) as scratch:
        options.scratch = Path(scratch).resolve()
        for part in [part for part in PARTS if part in options.only]:
            start = time.perf_counter()
            try:
                found[part] = PARTS[part](options, targets)
                log(f"{part} took {time.perf_counter() - start:.0f} s")
            except ProcessError as error:    # the other parts can go on
                log(f"speed.py: {part} failed: {error}")
                code = 1
            if options.json:
                text = json.dumps(found | {"targets": targets.rows})
                write_whole(options.json, lambda file, text=text: file.write_text(text))
    return code


def main(arguments=None):
    """Run the benchmark; return the exit code."""
    options = parse_options(arguments)
    targets = Targets()
    found = {"machine": machine()}
    print(f"# Speed\n\n{found['machine']}.")
    if options.quick:
        print("\n**--quick: small sizes, where fixed costs weigh more.**")
    sys.stdout.flush()

    try:
        code = measure_parts(options, found, targets)
    except UserError as error:
        log(f"speed.py: error: {error}")
        code = 2
    except KeyboardInterrupt:
        log("speed.py: interrupted")
        code = 130
    if targets.rows:    # an interrupted run still shows what it has
        print("\n## Targets\n\n" + markdown_table(["", "target", "measured", ""], targets.rows))
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Measure the speed of the script and its baselines, alternately in one run.

    pip install -r benchmarks/requirements.txt
    python benchmarks/speed.py                             # all, on the demo; ten minutes
    python benchmarks/speed.py --only step run             # parts of it
    python benchmarks/speed.py --only run --epochs 2       # to try it out
    python benchmarks/speed.py --help

The tables go to standard output in Markdown, progress to standard error. A figure is the median of
several rounds, with smallest and largest; a ratio the same of the ratios within each round.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere

import too_feature as script
from benchmarks.common import log
from ecg import origin
from ecg.errors import exit_code
from ecg.output.model_card import markdown_table

CORES = os.cpu_count()


# ------------------------------------------------------------------------------------------- ways
class Way(NamedTuple):
    """One row of a table: a worker of `speed_workers.py`, and what it is told."""

    title: str
    worker: str
    task: dict[str, Any] | None = None


class Part(NamedTuple):
    """One table: ways to do the same, each compared with the first."""

    title: str
    unit: str
    ways: list[Way]
    note: str


PARTS = {
    "step": Part("Training step", "ms", [
        Way("**the script**", "step_script"),
        Way("Keras as it comes", "step_keras"),
        Way("Keras, XLA", "step_keras", {"xla": True}),
        Way("PyTorch, 1 thread", "step_torch", {"threads": 1}),
        Way(f"PyTorch, {CORES} threads", "step_torch", {"threads": CORES})],
        "Batches of 4, 500 points, 12 leads, without the first epoch, which compiles. The script's "
        "step includes augmentation and class weights, the others' do not; its batch "
        "normalisation learns all the time, as theirs does (`--set freeze_bn_after=0`)."),

    "record": Part("Preparing one record", "ms", [
        Way("**the script**", "prepare", {"of": "script"}),
        Way("`wfdb.rdrecord` alone", "prepare", {"of": "wfdb"}),
        Way("the thesis's way", "prepare", {"of": "thesis"})],
        "Median of 300 records in one process."),

    "run": Part("Whole run", "s", [
        Way("**the script**", "run_script"),
        Way("the thesis's way", "run_thesis"),
        Way("the script to the end of its first epoch, warm cache", "first_epoch"),
        Way("`--help`", "show_help")],
        "From the command to the report, equal epochs, without cache."),
}


def ask(way, options):
    """Have a way measured in a process of its own.

    Raises
    ------
    RuntimeError
        The process failed; with the last line that it wrote.
    """
    task = {"scratch": options.scratch, "epochs": options.epochs, **(way.task or {})}
    program = Path(__file__).with_name("speed_workers.py")
    command = [sys.executable, program, way.worker, json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True)    # noqa: S603
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def alternate(part, rounds, measure):
    """Measure all ways of a part in turn, in each round.

    Parameters
    ----------
    part : Part
    rounds : int
    measure : callable
        Takes a `Way` and returns a number, or raises RuntimeError.

    Returns
    -------
    dict
        By title, a list of numbers, or a text that says why there are none.
    """
    values = {way.title: [] for way in part.ways}
    for i in range(rounds):
        for way in part.ways:
            if isinstance(values[way.title], str):
                continue
            try:
                values[way.title].append(measure(way))
                log(f"{part.title}, round {i + 1}, {way.title}: {values[way.title][-1]:.3g}")
            except RuntimeError as error:
                values[way.title] = f"failed: {error}"
    return values


# ----------------------------------------------------------------------------------------- tables
def short(x):
    """Return a number in three digits, larger ones whole."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def spread(values):
    """Return median (smallest-largest), or the text that stands for values not measured."""
    if isinstance(values, str):
        return values
    return f"{short(np.median(values))} ({short(min(values))}-{short(max(values))})"


def table(part, values):
    """Return a part's table in Markdown, each row compared with the first, round by round."""
    first = values[part.ways[0].title]
    rows = []
    for title, row in values.items():
        times = ""
        if row is not first and not isinstance(row, str) and not isinstance(first, str):
            times = spread(np.array(row) / np.array(first))
        rows.append([title, spread(row), times])
    heading = f"{part.ways[0].title.strip('*')} is so many times as fast"
    return f"### {part.title}\n\n{markdown_table(['', part.unit, heading], rows)}\n\n{part.note}\n"


def machine():
    """Return processor, cores and versions as a line."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, IndexError):
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        processor = re.findall(r"model name\s*: (.*)", cpuinfo)[0]

    versions = [f"{name} {version}" for name, version in origin.versions().items()]
    return ", ".join([processor, f"{CORES} cores", *versions])


# ------------------------------------------------------------------------------------------ main
def parse_options(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    add("--rounds", type=int, default=2, help="default: 2")
    add("--epochs", type=int, default=15, help="epochs of whole runs (default: 15)")
    return parser.parse_args(arguments)


def run(options):
    """Measure, and print a table for each part."""
    os.chdir(ROOT)    # where the demo is
    script.ensure_demo(script.read_labels(script.Settings.labels), script.Settings.data_dir)
    print(f"{machine()}.\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="speed-") as options.scratch:
        for name in options.only:
            values = alternate(PARTS[name], options.rounds, lambda way: ask(way, options))
            print(table(PARTS[name], values), flush=True)


def main(arguments=None):
    """Run the benchmark; return the exit code."""
    return exit_code("speed.py", run, parse_options(arguments))


if __name__ == "__main__":
    sys.exit(main())

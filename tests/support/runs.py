"""Run the script as a user does: in a process of its own, also in a copy of the project."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import too_feature as script

ROOT = Path(script.__file__).resolve().parent
LABELS = ROOT / "ecg_5_class_data.csv"    # of the demo
TINY = ["--train-samples", "40", "--val-samples", "25", "--test-samples", "25", "--epochs", "2",
        "--set", "xla=false", "--no-figures"]
WITH_ALL = ["--train-samples", "100", "--val-samples", "25", "--test-samples", "50", "--epochs",
            "3", "--set", "freeze_bn_after=25", "--set", "xla=false",
            "--tensorboard"]    # figures and events, too


class Run(NamedTuple):
    """A finished run."""

    model: Path       # .keras
    results: Path     # its folder
    card: dict
    printed: str
    data_dir: Path


def run_script(folder, *arguments, program=ROOT / "too_feature.py", options=()):
    """Run the script in a folder; `options` are Python's own."""
    command = [sys.executable, *options, str(program), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, timeout=500, capture_output=True, text=True)


def python(folder, code, *options):
    """Run code that may import this project, in a new process; return what it printed."""
    result = subprocess.run(
        [sys.executable, *options, "-c", code], cwd=folder, timeout=200, capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    return result.stdout


def one_line(text):
    """Return the one line of a text, without what ends it."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def copy_project(folder):
    """Copy what a run needs of this project, as after `git clone`; return the script's path."""
    shutil.copytree(ROOT / "ecg", folder / "ecg", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("too_feature.py", "ecg_5_class_data.csv"):
        shutil.copy(ROOT / name, folder)
    return folder / "too_feature.py"


def card_of(model):
    """Return the card of a saved model."""
    return json.loads(Path(model).with_suffix(".json").read_text(encoding="utf-8"))


def finished_run(model, data_dir):
    """Return a run whose output was kept in printed.txt, next to the model."""
    return Run(model, model.parent / "results" / model.stem, card_of(model),
               (model.parent / "printed.txt").read_text(), data_dir)


def once(tmp_path_factory, name, make):
    """Return a folder that `make(folder)` has filled, once for all processes that run tests."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent    # which all processes of this test run share
    folder = base / name
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            scratch = base / f"{name}-unfinished"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            make(scratch)
            scratch.rename(folder)
    return folder

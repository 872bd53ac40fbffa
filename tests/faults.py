"""Run the script where a fault awaits it: processes that die for real at a chosen moment.

One server imports TensorFlow once and forks a process for each run, which saves half of the time.
"""

import contextlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np

import too_feature

ROOT = Path(too_feature.__file__).resolve().parent
TINY = ["--labels", str(ROOT / "ecg_5_class_data.csv"), "--train-samples", "40",
        "--val-samples", "25", "--test-samples", "25", "--epochs", "5", "--sequence-length", "50",
        "--no-jit", "--no-figures", "--output", "model.keras"]

SERVER = """
import json, os, re, signal, sys
from pathlib import Path
import tensorflow, keras
import too_feature
write_whole, replace, seen = too_feature.write_whole, os.replace, []

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def nth(path, pattern, n):    # is it the n-th time that such a path comes?
    seen.extend([pattern] * bool(re.search(pattern, str(path))))
    return seen.count(pattern) == n and bool(re.search(pattern, str(path)))

def die_half_written(pattern, n=1):
    def dying(path, write):
        def half(scratch):
            result = write(scratch)
            os.truncate(scratch, os.path.getsize(scratch) // 2)
            die()
            return result
        return write_whole(path, half if nth(path, pattern, n) else write)
    too_feature.write_whole = dying

def die_before_moving(pattern, n=1):
    def dying(source, target):
        if nth(target, pattern, n):
            die()
        replace(source, target)
    os.replace = dying

def die_after_moving(pattern, n=1):
    def dying(source, target):
        replace(source, target)
        if nth(target, pattern, n):
            die()
    os.replace = dying

def die_in(owner, name, n=1):
    function = getattr(owner, name)
    def dying(*arguments, **options):
        if nth(name, name, n):
            die()
        return function(*arguments, **options)
    setattr(owner, name, dying)

print("ready", flush=True)
for line in sys.stdin:
    folder, logs, before, arguments = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(folder)
        for stream, name in ((1, "out.txt"), (2, "err.txt")):
            os.dup2(os.open(f"{logs}/{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
        exec(before)
        code = too_feature.main(arguments)
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextlib.contextmanager
def server(data_dir, cache_dir):
    """Start the server; yield `run(folder, *arguments, before="")`, which returns an exit code.

    `before` is code to run first; out.txt and err.txt in `logs`, by default `folder`, are what the
    run printed.
    """
    child = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SERVER], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             env={**os.environ, "PYTHONPATH": str(ROOT),
                                  "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"})

    def run(folder, *arguments, before="", logs=None):
        child.stdin.write(json.dumps([str(folder), str(logs or folder), before, [
            *TINY, "--data-dir", str(data_dir), "--cache-dir", str(cache_dir), *arguments]]) + "\n")
        child.stdin.flush()
        return int(child.stdout.readline())

    try:
        assert child.stdout.readline() == "ready\n"
        yield run
    finally:
        child.kill()
        child.communicate()


def weights(model):
    """Return all arrays of a .keras file as bytes, by their place in it; TensorFlow-free."""
    found = {}
    with zipfile.ZipFile(model) as archive, h5py.File(archive.open("model.weights.h5")) as file:
        file.visititems(lambda name, item: found.update(
            {name: np.asarray(item).tobytes()} if isinstance(item, h5py.Dataset) else {}))
    assert found
    return found


def outcome(folder, name="model"):
    """Return all that a run is for, without what may differ: how it was called, the file's hash."""
    card = json.loads((folder / f"{name}.json").read_text())
    assert card.pop("model_sha256") == too_feature.sha256(folder / f"{name}.keras")
    for setting in ("resume", "cache_dir", "output", "figures", "jobs"):
        card["settings"].pop(setting)
    tables = ("report.txt", "history.csv", "predictions.csv", "split.csv", "left_out.csv",
              "metrics.json")
    return {"card": card, "weights": weights(folder / f"{name}.keras"),
            **{table: (folder / "results" / name / table).read_bytes() for table in tables}}


def error_of(folder):
    """Return the one line that a run printed on stderr beside progress bars."""
    lines = (folder / "err.txt").read_text().replace("\r", "\n").splitlines()
    lines = [line for line in lines if line.strip() and "it/s]" not in line and "?it" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("too_feature.py: ")
    return lines[0]


def scratch_files(folder):
    """Return all that was left half written below a folder."""
    return [file for file in folder.rglob(".*-*") if file.is_file()]

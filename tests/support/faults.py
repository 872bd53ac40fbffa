"""Run the script where a fault awaits it: processes that die for real at a chosen moment.

One server imports TensorFlow once and forks a process for each run, which saves half of the time.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import zipfile

import h5py
import numpy as np

from ecg import files
from tests.support.runs import LABELS, ROOT

TINY = ["--labels", str(LABELS), "--train-samples", "40", "--val-samples", "25", "--test-samples",
        "25", "--epochs", "5", "--sequence-length", "50", "--set", "xla=false", "--no-figures",
        "--output", "model.keras"]
# A made-up course of validation, so that a run has what resuming could lose: after epoch 2
# batch normalisation is frozen; epoch 3 is the best; after epoch 4 the learning rate is halved,
# and two epochs later than the best, the thesis recipe stops.
COURSE = "validation_goes([1.5, 1.4, 1.3, 1.6, 1.7], [0.5, 0.4, 0.6, 0.5, 0.4])"
PLAIN = ["--learning-rate", "0.1", "--set", "freeze_bn_after=20", "--set", "keep_weights=best",
         "--set", "reduce_patience=1"]
WAYS = {
    "plain": PLAIN,
    "stopped early": ["--recipe", "thesis", "--epochs", "9", "--set", "stop_patience=2"],
    "on a cosine": ["--set", "schedule=cosine", "--set", "freeze_bn_after=20"],
    "an ensemble": ["--repeats", "2", "--epochs", "2", "--jobs", "1"],
    "with figures": [*PLAIN, "--epochs", "3", "--figures"],
}

HANG = 300    # s, after which a process is given up; no test depends on how long anything takes

SERVER = f"HANG = {HANG}" + """
import json, os, re, signal, sys, threading
from pathlib import Path
import tensorflow, keras
import too_feature as script
from ecg import checkpoint, files, interrupt, metrics
write_whole, replace, seen = files.write_whole, os.replace, []

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def nth(path, pattern, n):    # is it the n-th time that such a path comes?
    seen.extend([pattern] * bool(re.search(pattern, str(path))))
    return seen.count(pattern) == n and bool(re.search(pattern, str(path)))

def die_half_written(pattern, n=1):
    def dying(path, write, *owner):
        def half(scratch):
            write(scratch)
            os.truncate(scratch, os.path.getsize(scratch) // 2)
            die()
        return write_whole(path, half if nth(path, pattern, n) else write, *owner)
    files.write_whole = dying

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

def validation_goes(losses, accuracies):    # what training is told, whatever was measured
    told = keras.callbacks.EarlyStopping.on_epoch_end    # the first after validation
    def telling(self, epoch, logs=None):
        logs |= {"val_loss": losses[epoch], "val_accuracy": accuracies[epoch]}
        told(self, epoch, logs)
    keras.callbacks.EarlyStopping.on_epoch_end = telling


print("ready", flush=True)
for line in sys.stdin:
    folder, logs, before, arguments = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(folder)
        for stream, name in ((1, "out.txt"), (2, "err.txt")):
            os.dup2(os.open(f"{logs}/{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
        exec(before)
        code = script.main(arguments)
        sys.stdout.flush()
        os._exit(code)
    hang = threading.Timer(HANG, os.kill, (child, signal.SIGABRT))
    hang.start()
    status = os.waitpid(child, 0)[1]
    hang.cancel()
    print(os.waitstatus_to_exitcode(status), flush=True)
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
        command = [*TINY, "--data-dir", str(data_dir), "--cache-dir", str(cache_dir), *arguments]
        child.stdin.write(json.dumps([str(folder), str(logs or folder), before, command]) + "\n")
        child.stdin.flush()
        return int(child.stdout.readline())

    try:
        assert child.stdout.readline() == "ready\n"
        yield run
    finally:
        child.kill()
        child.communicate()


def start(folder, data_dir, *arguments, **options):
    """Start the program itself in a session of its own, as a terminal does."""
    command = [sys.executable, str(ROOT / "too_feature.py"), *TINY, "--data-dir", str(data_dir)]
    with (folder / "err.txt").open("a") as errors:
        options = {"stdout": subprocess.PIPE, "stderr": errors, **options}
        return subprocess.Popen([*command, *arguments], cwd=folder, start_new_session=True,
                                text=True, **options)


def wait_for(condition, child=None):
    """Wait until a condition holds; fail if a process ends before, or nothing happens."""
    for _ in range(HANG * 50):
        if condition():
            return
        assert child is None or child.poll() is None, "the process has ended"
        time.sleep(0.02)
    raise AssertionError("it does not happen")


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
    assert card.pop("model_sha256") == files.sha256(folder / f"{name}.keras")
    card.pop("commit")    # somebody may commit while tests run
    for setting in ("resume", "cache_dir", "output", "figures", "jobs"):
        card["settings"].pop(setting)
    tables = ("report.txt", "history.csv", "predictions.csv", "split.csv", "left_out.csv",
              "metrics.json")
    results = {table: (folder / "results" / name / table).read_bytes() for table in tables}
    return {"card": card, "weights": weights(folder / f"{name}.keras"), **results}


def error_of(folder):
    """Return the one line that a run printed on stderr, apart from progress bars."""
    lines = (folder / "err.txt").read_text().replace("\r", "\n").splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith("reading ")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("too_feature.py: ")
    return lines[0]


def scratch_files(folder):
    """Return all that was left half written below a folder."""
    return [file for file in folder.rglob(".*-*") if file.is_file()]

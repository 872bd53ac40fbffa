"""Runs that die for real at a chosen moment, and what a run leaves behind.

One server imports TensorFlow once and forks a process for each run, which saves half of the time.
"""

import contextlib
import json
import os
import subprocess
import sys
import zipfile

import h5py
import numpy as np

from ecg import files
from tests.support.runs import LABELS, ROOT

TINY = ["--labels", str(LABELS), "--train-samples", "40", "--val-samples", "25", "--test-samples",
        "25", "--epochs", "5", "--sequence-length", "50", "--set", "xla=false", "--no-figures",
        "--output", "model.keras"]

SERVER = """
import json, os, re, signal, sys
import keras
import too_feature as script
from ecg import errors

replace, seen = os.replace, []

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def die_writing(pattern, n=1, is_moved=False):    # the n-th file of such a name: half, or whole
    def dying(source, target):
        seen.extend([pattern] * bool(re.search(pattern, str(target))))
        is_it = re.search(pattern, str(target)) and len(seen) == n
        if is_it and not is_moved:
            os.truncate(source, os.path.getsize(source) // 2)
            die()
        replace(source, target)
        if is_it:
            die()
    os.replace = dying

def validation_goes(losses, accuracies):    # what training is told, whatever was measured
    told = keras.callbacks.EarlyStopping.on_epoch_end    # the first after validation
    def telling(self, epoch, logs=None):
        logs |= {"val_loss": losses[epoch], "val_accuracy": accuracies[epoch]}
        told(self, epoch, logs)
    keras.callbacks.EarlyStopping.on_epoch_end = telling

print("ready", flush=True)
for line in sys.stdin:
    folder, before, arguments = json.loads(line)
    child = os.fork()
    if not child:
        signal.alarm(300)    # s, after which it is given up; no test depends on how long it takes
        os.chdir(folder)
        for stream, name in ((1, "out.txt"), (2, "err.txt")):
            os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
        exec(before)
        os._exit(script.main(arguments))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextlib.contextmanager
def server(data_dir, cache_dir):
    """Start the server; yield `run(folder, *arguments, before="")`, which returns an exit code.

    `before` is code to run first; out.txt and err.txt in `folder` are what the run printed.
    """
    child = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SERVER], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             env={**os.environ, "PYTHONPATH": str(ROOT),
                                  "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"})

    def run(folder, *arguments, before=""):
        command = [*TINY, "--data-dir", str(data_dir), "--cache-dir", str(cache_dir), *arguments]
        child.stdin.write(json.dumps([str(folder), before, command]) + "\n")
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
    arrays = {}
    with zipfile.ZipFile(model) as archive, h5py.File(archive.open("model.weights.h5")) as file:
        file.visititems(lambda name, item: arrays.update(
            {name: np.asarray(item).tobytes()} if isinstance(item, h5py.Dataset) else {}))
    assert arrays
    return arrays


def outcome(folder):
    """Return all that a run is for, without what may differ: how it was called, the file's hash."""
    card = json.loads((folder / "model.json").read_text())
    assert card.pop("model_sha256") == files.sha256(folder / "model.keras")
    for setting in ("resume", "cache_dir", "jobs"):
        card["settings"].pop(setting)
    tables = ("report.txt", "history.csv", "predictions.csv", "split.csv", "left_out.csv",
              "metrics.json")
    results = {table: (folder / "results/model" / table).read_bytes() for table in tables}
    return {"card": card, "weights": weights(folder / "model.keras"), **results}


def error_of(folder):
    """Return the one line that a run printed on stderr, but for progress and TensorFlow's log."""
    lines = (folder / "err.txt").read_text().replace("\r", "\n").splitlines()
    others = "reading ", "I0000 ", "WARNING: All log messages before absl"
    lines = [line for line in lines if line.strip() and not line.startswith(others)]
    assert len(lines) == 1, lines
    assert lines[0].startswith("too_feature.py: error: ")
    return lines[0]

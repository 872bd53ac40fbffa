"""Small records to prepare, and a function that prepares them, for tests of cache and clusters.

A record is a header, which has a gain, and a file of values. A third file may tell the process that
prepares the record what to do first, so that a worker process can be told, too.
"""

import os
import signal
import time
from pathlib import Path

import numpy as np

from ecg.cache import prepare_many
from ecg.errors import RecordError

SHAPES = (500, 12), (8,)
PATHS = [f"p{i // 2}/r{i}" for i in range(40)]
BATCH = 10
BAD = {7: "file is missing: r7.hea", 21: "file is cut short"}    # place in PATHS, and why
PATIENCE = 120    # s, to stop what hangs: nothing is decided by it

prepared_here = []    # paths, as this process prepares them


def write_records(folder, paths=PATHS, seed=0):
    """Write records, each with numbers of its own, two of which cannot be used."""
    for path in paths:
        i = PATHS.index(path)
        file = Path(folder) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        np.random.default_rng([seed, i]).normal(size=6000).astype("<f4").tofile(f"{file}.dat")
        file.with_suffix(".hea").write_text("gain 1\n")
        if i == 7:
            file.with_suffix(".hea").unlink()
        if i == 21:
            os.truncate(f"{file}.dat", 999)


def prepare(path):
    """Return signal and features of a record, and a remark on some."""
    if os.path.exists(f"{path}.act"):
        act(*Path(f"{path}.act").read_text().split("\n"))
    prepared_here.append(path)
    try:
        gain = float(Path(f"{path}.hea").read_text().split()[1])
    except FileNotFoundError as error:
        raise RecordError(f"file is missing: {Path(path).name}.hea") from error

    values = np.fromfile(f"{path}.dat", "<f4", 6000) * np.float32(gain)
    if len(values) < 6000:
        raise RecordError("file is cut short")
    return values.reshape(SHAPES[0]), values[:8] + 1, "negative" if values[0] < 0 else ""


def act(what, folder="", n=""):
    """Do what this process has been told: be killed, or wait for others."""
    if what == "kill":    # when so many batches are in a cache
        wait_for(lambda: len(os.listdir(folder)) == int(n))
        os.kill(os.getpid(), signal.SIGKILL)
    (Path(folder) / str(os.getpid())).touch()    # "meet": so many processes in all
    wait_for(lambda: len(os.listdir(folder)) >= int(n))


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:    # only ends a test that hangs
            raise TimeoutError("it never happens")
        time.sleep(0.01)


def as_bytes(rows):
    """Return for each row why it is left out, or what its arrays and its remark are."""
    return [reason or (signal.tobytes(), features.tobytes(), remark)
            for signal, features, reason, remark in rows]


def prepare_all(folder, cache=None, paths=PATHS, key="key", **options):
    """Prepare records of a folder, by default in this process; return them `as_bytes`."""
    paths = [f"{folder}/{path}" for path in paths]
    return as_bytes(prepare_many(paths, prepare, SHAPES, key, cache, **{"jobs": 1, **options}))


def one_by_one(folder):
    """Return `as_bytes` what `prepare` gives of each record."""
    rows = []
    for path in PATHS:
        try:
            signal, features, remark = prepare(f"{folder}/{path}")
            rows.append((signal.tobytes(), features.tobytes(), remark))
        except RecordError as error:
            rows.append(str(error))
    return rows

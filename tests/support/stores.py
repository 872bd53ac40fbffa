"""Small records to prepare, and a function that prepares them, for tests of cache and clusters.

A record is a header, which says how many values its signal file has. A third file may tell the
process that prepares the record what to do first, so that a worker process can be told, too.
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from ecg.cache import prepare_many
from ecg.errors import RecordError

SHAPES = (500, 12), (8,)
PATHS = [f"files/p{i // 2}/r{i}" for i in range(40)]
BAD = {7: "file is missing: r7.hea", 13: "file is cut short", 21: "header is damaged"}
BATCH = 10
PATIENCE = 120    # s, to stop what hangs: nothing is decided by it

prepared_here = []    # paths, as this process prepares them


def write_records(folder, paths=PATHS, seed=0):
    """Write valid records, each with numbers of its own."""
    for i, path in enumerate(paths):
        values = np.random.default_rng([seed, i]).normal(size=SHAPES[0]).astype(np.float32)
        file = Path(folder) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".hea").write_text(f"gain 1 values {values.size}\n")
        file.with_suffix(".dat").write_bytes(values.tobytes())


def write_all(folder):
    """Write all records, three of which cannot be used."""
    write_records(folder)
    (folder / f"{PATHS[7]}.hea").unlink()
    os.truncate(folder / f"{PATHS[13]}.dat", 999)
    (folder / f"{PATHS[21]}.hea").write_text("nonsense\n")


def prepare(path):
    """Return signal and features of a record, and a remark on some."""
    act(path)
    prepared_here.append(path)
    try:
        words = Path(f"{path}.hea").read_text().split()
    except FileNotFoundError as error:
        raise RecordError(f"file is missing: {Path(path).name}.hea") from error
    if len(words) != 4:
        raise RecordError("header is damaged")

    gain, length = float(words[1]), int(words[3])
    content = Path(f"{path}.dat").read_bytes()[:4 * length]    # 4 bytes a value
    if len(content) < 4 * length:
        raise RecordError("file is cut short")
    values = np.frombuffer(content, "<f4").reshape(SHAPES[0]) * np.float32(gain)
    remark = "negative" if values[0, 0] < 0 else ""
    return values, values[0, :8] + 1, remark


def tell(folder, path, *what):
    """Tell the process that will prepare a record what to do: the name and arguments of an act."""
    Path(f"{folder}/{path}.act").write_text(json.dumps([str(x) for x in what]))


def act(path):
    """Do what this process has been told to do at a record."""
    with contextlib.suppress(FileNotFoundError):
        name, *arguments = json.loads(Path(f"{path}.act").read_text())
        {"interrupt": interrupt, "kill": kill, "wait": wait, "meet": meet}[name](*arguments)


def interrupt():
    raise KeyboardInterrupt


def kill(folder, n):
    """Kill this process when there are n batches in a cache."""
    wait_for(lambda: len(batches_of(Path(folder))) == int(n))
    os.kill(os.getpid(), signal.SIGKILL)


def wait(file):
    wait_for(Path(file).exists)


def meet(folder, n, otherwise=""):
    """Leave this process's id in a folder, and wait until n are there or a file exists.

    The note that has the id says "TensorFlow" if the process has imported that.
    """
    note = Path(folder) / str(os.getpid())
    note.write_text("TensorFlow" * ("tensorflow" in sys.modules))
    wait_for(lambda: len(os.listdir(folder)) >= int(n)
             or (otherwise and os.path.exists(otherwise)))


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it never happens")
        time.sleep(0.01)


def files_of(cache):
    """Return all files of a cache by name, scratch files too; {} if there is no folder."""
    found = {}
    for file in cache.iterdir() if cache.exists() else ():
        with contextlib.suppress(FileNotFoundError):    # a scratch file that was just moved
            found[file.name] = file.read_bytes()
    return found


def batches_of(cache):
    """Return the names of the files in a cache that are whole."""
    names = os.listdir(cache) if cache.exists() else []
    return [name for name in names if not name.startswith(".")]


def told(rows):
    """Return for each row why it is left out, or what its arrays and its remark are."""
    found = []
    for *arrays, reason, remark in rows:
        if reason:
            found.append(reason)
        else:
            as_bytes = [(x.dtype.str, x.shape, x.tobytes()) for x in arrays]
            found.append((*as_bytes, remark))
    return found


def prepare_all(folder, cache=None, paths=PATHS, key="key", **options):
    """Prepare records of a folder, by default in this process; return what `told` says."""
    paths = [f"{folder}/{path}" for path in paths]
    options = {"jobs": 1, **options}
    return told(prepare_many(paths, prepare, SHAPES, key, cache, **options))


def one_by_one(folder, paths=PATHS):
    """Return what `told` says of records that are prepared without a cache."""
    rows = []
    for path in paths:
        try:
            *arrays, remark = prepare(f"{folder}/{path}")
            rows.append((*arrays, "", remark))
        except RecordError as error:
            rows.append((None, None, str(error), ""))
    return told(rows)

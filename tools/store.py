"""Prepare many records at once and keep them: all cores or a cluster, and a cache on disk.

Knows nothing of ECGs: a function makes (signal, features, why it is left out) of a path, and the
results are the same for any number of jobs, from the cache or not. A batch of them is one file of
rows, which is memory-mapped, so that memory does not grow with the records. Its name is a hash of
all that its content depends on: nothing has to be looked up, two runs at once can only write the
same, and an interrupted run goes on with the batches that are missing.
"""

import contextlib
import errno
import hashlib
import os
import runpy
import signal
import zlib
from concurrent.futures import BrokenExecutor
from pathlib import Path

import joblib
import numpy as np
from tqdm import tqdm

BATCH = 100             # records prepared and stored together: a cluster's task, and 0.2 s of work
WORTH_WORKERS = 2000    # records: with fewer, starting processes takes longer than they save
FULL = errno.ENOSPC, errno.EDQUOT    # then a run goes on without storing
ENDINGS = ".hea", ".dat", ".mat"    # files of a record


def stamp(path):
    """Return size and time of each of a record's files, None where there is none."""
    stamps = []
    for ending in ENDINGS:
        try:
            status = os.stat(path + ending)
            stamps.append((status.st_size, status.st_mtime_ns))
        except OSError:
            stamps.append(None)
    return stamps


def allow_many_files(wanted=10_240):
    """Allow as many open files: each mapped batch holds one, and macOS starts with 256."""
    with contextlib.suppress(ImportError, ValueError, OSError):    # Windows; what is not allowed
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE,
                               (wanted if hard < 0 else min(wanted, hard), hard))


def load(file, n, row_type):
    """Map the n rows of a stored batch into memory; None if it is missing or damaged."""
    try:    # plain rows: a header could be damaged, too, or ask for code to run
        if os.path.getsize(file) != n * row_type.itemsize:
            return None
        rows = np.asarray(np.memmap(file, row_type, "r", shape=n))
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        return None
    sound = all(row["checksum"] == zlib.crc32(row.tobytes()[:-4]) for row in rows)
    return rows if sound else None


def prepare_batch(file, paths, function, row_type, write):
    """Prepare a batch and store it with `write`; return its rows where it is not stored, and why.

    There is no `file`, or the disk is full.
    """
    rows = np.zeros(len(paths), row_type)
    for row, path in zip(rows, paths, strict=True):
        signal, features, left_out = function(path)
        if left_out:
            row["left_out"] = left_out.encode("ascii", "replace")
        else:
            row["signal"], row["features"] = signal, features
        row["checksum"] = zlib.crc32(row.tobytes()[:-4])
    if not file:
        return rows, ""
    try:
        return write(file, lambda scratch: scratch.write_bytes(rows)), ""
    except Exception as error:    # the caller's own, made from the system's
        if getattr(error.__cause__, "errno", None) not in FULL:
            raise
        return rows, str(error)


def start_trackers():
    """Start what joblib and Python clean up with, as that would let blocked signals through later.

    A program that has a thread wait for Ctrl-C blocks it in all others, and its workers inherit it.
    """
    if hasattr(signal, "pthread_sigmask"):    # not on Windows
        from multiprocessing import resource_tracker as of_python

        from joblib.externals.loky.backend import resource_tracker as of_joblib
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        of_python.ensure_running()
        of_joblib.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def workers(scheduler):
    """Return a context in which joblib runs on a Dask cluster."""
    here = Path(__file__).resolve().parent
    return runpy.run_path(str(here / "cluster.py"))["workers"](scheduler, str(here.parent))


def prepare(paths, function, shapes, key, write, folder=None, jobs=0, scheduler="", title=""):
    """Prepare records, or take them from the cache.

    Parameters
    ----------
    paths : list of str, without extension
    function : callable, of a path: signal, features, and why it is left out, or ""
    shapes : two tuples, of a signal and of its features
    key : what the results depend on beside the paths and the files' size and time; its repr counts
    write : callable (file, save): lets `save` fill a new file and moves it to `file` as a whole
    folder : Path of the cache, the same for all workers; None keeps all in memory
    jobs : int, processes; 0 for as many as pay
    scheduler : str, tcp://host:port of a Dask scheduler to prepare them there instead, or ""

    Returns
    -------
    list of rows with "signal", "features" and "left_out" (bytes), in the order of `paths`.
        `OSError` if a worker process is killed; `ImportError` if Dask is asked for and missing.
    """
    allow_many_files()
    full = ""
    row_type = np.dtype([("signal", "<f4", shapes[0]), ("features", "<f4", shapes[1]),
                         ("left_out", "S120"), ("checksum", "<u4")])
    batches = [paths[i:i + BATCH] for i in range(0, len(paths), BATCH)]
    names = [hashlib.sha256(repr([key, batch, [stamp(path) for path in batch]]).encode())
             .hexdigest()[:32] for batch in batches]
    files = [folder / f"{name}.rows" if folder else None for name in names]
    stored = [load(file, len(batch), row_type) if folder else None
              for file, batch in zip(files, batches, strict=True)]
    todo = [i for i, rows in enumerate(stored) if rows is None]
    n = sum(len(batches[i]) for i in todo)
    where = workers(scheduler) if scheduler and todo else contextlib.nullcontext()
    jobs = jobs or (-1 if scheduler or n >= WORTH_WORKERS else 1)
    if jobs != 1:
        start_trackers()
    with where, tqdm(total=n, desc=title, mininterval=1, disable=not n) as progress:
        try:
            work = joblib.Parallel(jobs, return_as="generator")(
                joblib.delayed(prepare_batch)(files[i], batches[i], function, row_type, write)
                for i in todo)
            for i, (rows, why) in zip(todo, work, strict=True):
                stored[i] = load(files[i], len(batches[i]), row_type) if rows is None else rows
                full = full or why
                if stored[i] is None:
                    raise OSError(f"{files[i]} was written, but cannot be read here: choose "
                                  "another --cache-dir, which all machines share, or --no-cache")
                progress.update(len(batches[i]))
        except BrokenExecutor as error:
            raise OSError("a process that prepares records was killed (out of memory?) or could "
                          f"not start ({str(error).splitlines()[0]}); --jobs 1 needs least, and "
                          "goes on where this stopped") from error
    if full:
        print(f"notice: {full}; this run goes on, with its prepared records in memory")
    return [row for rows in stored for row in rows]


def prepare_or_recall(paths, function, shapes, key, write, settings, title):
    """Do as `prepare`, as `settings` say; return (signal, features, why it is left out) of each."""
    here = Path(__file__).parent    # of tools/, what prepares records
    key = key, [(here / name).read_text(encoding="utf-8")
                for name in ("fast_read.py", "large_model.py") if (here / name).exists()]
    folder = Path(settings.cache_dir).absolute() if settings.cache else None
    rows = prepare(paths, function, shapes, key, write, folder, settings.jobs, settings.scheduler,
                   title)
    return [(row["signal"], row["features"], row["left_out"].decode("ascii", "replace"))
            for row in rows]


class Signals:
    """Prepared ECGs (n, sequence_length, 12) on disk: indexed like an array, read only then."""

    def __init__(self, rows):
        self.rows, self.shape = rows, (len(rows), *rows[0].shape)

    def __getitem__(self, index):
        places = np.arange(len(self.rows))[index]
        signals = [self.rows[i] for i in places.ravel()]
        return np.array(signals, np.float32).reshape(places.shape + self.shape[1:])


def whole_batches(keras, inputs, targets, weights, size=100):
    """Return a keras.utils.PyDataset of (inputs, targets, weights), read as they are needed.

    The last batch is filled up with records of weight 0: so XLA compiles for one shape.
    """
    n = len(targets)
    places = np.arange(-(-n // size) * size)
    weights = np.where(places < n, np.resize(weights, len(places)) * len(places) / n, 0)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return len(places) // size

        def __getitem__(self, batch):
            part = places[batch * size:(batch + 1) * size]
            some = part % n
            return (tuple(array[some] for array in inputs), targets[some],
                    weights[part].astype(np.float32))

    return Batches()

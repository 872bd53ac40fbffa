"""Prepare many records at once and keep them: on all cores or a cluster, with a cache on disk.

Knows nothing of ECGs: a function makes (signal, features, remark) from a path. The results are the
same for any number of worker processes, and whether they come from the cache or not.

A batch of records is one .npy file, memory-mapped, so that memory does not grow with the number of
records. Its name is a hash of all that its content depends on: there is no index, two runs at once
can only write the same content, and an interrupted run goes on with the missing batches.
"""

import contextlib
import hashlib
import itertools
import os
import signal
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from tqdm import tqdm

from ecg import cluster, files
from ecg.errors import RecordError, UserError

BATCH = 100               # records stored together: 0.2 s of work
LARGE_BATCH = 1000        # of many: each file stays open, and a system allows some 1,000
MANY = 10_000             # records
WORTH_WORKERS = 2000      # records: with fewer, starting processes takes longer than they save
MAX_HEADER_BYTES = 65_536
STALE_S = 3600            # writing a file takes seconds: an older scratch file is of a killed run


class Prepared(NamedTuple):
    """A prepared record."""

    signal: Any           # float32 ndarray, as are the features
    features: Any
    reason: str           # why it cannot be used, or ""
    remark: str = ""      # what is unusual about it, though it is used, or ""


class Rows(Sequence[Prepared]):
    """Prepared records: each `Prepared` is made when it is asked for, as 800,000 would take 0.5 GB.

    Parameters
    ----------
    batches : the rows of each batch
    """

    def __init__(self, batches: Sequence[np.ndarray] = ()) -> None:
        self.batches = [*batches]
        self.ends = [0, *itertools.accumulate(map(len, self.batches))]

    def __len__(self) -> int:
        return self.ends[-1]

    def __add__(self, more: "Rows") -> "Rows":
        return Rows(self.batches + more.batches)

    def __getitem__(self, place: Any) -> Any:
        place = range(len(self))[place]
        number = bisect_right(self.ends, place) - 1
        row = self.batches[number][place - self.ends[number]]
        return Prepared(
            row["signal"], row["features"], row["reason"].decode(), row["remark"].decode())

    def features(self) -> np.ndarray:
        """Return the features of all records, float32 (n, features)."""
        return np.concatenate([rows["features"] for rows in self.batches])


class Signals:
    """Prepared ECGs (n, sequence_length, 12) on disk: indexed like an array, read only then.

    Parameters
    ----------
    rows : Rows
    places : array_like of int, shape (n,)
        Of the records in `rows`; one may come again.
    """

    def __init__(self, rows: Rows, places: Any) -> None:
        self.rows = rows
        self.places = np.asarray(places, int)
        self.shape = (len(self.places), *rows.batches[0]["signal"].shape[1:])

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return the ECGs of an index as NumPy would, in a new array."""
        places = self.places[index]
        signals = [self.rows[place].signal for place in places.ravel()]
        return np.array(signals, np.float32).reshape(places.shape + self.shape[1:])


# ------------------------------------------------------------------------------------ one batch
class Batch(NamedTuple):
    """Records that are prepared and stored together, and what is needed for that."""

    paths: list[str]
    prepare: Callable
    row_type: np.dtype
    file: Path | None    # None keeps the rows in memory


def stamp(path: str) -> list:
    """Return what tells a record from another of its name: its header, sizes and times.

    A header's bytes count, as a gain may be corrected by one of the same size at the same time.
    """
    marks: list = []
    for ending in (".hea", ".dat", ".mat"):
        if os.path.isfile(path + ending):
            status = os.stat(path + ending)
            marks += ending, status.st_size, status.st_mtime_ns
    if ".hea" in marks:
        with open(f"{path}.hea", "rb") as header:
            marks.append(header.read(MAX_HEADER_BYTES))
    return marks


def load(batch: Batch) -> np.ndarray | None:
    """Map the rows of a stored batch into memory; None if they are missing or damaged."""
    try:
        return np.asarray(np.load(batch.file or "", mmap_mode="r"))
    except (OSError, ValueError, EOFError):
        return None


def prepare_batch(batch: Batch) -> np.ndarray | None:
    """Prepare a batch, here or in a worker; store it in its file, or return its rows."""
    rows = np.zeros(len(batch.paths), batch.row_type)
    for row, path in zip(rows, batch.paths, strict=True):
        try:
            row["signal"], row["features"], remark = batch.prepare(path)
            row["remark"] = remark.encode("ascii", "replace")
        except RecordError as error:
            row["reason"] = str(error).encode("ascii", "replace")
    if batch.file is None:
        return rows
    files.write_whole(batch.file, lambda scratch: np.save(scratch, rows))
    return None


# ----------------------------------------------------------------------------------- all batches
def tidy(folder: Path) -> None:
    """Remove from a cache the scratch files that killed runs left."""
    for scratch in folder.glob(".part-*.npy"):
        if scratch.stat().st_mtime < time.time() - STALE_S:
            scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C while processes start, who inherit that: this process alone speaks for all."""
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def prepare_batches(
    batches: list[Batch],
    jobs: int,
    scheduler: str,
    title: str,
) -> list:
    """Return the rows of each batch, prepared by worker processes or on a Dask cluster."""
    if not batches:
        return []
    n = sum(len(batch.paths) for batch in batches)
    jobs = jobs or (-1 if scheduler or n >= WORTH_WORKERS else 1)
    place = cluster.workers(scheduler) if scheduler else contextlib.nullcontext()
    made = []
    try:
        with place, tqdm(total=n, desc=title, mininterval=1) as progress:
            parallel = joblib.Parallel(jobs, return_as="generator")
            with deaf_to_interrupts():    # as the workers stay, which start now
                results = parallel(joblib.delayed(prepare_batch)(batch) for batch in batches)
            for batch, rows in zip(batches, results, strict=True):
                made.append(load(batch) if rows is None else rows)
                progress.update(len(batch.paths))
    except BrokenExecutor as error:
        raise UserError("a worker process was killed (out of memory?); --jobs 1 needs the least "
                        "memory, and finished batches are not prepared again") from error
    return made


def prepare_many(
    paths: list[str],
    prepare: Callable,
    shapes: tuple,
    key: Any,
    folder: Path | None = None,
    jobs: int = 0,
    scheduler: str = "",
    title: str = "",
) -> Rows:
    """Prepare records, or take them from the cache.

    Parameters
    ----------
    paths : without extension
    prepare : makes (signal, features, remark) from a path, or raises `RecordError`
    shapes : of a signal and of its features
    key : what the results depend on besides this project's code, the paths and the files; its repr
        counts
    folder : of the cache, the same for all workers; None keeps all in memory
    jobs : number of worker processes; 0 chooses for you
    scheduler : tcp://host:port of a Dask scheduler whose workers prepare the records, or ""
    title : stands before the progress bar

    Returns
    -------
    Rows
        A sequence of `Prepared`, in the order of `paths`.

    Raises
    ------
    UserError
        A worker process is killed, Dask is missing or its cluster does not answer, or the cache
        cannot be written or read.
    """
    row_type = np.dtype([("signal", "<f4", shapes[0]), ("features", "<f4", shapes[1]),
                         ("reason", "S120"), ("remark", "S60")])
    size = BATCH if len(paths) <= MANY else LARGE_BATCH
    batches = []
    for start in range(0, len(paths), size):
        part = paths[start:start + size]
        content = repr([key, files.code_sha256(), part, [stamp(path) for path in part]])
        name = hashlib.sha256(content.encode()).hexdigest()[:32] + ".npy"
        batches.append(Batch(part, prepare, row_type, folder and folder.absolute() / name))
    if folder:
        tidy(folder)

    stored = [load(batch) for batch in batches]
    todo = [batch for batch, rows in zip(batches, stored, strict=True) if rows is None]
    made = iter(prepare_batches(todo, jobs, scheduler, title))
    batches_made = [next(made) if rows is None else rows for rows in stored]
    if any(rows is None for rows in batches_made):
        raise UserError(f"{folder}: what was written there cannot be read here: choose a "
                        "--cache-dir that all machines share, or --no-cache")
    return Rows(batches_made)

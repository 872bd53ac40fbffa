"""Prepare many records at once and keep them: on all cores or a cluster, with a cache on disk.

Knows nothing of ECGs: a function makes (signal, features, remark) from a path. The results are the
same for any number of worker processes, and whether they come from the cache or not.

A batch of records is one file of rows. It is memory-mapped, so memory use does not grow with the
number of records. The file's name is a hash of all that its content depends on. So there is no
index to look up, two runs at once can only write the same content, and an interrupted run goes on
with the missing batches.
"""

import contextlib
import errno
import hashlib
import os
import signal
import zlib
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from tqdm import tqdm

from ecg import files
from ecg.errors import RecordError, UserError

Prepare = Callable[[str], tuple[np.ndarray, np.ndarray, str]]   # from a path, as in `Prepared`
Shapes = tuple[tuple[int, ...], tuple[int, ...]]                # of a signal and of its features

BATCH = 100             # records prepared and stored together: a cluster's task, and 0.2 s of work
WORTH_WORKERS = 2000    # records: with fewer, starting processes takes longer than they save
FULL = errno.ENOSPC, errno.EDQUOT      # the disk, or what a user may store: go on without storing
ENDINGS = ".hea", ".dat", ".mat"       # files of a record
OPEN_FILES = 10_240     # each mapped batch holds one open, and macOS allows 256 at first


class Prepared(NamedTuple):
    """What is known of a record once it is prepared."""

    signal: Any           # float32 ndarray, as are the features
    features: Any
    reason: str           # why it cannot be used, or ""
    remark: str = ""      # what is unusual about it, though it is used, or ""


# ------------------------------------------------------------------------------------ one batch
class Batch(NamedTuple):
    """Records that are prepared and stored together, and all that is needed for that."""

    file: Path | None    # None keeps the rows in memory
    paths: list[str]
    prepare: Prepare
    row_type: np.dtype


def stamp(path: str) -> list[tuple[int, int] | None]:
    """Return the size and time of each of a record's files, None where there is none."""
    stamps: list[tuple[int, int] | None] = []
    for ending in ENDINGS:
        try:
            status = os.stat(path + ending)
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_size, status.st_mtime_ns))
    return stamps


def file_name(paths: list[str], key: Any) -> str:
    """Return the name of the file of a batch: it changes with all that the rows depend on."""
    content = repr([key, paths, [stamp(path) for path in paths]])
    return hashlib.sha256(content.encode()).hexdigest()[:32] + ".rows"


def checksum(row: np.ndarray | np.void) -> int:
    """Return the CRC-32 of a row without its last field, where this number is stored."""
    return zlib.crc32(row.tobytes()[:-4])


def load(batch: Batch) -> np.ndarray | None:
    """Map the rows of a stored batch into memory; None if they are missing or damaged."""
    if batch.file is None:
        return None

    n = len(batch.paths)
    try:    # plain rows: a header could be damaged as well, or ask for code to run
        if os.path.getsize(batch.file) != n * batch.row_type.itemsize:
            return None
        rows = np.asarray(np.memmap(batch.file, batch.row_type, "r", shape=n))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError):
        return None

    sound = all(row["checksum"] == checksum(row) for row in rows)
    return rows if sound and np.isfinite(rows["signal"]).all() else None


def prepare_rows(batch: Batch) -> np.ndarray:
    """Prepare the records of a batch; the row of one that cannot be used says why."""
    rows = np.zeros(len(batch.paths), batch.row_type)
    for row, path in zip(rows, batch.paths, strict=True):
        try:
            row["signal"], row["features"], remark = batch.prepare(path)
            row["remark"] = remark.encode("ascii", "replace")
        except RecordError as error:
            row["left_out"] = str(error).encode("ascii", "replace")
        row["checksum"] = checksum(row)
    return rows


def as_prepared(row: np.void) -> Prepared:
    """Return what a row holds."""
    reason = row["left_out"].decode("ascii", "replace")
    remark = row["remark"].decode("ascii", "replace")
    return Prepared(row["signal"], row["features"], reason, remark)


class Rows(Sequence[Prepared]):
    """Prepared records: each `Prepared` is made when it is asked for, as 800,000 would take 0.5 GB.

    Parameters
    ----------
    batches : the rows of each batch
    """

    def __init__(self, batches: Iterable[np.ndarray] = ()) -> None:
        self.batches = list(batches)
        self.ends = np.cumsum([len(rows) for rows in self.batches], dtype=int).tolist()

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __add__(self, more: "Rows") -> "Rows":
        return Rows(self.batches + more.batches)

    def find(self, place: int) -> tuple[np.ndarray, int]:
        """Return the batch that holds a record, and the record's place in it."""
        number = bisect_right(self.ends, place)
        rows = self.batches[number]
        return rows, place - self.ends[number]    # counted from the end

    def __getitem__(self, place: Any) -> Any:
        rows, i = self.find(range(len(self))[place])
        return as_prepared(rows[i])

    def features(self) -> np.ndarray:
        """Return the features of all records, float32 (n, features)."""
        return np.concatenate([rows["features"] for rows in self.batches])


def prepare_batch(batch: Batch) -> tuple[np.ndarray | None, str]:
    """Prepare a batch and store it in its file, in this process or a worker.

    Returns
    -------
    rows : None if they are in the file; else the rows, as there is no file or the disk is full
    problem : why the rows were not stored, or ""

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    rows = prepare_rows(batch)
    if batch.file is None:
        return rows, ""

    try:
        files.write_whole(batch.file, lambda scratch: scratch.write_bytes(rows.tobytes()))
    except UserError as error:
        if getattr(error.__cause__, "errno", None) not in FULL:
            raise
        return rows, str(error)
    return None, ""


# ----------------------------------------------------------------------------------- all batches
def allow_many_files(wanted: int = OPEN_FILES) -> None:
    """Let this process have so many files open, or as many as the system allows."""
    with contextlib.suppress(ImportError, ValueError, OSError):    # Windows; not allowed
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < wanted:
            limit = wanted if hard < 0 else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def start_trackers() -> None:
    """Start joblib's and Python's resource trackers now, while signals are blocked.

    A program that has a thread wait for Ctrl-C blocks it in all other threads, and its workers
    inherit that. The trackers, started later, would unblock the signals.
    """
    if hasattr(signal, "pthread_sigmask"):    # not on Windows
        from multiprocessing import resource_tracker as of_python

        from joblib.externals.loky.backend import resource_tracker as of_joblib
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        of_python.ensure_running()
        of_joblib.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextlib.contextmanager
def worker_processes(scheduler: str) -> Iterator[None]:
    """Let joblib run on the Dask cluster of this scheduler, or here if it is ""."""
    try:
        if scheduler:
            from ecg import cluster
            with cluster.workers(scheduler, str(files.ROOT)):
                yield
        else:
            yield
    except BrokenExecutor as error:
        reason = str(error).splitlines()[0]
        raise UserError("a worker process was killed (out of memory?) or could not start "
                        f"({reason}); --jobs 1 needs the least memory, and with the cache "
                        "the finished batches are not prepared again") from error


def count_jobs(jobs: int, tasks: int) -> int:
    """Return how many long tasks to do at once; `jobs` is 0 for as many as there are cores."""
    return min(jobs or joblib.cpu_count(), tasks)


def in_processes(function: Callable[..., None], tasks: Iterable[tuple], jobs: int) -> None:
    """Call a function with each of these arguments, in `jobs` worker processes.

    Raises
    ------
    UserError
        If a worker process is killed.
    """
    start_trackers()
    with worker_processes(""):
        joblib.Parallel(jobs)(joblib.delayed(function)(*task) for task in tasks)


def run_batches(batches: list[Batch], jobs: int, scheduler: str,
                title: str) -> Generator[tuple[np.ndarray | None, str], None, None]:
    """Yield what `prepare_batch` returns for each of the batches, and show the progress."""
    n = sum(len(batch.paths) for batch in batches)
    if not jobs:
        jobs = -1 if scheduler or n >= WORTH_WORKERS else 1
    if jobs != 1:
        start_trackers()

    with (worker_processes(scheduler if batches else ""),
          tqdm(total=n, desc=title, mininterval=1, disable=not n) as progress):
        parallel = joblib.Parallel(jobs, return_as="generator")
        results = parallel(joblib.delayed(prepare_batch)(batch) for batch in batches)
        for batch, result in zip(batches, results, strict=True):
            yield result
            progress.update(len(batch.paths))


def load_again(batch: Batch) -> np.ndarray:
    """Map a batch into memory that was just written, perhaps on another machine."""
    rows = load(batch)
    if rows is None:
        raise UserError(f"{batch.file} was written but cannot be read here: choose a --cache-dir "
                        "that all machines share, or --no-cache")
    return rows


def rows_of(batches: list[Batch], jobs: int, scheduler: str, title: str) -> list[np.ndarray]:
    """Return the rows of each batch: those that are stored are not prepared again."""
    stored = [load(batch) for batch in batches]
    missing = [i for i, rows in enumerate(stored) if rows is None]
    todo = [batches[i] for i in missing]
    full = ""

    with contextlib.closing(run_batches(todo, jobs, scheduler, title)) as results:
        for i, (rows, problem) in zip(missing, results, strict=True):
            stored[i] = load_again(batches[i]) if rows is None else rows
            full = full or problem
    if full:
        print(f"notice: {full}; this run goes on with its prepared records in memory")

    return [rows for rows in stored if rows is not None]    # all of them


def prepare_many(paths: list[str], prepare: Prepare, shapes: Shapes, key: Any,
                 folder: Path | None = None, jobs: int = 0, scheduler: str = "",
                 title: str = "") -> Rows:
    """Prepare records, or take them from the cache.

    Parameters
    ----------
    paths : without extension
    prepare : makes (signal, features, remark) from a path, or raises `RecordError`
    shapes : of a signal and of its features
    key : what the results depend on besides this project's code, the paths, and the files' size
        and time; its repr counts
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
        If a worker process is killed, if Dask is missing or its cluster does
        not answer, or if the cache cannot be written or read.
    """
    allow_many_files()
    row_type = np.dtype([("signal", "<f4", shapes[0]), ("features", "<f4", shapes[1]),
                         ("left_out", "S120"), ("remark", "S60"), ("checksum", "<u4")])
    batches = []
    for start in range(0, len(paths), BATCH):
        part = list(paths[start:start + BATCH])
        file = folder.absolute() / file_name(part, [key, files.code_sha256()]) if folder else None
        batches.append(Batch(file, part, prepare, row_type))

    return Rows(rows_of(batches, jobs, scheduler, title))


# -------------------------------------------------------------------------- reading in training
def mapped_file(array: Any) -> Any:
    """Return the memory-mapped file that an array is a part of, if there is one."""
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)    # a memoryview, as from a worker, has none
    return array


def check_mapped(file: Any) -> None:
    """Raise `UserError` if a mapped file has been cut since."""
    if file is not None and file.base.size() < len(file.base):    # the file, the map
        raise UserError(f"{file.filename} was cut while it was in use: run again, and leave the "
                        "cache alone")


class Signals:
    """Prepared ECGs (n, sequence_length, 12) on disk: indexed like an array, read only then.

    Parameters
    ----------
    rows : Rows
        What `prepare_many` returns.
    places : array_like of int, shape (n,)
        Of the records in `rows`; one may come again.
    """

    def __init__(self, rows: Rows, places: Any) -> None:
        self.rows = rows
        self.places = np.asarray(places, int)
        self.shape = (len(self.places), *rows.batches[0]["signal"].shape[1:])

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return the ECGs of an index as NumPy would, in a new array.

        `UserError` if the file of one has become shorter: reading there would kill the process.
        """
        places = self.places[index]
        found = [self.rows.find(place) for place in places.ravel().tolist()]
        for file in {id(rows): mapped_file(rows) for rows, _ in found}.values():
            check_mapped(file)
        signals = [rows["signal"][i] for rows, i in found]
        return np.array(signals, np.float32).reshape(places.shape + self.shape[1:])

"""Fetch, of MIMIC-IV-ECG's 90 GB, only the records that a run of too_feature.py needs.

    python tools/fetch_records.py --labels my_labels.csv --dry-run    # how many, and how large
    python tools/fetch_records.py --labels my_labels.csv              # stop it at any time

These are the records that the script draws from the label file with the same settings, and a few
spares: 280 MB. Each file is checked. After an interruption, the same command continues.
"""

import argparse
import contextlib
import hashlib
import itertools
import math
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import pandas as pd
import requests
import urllib3
from tqdm import tqdm

import too_feature as script
from ecg import files
from ecg.errors import RecordError, UserError, exit_code, printable, user_errors
from ecg.settings import Parser, number, whole_number

URL = "https://physionet.org/files/mimic-iv-ecg/1.0/"
SUMS = "SHA256SUMS.txt"
ENDINGS = ".dat", ".hea"    # in the order of fetching: a record that has its header is whole
RECORD_MB = 0.12
MAX_FILE = 50e6             # bytes of a record's file; more would be an attack on the disk
MAX_SUMS = 2e9              # bytes of the list of checksums
RETRIES = 4
PAUSE = 0.5                 # s before the first retry, doubled each time
MAX_PAUSE = 60              # s, however long a server asks to wait
TIMEOUT = 30                # s without a byte
HEADER_TIME = 60            # s for the whole of an answer's header
MIN_PACE = 1000             # bytes/s, once a transfer has lasted
GRACE = 60                  # s
GIVE_UP = 20                # failures in a row for which no record is to blame
ALL = 10**9                 # records: more than any hospital has


# ------------------------------------------------------------------------------------------- plan
def parse_arguments(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Return this program's own arguments, and a list of the others, which are the script's."""
    parser = Parser(
        __doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="All settings of the script are taken too, such as --labels, --data-dir, --seed, "
               "--train-samples, --test-share: see python too_feature.py --help")
    parser.add_argument("--spares", type=number, default=0.05,
                        help="share of each class to fetch in addition, to replace bad records")
    parser.add_argument("--url", default=URL, help=f"folder of the dataset, which holds {SUMS}")
    parser.add_argument("--connections", type=whole_number, default=4, choices=range(1, 9),
                        help="number of files to fetch at the same time")
    parser.add_argument("--dry-run", action="store_true",
                        help="print the number of records and their size, and fetch nothing")
    parser.add_argument("--all", action="store_true", help="fetch every labelled record")

    own, others = parser.parse_known_args(arguments)
    if not 0 <= own.spares <= 1:
        parser.error(f"--spares {own.spares}: expected a number from 0 to 1")
    return own, others


def wanted_records(labels: pd.DataFrame, settings: script.Settings,
                   spares: float = 0.05) -> pd.DataFrame:
    """Return the rows of `labels` that the script draws with `settings`, with their `split`.

    To each class of each split a share of `spares` is added: the next in rank, with which the
    script replaces records that it cannot use.
    """
    labels, classes = script.take_classes(labels, settings)
    splits = script.split_labels(labels, classes, settings)
    samples = {"train": settings.train_samples, "validation": settings.val_samples,
               "test": settings.test_samples}
    if settings.test_labels:
        samples["test"] = ALL
    if settings.test_data_dir:    # the data of another hospital, which is not in this dataset
        del splits["test"]

    wanted = []
    for name, records in splits.items():
        n_classes = records["ecg_category"].nunique()
        per_class = max(1, samples[name] // n_classes)
        per_class += math.ceil(spares * per_class)    # a larger draw holds the smaller one
        drawn = script.balanced_sampling(records, n_classes * per_class, settings.seed,
                                         repeat=False)
        wanted.append(drawn.assign(split=name))
    return pd.concat(wanted, ignore_index=True)


# ------------------------------------------------------------------------------------------ files
def pick_checksums(names: Collection[str], chunks: Iterable[bytes]) -> dict[str, str]:
    """Return {name: SHA-256} of those `names` that a text of lines '<SHA-256> <name>' holds."""
    found = {}
    rest = b""
    for chunk in itertools.chain(chunks, [b"\n"]):
        *lines, rest = (rest[:10_000] + chunk).split(b"\n")    # no line can fill the memory
        for line in lines:
            digest, _, name = line.decode("utf-8", "replace").partition(" ")
            name = name.strip(" *\r").removeprefix("./")
            if name in names:
                found[name] = digest.lower()
    return found


def remove_leftovers(target: Path) -> None:
    """Remove what fetches of a file have left half written, except by processes that still run."""
    for old in target.parent.glob(f".{target.name}.*.part"):
        try:
            os.kill(int(old.name.split(".")[-2]), 0)    # asks only whether that process runs
        except OSError:
            old.unlink(missing_ok=True)


def write_checked(target: Path, checksum: str | None, chunks: Iterable[bytes]) -> None:
    """Write a file; nothing is there under its name before its SHA-256, if given, was checked."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        with scratch.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
        if checksum not in (None, digest.hexdigest()):
            raise ConnectionError("wrong checksum")
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------ fetch
class PatientRetry(urllib3.Retry):
    """Waits as long as the server asks for, within reason."""

    def get_retry_after(self, response) -> float:
        """Return the seconds to wait."""
        return min(super().get_retry_after(response) or 0, MAX_PAUSE)


@contextlib.contextmanager
def hurried(connection) -> Iterator[None]:
    """Hang up if the header of an answer is not whole in time, however many bytes keep coming."""
    late = threading.Event()

    def hang_up() -> None:
        late.set()
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(HEADER_TIME, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if late.is_set():    # whatever the cut header has looked like
            raise ConnectionError(f"no whole header within {HEADER_TIME} s")


class HurriedHTTP(urllib3.connection.HTTPConnection):
    """A connection that waits for a header only so long."""

    def getresponse(self, *arguments):
        """Return the answer, once its header is whole."""
        with hurried(self):
            return super().getresponse(*arguments)


class HurriedHTTPS(urllib3.connection.HTTPSConnection):
    """The same, encrypted."""

    def getresponse(self, *arguments):
        """Return the answer, once its header is whole."""
        with hurried(self):
            return super().getresponse(*arguments)


class Adapter(requests.adapters.HTTPAdapter):
    """Makes such connections."""

    def init_poolmanager(self, *arguments, **options) -> None:
        """Have the pools of connections make them."""
        super().init_poolmanager(*arguments, **options)
        pools = (("http", urllib3.HTTPConnectionPool, HurriedHTTP),
                 ("https", urllib3.HTTPSConnectionPool, HurriedHTTPS))
        self.poolmanager.pool_classes_by_scheme = {
            scheme: type("Pool", (pool,), {"ConnectionCls": connection})
            for scheme, pool, connection in pools}


class Fetcher:
    """Puts files of the dataset at `url` into the same tree below `folder`, shown by a tqdm bar."""

    def __init__(self, url: str, folder: str, bar: tqdm) -> None:
        self.url = url.rstrip("/") + "/"
        self.folder = Path(os.path.realpath(folder))
        self.bar = bar
        self.stop = threading.Event()
        self.sums: dict[str, str] = {}
        self.session = requests.Session()
        self.session.headers.update({"User-Agent": "too_feature (tools/fetch_records.py)",
                                     "Accept-Encoding": "identity"})

        retries = PatientRetry(RETRIES, backoff_factor=PAUSE,
                               status_forcelist=(429, 500, 502, 503, 504))
        for scheme in ("https://", "http://"):    # and no other
            self.session.mount(scheme, Adapter(max_retries=retries))

    def redirected(self, url: str, target: str) -> str:
        """Return where a redirect leads, which has to stay on the host."""
        old = urlsplit(url)
        new = urlsplit(urljoin(url, target))
        same = (old.scheme, old.netloc), ("https", old.netloc)
        if (new.scheme, new.netloc) not in same:
            raise RecordError("redirected to another host")
        return new.geturl()

    def chunks(self, url: str, limit: float, redirects: int = 5) -> Iterator[bytes]:
        """Yield what a URL holds, at most `limit` bytes."""
        with self.session.get(url, stream=True, timeout=TIMEOUT, allow_redirects=False) as response:
            target = self.session.get_redirect_target(response)
            if redirects and target:
                yield from self.chunks(self.redirected(url, target), limit, redirects - 1)
                return
            if response.status_code != 200:
                raise RecordError(f"HTTP {response.status_code}")

            size = 0
            start = time.monotonic() + GRACE
            while chunk := response.raw.read1(65_536):
                size += len(chunk)
                if size > limit:
                    raise RecordError("too large")
                if self.stop.is_set():
                    raise RecordError("interrupted")
                if size < MIN_PACE * (time.monotonic() - start):
                    raise ConnectionError("too slow")
                self.bar.update(len(chunk))
                yield chunk

    def download(self, name: str, limit: float, use: Callable[[Iterator[bytes]], Any]) -> Any:
        """Return `use(chunks)` of a file, from the start again where the transfer fails."""
        for attempt in itertools.count():
            if self.stop.is_set():
                raise RecordError("not tried")
            try:
                return use(self.chunks(self.url + quote(name), limit))
            except (ConnectionError, urllib3.exceptions.HTTPError) as error:
                if attempt == RETRIES or self.stop.wait(PAUSE * 2 ** attempt):
                    raise ConnectionError(error) from error

    def checksums(self, paths: list[str]) -> dict[str, str]:
        """Return {file name: SHA-256} for the files of records."""
        names = {f"{path}{ending}" for path in paths for ending in ENDINGS}
        key = hashlib.sha256("\n".join([self.url, *sorted(names)]).encode()).hexdigest()[:16]
        cache = self.folder / f".checksums-{key}.txt"    # so that 200 MB are read only once
        if cache.exists():
            return pick_checksums(names, [cache.read_bytes()])

        try:
            found = self.download(SUMS, MAX_SUMS, lambda chunks: pick_checksums(names, chunks))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.url}{SUMS}: {error} (--url)") from error
        if not found:
            raise UserError(f"{self.url}{SUMS}: names none of the records (--url)")
        if len(found) == len(names):
            write_checked(cache, None, (f"{found[name]} {name}\n".encode() for name in found))
        return found

    def fetch_file(self, name: str) -> None:
        """Fetch a file, unless it is there already and right."""
        target = self.folder / name
        if not Path(os.path.realpath(target)).is_relative_to(self.folder):
            raise RecordError("link out of the data folder")
        if name not in self.sums:
            raise RecordError(f"no checksum in {SUMS}")

        checksum = self.sums[name]
        if not target.is_file() or files.sha256(target) != checksum:
            self.download(name, MAX_FILE, lambda chunks: write_checked(target, checksum, chunks))

    def fetch(self, path: str) -> Exception | None:
        """Fetch what is missing or wrong of a record; return the error that prevented it."""
        try:
            for ending in ENDINGS:
                self.fetch_file(path + ending)
        except (OSError, ValueError) as error:
            return error
        return None

    def fetch_all(self, paths: list[str], connections: int) -> dict[str, Exception]:
        """Fetch records; return {path: error} of those that failed."""
        self.sums = self.checksums(paths)
        failed: dict[str, Exception] = {}
        in_a_row = 0
        pool = ThreadPoolExecutor(connections)
        batches = (paths[i:i + 1000] for i in range(0, len(paths), 1000))    # of 800,000 with --all
        errors = itertools.chain.from_iterable(pool.map(self.fetch, batch) for batch in batches)
        try:
            for i, (path, error) in enumerate(zip(paths, errors, strict=True), 1):
                self.bar.set_description_str(f"{i} of {len(paths)} records", refresh=False)
                in_a_row = in_a_row + 1 if isinstance(error, OSError) else 0
                if error:
                    failed[path] = error
                if in_a_row == GIVE_UP:
                    self.stop.set()    # the other records fail as "not tried"
        finally:
            self.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        return failed


# ------------------------------------------------------------------------------------------- main
def run(own: argparse.Namespace, others: list[str]) -> int:
    """Print what is wanted and fetch it; return the exit code."""
    settings = script.parse_settings(others)
    labels = script.read_labels(settings.labels)
    if labels["waveform_path"].str.startswith("demo/").all():
        raise UserError("the demo: there is nothing to fetch, run python too_feature.py")

    rows = labels.assign(split="all")
    if not own.all:
        rows = wanted_records(labels, settings, own.spares)
    plan = rows.groupby(["split", "ecg_category"]).size().to_frame("records")
    print(plan.assign(MB=plan["records"] * RECORD_MB).round(1).to_string())
    print(f"{len(rows)} records, about {len(rows) * RECORD_MB:.0f} MB", flush=True)
    if own.dry_run:
        return 0

    paths = rows["waveform_path"].tolist()
    with tqdm(desc=SUMS, unit="B", unit_scale=True, mininterval=1) as bar:
        failed = Fetcher(own.url, settings.data_dir, bar).fetch_all(paths, own.connections)
    for path, error in reversed(failed.items()):    # the reason for giving up, if so, comes last
        print(printable(f"failed: {path}: {error}"), file=sys.stderr)
    command = shlex.join(["python", os.path.relpath(script.__file__), *others])
    print(f"{len(paths) - len(failed)} of {len(paths)} records are in {settings.data_dir}; "
          f"to train on them:\n{command}")
    return 1 if failed else 0


def run_interruptibly(own: argparse.Namespace, others: list[str]) -> int:
    """Like `run`; where Ctrl-C ends it, say how to continue."""
    try:
        with user_errors("stopped", OSError):
            return run(own, others)
    except KeyboardInterrupt:
        print("\nfetch_records.py: interrupted; the files fetched so far are kept. To continue:\n"
              + shlex.join(["python", *sys.argv]), file=sys.stderr, flush=True)
        return 130


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    own, others = parse_arguments(arguments)
    return exit_code("fetch_records.py", run_interruptibly, own, others,
                     traceback="--traceback" in others)


def wait_for_threads(seconds: float) -> None:
    """Let the threads delete their temporary files, but not wait for a silent server."""
    end = time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(max(0, end - time.monotonic()))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)    # raises KeyboardInterrupt
    code = main()
    if code == 130:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        wait_for_threads(5)
        os._exit(130)    # without waiting any longer, as sys.exit would
    sys.exit(code)

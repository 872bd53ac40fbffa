"""Fetch, of MIMIC-IV-ECG's 90 GB, only the records that a run of too_feature.py needs.

    python tools/fetch_records.py --labels my_labels.csv --dry-run    # how many, and how large
    python tools/fetch_records.py --labels my_labels.csv              # stop it at any time

These are the records that the script draws from the label file with the same settings, and a few
spares: 280 MB. Each file is checked, and the same command goes on where it was interrupted.
"""

import argparse
import hashlib
import itertools
import math
import os
import shlex
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import pandas as pd
import requests
import urllib3
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))    # to run from anywhere
import too_feature as script

URL, SUMS = "https://physionet.org/files/mimic-iv-ecg/1.0/", "SHA256SUMS.txt"
RECORD_MB, MAX_FILE, MAX_SUMS = 0.12, 50e6, 2e9    # the last two in bytes: a disk is finite
RETRIES, PAUSE, MAX_PAUSE = 4, 0.5, 60     # s, doubled each time, or as long as the server asks
TIMEOUT, MIN_PACE, GRACE = 30, 1000, 60    # s without a byte; bytes/s, but for so many seconds
GIVE_UP = 20                               # failures in a row that no record is to blame for


def parse_arguments(arguments=None):
    """Return the arguments that are this program's own, and a list of the others, the script's."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], allow_abbrev=False, usage=argparse.SUPPRESS,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,    # no usage: errors take one line
        epilog="All settings of the script are taken too, such as --labels, --data-dir, --seed, "
               "--train-samples, --test-share: see python too_feature.py --help")
    parser.add_argument("--spares", type=float, default=0.05, help="extra share of each class")
    parser.add_argument("--url", default=URL, help=f"folder of the dataset, which holds {SUMS}")
    parser.add_argument("--connections", type=int, default=4, choices=range(1, 9), help="at once")
    parser.add_argument("--dry-run", action="store_true", help="print number and size, no more")
    parser.add_argument("--all", action="store_true", help="fetch every labelled record")
    own, others = parser.parse_known_args(arguments)
    if not 0 <= own.spares <= 1:
        parser.error(f"--spares {own.spares}: expected a number from 0 to 1")
    return own, others


def wanted_records(labels, settings, spares=0.05):
    """Return the rows of `labels` that the script draws with `settings`, with their `split`.

    To each class of each split a share of `spares` is added: those next in rank, which the script
    takes in place of records that it cannot use.
    """
    splits = script.split_patients(labels, settings.test_share, settings.val_share, settings.seed)
    targets = [settings.train_samples, settings.val_samples, settings.test_samples]
    if settings.test_labels:
        other, targets[2] = script.read_labels(settings.test_labels), 10**9
        with script.mendable(settings.test_labels, ValueError):
            splits = script.tool("extras").replace_test(splits, other, settings)
    if settings.test_data_dir:    # another folder is another hospital's: not here to be fetched
        del splits["test"]
    wanted = []
    for (name, records), target in zip(splits.items(), targets, strict=False):
        n_classes = records["ecg_category"].nunique()
        per_class = max(1, target // n_classes)
        target = n_classes * (per_class + math.ceil(spares * per_class))    # holds the smaller draw
        drawn = script.balanced_sampling(records, target, settings.seed, repeat=False)
        wanted.append(drawn.assign(split=name))
    return pd.concat(wanted, ignore_index=True)


def pick_checksums(names, chunks):
    """Return {name: SHA-256} of those `names` that a text of lines '<SHA-256> <name>' holds."""
    found, rest = {}, b""
    for chunk in itertools.chain(chunks, [b"\n"]):
        *lines, rest = (rest[:10_000] + chunk).split(b"\n")    # no line can fill the memory
        for digest, _, name in (line.decode("utf-8", "replace").partition(" ") for line in lines):
            if (name := name.strip(" *\r").removeprefix("./")) in names:
                found[name] = digest.lower()
    return found


def write_whole(target, checksum, chunks):
    """Write a file beside `target` and, if the checksum agrees, move it there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob(f".{target.name}.*.part"):
        try:
            os.kill(int(old.name.split(".")[-2]), 0)    # asks only whether that process runs
        except OSError:
            old.unlink(missing_ok=True)
    scratch, digest = target.with_name(f".{target.name}.{os.getpid()}.part"), hashlib.sha256()
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


class PatientRetry(urllib3.Retry):
    """Waits as long as the server asks for, within reason."""

    def get_retry_after(self, response):
        return min(super().get_retry_after(response) or 0, MAX_PAUSE)


class Fetcher:
    """Puts files of the dataset at `url` into the same tree below `folder`, shown by a tqdm bar."""

    def __init__(self, url, folder, bar):
        self.url, self.folder, self.bar = url.rstrip("/") + "/", Path(os.path.realpath(folder)), bar
        self.stop, self.session = threading.Event(), requests.Session()
        self.session.headers.update({"User-Agent": "too_feature (tools/fetch_records.py)",
                                     "Accept-Encoding": "identity"})
        for scheme in ("https://", "http://"):    # and no other
            self.session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=PatientRetry(
                RETRIES, backoff_factor=PAUSE, status_forcelist=(429, 500, 502, 503, 504))))

    def chunks(self, url, limit, redirects=5):
        """Yield what a URL holds, at most `limit` bytes; a redirect has to stay on the host."""
        with self.session.get(url, stream=True, timeout=TIMEOUT, allow_redirects=False) as response:
            if redirects and (target := self.session.get_redirect_target(response)):
                old, new = urlsplit(url), urlsplit(urljoin(url, target))
                if new[:2] not in (old[:2], ("https", old.netloc)):    # scheme and host
                    raise script.RecordError("redirected to another host")
                yield from self.chunks(new.geturl(), limit, redirects - 1)
                return
            if response.status_code != 200:
                raise script.RecordError(f"HTTP {response.status_code}")
            size, start = 0, time.monotonic() + GRACE
            while chunk := response.raw.read1(65_536):
                size += len(chunk)
                if size > limit or self.stop.is_set():
                    raise script.RecordError("too large" if size > limit else "interrupted")
                if size < MIN_PACE * (time.monotonic() - start):
                    raise ConnectionError("too slow")
                self.bar.update(len(chunk))
                yield chunk

    def download(self, name, limit, use, *args):
        """Return `use(*args, chunks)` of a file, from the start again where the transfer fails."""
        for attempt in itertools.count():
            if self.stop.is_set():
                raise script.RecordError("not tried")
            try:
                return use(*args, self.chunks(self.url + quote(name), limit))
            except (ConnectionError, urllib3.exceptions.HTTPError) as error:
                if attempt == RETRIES or self.stop.wait(PAUSE * 2 ** attempt):
                    raise ConnectionError(error) from error

    def checksums(self, paths):
        """Return {file name: SHA-256} for the files of records."""
        names = {f"{path}{ending}" for path in paths for ending in (".dat", ".hea")}
        key = hashlib.sha256("\n".join([self.url, *sorted(names)]).encode()).hexdigest()[:16]
        cache = self.folder / f".checksums-{key}.txt"    # so that 200 MB are read only once
        if cache.exists():
            return pick_checksums(names, [cache.read_bytes()])
        try:
            found = self.download(SUMS, MAX_SUMS, pick_checksums, names)
        except (OSError, ValueError) as error:
            raise script.UserError(f"{self.url}{SUMS}: {error} (--url)") from error
        if not found:
            raise script.UserError(f"{self.url}{SUMS}: names none of the records (--url)")
        if len(found) == len(names):
            write_whole(cache, None, (f"{found[name]} {name}\n".encode() for name in found))
        return found

    def fetch(self, path):
        """Fetch what is missing or wrong of a record; return the error that prevented it."""
        try:
            for name in (f"{path}.dat", f"{path}.hea"):    # a record with a header is whole
                target = self.folder / name
                if not Path(os.path.realpath(target)).is_relative_to(self.folder):
                    raise script.RecordError("link out of the data folder")
                if name not in self.sums:
                    raise script.RecordError(f"no checksum in {SUMS}")
                if not target.is_file() or script.sha256(target) != self.sums[name]:
                    self.download(name, MAX_FILE, write_whole, target, self.sums[name])
        except (OSError, ValueError) as error:
            return error

    def fetch_all(self, paths, connections):
        """Fetch records; return {path: error} of those that failed."""
        self.sums, failed, in_a_row = self.checksums(paths), {}, 0
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


def run(own, others):
    """Fetch, and return the exit code."""
    settings = script.parse_settings(others)
    labels = script.read_labels(settings.labels)
    if labels["waveform_path"].str.startswith("demo/").all():
        raise script.UserError("the demo: there is nothing to fetch, run python too_feature.py")
    rows = labels.assign(split="all") if own.all else wanted_records(labels, settings, own.spares)
    plan = rows.groupby(["split", "ecg_category"]).size().to_frame("records")
    print(plan.assign(MB=plan["records"] * RECORD_MB).round(1).to_string())
    print(f"{len(rows)} records, about {len(rows) * RECORD_MB:.0f} MB", flush=True)
    if own.dry_run:
        return 0
    paths = rows["waveform_path"].tolist()
    with tqdm(desc=SUMS, unit="B", unit_scale=True, mininterval=1) as bar:
        failed = Fetcher(own.url, settings.data_dir, bar).fetch_all(paths, own.connections)
    for path, error in reversed(failed.items()):    # why it gave up, if so, comes last
        print(f"failed: {path}: {error}", file=sys.stderr)
    print(f"{len(paths) - len(failed)} of {len(paths)} records are in {settings.data_dir}; "
          f"to train on them:\n{shlex.join(['python', os.path.relpath(script.__file__), *others])}")
    return 1 if failed else 0


def main(arguments=None):
    """Run from the command line; return the exit code."""
    try:
        return run(*parse_arguments(arguments))
    except (script.UserError, OSError) as error:
        print(f"fetch_records.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nfetch_records.py: interrupted; what is there stays, and this goes on from there:\n"
              + shlex.join(["python", *sys.argv]), file=sys.stderr)
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)    # raises KeyboardInterrupt
    if (exit_code := main()) == 130:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(1)    # for threads to delete their temporary files
        os._exit(130)    # but not for one that waits for a silent server
    sys.exit(exit_code)

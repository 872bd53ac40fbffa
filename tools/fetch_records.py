"""Fetch, of MIMIC-IV-ECG's 90 GB, only the records that a run of too_feature.py needs.

    python tools/fetch_records.py --labels my_labels.csv --dry-run    # how many, and how large
    python tools/fetch_records.py --labels my_labels.csv              # stop it at any time

These are the records that the script draws from the label file with the same settings, and a few
spares: 280 MB. Each file is checked. After an interruption, the same command continues.
"""

import argparse
import functools
import hashlib
import math
import os
import shlex
import sys
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path
from urllib.parse import quote

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
from ecg.errors import UserError, exit_code, printable, raise_at_sigterm, user_errors
from ecg.settings import Parser

URL = "https://physionet.org/files/mimic-iv-ecg/1.0/"
SUMS = "SHA256SUMS.txt"
ENDINGS = ".dat", ".hea"    # in the order of fetching: a record that has its header is whole
RECORD_MB = 0.12
MAX_RECORD_SECONDS = 120    # for each of a record's files
MAX_SUMS_SECONDS = 7200     # for the list of checksums, which has 200 MB
MAX_SILENCE = 30            # s without a byte
TRIES = 3                   # of a transfer that breaks off
ALL = 10**9                 # records: more than any hospital has


# ------------------------------------------------------------------------------------------- plan
def parse_arguments(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Return this program's own arguments, and a list of the others, which are the script's."""
    parser = Parser(
        __doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="All settings of the script are taken too, such as --labels, --data-dir, --seed, "
               "--train-samples, --test-share: see python too_feature.py --help")
    parser.add_argument("--spares", type=float, default=0.05,
                        help="share of each class to fetch in addition, to replace bad records")
    parser.add_argument("--url", default=URL, help=f"folder of the dataset, which holds {SUMS}")
    parser.add_argument("--connections", type=int, default=4, choices=range(1, 9),
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
               "test": ALL if settings.test_labels else settings.test_samples}
    if settings.test_data_dir:    # an external test set, which is not in this dataset
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


# ------------------------------------------------------------------------------------------ fetch
def start_session() -> requests.Session:
    """Return a session that keeps connections, and asks busy servers again when they wish."""
    retry = urllib3.Retry(4, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
    adapter = requests.adapters.HTTPAdapter(max_retries=retry)
    session = requests.Session()
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def download(session: requests.Session, url: str, max_seconds: float) -> bytes:
    """Return the content of a URL, from the start again where a transfer breaks off.

    Raises
    ------
    requests.HTTPError
        The server does not give this file.
    UserError
        The server gives nothing at the moment.
    """
    end = time.monotonic() + max_seconds
    for _ in range(TRIES):
        content = bytearray()
        try:
            with session.get(url, stream=True, timeout=MAX_SILENCE) as response:
                response.raise_for_status()
                for chunk in response.iter_content(8192):
                    content += chunk
                    if time.monotonic() > end:
                        raise requests.Timeout(f"not whole after {max_seconds} s")
            return bytes(content)

        except requests.HTTPError:
            raise
        except requests.RequestException as error:
            reason = error

    raise UserError(f"{url}: {reason}. What was fetched is kept: the same command continues")


def read_checksums(session: requests.Session, url: str, folder: Path,
                   names: set[str]) -> dict[str, str]:
    """Return {name: SHA-256} of these files by the dataset's list, which is kept in the folder."""
    listed = folder / SUMS
    if not listed.exists():
        print(f"fetching {url}{SUMS} (200 MB, once)", flush=True)
        with user_errors("--url", requests.HTTPError):
            content = download(session, url + SUMS, MAX_SUMS_SECONDS)
        files.write_whole(listed, functools.partial(Path.write_bytes, data=content))

    with listed.open(errors="replace") as file:
        lines = (line.partition(" ") for line in file)
        sums = {name.strip(): digest for digest, _, name in lines if name.strip() in names}
    if not sums:
        raise UserError(f"{listed}: names none of the records. If it is of another dataset, delete "
                        "it and give the right --url")
    return sums


def fetch_all(url: str, folder: Path, paths: list[str], connections: int) -> dict[str, str]:
    """Put records of the dataset at `url` into the same tree below `folder`.

    Returns {path: what prevented it} of those that are not to be had.
    """
    session = start_session()
    sums = read_checksums(session, url, folder, {path + end for path in paths for end in ENDINGS})

    def fetch(path: str) -> str:
        """Fetch what is missing or wrong of a record; return what prevented it, or ''."""
        for name in (path + end for end in ENDINGS):
            target = folder / name
            if name not in sums:
                return f"no checksum in {SUMS}"
            if target.is_file() and files.sha256(target) == sums[name]:
                continue

            try:
                content = download(session, url + quote(name), MAX_RECORD_SECONDS)
            except requests.HTTPError as error:
                return str(error)
            if hashlib.sha256(content).hexdigest() != sums[name]:
                return "wrong checksum"
            files.write_whole(target, functools.partial(Path.write_bytes, data=content))
        return ""

    with ThreadPool(connections) as pool:    # these threads end with the program
        reasons = list(tqdm(pool.imap(fetch, paths), "records", len(paths)))
    return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


# ------------------------------------------------------------------------------------------- main
def run(own: argparse.Namespace, others: list[str]) -> int:
    """Print what is wanted and fetch it; return the exit code."""
    settings = script.parse_settings(others)
    labels = script.read_labels(settings.labels)
    if labels["waveform_path"].str.startswith("demo/").all():
        raise UserError("the demo: there is nothing to fetch, run python too_feature.py")

    rows = labels.assign(split="all") if own.all else wanted_records(labels, settings, own.spares)
    plan = rows.groupby(["split", "ecg_category"]).size().to_frame("records")
    print(plan.assign(MB=plan["records"] * RECORD_MB).round(1).to_string())
    print(f"{len(rows)} records, about {len(rows) * RECORD_MB:.0f} MB", flush=True)
    if own.dry_run:
        return 0

    paths = rows["waveform_path"].tolist()
    url = own.url.rstrip("/") + "/"
    try:
        failed = fetch_all(url, Path(settings.data_dir).absolute(), paths, own.connections)
    except KeyboardInterrupt as stop:
        raise type(stop)("stopped; what was fetched is kept, and this goes on from there: "
                         + shlex.join(["python", *sys.argv])) from stop

    for path, error in failed.items():
        print(printable(f"failed: {path}: {error}"), file=sys.stderr)
    command = shlex.join(["python", os.path.relpath(script.__file__), *others])
    print(f"{len(paths) - len(failed)} of {len(paths)} records are in {settings.data_dir}; "
          f"to train on them:\n{command}")
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    own, others = parse_arguments(arguments)
    return exit_code("fetch_records.py", run, own, others, traceback="--traceback" in others)


if __name__ == "__main__":
    raise_at_sigterm()
    sys.exit(main())

"""Fetch, of MIMIC-IV-ECG's 90 GB, only the records that a run of too_feature.py needs.

    python tools/fetch_records.py --labels my_labels.csv --dry-run    # how many, and how large
    python tools/fetch_records.py --labels my_labels.csv              # stop it at any time

These are the records that the script draws from the label file with the same settings, and a few
spares: 280 MB. Each file is checked. After an interruption, the same command continues. The files
come from physionet.org, or from the release's open mirror where that fails or is slow.
"""

import argparse
import contextlib
import functools
import hashlib
import io
import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import pandas as pd
import requests
import urllib3
from tqdm import tqdm

import too_feature as script
from ecg import files, label_rows
from ecg.errors import RecordError, UserError, exit_code, printable, raise_at_sigterm, user_errors
from ecg.settings import Parser

URLS = ["https://physionet.org/files/mimic-iv-ecg/1.0/",
        "https://physionet-open.s3.amazonaws.com/mimic-iv-ecg/1.0/"]
SUMS = "SHA256SUMS.txt"
ENDINGS = ".dat", ".hea"    # in the order of fetching: a record that has its header is whole
RECORD_MB = 0.12
SPARES = 0.05               # share of each class that is fetched in addition
CONNECTIONS = 4
TRIES = 3                   # of a transfer that breaks off, at the last server
PATIENCE = 20               # s without a byte
LEAST_RATE = 200_000        # bytes/s after these seconds, where another server can be asked


# ------------------------------------------------------------------------------------------- plan
def wanted_records(labels: pd.DataFrame, settings: script.Settings,
                   external: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the rows of `labels` that the script draws with `settings`, with their `split`.

    To each class of each split a share of `SPARES` is added: the next in rank, with which the
    script replaces records that it cannot use.
    """
    labels, classes = script.take_classes(labels, settings)
    splits = script.split_labels(labels, classes, settings, external)
    samples = {"train": settings.train_samples, "validation": settings.val_samples,
               "test": 10**9 if settings.test_labels else settings.test_samples}    # all of it
    if settings.test_data_dir:    # an external test set, which is not in this dataset
        del splits["test"]

    wanted = []
    for name, records in splits.items():
        n_classes = records["ecg_category"].nunique()
        per_class = max(1, samples[name] // n_classes)
        per_class += math.ceil(SPARES * per_class)    # a larger draw holds the smaller one
        drawn = script.balanced_sampling(records, n_classes * per_class, settings.seed,
                                         repeat=False)
        wanted.append(drawn.assign(split=name))
    return pd.concat(wanted, ignore_index=True)


# ------------------------------------------------------------------------------------------ fetch
def start_session() -> requests.Session:
    """Return a session that keeps connections, and asks busy servers again when they wish."""
    retry = urllib3.Retry(4, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
    return session


def transfer(session: requests.Session, url: str, least_rate: int) -> bytes:
    """Return the content of a URL, unless it comes more slowly than so many bytes/s."""
    start = time.monotonic() + PATIENCE
    content = bytearray()
    with session.get(url, stream=True, timeout=PATIENCE) as response:
        response.raise_for_status()
        for chunk in response.iter_content(8192):
            content += chunk
            if (time.monotonic() - start) * least_rate > len(content):
                raise requests.Timeout(f"only {len(content)} bytes so far")
    return bytes(content)


def download(session: requests.Session, urls: list[str], name: str, keep: Callable) -> Any:
    """Keep a file of the dataset, from the first server that gives it rightly.

    Parameters
    ----------
    urls : of the dataset; one that fails or is slow moves to the end of this list
    name : of the file in the dataset
    keep : called with the content; raises `RecordError` if it is wrong. Returns what it returns.

    Raises
    ------
    RecordError
        The last server does not give this file, or gives a wrong one.
    UserError
        The last server gives nothing at the moment.
    """
    failure: Exception
    *others, last = urls
    for url in [*others, *[last] * TRIES]:
        try:
            return keep(transfer(session, url + quote(name), LEAST_RATE if url != last else 0))
        except (requests.HTTPError, RecordError) as error:
            failure = RecordError(error)
            if url == last:
                break
        except requests.RequestException as error:
            failure = UserError(f"{url}{name}: {error}. What was fetched is kept: the same command "
                                "continues")
            urls[:] = [*(other for other in urls if other != url), url]
    raise failure


def is_outdated(url: str, listed: Path) -> bool | None:
    """Tell whether the release has a newer list of checksums; None if the server does not say."""
    with contextlib.suppress(requests.RequestException, LookupError, ValueError):
        answer = requests.head(url + SUMS, timeout=PATIENCE, allow_redirects=True)
        answer.raise_for_status()
        changed = parsedate_to_datetime(answer.headers["Last-Modified"])
        return changed.timestamp() > listed.stat().st_mtime
    return None


def parse_checksums(content: bytes, names: set[str]) -> dict[str, str]:
    """Return {name: SHA-256} of these files; `RecordError` if this is not the dataset's list."""
    lines = (line.decode(errors="replace").partition(" ") for line in io.BytesIO(content))
    sums = {name.strip(): digest for digest, _, name in lines if name.strip() in names}
    if not sums:
        raise RecordError(f"{SUMS}: names none of the records; is it of another dataset?")
    return sums


def read_checksums(session: requests.Session, urls: list[str], listed: Path,
                   names: set[str], is_old: bool | None) -> dict[str, str]:
    """Return {name: SHA-256} of these files by the dataset's list, which is kept if it is right."""
    if not is_old:
        with contextlib.suppress(RecordError):
            return parse_checksums(listed.read_bytes(), names)

    def keep(content: bytes) -> dict[str, str]:
        sums = parse_checksums(content, names)
        files.write_bytes(listed, content)
        return sums

    print(f"fetching {SUMS} (200 MB, kept until the release has a newer one)", flush=True)
    with user_errors("--url", RecordError):
        return download(session, urls, SUMS, keep)


def fetch_all(urls: list[str], folder: Path, paths: list[str]) -> dict[str, str]:
    """Put records of the dataset at `urls` into the same tree below `folder`.

    Returns {path: what prevented it} of those that are not to be had.
    """
    session = start_session()
    listed = folder / SUMS
    is_old = is_outdated(urls[0], listed) if listed.exists() else True
    names = {path + end for path in paths for end in ENDINGS}
    sums = read_checksums(session, urls, listed, names, is_old)
    changed = (f"the server's file or {SUMS}, which may be newer there than in the data folder"
               if is_old is None else f"the server's file, and not its {SUMS}")

    def keep(name: str, content: bytes) -> None:
        """Write a file, unless it is another."""
        if hashlib.sha256(content).hexdigest() != sums[name]:
            raise RecordError(f"wrong checksum: what has changed is {changed}")
        files.write_bytes(folder / name, content)

    def fetch(path: str) -> str:
        """Fetch what is missing or wrong of a record; return what prevented it, or ''."""
        for name in (path + end for end in ENDINGS):
            target = folder / name
            if name not in sums:
                return f"no checksum in {SUMS}"
            if target.is_file() and files.sha256(target) == sums[name]:
                continue

            try:
                download(session, urls, name, functools.partial(keep, name))
            except RecordError as error:
                return str(error)
        return ""

    with ThreadPool(CONNECTIONS) as pool:    # these threads end with the program
        reasons = list(tqdm(pool.imap(fetch, paths), "records", len(paths)))
    return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


# ------------------------------------------------------------------------------------------- main
def run(own: argparse.Namespace, others: list[str]) -> int:
    """Print what is wanted and fetch it; return the exit code."""
    settings = script.parse_settings(others)
    labels, external = label_rows.read_files(settings)
    if labels["waveform_path"].str.startswith("demo/").all():
        raise UserError("the demo: there is nothing to fetch, run python too_feature.py")

    rows = wanted_records(labels, settings, external)
    print(rows.groupby(["split", "ecg_category"]).size().to_frame("records").to_string())
    print(f"{len(rows)} records, about {len(rows) * RECORD_MB:.0f} MB", flush=True)
    if own.dry_run:
        return 0

    paths = rows["waveform_path"].tolist()
    urls = [url.rstrip("/") + "/" for url in own.url]
    try:
        failed = fetch_all(urls, Path(settings.data_dir).absolute(), paths)
    except KeyboardInterrupt as stop:
        raise type(stop)("stopped; what was fetched is kept, and this goes on from there: "
                         + shlex.join(["python", *sys.argv])) from stop

    for path, error in failed.items():
        print(printable(f"failed: {path}: {error}"), file=sys.stderr)
    if "--output" not in " ".join(others):    # so that it writes over no model of other labels
        others += ["--output", Path(settings.labels).with_suffix(".keras").name]
    command = shlex.join(["python", os.path.relpath(script.__file__), *others])
    print(f"{len(paths) - len(failed)} of {len(paths)} records are in {settings.data_dir}; "
          f"to train on them:\n{command}")
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = Parser(
        __doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="All settings of the script are taken too, such as --labels, --data-dir, --seed, "
               "--train-samples, --test-share: see python too_feature.py --help")
    parser.add_argument("--url", nargs="+", default=URLS,
                        help=f"folder of the dataset, which holds {SUMS}; of several, the next "
                             "is asked where one fails or is slow")
    parser.add_argument("--dry-run", action="store_true",
                        help="print the number of records and their size, and fetch nothing")
    own, others = parser.parse_known_args(arguments)
    return exit_code("fetch_records.py", run, own, others, traceback="--traceback" in others)


if __name__ == "__main__":
    raise_at_sigterm()
    sys.exit(main())

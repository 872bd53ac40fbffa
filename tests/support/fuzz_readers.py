"""Fuzz what reads files of strangers and of earlier runs: damaged bytes, and damaged values.

    python tests/support/fuzz_readers.py results --minutes 15    # prints the first finding
    python tests/support/fuzz_readers.py model --case 42:1234    # runs one case again

Targets: `results` (tools/figures.py on a results folder), `model` (a .keras and its .json),
`labels` (a label file and its .labels.json), `list` (@file of classify.py) and `cache`. A few files
of a whole case are damaged, drawn by the seed: in their bytes, or one value of a JSON, CSV or .npz
is replaced by another. What may come of it is a result or a UserError: no other exception, no hang,
no more than 1 GB, no warning; and nothing in a page that acts.
"""

import argparse
import contextlib
import io
import json
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))    # to run from anywhere
import too_feature as script
from ecg import cache, files, origin
from ecg.errors import UserError
from ecg.output import figures
from tests.support import models, results, stores
from tests.support.fuzz_records import Hang, damage_header, rss, stop
from tools import classify

HANG = 60          # s of work, not of waiting for a busy machine
MAX_BYTES = 1e9
EVIL = "\x1b[2J\u202e\"'><img src=x onerror=alert(1)></script><script>"
VALUES = [None, True, False, 0, -1, 1, 2, 0.5, 1e15, 1e308, -1e308, float("nan"), float("inf"),
          10**400, "", "0", "x", "Normal", "nan", "x" * 3000, EVIL, "\ud800", "\0", [], {}, [[]],
          [None], [1e308] * 3, [0, 0, 0], [1, 2], {"x": 1}, {EVIL: EVIL}, ["Normal"] * 2]
ARRAYS = [np.zeros(0), np.zeros((0, 12)), np.zeros((9, 12)), np.full((5000, 12), np.nan),
          np.full((500, 12), np.inf), np.full((500, 12), 1e300), np.zeros((4, 4, 4)), np.array("x"),
          np.array(EVIL), np.array(0), np.array(-1.0), np.array(1e-300), np.array(1e300),
          np.array(np.nan), np.array([1e300, -5]), np.zeros(5, "c16"), np.zeros(3, "M8[s]"),
          np.zeros(2, "i4,f8"), np.array(10**9), np.zeros((2 * 10**7,)), np.array([b"\xff"])]
ATTRIBUTES = {"id", "class", "href", "src", "alt", "style", "lang", "charset", "name", "content",
              "http-equiv", "rel"}


# ----------------------------------------------------------------------------------------- damage
def damage_json(content, rng):
    """Replace, delete or repeat one value of a JSON."""
    tree = json.loads(content)
    places = []
    todo = [tree]
    while todo:
        inner = todo.pop()
        keys = inner if isinstance(inner, dict) else range(len(inner))
        for key in keys:
            places.append((inner, key))
            if isinstance(inner[key], dict | list):
                todo.append(inner[key])
    if not places:
        return content
    inner, key = places[rng.integers(len(places))]
    if rng.random() < 0.2:
        del inner[key]
    elif isinstance(inner, list) and rng.random() < 0.2:
        inner.append(inner[key])
    else:
        inner[key] = VALUES[rng.integers(len(VALUES))]
    return json.dumps(tree).encode()


def damage_csv(content, rng):
    """Replace cells, drop or repeat lines or columns of a CSV."""
    table = pd.read_csv(io.BytesIO(content), header=None, dtype=str, keep_default_na=False)
    way, value = rng.integers(6), str(VALUES[rng.integers(len(VALUES))])
    row, column = (int(rng.integers(size)) for size in table.shape)
    if way < 3:
        table.iloc[row, column] = value
    elif way == 3:
        table.iloc[1:, column] = value
    elif way == 4:
        table = table.drop(columns=column)
    else:
        table = table.iloc[:row]
    return table.to_csv(header=False, index=False).encode("utf-8", "replace")


def damage_npz(content, rng):
    """Replace, delete or add one array."""
    with np.load(io.BytesIO(content)) as data:
        arrays = dict(data)
    name = sorted(arrays)[rng.integers(len(arrays))]
    if rng.random() < 0.2:
        del arrays[name]
    else:
        arrays[name] = ARRAYS[rng.integers(len(ARRAYS))]
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def damage(name, content, rng):
    """Damage a file in one way: often one value of it, else its bytes."""
    by_ending = {".json": damage_json, ".csv": damage_csv, ".npz": damage_npz}
    with contextlib.suppress(Exception):    # it was damaged before
        if Path(name).suffix in by_ending and rng.random() < 0.7:
            return by_ending[Path(name).suffix](content, rng)
    return damage_header(content, rng)


# ---------------------------------------------------------------------------------------- targets
class Results:
    """A results folder, from which the figures, the card and the page are made."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as place:
            folder = results.write_results(Path(place) / "r", n=30)
            figures.make_all(folder, ["reliability"])
            self.files = {str(file.relative_to(folder)): file.read_bytes()
                          for file in sorted(folder.rglob("*.*")) if file.suffix != ".pdf"}

    def use(self, folder, rng):
        names = [str(name) for name in rng.permutation(figures.NAMES)[:2]]
        figures.make_all(folder, names, errors=1)
        if "page" in names:
            check_page((folder / "index.html").read_text(encoding="utf-8"))


class Model:
    """A model, whose parts are damaged one by one, so that its hash and its archive are right."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as place:
            path = models.save("lstm", Path(place) / "m.keras")
            with zipfile.ZipFile(path) as archive:
                self.files = {name: archive.read(name) for name in archive.namelist()}
            self.files["card.json"] = path.with_suffix(".json").read_bytes()

    def use(self, folder, rng):
        path = folder / "m.keras"
        with zipfile.ZipFile(path, "w") as archive:
            for name in sorted(self.files):
                if name != "card.json":
                    archive.write(folder / name, name)
        card = (folder / "card.json").read_bytes()
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            card = json.dumps(json.loads(card) | {"model_sha256": files.sha256(path)}).encode()
        path.with_suffix(".json").write_bytes(card)
        loaded = script.load(str(path))
        assert origin.note(loaded.card).isprintable()
        script.contract(loaded.card)


class Labels:
    """A label file and its .labels.json."""

    def __init__(self):
        rows = "".join(f"{i // 2},p{i}/r{i},{results.CLASSES[i % 5]}\n" for i in range(100))
        self.files = {"my.csv": rows.encode()}
        self.files["my.labels.json"] = json.dumps(
            {"labels_origin": "two cardiologists", "sha256": {"my.csv": "0" * 64}}).encode()

    def use(self, folder, rng):
        sidecar = folder / "my.labels.json"
        with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
            card = json.loads(sidecar.read_bytes())
            if rng.random() < 0.5:
                card["sha256"] = {"my.csv": files.sha256(folder / "my.csv")}
            sidecar.write_text(json.dumps(card))
        assert origin.of_file(str(folder / "my.csv")).isprintable()
        script.read_labels(str(folder / "my.csv"))


class List:
    """A list of records."""

    def __init__(self):
        self.files = {"list.txt": b"p1/r1\np2/r2.hea\n\n/abs/r3.dat\n"}

    def use(self, folder, rng):
        for path in classify.find_records([f"@{folder / 'list.txt'}"])[:50]:
            with contextlib.suppress(script.RecordError):
                script.read_record(f"{folder}/{path}")


class Cache:
    """A cache of prepared records, all of which are as before, whatever its bytes."""

    def __init__(self):
        self.place = tempfile.TemporaryDirectory()
        stores.write_all(Path(self.place.name))
        with tempfile.TemporaryDirectory() as folder:
            self.expected = stores.told(self.prepare(folder))
            self.files = {file.name: file.read_bytes() for file in Path(folder).iterdir()}

    def prepare(self, folder):
        paths = [f"{self.place.name}/{path}" for path in stores.PATHS]
        return cache.prepare_many(
            paths, stores.prepare, stores.SHAPES, "key", Path(folder), jobs=1)

    def use(self, folder, rng):
        assert stores.told(self.prepare(folder)) == self.expected


TARGETS = {kind.__name__.lower(): kind for kind in (Results, Model, Labels, List, Cache)}


def check_page(text):
    """Raise `AssertionError` if a page holds anything that acts."""
    class Acts(HTMLParser):
        def handle_starttag(self, tag, attributes):
            assert tag not in ("script", "iframe", "object", "form", "base"), f"a tag <{tag}>"
            for name, value in attributes:
                assert name in ATTRIBUTES, f"an attribute {name}={value}"
                assert name not in ("src", "href") or value.startswith(("#", "data:")), value

    Acts().feed(text)


# -------------------------------------------------------------------------------------------- run
def make_case(target, seed, number):
    """Return the files of a case and a generator; the same seed and number give the same."""
    rng = np.random.default_rng([seed, number])
    content = dict(target.files)
    for _ in range(rng.choice([1, 2, 4], p=[0.7, 0.2, 0.1])):
        name = str(rng.choice(sorted(content)))
        content[name] = damage(name, content[name], rng)
    return content, rng


def run_case(target, content, rng):
    """Let a target use files; return "" or why they are refused.

    `AssertionError` says which promise it broke.
    """
    before, printed, why = rss(), io.StringIO(), ""
    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, HANG)
    try:
        with (tempfile.TemporaryDirectory() as folder,
              warnings.catch_warnings(record=True) as warned,
              contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed)):
            warnings.simplefilter("always")
            for name, data in content.items():
                file = Path(folder) / name
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(data)
            target.use(Path(folder), rng)
    except UserError as error:
        why = str(error).replace(folder, "")
    except Hang:
        raise AssertionError("it hangs") from None
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = (rss() or 0) - (before or 0)
    assert grown <= MAX_BYTES, f"it takes {grown / 1e6:.0f} MB"
    assert not warned, f"a warning: {warned[0].filename}:{warned[0].lineno} {warned[0].message}"
    assert why.isprintable() and len(why) <= 2000, f"a reason not to be shown: {why!r}"
    return why


def fuzz(name, seed, cases=None, seconds=np.inf):
    """Run cases until one breaks a promise (`AssertionError`); return how many had which end."""
    target, ends, start, number = TARGETS[name](), Counter(), time.monotonic(), 0
    assert run_case(target, target.files, np.random.default_rng(0)) == "", "a whole case is refused"
    while number != cases and time.monotonic() - start < seconds:
        try:
            why = run_case(target, *make_case(target, seed, number))
        except AssertionError as error:
            raise AssertionError(f"{name} --case {seed}:{number}: {error}") from error
        ends["refused" if why else "used"] += 1
        number += 1
    return ends


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--case", metavar="SEED:NUMBER", help="run this one again")
    asked = parser.parse_args()
    if asked.case:
        target = TARGETS[asked.target]()
        content, rng = make_case(target, *map(int, asked.case.split(":")))
        for name, data in content.items():
            if data != target.files[name]:
                print(name, data[:3000])
        print(run_case(target, content, rng) or "used")
        return
    print(f"{asked.target}, seed {asked.seed}", flush=True)
    try:
        ends = fuzz(asked.target, asked.seed, seconds=60 * asked.minutes)
    except AssertionError as error:
        raise SystemExit(str(error)) from error
    print(f"{sum(ends.values())} cases, nothing found: {dict(ends)}")


if __name__ == "__main__":
    main()

"""Fuzz `read_record` with damaged headers and signal files.

    python tests/support/fuzz_records.py --minutes 60     # prints the bytes of the first finding
    python tests/support/fuzz_records.py --case 42:1234   # runs one case again: seed and number

Whole records in every format that wfdb writes are damaged in one to six ways, drawn by the seed.
What may come of it is an ECG or a RecordError: no other exception, no warning, no print, no file
opened outside the folder, no socket, process or write, no hang, no more than 200 MB, and a reason
of one short printable line.
"""

import argparse
import contextlib
import io
import os
import re
import signal
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import wfdb

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))    # to run from anywhere
from ecg import demo
from ecg.errors import RecordError
from too_feature import LEADS, read_record

HANG = 60          # s, after which a read is given up; a sound one takes milliseconds
MAX_BYTES = 200e6
FORMATS = ("16", "8", "24", "32", "61", "80", "160", "212", "310", "311", "508", "516", "524")
NEVER = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork",
         "os.mkdir", "os.remove", "os.rename", "os.symlink", "pickle.", "urllib.", "http.",
         "ftplib.", "shutil.")
TOKENS = [b"", b"0", b"-0", b"-1", b"1", b"11", b"12", b"13", b"49", b"50", b"4000", b"4001",
          b"1e3", b"1e308", b"1e-308", b"1e999", b"nan", b"inf", b"-inf", b"0x10", b"00", b"1.",
          b"65536", b"-32768", b"2147483648", b"9" * 12, b"9" * 19, b"9" * 400, b"9" * 5000, b"x2",
          b":9", b"+9", b"+999999", b"(9)", b"/2", b"/mV", b"/uV", b"/mmHg", b"\n", b"\r", b"\r\n",
          b"\v", b"\f", b"\t", b"\0", b"\x85", b"\x1c", b"#", b" ", b"x", b"y.dat", b"x.hea",
          b"x.dat", b"../x.dat", b"/etc/passwd", b"/dev/zero", b"http://127.0.0.1:9/x", b"~", b".",
          b"-", b"s3://b/k", b"file:///etc/passwd", b"::", b"zip://x", b"\xc2\xb5V", b"\xff", b"V1",
          b"I", b"aVF", *map(str.encode, FORMATS), b"63", b"17", b"512", b"999"]

events = None    # while a list: what an audit hook saw


class Hang(BaseException):
    """A read that takes too long: no `except Exception` catches it."""


def audit(event, arguments):
    if events is not None and (event == "open" or event.startswith(NEVER)):
        events.append((event, arguments))


def stop(*_):
    raise Hang


sys.addaudithook(audit)


def whole_records():
    """Return (header, {name: signal file}) of a whole record in each format that wfdb writes."""
    time_ = np.arange(500)[:, None] / 50
    signal_ = 100 * np.sin(2 * np.pi * (1 + 0.1 * np.arange(12)) * time_)
    signal_ += np.arange(12)    # over whole waves a sum, the checksum, would be 0
    records = []
    for fmt in ("16", "16", "16", "24", "32", "80", "212", "508", "516", "524"):
        with tempfile.TemporaryDirectory() as folder:
            wfdb.wrsamp("x", 50, ["mV"] * 12, list(demo.LEADS), fmt=[fmt] * 12,
                        d_signal=signal_.astype(int), adc_gain=[100.0] * 12, baseline=[0] * 12,
                        write_dir=folder)
            files = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
            records.append((files.pop("x.hea"), files))
    return records


def damage_header(text, rng):
    """Damage a header in one way."""
    lines, way = text.split(b"\n"), rng.integers(14)
    start, token = int(rng.integers(len(text) + 1)), TOKENS[rng.integers(len(TOKENS))]
    if way == 0:    # flip a bit
        one = bytearray(text or b"x")
        one[start % len(one)] ^= 1 << rng.integers(8)
        return bytes(one)
    if way == 1:    # delete, insert, repeat some bytes
        return text[:start] + text[start + int(rng.integers(1, 40)):]
    if way == 2:
        return text[:start] + token + text[start:]
    if way == 3:
        return text[:start] + rng.bytes(int(rng.integers(1, 9))) + text[start:]
    if way > 10:    # another digit
        digits = list(re.finditer(rb"\d", text)) or [re.search(b"", text)]
        one = digits[rng.integers(len(digits))]
        return text[:one.start()] + b"%d" % rng.integers(10) + text[one.end():]
    if way in (4, 5, 6):    # replace one field, or the same field of all lines
        fields = list(re.finditer(rb"[^ \n/()]+", text))
        if not fields:
            return token
        one = fields[rng.integers(len(fields))]
        if way == 4:
            return text.replace(one[0], token, int(rng.choice([1, 12])))
        return text[:one.start()] + token + text[one.end():]
    if way == 7:    # lines twice, away, in another order, cut
        lines.insert(rng.integers(len(lines) + 1), lines[rng.integers(len(lines))])
    elif way == 8:
        lines.pop(rng.integers(len(lines)))
    elif way == 9:
        lines = [lines[i] for i in rng.permutation(len(lines))]
    else:
        return text[:start]
    return b"\n".join(lines)


def damage_signals(data, rng):
    """Damage a signal file in one way."""
    start, size, way = int(rng.integers(len(data) + 1)), int(rng.integers(1, 99)), rng.integers(7)
    if way == 0:    # bit rot
        one = bytearray(data or b"x")
        for place in rng.integers(len(one), size=size):
            one[place] ^= 1 << rng.integers(8)
        return bytes(one)
    return (data[:start], data[:start] + data[start + size:],
            data[:start] + rng.bytes(size) + data[start:], rng.bytes(len(data)),
            data[:start] + b"\x00\x80" * size + data[start + 2 * size:],
            data[:start] + b"\xff" * len(data[start:]))[way - 1]


def make_case(records, seed, number):
    """Return header and signal files of a case; the same seed and number give the same."""
    rng = np.random.default_rng([seed, number])
    header, files = records[rng.integers(len(records))]
    files = dict(files)
    if rng.random() < 0.5:    # without checksums damaged signals get further
        header = re.sub(rb"(?m)( -?\d+) -?\d+ 0 (\w+)$", rb"\1 0 0 \2", header)
    if rng.random() < 0.3:    # another format for all signals
        header = re.sub(rb"(?<=\.dat )\d+", FORMATS[rng.integers(len(FORMATS))].encode(), header)
    for _ in range(rng.choice([1, 2, 3, 6], p=[0.5, 0.25, 0.15, 0.1])):
        if rng.random() < 0.6:
            header = damage_header(header, rng)
        else:
            name = rng.choice(sorted(files))
            files[name] = damage_signals(files[name], rng)
    return header, files


def rss():
    """Return the most memory (bytes) that this process ever had; None where unknown (Windows)."""
    with contextlib.suppress(ImportError):
        import resource
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def run_case(folder, header, files, traced=False):
    """Let `read_record` read a case; return "" or the reason of its refusal.

    `AssertionError` says which promise it broke.
    """
    global events
    folder = os.path.realpath(folder)
    for name in os.listdir(folder):
        os.remove(f"{folder}/{name}")
    for name, content in {"x.hea": header, **files}.items():
        with open(f"{folder}/{name}", "wb") as file:
            file.write(content)
    before, printed, why = rss(), io.StringIO(), ""
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, HANG)
    if traced:
        tracemalloc.start()
    seen = []
    events = seen
    try:
        with (warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(printed),
              contextlib.redirect_stderr(printed)):
            warnings.simplefilter("always")
            ecg, fs, *_ = read_record(f"{folder}/x")
    except RecordError as error:
        why = str(error)
    except Hang:
        raise AssertionError("it hangs") from None
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    finally:
        events = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        peak = tracemalloc.get_traced_memory()[1] if traced else 0
        tracemalloc.stop()
    peak = max(peak, (rss() or 0) - (before or 0))
    assert peak <= MAX_BYTES, f"it takes {peak / 1e6:.0f} MB"
    assert not warned, f"a warning: {warned[0].message}"
    assert not printed.getvalue(), f"it prints {printed.getvalue()!r}"
    for event, (path, *more) in seen:
        assert event == "open", f"{event} {path} {more}"
        assert isinstance(path, int) or os.path.realpath(os.fsdecode(path)).startswith(
            (folder + os.sep, sys.prefix, sys.base_prefix)), f"it opens {path!r}"
        assert not set(more[0] or "r") & set("wax+"), f"it writes {path!r}"
    if why:
        assert re.match(r"[a-zA-Z '?\-]+(:|$)", why), f"a reason without words: {why!r}"
        assert why.isprintable() and len(why) < 200, f"a reason not to be shown: {why!r}"
        return why
    assert ecg.dtype == np.float64 and ecg.shape[1:] == (len(LEADS),), (ecg.dtype, ecg.shape)
    assert 50 <= fs <= 4000 and 9.5 * fs <= len(ecg) <= 10 * fs, (fs, ecg.shape)
    assert np.isfinite(ecg).all() and np.abs(ecg).max() <= 1000, "a sample that no electrode gives"
    return ""


def fuzz(seed, cases=None, seconds=np.inf):
    """Run cases until one breaks a promise (`AssertionError`); return how many had which end."""
    records, ends, start, number = whole_records(), Counter(), time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        for header, files in records:    # wfdb loads whatever it loads when first used
            assert run_case(folder, header, files) == "", "a whole record is refused"
        while number != cases and time.monotonic() - start < seconds:
            header, files = make_case(records, seed, number)
            try:
                why = run_case(folder, header, files, traced=number % 16 == 0)
                ends[why.split(":")[0] or "read"] += 1
            except AssertionError as error:
                raise AssertionError(f"--case {seed}:{number}: {error}\nheader = {header!r}\n"
                                     f"files = {files!r}") from error
            number += 1
    return ends


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--case", metavar="SEED:NUMBER", help="run this one again")
    asked = parser.parse_args()
    if asked.case:
        header, files = make_case(whole_records(), *map(int, asked.case.split(":")))
        print(header.decode("ascii", "backslashreplace"))
        with tempfile.TemporaryDirectory() as folder:
            print(run_case(folder, header, files, traced=True) or "read")
        return
    print(f"seed {asked.seed}", flush=True)
    try:
        ends = fuzz(asked.seed, seconds=60 * asked.minutes)
    except AssertionError as error:
        raise SystemExit(str(error)) from error
    print(f"{sum(ends.values())} cases, nothing found: "
          + ", ".join(f"{end} ({n})" for end, n in ends.most_common()))


if __name__ == "__main__":
    main()

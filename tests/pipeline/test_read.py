"""What `read_record` promises about any WFDB record, whole or damaged."""

import os
import re
import shutil
import signal as signals
import socket
import sys
import tracemalloc
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg import demo
from ecg.errors import RecordError
from too_feature import LEADS, read_record

GAIN = 200
opened = None    # while a list: the absolute path of every file that is opened


def audit(event, arguments):
    if opened is not None and event == "open" and isinstance(arguments[0], str | bytes):
        opened.append(os.path.realpath(os.fsdecode(arguments[0])))


sys.addaudithook(audit)


def ecg(fs=500, seconds=10, leads=LEADS):
    """Return mV (samples, leads) in which each lead, by its name, has a shape of its own."""
    time = np.arange(round(fs * seconds)) / fs
    own = 1 + np.array([LEADS.index(lead) if lead in LEADS else 20 for lead in leads])
    return 0.1 * own * np.sin(2 * np.pi * (1 + 0.13 * own) * time[:, None] + own)


def write_record(folder, name="x", signal=None, leads=demo.LEADS, fs=500, per_millivolt=1.0):
    """Write a valid record of format 16; return its path. NaN is written as "no sample"."""
    signal = ecg(fs, 10, leads) if signal is None else signal
    digital = np.where(np.isnan(signal), demo.NO_SAMPLE, np.round(signal * GAIN)).astype(int)
    n = len(leads)
    wfdb.wrsamp(name, fs, ["mV"] * n, list(leads), d_signal=digital, fmt=["16"] * n,
                adc_gain=[GAIN / per_millivolt] * n, baseline=[0] * n, write_dir=str(folder))
    return str(Path(folder) / name)


def edit(folder, pattern, replacement, count=0):
    """Change the header of record x."""
    header = Path(folder) / "x.hea"
    text, changes = re.subn(pattern, replacement, header.read_text(), count=count, flags=re.M)
    assert changes
    header.write_bytes(text.encode())


@pytest.fixture(autouse=True)
def _no_hang_and_no_network():
    """Fail where a read hangs or connects; no `except Exception` catches `pytest.fail`."""
    signals.signal(signals.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signals.alarm(300)    # for all cases of a test, also on a busy machine
    with mock.patch.object(socket.socket, "connect", lambda *_: pytest.fail("it connects")):
        yield
    signals.alarm(0)


def check(path, data_dir=None):
    """Read a record that may be damaged; return why not, or None having checked the array."""
    global opened
    folder, opened = os.path.realpath(data_dir or os.path.dirname(path)), []
    try:
        signal, fs, *_ = read_record(path, data_dir)
    except RecordError as error:
        return str(error)
    finally:
        files, opened = opened, None
        assert [file for file in files if not file.startswith((folder + os.sep, sys.prefix,
                                                               sys.base_prefix))] == []
    assert signal.shape[1] == 12 and 9.5 * fs <= len(signal) <= 10 * fs
    assert np.isfinite(signal).all() and np.abs(signal).max() <= 1000
    return None


@pytest.mark.parametrize("leads", [LEADS, LEADS[::-1], demo.LEADS, ["V9", *LEADS, "RESP"],
                                   [lead.upper() for lead in LEADS]])
def test_leads_are_picked_by_name_whatever_their_order(tmp_path, leads):
    named = [dict(zip(map(str.upper, LEADS), LEADS, strict=True)).get(x.upper(), x) for x in leads]
    signal, *_ = read_record(write_record(tmp_path, signal=ecg(leads=named), leads=leads))
    np.testing.assert_allclose(signal, ecg(), atol=0.5 / GAIN + 1e-9)


@pytest.mark.parametrize(("unit", "per_millivolt"), [
    ("mV", 1), ("uV", 1e3), ("V", 1e-3), ("nV", 1e6), ("UV", 1e3)])
def test_units_are_converted_to_millivolts(tmp_path, unit, per_millivolt):
    path = write_record(tmp_path, per_millivolt=per_millivolt)
    edit(tmp_path, "/mV", f"/{unit}")
    np.testing.assert_allclose(read_record(path)[0], ecg(), atol=0.5 / GAIN + 1e-9)


@pytest.mark.parametrize("fs", [100, 250, 257, 360.5, 500, 1000])
def test_the_true_sampling_rate_is_returned(tmp_path, fs):
    signal, found, *_ = read_record(write_record(tmp_path, fs=fs))
    assert found == fs
    assert len(signal) == int(10 * fs)


def test_of_a_longer_record_the_first_ten_seconds_are_read(tmp_path):
    signal, *_ = read_record(write_record(tmp_path, signal=ecg(seconds=60), leads=LEADS))
    np.testing.assert_allclose(signal, ecg(), atol=0.5 / GAIN + 1e-9)


@pytest.mark.parametrize(("seconds", "short"), [(0.002, 1), (5, 1), (9.49, 1), (9.5, 0), (9.9, 0)])
def test_a_record_is_too_short_below_nine_and_a_half_seconds(tmp_path, seconds, short):
    why = check(write_record(tmp_path, signal=ecg(seconds=seconds))) or ""
    assert why.startswith("too short") == bool(short)


def test_a_gap_is_interpolated_inside_its_lead_and_changes_no_other(tmp_path):
    ramp = np.linspace(-1, 1, 5000)[:, None] * np.arange(1, 13)
    damaged = ramp.copy()
    damaged[1000:1500, 1], damaged[:300, 4], damaged[4900:, 5] = np.nan, np.nan, np.nan
    signal, *_ = read_record(write_record(tmp_path, signal=damaged, leads=LEADS))
    ramp[:300, 4], ramp[4900:, 5] = ramp[300, 4], ramp[4899, 5]    # an open end is held
    np.testing.assert_allclose(signal, ramp, atol=0.5 / GAIN + 1e-9)


@pytest.mark.parametrize("flaw", ["flat", "offset", "whisper", "missing", "mostly missing"])
@pytest.mark.parametrize("n_bad", [1, 6, 7, 12])
def test_a_lead_without_signal_is_zeros_and_too_many_reject_the_record(tmp_path, flaw, n_bad):
    signal = ecg()
    signal[1050 if flaw == "mostly missing" else 0:, :n_bad] = {
        "flat": 0, "offset": 3.0, "whisper": 0.005 * (np.arange(5000) % 3)[:, None],
        "missing": np.nan, "mostly missing": np.nan}[flaw]
    path = write_record(tmp_path, signal=signal, leads=LEADS)
    if n_bad > 6:
        why = check(path)
        assert why.startswith("too little signal") and re.search(rf"\b{12 - n_bad}\b", why)
    else:
        found, *_ = read_record(path)
        assert not found[:, :n_bad].any()
        np.testing.assert_allclose(found[:, n_bad:], ecg()[:, n_bad:], atol=0.5 / GAIN + 1e-9)


@pytest.mark.parametrize(("share", "used"), [(0.19, True), (0.21, False)])
def test_a_lead_may_lack_a_fifth_of_its_samples(tmp_path, share, used):
    signal = ecg()
    signal[np.random.default_rng(0).permutation(5000)[:int(share * 5000)], 7] = np.nan
    found, *_ = read_record(write_record(tmp_path, signal=signal, leads=LEADS))
    assert found[:, 7].any() == used


def test_a_record_that_breaks_einthovens_law_is_kept(tmp_path):
    signal = ecg()
    signal[:, 2] = 5 * np.sin(np.arange(5000) / 100) - signal[:, 1] + signal[:, 0]
    assert check(write_record(tmp_path, signal=signal, leads=LEADS)) is None


def assert_refused_cheaply(path):
    tracemalloc.start()
    try:
        assert check(path)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


@pytest.fixture(name="record")
def _record(tmp_path):
    """A whole record, read once: wfdb has loaded whatever it loads when first used."""
    (tmp_path / "data").mkdir()
    record = Path(write_record(tmp_path / "data"))
    assert check(str(record)) is None
    return record


@pytest.mark.parametrize(("pattern", "replacement", "why"), [
    ("/mV", "/mmHg", "mmHg"), ("/mV(?=.* V6$)", "/NU", "NU"), (" 500 5000", " 49 900000", "49"),
    (" 500 5000", " 5000 900000", "5000"), ("V6$", "V5", "V6"), ("V6$", "V5", "V5"),
    ("V6$", "v1", "V1"), ("aVF$", "V7", "aVF"), (r"^x 12( [^$]*)\n.*V6\n", r"x 11\1\n", "V6")])
def test_a_refusal_names_what_is_wrong_with_a_header(record, pattern, replacement, why):
    edit(record.parent, pattern, replacement)
    assert why in check(str(record))


NINES = "9" * 30
PAGE = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>\n" * 9


@pytest.mark.parametrize(("pattern", "replacement"), [
    (" 500 5000", f" 500 {10**12}"), (" 500 5000", f" 500 {'9' * 400}"), (" 5000", " -5000"),
    (" 5000", " 0"), (" 5000", ""), ("^x 12", "x 1000000"), ("^x 12", "x 13"), ("^x 12", "x 11"),
    (" 500 ", " 0 "), (" 500 ", " nan "), (" 500 ", " -500 "), (" 500 ", " 1e3 "),
    (" 16 ", " 17 "), (" 16 ", " 0 "), (" 16 ", " text "), (" 16 ", " 516 "), (" 16 ", " 16x1000 "),
    (" 16 ", f" 16x{NINES} "), (" 16 ", f" 16:{NINES} "), (" 16 ", " 16+999999 "),
    (" 16 ", f" 16+{NINES} "), (r" 200\.0", " 0"), (r" 200\.0", " nan"), (r" 200\.0", " inf"),
    (r" 200\.0", " 1e308"), (r" 200\.0", " 1e-308"), (r" 200\.0", " 1e999"),
    (r"\(0\)", f"({NINES})"), (r"\(0\)", f"({'9' * 5000})"), (" (a?V[1-6RLF]|I+)$", ""),
    (r"^x\.dat", "."), (r"^x\.dat", "~"), (r"^x\.dat", "x.hea"), (r"^x\.dat", "../other.dat"),
    (r"^x\.dat", "/etc/passwd"), (r"^x\.dat", "~/other.dat"), (r"^x\.dat", "http://127.0.0.1/x.dat"),
    (r"^x\.dat(?=.* V6$)", "../other.dat"), (r"^x\.dat(?=.* V6$)", "http://127.0.0.1/x.dat"),
    (r"\Z", "x.dat 16 200(0)/mV 16 0 0 0 0 V9\n"), (r"\Z", "#" * 30_000_000)],
    ids=lambda value: repr(value)[1:40])
def test_a_header_that_lies_is_a_record_error_at_little_cost(record, pattern, replacement):
    write_record(record.parents[1], "other")    # a whole record, but out of the data folder
    edit(record.parent, pattern, replacement)
    assert_refused_cheaply(str(record))


@pytest.mark.parametrize(("ending", "content"), [
    (".hea", b""), (".hea", bytes(range(256)) * 4), (".hea", b"\0" * 4096), (".hea", PAGE),
    (".hea", b"# 12\n" * 99), (".hea", b"x\n"), (".hea", b"x 0 500 5000\n"), (".hea", 300),
    (".hea", b"x 12 500 5000\n"), (".hea", b"x" * 10**7), (".hea", b"\n" * 10**7),
    (".hea", b"x/2 12 500 10000\ny 5000\ny 5000\n"), (".dat", b""), (".dat", b"\0"),
    (".dat", PAGE), (".dat", 60_000), (".dat", 119_999), (".dat", 119_976)],
    ids=lambda value: repr(value)[:20])
def test_a_file_that_is_another_or_cut_is_a_record_error_at_little_cost(record, ending, content):
    write_record(record.parent, "y")    # for the header of several segments
    if isinstance(content, int):
        os.truncate(record.with_suffix(ending), content)
    else:
        record.with_suffix(ending).write_bytes(content)
    assert_refused_cheaply(str(record))


@pytest.mark.parametrize("ending", [".hea", ".dat"])
@pytest.mark.parametrize("put", [
    lambda file: None, os.mkdir, os.mkfifo, lambda file: file.symlink_to("/dev/zero"),
    lambda file: file.symlink_to(file.name), lambda file: file.symlink_to("nowhere")],
    ids=["nothing", "folder", "FIFO", "device", "loop", "dangling"])
def test_what_is_not_a_file_is_a_record_error_and_never_opened(record, ending, put):
    record.with_suffix(ending).unlink()
    put(record.with_suffix(ending))
    assert_refused_cheaply(str(record))


@pytest.mark.parametrize("linked", ["x.hea", "x.dat", "folder"])
@pytest.mark.parametrize("inside", [True, False])
def test_no_link_leads_out_of_the_data_folder_but_the_folder_may_be_one(tmp_path, linked, inside):
    data, alias = tmp_path / "data", tmp_path / "alias"
    target = (data if inside else tmp_path) / "target"
    for folder in data, target:
        folder.mkdir(exist_ok=True)
        write_record(folder)
    alias.symlink_to(data)
    assert check(f"{alias}/x", alias) is None
    (data / linked).unlink(missing_ok=True)
    (data / linked).symlink_to(target if linked == "folder" else target / linked)
    for root in data, alias, os.path.relpath(alias):
        path = f"{root}/folder/x" if linked == "folder" else f"{root}/x"
        assert (check(path, root) is None) == inside


@pytest.mark.parametrize("name", ["a b", "data [1]*?", "50%20#é", "file:x", "~", "..x", "a::b"])
def test_the_data_folder_may_have_any_name(tmp_path, name, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    whys = {check(write_record(tmp_path / name)), check(f"{name}/x", "."), check(f"{name}/x", name)}
    assert whys == {None} or "::" in name    # fsspec takes that for two paths: refused at least


@pytest.fixture(name="small", scope="module")
def _small(tmp_path_factory):
    """A record of little size, and whole copies of its files."""
    record = Path(write_record(tmp_path_factory.mktemp("small"), fs=50))
    for ending in (".hea", ".dat"):
        shutil.copy(record.with_suffix(ending), record.with_name("whole" + ending))
    return record


def check_with(record, ending, content):
    shutil.copy(record.with_name("whole.hea"), record.with_suffix(".hea"))
    shutil.copy(record.with_name("whole.dat"), record.with_suffix(".dat"))
    record.with_suffix(ending).write_bytes(content)
    return check(str(record))


ODD = ["", "0", "-1", "11", "12", "13", "50", "500", "4000", NINES, "1e308", "nan", "8", "24", "61",
       "80", "160", "212", "310", "311", "508", "516", "x2", ":9", "+9", "(9)", "/2", "\n", "\v",
       "\0", "#", "I", "uV", "µ", "x.hea", "../x", "/etc/passwd", "http://127.0.0.1/x", "~"]


@settings(max_examples=400)
@given(edits=st.lists(st.tuples(st.integers(0, 400), st.sampled_from(ODD) | st.text(max_size=4)),
                      min_size=1, max_size=4))
def test_any_change_of_a_header_gives_an_ecg_or_a_record_error(small, edits):
    parts = re.split(r"([ \n/().]|(?<=16))", small.with_name("whole.hea").read_text())
    for place, new in edits:
        parts[place % len(parts)] = new
    check_with(small, ".hea", "".join(parts).encode())


@settings(max_examples=100)
@given(size=st.integers(0, 15_000), seed=st.integers(0, 2**32 - 1))
def test_any_other_bytes_as_dat_are_too_few_or_have_a_wrong_checksum(small, size, seed):
    noise = np.random.default_rng(seed).bytes(size)
    whole = bytearray(small.with_name("whole.dat").read_bytes())
    why = check_with(small, ".dat", noise)
    assert why.startswith("wrong checksum" if size >= len(whole) else "file is cut short")
    start = seed % len(whole)
    whole[start] ^= 1 << seed % 8    # one bit
    why = check_with(small, ".dat", whole)
    assert why == f"wrong checksum: {demo.LEADS[start // 2 % 12]}"


@settings(max_examples=200)
@given(content=st.binary(max_size=300), first=st.sampled_from([b"", b"x 12 50 500\n"]))
def test_any_bytes_as_header_are_a_record_error(small, content, first):
    assert check_with(small, ".hea", first + content)

"""What `read_record` promises about any WFDB record, whole or damaged."""

import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ecg import demo, wfdb_files
from ecg.errors import RecordError
from tests.support.ecgs import GAIN, edit_header, flip_bit, simulated, write_record
from too_feature import LEADS, read_record

opened = None    # while a list: the absolute path of every file that is opened


def audit(event, arguments):
    if opened is not None and event == "open" and isinstance(arguments[0], str | bytes):
        opened.append(os.path.realpath(os.fsdecode(arguments[0])))


sys.addaudithook(audit)


def ecg(fs=500, seconds=10, leads=LEADS):
    """Return mV (samples, leads) in which each lead, by its name, has a shape of its own."""
    time = np.arange(round(fs * seconds)) / fs
    own = 1 + np.arange(len(LEADS) + 1)
    shapes = 0.1 * own * np.sin(2 * np.pi * (1 + 0.13 * own) * time[:, None] + own)
    i, ii = shapes.T[:2]
    shapes[:, 2], shapes[:, 3] = ii - i, -(i + ii) / 2
    return shapes[:, [LEADS.index(lead) if lead in LEADS else -1 for lead in leads]]


def assert_reads(path, expected, **options):
    recording = read_record(path, **options)
    np.testing.assert_allclose(recording.signal, expected, atol=0.5 / GAIN + 1e-9)
    return recording


def refusal(path, data_dir=None, **options):
    """Return why a record is refused, or "" where it is an ECG; nothing else may come of it.

    No file outside its folder is opened.
    """
    global opened
    folder, opened = os.path.realpath(data_dir or os.path.dirname(path)), []
    try:
        signal, fs, *_ = read_record(path, data_dir, **options)
    except RecordError as error:
        why = str(error)
        assert re.match(r"[a-zA-Z0-9 '?]+(:|$)", why)
        assert why.isprintable()
        assert len(why) < 200
        return why
    finally:
        files, opened = opened, None
        ours = folder + os.sep, sys.prefix, sys.base_prefix, f"{tempfile.gettempdir()}/ecg-"
        assert [file for file in files if not file.startswith(ours)] == []

    assert signal.shape[1] == 12
    assert 9.5 * fs <= len(signal) <= 10 * fs
    assert np.isfinite(signal).all()
    assert np.abs(signal).max() <= 1000
    return ""


@pytest.fixture
def record(tmp_path):
    """A whole record, read once: wfdb has loaded whatever it loads when first used."""
    path = write_record(tmp_path / "data" / "x", ecg())
    assert refusal(str(path)) == ""
    return str(path)


# ---------------------------------------------------------------------------------- whole records
@pytest.mark.parametrize("leads", [LEADS[::-1], demo.LEADS, ("V9", *LEADS, "RESP"),
                                   tuple(map(str.upper, LEADS))])
def test_leads_are_picked_by_name_whatever_their_order(tmp_path, leads):
    by_name = {lead.upper(): lead for lead in LEADS}
    named = [by_name.get(lead.upper(), lead) for lead in leads]
    assert_reads(write_record(tmp_path / "x", ecg(leads=named), leads=leads), ecg())


@pytest.mark.parametrize("fs", [100, 257, 360.5, 1000])
def test_the_true_sampling_rate_is_returned(tmp_path, fs):
    recording = assert_reads(write_record(tmp_path / "x", ecg(fs), fs=fs), ecg(fs)[:int(10 * fs)])
    assert recording.fs == fs


@pytest.mark.parametrize(("seconds", "is_short"), [(0.002, 1), (9.49, 1), (9.5, 0), (9.9, 0)])
def test_a_record_is_too_short_below_nine_and_a_half_seconds(tmp_path, seconds, is_short):
    why = refusal(str(write_record(tmp_path / "x", ecg(seconds=seconds))))
    assert why.startswith("too short") == bool(is_short)


@pytest.mark.parametrize("fmt", ["16", "24", "80", "212", "508"])
@pytest.mark.parametrize("start", [0, 7.302, 20.5])
def test_ten_seconds_from_any_start_are_those_of_the_whole(tmp_path, fmt, start):
    whole = ecg(seconds=31) / (4 if fmt in ("80", "508") else 1)    # which hold few bits
    first = round(500 * start)
    path = write_record(tmp_path / "x", whole, fmt=fmt)
    assert_reads(path, whole[first:first + 5000], start=start)


@pytest.mark.parametrize(("start", "rest"), [(20.6, "9.4"), (30, "0"), (99, "0")])
def test_too_little_after_the_start_is_too_short(tmp_path, start, rest):
    path = str(write_record(tmp_path / "x", ecg(seconds=30)))
    assert refusal(path, start=start) == f"too short: {rest} s, not 9.5 or more"


def test_format_8_is_read_from_its_start_alone(tmp_path):
    path = str(write_record(tmp_path / "x", ecg(seconds=30)))
    edit_header(path, rb"(?<=\.dat )16 ", b"8 ")
    assert refusal(path, start=10) == "format 8 is not supported after the start of a record"


# ------------------------------------------------------------------------ headers that people have
BITS = {"8": 8, "16": 16, "24": 24, "32": 32, "80": 8, "212": 12, "310": 32 / 3, "311": 32 / 3}
FIELDS = st.tuples(st.sampled_from(["", "x1"]), st.sampled_from(["", ":3"]),
                   st.sampled_from(["200", "1e3", "0.5", "-50.5"]),
                   st.sampled_from(["", "(7)", "(-40)/mV", "/mV"]),
                   st.sampled_from(["0 0 0 0", "30 0 0 0", "-5 12 0 0"]))


@pytest.fixture(scope="module")
def any_form(tmp_path_factory):
    return str(tmp_path_factory.mktemp("any") / "x")


@settings(max_examples=30)
@given(st.sampled_from(sorted(BITS)), st.sampled_from(["", "+24"]), st.booleans(),
       st.lists(FIELDS, min_size=12, max_size=12), st.integers(0, 9))
def test_where_wfdb_reads_a_record_ours_gives_equal_millivolts(
        any_form, fmt, offset, has_length, fields, seed):
    size = int(600 * 12 * BITS[fmt] / 8) + int(offset or 0)
    Path(f"{any_form}.dat").write_bytes(np.random.default_rng(seed).bytes(size))
    lines = [f"x.dat {fmt}{frame}{skew}{offset} {gain}{baseline} 16 {numbers} {lead}"
             for (frame, skew, gain, baseline, numbers), lead in zip(fields, LEADS, strict=True)]
    Path(f"{any_form}.hea").write_text("\n".join(["x 12 60" + " 600" * has_length, *lines, ""]))
    assume(fmt != "8" or not any(skew for _, skew, *_ in fields))    # there wfdb fails
    expected = wfdb.rdrecord(any_form)
    header = wfdb_files.read_header(any_form, os.path.dirname(any_form))
    assert header.samples == expected.sig_len == 600
    ours = wfdb_files.read_leads(any_form, header, LEADS, 0, 600)
    np.testing.assert_array_equal(ours, expected.p_signal)


@pytest.mark.parametrize("fmt", ["508", "516", "524"])
def test_flac_gives_equal_millivolts(tmp_path, fmt):
    path = str(write_record(tmp_path / "x", ecg() / 8, fmt=fmt))
    header = wfdb_files.read_header(path, str(tmp_path))
    ours = wfdb_files.read_leads(path, header, LEADS, 0, 5000)
    np.testing.assert_array_equal(ours, wfdb.rdrecord(path).p_signal)


@pytest.mark.parametrize(("pattern", "new"), [
    (rb"^x ", b"x.mat "), (b" 500 5000", b" 500 5000 12-May-2020"),
    (b" 500 5000", b" 5e2 5000"), (b" 500 5000", b" 500"), (b" 500 5000", b" 500 10:00:00"),
    (b" 500 5000", b" 500 12-May-2020"),
    (rb"(?<=\.dat )16", b"16x1"), (rb"\n", b"\r\n")])
def test_headers_that_people_have_are_read(record, pattern, new):
    edit_header(record, pattern, new)
    assert_reads(record, ecg())


@pytest.mark.parametrize("fmt", ["16", "212"])
def test_files_may_be_named_in_any_alphabet(tmp_path, fmt):
    path = write_record(tmp_path / "x", ecg(), fmt=fmt)
    edit_header(path, rb"^x", "患者1".encode())
    for ending in ".hea", ".dat":
        os.rename(f"{path}{ending}", tmp_path / f"患者1{ending}")
    assert_reads(tmp_path / "患者1", ecg())


@pytest.mark.parametrize(("ending", "content", "reason"), [
    (".hea", lambda text: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    (".dat", lambda text: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    (".hea", lambda text: text.decode().encode("utf-16"), "UTF-16"),
    (".hea", lambda text: b"files/" + text, "a folder in the record's name"),
    (".hea", lambda text: text + b"age 63\n", "13 signal lines, not 12 (comments begin with #)"),
    (".hea", lambda text: text[:text.rindex(b"x.dat")], "11 signal lines, not 12"),
    (".hea", lambda text: text.replace(b"V6", b"V9"), "V6; there are I II III aVR aVL aVF V1 V2"),
    (".hea", lambda text: text.replace(b" 200.0", b" 2e8"), "gain or unit?")])
def test_what_is_wrong_is_said(record, ending, content, reason):
    file = Path(record + ending)
    file.write_bytes(content(file.read_bytes()))
    assert reason in refusal(record)


# ---------------------------------------------------------------------------- gaps and flat leads
def test_a_gap_is_interpolated_inside_its_lead_and_changes_no_other(tmp_path):
    ramp = np.linspace(-1, 1, 5000)[:, None] * np.arange(1, 13)
    damaged = ramp.copy()
    damaged[1000:1500, 1], damaged[:300, 4], damaged[4900:, 5] = np.nan, np.nan, np.nan
    ramp[:300, 4], ramp[4900:, 5] = ramp[300, 4], ramp[4899, 5]    # an open end is held
    recording = assert_reads(write_record(tmp_path / "x", damaged), ramp)
    np.testing.assert_array_equal(recording.is_missing, np.isnan(damaged))


@pytest.mark.parametrize("flaw", ["offset", "whisper", "missing", "mostly missing"])
@pytest.mark.parametrize("n_bad", [1, 6, 7])
def test_a_lead_without_signal_is_zeros_and_too_many_reject_the_record(tmp_path, flaw, n_bad):
    signal = ecg()
    signal[1050 if flaw == "mostly missing" else 0:, :n_bad] = {
        "offset": 3.0, "whisper": 0.005 * (np.arange(5000) % 3)[:, None]}.get(flaw, np.nan)
    path = write_record(tmp_path / "x", signal)
    if n_bad > 6:
        hint = "; gain or unit?" if flaw == "whisper" else ""
        assert refusal(str(path)) == f"too little signal: in 5 leads, not 6 or more{hint}"
    else:
        signal[:, :n_bad] = 0
        assert_reads(path, signal)


@pytest.mark.parametrize("remark", [
    "", "gaps", "flat lead", "beyond 10 mV", "gaps; flat lead; beyond 10 mV"])
def test_what_is_used_although_unusual_is_remarked(tmp_path, remark):
    signal = ecg()
    if "gaps" in remark:
        signal[100:200, 3] = np.nan
    if "flat" in remark:
        signal[:, 7] = 0
    if "10 mV" in remark:
        signal[300, 9] = -12
    assert read_record(write_record(tmp_path / "x", signal)).remark == remark


@pytest.mark.parametrize("value", [0, None, np.nan])
@pytest.mark.parametrize(("leads", "end", "words"), [
    (12, 3000, "too little signal"), (12, 1500, "gaps"), (7, 1500, "gaps"), (5, 1500, "")])
def test_signal_that_most_leads_lack_at_once_is_a_gap_however_it_is_coded(
        tmp_path, value, leads, end, words):
    signal = ecg()
    signal[1000:end, :leads] = signal[1000, :leads] if value is None else value
    path = str(write_record(tmp_path / "x", signal))
    is_told = np.isnan(value) if value is not None else False
    if words.startswith("too"):
        assert refusal(path).startswith(words)
    else:
        assert read_record(path).remark.startswith("gaps" if is_told else words)


@pytest.mark.parametrize(("first", "second", "is_wrong"), [
    (0, 6, True), (2, 3, True), (2, 7, True), (3, 8, True), (4, 5, False), (6, 7, False)])
def test_limb_leads_that_were_swapped_do_not_add_up(tmp_path, first, second, is_wrong):
    leads = list(LEADS)
    leads[first], leads[second] = leads[second], leads[first]
    signal = simulated()[0]
    remark = read_record(write_record(tmp_path / "x", signal, leads=leads)).remark
    assert remark == ("limb leads do not add up" if is_wrong else "")


# ------------------------------------------------------------------------------------- checksums
@pytest.mark.parametrize("fmt", ["16", "24", "80", "212"])
def test_a_flipped_bit_is_noticed_in_every_format(fmt, tmp_path):
    path = str(write_record(tmp_path / "x", ecg() / 4, fmt=fmt))
    read_record(path)
    flip_bit(path, 20_001)    # a low byte: the sums have 16 bits
    assert refusal(path).startswith("wrong checksum: ")


def test_a_checksum_of_zero_among_others_is_verified(tmp_path):
    signal = ecg()
    signal[:, 8] = np.arange(5000) % 5 / GAIN - 2 / GAIN + 0.1 * (-1) ** np.arange(5000)
    path = str(write_record(tmp_path / "x", signal))
    assert b" 0 0 V3\n" in Path(f"{path}.hea").read_bytes()
    read_record(path)
    flip_bit(path, 2 * (12 * 77 + 8))
    assert refusal(path) == "wrong checksum: V3"


def test_checksums_that_nobody_computed_are_not_verified(record):
    edit_header(record, rb"-?\d+ 0 (\S+)$", rb"0 0 \1")
    flip_bit(record, 20_000)
    assert refusal(record) == ""


@pytest.mark.parametrize("shift", [0, 32_768])
def test_checksums_may_be_written_with_a_sign_or_without(record, shift):
    edit_header(record, rb"(-?\d+) 0 (\S+)$", lambda match: b"%d 0 %s" % (
        (int(match[1]) + shift) % 65_536 - shift, match[2]))
    assert refusal(record) == ""


def test_of_a_longer_record_ten_seconds_count_without_later_damage(tmp_path):
    path = write_record(tmp_path / "x", ecg(seconds=60))
    flip_bit(path, 500_000)
    assert_reads(path, ecg())


# ---------------------------------------------------------------------------------------- damage
DAMAGED, NOT_A_VOLTAGE = "header is damaged", "unit is not a voltage: "
LIES = [
    (b"/mV", b"/mmHg", NOT_A_VOLTAGE + "'mmHg'"), (b"/mV", b"/" + b"9" * 400, NOT_A_VOLTAGE),
    (b"/mV", b"/\x1b[31m", NOT_A_VOLTAGE + r"'\x1b[31m'"),
    (b" 500 5000", b" 49.9999999 900000", "sampling rate not supported: 49.9999999 Hz"),
    (b" 500 5000", b" 4001 900000", "sampling rate not supported: 4001 Hz"),
    (b" 500 5000", b" 500 4749", "too short: 9.498 s"),
    (b" 500 5000", b" 500 1" + b"0" * 12, DAMAGED), (b" 500 ", b" nan ", DAMAGED),
    (b"V6$", b"V5", "lead missing or doubled: V5 V6"), (b"^x 12", b"x 1000000", DAMAGED),
    (b"^x 12 ", b"x/3 12 ", "several segments are not supported: 3"), (b"^x 12", b"x 11", DAMAGED),
    (rb"^x\.dat 16(.* V6)$", rb"x.dat 16x4\1", "several samples per frame are not supported: x4"),
    (b" 16 ", b" 999 ", "cannot be read"), (b" 16 ", b" 212 ", "wrong checksum"),
    (b" 16 ", b" 16:99999 ", DAMAGED), (b" 16 ", "\N{FULLWIDTH DIGIT ONE}6 ".encode(), DAMAGED),
    (rb" 200\.0", b" 0", DAMAGED), (rb" 200\.0", b" nan", DAMAGED),
    (rb" 200\.0", b" 1e308", "too little"), (rb"\(0\)", b"(" + b"9" * 30 + b")", "too little"),
    (rb"^x\.dat", b"../y.dat", DAMAGED), (rb"^x\.dat", b"/etc/passwd", DAMAGED),
    (rb"^x\.dat", b"http://127.0.0.1/x.dat", DAMAGED),
    (rb"^x\.dat", "éx.dat".encode(), "file is missing"),
    (rb"^x\.dat", b"z.dat", "file is missing"), (rb"\Z", b"#" * 30_000_000, DAMAGED)]


@pytest.mark.parametrize(("pattern", "new", "reason"), LIES, ids=lambda value: repr(value)[1:40])
def test_a_header_that_lies_is_refused_with_the_reason(
        record, pattern, new, reason):
    write_record(Path(record).parents[1] / "y", ecg())    # whole, but out of the data folder
    edit_header(record, pattern, new)
    assert reason in refusal(record)


@pytest.mark.parametrize(("ending", "content", "reason"), [
    (".hea", b"", DAMAGED), (".hea", b"<html>404</html>\n", DAMAGED), (".hea", 300, DAMAGED),
    (".hea", b"x" * 10**7, DAMAGED), (".dat", b"", "file is cut short"),
    (".dat", 119_999, "file is cut short"), (".dat", b"text " * 24_000, "wrong checksum")],
    ids=lambda value: repr(value)[:20])
def test_a_file_that_is_another_or_cut_is_refused_with_the_reason(
        record, ending, content, reason):
    if isinstance(content, int):
        os.truncate(record + ending, content)
    else:
        Path(record + ending).write_bytes(content)
    assert reason in refusal(record)


@pytest.mark.parametrize("ending", [".hea", ".dat"])
@pytest.mark.parametrize("put", [
    lambda file: None, os.mkdir, os.mkfifo, lambda file: os.symlink("/dev/zero", file),
    lambda file: os.symlink(os.path.basename(file), file)],
    ids=["nothing", "folder", "FIFO", "device", "loop"])
def test_what_is_not_a_file_is_missing_and_never_opened(record, ending, put):
    os.unlink(record + ending)
    put(record + ending)
    assert f"file is missing: x{ending}" in refusal(record)


@pytest.mark.parametrize("linked", ["x.hea", "x.dat", "folder"])
@pytest.mark.parametrize("is_inside", [True, False])
def test_no_link_leads_out_of_the_data_folder_but_the_folder_may_be_one(
        tmp_path, linked, is_inside):
    data, alias = tmp_path / "data", tmp_path / "alias"
    target = (data if is_inside else tmp_path) / "target"
    for folder in data, target:
        write_record(folder / "x", ecg())
    alias.symlink_to(data)
    assert refusal(f"{alias}/x", alias) == ""
    (data / linked).unlink(missing_ok=True)
    (data / linked).symlink_to(target if linked == "folder" else target / linked)
    for root in data, alias, os.path.relpath(alias):
        path = f"{root}/folder/x" if linked == "folder" else f"{root}/x"
        expected = "" if is_inside else "link out of the data folder"
        assert refusal(path, root).split(":")[0] == expected


def test_a_url_is_no_path_of_a_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "http:" / "127.0.0.1" / "x", ecg())
    assert refusal("http://127.0.0.1/x") == "path looks like a URL"


# ---------------------------------------------------------------------------------- any damage
@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A record of little size in each of some formats, as (path, header, signals)."""
    records = []
    for fmt in ("16", "16", "24", "80", "212", "508", "516"):
        path = write_record(tmp_path_factory.mktemp("small") / "x", ecg(50) / 4, fs=50, fmt=fmt)
        names = [name for name in os.listdir(path.parent) if name != "x.hea"]
        records.append((str(path), Path(f"{path}.hea").read_bytes(), path.parent / names[0]))
    return [(path, header, file, file.read_bytes()) for path, header, file in records]


ODD = ["", "0", "-1", "11", "13", "49", "4000", "9" * 30, "1e308", "nan", "8", "24", "61", "80",
       "160", "212", "310", "311", "508", "516", "x2", ":9", "+9", "(9)", "/2", "\n", "\v", "\0",
       "#", "I", "uV", "µ", "x.hea", "../x", "/etc/passwd", "http://127.0.0.1/x", "~", "::"]
CHANGES = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(ODD) | st.text(max_size=4)),
                   min_size=1, max_size=4)


@settings(max_examples=600)
@given(number=st.integers(0, 6), changes=CHANGES, flips=st.lists(st.integers(0, 10**6), max_size=3),
       is_cut=st.booleans())
def test_any_damage_gives_an_ecg_or_a_record_error(small, number, changes, flips, is_cut):
    path, header, file, content = small[number]
    parts = re.split(r"([ \n/().]|(?<=16))", header.decode())
    for place, new in changes:
        parts[place % len(parts)] = new
    Path(f"{path}.hea").write_bytes("".join(parts).encode())
    damaged = bytearray(content)
    for place in flips:
        damaged[place // 8 % len(content)] ^= 1 << place % 8
    file.write_bytes(damaged[:sum(flips) % len(content)] if is_cut and flips else damaged)
    refusal(path)

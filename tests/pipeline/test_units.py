"""Units, gains, kinds of headers: no silent wrong number, and what is not supported is named."""

import dataclasses
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb

from ecg import demo, report
from ecg.errors import RecordError
from too_feature import LEADS, Settings, load_split, read_record

GAIN = 200
WAVES = 0.1 * np.sin(2 * np.pi * np.arange(1, 13) * np.arange(15_000)[:, None] / 500)    # mV, 30 s
BEATS = np.exp(-0.5 * ((np.arange(15_000) / 500 % 0.8 - 0.4) / 0.012) ** 2)


def ecg(seconds=10.0):
    """Return mV (samples, 12) with beats, where each lead has a shape of its own."""
    return (WAVES + np.outer(BEATS, np.linspace(0.5, 1.5, 12)))[:round(500 * seconds)]


def write(folder, signal=None, fmt="16", per_millivolt=1.0, fs=500):
    """Write record x; return its path. NaN is written as "no sample"."""
    signal = ecg() if signal is None else signal
    digital = np.where(np.isnan(signal), demo.NO_SAMPLE, np.round(signal * GAIN)).astype(int)
    wfdb.wrsamp("x", fs, ["mV"] * 12, list(LEADS), d_signal=digital, fmt=[fmt] * 12,
                adc_gain=[GAIN / per_millivolt] * 12, baseline=[0] * 12, write_dir=str(folder))
    return str(Path(folder) / "x")


def edit(path, old, new):
    """Change the header of a record: bytes for each match of a pattern."""
    header = Path(path + ".hea")
    content, n = re.subn(old, new, header.read_bytes(), flags=re.MULTILINE)
    assert n
    header.write_bytes(content)


def assert_reads(path, expected=None, **options):
    signal, fs, *_ = read_record(path, **options)
    expected = ecg() if expected is None else expected
    np.testing.assert_allclose(signal, expected, atol=0.5 / GAIN + 1e-9)
    assert fs == 500


def refusal(path, **options):
    with pytest.raises(RecordError) as error:
        read_record(path, **options)
    return str(error.value)


# ----------------------------------------------------------------------------------------- units
MICROVOLTS = ["\N{MICRO SIGN}V".encode(), "\N{GREEK SMALL LETTER MU}V".encode(),
              "\N{MICRO SIGN}V".encode("latin-1"), b"uV", "\N{MICRO SIGN}v".encode()]


@pytest.mark.parametrize("unit", MICROVOLTS)
@pytest.mark.parametrize("fmt", ["16", "212"])    # by the fast reader, and by wfdb
def test_microvolts_are_read_in_any_encoding(tmp_path, unit, fmt):
    path = write(tmp_path, fmt=fmt, per_millivolt=1000)
    edit(path, b"/mV", b"/" + unit)
    assert_reads(path)


@pytest.mark.parametrize("comment", [b"\xb5", "\N{MICRO SIGN}\N{LINE SEPARATOR}x".encode(),
                                     b"caf\xe9\x85"])
def test_the_encoding_of_a_comment_is_not_that_of_the_units(tmp_path, comment):
    path = write(tmp_path, per_millivolt=1000)
    edit(path, b"/mV", "/\N{MICRO SIGN}V".encode())
    edit(path, rb"\Z", b"# " + comment + b"\n")
    edit(path, rb"\A", b"\xef\xbb\xbf")
    assert_reads(path)


@pytest.mark.parametrize("fmt", ["16", "212"])
@pytest.mark.parametrize("unit", ["\N{REPLACEMENT CHARACTER}V", "æV", "k\N{OHM SIGN}"])
def test_a_unit_that_is_not_ascii_is_refused_not_shortened(tmp_path, unit, fmt):
    path = write(tmp_path, fmt=fmt, per_millivolt=1e-3)    # right if only the V is read
    edit(path, b"/mV", f"/{unit}".encode())
    assert refusal(path).startswith("unit is not a voltage: ")


@pytest.mark.parametrize("fmt", ["16", "212"])
def test_an_inverted_lead_is_not_read_as_the_lead(tmp_path, fmt):
    path = write(tmp_path, fmt=fmt)
    edit(path, b" aVR$", " \N{MINUS SIGN}aVR".encode())
    assert refusal(path) == "lead missing or doubled: aVR"


def test_another_channel_may_have_any_unit_and_name(tmp_path):
    path = write(tmp_path)
    extra = "x.dat 16 200.0(0)/k\N{OHM SIGN} 16 0 0 0 0 Impédance\n".encode()
    content = np.fromfile(path + ".dat", "<i2").reshape(5000, 12)
    np.column_stack([content, content[:, 0]]).tofile(path + ".dat")
    edit(path, b"^x 12 ", b"x 13 ")
    edit(path, rb"\Z", extra)
    edit(path, rb" -?\d+ 0 (\S+)$", rb" 0 0 \1")    # no checksums
    assert_reads(path)


# ----------------------------------------------------------------------------------------- gains
@pytest.mark.parametrize(("old", "new", "peaks"), [
    (b"/mV", b"/V", (500, 2000)), (rb" 200\.0\(", b" 2.0(", (50, 200)),
    (rb" 200\.0\(", b" 0.0002(", (5e5, 2e6))])
def test_peaks_beyond_what_electrodes_give_name_gain_and_unit(tmp_path, old, new, peaks):
    path = write(tmp_path)
    edit(path, old, new)
    why = refusal(path)
    assert why.startswith("gain or unit?: peaks of ")
    low, high = peaks
    assert low < float(re.search("peaks of (.*) mV", why)[1]) < high
    assert why.endswith(" V6")


def test_one_lead_of_a_wrong_gain_is_named(tmp_path):
    path = write(tmp_path)
    edit(path, rb" 200\.0\((.*) V2$", rb" 1.0(\1 V2")
    assert re.fullmatch(r"gain or unit\?: peaks of \d+(\.\d)? mV in lead\(s\) V2", refusal(path))


@pytest.mark.parametrize(("n", "is_used"), [(1, True), (40, True), (60, False)])
def test_a_few_absurd_samples_are_not_a_wrong_gain(tmp_path, n, is_used):
    signal = ecg().copy()
    signal[100:100 + n, 3] = 150
    path = write(tmp_path, signal)
    if is_used:
        assert_reads(path, signal)
    else:
        assert refusal(path).endswith("lead(s) aVR")


def test_the_offset_of_an_electrode_is_not_a_peak(tmp_path):
    assert_reads(write(tmp_path, ecg() + 100), ecg() + 100)


# --------------------------------------------------------------------------------------- headers
@pytest.mark.parametrize("fmt", ["16", "212"])
def test_fields_may_be_separated_by_tabs(tmp_path, fmt):
    path = write(tmp_path, fmt=fmt)
    edit(path, b" ", b"\t")
    assert_reads(path)


@pytest.mark.parametrize("skews", [[5] * 12, [0, 3] * 6, range(12)])
def test_a_skew_is_undone_and_the_checksum_still_holds(tmp_path, skews):
    late = np.stack([np.roll(lead, skew) for lead, skew in zip(ecg().T, skews, strict=True)], 1)
    path = write(tmp_path, late)
    lines = Path(path + ".hea").read_text().splitlines()
    for i, skew in enumerate(skews, 1):
        lines[i] = lines[i].replace(" 16 ", f" 16:{skew} ", 1)
    Path(path + ".hea").write_text("\n".join(lines) + "\n")
    signal, *_ = read_record(path)
    np.testing.assert_allclose(signal[:-11], ecg()[:-11], atol=0.5 / GAIN + 1e-9)

    content = bytearray(Path(path + ".dat").read_bytes())
    content[-1] ^= 1
    Path(path + ".dat").write_bytes(content)
    assert refusal(path) == "wrong checksum: V6"


@pytest.mark.parametrize(("old", "new", "why"), [
    (b"^x 12 500", b"x/3 12 500", "several segments are not supported: 3"),
    (rb"^x\.dat 16", b"x.dat 16x2", "several samples per frame are not supported: x2"),
    (rb"^x\.dat 16(.* V6)$", rb"x.dat 16x4\1", "several samples per frame are not supported: x4")])
def test_what_is_valid_but_not_supported_is_named(tmp_path, old, new, why):
    path = write(tmp_path)
    edit(path, old, new)
    assert refusal(path) == why


@pytest.mark.parametrize("new", [
    "\N{FULLWIDTH DIGIT ONE}6 ", "16:99999 ", "16 200uV", "16 1.2.3(0)", "16 1E3(0)/mV "])
def test_a_field_that_wfdb_would_read_otherwise_is_damage(tmp_path, new):
    path = write(tmp_path)
    edit(path, rb"(?<=\.dat )16 ", new.encode())
    assert refusal(path) == "header is damaged"


def test_a_name_that_wfdb_would_shorten_is_not_opened(tmp_path):
    path = write(tmp_path)
    (tmp_path / "éx.dat").write_bytes(Path(path + ".dat").read_bytes())
    Path(path + ".dat").unlink()
    Path(path + ".dat").symlink_to("/dev/zero")
    edit(path, rb"^x\.dat", "éx.dat".encode())
    assert refusal(path) == "header is damaged"


@pytest.mark.parametrize(("samples", "fs"), [(4749, 500), (37_999, 4000), (950, 100.001)])
def test_a_length_just_too_short_is_not_rounded_up(tmp_path, samples, fs):
    path = write(tmp_path)
    edit(path, b"^x 12 500 5000", f"x 12 {fs} {samples}".encode())
    assert 9.49 < float(re.match(r"too short: (.*) s, not 9.5 or more", refusal(path))[1]) < 9.5


def test_a_rate_just_out_of_range_is_not_rounded_into_it(tmp_path):
    path = write(tmp_path)
    edit(path, b"^x 12 500", b"x 12 49.9999999")
    assert refusal(path) == "sampling rate not supported: 49.9999999 Hz, not 50 to 4000"


# --------------------------------------------------------------------------------- longer records
@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212", "508", "524"])
@pytest.mark.parametrize("start", [0, 0.002, 7.302, 10, 20.5])
def test_ten_seconds_from_any_start_are_those_of_the_whole(tmp_path, fmt, start):
    whole = ecg(30) / (4 if fmt in ("80", "508") else 1)    # which hold few bits
    first = round(500 * start)
    expected = whole[first:first + 5000]
    assert_reads(write(tmp_path, whole, fmt), expected, start=start)


def test_a_skew_in_a_longer_record(tmp_path):
    path = write(tmp_path, np.roll(ecg(30), 7, axis=0))
    edit(path, rb"(?<=\.dat )16 ", b"16:7 ")
    assert_reads(path, ecg(30)[5000:10_000], start=10)


@pytest.mark.parametrize(("start", "rest"), [(20.6, "9.4"), (30, "0"), (99, "0")])
def test_too_little_after_the_start_is_too_short(tmp_path, start, rest):
    path = write(tmp_path, ecg(30))
    assert refusal(path, start=start) == f"too short: {rest} s, not 9.5 or more"


def test_a_start_before_the_record_is_an_error_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="start: expected 0 s or more, got -1"):
        read_record(write(tmp_path), start=-1)


def test_format_8_is_read_from_its_start_alone(tmp_path):
    path = write(tmp_path, ecg(30))
    edit(path, rb"(?<=\.dat )16 ", b"8 ")
    assert refusal(path, start=10) == "format 8 is not supported after the start of a record"


# --------------------------------------------------------------------------------------- unusual
def unusual(kind):
    """Return mV (5000, 12) with something unusual."""
    signal = ecg().copy()
    if "gaps" in kind:
        signal[100:200, 3] = np.nan
    if "flat" in kind:
        signal[:, 7] = 0
    if "10 mV" in kind:
        signal[300, 9] = -12
    return signal


REMARKS = ["", "gaps", "flat lead", "beyond 10 mV", "gaps; flat lead", "flat lead; beyond 10 mV"]


@pytest.fixture(name="load")
def _load(tmp_path):
    """Write a record for each of `REMARKS`; return a function that loads them, and labels."""
    for i, remark in enumerate(REMARKS):
        (tmp_path / f"p{i}").mkdir()
        write(tmp_path / f"p{i}", unusual(remark) + i / 100)

    labels = pd.DataFrame({"subject_id": range(len(REMARKS)), "ecg_category": "a",
                           "waveform_path": [f"p{i}/x" for i in range(len(REMARKS))]})
    settings = Settings(data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"), jobs=1)

    def load(**changes):
        return load_split("train", labels, ["a"], dataclasses.replace(settings, **changes))

    return load


def test_what_is_used_although_unusual_is_told_with_and_without_the_cache(tmp_path, load):
    expected = [(f"p{i}/x", remark) for i, remark in enumerate(REMARKS) if remark]
    assert sorted(load(cache=False).unusual) == expected
    assert sorted(load().unusual) == expected
    for file in tmp_path.glob("p*/x.dat"):    # the cache looks at size and time alone
        times = file.stat().st_atime_ns, file.stat().st_mtime_ns
        file.write_bytes(bytes(file.stat().st_size))
        os.utime(file, ns=times)
    assert sorted(load().unusual) == expected


def test_a_record_drawn_often_is_told_once_and_one_not_drawn_never(load):
    assert len(load(train_samples=100).unusual) == len(REMARKS) - 1
    assert len(load(train_samples=2).unusual) <= 2


def test_the_report_counts_each_remark():
    card = {"metrics": {"records": 4, "patients": 4}, "recipe": {"epochs": 1}, "synthetic": False,
            "labels_origin": "not stated", "left_out": [("a", "too short: 3 s")],
            "unusual": [("b", "gaps; flat lead"), ("c", "gaps"), ("d", "beyond 10 mV")]}
    assert report.in_full("", card).splitlines()[3:5] == [
        "left out: too short (1)",
        "used although unusual: beyond 10 mV (1), flat lead (1), gaps (2)"]
    assert "\nused although unusual: none\n" in report.in_full("", {**card, "unusual": []})

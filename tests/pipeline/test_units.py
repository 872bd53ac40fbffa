"""Units, gains, kinds of headers: no silent wrong number."""

import re
from pathlib import Path

import numpy as np
import pytest

from ecg.errors import RecordError
from tests.support.ecgs import GAIN, beats, edit_header, flip_bit, write_record
from too_feature import read_record

ECG = beats(*np.arange(0.4, 10, 0.8), noise=0.02)
ECG *= np.linspace(0.5, 1.5, 12)    # each lead of its own size
MICRO = "\N{MICRO SIGN}"


@pytest.fixture(params=["16", "212"])    # by the fast reader, and by wfdb
def fmt(request):
    return request.param


def assert_reads(path, expected=ECG):
    np.testing.assert_allclose(read_record(path).signal, expected, atol=0.5 / GAIN + 1e-9)


def refusal(path):
    with pytest.raises(RecordError) as error:
        read_record(path)
    return str(error.value)


# ----------------------------------------------------------------------------------------- units
@pytest.mark.parametrize(("unit", "per_millivolt"), [
    (b"uV", 1e3), (b"V", 1e-3), (b"nV", 1e6), (b"UV", 1e3), (f"{MICRO}V".encode(), 1e3),
    ("\N{GREEK SMALL LETTER MU}V".encode(), 1e3), (f"{MICRO}v".encode("latin-1"), 1e3)])
def test_volts_of_any_size_and_encoding_become_millivolts(tmp_path, unit, per_millivolt, fmt):
    path = write_record(tmp_path / "x", ECG, fmt=fmt, per_millivolt=per_millivolt)
    edit_header(path, b"/mV", b"/" + unit)
    assert_reads(path)


@pytest.mark.parametrize("comment", [b"\xb5", f"{MICRO}\N{LINE SEPARATOR}x".encode()])
def test_the_encoding_of_a_comment_is_not_that_of_the_units(tmp_path, comment):
    path = write_record(tmp_path / "x", ECG, per_millivolt=1000)
    edit_header(path, b"/mV", f"/{MICRO}V".encode())
    edit_header(path, rb"\Z", b"# " + comment + b"\n")
    edit_header(path, rb"\A", b"\xef\xbb\xbf")
    assert_reads(path)


@pytest.mark.parametrize("unit", ["\N{REPLACEMENT CHARACTER}V", "æV", "k\N{OHM SIGN}"])
def test_a_unit_that_is_not_ascii_is_refused_not_shortened(tmp_path, unit, fmt):
    path = write_record(tmp_path / "x", ECG, fmt=fmt, per_millivolt=1e-3)    # as if it were V
    edit_header(path, b"/mV", f"/{unit}".encode())
    assert refusal(path).startswith("unit is not a voltage: ")


def test_an_inverted_lead_is_not_read_as_the_lead(tmp_path, fmt):
    path = write_record(tmp_path / "x", ECG, fmt=fmt)
    edit_header(path, b" aVR$", " \N{MINUS SIGN}aVR".encode())
    assert refusal(path).startswith("lead missing or doubled: aVR;")


def test_another_channel_may_have_any_unit_and_name(tmp_path):
    path = write_record(tmp_path / "x", ECG[:, [*range(12), 0]], leads=[
        "I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6", "Z"])
    edit_header(path, b"/mV(.*) Z$", "/k\N{OHM SIGN}\\1 Impédance".encode())
    assert_reads(path)


# ----------------------------------------------------------------------------------------- gains
@pytest.mark.parametrize(("old", "new", "peaks"), [
    (b"/mV", b"/V", (500, 2000)), (rb" 200\.0\(", b" 0.0002(", (5e5, 2e6))])
def test_peaks_beyond_what_electrodes_give_name_gain_and_unit(tmp_path, old, new, peaks):
    path = write_record(tmp_path / "x", ECG)
    edit_header(path, old, new)
    why = refusal(path)
    assert peaks[0] < float(re.match(r"gain or unit\?: peaks of (.*) mV", why)[1]) < peaks[1]
    assert why.endswith(" V6")


def test_one_lead_of_a_wrong_gain_is_named(tmp_path):
    path = write_record(tmp_path / "x", ECG)
    edit_header(path, rb" 200\.0\((.*) V2$", rb" 1.0(\1 V2")
    assert re.fullmatch(r"gain or unit\?: peaks of \d+(\.\d)? mV in lead\(s\) V2", refusal(path))


@pytest.mark.parametrize(("n", "is_used"), [(1, True), (40, True), (60, False)])
def test_a_few_absurd_samples_are_not_a_wrong_gain(tmp_path, n, is_used):
    signal = ECG.copy()
    signal[100:100 + n, 3] = 150
    path = write_record(tmp_path / "x", signal)
    if is_used:
        assert_reads(path, signal)
    else:
        assert refusal(path).endswith("lead(s) aVR")


# --------------------------------------------------------------------------------------- headers
def test_fields_may_be_separated_by_tabs(tmp_path, fmt):
    path = write_record(tmp_path / "x", ECG, fmt=fmt)
    edit_header(path, b" ", b"\t")
    assert_reads(path)


@pytest.mark.parametrize("skews", [[5] * 12, [0, 3, 5] * 4])
def test_a_skew_is_undone_and_the_checksum_still_holds(tmp_path, skews):
    late = np.stack([np.roll(lead, skew) for lead, skew in zip(ECG.T, skews, strict=True)], 1)
    path = write_record(tmp_path / "x", late)
    lines = iter(skews)
    edit_header(path, rb"(?<=\.dat )16 ", lambda _: b"16:%d " % next(lines))
    np.testing.assert_allclose(read_record(path).signal[:-5], ECG[:-5], atol=0.5 / GAIN + 1e-9)
    flip_bit(path, Path(f"{path}.dat").stat().st_size - 2)
    assert refusal(path) == "wrong checksum: V6"

"""A run over records damaged in every way: it completes, and names each with its reason."""

import json
import os
import re
import shutil
import socket
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import wfdb
from scipy.signal import resample

import too_feature as script
from ecg import demo, left_out
from ecg.errors import RecordError, UserError
from tests.support.runs import LABELS, run_script
from too_feature import Recipe, Settings, load_split, read_record

CLASSES = list("ABCDE")


# ------------------------------------------------------------------ a run over many damaged records
def rewrite(stem, signal=None, leads=demo.LEADS, fs=500):
    """Write the record anew: other mV (samples, leads), or its own at another rate (Hz)."""
    if signal is None:
        signal = wfdb.rdrecord(str(stem)).p_signal
    wfdb.wrsamp(stem.name, fs, ["mV"] * len(leads), list(leads), fmt=["16"] * len(leads),
                d_signal=np.where(np.isnan(signal), -32768, np.round(signal * 200)).astype(int),
                adc_gain=[200.0] * len(leads), baseline=[0] * len(leads),
                write_dir=str(stem.parent))


def rate(fs):
    return lambda stem: rewrite(stem, resample(
        np.nan_to_num(wfdb.rdrecord(str(stem)).p_signal), 10 * fs), fs=fs)


def header(pattern, new, count=0):
    def damage(stem):
        file = stem.with_suffix(".hea")
        text, n = re.subn(pattern, new, file.read_text(), count=count, flags=re.M)
        assert n
        file.write_text(text)
    return damage


def content(ending, change):
    def damage(stem):
        file = stem.with_suffix(ending)
        file.write_bytes(change(file.read_bytes()))
    return damage


def instead(ending, put):
    """Put something else where a file of the record is."""
    def damage(stem):
        stem.with_suffix(ending).unlink()
        put(stem.with_suffix(ending))
    return damage


def put_socket(file):
    short = Path(f"s{os.getpid()}")    # a socket's path may have 100 letters
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(short))
    os.replace(short, file)


def out_of_the_folder(file):
    outside = file.parents[5] / f"outside{file.suffix}"
    outside.write_bytes((file.parent / f"kept{file.suffix}").read_bytes())
    file.symlink_to(outside)


def keep_and(damage):
    def both(stem):
        for ending in (".hea", ".dat"):
            shutil.copy(stem.with_suffix(ending), stem.parent / f"kept{ending}")
        damage(stem)
    return both


def signals(change):
    return lambda stem: rewrite(stem, change(wfdb.rdrecord(str(stem)).p_signal))


def flat(n):
    def change(signal):
        signal[:, :n] = 1.0
        return signal
    return change


def flip(place):
    def change(data):
        one = bytearray(data)
        one[place] ^= 16
        return bytes(one)
    return change


ABSENT, USED = "never drawn", "used"
# Fault, and with which reason the record is left out; or what becomes of it instead
FAULTS = {
    "no signal file": (lambda stem: stem.with_suffix(".dat").unlink(), "file is missing"),
    "no header": (lambda stem: stem.with_suffix(".hea").unlink(), ABSENT),
    "empty signal file": (content(".dat", lambda data: b""), "file is cut short"),
    "empty header": (content(".hea", lambda data: b""), "header is damaged"),
    "signal file cut in a sample": (content(".dat", lambda data: data[:-1]), "file is cut short"),
    "signal file cut in half": (content(".dat", lambda data: data[:60_000]), "file is cut short"),
    "header cut in a line": (content(".hea", lambda data: data[:300]), "header is damaged"),
    "header cut after the first line": (content(".hea", lambda data: data[:45]),
                                        "header is damaged"),
    "random bytes as header": (content(".hea", lambda data: bytes(range(256)) * 9),
                               "header is damaged"),
    "a web page as header": (content(".hea", lambda data: b"<html>404</html>\n"),
                             "header is damaged"),
    "a web page as signal file": (content(".dat", lambda data: b"<html>404</html>\n"),
                                  "file is cut short"),
    "text as long as the signals": (content(".dat", lambda data: b"text " * 24_000),
                                    "wrong checksum"),
    "10^12 samples claimed": (header(" 500 5000", f" 500 {10**12}"), "header is damaged"),
    "10^11 samples claimed": (header(" 500 5000", f" 500 {10**11}"), USED),
    "10^6 leads claimed": (header(" 12 500", " 1000000 500"), "header is damaged"),
    "one flipped bit": (content(".dat", flip(77_777)), "wrong checksum"),
    "another checksum": (header(r"\d+ 0 V1$", "1 0 V1"), "wrong checksum"),
    "a swapped block": (content(".dat", lambda data: data[:24_000] + data[25_000:]
                                + data[24_000:25_000]), "wrong checksum"),
    "unknown format": (header(" 16 ", " 999 ", 12), "cannot be read"),
    "another format": (header(r"\.dat 16 ", ".dat 212 "), "wrong checksum"),
    "gain 0": (header(r" 200\.0", " 0"), "header is damaged"),
    "gain NaN": (header(r" 200\.0", " nan"), "header is damaged"),
    "gain 1e308": (header(r" 200\.0", " 1e308"), "too little signal"),
    "no sample at all": (signals(lambda signal: signal * np.nan), "too little signal"),
    "all leads flat": (signals(flat(12)), "too little signal"),
    "six leads flat": (signals(flat(6)), USED),
    "a lead missing": (lambda stem: rewrite(stem, wfdb.rdrecord(str(stem)).p_signal[:, 1:],
                                            demo.LEADS[1:]), "lead missing or doubled"),
    "a lead twice": (header(r"V6$", "V5"), "lead missing or doubled"),
    "leads in another order": (lambda stem: rewrite(
        stem, wfdb.rdrecord(str(stem)).p_signal[:, ::-1], demo.LEADS[::-1]), USED),
    "100 Hz": (rate(100), USED), "250 Hz": (rate(250), USED), "257 Hz": (rate(257), USED),
    "1000 Hz": (rate(1000), USED),
    "5 s": (signals(lambda signal: signal[:2500]), "too short"),
    "60 s": (signals(lambda signal: np.tile(signal, (6, 1))), USED),
    "a pressure": (header("/mV", "/mmHg"), "unit is not a voltage"),
    "a folder as signal file": (instead(".dat", os.mkdir), "file is missing"),
    "a folder as header": (instead(".hea", os.mkdir), "file is missing"),
    "a FIFO as signal file": (instead(".dat", os.mkfifo), "file is missing"),
    "a FIFO as header": (instead(".hea", os.mkfifo), "file is missing"),
    "a socket": (instead(".dat", put_socket), "file is missing"),
    "/dev/zero as signal file": (instead(".dat", lambda file: file.symlink_to("/dev/zero")),
                                 "file is missing"),
    "/dev/zero as header": (instead(".hea", lambda file: file.symlink_to("/dev/zero")),
                            "file is missing"),
    "a link to itself": (instead(".dat", lambda file: file.symlink_to(file.name)),
                         "file is missing"),
    "signal file out of the folder": (keep_and(instead(".dat", out_of_the_folder)),
                                      "link out of the data folder"),
    "header out of the folder": (keep_and(instead(".hea", out_of_the_folder)),
                                 "link out of the data folder"),
    "a path out of the folder": (header(r"^\d+\.dat", "../../other.dat"), "header is damaged"),
    "a URL": (header(r"^\d+\.dat", "http://127.0.0.1:9/x.dat"), "header is damaged"),
    "a terminal's escape codes": (header("/mV", "/\x1b[31m"), "unit is not a voltage"),
}


@pytest.fixture(name="damaged_run", scope="module")
def _damaged_run(demo_dir, tmp_path_factory):
    """A run over 600 records, every twelfth of them damaged; its result, card and their faults."""
    folder = tmp_path_factory.mktemp("faults")
    shutil.copytree(demo_dir / "demo", folder / "data" / "files")    # damaged files of demo/ stay
    labels = script.read_labels(LABELS)
    labels["waveform_path"] = labels["waveform_path"].str.replace("^demo/", "files/", regex=True)
    for i in range(3):
        name = f"files/more/p{i}/s{i}/{Path(labels['waveform_path'][i]).name}"
        shutil.copytree(folder / "data" / Path(labels["waveform_path"][i]).parent,
                        (folder / "data" / name).parent)
        labels.loc[len(labels)] = i, name, labels["ecg_category"][i]
    labels.to_csv(folder / "labels.csv", header=False, index=False)
    damaged = dict(zip(labels["waveform_path"][::12], FAULTS, strict=False))
    assert len(labels) == 600
    assert set(damaged.values()) == set(FAULTS)
    before = os.getcwd()
    os.chdir(folder)
    for path, fault in damaged.items():
        FAULTS[fault][0](folder / "data" / path)
    os.chdir(before)
    result = run_script(folder, "--labels", "labels.csv", "--data-dir", "data", "--output",
                        "m.keras", "--train-samples", "2500", "--epochs", "1", "--no-jit",
                        "--batch-size", "100", "--sequence-length", "50", "--no-figures")
    assert result.returncode == 0, result.stderr
    return result, dict(json.loads((folder / "m.json").read_text())["left_out"]), damaged


def test_a_run_over_600_records_names_each_damaged_one_with_its_reason_and_no_other(damaged_run):
    _, unusable, damaged = damaged_run
    expected = {path: FAULTS[fault][1] for path, fault in damaged.items()}
    expected = {path: why for path, why in expected.items() if why not in (ABSENT, USED)}
    assert {path: why.split(":")[0] for path, why in unusable.items()} == expected


def test_a_run_over_damaged_records_counts_them_by_reason_and_prints_no_traceback(damaged_run):
    result, unusable, _ = damaged_run
    assert f"left out: {left_out.count_reasons(unusable.values())}" in result.stdout
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr
    assert re.search(r": 1 of \d+ records asked for are not on disk", result.stdout)    # no header
    assert (result.stdout + result.stderr).count("\x1b[31m") == 0


# ------------------------------------------------------------------------------------- checksums
def whole(folder, fmt="16", seconds=10):
    """Write a whole record in a format, the sum of its lead V3 0; return its path."""
    time = np.arange(500 * seconds)[:, None] / 500
    signal = 100 * np.sin(2 * np.pi * (1 + 0.1 * np.arange(12)) * time)
    signal = np.round(signal).astype(int) + np.arange(12) - 8
    wfdb.wrsamp("x", 500, ["mV"] * 12, list(demo.LEADS), fmt=[fmt] * 12, d_signal=signal,
                adc_gain=[100.0] * 12, baseline=[0] * 12, write_dir=str(folder))
    return folder / "x"


@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212"])
def test_a_flipped_bit_is_noticed_in_every_format(fmt, tmp_path):
    path = whole(tmp_path, fmt)
    read_record(path)
    content(".dat", flip(20_001))(path)    # a low byte: the sums have 16 bits
    with pytest.raises(RecordError, match=r"^wrong checksum: "):
        read_record(path)


def test_a_checksum_of_zero_among_others_is_verified(tmp_path):
    path = whole(tmp_path)
    assert re.search(" 0 0 V3$", path.with_suffix(".hea").read_text(), re.M)
    read_record(path)
    content(".dat", flip(2 * (12 * 77 + 8)))(path)
    with pytest.raises(RecordError, match=r"^wrong checksum: V3$"):
        read_record(path)


@pytest.mark.parametrize(("pattern", "new"), [
    (r"-?\d+ 0 (\S+)$", r"0 0 \1"), (r" 16 0 \S+ \S+ 0 (\S+)$", "")], ids=["zeros", "absent"])
def test_checksums_that_nobody_computed_are_not_verified(pattern, new, tmp_path):
    path = whole(tmp_path)
    header(pattern, new)(path)
    content(".dat", flip(20_000))(path)
    if new:
        assert read_record(path)[0].shape == (5000, 12)
    else:    # lead names are gone with them
        with pytest.raises(RecordError, match="lead missing"):
            read_record(path)


def test_checksums_may_be_written_with_a_sign_or_without(tmp_path):
    path = whole(tmp_path)
    for signed in (True, False):
        header(r"-?\d+ 0 (\S+)$", lambda found, signed=signed: " ".join([str(
            (int(found[0].split()[0]) + 32_768) % 65_536 - 32_768 if signed else
            int(found[0].split()[0]) % 65_536), "0", found[1]]))(path)
        sums = re.findall(r"(-?\d+) 0 \S+$", path.with_suffix(".hea").read_text(), re.M)
        assert any(text[0] == "-" for text in sums) == signed
        assert read_record(path)[0].shape == (5000, 12)


def test_of_a_longer_record_ten_seconds_count_without_their_checksum_and_without_later_damage(
        tmp_path):
    path = whole(tmp_path, seconds=60)
    before, *_ = read_record(path)
    content(".dat", flip(500_000))(path)
    np.testing.assert_array_equal(read_record(path)[0], before)


def test_all_records_of_the_demo_have_right_checksums(demo_dir):
    for path in sorted(demo_dir.rglob("*.hea"))[::20]:
        read_record(path.with_suffix(""))
        content(".dat", flip(0))(path)    # and would not be read with a wrong one
        try:
            with pytest.raises(RecordError, match=r"^wrong checksum: I$"):
                read_record(path.with_suffix(""))
        finally:
            content(".dat", flip(0))(path)


# ------------------------------------------------------------- classes with many unusable records
@pytest.fixture(name="records")
def _records(tmp_path):
    """Return a function that makes labels and files: of each class so many good and bad records."""
    path = whole(tmp_path)

    def make(**counts):
        rows = []
        for name, (good, bad, absent) in counts.items():
            for i in range(good + bad + absent):
                folder = tmp_path / "data" / f"{name}{i}"
                folder.mkdir(parents=True)
                rows.append((len(rows), f"{name}{i}/x", name))
                if i < good + bad:
                    os.link(path.with_suffix(".hea"), folder / "x.hea")
                if i < good:
                    os.link(path.with_suffix(".dat"), folder / "x.dat")
        return pd.DataFrame(rows, columns=script.COLUMNS)
    return make


def load(tmp_path, labels, name="test", **options):
    """Load a split of these records."""
    asked = Settings(data_dir=str(tmp_path / "data"), cache=False,
                     recipe=Recipe(sequence_length=50), **options)
    return load_split(name, labels, sorted(set(labels["ecg_category"])), asked)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_a_class_of_which_most_records_are_unusable_stops_the_run_and_is_named(
        name, records, tmp_path):
    labels = records(Fine=(12, 0, 0), Rotten=(5, 6, 0))
    with pytest.raises(UserError) as error:
        load(tmp_path, labels, name)
    said = str(error.value)
    for part in (f"6 of 11 {name} records of Rotten", "file is missing (6)", "file is missing: x.",
                 "Rotten", "--max-unusable 0.5", "repair"):
        assert part in said
    assert "Fine" not in said


def test_half_of_a_class_may_be_unusable_and_more_or_less_if_asked(records, tmp_path):
    labels = records(Fine=(12, 0, 0), Half=(6, 6, 0))
    assert len(load(tmp_path, labels).left_out) == 6
    with pytest.raises(UserError, match="6 of 12 test records of Half"):
        load(tmp_path, labels, max_unusable=0.49)
    labels = labels[~labels["waveform_path"].isin([f"Half{i}/x" for i in range(5)])]
    with pytest.raises(UserError, match="6 of 7 test records of Half"):
        load(tmp_path, labels)
    loaded = load(tmp_path, labels, max_unusable=1)
    assert (loaded.rows["ecg_category"] == "Half").sum() == 1
    assert len(loaded.left_out) == 6


@pytest.mark.parametrize(("good", "bad", "stops"), [
    (1, 0, False), (0, 1, True), (1, 1, False), (1, 2, True), (2, 1, False), (0, 2, True)])
def test_the_last_records_of_a_small_class_count_like_others(good, bad, stops, records, tmp_path):
    labels = records(Fine=(12, 0, 0), Small=(good, bad, 0))
    if stops:
        with pytest.raises(UserError, match=rf"{bad} of {good + bad} test records of Small"):
            load(tmp_path, labels)
    else:
        assert len(load(tmp_path, labels).left_out) == bad


def test_records_that_are_not_on_disk_are_not_unusable(records, tmp_path, capsys):
    loaded = load(tmp_path, records(Fine=(9, 0, 0), Partial=(3, 2, 95)))
    assert (loaded.rows["ecg_category"] == "Partial").sum() == 3
    assert len(loaded.left_out) == 2
    assert "notice: test: 95 of 109 records asked for are not on disk" in capsys.readouterr().out


def test_the_disk_is_asked_once_and_only_for_records_that_a_draw_comes_to(
        records, tmp_path, monkeypatch):
    labels = records(Fine=(40, 0, 0), Partial=(10, 0, 30))
    exists = os.path.exists
    asked = []
    monkeypatch.setattr(os.path, "exists", lambda path: asked.append(path) or exists(path))
    loaded = load(tmp_path, labels, test_samples=10)    # five of each

    ranked = script.rank(labels, 42)["waveform_path"]
    headers = [str(tmp_path / f"data/{path}.hea") for path in ranked]
    fine = [header for header in headers if "/Fine" in header][:5]
    partial = [header for header in headers if "/Partial" in header]
    fifth = [header for header in partial if exists(header)][4]
    assert [path for path in asked if path.endswith(".hea")] == [
        *fine, *partial[:partial.index(fifth) + 1]]
    there = labels[[exists(tmp_path / f"data/{path}.hea") for path in labels["waveform_path"]]]
    assert loaded.rows.equals(script.balanced_sampling(there, 10, repeat=False))


def test_few_bad_records_among_the_first_are_replaced(records, tmp_path):
    labels = records(Fine=(40, 0, 0), Unlucky=(40, 0, 0))
    first = script.balanced_sampling(labels, 10)    # five of each
    mine = first.loc[first["ecg_category"] == "Unlucky", "waveform_path"]
    for path in mine[:3]:
        (tmp_path / "data" / f"{path}.dat").unlink()
    loaded = load(tmp_path, labels, test_samples=10, max_unusable=0.4)    # 3 of 8
    assert sorted(path for path, _ in loaded.left_out) == sorted(mine[:3])
    assert (loaded.rows["ecg_category"] == "Unlucky").sum() == 5


def test_a_hopeless_class_is_given_up_long_before_all_of_it_is_read(
        records, tmp_path, monkeypatch):
    labels = records(Fine=(30, 0, 0), Rotten=(0, 300, 0))
    read = []
    prepare_many = script.prepare_many

    def listening(paths, *more):
        read.extend(paths)
        return prepare_many(paths, *more)

    monkeypatch.setattr(script, "prepare_many", listening)
    with pytest.raises(UserError, match="20 of 20 test records of Rotten"):
        load(tmp_path, labels, test_samples=40)
    assert len(read) == 40


def test_too_many_unusable_records_are_one_line_and_exit_code_2(
        records, tmp_path, monkeypatch, capsys):
    labels = records(Fine=(30, 0, 0), Rotten=(6, 24, 0))
    labels.sample(frac=1, random_state=0).to_csv(tmp_path / "l.csv", header=False, index=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "load_tensorflow", lambda: (mock.MagicMock(), mock.MagicMock()))
    assert script.main(["--labels", "l.csv", "--data-dir", "data", "--no-cache"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    last = error.strip().splitlines()[-1]
    assert re.fullmatch(r"too_feature.py: error: .* \w+ records of Rotten cannot be used: "
                        r"file is missing \(\d+\), such as .*--max-unusable 0.5", last)
    assert not (tmp_path / "ecg_stable_lstm_model.keras").exists()


def test_other_leads_orders_and_rates_give_the_same_ecg(tmp_path):
    path = whole(tmp_path)
    before, *_ = read_record(path)
    rewrite(path, wfdb.rdrecord(str(path)).p_signal[:, ::-1], demo.LEADS[::-1])
    after, *_ = read_record(path)
    np.testing.assert_allclose(after, before, atol=0.0051)    # another gain
    assert after.shape[1] == len(script.LEADS)

"""What tools/fetch_records.py promises, against servers on 127.0.0.1 that can be told to fail."""

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import pytest

import too_feature as script
from ecg import demo
from tests.support import ecgs
from tools import fetch_records

SUMS = "SHA256SUMS.txt"
DATE = "Sat, 29 Nov 2025 10:00:00 GMT"
SAMPLES = ["--train-samples", "25", "--val-samples", "10", "--test-samples", "10"]


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; each request for a file uses up one of its `server.faults`."""

    protocol_version = "HTTP/1.1"
    log_message = mock.Mock()

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Last-Modified", self.server.changed)
        self.end_headers()

    def do_GET(self):
        server = self.server
        name = self.path.removeprefix("/mimic/")
        server.requests[name] += 1
        fault, *server.faults[name] = server.faults.get(name) or [""]
        content = server.files[name][::-1 if fault == "wrong" else 1]
        self.send_response(int(fault) if fault.isdigit() else 200)
        self.send_header("Content-Length", "0" if fault.isdigit() else str(len(content)))
        self.end_headers()
        if fault == "silent":
            server.is_silent.set()
            server.is_over.wait(60)
        if fault == "slow":
            for _ in range(4):
                self.wfile.write(content[:9000])
                content = content[9000:]
                server.is_over.wait(0.4)
        self.close_connection = fault == "drop"
        if not fault.isdigit():
            self.wfile.write(content[:-1] if fault == "drop" else content)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """200 records of 100 patients in MIMIC-IV-ECG's tree, as {name: content}, and their labels."""
    record = ecgs.write_record(tmp_path_factory.mktemp("made") / "40000000", ecgs.simulated()[0])
    header, samples = (Path(f"{record}{ending}").read_bytes() for ending in (".hea", ".dat"))
    files, labels = {}, ""
    for i in range(200):    # one record under many names
        study = f"{40_000_000 + i}"
        path = f"files/p1000/p{10_000_000 + i // 2}/s{study}/{study}"
        files[f"{path}.hea"] = header.replace(b"40000000", study.encode())
        files[f"{path}.dat"] = samples
        labels += f"{10_000_000 + i // 2},{path},{demo.CLASSES[i // 2 % 5]}\n"

    sums = [f"{hashlib.sha256(content).hexdigest()} {name}\n" for name, content in files.items()]
    return files | {SUMS: "".join(sums).encode()}, labels


def serve(dataset):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = mock.Mock()    # clients hang up, as they are meant to
        server.files, server.faults, server.requests = dict(dataset[0]), {}, Counter()
        server.changed = "unknown"    # when its list of checksums was
        server.is_silent, server.is_over = threading.Event(), threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}/mimic"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.is_over.set()
        server.shutdown()


server = pytest.fixture(serve)
mirror = pytest.fixture(serve)


@pytest.fixture
def wanted(dataset, tmp_path, monkeypatch):
    """The paths that a fetch should bring, into a folder that is ready for it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    Path("labels.csv").write_text(dataset[1])
    settings = script.parse_settings(["--labels", "labels.csv", *SAMPLES])
    rows = fetch_records.wanted_records(script.read_labels("labels.csv"), settings)
    return rows["waveform_path"].tolist()


def arguments(server, *more):
    return ["--labels", "labels.csv", "--data-dir", "data", *SAMPLES, "--url", server.url, *more]


def fetch(server, *more):
    return fetch_records.main(arguments(server, *more))


def assert_whole(server, paths):
    there = {str(path.relative_to("data")) for path in Path("data").rglob("*") if path.is_file()}
    assert there == {SUMS, *(path + ending for path in paths for ending in (".hea", ".dat"))}
    assert all(Path("data", name).read_bytes() == server.files[name] for name in there)


def test_what_the_script_draws_is_fetched_once_with_the_command_that_trains_on_it(
        server, wanted, capsys):
    assert fetch(server) == 0
    assert_whole(server, wanted)
    assert len(wanted) == len(set(wanted)) == 5 * (6 + 3 + 3)
    assert set(server.requests.values()) == {1}
    assert re.search(r"60 of 60 records are in data; to train on them:\npython \S*too_feature.py "
                     rf"--labels labels.csv --data-dir data {' '.join(SAMPLES)} "
                     r"--output labels.keras\n$",
                     capsys.readouterr().out)


@pytest.mark.parametrize("fault", ["503", "drop"])
def test_a_passing_fault_is_overcome(fault, server, wanted):
    names = [f"{wanted[0]}.dat", f"{wanted[1]}.hea", SUMS]
    server.faults = {name: [fault] for name in names}
    assert fetch(server) == 0
    assert_whole(server, wanted)
    assert {server.requests[name] for name in names} == {2}


@pytest.mark.parametrize(("fault", "reason"), [("404", "404"), ("wrong", "wrong checksum")])
def test_a_record_that_is_not_to_be_had_is_reported_and_the_others_kept(
        fault, reason, server, wanted, capsys):
    server.faults = {f"{wanted[3]}.dat": [fault]}
    assert fetch(server) == 1
    assert_whole(server, wanted[:3] + wanted[4:])
    (failure,) = re.findall("failed: (.*)", capsys.readouterr().err)
    assert failure.startswith(f"{wanted[3]}: ")
    assert reason in failure

    assert fetch(server) == 0
    assert_whole(server, wanted)
    assert server.requests[SUMS] == server.requests[f"{wanted[0]}.dat"] == 1


def test_right_files_are_kept_and_damaged_ones_fetched_again(server, wanted):
    assert fetch(server) == 0
    Path("data", f"{wanted[0]}.dat").write_bytes(b"damaged")
    Path("data", f"{wanted[1]}.hea").unlink()
    assert fetch(server) == 0
    assert_whole(server, wanted)
    assert server.requests.total() == 1 + 2 * 60 + 2


# -------------------------------------------------------------------------------------- the mirror
@pytest.mark.parametrize(("fault", "rate"), [("drop", 1e-9), ("silent", 1e-9), ("slow", 1e9)])
def test_a_server_that_fails_or_is_slow_is_not_asked_again(
        fault, rate, server, mirror, wanted, monkeypatch):
    monkeypatch.setattr(fetch_records, "PATIENCE", 0.5)
    monkeypatch.setattr(fetch_records, "LEAST_RATE", rate)
    server.faults = {SUMS: [fault]}
    assert fetch(server, mirror.url) == 0
    assert_whole(server, wanted)
    assert server.requests == {SUMS: 1}


@pytest.mark.parametrize("fault", ["404", "wrong"])
def test_what_a_server_lacks_or_has_wrongly_comes_from_the_mirror(fault, server, mirror, wanted):
    names = [SUMS, f"{wanted[3]}.dat"]
    server.faults = {name: [fault] for name in names}
    assert fetch(server, mirror.url) == 0
    assert_whole(server, wanted)
    assert mirror.requests == dict.fromkeys(names, 1)


# ------------------------------------------------------------------------------------ interruptions
def test_an_interruption_waits_for_no_server_and_the_same_command_continues(server, wanted):
    server.faults = {f"{wanted[20]}.dat": ["silent"]}
    command = [sys.executable, fetch_records.__file__, *arguments(server)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert server.is_silent.wait(60)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert not server.is_over.is_set()
    assert run.returncode == 143
    assert said.endswith(f"this goes on from there: {' '.join(['python', *command[1:]])}\n")

    assert fetch(server) == 0
    assert_whole(server, wanted)
    assert server.requests[f"{wanted[0]}.dat"] == 1


def test_dry_run_contacts_no_server_and_writes_nothing(server, wanted, capsys):
    assert fetch(server, "--dry-run") == 0
    assert re.search(r"validation +Atrial Fibrillation +3\n(.*\n)+60 records, about 7 MB\n$",
                     capsys.readouterr().out)
    assert not server.requests
    assert os.listdir() == ["labels.csv"]


@pytest.mark.parametrize(("more", "words"), [
    (["--url", "file:///etc"], "file:///etc"),
    (["--spares", "3"], "adds 5 % of each class by itself"),
    (["--labels", str(Path(script.__file__).with_name("ecg_5_class_data.csv"))], "the demo")])
def test_a_mistake_is_told_in_one_line(more, words, server, wanted, capsys):
    with contextlib.suppress(SystemExit):    # of an unknown flag
        assert fetch(server, *more) == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not server.requests


# ---------------------------------------------------------------------------- the list of checksums
def test_a_list_of_another_dataset_is_refused_and_not_kept(server, wanted, capsys):
    whole = server.files[SUMS]
    server.files[SUMS] = b"0" * 64 + b" other.dat\n"
    assert fetch(server) == 2
    assert f"--url: {SUMS}: " in capsys.readouterr().err
    assert list(server.requests) == [SUMS]
    assert os.listdir() == ["labels.csv"]

    Path("data").mkdir()
    Path("data", SUMS).write_bytes(server.files[SUMS])
    server.files[SUMS] = whole
    assert fetch(server) == 0
    assert_whole(server, wanted)


def test_a_list_that_the_release_has_replaced_is_fetched_again(server, wanted):
    server.changed = DATE
    assert fetch(server) == fetch(server) == 0
    assert server.requests[SUMS] == 1

    os.utime(f"data/{SUMS}", (0, 0))
    server.files[SUMS] += b"0" * 64 + b" another\n"
    assert fetch(server) == 0
    assert_whole(server, wanted)


@pytest.mark.parametrize(("changed", "side"), [
    (DATE, f"the server's file, and not its {SUMS}"), ("unknown", f"the server's file or {SUMS}")])
def test_a_wrong_checksum_says_which_side_has_changed(changed, side, server, wanted, capsys):
    server.changed = changed
    assert fetch(server) == 0
    Path("data", f"{wanted[0]}.dat").unlink()
    server.files[f"{wanted[0]}.dat"] = b"changed"
    assert fetch(server) == 1
    assert f"{wanted[0]}: wrong checksum: what has changed is {side}" in capsys.readouterr().err

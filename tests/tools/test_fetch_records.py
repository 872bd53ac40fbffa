"""What tools/fetch_records.py promises, against a server on 127.0.0.1 that can be told to fail."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import urllib3

import too_feature as script
from ecg import demo
from tools import fetch_records

SUMS = "SHA256SUMS.txt"
SETTINGS = script.Settings(
    labels="labels.csv", data_dir="data", train_samples=25, val_samples=10, test_samples=10,
    recipe=script.Recipe(sequence_length=50))


class Gate:
    """Lets a number of requests through; the others wait until it is closed, and get a 404."""

    def __init__(self, answers):
        self.left, self.holding = threading.Semaphore(answers), threading.Event()
        self.closed = threading.Event()

    def passes(self):
        if self.left.acquire(blocking=False):
            return True
        self.holding.set()
        self.closed.wait(60)
        return False


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; each request for a file uses up one of its `server.faults`."""

    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    log_message = mock.Mock()

    def do_GET(self):
        server, name = self.server, self.path.partition("?")[0].removeprefix("/mimic/")
        server.requests[name] += 1
        server.clients.add(self.client_address)
        fault, *server.faults[name] = server.faults.get(name) or [""]
        if server.gate and not server.gate.passes():
            fault = "404"
        content = server.files[name][::-1 if fault == "wrong" else 1]
        status, size = (int(fault), 0) if fault.isdigit() else (200, len(content))
        self.send_response(302 if fault.startswith("to ") else status)
        self.send_header("Location", fault.removeprefix("to "))
        self.send_header("Retry-After", "999" if fault == "429" else "0")
        if fault not in ("endless", "trickle"):
            self.send_header("Content-Length", str(size))
        self.end_headers()
        while fault in ("endless", "trickle"):
            self.wfile.write(content if fault == "endless" else b"0")
            time.sleep(0.01)
        self.wfile.write(content[:size // 2 if fault == "drop" else size])
        self.close_connection |= fault == "drop"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """200 records of 100 patients in MIMIC-IV-ECG's tree, as {name: content}, and their labels."""
    rows = [(10_000_000 + i, f"files/p1000/p{10_000_000 + i}/s{s}/{s}", demo.CLASSES[i % 5], s)
            for i in range(100) for s in (40_000_000 + 2 * i, 40_000_001 + 2 * i)]
    folder, files = tmp_path_factory.mktemp("made"), {}
    with mock.patch.object(demo, "catalogue", lambda: [demo.DemoRecord(*rows[0])]):
        demo.write_demo(folder)
    header, signal_data = ((folder / f"{rows[0][1]}.{x}").read_bytes() for x in ("hea", "dat"))
    header = re.sub(rb" -?\d+ 0 (\S+)$", rb" 0 0 \1", header, flags=re.M)    # no checksums
    for _, path, _, study in rows:    # one record under many names, but no two files are the same
        files[f"{path}.hea"] = header.replace(b"40000000", b"%d" % study)
        files[f"{path}.dat"] = signal_data[:-4] + study.to_bytes(4, "little")
    files[SUMS] = "".join(
        f"{hashlib.sha256(files[name]).hexdigest()} {name}\n" for name in files).encode()
    return files, "".join(f"{subject},{path},{name}\n" for subject, path, name, _ in rows)


@pytest.fixture
def server(dataset):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = mock.Mock()    # clients hang up, as they are meant to
        server.files, server.faults, server.gate = dict(dataset[0]), {}, None
        server.requests, server.clients = Counter(), set()
        server.url = f"http://127.0.0.1:{server.server_port}/mimic"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def wanted(dataset, tmp_path, monkeypatch):
    """What a fetch should bring, as paths, in a folder that is ready for it."""
    def connect(self, address, really=socket.socket.connect):
        assert address[0] == "127.0.0.1", f"{address} was contacted"
        really(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    for name, value in {"PAUSE": 0.01, "MAX_PAUSE": 1, "GRACE": 0.1, "MAX_FILE": 1e6}.items():
        monkeypatch.setattr(fetch_records, name, value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    Path("labels.csv").write_text(dataset[1])
    labels = script.read_labels("labels.csv")
    return fetch_records.wanted_records(labels, SETTINGS)["waveform_path"].tolist()


@pytest.fixture
def pauses(monkeypatch):
    """The pauses (s) that servers were given before a retry, none of which is waited for."""
    asked = []
    monkeypatch.setattr(urllib3.util.retry, "time", SimpleNamespace(
        sleep=asked.append, time=time.time))
    return asked


def arguments(server, *more):
    return ["--labels", "labels.csv", "--data-dir", "data", "--train-samples", "25",
            "--val-samples", "10", "--test-samples", "10", "--url", server.url, *more]


def fetch(server, *more):
    try:
        return fetch_records.main(arguments(server, *more))
    except SystemExit as end:    # argparse's
        return end.code


def on_disk():
    """All that is below the data folder but the list of checksums."""
    return {str(path.relative_to("data")) for path in Path("data").rglob("*")
            if path.is_file() and not path.name.startswith(".checksums-")}


def assert_whole(server, paths):
    assert on_disk() == {f"{path}{ending}" for path in paths for ending in (".hea", ".dat")}
    assert all(Path("data", name).read_bytes() == server.files[name] for name in on_disk())


def test_the_tree_is_complete_and_verified_and_nothing_else_is_written(server, wanted, capsys):
    assert fetch(server) == 0
    assert_whole(server, wanted)
    assert len(wanted) == len(set(wanted)) == 5 * (6 + 3 + 3)
    assert sorted(os.listdir()) == ["data", "labels.csv"]
    assert set(server.requests.values()) == {1}
    assert len(server.clients) <= 5    # connections are kept
    assert re.search(r"\npython \S*too_feature.py --labels labels.csv --data-dir data "
                     r"--train-samples 25 --val-samples 10 --test-samples 10\n$",
                     capsys.readouterr().out)


def test_the_script_finds_all_that_it_draws_and_a_spare_for_a_damaged_record(server, wanted):
    assert fetch(server) == 0
    splits = script.split_patients(script.read_labels("labels.csv"))
    for (name, split), target in zip(splits.items(), (25, 10, 10), strict=True):
        drawn = script.balanced_sampling(split, target, SETTINGS.seed, name == "train")
        loaded = name, split, demo.CLASSES, SETTINGS
        assert script.load_split(*loaded).rows.equals(drawn)
        Path("data", drawn["waveform_path"][0] + ".dat").write_bytes(b"")
        instead = script.load_split(*loaded).rows["waveform_path"]
        (spare,) = set(instead) - set(drawn["waveform_path"])
        assert spare in wanted


@pytest.mark.parametrize("fault", [
    "503", "429", "drop", "wrong", "to ?new",
    *(pytest.param(code, marks=pytest.mark.slow) for code in ("500", "502", "504"))])
def test_a_passing_fault_is_overcome(fault, server, wanted, pauses):
    names = [f"{wanted[0]}.dat", f"{wanted[1]}.hea", SUMS][:2 if fault == "wrong" else 3]
    server.faults = {name: [fault] for name in names}
    assert fetch(server) == 0
    assert_whole(server, wanted)
    assert {server.requests[name] for name in names} == {2}
    assert pauses == [fetch_records.MAX_PAUSE] * (3 if fault == "429" else 0)    # not 999 s


@pytest.mark.parametrize("fault, reason", [
    ("404", "HTTP 404"), ("503", "too many 503"), ("drop", "IncompleteRead"),
    ("wrong", "wrong checksum"), ("endless", "too large"), ("trickle", "too slow"),
    ("to http://elsewhere.invalid/x", "another host"), ("to file:///etc/passwd", "another host"),
    ("to //elsewhere.invalid/x", "another host"), ("to http://[", "Invalid"), ("to #", "HTTP 302")])
def test_a_record_that_fails_is_reported_and_the_others_kept(
        fault, reason, server, wanted, capsys):
    server.faults = {f"{wanted[3]}.dat": [fault] * 20}
    assert fetch(server) == 1
    assert_whole(server, wanted[:3] + wanted[4:])
    (failure,) = re.findall("failed: (.*)", capsys.readouterr().err)
    assert failure.startswith(f"{wanted[3]}: ") and reason in failure
    server.faults = {}
    assert fetch(server) == 0
    assert_whole(server, wanted)
    assert server.requests[SUMS] == server.requests[f"{wanted[0]}.dat"] == 1


def test_a_record_without_a_checksum_is_not_fetched(server, wanted, capsys):
    lines = [x for x in server.files[SUMS].decode().splitlines() if wanted[0] not in x]
    server.files[SUMS] = "\r\n".join(lines).replace(" ", "  ./").encode()
    assert fetch(server) == 1
    assert_whole(server, wanted[1:])
    assert f"failed: {wanted[0]}: no checksum" in capsys.readouterr().err


@pytest.mark.slow
def test_interrupted_five_times_and_started_again_it_ends_complete(server, wanted):
    command = [sys.executable, fetch_records.__file__, *arguments(server)]
    had = {}
    stops = signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGINT
    for answers, stop in zip((0, 8, 25, 25, 25), stops, strict=True):    # then the program waits
        server.gate = gate = Gate(answers)
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True)
        assert gate.holding.wait(60)
        run.send_signal(stop)
        said = ""
        for line in run.stderr:
            said += line
            if line.startswith("fetch_records.py: interrupted"):
                gate.closed.set()
        assert said.endswith(f"To continue:\n{' '.join(['python', *command[1:]])}\n")
        assert run.wait(60) == 130
        assert not [name for name in on_disk() if name.endswith(".part")]
        had = {name: server.requests[name] for name in on_disk()} | had

    assert 40 < len(had) < 100
    server.gate = None
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert_whole(server, wanted)
    assert had.items() <= server.requests.items()    # none of them was asked for again


def test_right_files_are_kept_wrong_ones_fetched_again_and_leftovers_removed(server, wanted):
    assert fetch(server) == 0
    damaged, gone = (Path("data", f"{path}.dat") for path in wanted[:2])
    damaged.write_bytes(b"damaged")
    gone.unlink()
    dead = int(subprocess.run(["sh", "-c", "echo $$"], capture_output=True).stdout)
    left = [gone.with_name(f".{gone.name}.{pid}.part") for pid in (dead, os.getpid(), os.getppid())]
    for file in left:
        file.write_text("half")
    assert fetch(server) == 0
    left[2].unlink()    # its process still runs
    assert_whole(server, wanted)
    assert server.requests.total() == 1 + 2 * 60 + 2


def test_dry_run_contacts_no_server_and_writes_nothing(server, wanted, capsys):
    assert fetch(server, "--dry-run") == 0
    assert re.search(r"validation +Atrial Fibrillation +3 +0.4\n(.*\n)+60 records, about 7 MB\n$",
                     capsys.readouterr().out)
    assert fetch(server, "--dry-run", "--all") == 0
    assert capsys.readouterr().out.endswith("200 records, about 24 MB\n")
    assert not server.requests
    assert os.listdir() == ["labels.csv"]


@pytest.mark.parametrize("fault", ["drop", "404", "503", "to http://elsewhere.invalid/", "wrong"])
def test_without_checksums_nothing_is_fetched(fault, server, wanted, capsys):
    server.faults = {SUMS: [fault] * 20}
    assert fetch(server) == 2
    assert f"error: {server.url}/{SUMS}: " in capsys.readouterr().err.splitlines()[-1]
    assert list(server.requests) == [SUMS]
    assert not on_disk()


def test_a_server_that_fails_altogether_is_left_alone(server, wanted, capsys):
    server.faults = {f"{path}.dat": ["503"] * 20 for path in wanted}
    assert fetch(server) == 1
    assert 20 < capsys.readouterr().err.count(": not tried") <= 40


def test_a_folder_that_links_out_of_the_data_folder_is_refused(server, wanted, capsys):
    Path("data").mkdir()
    Path("data/files").symlink_to("..")
    assert fetch(server) == 1
    assert capsys.readouterr().err.count("link out of the data folder") == len(wanted)
    assert sorted(os.listdir()) == ["data", "labels.csv"]


@pytest.mark.parametrize("more, words", [
    (["--url", "file:///etc"], "file:///etc"), (["--url", "x"], "x/SHA256SUMS.txt"),
    (["--connections", "9"], "--connections"), (["--spares", "nan"], "--spares"),
    (["--seed", "-1"], "--seed"), (["--labels", "none.csv"], "none.csv"), (["--sed", "1"], "--sed"),
    (["--labels", str(Path(script.__file__).with_name("ecg_5_class_data.csv"))], "the demo")])
def test_a_mistake_is_told_in_one_line(more, words, server, wanted, capsys):
    assert fetch(server, *more) == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not server.requests

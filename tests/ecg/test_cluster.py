"""Preparing records on a real Dask cluster: the same rows as here."""

import contextlib
import os
import signal
import socket
import subprocess
import sys

import pytest

pytest.importorskip("distributed")    # an optional package

from ecg import cache, cluster, files
from ecg.errors import UserError
from tests.support import stores
from tests.support.stores import PATHS, one_by_one, prepare_all, wait_for


@pytest.fixture
def data(tmp_path):
    stores.write_records(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _small_batches_and_no_hang(monkeypatch):
    monkeypatch.setattr(cache, "BATCH", stores.BATCH)
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(180)    # s
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A scheduler with two workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder, processes = tmp_path_factory.mktemp("dask"), []
    environment = {**os.environ, "PYTHONPATH": str(files.ROOT)}

    def start(kind, *arguments):
        processes.append(subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments, "--no-dashboard",
             "--host", "127.0.0.1"], cwd=folder, env=environment, stderr=subprocess.DEVNULL))

    try:
        start("scheduler", "--port", str(port))
        wait_for(lambda: listens(port))
        for _ in range(2):
            start("worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-nanny")
        import distributed
        with distributed.Client(f"tcp://127.0.0.1:{port}", timeout=30) as client:
            client.wait_for_workers(2, timeout=60)
        yield f"tcp://127.0.0.1:{port}"
    finally:
        for process in processes:
            process.kill()
            process.wait(timeout=30)


def test_two_workers_prepare_the_same_rows(address, data, tmp_path):
    """The first batch waits for another worker: so both take part."""
    expected, met = one_by_one(data), tmp_path / "met"
    met.mkdir()
    for path in PATHS[0], PATHS[10]:
        (data / f"{path}.act").write_text(f"meet\n{met}\n2")
    stores.prepared_here.clear()
    assert prepare_all(data, tmp_path / "cache", scheduler=address, jobs=0) == expected
    assert len(os.listdir(tmp_path / "cache")) == 4
    assert prepare_all(data, None, scheduler=address, jobs=0) == expected    # not by files
    assert stores.prepared_here == []    # by this process
    assert len(os.listdir(met)) == 2


@pytest.mark.parametrize("wrong", ["tcp://127.0.0.1:1", "nonsense://x"])
def test_no_scheduler_at_the_address_is_an_error_that_names_it(wrong, data, monkeypatch):
    monkeypatch.setattr(cluster, "TIMEOUT_S", 1)
    with pytest.raises(UserError, match=f"--scheduler {wrong}: "):
        prepare_all(data, scheduler=wrong, jobs=0)

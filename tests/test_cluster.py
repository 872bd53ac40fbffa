"""Preparing records on a real Dask cluster: the same rows as here, even if a worker dies."""

import contextlib
import os
import signal as signals
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import too_feature
from too_feature import Settings, UserError

pytest.importorskip("distributed")    # not among the script's own packages
from test_store import (  # fixtures too
    BATCH,
    PATHS,
    data,  # noqa: F401
    expected,  # noqa: F401
    files_of,
    told,
    wait_for,
)

ROOT = Path(too_feature.__file__).parent
store, cluster = too_feature.tool("store"), too_feature.tool("cluster")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Cluster:
    """A scheduler, and workers that do not find the project's modules by themselves."""

    def __init__(self, folder):
        self.folder, self.port, self.workers = folder, free_port(), []
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))

    def start(self, kind, *arguments):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with open(self.folder / f"{kind} {time.monotonic_ns()}.log", "w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments,
                 "--no-dashboard"], cwd=self.folder, env=environment, stdout=log, stderr=log)

    def add_worker(self):
        self.workers.append(self.start(
            "worker", self.address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1",
            "--local-directory", str(self.folder)))

    def client(self):
        import distributed
        return distributed.Client(self.address, timeout=30)

    def close(self):
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """A scheduler and two workers, ready."""
    them = Cluster(tmp_path_factory.mktemp("dask"))
    try:
        wait_for(lambda: listens(them.port))
        them.add_worker()
        them.add_worker()
        with them.client() as client:
            client.wait_for_workers(2, timeout=60)
        yield them
    finally:
        them.close()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _small_batches_and_no_hang(monkeypatch):
    monkeypatch.setitem(store.prepare.__globals__, "BATCH", BATCH)
    before = signals.signal(signals.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signals.alarm(180)    # s
    yield
    signals.alarm(0)
    signals.signal(signals.SIGALRM, before)


def modules_of_workers(client):
    def modules():
        import sys
        return "too_feature" in sys.modules, "tensorflow" in sys.modules

    return list(client.run(modules).values())


def test_two_workers_prepare_the_same_rows_without_tensorflow(dask, data, cache, expected,  # noqa: F811
                                                              monkeypatch):
    def gated(path, *more, cache=str(cache), **options):
        """Wait with the first batch for another to be done: so both workers take part."""
        import os
        import time

        import too_feature
        if path.endswith("/r0"):
            end = time.monotonic() + 60    # s
            while not os.path.exists(cache) and time.monotonic() < end:
                time.sleep(0.01)
        return too_feature.prepare_or_say_why(path, *more, **options)

    monkeypatch.setattr(too_feature, "prepare_or_say_why", gated)
    settings = Settings(scheduler=dask.address, cache_dir=str(cache))
    monkeypatch.setattr(too_feature, "read_record", None)    # this process reads none
    rows = too_feature.prepare(PATHS, settings, str(data), "reading")
    assert told(rows) == expected
    assert len(files_of(cache)) == 4
    with dask.client() as client:
        assert modules_of_workers(client) == [(True, False)] * 2


def test_without_a_cache_the_rows_come_back_from_the_workers(dask, data, cache, expected):  # noqa: F811
    settings = Settings(scheduler=dask.address, cache=False, cache_dir=str(cache))
    assert told(too_feature.prepare(PATHS, settings, str(data), "reading")) == expected
    assert files_of(cache) == {}


def test_a_worker_that_dies_half_way_and_one_that_joins_change_nothing(
        dask, data, cache, expected, tmp_path, monkeypatch):  # noqa: F811
    """Records of the second half wait until a worker is dead."""
    dead = tmp_path / "one is dead"

    def gated(path, *more, dead=str(dead), later=tuple(PATHS[20:]), **options):
        import os
        import time

        import too_feature
        if path.endswith(later):
            end = time.monotonic() + 120    # s
            while not os.path.exists(dead) and time.monotonic() < end:
                time.sleep(0.01)
        return too_feature.prepare_or_say_why(path, *more, **options)

    stored = []

    def kill():
        wait_for(lambda: len([x for x in files_of(cache) if x[0] != "."]) == 2)
        time.sleep(0.5)    # s: both workers are at a later batch by then
        stored.append(len(files_of(cache)))
        dask.workers[0].kill()
        dask.workers[0].wait(timeout=30)
        dask.add_worker()
        dead.touch()

    monkeypatch.setattr(too_feature, "prepare_or_say_why", gated)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    settings = Settings(scheduler=dask.address, cache_dir=str(cache))
    rows = too_feature.prepare(PATHS, settings, str(data), "reading")
    killer.join(timeout=60)
    assert stored == [2]    # of 4 batches, so it was half way
    assert dask.workers[0].returncode == -9
    assert told(rows) == expected
    assert len(files_of(cache)) == 4
    with dask.client() as client:    # and the new one knows where the modules are
        client.wait_for_workers(2, timeout=60)

        def find():
            import too_feature
            return too_feature.__file__

        assert set(client.run(find).values()) == {str(ROOT / "too_feature.py")}
        assert len(client.run(find)) == 2
        assert all(not tensorflow for _, tensorflow in modules_of_workers(client))


def prepare_some(address, cache):
    return too_feature.prepare(PATHS[:3], Settings(scheduler=address, cache_dir=str(cache)),
                               "nowhere", "reading")


def one_line(error):
    (line,) = str(error.value).splitlines()
    return line


@pytest.fixture
def _impatient(monkeypatch):
    """Wait one second instead of thirty."""
    monkeypatch.setitem(store.prepare.__globals__, "workers", lambda address: cluster.workers(
        address, str(ROOT), timeout=1))


@pytest.mark.usefixtures("_impatient")
def test_no_scheduler_at_the_address_is_one_line_that_names_it(cache):
    address = f"tcp://127.0.0.1:{free_port()}"
    before = time.monotonic()
    with pytest.raises(UserError) as error:
        prepare_some(address, cache)
    assert time.monotonic() - before < 20    # s: it does not wait for ever
    assert address in one_line(error)
    assert files_of(cache) == {}


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "tcp://127.0.0.1:notaport",
                                     "http://127.0.0.1:1", ":"])
@pytest.mark.usefixtures("_impatient")
def test_an_address_that_is_none_is_one_line(address, cache):
    with pytest.raises(UserError) as error:
        prepare_some(address, cache)
    assert one_line(error)


@pytest.mark.usefixtures("_impatient")
def test_a_scheduler_without_workers_is_one_line_that_says_so(cache, tmp_path):
    them = Cluster(tmp_path)
    try:
        wait_for(lambda: listens(them.port))
        with pytest.raises(UserError) as error:
            prepare_some(them.address, cache)
        assert f"{them.address} has no worker" in one_line(error)
    finally:
        them.close()


def test_a_full_cache_needs_no_scheduler(data, cache, expected):  # noqa: F811
    here = Settings(cache_dir=str(cache), jobs=1)
    assert told(too_feature.prepare(PATHS, here, str(data), "reading")) == expected
    there = Settings(cache_dir=str(cache), scheduler="tcp://127.0.0.1:1")
    assert told(too_feature.prepare(PATHS, there, str(data), "reading")) == expected

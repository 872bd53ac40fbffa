"""Preparing records on a real Dask cluster: the same rows as here, even if a worker dies."""

import contextlib
import functools
import itertools
import os
import signal as signals
import socket
import subprocess
import sys
import threading

import pytest

pytest.importorskip("distributed")    # an optional package

from ecg import cache, cluster, files
from ecg.errors import UserError
from tests.support import stores
from tests.support.stores import PATHS, batches_of, files_of, prepare_all, wait_for


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
        self.numbers = itertools.count()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))

    def start(self, kind, *arguments):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with open(self.folder / f"{kind} {next(self.numbers)}.log", "w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments,
                 "--no-dashboard"], cwd=self.folder, env=environment, stdout=log, stderr=log)

    def add_worker(self):
        self.workers.append(self.start(
            "worker", self.address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1",
            "--local-directory", str(self.folder)))

    def worker_of(self, pid):
        return next(worker for worker in self.workers if worker.pid == pid)

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
def data(tmp_path):
    """Folder of all records, three of which cannot be used."""
    stores.write_all(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def expected(data):
    return stores.one_by_one(data)


@pytest.fixture
def store(tmp_path):
    """Folder of a cache, which is not there yet."""
    return tmp_path / "cache"


@pytest.fixture
def met(tmp_path):
    """Folder in which workers leave their ids."""
    (tmp_path / "met").mkdir()
    return tmp_path / "met"


@pytest.fixture(autouse=True)
def _small_batches_and_no_hang(monkeypatch):
    monkeypatch.setattr(cache, "BATCH", stores.BATCH)
    before = signals.signal(signals.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signals.alarm(180)    # s
    yield
    signals.alarm(0)
    signals.signal(signals.SIGALRM, before)


@pytest.fixture
def _impatient(monkeypatch):
    """Wait one second instead of thirty."""
    monkeypatch.setattr(cluster, "workers", functools.partial(cluster.workers, timeout=1))


def test_two_workers_prepare_the_same_rows_without_tensorflow(dask, data, store, met, expected):
    """The first batch waits for another worker: so both take part."""
    for path in (PATHS[0], PATHS[10]):
        stores.tell(data, path, "meet", met, 2)
    stores.prepared_here.clear()
    assert prepare_all(data, store, scheduler=dask.address, jobs=0) == expected
    assert stores.prepared_here == []    # by this process
    assert len(files_of(store)) == 4
    notes = {int(file.name): file.read_text() for file in met.iterdir()}
    assert notes == {worker.pid: "" for worker in dask.workers}    # no TensorFlow


def test_without_a_cache_the_rows_come_back_from_the_workers(dask, data, store, expected):
    stores.prepared_here.clear()
    assert prepare_all(data, None, scheduler=dask.address, jobs=0) == expected
    assert stores.prepared_here == []
    assert files_of(store) == {}


def test_a_worker_that_dies_half_way_and_one_that_joins_change_nothing(
        dask, data, store, met, expected):
    """When half of the batches are stored and both workers are at another, one of them dies."""
    dead = data / "one is dead"
    for path in (PATHS[20], PATHS[30]):
        stores.tell(data, path, "meet", met, 3, dead)    # 3: nobody else comes
    killed = []

    def kill():
        wait_for(lambda: len(batches_of(store)) == 2 and len(os.listdir(met)) == 2)
        worker = dask.worker_of(int(os.listdir(met)[0]))
        worker.kill()
        worker.wait(timeout=30)
        killed.append(worker.returncode)
        dask.add_worker()
        dead.touch()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    rows = prepare_all(data, store, scheduler=dask.address, jobs=0)
    killer.join(timeout=60)
    assert killed == [-9]
    assert rows == expected
    assert len(files_of(store)) == 4

    def find():
        from tests.support import stores
        return stores.__file__

    with dask.client() as client:    # and the new one knows where the modules are
        client.wait_for_workers(2, timeout=60)
        found = list(client.run(find).values())
    assert found == [str(files.ROOT / "tests/support/stores.py")] * 2


def error_of(data, address, store):
    """Return the error of preparing some records; nothing is stored."""
    with pytest.raises(UserError) as error:
        prepare_all(data, store, PATHS[:3], scheduler=address, jobs=0)
    assert files_of(store) == {}
    return str(error.value)


@pytest.mark.usefixtures("_impatient")
def test_no_scheduler_at_the_address_is_an_error_that_names_it(data, store):
    address = f"tcp://127.0.0.1:{free_port()}"
    assert address in error_of(data, address, store)


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "tcp://127.0.0.1:notaport",
                                     "http://127.0.0.1:1", ":"])
def test_what_is_not_an_address_is_refused_with_an_example(address, data, store):
    assert error_of(data, address, store) == (
        f"{address} is not the address of a scheduler, such as tcp://host:8786")


@pytest.mark.usefixtures("_impatient")
def test_a_scheduler_without_workers_is_an_error_that_says_so(data, store, tmp_path):
    them = Cluster(tmp_path)
    try:
        wait_for(lambda: listens(them.port))
        assert f"{them.address} has no worker" in error_of(data, them.address, store)
    finally:
        them.close()


def test_a_full_cache_needs_no_scheduler(data, store, expected):
    assert prepare_all(data, store) == expected
    assert prepare_all(data, store, scheduler="tcp://127.0.0.1:1", jobs=0) == expected

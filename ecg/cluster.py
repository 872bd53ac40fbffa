"""Prepare records on an existing Dask cluster, for `too_feature.py --scheduler tcp://host:port`.

    dask scheduler                                # on one machine, says tcp://host:8786
    dask worker tcp://host:8786 --nworkers auto   # on each of the others

The project's folder, the data folder and the cache lie on storage that all machines share, under
the same paths. Every machine has the same Python environment, with `pip install distributed`. If a
worker dies, another one repeats the batch that it was preparing. joblib ignores a cluster of one
single-threaded worker and prepares the records on the script's own machine.
"""

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import joblib

from ecg.errors import UserError

ADDRESS = r"(tcp|tls)://[\w.:\[\]-]+:\d{1,5}"


def connect(address: str, folder: str, timeout: float) -> Any:
    """Return a Dask client whose scheduler and workers import modules from `folder`."""
    import distributed

    def find_modules() -> None:
        if folder not in sys.path:
            sys.path.insert(0, folder)

    class FindModules(distributed.WorkerPlugin):
        def setup(self, worker: distributed.Worker) -> None:
            find_modules()

    try:
        client = distributed.Client(address, timeout=timeout)
        client.run_on_scheduler(find_modules)    # it unpickles the tasks that it hands on
        client.register_plugin(FindModules(), name=folder)    # for workers that join later, too
    except OSError as error:
        raise UserError(f"{address}: {error}") from error
    return client


@contextlib.contextmanager
def workers(address: str, folder: str, timeout: float = 30) -> Iterator[None]:
    """Let joblib run on the workers of a Dask scheduler.

    Parameters
    ----------
    address : tcp://host:port of the scheduler
    folder : from which all workers, and those that join later, import modules
    timeout : s to wait for the scheduler, and for a first worker

    Raises
    ------
    UserError
        If Dask is not installed, if the scheduler or a worker does not answer, if the scheduler
        goes away, or if a batch kills every worker that tries it.
    """
    try:    # an optional package
        import distributed
    except ImportError as error:
        raise UserError("Dask is not installed: pip install distributed") from error

    if not re.fullmatch(ADDRESS, address):
        raise UserError(f"{address} is not the address of a scheduler, such as tcp://host:8786")

    with connect(address, folder, timeout) as client:
        try:
            client.wait_for_workers(1, timeout=timeout)
        except (TimeoutError, distributed.TimeoutError) as error:    # two classes in Python 3.10
            raise UserError(f"{address} has no worker") from error

        try:
            with joblib.parallel_config("dask"):
                yield
        except distributed.scheduler.KilledWorker as error:
            raise UserError("a batch killed each worker that tried it (out of memory?)") from error
        except distributed.client.FutureCancelledError as error:
            raise UserError(f"{address} went away; finished batches are kept") from error

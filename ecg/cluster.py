"""Prepare records on an existing Dask cluster, for `too_feature.py --scheduler tcp://host:port`.

On one machine, and then on each of the others, in the project's folder:

    PYTHONPATH=. dask scheduler                                # says tcp://host:8786
    PYTHONPATH=. dask worker tcp://host:8786 --nworkers auto

The project's folder, the data folder and the cache lie on storage that all machines share, under
the same paths. Every machine has the same Python environment, with `pip install distributed`. If a
worker dies, another one repeats the batch that it was preparing. joblib ignores a cluster of one
single-threaded worker and prepares the records on the script's own machine.
"""

import contextlib
from collections.abc import Iterator

import joblib

from ecg.errors import UserError, user_errors

TIMEOUT_S = 30    # for the scheduler, and for a first worker


@contextlib.contextmanager
def workers(address: str) -> Iterator[None]:
    """Let joblib run on the workers of the Dask scheduler at an address, tcp://host:port.

    Raises
    ------
    UserError
        Dask is not installed, the scheduler or a worker does not answer or lacks PYTHONPATH, the
        scheduler goes away, or a batch kills every worker that tries it.
    """
    try:    # an optional package
        import distributed
    except ImportError as error:
        raise UserError("Dask is not installed: pip install distributed") from error

    failures = (OSError, ValueError, ImportError, TimeoutError, distributed.TimeoutError,
                distributed.scheduler.KilledWorker, distributed.client.FutureCancelledError)
    with (user_errors(f"--scheduler {address}", failures),
          distributed.Client(address, timeout=TIMEOUT_S) as client):
        client.wait_for_workers(1, timeout=TIMEOUT_S)
        with joblib.parallel_config("dask"):
            yield

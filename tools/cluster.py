"""Prepare records on an existing Dask cluster, for `too_feature.py --scheduler tcp://host:port`.

    dask scheduler                                # on one machine, says tcp://host:8786
    dask worker tcp://host:8786 --nworkers auto   # on each of the others

The project's folder, the data folder and the cache lie on storage that all machines share, under
the same paths; every machine has the same Python environment, with `pip install distributed`. A
worker that dies costs the batch it was at, which another one repeats.
"""

import contextlib
import sys

import joblib


@contextlib.contextmanager
def workers(address, folder, timeout=30):
    """Let joblib run on the workers of the Dask scheduler at `address`.

    All of them, and workers that join later, import modules from `folder`. `ImportError` if Dask
    is not installed; `OSError` if no scheduler or no worker answers in `timeout` seconds, or if a
    batch kills every worker that tries it.
    """
    try:    # not among the script's own packages: needed here only
        import distributed
    except ImportError as error:
        raise ImportError("Dask is not installed: pip install distributed") from error

    def find_modules():
        if folder not in sys.path:
            sys.path.insert(0, folder)

    class FindModules(distributed.WorkerPlugin):
        def setup(self, worker):
            find_modules()

    try:
        client = distributed.Client(address, timeout=timeout)
    except ValueError as error:
        raise OSError(f"no address of a scheduler, tcp://host:port ({error})") from error
    with client:
        client.run_on_scheduler(find_modules)    # it looks into the tasks that it hands on
        client.register_plugin(FindModules(), name=folder)
        try:
            client.wait_for_workers(1, timeout=timeout)
            with joblib.parallel_config("dask"):
                yield
        except TimeoutError as error:
            raise OSError(f"{address} has no worker") from error
        except distributed.scheduler.KilledWorker as error:
            raise OSError("a batch killed every worker that tried it (memory?)") from error

"""Prepare records on an existing Dask cluster, for `too_feature.py --scheduler tcp://host:port`.

    dask scheduler                                # on one machine, says tcp://host:8786
    dask worker tcp://host:8786 --nworkers auto   # on each of the others

The project's folder, the data folder and the cache lie on storage that all machines share, under
the same paths; every machine has the same Python environment, with `pip install distributed`. A
worker that dies costs the batch it was at, which another one repeats. A single worker of one thread
is not used: joblib then prepares on the machine of the script.
"""

import contextlib
import re
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

    if not re.fullmatch(r"(tcp|tls)://[\w.:\[\]-]+:\d{1,5}", address):
        raise OSError(f"{address} is no address of a scheduler, as in tcp://host:8786")
    with distributed.Client(address, timeout=timeout) as client:
        client.run_on_scheduler(find_modules)    # it looks into the tasks that it hands on
        client.register_plugin(FindModules(), name=folder)
        try:
            client.wait_for_workers(1, timeout=timeout)
        except (TimeoutError, distributed.TimeoutError) as error:    # two classes in Python 3.10
            raise OSError(f"{address} has no worker") from error
        try:
            with joblib.parallel_config("dask"):
                yield
        except distributed.scheduler.KilledWorker as error:
            raise OSError("a batch killed every worker that tried it (memory?)") from error
        except distributed.client.FutureCancelledError as error:
            raise OSError(f"{address} went away; what is prepared is kept") from error

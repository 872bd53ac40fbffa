"""Shared by all tests: the demo and a run of it, made once, and Hypothesis settings."""

import gc
import inspect
import json
import os
import shutil
import signal
from unittest import mock

import hypothesis
import numpy as np
import pytest

from ecg import demo
from tests.support.runs import WITH_ALL, copy_project, finished_run, once, run_script

hypothesis.settings.register_profile(
    "repository", deadline=None, max_examples=40, derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large])
hypothesis.settings.load_profile("repository")


def pytest_sessionstart():
    """Let programs be stopped by Ctrl-C: what shells start in the background ignores it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish():
    """Collect garbage while xdist still waits: what takes 5 s later on, it ends with a SIGINT.

    Pytest collects it five times when all is over, which with all that TensorFlow and Keras hold
    takes as long on a busy machine; what is frozen is not looked at again.
    """
    gc.collect()
    gc.freeze()


def write_demo(folder):
    """Write all waveforms of the demo, and the true R peaks of each into truth.json."""
    truth = {}
    simulate = demo.simulate

    def listening(*args, **options):
        seed = inspect.signature(simulate).bind(*args, **options).arguments["seed"]
        signal, r_peaks = simulate(*args, **options)
        truth[seed] = r_peaks.tolist()
        return signal, r_peaks

    with mock.patch.object(demo, "simulate", listening):
        demo.write_demo(folder / "data")
    (folder / "truth.json").write_text(json.dumps(truth))


@pytest.fixture(scope="session")
def _demo(tmp_path_factory):
    return once(tmp_path_factory, "demo", write_demo)


@pytest.fixture(scope="session")
def demo_dir(_demo):
    """Folder that holds all waveforms of the demo."""
    return _demo / "data"


@pytest.fixture(scope="session")
def demo_truth(_demo):
    """True R peaks of the demo, in samples, by the record's seed."""
    truth = json.loads((_demo / "truth.json").read_text())
    return {int(seed): np.array(r_peaks) for seed, r_peaks in truth.items()}


@pytest.fixture(scope="session")
def demo_run(demo_dir, tmp_path_factory):
    """A run, in a fresh copy of the project, where some waveforms of the demo are missing."""
    def make(folder):
        program = copy_project(folder)
        data = folder / "mimic-iv-ecg"
        shutil.copytree(demo_dir, data, copy_function=os.link)
        for record in demo.catalogue()[::100]:
            (data / f"{record.waveform_path}.hea").unlink()
            (data / f"{record.waveform_path}.dat").unlink()
        result = run_script(folder, "--output", "my model.keras", *WITH_ALL, program=program.name)
        assert result.returncode == 0, result.stderr
        (folder / "printed.txt").write_text(result.stdout)

    folder = once(tmp_path_factory, "demo-run", make)
    return finished_run(folder / "my model.keras", folder / "mimic-iv-ecg")

"""Shared by all tests: the demo, written once, and Hypothesis settings."""

import inspect
import json
from unittest import mock

import hypothesis
import numpy as np
import pytest

from ecg import demo
from tests.support.runs import once

hypothesis.settings.register_profile(
    "repository", deadline=None, max_examples=60, derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large])
hypothesis.settings.load_profile("repository")


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

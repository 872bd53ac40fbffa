"""Shared by all tests: the repository on the path, the demo written once, Hypothesis settings."""

import inspect
import sys
from pathlib import Path
from unittest import mock

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools import make_demo  # noqa: E402

hypothesis.settings.register_profile(
    "repository", deadline=None, max_examples=60, derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large])
hypothesis.settings.load_profile("repository")


@pytest.fixture(scope="session")
def _demo(tmp_path_factory):
    folder, truth, simulate = tmp_path_factory.mktemp("data"), {}, make_demo.simulate

    def listening(*args, **options):
        seed = inspect.signature(simulate).bind(*args, **options).arguments["seed"]
        signal, truth[seed] = simulate(*args, **options)
        return signal, truth[seed]

    with mock.patch.object(make_demo, "simulate", listening):
        make_demo.write_demo(folder)
    return folder, truth


@pytest.fixture(scope="session")
def demo_dir(_demo):
    """Folder that holds all waveforms of the demo."""
    return _demo[0]


@pytest.fixture(scope="session")
def demo_truth(_demo):
    """Where the R peaks of the demo truly are, in samples, by the record's seed."""
    return _demo[1]

"""The server that starts the runs which the tests of this folder kill, stop and starve."""

import pytest

from tests.support import faults
from tests.support.runs import once


@pytest.fixture(scope="session")
def run(demo_dir, tmp_path_factory):
    """Start a run; all of them share a cache, whichever process tests them."""
    with faults.server(demo_dir, once(tmp_path_factory, "cache", lambda _: None)) as run:
        yield run

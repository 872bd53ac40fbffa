"""The server that starts the runs which the tests of this folder kill, stop and starve."""

import pytest

from tests.support import faults
from tests.support.runs import once


@pytest.fixture(scope="session")
def server(demo_dir, tmp_path_factory):
    """Start a run; all of them share a cache, whichever process tests them."""
    with faults.server(demo_dir, once(tmp_path_factory, "cache", lambda _: None)) as start:
        yield start


@pytest.fixture(scope="session")
def whole(server, tmp_path_factory):
    """Return the folder that an uninterrupted run left, by the name of one of `faults.WAYS`."""
    def get(way):
        def make(folder):
            code = server(folder, *faults.WAYS[way], before=faults.COURSE)
            assert code == 0, (folder / "err.txt").read_text()
        return once(tmp_path_factory, f"whole run, {way}", make)
    return get

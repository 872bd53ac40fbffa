"""The search for garbage is paused for a while, and never left off."""

import gc

import pytest

from ecg.garbage import no_collection


@pytest.mark.parametrize("was_on", [True, False])
def test_the_search_is_paused_and_then_as_it_was_also_after_an_error(was_on):
    before = gc.isenabled()
    try:
        (gc.enable if was_on else gc.disable)()
        with pytest.raises(OSError, match="full"), no_collection():
            assert not gc.isenabled()
            raise OSError("full")
        assert gc.isenabled() == was_on
    finally:
        (gc.enable if before else gc.disable)()

"""Python's search for unreachable objects, paused where it takes long and finds nothing."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Pause the search, for as long as what is made is needed, or soon freed without it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def keep_all() -> None:
    """Leave out of every later search what exists now, such as an imported TensorFlow.

    A search takes 0.2 s otherwise, and the one as a program ends more than a second.
    """
    gc.freeze()

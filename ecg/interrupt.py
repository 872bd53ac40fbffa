"""End a program at Ctrl-C or SIGTERM, whatever it is doing, with one line that says how to go on.

For programs that write all files whole, and so can end at any moment. Knows nothing of the script.
"""

import builtins
import contextlib
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType


def command(argv: Sequence[str]) -> str:
    """Return the command that goes on where the program with these arguments was stopped."""
    rest = [x for x in argv if x not in ("--resume", "--no-resume")]
    return shlex.join(["python", *rest, "--resume"])


def kill_children() -> None:
    """Kill the processes that this one has started with multiprocessing."""
    kill = getattr(signal, "SIGKILL", signal.SIGTERM)    # Windows has only the second
    with contextlib.suppress(Exception):    # nothing may keep this process from ending
        for child in multiprocessing.active_children():
            if child.pid is None:
                continue
            with contextlib.suppress(OSError):    # it has just ended
                os.kill(child.pid, kill)


def watch(name: str, argv: Sequence[str] | None = None) -> None:
    """From now on, end this process at once at SIGINT (exit code 130) and SIGTERM (143).

    A thread waits for the signals. Python's own handlers would have to wait while TensorFlow is
    imported or XLA compiles, and all code in between would see their exception. Workers inherit
    the blocked signals; otherwise Ctrl-C in a terminal would make each of them print a traceback.
    In a notebook (`%run too_feature.py`) nothing changes: an interrupt must not end the kernel.

    Parameters
    ----------
    name : of the program, which starts the line that it ends with
    argv : its arguments, for the command that goes on; by default `sys.argv`
    """
    if hasattr(builtins, "__IPYTHON__"):
        return
    signals = [x for x in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(x) != signal.SIG_IGN]
    go_on = command(sys.argv if argv is None else argv)
    line = (f"\r{name}: stopped; finished epochs and prepared records are kept, and this goes on "
            f"from there: {go_on}\n").encode(errors="replace")

    def end(number: int, _frame: FrameType | None = None) -> None:
        try:
            kill_children()
            os.write(2, line)    # print may be in use where a handler runs
        finally:
            os._exit(128 + number)

    for number in signals:    # for Windows, and in case something unblocks the signals
        signal.signal(number, end)
    if signals and hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        threading.Thread(target=lambda: end(signal.sigwait(signals)), daemon=True).start()


def prepare_for_a_sudden_end() -> None:
    """Print each line as soon as it is complete, and have child processes not warn of the end.

    For a program that `watch` may end: what it still buffers would be lost, and the tracker of
    joblib's resources would report all that is left to clean up.
    """
    warnings = [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker"]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, warnings))

    if hasattr(sys.stdout, "reconfigure"):    # Jupyter and other editors replace it
        sys.stdout.reconfigure(line_buffering=True)


def end_with_parent() -> None:
    """Have this worker process end when the one that started it is gone, which may be killed."""
    parent = os.getppid()

    def end() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()

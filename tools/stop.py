"""Stop a program at Ctrl-C or SIGTERM, whatever it is doing, with one line that says how to go on.

For programs that write all files whole, and so can end at any moment. Knows nothing of the script.
"""

import contextlib
import multiprocessing
import os
import shlex
import signal
import sys
import threading


def command(argv):
    """Return the command that goes on where the program with these arguments was stopped."""
    rest = [x for x in argv if x not in ("--resume", "--no-resume")]
    return shlex.join(["python", *rest, "--resume"])


def watch(name):
    """From now on end this process at once at SIGINT (exit code 130) and SIGTERM (143).

    A thread waits for them: Python's own handlers would have to wait while TensorFlow is imported
    or XLA compiles, and be seen by all code between. Blocked, they also spare worker processes,
    which inherit that, and which a terminal's Ctrl-C would have print tracebacks.
    """
    signals = [x for x in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(x) != signal.SIG_IGN]
    line = (f"\r{name}: stopped; finished epochs and prepared records are kept, and this goes on "
            f"from there: {command(sys.argv)}\n")

    def end(number, _frame=None):
        try:
            with contextlib.suppress(Exception):    # one that has just ended
                for child in multiprocessing.active_children():
                    with contextlib.suppress(OSError):
                        os.kill(child.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            os.write(2, line.encode(errors="replace"))    # print may be in use where a handler runs
        finally:
            os._exit(128 + number)

    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [    # of what joblib then cleans up
        os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker"]))
    sys.stdout.reconfigure(line_buffering=True)    # nothing is lost if it ends so
    for number in signals:    # for Windows, and should something unblock them
        signal.signal(number, end)
    if signals and hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        threading.Thread(target=lambda: end(signal.sigwait(signals)), daemon=True).start()

"""What can go wrong and is not a bug: errors that the user can fix, and records to leave out."""

import contextlib
import os
import re
import shlex
import signal
import sys
import traceback as tracebacks
from collections.abc import Callable, Iterator
from typing import Any

MAX_ERROR_LETTERS = 2000


class UserError(Exception):
    """An error that the user can fix: a program prints it as one line and exits with code 2.

    What it says may come from a file: `printable` makes it safe.
    """

    def __init__(self, message: object) -> None:
        super().__init__(printable(" ".join(str(message).split()), MAX_ERROR_LETTERS))


class RecordError(ValueError):
    """Raised for a record that cannot be used.

    Its message is 'reason: detail'; the report counts records by reason.
    """


class Terminated(KeyboardInterrupt):
    """Raised at SIGTERM, as Python raises KeyboardInterrupt at Ctrl-C."""


def raise_at_sigterm() -> None:
    """Have this process raise `Terminated` at SIGTERM from now on."""
    def stop(*_):
        raise Terminated

    signal.signal(signal.SIGTERM, stop)


@contextlib.contextmanager
def user_errors(what: object, errors: Any = (OSError, ImportError)) -> Iterator[None]:
    """Turn these errors into a one-line UserError that starts with `what`."""
    try:
        yield
    except errors as error:
        raise UserError(f"{what}: {error}") from error


def exit_code(program: str, function: Callable, *arguments: Any,
              traceback: bool = False) -> int:
    """Run the function of a program and return the exit code of the program.

    Parameters
    ----------
    program : the name that starts an error message
    function : called with `arguments`
    traceback : whether to print the whole traceback before the one line of an error

    Returns
    -------
    int
        What `function` returned, or 0 if that is None; 2 after a `UserError`, 130 after Ctrl-C and
        143 after SIGTERM, each of which is said on stderr in a line. 141 where nobody reads what is
        printed, as in a pipe into `head`; nothing is said then.
    """
    if hasattr(sys.stdout, "reconfigure"):    # not in a notebook
        sys.stdout.reconfigure(errors="replace", line_buffering=True)    # names of any alphabet
    try:
        with user_errors("stopped"):
            return function(*arguments) or 0
    except (UserError, KeyboardInterrupt) as error:
        if traceback:
            tracebacks.print_exc()
        if isinstance(error.__cause__, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())    # for what is left
            return 141
        print(f"{program}: error: {str(error) or 'interrupted'}", file=sys.stderr)
        return {UserError: 2, KeyboardInterrupt: 130, Terminated: 143}[type(error)]


@contextlib.contextmanager
def saying_how_to_resume(arguments: list[str], output: str) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM end a run with the command that goes on from there.

    `arguments` are those of the run, `output` is the model that it writes.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        again = [argument for argument in arguments if argument != "--resume"]
        if "--output" not in " ".join(arguments):
            again += ["--output", output]
        command = shlex.join(["python", sys.argv[0], *again, "--resume"])
        raise type(stop)("stopped; finished epochs and prepared records are kept, and this goes "
                         f"on from there: {command}") from stop


# -------------------------------------------------------------------------------- text from files
MAX_LETTERS = 4096    # no path is longer


def printable(text: object, most: int = MAX_LETTERS) -> str:
    """Return text with a ? for each letter that cannot be printed, cut to `most` letters.

    What is left has no ends of lines, no escape sequences, nothing that changes the direction of
    writing, and none of the surrogates that stand for bytes of a name that is not UTF-8.
    """
    letters = str(text)
    if len(letters) > most:
        letters = letters[:most - 3] + "..."
    return "".join(letter if letter.isprintable() else "?" for letter in letters)


def markdown(text: object, most: int = 1000) -> str:
    """Return `printable` text on which neither Markdown nor HTML acts."""
    line = printable(" ".join(str(text).split()), most)
    return re.sub(r"([\\|`*\[\]<>#&]|(?<!\w)_|_(?!\w))", r"\\\1", line)

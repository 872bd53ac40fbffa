"""What can go wrong and is not a bug: errors that the user can fix, and records to leave out."""

import contextlib
import sys
import traceback as tracebacks
from collections.abc import Callable, Iterator
from typing import Any


class UserError(Exception):
    """An error that the user can fix: a program prints it as one line and exits with code 2."""

    def __init__(self, message: object) -> None:
        super().__init__(" ".join(str(message).split()))


class RecordError(ValueError):
    """Raised for a record that cannot be used.

    Its message is 'reason: detail'; the report counts records by reason.
    """


@contextlib.contextmanager
def user_errors(what: object, errors: type[BaseException] | tuple[type[BaseException], ...]
                = (OSError, ImportError)) -> Iterator[None]:
    """Turn these errors into a one-line UserError that starts with `what`."""
    try:
        yield
    except errors as error:
        raise UserError(f"{what}: {error}") from error


def exit_code(program: str, function: Callable[..., Any], *arguments: Any,
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
        What `function` returned, or 0 if that is None; 2 after a `UserError` and 130 after
        Ctrl-C, each of which is printed to stderr as one line.
    """
    try:
        return function(*arguments) or 0
    except (UserError, KeyboardInterrupt) as error:
        if traceback:
            tracebacks.print_exc()

        print(f"{program}: error: {str(error) or 'interrupted'}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 130

"""Build a command line from dataclasses: a flag for each field, with its group, help and range.

Knows nothing of what the settings mean.
"""

import argparse
import dataclasses
import difflib
from typing import Any, NoReturn

from ecg.errors import UserError

WORDS_FOR_BOOL = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def flag(group: str, default: Any, text: str, *limits: Any) -> Any:
    """Declare a field of a dataclass of settings.

    Parameters
    ----------
    group : str
        Heading of `--help` that the flag stands under; "" for a field without a flag of its own,
        which `--set name=value` changes.
    default : object
    text : str
        Help text; it has to be clear without the other texts.
    *limits
        Lowest and highest number allowed, or all texts allowed; none: anything goes.
    """
    metadata = {"group": group, "help": text, "limits": limits}
    return dataclasses.field(default=default, metadata=metadata)


def convert(kind: type, text: str) -> Any:
    """Convert text to a bool, int, float or str; `ValueError` if it does not say one."""
    if kind is bool:
        if text.lower() not in WORDS_FOR_BOOL:
            raise ValueError(text)
        return WORDS_FOR_BOOL[text.lower()]

    if kind in (int, float) and ("_" in text or not text.isascii()):
        raise ValueError(text)    # Python would take 1_0 for 10
    return kind(text)


def whole_number(text: str) -> int:
    """Convert a flag to an int; `ValueError` unless its digits are ASCII, without any _."""
    return int(convert(int, text))


def number(text: str) -> float:
    """Convert a flag to a float; `ValueError` unless its digits are ASCII, without any _."""
    return float(convert(float, text))


def is_allowed(value: Any, kind: type, limits: tuple) -> bool:
    """Tell whether a value is of its field's type and within its range or choices."""
    if not limits:
        return True
    if kind is str:
        return value in limits
    if isinstance(value, str):    # text that could not be converted
        return False
    return bool(limits[0] <= value <= limits[1])


def expectation(kind: type, limits: tuple) -> str:
    """Say in words what a field allows."""
    if kind is str:
        return f"one of {', '.join(limits)}"
    if kind is bool:
        return "true or false"
    number = "a whole number" if kind is int else "a number"
    return f"{number} from {limits[0]} to {limits[1]}"


def check_fields(settings: Any) -> None:
    """Convert and check all fields of a dataclass that `flag` declared, in place.

    Raises
    ------
    UserError
        Names the first field that is not as declared, what was got and what is expected.
    """
    for field in dataclasses.fields(settings):
        given = getattr(settings, field.name)
        kind: Any = field.type
        limits = field.metadata["limits"]
        value = given
        is_converted = True
        if isinstance(given, str) and kind in (bool, int, float):
            try:
                value = convert(kind, given)
            except (ValueError, OverflowError):
                is_converted = False

        if not is_converted or not is_allowed(value, kind, limits):
            raise UserError(f"{written(field, given)}: expected {expectation(kind, limits)}")
        object.__setattr__(settings, field.name, value)


def written(field: dataclasses.Field, value: Any) -> str:
    """Write a setting as it is written on the command line."""
    if field.metadata["group"]:
        return f"--{field.name.replace('_', '-')} {value!s:.80}"
    return f"--set {field.name}={value!s:.80}"


class Parser(argparse.ArgumentParser):
    """A parser whose errors take one line, and that knows what a mistyped flag was meant to be.

    Parameters
    ----------
    description : str or None
        Docstring of the program, whose first line is shown; None under `python -OO`.
    renamed : dict
        Old spelling of a flag to a sentence that says what it is now.
    **options
        Of `argparse.ArgumentParser`.
    """

    def __init__(
        self,
        description: str | None,
        renamed: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            description=(description or "").partition("\n")[0],
            allow_abbrev=False,
            usage=argparse.SUPPRESS,    # so that an error takes one line
            **options)
        self.renamed = renamed or {}
        self.groups: dict[str, Any] = {}    # by title, of the flags that were added

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            message += self.hint(unknown.split(" ")[0].split("=")[0])
        super().error(message)

    def hint(self, unknown: str) -> str:
        """Return what an unknown flag was probably meant to be, or ''."""
        if unknown in self.renamed:
            return f"; {self.renamed[unknown]}"
        known = [name for action in self._actions for name in action.option_strings]
        spelling = unknown.lower().replace("_", "-")
        nearest = difflib.get_close_matches(spelling, known, 1, 0.6)
        return f"; did you mean {nearest[0]}?" if nearest else ""

    def add_flags(self, *classes: type) -> None:
        """Add a flag for each field that has a group; what is not given stays out of the result."""
        for field in [field for each in classes for field in dataclasses.fields(each)]:
            title = field.metadata["group"]
            if not title:
                continue
            if title not in self.groups:
                self.groups[title] = self.add_argument_group(title)

            text = field.metadata["help"]
            if isinstance(field.default, str | bool | int | float) and field.default != "":
                text += f" (default: {field.default})"
            options: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
            if field.type is bool:
                options["action"] = argparse.BooleanOptionalAction
            else:
                options["metavar"] = getattr(field.type, "__name__", "value").upper()
            self.groups[title].add_argument("--" + field.name.replace("_", "-"), **options)


def describe_fields(kind: type, names: list[str]) -> str:
    """Return a line for each of these fields of a dataclass: name, default, help text and range."""
    lines = []
    for field in dataclasses.fields(kind):
        if field.name not in names:
            continue
        kind_of_value: Any = field.type
        expected = expectation(kind_of_value, field.metadata["limits"])
        lines.append(f"  {field.name}={field.default}: {field.metadata['help']} ({expected})")
    return "\n".join(lines)


def parse_assignments(
    texts: list[str],
    names: list[str],
    renamed: dict[str, str],
) -> dict[str, str]:
    """Read `name=value` texts into a dict; `UserError` if a name is not one of `names`."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UserError(f"--set {text:.80}: expected name=value")

        if name not in names:
            nearest = difflib.get_close_matches(name, names, 1, 0.6)
            known = f"known: {', '.join(sorted(names))}"
            hint = renamed.get(name, f"did you mean {nearest[0]}?" if nearest else known)
            raise UserError(f"--set {text:.80}: no such setting; {hint}")
        found[name] = value.strip()
    return found

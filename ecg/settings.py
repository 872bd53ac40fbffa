"""Build a command line from dataclasses: a flag for each field, with its group, help and range.

Knows nothing of what the settings mean, but how those of a run and of a method are told apart.
"""

import argparse
import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any, NoReturn

from ecg.errors import UserError


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


def spelling(field: dataclasses.Field) -> str:
    """Return how a field is set on the command line: --data-dir, or --set high_pass."""
    is_flag = field.metadata["group"]
    return "--" + field.name.replace("_", "-") if is_flag else f"--set {field.name}"


def expectation(field: dataclasses.Field) -> str:
    """Say in words what a field allows."""
    limits = field.metadata["limits"]
    if field.type is bool:
        return "true or false"
    if field.type is str:
        return f"one of {', '.join(limits)}" if limits else "text"
    number = "a whole number" if field.type is int else "a number"
    return f"{number} from {limits[0]} to {limits[1]}"


def convert(value: Any, kind: Any, limits: tuple) -> Any:
    """Return a value as its field's type; any error if it is not of this type or out of range."""
    if kind is bool:
        return {"true": True, "false": False}[str(value).lower()]
    if kind in (int, float):
        value = kind(value) if isinstance(value, str) else value
        is_allowed = limits[0] <= value <= limits[1]
    else:
        is_allowed = not limits or value in limits
    if not is_allowed:
        raise ValueError
    return value


def check_fields(settings: Any) -> None:
    """Convert and check all fields of a dataclass that `flag` declared, in place.

    Raises
    ------
    UserError
        Names the first field that is not as declared, what was got and what is expected.
    """
    for field in dataclasses.fields(settings):
        given = getattr(settings, field.name)
        try:
            value = convert(given, field.type, field.metadata["limits"])
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise UserError(
                f"{spelling(field)}={given!s:.80}: expected {expectation(field)}") from error
        object.__setattr__(settings, field.name, value)


def hint(unknown: str, known: Iterable[str], old: dict[str, str]) -> str:
    """Return what a former or mistyped name was meant to be, as '; did you mean --seed?', or ''."""
    nearest = difflib.get_close_matches(unknown, known, 1)
    question = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"; {old[unknown]}" if unknown in old else question


class Parser(argparse.ArgumentParser):
    """A parser whose errors take one line, and that knows what a mistyped flag was meant to be.

    Parameters
    ----------
    description : str or None
        Docstring of the program, whose first line is shown.
    old : dict, optional
        Flags of former versions, each with a sentence that says what it is now.
    **options
        Of `argparse.ArgumentParser`.
    """

    def __init__(
        self,
        description: str | None,
        old: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        first_line = str(description).partition("\n")[0]
        no_usage = argparse.SUPPRESS    # so that an error takes one line
        super().__init__(description=first_line, usage=no_usage, allow_abbrev=False, **options)
        self.old = old or {}

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        _, is_unknown, rest = message.partition("unrecognized arguments: ")
        if is_unknown:
            name = rest.replace("=", " ").split()[0]
            message += hint(name, self._option_string_actions, self.old)
        super().error(message)

    def add_flags(self, kind: type, title: str) -> Any:
        """Add a group with a flag for each field of a dataclass that belongs to it; return it."""
        group = self.add_argument_group(title)
        for field in dataclasses.fields(kind):
            if field.metadata["group"] != title:
                continue
            text = field.metadata["help"]
            if isinstance(field.default, str | int | float) and field.default != "":
                text += f" (default: {field.default})"
            options: dict = {"metavar": getattr(field.type, "__name__", "").upper()}
            if field.type is bool:
                options = {"action": argparse.BooleanOptionalAction}
            group.add_argument(spelling(field), help=text, **options)
        return group


def names_of(recipe: type) -> list[str]:
    """Return the names of the settings of a method."""
    return [field.name for field in dataclasses.fields(recipe) if field.name != "name"]


def parse_assignments(
    texts: list[str],
    names: list[str],
    old: dict[str, str],
) -> dict[str, str]:
    """Read `name=value` texts into a dict; `UserError` if a name is not one of `names`."""
    values = {}
    for text in texts:
        name, _, value = map(str.strip, text.partition("="))
        if name not in names:
            known = f"; known: {', '.join(sorted(names))}"
            raise UserError(f"--set {text:.80}: no such setting{hint(name, names, old) or known}")
        values[name] = value
    return values


def read_flags(
    arguments: list[str] | None,
    description: str | None,
    settings: type,
    recipe: type,
    old: dict[str, str],
) -> dict:
    """Return as text what a command line sets; exit at --help or an unknown flag.

    Parameters
    ----------
    arguments : list of str, optional
        By default those of this process.
    description : str or None
        Docstring of the program.
    settings, recipe : dataclasses, whose fields are flags or, for --set, settings of the method
    old : dict
        Flags of former versions, each with a sentence that says what it is now.
    """
    method = names_of(recipe)
    of_method = {"--" + name.replace("_", "-"): f"it is now --set {name}=VALUE" for name in method}
    described = "\n".join(
        f"  {field.name}={field.default}: {field.metadata['help']} ({expectation(field)})"
        for field in dataclasses.fields(recipe) if field.name in method)
    parser = Parser(
        description,
        of_method | old,
        argument_default=argparse.SUPPRESS,    # so that only what is given is returned
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"settings of the method, for --set:\n{described}")
    parser.add_flags(settings, "your data")
    parser.add_flags(settings, "this run").add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help="change a setting of the method, listed below; may be given several times")
    parser.add_flags(recipe, "what people tune")
    return vars(parser.parse_args(arguments))

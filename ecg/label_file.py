"""Open a label file safely and read its rows as text.

pandas itself would also open a URL or an archive, and cut a cell at a NUL byte.
"""

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable

import pandas as pd

from ecg.errors import UserError, printable

MAX_BYTES = 200_000_000    # the label file of all of MIMIC-IV-ECG has 60 MB
MAX_CLASSES = 100
MAX_NAME_LETTERS = 100
MAX_COLUMNS = 100
RARE = 10                  # times rarer than a class of nearly the same name: perhaps a typo

# Folders and a name below the data folder: no '..', no leading '/' or '~', no drive, no URL
SAFE_PATH = (
    r"(?!.{1000})"                    # shorter than a thousand characters
    r"(?!(?:.*/)?\.\.?(?:/|$))"       # no part is '.' or '..'
    r"[\w.][\w .,+=@()-]*"            # a folder or the name
    r"(?:/[\w.][\w .,+=@()-]*)*")     # and others below it

SPACES = str.maketrans("\u00a0\u3000", "  ")    # in Chinese names; Python calls them unprintable
WHOLE_NUMBER = r"[0-9]{1,18}"
# What a spreadsheet makes of a number: 1.0E+07, 12.5, -3
SPREADSHEET_NUMBER = r"[-+]?[0-9]*[.,]?[0-9]*(?:[eE][-+]?[0-9]+)?"


def read_rows(path: str, columns: list[str]) -> pd.DataFrame:
    """Read a label file into a DataFrame of text.

    Parameters
    ----------
    path : str
    columns : list of str
        Names of the columns that the file should have; its header, if any, is still a row.

    Returns
    -------
    DataFrame
        These columns, and others whose names are numbers, stripped of white space around each cell.
        The last is what a row holds beyond the first. The index counts lines from 0; blank lines
        are left out.

    Raises
    ------
    UserError
        The file cannot be read as CSV in UTF-8.
    """
    try:
        if os.path.getsize(path) > MAX_BYTES or not os.path.isfile(path):
            raise ValueError("not a plain file of at most 200 MB")
        first = ""
        with open(path, encoding="utf-8-sig") as file:    # read twice: never whole in memory
            for number, line in enumerate(file, 1):
                first = first or line.strip(", \t\r\n")
                if line.count('"') % 2 or "\0" in line:
                    raise ValueError(f"line {number}: a quote is not closed, or a NUL byte")
            file.seek(0)
            width = max(len(columns), min(first.count(",") + 1, MAX_COLUMNS))
            names = [*columns, *range(len(columns), width + 1)]
            rows = pd.read_csv(file, header=None, names=names, dtype=str, index_col=False,
                               na_filter=False, skip_blank_lines=False)
    except (OSError, ValueError) as error:    # parser errors and UnicodeDecodeError among them
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: expected a label file, as CSV UTF-8: {why}") from error

    rows = rows.fillna("").apply(lambda column: column.str.strip())
    return rows[(rows != "").any(axis=1)]


def refuse_rows(path: str, rows: pd.DataFrame, is_bad: pd.Series, expected: str) -> None:
    """Raise `UserError` that names the first bad row of a label file, if there is one."""
    if is_bad.any():
        line = is_bad.idxmax()
        row = ",".join(rows.loc[line]).rstrip(",")
        raise UserError(f"{path}, line {line + 1}: expected {expected}, got {row[:80]!r}")


def drop_header(path: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Leave out the header, if the first row is one, and name the columns after the third by it.

    A header's patient is no whole number, its path has neither a digit nor a folder, and its class
    is that of no record. `UserError` if there is one further down, or a name comes twice.
    """
    if rows.empty:
        return rows
    subject, record, category = rows.iloc[0, :3]
    others = rows[rows["subject_id"] != subject]
    headers = {"subject_id"}
    is_text = not re.fullmatch(WHOLE_NUMBER, subject) and re.fullmatch(r"[^\d/]+", record)
    if is_text and category not in {"", *others["ecg_category"]}:
        names = rows.iloc[0, 3:].str.casefold()
        rows = rows.drop(index=rows.index[0]).rename(columns=names[names != ""])
        headers.add(subject)

    refuse_rows(path, rows, rows["subject_id"].isin(headers),
                "a record, not a second header (files joined?)")
    for name in rows.columns[rows.columns.duplicated()]:
        raise UserError(f"{path}: two columns are called {name}")
    return rows


def describing(path: str, rows: pd.DataFrame, known: Iterable[str]) -> list[str]:
    """Return which of the known columns a file has after its third; tidy them, in place.

    A notice names those that are not known. `UserError` if a cell could not be shown.
    """
    named = [name for name in rows.columns[3:] if isinstance(name, str)]
    if others := ", ".join(name for name in named if name not in known):
        print(f"notice: {printable(path)}: not used: column {printable(others, 200)}")
    found = [name for name in named if name in known]
    for name in found:
        rows[name] = merge_names(rows[name])
        refuse_rows(path, rows, ~rows[name].map(is_name), f"{name} in 100 printable letters")
    return found


def is_name(text: str) -> bool:
    """Tell whether this can name a class or patient: printable, and not too long to be shown."""
    return text.translate(SPACES).isprintable() and len(text) <= MAX_NAME_LETTERS


def is_patient(text: str) -> bool:
    """Tell whether this can be a subject_id: any name that a spreadsheet made of no number."""
    return is_name(text) and (text.isdigit() or not re.fullmatch(SPREADSHEET_NUMBER, text))


def merge_names(names: pd.Series) -> pd.Series:
    """Give class names that differ in case, spaces or composed letters the most common of them."""
    tidy = names.map({
        name: unicodedata.normalize("NFC", " ".join(name.split())) for name in names.unique()})
    counts = tidy.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    common = {name.casefold(): name for name in reversed(counts.index)}
    return tidy.map({name: common[name.casefold()] for name in counts.index})


def spell_classes(names: pd.Series, classes: list[str]) -> pd.Series:
    """Return class names in the spelling of a model's classes; `ValueError` if it lacks any."""
    spelling = {name.casefold(): name for name in classes}
    unknown = sorted({name for name in names if name.casefold() not in spelling})
    if unknown:
        raise ValueError(
            f"unknown class {', '.join(unknown)}; expected one of {', '.join(classes)}")
    return names.str.casefold().map(spelling)


def check_classes(path: str, counts: pd.Series) -> None:
    """Refuse too few or too many classes; ask about rare ones that look like a typo of another.

    Parameters
    ----------
    path : of the label file
    counts : Series of int, the records of each class, by its name
    """
    if not 2 <= len(counts) <= MAX_CLASSES:
        raise UserError(
            f"{path}: expected 2 to {MAX_CLASSES} classes in column 3, got {len(counts)}")
    for name, n in counts.items():
        common = counts.index[counts >= RARE * n]
        nearest = difflib.get_close_matches(str(name), common, 1, 0.8)
        if nearest:
            print(f"notice: {name!r} ({n} of the records), did you mean {nearest[0]!r}?")

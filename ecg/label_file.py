"""Open a label file safely and read its rows as text.

pandas itself would also open a URL or an archive, and cut a cell at a NUL byte.
"""

import difflib
import os
import re
import unicodedata
from typing import TextIO

import pandas as pd

from ecg.errors import UserError

MOST_BYTES = 200_000_000    # the label file of all of MIMIC-IV-ECG has 60 MB
MOST_LINES = 3_000_000
MOST_CLASSES = 100

# Folders and a name below the data folder: no '..', no leading '/' or '~', no drive, no URL
SAFE_PATH = (
    r"(?!.{1000})"                    # shorter than a thousand characters
    r"(?!(?:.*/)?\.\.?(?:/|$))"       # no part is '.' or '..'
    r"[\w.][\w .,+=@()-]*"            # a folder or the name
    r"(?:/[\w.][\w .,+=@()-]*)*")     # and others below it

# What a spreadsheet makes of a number: 1.0E+07, 12.5, -3
SPREADSHEET_NUMBER = r"[-+]?\d*[.,]?\d*(?:[eE][-+]?\d+)?"
WHOLE_NUMBER = r"[0-9]{1,18}"
SPACES = str.maketrans("\u00a0\u3000", "  ")    # for Python, no other space is printable

# Letters of other scripts that look like Latin ones
LOOK_ALIKE = str.maketrans(
    "АВЕКМНОРСТУХІЈЅавекмнорстухіјѕΑΒΕΖΗΙΚΜΝΟΡΤΥΧαινορυ",
    "ABEKMHOPCTYXIJSabekmhopctyxijsABEZHIKMNOPTYXaivopu")


def check_lines(file: TextIO) -> None:
    """Raise `ValueError` if an open file holds no text of a label file; leave it at its start."""
    for number, line in enumerate(file, 1):
        if line.count('"') % 2:
            raise ValueError(f"line {number}: a quote is not closed")
        if "\0" in line:
            raise ValueError(f"line {number}: a NUL byte; is it UTF-16?")
        if number > MOST_LINES:
            raise ValueError(f"more than {MOST_LINES:,} lines")
    file.seek(0)


def read_rows(path: str, columns: list[str]) -> pd.DataFrame:
    """Read a label file into a DataFrame of text.

    Parameters
    ----------
    path : str
    columns : list of str
        Names of the columns that the file should have; it has no header.

    Returns
    -------
    DataFrame
        These columns and "excess" (what a row holds beyond them, or ""), stripped of white space
        around each cell. The index counts lines from 0; blank lines are left out.

    Raises
    ------
    UserError
        The file cannot be read as CSV in UTF-8.
    """
    try:
        if os.stat(path).st_size > MOST_BYTES or not os.path.isfile(path):
            raise ValueError("not a plain file of at most 200 MB")
        with open(path, encoding="utf-8-sig") as file:    # read twice: never whole in memory
            check_lines(file)
            rows = pd.read_csv(file, header=None, names=[*columns, "excess"], dtype=str,
                               index_col=False, na_filter=False, skip_blank_lines=False)
    except (OSError, ValueError) as error:    # parser errors and UnicodeDecodeError among them
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: expected a label file, as CSV UTF-8: {why}") from error

    rows = rows.fillna("").apply(lambda column: column.str.strip())
    return rows[(rows != "").any(axis=1)]


def drop_header(path: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Leave out the header, if the first row is one; `UserError` if there is another one below.

    A header's patient is not a whole number, its path has neither a digit nor a folder, and its
    class is that of no record.
    """
    texts = rows[~rows.iloc[:, 0].str.fullmatch(WHOLE_NUMBER)]
    if texts.empty:
        return rows
    texts = texts.apply(lambda column: column.str.casefold())
    is_again = (texts.iloc[:, :3] == list(rows.columns[:3])).all(axis=1)
    first = rows.index[0]
    if first in texts.index:
        is_like_first = (texts == texts.loc[first]).all(axis=1)
        like_first = is_like_first.index[is_like_first]
        if is_header(rows, like_first):
            is_again |= is_like_first
            is_again[first] = False
            rows = rows.drop(first)

    again = is_again.index[is_again]
    refuse_rows(path, rows, pd.Series(rows.index.isin(again), rows.index),
                "a record, not a second header (files joined?)")
    return rows


def is_header(rows: pd.DataFrame, like_first: pd.Index) -> bool:
    """Tell whether the first row, and with it the rows `like_first`, is a header."""
    _, path, category = rows.iloc[0, :3]
    if not path or not category:
        return False
    is_path = "/" in path or any(letter.isdigit() for letter in path)
    of_class = rows.index[rows.iloc[:, 2] == category]
    return not is_path and of_class.isin(like_first).all()


def is_patient(name: str) -> bool:
    """Tell whether this can be a subject_id: any printable text that is no spreadsheet's number."""
    if not name.translate(SPACES).isprintable() or len(name) > 100:
        return False
    return name.isdecimal() or not re.fullmatch(SPREADSHEET_NUMBER, name)


def number_patients(rows: pd.DataFrame) -> pd.DataFrame:
    """Turn subject_id into whole numbers if all are; else they stay text, with a notice."""
    is_number = rows["subject_id"].str.fullmatch(WHOLE_NUMBER)
    if is_number.all():
        has_zeros = rows["subject_id"].str.startswith("0")
        if has_zeros.any():
            print("notice: all subject_ids are whole numbers: 00123 and 123 are one patient")
        return rows.astype({"subject_id": "int64"})

    first = rows["subject_id"][~is_number].iloc[0]
    print(f"notice: subject_id is text, such as {first:.40}: 00123 and 123 are two patients")
    return rows.copy()


def tidy_names(names: pd.Series) -> pd.Series:
    """Give class names composed letters, and single spaces between words.

    Each name is made once, not once a row: of 800,000, that would take 0.3 GB.
    """
    tidy = {name: unicodedata.normalize("NFC", " ".join(name.split())) for name in names.unique()}
    return names.map(tidy)


def merge_cases(names: pd.Series) -> pd.Series:
    """Give class names that differ in upper and lower case alone the most common of them."""
    counts = names.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    common: dict[str, str] = {}
    for name in counts.index:
        common.setdefault(name.casefold(), name)
    return names.map({name: common[name.casefold()] for name in counts.index})


def skeleton(name: str) -> str:
    """Return what a name looks like: no accents, no variation selectors, no foreign twins."""
    letters = unicodedata.normalize("NFKD", name.translate(LOOK_ALIKE))
    visible = [letter for letter in letters if unicodedata.category(letter) not in ("Mn", "Cf")]
    return "".join(visible).casefold()


def refuse_rows(path: str, rows: pd.DataFrame, is_bad: pd.Series, expected: str) -> None:
    """Raise `UserError` that names the first bad row of a label file, if there is one."""
    if is_bad.any():
        row = ",".join(rows.loc[is_bad.idxmax()]).rstrip(",")
        line = is_bad.idxmax() + 1
        raise UserError(f"{path}, line {line}: expected {expected}, got {row[:80]!r}")


def leave_out_ambiguous(rows: pd.DataFrame) -> pd.DataFrame:
    """Leave out records that several rows give different classes or patients."""
    is_ambiguous = rows["waveform_path"].duplicated(keep=False)
    if is_ambiguous.any():
        print(f"notice: left out {is_ambiguous.sum()} rows that give a record several classes or "
              f"patients, the first on line {is_ambiguous.idxmax() + 1}")
    return rows[~is_ambiguous].reset_index(drop=True)


def check_classes(path: str, counts: pd.Series) -> None:
    """Refuse too few or too many classes; ask about rare ones that look like a typo of another."""
    if not 2 <= len(counts) <= MOST_CLASSES:
        raise UserError(
            f"{path}: expected 2 to {MOST_CLASSES} classes in column 3, got {len(counts)}")
    for name, n in counts.items():
        others = counts.index[counts.index != name]
        twins = [other for other in others if skeleton(other) == skeleton(str(name))]
        common = counts.index[counts >= 10 * n]
        twins += difflib.get_close_matches(str(name), common, 1, 0.8)
        if twins and n <= counts[twins[0]]:
            records = "record" if n == 1 else "records"
            print(f"notice: {name!r} ({n} {records}), did you mean {twins[0]!r}?")

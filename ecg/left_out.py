"""Count the records that could not be used, and stop where they are too many."""

import shlex
import sys
from collections.abc import Iterable
from typing import Any

import pandas as pd

from ecg.errors import UserError

MIN_TRIED = 20              # records of a class; fewer, while more are to be tried, do not tell
MAX_UNUSABLE_SHARE = 0.5    # of a class's records


def count_reasons(reasons: Iterable[str]) -> str:
    """Write how often each reason comes, as in 'file is missing (1), too short (3)', or 'none'."""
    names = [reason.partition(":")[0] for reason in reasons if reason]
    counts = pd.Series(names, dtype=str).value_counts().sort_index()
    return ", ".join(f"{reason} ({n})" for reason, n in counts.items()) or "none"


def stop_if_unusable(
    split: str,
    tried: pd.Series,
    class_of: pd.Series,
    data_dir: str,
    is_over: bool,
) -> None:
    """Stop if more than half of a class's records cannot be used.

    Parameters
    ----------
    split : str
        Name for the message.
    tried : Series of str
        By path, why a record cannot be used; "" for a usable one.
    class_of : Series of str
        By path, the class of a record.
    data_dir : str
    is_over : bool
        Whether no more records of the split will be tried.

    Raises
    ------
    UserError
        Names the class, the reasons with their counts, and one record.
    """
    for category, of_class in tried.groupby(class_of):
        bad = of_class[of_class != ""]
        is_enough = len(of_class) >= MIN_TRIED or is_over
        if len(bad) > MAX_UNUSABLE_SHARE * len(of_class) and is_enough:
            raise UserError(
                f"{data_dir}: {len(bad)} of {len(of_class)} {split} records of {category} cannot "
                f"be used: {count_reasons(bad)}, such as {bad.index[0]}: {bad.iloc[0]}; repair or "
                "fetch them, or take them out of the labels")


def list_unusual(paths: Iterable[str], places: Iterable[int], prepared: Any) -> tuple:
    """Return (path, remark) of each record that is used although it is unusual, once.

    Parameters
    ----------
    paths : of the records, in any order; one may come again
    places : of the same records in `prepared`
    prepared : sequence of `ecg.cache.Prepared`
    """
    remarks = {path: prepared[place].remark for path, place in zip(paths, places, strict=True)}
    return tuple((path, remark) for path, remark in remarks.items() if remark)


def check_classes_left(
    split: str,
    labels: pd.DataFrame,
    have: set[str],
    data_dir: str,
    missing: list[str],
    reasons: Iterable[str],
) -> None:
    """Refuse a split in which a class has labels but no usable record, and say what to do.

    Parameters
    ----------
    split : str
        Name for the message.
    labels : DataFrame
        Rows of the label file that belong to the split.
    have : set of str
        Classes that have a usable record.
    data_dir : str
    missing : list of str
        Paths that are not on disk.
    reasons : iterable of str
        Why records that were read cannot be used.

    Raises
    ------
    UserError
        Names the classes and, if records are missing, the first of them.
    """
    lost = sorted(set(labels["ecg_category"]) - have)
    if not lost:
        return
    hint = ""
    if missing:
        hint = f"; waveform paths start from --data-dir, where {missing[0]}.hea is missing"
        if missing[0].startswith("files/p1"):    # as MIMIC-IV-ECG's own
            hint += ("; to fetch those that a run draws: python tools/fetch_records.py "
                     f"{shlex.join(sys.argv[1:])}")
    raise UserError(f"{data_dir}: no usable {split} record of {', '.join(lost)} (left out: "
                    f"{count_reasons(reasons)}){hint}")

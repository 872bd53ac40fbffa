"""Count the records that could not be used, and stop where they are too many."""

import os
import shlex
import sys
from collections.abc import Iterable
from typing import Any

import pandas as pd

from ecg.errors import UserError

ENOUGH_TRIED = 20    # records of a class; fewer, while more are to be tried, are too few to tell
MAX_UNUSABLE_SHARE = 0.5    # of a class's records


def count_reasons(reasons: pd.Series) -> str:
    """Write how often each reason comes, as in 'file is missing (1), too short (3)'."""
    counts = reasons.str.split(":").str[0].value_counts().sort_index()
    return ", ".join(f"{reason} ({n})" for reason, n in counts.items())


def reasons(left_out: Iterable[tuple[str, str]]) -> str:
    """Count left-out records, given as (path, reason), by reason; 'none' if there are none."""
    counted = count_reasons(pd.Series([reason for _, reason in left_out], dtype=str))
    return counted or "none"


def stop_if_unusable(tried: pd.Series, class_of: pd.Series, split: str, is_over: bool) -> None:
    """Stop if more than half of a class's records cannot be used.

    Parameters
    ----------
    tried : Series of str
        By path, why a record cannot be used; "" for a usable one.
    class_of : Series of str
        By path, the class of a record.
    split : str
        Name for the message.
    is_over : bool
        Whether no more records of the split will be tried.

    Raises
    ------
    ValueError
        Names the class, the reasons with their counts, and one record.
    """
    for category, of_class in tried.groupby(class_of):
        bad = of_class[of_class != ""]
        is_enough = len(of_class) >= ENOUGH_TRIED or is_over
        if len(bad) > MAX_UNUSABLE_SHARE * len(of_class) and is_enough:
            raise ValueError(
                f"{len(bad)} of {len(of_class)} {split} records of {category} cannot be used: "
                f"{count_reasons(bad)}, such as {bad.index[0]}: {bad.iloc[0]}; repair or fetch "
                "them, or take them out of the labels")


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


class OnDisk:
    """Tells which records are in a folder, and asks the disk for each once: it may be far away."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.known: dict[str, bool] = {}

    def holds(self, path: str) -> bool:
        """Tell whether there is a header of this record."""
        if path not in self.known:
            self.known[path] = os.path.exists(f"{self.folder}/{path}.hea")
        return self.known[path]

    def missing(self) -> list[str]:
        """Return the records that were looked for in vain."""
        return [path for path, is_there in self.known.items() if not is_there]


def tell_missing(name: str, missing: int, read: int) -> None:
    """Print how many records a split would have drawn that are not on disk, if any."""
    if missing:
        print(f"notice: {name}: {missing} of {missing + read} records asked for are not on disk")


def refuse_lost_classes(
    name: str,
    labels: pd.DataFrame,
    missing: list[str],
    have: set[str],
    data_dir: str,
    unusable: tuple,
) -> None:
    """Raise `UserError` if a class has labels but no usable record, and say what to do.

    `missing` holds the paths that were looked for on disk in vain.
    """
    lost = sorted(set(labels["ecg_category"]) - have)
    if not lost:
        return

    hint = ""
    if missing:
        paths = labels["waveform_path"]
        first = paths[paths.isin(missing)].iloc[0]
        hint = f"; waveform paths start from --data-dir, where {first}.hea is missing"
        if first.startswith("files/p1"):    # as MIMIC-IV-ECG's own
            hint += ("; to fetch those that a run draws: python tools/fetch_records.py "
                     f"{shlex.join(sys.argv[1:])}")
    raise UserError(f"{data_dir}: no usable {name} record of {', '.join(lost)} (left out: "
                    f"{reasons(unusable)}){hint}")

"""The rows of label files: each checked, of a person, and each record once."""

import functools
from typing import Any

import pandas as pd

from ecg import label_file, patients
from ecg.errors import UserError

COLUMNS = ["subject_id", "waveform_path", "ecg_category"]
SPLITS = "train", "validation", "test"    # what a column `split` may hold


def read_together(names: list[str], folders: list[str], groups: str) -> list[pd.DataFrame]:
    """Read label files, each with its data folder; patients are identified across all of them.

    Rows are as the script's `read_labels` describes them. In `attrs` of the last, "equal_numbers"
    is `n_equal` of `patients.identify`.
    """
    tables = [check_rows(name, groups) for name in names]
    persons, n_equal = patients.identify(tables, folders)
    united = [
        unite_rows(name, rows.assign(subject_id=person))
        for name, rows, person in zip(names, tables, persons, strict=True)]
    united[-1].attrs["equal_numbers"] = n_equal
    return united


def read_files(settings: Any) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the rows of --labels and, where it is given, of --test-labels."""
    names = [name for name in (settings.labels, settings.test_labels) if name]
    folders = [settings.data_dir, settings.test_data_dir or settings.data_dir]
    labels, *external = read_together(names, folders[:len(names)], settings.groups)
    return labels, external[0] if external else None


def check_rows(path: str, groups: str) -> pd.DataFrame:
    """Return the rows of a label file as they are; `UserError` if one of them is malformed."""
    rows = label_file.drop_header(path, label_file.read_rows(path, COLUMNS))
    refuse = functools.partial(label_file.refuse_rows, path, rows)
    unnamed = [name for name in rows if isinstance(name, int)]
    is_short = (rows[COLUMNS] == "").any(axis=1)
    is_long = (rows[unnamed] != "").any(axis=1)
    refuse(is_short | is_long,
           f"three columns {','.join(COLUMNS)} with commas, as CSV UTF-8; others need a header")
    refuse(~rows["subject_id"].map(label_file.is_patient),
           "a whole number or printable text as subject_id (format it as text in a spreadsheet)")

    paths = rows["waveform_path"].str.replace(r"^mimic-iv-ecg/|\.(?:hea|dat)$", "", regex=True)
    rows["waveform_path"] = paths
    refuse(~paths.str.fullmatch(label_file.SAFE_PATH),
           "a waveform path inside the data folder (short, no '..', no '/' in front, no URL)")
    rows["ecg_category"] = label_file.merge_names(rows["ecg_category"])
    refuse(~rows["ecg_category"].map(label_file.is_name),
           "a class name of at most 100 printable characters")

    described = label_file.describing(path, rows, [*groups.casefold().split(","), "split"])
    if "split" in described:
        refuse(~rows["split"].isin(SPLITS), f"{' or '.join(SPLITS)} as split")
    return rows[COLUMNS + described]


def unite_rows(path: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Return each record of a label file once, without those of several classes or patients."""
    columns = [name for name in (*COLUMNS, "split") if name in rows]
    unique = rows.drop_duplicates(columns)
    is_ambiguous = unique["waveform_path"].duplicated(keep=False)
    if is_ambiguous.any():
        print(f"notice: left out {is_ambiguous.sum()} rows that give a record several classes or "
              f"patients, the first on line {is_ambiguous.idxmax() + 1}")
    kept = unique[~is_ambiguous].reset_index(drop=True)
    kept.attrs["rows"] = {
        "duplicate": len(rows) - len(unique),
        "ambiguous": len(unique) - len(kept),
        "records": len(kept)}
    label_file.check_classes(path, kept["ecg_category"].value_counts())
    return kept


def published_split(path: str, labels: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split by the column `split` of a label file, so that results compare with published ones.

    Raises
    ------
    UserError
        Patients are in two splits, a split is empty, or training lacks a class.
    """
    is_torn = labels.groupby("subject_id")["split"].agg("nunique") > 1
    if is_torn.any():
        raise UserError(f"{path}: column split has {is_torn.sum()} patients in more than one "
                        f"split, such as {is_torn.idxmax()}")

    splits = {
        name: labels[labels["split"] == name].reset_index(drop=True)
        for name in SPLITS}
    untrained = set(labels["ecg_category"]) - set(splits["train"]["ecg_category"])
    if untrained or any(rows.empty for rows in splits.values()):
        raise UserError(f"{path}: column split: expected records in all of {', '.join(SPLITS)}, "
                        "and of all classes in train")
    return splits

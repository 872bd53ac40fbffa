"""Who is the same patient, repair of a split that lacks a class, external patients, copies."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ecg.cache import Prepared

NODE_LIMIT = 50    # of the search for a plan: of work, not of time, so that splits stay the same
NO_LIMIT = 2**31 - 1
INFEASIBLE = 2    # a status of SciPy's milp
PATIENT_FOLDER = r"(?:^|/)(p\d{8})/"    # as MIMIC-IV-ECG names a patient's folder


def join_patients(rows: pd.DataFrame) -> pd.DataFrame:
    """Give patients who share a record or a folder pNNNNNNNN one subject_id, the smallest.

    Parameters
    ----------
    rows : DataFrame with subject_id and waveform_path

    Returns
    -------
    DataFrame with the same rows; a notice names the first patient with several numbers
    """
    if rows.empty:
        return rows
    folder = rows["waveform_path"].str.extract(PATIENT_FOLDER, expand=False)
    subject, subjects = pd.factorize(rows["subject_id"], sort=True)
    place, places = pd.factorize(folder.fillna(rows["waveform_path"]))
    n = len(subjects)
    n_nodes = n + len(places)
    links = coo_array((np.ones(len(rows)), (subject, n + place)), shape=(n_nodes, n_nodes))
    _, group = connected_components(links, directed=False)
    joined = pd.Series(range(n)).groupby(group[:n]).transform("min").to_numpy()    # sorted above

    is_joined = joined != np.arange(n)
    if is_joined.any():
        example = is_joined.argmax()
        print(f"notice: {is_joined.sum()} subject_ids share a folder or a record with another: "
              f"{subjects[example]} and {subjects[joined[example]]}, for example, are one patient")
    return rows.assign(subject_id=subjects[joined[subject]])


def plan_moves(
    now: np.ndarray, kinds: np.ndarray, needed: np.ndarray
) -> np.ndarray | None:
    """Find how many patients of each kind go to each split, moving few.

    As few as possible, unless a limit of work is reached first: then as few as were found. An
    integer program. Its variables are, for each (kind, split), the patients there and, as a cost,
    how many of them are new there.

    Parameters
    ----------
    now : ndarray of int, shape (kinds, splits), patients as they are
    kinds : ndarray of int, shape (kinds, classes), 1 where a kind of patient has the class
    needed : ndarray of int, shape (splits, classes), patients with a class that a split needs

    Returns
    -------
    ndarray of int, shape (kinds, splits), or None if there is no way
    """
    n_kinds, n_splits = now.shape
    without_costs = [1, 0]
    classes_in_splits = np.kron(without_costs, np.kron(kinds.T, np.eye(n_splits)))
    patients_of_kinds = np.kron(
        without_costs, np.kron(np.eye(n_kinds), np.ones(n_splits))
    )
    each = np.eye(now.size)
    of_kind = now.sum(axis=1)

    enough_of_each_class = LinearConstraint(classes_in_splits, lb=needed.T.ravel())
    nobody_is_lost = LinearConstraint(patients_of_kinds, of_kind, of_kind)
    costs_count_the_new = LinearConstraint(np.hstack([each, -each]), ub=now.ravel())
    fewest_moves = np.repeat([0, 1], now.size)
    any_plan = 0 * fewest_moves
    for aim, limit in ((fewest_moves, NODE_LIMIT), (any_plan, NO_LIMIT)):
        plan = milp(
            aim,
            integrality=np.repeat([1, 0], now.size),
            constraints=[enough_of_each_class, nobody_is_lost, costs_count_the_new],
            options={"node_limit": limit},
        )
        if plan.x is not None or plan.status == INFEASIBLE:
            break
    if plan.x is None:
        return None
    return plan.x[: now.size].round().astype(int).reshape(now.shape)


def repair(
    split: np.ndarray, member: np.ndarray, needed: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """Move as few patients as possible so that every split has the classes it needs.

    Patients of the same classes are interchangeable, so `plan_moves` counts kinds of patients.

    Parameters
    ----------
    split : ndarray of int, shape (patients,), number of the split that each is in
    member : ndarray of int, shape (patients, classes), 1 where a patient has records of a class
    needed : ndarray of int, shape (splits, classes), patients with a class that a split needs
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int, shape (patients,), or None if there is no way
    """
    has = np.array([member[split == i].sum(axis=0) for i in range(len(needed))])
    if (has >= needed).all():
        return split

    kinds, kind_of = np.unique(member, axis=0, return_inverse=True)
    kind_of = kind_of.ravel()
    now = np.zeros((len(kinds), len(needed)), dtype=int)
    np.add.at(now, (kind_of, split), 1)
    wanted = plan_moves(now, kinds, needed)
    if wanted is None:
        return None

    order = rng.permutation(len(split))
    repaired = split.copy()
    for kind in range(len(kinds)):
        own = order[kind_of[order] == kind]
        leaving = [own[split[own] == s][wanted[kind, s] :] for s in range(len(needed))]
        arriving = np.maximum(wanted[kind] - now[kind], 0)
        repaired[np.concatenate(leaving)] = np.repeat(range(len(needed)), arriving)
    return repaired


# ----------------------------------------------------------------------------- external test set
def is_same_tree(folder: str, other: str) -> bool:
    """Tell whether a folder is, or is inside, another: then both number the same patients."""
    a = Path(folder).resolve()
    b = Path(other).resolve()
    return a.is_relative_to(b) or b.is_relative_to(a)


def replace_test(
    splits: dict[str, pd.DataFrame],
    test: pd.DataFrame,
    data_dir: str,
    test_data_dir: str,
) -> dict[str, pd.DataFrame]:
    """Give the records of splits["test"] to training, and put an external test set in their place.

    Parameters
    ----------
    splits : dict of DataFrame
        'train', 'validation' and 'test', with columns subject_id and ecg_category.
    test : DataFrame
        Rows of the label file of the external test set.
    data_dir, test_data_dir : str
        Where `is_same_tree`, equal numbers in `test` are the same patients: these leave training
        and validation.

    Raises
    ------
    ValueError
        A class loses its last record in training or validation.
    """
    train = pd.concat([splits["train"], splits["test"]])
    rest = {"train": train, "validation": splits["validation"]}
    if is_same_tree(data_dir, test_data_dir):
        rest = leave_out_patients(rest, test["subject_id"])
    return {**rest, "test": test}


def leave_out_patients(
    splits: dict[str, pd.DataFrame], patients: pd.Series
) -> dict[str, pd.DataFrame]:
    """Take the records of these patients out of all splits; `ValueError` if a class is lost."""
    kept = {}
    for name, part in splits.items():
        kept[name] = part[~part["subject_id"].isin(patients)]
        lost = sorted(set(part["ecg_category"]) - set(kept[name]["ecg_category"]))
        if lost:
            raise ValueError(f"leaves no {name} record of {', '.join(lost)}, as its patients are "
                             "not trained on: name other patients, or another --test-data-dir")

    n_gone = sum(len(splits[name]) - len(kept[name]) for name in splits)
    print(f"notice: {n_gone} records of patients in the test file are kept out of training")
    return kept


# ----------------------------------------------------------------------------------------- copies
def digest(ecg: np.ndarray) -> bytes:
    """Return a hash of a prepared ECG (sequence_length, 12)."""
    return hashlib.blake2b(np.ascontiguousarray(ecg).tobytes(), digest_size=16).digest()


def digests(splits: dict[str, Any]) -> dict[bytes, str]:
    """Return the hash of each record in these splits, with a reason to leave a copy of it out.

    Parameters
    ----------
    splits : dict
        By name, `Records` of the script: with rows and signals.
    """
    return {
        digest(records.signals[place]): f"copy of a {name} record: {path}"
        for name, records in splits.items()
        for place, path in enumerate(records.rows["waveform_path"])}


def reasons(prepared: Iterable[Prepared], known: dict[bytes, str]) -> list[str]:
    """Return why each of these records cannot be used, such as that it is a copy, or "".

    Parameters
    ----------
    prepared : iterable of Prepared
    known : dict
        What `digests` gave of the records that must not come again.
    """
    if not known:
        return [record.reason for record in prepared]
    return [record.reason or known.get(digest(record.signal), "") for record in prepared]

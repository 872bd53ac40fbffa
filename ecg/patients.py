"""Who is the same person, by names and by recordings; repair of a split; external patients."""

import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import train_test_split

from ecg.recordings import Recordings, copies

NODE_LIMIT = 50    # of the search for a plan: of work, not of time, so that splits stay the same
NO_LIMIT = 2**31 - 1
INFEASIBLE = 2    # a status of SciPy's milp
PATIENT_FOLDER = r"(?:^|/)(p\d{8})/"    # as MIMIC-IV-ECG names a patient's folder
SEPARATORS = r"[\s\-\u2010-\u2015\u2212]+"    # spaces, also unbroken ones, and dashes


def tidy(ids: pd.Series) -> pd.Series:
    """Return ids without what makes no other person: case, kinds of spaces and dashes, zeros."""
    folded = ids.str.normalize("NFC").str.casefold().str.normalize("NFC")
    return folded.replace({SEPARATORS: " ", r"^0+(?=\d+$)": ""}, regex=True)


def below(rows: pd.DataFrame, folder: Path, folders: list[Path]) -> pd.DataFrame:
    """Return ids and places of rows as keys that tell, in all of these folders, who is the same."""
    tree = min((other for other in folders if folder.is_relative_to(other)),
               key=lambda other: len(other.parts))
    path = f"{folder.relative_to(tree).as_posix()}/" + rows["waveform_path"]
    own = rows["subject_id"]
    ids = tidy(own)
    return pd.DataFrame({
        "tree": folders.index(tree),
        "written": own.replace("", None),
        "name": own.where(~ids.str.isdigit(), ids).replace("", None),
        "id": ids.where(ids != "", path),    # without an id, a record is known by its place alone
        "place": path.str.extract(PATIENT_FOLDER, expand=False).fillna(path)})


def unite(some: Any, others: Any) -> np.ndarray:
    """Return the group of each pair of keys; pairs that share a key, also by others, are of one."""
    keys, _ = pd.factorize(np.append(some, others))
    i, j = keys.reshape(2, -1)
    links = coo_array((np.ones(len(i)), (i, j)), shape=(len(keys), len(keys)))
    return connected_components(links, directed=False)[1][i]


def join(ids: pd.Series, pairs: Iterable[tuple]) -> pd.Series:
    """Return ids, made equal where a pair of them is of one person."""
    each = np.reshape([*zip(ids, ids, strict=True), *pairs], (-1, 2))
    person = unite(*each.T)[:len(ids)]
    return ids.groupby(person).transform("first")


def identify(tables: list[pd.DataFrame], folders: list[str]) -> tuple[list[pd.Series], int]:
    """Decide by ids and paths, for all label files of a run at once, which rows are of one person.

    Rows are of one person if they share, in one tree of folders, an id, a folder pNNNNNNNN or a
    record; such links chain. The same id in another tree may be another person's.

    Parameters
    ----------
    tables : list of DataFrame with subject_id, "" where it is not known, and waveform_path
    folders : list of str, the data folder of each; one inside another is of the same tree

    Returns
    -------
    persons : list of Series of str, for each table: the smallest id of the person, or ""; a notice
        names the first who has several
    n_equal : int, the persons of other trees who have an id or a path that the first tree has too
    """
    roots = [Path(folder).resolve() for folder in folders]
    parts = []
    for number, table in enumerate(tables):
        part = below(table, roots[number], roots)
        parts.append(part.assign(table=number))
    rows = pd.concat(parts).sort_values("name", kind="stable")

    tree = rows["tree"].astype(str)
    group = unite(tree + " id " + rows["id"], tree + " place " + rows["place"])
    rows["person"] = rows.groupby(group)["name"].transform("first").fillna("")

    is_first = rows["tree"] == 0
    first = rows[is_first]
    is_alike = rows["id"].isin(first["id"]) | rows["place"].isin(first["place"])
    is_taken = ~is_first & rows["person"].isin(first["person"])
    rows.loc[is_taken, "person"] += " (2)"    # of the second tree

    written = rows.dropna().drop_duplicates(["person", "written"])
    others = written[written.duplicated("person")]
    if len(others):
        example = written["written"][written["person"] == others["person"].iloc[0]]
        print(f"notice: {len(others)} subject_ids are another spelling of one, or share a folder "
              f"or a record with it: {example.iloc[1]} and {example.iloc[0]}, for example, are one "
              "patient")
    persons = []
    for number, table in enumerate(tables):
        own = rows["person"][rows["table"] == number]
        persons.append(own.reindex(table.index))
    return persons, rows.loc[~is_first & is_alike, "person"].nunique()


def draw(pool: np.ndarray, share: float, strata: np.ndarray, seed: int) -> np.ndarray:
    """Draw a share of the patients, by strata; where these are too few, at random."""
    if math.ceil(share * len(pool)) >= len(pool):    # nobody would be left
        return pool[:0]
    counts = np.bincount(strata)
    strata = np.where(counts[strata] < 2, counts.argmax(), strata)    # one alone joins the largest
    try:
        return train_test_split(pool, test_size=share, random_state=seed, stratify=strata)[1]
    except ValueError:
        return train_test_split(pool, test_size=share, random_state=seed)[1]


def plan_moves(
    now: np.ndarray,
    kinds: np.ndarray,
    needed: np.ndarray,
) -> np.ndarray | None:
    """Find how many patients of each kind go to each split, moving as few as possible.

    This is an integer program, whose search is limited: beyond that, the best plan so far counts.
    Its variables are, for each (kind, split), the patients there and, as a cost, how many of them
    are new there.

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
    n_splits = len(needed)
    has = np.array([member[split == i].sum(axis=0) for i in range(n_splits)])
    if (has >= needed).all():
        return split

    kinds, kind_of = np.unique(member, axis=0, return_inverse=True)
    kind_of = kind_of.ravel()
    now = np.zeros((len(kinds), n_splits), dtype=int)
    np.add.at(now, (kind_of, split), 1)
    wanted = plan_moves(now, kinds, needed)
    if wanted is None:
        return None

    order = rng.permutation(len(split))
    repaired = split.copy()
    for kind in range(len(kinds)):
        own = order[kind_of[order] == kind]
        leaving = [own[split[own] == s][wanted[kind, s] :] for s in range(n_splits)]
        arriving = np.maximum(wanted[kind] - now[kind], 0)
        repaired[np.concatenate(leaving)] = np.repeat(range(n_splits), arriving)
    return repaired


# ----------------------------------------------------------------------------- external test set
def replace_test(
    splits: dict[str, pd.DataFrame],
    test: pd.DataFrame,
) -> dict[str, pd.DataFrame]:
    """Give the records of splits["test"] to training, and put an external test set in their place.

    Its persons leave training and validation; `ValueError` if a class loses its last record there.

    Parameters
    ----------
    splits : dict of DataFrame
        'train', 'validation' and 'test', with columns subject_id and ecg_category.
    test : DataFrame
        Rows of the label file of the external test set; subject_id by `identify`, as in `splits`.
    """
    train = pd.concat([splits["train"], splits["test"]])
    replaced = {}
    n_gone = 0
    for name, part in {"train": train, "validation": splits["validation"]}.items():
        is_out = part["subject_id"].isin(test["subject_id"])
        replaced[name] = part[~is_out]
        n_gone += is_out.sum()
        lost = sorted(set(part["ecg_category"]) - set(replaced[name]["ecg_category"]))
        if lost:
            raise ValueError(f"leaves no {name} record of {', '.join(lost)}, as its patients are "
                             "not trained on: name other patients, or another --test-data-dir")

    if n_gone:
        print(f"notice: {n_gone} records of patients in the test file are kept out of training")
    return {**replaced, "test": test}


# ----------------------------------------------------------------------------------------- copies
class Drawn(NamedTuple):
    """Recordings with their rows, and what they are."""

    rows: pd.DataFrame    # subject_id, waveform_path
    recordings: Recordings
    kind: str             # such as "test record"


class CopyWatch:
    """Leaves out of a split all patients with a copy of a recording in a split drawn before it.

    All recordings of such a patient are left out, and so are patients with copies of those: what
    was drawn already is checked again. Nobody is moved. Within the test split, only the first of
    several copies is used.

    Parameters
    ----------
    held_out : dict
        By name, `Records` of the script: with rows and signals.
    is_test : bool

    Attributes
    ----------
    persons, repeated : dict of str, by subject_id and by path, why these are left out
    joined : list of (subject_id, subject_id) who share a test record: one patient of two numbers
    """

    def __init__(self, held_out: dict, is_test: bool = False) -> None:
        self.held_out = [Drawn(records.rows, Recordings.of(records.signals), f"{name} record")
                         for name, records in held_out.items()]
        self.is_test = is_test
        self.drawn: list[Drawn] = []
        self.persons: dict[str, str] = {}
        self.repeated: dict[str, str] = {}
        self.joined: list[tuple[str, str]] = []

    def look(self, rows: pd.DataFrame, signals: Any) -> None:
        """Compare newly read records, each once, with all before; update who is left out."""
        new = Drawn(rows, Recordings.of(signals), "record of such a patient")
        self.drawn.append(new)
        for old in self.drawn if self.is_test else ():
            for i, j in copies(old.recordings, new.recordings):
                if old is not new or i < j:
                    first, second = old.rows.iloc[i], new.rows.iloc[j]
                    why = f"copy of a test record: {first['waveform_path']}"
                    self.repeated[second["waveform_path"]] = why
                    self.joined.append((first["subject_id"], second["subject_id"]))
        todo = [(known, new) for known in self.held_out]
        while todo:
            theirs = self.leave_out(*todo.pop())
            todo += itertools.product(theirs, self.drawn)

    def leave_out(self, known: Drawn, drawn: Drawn) -> list[Drawn]:
        """Leave out patients in `drawn` with a copy of `known`; return all their drawn records."""
        new = {}
        for i, j in copies(known.recordings, drawn.recordings):
            row, path = drawn.rows.iloc[j], known.rows["waveform_path"].iloc[i]
            if row["subject_id"] not in self.persons:
                new[row["subject_id"]] = (f"patient with a copy of a {known.kind}: "
                                          f"{row['waveform_path']} is {path}")
        self.persons |= new
        theirs = []
        for part in self.drawn if new else ():
            places = np.flatnonzero(part.rows["subject_id"].isin(new))
            theirs.append(part._replace(rows=part.rows.iloc[places],
                                        recordings=part.recordings.pick(places)))
        return theirs


def join_copies(rows: pd.DataFrame, signals: Any) -> pd.Series:
    """Return the subject_id of rows, made equal where ECGs (n, sequence_length, 12) are copies."""
    own = Recordings.of(signals)
    i, j = copies(own, own).T
    ids = rows["subject_id"]
    return join(ids, zip(ids.iloc[i], ids.iloc[j], strict=True))

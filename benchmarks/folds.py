"""The records of a benchmark, and the patient-wise folds in which systems are compared."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

import too_feature as script
from benchmarks.common import log, progress
from ecg.errors import RecordError, UserError
from ecg.patients import is_same_tree

SEED = 42    # of every split; trainings take this seed and the next ones


class Fold(NamedTuple):
    """Numbers of the records of one split by patient."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Pool:
    """All usable records, prepared once in each way that a system asks for.

    Parameters
    ----------
    rows : DataFrame
        Columns of a label file, and `folder`, which the paths start from.

    Attributes
    ----------
    rows : DataFrame
        The usable records, with their `number`.
    classes : list of str
    targets : ndarray of int (n,)
        Index of each record into `classes`.
    seconds : float
        Spent on preparing records so far.
    """

    def __init__(self, rows):
        on_disk = [Path(f"{row.folder}/{row.waveform_path}.hea").exists()
                   for row in rows.itertuples()]
        missing = len(rows) - sum(on_disk)
        rows = rows[on_disk]
        recipe = script.Recipe()
        prepared = [prepare_or_none(row, recipe) for row in progress(rows, "reading")]
        usable = [pair is not None for pair in prepared]
        log(f"{sum(usable)} records; {missing} more are not on disk, {usable.count(False)} cannot "
            "be used")
        if not any(usable):
            raise UserError("expected label files that name records on disk which can be used")

        self.seconds = 0.0
        self.rows = rows[usable].reset_index(drop=True)
        self.rows["number"] = range(len(self.rows))
        self.classes = sorted(self.rows["ecg_category"].unique())
        self.targets = pd.Index(self.classes).get_indexer(self.rows["ecg_category"])
        self._prepared = {preparation(recipe): stack([pair for pair in prepared if pair])}

    def inputs(self, recipe):
        """Return signals (n, points, 12) and features (n, 8 or more) of all records."""
        return self.prepare(preparation(recipe), lambda row: prepare_row(row, recipe))

    def prepare(self, key, prepare):
        """Prepare all records, once for each `key`.

        Parameters
        ----------
        key : hashable
        prepare : callable
            Takes a row of `self.rows` and returns a pair of arrays.

        Returns
        -------
        tuple of two ndarrays
            Of all records, in the order of `self.rows`.
        """
        if key not in self._prepared:
            start = time.perf_counter()
            pairs = [prepare(row) for row in progress(self.rows, "preparing")]
            self._prepared[key] = stack(pairs)
            self.seconds += time.perf_counter() - start
        return self._prepared[key]

    def draw(self, numbers, samples, seed, repeat):
        """Draw some of these records as the script does: classes in equal shares."""
        rows = self.rows.iloc[numbers]
        return script.balanced_sampling(rows, samples, seed, repeat)["number"].to_numpy()

    def records(self, numbers, recipe):
        """Return the records of these numbers as the script's own `Records`."""
        signals, features = self.inputs(recipe)
        return script.Records(self.rows.iloc[numbers], signals[numbers], features[numbers],
                              self.targets[numbers])

    def drawn(self, fold, settings):
        """Return the training and the validation `Records` that the script would draw."""
        train = self.draw(fold.train, settings.train_samples, settings.seed, repeat=True)
        validation = self.draw(fold.validation, settings.val_samples, settings.seed, repeat=False)
        return self.records(train, settings.recipe), self.records(validation, settings.recipe)


def prepare_row(row, recipe):
    """Return signal and features of the record in one row of a pool."""
    return script.prepare_record(f"{row.folder}/{row.waveform_path}", row.folder, recipe)


def prepare_or_none(row, recipe):
    """Like `prepare_row`, but return None for a record that cannot be used."""
    try:
        return prepare_row(row, recipe)
    except RecordError:
        return None


def preparation(recipe):
    """Return the values of the recipe that shape prepared inputs."""
    return tuple(getattr(recipe, name) for name in script.PREPARATION)


def stack(pairs):
    """Turn pairs of arrays into a pair of arrays."""
    firsts, seconds = zip(*pairs, strict=True)
    return np.stack(firsts), np.stack(seconds)


# ------------------------------------------------------------------------------------- protocols
def read_pool(options):
    """Read the one or two label files; return the pool and the protocols {name: folds}."""
    rows = script.read_labels(options.labels)
    rows = rows.assign(folder=str(options.data_dir), other=False)
    if options.test_labels:
        other_dir = options.test_data_dir or options.data_dir
        rows = add_other(rows, options.test_labels, options.data_dir, other_dir)

    pool = Pool(rows)
    own = pool.rows[~pool.rows["other"]]
    other = pool.rows[pool.rows["other"]]

    protocols = {}
    if options.folds > 1:
        name = f"{options.folds} patient-wise folds, pooled"
        protocols[name] = cross_validation(own, options.folds)
    elif not options.test_labels:
        protocols["one patient-wise split"] = [one_split(own)]
    if options.test_labels:
        protocols["tested on the other label file"] = [fold_of(own, other)]
    return pool, protocols


def add_other(rows, labels, data_dir, other_dir):
    """Append the rows of another hospital's label file, to test on.

    Its classes are spelt as in `rows`. Where both files number the same patients (their folders
    are of one tree), those of the other file leave `rows`.
    """
    test = script.read_labels(labels).assign(folder=str(other_dir), other=True)
    spelling = {name.casefold(): name for name in rows["ecg_category"].unique()}
    test["ecg_category"] = test["ecg_category"].str.casefold().map(spelling)
    if test["ecg_category"].isna().any():
        raise UserError(f"{labels}: expected only classes that --labels has: "
                        f"{', '.join(spelling.values())}")

    if is_same_tree(other_dir, data_dir):
        shared = rows["subject_id"].isin(test["subject_id"])
        log(f"{shared.sum()} records of patients in the other label file are kept from training")
        rows = rows[~shared]
    return pd.concat([rows, test], ignore_index=True)


def one_split(rows):
    """Return the script's own split as a fold."""
    parts = script.split_patients(rows, seed=SEED)
    return Fold(numbers(parts["train"]), numbers(parts["validation"]), numbers(parts["test"]))


def fold_of(rest, test):
    """Return a fold that tests on `test`, and trains and validates on all of `rest`."""
    parts = script.split_patients(rest, seed=SEED)
    train = pd.concat([parts["train"], parts["test"]])
    return Fold(numbers(train), numbers(parts["validation"]), numbers(test))


def cross_validation(rows, k):
    """Return `k` folds by patient with similar class shares; each record is tested on once."""
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=SEED)
    places = splitter.split(rows, rows["ecg_category"], rows["subject_id"])
    return [fold_of(rows.iloc[rest], rows.iloc[test]) for rest, test in places]


def numbers(rows):
    """Return the pool's numbers of these records."""
    return rows["number"].to_numpy()

"""The records of a benchmark, and the patient-wise folds in which systems are compared."""

import contextlib
import sys
from fnmatch import translate
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

import too_feature as script
from benchmarks.common import log
from ecg import label_rows, patients
from ecg.errors import RecordError, UserError

SEED = 42    # of every split; trainings take this seed and the next ones
AMPLITUDES = slice(2)    # the places of mean and standard deviation of lead II among the features


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
    no_amplitudes : sequence of str
        Patterns of paths whose records are not in mV: their amplitude features are NaN.

    Attributes
    ----------
    rows : DataFrame
        The usable records, with their `number`; copies count as of one patient.
    classes : list of str
    targets : ndarray of int (n,)
        Index of each record into `classes`.
    """

    def __init__(self, rows, no_amplitudes=()):
        recipe = script.Recipe()
        prepared = {}
        for row in progress(rows):
            with contextlib.suppress(RecordError):
                prepared[row.Index] = prepare_row(row, recipe)
        log(f"{len(prepared)} of {len(rows)} records are there and can be used")
        if not prepared:
            raise UserError("expected a label file that names records on disk which can be used")

        rows = rows.loc[list(prepared)].reset_index(drop=True)
        rows["number"] = rows.index
        signals = np.stack([signal for signal, _ in prepared.values()])
        rows["subject_id"] = patients.join_copies(rows, signals)
        self.rows = rows
        self.classes = sorted(set(rows["ecg_category"]))
        self.targets = pd.Index(self.classes).get_indexer(rows["ecg_category"])
        self.is_unmeasured = matching(rows, no_amplitudes)
        self._prepared = {preparation(recipe): self._stack(prepared.values())}

    def _stack(self, pairs):
        """Turn pairs of arrays into a pair of arrays, without amplitudes that are not real."""
        signals, features = map(np.stack, zip(*pairs, strict=True))
        features[self.is_unmeasured, AMPLITUDES] = np.nan
        return signals, features

    def digest(self, fold):
        """Return a hash of all records and of those that this fold learns from."""
        _, features = self.inputs(script.Recipe())    # they change whenever the signals do
        rows = self.rows[label_rows.COLUMNS].to_numpy().tolist()
        return joblib.hash([self.classes, rows, features, fold.train, fold.validation])

    @property
    def rates(self):
        """Heart rates (n, 1) in bpm."""
        return self.inputs(script.Recipe())[1][:, [script.HEART_RATE]]

    def inputs(self, recipe):
        """Return signals (n, points, 12) and features (n, 8 or more) of all records."""
        return self.prepare(preparation(recipe), lambda row: prepare_row(row, recipe))

    def prepare(self, key, prepare):
        """Prepare all records, once for each `key`.

        Parameters
        ----------
        key : hashable
        prepare : callable
            Takes a row of `self.rows` and returns signal and features.

        Returns
        -------
        tuple of two ndarrays
            Of all records, in the order of `self.rows`.
        """
        if key not in self._prepared:
            self._prepared[key] = self._stack([prepare(row) for row in progress(self.rows)])
        return self._prepared[key]

    def draw(self, numbers, samples, seed, repeat):
        """Draw some of these records as the script does: classes in equal shares."""
        rows = self.rows.iloc[numbers]
        return script.balanced_sampling(rows, samples, seed, repeat)["number"].to_numpy()

    def records(self, numbers, recipe):
        """Return the records of these numbers as the script's own `Records`."""
        signals, features = self.inputs(recipe)
        return script.Records(
            self.rows.iloc[numbers], signals[numbers], features[numbers], self.targets[numbers])

    def drawn(self, fold, settings):
        """Return the training and the validation `Records` that the script would draw."""
        seed = settings.seed
        train = self.draw(fold.train, settings.train_samples, seed, repeat=True)
        validation = self.draw(fold.validation, settings.val_samples, seed, repeat=False)
        return tuple(self.records(part, settings.recipe) for part in (train, validation))


def progress(rows):
    """Iterate over the rows of a DataFrame with a progress bar on standard error."""
    return tqdm(rows.itertuples(), "preparing", len(rows), mininterval=1)


def prepare_row(row, recipe):
    """Return signal and features of the record in one row of a pool."""
    return script.prepare_record(f"{row.folder}/{row.waveform_path}", row.folder, recipe)[:2]


def preparation(recipe):
    """Return the values of the recipe that shape prepared inputs."""
    return tuple(getattr(recipe, name) for name in script.PREPARATION)


def matching(rows, patterns):
    """Tell which paths match one of the patterns, such as files/ptbxl*; * stands for any text."""
    pattern = "|".join(map(translate, patterns))
    return rows["waveform_path"].str.fullmatch(pattern).to_numpy(bool)


# ------------------------------------------------------------------------------------- protocols
def add_records(parser):
    """Add the options that say which records are trained and tested on."""
    add = parser.add_argument_group("records").add_argument
    add("--labels", required=True, help="label file")
    add("--data-dir", required=True, help="folder that the paths in it start from")
    add("--paths", nargs="+", default=["*"], metavar="PATTERN",
        help="train on those records whose paths match, such as 'files/ptbxl*' (default: all)")
    add("--test-paths", nargs="+", default=[], metavar="PATTERN",
        help="for each pattern: test on those records, and train on the rest of --paths")
    add("--no-amplitudes", nargs="+", default=[], metavar="PATTERN",
        help="records that are not in mV: their mean and SD of lead II count as not measured")


def read_pool(options):
    """Read the records that the options name."""
    with contextlib.redirect_stdout(sys.stderr):    # the script's notices do not belong in a table
        rows = script.read_labels(options.labels)
    for pattern in (*options.paths, *options.test_paths, *options.no_amplitudes):
        if not matching(rows, [pattern]).any():
            raise UserError(f"{options.labels}: expected paths that match {pattern}, such as "
                            f"{rows['waveform_path'].iloc[0]}")
    rows = rows[matching(rows, [*options.paths, *options.test_paths])]
    return Pool(rows.assign(folder=str(options.data_dir)), options.no_amplitudes)


def find_protocols(rows, options):
    """Return the folds of each protocol that the options ask for, by its title."""
    protocols = {}
    if options.folds:
        own = rows[matching(rows, options.paths)]
        name = f"{options.folds} patient-wise folds, pooled"
        protocols[name] = cross_validation(own, options.folds)
    for pattern in options.test_paths:
        protocols[f"tested on {pattern}"] = [tested_on(rows, options.paths, pattern)]
    if not protocols:
        raise UserError("expected --folds or --test-paths")
    return protocols


def tested_on(rows, paths, pattern):
    """Return a fold that tests on one pattern's records, and learns from the other patients'."""
    test = rows[matching(rows, [pattern])]
    own = rows[matching(rows, paths)]
    return fold_of(own[~own["subject_id"].isin(test["subject_id"])], test)


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


# --------------------------------------------------------------------------------- learning curve
def size_of(fold):
    """Return how many records a fold has to learn from: for training and for validation."""
    return len(fold.train) + len(fold.validation)


def smaller(rows, fold, n, seed):
    """Return a fold with some `n` of the records to learn from, and the same to test on.

    Records leave with all others of their patient. Training and validation, and in each of them the
    classes, keep their shares. The records of a smaller number are part of those of a larger one.

    Parameters
    ----------
    rows : DataFrame
        Of a pool.
    fold : Fold
    n : int
        Fewer than the fold has.
    seed : int
        Another one draws other patients.
    """
    share = n / size_of(fold)
    return fold._replace(
        train=first_share(rows, fold.train, share, seed),
        validation=first_share(rows, fold.validation, share, seed))


def first_share(rows, part, share, seed):
    """Return a share of these records, whole patients, in an order that the seed draws."""
    of_patient = rows.iloc[part].groupby("subject_id", sort=True)["ecg_category"]
    patients = of_patient.agg(["min", "size"]).sample(frac=1, random_state=seed)
    of_class = patients.groupby("min")["min"]
    place = (of_class.cumcount() + 0.5) / of_class.transform("size")    # within the class, 0 to 1
    patients = patients.loc[place.sort_values(kind="stable").index]

    chosen = patients.index[patients["size"].cumsum() <= round(share * len(part))]
    return part[rows["subject_id"].iloc[part].isin(chosen).to_numpy()]

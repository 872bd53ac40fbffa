"""Compare our models with their rivals side by side: same patients, same seeds, one table.

    pip install -r benchmarks/requirements.txt
    python benchmarks/accuracy.py --labels F --data-dir D                  # one patient-wise split
    python benchmarks/accuracy.py --labels F --data-dir D --folds 5        # five, pooled
    python benchmarks/accuracy.py --labels F --data-dir D --test-labels F2 --test-data-dir D2
    python benchmarks/accuracy.py --labels F --data-dir D --ablation       # what each change gains
    python benchmarks/accuracy.py --help

The tables go to standard output in markdown, progress to standard error. With --json FILE every
training is saved as soon as it ends, and the same command goes on where it was interrupted.
About 50 minutes for 1,182 records on two cores and one split; --quick under ten.
"""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import signal as dsp
from scipy.special import softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import too_feature as ours  # noqa: E402  it lies in the folder above

SEED = 42                   # of the split; training takes this and the next ones
RESAMPLES = 2000            # bootstrap resamples of the patients
ENOUGH = 20                 # test records that a class needs to count in averages
TRIALS = 3                  # candidate settings that each rival may try on validation patients
SHARES_KEPT = 1.0, 0.9, 0.75, 0.5, 0.25
# --quick: epochs at most, by system; the others do not train in epochs
QUICK_EPOCHS = {"thesis": 8, "cnn": 8, "default": 8, "best": 15, "large": 8}


# ------------------------------------------------------------------------------------------ data
class Fold(NamedTuple):
    """Numbers of the records of one split by patient."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Pool:
    """All usable records, prepared once for each way of preparing them.

    Parameters
    ----------
    rows : DataFrame
        Columns of a label file, and `folder`, from which its paths start.
    """

    def __init__(self, rows):
        paths = rows["folder"] + "/" + rows["waveform_path"]
        rows = rows[[os.path.exists(f"{path}.hea") for path in paths]]
        missing, self.cache, settings = len(paths) - len(rows), {}, ours.Settings()
        self.seconds = 0.0    # spent on preparing so far
        prepared = [self._prepare(row, settings) for row in progress(rows, "reading")]
        usable = [one is not None for one in prepared]
        self.rows = rows[usable].reset_index(drop=True)
        self.rows["number"] = range(len(self.rows))
        self.classes = sorted(self.rows["ecg_category"].unique())
        self.targets = pd.Index(self.classes).get_indexer(self.rows["ecg_category"])
        self.cache[preparation(settings)] = stack([one for one in prepared if one is not None])
        log(f"{len(self.rows)} records; {missing} more are not on disk, {usable.count(False)} "
            "cannot be used")

    @staticmethod
    def _prepare(row, settings):
        with contextlib.suppress(ours.RecordError):
            return ours.prepare_record(f"{row.folder}/{row.waveform_path}", row.folder, settings)

    def inputs(self, settings):
        """Return signals (n, points, 12) and features (n, 8 or more) of all records."""
        key = preparation(settings)
        if key not in self.cache:
            self.cache[key] = self._all(lambda row: self._prepare(row, settings), "preparing")
        return self.cache[key]

    def _all(self, prepare, what):
        """Prepare all records; the time is taken off the training that waits for it."""
        start = time.perf_counter()
        prepared = stack([prepare(row) for row in progress(self.rows, what)])
        self.seconds += time.perf_counter() - start
        return prepared

    def records(self, numbers, settings):
        """Return the records of these numbers as the script's own `Records`."""
        signals, features = self.inputs(settings)
        return ours.Records(self.rows.iloc[numbers], signals[numbers], features[numbers],
                            self.targets[numbers])

    def draw(self, numbers, settings, validation=False):
        """Draw from these numbers as the script does: classes in equal shares."""
        samples = settings.val_samples if validation else settings.train_samples
        drawn = ours.balanced_sampling(self.rows.iloc[numbers], samples, settings.seed,
                                       not validation)
        return drawn["number"].to_numpy()

    @functools.cached_property
    def thesis_inputs(self):
        """Signals and features as the thesis made them."""
        return self._all(thesis_prepare, "the thesis's way")


def preparation(settings):
    """Return those settings that prepared inputs depend on."""
    return tuple(getattr(settings, name) for name in (
        "model", "sequence_length", "high_pass", "central_share", "span"))


def stack(pairs):
    """Turn pairs of arrays into a pair of arrays."""
    return tuple(map(np.stack, zip(*pairs, strict=True)))


def progress(rows, what):
    """Iterate over rows with a bar on standard error."""
    return tqdm(rows.itertuples(), what, len(rows), mininterval=1)


def log(text):
    """Print a line to standard error: standard output is for the tables."""
    print(text, file=sys.stderr, flush=True)


def read_pool(options):
    """Read the one or two label files; return the pool and the protocols, {name: folds}."""
    rows = ours.read_labels(options.labels).assign(folder=str(options.data_dir), other=False)
    if options.test_labels:
        rows = add_other(rows, options)
    pool = Pool(rows)
    own = pool.rows[~pool.rows["other"]]
    protocols = {}
    if options.folds > 1:
        protocols[f"{options.folds} patient-wise folds, pooled"] = cross_validation(
            own, options.folds)
    elif not options.test_labels:
        split = ours.split_patients(own, seed=SEED)
        protocols["one patient-wise split"] = [
            Fold(*(part["number"].to_numpy() for part in split.values()))]
    if options.test_labels:
        test = pool.rows[pool.rows["other"]]
        protocols["tested on the other label file"] = [fold_of(own, test)]
    return pool, protocols


def add_other(rows, options):
    """Add the other label file: classes spelt as in `rows`, its patients taken out of `rows`."""
    folder = str(options.test_data_dir or options.data_dir)
    test = ours.read_labels(options.test_labels).assign(folder=folder, other=True)
    spelling = {name.casefold(): name for name in rows["ecg_category"].unique()}
    test["ecg_category"] = test["ecg_category"].str.casefold().map(spelling)
    if test["ecg_category"].isna().any():
        raise ours.UserError(f"{options.test_labels}: expected no other classes than --labels has:"
                             f" {', '.join(spelling.values())}")
    if ours.tool("extras").same_tree(folder, options.data_dir):
        known = rows["subject_id"].isin(test["subject_id"])    # the same numbers: same patients
        log(f"{known.sum()} records of patients in the other label file are kept from training")
        rows = rows[~known]
    return pd.concat([rows, test], ignore_index=True)


def fold_of(rest, test):
    """Split `rest` into training and validation; what a split would test on is trained on too."""
    parts = ours.split_patients(rest, seed=SEED)
    train = pd.concat([parts["train"], parts["test"]])
    return Fold(*(part["number"].to_numpy() for part in (train, parts["validation"], test)))


def cross_validation(rows, k):
    """Return `k` folds by patient, of like class shares."""
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=SEED)
    return [fold_of(rows.iloc[rest], rows.iloc[test]) for rest, test in
            splitter.split(rows, rows["ecg_category"], rows["subject_id"])]


# --------------------------------------------------------------------------------------- systems
class Fitted(NamedTuple):
    """A trained system."""

    predict: Callable           # from record numbers to probabilities (n, n_classes)
    parameters: int
    temperature: float = 1.0    # that `predict` has divided by


class Task(NamedTuple):
    """What a system is given to train with."""

    pool: Pool
    fold: Fold
    seed: int
    epochs: int | None          # at most; None: the system's own
    change: dict                # the candidate settings to try


def fit_rule(task):
    """Predict by heart rate alone."""
    features = task.pool.inputs(ours.Settings())[1]
    classes, n = task.pool.classes, len(task.pool.classes)
    shares = np.bincount(task.pool.targets[task.fold.train], minlength=n) / len(task.fold.train)

    def predict(numbers):
        rates = features[numbers, ours.HEART_RATE]
        return np.eye(n)[ours.tool("report").rate_rule(rates, classes, shares)]

    return Fitted(predict, 0)


def fit_forest(task):
    """Fit a random forest on the eight features, as measured: its trees do without scaling."""
    features, n = task.pool.inputs(ours.Settings())[1], len(task.pool.classes)
    forest = RandomForestClassifier(500, random_state=task.seed, **task.change)
    forest.fit(features[task.fold.train], task.pool.targets[task.fold.train])

    def predict(numbers):
        probabilities = np.zeros((len(numbers), n))
        probabilities[:, forest.classes_] = forest.predict_proba(features[numbers])
        return probabilities

    return Fitted(predict, sum(tree.tree_.node_count for tree in forest.estimators_))


def fit_minirocket(task):
    """Fit MiniRocket's features and the eight with a ridge classifier (Dempster et al., 2021)."""
    from aeon.transformations.collection.convolution_based import MiniRocket
    signals, eight = task.pool.inputs(ours.Settings())
    train, n = task.fold.train, len(task.pool.classes)
    usual, limit = np.nanmedian(eight[train], axis=0), ours.Settings().feature_limit
    rocket = MiniRocket(random_state=task.seed).fit(signals[train].transpose(0, 2, 1))
    shapes, rhythm = StandardScaler(), StandardScaler()

    def describe(numbers, fit=False):
        a = np.asarray(rocket.transform(signals[numbers].transpose(0, 2, 1)))
        b = np.where(np.isnan(eight[numbers]), usual, eight[numbers])
        a, b = (scaler.fit_transform(x) if fit else scaler.transform(x)
                for scaler, x in ((shapes, a), (rhythm, b)))
        # Eight beside ten thousand: unless they weigh more, the ridge hardly sees them
        return np.hstack([a, task.change["weight"] * np.clip(b, -limit, limit)])

    ridge = RidgeClassifierCV(np.logspace(0, 6, 13), class_weight="balanced")
    ridge.fit(describe(train, fit=True), task.pool.targets[train])

    def predict(numbers):
        scores = ridge.decision_function(describe(numbers))
        scores = scores if scores.ndim == 2 else np.stack([-scores, scores], axis=1)
        probabilities = np.zeros((len(numbers), n))
        probabilities[:, ridge.classes_] = softmax(scores, axis=1)
        return probabilities

    return Fitted(predict, ridge.coef_.size + ridge.intercept_.size)


def warm_up_minirocket():
    """Have numba compile MiniRocket, which takes half a minute, before anything is timed."""
    from aeon.transformations.collection.convolution_based import MiniRocket
    MiniRocket(84).fit_transform(np.random.default_rng(0).normal(size=(4, 12, 50)))


def residual_cnn(keras, points, n_features, n_classes, statistics, change):
    """Build a residual network as Ribeiro et al. did (Nature Communications 2020;11:1760).

    Each block shortens the record, and its skip connection is max-pooled; the features, which their
    network did not have, join before the last layer.
    """
    layers, kernel = keras.layers, 7    # 140 ms

    def finish(x):
        # Keras's momentum of 0.99 would take ten epochs of so few steps to follow
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        return layers.Dropout(change["dropout"])(x)

    def convolve(x, filters, size=kernel, strides=1):
        return layers.Conv1D(filters, size, strides, "same", use_bias=False,
                             kernel_initializer="he_normal")(x)

    ecg, features = keras.Input((points, 12)), keras.Input((n_features,))
    skip = x = finish(convolve(ecg, 32))
    for filters, shorter in ((48, 4), (64, 2), (80, 2), (84, 2)):
        y = convolve(finish(convolve(x, filters)), filters, strides=shorter)
        skip = convolve(layers.MaxPooling1D(shorter, padding="same")(skip), filters, 1)
        skip = layers.Add()([y, skip])
        x = finish(skip)
    y = layers.Normalization(mean=statistics[0], variance=statistics[1])(features)
    y = keras.ops.clip(keras.ops.nan_to_num(y), -2.5, 2.5)
    x = layers.Concatenate()([layers.GlobalAveragePooling1D()(x), y])
    return keras.Model([ecg, features], layers.Dense(n_classes, activation="softmax")(x))


def shifted_batches(signals, features, targets, size, rng):
    """Yield batches for ever, each record moved around in time."""
    points = signals.shape[1]
    while True:
        order = rng.permutation(len(targets))
        for start in range(0, len(order) - size + 1, size):
            batch = order[start:start + size]
            places = (np.arange(points) + rng.integers(0, points, (size, 1))) % points
            yield ((signals[batch][np.arange(size)[:, None], places], features[batch]),
                   targets[batch])


def fit_cnn(task):
    """Train the residual network with early stopping on validation patients."""
    keras, settings = ours.load_tensorflow()[1], ours.Settings(seed=task.seed)
    keras.utils.set_random_seed(task.seed)
    train = task.pool.records(task.pool.draw(task.fold.train, settings), settings)
    check = task.pool.records(task.pool.draw(task.fold.validation, settings, True), settings)
    statistics = np.nanmean(train.features, axis=0), np.nanvar(train.features, axis=0) + 1e-12
    model = residual_cnn(keras, train.signals.shape[1], train.features.shape[1],
                         len(task.pool.classes), statistics, task.change)
    model.compile(keras.optimizers.Adam(task.change["learning_rate"]),
                  "sparse_categorical_crossentropy", weighted_metrics=["accuracy"],
                  jit_compile=False)    # XLA slows convolutions on a CPU
    size = min(32, len(train.targets))
    model.fit(
        shifted_batches(*train[1:], size, np.random.default_rng(task.seed)),
        steps_per_epoch=len(train.targets) // size, epochs=task.epochs or 24, verbose=0,
        validation_data=((check.signals, check.features), check.targets,
                         balanced_weights(check.targets)), validation_batch_size=100,
        callbacks=[told_epochs(keras),
                   keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=7,
                                                 restore_best_weights=True),
                   keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.3, patience=3)])
    return fitted(model, functools.partial(task.pool.inputs, settings))


def fit_script(task, arguments):
    """Train what the script trains with these arguments."""
    settings = dataclasses.replace(ours.parse_settings(arguments), seed=task.seed, **task.change)
    return fit_settings(task, settings)


def fit_settings(task, settings):
    """Train what the script trains with these settings."""
    if task.epochs:
        settings = dataclasses.replace(settings, epochs=min(task.epochs, settings.epochs))
    training, validation = (
        task.pool.records(task.pool.draw(numbers, settings, check), settings)
        for numbers, check in ((task.fold.train, False), (task.fold.validation, True)))
    with contextlib.redirect_stdout(sys.stderr):
        model, temperature, _ = ours.train(training, validation, len(task.pool.classes), settings)
    return fitted(model, functools.partial(task.pool.inputs, settings), temperature)


def fitted(model, inputs, temperature=1.0):
    """Wrap a Keras model of two inputs, which are those of all records."""
    def predict(numbers):
        signals, features = inputs()
        whole = np.resize(numbers, -(-len(numbers) // 100) * 100)    # each size is compiled anew
        return model.predict((signals[whole], features[whole]), batch_size=100,
                             verbose=0)[:len(numbers)]

    return Fitted(predict, model.count_params(), temperature)


def balanced_weights(targets):
    """Return weights of records that give each class the same sum."""
    return (len(targets) / np.bincount(targets).clip(1))[targets]


def told_epochs(keras):
    """Return a callback that tells each epoch on standard error."""
    return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: log(
        f"epoch {epoch + 1:2} " + " ".join(f" {name} {value:.3f}" for name, value in logs.items()
                                           if name != "learning_rate")))


# The thesis recipe to the letter, mistakes and all: here and nowhere else. What the thesis leaves
# open (sizes of noise and scaling, once or in each epoch) is as in the script, and once.
def thesis_prepare(row):
    """Prepare one record; the features take 50 Hz for 100 Hz, so that rates come out doubled."""
    signal, _ = ours.read_record(f"{row.folder}/{row.waveform_path}", row.folder)
    signal = dsp.resample(signal, 500)
    low, median, high = np.percentile(signal, [25, 50, 75], axis=0)
    scaled = np.clip((signal - median) / np.where(high > low, high - low, 1), -3, 3)
    return scaled.astype(np.float32), thesis_features(signal[:, ours.LEAD_II], fs=100)


def thesis_features(x, fs):
    """Measure the eight features on lead II, unscaled; what cannot be measured is 0."""
    z = (x - x.mean()) / (x.std() or 1)
    peaks = dsp.find_peaks(x, height=np.std(x) * 0.5, distance=fs // 4)[0]
    rr, rhythm = np.diff(peaks) / fs, np.zeros(4)
    if len(rr) >= 2:
        rhythm[:] = (60 / rr.mean(), 1000 * rr.std(),
                     1000 * np.sqrt(np.mean(np.diff(rr) ** 2)), rr.std() / rr.mean())
    return np.array([x.mean(), x.std(), np.mean(z**3), np.mean(z**4) - 3, *rhythm], np.float32)


def fit_thesis(task):
    """Train the LSTM on unscaled features, with repeated records in validation too."""
    keras, pool = ours.load_tensorflow()[1], task.pool
    keras.utils.set_random_seed(task.seed)
    signals, features = pool.thesis_inputs
    train, check = (ours.balanced_sampling(pool.rows.iloc[numbers], samples, task.seed, True)
                    ["number"].to_numpy() for numbers, samples in
                    ((task.fold.train, ours.Settings.train_samples), (task.fold.validation,
                                                             ours.Settings.val_samples)))
    varied = ours.lightweight_augmentation(signals[train], np.random.default_rng(task.seed))
    model = ours.create_lightweight_lstm_model(len(pool.classes), feature_limit=1e9, memory=0.0)
    model.compile(keras.optimizers.Adam(5e-4), "sparse_categorical_crossentropy",
                  metrics=["accuracy"], jit_compile=True)
    whole = len(train) // 4 * 4    # a short last batch would be compiled anew
    present = np.unique(pool.targets[train])
    model.fit(
        (varied[:whole], features[train[:whole]]), pool.targets[train[:whole]], batch_size=4,
        epochs=task.epochs or 15, verbose=0, validation_batch_size=100,
        validation_data=((signals[check], features[check]), pool.targets[check]),
        class_weight=dict(zip(present.tolist(), compute_class_weight(
            "balanced", classes=present, y=pool.targets[train]), strict=True)),
        callbacks=[told_epochs(keras),
                   keras.callbacks.EarlyStopping("val_accuracy", patience=5,
                                                 restore_best_weights=True),
                   keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=3, min_lr=1e-6)])
    return fitted(model, lambda: pool.thesis_inputs)


class System(NamedTuple):
    """One row of the table."""

    title: str
    fit: Callable
    candidates: list = ({},)    # settings of which validation patients choose


# Candidates are what did well on folds of the records that we develop on; --quick takes the first.
# Ours take part as they are shipped: what a choice here could gain, the script's users do not have.
SYSTEMS = {
    "rule": System("rate rule", fit_rule),
    "thesis": System("thesis recipe to the letter", fit_thesis),
    "forest": System("random forest, 8 features", fit_forest, [
        {"min_samples_leaf": 5, "class_weight": "balanced"},
        {"min_samples_leaf": 10, "class_weight": "balanced_subsample"},
        {"min_samples_leaf": 3, "class_weight": "balanced_subsample", "max_features": 4}]),
    "minirocket": System("MiniRocket + ridge", fit_minirocket, [
        {"weight": 20.0}, {"weight": 1.0}, {"weight": 10.0}]),
    "cnn": System("residual CNN", fit_cnn, [
        {"learning_rate": 3e-3, "dropout": 0.2}, {"learning_rate": 1e-3, "dropout": 0.2},
        {"learning_rate": 3e-3, "dropout": 0.4}]),
    "default": System("**our default**", functools.partial(fit_script, arguments=[])),
    "best": System("**our best recipe**",
                   functools.partial(fit_script, arguments=["--recipe", "best"])),
    "large": System("**our large model**",
                    functools.partial(fit_script, arguments=["--model", "large"])),
}
OURS = "default", "best", "large"


# ------------------------------------------------------------------------------------------- run
class Store:
    """Results by key, kept in a file from one moment to the next."""

    def __init__(self, path, about):
        self.path, self.data = path and Path(path), {"about": about, "runs": {}}
        if self.path and self.path.exists():
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found.get("about") != about:
                raise ours.UserError(f"--json {path}: results of other records, options or code; "
                                     "remove it or name another")
            self.data = found
            log(f"{path}: {len(found['runs'])} results are taken from there")

    def get(self, key, compute):
        """Return the result of this key, computing and saving it if it is not there."""
        if key not in self.data["runs"]:
            self.data["runs"][key] = compute()
            self.save()
        return self.data["runs"][key]

    def save(self):
        """Write all, whole or not at all."""
        if self.path:
            scratch = self.path.with_name(f".{os.getpid()}-{self.path.name}")
            scratch.write_text(json.dumps(self.data), encoding="utf-8")
            os.replace(scratch, self.path)


def balanced_accuracy(targets, predicted, classes=None):
    """Return the mean recall of those classes that occur."""
    classes = np.unique(targets) if classes is None else classes
    return float(np.mean([(predicted[targets == k] == k).mean() for k in classes]))


def one_run(task, fit, what):
    """Train once and predict the fold's test records; return it all, ready for JSON."""
    log(f"--- {what}")
    start, prepared = time.perf_counter(), task.pool.seconds
    system = fit(task)
    seconds = time.perf_counter() - start - (task.pool.seconds - prepared)
    probabilities, check = (system.predict(x) for x in (task.fold.test, task.fold.validation))
    score, chosen_by = (
        balanced_accuracy(task.pool.targets[numbers], p.argmax(axis=1))
        for numbers, p in ((task.fold.test, probabilities), (task.fold.validation, check)))
    log(f"{what}: balanced accuracy {score:.3f} over all classes, {chosen_by:.3f} on validation "
        f"patients, {seconds:.0f} s")
    forget_models()
    return {"probabilities": np.round(probabilities, 7).tolist(), "seconds": seconds,
            "validation": chosen_by,
            "parameters": int(system.parameters), "temperature": float(system.temperature)}


def forget_models():
    """Free what Keras keeps of earlier models."""
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()


class Result(NamedTuple):
    """A system's predictions for the test records of a protocol, in the protocol's order."""

    title: str
    probabilities: np.ndarray    # (seeds, n, n_classes)
    before: np.ndarray           # the same before temperature scaling
    seconds: float               # of one training, on average
    parameters: int
    chosen: dict


def measure(name, system, pool, protocol, folds, options, store):
    """Train a system on each fold and seed, or take that from the store.

    Of its candidate settings, those are used that do best on the validation patients of the first
    fold and seed.
    """
    def run(change, seed, i):
        what = f"{name}, seed {seed}, fold {i + 1} of {len(folds)}, {change or 'as it is'}"
        epochs = QUICK_EPOCHS.get(name) if options.quick else None
        return store.get(f"{protocol}: {what}", lambda: one_run(
            Task(pool, folds[i], seed, epochs, change), system.fit, f"{protocol}: {what}"))

    change = system.candidates[0]
    if len(system.candidates) > 1 and not options.quick:
        change = max(system.candidates[:TRIALS],
                     key=lambda candidate: run(candidate, SEED, 0)["validation"])
    by_seed = [[run(change, seed, i) for i in range(len(folds))] for seed in seeds(options)]
    runs = [run for runs in by_seed for run in runs]
    probabilities = [[np.array(run["probabilities"]) for run in runs] for runs in by_seed]
    soften = ours.tool("report").soften
    before = [[soften(p, 1 / run["temperature"]) for p, run in zip(*both, strict=True)]
              for both in zip(probabilities, by_seed, strict=True)]
    return Result(system.title, *(np.stack([np.concatenate(folds) for folds in x])
                                  for x in (probabilities, before)),
                  float(np.mean([run["seconds"] for run in runs])), runs[0]["parameters"], change)


def seeds(options):
    """Return the seeds of training."""
    return range(SEED, SEED + options.seeds)


def ensemble(result):
    """Return the average of a system's seeds as a system of its own."""
    return result._replace(
        title=f"{result.title}, ensemble of {len(result.probabilities)}",
        probabilities=result.probabilities.mean(axis=0, keepdims=True),
        before=result.before.mean(axis=0, keepdims=True),
        seconds=result.seconds * len(result.probabilities),
        parameters=result.parameters * len(result.probabilities))


def compare(pool, protocol, folds, options, store):
    """Measure all systems that are asked for, and print the tables of what there is."""
    results = {}
    try:
        for name in options.systems:
            try:
                if name == "minirocket":
                    warm_up_minirocket()
                results[name] = measure(name, SYSTEMS[name], pool, protocol, folds, options, store)
            except (ours.UserError, ImportError) as error:
                if name not in ("large", "minirocket"):
                    raise
                log(f"{name} is skipped: {error}")
                options.skipped[name] = str(error)
    finally:    # an interrupted run still shows what it has
        if results:
            print(tables(results, pool, protocol, folds, options), flush=True)


# ---------------------------------------------------------------------------------------- tables
class Scorer:
    """Scores over one set of test records, and the same bootstrap resamples for all systems."""

    def __init__(self, targets, subjects, n_classes):
        self.targets, self.n_classes = targets, n_classes
        self.count = np.bincount(targets, minlength=n_classes)
        enough = np.flatnonzero(self.count >= ENOUGH)
        self.averaged = enough if len(enough) else np.flatnonzero(self.count)
        self.patient = np.unique(subjects, return_inverse=True)[1]

    @functools.cached_property
    def times(self):
        """How often each patient is drawn: once as they are, then in each resample."""
        n = self.patient.max() + 1
        drawn = np.random.default_rng(SEED).multinomial(n, [1 / n] * n, RESAMPLES)
        return np.vstack([np.ones(n, dtype=int), drawn])

    def _by_patient(self, weights):
        table = np.zeros((self.patient.max() + 1, self.n_classes))
        np.add.at(table, (self.patient, self.targets), weights)
        return table

    def recall(self, predicted):
        """Return the recall per class, mean of the seeds: first as is, then of each resample."""
        right, records = (self.times @ self._by_patient(weights) for weights in (
            (predicted == self.targets).mean(axis=0), np.ones(len(self.targets))))
        return np.divide(right, records, out=np.full_like(right, np.nan), where=records > 0)

    def balanced(self, predicted):
        """Return the balanced accuracy, first as is and then of each resample."""
        return np.nanmean(self.recall(predicted)[:, self.averaged], axis=1)

    def of_seeds(self, predicted, classes=None):
        """Return the balanced accuracy of each seed."""
        classes = self.averaged if classes is None else classes
        return [balanced_accuracy(self.targets, p, classes) for p in predicted]

    def macro_f1(self, predicted):
        """Return the macro F1, mean of the seeds."""
        return np.mean([f1_score(self.targets, p, labels=self.averaged, average="macro",
                                 zero_division=0) for p in predicted])


def interval(values):
    """Return 'a to b', the central 95 %."""
    low, high = np.percentile(values, [2.5, 97.5])
    return f"{low:.3f} to {high:.3f}"


def mean_deviation(values):
    """Return 'mean ± deviation', if there is one."""
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def versus(ours_balanced, balanced):
    """Return the paired difference and whether it excludes 0."""
    difference = ours_balanced - balanced
    low, high = np.percentile(difference[1:], [2.5, 97.5])
    verdict = ", beats" if low > 0 else ", loses" if high < 0 else ""
    return f"{difference[0]:+.3f} ({low:+.3f} to {high:+.3f}){verdict}"


def markdown(header, rows):
    """Return a markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def tables(results, pool, protocol, folds, options):
    """Return all tables of one protocol."""
    test = np.concatenate([fold.test for fold in folds])
    rows = pool.rows.iloc[test]
    scorer = Scorer(pool.targets[test], rows["subject_id"].to_numpy(), len(pool.classes))
    if options.seeds > 1:
        results = results | {f"{name} ensemble": ensemble(results[name])
                             for name in OURS if name in results}
    parts = [f"## {protocol.capitalize()}\n", main_table(results, pool, scorer),
             notes(results, pool, protocol, scorer, rows, options)]
    parts += [part for part in (hospital_table(results, pool, test),
                                trust_table(results, pool, folds, scorer)) if part]
    return "\n".join(parts)


def main_table(results, pool, scorer):
    """Return the table of all systems."""
    predicted = {name: result.probabilities.argmax(axis=2) for name, result in results.items()}
    balanced = {name: scorer.balanced(p) for name, p in predicted.items()}
    rivals = [name for name in ("default", "large") if name in results]
    occurring = np.flatnonzero(scorer.count)
    header = ["system", "balanced accuracy (95 %)", "over all classes", "macro F1",
              *(f"{name} ({n})" for name, n in zip(pool.classes, scorer.count, strict=True)),
              "training s", "parameters",
              *(f"{results[name].title.strip('*')} less this (95 %)" for name in rivals)]
    rows = [[result.title,
             f"{mean_deviation(scorer.of_seeds(predicted[name]))} "
             f"({interval(balanced[name][1:])})",
             mean_deviation(scorer.of_seeds(predicted[name], occurring)),
             f"{scorer.macro_f1(predicted[name]):.3f}",
             *(f"{recall:.2f}".replace("nan", "") for recall in
               scorer.recall(predicted[name])[0]),
             f"{result.seconds:.0f}", f"{result.parameters:,}",
             *("" if name == rival else versus(balanced[rival], balanced[name])
               for rival in rivals)] for name, result in results.items()]
    return markdown(header, rows)


def notes(results, pool, protocol, scorer, rows, options):
    """Return what the table needs to be read."""
    averaged = ", ".join(pool.classes[k] for k in scorer.averaged)
    chosen = "; ".join(f"{result.title} {result.chosen}" for result in results.values()
                       if result.chosen)
    skipped = "".join(f"\nSkipped: {name} ({why})." for name, why in options.skipped.items())
    quick = ("\n**--quick: one trial, few epochs. These are not the systems' results.**"
             if options.quick else "")
    return f"""
{len(rows)} test records of {rows["subject_id"].nunique()} patients; columns of classes: recall \
(test records). {options.seeds} seed(s): mean ± standard deviation.
Averaged over: {averaged} (classes with {ENOUGH} test records or more, all if there is none).
Intervals: bootstrap over patients, {RESAMPLES} resamples, of the recall averaged over seeds; \
differences on the same resamples. "beats": the interval of the difference excludes 0.
Rivals: {1 if options.quick else TRIALS} candidate settings each, chosen on the validation \
patients of the first fold and seed: {chosen or "none"}. The thesis recipe is fixed; ours are as \
shipped, without a choice here (their settings were chosen in development).
Forest and MiniRocket train on all training records with class weights; the networks on a \
balanced draw of them. Parameters: of a forest, its nodes. Seconds: wall clock of one \
training.{quick}{skipped}
"""


def hospital_table(results, pool, test):
    """Return balanced accuracy by hospital, the second folder of the paths; '' if there is one."""
    hospital = pool.rows["waveform_path"].iloc[test].str.split("/").str[1].fillna("")
    names = sorted(hospital.unique())
    if not 1 < len(names) <= 12:    # more are patients' folders, not hospitals
        return ""
    columns, header = [], ["balanced accuracy"]
    for name in names:
        here = (hospital == name).to_numpy()
        scorer = Scorer(pool.targets[test[here]], pool.rows["subject_id"].to_numpy()[test[here]],
                        len(pool.classes))
        averaged = ", ".join(f"{pool.classes[k]} {scorer.count[k]}" for k in scorer.averaged)
        header.append(f"{name} ({averaged})")
        columns.append([mean_deviation(scorer.of_seeds(result.probabilities[:, here]
                                                       .argmax(axis=2)))
                        for result in results.values()])
    return markdown(header, [[result.title, *scores] for result, *scores in
                             zip(results.values(), *columns, strict=True)]) + "\n"


def trust_table(results, pool, folds, scorer):
    """Return how far the probabilities of our systems can be trusted; '' without ours."""
    train = np.concatenate([fold.train for fold in folds])
    shares = np.bincount(pool.targets[train], minlength=len(pool.classes)) / len(train)
    natural = (shares / scorer.count.clip(1))[scorer.targets]
    header = ["mean of the seeds", *(f"{name}{where}" for where in ("", " at label shares")
                                     for name in ("ECE before, after", "Brier before, after")),
              *(f"accuracy, {share:.0%} kept" for share in SHARES_KEPT)]
    rows = []
    for name, result in results.items():
        if name.split()[0] not in OURS:
            continue
        row = [result.title]
        for weights in (None, natural):
            for what in ("expected calibration error", "Brier score"):
                row.append(", ".join(f"{np.mean([score[what] for score in scores]):.3f}"
                                     for scores in calibrations(result, scorer.targets, weights)))
        rows.append(row + [f"{np.mean(kept):.3f}" for kept in zip(
            *(accuracy_kept(p, scorer.targets) for p in result.probabilities), strict=True)])
    return markdown(header, rows) + "\n" if rows else ""


def calibrations(result, targets, weights):
    """Return calibration of each seed, before and after temperature scaling."""
    return [[ours.tool("report").calibration(p, targets, weights) for p in probabilities]
            for probabilities in (result.before, result.probabilities)]


def accuracy_kept(probabilities, targets):
    """Return accuracy where the least certain records are left undecided, by share kept."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    right = (probabilities.argmax(axis=1) == targets)[order]
    return [right[:max(1, round(share * len(right)))].mean() for share in SHARES_KEPT]


# -------------------------------------------------------------------------------------- ablation
ABLATION = (
    ("+ band-pass, percentile scaling", ("high_pass", "central_share", "span")),
    ("+ memory: start of the forget gates", ("memory",)),
    ("+ limit on scaled features", ("feature_limit",)),
    ("+ noise on amplitude features", ("amplitude_noise",)),
    ("+ shift in time, gain of leads", ("shift", "lead_gain")),
    ("+ batch normalisation settled", ("settle",)),
    ("+ last weights kept", ("keep",)))


def ablation_steps():
    """Return the settings from the thesis's way to the default, {name: Settings}."""
    now, default = ours.parse_settings(["--recipe", "thesis"]), ours.Settings()
    steps = {"thesis, mistakes mended": now}
    for title, names in ABLATION:
        now = dataclasses.replace(now, **{name: getattr(default, name) for name in names})
        steps[title] = now
    left = [field.name for field in dataclasses.fields(now) if field.name != "recipe"
            and getattr(now, field.name) != getattr(default, field.name)]
    if left:
        steps[f"+ all else ({', '.join(left)})"] = default
    return steps


def ablate(pool, protocols, options, store):
    """Switch on one change after the other, and print what each gains."""
    steps, results = ablation_steps(), {}
    try:
        for title, settings in steps.items():
            system = System(title, functools.partial(fit_step, settings=settings))
            results[title] = {
                protocol: measure("default", system, pool, f"{title}/{protocol}", folds, options,
                                  store) for protocol, folds in protocols.items()}
    finally:
        if results:
            print(ablation_table(results, pool, protocols, options), flush=True)


def fit_step(task, settings):
    """Train one step of the ablation."""
    return fit_settings(task, dataclasses.replace(settings, seed=task.seed))


def ablation_table(results, pool, protocols, options):
    """Return the table of the steps that were measured."""
    header, columns, averaged = ["cumulative change"], [list(results)], []
    for protocol, folds in protocols.items():
        test = np.concatenate([fold.test for fold in folds])
        scorer = Scorer(pool.targets[test], pool.rows["subject_id"].to_numpy()[test],
                        len(pool.classes))
        predicted = [of[protocol].probabilities.argmax(axis=2) for of in results.values()
                     if protocol in of]
        balanced = [scorer.balanced(p) for p in predicted]
        columns.append([mean_deviation(scorer.of_seeds(p)) for p in predicted])
        columns.append(["", *(versus(b, a).split(",")[0]
                              for a, b in itertools.pairwise(balanced))])
        columns.append([mean_deviation(scorer.of_seeds(p, np.flatnonzero(scorer.count)))
                        for p in predicted])
        header += [f"{protocol}: balanced accuracy", "gain (95 %)", "over all classes"]
        averaged.append(f"{protocol}: " + ", ".join(
            f"{pool.classes[k]} {scorer.count[k]}" for k in scorer.averaged))
    quick = "\n**--quick: few epochs. These are not the steps' results.**" if options.quick else ""
    return f"""## What each change gains

{markdown(header, zip(*columns, strict=False))}

{options.seeds} seed(s): mean ± standard deviation. Averaged over (test records): \
{"; ".join(averaged)}.
Gains: paired bootstrap over patients, {RESAMPLES} resamples, of the recall averaged over seeds.\
{quick}
"""


# ------------------------------------------------------------------------------------------ main
def parse_options(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", required=True, help="label file to train on")
    parser.add_argument("--data-dir", required=True, help="folder that its paths start from")
    parser.add_argument("--test-labels", help="label file of another hospital, to test on")
    parser.add_argument("--test-data-dir", help="folder of its paths (default: --data-dir)")
    parser.add_argument("--folds", type=int, default=1,
                        help="patient-wise folds of --labels, pooled (1: one split; with "
                        "--test-labels and 2 or more: both tables)")
    parser.add_argument("--seeds", type=int, help="trainings of each (default: 3, --quick 1)")
    parser.add_argument("--systems", type=lambda text: text.split(","), default=list(SYSTEMS),
                        help=f"some of {','.join(SYSTEMS)}")
    parser.add_argument("--quick", action="store_true", help="one seed, one trial, few epochs")
    parser.add_argument("--ablation", action="store_true", help="what each change gains, instead")
    parser.add_argument("--json", help="file that keeps every training as it ends")
    options = parser.parse_args(arguments)
    if unknown := set(options.systems) - set(SYSTEMS):
        parser.error(f"--systems {','.join(unknown)}: expected some of {','.join(SYSTEMS)}")
    options.seeds = options.seeds or (1 if options.quick else 3)
    options.skipped = {}
    return options


def about(options):
    """Return what the results depend on: records, options and code."""
    files = [options.labels, options.test_labels, __file__, ours.__file__,
             *(ROOT / "tools" / name for name in ("large_model.py", "recipes.py"))]
    return {"files": [file and Path(file).exists() and hashlib.sha256(
        Path(file).read_bytes()).hexdigest() for file in files],
        "folders": [options.data_dir, options.test_data_dir], "folds": options.folds,
        "quick": options.quick, "ablation": options.ablation}


def main(arguments=None):
    """Run the benchmark; return the exit code."""
    options = parse_options(arguments)
    try:
        store = Store(options.json, about(options))
        with contextlib.redirect_stdout(sys.stderr):    # the script's notices are no tables
            pool, protocols = read_pool(options)
        if options.ablation:
            ablate(pool, protocols, options, store)
        else:
            for protocol, folds in protocols.items():
                compare(pool, protocol, folds, options, store)
        return 0
    except ours.UserError as error:
        log(f"accuracy.py: error: {error}")
        return 2
    except KeyboardInterrupt:
        log("interrupted; --json FILE would keep what is done" if not options.json else
            f"interrupted; the same command goes on with {options.json}")
        return 130


if __name__ == "__main__":
    sys.exit(main())

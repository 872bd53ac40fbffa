"""Train systems on folds and seeds, and keep what each of them predicts."""

import hashlib
import sys
import time
from typing import NamedTuple

import numpy as np

from benchmarks.common import log
from benchmarks.folds import SEED, Pool
from benchmarks.scores import balanced_accuracy
from benchmarks.systems import Task
from ecg.files import fingerprint
from ecg.metrics import soften

TRIALS = 3    # candidate settings that each rival may try on validation patients


class Result(NamedTuple):
    """A system's predictions for the test records of a protocol, in the protocol's order."""

    title: str
    probabilities: np.ndarray    # (seeds, n, n_classes)
    before: np.ndarray           # the same before temperature scaling
    seconds: float               # of one training, on average
    parameters: int
    chosen: dict                 # the candidate settings

    @property
    def predicted(self):
        """Class numbers (seeds, n)."""
        return self.probabilities.argmax(axis=2)


class Runner:
    """Trains systems and keeps what is finished.

    Parameters
    ----------
    pool : Pool
    store : Store
    seeds : int
        Trainings of each system.
    quick : bool
        Few epochs, and the first candidate settings only.
    """

    def __init__(self, pool, store, seeds, quick):
        self.pool = pool
        self.store = store
        self.seeds = range(SEED, SEED + seeds)
        self.quick = quick

    def measure(self, name, system, protocol, folds):
        """Train a system on each fold and seed, unless the store has that already.

        Of its candidate settings, those are used that do best on the validation patients of the
        first fold and seed.

        Returns
        -------
        Result
        """
        change = system.candidates[0]
        if len(system.candidates) > 1 and not self.quick:
            trials = system.candidates[:TRIALS]
            chosen_by = [self.run(name, system, protocol, folds, 0, SEED, trial)["validation"]
                         for trial in trials]
            change = trials[int(np.argmax(chosen_by))]

        runs = []
        probabilities = []
        before = []
        for seed in self.seeds:
            of_seed = [self.run(name, system, protocol, folds, i, seed, change)
                       for i in range(len(folds))]
            runs += of_seed
            probabilities.append(np.concatenate([run["probabilities"] for run in of_seed]))
            before.append(np.concatenate([before_scaling(run) for run in of_seed]))

        seconds = float(np.mean([run["seconds"] for run in runs]))
        return Result(system.title, np.stack(probabilities), np.stack(before), seconds,
                      runs[0]["parameters"], change)

    def run(self, name, system, protocol, folds, i, seed, change):
        """Return what one training gave on fold `i`, from the store if it has it."""
        what = (f"{protocol}: {name}, seed {seed}, fold {i + 1} of {len(folds)}, "
                f"{change or 'as it is'}")
        epochs = system.quick_epochs if self.quick else None
        task = Task(self.pool, folds[i], seed, epochs, change)
        return self.store.get(f"{what}, code {code_of(system.fit)}",
                              lambda: train_once(task, system.fit, what))


def code_of(fit):
    """Return a short hash of a system's code and of the settings bound to it.

    It is part of a result's key: a change of one system leaves the results of the others valid.
    """
    bound = getattr(fit, "keywords", {})    # of a functools.partial: a recipe
    text = fingerprint(fit) + fingerprint(Pool, train_once) + repr(bound)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def train_once(task, fit, what):
    """Train and predict the fold's test records; return all that is kept, ready for JSON."""
    log(f"--- {what}")
    start = time.perf_counter()
    prepared = task.pool.seconds
    system = fit(task)
    preparing = task.pool.seconds - prepared
    seconds = time.perf_counter() - start - preparing

    test, validation = task.fold.test, task.fold.validation
    probabilities = system.predict(test)
    score = balanced_accuracy(task.pool.targets[test], probabilities.argmax(axis=1))
    on_validation = balanced_accuracy(task.pool.targets[validation],
                                      system.predict(validation).argmax(axis=1))
    log(f"{what}: balanced accuracy {score:.3f} over all classes, {on_validation:.3f} on "
        f"validation patients, {seconds:.0f} s")

    forget_models()
    return {"probabilities": np.round(probabilities, 7).tolist(), "seconds": seconds,
            "validation": on_validation, "parameters": int(system.parameters),
            "temperature": float(system.temperature)}


def forget_models():
    """Free what Keras keeps of earlier models."""
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()


def before_scaling(run):
    """Return the probabilities of a run before temperature scaling."""
    return soften(np.array(run["probabilities"]), 1 / run["temperature"])


def ensemble(result):
    """Return the average of a system's seeds as a system of its own."""
    n = len(result.probabilities)
    return result._replace(
        title=f"{result.title}, ensemble of {n}",
        probabilities=result.probabilities.mean(axis=0, keepdims=True),
        before=result.before.mean(axis=0, keepdims=True),
        seconds=result.seconds * n,
        parameters=result.parameters * n)

"""Train systems on folds and seeds, and keep what each of them predicts."""

import contextlib
import functools
import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np

import too_feature as script
from benchmarks.common import digest, log
from benchmarks.folds import SEED, Fold, smaller
from benchmarks.scores import balanced_accuracy
from benchmarks.systems import OURS, System, Task
from ecg import origin
from ecg.files import code_sha256, sha256
from ecg.metrics import soften

TRIALS = 3    # candidate settings that each baseline may try on validation patients


class Wanted(NamedTuple):
    """A system to be measured on some folds."""

    name: str
    system: System
    protocol: str           # in words
    folds: list[Fold]
    size: int | None = None    # records to learn from; None: all of them


class Cell(NamedTuple):
    """One training of a benchmark."""

    what: str                    # in words
    fit: Callable
    warm_up: Callable | None
    task: Task
    key: dict[str, Any]          # all that its result depends on


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
        Trainings of each of our systems.
    baseline_seeds : int, optional
        Trainings of each baseline, by default as many.
    quick : bool
        Few epochs, and the first candidate settings only.
    epochs : int, optional
        Of all networks at most.
    jobs : int
        Processes, each of which trains one system at a time.

    Attributes
    ----------
    skipped : dict of str
        Why a system was not trained, by its name.
    """

    def __init__(self, pool, store, seeds, baseline_seeds=None, quick=False, epochs=None, jobs=1):
        self.pool = pool
        self.store = store
        self.seeds = seeds
        self.baseline_seeds = baseline_seeds or seeds
        self.quick = quick
        self.epochs = epochs
        self.jobs = jobs
        self.skipped = {}

    def train(self, wanted):
        """Train what is wanted, unless the store has it already.

        Of a system's candidate settings, those are used that do best on the validation patients of
        the first fold and seed.

        Parameters
        ----------
        wanted : list of Wanted
        """
        self._train_cells([cell for each in wanted for cell in self._trials(each)])
        self._train_cells([cell for each in wanted for row in self._rows(each) for cell in row])

    def result(self, each):
        """Return the `Result` of one `Wanted`, or None if some of its trainings are missing."""
        rows = [[self.store.get(cell.key) for cell in row] for row in self._rows(each)]
        runs = [run for row in rows for run in row]
        if not runs or None in runs:
            return None

        probabilities = [np.concatenate([run["probabilities"] for run in row]) for row in rows]
        before = [np.concatenate([before_scaling(run) for run in row]) for row in rows]
        seconds = float(np.mean([run["seconds"] for run in runs]))
        return Result(each.system.title, np.stack(probabilities), np.stack(before), seconds,
                      runs[0]["parameters"], self._chosen(each))

    def _trials(self, each):
        """Return the trainings that candidate settings are chosen by."""
        candidates = each.system.candidates[:TRIALS]
        if self.quick or len(candidates) == 1:
            return []
        return [self._cell(each, 0, SEED, change) for change in candidates]

    def _chosen(self, each):
        """Return the candidate settings to use, None as long as a trial is missing."""
        trials = [self.store.get(cell.key) for cell in self._trials(each)]
        if not trials:
            return each.system.candidates[0]
        if None in trials:
            return None
        best = np.argmax([run["validation"] for run in trials])
        return each.system.candidates[int(best)]

    def _rows(self, each):
        """Return the trainings of each seed, one for each fold; none before the trials."""
        change = self._chosen(each)
        if change is None:
            return []
        seeds = self.seeds if each.name in OURS else self.baseline_seeds
        return [[self._cell(each, i, seed, change) for i in range(len(each.folds))]
                for seed in range(SEED, SEED + seeds)]

    def _cell(self, each, i, seed, change):
        """Return one training: on fold `i`, with this seed and these candidate settings."""
        fold = each.folds[i]
        if each.size:
            fold = smaller(self.pool.rows, fold, each.size, seed)
        system = each.system
        size = f", {each.size} records" if each.size else ""
        what = (f"{each.protocol}{size}: {each.name}, seed {seed}, fold {i + 1} of "
                f"{len(each.folds)}, {change or 'as it is'}")

        epochs = system.quick_epochs if self.quick else None
        if self.epochs and system.quick_epochs:    # it is trained in epochs
            epochs = self.epochs
        key = {
            "code": code_of(system.fit),
            "versions": versions(),
            "records": self.pool.digest(fold),
            "seed": seed if system.is_random else None,
            "epochs": epochs,
            "change": change,
        }
        return Cell(what, system.fit, system.warm_up, Task(self.pool, fold, seed, epochs, change),
                    key)

    def _train_cells(self, cells):
        """Train the cells that the store lacks, the last ones first, and store each as it ends."""
        missing = {digest(cell.key): cell for cell in reversed(cells)
                   if self.store.get(cell.key) is None}
        todo = list(missing.values())
        if not todo:
            return
        if self.jobs > 1:
            os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")    # a core for each process
            for warm_up in {cell.warm_up for cell in todo if cell.warm_up}:
                with contextlib.suppress(ImportError):    # which the workers will say
                    warm_up()    # what it compiles is on disk then, for all of them

        start = time.monotonic()
        parallel = joblib.Parallel(self.jobs, return_as="generator_unordered", batch_size=1)
        results = parallel(joblib.delayed(train_cell)(i, cell) for i, cell in enumerate(todo))
        for done, (i, result) in enumerate(results, start=1):
            if isinstance(result, str):
                name = todo[i].what.partition(": ")[2].partition(",")[0]
                log(f"{name} is skipped: {result}")
                self.skipped[name] = result
            else:
                self.store.put(todo[i].key, result)
            minutes = (time.monotonic() - start) / 60
            log(f"{done} of {len(todo)} trainings are finished, {minutes:.1f} minutes")


@functools.cache
def versions():
    """Return the versions of all packages that could change a result, looked up once."""
    return origin.versions()


def code_of(fit):
    """Return a short hash of a system's code and of the settings bound to it.

    It is part of a result's key: a change of one system leaves the results of the others valid.
    """
    bound = getattr(fit, "keywords", {})    # of a functools.partial: a recipe
    folder = Path(__file__).parent
    text = code_sha256() + sha256(*sorted(folder.glob("*.py"))) + repr([bound, script.Settings()])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def train_cell(number, cell):
    """Train one cell, in this process or a worker; return its number and what it gave.

    Where a package that only this system needs is not installed, it gives the reason as a str.
    """
    try:
        if cell.warm_up:
            cell.warm_up()
        return number, train_once(cell.task, cell.fit, cell.what)
    except ImportError as error:
        return number, str(error)


def train_once(task, fit, what):
    """Train and predict the fold's test records; return all that is kept, ready for JSON."""
    log(f"--- {what}")
    start = time.perf_counter()
    system = fit(task)
    seconds = time.perf_counter() - start

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

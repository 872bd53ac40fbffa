"""Train systems on folds and seeds, and keep what each of them predicts."""

import os
import sys
import time
from typing import Any, NamedTuple

import joblib
import numpy as np

from benchmarks import baselines, folds, systems, thesis
from benchmarks.common import log
from benchmarks.folds import SEED, Fold
from benchmarks.scores import balanced_accuracy
from benchmarks.systems import System, Task
from ecg import files, origin
from ecg.errors import user_errors


class Wanted(NamedTuple):
    """A system to be measured on some folds."""

    system: System
    folds: list[Fold]
    size: int | None = None    # records to learn from; None: all of them


class Cell(NamedTuple):
    """One training of a benchmark."""

    key: dict[str, Any]          # all that its result depends on
    system: System
    task: Task


class Result(NamedTuple):
    """A system's predictions for the test records of a protocol, in the protocol's order."""

    title: str
    probabilities: np.ndarray    # (seeds, n, n_classes)
    seconds: float               # of one training, on average
    parameters: int
    chosen: dict                 # the candidate settings
    is_ours: bool = False

    @property
    def predicted(self):
        """Class numbers (seeds, n)."""
        return self.probabilities.argmax(axis=2)


class Runner:
    """Trains systems and keeps what is finished.

    Parameters
    ----------
    pool : Pool
    folder : str
        Keeps every training as it ends; several programs may share it.
    options : argparse.Namespace
        Of `accuracy.py`: seeds, baseline_seeds and jobs.
    """

    def __init__(self, pool, folder, options):
        self.pool = pool
        self.options = options
        modules = [module.__file__ for module in (systems, folds, baselines, thesis)]
        self.made_by = {
            "code": files.code_sha256() + files.sha256(*modules), "versions": origin.versions()}
        memory = joblib.Memory(folder, verbose=0)
        self.trained = memory.cache(train_cell, ignore=["system", "task"])

    def train(self, wanted):
        """Train what is wanted, unless the folder has it already.

        Of a system's candidate settings, those are used that do best on the validation patients of
        the first fold and seed.

        Parameters
        ----------
        wanted : list of Wanted
        """
        for each in wanted:
            with user_errors(each.system.title):    # such as a package that is not installed
                each.system.prepare(self.pool)      # here, and not in each process
        self._train_cells([cell for each in wanted for cell in self._trials(each)])
        self._train_cells([cell for each in wanted for row in self._rows(each) for cell in row])

    def result(self, each):
        """Return the `Result` of one `Wanted` that is trained."""
        rows = self._rows(each)
        runs = [self.trained(*cell) for row in rows for cell in row]
        probabilities = np.stack([
            np.concatenate([self._predict(cell)[cell.task.fold.test] for cell in row])
            for row in rows])
        seconds = float(np.mean([run["seconds"] for run in runs]))
        return Result(each.system.title, probabilities, seconds, runs[0]["parameters"],
                      self._chosen(each), each.system.is_ours)

    def _predict(self, cell):
        """Return the probabilities of all records of the pool by a training, after the step."""
        return cell.system.decide(cell.task, self.trained(*cell)["probabilities"])

    def _trials(self, each):
        """Return the trainings that candidate settings are chosen by."""
        return [self._cell(each, each.folds[0], SEED, change)
                for change in each.system.candidates]

    def _chosen(self, each):
        """Return the candidate settings to use: those whose trial was the best."""
        unseen = each.folds[0].validation
        scores = [
            balanced_accuracy(
                self.pool.targets[unseen], self._predict(cell)[unseen].argmax(axis=1))
            for cell in self._trials(each)]
        return each.system.candidates[int(np.argmax(scores))]

    def _rows(self, each):
        """Return the trainings of each seed, one for each fold."""
        change = self._chosen(each)
        n_seeds = self.options.seeds if each.system.is_ours else self.options.baseline_seeds
        return [[self._cell(each, fold, SEED + i, change) for fold in each.folds]
                for i in range(n_seeds)]

    def _cell(self, each, fold, seed, change):
        """Return one training: on this fold, with this seed and these candidate settings."""
        if each.size:
            fold = folds.smaller(self.pool.rows, fold, each.size, seed)
        key = {
            **self.made_by,
            "system": each.system.training,
            "records": self.pool.digest(fold),
            "seed": seed,
            "change": change}
        return Cell(key, each.system, Task(self.pool, fold, seed, change))

    def _train_cells(self, cells):
        """Train the cells that the folder lacks, none of them twice."""
        todo = {str(cell.key): cell for cell in cells
                if not self.trained.check_call_in_cache(*cell)}
        if self.options.jobs > 1:
            os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")    # a core for each process

        parallel = joblib.Parallel(
            self.options.jobs, return_as="generator_unordered", batch_size=1)
        results = parallel(joblib.delayed(self.trained)(*cell) for cell in todo.values())
        for done, _ in enumerate(results, start=1):
            log(f"{done} of {len(todo)} trainings are finished")


def train_cell(key, system, task):
    """Train one cell, in this process or a worker; return all that is kept of it.

    It predicts all records of the pool, before the rate step: so protocols that learn from the same
    records, and systems with other limits of the rate, share a training.
    """
    log(f"--- {system.title}, seed {task.seed}, {len(task.fold.train)} records, {task.change}")
    start = time.perf_counter()
    trained = system.fit(task)
    seconds = time.perf_counter() - start

    log(f"trained in {seconds:.0f} s")
    probabilities = trained.predict(np.arange(len(task.pool.targets)))
    if "keras" in sys.modules:    # free what it keeps of this model
        sys.modules["keras"].backend.clear_session()
    return {"probabilities": np.round(probabilities, 7), "seconds": seconds,
            "parameters": int(trained.parameters)}

"""Measure what labels of another hospital gain: by adapting a model, or by training on both.

    python too_feature.py --labels F1 --data-dir D --test-labels F2 --recipe large \\
        --output start_large.keras
    python benchmarks/adapt.py --labels F --data-dir D --paths 'files/ptbxl*' \\
        --test-paths 'files/cpsc*' --start start_large.keras --keep FOLDER

The models of --start were trained on the records of --paths, which are in F1; --test-paths, in F2,
are the other hospital's. Each draw cuts its patients in two: 60 % of which some records are
labelled, and 40 % to test on. Predictions of all draws are pooled. The rate step is part of each
method, its limits fitted to what the method learns from, or fixed.
"""

import functools
import sys
from pathlib import Path

import numpy as np
from scipy.special import softmax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere

import too_feature as script
from benchmarks import accuracy
from benchmarks.baselines import REGRESSIONS
from benchmarks.folds import add_records, numbers, read_pool, tested_on
from benchmarks.runs import Wanted
from benchmarks.systems import Fitted, System, inputs_of, train, with_limits
from ecg import adaptation, rate_step
from ecg.errors import UserError, exit_code
from ecg.files import sha256
from ecg.settings import Parser

SIZES = 0, 10, 20, 40    # labelled records of the other hospital
FEWEST = {"last": 10, "scratch": 20}    # with which these are measured
TEST_SHARE = 0.4         # of its patients


class Start:
    """A model to start from, and what its last layer sees of all records of a pool."""

    def __init__(self, pool, path):
        loaded = script.load(path)
        if pool.classes != loaded.classes:
            raise UserError(f"--start {path}: the model's classes are {loaded.classes}, those of "
                            f"the labels {pool.classes}")
        self.sha256 = sha256(path, __file__)
        self.recipe = loaded.recipe
        self.step = rate_step.of_card(loaded.card)

        _, keras = script.load_tensorflow()
        body, last = adaptation.split_model(keras, loaded.core, path)
        everything = pool.records(np.arange(len(pool.rows)), self.recipe)
        self.inputs = script.predict(body, everything).astype(float)
        self.layer = adaptation.LastLayer.of(last)

    def __repr__(self):
        return self.sha256    # in the keys of what is kept

    def fitted(self, layer):
        """Return the start with another last layer."""
        probabilities = softmax(layer.logits(self.inputs), axis=1)
        return Fitted(lambda numbers: probabilities[numbers], layer.weights.size)


# ---------------------------------------------------------------------------------------- methods
# Of a fold to train on, the first records are the first hospital's, the rest is local
def fit_start(task, start):
    """Take the start as it is."""
    return start.fitted(start.layer)


def step_of_start(task, limits, start):
    """Return the start's own rate step, or that of fixed limits."""
    return start.step._replace(limits=rate_step.fixed_limits(limits) or start.step.limits)


def fit_last(task, start, first, limits):
    """Fit the last layer, and choose by cross-validation how much of the change to keep."""
    pool, local = task.pool, task.fold.train[first:]
    step = local_step(task, limits, first)
    subjects = pool.rows["subject_id"].to_numpy()[local]
    decide = functools.partial(step.apply, rate=pool.rates[local])
    return start.fitted(adaptation.adapt(
        start.inputs[local], pool.targets[local], subjects, start.layer, task.seed, decide).layer)


def local_step(task, limits, first):
    """Return the rate step that the local labels imply, or that of fixed limits."""
    local = task.fold.train[first:]
    return rate_step.choose(
        limits, task.pool.classes, task.pool.rates[local, 0], task.pool.targets[local])


def fit_scratch(task, start, first):
    """Train the recipe anew on what a run draws of the first hospital, and all local records."""
    recipe = start.recipe
    settings = script.Settings(recipe=recipe, seed=task.seed)
    drawn = task.pool.draw(
        task.fold.train[:first], settings.train_samples, settings.seed, repeat=True)
    learnt = np.concatenate([drawn, task.fold.train[first:]])
    training, validation = (
        task.pool.records(part, recipe) for part in (learnt, task.fold.validation))
    return train(task.pool, training, validation, settings)


def methods(start, first):
    """Return the systems to compare, by name; `first` is the number of the first hospital."""
    prepare = inputs_of(start.recipe)
    is_large = start.recipe.model == "large"
    systems = with_limits({
        "start": System(
            "as it is", functools.partial(fit_start, start=start), prepare,
            choose_step=functools.partial(step_of_start, start=start)),
        "last": System(
            "**last layer** (`--start-from`)",
            functools.partial(fit_last, start=start, first=first), prepare,
            choose_step=functools.partial(local_step, first=first)),
        "scratch": System(
            "from scratch on both",
            functools.partial(fit_scratch, start=start, first=first), prepare),

        "regression": REGRESSIONS["regression" if is_large else "regression8"]._replace(
            title="logistic regression on both", candidates=({},))})
    for name in ("last", "last-fixed"):    # whose candidates are scored with the step
        system = systems[name]
        systems[name] = system._replace(
            fit=functools.partial(system.fit, limits=system.rate_limits))
    return {name: system for name, system in systems.items() if not name.endswith("-core")}


# ---------------------------------------------------------------------------------------- measure
def make_draws(rows, fold, n):
    """Return {number of labels: `n` folds}, each with other patients of those that `fold` tests."""
    other = rows.iloc[fold.test]
    draws = {size: [] for size in SIZES}
    for seed in range(n):
        shuffled = other["subject_id"].drop_duplicates().sample(frac=1, random_state=seed)
        is_test = other["subject_id"].isin(shuffled[:round(TEST_SHARE * len(shuffled))])
        labelled = numbers(other[~is_test].sample(frac=1, random_state=seed))
        for size in SIZES:
            draws[size].append(fold._replace(
                train=np.concatenate([fold.train, labelled[:size]]), test=numbers(other[is_test])))
    return draws


def run(options):
    """Measure, and print a table for each start."""
    pool = read_pool(options)
    fold = tested_on(pool.rows, options.paths, *options.test_paths)
    draws = make_draws(pool.rows, fold, options.draws)
    wanted = {}
    for path in options.start:
        systems = methods(Start(pool, path), len(fold.train))
        wanted[f"Start: {Path(path).stem}"] = {
            (name, size): Wanted(system, draws[size])
            for name, system in systems.items() for size in SIZES
            if size >= FEWEST.get(name.split("-")[0], 0)}
    accuracy.measure(pool, wanted, options)


def main(arguments=None):
    """Run the benchmark; return the exit code."""
    parser = Parser(__doc__)
    add_records(parser)
    parser.add_argument("--start", nargs="+", required=True, help="models trained on --paths")
    parser.add_argument("--draws", type=int, default=10, help="draws of patients, pooled")
    accuracy.add_machine(parser)
    parser.set_defaults(
        seeds=1, baseline_seeds=1, sizes=SIZES, ablation=False, references=["start"])
    return exit_code("adapt.py", run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

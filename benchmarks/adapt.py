"""Measure what labels of another hospital gain: by adapting a model, or by training on both.

    python too_feature.py --labels F1 --data-dir D --test-labels F2 --recipe large \\
        --output start_large.keras
    python benchmarks/adapt.py --labels F --data-dir D --paths 'files/ptbxl*' \\
        --test-paths 'files/cpsc*' --start start_large.keras --keep FOLDER

The models of --start were trained on the records of --paths, which are in F1; --test-paths, in F2,
are the other hospital's. Each draw cuts its patients in two: 60 % of which some records are
labelled, and 40 % to test on. Predictions of all draws are pooled. The rate step is part of each
method, its limits fitted to what the method learns from, or fixed. With --keep FOLDER every
training is saved as soon as it is there, and the same command continues.
"""

import contextlib
import functools
import sys
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
from scipy.special import softmax

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere

import too_feature as script
from benchmarks.common import code_sha256, log
from benchmarks.folds import SEED, add_records, numbers, read_pool, tested_on
from benchmarks.scores import MIN_RECORDS, Scorer, interval, versus
from ecg import adaptation, rate_step
from ecg.errors import UserError, exit_code
from ecg.files import sha256
from ecg.output.tables import markdown_table
from ecg.settings import Parser

SIZES = 10, 20, 40       # labelled records of the other hospital
TEST_SHARE = 0.4         # of its patients


class Draw(NamedTuple):
    """Numbers of the other hospital's records: those that may be labelled, in order, and tests."""

    seed: int
    pool: np.ndarray
    test: np.ndarray


class Bench:
    """A model to start from, and the records of both hospitals.

    Parameters
    ----------
    pool : benchmarks.folds.Pool
    fold : benchmarks.folds.Fold
        Tests on the other hospital.
    start : str
        A .keras file.
    """

    def __init__(self, pool, fold, start):
        self.pool = pool
        self.fold = fold
        loaded = script.load(start)
        if pool.classes != loaded.classes:
            raise UserError(f"--start {start}: the model's classes are {loaded.classes}, those of "
                            f"the labels {pool.classes}")
        self.recipe = loaded.recipe
        self.step = rate_step.of_card(loaded.card)

        _, keras = script.load_tensorflow()
        body, last = adaptation.split_model(keras, loaded.core, start)
        everything = self.records(np.arange(len(pool.rows)))
        self.inputs = script.predict(body, everything).astype(float)    # of the last layer
        self.layer = adaptation.LastLayer.of(last)

    def records(self, chosen):
        """Return the script's `Records` of these numbers."""
        return self.pool.records(chosen, self.recipe)

    def fit_step(self, learnt, limits):
        """Return the rate step of these limits, or with those that the records imply."""
        rates = self.pool.rates[learnt, 0]
        return rate_step.choose(limits, self.pool.classes, rates, self.pool.targets[learnt])


# ---------------------------------------------------------------------------------------- methods
def as_it_is(bench, local, draw, limits):
    """Predict with the start, by its own limits or fixed ones."""
    step = bench.fit_step(local, limits) if limits else bench.step
    return step, softmax(bench.layer.logits(bench.inputs), axis=1)


def last_layer(bench, local, draw, limits):
    """Fit the last layer, and choose by cross-validation how much of the change to keep."""
    step = bench.fit_step(local, limits)
    subjects = bench.pool.rows["subject_id"].to_numpy()
    decide = functools.partial(step.apply, rate=bench.pool.rates[local])
    adapted = adaptation.adapt(bench.inputs[local], bench.pool.targets[local], subjects[local],
                               bench.layer, draw.seed, decide)
    return step, softmax(adapted.layer.logits(bench.inputs), axis=1)


def from_scratch(bench, local, draw, limits):
    """Train the recipe anew on the first hospital's records and these."""
    settings = script.Settings(recipe=bench.recipe, seed=SEED + draw.seed)
    drawn = bench.pool.draw(
        bench.fold.train, settings.train_samples, settings.seed, repeat=True)
    learnt = np.concatenate([drawn, local])
    return bench.fit_step(np.unique(learnt), limits), bench.train(learnt, settings)


def train(key, bench, learnt, settings):
    """Train on these records; return the probabilities of all before the rate step."""
    log(f"{len(learnt)} records, seed {settings.seed}")
    with contextlib.redirect_stdout(sys.stderr):
        model, _, _ = script.train(bench.records(learnt), bench.records(bench.fold.validation),
                                   len(bench.pool.classes), settings)
    return script.predict(model, bench.records(np.arange(len(bench.pool.rows))))


def regression(bench, local, draw, limits):
    """Fit the logistic regression on the same features to both hospitals' records."""
    learnt = np.concatenate([bench.fold.train, local])
    baseline = script.fit_baseline(bench.records(learnt), len(bench.pool.classes), bench.recipe)
    _, features = bench.pool.inputs(bench.recipe)
    return bench.fit_step(learnt, limits), baseline.predict(features)


METHODS = {    # title: how to predict all records, and with how many labelled ones
    "as it is": (as_it_is, [0]),
    "**last layer** (`--start-from`)": (last_layer, SIZES),
    "from scratch on both": (from_scratch, SIZES[1:]),
    "logistic regression on both": (regression, [0, *SIZES]),
}
LIMITS = {"": "", ", limits 60 and 100": "60,100"}    # of the rate step


# ---------------------------------------------------------------------------------------- measure
def make_draws(pool, fold, n):
    """Return `n` draws of the patients that a fold tests on."""
    other = pool.rows.iloc[fold.test]
    draws = []
    for seed in range(n):
        shuffled = other["subject_id"].drop_duplicates().sample(frac=1, random_state=seed)
        tested = set(shuffled[:round(TEST_SHARE * len(shuffled))])
        is_test = other["subject_id"].isin(tested)
        pooled = other[~is_test].sample(frac=1, random_state=seed)
        draws.append(Draw(seed, numbers(pooled), numbers(other[is_test])))
    return draws


def predict_draws(bench, method, size, draws, limits):
    """Return the class numbers (1, n) that a method predicts for the tests of all draws."""
    predicted = []
    for draw in draws:
        step, probabilities = method(bench, draw.pool[:size], draw, limits)
        decided = step.apply(probabilities, bench.pool.rates)
        predicted.append(decided[draw.test].argmax(axis=1))
    return np.concatenate(predicted)[None]


def measure(bench, draws):
    """Return what each method predicts {title: {size: class numbers}}."""
    return {
        title + words: {size: predict_draws(bench, method, size, draws, limits) for size in sizes}
        for title, (method, sizes) in METHODS.items() for words, limits in LIMITS.items()}


def table(predicted, scorer, classes):
    """Return in Markdown the score of each method and size, less the start on the same records."""
    start = None
    rows = []
    for title, by_size in predicted.items():
        cells = dict.fromkeys([0, *SIZES], "")
        for size, of_size in by_size.items():
            score = scorer.balanced(of_size, classes)
            start = score if start is None else start    # the first row
            cells[size] = f"{score[0]:.3f} ({interval(score[1:])})"
            if size:
                cells[size] = f"{score[0]:.3f}, {versus(score, start)}"
        rows.append([title, *cells.values()])
    header = ["less the start (95 %)", "no label", *(f"{size} labels" for size in SIZES)]
    return markdown_table(header, rows)


# ------------------------------------------------------------------------------------------- main
def parse_options(arguments=None):
    """Read the command line."""
    parser = Parser(__doc__)
    add_records(parser)
    add = parser.add_argument
    add("--start", nargs="+", required=True, help="models trained on --paths")
    add("--draws", type=int, default=10, help="draws of patients, pooled")
    add("--keep", metavar="FOLDER", help="folder that keeps every training as soon as it ends")
    return parser.parse_args(arguments)


def run(options):
    """Measure, and print two tables for each start."""
    with contextlib.redirect_stdout(sys.stderr):
        pool = read_pool(options)
    fold = tested_on(pool.rows, options.paths, *options.test_paths)
    draws = make_draws(pool, fold, options.draws)
    tested = np.concatenate([draw.test for draw in draws])
    subjects = pool.rows["subject_id"].to_numpy()[tested]
    scorer = Scorer(pool.targets[tested], subjects, len(pool.classes))
    is_enough = np.bincount(pool.targets[fold.test]) >= MIN_RECORDS
    averages = {"": scorer.occurring, f", classes of {MIN_RECORDS} records": is_enough}

    memory = joblib.Memory(options.keep, verbose=0)
    for start in options.start:
        bench = Bench(pool, fold, start)
        key = [sha256(start), code_sha256(__file__), pool.digest(fold)]
        bench.train = functools.partial(memory.cache(train, ignore=["bench"]), key, bench)
        predicted = measure(bench, draws)
        for words, classes in averages.items():
            text = table(predicted, scorer, classes)
            print(f"### Start: {Path(start).stem}{words}\n\n{text}\n", flush=True)


def main(arguments=None):
    """Run the benchmark; return the exit code."""
    return exit_code("adapt.py", run, parse_options(arguments))


if __name__ == "__main__":
    sys.exit(main())

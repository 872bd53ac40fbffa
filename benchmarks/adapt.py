"""Measure what labels of another hospital gain: by adapting a model, or by training on both.

    python too_feature.py --labels F --data-dir D --test-labels F2 --test-data-dir D2 \\
        --recipe large --output start_large.keras
    python benchmarks/adapt.py --labels F --data-dir D --test-labels F2 --test-data-dir D2 \\
        --start start_large.keras --keep FOLDER

The models of --start were trained on F; F2 is the label file of the other hospital. Each draw cuts
the patients of F2 in two: 60 % of which some records are labelled, and 40 % to test on. Predictions
of all draws are pooled. With --keep FOLDER every result is saved as soon as it is there, and the
same command continues.
"""

import contextlib
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
from benchmarks.folds import SEED, fold_of, numbers, read_pool
from benchmarks.scores import Scorer, interval, versus
from ecg import adaptation
from ecg.errors import UserError, exit_code
from ecg.files import sha256
from ecg.output.model_card import markdown_table
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
    start : str
        A .keras file.
    """

    def __init__(self, pool, start):
        self.pool = pool
        loaded = script.load(start)
        if pool.classes != loaded.classes:
            raise UserError(f"--start {start}: the model's classes are {loaded.classes}, those of "
                            f"the labels {pool.classes}")
        self.recipe = loaded.recipe

        is_other = pool.rows["other"]
        self.fold = fold_of(pool.rows[~is_other], pool.rows[is_other])
        _, keras = script.load_tensorflow()
        body, last = adaptation.split_model(keras, loaded.core, start)
        everything = self.records(np.arange(len(pool.rows)))
        self.inputs = script.predict(body, everything).astype(float)    # of the last layer
        self.layer = adaptation.LastLayer.of(last)

    def records(self, chosen):
        """Return the script's `Records` of these numbers."""
        return self.pool.records(chosen, self.recipe)


# ---------------------------------------------------------------------------------------- methods
def last_layer(bench, local, draw):
    """Fit the last layer, and choose by cross-validation how much of the change to keep."""
    layer = bench.layer
    if len(local):
        subjects = bench.pool.rows["subject_id"].to_numpy()
        layer = adaptation.adapt(
            bench.inputs[local], bench.pool.targets[local], subjects[local], layer, draw.seed).layer
    return softmax(layer.logits(bench.inputs[draw.test]), axis=1)


def from_scratch(bench, local, draw):
    """Train the recipe anew on the first hospital's records and these."""
    settings = script.Settings(recipe=bench.recipe, seed=SEED + draw.seed)
    drawn = bench.pool.draw(
        bench.fold.train, settings.train_samples, settings.seed, repeat=True)
    training = bench.records(np.concatenate([drawn, local]))
    validation = bench.records(bench.fold.validation)
    model, _, _ = script.train(training, validation, len(bench.pool.classes), settings)
    return script.predict(model, bench.records(draw.test))


def regression(bench, local, draw):
    """Fit the logistic regression on the same features to both hospitals' records."""
    both = bench.records(np.concatenate([bench.fold.train, local]))
    baseline = script.fit_baseline(both, len(bench.pool.classes), bench.recipe)
    _, features = bench.pool.inputs(bench.recipe)
    return baseline.predict(features[draw.test])


METHODS = {    # title: how to predict a draw's tests, and with how many labelled records
    "as it is": (last_layer, [0]),
    "**last layer** (`--start-from`)": (last_layer, SIZES),
    "from scratch on both": (from_scratch, SIZES[1:]),
    "logistic regression on both": (regression, [0, *SIZES]),
}


# ---------------------------------------------------------------------------------------- measure
def make_draws(pool, n):
    """Return `n` draws of the other hospital's patients."""
    other = pool.rows[pool.rows["other"]]
    draws = []
    for seed in range(n):
        shuffled = other["subject_id"].drop_duplicates().sample(frac=1, random_state=seed)
        tested = set(shuffled[:round(TEST_SHARE * len(shuffled))])
        is_test = other["subject_id"].isin(tested)
        pooled = other[~is_test].sample(frac=1, random_state=seed)
        draws.append(Draw(seed, numbers(pooled), numbers(other[is_test])))
    return draws


def predict_draw(key, bench, title, size, draw):
    """Return the class numbers that a method predicts for the tests of a draw."""
    log(f"{title}, {size} labels, draw {draw.seed}")
    method, _ = METHODS[title]
    with contextlib.redirect_stdout(sys.stderr):
        return method(bench, draw.pool[:size], draw).argmax(axis=1)


def table(bench, key, draws, folder):
    """Return in Markdown the score of each method and size, less the start on the same records."""
    predict = joblib.Memory(folder, verbose=0).cache(predict_draw, ignore=["bench"])
    tested = np.concatenate([draw.test for draw in draws])
    subjects = bench.pool.rows["subject_id"].to_numpy()[tested]
    scorer = Scorer(bench.pool.targets[tested], subjects, len(bench.pool.classes))
    start = None
    rows = []
    for title, (_, sizes) in METHODS.items():
        cells = dict.fromkeys([0, *SIZES], "")
        for size in sizes:
            predicted = [predict(key, bench, title, size, draw) for draw in draws]
            score = scorer.balanced(np.concatenate(predicted)[None])
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
    add = parser.add_argument
    add("--labels", required=True, help="label file that the start was trained on")
    add("--data-dir", required=True, help="folder that the paths in it start from")
    add("--test-labels", required=True, help="label file of the other hospital")
    add("--test-data-dir", help="folder that its paths start from (default: --data-dir)")
    add("--start", nargs="+", required=True, help="models trained on --labels")
    add("--draws", type=int, default=10, help="draws of patients, pooled")
    add("--keep", metavar="FOLDER", help="folder that keeps every result as soon as it is there")

    # For `read_pool`: whole label files
    parser.set_defaults(folds=1, paths=(), test_paths=(), no_amplitudes=())
    return parser.parse_args(arguments)


def run(options):
    """Measure, and print a table for each start."""
    with contextlib.redirect_stdout(sys.stderr):
        pool, _ = read_pool(options)
    draws = make_draws(pool, options.draws)
    for start in options.start:
        bench = Bench(pool, start)
        key = {"start": sha256(start), "code": code_sha256(__file__),
               "labels": sha256(options.labels, options.test_labels)}
        text = table(bench, key, draws, options.keep)
        print(f"### Start: {Path(start).stem}\n\n{text}\n", flush=True)


def main(arguments=None):
    """Run the benchmark; return the exit code."""
    return exit_code("adapt.py", run, parse_options(arguments))


if __name__ == "__main__":
    sys.exit(main())

"""Measure what labels of another hospital gain: by adapting a model, or by training on both.

    python too_feature.py --labels F --data-dir D --test-labels F2 --test-data-dir D2 \\
        --recipe large --output start_large.keras
    python benchmarks/adapt.py --labels F --data-dir D --test-labels F2 --test-data-dir D2 \\
        --start start_large.keras --keep FOLDER --picture benchmarks/adapt.png

`F` are the records that the models of --start were trained on, `F2` those of the other hospital.
Each draw cuts the patients of F2 in two: 60 % of which some records are labelled, and 40 % to test
on. Predictions of all draws are pooled. Ten draws take 15 minutes on two cores for a large model.
With --keep FOLDER every result is saved as soon as it is there, and the same command continues.
"""

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.special import softmax

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere

import too_feature as script
from benchmarks.common import Store, log
from benchmarks.folds import SEED, fold_of, numbers, read_pool
from benchmarks.runs import forget_models
from benchmarks.scores import Scorer, difference, interval
from ecg import adaptation
from ecg.errors import UserError, exit_code
from ecg.files import code_sha256, sha256
from ecg.output import style
from ecg.output.model_card import markdown_table

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
        self.start = start
        loaded = script.load(start)
        if pool.classes != loaded.classes:
            raise UserError(f"--start {start}: tells {loaded.classes}, the labels {pool.classes}")
        self.model = loaded.model
        self.recipe = loaded.recipe
        self.settings = script.Settings(recipe=loaded.recipe, start_from=start)

        own = pool.rows[~pool.rows["other"]]
        self.fold = fold_of(own, pool.rows[pool.rows["other"]])
        everything = pool.records(np.arange(len(pool.rows)), self.recipe)
        body, last = adaptation.split_model(script.load_tensorflow()[1], self.model, start)
        self.inputs = script.predict(body, everything).astype(float)
        self.layer = adaptation.LastLayer.of(last)

    def records(self, chosen):
        """Return the script's `Records` of these numbers."""
        return self.pool.records(chosen, self.recipe)


# ---------------------------------------------------------------------------------------- methods
def as_it_is(bench, local, draw):
    """Ask the model as it is."""
    return softmax(bench.layer.logits(bench.inputs[draw.test]), axis=1)


def rescaled(bench, local, draw):
    """Ask the model with features scaled as the local records are, but for the heart rates."""
    _, features = bench.pool.inputs(bench.recipe)
    names = [name for name, _, _ in script.feature_names(bench.recipe)]
    is_rate = np.array(["heart rate" in name for name in names])
    own, other = features[bench.fold.train], features[local]
    here = np.nanmean(other, axis=0), np.nanstd(other, axis=0) + 1e-6
    there = np.nanmean(own, axis=0), np.nanstd(own, axis=0)
    records = bench.records(draw.test)
    moved = (records.features - here[0]) / here[1] * there[1] + there[0]
    moved = np.where(is_rate, records.features, moved).astype(np.float32)
    return script.predict(bench.model, records._replace(features=moved))


def last_layer(bench, local, draw):
    """Fit the last layer, and choose by cross-validation how much of the change to keep."""
    subjects = bench.pool.rows["subject_id"].to_numpy()
    adapted = adaptation.adapt(
        bench.inputs[local], bench.pool.targets[local], subjects[local], bench.layer, draw.seed)
    return softmax(adapted.layer.logits(bench.inputs[draw.test]), axis=1)


def last_layer_unchosen(bench, local, draw):
    """Fit the last layer, and keep it whatever cross-validation says."""
    fitted = adaptation.fit_last_layer(
        bench.inputs[local], bench.pool.targets[local], bench.layer)
    return softmax(fitted.logits(bench.inputs[draw.test]), axis=1)


def all_weights(bench, local, draw):
    """Train all weights further, as --adapt all does; a fifth of the records validates."""
    subjects = bench.pool.rows["subject_id"].to_numpy()[local]
    fold = adaptation.patient_folds(subjects, bench.pool.targets[local], draw.seed)
    usual = script.RECIPES[bench.recipe.name].learning_rate
    recipe = dataclasses.replace(bench.recipe, learning_rate=script.FINE_TUNING * usual)
    settings = dataclasses.replace(
        bench.settings, adapt="all", recipe=recipe, seed=SEED + draw.seed)
    model, _, _ = script.adapt(
        bench.records(local[fold > 0]), bench.records(local[fold == 0]), settings)
    return script.predict(model, bench.records(draw.test))


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


METHODS = {    # title: function, and which option says how many draws
    "as it is": (as_it_is, "draws"),
    "as it is, features scaled as local ones": (rescaled, "draws"),
    "**last layer** (`--start-from`)": (last_layer, "draws"),
    "last layer, the start no candidate": (last_layer_unchosen, "draws"),
    "all weights (`--adapt all`)": (all_weights, "slow_draws"),
    "from scratch on both": (from_scratch, "scratch_draws"),
    "logistic regression on both": (regression, "draws"),
}
WITHOUT_LABELS = as_it_is, regression


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


def measure(bench, store, options):
    """Return {title: {size: probabilities of all its draws, one after the other}}."""
    found = {}
    about = {"files": [sha256(file) for file in (options.labels, options.test_labels)]}
    for title, (method, many) in METHODS.items():
        draws = make_draws(bench.pool, getattr(options, many))
        sizes = (0, *SIZES) if method in WITHOUT_LABELS else SIZES
        sizes = (0,) if method is as_it_is else sizes
        sizes = SIZES[-1:] if method is from_scratch else sizes
        for size in sizes if draws else ():
            parts = []
            for draw in draws:
                key = {
                    **about, "start": sha256(bench.start), "title": title, "size": size,
                    "draw": draw.seed, "code": code_sha256() + sha256(__file__)}
                if store.get(key) is None:
                    log(f"{Path(bench.start).stem}, {title}, {size} labels, draw {draw.seed}")
                    store.put(key, measure_one(bench, method, draw, size))
                parts.append(np.array(store.get(key)))
            found.setdefault(title, {})[size] = np.concatenate(parts)
    return found


def measure_one(bench, method, draw, size):
    """Return the probabilities of a draw's test records, ready for JSON."""
    with contextlib.redirect_stdout(sys.stderr):
        probabilities = method(bench, draw.pool[:size], draw)
    forget = method in (all_weights, from_scratch)
    if forget:
        forget_models()
    return np.round(probabilities, 6).tolist()


def scores_of(bench, found, options):
    """Return {title: {size: (balanced accuracy and resamples, those of the start)}}."""
    scores = {}
    start = next(iter(found["as it is"].values()))
    for title, by_size in found.items():
        draws = make_draws(bench.pool, getattr(options, METHODS[title][1]))
        tested = np.concatenate([draw.test for draw in draws])
        subjects = bench.pool.rows["subject_id"].to_numpy()[tested]
        scorer = Scorer(bench.pool.targets[tested], subjects, len(bench.pool.classes))
        before = scorer.balanced(start[:len(tested)].argmax(axis=1)[None])
        scores[title] = {size: (scorer.balanced(p.argmax(axis=1)[None]), before)
                         for size, p in by_size.items()}
    return scores


# ----------------------------------------------------------------------------------------- output
def table(scores, options):
    """Return the scores of a start in Markdown."""
    rows = []
    for title, by_size in scores.items():
        cells = [title]
        for size in (0, *SIZES):
            if size not in by_size:
                cells.append("")
                continue
            balanced, before = by_size[size]
            cells.append(f"{balanced[0]:.3f} ({interval(balanced[1:])})" if not size
                         else f"{balanced[0]:.3f}, {difference(balanced, before)}")
        rows.append([*cells, getattr(options, METHODS[title][1])])
    heading = ["", "no label", *(f"{size} labels, less the start (95 %)" for size in SIZES),
               "draws"]
    return markdown_table(heading, rows)


def draw_picture(file, scores):
    """Draw balanced accuracy by number of labels, a panel for each start."""
    with style.styled():
        figure = Figure((style.PAGE, 3.6), layout="constrained")
        panels = figure.subplots(1, len(scores), squeeze=False, sharey=True)[0]
        for axes, (start, by_title) in zip(panels, scores.items(), strict=True):
            draw_panel(axes, by_title)
            axes.set(title=Path(start).stem, xlabel="labelled records of the other hospital")

        panels[0].set_ylabel("balanced accuracy")
        handles, titles = panels[0].get_legend_handles_labels()
        figure.legend(
            handles,
            titles,
            loc="outside lower center",
            ncols=2)
    style.save(figure, Path(file).with_suffix(""), ["png"])


def draw_panel(axes, by_title):
    """Draw a line for each way to use the labels; what needs none is a level line."""
    for i, (title, by_size) in enumerate(by_title.items()):
        sizes = sorted(by_size)
        values = [by_size[size][0][0] for size in sizes]
        name = title.replace("*", "").replace("`", "")
        if title == "as it is":
            axes.axhline(values[0], color="0.6", label=name)
        else:
            turn, place = divmod(i, len(style.COLOURS))    # a colour that returns is dashed
            axes.plot(
                sizes,
                values,
                color=style.COLOURS[place],
                linestyle=("-", "--")[turn],
                marker="o",
                markersize=4,
                label=name)


# ------------------------------------------------------------------------------------------- main
def parse_options(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--labels", required=True, help="label file that the start was trained on")
    add("--data-dir", required=True, help="folder that the paths in it start from")
    add("--test-labels", required=True, help="label file of the other hospital")
    add("--test-data-dir", help="folder that its paths start from (default: --data-dir)")
    add("--start", nargs="+", required=True, help="models trained on --labels")
    add("--draws", type=int, default=10, help="draws of each method that takes a second")
    add("--slow-draws", type=int, default=10, help="draws of training all weights")
    add("--scratch-draws", type=int, default=2, help="draws of training from scratch")
    add("--keep", metavar="FOLDER", help="folder that keeps every result as soon as it is there")
    add("--picture", help="file for a picture of the learning curves")
    return parser.parse_args(arguments)


def run(options):
    """Measure, and print a table for each start."""
    options.folds = 1
    options.paths = options.test_paths = options.no_amplitudes = ()    # whole label files
    store = Store(options.keep)
    with contextlib.redirect_stdout(sys.stderr):
        pool, _ = read_pool(options)

    scores = {}
    for start in options.start:
        bench = Bench(pool, start)
        found = measure(bench, store, options)
        scores[start] = scores_of(bench, found, options)
        print(f"### Start: {Path(start).stem}\n\n{table(scores[start], options)}\n", flush=True)
    if options.picture:
        draw_picture(options.picture, scores)


def main(arguments=None):
    """Run the benchmark; return the exit code."""
    return exit_code("adapt.py", run, parse_options(arguments))


if __name__ == "__main__":
    sys.exit(main())

"""Compare our models with their baselines side by side: same patients, same seeds, one table.

    pip install -r benchmarks/requirements.txt
    python benchmarks/accuracy.py --labels F --data-dir D                  # one patient-wise split
    python benchmarks/accuracy.py --labels F --data-dir D --folds 5        # five, pooled
    python benchmarks/accuracy.py --labels F --data-dir D --test-labels F2 --test-data-dir D2
    python benchmarks/accuracy.py --labels F --data-dir D --test-paths 'files/cpsc*'
    python benchmarks/accuracy.py ... --learning-curve    # who is best with how many records
    python benchmarks/accuracy.py ... --ablation          # what each change of the default gains
    python benchmarks/accuracy.py --help

The tables go to standard output in Markdown, progress to standard error. With --keep FOLDER every
training is saved as soon as it ends: the same command continues where it was interrupted, other
commands take from it what they have in common, and what the code or the records no longer fit is
trained again. A training of the default takes some 35 s on one core, of the large model 100 s.
"""

import argparse
import contextlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere

import too_feature as script
from benchmarks import ablation, curve, tables, thesis
from benchmarks.baselines import BASELINES
from benchmarks.common import Store, fill, find_markers, log
from benchmarks.folds import read_pool, size_of
from benchmarks.runs import Runner, Wanted
from benchmarks.systems import OURS, System, recipe_system
from ecg.errors import UserError

SYSTEMS = {    # in the order of the table
    "rule": BASELINES["rule"],
    "criteria": BASELINES["criteria"],
    "thesis": System("thesis recipe to the letter", thesis.fit, quick_epochs=8,
                     prepare=thesis.prepare_all),
    "fixed": recipe_system("thesis recipe, its mistakes fixed", script.RECIPES["thesis"]),
    **BASELINES,
    **OURS,
}


def compare(runner, protocols, options):
    """Measure the systems asked for, and print the tables of those that are finished."""
    wanted = {title: {name: Wanted(name, SYSTEMS[name], title, folds) for name in options.systems}
              for title, folds in protocols.items()}
    try:
        train(runner, [each for of_title in wanted.values() for each in of_title.values()])
    finally:    # an interrupted run still shows what it has
        for title, folds in protocols.items():
            results = finished(runner, wanted[title])
            if results:
                text = tables.protocol_tables(
                    results, runner.pool, title, folds, options, runner.skipped)
                show(text, title, options)


def ablate(runner, protocols, options):
    """Measure one step of the ablation after the other, and print what each gains."""
    wanted = {}
    for step, recipe in ablation.steps().items():
        system = ablation.step_system(step, recipe)
        wanted[step] = {title: Wanted("default", system, f"{step}/{title}", folds)
                        for title, folds in protocols.items()}
    try:
        train(runner, [each for of_step in wanted.values() for each in of_step.values()])
    finally:    # an interrupted run still shows what it has
        results = {step: finished(runner, of_step) for step, of_step in wanted.items()}
        if any(results.values()):
            text = tables.ablation_table(results, runner.pool, protocols, options)
            show(text, tables.ABLATION, options)


def learn(runner, protocols, options):
    """Measure the systems on more and more records; print the tables and draw the picture."""
    wanted = {}
    for title, folds in protocols.items():
        most = min(size_of(fold) for fold in folds)
        sizes = {n: n for n in options.sizes if n < most} | {most: None}
        wanted[title] = {name: {n: Wanted(name, SYSTEMS[name], title, folds, size)
                                for n, size in sizes.items()} for name in options.systems}
    try:
        train(runner, [each for of_title in wanted.values() for by_size in of_title.values()
                       for each in by_size.values()])
    finally:    # an interrupted run still shows what it has
        curves = {}
        for title, of_title in wanted.items():
            found = {name: finished(runner, by_size) for name, by_size in of_title.items()}
            found = {name: by_size for name, by_size in found.items() if by_size}
            if found:
                curves[title] = found
                text = tables.curve_tables(found, runner.pool, title, protocols[title], options)
                show(text, tables.curve_title(title), options)
        if options.picture and curves:
            curve.draw(curves, runner.pool, protocols, options.picture)


def train(runner, wanted):
    """Prepare the records in each way that the systems need, once, and train."""
    for each in wanted:
        if each.system.prepare:
            each.system.prepare(runner.pool)
    runner.train(wanted)


def finished(runner, wanted):
    """Return the results that are complete, of a dict of `Wanted`."""
    results = {name: runner.result(each) for name, each in wanted.items()}
    return {name: result for name, result in results.items() if result}


def show(text, title, options):
    """Print tables, and put them into the file that --write names."""
    print(text, flush=True)
    is_interrupted = sys.exc_info()[0] is not None
    if options.write and not is_interrupted:
        fill(options.write, title, text)


# ------------------------------------------------------------------------------------------ main
def parse_options(arguments=None):
    """Read the command line."""
    known = ",".join(SYSTEMS)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_records(parser.add_argument_group("records"))
    add = parser.add_argument
    add("--systems", type=lambda text: text.split(","),
        help=f"systems to compare, some of {known} (default: all; of a learning curve "
        f"{','.join(curve.SYSTEMS)})")
    add("--seeds", type=int, help="trainings of each of ours (default: 3, with --quick 1)")
    add("--baseline-seeds", type=int, help="trainings of each baseline (default: that of --seeds)")
    add("--quick", action="store_true", help="one seed, one trial, few epochs")
    add("--epochs", type=int, help="epochs of every network at most, to try a command out")
    add("--jobs", type=int, default=1, help="processes, each of which trains on a core of its own")
    add("--keep", metavar="FOLDER", help="folder that keeps every training as it ends")
    add("--write", metavar="FILE",
        help="Markdown file whose tables are replaced, each of them between the lines "
        "<!-- its heading --> and <!-- end -->")

    add("--ablation", action="store_true",
        help="measure what each change gains instead of comparing systems")
    add("--learning-curve", action="store_true",
        help="measure with fewer records to learn from instead of comparing systems")
    add("--sizes", type=int, nargs="+", default=list(curve.SIZES),
        help="of the learning curve, besides all records (default: "
        f"{' '.join(map(str, curve.SIZES))})")
    add("--picture", help="PNG file to draw the learning curve into")

    options = parser.parse_args(arguments)
    if options.systems is None:
        options.systems = list(curve.SYSTEMS if options.learning_curve else SYSTEMS)
    unknown = set(options.systems) - set(SYSTEMS)
    if unknown:
        parser.error(f"--systems {','.join(sorted(unknown))}: expected some of {known}")
    options.seeds = options.seeds or (1 if options.quick else 3)
    options.baseline_seeds = options.baseline_seeds or options.seeds
    return options


def add_records(group):
    """Add the options that say which records are trained and tested on."""
    add = group.add_argument
    add("--labels", required=True, help="label file to train on")
    add("--data-dir", required=True, help="folder that the paths in it start from")
    add("--paths", nargs="+", default=[], metavar="PATTERN",
        help="take only those records of --labels whose paths match, such as 'files/ptbxl*'")
    add("--folds", type=int, default=1,
        help="patient-wise folds of --paths, pooled (1: one split, or none with others to test on)")
    add("--test-paths", nargs="+", default=[], metavar="PATTERN",
        help="for each pattern: test on those records, and train on the rest of --paths")
    add("--test-labels", help="label file of another hospital, to test on")
    add("--test-data-dir",
        help="folder that the paths in --test-labels start from (default: --data-dir)")
    add("--no-amplitudes", nargs="+", default=[], metavar="PATTERN",
        help="records that are not in mV: their mean and SD of lead II count as not measured")


def run(options):
    """Measure what the options ask for, and print the tables."""
    with contextlib.redirect_stdout(sys.stderr):    # the script's notices do not belong in a table
        pool, protocols = read_pool(options)

    if options.write:
        check_markers(protocols, options)
    runner = Runner(pool, Store(options.keep), options.seeds, options.baseline_seeds, options.quick,
                    options.epochs, options.jobs)
    if options.ablation:
        ablate(runner, protocols, options)
    elif options.learning_curve:
        learn(runner, protocols, options)
    else:
        compare(runner, protocols, options)


def check_markers(protocols, options):
    """Raise `UserError` unless --write names a file with a place for each table."""
    titles = list(protocols)
    if options.ablation:
        titles = [tables.ABLATION]
    elif options.learning_curve:
        titles = [tables.curve_title(title) for title in protocols]
    for title in titles:
        find_markers(options.write, title)


def main(arguments=None):
    """Run the benchmark; return the exit code."""
    options = parse_options(arguments)
    try:
        run(options)
        return 0
    except UserError as error:
        log(f"accuracy.py: error: {error}")
        return 2
    except KeyboardInterrupt:
        if options.keep:
            log(f"interrupted; the same command continues with {options.keep}")
        else:
            log("interrupted; --keep FOLDER would keep what is finished")
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""Compare our models with their baselines side by side: same patients, same seeds, one table.

    pip install -r benchmarks/requirements.txt
    python benchmarks/accuracy.py --labels F --data-dir D --folds 5    # by patient, pooled
    python benchmarks/accuracy.py --labels F --data-dir D --paths 'files/ptbxl*' \\
        --test-paths 'files/cpsc*' 'files/georgia*'                    # from hospital to hospital
    python benchmarks/accuracy.py ... --learning-curve 300 600    # with fewer records
    python benchmarks/accuracy.py ... --ablation                  # what each change gains
    python benchmarks/accuracy.py --help

The tables go to standard output in Markdown, progress to standard error. With --keep FOLDER every
training is saved as soon as it ends: the same command continues where it was interrupted, other
commands take from it what they have in common, and what the code or the records no longer fit is
trained again. A training of the default takes some 35 s on one core, of the large model 100 s.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere

import too_feature as script
from benchmarks import tables, thesis
from benchmarks.baselines import BASELINES, REGRESSIONS
from benchmarks.common import find_markers, replace_table
from benchmarks.folds import add_records, find_protocols, read_pool, size_of
from benchmarks.runs import Runner, Wanted
from benchmarks.systems import OURS, System, recipe_system, with_limits
from ecg.errors import exit_code
from ecg.files import write_bytes
from ecg.settings import Parser

REFERENCES = "regression", "default"    # systems that all others are compared with
SYSTEMS = {
    **BASELINES,
    "thesis": System("thesis recipe to the letter", thesis.fit, thesis.prepare_all),
    "fixed": recipe_system(
        "thesis recipe, its mistakes fixed", script.RECIPES["thesis"], is_ours=False),
    **with_limits(REGRESSIONS | OURS),
}

CHANGES = {    # of the ablation: fields of `Recipe` that take the default's values, step by step
    "+ band-pass, percentile scaling": ("high_pass", "central_share", "scale_span"),
    "+ memory: start of the forget gates": ("lstm_memory",),
    "+ limit on scaled features": ("feature_limit",),
    "+ noise on amplitude features": ("amplitude_noise",),
    "+ shift in time, gain of leads": ("shift", "lead_gain"),
    "+ batch normalisation frozen": ("freeze_bn_after",),
    "+ last weights kept": ("keep_weights",),
    "+ curve of the heart rate": ("rate_curve",),
    "+ the rate decides": ("rate_limits",),
}


# ---------------------------------------------------------------------------------------- measure
def ablation_steps():
    """Return the systems from the thesis's recipe, its mistakes fixed, to the default."""
    default = script.RECIPES["default"]
    recipe = script.RECIPES["thesis"]
    steps = {"thesis, mistakes fixed": recipe}
    for title, names in CHANGES.items():
        recipe = dataclasses.replace(recipe, **{name: getattr(default, name) for name in names})
        steps[title] = recipe
    return {title: recipe_system(title, recipe) for title, recipe in steps.items()}


def plan(protocols, options):
    """Return what is to be measured for the table of each protocol.

    Returns
    -------
    dict
        By the heading of the table, {(name of the system, number of records): Wanted}.
    """
    systems = {name: SYSTEMS[name] for name in options.systems}
    heading = "Learning curve, " if options.sizes else ""
    if options.ablation:
        systems = ablation_steps()
        heading = "What each change of the default gains, "

    tables_of = {}
    for protocol, folds in protocols.items():
        most = min(map(size_of, folds))
        sizes = {size: size for size in options.sizes if size < most} | {most: None}
        tables_of[heading + protocol] = {
            (name, n): Wanted(system, folds, size)
            for name, system in systems.items() for n, size in sizes.items()}
    return tables_of


def measure(pool, wanted, options):
    """Train what the tables need, and print them."""
    if options.write:
        for heading in wanted:    # before hours of training
            find_markers(options.write, heading)
    with tempfile.TemporaryDirectory() as scratch:
        runner = Runner(pool, options.keep or scratch, options)
        runner.train([each for of_table in wanted.values() for each in of_table.values()])
        report(runner, wanted, options)


def report(runner, wanted, options):
    """Print the tables; put them into the file that --write names, and all details into a CSV."""
    pool = runner.pool
    details = []
    for heading, of_table in wanted.items():
        results = {row: runner.result(each) for row, each in of_table.items()}
        scorer = tables.scorer_of(pool, next(iter(of_table.values())).folds)
        text = tables.table(results, scorer, pool.classes, options)
        text = f"### {heading[:1].upper()}{heading[1:]}\n\n{text}\n"
        print(text, flush=True)
        if options.write:
            replace_table(options.write, heading, text)
        if not options.sizes and not options.ablation:
            details += [{"table": heading, **row}
                        for row in tables.details(results, scorer, pool.classes)]
    if options.write and details:
        frame = pd.DataFrame(details).round(3)
        path = Path(options.write).with_suffix(".csv")
        write_bytes(path, frame.to_csv(index=False).encode())


# ------------------------------------------------------------------------------------------ main
def parse_options(arguments=None):
    """Read the command line."""
    parser = Parser(__doc__)
    add_records(parser)
    add = parser.add_argument
    add("--folds", type=int, default=0, help="patient-wise folds of --paths, pooled")
    add("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS),
        help="systems to compare (default: all)")

    add("--seeds", type=int, default=3, help="trainings of each of ours (default: 3)")
    add("--baseline-seeds", type=int, help="trainings of each baseline (default: that of --seeds)")
    add_machine(parser)
    add("--ablation", action="store_true",
        help="measure what each change from the thesis's recipe to the default gains")
    add("--learning-curve", dest="sizes", type=int, nargs="+", default=[], metavar="N",
        help="measure with so many records to learn from, too")

    options = parser.parse_args(arguments)
    options.baseline_seeds = options.baseline_seeds or options.seeds
    options.references = REFERENCES[:1] if options.sizes else REFERENCES
    if options.ablation:
        options.references = ()
    return options


def add_machine(parser):
    """Add the options that say how to train, and where to results go."""
    add = parser.add_argument
    add("--jobs", type=int, default=1, help="processes, each of which trains on a core of its own")
    add("--keep", metavar="FOLDER", help="folder that keeps every training as it ends")
    add("--write", metavar="FILE",
        help="Markdown file whose tables are replaced, each of them between the lines "
        "<!-- its heading --> and <!-- end -->; all details go into the CSV of that name")


def run(options):
    """Measure what the options ask for, and print the tables."""
    pool = read_pool(options)
    measure(pool, plan(find_protocols(pool.rows, options), options), options)


def main(arguments=None):
    """Run the benchmark; return the exit code."""
    return exit_code("accuracy.py", run, parse_options(arguments))


if __name__ == "__main__":
    sys.exit(main())

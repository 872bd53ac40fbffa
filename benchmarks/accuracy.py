"""Compare our models with their rivals side by side: same patients, same seeds, one table.

    pip install -r benchmarks/requirements.txt
    python benchmarks/accuracy.py --labels F --data-dir D                  # one patient-wise split
    python benchmarks/accuracy.py --labels F --data-dir D --folds 5        # five, pooled
    python benchmarks/accuracy.py --labels F --data-dir D --test-labels F2 --test-data-dir D2
    python benchmarks/accuracy.py --labels F --data-dir D --ablation       # what each change gains
    python benchmarks/accuracy.py --help

The tables go to standard output in markdown, progress to standard error. With --json FILE every
training is saved as soon as it ends, and the same command continues where it was interrupted.
About 50 minutes for 1,182 records on two cores and one split; --quick under ten.
"""

import argparse
import contextlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere

from benchmarks import ablation, tables, thesis
from benchmarks.common import Store, log
from benchmarks.folds import read_pool
from benchmarks.rivals import RIVALS
from benchmarks.runs import Runner
from benchmarks.systems import OURS, System
from ecg.errors import UserError
from ecg.files import fingerprint, sha256

SYSTEMS = {    # in the order of the table
    "rule": RIVALS["rule"],
    "thesis": System("thesis recipe to the letter", thesis.fit, quick_epochs=8),
    **RIVALS,
    **OURS,
}


def compare(runner, protocol, folds, options):
    """Measure the systems asked for, and print the tables of those that are finished."""
    results = {}
    skipped = {}
    try:
        for name in options.systems:
            system = SYSTEMS[name]
            try:
                if system.warm_up:
                    system.warm_up()
                results[name] = runner.measure(name, system, protocol, folds)
            except ImportError as error:    # of a package that only this rival needs
                log(f"{name} is skipped: {error}")
                skipped[name] = str(error)
    finally:    # an interrupted run still shows what it has
        if results:
            text = tables.protocol_tables(results, runner.pool, protocol, folds, options, skipped)
            print(text, flush=True)


def ablate(runner, protocols, options):
    """Measure one step of the ablation after the other, and print what each gains."""
    results = {}
    try:
        for title, recipe in ablation.steps().items():
            system = ablation.step_system(title, recipe)
            results[title] = {}
            for protocol, folds in protocols.items():
                results[title][protocol] = runner.measure("default", system, f"{title}/{protocol}",
                                                          folds)
    finally:    # an interrupted run still shows what it has
        if results:
            print(tables.ablation_table(results, runner.pool, protocols, options), flush=True)


# ------------------------------------------------------------------------------------------ main
def parse_options(arguments=None):
    """Read the command line."""
    known = ",".join(SYSTEMS)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", required=True, help="label file to train on")
    parser.add_argument("--data-dir", required=True, help="folder that the paths in it start from")
    parser.add_argument("--test-labels", help="label file of another hospital, to test on")
    parser.add_argument("--test-data-dir",
                        help="folder that the paths in --test-labels start from (default: "
                        "--data-dir)")
    parser.add_argument("--folds", type=int, default=1,
                        help="patient-wise folds of --labels, pooled (1: one split; with "
                        "--test-labels and 2 or more: both tables)")
    parser.add_argument("--seeds", type=int,
                        help="trainings of each system (default: 3, with --quick 1)")
    parser.add_argument("--systems", type=lambda text: text.split(","), default=list(SYSTEMS),
                        help=f"systems to compare, some of {known}")
    parser.add_argument("--quick", action="store_true", help="one seed, one trial, few epochs")
    parser.add_argument("--ablation", action="store_true",
                        help="measure what each change gains instead of comparing systems")
    parser.add_argument("--json", help="file that keeps every training as it ends")

    options = parser.parse_args(arguments)
    unknown = set(options.systems) - set(SYSTEMS)
    if unknown:
        parser.error(f"--systems {','.join(sorted(unknown))}: expected some of {known}")
    if options.seeds is None:
        options.seeds = 1 if options.quick else 3
    return options


def about(options):
    """Return what all results depend on: records, options and the code that makes the folds."""
    files = [options.labels, options.test_labels]
    return {
        "files": [sha256(file) for file in files if file and Path(file).exists()],
        "folders": [options.data_dir, options.test_data_dir],
        "folds": options.folds,
        "quick": options.quick,
        "code": fingerprint(read_pool)}


def run(options):
    """Measure what the options ask for, and print the tables."""
    store = Store(options.json, about(options))
    with contextlib.redirect_stdout(sys.stderr):    # the script's notices do not belong in a table
        pool, protocols = read_pool(options)

    runner = Runner(pool, store, options.seeds, options.quick)
    if options.ablation:
        ablate(runner, protocols, options)
    else:
        for protocol, folds in protocols.items():
            compare(runner, protocol, folds, options)


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
        if options.json:
            log(f"interrupted; the same command continues with {options.json}")
        else:
            log("interrupted; --json FILE would keep what is finished")
        return 130


if __name__ == "__main__":
    sys.exit(main())

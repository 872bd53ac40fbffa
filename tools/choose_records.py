"""Choose which records to label next: those that would teach a model most, and some at random.

    python tools/choose_records.py real_large my_data --number 50         # a folder of records
    python tools/choose_records.py m.keras @list.txt --data-dir my_data   # paths from a file
    python tools/choose_records.py real_large my_data --plot pages        # an ECG page of each

It writes a label file whose third column is empty: fill in the classes, then adapt the model with
`python too_feature.py --start-from real_large --labels FILE --data-dir my_data`. Every second
record is drawn at random. The others are chosen by uncertainty and variety: far apart in the
gradient that the likeliest label would give the last layer (BADGE: Ash et al., ICLR 2020). At most
one record a patient: the folder pNNNNNNNN, or else each record counts as a patient.

Measured (benchmarks/adapt.py, from PTB-XL to CPSC 2018): no better than drawing all at random. With
20 and 40 labels, balanced accuracy 0.895 and 0.897 (random 0.884 and 0.896) for the large model,
0.863 and 0.870 (0.865 and 0.880) for the default.
"""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import numpy as np
import pandas as pd

import too_feature as script
from ecg import files
from ecg.errors import UserError, exit_code, printable, user_errors
from ecg.label_file import SAFE_PATH, is_patient
from ecg.settings import Parser, whole_number
from tools import classify

PATIENT = re.compile(r"(?:^|/)p(\d{8})(?:/|$)")    # a patient's folder in MIMIC-IV-ECG


# ----------------------------------------------------------------------------------------- choose
def patient_of(path: str) -> str:
    """Return the patient of a record, as its folder tells; else the record's own path."""
    found = PATIENT.findall(path)
    return found[-1] if found else path[-100:]    # a label file takes no more


def gradients(inputs: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the gradients (n, n_inputs * n_classes) that the likeliest labels would give.

    They are long where the model is uncertain, and point in different directions where records
    differ.
    """
    likeliest = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    products = (probabilities - likeliest)[:, :, None] * inputs[:, None, :]
    return products.reshape(len(inputs), -1)


def choose(inputs: np.ndarray, probabilities: np.ndarray, number: int, seed: int = 42) -> list[int]:
    """Choose records to label, in the order in which to label them.

    Parameters
    ----------
    inputs : ndarray, shape (n, n_inputs), of the model's last layer
    probabilities : ndarray, shape (n, n_classes)
    number : int, at most n
    seed : int

    Returns
    -------
    list of int
        Places of the records: by turns one that would teach much, drawn with a chance that grows
        with the squared distance of its gradient from those chosen, and one at random.
    """
    rng = np.random.default_rng(seed)
    points = gradients(inputs, probabilities)
    distance = (points**2).sum(axis=1)    # at first, from a record that teaches nothing
    chosen: list[int] = []
    is_left = np.ones(len(points), dtype=bool)
    while len(chosen) < min(number, len(points)):
        chance = is_left.astype(float)
        if len(chosen) % 2 == 0 and distance[is_left].any():
            chance *= distance
        place = int(rng.choice(len(points), p=chance / chance.sum()))

        chosen.append(place)
        is_left[place] = False
        distance = np.minimum(distance, ((points - points[place]) ** 2).sum(axis=1))
    return chosen


def one_a_patient(paths: Iterable[str], seed: int) -> list[str]:
    """Return one path of each patient, drawn at random, in the order of the patients."""
    shuffled = pd.Series(sorted(set(paths))).sample(frac=1, random_state=seed)
    return sorted(shuffled.groupby(shuffled.map(patient_of)).first())


# ------------------------------------------------------------------------------------------- main
def find_paths(source: str, data_dir: str | None) -> tuple[list[str], str]:
    """Return the records of a folder or a list, and the folder that their paths start from."""
    if not source.startswith("@") and source != "-":
        folder = data_dir or source
        if not Path(source).is_dir():
            raise UserError(f"{source}: expected a folder, or @file with a path on each line")
        found = classify.find_records([source])
    else:
        folder = data_dir or "."
        found = [f"{folder}/{path}" for path in classify.find_records([source])]

    with user_errors("--data-dir", ValueError):
        return [Path(path).relative_to(folder).as_posix() for path in found], folder


def drop_unsafe(paths: list[str]) -> list[str]:
    """Return the paths that a label file takes; each other is said to be left out."""
    fit = []
    for path in paths:
        if re.fullmatch(SAFE_PATH, path) and is_patient(patient_of(path)):
            fit.append(path)
            continue
        print(f"choose_records.py: left out {printable(path)}: no name that a label file takes",
              file=sys.stderr)
    return fit


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        __doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(__doc__ or "").partition("\n\n")[2])
    add = parser.add_argument
    add("model", metavar="MODEL", help=".keras file with its .json, or real_large or real_default")
    add("data", metavar="DATA", help="folder of records, or @file or - with a path on each line")
    add("--data-dir", help="folder that the paths of the label file start from (default: DATA, or "
        "the current folder for a list)")
    add("--number", type=whole_number, default=50, help="records to choose (default: %(default)s)")
    add("--output", default="to_label.csv", help="label file to write (default: %(default)s)")
    add("--plot", metavar="FOLDER", help="folder to draw the ECG page of each record in, as PNG")
    add("--seed", type=whole_number, default=42, help="seed of the draws (default: %(default)s)")
    add("--jobs", type=whole_number, default=0,
        help="worker processes that read records; 0 chooses for you (default: %(default)s)")
    parser.set_defaults(pdf=False)    # of `classify.plot`
    return parser.parse_args(arguments)


def check_arguments(asked: argparse.Namespace) -> None:
    """Raise `UserError` for what would only fail after the records are read."""
    for name, low, high in (("number", 1, 10**7), ("seed", 0, 2**32 - 1), ("jobs", 0, 1024)):
        if not low <= getattr(asked, name) <= high:
            raise UserError(f"--{name} {getattr(asked, name)}: expected a number from {low} to "
                            f"{high}")
    if Path(asked.output).exists():
        raise UserError(f"--output {asked.output}: is there already, with labels perhaps; name "
                        "another file")
    with user_errors("--output", UserError):
        files.check_target(asked.output)


def run(asked: argparse.Namespace) -> None:
    """Choose records, and write the label file to fill in."""
    check_arguments(asked)
    asked.model = classify.choose_model(asked.model)
    paths, folder = find_paths(asked.data, asked.data_dir)
    candidates = one_a_patient(drop_unsafe(paths), asked.seed)
    found = list(classify.results(
        [f"{folder}/{path}" for path in candidates], asked.model, asked.jobs, with_embedding=True))
    usable = [place for place, one in enumerate(found) if not one.left_out]
    for one in found:
        if one.left_out:
            print(f"choose_records.py: left out {printable(one.record)}: {printable(one.left_out)}",
                  file=sys.stderr)
    if not usable:
        raise UserError(f"{asked.data}: none of the records can be used")

    inputs = np.stack([found[place].embedding for place in usable])
    probabilities = np.stack([found[place].probabilities for place in usable])
    places = [usable[place] for place in choose(
        inputs, probabilities, asked.number, asked.seed)]
    chosen = [candidates[place] for place in places]
    table = pd.DataFrame({
        "subject_id": [patient_of(path) for path in chosen], "path": chosen, "category": ""})
    files.write_whole(
        asked.output, lambda file: table.to_csv(file, index=False, header=False))
    if asked.plot:
        loaded = script.load(asked.model)
        taken: set[str] = set()
        for place in places:
            classify.plot(found[place], loaded, asked, taken)
    print(f"{len(chosen)} of {len(paths)} records to label, of as many patients, are in "
          f"{asked.output}: write a class into the third column, and delete rows without one")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    return exit_code("choose_records.py", run, parse_arguments(arguments))


if __name__ == "__main__":
    sys.exit(main())

"""Choose which records to label next: one of each patient, drawn at random.

    python tools/choose_records.py real_large my_data --number 50         # a folder of records
    python tools/choose_records.py m.keras @list.txt --data-dir my_data   # paths from a file
    python tools/choose_records.py real_large my_data --plot pages        # an ECG page of each

It writes a label file: fill in who the patient is in column 1, where it is empty, and the class in
column 3. Then adapt the model with
`python too_feature.py --start-from real_large --labels to_label.csv --data-dir my_data --output
adapted.keras`. A patient is told by the folder pNNNNNNNN, or by a label file that has the records
(`--labels`).

`--by uncertainty` takes the records whose class the model is least sure of. They are no sample of
your patients: what is measured on them says nothing about the others, and a run on them says so.
How records were drawn is in the .labels.json beside the file. Choosing was no better than drawing
all at random (benchmarks/adapt.py, with 20 and 40 labels of CPSC 2018).
"""

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import pandas as pd

import too_feature as script
from ecg import files, origin
from ecg.errors import UserError, exit_code
from ecg.patients import PATIENT_FOLDER, identify
from ecg.settings import Parser
from too_feature import Loaded
from tools import classify


def patients_of(paths: list[str], folder: str, labels: str) -> pd.Series:
    """Return by path who the patient of a record is, as its folder or a label file tells, or ""."""
    of_folder = pd.Series(paths, dtype=str).str.extract(PATIENT_FOLDER, expand=False).fillna("")
    rows = pd.DataFrame({"subject_id": of_folder.str.removeprefix("p"), "waveform_path": paths})
    tables = [rows, *([script.read_labels(labels)] if labels else [])]
    persons, _ = identify(tables, [folder] * len(tables))
    return pd.Series(persons[0].to_numpy(), index=paths)


def draw_one_per_patient(patients: pd.Series, seed: int) -> list[str]:
    """Return one path of each patient, the patients and their records in random order.

    `patients` are by path; where nobody is known, each record is drawn.
    """
    shuffled = patients.sort_index().sample(frac=1, random_state=seed)
    return shuffled.index[~shuffled.duplicated() | (shuffled == "")].tolist()


def choose(drawn: dict[str, str], loaded: Loaded, by: str, number: int) -> list[classify.Result]:
    """Return the first records that can be used or, by uncertainty, the least certain of all."""
    is_random = by == "random"
    usable = []
    for result in classify.results(drawn, loaded, is_lazy=is_random):
        if result.left_out:
            classify.say(f"left out {result.name}: {result.left_out}", "choose_records.py")
        else:
            usable.append(result)
        if is_random and len(usable) == number:
            break

    if not is_random:
        usable.sort(key=lambda result: result.probabilities.max())
    return usable[:number]


def run(flags: argparse.Namespace) -> None:
    """Choose records, and write the label file to fill in."""
    if flags.number < 1 or flags.seed < 0:
        raise UserError("expected --number of 1 or more, and --seed of 0 or more")
    if os.path.exists(flags.output) and not flags.force:
        raise UserError(f"--output {flags.output}: is there already, with labels perhaps; name "
                        "another file, or replace it with --force")
    files.check_target(flags.output, [flags.data.removeprefix("@"), flags.labels])
    loaded = classify.load(flags.model)
    if flags.by == "uncertainty":    # with the rate step, whoever is near 60 bpm is uncertain
        loaded = loaded._replace(model=loaded.core)

    paths = list(classify.find_records([flags.data]))
    folder = flags.data_dir or "."
    if os.path.isdir(flags.data):
        folder = flags.data_dir or flags.data
        paths = [os.path.relpath(path, folder) for path in paths]
    patients = patients_of(paths, folder, flags.labels)
    drawn = {f"{folder}/{path}": folder for path in draw_one_per_patient(patients, flags.seed)}
    chosen = choose(drawn, loaded, flags.by, flags.number)
    if not chosen:
        raise UserError(f"{flags.data}: none of the records can be used")

    labels = pd.DataFrame({"path": [os.path.relpath(result.record, folder) for result in chosen]})
    labels.insert(0, "subject_id", labels["path"].map(patients))
    table = labels.assign(category="").to_csv(index=False, header=False)
    files.write_bytes(flags.output, table.encode())
    files.write_bytes(
        origin.beside(flags.output), json.dumps({"chosen_by": flags.by}).encode())
    if flags.plot:
        classify.draw_pages(chosen, loaded, flags.plot)
    sample = "drawn at random" if flags.by == "random" else "the least certain, which are no sample"
    n_unknown = (labels["subject_id"] == "").sum()
    print(f"{len(labels)} of {len(paths)} records to label, {sample}, are in {flags.output}: "
          f"{len(labels) - n_unknown} of as many patients, {n_unknown} of patients that no "
          "folder or --labels tells.\nFill in column 1 (the patient, where it is empty) and "
          "column 3 (the class), and delete rows without")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help=".keras file with its .json, or real_large or real_default")
    add("data", metavar="DATA", help="folder of records, or @file or - with a path on each line")
    add("--data-dir", help="folder that the paths of the label file start from (default: DATA, or "
        "the current folder for a list)")
    add("--labels", default="", help="label file that tells the patients of records")
    add("--number", type=int, default=50, help="records to choose (default: %(default)s)")
    add("--by", choices=["random", "uncertainty"], default="random",
        help="how to choose: those by uncertainty are no sample (default: %(default)s)")
    add("--output", default="to_label.csv", help="label file to write (default: %(default)s)")
    add("--force", action="store_true", help="replace a label file that exists")
    add("--plot", metavar="FOLDER", help="folder to draw the ECG page of each record in, as PNG")
    add("--seed", type=int, default=42, help="seed of the draw (default: %(default)s)")
    return exit_code("choose_records.py", run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

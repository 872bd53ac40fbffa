"""Compare two runs on the same test patients: paired differences with 95 % intervals.

    python tools/compare.py results/a results/b

Both are measured on the same resamples of the patients (see ecg/intervals.py), so that what is hard
for both cancels out. A difference whose interval holds 0 may be chance.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import numpy as np
import pandas as pd

from ecg import intervals
from ecg.errors import UserError, exit_code, user_errors
from ecg.output.read import probability_column, read_json, read_texts
from ecg.settings import Parser

BY_CLASS = "recall", "AUROC"


def read_tested(folder: Path) -> tuple[list[str], pd.DataFrame]:
    """Return classes and test records of a results folder, in the order of the records' names."""
    with user_errors(folder, (OSError, KeyError)):
        table = read_texts(folder / "predictions.csv").set_index("record").sort_index()
        return read_json(folder / "run.json")["classes"], table


def check_same(first: Path, second: Path, tables: list[pd.DataFrame]) -> None:
    """Raise `UserError` unless both runs have tested the same records, patients and labels."""
    kinds = ["subject_id", "true"]
    tested = [set(table[kinds].itertuples(name=None)) for table in tables]
    n_other = len(tested[0] ^ tested[1])
    if n_other:
        raise UserError(
            f"{first} and {second} were not tested on the same records: {n_other} records, with "
            "patient and label, are in one only; give both the same label files, --seed and "
            "--test-samples")


def measured(classes: list[str], table: pd.DataFrame) -> dict[str, intervals.Figure]:
    """Return the figures of a run that are compared, by name, with their resamples."""
    p = table[[probability_column(name) for name in classes]].to_numpy(float)
    targets = pd.Index(classes).get_indexer(table["true"])
    overall, by_class = intervals.measure(p, targets, table["subject_id"].to_numpy())
    return overall | {
        f"{kind} {name}": figure for kind in BY_CLASS
        for name, figure in zip(classes, by_class[kind], strict=True)}


def difference(first: intervals.Figure, second: intervals.Figure) -> dict[str, str]:
    """Return both values, second less first, and the interval of that, as text."""
    differences = second.plain - first.plain
    low, high = np.nanpercentile(differences[1:], [2.5, 97.5])
    is_few = min(first.patients, second.patients) < intervals.MIN_PATIENTS
    return {
        "a": f"{first.plain[0]:.3f}",
        "b": f"{second.plain[0]:.3f}",
        "b - a": f"{differences[0]:+.3f}",
        "95 % interval": "too few patients" if is_few else f"{low:+.3f} to {high:+.3f}"}


def compare(first: Path, second: Path) -> None:
    """Print the comparison of two results folders.

    Raises
    ------
    UserError
        The two were not tested on the same records, or have other classes.
    """
    (classes, a), (others, b) = map(read_tested, (first, second))
    check_same(first, second, [a, b])
    if set(classes) != set(others):
        raise UserError(f"{first} and {second} have other classes: {classes} and {others}")
    of_a, of_b = measured(classes, a), measured(classes, b)
    rows = {
        name: difference(figure, of_b[name])
        for name, figure in of_a.items()
        if figure.interval() and of_b[name].interval()}
    table = pd.DataFrame.from_dict(rows, orient="index").to_string()
    print(f"a: {first}\nb: {second}\n{len(a)} test records of {a['subject_id'].nunique()} "
          f"patients, the same in both\n{table}")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("a", type=Path, help="results folder of a run")
    parser.add_argument("b", type=Path, help="that of another run on the same test patients")
    flags = parser.parse_args(arguments)
    return exit_code("compare.py", compare, flags.a, flags.b)


if __name__ == "__main__":
    sys.exit(main())

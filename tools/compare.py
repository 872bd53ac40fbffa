"""Compare two runs on the same test patients: paired differences with 95 % intervals.

    python tools/compare.py results/a results/b

What a patient changes in one is taken off what he changes in the other (see ecg/intervals.py), so
that what is hard for both cancels out. A difference whose interval holds 0 may be chance.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import pandas as pd

from ecg import intervals
from ecg.errors import UserError, exit_code, user_errors
from ecg.output.read import read_texts
from ecg.settings import Parser

BY_CLASS = "recall", "AUROC"


def read_tested(folder: Path) -> pd.DataFrame:
    """Return the test records of a results folder, in the order of their names."""
    with user_errors(folder, OSError):
        return read_texts(folder / "predictions.csv").set_index("record").sort_index()


def measured(table: pd.DataFrame) -> dict[str, intervals.Figure]:
    """Return the figures of a run that are compared, by name."""
    probabilities = table.filter(regex="^p ").astype(float)
    classes = probabilities.columns.str.removeprefix("p ")
    overall, by_class = intervals.measure(
        probabilities.to_numpy(), classes.get_indexer(table["true"]),
        table["subject_id"].to_numpy())
    return overall | {
        f"{kind} {name}": figure for kind in BY_CLASS
        for name, figure in zip(classes, by_class[kind], strict=True)}


def difference(first: intervals.Figure, second: intervals.Figure) -> dict[str, str]:
    """Return both values, second less first, and the interval of that, as text."""
    value, reach = second.value - first.value, second.reach(first.by_patient)
    is_few = min(first.n_rarer, second.n_rarer) < intervals.MIN_PATIENTS
    low_to_high = f"{value - reach:+.3f} to {value + reach:+.3f}"
    return {
        "a": f"{first.value:.3f}",
        "b": f"{second.value:.3f}",
        "b - a": f"{value:+.3f}",
        "95 % interval": "too few patients" if is_few else low_to_high}


def compare(first: Path, second: Path) -> None:
    """Print the comparison of two results folders.

    Raises
    ------
    UserError
        The two were not tested on the same records, patients and labels.
    """
    a, b = map(read_tested, (first, second))
    kinds = ["subject_id", "true"]
    n_other = len(set(a[kinds].itertuples(name=None)) ^ set(b[kinds].itertuples(name=None)))
    if n_other:
        raise UserError(
            f"{first} and {second} were not tested on the same records: {n_other} records, with "
            "patient and label, are in one only; give both the same label files, --seed and "
            "--test-samples")

    of_a, of_b = measured(a), measured(b)
    rows = {name: difference(figure, of_b[name]) for name, figure in of_a.items()
            if name in of_b and figure.interval() and of_b[name].interval()}
    print(f"a: {first}\nb: {second}\n{len(a)} test records of {a['subject_id'].nunique()} "
          f"patients, the same in both\n{pd.DataFrame(rows).T.to_string()}")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("a", type=Path, help="results folder of a run")
    parser.add_argument("b", type=Path, help="that of another run on the same test patients")
    flags = parser.parse_args(arguments)
    return exit_code("compare.py", compare, flags.a, flags.b)


if __name__ == "__main__":
    sys.exit(main())

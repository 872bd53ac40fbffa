"""Tables of the accuracy benchmark: Markdown for a reader, and rows of a CSV for all details."""

import numpy as np
import pandas as pd

from benchmarks.scores import MIN_RECORDS, Scorer, interval, mean_deviation, trust, versus
from ecg.output.tables import markdown_table


def scorer_of(pool, folds):
    """Return the scorer of all records that these folds test on."""
    test = np.concatenate([fold.test for fold in folds])
    subjects = pool.rows["subject_id"].to_numpy()[test]
    return Scorer(pool.targets[test], subjects, len(pool.classes))


# ---------------------------------------------------------------------------------------- Markdown
def table(results, scorer, classes, options):
    """Return the table of all results, and notes on it.

    Parameters
    ----------
    results : dict of Result
        By the system's name and the number of records that it learns from.
    scorer : Scorer
    classes : list of str
    options : argparse.Namespace
        Of `accuracy.py`.
    """
    frame = scores(results, scorer, options.references)
    frame = by_size(frame) if options.sizes else frame.drop(columns="records")
    counts = ", ".join(f"{classes[k]} {scorer.count[k]}" for k in scorer.occurring)
    note = (
        f"{len(scorer.targets)} test records of {scorer.n_patients} patients: {counts}. "
        f"{options.seeds} seed(s), baselines {options.baseline_seeds}.")
    return f"{markdown_table(list(frame), frame.to_numpy())}\n\n{note}"


def scores(results, scorer, references):
    """Return a row for each result, compared with the references, or else with the row above.

    A system with another rate step is compared with the reference that has the same.
    """
    balanced = {row: scorer.balanced(result.predicted) for row, result in results.items()}
    rows = []
    above = None
    for (name, n), result in results.items():
        own = balanced[name, n]
        row = {
            "system": result.title,
            "records": n,
            "balanced accuracy": mean_deviation(scorer.of_seeds(result.predicted)),
            "95 %": interval(own[1:]),
        }
        if 0 < len(scorer.frequent) < len(scorer.occurring):
            of_frequent = scorer.of_seeds(result.predicted, scorer.frequent)
            row[f"over classes of {MIN_RECORDS} records"] = mean_deviation(of_frequent)

        _, *step = name.split("-")
        for reference in references:
            other = "-".join([reference, *step]), n
            if other in results:
                title = results[reference, n].title.strip("*")
                is_itself = other == (name, n)
                row[f"less {title}"] = "" if is_itself else versus(own, balanced[other])
        if not references:
            row["less the row above"] = "" if above is None else versus(own, above)
            above = own
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def by_size(frame):
    """Return `scores` with a column for each number of records."""
    shown = frame.drop(columns=["system", "records", "95 %"])
    cells = shown.agg("; ".join, axis=1).str.removesuffix("; ")
    wide = frame.assign(cells=cells).pivot_table(
        "cells", "system", "records", aggfunc="first", sort=False)
    wide.columns = [f"{n:,} records" for n in wide]
    return wide.fillna("").rename_axis("; ".join(shown)).reset_index()


# ---------------------------------------------------------------------------------------- details
def details(results, scorer, classes):
    """Return rows of the CSV {column: value}: of each result, all that the table has no room for.

    Recall, calibration and coverage are means over the seeds.
    """
    rows = []
    for result in results.values():
        recall = scorer.recall(result.predicted)[0]
        row = {"system": result.title.replace("*", ""),
               "settings": result.chosen or "",
               "training time (s)": round(result.seconds),
               "parameters": result.parameters}
        row |= {f"recall of {classes[k]}": recall[k] for k in scorer.occurring}
        if result.is_ours:
            row |= trust(result.probabilities, scorer.targets)
        rows.append(row)
    return rows

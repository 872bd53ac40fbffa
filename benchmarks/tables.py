"""Tables of the accuracy benchmark: Markdown for a reader, and rows of a CSV for all details."""

import numpy as np
import pandas as pd

from benchmarks.runs import TRIALS, ensemble
from benchmarks.scores import MIN_RECORDS, Scorer, interval, mean_deviation, trust, versus
from ecg.output.model_card import markdown_table

REFERENCES = "regression", "default"    # systems that all others are compared with
MAX_HOSPITALS = 12    # more folders than these are patients', not hospitals'
SCORE = "balanced accuracy (95 %)"


def scorer_of(pool, folds):
    """Return the scorer of all records that these folds test on."""
    test = np.concatenate([fold.test for fold in folds])
    subjects = pool.rows["subject_id"].to_numpy()[test]
    return Scorer(pool.targets[test], subjects, len(pool.classes))


def count_classes(scorer, classes):
    """Return the classes that a scorer averages over, with their test records."""
    return ", ".join(f"{classes[k]} {scorer.count[k]}" for k in scorer.averaged)


def with_ensembles(results):
    """Return the results, and of ours with several seeds also their average."""
    averaged = {(f"{name} ensemble", n): ensemble(result) for (name, n), result in results.items()
                if result.is_ours and len(result.probabilities) > 1}
    return results | averaged


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
    frame = scores(results, scorer, is_ablation=options.ablation)
    if options.sizes:
        parts = [by_size(frame, column) for column in frame if column.startswith((SCORE, "less"))]
    else:
        frame = frame.drop(columns="records")
        parts = [markdown_table(list(frame), frame.to_numpy())]

    chosen = {f"{result.title} {result.chosen}": None for result in results.values()
              if result.chosen}
    notes = [
        f"{len(scorer.targets)} test records of {scorer.n_patients} patients, averaged over "
        f"{count_classes(scorer, classes)} (classes with {MIN_RECORDS} test records or more). "
        f"{options.seeds} seed(s), baselines {options.baseline_seeds}."]
    if chosen and not options.sizes:
        notes.append(f"Chosen of {TRIALS} candidates: {'; '.join(chosen)}.")
    if options.epochs:
        notes.append(f"**--epochs {options.epochs}: these are not the systems' results.**")
    return "\n\n".join([*parts, "\n".join(notes)])


def scores(results, scorer, is_ablation):
    """Return a row for each result, compared with the references, or with the row above."""
    balanced = {row: scorer.balanced(result.predicted) for row, result in results.items()}
    rows = []
    above = None
    for (name, n), result in results.items():
        own = balanced[name, n]
        mean = mean_deviation(scorer.of_seeds(result.predicted))
        row = {
            "system": result.title,
            "records": n,
            SCORE: f"{mean} ({interval(own[1:])})",
            "over all classes": mean_deviation(
                scorer.of_seeds(result.predicted, scorer.occurring))}
        if is_ablation:
            row["gain (95 %)"] = "" if above is None else versus(own, above)
            above = own

        for other in REFERENCES:
            if (other, n) in results:
                title = results[other, n].title.strip("*")
                row[f"less {title} (95 %)"] = "" if other == name else versus(
                    own, balanced[other, n])
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def by_size(frame, column):
    """Return in Markdown one column of `scores`, with a column for each number of records."""
    wide = frame.pivot_table(column, "system", "records", aggfunc="first", sort=False).fillna("")
    header = [column, *(f"{n:,} records" for n in wide)]
    return markdown_table(header, wide.reset_index().to_numpy())


# ---------------------------------------------------------------------------------------- details
def details(results, pool, folds):
    """Return rows of the CSV {column: value}: of each result, all that the table has no room for.

    Recall, calibration and coverage are means over the seeds.
    """
    scorer = scorer_of(pool, folds)
    test = np.concatenate([fold.test for fold in folds])
    train = np.concatenate([fold.train for fold in folds])
    prevalence = np.bincount(pool.targets[train], minlength=len(pool.classes)) / len(train)
    weights = (prevalence / scorer.count.clip(1))[scorer.targets]

    rows = []
    for result in results.values():
        recall = scorer.recall(result.predicted)[0]
        row = {"system": result.title.replace("*", ""),
               "training time (s)": round(result.seconds),
               "parameters": result.parameters,
               "macro F1": scorer.macro_f1(result.predicted)}
        row |= {f"recall of {pool.classes[k]}": recall[k] for k in scorer.occurring}
        row |= by_hospital(result, pool, test)
        if result.is_ours:
            row |= trust(result.probabilities, scorer.targets, weights)
        rows.append(row)
    return rows


def by_hospital(result, pool, test):
    """Return balanced accuracy by hospital, the second folder of the paths; {} for only one."""
    folders = pool.rows["waveform_path"].iloc[test].str.split("/").str[1].fillna("").to_numpy()
    names = np.unique(folders)
    if not 1 < len(names) <= MAX_HOSPITALS:
        return {}

    scores = {}
    subjects = pool.rows["subject_id"].to_numpy()[test]
    for name in names:
        here = folders == name
        scorer = Scorer(pool.targets[test[here]], subjects[here], len(pool.classes))
        column = f"balanced accuracy at {name} ({count_classes(scorer, pool.classes)})"
        scores[column] = mean_deviation(scorer.of_seeds(result.predicted[:, here]))
    return scores

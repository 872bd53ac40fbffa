"""Who is in a run: what became of each record, table 1, and results by group of patients."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from ecg import metrics

UNKNOWN = "unknown"
ALL = "all classes"
MAX_VALUES = 20      # of a column: the commonest; the rest is "other"
MIN_PATIENTS = 20    # in the test, to report on a group
FIRST_YEARS = [0, 18, 40, 60, 80, np.inf]    # of the age bands
AGE_BANDS = ["under 18", "18-39", "40-59", "60-79", "80 and more"]
EXPLORATORY = (
    f"Groups of {MIN_PATIENTS} test patients or more, with 95 % intervals. Difference: in balanced "
    "accuracy, from the\nrest, over the classes that both have. Exploratory: of many comparisons, "
    "some differ by chance.")


def groups_of(rows: pd.DataFrame) -> list[str]:
    """Return the columns that describe patients: those of --groups that a label file has."""
    return [name for name in rows.columns[3:] if name not in ("split", "end")]


def values_of(rows: pd.DataFrame, group: str) -> pd.Series:
    """Return to which value of a group each row belongs: of ages, to which band."""
    values = rows[group]
    if group == "age":
        years = pd.to_numeric(values, errors="coerce")
        values = pd.cut(years, FIRST_YEARS, right=False, labels=AGE_BANDS).astype(str)

    values = values.replace({"": UNKNOWN, "nan": UNKNOWN})
    common = values.value_counts().index[:MAX_VALUES]
    return values.where(values.isin(common), "other")


# ------------------------------------------------------------------------------------------- flow
def join(splits: dict[str, pd.DataFrame], records: dict) -> pd.DataFrame:
    """Return the rows of all splits, with columns `split` and `end`: what became of each.

    Parameters
    ----------
    splits : by name, rows of the label file
    records : by name, the script's `Records`
    """
    parts = []
    for split, rows in splits.items():
        own = records[split]
        ends = dict.fromkeys(own.missing, "not on disk")
        ends |= {name: why.partition(":")[0] for name, why in own.left_out}
        ends |= dict.fromkeys(own.rows["waveform_path"], "used")
        end = rows["waveform_path"].map(ends)
        end = end.fillna("not drawn")
        parts.append(rows.assign(split=split, end=end))

    return pd.concat(parts).fillna("")    # a label file may lack a column of the other


def flow(split: pd.DataFrame, card: dict) -> pd.DataFrame:
    """Return how many rows of the label files came to which end; these sum to all rows.

    Parameters
    ----------
    split : what `join` returned
    card : the run's, with what `read_labels` counts in --labels and --test-labels
    """
    counts = Counter(card["rows"]) + Counter(card.get("test_rows"))
    counts["patient of the external test set"] = counts.pop("records") - len(split)
    ends = [("in no split", end, n) for end, n in counts.items() if n]
    sizes = split.groupby(["split", "end"], sort=False).size()
    ends += [(*place, n) for place, n in sizes.items()]
    return pd.DataFrame(ends, columns=["split", "end", "records"])


# ---------------------------------------------------------------------------------------- table 1
def quartiles(ages: pd.Series) -> str:
    """Return the median of ages, as text, with their quartiles and how many are not known."""
    known = pd.to_numeric(ages, errors="coerce").dropna()
    n_unknown = len(ages) - len(known)
    words = "{:.0f} ({:.0f}-{:.0f})".format(*known.quantile([0.5, 0.25, 0.75]))
    return f"{words if len(known) else '–'}, {n_unknown} {UNKNOWN}"


def table1(split: pd.DataFrame, groups: list[str]) -> pd.DataFrame:
    """Return the records that were used, and their patients, by split and class.

    Age and groups are those of each patient's first record.

    Parameters
    ----------
    split : what `join` returned; it has the columns in `groups`
    """
    used = split[split["end"] == "used"]
    by_class = used.rename(columns={"ecg_category": "class"}).sort_values("class", kind="stable")
    used = pd.concat([by_class, by_class.assign(**{"class": ALL})])
    place = ["class", "split"]
    people = used.drop_duplicates([*place, "subject_id"])
    table = used.groupby(place, sort=False)["subject_id"].agg(records="size", patients="nunique")

    for group in groups:
        if group == "age":
            table["age: median (quartiles)"] = people.groupby(place)["age"].agg(quartiles)
        else:
            values = values_of(people, group)
            counts = pd.crosstab([people[name] for name in place], values)
            table = table.join(counts.add_prefix(f"{group}: "))
    return table.reset_index()


# ----------------------------------------------------------------------------------------- groups
def by_group(
    test: Any,
    probabilities: np.ndarray,
    classes: list[str],
) -> dict:
    """Measure all test patients, each group of them, and its difference from the rest.

    Parameters
    ----------
    test : the script's `Records`
    probabilities : ndarray, shape (n, n_classes)
    classes : their names

    Returns
    -------
    dict of dict
        By group, "all" first: its "patients" and, from `MIN_PATIENTS` on, what `metrics.accuracies`
        gives, the "difference" in balanced accuracy from the rest over the classes that both have,
        and the "sensitivity" of each class, each as [value, low, high].
    """
    tested = test.rows.assign(
        target=test.targets,
        predicted=probabilities.argmax(axis=1))

    def measure(rows):
        scores = metrics.accuracies(
            *(rows[name].to_numpy() for name in ("target", "predicted", "subject_id")))
        return {name: scores[name] for name in ("accuracy", "balanced accuracy")}

    def measure_group(own, rest):
        n_patients = own["subject_id"].nunique()
        if n_patients < MIN_PATIENTS:
            return {"patients": n_patients, "accuracy": "too few"}

        scores = {"patients": n_patients, **measure(own), "difference": "-"}
        both = set(own["target"]) & set(rest["target"])
        if both and rest["subject_id"].nunique() >= MIN_PATIENTS:
            pair = [
                measure(rows[rows["target"].isin(both)])["balanced accuracy"]
                for rows in (own, rest)]
            scores["difference"] = metrics.difference(*pair)

        for number, rows in own.groupby("target"):
            scores[f"sensitivity, {classes[number]}"] = measure(rows)["accuracy"]
        return scores

    results = {"all": measure_group(tested, tested[:0])}
    for group in groups_of(test.rows):
        for value, own in tested.groupby(values_of(tested, group)):
            rest = tested.drop(own.index)
            results[f"{group}: {value}"] = measure_group(own, rest)
    return results

"""What `too_feature.py` seldom needs: rare classes, bad data, another hospital, an ensemble.

The script does without where it stands alone; this file knows nothing of the script.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import LinearConstraint, milp


def repair(split, member, needed, rng):
    """Move as few patients as possible so that every split has the classes it needs; None: no way.

    `split` (patients,) holds numbers, `member` (patients, classes) and `needed` (splits, classes)
    counts. Patients of the same classes are interchangeable: an integer program over kinds of them
    finds how many of a kind go to each split, and (the cost) how many of them are new there.
    """
    kinds, kind_of = np.unique(member, axis=0, return_inverse=True)
    kind_of, n = kind_of.ravel(), len(needed)
    now = np.zeros((len(kinds), n), dtype=int)
    np.add.at(now, (kind_of, split), 1)
    of_kind, each = now.sum(axis=1), np.eye(now.size)
    per_class = np.kron([1, 0], np.kron(kinds.T, np.eye(n)))     # the second half is about costs
    per_kind = np.kron([1, 0], np.kron(np.eye(len(kinds)), np.ones(n)))
    plan = milp(np.repeat([0, 1], now.size), integrality=np.repeat([1, 0], now.size), constraints=[
        LinearConstraint(per_class, lb=needed.T.ravel()),
        LinearConstraint(per_kind, of_kind, of_kind),
        LinearConstraint(np.hstack([each, -each]), ub=now.ravel())])
    if plan.x is None:
        return None
    wanted = plan.x[:now.size].round().astype(int).reshape(now.shape)
    order, repaired = rng.permutation(len(split)), split.copy()
    for kind in range(len(kinds)):
        mine = order[kind_of[order] == kind]
        moved = np.concatenate([mine[split[mine] == s][wanted[kind, s]:] for s in range(n)])
        repaired[moved] = np.repeat(range(n), np.maximum(wanted[kind] - now[kind], 0))
    return repaired


def stop_if_unusable(by_class, limit, split, is_over):
    """Raise ValueError if more than a share `limit` of a class's records cannot be used.

    `by_class` groups a Series of reasons ("" for a usable record) by class. Fewer than 20 records
    of a class, while more are to be tried, are too few to tell.
    """
    for category, tried in by_class:
        reasons = tried[tried != ""]
        if len(reasons) > limit * len(tried) and (len(tried) >= 20 or is_over):
            counts = reasons.str.split(":").str[0].value_counts()
            raise ValueError(
                f"{len(reasons)} of {len(tried)} {split} records of {category} cannot be used: "
                + ", ".join(f"{reason} ({n})" for reason, n in counts.sort_index().items())
                + f", as {reasons.index[0]}: {reasons.iloc[0]}; mend or fetch these, take them out "
                f"of the labels, or allow more than --max-unusable {limit:g}")


def same_tree(folder, other):
    """Return whether a folder is, or is inside, another: then both number the same patients."""
    a, b = Path(folder).resolve(), Path(other).resolve()
    return a.is_relative_to(b) or b.is_relative_to(a)


def replace_test(splits, test, settings):
    """Give the records of splits["test"] to training, and put `test` in their place.

    Parameters
    ----------
    splits : dict
        {'train', 'validation', 'test': DataFrame with subject_id and ecg_category}.
    test : DataFrame
        The other label file's rows; its classes take the spelling of `splits`.
    settings : has data_dir and test_data_dir ("" for the same)
        Where they are of the `same_tree`, equal numbers in `test` are the same patients: these
        leave training and validation.

    Returns
    -------
    dict of DataFrame

    Raises
    ------
    ValueError
        If `test` has a class that `splits` lack, or a class loses its last record in one.
    """
    own = pd.concat(splits.values())
    spelling = {name.casefold(): name for name in own["ecg_category"].unique()}
    names = [spelling.get(name.casefold(), name) for name in test["ecg_category"]]
    if unknown := sorted(set(names) - set(spelling.values())):
        raise ValueError(f"--labels has no class {', '.join(unknown)}")
    rest = {"train": pd.concat([splits["train"], splits["test"]]),
            "validation": splits["validation"]}
    same_patients = same_tree(settings.data_dir, settings.test_data_dir or settings.data_dir)
    before = sum(map(len, rest.values()))
    for name, part in rest.items():
        kept = part[~(part["subject_id"].isin(test["subject_id"]) & same_patients)]
        if gone := sorted(set(part["ecg_category"]) - set(kept["ecg_category"])):
            raise ValueError(f"leaves no {name} record of {', '.join(gone)}")
        rest[name] = kept
    if same_patients:
        print(f"notice: {before - sum(map(len, rest.values()))} records of patients in the test "
              "file are kept out of training")
    return {**rest, "test": test.assign(ecg_category=names)}


def average_models(keras, models):
    """Return a model of the same inputs that averages the probabilities of several."""
    named = [    # a layer needs a name of its own, and one output, not a list of one
        keras.Model(model.inputs, model.output, name=f"{model.name}_{i}")
        for i, model in enumerate(models)]
    inputs = [keras.Input(array.shape[1:], name=array.name) for array in models[0].inputs]
    average = keras.layers.Average()([model(inputs) for model in named])
    return keras.Model(inputs, average, name="ensemble")

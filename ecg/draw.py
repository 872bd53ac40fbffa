"""Draw a split's records in a fixed order, and replace those that cannot be used.

The script says how a sample is taken, and how records are prepared.
"""

import itertools
import os
from collections.abc import Callable

import numpy as np
import pandas as pd

from ecg import cache, left_out, patients


def rank(df: pd.DataFrame, random_state: int) -> pd.DataFrame:
    """Return the records in the order in which they are drawn: that of a hash of seed and path."""
    paths = df["waveform_path"].to_numpy(dtype=object)
    number = pd.util.hash_array(paths, hash_key=f"{random_state:016d}"[-16:])
    return df.iloc[np.argsort(number, kind="stable")]


def first_usable(
    ranked: pd.DataFrame,
    target_samples: int,
    is_usable: Callable[[str], bool],
) -> pd.DataFrame:
    """Return the first usable records of each class, from which balanced_sampling then draws.

    `is_usable` is not called for records ranked behind these. A class without any usable record
    leaves its share to the others.
    """
    classes = [records for _, records in ranked.groupby("ecg_category", observed=True)
               if any(map(is_usable, records["waveform_path"]))]
    drawn = [ranked[:0]]
    for records in classes:
        usable = (i for i, path in enumerate(records["waveform_path"]) if is_usable(path))
        wanted = max(1, target_samples // len(classes))
        drawn.append(records.iloc[list(itertools.islice(usable, wanted))])
    return pd.concat(drawn)


def draw_usable(
    name: str,
    labels: pd.DataFrame,
    target_samples: int,
    seed: int,
    data_dir: str,
    watch: patients.CopyWatch,
    sample: Callable[[pd.DataFrame], pd.DataFrame],
    prepare: Callable[[list[str]], cache.Rows],
) -> tuple[pd.DataFrame, cache.Rows, dict[str, str], list[str]]:
    """Draw records and prepare them; unusable ones are replaced by others of their class.

    Records that `watch` leaves out are unusable, too. Only records drawn are looked for on disk, as
    each look-up takes its time on network storage. `sample` draws from usable records, `prepare`
    reads records by their paths. Returned are the rows drawn, all records read, by path in that
    order why one is unusable or "", and the paths that are not on disk.

    Raises
    ------
    UserError
        More than half of a class cannot be used.
    """
    by_path = labels.set_index("waveform_path")
    person_of = by_path["subject_id"].to_dict()
    ranked = rank(labels, seed)
    prepared = cache.Rows()
    reasons: dict[str, str] = {}
    on_disk: dict[str, bool] = {}

    def is_usable(path: str) -> bool:
        if path not in on_disk:
            on_disk[path] = os.path.exists(f"{data_dir}/{path}.hea")
        is_out = reasons.get(path) or person_of[path] in watch.persons
        return on_disk[path] and not is_out

    while True:
        usable = first_usable(ranked, target_samples, is_usable)
        if not usable.empty:
            usable = sample(usable)
        new = [path for path in usable["waveform_path"].unique() if path not in reasons]
        read = prepare(new)
        reasons |= zip(new, (record.reason for record in read), strict=True)
        prepared += read
        sound = [place for place, path in enumerate(new) if not reasons[path]]
        if sound:
            rows = by_path.loc[[new[place] for place in sound]].reset_index()
            watch.look(rows, cache.Signals(read, sound))
        reasons = {path: why or watch.repeated.get(path) or watch.persons.get(person_of[path], "")
                   for path, why in reasons.items()}
        left_out.stop_if_unusable(name, pd.Series(reasons, dtype=str), by_path["ecg_category"],
                                  data_dir, is_over=not new)
        if not new:    # all read in earlier rounds, which removed those that cannot be used
            missing = [path for path, is_there in on_disk.items() if not is_there]
            return usable, prepared, reasons, missing

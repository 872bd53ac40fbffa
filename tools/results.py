"""The results folder of a run: its tables, and what its figures are drawn from.

Knows nothing of the script. `tools/figures.py` draws from these files alone; notebooks read them.
"""

import contextlib
import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd

_claimed = {}    # locks by folder, held until the process ends or claims the folder again


STALE = 3600    # s after which nobody can be writing a scratch file still; it takes seconds


def sweep(folder, age):
    """Remove what killed runs left half written in a folder, `age` seconds ago or earlier."""
    with contextlib.suppress(OSError):    # it need not be there
        for file in Path(folder).iterdir():
            with contextlib.suppress(OSError):    # nor be ours
                if (re.fullmatch(r"\.[0-9a-f]{32}-.+", file.name) and file.is_file()
                        and time.time() - file.stat().st_mtime >= age):
                    file.unlink()


def claim(folder, shared=()):
    """Make a results folder and keep other runs out of it until this process ends; return it.

    What killed runs left half written is removed from it, and from folders `shared` with other
    runs if nobody can be writing it still. `OSError` if it cannot be written to, or another run
    works there.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder.resolve() in _claimed:
            _claimed.pop(folder.resolve()).close()
        lock = (folder / ".lock").open("ab")
    except OSError as error:
        raise OSError(f"{folder}: {error.strerror}; choose another folder") from error
    try:
        with contextlib.suppress(ImportError):    # Windows has none
            import fcntl
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(f"another run is writing to {folder}: wait for it, or give this one another "
                      "--output") from error
    except OSError:
        pass    # a file system without locks, as some of clusters
    _claimed[folder.resolve()] = lock    # let go of by the system, at any end
    for other in shared:
        sweep(other, STALE)
    for own in (folder, *folder.glob("**/")):
        sweep(own, 0)
    return folder


def predictions(test, probabilities, features, classes, names):
    """Return a DataFrame with a row per test record: labels, probabilities and features."""
    columns = {"subject_id": test["subject_id"], "record": test["waveform_path"],
               "true": test["ecg_category"],
               "predicted": np.array(classes)[probabilities.argmax(axis=1)]}
    columns |= {f"p {name}": probabilities[:, i] for i, name in enumerate(classes)}
    columns |= {f"{name} [{unit}]" if unit else name: features[:, i]
                for i, (name, unit, _) in enumerate(names)}
    return pd.DataFrame(columns)


def examples(test, probabilities, classes, read):
    """Return arrays of one ECG per class: neither the best case nor the worst.

    It is of the rightly predicted records, or of all where there is none, the one with the median
    probability of its class.
    """
    arrays, predicted = {}, probabilities.argmax(axis=1)
    for i, name in enumerate(classes):
        mine = np.flatnonzero(test["ecg_category"] == name)
        if not len(mine):
            continue
        right = mine[predicted[mine] == i]
        mine = right if len(right) else mine
        place = mine[np.argsort(probabilities[mine, i], kind="stable")[len(mine) // 2]]
        record = test["waveform_path"].iloc[place]
        signal, fs, r_peaks = read(record)
        arrays |= {f"signal_{i}": signal.astype(np.float32), f"fs_{i}": fs,
                   f"r_peaks_{i}": r_peaks, f"record_{i}": record,
                   f"probabilities_{i}": probabilities[place]}
    return arrays


def write(folder, save, card, report, splits, test, probabilities, read_record, find_r_peaks):
    """Write all files of a results folder but its figures.

    Parameters
    ----------
    folder : Path
    save : callable (file, fill), lets `fill` write a new file and moves it to `file` as a whole
    card : dict, ready for JSON: classes, features, history, left_out, metrics and more
    report : str, as printed
    splits : {name: DataFrame with subject_id, waveform_path, ecg_category}
    test : its n records: rows (a DataFrame with the same columns), features (n, 8 or more)
    probabilities : ndarray (n, n_classes)
    read_record : callable, of a path and its data folder: signal (samples, 12) and rate in Hz
    find_r_peaks : callable, of these two: R peaks in samples
    """
    history = [pd.DataFrame(epochs).assign(repeat=i, epoch=range(1, len(epochs) + 1))
               for i, epochs in enumerate(card["history"])]
    tables = {
        "predictions": predictions(test.rows, probabilities, test.features, card["classes"],
                                   card["features"]),
        "history": pd.concat(history), "left_out": pd.DataFrame(
            card["left_out"], columns=["record", "why"]),
        "split": pd.concat([part.assign(split=name) for name, part in splits.items()])}
    texts = {"report.txt": report, "metrics.json": json.dumps(card["metrics"], indent=1),
             "run.json": json.dumps({name: card[name] for name in card if name not in (
                 "history", "left_out", "metrics")}, indent=1)}
    texts |= {f"{name}.csv": table.to_csv(index=False) for name, table in tables.items()}
    for name, text in texts.items():
        save(folder / name, lambda file, text=text: file.write_bytes(text.encode()))
    data_dir = card["settings"]["test_data_dir"] or card["settings"]["data_dir"]

    def read(path):
        signal, fs = read_record(f"{data_dir}/{path}", data_dir)
        return signal, fs, find_r_peaks(signal, fs)

    content = io.BytesIO()    # on a full disk, NumPy's archive would print a traceback
    np.savez_compressed(content, **examples(test.rows, probabilities, card["classes"], read))
    save(folder / "examples.npz", lambda file: file.write_bytes(content.getvalue()))

"""Classify ECG records with a saved model, and show on which leads and moments it relied.

    python tools/classify.py my_data/40689238                     # one record, a table
    python tools/classify.py my_data --csv > classes.csv          # all records below a folder
    python tools/classify.py @list.txt --json                     # paths from a file; - for stdin
    python tools/classify.py my_data --explain --plot pages       # why, drawn over the ECG
    python tools/classify.py long/holter --windows                # each 10 s of a longer record
    python tools/classify.py my_data --model real_large           # one of the models in models/

Where no model is named, it is that of your last run in this folder, else `real_large`. In a
notebook: `from tools.classify import classify, classify_record`. Exit code: 0 if all records were
classified, 1 if some were left out (each with its reason on stderr), 2 if none could be.

A model is refused unless it is one that this project builds. Of a record, nothing outside its own
folder is read.
"""

import argparse
import errno
import io
import itertools
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import numpy as np
import pandas as pd
from tqdm import tqdm

import too_feature as script
from ecg import adaptation, files, origin
from ecg.errors import RecordError, UserError, exit_code, printable, user_errors
from ecg.explain import Importance, explain, in_brief, spread, summed
from ecg.left_out import reasons
from ecg.output.read import feature_column
from ecg.settings import Parser, whole_number

CHUNK = 2000                # records held in memory at once, 24 kB each
FEW = 100                   # so many records are prepared and explained without a progress bar
MOST_SHOWN = 12             # leads, seconds or features in the words of an explanation
START = "start [s]"
OF_A_WINDOW = "too little signal", "gain or unit?"    # after these, the next 10 s may be usable


class Result(NamedTuple):
    """What was found about a record; if it was left out, `left_out` says why, the rest is None."""

    record: str
    left_out: str
    probabilities: np.ndarray | None = None
    features: np.ndarray | None = None
    importance: Importance | dict | None = None    # a dict where it was `summed`
    start: int | None = None    # of the 10 s in a longer record, in s
    embedding: np.ndarray | None = None    # (n_inputs,): what the model's last layer sees
    page: str = ""              # its picture, if it was drawn


# --------------------------------------------------------------------------------------- records
def without_extension(name: object) -> str:
    """Return a record's path without the extension of one of its files."""
    return re.sub(r"\.(hea|dat)$", "", str(name).replace("\0", "?"))


def read_names(source: str) -> list[str]:
    """Return the lines of stdin (`-`) or of a file (`@name`), without blank ones."""
    if source == "-":
        text = sys.stdin.read()
    else:
        try:
            if os.path.exists(source[1:]) and not os.path.isfile(source[1:]):    # without an end
                raise OSError(errno.EINVAL, "not a plain file")
            text = Path(source[1:]).read_text(encoding="utf-8-sig", errors="surrogateescape")
        except OSError as error:
            raise UserError(f"{source[1:]}: {error.strerror}; after @ the name of a file with a "
                            "record on each line is expected") from error

    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line]


def find_records(names: Iterable[str | os.PathLike]) -> list[str]:
    """Return the paths, without extension, of the records that names stand for, each once.

    A name is a record, with or without .hea or .dat; a folder, for all records below it; or `@file`
    or `-`, for names of records in a file or on stdin, one on a line. `UserError` where a name
    stands for no record.
    """
    paths = []
    for name in map(str, names):
        if name == "-" or name.startswith("@"):
            found = [without_extension(line) for line in read_names(name)]
        elif os.path.isdir(name):
            found = sorted(without_extension(path) for path in Path(name).rglob("*.hea"))
        else:
            found = [without_extension(name)]
        if not found:
            raise UserError(f"{name}: no record there (a .hea file, and the file that it names)")
        paths += found

    return list(dict.fromkeys(paths))


# ----------------------------------------------------------------------------------------- models
def choose_model(name: str | os.PathLike | None = None, folder: str | os.PathLike = "") -> str:
    """Return the path of the model that a name stands for.

    Parameters
    ----------
    name : a path, or `real_large` or `real_default`, which are in models/
        None: the model of a run or, if there is none, `real_large`.
    folder : where that run was started, by default the current folder
    """
    if name:
        return adaptation.find_model(str(name))
    own = os.path.join(folder, script.Settings.output)
    shipped = adaptation.MODELS / f"{adaptation.SHIPPED[0]}.keras"
    return own if os.path.exists(own) or not shipped.exists() else str(shipped)


def warning(card: dict, paths: Iterable[str]) -> str:
    """Return what to be warned of before this model classifies these records, or ''."""
    others = [path for path in paths if script.DEMO_FOLDER not in f"{Path(path).as_posix()}/"]
    if not card.get("synthetic") or not others:
        return ""
    return ("warning: this model has learnt from synthetic records, and these are others: expect "
            f"wrong answers, or name a model of real ones (--model {adaptation.SHIPPED[0]})")


# -------------------------------------------------------------------------------------- classify
def predict(model, signals: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return the probabilities (n, n_classes) of prepared records; UserError if they are NaN."""
    tf, _ = script.load_tensorflow()
    records = script.Records(None, signals, features, np.zeros(len(features), int))
    with tf.device("CPU:0"):    # a notebook may have used TensorFlow before its GPUs were hidden
        probabilities = script.predict(model, records)

    if not np.isfinite(probabilities).all():
        raise UserError("the model gives no probabilities (NaN): train it again")
    return probabilities


def prepare(paths: list[str], settings) -> list[tuple]:
    """Return (ecg, features, reason) of each record: its inputs, or None and why it is left out."""
    if len(paths) > FEW:
        return [one[:3] for one in script.prepare_many(paths, None, settings, "reading")]

    prepared = []
    for path in paths:
        try:
            ecg, features, _ = script.prepare_record(path, None, settings.recipe)
            prepared.append((ecg, features, ""))
        except RecordError as error:
            prepared.append((None, None, str(error)))
    return prepared


def prepare_windows(path: str, recipe) -> Iterator[tuple]:
    """Yield (path, start, inputs) of each 10 s of a record, to its end or where it is damaged.

    The inputs are as from `prepare`. A rest that is too short is not yielded, but said on stderr.
    """
    for start in itertools.count(0, script.RECORD_SECONDS):
        try:
            ecg, features, _ = script.prepare_record(path, None, recipe, start)
        except RecordError as error:
            reason = str(error)
            if start and reason.startswith("too short"):
                if not reason.startswith("too short: 0 s"):
                    print(f"classify.py: not classified: {printable(path)} from {start} s on: "
                          f"{reason}",
                          file=sys.stderr)
                return

            yield path, start, (None, None, reason)
            if not reason.startswith(OF_A_WINDOW):
                return
        else:
            yield path, start, (ecg, features, "")


def window_results(paths: list[str], loaded, with_importance: bool) -> Iterator[Result]:
    """Yield a `Result` for each 10 s of each record, in order; few are in memory at once."""
    windows = itertools.chain.from_iterable(
        prepare_windows(path, loaded.recipe) for path in paths)
    while chunk := list(itertools.islice(windows, CHUNK)):
        names, starts, prepared = zip(*chunk, strict=True)
        found = classify_chunk(names, prepared, loaded.model, with_importance)
        for start, result in zip(starts, found, strict=True):
            yield result._replace(start=start)


def results(paths: list[str], model_path=None, jobs: int = 0,
            with_importance: bool = False, windows: bool = False,
            with_embedding: bool = False) -> Iterator[Result]:
    """Yield a `Result` for each path without extension, in order; few are in memory at once.

    With `windows`, one for each 10 s of each record, which are prepared in this process and have no
    embedding.
    """
    name = choose_model(model_path)
    loaded = script.load(name)
    body = None
    if with_embedding:
        body, _ = adaptation.split_model(script.load_tensorflow()[1], loaded.model, name)
    if windows:
        yield from window_results(paths, loaded, with_importance)
        return

    settings = script.Settings(recipe=loaded.recipe, jobs=jobs, cache=False)
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start:start + CHUNK]
        yield from classify_chunk(
            chunk, prepare(chunk, settings), loaded.model, with_importance, body)


def sum_up(result: Result, names) -> Result:
    """Return a `Result` with its importance, if any, added up by lead, second and feature."""
    if result.importance is None:
        return result
    feature_names = [name for name, _, _ in names]
    return result._replace(importance=summed(
        result.importance, script.LEADS, feature_names, script.RECORD_SECONDS))


def classify_chunk(paths: Sequence[str], prepared: Sequence[tuple], model,
                   with_importance: bool, body=None) -> Iterator[Result]:
    """Yield a `Result` for each of some prepared records; `body` gives their embeddings."""
    usable = [(ecg, features) for ecg, features, left_out in prepared if not left_out]
    if usable:
        signals = np.stack([ecg for ecg, _ in usable])
        measured = np.stack([features for _, features in usable])
        predicted = iter(predict(model, signals, measured))
        embeddings = iter(predict(body, signals, measured) if body else [])

    for path, (ecg, features, left_out) in zip(paths, prepared, strict=True):
        if left_out:
            yield Result(path, left_out)
            continue
        probabilities = next(predicted)
        importance = None
        if with_importance:
            importance = explain(model, ecg, features, probabilities.argmax())
        yield Result(path, "", probabilities, features, importance,
                     embedding=next(embeddings, None))


def classify(records, model_path=None, jobs: int = 0,
             importance: bool = False, windows: bool = False) -> pd.DataFrame:
    """Classify records, given as for `find_records`; return a DataFrame with a row for each.

    Parameters
    ----------
    records : list of str, or one
    model_path : a .keras file with its .json next to it, or another name for `choose_model`
    jobs : worker processes that read records; 0 chooses for you
    importance : whether to explain each class too
    windows : whether to classify each 10 s of a longer record, not only the first

    Returns
    -------
    DataFrame of record, start [s] (only with `windows`), predicted, confidence, "p CLASS" for each
        class, the features with their units, and left_out, which says why a record has none of
        these, or ""
    """
    if isinstance(records, str | os.PathLike):
        records = [records]
    paths = find_records(records)
    loaded = script.load(choose_model(model_path))
    names = script.feature_names(loaded.recipe)
    classified = results(paths, model_path, jobs, importance, windows)
    found = [sum_up(result, names) for result in classified]
    return as_frame(found, loaded.classes, names)


def classify_record(record_path: str | os.PathLike,
                    model_path=None) -> dict[str, float]:
    """Return the probability of each class for one WFDB record, by a saved model.

    `model_path` is a .keras file with its .json next to it, or another name for `choose_model`.
    Raises `UserError` if the model cannot
    be used, `RecordError` if the record cannot, each with the reason.
    """
    loaded = script.load(choose_model(model_path))
    record = without_extension(record_path)
    ecg, features, _ = script.prepare_record(record, None, loaded.recipe)
    probabilities = predict(loaded.model, ecg[None], features[None])[0]
    return dict(zip(loaded.classes, probabilities.tolist(), strict=True))


# ------------------------------------------------------------------------------------- embeddings
def check_embeddings(file: str) -> None:
    """Raise `UserError` if `write_embeddings` could not write this file."""
    with user_errors("--embeddings", UserError):
        files.check_target(file)


def write_embeddings(file: str, found: list[Result]) -> None:
    """Write names (n,) and embeddings (n, n_inputs) of the records that were classified."""
    content = io.BytesIO()    # on a full disk, NumPy's archive would print a traceback
    np.savez(content, names=[result.record for result in found],
             embeddings=np.stack([result.embedding for result in found]))
    files.write_whole(file, lambda scratch: scratch.write_bytes(content.getvalue()))


# ----------------------------------------------------------------------------------------- table
def as_row(result: Result, classes: list[str], names) -> dict:
    """Return what a row of the DataFrame holds, by column."""
    row = {"record": result.record, "left_out": result.left_out}
    if result.start is not None:
        row[START] = result.start
    if result.left_out:
        return row

    best = result.probabilities.argmax()
    row["predicted"] = classes[best]
    row["confidence"] = float(result.probabilities[best])
    for name, probability in zip(classes, result.probabilities, strict=True):
        row[f"p {name}"] = float(probability)
    for (name, unit, _), value in zip(names, result.features, strict=True):
        row[feature_column(name, unit)] = float(value)

    for kind, moved in (result.importance or {}).items():
        if isinstance(moved, dict):
            for name, change in moved.items():
                row[f"importance of {kind} {name}"] = change
        else:
            row[f"importance, {kind}"] = moved
    return row


def as_frame(found: Iterable[Result], classes: list[str], names) -> pd.DataFrame:
    """Put `Result`s, their importance summed, into a DataFrame with a row each.

    With an importance there are columns "importance of ..." for leads, seconds and features, all of
    them changes of the probability of the predicted class.
    """
    table = pd.DataFrame([as_row(result, classes, names) for result in found])
    first = ["record", "predicted", "confidence"]
    if START in table:
        first.insert(1, START)
    first += [f"p {name}" for name in classes]
    first += [feature_column(name, unit) for name, unit, _ in names]
    others = [name for name in table.columns if name not in (*first, "left_out")]
    return table.reindex(columns=[*first, *others, "left_out"])


# ----------------------------------------------------------------------------------------- print
def number(x: float) -> str:
    """Write a number with three digits; "-" for one that could not be measured."""
    if np.isnan(x):
        return "-"
    return np.format_float_positional(x, 3, fractional=False, trim="-")


def star(value: float, usual: tuple[float, float] | None) -> str:
    """Return "*" for a feature outside its usual range, a blank for any other."""
    low, high = usual or (-np.inf, np.inf)
    return "*" if value < low or value > high else " "


def feature_cells(values: Iterable[float], usual: tuple[float, float] | None) -> list[str]:
    """Write the values of a feature, with a * after those outside the usual range."""
    return [number(value) + star(value, usual) for value in values]


Column = tuple[str, list[str]]    # heading and cells of a column of a table
SHORT_CLASS = 19, 11              # characters of a class name in the short table, and if narrow
HEART_RATE = script.FEATURES[script.HEART_RATE][0]


def all_columns(frame: pd.DataFrame, classes: list[str]) -> list[Column]:
    """Return every column of the wide table: all probabilities and the first eight features."""
    columns = [("class", list(frame["predicted"]))]
    columns.append(("confidence", [f"{x:.3f}" for x in frame["confidence"]]))
    for name in classes:
        columns.append((name, [f"{x:.3f}" for x in frame[f"p {name}"]]))
    for name, unit, usual in script.FEATURES:
        cells = feature_cells(frame[feature_column(name, unit)], usual)
        columns.append((f"{name} {unit}", cells))
    return columns


def notes(row: dict) -> str:
    """Return which features of a record are outside their usual range or not measurable.

    A heart rate outside it has its star in a column of its own.
    """
    words = []
    for name, unit, usual in script.FEATURES:
        value = row[feature_column(name, unit)]
        if np.isnan(value):
            words.append(f"no {name}")
        elif star(value, usual) == "*" and name != HEART_RATE:
            words.append(f"{name}*")
    return " ".join(words)


def short_columns(frame: pd.DataFrame, classes: list[str], most: int) -> list[Column]:
    """Return the columns of the short table: the two most probable classes, heart rate, notes.

    Of the name of a class, `most` characters are shown.
    """
    probabilities = frame[[f"p {name}" for name in classes]].to_numpy()
    order = np.argsort(-probabilities, axis=1, kind="stable")
    columns = []
    for place, heading in enumerate(("class", "second class")):
        best = order[:, place]
        columns.append((heading, [classes[i][:most] for i in best]))
        columns.append(("p", [f"{row[i]:.2f}" for row, i in zip(probabilities, best, strict=True)]))
    name, unit, usual = script.FEATURES[script.HEART_RATE]
    rates = []
    for rate in frame[feature_column(name, unit)]:
        rates.append(("-" if np.isnan(rate) else f"{rate:.0f}") + star(rate, usual))
    columns.append((unit, rates))
    columns.append(("notes", [notes(row) for row in frame.to_dict("records")]))
    return columns


def aligned(words: Iterable[str], widths: list[int], numbers: list[bool]) -> str:
    """Return one line of a table: text to the left, numbers to the right."""
    cells = []
    for word, width, is_number in zip(words, widths, numbers, strict=True):
        cells.append(word.rjust(width) if is_number else word.ljust(width))
    return "  ".join(cells).rstrip()


def as_lines(columns: list[Column], width: int) -> list[str]:
    """Write columns as a table; the first is shortened from the left so that lines fit `width`."""
    headings = [heading.split() for heading, _ in columns]
    height = max(map(len, headings))
    stacks = []    # each column as it is printed: its heading a word a line, then its cells
    for heading, (_, cells) in zip(headings, columns, strict=True):
        stacks.append([""] * (height - len(heading)) + heading + cells)
    widths = [max(map(len, stack)) for stack in stacks]

    room = max(12, width - sum(widths[1:]) - 2 * (len(widths) - 1))
    widths[0] = min(widths[0], room)
    stacks[0] = [word if len(word) <= room else "..." + word[3 - room:] for word in stacks[0]]
    numbers = [bool(re.fullmatch(r"[\d.-]+[ *]?", stack[-1])) for stack in stacks]
    numbers[0] = False
    return [aligned(words, widths, numbers) for words in zip(*stacks, strict=True)]


def as_table(frame: pd.DataFrame, classes: list[str], wide: bool, width: int) -> list[str]:
    """Write a frame of `classify` as lines of text.

    Parameters
    ----------
    frame : of `classify`
    classes : names of the classes
    wide : whether to write all probabilities and the first eight features, whatever the width
    width : of the terminal, in characters
    """
    columns = [("record", [printable(name) for name in frame["record"]])]
    if START in frame:
        columns.append(("start s", [str(start) for start in frame[START]]))
    if wide:
        width = sys.maxsize
        lines = as_lines(columns + all_columns(frame, classes), width)
    else:
        for most in SHORT_CLASS:
            lines = as_lines(columns + short_columns(frame, classes, most), width)
            if max(map(len, lines)) <= width:
                break

    ranges = [f"{name} {usual[0]}-{usual[1]} {unit}".strip()
              for name, unit, usual in script.FEATURES if usual]
    meaning = (f"* outside the usual range: {', '.join(ranges)} (HRV ranges are meant for longer "
               "recordings than 10 s)" + ("; -: not measurable" if wide else ""))
    return [*lines, "", *textwrap.wrap(meaning, min(width, 100))]


def name_of(result: Result) -> str:
    """Return the name of a record, and of the 10 s of a longer one."""
    if result.start is None:
        return result.record
    return f"{result.record} from {result.start} s on"


def as_words(result: Result, classes: list[str]) -> list[str]:
    """Write down what moved the probability of a record's class, as lines of text."""
    moved = result.importance
    name = classes[result.probabilities.argmax()]
    lines = [f"{printable(name_of(result))}: from {moved['baseline']:.3f} (flat ECG, average "
             f"features) to {moved['probability']:.3f} for {name} by"]
    for kind in ("lead", "second", "feature"):
        changes = list(moved[kind].items())
        if kind != "second":    # which stay in the order of time
            changes.sort(key=lambda item: -abs(item[1]))
        words = [f"{name} {change:+.3f}" for name, change in changes[:MOST_SHOWN]]
        others = [change for _, change in changes[MOST_SHOWN:]]
        if others:
            words.append(f"{len(others)} others {sum(others):+.3f}")
        total = sum(moved[kind].values())
        lines.append(f"  {kind + 's':9}{total:+.3f}: " + ", ".join(words))

    return [*lines, f"  {'missed':9}{moved['rest']:+.3f}"]


def record_as_json(row: dict, result: Result, classes: list[str], names) -> dict:
    """Return what the JSON document says about a record; null is a feature not measurable."""
    features = {}
    for name, unit, _ in names:
        value = row[feature_column(name, unit)]
        features[name] = value if np.isfinite(value) else None
    record = {"record": printable(row["record"]), "predicted": row["predicted"],
              "confidence": row["confidence"],
              "probabilities": {name: row[f"p {name}"] for name in classes},
              "features": features}
    if result.start is not None:
        record["start"] = result.start
    if result.importance:
        record["importance"] = result.importance
    return record


def left_out_as_json(result: Result) -> dict:
    """Return what the JSON document says about a record that was left out."""
    record = {"record": printable(result.record), "reason": printable(result.left_out)}
    if result.start is not None:
        record["start"] = result.start
    return record


def as_json(frame: pd.DataFrame, found: list[Result], left_out: list[Result],
            loaded, model_path) -> dict:
    """Return one JSON document: model, units and usual ranges first, then the records."""
    names = script.feature_names(loaded.recipe)
    records = []
    for row, result in zip(frame.to_dict("records"), found, strict=True):
        records.append(record_as_json(row, result, loaded.classes, names))

    return {
        "model": printable(model_path),
        "model_sha256": files.sha256(model_path),
        "synthetic": bool(loaded.card.get("synthetic")),
        "labels_origin": origin.of_card(loaded.card),
        "note": origin.note(loaded.card),
        "classes": loaded.classes,
        "units": {name: unit or "1" for name, unit, _ in names},
        "usual": {name: usual for name, _, usual in names if usual},
        "records": records,
        "left_out": [left_out_as_json(result) for result in left_out],
    }


# ------------------------------------------------------------------------------------------ draw
def page(result: Result, classes: list[str], note: str):
    """Return a record's ECG page (a matplotlib Figure), its importance, not summed, over it.

    `note` is printed at its foot: `ecg.origin.note` of the model's card.
    """
    from ecg.output import ecg_page, style

    record = script.read_record(result.record, start=result.start or 0)
    signal, fs = record.signal, record.fs
    r_peaks = script.measure_rhythm(signal, fs).r_peaks
    classes = style.drawable(classes)
    order = np.argsort(-result.probabilities, kind="stable")
    title = f"Predicted {classes[order[0]]}: record {printable(os.path.basename(name_of(result)))}"
    words = [f"{classes[i]} {result.probabilities[i]:.2f}" for i in order]
    text = textwrap.fill("Probabilities: " + ", ".join(words), 125)
    names = [name for name, _, _ in (script.FEATURES + script.EXTRA_FEATURES)]
    measured = ecg_page.write_measured(dict(zip(names, result.features, strict=False)))
    reasons = None
    if result.importance:
        colours, at_full_colour = spread(result.importance, len(signal))
        reasons = ecg_page.Reasons(colours, at_full_colour, in_brief(result.importance, names))
    return ecg_page.draw_ecg(
        signal, fs, script.LEADS, r_peaks, title, text, note, reasons, measured)


def free_name(folder, path: str, taken: set[str]) -> Path:
    """Return folder / name of the record, numbered where another record has that name."""
    stem = re.sub(r"[^\w.-]", "_", os.path.basename(path))[:100]
    name = stem
    for i in itertools.count(2):
        if name.casefold() not in taken:
            break
        name = f"{stem}_{i}"
    taken.add(name.casefold())
    return Path(folder) / name


def plot(result: Result, loaded, asked, taken: set[str]) -> Result:
    """Draw a record's page as asked; return the result, as left out if the record has changed."""
    name = result.record if result.start is None else f"{result.record}_{result.start}s"
    file = free_name(asked.plot, name, taken)
    kinds = ("png", "pdf") if asked.pdf else ("png",)
    try:
        with user_errors("--plot"):
            from ecg.output import style

            drawn = page(result, loaded.classes, origin.note(loaded.card))
            written = style.save(drawn, file, kinds, dpi=150)
    except RecordError as error:
        return Result(result.record, str(error), start=result.start)
    return result._replace(page=str(written[0]))


# ------------------------------------------------------------------------------------------ main
def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("records", nargs="+", metavar="RECORD",
        help="record, folder, @file with a path on each line, or - for such lines on stdin")
    add("--model",
        help=".keras file with its .json next to it, or real_large or real_default (default: "
        f"{script.Settings.output} if it is here, else {adaptation.SHIPPED[0]})")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document")
    form.add_argument("--csv", action="store_true", help="print CSV, numbers in full")
    form.add_argument("--wide", action="store_true",
                      help="print all probabilities and features, whatever the terminal's width")
    add("--data-dir", metavar="FOLDER",
        help="folder that printed names of records start from, as in a label file and in "
             "predictions.csv (default: names as given)")

    add("--windows", action="store_true",
        help="classify each 10 s of a longer record, not only the first, in one process")
    add("--explain", action="store_true",
        help="say which leads, seconds and features moved the probability of the class")
    add("--plot", metavar="FOLDER",
        help="folder to draw the ECG page of each record in, as PNG")
    add("--embeddings", metavar="FILE",
        help=".npz file for the records' names and what the model's last layer sees of each")
    add("--pdf", action="store_true", help="with --plot, draw each page as PDF too")
    add("--jobs", type=whole_number, default=0,
        help="worker processes that read records; 0 chooses for you (default: %(default)s)")
    return parser.parse_args(arguments)


def classify_all(
        paths: list[str], loaded, asked) -> tuple[list[Result], list[Result], UserError | None]:
    """Classify records and draw their pages, if asked.

    Returns
    -------
    found, left_out : lists of Result
    problem : why some pages were not drawn, such as a full disk, which costs no class that is found
    """
    names = script.feature_names(loaded.recipe)
    found = []
    left_out = []
    problem = None
    taken: set[str] = set()
    quick = len(paths) <= FEW or not (asked.explain or asked.plot)
    classified = results(
        paths, asked.model, asked.jobs, asked.explain, asked.windows, bool(asked.embeddings))
    for result in tqdm(classified, "explaining", len(paths), disable=quick):
        if asked.plot and not result.left_out and not problem:
            try:
                result = plot(result, loaded, asked, taken)
            except UserError as error:
                if not found:
                    raise
                problem = error

        if not result.left_out:
            found.append(sum_up(result, names))
            continue
        left_out.append(result)
        print(f"classify.py: left out {printable(name_of(result))}: {printable(result.left_out)}",
              file=sys.stderr)
    return found, left_out, problem


def folded(lines: list[str], width: int) -> str:
    """Return lines as text that fits the terminal; no number is parted from what it belongs to."""
    text = []
    for line in lines:
        unbroken = re.sub(r"(?<![,:]) (?=[+-]?\d|s )", "\0", line)
        indent = 19 if line.startswith(" ") else 2    # the first holds names, the others numbers
        text.append(textwrap.fill(unbroken, width, subsequent_indent=" " * indent,
                                  break_long_words=False, break_on_hyphens=False))
    return "\n".join(text).replace("\0", " ")


def tell_pages(found: list[Result], folder: str) -> None:
    """Say on stderr which pages were drawn: stdout may be a table."""
    pages = [printable(result.page) for result in found]
    drawn = pages[0] if len(pages) == 1 else f"{len(pages)} pages in {printable(folder)}"
    print(f"classify.py: drawn: {drawn}", file=sys.stderr)


def print_found(found: list[Result], left_out: list[Result], loaded, asked) -> None:
    """Print what was found, in the form asked for."""
    frame = as_frame(found, loaded.classes, script.feature_names(loaded.recipe))
    if asked.data_dir:
        frame["record"] = [os.path.relpath(name, asked.data_dir) for name in frame["record"]]
    if asked.json:
        document = as_json(frame, found, left_out, loaded, asked.model)
        print(json.dumps(document, indent=1, allow_nan=False))
        return
    if asked.csv:
        frame["record"] = frame["record"].map(printable)
        print(frame.drop(columns="left_out").to_csv(index=False), end="")
        return

    width = shutil.get_terminal_size((100, 24)).columns
    lines = [*as_table(frame, loaded.classes, asked.wide, width), ""]
    for result in found:
        if result.importance:
            lines += [folded(as_words(result, loaded.classes), width), ""]
    print("\n".join([*lines, origin.note(loaded.card)]))


def check_flags(asked: argparse.Namespace) -> None:
    """Raise `UserError` if flags do not fit together, or a number is out of range."""
    if asked.pdf and not asked.plot:
        raise UserError("--pdf: expected --plot FOLDER too")
    if asked.embeddings and (asked.windows or not asked.embeddings.endswith(".npz")):
        raise UserError(f"--embeddings {asked.embeddings}: expected a .npz file, and no --windows")
    if not 0 <= asked.jobs <= 1024:
        raise UserError(f"--jobs {asked.jobs}: expected a number from 0 to 1024")


def run(asked: argparse.Namespace) -> int:
    """Do what was asked; return the exit code."""
    check_flags(asked)
    paths = find_records(asked.records)
    is_named = asked.model is not None
    asked.model = choose_model(asked.model)
    loaded = script.load(asked.model)
    if not is_named:
        print(f"classify.py: no --model is named: using {printable(asked.model)}", file=sys.stderr)
    if text := warning(loaded.card, paths):
        print(f"classify.py: {text}", file=sys.stderr)
    if asked.embeddings:
        check_embeddings(asked.embeddings)    # before the work, as what follows
        keras = script.load_tensorflow()[1]
        adaptation.split_model(keras, loaded.model, f"--embeddings, {asked.model}")

    found, left_out, problem = classify_all(paths, loaded, asked)
    if not found:
        counts = reasons([(result.record, result.left_out) for result in left_out])
        raise UserError(f"none of the {len(paths)} records can be used: {counts}")
    print_found(found, left_out, loaded, asked)
    if problem:
        raise problem
    if asked.embeddings:
        write_embeddings(asked.embeddings, found)
    if asked.plot:
        tell_pages(found, asked.plot)
    return 1 if left_out else 0


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    return exit_code("classify.py", run, parse_arguments(arguments))


if __name__ == "__main__":
    sys.exit(main())

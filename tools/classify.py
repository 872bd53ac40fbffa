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

Where the model has a rate step, the heart rate decides between bradycardia, normal and tachycardia;
`no heart rate` marks a record in which none of the three gets more than 0.5. --explain and
--embeddings are about the model before that step.

A model is refused unless it is one that this project builds. Of a record, nothing outside its own
folder is read.
"""

import argparse
import functools
import itertools
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import numpy as np
import pandas as pd
from tqdm import tqdm

import too_feature as script
from ecg import adaptation, files, origin
from ecg.cache import Prepared
from ecg.demo import DEMO_FOLDER
from ecg.errors import RecordError, UserError, exit_code, printable, user_errors
from ecg.explain import Importance, explain, in_brief, spread, summed
from ecg.left_out import count_reasons
from ecg.output.read import feature_column
from ecg.settings import Parser
from too_feature import Loaded, Recipe

CHUNK_RECORDS = 2000        # held in memory at once, 24 kB each
FEW_RECORDS = 100           # are prepared and explained without a progress bar
MAX_NAMED = 12              # leads or features that an explanation names
MIN_NAME_LETTERS = 12       # of a record in the table
START = "start [s]"
OF_A_WINDOW = "too little signal", "gain or unit?"    # after these, the next 10 s may be usable
LEAD_II_SD = 1              # place of its standard deviation among the features
MAX_GAIN_RATIO = 4          # of amplitudes to those learnt; hospitals differ by less than 2
HEART_RATE, RATE_UNIT, RATE_RANGE = script.FEATURES[script.HEART_RATE]


class Result(NamedTuple):
    """A classified record; where it was left out, `left_out` says why and the rest is None."""

    record: str
    start: int | None           # s, of the 10 s in a longer record
    left_out: str
    probabilities: np.ndarray | None = None    # (n_classes,)
    features: np.ndarray | None = None         # (8 or more,)
    importance: Importance | None = None
    embedding: np.ndarray | None = None        # (n_inputs,): what the model's last layer sees
    remark: str = ""                           # what is unusual about it, such as 'gaps'


def say(text: str, program: str = "classify.py") -> None:
    """Say something on stderr: stdout may be a table."""
    print(f"{program}: {printable(text)}", file=sys.stderr)


# --------------------------------------------------------------------------------------- records
def without_extension(name: object) -> str:
    """Return a record's path without the extension of one of its files."""
    return re.sub(r"\.(hea|dat|mat)$", "", str(name))


def read_names(source: str) -> list[str]:
    """Return the lines of stdin (`-`) or of a file (`@name`), without blank ones."""
    if source == "-":
        text = sys.stdin.read()
    else:
        with user_errors("after @, a file with a record on each line is expected"):
            text = Path(source[1:]).read_text(encoding="utf-8-sig", errors="surrogateescape")
    return [line for line in map(str.strip, text.splitlines()) if line]


def find_records(names: Iterable[str | os.PathLike]) -> list[str]:
    """Return the paths, without extension, of the records that names stand for, each once.

    A name is a record, with or without .hea, .dat or .mat; a folder, for all records below it; or
    `@file` or `-`, for names of records in a file or on stdin, one on a line. `UserError` where a
    name stands for no record.
    """
    paths = []
    for name in map(str, names):
        if name == "-" or name.startswith("@"):
            records = read_names(name)
        elif os.path.isdir(name):
            records = sorted(map(str, Path(name).rglob("*.hea")))
        else:
            records = [name]
        if not records:
            raise UserError(f"{name}: no record there (a .hea file, and the file that it names)")
        paths += map(without_extension, records)

    return list(dict.fromkeys(paths))


# ----------------------------------------------------------------------------------------- models
def choose_model(name: str | os.PathLike | None = None, folder: str | os.PathLike = "") -> str:
    """Return the path of the model that a name stands for.

    Parameters
    ----------
    name : a path, or `real_large` or `real_default`, which are in models/
        None: the model of a run, else that of a run with --quick, else `real_large`.
    folder : where that run was started, by default the current folder
    """
    for output in (script.Settings.output, script.QUICK_SETTINGS["output"]):
        own = os.path.join(folder, str(output))
        if not name and os.path.exists(own):
            return own
    return adaptation.find_model(str(name or adaptation.SHIPPED[0]))


@functools.lru_cache(maxsize=2)
def _load(path: str, _times: tuple[int, ...]) -> Loaded:
    return script.load(path)


def load(name: str | os.PathLike | None = None) -> Loaded:
    """Load a model as `choose_model` names it, from memory where its files have not changed."""
    path = choose_model(name)
    both = Path(path), Path(path).with_suffix(".json")
    return _load(path, tuple(file.stat().st_mtime_ns for file in both if file.exists()))


def warning(card: dict, paths: Iterable[str]) -> str:
    """Return what to be warned of before this model classifies these records, or ''."""
    others = [path for path in paths if DEMO_FOLDER not in f"{Path(path).as_posix()}/"]
    if not card.get("synthetic") or not others:
        return ""
    return ("warning: this model has learnt from synthetic records, and these are others: expect "
            f"wrong answers, or name a model of real ones (--model {adaptation.SHIPPED[0]})")


def notices(card: dict, found: list[Result]) -> Iterator[str]:
    """Yield what is unusual about records as a set: remarks, and amplitudes unlike those learnt."""
    remarks = count_reasons(text for result in found for text in result.remark.split("; "))
    if remarks != "none":
        yield f"used although unusual: {remarks}"

    learnt = np.mean([scale["mean"][LEAD_II_SD] for scale in card["scaling"]])
    median = pd.Series([result.features[LEAD_II_SD] for result in found]).median()
    if max(median / learnt, learnt / median) > MAX_GAIN_RATIO:    # never of NaN
        yield (f"notice: lead II has a median standard deviation of {median:.2g} mV, in the "
               f"training records {learnt:.2g}: gain or unit?")


# -------------------------------------------------------------------------------------- classify
def prepare(path: str, recipe: Recipe, start: int = 0) -> Prepared:
    """Prepare 10 s of one record in this process."""
    try:
        ecg, features, remark = script.prepare_record(path, None, recipe, start)
        return Prepared(ecg, features, "", remark)
    except RecordError as error:
        return Prepared(None, None, str(error))


def prepare_windows(path: str, recipe: Recipe) -> Iterator[tuple]:
    """Yield (path, start, `Prepared`) of each 10 s of a record, to its end or where it is damaged.

    A rest that is too short is not yielded, but said on stderr.
    """
    for start in itertools.count(0, script.RECORD_SECONDS):
        window = prepare(path, recipe, start)
        if start and window.reason.startswith("too short"):
            if not window.reason.startswith("too short: 0 s"):
                say(f"not classified: {path} from {start} s on: {window.reason}")
            return

        yield path, start, window
        if window.reason and not window.reason.startswith(OF_A_WINDOW):
            return


def prepare_all(paths: list[str], recipe: Recipe, jobs: int,
                windows: bool) -> Iterator[tuple]:
    """Yield (path, start, `Prepared`) of each record, or of each 10 s of it, in order."""
    settings = script.Settings(recipe=recipe, jobs=jobs, cache=False)
    if windows:
        for path in paths:
            yield from prepare_windows(path, recipe)
        return

    for first in range(0, len(paths), CHUNK_RECORDS):
        chunk = paths[first:first + CHUNK_RECORDS]
        if len(paths) > FEW_RECORDS:
            prepared = script.prepare_many(chunk, None, settings, "reading")
        else:
            prepared = (prepare(path, recipe) for path in chunk)
        yield from zip(chunk, itertools.repeat(None), prepared)


def results(paths: list[str], loaded: Loaded, jobs: int = 0, with_importance: bool = False,
            windows: bool = False, body: Any = None) -> Iterator[Result]:
    """Yield a `Result` for each path without extension, in order; few are in memory at once.

    With `windows`, one for each 10 s of each record, which are prepared in this process. `body` is
    the model without its last layer, where embeddings are wanted.
    """
    prepared = prepare_all(paths, loaded.recipe, jobs, windows)
    while chunk := list(itertools.islice(prepared, CHUNK_RECORDS)):
        usable = [inputs for _, _, inputs in chunk if not inputs.reason]
        if usable:
            signals = np.stack([inputs.signal for inputs in usable])
            features = np.stack([inputs.features for inputs in usable])
            records = script.Records(None, signals, features, np.zeros(len(usable), int))
            predicted = iter(script.predict(loaded.model, records))
            embeddings = iter(script.predict(body, records) if body else [])

        for path, start, (ecg, measured, reason, remark) in chunk:
            if reason:
                yield Result(path, start, reason)
                continue
            probabilities = next(predicted)
            importance = None
            if with_importance:
                importance = explain(loaded.core, ecg, measured, probabilities.argmax())
            yield Result(path, start, "", probabilities, measured, importance,
                         next(embeddings, None), remark)


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
    loaded = load(model_path)
    classified = results(find_records(records), loaded, jobs, importance, windows)
    return as_frame([as_record(result, loaded) for result in classified], loaded)


def classify_record(record_path: str | os.PathLike,
                    model_path: str | os.PathLike | None = None) -> dict[str, float]:
    """Return the probability of each class for one WFDB record, by a saved model.

    `model_path` is a .keras file with its .json next to it, or another name for `choose_model`.

    Raises
    ------
    UserError
        The model cannot be used.
    RecordError
        The record cannot be used.
    """
    loaded = load(model_path)
    result, = results([without_extension(record_path)], loaded)
    if result.left_out:
        raise RecordError(result.left_out)
    return dict(zip(loaded.classes, result.probabilities.tolist(), strict=True))


# ------------------------------------------------------------------------------------------ forms
def name_of(result: Result) -> str:
    """Return the name of a record, and of the 10 s of a longer one."""
    return result.record if result.start is None else f"{result.record} from {result.start} s on"


def say_left_out(result: Result, program: str = "classify.py") -> None:
    """Say why a record could not be used."""
    say(f"left out {name_of(result)}: {result.left_out}", program)


def as_record(result: Result, loaded: Loaded) -> dict[str, Any]:
    """Return what the JSON document says about a record; null is a feature not measurable."""
    record: dict[str, Any] = {"record": printable(result.record)}
    if result.start is not None:
        record["start"] = result.start
    if result.left_out:
        return record | {"reason": printable(result.left_out)}

    best = result.probabilities.argmax()
    names = [name for name, _, _ in script.feature_names(loaded.recipe)]
    record |= {
        "predicted": loaded.classes[best],
        "confidence": float(result.probabilities[best]),
        "probabilities": dict(zip(loaded.classes, result.probabilities.tolist(), strict=True)),
        "features": {name: value if np.isfinite(value) else None
                     for name, value in zip(names, result.features.tolist(), strict=True)}}
    if result.importance:
        record["importance"] = summed(
            result.importance, script.LEADS, names, script.RECORD_SECONDS)
    return record


def as_frame(records: list[dict], loaded: Loaded) -> pd.DataFrame:
    """Put what `as_record` returns into a DataFrame with a row each, as `classify` returns it.

    With an importance there are columns "importance lead V1" and so on, for leads, seconds and
    features, all of them changes of the probability of the predicted class.
    """
    units = {name: feature_column(name, unit)
             for name, unit, _ in script.feature_names(loaded.recipe)}
    frame = pd.json_normalize(records, sep=" ").rename(columns={"start": START})
    columns = {name: name for name in ("record", START) if name in frame}
    columns |= {"predicted": "predicted", "confidence": "confidence"}
    columns |= {f"probabilities {name}": f"p {name}" for name in loaded.classes}
    columns |= {f"features {name}": column for name, column in units.items()}

    others = [name for name in frame if name not in (*columns, "reason")]
    frame = frame.reindex(columns=[*columns, *others, "reason"])
    frame = frame.rename(columns=columns | {"reason": "left_out"}).fillna({"left_out": ""})
    return frame.astype(dict.fromkeys(units.values(), float))    # None becomes NaN


def as_line(row: dict[str, Any], classes: list[str], letters: int) -> dict[str, Any]:
    """Return what the table shows of a record: `letters` of its two most probable classes.

    A star marks a heart rate outside its reference range.
    """
    first, second = sorted(classes, key=lambda name: -row[f"p {name}"])[:2]
    values = {name: row[feature_column(name, unit)] for name, unit, _ in script.FEATURES}
    low, high = RATE_RANGE
    star = "*" if values[HEART_RATE] < low or values[HEART_RATE] > high else " "
    return ({"start s": row[START]} if START in row else {}) | {
        "class": f"{first[:letters]:{letters}}", "p": row[f"p {first}"],
        "second": f"{second[:letters]:{letters}}", "p2": row[f"p {second}"],
        RATE_UNIT: f"{values[HEART_RATE]:.0f}{star}",
        "remarks": " ".join(f"no {name}" for name, value in values.items() if np.isnan(value))}


def as_table(frame: pd.DataFrame, classes: list[str], width: int) -> str:
    """Write a frame of `classify` as a table that fits the `width` of a terminal, in characters."""
    letters = 19 if width >= 100 else 11
    table = pd.DataFrame([as_line(row, classes, letters) for row in frame.to_dict("records")])
    table["remarks"] = table["remarks"].str.ljust(table["remarks"].str.len().max())
    table.index = [""] * len(table)
    form = {"float_format": "%.2f", "justify": "left"}
    room = max(MIN_NAME_LETTERS, width - 3 - table.to_string(**form).index("\n"))
    table.index = frame["record"].str[-room:].tolist()    # the end tells records apart

    meaning = "* outside the reference range: heart rate {}-{} bpm".format(*RATE_RANGE)
    return f"{table.to_string(line_width=width, **form)}\n\n{meaning}"


def as_words(record: dict[str, Any], width: int) -> str:
    """Write down what moved the probability of a record's class, as lines of text."""
    moved = record["importance"]
    window = f" from {record['start']} s on" if "start" in record else ""
    heading = (f"{record['record']}{window}: from {moved['baseline']:.3f} (flat ECG, average "
               f"features) to {moved['probability']:.3f} for {record['predicted']}, without any "
               "rate step, by")
    lines = [textwrap.fill(heading, width, subsequent_indent="  ")]
    for kind in ("lead", "second", "feature"):
        changes = pd.Series(moved[kind])
        largest = changes.abs().nlargest(MAX_NAMED).index
        names = changes.index if kind == "second" else largest    # seconds stay in order
        words = [f"{name} {changes[name]:+.3f}".replace(" ", "\0") for name in names]
        # By lead and by second, the same amount is divided: it is said once
        amount = "the same" if kind == "second" else f"{changes.sum():+.3f}"
        line = f"  {kind + 's':9}{amount}: {', '.join(words)}"
        lines.append(textwrap.fill(line, width, subsequent_indent=" " * 19).replace("\0", " "))

    return "\n".join([*lines, f"  {'missed':9}{moved['rest']:+.3f}"])


def as_json(records: list[dict], loaded: Loaded, model_path: str) -> str:
    """Return one JSON document: model, units and reference ranges first, then the records."""
    features = script.feature_names(loaded.recipe)
    document = {
        "model": printable(model_path),
        "model_sha256": files.sha256(model_path),
        "synthetic": bool(loaded.card.get("synthetic")),
        "labels_origin": origin.of_card(loaded.card),
        "note": origin.note(loaded.card),
        "classes": loaded.classes,
        "units": {name: unit or "1" for name, unit, _ in features},
        "reference_ranges": {name: limits for name, _, limits in features if limits},
        "records": [record for record in records if "reason" not in record],
        "left_out": [record for record in records if "reason" in record],
    }
    return json.dumps(document, indent=1, allow_nan=False)


# ------------------------------------------------------------------------------------------- draw
def page(result: Result, classes: list[str], note: str) -> Any:
    """Return a record's ECG page (a matplotlib Figure), its importance, if any, over it.

    `note` is printed at its foot: `ecg.origin.note` of the model's card.
    """
    from ecg.output import ecg_page

    recording = script.read_record(result.record, start=result.start or 0)
    signal, fs = recording.signal, recording.fs
    rhythm = script.measure_rhythm(signal, fs, recording.is_missing)
    names = [name for name, _, _ in script.FEATURES + script.EXTRA_FEATURES]
    reasons = None
    if result.importance:
        colours, at_full_colour = spread(result.importance, len(signal))
        reasons = ecg_page.Reasons(colours, at_full_colour, in_brief(result.importance, names))

    order = np.argsort(-result.probabilities, kind="stable")
    classes = [classes[place] for place in order]
    return ecg_page.draw_ecg(
        signal, fs, script.LEADS, rhythm.r_peaks,
        title=f"Predicted {classes[0]}: record {printable(os.path.basename(name_of(result)))}",
        text=ecg_page.write_probabilities(classes, result.probabilities[order]),
        note=note, reasons=reasons,
        measured=ecg_page.write_measured(dict(zip(names, result.features, strict=False))))


def draw_pages(found: list[Result], loaded: Loaded, folder: str) -> None:
    """Draw the page of each record into a folder; one of a name that is taken gets a number."""
    from ecg.output import style

    names = pd.Series([
        re.sub(r"[^\w.-]+", "_", os.path.basename(name_of(result))) for result in found])
    is_taken = names.str.casefold().duplicated()
    names[is_taken] += "_" + names.index[is_taken].astype(str)
    bar = tqdm(found, "drawing", disable=len(found) <= FEW_RECORDS)
    for result, name in zip(bar, names, strict=True):
        figure = page(result, loaded.classes, origin.note(loaded.card))
        drawn, = style.save(figure, Path(folder, name), ["png"], dpi=150)

    what = drawn if len(found) == 1 else f"{len(found)} pages in {folder}"
    say(f"drawn: {what}")


# ------------------------------------------------------------------------------------------ main
def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__, {"--wide": "--csv has all columns"})
    add = parser.add_argument
    add("records", nargs="+", metavar="RECORD",
        help="record, folder, @file with a path on each line, or - for such lines on stdin")
    add("--model",
        help=".keras file with its .json next to it, or real_large or real_default (default: "
        f"{script.Settings.output} if it is here, else {adaptation.SHIPPED[0]})")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document")
    form.add_argument("--csv", action="store_true", help="print CSV, numbers in full")

    add("--windows", action="store_true",
        help="classify each 10 s of a longer record, not only the first, in one process")
    add("--explain", action="store_true",
        help="say which leads, seconds and features moved the probability of the class")
    add("--plot", metavar="FOLDER",
        help="folder to draw the ECG page of each record in, as PNG")
    add("--embeddings", metavar="FILE",
        help=".npz file for the records' names and what the model's last layer sees of each")
    add("--jobs", type=int, default=0,
        help="worker processes that read records; 0 chooses for you (default: %(default)s)")
    return parser.parse_args(arguments)


def print_results(records: list[dict], loaded: Loaded, model_path: str,
                  flags: argparse.Namespace) -> None:
    """Print what `as_record` returned, in the form that the flags name."""
    found = [record for record in records if "reason" not in record]
    frame = as_frame(found, loaded).drop(columns="left_out")
    if flags.json:
        print(as_json(records, loaded, model_path))
    elif flags.csv:
        print(frame.to_csv(index=False), end="")
    else:
        width = shutil.get_terminal_size((100, 24)).columns
        parts = [as_table(frame, loaded.classes, width)]
        parts += [as_words(record, width) for record in found if flags.explain]
        print("\n\n".join([*parts, origin.note(loaded.card)]))


def run(flags: argparse.Namespace) -> int:
    """Do what the flags say; return the exit code."""
    paths = find_records(flags.records)
    model_path = choose_model(flags.model)
    loaded = load(model_path)
    if flags.model is None:
        say(f"no --model is named: using {model_path}")
    if text := warning(loaded.card, paths):
        say(text)

    body = None
    if flags.embeddings:
        files.check_target(flags.embeddings, [model_path])    # before the work
        body, _ = adaptation.split_model(
            script.load_tensorflow()[1], loaded.core, f"--embeddings, {model_path}")

    classified = []
    is_quick = len(paths) <= FEW_RECORDS or not flags.explain
    in_turn = results(paths, loaded, flags.jobs, flags.explain, flags.windows, body)
    for result in tqdm(in_turn, "explaining", len(paths), disable=is_quick):
        classified.append(result)
        if result.left_out:
            say_left_out(result)

    found = [result for result in classified if not result.left_out]
    if not found:
        counts = count_reasons(result.left_out for result in classified)
        raise UserError(f"none of the {len(paths)} records can be used: {counts}")

    for text in notices(loaded.card, found):
        say(text)
    records = [as_record(result, loaded) for result in classified]
    print_results(records, loaded, model_path, flags)    # first: the disk may be full
    if flags.embeddings:
        content = files.npz(names=[result.record for result in found],
                            embeddings=[result.embedding for result in found])
        files.write_whole(flags.embeddings, lambda file: file.write_bytes(content))
    if flags.plot:
        draw_pages(found, loaded, flags.plot)
    return 1 if len(found) < len(classified) else 0


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    return exit_code("classify.py", run, parse_arguments(arguments))


if __name__ == "__main__":
    sys.exit(main())

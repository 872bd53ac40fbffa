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
folder is read or, where a folder is named, outside that.
"""

import argparse
import fileinput
import functools
import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

import too_feature as script
from ecg import adaptation, files, origin
from ecg.cache import WORTH_WORKERS, deaf_to_interrupts
from ecg.demo import DEMO_FOLDER
from ecg.errors import RecordError, UserError, exit_code, printable, user_errors
from ecg.explain import Importance, explain, in_brief, spread, summed
from ecg.left_out import count_reasons
from ecg.output.read import feature_column, probability_column
from ecg.settings import Parser
from too_feature import Loaded, Recipe

CHUNK_RECORDS = 100         # classified at once
MAX_NAMED = 12              # leads or features that an explanation names
NAME_LETTERS = 18           # of a record in the table
CLASS_LETTERS = 13          # Bundle Branch
START = "start [s]"
OF_A_WINDOW = "too little signal", "gain or unit?"    # after these, the next 10 s may be usable
LEAD_II_SD = 1              # place of its standard deviation among the features
MAX_GAIN_RATIO = 4          # of amplitudes to those learnt; hospitals differ by less than 2
Name = str | os.PathLike
HEART_RATE, RATE_UNIT, RATE_RANGE = script.FEATURES[script.HEART_RATE]


class Result(NamedTuple):
    """A classified record; where it was left out, `left_out` says why and the rest is None."""

    record: str
    folder: str | None          # outside of which nothing was read; None: the record's own
    start: int | None           # s, of the 10 s in a longer record
    left_out: str = ""
    ecg: np.ndarray | None = None              # prepared, until it is classified
    features: np.ndarray | None = None         # (8 or more,)
    remark: str = ""                           # what is unusual about it, such as 'gaps'
    probabilities: np.ndarray | None = None    # (n_classes,)
    importance: Importance | None = None
    embedding: np.ndarray | None = None        # (n_inputs,): what the model's last layer sees

    @property
    def name(self) -> str:
        """Name of the record, and of the 10 s of a longer one."""
        return self.record if self.start is None else f"{self.record} from {self.start} s on"


def say(text: str, program: str = "classify.py") -> None:
    """Say something on stderr: stdout may be a table."""
    print(f"{program}: {printable(text)}", file=sys.stderr)


# --------------------------------------------------------------------------------------- records
def read_names(source: str) -> list[str]:
    """Return the lines of a file, or of stdin (`-`), without blank ones."""
    with (user_errors("after @, a file with a record on each line is expected"),
          fileinput.input(source, encoding="utf-8-sig", errors="surrogateescape") as lines):
        return [line.strip() for line in lines if line.strip()]


def find_records(names: Iterable[Name]) -> dict[str, str | None]:
    """Return the paths, without extension, of the records that names stand for, each once.

    A name is a record, with or without .hea, .dat or .mat; a folder, for all records below it; or
    `@file` or `-`, for names of records in a file or on stdin, one on a line. `UserError` where a
    name stands for no record. Beside each path is the folder that was named, or None: nothing
    outside of it is read.
    """
    found: dict[str, str | None] = {}
    for name in map(str, names):
        folder = name if os.path.isdir(name) else None
        if name == "-" or name.startswith("@"):
            records = read_names(name.removeprefix("@"))
        else:
            records = sorted(map(str, Path(name).rglob("*.hea"))) if folder else [name]
        if not records:
            raise UserError(f"{name}: no record there (a .hea file, and the file that it names)")
        paths = [re.sub(r"\.(hea|dat|mat)$", "", record) for record in records]
        found |= dict.fromkeys(paths, folder)

    return found


# ----------------------------------------------------------------------------------------- models
def choose_model(name: Name | None = None, folder: Name = "") -> str:
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


def load(name: Name | None = None) -> Loaded:
    """Load a model as `choose_model` names it, from memory where its files have not changed."""
    path = choose_model(name)
    both = Path(path), Path(path).with_suffix(".json")
    return _load(path, tuple(file.stat().st_mtime_ns for file in both if file.exists()))


def notices(card: dict, found: list[Result]) -> Iterator[str]:
    """Yield what is unusual about records as a set, or for this model."""
    is_demo = all(DEMO_FOLDER in f"{Path(result.record).as_posix()}/" for result in found)
    if card.get("synthetic") and not is_demo:
        yield ("warning: this model has learnt from synthetic records, and these are others: "
               "expect wrong answers, or name a model of real ones (--model "
               f"{adaptation.SHIPPED[0]})")
    remarks = count_reasons(text for result in found for text in result.remark.split("; "))
    if remarks != "none":
        yield f"used although unusual: {remarks}"

    learnt = np.mean([scale["mean"][LEAD_II_SD] for scale in card["scaling"]])
    median = pd.Series([result.features[LEAD_II_SD] for result in found]).median()
    if max(median / learnt, learnt / median) > MAX_GAIN_RATIO:    # never of NaN
        yield (f"notice: lead II has a median standard deviation of {median:.2g} mV, in the "
               f"training records {learnt:.2g}: gain or unit?")


# -------------------------------------------------------------------------------------- classify
def prepare(path: str, folder: str | None, recipe: Recipe, windows: bool) -> list[Result]:
    """Return a `Result` without probabilities of 10 s of a record.

    With `windows`, of each 10 s to its end or where it is damaged; else `start` is None.
    """
    parts: list[Result] = []
    for start in itertools.count(0, script.RECORD_SECONDS):
        reason, prepared = "", ()
        try:
            prepared = script.prepare_record(path, folder, recipe, start)
        except RecordError as error:
            reason = str(error)

        if start and reason.startswith("too short"):
            break
        parts.append(Result(path, folder, start if windows else None, reason, *prepared))
        is_damaged = reason and not reason.startswith(OF_A_WINDOW)
        if is_damaged or not windows:
            break
    return parts


def results(records: dict[str, str | None], loaded: Loaded, with_importance: bool = False,
            windows: bool = False, body: Any = None, is_lazy: bool = False) -> Iterator[Result]:
    """Yield a `Result` for each record of `find_records`, in order; few are in memory at once.

    With `windows`, one for each 10 s of each record. `body` is the model without its last layer,
    where embeddings are wanted. `is_lazy`: not all of the results may be taken.
    """
    # Workers read records far ahead of what is taken
    is_worth = len(records) >= WORTH_WORKERS and not (with_importance or is_lazy)
    parallel = joblib.Parallel(-1 if is_worth else 1, return_as="generator")
    with deaf_to_interrupts():    # as the workers stay, which start now
        parts = parallel(joblib.delayed(prepare)(*record, loaded.recipe, windows)
                         for record in records.items())
    prepared = itertools.chain.from_iterable(parts)
    while chunk := list(itertools.islice(prepared, CHUNK_RECORDS)):
        usable = [(part.ecg, part.features) for part in chunk if not part.left_out]
        if usable:
            signals, features = map(np.array, zip(*usable, strict=True))
            inputs = script.Records(None, signals, features, np.zeros(len(usable), int))
            predicted = iter(script.predict(loaded.model, inputs))
            embeddings = iter(script.predict(body, inputs) if body else [])

        for part in chunk:
            if not part.left_out:
                p = next(predicted)
                importance = explain(
                    loaded.core, part.ecg, part.features, p.argmax()) if with_importance else None
                part = part._replace(ecg=None, probabilities=p, importance=importance,
                                     embedding=next(embeddings, None))
            yield part


def classify(records, model_path=None, importance: bool = False,
             windows: bool = False) -> pd.DataFrame:
    """Classify records, given as for `find_records`; return a DataFrame with a row for each.

    Parameters
    ----------
    records : list of str, or one
    model_path : a .keras file with its .json next to it, or another name for `choose_model`
    importance : whether to explain each class too
    windows : whether to classify each 10 s of a longer record, not only the first

    Returns
    -------
    DataFrame of record, start [s] (only with `windows`), predicted, confidence, "p CLASS" for each
        class, the features with their units, and left_out, which says why a record has none of
        these, or ""
    """
    if isinstance(records, Name):
        records = [records]
    loaded = load(model_path)
    return as_frame(results(find_records(records), loaded, importance, windows), loaded)


def classify_record(record_path: Name,
                    model_path: Name | None = None) -> dict[str, float]:
    """Return the probability of each class for one WFDB record, by a saved model.

    `model_path` is a .keras file with its .json next to it, or another name for `choose_model`.

    Raises
    ------
    UserError
        The model cannot be used.
    RecordError
        The record cannot be used.
    """
    row = classify(record_path, model_path).iloc[0]
    if row["left_out"]:
        raise RecordError(row["left_out"])
    return row.filter(regex="^p ").rename(lambda column: column[2:]).to_dict()


# ------------------------------------------------------------------------------------------ forms
def as_frame(classified: Iterable[Result], loaded: Loaded) -> pd.DataFrame:
    """Put results into a DataFrame with a row each, as `classify` returns it.

    With an importance there are columns "importance lead V1" and so on, for leads, seconds and
    features, all of them changes of the probability of the predicted class.
    """
    columns = [*map(probability_column, loaded.classes),
               *(feature_column(name, unit)
                 for name, unit, _ in script.feature_names(loaded.recipe))]
    rows, moved = [], []
    for result in classified:
        row = {"record": printable(result.record), START: result.start,
               "left_out": printable(result.left_out)}
        if not result.left_out:
            p = result.probabilities.tolist()
            row |= {"predicted": loaded.classes[p.index(max(p))], "confidence": max(p)}
            row |= dict(zip(columns, p + result.features.tolist(), strict=True))
        rows.append(row)
        moved.append(summed_of(result, loaded) if result.importance else {})

    windows = [START] if any(row[START] is not None for row in rows) else []
    frame = pd.DataFrame(
        rows, columns=["record", *windows, "predicted", "confidence", *columns, "left_out"])
    importance = pd.json_normalize(moved, sep=" ").add_prefix("importance ")
    return pd.concat([frame, importance], axis=1)


def summed_of(result: Result, loaded: Loaded) -> dict[str, Any]:
    """Return the importance of a result by lead, second and feature."""
    names = [name for name, _, _ in script.feature_names(loaded.recipe)]
    return summed(result.importance, script.LEADS, names, script.RECORD_SECONDS)


def as_table(frame: pd.DataFrame, classes: list[str]) -> str:
    """Write a frame of `classify` as a table with the two most probable classes of each record.

    A star marks a heart rate outside its reference range.
    """
    p = frame[list(map(probability_column, classes))].to_numpy()
    order = np.argsort(-p, axis=1, kind="stable")[:, :2]
    first, second = np.array([name[:CLASS_LETTERS] for name in classes])[order].T
    p_first, p_second = np.take_along_axis(p, order, axis=1).T
    rate = frame[feature_column(HEART_RATE, RATE_UNIT)]
    stars = np.where(rate.between(*RATE_RANGE), " ", "*")
    table = pd.DataFrame({
        "record": frame["record"].str[-NAME_LETTERS:],    # the end tells records apart
        **frame.filter([START]),
        "class": first, "p": p_first, "second": second, "p2": p_second,
        RATE_UNIT: (rate.map("{:.0f}".format) + stars).mask(rate.isna(), "no heart rate")})

    text = table.to_string(index=False, float_format="%.2f")
    low, high = RATE_RANGE
    return f"{text}\n\n* outside the reference range: heart rate {low}-{high} bpm"


def as_words(result: Result, loaded: Loaded) -> str:
    """Write down what moved the probability of a record's class: a sentence, and a table."""
    ecg, features, baseline, probability, rest = result.importance
    moved = summed_of(result, loaded)
    table = pd.DataFrame({
        kind: pd.Series([f"{part} {change:+.3f}" for part, change in sorted(
            moved[kind].items(), key=lambda item: -abs(item[1]))])
        for kind in ("lead", "second", "feature")})
    return (f"{printable(result.name)}:\nfrom {baseline:.3f} (flat ECG, average features) to "
            f"{probability:.3f} for {loaded.classes[result.probabilities.argmax()]},\nwithout any "
            f"rate step, by leads {ecg.sum():+.3f}, features {features.sum():+.3f}, missed "
            f"{rest:+.3f};\nof these, most by\n"
            + table.head(MAX_NAMED).fillna("").to_string(index=False))


def as_json(frame: pd.DataFrame, loaded: Loaded, model_path: str) -> str:
    """Return one JSON document: the model first, then the rows of the table.

    In these, null is a feature that could not be measured.
    """
    features = script.feature_names(loaded.recipe)
    document = {
        "model": printable(model_path),
        "model_sha256": files.sha256(model_path),
        "synthetic": bool(loaded.card.get("synthetic")),
        "labels_origin": origin.of_card(loaded.card),
        "note": origin.note(loaded.card),
        "classes": loaded.classes,
        "reference_ranges": {name: limits for name, _, limits in features if limits},
        "records": json.loads(frame.to_json(orient="records", double_precision=15)),
    }
    return json.dumps(document, indent=1)


# ------------------------------------------------------------------------------------------- draw
def page(result: Result, classes: list[str], note: str) -> Any:
    """Return a record's ECG page (a matplotlib Figure), its importance, if any, over it.

    `note` is printed at its foot: `ecg.origin.note` of the model's card.
    """
    from ecg.output import ecg_page

    recording = script.read_record(result.record, result.folder, result.start or 0)
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
        title=f"Predicted {classes[0]}: record {printable(os.path.basename(result.name))}",
        text=ecg_page.write_probabilities(classes, result.probabilities[order]),
        note=note, reasons=reasons,
        measured=ecg_page.write_measured(dict(zip(names, result.features, strict=False))))


def draw_pages(found: list[Result], loaded: Loaded, folder: str) -> None:
    """Draw the page of each record into a folder; one of a name that is taken gets a number."""
    from ecg.output import style

    names: dict[str, Result] = {}
    for result in found:
        name = re.sub(r"[^\w.-]+", "_", os.path.basename(result.name))
        names[f"{name}_{len(names)}" if name in names else name] = result
    for name, result in tqdm(names.items(), "drawing", disable=None):
        figure = page(result, loaded.classes, origin.note(loaded.card))
        style.save(figure, Path(folder, name), ["png"], dpi=150)
    say(f"drawn: {len(found)} ECG page(s) in {folder}")


# ------------------------------------------------------------------------------------------ main
def in_form(classified: list[Result], loaded: Loaded, model_path: str,
            flags: argparse.Namespace) -> str:
    """Return the results in the form that the flags name."""
    frame = as_frame(classified, loaded)
    if flags.json:
        return as_json(frame, loaded, model_path)
    frame = frame[frame.pop("left_out") == ""].reset_index(drop=True)
    if flags.csv:
        return frame.to_csv(index=False).rstrip("\n")

    explained = [as_words(result, loaded) for result in classified if result.importance]
    return "\n\n".join([as_table(frame, loaded.classes), *explained, origin.note(loaded.card)])


def run(flags: argparse.Namespace) -> int:
    """Do what the flags say; return the exit code."""
    records = find_records(flags.records)
    model_path = choose_model(flags.model)
    loaded = load(model_path)
    if flags.model is None:
        say(f"no --model is named: using {model_path}")

    body = None
    if flags.embeddings:
        files.check_target(flags.embeddings, [model_path])    # before the work
        body, _ = adaptation.split_model(
            script.load_tensorflow()[1], loaded.core, f"--embeddings, {model_path}")

    classified = []
    in_turn = results(records, loaded, flags.explain, flags.windows, body)
    for result in tqdm(in_turn, "records", len(records), disable=None):    # on a terminal
        classified.append(result)
        if result.left_out:
            say(f"left out {result.name}: {result.left_out}")

    found = [result for result in classified if not result.left_out]
    if not found:
        counts = count_reasons(result.left_out for result in classified)
        raise UserError(f"none of the {len(records)} records can be used: {counts}")

    for text in notices(loaded.card, found):
        say(text)
    print(in_form(classified, loaded, model_path, flags))    # first: the disk may be full
    if flags.embeddings:
        files.write_bytes(flags.embeddings, files.npz(
            names=[result.record for result in found],
            embeddings=[result.embedding for result in found]))
    if flags.plot:
        draw_pages(found, loaded, flags.plot)
    return 1 if len(found) < len(classified) else 0


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = Parser(__doc__, {
        "--wide": "--csv has all columns", "--jobs": "it chooses by the number of records"})
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
        help="classify each 10 s of a longer record, not only the first")
    add("--explain", action="store_true",
        help="say which leads, seconds and features moved the probability of the class")
    add("--plot", metavar="FOLDER",
        help="folder to draw the ECG page of each record in, as PNG")
    add("--embeddings", metavar="FILE",
        help=".npz file for the records' names and what the model's last layer sees of each")
    return exit_code("classify.py", run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

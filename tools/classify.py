"""Classify ECG records with a saved model, and show on which leads and moments it relied.

    python tools/classify.py my_data/40689238                     # one record, a table
    python tools/classify.py my_data --csv > classes.csv          # all records below a folder
    python tools/classify.py @list.txt --json                     # paths from a file; - for stdin
    python tools/classify.py my_data --explain --plot pages       # why, drawn over the ECG

In a notebook: `from tools.classify import classify, classify_record`. Exit code: 0 all records were
classified, 1 some were left out (each with its reason on stderr), 2 none was.

A model is refused unless it is made of the layers that this project's models are made of; of a
record nothing outside its own folder is read.
"""

import argparse
import functools
import itertools
import json
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.ndimage import uniform_filter1d
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import too_feature as script
from tools.safe_model import load_model

CHUNK = 2000                # records held in memory at once, 24 kB each
STEPS = 64                  # points of the path of integrated gradients, at first
NOT_MEDICAL = ("The labels that the model learnt from are machine reads. "
               "This is not a medical device.")


class Importance(NamedTuple):
    """What moved the probability of one class away from that of a flat ECG, average features.

    `ecg` (sequence_length, 12), `features` (8 or more) and `rest`, what the approximation missed,
    add up to `probability` - `baseline`.
    """

    ecg: np.ndarray
    features: np.ndarray
    baseline: float
    probability: float
    rest: float


class Result(NamedTuple):
    """What was found about a record; if it is left out, `left_out` says why, all else is None."""

    record: str
    left_out: str
    probabilities: np.ndarray | None = None
    features: np.ndarray | None = None
    importance: Importance | dict | None = None    # a dict: as `summed`


# ----------------------------------------------------------------------------------------- model
def _layers(model):
    for layer in model.layers:
        yield from _layers(layer) if hasattr(layer, "layers") else [layer]


def _predict(model, signals, features):
    records = script.Records(None, signals, features, np.zeros(len(features), int))
    with script.load_tensorflow()[0].device("CPU:0"):    # should a notebook not have hidden the GPU
        probabilities = script.predict(model, records)    # in batches of one shape
    if not np.isfinite(probabilities).all():
        raise script.UserError("the model gives no probabilities (NaN): train it again")
    return probabilities


# --------------------------------------------------------------------------------------- explain
@functools.lru_cache(maxsize=2)
def _slopes(model):
    """Return a function: probabilities of a class along a batch, and their gradients."""
    tf, keras = script.load_tensorflow()
    if keras.backend.backend() != "tensorflow":
        raise script.UserError("--explain: expected KERAS_BACKEND=tensorflow, which can do it")

    @tf.function
    def slopes(ecg, features, target):
        with tf.GradientTape() as tape:
            tape.watch((ecg, features))
            probability = tf.gather(model([ecg, features], training=False), target, axis=1)
        return probability, *tape.gradient(probability, (ecg, features),
                                           unconnected_gradients="zero")
    return slopes


def explain(model, ecg, features, target, tolerance=0.005):
    """Return the `Importance` of a record's inputs for the probability of class number `target`.

    Integrated gradients (Sundararajan et al., ICML 2017) from a flat ECG with average features: all
    inputs grow together, and each gets what its growing adds to the probability. Features that
    could not be measured count as average, like in the model. Points are denser near the start,
    where large values pass the model's limits, and doubled until less than `tolerance` is missed.
    """
    keras = script.load_tensorflow()[1]
    means = [np.ravel(layer.mean) for layer in _layers(model)
             if isinstance(layer, keras.layers.Normalization)]
    mean = np.mean([x for x in means if x.size == features.size] or [np.zeros(features.size)], 0)
    far = np.where(np.isnan(features), 0, features - mean)
    for steps in STEPS * 2 ** np.arange(5):
        places = (np.arange(steps) + 0.5) / steps
        shares, weights = places**3, 3 * places**2 / steps
        sums = [0, 0]
        for part in np.split(np.arange(steps), steps // STEPS):
            share = np.append(shares[part], [0, 1])    # and the path's ends, of no weight
            weight = np.append(weights[part], [0, 0])
            inputs = share[:, None, None] * ecg, mean + share[:, None] * far
            probability, *slopes = _slopes(model)(
                *(np.asarray(x, np.float32) for x in inputs), np.int32(target))
            sums = [total + np.tensordot(weight, slope, 1)
                    for total, slope in zip(sums, slopes, strict=True)]
        baseline, end = np.asarray(probability, float)[-2:]
        moved = sums[0] * ecg, sums[1] * far
        rest = end - baseline - sum(x.sum() for x in moved)
        if abs(rest) < tolerance:
            break
    return Importance(*moved, float(baseline), float(end), float(rest))


def spread(importance, samples):
    """Spread an importance (sequence_length, 12) over raw samples, -1 to 1 (the largest 0.5 %)."""
    points = len(importance)
    smooth = uniform_filter1d(importance, max(1, points // 100), axis=0)    # 100 ms, for the eye
    places = np.arange(samples) * points / samples
    raw = np.stack([np.interp(places, np.arange(points), lead) for lead in smooth.T], axis=1)
    return np.clip(raw / (np.quantile(np.abs(raw), 0.995) or np.abs(raw).max() or 1), -1, 1)


def summed(result, settings):
    """Return a `Result` with its importance, if any, added up by lead, second and feature."""
    if result.importance is None:
        return result
    ecg, features, *others = result.importance
    seconds = np.arange(len(ecg)) * script.RECORD_SECONDS // len(ecg)
    per_second = np.bincount(seconds, ecg.sum(axis=1))
    names = [name for name, _, _ in script.feature_names(settings)]
    return result._replace(importance={
        "lead": dict(zip(script.LEADS, ecg.sum(axis=0).tolist(), strict=True)),
        "second": {f"{i}-{i + 1} s": x for i, x in enumerate(per_second.tolist())},
        "feature": dict(zip(names, features.tolist(), strict=True)),
        **dict(zip(Importance._fields[2:], others, strict=True))})


# -------------------------------------------------------------------------------------- classify
def _plain(path):
    return re.sub(r"\.(hea|dat)$", "", str(path).replace("\0", "?"))


def find_records(names):
    """Return the paths, without extension, that names stand for.

    A name is a record, with or without .hea or .dat; a folder, for all records below it; `@file` or
    `-`, for the names in a file or on stdin, one on a line. `UserError` where there are none.
    """
    paths = []
    for name in map(str, names):
        if name == "-" or name.startswith("@"):
            try:
                text = sys.stdin.read() if name == "-" else Path(name[1:]).read_text(
                    encoding="utf-8-sig", errors="surrogateescape")
            except OSError as error:
                raise script.UserError(f"{name[1:]}: {error.strerror}; after @ the name of a file "
                                       "with a record on each line is expected") from error
            found = [_plain(line.strip()) for line in text.splitlines() if line.strip()]
        elif os.path.isdir(name):
            found = sorted(_plain(path) for path in Path(name).rglob("*.hea"))
        else:
            found = [_plain(name)]
        if not found:
            raise script.UserError(f"{name}: no record there (a .hea file, and what it names)")
        paths += found
    return list(dict.fromkeys(paths))


def _prepare(paths, settings, jobs):
    one = functools.partial(script.prepare_or_say_why, data_dir=None, settings=settings)
    if len(paths) <= 100:
        return [one(path) for path in paths]
    shapes = ((settings.sequence_length, len(script.LEADS)),
              (len(script.feature_names(settings)),))
    try:
        rows = script.tool("store").prepare(paths, one, shapes, "", script.write_whole, jobs=jobs,
                                            title="reading")
    except OSError as error:
        raise script.UserError(str(error)) from error
    return [(row["signal"], row["features"], row["left_out"].decode()) for row in rows]


def results(paths, model_path=script.Settings.output, jobs=0, with_importance=False):
    """Yield a `Result` for each path without extension, in order; with few of them in memory."""
    model, _, settings = load_model(model_path)
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start:start + CHUNK]
        prepared = _prepare(chunk, settings, jobs)
        usable = [inputs[:2] for inputs in prepared if not inputs[2]]
        found = iter(())
        if usable:
            signals, features = map(np.stack, zip(*usable, strict=True))
            found = zip(signals, features, _predict(model, signals, features), strict=True)
        for path, (_, _, left_out) in zip(chunk, prepared, strict=True):
            if left_out:
                yield Result(path, left_out)
                continue
            ecg, features, probabilities = next(found)
            yield Result(path, "", probabilities, features, explain(
                model, ecg, features, probabilities.argmax()) if with_importance else None)


def as_frame(found, classes, settings):
    """Put `summed` `Result`s into a DataFrame with a row each; units are in brackets.

    With an importance, there are columns "importance of ..." for leads, seconds and features, all
    changes of the probability of the predicted class.
    """
    names = script.feature_names(settings)
    rows = []
    for result in found:
        row = {"record": result.record, "left_out": result.left_out}
        if not result.left_out:
            best = result.probabilities.argmax()
            row |= {"predicted": classes[best], "confidence": float(result.probabilities[best]),
                    **{f"P({name})": float(p) for name, p in
                       zip(classes, result.probabilities, strict=True)},
                    **{f"{name} [{unit or '1'}]": float(x) for (name, unit, _), x in
                       zip(names, result.features, strict=True)}}
        for kind, moved in (result.importance or {}).items():
            row |= ({f"importance of {kind} {name}": x for name, x in moved.items()}
                    if isinstance(moved, dict) else {f"importance, {kind}": moved})
        rows.append(row)
    first = ["record", "predicted", "confidence", *(f"P({name})" for name in classes),
             *(f"{name} [{unit or '1'}]" for name, unit, _ in names)]
    table = pd.DataFrame(rows)
    others = [name for name in table.columns if name not in (*first, "left_out")]
    return table.reindex(columns=[*first, *others, "left_out"])


def classify(records, model_path=script.Settings.output, jobs=0, importance=False):
    """Classify records, given as for `find_records`; return a DataFrame with a row for each.

    Parameters
    ----------
    records : list of str, or one
    model_path : a .keras file with its .json beside it
    jobs : int, processes that prepare the records; 0 for as many as pay
    importance : bool, whether to explain each class too

    Returns
    -------
    DataFrame of record, predicted, confidence, P(class) for each, the features with their units,
        and left_out, which says why a record has none of these, or ""
    """
    paths = find_records([records] if isinstance(records, str | os.PathLike) else records)
    _, classes, settings = load_model(model_path)
    found = results(paths, model_path, jobs, importance)
    return as_frame((summed(result, settings) for result in found), classes, settings)


def classify_record(record_path, model_path=script.Settings.output):
    """Return the probability of each class for one WFDB record, by a saved model.

    `model_path` is a .keras file with its .json beside it. `UserError` or `RecordError` says which
    of them and the record cannot be used, and why.
    """
    model, classes, settings = load_model(model_path)
    ecg, features = script.prepare_record(_plain(record_path), None, settings)
    probabilities = _predict(model, ecg[None], features[None])[0]
    return dict(zip(classes, probabilities.tolist(), strict=True))


# ---------------------------------------------------------------------------------------- output
def shown(text):
    """Return text without what a terminal or a file might take for a command or fail on."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def number(x):
    """Write a number with three digits; "-" for one that could not be measured."""
    return "-" if np.isnan(x) else np.format_float_positional(x, 3, fractional=False, trim="-")


def as_table(frame, classes):
    """Write a frame of `classify` as lines of text: what can be read on a screen.

    Of the large model's features, the first eight; a * marks a value outside the usual range.
    """
    columns = [["record", *map(shown, frame["record"])], ["class", *frame["predicted"]],
               ["confidence", *(f"{x:.3f}" for x in frame["confidence"])]]
    columns += [[name, *(f"{x:.3f}" for x in frame[f"P({name})"])] for name in classes]
    for name, unit, usual in script.FEATURES:
        values = frame[f"{name} [{unit or '1'}]"]
        low, high = usual or (-np.inf, np.inf)
        columns.append([f"{name} {unit}", *(
            number(x) + ("*" if x < low or x > high else " ") for x in values)])
    heads = [column[0].split() for column in columns]
    height, lines = max(map(len, heads)), []
    widths = [max(map(len, [*head, *column[1:]]))
              for head, column in zip(heads, columns, strict=True)]
    for i in range(height):
        words = [head[i - height + len(head)] if i >= height - len(head) else "" for head in heads]
        lines.append(_line(words, widths))
    lines += [_line(row, widths) for row in zip(*(column[1:] for column in columns), strict=True)]
    usual = ", ".join(f"{name} {limits[0]}-{limits[1]} {unit}".strip()
                      for name, unit, limits in script.FEATURES if limits)
    return [*lines, "", f"* outside the usual: {usual} (HRV ranges are meant for longer recordings "
            "than 10 s); -: not measurable"]


def _line(words, widths):
    cells = [word.ljust(width) if i < 2 else word.rjust(width)
             for i, (word, width) in enumerate(zip(words, widths, strict=True))]
    return "  ".join(cells).rstrip()


def as_words(result, classes, most=12):
    """Write down what moved the probability of a record's class, as lines of text."""
    it = result.importance
    lines = [f"{shown(result.record)}: from {it['baseline']:.3f} (flat ECG, average features) to "
             f"{it['probability']:.3f} for {classes[result.probabilities.argmax()]} by"]
    for kind in ("lead", "second", "feature"):
        order = sorted(it[kind].items(), key=lambda item: kind != "second" and -abs(item[1]))
        words = [f"{name} {change:+.3f}" for name, change in order[:most]]
        if others := [change for _, change in order[most:]]:
            words.append(f"{len(others)} others {sum(others):+.3f}")
        lines.append(f"  {kind + 's':9}{sum(it[kind].values()):+.3f}: " + ", ".join(words))
    return [*lines, f"  {'missed':9}{it['rest']:+.3f}"]


def as_json(frame, found, classes, settings, model_path):
    """Return one JSON document: settings, units and usual ranges first, then the records."""
    names = script.feature_names(settings)
    records = []
    for row, result in zip(frame.to_dict("records"), found, strict=True):
        features = {name: row[f"{name} [{unit or '1'}]"] for name, unit, _ in names}
        features = {name: x if np.isfinite(x) else None for name, x in features.items()}
        records.append({
            "record": shown(row["record"]), "predicted": row["predicted"],
            "confidence": row["confidence"],
            "probabilities": {name: row[f"P({name})"] for name in classes}, "features": features,
            **({"importance": result.importance} if result.importance else {})})
    return {"model": shown(model_path), "model_sha256": script.sha256(model_path),
            "note": NOT_MEDICAL, "classes": classes,
            "units": {name: unit or "1" for name, unit, _ in names},
            "usual": {name: usual for name, _, usual in names if usual}, "records": records}


def page(result, classes):
    """Return a record's ECG page (a matplotlib Figure), its importance, not `summed`, over it."""
    signal, fs = script.read_record(result.record)
    order = np.argsort(-result.probabilities, kind="stable")
    classes = script.tool("figure_style").drawable(classes)
    return script.tool("figures").draw_ecg(
        signal, fs, script.LEADS, script.find_r_peaks(signal, fs),
        f"{classes[order[0]]}, heart rate {number(result.features[script.HEART_RATE])} bpm: record "
        f"{shown(os.path.basename(result.record))}",
        textwrap.fill("Probabilities: " + ", ".join(
            f"{classes[i]} {result.probabilities[i]:.2f}" for i in order), 125), NOT_MEDICAL,
        result.importance and spread(result.importance.ecg, len(signal)))


def plot(result, classes, file, kinds):
    """Draw a record's page into `file` with each extension."""
    with script.mendable("--plot"):
        script.tool("figure_style").save(page(result, classes), file, kinds, dpi=150)


def free_name(folder, path, taken):
    """Return folder / name of the record, numbered where another record has that name."""
    stem = re.sub(r"[^\w.-]", "_", os.path.basename(path))[:100]
    name = next(name for i in itertools.count(1) if (
        name := f"{stem}_{i}" if i > 1 else stem).casefold() not in taken)
    taken.add(name.casefold())
    return Path(folder) / name


def run(asked):
    """Do what was asked; return the exit code."""
    paths = find_records(asked.records)
    _, classes, settings = load_model(asked.model)
    found, left_out, taken = [], [], set()
    for result in tqdm(results(paths, asked.model, asked.jobs, asked.explain), "explaining",
                       len(paths), disable=len(paths) <= 100 or not (asked.explain or asked.plot)):
        if not result.left_out and asked.plot:
            try:
                plot(result, classes, free_name(asked.plot, result.record, taken),
                     ("png", "pdf") if asked.pdf else ("png",))
            except script.RecordError as error:    # it changed meanwhile
                result = Result(result.record, str(error))
        if result.left_out:
            left_out.append(result)
            print(f"classify.py: left out {shown(result.record)}: {shown(result.left_out)}",
                  file=sys.stderr)
        else:
            found.append(summed(result, settings))
    if not found:
        raise script.UserError(f"none of the {len(paths)} records can be used: "
                               + script.reasons([x[:2] for x in left_out]))
    frame = as_frame(found, classes, settings)
    if asked.json:
        document = as_json(frame, found, classes, settings, asked.model)
        document["left_out"] = [{"record": shown(x.record), "reason": shown(x.left_out)}
                                for x in left_out]
        print(json.dumps(document, indent=1, allow_nan=False))
    elif asked.csv:
        frame["record"] = frame["record"].map(shown)
        print(frame.drop(columns="left_out").to_csv(index=False), end="")
    else:
        why = [line for result in found if result.importance
               for line in [*as_words(result, classes), ""]]
        print("\n".join([*as_table(frame, classes), "", *why, NOT_MEDICAL]))
    return 1 if left_out else 0


def main(arguments=None):
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False,
                                     usage=argparse.SUPPRESS)    # so that an error takes one line
    add = parser.add_argument
    add("records", nargs="+", metavar="RECORD",
        help="record, folder, @file with a path on each line, or - for such lines on stdin")
    add("--model", default=script.Settings.output,
        help=".keras file with its .json beside it (default: %(default)s)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document")
    form.add_argument("--csv", action="store_true", help="print CSV, numbers in full")
    add("--explain", action="store_true",
        help="say which leads, seconds and features moved the probability of the class")
    add("--plot", metavar="FOLDER", help="draw the ECG page of each record there, as PNG")
    add("--pdf", action="store_true", help="and as PDF")
    add("--jobs", type=int, default=0, help="processes that read records; 0: as many as pay")
    asked = parser.parse_args(arguments)
    try:
        if asked.pdf and not asked.plot:
            raise script.UserError("--pdf: expected --plot FOLDER beside it")
        if not 0 <= asked.jobs <= 1024:
            raise script.UserError(f"--jobs {asked.jobs}: expected a number from 0 to 1024")
        return run(asked)
    except (script.UserError, KeyboardInterrupt) as error:
        print(f"classify.py: error: {shown(error) or 'interrupted'}", file=sys.stderr)
        return 2 if isinstance(error, script.UserError) else 130


if __name__ == "__main__":
    sys.exit(main())

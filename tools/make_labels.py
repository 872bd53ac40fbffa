"""Make a label file from MIMIC-IV-ECG's own tables: one class a record, by rules you can read.

    python tools/make_labels.py machine_measurements.csv record_list.csv

writes ecg_5_class_data.csv (subject_id,waveform_path,ecg_category; no header), and beside it a
.labels.json of counts, options and SHA-256 sums. The labels are the ECG cart's own machine reads.
"""

import argparse
import functools
import json
import os
import re
import sys
import zlib
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))    # to run from anywhere
from too_feature import SAFE_PATH, Settings, UserError, sha256, write_whole

RULES_VERSION = 1    # raise it with every change of what a statement means
# The classes in order of precedence: a record of several gets the first.
PRECEDENCE = AF, BBB, BRADY, TACHY, NORMAL = [
    "Atrial Fibrillation", "Bundle Branch Block", "Bradycardia", "Tachycardia", "Normal"]
THESIS = {AF: 240_717, BBB: 10_317, BRADY: 32_508, TACHY: 60_809, NORMAL: 21_950}    # records
# What else a statement can mean. All but NEUTRAL keep a record from being normal.
NEUTRAL, OTHER, DOUBT, PACED, POOR, BORDERLINE, SLOW, FAST, UNKNOWN = OUTCOMES = [
    "neutral", "other finding", "uncertain or negated", "pacemaker", "poor data quality",
    "borderline", "bradycardia not of the sinus", "tachycardia not of the sinus", "unknown"]
BIT = {outcome: 1 << place for place, outcome in enumerate([*PRECEDENCE, *OUTCOMES])}
SEVERAL, OFF_RATE = "several classes (--exclusive)", "rate contradicts (--check-rate)"

START = r"(.*([,;] ?| (-|with|and|plus) ))?"    # another finding may stand before ...
END = r"( ?[,;(].*| (-|with|and|plus) .*)?"     # ... and details after
DEGREE = r"((marked|mild|moderate|severe|extreme|paroxysmal|accelerated) )*"
ORIGIN = r"((supra)?ventricular|(wide|narrow)[- ]qrs|junctional|(sinus or )?(ectopic )?atrial)"

# What a statement means, after `normalise`, if `pattern` matches the whole of it. The first rule
# that matches wins; where that is a class, the rules below it may add other classes.
Rule = namedtuple("Rule", "pattern outcome note")
RULES = [
    Rule(r"(age not entered|report made without|pediatric|(un)?confirmed).*", NEUTRAL, "notes"),
    Rule(r".*\b(data quality|poor quality|unsuitable|(measurement|analysis|sequence) error|faulty|"
         r"reversal|artifacts?|wander|noise|leads?(\(s\))? .*missing)\b.*", POOR, "'may affect'"),
    Rule(r".*\b(wandering|shifting|ectopic|junctional)( atrial)? pacemaker.*", OTHER, "natural"),
    Rule(r"(?!no |absence ).*\b(paced?|pacer|pacing|pacemakers?)\b.*", PACED, "possible ones too"),
    Rule(r"rbbb with rad - possible left posterior fascicular block", BBB, "RBBB is certain"),
    Rule(r".*(\?|\b(possibl[ey]|probabl[ey]|prob|(un)?likely|questionable|consider|suspect(ed)?|may|"
         r"suggest\w*|might|could|cannot|rule[sd]?[- ]out|r/o|versus|vs)\b).*", DOUBT, "uncertain"),
    Rule(r".*\b(no|not|without|absen(ce|t)|resolved|replaced|previous(ly)?)\b.*", DOUBT, "negated"),
    Rule(rf"(?!.*flutter){START}((coarse|fine|rapid|slow) )*(atrial fibrillation|a-?fib){END}", AF,
         "at any rate; 'fibrillation/flutter' is undecided, so it is not AF"),
    Rule(rf"{START}(complete )?((left |right )?bundle.branch block|[lr]bbb)(?!.*incomplete){END}",
         BBB, "not incomplete; '... type' is a conduction defect"),
    Rule(rf"{DEGREE}(sinus )?bradycardia{END}", BRADY, "of the sinus or of no stated origin"),
    Rule(rf"{DEGREE}(sinus )?tachycardia{END}", TACHY, "so is '... - otherwise normal ECG'"),
    Rule(rf"{DEGREE}{ORIGIN} bradycardia{END}", SLOW, "see --rate-origin"),
    Rule(rf"{DEGREE}{ORIGIN} tachycardia{END}", FAST, "see --rate-origin"),
    Rule(r"(normal |regular )?sinus rhythm|(ecg )?within normal limits", NORMAL, "if alone"),
    Rule(r"normal (ecg|electrocardiogram)( based on available leads)?", NORMAL, "if alone"),
    Rule(r"sinus arrhythmia", NEUTRAL, "mostly breathing; normal only beside a normal statement"),
    Rule(r"normal ecg except for rate|otherwise normal ecg", OTHER, "the rate beside it decides"),
    Rule(r"borderline( ecg)?", BORDERLINE, "see --include-borderline"),
    Rule(r".*(abnormal|atypical|borderline|incomplete|flutter|fibrillation|rhythm|arrhythmia|ectop|"
         r"escape|premature|\bp[av]cs?\b|geminy|cardia|dissociation|aberran|complex|block|bbb|l[ap]fb|"
         r"ivcd|conduction|wpw|interval|prolonged|axis|deviation|infarct|isch|injury|\bst\b|st-t|repol|"
         r"\b[tqr][- ]wave|hypertrophy|[lr]vh|enlargement|voltage).*", OTHER, "known: not normal"),
]


def normalise(statement):
    """Return a statement in lower case, without 'Summary:', odd spaces and outer punctuation."""
    text = "".join(letter if letter.isprintable() else " " for letter in statement)
    text = re.sub("[\u2010-\u2015]", "-", " ".join(text.casefold().split())).strip(" -*.:;,!'\"")
    return re.sub(r"^(?:summary|interpretation|conclusion|impression|rhythm) ?:[ -]*", "", text)


@functools.cache
def classify(statement):
    """Return what a statement means as a tuple: one of `OUTCOMES`, or one or more classes."""
    text = normalise(statement)
    if not text:
        return ()
    outcomes = [rule.outcome for rule in RULES    # no cart writes more, and it would take long
                if len(text) < 300 and re.fullmatch(rule.pattern, text)] or [UNKNOWN]
    classes = tuple(name for name in PRECEDENCE if name in outcomes)
    return classes if outcomes[0] in PRECEDENCE else (outcomes[0],)


def refuse(path, column, bad, expected):
    """Raise `UserError` for the first row of `column` that is `bad`."""
    if bad.any():
        raise UserError(f"{path}, data row {bad.idxmax() + 1}, {column.name}: expected {expected}, "
                        f"got {str(column[bad.idxmax()])[:80]!r}")


def read_table(path, *needed):
    """Read a table, plain or .gz, that has whole ids, each study once, and the columns `needed`."""
    try:
        header = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns
        if missing := {"subject_id", "study_id", *needed} - set(header):
            raise UserError(f"{path}: no column {', '.join(sorted(missing))} (files swapped?)")
        with open(path, "rb", buffering=0) as raw, tqdm.wrapattr(
                raw, "read", os.path.getsize(path), desc=path.name) as file:
            table = pd.read_csv(    # all columns: only so does a row that is too long show
                file, dtype={name: "category" for name in header if name.startswith("report_")},
                encoding="utf-8-sig", encoding_errors="replace", low_memory=False,
                compression="gzip" if path.suffix == ".gz" else None)
        if not isinstance(table.index, pd.RangeIndex):
            raise ValueError("the first row has more cells than the header")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path}: not a readable .csv or .csv.gz file: {error}") from error
    for name in ("subject_id", "study_id"):
        number = pd.to_numeric(table[name], errors="coerce")
        refuse(path, table[name], ~(number.between(1, 1e15) & (number % 1 == 0)), "a whole number")
        table[name] = number.astype("int64")
    refuse(path, table["study_id"], table["study_id"].duplicated(), "each study once")
    return table


def read_reports(table, taken_for):
    """Return what each report says, as `BIT`s, and the 50 commonest statements no rule knows."""
    columns = [table[name] for name in table if name.startswith("report_")]
    found = np.zeros(len(table), dtype="uint16")
    for column in columns:
        bits = [sum({BIT[taken_for.get(outcome, outcome)] for outcome in classify(statement)})
                for statement in column.cat.categories]
        found |= np.array([*bits, 0], dtype="uint16")[column.cat.codes]    # code -1: an empty cell
    counts = pd.concat([column.value_counts().rename(str) for column in columns])
    unknown = counts[[classify(statement) == (UNKNOWN,) for statement in counts.index]]
    return found, unknown.groupby(lambda statement: normalise(statement)[:80]).sum().nlargest(50)


def label(records, options):
    """Add the columns ecg_category, several, off_rate, and left_out (why, or '')."""
    said = pd.DataFrame({outcome: (records["found"] & bit) > 0 for outcome, bit in BIT.items()})
    said[NORMAL] = records["found"].isin([BIT[NORMAL], BIT[NORMAL] + BIT[NEUTRAL]])    # else barred
    classes = said[PRECEDENCE]
    category, none = classes.idxmax(axis=1), ~classes.any(axis=1)    # the first that is True
    several, rate = classes.sum(axis=1) > 1, 60_000 / records["rr_interval"]
    off_rate = (category == BRADY) & (rate > 60) | (category == TACHY) & (rate < 100)
    reasons = {
        "subject_id differs": records["subject_id"] != records["subject_id_listed"],
        PACED: said[PACED], POOR: said[POOR], "empty": records["found"].isin([0, BIT[NEUTRAL]]),
        "no class; a statement that no rule knows": none & said[UNKNOWN],
        "no class; uncertain or negated": none & said[DOUBT], "no class; other findings": none,
        SEVERAL: several & options.exclusive, OFF_RATE: off_rate & options.check_rate}
    return records.assign(ecg_category=category, several=several, off_rate=off_rate,
                          left_out=np.select(list(reasons.values()), list(reasons), ""))


def report(records, left_out, unknown):
    """Print what became of the records, beside the thesis's counts; return it for the .json."""
    kept = records[records["left_out"] == ""]
    classes = kept.groupby("ecg_category")["subject_id"].agg(records="size", patients="nunique")
    classes = classes.reindex(PRECEDENCE, fill_value=0).assign(thesis=THESIS)
    several = int(records["several"][records["left_out"].isin(["", SEVERAL])].sum())
    rated = records[records["left_out"].isin(["", OFF_RATE]) & records["rr_interval"].notna()]
    off = rated.groupby("ecg_category")["off_rate"].mean().reindex([BRADY, TACHY], fill_value=0.0)
    print(f"""
{classes.rename_axis(None).map("{:,}".format).to_string()}
{len(kept):,} records of {kept["subject_id"].nunique():,} patients; {several:,} had several classes
The thesis's 240,717 records of atrial fibrillation cannot be reproduced from that phrase: another
group counted it in 79,908 of 787,000 reports. All labels are machine reads of the ECG cart.
By rr_interval {off[BRADY]:.1%} of bradycardia is above 60 bpm, {off[TACHY]:.1%} of \
tachycardia below 100 bpm.

Left out
{pd.Series(left_out).map("{:,}".format).to_string()}

The commonest statements that no rule knows
{unknown.map("{:,}".format).to_string(header=False) if len(unknown) else "none"}
""")
    return {"classes": classes.to_dict("index"), "left_out": left_out, "several_classes": several,
            "off_rate": off.to_dict(), "unknown": unknown.to_dict()}


def parse_options(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False,
                                     usage=argparse.SUPPRESS)    # no usage: errors take one line
    add, flag = parser.add_argument, functools.partial(parser.add_argument, action="store_true")
    take = functools.partial(add, action="append_const", dest="taken_for", default=[])
    add("measurements", type=Path, help="machine_measurements.csv, plain or .gz")
    add("records", type=Path, help="record_list.csv, plain or .gz")
    add("--output", type=Path, default=Path(Settings.labels),
        help="label file (default: %(default)s)")
    add("--rate-origin", choices=["sinus", "any"], default="sinus", help="sinus (default): only "
        "bradycardia and tachycardia of the sinus or of no stated origin count; any: also "
        "supraventricular, ventricular, wide QRS, junctional and atrial ones")
    flag("--exclusive", help="leave out records of several classes, which else get the first of "
                             + ", ".join(PRECEDENCE))
    flag("--check-rate", help="leave out bradycardia above 60 bpm and tachycardia below 100 bpm by "
                              "rr_interval (ms; where it is not 200 to 3000 the record stays)")
    take("--keep-paced", const=(PACED, OTHER), help="label paced records too, never as normal")
    take("--keep-poor-quality", const=(POOR, NEUTRAL), help="pass over warnings of data quality")
    take("--include-borderline", const=(BORDERLINE, NEUTRAL), help="pass over 'Borderline ECG'")
    flag("--force", help="overwrite a label file that is not the demo's")
    return parser.parse_args(arguments)


def run(options):
    """Make the label file."""
    *sources, output = options.measurements, options.records, options.output
    if output.exists() and (any(map(output.samefile, sources)) or not (
            options.force or re.fullmatch(r"(\d+,demo/.*\n)*", output.read_text(errors="ignore")))):
        raise UserError(f"{output} is not the demo's labels; --force overwrites any but a source")
    measured = read_table(options.measurements, "report_0", "rr_interval")
    any_origin = [(SLOW, BRADY), (FAST, TACHY)] * (options.rate_origin == "any")
    taken_for = dict(options.taken_for + any_origin)
    measured["found"], unknown = read_reports(measured, taken_for)
    rr = pd.to_numeric(measured["rr_interval"], errors="coerce")
    measured["rr_interval"] = rr.where(rr.between(200, 3000))    # ms; the cart's "none" is 65535
    listed = read_table(options.records, "path")
    paths = listed["path"].fillna("").astype(str)
    refuse(options.records, paths, ~paths.str.fullmatch(SAFE_PATH), "a path in the data folder")
    records = label(measured.merge(listed, on="study_id", suffixes=("", "_listed")), options)
    left_out = {"not in the record list": len(measured) - len(records),
                "not in the measurements": len(listed) - len(records),
                **records["left_out"].value_counts().drop("", errors="ignore").to_dict()}
    counts = report(records, left_out, unknown)
    kept = records.loc[records["left_out"] == "", ["subject_id", "path", "ecg_category"]]
    if kept.empty:
        raise UserError(f"{options.measurements}: no record got a label; nothing written")
    write_whole(output, lambda file: kept.to_csv(file, header=False, index=False))
    card = json.dumps({
        "rules_version": RULES_VERSION, "taken_for": taken_for, "exclusive": options.exclusive,
        "check_rate": options.check_rate, **counts,
        "sha256": {path.name: sha256(path) for path in (*sources, output)}}, indent=1)
    write_whole(output.with_suffix(".labels.json"), lambda file: file.write_text(card))
    print(f"wrote {output}, and beside it {output.with_suffix('.labels.json').name}")


def main(arguments=None):
    """Run from the command line; return the exit code."""
    try:
        run(parse_options(arguments))
        return 0
    except (UserError, OSError, KeyboardInterrupt) as error:
        print(f"make_labels.py: error: {str(error) or 'interrupted'}", file=sys.stderr)
        return 130 if isinstance(error, KeyboardInterrupt) else 2


if __name__ == "__main__":
    sys.exit(main())

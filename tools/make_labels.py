"""Make a label file from the tables of MIMIC-IV-ECG: one class per record, by rules you can read.

    python tools/make_labels.py machine_measurements.csv record_list.csv

writes ecg_5_class_data.csv (subject_id,waveform_path,ecg_category; no header) and, next to it,
ecg_5_class_data.labels.json with the origin of the labels, counts, options and SHA-256 sums. The
labels are what the program of the ECG cart said, not what a cardiologist said.

The tables: Gow et al., MIMIC-IV-ECG 1.0, PhysioNet 2023, https://doi.org/10.13026/4nqg-sb35, under
the Open Database Licence 1.0.
"""

import functools
import gzip
import hashlib
import json
import os
import re
import sys
import zlib
from collections import Counter
from enum import Enum
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import numpy as np
import pandas as pd
from tqdm import tqdm

from ecg import origin
from ecg.errors import UserError, exit_code, user_errors
from ecg.files import check_target, sha256, write_whole
from ecg.label_file import SAFE_PATH
from ecg.settings import Parser

RULES_VERSION = 2    # raise it with every change of what a statement means


# -------------------------------------------------------------------------- what a statement means
class Meaning(Enum):
    """What a statement can mean; the value is its name in reports and files."""

    AF = "Atrial Fibrillation"
    BBB = "Bundle Branch Block"
    BRADY = "Bradycardia"
    TACHY = "Tachycardia"
    NORMAL = "Normal"

    NEUTRAL = "neutral"
    OTHER = "other finding"
    DOUBT = "uncertain or negated"
    PACED = "pacemaker"
    POOR = "poor data quality"
    BORDERLINE = "borderline"
    SLOW = "bradycardia not of the sinus"
    FAST = "tachycardia not of the sinus"
    UNKNOWN = "unknown"


# The bit that stands for a meaning where several are kept as one number
BIT = {meaning: 1 << place for place, meaning in enumerate(Meaning)}

# The classes in order of precedence: a record of several gets the first. Every other meaning but
# NEUTRAL keeps a record from being normal.
CLASSES = [Meaning.AF, Meaning.BBB, Meaning.BRADY, Meaning.TACHY, Meaning.NORMAL]
THESIS = {    # records of each class in the thesis
    Meaning.AF: 240_717,
    Meaning.BBB: 10_317,
    Meaning.BRADY: 32_508,
    Meaning.TACHY: 60_809,
    Meaning.NORMAL: 21_950,
}

# Statements of release 1.0 that name atrial fibrillation in any wording. By the rules below 77,742
# mean it, 3,026 are uncertain ('Probable atrial fibrillation'), 562 name a pacemaker as well and 89
# leave open whether it is flutter. This is the sum over a list of all different statements about
# rhythm, conduction and infarcts, which says how many records carry each.
AF_STATEMENTS = 81_419

SEVERAL = "several classes (--exclusive)"
OFF_RATE = "rate contradicts (--check-rate)"
LONGEST = 300    # characters: no cart writes a longer statement, and the patterns would take long

START = r"(.*([,;] ?| (-|with|and|plus) ))?"    # another finding may stand before ...
END = r"( ?[,;(].*| (-|with|and|plus) .*)?"     # ... and details after
DEGREE = r"((marked|mild|moderate|severe|extreme|paroxysmal|accelerated|irregular) )*"
ORIGIN = r"((supra)?ventricular|(wide|narrow)[- ]qrs|junctional|(sinus or )?(ectopic )?atrial)"


class Rule(NamedTuple):
    """A normalised statement that `pattern` matches as a whole has this meaning."""

    pattern: str
    meaning: Meaning
    note: str


# The first rule that matches decides. If it gives a class, the rules below it can add classes.
RULES = [
    Rule(r"(age not entered|report made without|pediatric|(un)?confirmed).*",
         Meaning.NEUTRAL, "notes about the patient or the report"),

    # The recording
    Rule(r".*\b(data quality|poor quality|unsuitable|(measurement|analysis|sequence) error|faulty|"
         r"reversal|artifacts?|wander|noise|leads?(\(s\))? .*missing)\b.*",
         Meaning.POOR, "also if the quality only 'may affect' the interpretation"),
    Rule(r"(partial )?missing leads?\b.*",
         Meaning.POOR, "'Missing lead(s): V1', also where only a part of a lead is missing"),
    Rule(r"technically unsatisfactory( tracing)?",
         Meaning.POOR, "between dashes: '--- Technically unsatisfactory tracing ---'"),
    Rule(r"technical error",
         Meaning.POOR, "as a summary: 'Summary: Technical error'"),
    Rule(r".*\binterspaces? too high\b.*",
         Meaning.POOR, "electrodes in a wrong place, 'omitted from the analysis'"),
    Rule(r"none available",
         Meaning.NEUTRAL, "as a summary: the cart gave none"),
    Rule(r"repeat ecg",
         Meaning.NEUTRAL, "advice, not a finding"),

    # Pacemakers
    Rule(r".*\b(wandering|shifting|ectopic|junctional)( atrial)? pacemaker.*",
         Meaning.OTHER, "a natural pacemaker"),
    Rule(r"(?!no |absence ).*\b(paced?|pacer|pacing|pacemakers?)\b.*",
         Meaning.PACED, "possible ones too"),

    # Doubt and negation
    Rule(r"rbbb with rad - possible left posterior fascicular block",
         Meaning.BBB, "only the fascicular block is in doubt"),
    Rule(r".*(\?|\b(possibl[ey]|probabl[ey]|prob|(un)?likely|questionable|consider|suspect(ed)?|may|"
         r"suggest\w*|might|could|cannot|rule[sd]?[- ]out|r/o|versus|vs)\b).*",
         Meaning.DOUBT, "uncertain"),
    Rule(r".*\b(no|not|without|absen(ce|t)|resolved|replaced|previous(ly)?)\b.*",
         Meaning.DOUBT, "negated or of the past"),

    # The classes of rhythm and conduction
    Rule(rf"(?!.*flutter){START}((coarse|fine|rapid|slow) )*(atrial fibrillation|a-?fib){END}",
         Meaning.AF, "at any rate; 'fibrillation/flutter' is undecided, so it is not AF"),
    Rule(rf"{START}(complete )?((left |right )?bundle.branch block|[lr]bbb)(?!.*incomplete){END}",
         Meaning.BBB, "not incomplete ones; 'of LBBB type' is a conduction defect"),
    Rule(rf"{DEGREE}(sinus )?bradycardia{END}",
         Meaning.BRADY, "of the sinus or of no stated origin, regular or not"),
    Rule(rf"{DEGREE}(sinus )?tachycardia{END}",
         Meaning.TACHY, "the same; also '... - otherwise normal ECG'"),
    Rule(rf"{DEGREE}{ORIGIN} bradycardia{END}",
         Meaning.SLOW, "see --rate-origin"),
    Rule(rf"{DEGREE}{ORIGIN} tachycardia{END}",
         Meaning.FAST, "see --rate-origin"),

    # Normal, or nearly
    Rule(r"(normal |regular )?sinus rhythm|(ecg )?within normal limits",
         Meaning.NORMAL, "if no other finding is stated"),
    Rule(r"normal (ecg|electrocardiogram)( based on available leads)?",
         Meaning.NORMAL, "if no other finding is stated"),
    Rule(r"available leads normal ecg",
         Meaning.NORMAL, "the same in another order, as a summary"),
    Rule(r"sinus arrhythmia",
         Meaning.NEUTRAL, "mostly breathing; normal only together with a normal statement"),
    Rule(r"normal ecg except for rate|otherwise normal ecg",
         Meaning.OTHER, "the statement about the rate decides"),
    Rule(r"borderline( ecg)?",
         Meaning.BORDERLINE, "see --include-borderline"),

    # Everything else that is known
    Rule(r"early transition",
         Meaning.OTHER, "of the QRS complex, from V1 to V6"),
    Rule(r"with (rapid|slow|uncontrolled) (ventricular response|v-rate)",
         Meaning.OTHER, "a continuation that has lost its beginning; see `statements`"),
    Rule(r".*(abnormal|atypical|borderline|incomplete|flutter|fibrillation|rhythm|arrhythmia|ectop|"
         r"escape|premature|\bp[av]cs?\b|geminy|cardia|dissociation|aberran|complex|block|bbb|l[ap]fb|"
         r"ivcd|conduction|wpw|interval|prolonged|axis|deviation|infarct|isch|injury|\bst\b|st-t|repol|"
         r"\b[tqr][- ]wave|hypertrophy|[lr]vh|enlargement|voltage).*",
         Meaning.OTHER, "a finding that is not normal"),
]


def normalise(statement):
    """Return a statement in lower case, without 'Summary:', odd spaces and outer punctuation."""
    text = "".join(letter if letter.isprintable() else " " for letter in statement)
    text = " ".join(text.casefold().split())
    text = re.sub(r"[\u2010-\u2015]", "-", text).strip(" -*.:;,!'\"")
    return re.sub(r"^(?:summary|interpretation|conclusion|impression|rhythm) ?:[ -]*", "", text)


# A full stop ends a statement, except after an initial ('i.v. conduction') or an abbreviation
ABBREVIATION = (r"\b(approx|atr|atyp|cons|equiv|incompl?|intermitt?|junct|poss|prob|quest|resp|"
                r"supravent|susp|vent)\.")
FULL_STOP = r"(?:(?<=[a-z)]{3})|(?<=\d))\.(?: |(?=[a-z?]))"
CONTINUATION = r"(with|and|or) .*"    # goes on with the statement of the cell before
UNFINISHED = r".* (with|and|or)"      # goes on in the next cell


@functools.cache
def split_cell(cell):
    """Return the normalised statements of one cell."""
    text = re.sub(ABBREVIATION, r"\1", normalise(cell))
    parts = [normalise(part) for part in re.split(FULL_STOP, text)]
    return tuple(part for part in parts if part)


def is_cut(cell):
    """Return whether a statement goes on in this cell, or from it in the next."""
    parts = split_cell(cell)
    if not parts:
        return False

    return bool(re.fullmatch(CONTINUATION, parts[0]) or re.fullmatch(UNFINISHED, parts[-1]))


def statements(cells):
    """Return the normalised statements of the cells of one report.

    A cell can hold several ('sinus rhythm. normal ecg.'), and one can be cut over several cells
    ('Atrial fibrillation', 'with rapid ventricular response'), also with blank cells between them.
    """
    found = []
    for cell in cells:
        for part in split_cell(cell):
            if found and (re.fullmatch(CONTINUATION, part) or re.fullmatch(UNFINISHED, found[-1])):
                found[-1] += f" {part}"
            else:
                found.append(part)

    return found


@functools.cache
def meanings(text):
    """Return what a normalised statement means: its classes, or one meaning that is no class."""
    if not text:
        return ()

    if len(text) >= LONGEST:
        return (Meaning.UNKNOWN,)

    found = [rule.meaning for rule in RULES if re.fullmatch(rule.pattern, text)]
    if not found:
        return (Meaning.UNKNOWN,)

    if found[0] not in CLASSES:
        return (found[0],)

    return tuple(name for name in CLASSES if name in found)


# --------------------------------------------------------------------------------------- the tables
RELEASE = {    # size in bytes and SHA-256 of the tables of MIMIC-IV-ECG 1.0
    "measurements": (182_674_683,
                     "56f6b1413221bce95bd6f48b28ca1acf27ae0b073d6f2c1d12f3af7500eabbb6"),
    "records": (70_403_124,
                "b6f113023e955406e924a9ce10c1108f3bf8080e14cfe2f3ba3a2e858ebb621b"),
}
ORIGIN_RELEASE = "machine reads of the ECG cart (MIMIC-IV-ECG 1.0)"
ORIGIN_OTHER = "machine reads of the ECG cart (tables like those of MIMIC-IV-ECG, not release 1.0)"

# What the carts write instead of a measurement that they could not make
SENTINELS = [29999, 32767, -32768, 65535, 65534, 61440]
RR_RANGE = (200, 3000)    # ms, 300 to 20 bpm


def refuse(path, column, bad, expected):
    """Raise `UserError` for the first row of `column` that is `bad`."""
    if bad.any():
        row = bad.idxmax()
        value = str(column[row])[:80]
        raise UserError(f"{path}, data row {row + 1}, {column.name}: expected {expected}, "
                        f"got {value!r}")


def parse_table(path, needed):
    """Read a table, plain or .gz, with its reports as categories; a row too long is an error."""
    header = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns
    missing = needed - set(header)
    if missing:
        raise UserError(f"{path}: no column {', '.join(sorted(missing))} (files swapped?)")

    reports = {name: "category" for name in header if name.startswith("report_")}
    compression = "gzip" if path.suffix == ".gz" else None
    size = os.path.getsize(path)

    with open(path, "rb", buffering=0) as raw, tqdm.wrapattr(
            raw, "read", size, desc=path.name) as file:
        table = pd.read_csv(    # all columns, because only then a row that is too long shows
            file, dtype=reports, encoding="utf-8-sig", encoding_errors="replace",
            low_memory=False, compression=compression)

    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError("the first row has more cells than the header")

    return table


def read_table(path, *needed):
    """Read a table that has whole ids, each study once, and the columns `needed`."""
    with user_errors(f"{path}: not a readable .csv or .csv.gz file",
                     (OSError, EOFError, ValueError, zlib.error)):
        table = parse_table(path, {"subject_id", "study_id", *needed})

    for name in ("subject_id", "study_id"):
        number = pd.to_numeric(table[name], errors="coerce")
        whole = number.between(1, 1e15) & (number % 1 == 0)
        refuse(path, table[name], ~whole, "a whole number")
        table[name] = number.astype("int64")

    refuse(path, table["study_id"], table["study_id"].duplicated(), "each study once")
    return table


def is_release(path, size, digest):
    """Return whether a table, plain or .gz, is that of release 1.0."""
    if path.suffix != ".gz":
        return path.stat().st_size == size and sha256(path) == digest

    content = hashlib.sha256()
    n_bytes = 0
    with gzip.open(path) as file:
        while block := file.read(1 << 20):
            content.update(block)
            n_bytes += len(block)

    return n_bytes == size and content.hexdigest() == digest


def measurement(column):
    """Return a column of measurements as numbers, NaN where the cart could not measure."""
    number = pd.to_numeric(column, errors="coerce")
    return number.mask(number.isin(SENTINELS))


def as_bits(texts, taken_for):
    """Return what statements mean as a sum of `BIT`s, some meanings `taken_for` others."""
    bits = 0
    for text in texts:
        for meaning in meanings(text):
            bits |= BIT[taken_for.get(meaning, meaning)]

    return bits


def count_unknown(counter, texts, n_records):
    """Count the statements that no rule knows, each as said in `n_records`."""
    for text in texts:
        if meanings(text) == (Meaning.UNKNOWN,):
            counter[text[:80]] += n_records


def read_reports(table, taken_for):
    """Return what each report says, `as_bits`, and how often which unknown statements stand there.

    Reports share most of their cells, so each different cell is read once. Only reports with a
    statement that is cut over several cells are read one by one.
    """
    columns = [table[name] for name in table if name.startswith("report_")]
    found = np.zeros(len(table), dtype="uint16")
    cut = np.zeros(len(table), dtype=bool)
    unknown = Counter()

    for column in columns:
        flags = [is_cut(cell) for cell in column.cat.categories]
        cut |= np.array([*flags, False])[column.cat.codes]    # code -1 is an empty cell

    for column in columns:
        texts = [statements([cell]) for cell in column.cat.categories]
        bits = [as_bits(text, taken_for) for text in texts]
        found |= np.array([*bits, 0], dtype="uint16")[column.cat.codes]

        for text, n_records in zip(texts, column[~cut].value_counts(sort=False), strict=True):
            count_unknown(unknown, text, int(n_records))

    cells = [np.array([*column.cat.categories, ""], dtype=object)[column.cat.codes[cut]]
             for column in columns]
    for row, report in zip(np.flatnonzero(cut), np.stack(cells, axis=1), strict=True):
        text = statements(report)
        found[row] = as_bits(text, taken_for)
        count_unknown(unknown, text, 1)

    return found, unknown


# --------------------------------------------------------------------------------------- the labels
def choose_classes(records, options):
    """Add the columns ecg_category, several, off_rate, and left_out (a reason, or '')."""
    names = [meaning.value for meaning in CLASSES]
    said = pd.DataFrame({meaning.value: (records["found"] & bit) > 0
                         for meaning, bit in BIT.items()})
    neutral = BIT[Meaning.NEUTRAL]
    normal = BIT[Meaning.NORMAL]
    said[Meaning.NORMAL.value] = records["found"].isin([normal, normal + neutral])

    category = said[names].idxmax(axis=1)    # the first that is True
    none = ~said[names].any(axis=1)
    several = said[names].sum(axis=1) > 1

    rate = 60_000 / records["rr_interval"]
    too_fast = (category == Meaning.BRADY.value) & (rate > 60)
    too_slow = (category == Meaning.TACHY.value) & (rate < 100)
    off_rate = too_fast | too_slow

    reasons = {    # the first that is true counts
        "subject_id differs": records["subject_id"] != records["subject_id_listed"],
        Meaning.PACED.value: said[Meaning.PACED.value],
        Meaning.POOR.value: said[Meaning.POOR.value],
        "empty": records["found"].isin([0, neutral]),
        "no class; a statement that no rule knows": none & said[Meaning.UNKNOWN.value],
        "no class; uncertain or negated": none & said[Meaning.DOUBT.value],
        "no class; other findings": none,
        SEVERAL: several & options.exclusive,
        OFF_RATE: off_rate & options.check_rate,
    }
    left_out = np.select(list(reasons.values()), list(reasons), "")
    return records.assign(ecg_category=category, several=several, off_rate=off_rate,
                          left_out=left_out)


def count_classes(records):
    """Return records and patients of each class, with the thesis's records, as a table."""
    names = [meaning.value for meaning in CLASSES]
    thesis = [THESIS[meaning] for meaning in CLASSES]

    kept = records[records["left_out"] == ""]
    by_class = kept.groupby("ecg_category")["subject_id"]
    table = by_class.agg(records="size", patients="nunique")
    return table.reindex(names, fill_value=0).assign(thesis=thesis)


def count_off_rates(records):
    """Return which share of bradycardia and of tachycardia has another rate by rr_interval."""
    labelled = records["left_out"].isin(["", OFF_RATE])
    rated = records[labelled & records["rr_interval"].notna()]
    shares = rated.groupby("ecg_category")["off_rate"].mean()

    return shares.reindex([Meaning.BRADY.value, Meaning.TACHY.value], fill_value=0.0).to_dict()


def count_other_times(records):
    """Return in how many records ecg_time differs, or None if it is not in both tables."""
    if "ecg_time_listed" not in records:
        return None

    measured = records["ecg_time"].fillna("").astype(str)
    listed = records["ecg_time_listed"].fillna("").astype(str)
    return int((measured != listed).sum())


def count_rr(rr):
    """Return how many RR intervals are missing, and how many are outside `RR_RANGE`."""
    implausible = rr.notna() & ~rr.between(*RR_RANGE)
    return {"missing": int(rr.isna().sum()), "implausible": int(implausible.sum())}


def summarise(records, n_measured, n_listed):
    """Return what became of the records, as it is printed and kept in the .json."""
    kept = records[records["left_out"] == ""]
    several = records["several"] & records["left_out"].isin(["", SEVERAL])
    reasons = records["left_out"].value_counts().drop("", errors="ignore")

    return {
        "records": len(kept),
        "patients": int(kept["subject_id"].nunique()),
        "classes": count_classes(records).to_dict("index"),
        "left_out": {
            "not in the record list": n_measured - len(records),
            "not in the measurements": n_listed - len(records),
            **reasons.to_dict(),
        },
        "several_classes": int(several.sum()),
        "off_rate": count_off_rates(records),
        "ecg_time_differs": count_other_times(records),
    }


def as_text(counts):
    """Return named counts as lines of text."""
    return pd.Series(counts).map("{:,}".format).to_string()


def print_sources(summary, options):
    """Print what the tables are, and where they contradict each other or have no values."""
    for source, is_true in summary["release"].items():
        name = getattr(options, source).name
        print(f"{name}: this is release 1.0" if is_true else
              f"{name}: this is not release 1.0 (rows left out?)")

    if summary["ecg_time_differs"] is None:
        print("ecg_time is not in both tables and was not compared")
    else:
        print(f"ecg_time differs between the tables in {summary['ecg_time_differs']:,} records")

    rr = summary["rr_interval"]
    low, high = RR_RANGE
    print(f"rr_interval is missing in {rr['missing']:,} records and not {low} to {high} ms in "
          f"{rr['implausible']:,}; their rates are not checked")


def print_summary(summary, options):
    """Print the summary, with the counts of the thesis for comparison."""
    classes = pd.DataFrame.from_dict(summary["classes"], orient="index")
    too_fast = summary["off_rate"][Meaning.BRADY.value]
    too_slow = summary["off_rate"][Meaning.TACHY.value]

    print()
    print_sources(summary, options)

    print(f"""
{classes.map("{:,}".format).to_string()}
{summary["records"]:,} records of {summary["patients"]:,} patients; \
{summary["several_classes"]:,} had several classes
The thesis counts {THESIS[Meaning.AF]:,} records of atrial fibrillation, which cannot be reached:
all wordings together, uncertain ones too, stand in {AF_STATEMENTS:,} statements of release 1.0,
and so in no more of its records.
By rr_interval {too_fast:.1%} of bradycardia is above 60 bpm, {too_slow:.1%} of \
tachycardia below 100 bpm.
{origin.origin_of_labels(summary["labels_origin"])}

Left out
{as_text(summary["left_out"])}

The commonest statements that no rule knows
{as_text(summary["unknown"]) if summary["unknown"] else "none"}
""")


# ------------------------------------------------------------------------------------- the program
def parse_options(arguments=None):
    """Read the command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    flag = functools.partial(add, action="store_true")
    take = functools.partial(add, action="append_const", dest="taken_for", default=[])

    add("measurements", type=Path, help="machine_measurements.csv, plain or .gz")
    add("records", type=Path, help="record_list.csv, plain or .gz")
    add("--output", type=Path, default=Path("mimic_labels.csv"),
        help="label file to write (default: %(default)s)")

    add("--rate-origin", choices=["sinus", "any"], default="sinus",
        help="sinus (default): only bradycardia and tachycardia of the sinus or of no stated "
             "origin count; any: also supraventricular, ventricular, wide QRS, junctional and "
             "atrial ones")
    flag("--exclusive", help="leave out records of several classes; without this flag they get the "
         "first of " + ", ".join(meaning.value for meaning in CLASSES))
    flag("--check-rate", help="leave out bradycardia above 60 bpm and tachycardia below 100 bpm by "
         "rr_interval (in ms; a record where it is not 200 to 3000 stays)")

    take("--keep-paced", const=(Meaning.PACED, Meaning.OTHER),
         help="label paced records too, but never as normal")
    take("--keep-poor-quality", const=(Meaning.POOR, Meaning.NEUTRAL),
         help="ignore statements about poor data quality, missing leads and technical errors")
    take("--include-borderline", const=(Meaning.BORDERLINE, Meaning.NEUTRAL),
         help="ignore 'Borderline ECG'")
    flag("--force", help="replace an existing label file")
    return parser.parse_args(arguments)


def check_output(options):
    """Raise `UserError` if the output would overwrite a source or an existing label file."""
    sources = [str(options.measurements), str(options.records)]
    for target in (options.output, sidecar_of(options.output)):
        check_target(target, sources)
    if options.output.exists() and not options.force:    # people edit label files by hand
        raise UserError(f"{options.output} exists; choose another name, or replace it with --force")


def sidecar_of(labels):
    """Return the path of the .json that says how a label file was made."""
    return labels.with_suffix(".labels.json")


def replacements(options):
    """Return which meanings the options take for which others."""
    taken_for = dict(options.taken_for)
    if options.rate_origin == "any":
        taken_for[Meaning.SLOW] = Meaning.BRADY
        taken_for[Meaning.FAST] = Meaning.TACHY

    return taken_for


def save(records, summary, options):
    """Write the label file, and next to it the .json that says how it was made."""
    if not summary["records"]:
        raise UserError(f"{options.measurements}: no record got a label; nothing was written")

    kept = records.loc[records["left_out"] == "", ["subject_id", "path", "ecg_category"]]
    write_whole(options.output, lambda file: kept.to_csv(file, header=False, index=False))

    files = [options.measurements, options.records, options.output]
    taken_for = replacements(options)
    card = {
        "rules_version": RULES_VERSION,
        "taken_for": {said.value: taken.value for said, taken in taken_for.items()},
        "exclusive": options.exclusive,
        "check_rate": options.check_rate,
        **summary,
        "sha256": {path.name: sha256(path) for path in files},
    }
    sidecar = sidecar_of(options.output)
    write_whole(sidecar, lambda file: file.write_text(json.dumps(card, indent=1)))
    print(f"wrote {options.output} and, next to it, {sidecar.name}")


def check_release(options):
    """Return whether each table is that of release 1.0, and the origin of the labels in words."""
    release = {}
    for source, (size, digest) in RELEASE.items():
        path = getattr(options, source)
        with user_errors(path):
            release[source] = is_release(path, size, digest)

    stated = ORIGIN_RELEASE if all(release.values()) else ORIGIN_OTHER
    return {"labels_origin": stated, "release": release}


def read_measurements(options):
    """Return the measurements with what each report says, and what to tell about them."""
    table = read_table(options.measurements, "report_0", "rr_interval")
    table["found"], unknown = read_reports(table, replacements(options))

    rr = measurement(table["rr_interval"])
    table["rr_interval"] = rr.where(rr.between(*RR_RANGE))

    commonest = pd.Series(unknown, dtype="int64").sort_index().nlargest(50)
    facts = {"rr_interval": count_rr(rr), "unknown": commonest.to_dict()}
    return table.filter(["subject_id", "study_id", "ecg_time", "rr_interval", "found"]), facts


def read_record_list(options):
    """Return the list of records, whose paths are checked."""
    table = read_table(options.records, "path")
    paths = table["path"].fillna("").astype(str)
    refuse(options.records, paths, ~paths.str.fullmatch(SAFE_PATH), "a path in the data folder")
    return table.filter(["subject_id", "study_id", "ecg_time", "path"])


def make_labels(options):
    """Make the label file."""
    check_output(options)
    measured, facts = read_measurements(options)
    listed = read_record_list(options)

    both = measured.merge(listed, on="study_id", suffixes=("", "_listed"))
    records = choose_classes(both, options)
    counts = summarise(records, len(measured), len(listed))
    summary = {**check_release(options), **counts, **facts}

    print_summary(summary, options)
    save(records, summary, options)


def main(arguments=None):
    """Run from the command line; return the exit code."""
    return exit_code("make_labels.py", make_labels, parse_options(arguments))


if __name__ == "__main__":
    sys.exit(main())

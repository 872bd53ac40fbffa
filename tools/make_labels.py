"""Make a label file from the tables of MIMIC-IV-ECG: one class per record, by rules you can read.

    python tools/make_labels.py machine_measurements.csv record_list.csv

writes mimic_labels.csv (subject_id,waveform_path,ecg_category; no header) and, next to it,
mimic_labels.labels.json with the origin of the labels, counts, options and SHA-256 sums. The
labels are what the program of the ECG cart said, not what a cardiologist said. With --site or
--folds, the file has more columns and a header.

The tables: Gow et al., MIMIC-IV-ECG 1.0, PhysioNet 2023, https://doi.org/10.13026/4nqg-sb35, under
the Open Database Licence 1.0.
"""

import functools
import json
import re
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
import pandas as pd

from ecg import origin
from ecg.errors import UserError, exit_code, user_errors
from ecg.files import check_target, sha256, write_bytes
from ecg.label_file import SAFE_PATH
from ecg.settings import Parser

RULES_VERSION = 3    # raise it with every change of what a statement means


# -------------------------------------------------------------------------- what a statement means
# What a statement can mean, as it is named in reports and files
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
SLOW = "bradycardia not of the sinus"
FAST = "tachycardia not of the sinus"
UNKNOWN = "unknown"

# How many records of each class the thesis has. The classes are in order of precedence: a record of
# several gets the first. Every other meaning but NEUTRAL keeps a record from being normal.
THESIS = {
    AF: 240_717,
    BBB: 10_317,
    BRADY: 32_508,
    TACHY: 60_809,
    NORMAL: 21_950,
}
CLASSES = list(THESIS)

# Statements of release 1.0 that name atrial fibrillation in any wording: fewer than the thesis has
# records. By the rules below 77,742 mean it, 3,026 are uncertain ('Probable atrial fibrillation'),
# 562 name a pacemaker as well and 89 leave open whether it is flutter.
AF_STATEMENTS = 81_419

LEFT_OUT = {    # meanings by which a record is left out; the last two if it has no class
    PACED: PACED,
    POOR: POOR,
    UNKNOWN: "no class; a statement that no rule knows",
    DOUBT: "no class; uncertain or negated",
}
SEVERAL = "several classes (--exclusive)"
MAX_LETTERS = 300    # of a statement: no cart writes more, and the patterns would take long

START = r"(.*([,;] ?| (-|with|and|plus) ))?"    # another finding may stand before ...
END = r"( ?[,;(].*| (-|with|and|plus) .*)?"     # ... and details after
DEGREE = r"((marked|mild|moderate|severe|extreme|paroxysmal|accelerated|irregular) )*"
ORIGIN = (r"((supra|idio)?ventricular|(wide|narrow|broad)[- ](qrs|complex)( complex)?(es)?|"
          r"junctional|nodal|multifocal|(sinus or )?(ectopic )?atrial|p?svt|vt|avn?rt|reentrant|"
          r"polymorphic|torsades( de pointes)?)")
RHYTHM = r"( (rhythm|escape|origin|reentr\w+))*\b(?! (?!with )\w)"    # ... as a whole phrase

# What takes a finding back, wholly or in part, if it stands alone before or after it
QUALIFIER = (r"((rhythm |origin )?(undetermined|indeterminate)|borderline|relative|partial|"
             r"inc(omp(l(ete)?)?)?|intermittent|transient|rate[- ](related|dependent)|atypical|"
             r"aberran\w+|functional|pattern|morphology|or .*)")

# A normalised statement that a pattern matches as a whole has the meaning beside it.
# The first rule that matches decides. If it gives a class, the rules below it can add classes.
RULES = [
    # Notes about the patient or the report
    (r"(age not entered|report made without|pediatric|(un)?confirmed).*", NEUTRAL),

    # The recording
    # Also if the quality only 'may affect' the interpretation
    (r".*\b(data quality|poor quality|unsuitable|(measurement|analysis|sequence) error|faulty|"
     r"reversal|artifacts?|wander|noise|leads?(\(s\))? .*missing)\b.*", POOR),
    # 'Missing lead(s): V1', also where only a part of a lead is missing
    (r"(partial )?missing leads?\b.*", POOR),
    # Between dashes: '--- Technically unsatisfactory tracing ---'
    (r"technically unsatisfactory( tracing)?", POOR),
    # As a summary: 'Summary: Technical error'
    (r"technical error", POOR),
    # Electrodes in a wrong place, 'omitted from the analysis'
    (r".*\binterspaces? too high\b.*", POOR),
    # As a summary: the cart gave none
    (r"none available", NEUTRAL),
    # Advice, not a finding
    (r"repeat ecg", NEUTRAL),

    # Pacemakers
    # A natural pacemaker
    (r".*\b(wandering|shifting|ectopic|junctional)( atrial)? pacemaker.*", OTHER),
    # Possible ones too
    (r"(?!no |absence ).*\b([av]{0,2}(paced?|pacer|pacing)|pacemakers?|stimulation|ppm|"
     r"(pm|icd) rhythm)\b.*", PACED),

    # Doubt and negation
    # Only the fascicular block is in doubt
    (r"rbbb with rad - possible left posterior fascicular block", BBB),
    # Uncertain
    (r".*(\?|\b(poss\w*|prob\w*|(un)?likely|quest\w*|cons(ider)?|susp\w*|may|suggest\w*|might|"
     r"could|cannot|rule[sd]?[- ]out|r/o|versus|vs|un(certain|clear|confirmed)|equivocal|"
     r"doubtful|query|apparent(ly)?|presum\w+)\b).*", DOUBT),
    # Negated or of the past
    (r".*\b(no|not|none|never|without|absen(ce|t)|negative|denied|excl\w*|resolved|replaced|"
     r"prev\w*|prior|former(ly)?|earlier|before|past|ago|hist(ory)?|hx|h/o|now|conver\w+|"
     r"revert\w+|cardiover\w+|ablat\w+|terminated|ended|gone)\b.*", DOUBT),
    # 'RBBB, partial', 'tachycardia (undetermined)', 'incomplete - LBBB'
    (rf"(?=.*[,;(-])(.*[,;(-] ?)?{QUALIFIER}\)?( ?[,;(-].*)?", DOUBT),

    # The classes of rhythm and conduction
    # At any rate; 'fibrillation/flutter' is undecided, so it is not AF
    (rf"(?!.*flut){START}((coarse|fine|rapid|slow) )*(atrial fibrillation|a-?fib){END}", AF),
    # Not incomplete ones, nor of beats that are ventricular, pre-excited or aberrant, as in 'PVCs
    # with LBBB morphology'; 'of LBBB type' is a conduction defect
    (r"(?!.*(\binc(\b|omp)|pre-?excit|wpw|wolff|delta wave|(cardia\W+ventricular|\b(ns)?vt\b|"
     r"((?<!supra)ventricular|wide (qrs|complex)) (tachy|rhythm|escape)|aberr|"
     r"\b(p[av]cs?|v[ep][bc]s?|aivr|\w*beats?|\w*geminy|couplets|ectop\w+|extrasystoles?|"
     r"complexes|contractions) (-|with)).*(bundle|bbb)))"
     rf"{START}(complete )?((left |right )?bundle.branch block|[lr]bbb){END}", BBB),
    # Also 'bradycardia, junctional'; see --rate-origin
    (rf"{DEGREE}({ORIGIN} bradycardia{END}|bradycardia\b.*\b{ORIGIN}{RHYTHM}.*)", SLOW),
    # Also 'tachycardia, ventricular'; see --rate-origin
    (rf"{DEGREE}({ORIGIN} tachycardia{END}|tachycardia\b.*\b{ORIGIN}{RHYTHM}.*)", FAST),
    # Of the sinus or of no stated origin, regular or not
    (rf"{DEGREE}(sinus )?bradycardia{END}", BRADY),
    # The same; also '... - otherwise normal ECG'
    (rf"{DEGREE}(sinus )?tachycardia{END}", TACHY),

    # Normal, or nearly
    # If no other finding is stated
    (r"(normal |regular )?sinus rhythm|(ecg )?within normal limits", NORMAL),
    (r"normal (ecg|electrocardiogram)( based on available leads)?", NORMAL),
    # The same in another order, as a summary
    (r"available leads normal ecg", NORMAL),
    # Mostly breathing; normal only together with a normal statement
    (r"sinus arrhythmia", NEUTRAL),
    # The statement about the rate decides
    (r"normal ecg except for rate|otherwise normal ecg", OTHER),
    (r"borderline( ecg)?", OTHER),

    # Everything else that is known
    # Of the QRS complex, from V1 to V6
    (r"early transition", OTHER),
    # A continuation that has lost its beginning; see `statements`
    (r"with (rapid|slow|uncontrolled) (ventricular response|v-rate)", OTHER),
    # A finding that is not normal
    (r".*(abnormal|atypical|borderline|incomplete|flutter|fibrillation|rhythm|arrhythmia|"
     r"ectop|escape|premature|\bp[av]cs?\b|geminy|cardia|dissociation|aberran|complex|block|bbb|"
     r"l[ap]fb|ivcd|conduction|wpw|wolff|pre-?excit|interval|prolonged|axis|deviation|infarct|"
     r"isch|injury|\bst\b|st-t|repol|\b[tqr][- ]wave|hypertrophy|[lr]vh|enlargement|voltage).*",
     OTHER),
]


def normalise(statement):
    """Return a statement in lower case, without 'Summary:', odd spaces and outer punctuation."""
    text = "".join(letter if letter.isprintable() else " " for letter in statement)
    text = " ".join(text.casefold().split())
    text = re.sub(r"[\u2010-\u2015]", "-", text).strip(" -*.:;,!'\"")
    return re.sub(r"^(?:summary|interpretation|conclusion|impression|rhythm) ?:[ -]*", "", text)


# A full stop ends a statement, except after an initial ('i.v. conduction') or an abbreviation
ABBREVIATION = (r"\b(approx|atr|atyp|bord(erl)?|cons|ect|equiv|excl|hist|idiovent|"
                r"inc(omp(lete)?)?l?|int(erm(itt?(ent)?)?)?|junct|nod|part(ial)?|poss(ib)?|prev|"
                r"prob|quest|resp|(supra)?ventr?|susp|(in|un)det(erm)?)\.")
FULL_STOP = r"(?:(?<=[a-z)]{3})|(?<=\d))\.(?: |(?=[a-z?]))"
CONTINUATION = r"(with|and|or) .*"    # goes on with the statement of the cell before
UNFINISHED = r".* (with|and|or)"      # goes on in the next cell


@functools.cache
def split_cell(cell):
    """Return the normalised statements of one cell."""
    text = re.sub(ABBREVIATION, r"\1", normalise(cell))
    parts = [normalise(part) for part in re.split(FULL_STOP, text)]
    return tuple(part for part in parts if part)


def statements(cells):
    """Return the normalised statements of the cells of one report.

    A cell can hold several ('sinus rhythm. normal ecg.'), and one can be cut over several cells
    ('Atrial fibrillation', 'with rapid ventricular response'), also with blank cells between them.
    """
    texts = []
    for cell in cells:
        for part in split_cell(cell):
            if texts and (re.fullmatch(CONTINUATION, part) or re.fullmatch(UNFINISHED, texts[-1])):
                texts[-1] += f" {part}"
            else:
                texts.append(part)

    return texts


@functools.cache
def meanings(text):
    """Return what a normalised statement means: its classes, or one meaning that is no class."""
    matching = [meaning for pattern, meaning in RULES
                if len(text) < MAX_LETTERS and re.fullmatch(pattern, text)] or [UNKNOWN]
    return {*matching} & {*CLASSES} if matching[0] in CLASSES else {matching[0]}


# ------------------------------------------------------------------------------- what a report says
class Verdict(NamedTuple):
    """The class of a report or '', why it is left out or '', and whether it has several classes."""

    ecg_category: str
    left_out: str
    several: bool


def judge(texts, options):
    """Return the `Verdict` on a report, given its statements."""
    said = set().union(*map(meanings, texts)) - {NEUTRAL}
    if options.rate_origin == "any":
        said = {{SLOW: BRADY, FAST: TACHY}.get(meaning, meaning) for meaning in said}
    if said != {NORMAL}:
        said.discard(NORMAL)    # a record with any other finding is not normal

    classes = [name for name in CLASSES if name in said]
    if not classes or said & {PACED, POOR}:
        reasons = [reason for meaning, reason in LEFT_OUT.items() if meaning in said]
        return Verdict("", [*reasons, "no class; other findings" if said else "empty"][0], False)
    several = len(classes) > 1
    return Verdict(classes[0], SEVERAL if several and options.exclusive else "", several)


def read_reports(table, options):
    """Return the verdict on each row's report, and how often each unknown statement occurs.

    Many records have the same report, so each different one is read once.
    """
    reports = list(table.filter(regex="^report_").itertuples(index=False, name=None))
    verdicts = {}
    unknown = Counter()
    for report, n in Counter(reports).items():
        texts = statements(report)
        verdicts[report] = judge(texts, options)
        unknown.update({text[:80]: n for text in texts if meanings(text) == {UNKNOWN}})

    judged = pd.DataFrame([verdicts[report] for report in reports], columns=Verdict._fields)
    return judged, unknown


# --------------------------------------------------------------------------------------- the tables
ORIGIN_OF_LABELS = "machine reads of the ECG cart (tables of MIMIC-IV-ECG)"

# The carts write 29999, 32767 and the like instead of what they could not measure
RR_RANGE = (200, 3000)    # ms, 300 to 20 bpm

# The folds of MIMIC-IV-ECG-Ext-ICD as its authors use them
SPLITS = {str(fold): "train" for fold in range(18)} | {"18": "validation", "19": "test"}
COLUMNS = ["subject_id", "waveform_path", "ecg_category", "age", "sex", "site", "split"]


def refuse(path, column, bad, expected):
    """Raise `UserError` for the first row of `column` that is `bad`."""
    if bad.any():
        row = bad.idxmax()
        raise UserError(f"{path}, data row {row + 1}, {column.name}: expected {expected}, "
                        f"got {column[row][:80]!r}")


def read_table(path, *needed):
    """Read a table as text, plain or .gz; it has whole ids, each study once, and these columns."""
    with user_errors(f"{path}: not a readable .csv or .csv.gz file",
                     (OSError, EOFError, ValueError, zlib.error)):
        table = pd.read_csv(    # all columns, because only then a row that is too long shows
            path, dtype=str, encoding="utf-8-sig", encoding_errors="replace", low_memory=False)
        if not isinstance(table.index, pd.RangeIndex):
            raise ValueError("the first row has more cells than the header")

    missing = {"subject_id", "study_id", *needed} - set(table)
    if missing:
        raise UserError(f"{path}: no column {', '.join(sorted(missing))} (files swapped?)")

    table = table.fillna("")
    for name in ("subject_id", "study_id"):
        refuse(path, table[name], ~table[name].str.fullmatch("[0-9]{1,15}"), "a whole number")

    refuse(path, table["study_id"], table["study_id"].duplicated(), "each study once")
    return table


def read_measurements(options):
    """Return each record's verdict and RR interval (ms), and the counts of unknown statements."""
    site = ["cart_id"] if options.site else []
    table = read_table(options.measurements, "report_0", "rr_interval", *site)
    verdicts, unknown = read_reports(table, options)
    rr = pd.to_numeric(table["rr_interval"], errors="coerce")    # sentinels are out of the range
    described = table.filter(["subject_id", "study_id", "cart_id"])
    return described.join(verdicts).assign(rr_interval=rr.where(rr.between(*RR_RANGE))), unknown


def read_record_list(options):
    """Return the list of records, whose paths are checked."""
    table = read_table(options.records, "path")
    refuse(options.records, table["path"], ~table["path"].str.fullmatch(SAFE_PATH),
           "a path in the data folder")
    return table[["subject_id", "study_id", "path"]]


# --------------------------------------------------------------------------------------- the labels
def join_tables(measured, listed):
    """Join the tables by study, and leave out whose patients differ."""
    records = measured.merge(listed, on="study_id", suffixes=("", "_listed"))
    is_other = records["subject_id"] != records["subject_id_listed"]
    return records.assign(left_out=records["left_out"].mask(is_other, "subject_id differs"))


def add_folds(records, path):
    """Add age, sex and split of each record, and leave out those that are in no fold.

    The release writes 'missing' for an unknown sex; ages above 89 are no real ages.
    """
    table = read_table(path, "fold", "age", "gender")
    refuse(path, table["fold"], ~table["fold"].isin(list(SPLITS)), "a whole number from 0 to 19")
    keys = ["subject_id", "study_id"]
    folds = table[keys].assign(age=table["age"].str.removesuffix(".0"),
                               sex=table["gender"].replace("missing", ""),
                               split=table["fold"].map(SPLITS))

    records = records.merge(folds, "left", keys)
    is_known = records["split"].notna()
    return records.assign(left_out=records["left_out"].where(is_known, "not in --folds"))


def summarise(records, n_measured, n_listed):
    """Return what became of the records, as it is printed and kept in the .json."""
    kept = records[records["left_out"] == ""]
    rate = 60_000 / kept["rr_interval"].dropna()    # bpm
    category = kept.loc[rate.index, "ecg_category"]
    is_off = (category == BRADY) & (rate > 60) | (category == TACHY) & (rate < 100)
    classes = kept.groupby("ecg_category")["subject_id"].agg(records="size", patients="nunique")
    classes = classes.reindex(CLASSES, fill_value=0).assign(thesis=pd.Series(THESIS))
    return {
        "records": len(kept),
        "patients": kept["subject_id"].nunique(),
        "classes": classes.to_dict("index"),
        "left_out": {
            "not in the record list": n_measured - len(records),
            "not in the measurements": n_listed - len(records),
            **records["left_out"].value_counts().drop("", errors="ignore").to_dict(),
        },
        "several_classes": int(kept["several"].sum()),
        "off_rate": is_off.groupby(category).mean().reindex(
            [BRADY, TACHY], fill_value=0.0).to_dict(),
    }


def as_text(counts):
    """Return counts, or a table of them, as lines of text."""
    return counts.map("{:,}".format).to_string() if len(counts) else "none"


def print_summary(summary):
    """Print the summary, with the counts of the thesis for comparison."""
    print(f"""\

{as_text(pd.DataFrame(summary["classes"]).T)}
{summary["records"]:,} records of {summary["patients"]:,} patients; \
{summary["several_classes"]:,} have several classes
The thesis counts {THESIS[AF]:,} records of atrial fibrillation, which cannot be reached:
all wordings together, uncertain ones too, stand in {AF_STATEMENTS:,} statements of release 1.0,
and so in no more of its records.
By rr_interval {summary["off_rate"][BRADY]:.1%} of bradycardia is above 60 bpm, \
{summary["off_rate"][TACHY]:.1%} of tachycardia below 100 bpm.
{origin.origin_of_labels(summary["labels_origin"])}

Left out
{as_text(pd.Series(summary["left_out"]))}

The commonest statements that no rule knows
{as_text(pd.Series(summary["unknown"]))}
""")


# ------------------------------------------------------------------------------------- the program
def make_labels(options):
    """Make the label file and, next to it, the .json that says how it was made."""
    sources = [path for path in (options.measurements, options.records, options.folds) if path]
    sidecar = origin.beside(options.output)
    check_target(options.output, sources)
    if options.output.exists() and not options.force:
        raise UserError(f"{options.output} is there already, and may have been edited by hand; "
                        "choose another --output, or replace it with --force")

    measured, unknown = read_measurements(options)
    listed = read_record_list(options)
    records = join_tables(measured, listed)
    if options.folds:
        records = add_folds(records, options.folds)

    summary = {
        "labels_origin": ORIGIN_OF_LABELS,
        **summarise(records, len(measured), len(listed)),
        "unknown": dict(unknown.most_common(50)),
    }
    print_summary(summary)
    if not summary["records"]:
        raise UserError(f"{options.measurements}: no record got a label; nothing was written")

    is_wide = bool(options.site or options.folds)
    kept = records[records["left_out"] == ""].rename(
        columns={"path": "waveform_path", "cart_id": "site"})
    kept = kept.filter(COLUMNS if is_wide else COLUMNS[:3])
    write_bytes(options.output, kept.to_csv(header=is_wide, index=False).encode())
    card = {
        "rules_version": RULES_VERSION,
        "rate_origin": options.rate_origin,
        "exclusive": options.exclusive,
        **summary,
        "sha256": {path.name: sha256(path) for path in [*sources, options.output]},
    }
    write_bytes(sidecar, json.dumps(card, indent=1).encode())
    print(f"wrote {options.output} and, next to it, {sidecar.name}")


def main(arguments=None):
    """Run from the command line; return the exit code."""
    parser = Parser(__doc__, dict.fromkeys(
        ["--keep-paced", "--keep-poor-quality", "--include-borderline"],
        "it is gone: such records are left out") | {
            "--check-rate": "the share of rates off the label is printed"})
    add = parser.add_argument
    flag = functools.partial(add, action="store_true")

    add("measurements", type=Path, help="machine_measurements.csv, plain or .gz")
    add("records", type=Path, help="record_list.csv, plain or .gz")
    add("--output", type=Path, default=Path("mimic_labels.csv"),
        help="label file to write (default: %(default)s)")
    flag("--site", help="write cart_id of the measurements as a column site, and a header")
    add("--folds", type=Path, metavar="FILE",
        help="records_w_diag_icd10.csv of MIMIC-IV-ECG-Ext-ICD: write age, sex, site and split "
             "(folds 0-17 train, 18 validation, 19 test) as columns, and a header. That table is "
             "credentialed: keep the label file to yourself as well")
    flag("--force", help="replace the label file if there is one, with all that was edited in it")

    add("--rate-origin", choices=["sinus", "any"], default="sinus",
        help="sinus (default): only bradycardia and tachycardia of the sinus or of no stated "
             "origin count; any: also supraventricular, ventricular, wide QRS, junctional and "
             "atrial ones")
    flag("--exclusive", help="leave out records of several classes; without this flag they get the "
         "first of " + ", ".join(CLASSES))
    return exit_code("make_labels.py", make_labels, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

"""What tools/make_labels.py promises: the class of every statement, and a file that can be used."""

import csv
import gzip
import json
import re

import pytest

import too_feature
from ecg import demo, origin
from ecg.files import sha256
from tools import make_labels
from tools.make_labels import AF, BBB, BRADY, NORMAL, TACHY

# Reports as a cart writes them, with ';' between the cells, and the class that each must get. Some
# statements are of MIMIC-IV-ECG 1.0 (Gow et al., PhysioNet 2023,
# https://doi.org/10.13026/4nqg-sb35, Open Database Licence 1.0).
EXPECTED = {
    NORMAL: """
        Sinus rhythm; Normal ECG | SINUS RHYTHM;;; Summary: normal ECG | Sinus  rhythm.
        Normal ECG | Sinus rhythm; normal ECG based on available leads
        Sinus arrhythmia; Normal ECG | Summary: Available leads normal ECG
        Age not entered, assumed to be 50 years old; Sinus rhythm; Normal ECG
        Normal ECG; Repeat ECG | Sinus rhythm; Summary: None available
        sinus rhythm. normal ecg. | ;; sinus rhythm. normal ecg. | Normal ECG;Sinus rhythm
        Sinus rhythm. Summary: normal ECG | Sinus rhythm""",
    BRADY: """
        Sinus bradycardia; Normal ECG except for rate | Bradycardia; Normal ECG
        Tachycardia; Bradycardia | MARKED SINUS BRADYCARDIA; Abnormal ECG
        Sinus bradycardia with 1st degree A-V block | Irregular sinus bradycardia
        Sinus bradycardia. consider 2:1 sino-atrial block
        Bradycardia, marked | Bradycardia, atrial premature complexes | Bradycardia, rate 45
        Sinus bradycardia, junctional escape | Bradycardia with undetermined irregularity
        Sinus bradycardia, borderline 1st degree A-V block""",
    TACHY: """
        Sinus tachycardia; Pattern that no rule knows | Extreme tachycardia
        tachycardia; Normal ECG | Summary: tachycardia - otherwise normal ECG
        Sinus tachycardia; Inferior infarct, old | Irregular sinus tachycardia
        Sinus tachycardia with; old infarct | Tachycardia, ventricular premature complexes
        Sinus tachycardia with non-sustained ventricular tachycardia
        Tachycardia, left atrial enlargement | Sinus tachycardia with irregular rate""",
    AF: """
        Atrial fibrillation | Atrial fibrillation with rapid ventricular response
        Afib; No pacemaker | atrial fibrillation, V-rate 80-99; Sinus rhythm
        Atrial fibrillation with incomplete RBBB
        Sinus bradycardia; Right bundle branch block; Atrial fibrillation
        Sinus rhythm. Atrial fibrillation.
        Atrial fibrillation; with rapid ventricular response
        Atrial fibrillation with pre-excitation | Atrial fibrillation, intermittent PVC(s)
        Atrial fibrillation, inferior infarct - age undetermined
        Atrial fibrillation with PVC(s) or aberrant ventricular conduction
        Atrial fibrillation with rapid ventricular response with PVC(s)""",
    BBB: """
        Left bundle branch block | Right bundle-branch block | LBBB
        RBBB with left anterior fascicular block | Sinus rhythm with complete RBBB
        RBBB with RAD - possible left posterior fascicular block
        Sinus bradycardia; Sinus tachycardia; LBBB | Sinus tachycardia with LBBB
        Left bundle branch block.Low voltage | Sinus tachycardia. And LBBB
        Low voltage in V6. Right bundle branch block. Abnormal ECG
        I.V. conduction defect. LBBB | Sinus tachycardia;;  ;with LBBB
        ; Sinus tachycardia;;with PVC(s);;and LBBB
        Sinus tachycardia with;;old infarct; LBBB | RBBB, old | LBBB, borderline left axis
        Supraventricular tachycardia with RBBB | RBBB, ventricular premature complexes
        LBBB with non-sustained ventricular tachycardia | LBBB with aberrantly conducted PVC(s)""",
    None: """
        *** Report made without knowing patient's sex *** |  | . | ; ; | Sinus arrhythmia
        Sinus rhythm; Possible right atrial abnormality;; Borderline ECG
        Sinus rhythm; Borderline ECG | Sinus rhythm; Abnormal ECG
        Sinus rhythm; Normal ECG except for rate | Otherwise normal ECG
        Normal ECG; Pattern that no rule knows | Normal ECG; Left axis deviation
        Normal ECG; No LBBB | Normal ECG; Early transition
        Normal ECG; Possible atrial fibrillation | Sinus rhythm with PVC(s)
        Prob. atrial fibrillation | Sinus rhythm with vent. tachycardia
        Atrial fibrillation;;or flutter | Normal ECG. Atrial fibrillation; or flutter. Low voltage
        Sinus rhythm; "a", b, "c" | with rapid ventricular response; Normal ECG
        Borderline bradycardia | Junctional bradycardia | Ectopic atrial bradycardia
        Atrial tachycardia | Supraventricular tachycardia | Wide QRS tachycardia
        Ventricular tachycardia, unsustained | Junctional tachycardia
        Atrial flutter | Atrial fibrillation/flutter | Atrial flutter/fibrillation
        Atrial fibrillation or flutter | Ventricular fibrillation | Possible atrial fibrillation
        Probable afib | Suspect afib | Consider afib | Rule out afib | May be afib
        Could be afib | Afib cannot be ruled out | Afib? | No afib | Not afib | Without afib
        Absence of afib | Afib no longer present | Afib has resolved | Afib with flutter
        Incomplete RBBB and LAFB | Incomplete left bundle branch block
        Right bundle branch block, incomplete | Conduction defect of LBBB type
        Intraventricular conduction defect | IVCD, consider atypical LBBB
        Tachycardia, ventricular | Tachycardia (wide QRS complexes) | Tachycardia - SVT
        Tachycardia with narrow complex | Tachycardia, ventricular, sustained | Tachycardia, VT
        Tachycardia, ventricular with RBBB | Tachycardia, AV nodal reentrant | Tachycardia, AVNRT
        Tachycardia, regular, supraventricular rhythm | Tachycardia, torsades de pointes
        Tachycardia, reentrant | Tachycardia, polymorphic | Tachycardia with broad complexes
        Tachycardia, ventricular origin | Tachycardia, nodal reentry | Tachycardia, PSVT
        Tachycardia, origin undetermined | LBBB, transient | LBBB (aberrancy) | LBBB, pattern
        LBBB - morphology | LBBB, doubtful | LBBB, apparently | LBBB, quest. | LBBB, unclear
        LBBB, never | LBBB, negative | LBBB, prev | Atrial fibrillation, before
        Atrial fibrillation, in the past | Atrial fibrillation, terminated | LBBB, unconfirmed
        Atrial fibrillation, after cardioversion | Delta waves, LBBB | LBBB, exclude
        LBBB, PM rhythm | ICD rhythm with LBBB | Possib. LBBB | Indet. LBBB | Prev. LBBB
        Nod. bradycardia | Ect. bradycardia | Idiovent. tachycardia | LBBB, h/o | LBBB, functional
        LBBB, query | LBBB, denied | LBBB, gone | Atrial fibrillation, reverted to sinus rhythm
        Sinus or ectopic atrial bradycardia | Sinus or ectopic atrial tachycardia
        I.V. conduction defect of left bundle branch block type | Afib/flut and v-paced complexes
        Probable sinus tachycardia.consider flutter and/or 2:1 A-V block
        Probable sinus tachycardia. ? atrial tachycardia or flutter + 2:1 A-V block
        Wide QRS tachycardia with LBBB | Aberrant conduction, RBBB
        Normal ECG; Ventricular pre-excitation | Normal ECG; Wolff-Parkinson-White
        Bradycardia, junctional | Bradycardia (nodal) | Bradycardia, idioventricular
        Bradycardia with junctional escape rhythm | Bradycardia, relative | Tachycardia, borderline
        Tachycardia, rhythm undetermined | Atrial fibrillation, undetermined | LBBB, indeterminate
        Atrial fibrillation, history of | Hx, atrial fibrillation | Hist. atrial fibrillation
        Atrial fibrillation, now sinus rhythm | Atrial fibrillation, converted to sinus rhythm
        Atrial fibrillation (prior) | Atrial fibrillation, 2 years ago | LBBB, earlier
        Atrial fibrillation, s/p ablation | Atrial fibrillation - ended | Formerly, LBBB
        Atrial fibrillation, excluded | Excluded - LBBB | Excl. LBBB | LBBB, none
        Atrial fibrillation (poss.) | Atrial fibrillation, susp | Atrial fibrillation, uncertain
        Atrial fibrillation, equivocal | Atrial fibrillation, presumed | Atrial fibrillation, flut
        Atrial fibrillation, or atrial tachycardia | Undet. atrial fibrillation
        Inc. RBBB | Sinus rhythm with inc. RBBB | Bord. LBBB | Interm. LBBB | Part. RBBB
        Frequent PVCs with LBBB morphology | PVCs - LBBB | PACs with RBBB | NSVT with LBBB
        Ventricular bigeminy with RBBB | Fusion beats with LBBB | Wide complex tachycardia with LBBB
        Incomplete. RBBB | Partial. LBBB | Intermittent. LBBB | Tachycardia, multifocal
        RBBB (inc.) | RBBB, partial | Partial, RBBB | Incomplete - LBBB | LBBB, rate-related
        RBBB, incomplete with PVC(s) | LBBB (intermittent), left axis deviation | LBBB, atypical
        Ventricular pre-excitation with RBBB | LBBB with preexcitation | WPW, LBBB
        RBBB (Wolff-Parkinson-White) | Ventricular tachycardia with LBBB | VT, RBBB
        Idioventricular rhythm with LBBB | Ventricular escape, RBBB
        Vpaced rhythm with LBBB | Biventricular stimulation, LBBB | LBBB, PPM
        Atrial fibrillation; Electronic pacemaker | LBBB; Ventricular pacing
        LBBB; Possible pacemaker | Pacemaker rhythm - no further analysis
        Normal ECG; Wandering pacemaker | LBBB; Lead reversal
        Atrial fibrillation; --- Warning: Data quality may affect interpretation ---
        Normal ECG; Missing lead(s): V1 | Normal ECG; Partial missing lead(s): V1
        Normal ECG; --- Technically unsatisfactory tracing ---
        Normal ECG; Summary: Technical error
        Normal ECG; V1/V2 are at least one interspace too high and have been omitted \
from the analysis""",
}
REPORTS = [(name, *re.split("; ?", report)) for name, text in EXPECTED.items()
           for report in re.split(r" \| |\n +", text.removeprefix("\n        "))]
ROWS = [(800, *report) for _, *report in REPORTS]    # rr_interval in ms, then the cells


def write(folder, rows, columns=18):
    """Write both tables for `rows`, with two records a patient; return the study ids."""
    ids = [(10_000_000 + i // 2, 40_000_000 + i) for i in range(len(rows))]
    time = "2180-07-23 08:44:00"
    with open(folder / "measured.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["subject_id", "study_id", "cart_id", "ecg_time",
                      *[f"report_{i}" for i in range(columns)], "bandwidth", "rr_interval"])
        for pair, (rr, *report) in zip(ids, rows, strict=True):
            blank = [""] * (columns - len(report))
            out.writerow([*pair, 6848296, time, *report, *blank, "0.005-150 Hz", rr])

    lines = [f"{subject},{study},{study},{time},files/p1000/p{subject}/s{study}/{study}\n"
             for subject, study in ids]
    text = "subject_id,study_id,file_name,ecg_time,path\n" + "".join(lines)
    (folder / "list.csv").write_text(text)
    return [study for _, study in ids]


def write_folds(folder):
    """Write made-up rows like those of MIMIC-IV-ECG-Ext-ICD for 20 records of `write`."""
    rows = [f"{10_000_000 + i // 2},{40_000_000 + i},{['F,52.0', 'missing,'][i % 2]},{i}\n"
            for i in range(20)]
    path = folder / "folds.csv"
    path.write_text("subject_id,study_id,gender,age,fold\n" + "".join(rows))
    return path


def make(folder, *options, files=("measured.csv", "list.csv")):
    """Run the tool in this process; return its exit code."""
    sources = [str(folder / file) for file in files]
    return make_labels.main([*sources, "--output", str(folder / "labels.csv"), *options])


def read_card(folder):
    """Return what the .json next to the label file says."""
    return json.loads((folder / "labels.labels.json").read_text())


def classes(folder, rows, *options, **more):
    """Return the class of each of `rows`, or None, and what the .json says."""
    studies = write(folder, rows, **more)
    assert make(folder, "--force", *options) == 0

    lines = [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()]
    found = {int(path.split("/")[-1]): name for _, path, name in lines}
    return [found.get(study) for study in studies], read_card(folder)


# -------------------------------------------------------------------------- what a statement means
def test_every_report_gets_its_class_and_no_part_of_it_is_unknown(tmp_path):
    found, card = classes(tmp_path, ROWS)
    assert [(name, *report) for name, (_, *report) in zip(found, REPORTS, strict=True)] == REPORTS
    assert card["unknown"] == {'a", b, "c': 1}


def test_every_rule_is_the_first_to_match_some_statement_of_these_tests():
    rules = dict(make_labels.RULES)
    texts = {make_labels.normalise(cell) for _, *report in REPORTS for cell in report} - {""}
    first = {next((pattern for pattern in rules if re.fullmatch(pattern, text)), "unknown")
             for text in texts}
    assert first == {*rules, "unknown"}


@pytest.mark.parametrize("option, rows, default, changed", [
    (["--rate-origin", "any"], ["Junctional bradycardia", "Wide QRS tachycardia",
     "Supraventricular tachycardia", "Ventricular tachycardia",
     "Sinus or ectopic atrial bradycardia", "Bradycardia, junctional"],
     [None] * 6, [BRADY, TACHY, TACHY, TACHY, BRADY, BRADY]),
    (["--exclusive"], ["LBBB|Tachycardia", "Tachycardia with LBBB", "Normal ECG|LBBB"],
     [BBB, BBB, BBB], [None, None, BBB])])
def test_an_option_changes_the_class_of_its_records(tmp_path, option, rows, default, changed):
    rows = [(800, *row.split("|")) for row in [*rows, "Atrial fibrillation"]]
    assert classes(tmp_path, rows)[0] == [*default, AF]
    assert classes(tmp_path, rows, *option)[0] == [*changed, AF]


# --------------------------------------------------------------------------------------- the tables
def test_how_many_rates_are_off_the_label_by_rr_is_printed(tmp_path, capsys):
    rows = [*[(rr, "Bradycardia") for rr in (1000, 990, 65535, -32768, 100, "")],
            *[(rr, "Tachycardia") for rr in (600, 610, 620)], (400, "LBBB")]
    assert classes(tmp_path, rows)[0] == [BRADY] * 6 + [TACHY] * 3 + [BBB]
    text = capsys.readouterr().out
    assert "50.0% of bradycardia is above 60 bpm, 66.7% of tachycardia below 100 bpm" in text


def test_packed_tables_are_read_and_the_origin_goes_with_the_label_file(tmp_path, capsys):
    write(tmp_path, [(800, "LBBB")])
    content = (tmp_path / "list.csv").read_bytes()
    (tmp_path / "list.csv.gz").write_bytes(gzip.compress(content))
    assert make(tmp_path, files=("measured.csv", "list.csv.gz")) == 0
    stated = make_labels.ORIGIN_OF_LABELS
    assert f"Origin of the labels: {stated}.\n" in capsys.readouterr().out
    assert origin.of_file(str(tmp_path / "labels.csv")) == stated


def test_every_record_is_labelled_or_counted_with_the_reason(tmp_path):
    write(tmp_path, ROWS)
    lines = (tmp_path / "list.csv").read_text().splitlines()
    lines[1] = lines[1].replace("10000000,", "19999999,", 1)    # another patient's
    lines[2:4] = ["10000000,49999999,x,x,files/x"]    # two measured, not listed; one the reverse
    (tmp_path / "list.csv").write_text("\n".join(lines))
    assert make(tmp_path) == 0

    left_out = read_card(tmp_path)["left_out"]
    labels = too_feature.read_labels(tmp_path / "labels.csv")
    assert len(labels) + sum(left_out.values()) == len(ROWS) + 1
    expected = {"subject_id differs": 1, "not in the measurements": 1, "not in the record list": 2,
                "poor data quality": 7, "pacemaker": 10, "empty": 5}    # a note is no finding
    assert expected.items() <= left_out.items()


# ------------------------------------------------------------------------- what is said and written
def test_the_script_reads_the_file_and_the_json_tells_where_it_came_from(tmp_path, capsys):
    _, card = classes(tmp_path, ROWS)
    text = capsys.readouterr().out
    labels = too_feature.read_labels(tmp_path / "labels.csv")
    assert sorted(labels["ecg_category"].unique()) == demo.CLASSES
    assert capsys.readouterr().out == ""    # no notice

    for name, group in labels.groupby("ecg_category")["subject_id"]:
        counts = [len(group), group.nunique(), make_labels.THESIS[name]]
        assert list(card["classes"][name].values()) == counts
        assert re.search(" +".join([name, *map("{:,}".format, counts)]) + "\n", text)
    assert card["several_classes"] == 8
    assert card["rate_origin"] == "sinus"


def test_site_is_the_cart_in_a_column_with_a_header(tmp_path):
    write(tmp_path, [(800, "LBBB")])
    assert make(tmp_path, "--site") == 0
    assert (tmp_path / "labels.csv").read_text() == (
        "subject_id,waveform_path,ecg_category,site\n"
        f"10000000,files/p1000/p10000000/s40000000/40000000,{BBB},6848296\n")


def test_published_folds_become_splits_and_records_in_none_are_left_out(tmp_path):
    folds = write_folds(tmp_path)
    write(tmp_path, [(800, "LBBB")] * 21)
    assert make(tmp_path, "--folds", str(folds)) == 0
    header, *rows = (tmp_path / "labels.csv").read_text().splitlines()
    assert header == "subject_id,waveform_path,ecg_category,age,sex,site,split"
    assert [row.split(",", 3)[3] for row in rows] == [
        *["52,F,6848296,train", ",,6848296,train"] * 9, "52,F,6848296,validation", ",,6848296,test"]
    card = read_card(tmp_path)
    assert card["left_out"]["not in --folds"] == 1
    assert card["sha256"]["folds.csv"] == sha256(folds)


def test_an_existing_label_file_is_replaced_by_force_alone_and_a_source_never(tmp_path, capsys):
    write(tmp_path, [(800, "LBBB")])
    labels = tmp_path / "labels.csv"
    labels.write_text("1,files/a,AF\n")
    assert make(tmp_path) == 2
    assert "--force" in capsys.readouterr().err
    assert labels.read_text() == "1,files/a,AF\n"
    assert make(tmp_path, "--force") == 0
    assert BBB in labels.read_text()

    assert make(tmp_path, "--force", "--output", str(tmp_path / "measured.csv")) == 2
    assert "measured.csv is read as well as written" in capsys.readouterr().err


@pytest.mark.parametrize("name, old, new, mention", [
    ("list", "subject_id", "subject", "no column subject_id .files swapped"),
    ("measured", "cart_id", "cart", "no column cart_id"),
    ("measured", "40000001", "x", "data row 2, study_id: expected a whole number, got 'x'"),
    ("measured", "40000001", "40000000", "data row 2, study_id: expected each study once"),
    ("measured", "LBBB", "LBBB,,", "first row has more"), ("list", "(?s).*", "", "No columns"),
    ("measured", "AF", "AF,,", "line 3, saw 26"), ("measured", "LBBB", '"LBBB', "EOF inside"),
    ("measured", "(?s)\n.*", "", "no record"), ("folds", ",19\n", ",20\n", "data row 20, fold"),
    ("list", "files.*", "", "data row 1, path"),
    ("list", "files(?=.*01\n)", "..", "data row 2, path: expected a path .*'../p1000")])
def test_an_unusable_file_is_one_line_and_writes_nothing(tmp_path, capsys, name, old, new, mention):
    write(tmp_path, [(800, "LBBB"), (800, "AF")])
    folds = write_folds(tmp_path)
    file = tmp_path / f"{name}.csv"
    file.write_text(re.sub(old, new, file.read_text(), count=1))
    assert make(tmp_path, "--site", "--folds", str(folds)) == 2

    text = capsys.readouterr().err.split("make_labels.py: error: ")[1]
    assert re.search(f"{name}.csv.*{mention}", text)
    assert text.strip().count("\n") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"measured.csv", "list.csv", "folds.csv"}

"""What tools/make_labels.py promises: the class of every statement, and a file that can be used."""

import csv
import gzip
import json
import re
import subprocess
import sys

import pytest

import too_feature
from ecg import demo, origin
from ecg.files import sha256
from tools import make_labels
from tools.make_labels import Meaning

AF, BBB, BRADY, TACHY, NORMAL = (meaning.value for meaning in make_labels.CLASSES)

# Reports as a cart writes them, with ';' between the cells, and the class that each must get
EXPECTED = {
    NORMAL: """
        Sinus rhythm; Normal ECG | SINUS RHYTHM;;; Summary: normal ECG | Sinus  rhythm.
        Normal ECG | Sinus rhythm; normal ECG based on available leads
        Sinus arrhythmia; Normal ECG | Summary: Available leads normal ECG
        Age not entered, assumed to be 50 years old; Sinus rhythm; Normal ECG
        Normal ECG; Repeat ECG | Sinus rhythm; Summary: None available""",
    BRADY: """
        Sinus bradycardia; Normal ECG except for rate | Bradycardia; Normal ECG
        Tachycardia; Bradycardia | MARKED SINUS BRADYCARDIA; Abnormal ECG
        Sinus bradycardia with 1st degree A-V block | Irregular sinus bradycardia""",
    TACHY: """
        Sinus tachycardia; Pattern that no rule knows | Extreme tachycardia
        tachycardia; Normal ECG | Summary: tachycardia - otherwise normal ECG
        Sinus tachycardia; Inferior infarct, old | Irregular sinus tachycardia""",
    AF: """
        Atrial fibrillation | Atrial fibrillation with rapid ventricular response
        Afib; No pacemaker | atrial fibrillation, V-rate 80-99; Sinus rhythm
        Atrial fibrillation with incomplete RBBB
        Sinus bradycardia; Right bundle branch block; Atrial fibrillation""",
    BBB: """
        Left bundle branch block | Right bundle-branch block | LBBB
        RBBB with left anterior fascicular block | Sinus rhythm with complete RBBB
        RBBB with RAD - possible left posterior fascicular block
        Sinus bradycardia; Sinus tachycardia; LBBB | Sinus tachycardia with LBBB""",
    None: """
        *** Report made without knowing patient's sex *** |  | . | ; ; | Sinus arrhythmia
        Sinus rhythm; Possible right atrial abnormality;; Borderline ECG
        Sinus rhythm; Borderline ECG | Sinus rhythm; Abnormal ECG
        Sinus rhythm; Normal ECG except for rate | Otherwise normal ECG
        Normal ECG; Pattern that no rule knows | Normal ECG; Left axis deviation
        Normal ECG; No LBBB | Normal ECG; Early transition
        Normal ECG; Possible atrial fibrillation | Sinus rhythm with PVC(s)
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

# Statements of MIMIC-IV-ECG 1.0, each with the number of records that carry it (Gow et al.,
# PhysioNet 2023, https://doi.org/10.13026/4nqg-sb35, Open Database Licence 1.0)
STATEMENTS = [
    (391_608, "sinus rhythm", {Meaning.NORMAL}),
    (72_682, "sinus bradycardia", {Meaning.BRADY}),
    (56_809, "sinus tachycardia", {Meaning.TACHY}),
    (33_837, "right bundle branch block", {Meaning.BBB}),
    (23_451, "left bundle branch block", {Meaning.BBB}),
    (14_060, "sinus arrhythmia", {Meaning.NEUTRAL}),
    (6_006, "incomplete rbbb", {Meaning.OTHER}),

    (42_439, "atrial fibrillation", {Meaning.AF}),
    (15_358, "atrial fibrillation with rapid ventricular response", {Meaning.AF}),
    (6_267, "atrial fibrillation with slow ventricular response", {Meaning.AF}),
    (2_102, "atrial fibrillation with pvc(s)", {Meaning.AF}),
    (1_724, "atrial fibrillation with pvc(s) or aberrant ventricular conduction", {Meaning.AF}),
    (1_197, "atrial fibrillation with uncontrolled ventricular response", {Meaning.AF}),
    (1_013, "atrial fibrillation with rapid ventricular response with pvc(s)", {Meaning.AF}),
    (336, "atrial fibrillation with rapid v-rate", {Meaning.AF}),
    (461, "probable atrial fibrillation", {Meaning.DOUBT}),
    (327, "afib/flut and v-paced complexes", {Meaning.PACED}),
    (67, "atrial flutter/fibrillation", {Meaning.OTHER}),

    (493, "irregular sinus bradycardia", {Meaning.BRADY}),
    (160, "irregular sinus tachycardia", {Meaning.TACHY}),
    (228, "sinus tachycardia with irregular rate", {Meaning.TACHY}),
    (363, "sinus or ectopic atrial tachycardia", {Meaning.FAST}),
    (173, "sinus or ectopic atrial bradycardia", {Meaning.SLOW}),

    (116, "i.v. conduction defect of left bundle branch block type", {Meaning.OTHER}),
    (7, "probable sinus tachycardia. ? atrial tachycardia or flutter + 2:1 a-v block",
     {Meaning.DOUBT}),
    (7, "probable sinus tachycardia.consider flutter and/or 2:1 a-v block", {Meaning.DOUBT}),
    (5, "sinus bradycardia. consider 2:1 sino-atrial block", {Meaning.BRADY, Meaning.DOUBT}),
]


def write(folder, rows, columns=18):
    """Write both tables for `rows`, with two records a patient; return the study ids."""
    ids = [(10_000_000 + i // 2, 40_000_000 + i) for i in range(len(rows))]
    reports = [f"report_{i}" for i in range(columns)]
    time = "2180-07-23 08:44:00"

    with open(folder / "measured.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["subject_id", "study_id", "cart_id", "ecg_time", *reports, "bandwidth",
                      "filtering", "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end",
                      "t_end", "p_axis", "qrs_axis", "t_axis"])
        for pair, (rr, *report) in zip(ids, rows, strict=True):
            blank = [""] * (columns - len(report))
            out.writerow([*pair, 6848296, time, *report, *blank, "0.005-150 Hz",
                          "60 Hz notch Baseline filter", rr, 40, 128, 170, 258, 518, 81, 77, 79])

    with open(folder / "list.csv", "w") as file:
        file.write("subject_id,study_id,file_name,ecg_time,path\n")
        for subject, study in ids:
            path = f"files/p1000/p{subject}/s{study}/{study}"
            file.write(f"{subject},{study},{study},{time},{path}\n")

    return [study for _, study in ids]


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
def test_every_report_gets_its_class_from_plain_and_gzip_files(tmp_path):
    found, _ = classes(tmp_path, ROWS)
    assert [(name, *report) for name, (_, *report) in zip(found, REPORTS, strict=True)] == REPORTS

    for name in ("measured.csv", "list.csv"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    expected = (tmp_path / "labels.csv").read_bytes()
    assert make(tmp_path, "--force", files=("measured.csv.gz", "list.csv.gz")) == 0
    assert (tmp_path / "labels.csv").read_bytes() == expected


def test_every_rule_is_the_first_to_match_some_statement_of_these_tests():
    texts = {make_labels.normalise(cell) for _, *report in REPORTS for cell in report} - {""}
    first = {next((rule.pattern for rule in make_labels.RULES if re.fullmatch(rule.pattern, text)),
                  "unknown") for text in texts}
    assert first == {rule.pattern for rule in make_labels.RULES} | {"unknown"}


@pytest.mark.parametrize("n_records, statement, meaning", STATEMENTS)
def test_a_statement_of_the_release_has_its_meaning(n_records, statement, meaning):
    texts = make_labels.statements([statement])
    assert {part for text in texts for part in make_labels.meanings(text)} == meaning


@pytest.mark.parametrize("statement, meaning", [
    ("Missing lead(s): V1", Meaning.POOR),
    ("Partial missing lead(s): V1", Meaning.POOR),
    ("--- Technically unsatisfactory tracing ---", Meaning.POOR),
    ("Summary: Technical error", Meaning.POOR),
    ("V1/V2 are at least one interspace too high and have been omitted from the analysis",
     Meaning.POOR),
    ("Summary: Available leads normal ECG", Meaning.NORMAL),
    ("Summary: None available", Meaning.NEUTRAL),
    ("Repeat ECG", Meaning.NEUTRAL),
    ("Early transition", Meaning.OTHER),
    ("with rapid ventricular response", Meaning.OTHER)])
def test_the_other_wordings_of_the_release_have_a_meaning(statement, meaning):
    assert make_labels.meanings(make_labels.normalise(statement)) == (meaning,)


@pytest.mark.parametrize("cells, name", [
    ("sinus rhythm. normal ecg.", NORMAL),
    ("|| sinus rhythm. normal ecg.", NORMAL),
    ("Sinus rhythm. Summary: normal ECG", NORMAL),
    ("Left bundle branch block.Low voltage", BBB),
    ("Sinus tachycardia. And LBBB", BBB),
    ("Sinus rhythm. Atrial fibrillation.", AF),
    ("Low voltage in V6. Right bundle branch block. Abnormal ECG", BBB),
    ("Prob. atrial fibrillation", None),
    ("Sinus rhythm with vent. tachycardia", None),
    ("I.V. conduction defect. LBBB", BBB)])
def test_two_statements_in_one_cell_are_read(tmp_path, cells, name):
    found, card = classes(tmp_path, [(800, *cells.split("|")), (800, "LBBB")])
    assert found == [name, BBB]
    assert card["unknown"] == {}


@pytest.mark.parametrize("cells, name", [
    ("Atrial fibrillation|with rapid ventricular response", AF),
    ("Sinus tachycardia|with LBBB", BBB),
    ("Sinus tachycardia||  |with LBBB", BBB),
    ("|Sinus tachycardia||with PVC(s)||and LBBB", BBB),
    ("Atrial fibrillation||or flutter", None),
    ("Normal ECG. Atrial fibrillation|or flutter. Low voltage", None),
    ("Sinus tachycardia with|old infarct", TACHY),
    ("Sinus tachycardia with||old infarct|LBBB", BBB),
    ("Normal ECG|Sinus rhythm", NORMAL)])
def test_one_statement_over_several_cells_is_read(tmp_path, cells, name):
    found, card = classes(tmp_path, [(800, *cells.split("|")), (800, "LBBB")])
    assert found == [name, BBB]
    assert card["unknown"] == {}


def test_a_statement_over_two_cells_leaves_the_reports_around_it_as_they_are(tmp_path):
    cut = ("Atrial fibrillation", "", "or flutter")
    rows = [("Atrial fibrillation",), cut, ("LBBB", "", "Low voltage"), cut, ("Normal ECG",)]
    found, _ = classes(tmp_path, [(800, *row) for row in rows])
    assert found == [AF, None, BBB, None, NORMAL]


def test_unknown_statements_are_counted_one_by_one_whatever_cells_they_stand_in(tmp_path):
    rows = [
        ("Sinus rhythm. Odd thing.",),
        ("Odd thing", "Atrial fibrillation", "with rapid ventricular response"),
        ("Low voltage", "ODD THING"),
        ("Strange thing. Odd thing. LBBB",),
        ("Sinus rhythm. Odd thing.",),
    ]
    _, card = classes(tmp_path, [(800, *row) for row in rows])
    assert card["unknown"] == {"odd thing": 5, "strange thing": 1}


@pytest.mark.parametrize("n", [1, 3, 25])
def test_the_number_of_report_columns_is_taken_from_the_header(tmp_path, n):
    assert classes(tmp_path, [(800, *["Low voltage"] * (n - 1), "LBBB")], columns=n)[0] == [BBB]


@pytest.mark.parametrize("option, rows, default, changed", [
    (["--rate-origin", "any"], ["Junctional bradycardia", "Wide QRS tachycardia",
     "Supraventricular tachycardia", "Ventricular tachycardia", "Ectopic atrial bradycardia"],
     [None] * 5, [BRADY, TACHY, TACHY, TACHY, BRADY]),
    (["--keep-paced"], ["LBBB|Ventricular pacing", "Normal ECG|Pacing"], [None] * 2, [BBB, None]),
    (["--keep-poor-quality"], ["LBBB|Poor data quality", "Normal ECG|Missing lead(s): V1"],
     [None, None], [BBB, NORMAL]),
    (["--include-borderline"], ["Sinus rhythm|Borderline ECG", "Possible LAE|Borderline ECG"],
     [None, None], [NORMAL, None]),
    (["--exclusive"], ["LBBB|Tachycardia", "Tachycardia with LBBB", "Normal ECG|LBBB"],
     [BBB, BBB, BBB], [None, None, BBB])])
def test_an_option_changes_the_class_of_its_records(tmp_path, option, rows, default, changed):
    rows = [(800, *row.split("|")) for row in [*rows, "Atrial fibrillation"]]
    assert classes(tmp_path, rows)[0] == [*default, AF]
    assert classes(tmp_path, rows, *option)[0] == [*changed, AF]


# --------------------------------------------------------------------------------------- the tables
def test_rates_are_checked_against_rr_and_dropped_only_when_asked(tmp_path, capsys):
    rows = [*[(rr, "Bradycardia") for rr in (1000, 990, 65535, "")],
            *[(rr, "Tachycardia") for rr in (600, 610, 620)], (400, "LBBB")]
    assert classes(tmp_path, rows)[0] == [BRADY] * 4 + [TACHY] * 3 + [BBB]
    text = capsys.readouterr().out
    assert "50.0% of bradycardia is above 60 bpm, 66.7% of tachycardia below 100 bpm" in text

    kept, card = classes(tmp_path, rows, "--check-rate")
    assert kept == [BRADY, None, BRADY, BRADY, TACHY, None, None, BBB]
    assert card["left_out"]["rate contradicts (--check-rate)"] == 3


def test_sentinels_of_the_cart_are_missing_values(tmp_path, capsys):
    sentinels = [29999, 32767, -32768, 65535, 65534, 61440]
    values = [*sentinels, "", "none", 100, 5000, 200, 3000]
    _, card = classes(tmp_path, [(rr, "LBBB") for rr in values])
    assert card["rr_interval"] == {"missing": 8, "implausible": 2}

    text = capsys.readouterr().out
    assert "rr_interval is missing in 8 records and not 200 to 3000 ms in 2;" in text


def test_records_with_another_time_in_each_table_are_counted_and_stay(tmp_path, capsys):
    write(tmp_path, [(800, "LBBB")] * 4)
    table = (tmp_path / "list.csv").read_text()
    (tmp_path / "list.csv").write_text(table.replace("08:44:00", "08:44:24", 2).replace(
        "2180-07-23 08:44:00", "", 1))
    assert make(tmp_path) == 0
    assert read_card(tmp_path)["ecg_time_differs"] == 3
    assert read_card(tmp_path)["records"] == 4
    assert "ecg_time differs between the tables in 3 records" in capsys.readouterr().out

    (tmp_path / "list.csv").write_text(table.replace("ecg_time", "seen"))
    assert make(tmp_path, "--force") == 0
    assert read_card(tmp_path)["ecg_time_differs"] is None
    assert "ecg_time is not in both tables" in capsys.readouterr().out


def test_the_size_and_sum_of_a_table_tell_whether_it_is_of_release_1_0(
        tmp_path, capsys, monkeypatch):
    write(tmp_path, [(800, "LBBB")])
    plain = ("measured.csv", "list.csv")
    packed = ("measured.csv.gz", "list.csv.gz")
    for name in plain:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))

    sums = {source: ((tmp_path / name).stat().st_size, sha256(tmp_path / name))
            for source, name in zip(("measurements", "records"), plain, strict=True)}
    size, digest = sums["records"]
    right, wrong = "this is release 1.0\n", "this is not release 1.0 (rows left out?)\n"
    for expected, says in [(sums["records"], right), ((size + 1, digest), wrong),
                           ((size, "0" * 64), wrong)]:
        monkeypatch.setattr(make_labels, "RELEASE", {**sums, "records": expected})
        for names in (plain, packed):
            assert make(tmp_path, "--force", files=names) == 0
            text = capsys.readouterr().out
            assert f"{names[0]}: {right}" in text
            assert f"{names[1]}: {says}" in text

            card = read_card(tmp_path)
            assert card["release"] == {"measurements": True, "records": says == right}
            is_release = "(MIMIC-IV-ECG 1.0)" in card["labels_origin"]
            assert is_release == (says == right)


def test_the_release_is_known_by_the_published_sizes_and_sums(tmp_path, capsys):
    assert make_labels.RELEASE == {
        "measurements": (182_674_683,
                         "56f6b1413221bce95bd6f48b28ca1acf27ae0b073d6f2c1d12f3af7500eabbb6"),
        "records": (70_403_124,
                    "b6f113023e955406e924a9ce10c1108f3bf8080e14cfe2f3ba3a2e858ebb621b")}

    assert classes(tmp_path, [(800, "LBBB")])[0] == [BBB]    # it goes on with other tables
    text = capsys.readouterr().out
    assert text.count(": this is not release 1.0 (rows left out?)\n") == 2


def test_every_record_is_labelled_or_counted_with_the_reason(tmp_path, capsys):
    write(tmp_path, ROWS)
    lines = (tmp_path / "list.csv").read_text().splitlines()
    lines[1] = lines[1].replace("10000000,", "19999999,", 1)    # another patient's
    lines[2:4] = ["10000000,49999999,x,x,files/x"]    # two measured, not listed; one the reverse
    (tmp_path / "list.csv").write_text("\n".join(lines))
    assert make(tmp_path) == 0

    left_out = read_card(tmp_path)["left_out"]
    labels = too_feature.read_labels(tmp_path / "labels.csv")
    assert len(labels) + sum(left_out.values()) == len(ROWS) + 1
    assert left_out["subject_id differs"] == left_out["not in the measurements"] == 1
    assert left_out["not in the record list"] == 2
    assert left_out["poor data quality"] == 7
    assert left_out["pacemaker"] == 4
    assert left_out["empty"] == 5    # a note is no finding

    text = capsys.readouterr().out
    for reason, n in left_out.items():
        assert re.search(rf"{re.escape(reason)} +{n}\n", text)


# ------------------------------------------------------------------------- what is said and written
def test_the_script_reads_the_file_and_the_json_tells_where_it_came_from(tmp_path, capsys):
    _, card = classes(tmp_path, ROWS, "--keep-paced")
    text = capsys.readouterr().out
    labels = too_feature.read_labels(tmp_path / "labels.csv")
    assert sorted(labels["ecg_category"].unique()) == demo.CLASSES
    assert capsys.readouterr().out == ""    # no notice

    for name, group in labels.groupby("ecg_category")["subject_id"]:
        counts = [len(group), group.nunique(), make_labels.THESIS[Meaning(name)]]
        assert list(card["classes"][name].values()) == counts
        assert re.search(" +".join([name, *map("{:,}".format, counts)]) + "\n", text)

    assert card["records"] == len(labels)
    assert card["patients"] == labels["subject_id"].nunique()
    assert card["rules_version"] == make_labels.RULES_VERSION
    assert card["several_classes"] == 4
    assert card["taken_for"] == {"pacemaker": "other finding"}
    assert card["exclusive"] is False
    assert card["sha256"] == {name: sha256(tmp_path / name)
                              for name in ("measured.csv", "list.csv", "labels.csv")}


def test_the_origin_of_the_labels_is_printed_and_kept(tmp_path, capsys, monkeypatch):
    other = "machine reads of the ECG cart (tables like those of MIMIC-IV-ECG, not release 1.0)"
    _, card = classes(tmp_path, [(800, "LBBB")])
    assert card["labels_origin"] == other
    assert origin.of_file(str(tmp_path / "labels.csv")) == other
    assert f"Origin of the labels: {other}.\n" in capsys.readouterr().out

    monkeypatch.setattr(make_labels, "is_release", lambda *_: True)
    _, card = classes(tmp_path, [(800, "LBBB")])
    assert card["labels_origin"] == "machine reads of the ECG cart (MIMIC-IV-ECG 1.0)"


def test_it_says_why_the_thesis_counts_cannot_be_reached(tmp_path, capsys):
    classes(tmp_path, [(800, "Atrial fibrillation")])
    text = " ".join(capsys.readouterr().out.split())
    assert re.search("240,717 records of atrial fibrillation, which cannot be reached: all "
                     "wordings .* stand in 81,419 statements of release 1.0", text)

    # The statements that these tests know are most of those counted, and no more than all.
    known = sum(n for n, text, _ in STATEMENTS if re.search("fibrillation|afib", text))
    assert 0.8 * make_labels.AF_STATEMENTS < known < make_labels.AF_STATEMENTS


def test_the_fifty_commonest_unknown_statements_are_listed(tmp_path, capsys):
    rows = [(800, f"Unheard-of thing {i}") for i in range(60) for _ in range(i + 1)]
    _, card = classes(tmp_path, [*rows, (800, "Unheard-of THING 59."), (800, "LBBB")])
    text = " ".join(capsys.readouterr().out.split())
    unknown = [(f"unheard-of thing {i}", i + 1 + (i == 59)) for i in range(59, 9, -1)]
    assert list(card["unknown"].items()) == unknown
    assert all(f"{name} {count}" in text for name, count in unknown)


def test_only_what_it_has_written_and_nobody_edited_is_replaced_without_force(tmp_path):
    write(tmp_path, [(800, "LBBB")])
    labels, sidecar = tmp_path / "labels.csv", tmp_path / "labels.labels.json"
    assert make(tmp_path) == 0
    assert make(tmp_path) == 0
    edited = labels.read_text() + "1,files/a,AF\n"
    for text in (demo.label_text(), edited):
        labels.write_text(text)
        assert make(tmp_path) == 2
        assert labels.read_text() == text
    assert make(tmp_path, "--force") == 0
    assert labels.read_text() not in (text, edited)

    labels.unlink()
    sidecar.write_text('{"mine": 1}')
    assert make(tmp_path) == 2
    assert sidecar.read_text() == '{"mine": 1}'
    assert not labels.exists()
    assert make(tmp_path, "--force", "--output", str(tmp_path / "measured.csv")) == 2
    assert "LBBB" in (tmp_path / "measured.csv").read_text()


@pytest.mark.parametrize("name, old, new, mention", [
    ("measured", "subject_id", "subject", "no column subject_id"),
    ("measured", "40000001", "x", "data row 2, study_id: expected a whole number, got 'x'"),
    ("measured", "40000001", "40000000", "data row 2, study_id: expected each study once"),
    ("measured", "LBBB", "LBBB,,", "first row has more"), ("list", "(?s).*", "", "No columns"),
    ("measured", "AF", "AF,,", "line 3, saw 35"), ("measured", "LBBB", '"LBBB', "EOF inside"),
    ("measured", "(?s)\n.*", "", "no record"), ("list", "files.*", "", "data row 1, path"),
    ("list", "files(?=.*01\n)", "..", "data row 2, path: expected a path .*'../p1000")])
def test_an_unusable_file_is_one_line_and_writes_nothing(tmp_path, capsys, name, old, new, mention):
    write(tmp_path, [(800, "LBBB"), (800, "AF")])
    file = tmp_path / f"{name}.csv"
    file.write_text(re.sub(old, new, file.read_text(), count=1))
    assert make(tmp_path) == 2

    text = capsys.readouterr().err.split("make_labels.py: error: ")[1]
    assert re.search(f"{name}.csv.*{mention}", text)
    assert text.strip().count("\n") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"measured.csv", "list.csv"}


def test_a_folder_as_output_is_refused_in_one_line(tmp_path, capsys):
    write(tmp_path, [(800, "LBBB")])
    assert make(tmp_path, "--output", str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"make_labels.py: error: {tmp_path}")
    assert error.count("\n") == 1


def test_a_table_that_is_missing_is_refused_in_one_line(tmp_path, capsys):
    write(tmp_path, [(800, "LBBB")])
    assert make(tmp_path, files=("nowhere.csv", "list.csv")) == 2
    error = capsys.readouterr().err
    assert "nowhere.csv: not a readable .csv or .csv.gz file" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments, code, mention", [
    ("measured.csv list.csv", 0, ""),
    ("list.csv measured.csv", 2, "list.csv: no column report_0, rr_interval .files swapped")])
def test_the_tool_runs_from_any_folder_and_its_exit_code_tells(tmp_path, arguments, code, mention):
    write(tmp_path, [(800, "LBBB")])
    result = subprocess.run([sys.executable, make_labels.__file__, *arguments.split()], timeout=100,
                            cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == code
    assert "Traceback" not in result.stderr
    assert re.search(f"error: .*{mention}" if code else mention, result.stderr)
    assert (tmp_path / "mimic_labels.csv").exists() == (code == 0)

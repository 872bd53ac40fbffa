"""What tools/make_labels.py promises: the class of every statement, and a file that can be used."""

import csv
import gzip
import json
import re
import subprocess
import sys

import pytest

import too_feature
from tools import make_demo, make_labels
from tools.make_labels import AF, BBB, BRADY, NORMAL, TACHY

# Reports as a cart writes them, statements between ';', under the class that each must get
EXPECTED = {NORMAL: """
Sinus rhythm; Normal ECG | SINUS RHYTHM;;; Summary: normal ECG | Sinus  rhythm. | Normal ECG
Sinus rhythm; normal ECG based on available leads | Sinus arrhythmia; Normal ECG
Age not entered, assumed to be 50 years old; Sinus rhythm; Normal ECG""", BRADY: """
Sinus bradycardia; Normal ECG except for rate | Bradycardia; Normal ECG | Tachycardia; Bradycardia
MARKED SINUS BRADYCARDIA; Abnormal ECG | Sinus bradycardia with 1st degree A-V block""", TACHY: """
Sinus tachycardia; Pattern that no rule knows | Extreme tachycardia | tachycardia; Normal ECG
Summary: tachycardia - otherwise normal ECG | Sinus tachycardia; Inferior infarct, old""", AF: """
Atrial fibrillation | Atrial fibrillation with rapid ventricular response | Afib; No pacemaker
atrial fibrillation, V-rate 80-99; Sinus rhythm | Atrial fibrillation with incomplete RBBB
Sinus bradycardia; Right bundle branch block; Atrial fibrillation""", BBB: """
Left bundle branch block | Right bundle-branch block | RBBB with left anterior fascicular block
LBBB | Sinus rhythm with complete RBBB | RBBB with RAD - possible left posterior fascicular block
Sinus bradycardia; Sinus tachycardia; LBBB | Sinus tachycardia with LBBB""", None: """
*** Report made without knowing patient's sex *** |  | . | ; ; | Sinus arrhythmia
Sinus rhythm; Possible right atrial abnormality;; Borderline ECG | Sinus rhythm; Borderline ECG
Sinus rhythm; Abnormal ECG | Sinus rhythm; Normal ECG except for rate | Otherwise normal ECG
Normal ECG; Pattern that no rule knows | Normal ECG; Left axis deviation | Normal ECG; No LBBB
Normal ECG; Possible atrial fibrillation | Sinus rhythm with PVC(s) | Sinus rhythm; "a", b, "c"
Borderline bradycardia | Junctional bradycardia | Ectopic atrial bradycardia | Atrial tachycardia
Supraventricular tachycardia | Ventricular tachycardia, unsustained | Wide QRS tachycardia
Junctional tachycardia | Atrial flutter | Atrial fibrillation/flutter | Atrial flutter/fibrillation
Atrial fibrillation or flutter | Ventricular fibrillation | Possible atrial fibrillation
Probable afib | Suspect afib | Consider afib | Rule out afib | May be afib | Could be afib
Afib cannot be ruled out | Afib? | No afib | Not afib | Without afib | Absence of afib
Afib no longer present | Afib has resolved | Afib with flutter | Incomplete RBBB and LAFB
Incomplete left bundle branch block | Right bundle branch block, incomplete
Conduction defect of LBBB type | Intraventricular conduction defect | IVCD, consider atypical LBBB
Atrial fibrillation; Electronic pacemaker | LBBB; Ventricular pacing | LBBB; Possible pacemaker
Pacemaker rhythm - no further analysis | Normal ECG; Wandering pacemaker | LBBB; Lead reversal
Atrial fibrillation; --- Warning: Data quality may affect interpretation ---"""}
REPORTS = [(name, *re.split("; ?", report)) for name, text in EXPECTED.items()
           for report in re.split(r" \| |\n", text[1:])]
ROWS = [(800, *report) for _, *report in REPORTS]    # rr_interval in ms, then statements


def write(folder, rows, columns=18):
    """Write both tables for `rows`, with two records a patient; return the study ids."""
    ids = [(10_000_000 + i // 2, 40_000_000 + i) for i in range(len(rows))]
    with open(folder / "measured.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["subject_id", "study_id", "cart_id", "ecg_time", *(
            f"report_{i}" for i in range(columns)), "bandwidth", "filtering", "rr_interval",
            "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis", "t_axis"])
        out.writerows([*pair, 6848296, "2180-07-23 08:44:00", *report, *[""] * (
            columns - len(report)), "0.005-150 Hz", "60 Hz notch Baseline filter", rr, 40, 128, 170,
            258, 518, 81, 77, 79] for pair, (rr, *report) in zip(ids, rows, strict=True))
    (folder / "list.csv").write_text("subject_id,study_id,file_name,ecg_time,path\n" + "".join(
        f"{subject},{study},{study},2180-07-23 08:44:00,files/p1000/p{subject}/s{study}/{study}\n"
        for subject, study in ids))
    return [study for _, study in ids]


def make(folder, *options, files=("measured.csv", "list.csv")):
    """Run the tool in this process; return its exit code."""
    return make_labels.main([*(str(folder / file) for file in files), "--output",
                             str(folder / "labels.csv"), *options])


def classes(folder, rows, *options, **more):
    """Return the class of each of `rows`, or None, and what the .json says."""
    studies = write(folder, rows, **more)
    assert make(folder, "--force", *options) == 0
    lines = [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()]
    found = {int(path.split("/")[-1]): name for _, path, name in lines}
    return [found.get(study) for study in studies], json.loads(
        (folder / "labels.labels.json").read_text())


def test_every_report_gets_its_class_from_plain_and_gzip_files(tmp_path):
    found, _ = classes(tmp_path, ROWS)
    assert [(name, *report) for name, (_, *report) in zip(found, REPORTS, strict=True)] == REPORTS
    for name in ("measured.csv", "list.csv"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    expected = (tmp_path / "labels.csv").read_bytes()
    assert make(tmp_path, "--force", files=("measured.csv.gz", "list.csv.gz")) == 0
    assert (tmp_path / "labels.csv").read_bytes() == expected


def test_every_rule_is_the_first_to_match_some_statement_of_these_tests():
    texts = {make_labels.normalise(text) for _, *report in REPORTS for text in report} - {""}
    first = {next((rule.pattern for rule in make_labels.RULES if re.fullmatch(rule.pattern, text)),
                  "unknown") for text in texts}
    assert first == {rule.pattern for rule in make_labels.RULES} | {"unknown"}


@pytest.mark.parametrize("n", [1, 3, 25])
def test_the_number_of_report_columns_is_taken_from_the_header(tmp_path, n):
    assert classes(tmp_path, [(800, *["Low voltage"] * (n - 1), "LBBB")], columns=n)[0] == [BBB]


@pytest.mark.parametrize("option, rows, default, changed", [
    (["--rate-origin", "any"], ["Junctional bradycardia", "Wide QRS tachycardia",
     "Supraventricular tachycardia", "Ventricular tachycardia", "Ectopic atrial bradycardia"],
     [None] * 5, [BRADY, TACHY, TACHY, TACHY, BRADY]),
    (["--keep-paced"], ["LBBB|Ventricular pacing", "Normal ECG|Pacing"], [None] * 2, [BBB, None]),
    (["--keep-poor-quality"], ["LBBB|Poor data quality", "Normal ECG|Poor data quality"],
     [None, None], [BBB, NORMAL]),
    (["--include-borderline"], ["Sinus rhythm|Borderline ECG", "Possible LAE|Borderline ECG"],
     [None, None], [NORMAL, None]),
    (["--exclusive"], ["LBBB|Tachycardia", "Tachycardia with LBBB", "Normal ECG|LBBB"],
     [BBB, BBB, BBB], [None, None, BBB])])
def test_an_option_changes_the_class_of_its_records(tmp_path, option, rows, default, changed):
    rows = [(800, *row.split("|")) for row in [*rows, "Atrial fibrillation"]]
    assert classes(tmp_path, rows)[0] == [*default, AF]
    assert classes(tmp_path, rows, *option)[0] == [*changed, AF]


def test_rates_are_checked_against_rr_and_dropped_only_when_asked(tmp_path, capsys):
    rows = [*[(rr, "Bradycardia") for rr in (1000, 990, 65535, "")],
            *[(rr, "Tachycardia") for rr in (600, 610, 620)], (400, "LBBB")]
    assert classes(tmp_path, rows)[0] == [BRADY] * 4 + [TACHY] * 3 + [BBB]
    text = capsys.readouterr().out
    assert "50.0% of bradycardia is above 60 bpm, 66.7% of tachycardia below 100 bpm" in text
    kept, card = classes(tmp_path, rows, "--check-rate")
    assert kept == [BRADY, None, BRADY, BRADY, TACHY, None, None, BBB]
    assert card["left_out"]["rate contradicts (--check-rate)"] == 3


def test_every_record_is_labelled_or_counted_with_the_reason(tmp_path, capsys):
    write(tmp_path, ROWS)
    lines = (tmp_path / "list.csv").read_text().splitlines()
    lines[1] = lines[1].replace("10000000,", "19999999,", 1)    # another patient's
    lines[2:4] = ["10000000,49999999,x,x,files/x"]    # two measured, not listed; one the reverse
    (tmp_path / "list.csv").write_text("\n".join(lines))
    assert make(tmp_path) == 0
    left_out = json.loads((tmp_path / "labels.labels.json").read_text())["left_out"]
    labels = too_feature.read_labels(tmp_path / "labels.csv")
    assert len(labels) + sum(left_out.values()) == len(ROWS) + 1
    assert left_out["subject_id differs"] == left_out["not in the measurements"] == 1
    assert left_out["not in the record list"] == left_out["poor data quality"] == 2
    assert left_out["pacemaker"] == 4 and left_out["empty"] == 5    # a note is no finding
    text = capsys.readouterr().out
    assert all(re.search(rf"{re.escape(why)} +{n}\n", text) for why, n in left_out.items())


def test_the_script_reads_the_file_and_the_json_tells_where_it_came_from(tmp_path, capsys):
    _, card = classes(tmp_path, ROWS, "--keep-paced")
    text = capsys.readouterr().out
    labels = too_feature.read_labels(tmp_path / "labels.csv")
    assert sorted(labels["ecg_category"].unique()) == make_demo.CLASSES
    assert capsys.readouterr().out == ""    # no notice
    for name, group in labels.groupby("ecg_category")["subject_id"]:
        counts = [len(group), group.nunique(), make_labels.THESIS[name]]
        assert list(card["classes"][name].values()) == counts
        assert re.search(" +".join([name, *map("{:,}".format, counts)]) + "\n", text)
    assert card["rules_version"] == make_labels.RULES_VERSION and card["several_classes"] == 4
    assert card["taken_for"] == {"pacemaker": "other finding"} and card["exclusive"] is False
    assert card["sha256"] == {name: too_feature.sha256(tmp_path / name)
                              for name in ("measured.csv", "list.csv", "labels.csv")}


def test_report_says_what_the_labels_are_and_what_cannot_be_reproduced(tmp_path, capsys):
    rows = [(800, f"Unheard-of thing {i}") for i in range(60) for _ in range(i + 1)]
    _, card = classes(tmp_path, [*rows, (800, "Unheard-of THING 59."), (800, "LBBB")])
    text = " ".join(capsys.readouterr().out.split())
    assert re.search("240,717 .* cannot be reproduced .* 79,908 of 787,000 .* machine reads", text)
    unknown = [(f"unheard-of thing {i}", i + 1 + (i == 59)) for i in range(59, 9, -1)]
    assert list(card["unknown"].items()) == unknown
    assert all(f"{name} {count}" in text for name, count in unknown)


def test_only_the_demos_label_file_is_overwritten_without_force(tmp_path):
    write(tmp_path, [(800, "LBBB")])
    labels, demo, mine = tmp_path / "labels.csv", make_demo.label_text(), "1,files/a,AF\n"
    for text, options, code in [(mine, (), 2), (demo, (), 0), (demo + mine, (), 2),
                                (mine, ("--force",), 0)]:
        labels.write_text(text)
        assert make(tmp_path, *options) == code
        assert (labels.read_text() == text) == (code == 2)
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
    assert re.search(f"{name}.csv.*{mention}", text) and text.strip().count("\n") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"measured.csv", "list.csv"}


@pytest.mark.parametrize("arguments, code, mention", [
    ("measured.csv list.csv", 0, ""), ("--help", 0, ""), ("list.csv", 2, "records"),
    ("list.csv measured.csv", 2, "list.csv: no column report_0, rr_interval .files swapped"),
    ("nowhere.csv list.csv", 2, "nowhere.csv")])
def test_the_tool_runs_from_any_folder_and_its_exit_code_tells(tmp_path, arguments, code, mention):
    write(tmp_path, [(800, "LBBB")])
    result = subprocess.run([sys.executable, make_labels.__file__, *arguments.split()], timeout=100,
                            cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == code and "Traceback" not in result.stderr
    assert re.search(f"error: .*{mention}" if code else mention, result.stderr)
    assert (tmp_path / "ecg_5_class_data.csv").exists() == arguments.startswith("measured")

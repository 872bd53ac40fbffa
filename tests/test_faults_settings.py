"""Flags of wrong values: one line with what is expected, exit code 2, before any work."""

import dataclasses
import importlib
import os
import subprocess
import sys

import pytest

import too_feature
from tools import check_labels, make_demo

FIELDS = [field for field in dataclasses.fields(too_feature.Settings) if field.type in (int, float)]
FLAGS = {"--" + field.name.replace("_", "-"): field for field in FIELDS}
TOOLS = ["classify", "figures", "make_labels", "fetch_records", "export_onnx", "check_labels",
         "make_demo", "model_card"]
ROWS = "".join(f"{i},r{i},{make_demo.CLASSES[i % 5]}\n" for i in range(100))


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """A function: the one line with which the script refuses flags, before it reads anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(too_feature, "read_labels", lambda *_: pytest.fail("labels were read"))
    monkeypatch.setattr(too_feature, "load_tensorflow", lambda: pytest.fail("TensorFlow"))

    def run(*flags):
        try:
            code = too_feature.main(list(flags))
        except SystemExit as stop:    # argparse's
            code = stop.code
        out, err = capsys.readouterr()
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert len(err) < 300
        return err

    return run


@pytest.mark.parametrize("value", ["", " ", "many", "nan", "inf", "1e400", "0x10", "1.5.2", "1,5",
                                   "٣x", "9" * 5000, "-" * 50, "-9999999999999", "1e99", "True"])
@pytest.mark.parametrize("flag", FLAGS)
def test_what_is_no_number_in_range_is_refused_with_the_range(flag, value, refused):
    low, high = FLAGS[flag].metadata["limits"]
    kind = "whole number" if FLAGS[flag].type is int else "number"
    assert f"{flag} " in (line := refused(f"{flag}={value}"))
    assert line.endswith(f": expected a {kind} from {low} to {high}\n")


@pytest.mark.parametrize("flag", [flag for flag, field in FLAGS.items() if field.type is int])
def test_a_fraction_is_no_whole_number(flag, refused):
    low, high = FLAGS[flag].metadata["limits"]
    for value in (f"{low + 1}.5", f"{low + 1}.0", "1e1"):
        assert refused(f"{flag}={value}").endswith(f"a whole number from {low} to {high}\n")


@pytest.mark.parametrize("flag", FLAGS)
def test_zero_is_taken_where_the_range_holds_it_and_refused_where_not(flag, refused):
    low, high = FLAGS[flag].metadata["limits"]
    if low > 0:
        assert f"from {low} to {high}" in refused(flag, "0")
    else:
        assert getattr(too_feature.parse_settings([flag, "0"]), FLAGS[flag].name) == 0


def test_numbers_from_the_command_line_are_of_the_type_that_is_declared():
    arguments = [f"{flag}={field.metadata['limits'][1]}" for flag, field in FLAGS.items()]
    settings = too_feature.parse_settings(arguments)
    for field in FIELDS:
        assert type(getattr(settings, field.name)) is field.type


@pytest.mark.parametrize("flag", ["--data-dir", "--cache-dir", "--test-data-dir"])
def test_a_file_in_place_of_a_folder_is_refused(flag, refused, tmp_path):
    (tmp_path / "file").touch()
    line = refused(flag, "file", *(["--test-labels", "x.csv"] if "test" in flag else []))
    assert "file: expected a folder" in line


@pytest.mark.parametrize("output", ["", "m.h5", "m", "m.keras.zip", ".keras", "no/m.keras",
                                    "folder.keras", "m.keras/x", ".", "...keras",
                                    "m" * 250 + ".keras", "心" * 80 + ".keras"])
def test_an_output_that_cannot_be_written_is_refused(output, refused, tmp_path):
    (tmp_path / "folder.keras").mkdir()
    assert "expected a .keras file in a writable folder" in refused("--output", output)


@pytest.mark.parametrize("flags", [
    ["--jit=yes"], ["--cache=x"], ["--no-epochs"], ["--epochs"], ["--epochs", "3", "4"], ["-x"],
    ["--epochs", "--seed"], ["--labels"], ["x" * 100], ["--test-data-dir", "x"],
    ["--recipe", "x" * 5000], ["--schedule", ""], ["--keep", "LAST"], ["--model", "lstm\n"]])
def test_flags_that_make_no_sense_are_refused(flags, refused):
    refused(*flags)


@pytest.mark.parametrize("labels", ["", ".", "none.csv", "no/none.csv", "http://127.0.0.1:9/x.csv"])
def test_a_missing_label_file_is_refused_before_tensorflow_is_imported(labels, tmp_path, capsys,
                                                                       monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(too_feature, "load_tensorflow", lambda: pytest.fail("TensorFlow"))
    (tmp_path / "good.csv").write_text(ROWS)
    for flags in (["--labels", labels], ["--labels", "good.csv", "--test-labels", labels or "x"]):
        assert too_feature.main(flags) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(os.listdir()) == ["good.csv"]


# ---------------------------------------------------------------------------------------- tools
@pytest.mark.parametrize("name", TOOLS)
def test_each_tool_explains_itself_and_refuses_wrong_flags_in_one_line(name, tmp_path, monkeypatch,
                                                                       capsys):
    monkeypatch.chdir(tmp_path)
    tool = importlib.import_module(f"tools.{name}")
    with pytest.raises(SystemExit) as stop:
        tool.main(["--help"])
    assert stop.value.code == 0
    assert "--help" in capsys.readouterr().out
    own = {"classify": [["x", "--jobs", "many"], ["x", "--jobs", "-1"], ["x", "--json", "--csv"]],
           "figures": [["x", "--only", "y"], ["x", "y"], ["x"]],
           "make_labels": [["x", "y", "--rate-origin", "z"], ["x"], [".", "."], ["x", "y", "z"]],
           "fetch_records": [["--spares", "many"], ["--spares", "nan"], ["--connections", "99"],
                             ["--seed", "-1"], ["--labels", "none.csv"]],
           "export_onnx": [["x.keras", "--output", "x.h5"], ["x", "y"]],
           "check_labels": [["--top", "many"], ["--top", "-1"], ["--csv", "no/x.csv"],
                            ["--csv", "."], ["--epochs", "0"], ["--labels", "none.csv"]],
           "model_card": [["x", "y"], ["x"], ["."]],
           "make_demo": [["--data-dir"], ["--labels", "no/x.csv"], ["--labels", "."]]}[name]
    for arguments in [["--wrong"], ["--wrong=1", "x"], *own]:
        try:
            code = tool.main(arguments)
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert (code, out, err.count("\n")) == (2, "", 1), (arguments, err)
        assert ": error: " in err
    assert os.listdir() == []


def test_tools_started_as_programs_give_the_same_exit_code(tmp_path):
    for name in ("make_demo", "figures"):    # the others are started so by tests of their own
        result = subprocess.run([sys.executable, too_feature.TOOLS / f"{name}.py", "--wrong"],
                                capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1


def test_a_list_of_suspects_that_cannot_be_written_is_refused_before_the_trainings(
        tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(too_feature, "read_labels", lambda *_: pytest.fail("labels were read"))
    old = tmp_path / "old.csv"
    old.write_text("kept")
    for name in (tmp_path, tmp_path / "no" / "x.csv"):
        assert check_labels.main(["--csv", str(name)]) == 2
        assert "--csv" in capsys.readouterr().err
    assert check_labels.main(["--csv", str(old), "--epochs", "0"]) == 2
    assert old.read_text() == "kept"

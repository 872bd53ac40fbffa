"""Flags of the tools: each explains itself, and what makes no sense is one line of error."""

import importlib
import os
import subprocess
import sys

import pytest

from tests.support.runs import ROOT, one_line
from tools import check_labels

WRONG = {
    "classify": [["x", "--jobs", "many"], ["x", "--json", "--csv"]],
    "figures": [["x", "--only", "y"], ["x"]],
    "make_labels": [["x", "y", "--rate-origin", "z"], ["x"], [".", "."]],
    "fetch_records": [["--spares", "many"], ["--connections", "99"], ["--seed", "-1"]],
    "export_onnx": [["x.keras", "--output", "x.h5"], ["x", "y"]],
    "check_labels": [["--top", "many"], ["--csv", "no/x.csv"], ["--labels", "none.csv"]],
    "choose_records": [["m.keras"], ["m.keras", ".", "--number", "0"], ["m.keras", "none"]],
    "make_demo": [["--data-dir"], ["--labels", "."]]}


@pytest.mark.parametrize("name", WRONG)
def test_each_tool_explains_itself_and_refuses_wrong_flags_in_one_line(
        name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tool = importlib.import_module(f"tools.{name}")
    with pytest.raises(SystemExit) as stop:
        tool.main(["--help"])
    assert stop.value.code == 0
    assert "--help" in capsys.readouterr().out
    for arguments in [["--wrong"], *WRONG[name]]:
        try:
            code = tool.main(arguments)
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), arguments
        assert ": error: " in one_line(err)
    assert os.listdir() == []


def test_every_program_of_the_folder_is_tried():
    names = {path.stem for path in (ROOT / "tools").glob("*.py")} - {"__init__"}
    assert names == set(WRONG)


def test_a_tool_started_as_a_program_gives_the_same_exit_code(tmp_path):
    result = subprocess.run([sys.executable, ROOT / "tools/make_demo.py", "--wrong"],
                            capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert result.returncode == 2
    assert "unrecognized arguments: --wrong" in one_line(result.stderr)


def test_a_list_of_suspects_that_cannot_be_written_is_refused_before_labels_are_read(
        tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("too_feature.read_labels", lambda *_: pytest.fail("labels were read"))
    for name in (tmp_path, tmp_path / "no" / "x.csv"):
        assert check_labels.main(["--csv", str(name)]) == 2
        assert str(name) in capsys.readouterr().err

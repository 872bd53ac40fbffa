"""Flags of the tools: each explains itself, and what makes no sense is one line of error."""

import importlib
import os
import subprocess
import sys

import pytest

from tests.support.runs import ROOT

WRONG = {
    "classify": [["x", "--jobs", "many"], ["x", "--jobs", "-1"], ["x", "--json", "--csv"],
                 ["x", "--embeddings", "x.csv"], ["x", "--embeddings", "x.npz", "--windows"]],
    "figures": [["x", "--only", "y"], ["x", "y"], ["x"]],
    "make_labels": [["x", "y", "--rate-origin", "z"], ["x"], [".", "."], ["x", "y", "z"]],
    "fetch_records": [["--spares", "many"], ["--spares", "nan"], ["--connections", "99"],
                      ["--seed", "-1"], ["--labels", "none.csv"]],
    "export_onnx": [["x.keras", "--output", "x.h5"], ["x", "y"]],
    "check_labels": [["--top", "many"], ["--top", "-1"], ["--csv", "no/x.csv"], ["--csv", "."],
                     ["--epochs", "0"], ["--labels", "none.csv"]],
    "choose_records": [["m.keras"], ["m.keras", ".", "--number", "0"], ["m.keras", "none"],
                       ["m.keras", "@none.txt"], ["m.keras", ".", "--output", "."]],
    "make_demo": [["--data-dir"], ["--labels", "no/x.csv"], ["--labels", "."]]}


@pytest.mark.parametrize("name", WRONG)
def test_each_tool_explains_itself_and_refuses_wrong_flags_in_one_line(
        name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tool = importlib.import_module(f"tools.{name}")
    with pytest.raises(SystemExit) as stop:
        tool.main(["--help"])
    assert stop.value.code == 0
    assert "--help" in capsys.readouterr().out
    for arguments in [["--wrong"], ["--wrong=1", "x"], *WRONG[name]]:
        try:
            code = tool.main(arguments)
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert (code, out, err.count("\n")) == (2, "", 1), (arguments, err)
        assert ": error: " in err
    assert os.listdir() == []


def test_every_program_of_the_folder_is_tried():
    names = {path.stem for path in (ROOT / "tools").glob("*.py")} - {"__init__"}
    assert names == set(WRONG)


@pytest.mark.parametrize("name", ["make_demo", "figures"])    # others are started in other files
def test_a_tool_started_as_a_program_gives_the_same_exit_code(name, tmp_path):
    result = subprocess.run([sys.executable, ROOT / "tools" / f"{name}.py", "--wrong"],
                            capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1

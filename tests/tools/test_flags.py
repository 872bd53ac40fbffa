"""Flags of the tools: each explains itself, and what makes no sense is one line of error."""

import importlib
import os

import pytest

from tests.support.runs import ROOT, one_line

WRONG = {
    "classify": [["x", "--jobs", "2"], ["x", "--json", "--csv"]],
    "compare": [["x"], ["x", "y"]],
    "figures": [["x", "--only", "y"], ["x"]],
    "make_labels": [["x", "y", "--rate-origin", "z"], ["x"], [".", "."]],
    "fetch_records": [["--seed", "-1"], ["--url"], ["--labels", "none.csv"]],
    "export_onnx": [["no.keras"], ["x", "y"]],
    "check_labels": [["--seed", "many"], ["--csv", "no/x.csv"], ["--labels", "none.csv"]],
    "choose_records": [["m.keras"], ["m.keras", ".", "--number", "0"], ["m.keras", "none"]],
    "make_demo": [["--data-dir"], ["--labels", "x"]]}


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

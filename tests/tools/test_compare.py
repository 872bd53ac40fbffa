"""compare.py: paired differences of two runs on the same test patients."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from tools import compare

CLASSES = ["AF", "Normal"]


def write_run(folder, wrong, n=80, first=0):
    """Write what is read of a results folder: `wrong` records of n are classified wrongly."""
    folder.mkdir()
    targets = np.arange(n) % 2
    called = np.where(np.arange(n) < wrong, 1 - targets, targets)
    p = np.where(called == 1, 0.9, 0.1) + np.linspace(0, 0.01, n)
    pd.DataFrame({
        "subject_id": np.arange(n) // 2, "record": [f"r{first + i}" for i in range(n)],
        "true": np.array(CLASSES)[targets], "predicted": np.array(CLASSES)[called],
        "p AF": 1 - p, "p Normal": p}).sample(frac=1, random_state=wrong).to_csv(
            folder / "predictions.csv", index=False)
    (folder / "run.json").write_text(json.dumps({"classes": CLASSES}))
    return folder


def test_differences_are_paired_by_record_whatever_the_order(tmp_path, capsys):
    a, b = write_run(tmp_path / "a", 24), write_run(tmp_path / "b", 16)
    assert compare.main([str(a), str(b)]) == 0
    printed = capsys.readouterr().out
    assert "80 test records of 40 patients, the same in both" in printed
    low, high = map(float, re.search(
        r"^accuracy +0\.700 +0\.800 +\+0\.100 +(\S+) to (\S+)$", printed, re.MULTILINE).groups())
    assert 0 < low < 0.1 < high    # 8 records differ; unpaired, the interval would hold 0
    assert re.search(r"^AUROC Normal +0\.\d+ +0\.\d+ +\+0\.\d+ ", printed, re.MULTILINE)


@pytest.mark.parametrize("other", [{"first": 1}, {"n": 78}])
def test_other_test_records_are_refused_in_one_line(other, tmp_path, capsys):
    a, b = write_run(tmp_path / "a", 10), write_run(tmp_path / "b", 10, **other)
    assert compare.main([str(a), str(b)]) == 2
    error, = capsys.readouterr().err.splitlines()
    assert re.search(r"were not tested on the same records: (2|160) records", error)

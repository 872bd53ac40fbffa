"""Every program starts, or says in one line what is missing."""

import subprocess
import sys

import pytest

from tests.support.runs import ROOT, one_line

PROGRAMS = ["too_feature.py", *sorted(f"tools/{path.name}" for path in (ROOT / "tools").glob("*.py")
                                      if path.name != "__init__.py")]


def answer(*command):
    """Return the finished process of this Python with arguments, in the project's folder."""
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_packages_one_line_says_which_and_how_to_get_them(program):
    result = answer("-S", program, "--help")    # -S: without site-packages
    assert result.returncode == 2
    line = one_line(result.stderr)
    assert "numpy" in line and "wfdb" in line and "pip install -r requirements.txt" in line


def test_the_script_answers_before_large_packages_load():
    result = answer("-X", "importtime", "too_feature.py", "--help")
    assert result.returncode == 0, result.stderr
    assert "--labels" in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "ecg.settings" in imported
    assert not imported & {"numpy", "pandas", "scipy", "sklearn", "wfdb", "matplotlib", "keras"}

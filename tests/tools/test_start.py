"""Every program starts, or says in one line what is missing."""

import re
import shutil
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


def test_the_inline_metadata_of_the_script_asks_for_what_requirements_txt_does():
    script = (ROOT / "too_feature.py").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    metadata = script.split("# ///")[1]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    asked = {line.replace('"', "'") for line in lines if line and not line.startswith("#")}
    assert set(re.findall(r'"([^"]+==[^"]+)"', metadata)) == asked
    python, = re.findall(r'requires-python = "(.+)"', metadata)
    assert re.search(r'requires-python = "(.+)"', project)[1] == python


@pytest.mark.slow
@pytest.mark.parametrize("command", [
    ["too_feature.py"], ["--with-requirements", "requirements.txt", "tools/classify.py"]])
def test_uv_runs_the_programs_without_an_environment(command):
    uv = shutil.which("uv", path=f"{sys.prefix}/bin")
    words = ["run", "--python", sys.executable, *command, "--help"]
    result = subprocess.run([uv, *words], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert "--traceback" in result.stdout or "--model" in result.stdout

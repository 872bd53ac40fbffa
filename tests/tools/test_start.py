"""Every program starts, or says in one line what is missing, and ends quietly unread."""

import builtins
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import too_feature as script
from ecg import interrupt
from ecg.errors import UserError, exit_code

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ["too_feature.py", *sorted(f"tools/{path.name}" for path in (ROOT / "tools").glob("*.py")
                                      if path.name != "__init__.py")]


def answer(*command, **options):
    """Return the finished process of this Python with arguments, in the project's folder."""
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True,
                          timeout=300, **options)


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_packages_one_line_says_which_and_how_to_get_them(program):
    found = answer("-S", program, "--help")    # -S: without site-packages
    assert found.returncode == 2
    line, = found.stderr.splitlines()
    assert "numpy" in line
    assert "wfdb" in line
    assert "pip install -r requirements.txt" in line


def test_the_script_answers_before_large_packages_load_even_without_docstrings():
    found = answer("-OO", "-X", "importtime", "too_feature.py", "--help")
    assert found.returncode == 0, found.stderr
    assert "--labels" in found.stdout
    imported = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "ecg.settings" in imported
    assert not imported & {"numpy", "pandas", "scipy", "sklearn", "wfdb", "matplotlib", "keras"}


def test_a_wrong_mplbackend_gets_the_blame_and_not_what_imports_matplotlib():
    found = answer("too_feature.py", "--help", env={**os.environ, "MPLBACKEND": "nonsense"})
    assert found.returncode == 2
    line, = found.stderr.splitlines()
    assert line.startswith("error: MPLBACKEND='nonsense'")
    assert "Unset" in line


def test_without_docstrings_tensorflow_is_not_to_blame(monkeypatch):
    monkeypatch.setattr(script.sys, "flags", SimpleNamespace(optimize=2))    # as under -OO
    with pytest.raises(UserError, match=r"^python -OO: .*leave it out"):
        script.load_tensorflow.__wrapped__()


def test_an_editors_stdout_needs_to_write_and_flush_only(monkeypatch):
    written = []
    stdout = SimpleNamespace(write=written.append, flush=lambda: None)
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setenv("PYTHONWARNINGS", "")
    interrupt.prepare_for_a_sudden_end()
    assert exit_code("program.py", print, "a line") == 0
    assert "".join(written) == "a line\n"


def test_a_program_whose_reader_has_gone_ends_quietly():
    program = ("import sys; from ecg.errors import exit_code, user_errors\n"
               "def run():\n"
               "    with user_errors('stopped', OSError):\n"
               "        for i in range(200_000): print('a line', i)\n"
               "sys.exit(exit_code('program.py', run))")
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "a line 0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(300) == 141
    process.stderr.close()


def test_in_a_notebook_an_interrupt_is_left_to_the_kernel(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(builtins, "__IPYTHON__", True, raising=False)
    try:
        interrupt.watch("too_feature.py")
        assert signal.getsignal(signal.SIGINT) is before
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

"""How a program ends, with one line that says why; text of strangers that acts on nothing."""

import io
import os
import subprocess
import sys

import pytest

from ecg.errors import Terminated, UserError, exit_code, markdown, printable
from tests.support.runs import ROOT, one_line


@pytest.mark.parametrize(("error", "code", "line"), [
    (UserError("x.csv: line 2:\n no class"), 2, "p.py: error: x.csv: line 2: no class"),
    (OSError(28, "No space left on device"), 2,
     "p.py: error: stopped: [Errno 28] No space left on device"),
    (ImportError("no h5py"), 2, "p.py: error: stopped: no h5py"),
    (KeyboardInterrupt(), 130, "p.py: error: interrupted"),
    (Terminated("go on with: x"), 143, "p.py: error: go on with: x")])
def test_what_a_user_can_fix_is_one_line_and_an_exit_code(error, code, line, capsys):
    def fail():
        raise error

    assert exit_code("p.py", fail) == code
    assert one_line(capsys.readouterr().err) == line
    assert exit_code("p.py", fail, traceback=True) == code
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_a_traceback_and_success_the_code_of_the_function():
    with pytest.raises(ZeroDivisionError):
        exit_code("p.py", lambda: 1 / 0)
    assert exit_code("p.py", lambda number: number, 1) == 1
    assert exit_code("p.py", lambda: None) == 0


def test_where_nobody_reads_what_is_printed_a_program_ends_without_a_word(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from ecg.errors import exit_code; sys.exit(exit_code('p', print, 'text'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=writing,
                          stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "? ?"), ("utf-8", "心 ?")])
def test_what_a_terminal_cannot_show_is_replaced(encoding, shown, monkeypatch):
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding))
    assert exit_code("p.py", print, "心 \udcff") == 0
    assert stream.getvalue().decode(encoding).strip() == shown


# -------------------------------------------------------------------------------- text from files
EVIL = "\x1b[2J\x1b]0;title\x07\u202egnp\n<img src=x onerror=alert(1)>"


def test_nothing_that_acts_on_a_terminal_is_shown_and_nothing_without_end():
    assert printable(EVIL) == "?[2J?]0;title??gnp?<img src=x onerror=alert(1)>"
    assert printable("心 \udcff.hea") == "心 ?.hea"
    assert printable("x" * 10**6, 10) == "xxxxxxx..."
    error = str(UserError(f"{EVIL}{'x' * 10**6}"))
    assert error.isprintable()
    assert len(error) == 2000


@pytest.mark.parametrize("text", ["<script>", "[a](javascript:b)", "a|b", "`a`", "*a*", "&lt;"])
def test_nothing_acts_in_markdown_or_html(text):
    escaped = markdown(text)
    assert escaped.replace("\\", "") == text
    for letter in set(text) & set("<>[]|`*&"):
        assert escaped.count(f"\\{letter}") == text.count(letter)

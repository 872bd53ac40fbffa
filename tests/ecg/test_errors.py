"""One line of error for what a user can fix, and text of strangers that acts on nothing."""

import io
import signal
import subprocess
import sys

import pytest

from ecg.errors import UserError, exit_code, markdown, printable, user_errors
from tests.support.runs import ROOT

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


def raising(error):
    """Raise an error, as a program's function would."""
    raise error


@pytest.mark.parametrize(("error", "code", "words"), [
    (UserError("x.csv: expected\nlabels"), 2, "x.csv: expected labels"),
    (OSError(28, "No space left on device"), 2, "stopped: [Errno 28] No space left on device"),
    (KeyboardInterrupt(), 130, "interrupted")])
def test_what_a_user_can_fix_is_one_line_and_an_exit_code(error, code, words, capsys):
    assert exit_code("program", raising, error) == code
    assert capsys.readouterr().err == f"program: error: {words}\n"
    assert exit_code("program", raising, error, traceback=True) == code
    assert "in raising" in capsys.readouterr().err


def test_a_bug_ends_in_a_traceback():
    with pytest.raises(ZeroDivisionError), user_errors("what"):
        exit_code("program", raising, ZeroDivisionError())


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "? ?"), ("utf-8", "心 ?")])
def test_what_a_terminal_cannot_show_is_replaced(encoding, shown, monkeypatch):
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding))
    assert exit_code("program", print, "心 \udcff") == 0
    assert stream.getvalue().decode(encoding).strip() == shown


def test_a_program_whose_reader_has_gone_ends_quietly():
    program = ("import sys; from ecg.errors import exit_code\n"
               "def run():\n"
               "    for i in range(200_000): print('a line', i)\n"
               "sys.exit(exit_code('program.py', run))")
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == "a line 0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(300) == 128 + signal.SIGPIPE

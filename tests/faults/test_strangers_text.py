"""What files of strangers say is shown without acting on a terminal, in Markdown or in HTML."""

import io
import json
import os
import sys

import numpy as np
import pytest

import too_feature as script
from ecg.errors import RecordError, UserError, exit_code, markdown, printable
from tests.support import models
from tools import export_onnx

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


def test_an_exported_models_own_words_do_not_reach_the_terminal(tmp_path, monkeypatch, capsys):
    path = models.save("lstm", tmp_path / "m.keras")
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**card, "version": EVIL}))
    monkeypatch.setattr(export_onnx, "packages", lambda: None)
    assert export_onnx.main([str(path)]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error and "\u202e" not in error
    assert error.count("\n") == 1


# ---------------------------------------------------------------------------------------- records
def test_a_path_that_looks_like_a_url_is_read_neither_there_nor_here(tmp_path, monkeypatch):
    """Though there is a record in a folder of that name; wfdb would open the network."""
    monkeypatch.chdir(tmp_path)
    os.makedirs("s3:/bucket")
    lines = "".join(f"r.dat 212 1000/mV 12 0 0 0 0 {lead}\n" for lead in script.LEADS)
    (tmp_path / "s3:/bucket/r.hea").write_text(f"r 12 100 1000\n{lines}")
    (tmp_path / "s3:/bucket/r.dat").write_bytes(np.ones(18_000, np.uint8).tobytes())
    monkeypatch.setattr("wfdb.rdrecord", lambda *_, **__: pytest.fail("wfdb has opened it"))
    with pytest.raises(RecordError, match="looks like a URL"):
        script.read_record("s3://bucket/r")


# ----------------------------------------------------------------------------------------- output
@pytest.fixture
def printing(monkeypatch):
    """Return a function that prints a text as a program; it returns exit code and output."""
    def run(text, stream, encoding="ascii"):
        run.stdout = io.TextIOWrapper(stream, encoding)    # closed, if nobody held it
        monkeypatch.setattr(sys, "stdout", run.stdout)
        code = exit_code("program", print, text)
        monkeypatch.undo()
        return code
    return run


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_what_a_terminal_cannot_show_is_replaced(encoding, printing):
    stream = io.BytesIO()
    assert printing("心 \udcff", stream, encoding) == 0
    assert stream.getvalue().decode(encoding).strip() in ("? ?", "心 ?")


def test_no_room_for_what_is_printed_is_one_line_and_exit_code_2(printing, capsys):
    full = open("/dev/full", "wb")    # noqa: SIM115  closed by the stream that writes to it
    assert printing("x" * 10, full) == 2
    error = capsys.readouterr().err
    assert "program: error: stopped: [Errno 28] No space left on device" in error
    assert error.count("\n") == 1


def test_a_working_folder_that_is_gone_is_said_to_be(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert exit_code("program", print, "x") == 2
    assert "the working folder is gone" in capsys.readouterr().err

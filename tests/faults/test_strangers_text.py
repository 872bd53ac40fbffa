"""What files of strangers say is shown without acting on a terminal, in Markdown or in HTML."""

import dataclasses
import io
import json
import os
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from ecg.errors import RecordError, UserError, exit_code, markdown, printable
from ecg.output import figures, model_card, page, read, style
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


# --------------------------------------------------------------------------------- results folder
@pytest.fixture
def folder(tmp_path):
    """A results folder as small as can be."""
    classes = ["A", "B"]
    run = {"classes": classes, "features": [["rate", "bpm", [60, 100]]], "synthetic": False,
           "leads": ["I"], "temperature": [1], "records": 2, "patients": 2, "labels_sha256": "0",
           "settings": {}, "recipe": dataclasses.asdict(script.Recipe()),
           "sampling_rate_hz": 50, "versions": {}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    pd.DataFrame({"subject_id": [1, 2], "record": ["a", "b"], "true": classes,
                  "predicted": classes, "p A": [1, 0], "p B": [0, 1],
                  "rate [bpm]": [70, 80]}).to_csv(tmp_path / "predictions.csv", index=False)
    pd.DataFrame({"subject_id": [1, 2], "waveform_path": ["a", "b"], "ecg_category": classes,
                  "split": "test"}).to_csv(tmp_path / "split.csv", index=False)
    (tmp_path / "left_out.csv").write_text("record,why\n")
    score = {"accuracy": [1, 1, 1], "balanced accuracy": [1, 1, 1]}
    of_class = {"precision": 1, "recall": 1, "f1-score": 1, "support": 1}
    ece = {"expected calibration error": 0, "Brier score": 0}
    metrics = {"records": 2, "patients": 2, "confidence": [1, 0], "model": score,
               "rate rule": score, "logistic regression": score, "accuracy by share kept": {},
               "per class": dict.fromkeys(classes, of_class),
               "calibration": {"test": {"before": ece, "after": ece}}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    return tmp_path


def change(folder, name, **values):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | values))


def test_no_text_of_a_strangers_run_is_html_in_its_model_card(folder):
    change(folder, "run.json", records=EVIL, patients=EVIL, labels_sha256=f"`{EVIL}`",
           leads=[EVIL], settings={EVIL: EVIL}, versions={EVIL: EVIL}, labels_origin="<b>",
           start_from={"model": EVIL, "sha256": EVIL, "labels_origin": EVIL})
    ece = {"expected calibration error": 0, "Brier score": 0}
    change(folder, "metrics.json", patients=EVIL,
           calibration={EVIL: {"before": ece, "after": ece}})
    split = pd.read_csv(folder / "split.csv")
    split.assign(split=EVIL).to_csv(folder / "split.csv", index=False)
    (folder / "left_out.csv").write_text(f'record,why\na,"{EVIL}"\n')
    card = model_card.model_card(folder)
    assert card.count("img src") == card.count(r"\<img src=x onerror=alert(1)\>") > 10
    assert "\x1b" not in card and "\u202e" not in card
    assert r"\<b\>" in card
    html = page.page(folder)
    assert "<img" not in html and "&lt;img src=x" in html
    assert "\x1b" not in html and "\u202e" not in html


@pytest.mark.parametrize(("values", "words"), [
    ({"classes": [f"c{i}" for i in range(3000)]}, "expected two to 100"),
    ({"classes": ["A", "x" * 10**6]}, "more than 200 letters"),
    ({"features": []}, "no features"),
    ({"features": [["rate", "bpm", None]] * 2}, "the same name"),
    ({"features": [["rate", "bpm", [60, 1e308]]]}, "not finite, or huge"),
    ({"features": [["rate", "bpm", [float("nan"), 1]]]}, "not finite, or huge")])
def test_a_run_that_no_figure_can_be_drawn_of_is_refused(values, words, folder):
    change(folder, "run.json", **values)
    with pytest.raises(read.ResultsError, match=words):
        read.read_predictions(folder)


def test_a_number_that_no_figure_can_be_drawn_of_is_refused(folder):
    read.read_predictions(folder)
    table = pd.read_csv(folder / "predictions.csv")
    table.assign(**{"rate [bpm]": 1e308}).to_csv(folder / "predictions.csv", index=False)
    with pytest.raises(read.ResultsError, match=r"predictions\.csv is damaged.*beyond"):
        read.read_predictions(folder)


@pytest.mark.parametrize("name", ["run.json", "predictions.csv", "metrics.json"])
def test_a_pipe_in_a_results_folder_is_refused_and_not_waited_for(name, folder):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(read.ResultsError, match=f"{name} is damaged.*not a plain file"):
        read.read_metrics(folder)


def test_arrays_that_would_fill_the_memory_are_refused_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("they are unpacked"))
    with zipfile.ZipFile(tmp_path / "errors.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(2):
            with archive.open(f"signal_{number}.npy", "w") as part:
                part.write(b"\0")
        for part in archive.infolist():    # as a file of zeros would have it
            part.file_size = read.MOST_ARRAYS // 2 + 1
            part.extra = b""
    with (pytest.raises(read.ResultsError, match=r"errors\.npz is damaged.*larger than"),
          read.reading_arrays(tmp_path / "errors.npz")):
        pass


def test_json_that_would_fill_the_memory_is_refused_unread(folder):
    os.truncate(folder / "run.json", read.MOST_TEXT + 1)
    with pytest.raises(read.ResultsError, match=r"run\.json is damaged.*larger than"):
        read.read_run(folder)


def test_more_splits_or_repeats_than_a_run_makes_are_refused(folder):
    split = pd.DataFrame({"subject_id": 1, "waveform_path": "a", "ecg_category": "A",
                          "split": range(4)})
    split.to_csv(folder / "split.csv", index=False)
    with pytest.raises(read.ResultsError, match=r"split\.csv is damaged"):
        model_card.model_card(folder)
    names = "loss", "accuracy", "val_loss", "val_accuracy", "epoch"
    table = pd.DataFrame({"repeat": range(101), **dict.fromkeys(names, 1)})
    table.to_csv(folder / "history.csv", index=False)
    with pytest.raises(read.ResultsError, match=r"history\.csv is damaged"):
        figures.training_curves(folder)


def test_a_name_of_a_million_letters_is_cut_without_looking_at_each():
    class Counting(str):
        cuts = 0

        def __getitem__(self, index):
            Counting.cuts += 1
            assert Counting.cuts < 20
            return Counting(super().__getitem__(index))

    assert style.short(Counting("x" * 10**6), 10) == "x" * 9 + "…"
    assert Counting.cuts


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

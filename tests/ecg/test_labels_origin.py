"""Where labels come from: a .labels.json is believed only about its own, unchanged label file."""

import json
import os

import pytest

from ecg import files, labels_origin, notices
from ecg.errors import UserError
from too_feature import parse_settings

CART = "machine reads of the ECG cart (MIMIC-IV-ECG 1.0)"


@pytest.fixture
def labels(tmp_path):
    """A label file with a .labels.json like that of make_labels.py."""
    path = tmp_path / "labels.csv"
    path.write_text("1,a/1,Normal\n")
    write_sidecar(path)
    return path


def write_sidecar(labels, **changes):
    """Write the .labels.json of a label file, with some of it changed."""
    card = {"labels_origin": CART, "sha256": {"labels.csv": files.sha256(labels)}}
    labels.with_suffix(".labels.json").write_text(json.dumps(card | changes), encoding="utf-8")


def test_the_origin_is_what_make_labels_wrote(labels, capsys):
    assert labels_origin.of_file(str(labels)) == CART
    assert capsys.readouterr().out == ""


def test_a_flag_wins_over_the_file(labels, capsys):
    assert labels_origin.of_file(str(labels), "two cardiologists") == "two cardiologists"
    labels.with_suffix(".labels.json").write_text("damaged")
    assert labels_origin.of_file(str(labels), "two cardiologists") == "two cardiologists"
    assert capsys.readouterr().out == ""


def test_without_either_it_is_not_stated(labels, capsys):
    labels.with_suffix(".labels.json").unlink()
    assert labels_origin.of_file(str(labels)) == "not stated"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("asked", ["", "two cardiologists"])
def test_the_demo_is_synthetic_whatever_else_is_said(labels, asked, capsys):
    found = labels_origin.of_file(str(labels), asked, is_demo=True)
    assert found == "synthetic records, not patients"
    assert ("notice: --labels-origin is not used" in capsys.readouterr().out) == bool(asked)


def test_an_edited_label_file_is_not_what_its_origin_was_stated_of(labels, capsys):
    labels.write_text("1,a/1,Tachycardia\n")
    assert labels_origin.of_file(str(labels)) == "not stated"
    assert "(edited or renamed?)" in capsys.readouterr().out


def test_a_renamed_label_file_is_not_believed(labels, capsys):
    for ending in (".csv", ".labels.json"):
        labels.with_suffix(ending).rename(labels.with_name(f"other{ending}"))
    assert labels_origin.of_file(str(labels.with_name("other.csv"))) == "not stated"
    assert "(edited or renamed?)" in capsys.readouterr().out


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"1", b"\xff", b"{}", b'{"sha256": 1, "labels_origin": "x"}', b"[" * 100_000,
    b'{"sha256": {"labels.csv": []}, "labels_origin": "x"}', b'{"labels_origin": "x"}'])
def test_a_damaged_file_is_noticed_and_the_origin_not_stated(content, labels, capsys):
    sidecar = labels.with_suffix(".labels.json")
    sidecar.write_bytes(content)
    assert labels_origin.of_file(str(labels)) == "not stated"
    printed = capsys.readouterr().out
    assert printed.startswith(f"notice: origin of the labels not taken from {sidecar}: it is ")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("origin", [
    None, 5, "", "  ", "x" * 101, "a\nb", "\x1b[31m", "\u202ex", "\ud800"])
def test_an_origin_that_cannot_be_shown_is_not_taken(origin, labels, capsys):
    write_sidecar(labels, labels_origin=origin)
    assert labels_origin.of_file(str(labels)) == "not stated"
    assert "it is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["large", "folder", "pipe"])
def test_only_a_plain_small_file_is_read(kind, labels, capsys):
    """Reading a pipe would never end."""
    sidecar = labels.with_suffix(".labels.json")
    if kind == "large":
        with sidecar.open("a") as file:
            file.write(" " * labels_origin.MOST_BYTES)
    else:
        sidecar.unlink()
        (os.mkdir if kind == "folder" else os.mkfifo)(sidecar)
    assert labels_origin.of_file(str(labels)) == "not stated"
    assert "not a plain file of at most 1 MB" in capsys.readouterr().out


# -------------------------------------------------------------------------------------- the flag
@pytest.mark.parametrize("text", ["two cardiologists", "两位心脏科医生", "x" * 100])
def test_the_flag_takes_any_words(text):
    assert parse_settings(["--labels-origin", text]).labels_origin == text


@pytest.mark.parametrize("text", [" ", "x" * 101, "a\nb", "\x1b[31m"])
def test_the_flag_refuses_what_cannot_be_shown(text):
    with pytest.raises(UserError, match=r"--labels-origin .*at most 100 printable") as found:
        parse_settings(["--labels-origin", text])
    assert str(found.value).isprintable()


# ------------------------------------------------------------------------------------- sentences
def test_the_origin_of_test_labels_is_said_where_it_differs():
    assert notices.origin_of_labels("a", "a") == "Origin of the labels: a."
    assert notices.origin_of_labels("a.", "b") == (
        "Origin of the labels: a. Origin of the test labels: b.")


@pytest.mark.parametrize(("card", "words"), [
    ({"labels_origin": "two nurses", "synthetic": False}, "Origin of the labels: two nurses."),
    ({"labels_origin": "\x1b[31m"}, "Origin of the labels: not stated."),
    ({}, "Origin of the labels: not stated."),
    ({"synthetic": True}, "This model was trained on synthetic records. Origin of the labels: "
     "synthetic records, not patients.")])
def test_a_model_says_what_its_card_states_and_no_more(card, words):
    assert labels_origin.note(card) == f"{words} This is not a medical device."

"""Where labels come from: a .labels.json is believed only about its own, unchanged label file."""

import json
import os

import pytest

from ecg import files, origin
from ecg.errors import UserError
from too_feature import parse_settings

CART = "machine reads of the ECG cart (MIMIC-IV-ECG 1.0)"
UNSHOWABLE = [None, 5, "", "  ", "x" * 101, "a\nb", "\x1b[31m", "\u202ex"]


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


def test_the_origin_is_what_make_labels_wrote_unless_a_flag_or_the_demo_says_otherwise(
        labels, capsys):
    assert origin.of_file(str(labels)) == CART
    assert origin.of_file(str(labels), "two cardiologists") == "two cardiologists"
    assert origin.of_file(str(labels), is_demo=True) == "synthetic records, not patients"
    labels.with_suffix(".labels.json").unlink()
    assert origin.of_file(str(labels)) == "not stated"
    assert capsys.readouterr().out == ""
    assert origin.of_file(str(labels), "a nurse", is_demo=True) == "synthetic records, not patients"
    assert "notice: --labels-origin is not used" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["labels.csv", "renamed.csv"])
def test_an_edited_or_renamed_label_file_is_not_what_its_origin_was_stated_of(
        name, labels, capsys):
    path = labels.rename(labels.with_name(name))
    labels.with_suffix(".labels.json").rename(path.with_suffix(".labels.json"))
    if path == labels:
        path.write_text("1,a/1,Tachycardia\n")
    assert origin.of_file(str(path)) == "not stated"
    assert "(edited or renamed?)" in capsys.readouterr().out


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"\xff", b"{}", b'{"sha256": 1, "labels_origin": "x"}', b"[" * 100_000],
    ids=range(7))
def test_a_damaged_file_is_noticed_and_the_origin_not_stated(content, labels, capsys):
    labels.with_suffix(".labels.json").write_bytes(content)
    assert origin.of_file(str(labels)) == "not stated"
    assert capsys.readouterr().out.startswith("notice: ")


def test_a_pipe_in_its_place_is_not_waited_for(labels):
    sidecar = labels.with_suffix(".labels.json")
    sidecar.unlink()
    os.mkfifo(sidecar)
    assert origin.of_file(str(labels)) == "not stated"


@pytest.mark.parametrize("text", UNSHOWABLE)
def test_an_origin_that_cannot_be_shown_is_taken_from_nowhere(text, labels):
    write_sidecar(labels, labels_origin=text)
    assert origin.of_file(str(labels)) == "not stated"
    with pytest.raises(ValueError, match="no origin"):
        origin.check_card({"labels_origin": text})
    if text and isinstance(text, str):
        for flag in ("--labels-origin", "--test-labels-origin"):
            with pytest.raises(UserError, match=f"^{flag} .*at most 100 printable"):
                parse_settings([flag, text, "--test-labels", "other.csv"])


# ------------------------------------------------------------------------------------- sentences
@pytest.mark.parametrize(("card", "words"), [
    ({"labels_origin": "two nurses"}, "Origin of the labels: two nurses."),
    ({}, "Origin of the labels: not stated."),
    ({"synthetic": True, "labels_origin": "x"},
     "This model was trained on synthetic records. Origin of the labels: x.")])
def test_a_model_says_what_its_card_states_and_no_more(card, words):
    assert origin.note(card) == f"{words} This is not a medical device."


# --------------------------------------------------------------------------- what was learnt from
def run_from(start, labels, is_trained=True, **changes):
    """Return the card of a run that starts from a model with this card."""
    own = {"labels_sha256": labels, "labels_origin": f"nurse {labels}", "synthetic": False}
    own |= {"model_sha256": f"model of {labels}", **changes}
    name = f"{start['labels_sha256']}.keras"
    return own | origin.describe_start(name, start, own, is_trained)


FIRST = {"labels_sha256": "A", "model_sha256": "model of A", "labels_origin": "nurse A"}


def test_a_chain_of_models_keeps_all_of_them_and_all_label_files_that_they_learnt_from():
    adapted = run_from(FIRST, "B")
    evaluated = run_from(adapted, "C", is_trained=False)
    last = run_from(evaluated, "D")
    assert last["trained_on"] == ["D", "B", "A"]    # nothing was learnt from C
    assert last["start_from"] == [
        {"model": "C.keras", "sha256": "model of C", "labels_origin": "nurse B"},
        {"model": "B.keras", "sha256": "model of B", "labels_origin": "nurse B"},
        {"model": "A.keras", "sha256": "model of A", "labels_origin": "nurse A"}]
    saw = {file: run_from(last, file)["start_saw_test_file"] for file in "ABCDE"}
    assert saw == {"A": True, "B": True, "C": False, "D": True, "E": False}
    assert "labels are: nurse A." in origin.note(evaluated)
    origin.check_card(last)


def test_only_the_file_of_the_test_patients_counts():
    fresh = run_from(FIRST, "A", test_labels_sha256="T")
    assert not fresh["start_saw_test_file"]
    assert run_from(fresh, "B", test_labels_sha256="A")["start_saw_test_file"]


def test_an_evaluation_is_as_synthetic_as_the_model_whatever_it_is_tested_on():
    synthetic = {**FIRST, "synthetic": True}
    assert run_from(synthetic, "B", is_trained=False)["synthetic"]
    assert run_from(synthetic, "B")["synthetic"]
    assert not run_from(FIRST, "B", is_trained=False, synthetic=True)["synthetic"]
    assert run_from(FIRST, "B", synthetic=True)["synthetic"]


NOT_CHECKED = "; whether the start has learnt from their recordings was not checked"


@pytest.mark.parametrize(("start", "is_trained", "more", "words", "warned"), [
    (None, True, {}, " with no number, folder or recording in common with training", ""),
    (None, True, {"equal_numbers": 3}, " with no recording in common with training",
     "3 test patients have a number or folder"),
    (None, True, {"test_chosen_by": "uncertainty"},
     " with no number, folder or recording in common with training", "no sample of the hospital"),
    ("B", True, {}, f" with no number, folder or recording in common with adapting{NOT_CHECKED}",
     ""),
    ("A", False, {}, f"; nothing was trained{NOT_CHECKED}", origin.MAY_HAVE_SEEN),
    ("B", False, {"start_knows": 0},
     "; nothing was trained; the start has learnt from none of their recordings", ""),
    ("B", False, {"start_knows": 9}, "; nothing was trained",
     "9 of the test recordings are recordings that the start has learnt from")])
def test_what_is_said_of_test_patients_is_true(start, is_trained, more, words, warned):
    card = {**(run_from(FIRST, start, is_trained) if start else FIRST), **more}
    assert origin.unseen(card, is_trained) == words
    assert warned in origin.caution(card)
    assert bool(origin.caution(card)) == bool(warned)


@pytest.mark.parametrize("junk", [
    {"start_knows": "\x1b"},
    {"start_from": 1}, {"start_from": [None]}, {"start_from": [{"model": "x"}]},
    {"start_from": [{"model": "\x1b", "sha256": "", "labels_origin": "x"}]},
    {"trained_on": [1]}, {"trained_on": "\x1b"}])
def test_a_strangers_list_of_models_is_refused(junk):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        origin.check_card(FIRST | junk)


def test_a_pipe_or_a_huge_file_beside_a_label_file_is_not_read(tmp_path):
    for name in ("pipe.csv", "huge.csv"):
        (tmp_path / name).write_text("1,a,Normal\n")
    os.mkfifo(tmp_path / "pipe.labels.json")
    (tmp_path / "huge.labels.json").write_text('{"chosen_by": "uncertainty"}' + " " * 10**6)
    for name in ("pipe.csv", "huge.csv"):
        assert origin.chosen_by(str(tmp_path / name)) == ""
        assert origin.of_file(str(tmp_path / name)) == origin.NOT_STATED

"""Where labels come from, in words, and which of them a model has learnt from.

The words are from a flag, or from what make_labels.py wrote about its file. A label file may have a
.labels.json next to it. It is believed only where it holds the SHA-256 of the label file under its
name: not after somebody has edited or renamed either.

A card has the SHA-256 of --labels as `labels_sha256`, whether or not anything was trained, and
those of all label files that the model has learnt from, itself or the models that it comes from, as
`trained_on`. These models are listed in `start_from`. Of both lists, the latest is first.
"""

import functools
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ecg import files
from ecg.errors import UserError, printable

NOT_STATED = "not stated"
DEMO = "synthetic records, not patients"
MOST_LETTERS = 100
MOST_BYTES = 2**20    # of a .labels.json; one of all of MIMIC-IV-ECG has some 10 kB


def is_origin(text: Any) -> bool:
    """Tell whether this is text that can be shown as an origin anywhere."""
    if not isinstance(text, str) or len(text) > MOST_LETTERS:
        return False
    return bool(text.strip()) and text.isprintable()


def check_flag(text: str) -> None:
    """Raise `UserError` if this cannot be shown as an origin; "" stands for a flag not given."""
    if text and not is_origin(text):
        raise UserError(f"--labels-origin {text!r:.80}: expected at most {MOST_LETTERS} printable "
                        'characters, such as "two cardiologists"')


def read_sidecar(labels: Path, sidecar: Path) -> str:
    """Return the origin that a .labels.json states.

    Raises
    ------
    ValueError
        It is of something else, or not of this label file. `OSError` if it cannot be read.
    """
    if not sidecar.is_file() or sidecar.stat().st_size > MOST_BYTES:
        raise ValueError("it is not a plain file of at most 1 MB")
    try:
        card = json.loads(sidecar.read_text(encoding="utf-8"))
        expected = card["sha256"].get(labels.name)
        origin = card["labels_origin"]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("it is damaged") from error

    if expected != files.sha256(labels):
        raise ValueError("it is not about this label file (edited or renamed?)")
    if not is_origin(origin):
        raise ValueError("it is damaged")
    return origin


def of_file(name: str, asked: str = "", is_demo: bool = False) -> str:
    """Return where the labels of a file come from.

    Parameters
    ----------
    name : str
        The label file.
    asked : str
        What --labels-origin says, which wins over the .labels.json; "" if it was not given.
    is_demo : bool
        Whether the file names records of the demo, whose origin no flag can change.
    """
    if is_demo:
        if asked:
            print("notice: --labels-origin is not used, as these are the demo's records")
        return DEMO
    if asked:
        return asked

    labels = Path(name)
    sidecar = labels.with_suffix(".labels.json")
    if not sidecar.exists():
        return NOT_STATED
    try:
        return read_sidecar(labels, sidecar)
    except (OSError, ValueError) as error:
        print(f"notice: origin of the labels not taken from {sidecar}: {error}")
        return NOT_STATED


def of_card(card: dict[str, Any]) -> str:
    """Return what a model's card states, which may be older than this module or not ours."""
    origin = card.get("labels_origin")
    if is_origin(origin):
        return str(origin)
    return DEMO if card.get("synthetic") else NOT_STATED


def note(card: dict[str, Any]) -> str:
    """Return what has to be said wherever the model of this card speaks."""
    own = of_card(card)
    others = [one["labels_origin"] for one in starts(card) if one["labels_origin"] != own]
    return about_model(own, bool(card.get("synthetic")), others[0] if others else "")


# --------------------------------------------------------------------------- what was learnt from
def starts(card: dict[str, Any]) -> list[dict[str, str]]:
    """Return model, sha256 and labels_origin of each model that this card's comes from."""
    found = card.get("start_from")
    return [
        {"model": printable(one.get("model", "")), "sha256": printable(one.get("sha256", "")),
         "labels_origin": of_card(one)}
        for one in (found if isinstance(found, list) else []) if isinstance(one, dict)]


def trained_on(card: dict[str, Any]) -> list[str]:
    """Return the SHA-256 of each label file that the model of a card has learnt from."""
    found = card.get("trained_on")
    if not isinstance(found, list):    # of a card that only tells of its own
        found = [card.get("labels_sha256")]
    return [sha256 for sha256 in found if isinstance(sha256, str)]


def describe_start(
    name: str, start: dict[str, Any], card: dict[str, Any], is_trained: bool
) -> dict[str, Any]:
    """Return what the card of a run has to say about the model that it starts from.

    Parameters
    ----------
    name : str
        The model that --start-from names.
    start : dict
        Its card.
    card : dict
        What is known of the run: hash and origin of its labels, and of --test-labels.
    is_trained : bool
        Whether it learns from these labels, or only evaluates the model.
    """
    before = trained_on(start)
    found = {
        "start_from": [
            {"model": name, "sha256": start["model_sha256"], "labels_origin": of_card(start)},
            *starts(start)],
        "start_saw_test_file": card.get("test_labels_sha256", card["labels_sha256"]) in before}
    if is_trained:
        return found | {
            "synthetic": card["synthetic"] or bool(start.get("synthetic")),
            "trained_on": list(dict.fromkeys([card["labels_sha256"], *before]))}
    return found | {
        "synthetic": bool(start.get("synthetic")),
        "trained_on": before,
        "labels_origin": of_card(start),
        "test_labels_origin": card.get("test_labels_origin", card["labels_origin"])}


def unseen(card: dict[str, Any], is_trained: bool) -> str:
    """Return what follows "tested on so many patients": in which sense they are new."""
    if not starts(card):
        return " that training never saw"
    return " that adapting never saw" if is_trained else "; nothing was trained"


def caution(card: dict[str, Any]) -> str:
    """Return the warning that test patients may have been seen after all, or ""."""
    return MAY_HAVE_SEEN if card.get("start_saw_test_file") else ""


# ---------------------------------------------------------------------------------------- notices
NOT_MEDICAL = "This is not a medical device."
TRAINED_ON_SYNTHETIC = "This model was trained on synthetic records."
SYNTHETIC = "THIS DATA IS SYNTHETIC (the demo): its figures say nothing about real patients."
MAY_HAVE_SEEN = ("This model comes from one that has learnt from the label file of the test "
                 "patients, and may have seen them: only other patients can tell how good it is.")
SYNTHETIC_MARK = "synthetic demo data"    # short, for the foot of a figure


def origin_of_labels(origin: str, of_test: str = "") -> str:
    """Say where the labels come from, and those of another test file where that differs."""
    words = f"Origin of the labels: {origin.rstrip(' .')}."
    if of_test and of_test != origin:
        words += f" Origin of the test labels: {of_test.rstrip(' .')}."
    return words


def about_results(origin: str, of_test: str = "") -> str:
    """Return what stands at the end of a report."""
    return f"{origin_of_labels(origin, of_test)} {NOT_MEDICAL}"


def about_model(origin: str, is_synthetic: bool, of_start: str = "") -> str:
    """Return what stands wherever a model speaks, given the origin of its training labels.

    `of_start` is that of the labels of the model from which it was adapted, if it was.
    """
    words = about_results(origin)
    if of_start and of_start != origin:
        words = f"Adapted from a model whose labels are: {of_start.rstrip(' .')}. {words}"
    return f"{TRAINED_ON_SYNTHETIC} {words}" if is_synthetic else words


# --------------------------------------------------------------------------------------- versions
# Packages that could change a result
PACKAGES = r"tensorflow(.cpu|.macos|.metal)?|keras|jax|numpy|scipy|pandas|scikit.learn|wfdb"


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that could change a result."""
    found = {"python": sys.version.split()[0], "platform": sys.platform}
    for package in importlib.metadata.distributions():
        if re.fullmatch(PACKAGES, package.name or ""):    # a broken installation has no name
            found[package.name] = package.version
    return found


def commit() -> str:
    """Return the commit of this repository that is checked out, or "" where there is none."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():    # git would look for another project's above
        return ""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(    # noqa: S603  a fixed command
            command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()

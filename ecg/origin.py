"""Where labels come from, in words, and which of them a model has learnt from.

The words are from a flag, or from what make_labels.py wrote about its file. A label file may have a
.labels.json next to it. It is believed only where it holds the SHA-256 of the label file under its
name: not after somebody has edited or renamed either.

A card has the SHA-256 of --labels as `labels_sha256`, whether or not anything was trained, and
those of all label files that the model has learnt from, itself or the models that it comes from, as
`trained_on`. These models are listed in `start_from`. Of both lists, the latest is first.
"""

import contextlib
import functools
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from ecg import files
from ecg.demo import DEMO_FOLDER
from ecg.errors import UserError

NOT_STATED = "not stated"
CHOSEN_BY = "random", "uncertainty"    # by choose_records.py
DEMO = "synthetic records, not patients"
MAX_LETTERS = 100
MAX_BESIDE_BYTES = 10**6


def is_origin(text: Any) -> bool:
    """Tell whether this is text that can be shown as an origin anywhere."""
    is_text = isinstance(text, str) and text.strip() and text.isprintable()
    return bool(is_text) and len(text) <= MAX_LETTERS


def check_flag(flag: str, text: str) -> None:
    """Raise `UserError` if this cannot be shown as an origin; "" stands for a flag not given."""
    if text and not is_origin(text):
        raise UserError(f"{flag} {text!r:.80}: expected at most {MAX_LETTERS} printable "
                        'characters, such as "two cardiologists"')


def check_card(card: dict) -> None:
    """Refuse a stranger's card that says of origins what no run writes.

    Raises
    ------
    ValueError
        Something cannot be shown. `KeyError`, `TypeError` or `AttributeError` if it has another
        form.
    """
    caution(card)    # its numbers are numbers
    texts = [start[key] for start in starts(card) for key in ("model", "sha256")]
    origins = map(of_card, [card, *starts(card)])
    if not all(map(is_origin, origins)) or not "".join(texts + trained_on(card)).isprintable():
        raise ValueError("its .json describes no origin of the labels")


def of_file(name: str, flag: str = "", is_demo: bool = False) -> str:
    """Return where the labels of a file come from.

    Parameters
    ----------
    name : str
        The label file.
    flag : str
        What --labels-origin says, which wins over the .labels.json; "" if it was not given.
    is_demo : bool
        Whether the file names records of the demo, whose origin no flag can change.
    """
    if is_demo:
        if flag:
            print("notice: --labels-origin is not used, as these are the demo's records")
        return DEMO
    if flag or not beside(name).is_file() or chosen_by(name):
        return flag or NOT_STATED
    with contextlib.suppress(Exception):
        card = read_beside(name)
        is_of_file = card["sha256"][Path(name).name] == files.sha256(name)
        if is_of_file and is_origin(card["labels_origin"]):
            return card["labels_origin"]
    print(f"notice: {beside(name)} is damaged, or not about this label file (edited or renamed?): "
          "the origin of the labels is not taken from it")
    return NOT_STATED


def beside(name: str) -> Path:
    """Return the file that may tell of a label file; as it came with that, it may hold anything."""
    return Path(name).with_suffix(".labels.json")


def read_beside(name: str) -> Any:
    """Return what that file holds; nothing of a pipe, or of a file that would fill memory."""
    path = beside(name)
    if path.is_file() and path.stat().st_size <= MAX_BESIDE_BYTES:
        return json.loads(path.read_text(encoding="utf-8"))
    return {}


def label_error(card: dict) -> str:
    """Return what is known of the error of tested labels that a machine has read, or ""."""
    tested = card.get("test_labels_origin") or of_card(card)
    return OF_MACHINES if "machine" in tested.casefold() else ""


def chosen_by(name: str) -> str:
    """Return how choose_records.py has drawn the records of a label file, as its .labels.json says.

    Somebody has filled in the labels since, so it is believed whatever is in the file.
    """
    with contextlib.suppress(Exception):
        card = read_beside(name)
        return card["chosen_by"] if card["chosen_by"] in CHOSEN_BY else ""
    return ""


def of_run(settings: Any, is_demo: bool, test: pd.DataFrame) -> dict:
    """Return for the card where labels and test records come from; rows of --test-labels.

    For the script's `Settings`; `test` are the test records.
    """
    own = of_file(settings.labels, settings.labels_origin, is_demo)
    origins = {"labels_origin": own,
               "test_chosen_by": chosen_by(settings.test_labels or settings.labels)}
    if not settings.test_labels:
        return origins
    is_demo_test = test["waveform_path"].str.startswith(DEMO_FOLDER).any()
    of_test = of_file(settings.test_labels, settings.test_labels_origin, is_demo_test)
    return {**origins, "test_labels_origin": of_test, "test_rows": test.attrs["rows"],
            "equal_numbers": test.attrs["equal_numbers"]}


def of_card(card: dict) -> str:
    """Return what a model's card states."""
    return card.get("labels_origin", NOT_STATED)


def note(card: dict, is_tested: bool = False) -> str:
    """Return what has to be said wherever the model of this card speaks, or is tested."""
    own = of_card(card)
    others = [of_card(start) for start in starts(card) if of_card(start) != own]
    words = about_results(own, card.get("test_labels_origin", "") if is_tested else "")
    if others:
        words = f"Adapted from a model whose labels are: {others[0].rstrip(' .')}. {words}"
    return f"{TRAINED_ON_SYNTHETIC} {words}" if card.get("synthetic") else words


# --------------------------------------------------------------------------- what was learnt from
def starts(card: dict) -> list[dict[str, str]]:
    """Return model, sha256 and labels_origin of each model that this card's comes from."""
    return card.get("start_from", [])


def trained_on(card: dict) -> list[str]:
    """Return the SHA-256 of each label file that the model of a card has learnt from."""
    return card.get("trained_on") or [card.get("labels_sha256", "")]


def describe_start(
    name: str,
    start: dict,
    card: dict,
    is_trained: bool,
) -> dict:
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
    learnt = [card["labels_sha256"], *before] if is_trained else before
    own = {"model": name, "sha256": start["model_sha256"], "labels_origin": of_card(start)}
    described = {
        "start_from": [own, *starts(start)],
        "start_saw_test_file": card.get("test_labels_sha256", card["labels_sha256"]) in before,
        "synthetic": bool(start.get("synthetic") or (is_trained and card["synthetic"])),
        "trained_on": list(dict.fromkeys(learnt))}
    if not is_trained:
        described["labels_origin"] = of_card(start)
        described["test_labels_origin"] = card.get("test_labels_origin", card["labels_origin"])
    return described


def unseen(card: dict, is_trained: bool) -> str:
    """Return what follows "tested on so many patients": in which sense they are new, if checked."""
    compared = "recording" if card.get("equal_numbers") else "number, folder or recording"
    own = f" with no {compared} in common with"
    if not starts(card):
        return f"{own} training"
    words = f"{own} adapting" if is_trained else "; nothing was trained"
    known = card.get("start_knows")
    if known is None:
        return f"{words}; whether the start has learnt from their recordings was not checked"
    return words if known else f"{words}; the start has learnt from none of their recordings"


def caution(card: dict) -> str:
    """Return the warnings that the test patients may be no others, or no sample; or ""."""
    n_equal, n_known = card.get("equal_numbers") or 0, card.get("start_knows") or 0
    return " ".join(filter(None, [
        MAY_HAVE_SEEN if card.get("start_saw_test_file") else "",
        KNOWN.format(n_known) if n_known else "",
        EQUAL_NUMBERS.format(n_equal) if n_equal else "",
        NO_SAMPLE if card.get("test_chosen_by") == "uncertainty" else ""]))


# ---------------------------------------------------------------------------------------- notices
NOT_MEDICAL = "This is not a medical device."
TRAINED_ON_SYNTHETIC = "This model was trained on synthetic records."
SYNTHETIC = "THIS DATA IS SYNTHETIC (the demo): its figures say nothing about real patients."
MAY_HAVE_SEEN = ("This model comes from one that has learnt from the label file of the test "
                 "patients, and may have seen them: only other patients can tell how good it is.")
OF_MACHINES = (
    "The tested labels are a machine's, and agreement with them is what is measured, not with the "
    "truth. Against cardiologists, machines missed 12 % and 9 % of atrial fibrillation (Bae 2012, "
    "Poon 2005), 10 % and 7 % of those that they called were none (Bae 2012, Lindow 2019), and 13 "
    "% of rhythm statements were revised (Poon 2005). None of this is of MIMIC-IV-ECG's carts.")
SOURCES = (
    "Bae MH et al., Clinical Cardiology 2012;35:348-353, 10,279 ECGs, doi 10.1002/clc.22000. Poon "
    "K, Okin PM, Kligfield P, Journal of Electrocardiology 2005;38:235-238, 4,297 ECGs. Lindow T "
    "et al., Scandinavian Journal of Primary Health Care 2019;37:426-433, 988 ECGs called atrial "
    "fibrillation or flutter, doi 10.1080/02813432.2019.1684429.")

# Cautions
KNOWN = ("{:d} of the test recordings are recordings that the start has learnt from: only other "
         "patients can tell how good it is.")
EQUAL_NUMBERS = ("{:d} test patients have a number or folder that --labels has too, in another "
                 "data folder: they are taken for other people, which nobody has checked.")
NO_SAMPLE = ("The test records were chosen because a model was unsure of them: they are no sample "
             "of the hospital, on whose other records it is likely better.")
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


# --------------------------------------------------------------------------------------- versions
# Packages that could change a result
PACKAGES = r"tensorflow(.cpu|.macos|.metal)?|keras|jax|numpy|scipy|pandas|scikit.learn|wfdb"


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that could change a result."""
    packages = {
        package.name: package.version for package in importlib.metadata.distributions()
        if re.fullmatch(PACKAGES, package.name or "")}    # a broken installation has no name
    return {"python": sys.version.split()[0], "platform": sys.platform, **packages}


def commit() -> str:
    """Return the commit of this repository that is checked out, or "" where there is none."""
    if not (files.ROOT / ".git").exists():    # git would look for another project's above
        return ""
    command = ["git", "-C", str(files.ROOT), "rev-parse", "--verify", "HEAD"]
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True)    # noqa: S603  a fixed one
        return done.stdout.strip()
    return ""

"""Where labels come from, in words: from a flag, or from what make_labels.py wrote about its file.

A label file may have a .labels.json next to it. It is believed only where it holds the SHA-256 of
the label file under its name: not after somebody has edited or renamed either.
"""

import json
from pathlib import Path
from typing import Any

from ecg import files, notices
from ecg.errors import UserError

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
    before = card.get("start_from")
    start = of_card(before) if isinstance(before, dict) else ""
    return notices.about_model(of_card(card), bool(card.get("synthetic")), start)

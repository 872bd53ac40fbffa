"""Recognise copies of a record by its prepared signal, whatever its name and its patient."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from ecg.cache import Prepared


def digest(ecg: np.ndarray) -> bytes:
    """Return a hash of a prepared ECG (sequence_length, 12)."""
    return hashlib.blake2b(np.ascontiguousarray(ecg).tobytes(), digest_size=16).digest()


def digests(splits: dict[str, Any]) -> dict[bytes, str]:
    """Return the hash of each record in these splits, with a name for messages.

    Parameters
    ----------
    splits : dict
        By name, `Records` of the script: with rows and signals.
    """
    found = {}
    for name, records in splits.items():
        for place, path in enumerate(records.rows["waveform_path"]):
            found[digest(records.signals[place])] = f"copy of a {name} record: {path}"
    return found


def reasons(prepared: Iterable[Prepared], known: dict[bytes, str]) -> list[str]:
    """Return why each of these records cannot be used, such as that it is a copy, or "".

    Parameters
    ----------
    prepared : iterable of Prepared
    known : dict
        What `digests` gave of the records that must not come again.
    """
    found = []
    for one in prepared:
        reason = one.reason
        if known and not reason:
            reason = known.get(digest(one.signal), "")
        found.append(reason)
    return found

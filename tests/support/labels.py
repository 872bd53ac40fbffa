"""Write label files and read them, also damaged ones."""

from pathlib import Path

import pytest

from ecg.errors import UserError
from too_feature import read_labels

ROWS = [["1", "p1/s1/1", "AF"], ["2", "p1/s2/2", "AF"], ["13", "p2/s3/3", "Normal"]]
PLAIN = "1,p1/s1/1,AF\n2,p1/s2/2,AF\n13,p2/s3/3,Normal\n"
HEADER = "subject_id,waveform_path,ecg_category\n"


def write(folder, content, name="labels.csv"):
    """Write a label file from text or bytes; return its path."""
    path = Path(folder) / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(folder, content):
    """Return the rows that the script reads of this content, as lists."""
    return read_labels(write(folder, content)).to_numpy().tolist()


def refusal(path):
    """Return the text of the UserError, having checked that it is one printable line."""
    with pytest.raises(UserError) as caught:
        read_labels(path)
    text = str(caught.value)
    assert text.isprintable()
    return text

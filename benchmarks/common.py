"""What the programs of this folder share: messages, progress bars and finished results on disk."""

import hashlib
import json
import sys
from pathlib import Path

from tqdm import tqdm

from ecg.errors import UserError, user_errors
from ecg.files import write_whole


def log(text):
    """Print a line to standard error: standard output is for the tables."""
    print(text, file=sys.stderr, flush=True)


def progress(rows, what):
    """Iterate over the rows of a DataFrame with a progress bar on standard error."""
    return tqdm(rows.itertuples(), what, len(rows), mininterval=1)


class Store:
    """Finished results by key, each in a file of its own: several programs may share a folder.

    Parameters
    ----------
    folder : str or None
        Made if necessary; None keeps the results in memory only.
    """

    def __init__(self, folder):
        self.folder = Path(folder) if folder else None
        self.known = {}

    def get(self, key):
        """Return the result of this key, None if there is none yet.

        Parameters
        ----------
        key : dict
            All that the result depends on, ready for JSON.
        """
        name = digest(key)
        if name not in self.known and self.folder:
            self.known[name] = self._read(name, key)
        return self.known.get(name)

    def _read(self, name, key):
        file = self.folder / f"{name}.json"
        if not file.exists():
            return None
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if found["key"] == key:
                return found["result"]
        except (OSError, ValueError, TypeError, KeyError):
            pass
        log(f"{file}: damaged, so its training is done again")
        return None

    def put(self, key, result):
        """Keep a result; its file is there as a whole or not at all."""
        name = digest(key)
        self.known[name] = result
        if self.folder:
            text = json.dumps({"key": key, "result": result})
            write_whole(self.folder / f"{name}.json",
                        lambda scratch: scratch.write_text(text, encoding="utf-8"))


def digest(key):
    """Return a hash of a key, short enough for a file's name."""
    text = json.dumps(key, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def fill(file, title, text):
    """Put a text between the markers of its title in a Markdown file.

    Raises
    ------
    UserError
        If the file has no such markers, or cannot be read or written.
    """
    head, tail = find_markers(file, title)
    after = f"{head}\n{text.strip()}\n\n{tail}"
    write_whole(file, lambda scratch: scratch.write_text(after, encoding="utf-8"))


def find_markers(file, title):
    """Return what comes before and after the text of a title in a Markdown file.

    The text stands between the lines <!-- title --> and <!-- end -->, which are returned as well.
    """
    with user_errors(str(file), (OSError, ValueError)):
        text = Path(file).read_text(encoding="utf-8")
    start = f"<!-- {title} -->\n"
    head, found, rest = text.partition(start)
    _, end, tail = rest.partition("<!-- end -->\n")
    if not found or not end:
        raise UserError(f"{file}: expected the lines {start.strip()} and <!-- end -->")
    return head + start, end + tail

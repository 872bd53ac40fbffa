"""What the programs of this folder share: messages, tables, and finished results on disk."""

import json
import sys
from pathlib import Path

import joblib

from ecg import files
from ecg.errors import UserError, user_errors


def log(text):
    """Print a line to standard error: standard output is for the tables."""
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------- results
class Store:
    """Finished results, each in a file of its own: several programs may share a folder.

    Parameters
    ----------
    folder : str or None
        Made if necessary; None keeps the results in memory only.
    """

    def __init__(self, folder):
        self.folder = folder
        self.known = {}

    def get(self, key):
        """Return the result of this key, None if there is none yet.

        Parameters
        ----------
        key : dict
            All that the result depends on, ready for JSON.
        """
        name = joblib.hash(key)
        if name not in self.known and self.folder:
            file = Path(self.folder, f"{name}.json")
            if file.exists():
                self.known[name] = json.loads(file.read_text())["result"]
        return self.known.get(name)

    def put(self, key, result):
        """Keep a result; its file is there as a whole or not at all."""
        name = joblib.hash(key)
        self.known[name] = result
        if self.folder:
            text = json.dumps({"key": key, "result": result})
            file = Path(self.folder, f"{name}.json")
            files.write_whole(file, lambda scratch: scratch.write_text(text))


def code_sha256(*modules):
    """Return a hash of the script, of what it imports, and of these files."""
    return files.code_sha256() + files.sha256(*modules)


# ----------------------------------------------------------------------------------------- tables
def replace_table(file, title, text):
    """Put a text between the lines <!-- title --> and <!-- end --> of a Markdown file."""
    head, tail = find_markers(file, title)
    after = f"{head}\n{text.strip()}\n\n{tail}"
    files.write_whole(file, lambda scratch: scratch.write_text(after, encoding="utf-8"))


def find_markers(file, title):
    """Return what comes before and after the text of a title, with the lines that mark it.

    Raises
    ------
    UserError
        The file cannot be read, or has no such lines.
    """
    with user_errors(file):
        text = Path(file).read_text(encoding="utf-8")
    start = f"<!-- {title} -->\n"
    head, _, rest = text.partition(start)
    _, end, tail = rest.partition("<!-- end -->\n")
    if not end:
        raise UserError(f"{file}: expected the lines {start.strip()} and <!-- end -->")
    return head + start, end + tail

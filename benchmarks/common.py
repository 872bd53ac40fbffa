"""What the programs of this folder share: messages, progress bars and finished results on disk."""

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
    """Finished results by key, saved to a file as soon as each of them is there.

    Parameters
    ----------
    path : str or None
        A JSON file, which is read if it exists; None keeps the results in memory only.
    about : dict
        What all results depend on, ready for JSON.

    Raises
    ------
    UserError
        If the file is not a store, or one about something else.
    """

    def __init__(self, path, about):
        self.path = Path(path) if path else None
        self.data = {"about": about, "runs": {}}

        if self.path and self.path.exists():
            self.data = self._read(about)
            log(f"{path}: {len(self.data['runs'])} finished results are taken from this file")

    def _read(self, about):
        with user_errors(f"--json {self.path}", (OSError, ValueError)):
            found = json.loads(self.path.read_text(encoding="utf-8"))

        if not isinstance(found, dict) or found.get("about") != about:
            raise UserError(f"--json {self.path}: holds results of other records, options or code; "
                            "remove it or name another file")
        return found

    def get(self, key, compute):
        """Return the result of this key. If there is none yet, compute and save it."""
        runs = self.data["runs"]
        if key not in runs:
            runs[key] = compute()
            self.save()
        return runs[key]

    def save(self):
        """Write all results, so that the file is complete at every moment."""
        if self.path:
            text = json.dumps(self.data)
            write_whole(self.path, lambda scratch: scratch.write_text(text, encoding="utf-8"))

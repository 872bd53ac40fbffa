"""What the programs of this folder share: messages, and tables in Markdown files."""

import re
import sys
from pathlib import Path

from ecg import files
from ecg.errors import UserError, user_errors


def log(text):
    """Print a line to standard error: standard output is for the tables."""
    print(text, file=sys.stderr, flush=True)


# ----------------------------------------------------------------------------------------- tables
def replace_table(file, title, text):
    """Put a text between the lines <!-- title --> and <!-- end --> of a Markdown file."""
    head, tail = find_markers(file, title)
    after = f"{head}\n{text.strip()}\n\n{tail}"
    files.write_bytes(file, after.encode())


def find_markers(file, title):
    """Return what comes before and after the text of a title, with the lines that mark it.

    Raises
    ------
    UserError
        The file cannot be read, or has no such lines.
    """
    with user_errors(file):
        text = Path(file).read_text(encoding="utf-8")
    start, end = f"<!-- {title} -->\n", "<!-- end -->\n"
    parts = re.fullmatch(f"(.*{re.escape(start)}).*?({end}.*)", text, re.DOTALL)
    if not parts:
        raise UserError(f"{file}: expected the lines {start.strip()} and {end.strip()}")
    return parts.groups()

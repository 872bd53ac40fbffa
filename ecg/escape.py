"""Text from files, made safe for where it is shown: a terminal, a line of a file, Markdown, HTML.

A name in a file of a stranger may hold commands to a terminal, tags, or a million letters.
"""

import re

MOST = 4096    # letters; no path is longer


def shown(text: object, most: int = MOST) -> str:
    """Return text with a ? for each letter that cannot be printed, cut to `most` letters.

    What is left has no ends of lines, no escape sequences, nothing that changes the direction of
    writing, and none of the surrogates that stand for bytes of a name that is not UTF-8.
    """
    letters = str(text)
    if len(letters) > most:
        letters = letters[:most - 3] + "..."
    return "".join(letter if letter.isprintable() else "?" for letter in letters)


def markdown(text: object, most: int = 1000) -> str:
    """Return `shown` text on which neither Markdown nor HTML acts."""
    line = shown(" ".join(str(text).split()), most)
    return re.sub(r"([\\|`*\[\]<>#&]|(?<!\w)_|_(?!\w))", r"\\\1", line)

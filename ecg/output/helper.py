"""A second process that draws half of the figures of a run while the first draws the others.

    python -m ecg.output.helper    # reads the path of a results folder; ends without one

It is started before training, during which it imports matplotlib.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from ecg import files

SHARE = ["features", "examples"]    # half of the work


class Helper:
    """The second process, which waits for `begin` and ends with the first, however that ends.

    Raises
    ------
    OSError
        It could not be started.
    """

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, [str(files.ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(    # noqa: S603
            [sys.executable, "-m", "ecg.output.helper"],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)

    def begin(self, folder: Path) -> None:
        """Have it draw its share from this results folder."""
        pipe = self.process.stdin
        with contextlib.suppress(OSError):    # it has died
            if pipe:
                pipe.write(os.fsencode(folder.absolute()))
                pipe.close()

    def has_drawn(self) -> bool:
        """Wait until it ends; return whether it has drawn its share."""
        return self.process.wait() == 0


def draw_all(folder: Path, helper: Helper | None) -> None:
    """Do what `figures.make_all` does, with a helper or, where it fails, without.

    Raises
    ------
    UserError
        A file of the folder is missing or damaged, or cannot be written.
    """
    from ecg.output import figures  # matplotlib, only where it draws

    if helper is None:
        figures.make_all(folder)
        return

    helper.begin(folder)
    names = figures.names_of(folder)
    figures.make_all(folder, [name for name in names if name not in (*SHARE, "page")])
    if not helper.has_drawn():
        figures.make_all(folder, SHARE)
    figures.make_all(folder, ["page"])    # shows all of them


def main() -> None:
    """Draw the share of the second process."""
    from ecg.output import figures

    folder = os.fsdecode(sys.stdin.buffer.read())    # until the first process closes the pipe
    if folder:
        figures.make_all(folder, SHARE)


if __name__ == "__main__":
    main()

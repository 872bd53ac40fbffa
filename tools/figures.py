"""Draw the figures of a run, write its model card and index.html, from its results folder alone.

    python tools/figures.py results/my_model

Figures go to `figures/` in that folder, as PDF and as PNG, and the ECGs into one PDF. MODEL_CARD.md
and index.html, a page that shows all of it, go into the folder itself. Nothing is trained. To draw
any 12-lead ECG from Python: `ecg.output.ecg_page.draw_ecg`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
from ecg.errors import exit_code
from ecg.output.figures import make_all
from ecg.settings import Parser


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("folder", help="results folder of a run")
    folder = parser.parse_args(arguments).folder
    return exit_code("figures.py", lambda: print(*make_all(folder), sep="\n"))


if __name__ == "__main__":
    sys.exit(main())

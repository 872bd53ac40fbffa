"""Write the demo: about 600 synthetic 12-lead ECGs in MIMIC-IV-ECG's own format.

    python tools/make_demo.py    # write mimic-iv-ecg/demo/
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
from ecg import demo
from ecg.errors import exit_code
from ecg.settings import Parser


def run(folder: str) -> None:
    """Write the records."""
    print(f"{demo.write_demo(folder)} synthetic records written below {folder}/demo")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--data-dir", default="mimic-iv-ecg",
                        help="folder in which to write demo/ (default: %(default)s)")
    return exit_code("make_demo.py", run, parser.parse_args(arguments).data_dir)


if __name__ == "__main__":
    sys.exit(main())

"""Write the demo: about 600 synthetic 12-lead ECGs in MIMIC-IV-ECG's own format.

    python tools/make_demo.py                           # write mimic-iv-ecg/demo/
    python tools/make_demo.py --labels demo_labels.csv  # write the label file that names them
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
from ecg import demo, errors, files
from ecg.settings import Parser


def run(asked: argparse.Namespace) -> None:
    """Write the records, or the label file if that was asked for."""
    with errors.user_errors("the demo cannot be written", OSError):
        if asked.labels:
            content = demo.label_text().encode()
            files.check_target(asked.labels)
            files.write_whole(asked.labels, lambda file: file.write_bytes(content))
            return

        n = demo.write_demo(asked.data_dir)
        print(f"{n} synthetic records written below {asked.data_dir}/demo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--data-dir", default="mimic-iv-ecg", type=Path,
        help="folder in which to write demo/ (default: mimic-iv-ecg)")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE",
        help="write the label file of the demo, and no records")
    return errors.exit_code("make_demo.py", run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

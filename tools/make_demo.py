"""Write the demo: about 600 synthetic 12-lead ECGs in MIMIC-IV-ECG's own format.

    python tools/make_demo.py                           # write mimic-iv-ecg/demo/
    python tools/make_demo.py --labels demo_labels.csv  # write the label file that names them
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere
from ecg.packages import require_packages

require_packages()
from ecg import demo, files
from ecg.errors import exit_code
from ecg.settings import Parser


def run(options: argparse.Namespace) -> None:
    """Write the records, or the label file if its name is given."""
    if options.labels:
        files.check_target(options.labels)
        files.write_bytes(options.labels, demo.label_text().encode())
    else:
        n = demo.write_demo(options.data_dir)
        print(f"{n} synthetic records written below {options.data_dir}/demo")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--data-dir", default="mimic-iv-ecg",
                        help="folder in which to write demo/ (default: %(default)s)")
    parser.add_argument("--labels", metavar="FILE",
                        help="write the label file of the demo, and no records")
    return exit_code("make_demo.py", run, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

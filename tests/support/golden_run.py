"""The run that the READMEs show: kept in golden_run.txt, renewed by this program.

    python tests/support/golden_run.py    # runs the demo (a minute) and renews the READMEs' example

The script's docstring gives its balanced accuracy, too.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDEN = Path(__file__).with_name("golden_run.txt")
SCRIPT = ROOT / "too_feature.py"
READMES = ROOT / "README.md", ROOT / "README.zh-CN.md"
BLOCK = re.compile(r"(?<=^```text\n).*?(?=^```$)", re.S | re.M)

BALANCED = re.compile(r"balanced accuracy [\d.]+ \(95 % interval [\d.-]+\)")

# Beginnings of the lines that a README shows, of some hundred
SHOWN = (
    "597 records of", "8,461 parameters", "Test on", "balanced accuracy 0", "Rate rule",
    "Baseline: ", "THIS DATA IS")


def excerpt(text):
    """Return what a README shows of a run's output."""
    return "".join(f"{line}\n" for line in text.splitlines() if line.startswith(SHOWN))


def shape(line):
    """Return a line without what differs from run to run: its numbers, and blanks around them."""
    return re.sub(r"\d[\d.,]*", "#", " ".join(line.split()))


def main():
    """Run the demo as the README says, and renew what the READMEs show of it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(SCRIPT),
                   "--labels", str(ROOT / "ecg_5_class_data.csv")]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    text = run.stdout.replace(folder, "").replace(str(ROOT), "")
    GOLDEN.write_text(text, encoding="utf-8")
    for readme in READMES:
        old = readme.read_text(encoding="utf-8")
        readme.write_text(BLOCK.sub(lambda _: excerpt(text), old, count=1), encoding="utf-8")
    code = SCRIPT.read_text(encoding="utf-8")
    SCRIPT.write_text(BALANCED.sub(BALANCED.search(text)[0], code, count=1), encoding="utf-8")


if __name__ == "__main__":
    main()

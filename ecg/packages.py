"""Say in one line which packages are missing, before a program imports any of them."""

import importlib.util
import os
import sys

NEEDED = "numpy", "scipy", "pandas", "sklearn", "wfdb", "tqdm", "matplotlib", "joblib"


def require_packages() -> None:
    """End the program with exit code 2 if a package of requirements.txt is not installed.

    TensorFlow is not among them: the script imports it on first use, with an error of its own.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"error: not installed here: {', '.join(missing)}. Activate the environment (source "
              ".venv/bin/activate), or install them: pip install -r requirements.txt",
              file=sys.stderr)
        raise SystemExit(2)
    if "MPLBACKEND" in os.environ:
        check_backend(os.environ["MPLBACKEND"])


def check_backend(name: str) -> None:
    """End the program with exit code 2 if matplotlib, which Keras imports, refuses this MPLBACKEND.

    As matplotlib does so while it is imported, the blame would fall on whatever imports it first.
    """
    try:
        importlib.import_module("matplotlib")
    except ValueError:
        print(f"error: MPLBACKEND={name!r:.80}: matplotlib has no such backend. Unset this "
              "environment variable; figures go to files and need none", file=sys.stderr)
        raise SystemExit(2) from None

"""Say in one line which packages are missing, before a program imports any of them."""

import importlib.util
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

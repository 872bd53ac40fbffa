"""Say by what a result was made, so that it can be traced: version, commit and packages."""

import functools
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

# Packages that could change a result
PACKAGES = r"tensorflow(.cpu|.macos|.metal)?|keras|jax|numpy|scipy|pandas|scikit.learn|wfdb"


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that could change a result."""
    found = {"python": sys.version.split()[0], "platform": sys.platform}
    for package in importlib.metadata.distributions():
        if re.fullmatch(PACKAGES, package.name or ""):    # a broken installation has no name
            found[package.name] = package.version
    return found


def commit() -> str:
    """Return the commit of this repository that is checked out, or "" where there is none."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():    # git would look for another project's above
        return ""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(    # noqa: S603  a fixed command
            command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()

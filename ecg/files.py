"""Files that are never half written, hashes, and a folder that one run at a time writes to."""

import contextlib
import functools
import hashlib
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ecg.errors import UserError

ROOT = Path(__file__).resolve().parent.parent    # of this project's code

_claimed: dict[Path, int] = {}    # descriptors of locked folders, held until the process ends


def write_whole(path: Path | str, write: Callable) -> None:
    """Write a file as a whole: whatever happens, `path` is never half written.

    Parameters
    ----------
    path : the file, whose folder is made if necessary
    write : called with the path of a scratch file in the same folder, which it has to fill; the
        name ends as that of `path`, by which Keras tells formats apart

    Raises
    ------
    UserError
        The file cannot be written. Its `__cause__` is the error of the system.
    """
    path = Path(path)
    scratch = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(scratch)
        os.replace(scratch, path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file of this content as a whole, as `write_whole` does."""
    write_whole(path, lambda scratch: scratch.write_bytes(content))


def sweep(folder: Path, name: str = "*") -> None:
    """Remove the scratch files that killed runs have left in a folder, or those of one file."""
    for scratch in folder.glob(f".part-*-{name}"):
        with contextlib.suppress(OSError):    # it may belong to another user
            scratch.unlink()


def npz(*arrays: Any, **named: Any) -> bytes:
    """Return the content of an .npz file; NumPy itself would print a traceback on a full disk."""
    content = io.BytesIO()
    np.savez(content, *arrays, **named)
    return content.getvalue()


def check_target(path: Path | str, sources: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Raise `UserError`, before any work, if a file cannot be written or is one of the sources."""
    path = Path(path)
    if not os.access(path.absolute().parent, os.W_OK):
        raise UserError(f"{path}: its folder is missing or write-protected; choose another")
    if not path.exists():
        return

    if not path.is_file() or not os.access(path, os.W_OK):
        raise UserError(f"{path}: not a plain file, or write-protected; choose another name")
    if any(os.path.exists(source) and path.samefile(source) for source in sources):
        raise UserError(f"{path} is read as well as written; choose another name")


def results_folder(results: str, output: Path) -> Path:
    """Return the folder for a model's results: no two models, wherever they are, share one."""
    place = output.resolve().parent
    if place == Path(results).resolve().parent:    # next to the results: as most are
        return Path(results) / output.stem
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
    return Path(results) / f"{output.stem}-{digest}"


def claim(folder: Path, *outputs: Path) -> None:
    """Make a folder, lock it against other runs until this process ends, and sweep it.

    `outputs` are files elsewhere that only the run with this lock writes: their scratch files are
    removed, too.

    Raises
    ------
    UserError
        Another run is writing to it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; choose another folder") from error

    with contextlib.suppress(ImportError):    # Windows
        import fcntl

        if folder in _claimed:
            os.close(_claimed.pop(folder))
        _claimed[folder] = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(_claimed[folder], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another run is writing to {folder}: wait for it, or give this one "
                            "another --output") from error
        except OSError:    # a file system without locks, as on some clusters
            pass

    for inner in (folder, *folder.glob("**/")):
        sweep(inner)
    for output in outputs:
        sweep(output.parent, output.name)


def sha256(*paths: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, or of several one after the other, in hexadecimal."""
    content = b"".join(Path(path).read_bytes() for path in paths)
    return hashlib.sha256(content).hexdigest()


@functools.cache
def code_sha256() -> str:
    """Return the SHA-256 of the script, or a copy next to it, and of ecg/ but what draws results.

    Prepared records and states of training are used again only if it is the same: after an edit
    anywhere, a run's 2,300 records are prepared anew, in 9 s.
    """
    return sha256(*sorted(ROOT.glob("*.py")), *sorted(ROOT.glob("ecg/*.py")))

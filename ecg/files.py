"""Files that are never half written, folders of one run at a time, and a fingerprint of code."""

import ast
import contextlib
import errno
import functools
import hashlib
import inspect
import io
import os
import re
import symtable
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ecg.errors import UserError

ROOT = Path(__file__).resolve().parent.parent    # of this project's code
MOST_BYTES = 2**28    # of a file that is looked into, to tell whether it is ours
STALE = 3600    # s: writing a file takes seconds, so an older scratch file is nobody's any more

_claimed: dict[Path, io.BufferedWriter] = {}    # by lock file, held until the process ends
_owner = ""    # what the scratch files of this process begin with, from its claim on


# ------------------------------------------------------------------------------------------ files
def _scratch(path: Path, owner: str) -> Path:
    """Return the path of a new scratch file next to a file."""
    digits = owner + os.urandom(16).hex()
    return path.with_name(f".{digits[:32]}-{path.name}")


def write_whole(path: Path | str, write: Callable[[Path], Any], owner: str = "") -> Path:
    """Write a file as a whole: whatever happens, `path` is never half written.

    Parameters
    ----------
    path : the file, whose folder is made if necessary
    write : called with the path of a scratch file in the same folder, which it has to fill
    owner : the `owner()` of the process that this one works for, if any

    Returns
    -------
    Path
        `path`, to which the scratch file was moved.

    Raises
    ------
    UserError
        If the file cannot be written. Its `__cause__` is the error of the system.
    """
    path = Path(path)
    scratch = _scratch(path, owner or _owner)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(scratch)
        os.replace(scratch, path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()

    return path


def check_target(
    path: Path | str,
    sources: Iterable[str],
    is_own: Callable[[Path], bool],
    force: bool = False,
) -> None:
    """Find out before any work whether `write_whole` could write a file in the end, and should.

    Parameters
    ----------
    path : the file
    sources : names of the files that the program reads
    is_own : called with the path of an existing file; whether the program has once written it
    force : whether a file of somebody else may be replaced

    Raises
    ------
    UserError
        The file cannot be written, is one of the sources, or is somebody else's.
    """
    path = Path(path)
    is_odd = path.exists() and not path.is_file()
    if is_odd or (path.exists() and not os.access(path, os.W_OK)):
        raise UserError(f"{path}: not a plain file, or write-protected; choose another name")

    try:
        scratch = _scratch(path, _owner)    # the longest name, in bytes, that will be needed
        scratch.open("xb").close()
        scratch.unlink()
        if not path.exists():
            return
        is_source = any(os.path.exists(source) and path.samefile(source) for source in sources)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; choose another name or folder") from error

    if is_source:
        raise UserError(f"{path} is read as well as written; choose another name")
    refuse_foreign(path, is_own, force)


def refuse_foreign(path: Path, is_own: Callable[[Path], bool], force: bool = False) -> None:
    """Raise `UserError` if a file is there and somebody else's; parameters of `check_target`."""
    if os.path.lexists(path) and not (force or is_own(path)):
        raise UserError(f"{path} was not written by this program; choose another name, or replace "
                        "it with --force")


def holds(*marks: bytes) -> Callable[[Path], bool]:
    """Return a function that tells whether a file holds all marks of those that we write."""
    def is_own(path: Path) -> bool:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return False
        content = path.read_bytes()
        return all(mark in content for mark in marks)

    return is_own


def sha256(*paths: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, or of several one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------- folders
def sweep(folder: Path | str, age: float, owner: str = "") -> None:
    """Remove the scratch files of killed runs from a folder.

    Parameters
    ----------
    folder : which may not exist
    age : in s, of the youngest to remove; as many s in the future count as old, too
    owner : if given, only those of this owner
    """
    with contextlib.suppress(OSError):    # the folder may not exist
        for file in Path(folder).iterdir():
            with contextlib.suppress(OSError):    # the file may belong to someone else
                is_scratch = re.fullmatch(r"\.[0-9a-f]{32}-.+", file.name) and file.is_file()
                is_its = file.name.startswith(f".{owner}")
                if is_scratch and is_its and abs(time.time() - file.stat().st_mtime) >= age:
                    file.unlink()


def lock(file: io.BufferedWriter) -> bool:
    """Lock an open file; return False if another process holds its lock."""
    try:
        import fcntl
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):    # Windows; file systems without locks, as on some clusters
        pass

    return True


def owner() -> str:
    """Return what the scratch files of this process begin with; "" before it claims anything."""
    return _owner


def claim(folder: Path | str, shared: Iterable[Path | str] = (),
          output: Path | None = None) -> Path:
    """Make a folder and keep other runs out of it, and off a file, until this process ends.

    The scratch files that killed runs left in it are removed; from the folders `shared`, in which
    other runs may be writing at the moment, those of killed runs of the same file, and old ones.

    Parameters
    ----------
    folder : of one run at a time
    shared : folders of several
    output : the file, written by one run at a time; by default none but the folder is claimed

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UserError
        If one of the two cannot be written to, or another run is working there.
    """
    global _owner
    folder = Path(folder)
    _claim_one(folder, folder / ".lock")
    if output is not None:
        _claim_one(output, output.with_name(f".{output.name}.lock"))

    place = str((output or folder).resolve())
    _owner = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    for other in shared:
        sweep(other, 0, _owner)
        sweep(other, STALE)
    for own in (folder, *folder.glob("**/")):
        sweep(own, 0)
    return folder


def _claim_one(place: Path, lock_file: Path) -> None:
    """Lock a file that stands for a place until this process ends, or raise `UserError`."""
    lock_file = lock_file.absolute()
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        if lock_file.exists() and not lock_file.is_file():    # opening a FIFO would wait
            raise OSError(errno.EINVAL, f"{lock_file.name} is not a plain file")
        if lock_file in _claimed:
            _claimed.pop(lock_file).close()
        file = lock_file.open("ab")
    except OSError as error:
        raise UserError(f"{place}: {error.strerror}; choose another folder") from error

    if not lock(file):
        file.close()
        raise UserError(f"another run is writing to {place}: wait for it, or give this one "
                        "another --output")
    _claimed[lock_file] = file    # the system releases it, however the process ends


# ------------------------------------------------------------------------------------------- code
def fingerprint(*functions: Callable[..., Any]) -> str:
    """Return a hash of all code of this project that these functions reach.

    The code is followed from the functions' definitions through every name: to functions, classes
    with all their methods, and constants, of the same module and of modules that it imports. What
    does not change a result is left out: comments, docstrings, annotations, and the defaults of
    dataclasses, whose values belong into a key themselves. Installed packages are left out as
    well: their versions belong into the key.

    What is found at run time alone, such as `getattr(module, name)`, is not followed.

    Parameters
    ----------
    functions : functions or classes, also decorated ones and `functools.partial` objects

    Returns
    -------
    str
        64 hexadecimal digits, of the source as it was when first asked for.
    """
    return _fingerprint(*[_undecorated(function) for function in functions])


def is_imported(function: Callable[..., Any]) -> bool:
    """Tell whether workers import this function; one of `__main__` comes with its code."""
    return _undecorated(function).__module__ != "__main__"


def _undecorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside decorators and `functools.partial`."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(function)


@functools.cache
def _fingerprint(*functions: Callable[..., Any]) -> str:
    todo = []
    for function in functions:
        file = Path(inspect.getsourcefile(function) or "").resolve()
        parts = file.relative_to(ROOT).with_suffix("").parts
        todo.append((".".join(parts), function.__qualname__.split(".")[0]))

    found: dict[tuple[str, str], list[str]] = {}
    while todo:
        place = todo.pop()
        if place in found:
            continue

        found[place], reached = _definition(*place)
        todo += reached

    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


@functools.cache    # shared by the fingerprints of all functions
def _definition(name: str, definition: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the code of a definition in a module, and the places of all that it reaches."""
    module = _read_module(name)
    reached = module.meanings(definition)    # it may be imported from yet another module
    statements = module.definitions.get(definition, [])
    code = [ast.unparse(statement) for statement in statements]
    for statement, text in zip(statements, code, strict=True):
        for dotted in _used_by(statement, text):
            reached += module.meanings(dotted)
    return code, reached


@functools.cache
def _read_module(name: str) -> "_Module":
    return _Module(name)


class _Module:
    """The statements that define each name of a module, and the dotted names that it imports."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, list[str]] = {}    # one name may mean several things

        tree = ast.parse(_source(name).read_bytes())
        _strip(tree)
        for statement in tree.body:
            for bound in _bound_by(statement):
                self.definitions.setdefault(bound, []).append(statement)

        for node in ast.walk(tree):    # imports inside functions, too
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.split(".")[0]
                    self._add_import(alias.asname or first, alias.name if alias.asname else first)
            elif isinstance(node, ast.ImportFrom):
                if node.level:
                    raise ValueError(f"{name}: relative imports cannot be followed")
                for alias in node.names:
                    self._add_import(alias.asname or alias.name, f"{node.module}.{alias.name}")

    def _add_import(self, known_as: str, dotted: str) -> None:
        self.imports.setdefault(known_as, []).append(dotted)

    def meanings(self, dotted: str) -> list[tuple[str, str]]:
        """Return (module, definition) of everything in this project that a.b.c can mean here."""
        first, *rest = dotted.split(".")
        places = [(self.name, first)] if first in self.definitions else []
        for imported in self.imports.get(first, []):
            parts = [*imported.split("."), *rest]
            for n in range(1, len(parts)):    # a.b.c is b of a, or c of a.b
                module = ".".join(parts[:n])
                if _source(module).exists():
                    places.append((module, parts[n]))
        return places


def _source(module: str) -> Path:
    """Return the file of a module, if it is of this project."""
    whole = ROOT / f"{module}.py"
    if whole.is_file():    # also a copy of the script whose name has a point
        return whole
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _strip(tree: ast.Module) -> None:
    """Remove docstrings, annotations, and the defaults of dataclasses."""
    has_docstring = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, has_docstring) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        if isinstance(node, ast.ClassDef) and _is_dataclass(node):
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign):
                    statement.value = None


def _is_dataclass(node: ast.ClassDef) -> bool:
    """Tell whether a class is a dataclass, such as one of settings."""
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _used_by(statement: ast.stmt, text: str) -> set[str]:
    """Return the names, such as a.b.c, that a statement takes from its module or imports."""
    outside = set()
    tables = [symtable.symtable(text, "", "exec")]
    for table in tables:    # which grows by those of inner functions
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global() or symbol.is_imported() or table.get_type() == "module":
                outside.add(symbol.get_name())

    dotted = {_dotted(node) for node in ast.walk(statement)
              if isinstance(node, ast.Name | ast.Attribute)}
    return {name for name in dotted if name.split(".")[0] in outside}


def _dotted(node: ast.AST) -> str:
    """Return a name such as a.b.c as it is written; what is no such name starts with a point."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _bound_by(statement: ast.stmt) -> set[str]:
    """Return the names that a top-level statement defines or changes."""
    definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    if isinstance(statement, definition):
        return {statement.name}

    targets: list[ast.AST] = []
    if isinstance(statement, ast.Expr):    # such as table.update(...)
        targets.append(statement)

    names = set()
    for node in ast.walk(statement):
        if isinstance(node, definition):    # inside an `if`
            names.add(node.name)
        if isinstance(getattr(node, "ctx", None), ast.Store):
            targets.append(node)    # table["x"] changes `table`
    for target in targets:
        names |= {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
    return names

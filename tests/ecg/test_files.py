"""Files that are never half written, folders of one run at a time, and fingerprints of code."""

import functools
import hashlib
import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ecg import files
from ecg.errors import UserError

SCRATCH = f".{'0a' * 16}-model.keras"


# ------------------------------------------------------------------------------------ whole files
def test_a_file_is_written_as_a_whole_and_its_folder_is_made(tmp_path):
    path = tmp_path / "new" / "file.txt"

    def write(scratch):
        assert scratch.parent == path.parent    # so that it can be moved
        assert not path.exists()
        scratch.write_text("all of it")

    assert files.write_whole(path, write) == path
    assert path.read_text() == "all of it"
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(28, "No space left")])
def test_what_goes_wrong_half_way_leaves_the_old_file_and_no_scratch_file(error, tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write(scratch):
        scratch.write_text("ha")
        raise error

    expected = UserError if isinstance(error, OSError) else error
    with pytest.raises(expected) as raised:
        files.write_whole(path, write)
    if expected is UserError:
        assert str(raised.value) == f"{path}: No space left; choose another folder"
        assert raised.value.__cause__ is error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert files.sha256(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()


# ---------------------------------------------------------------------------------------- folders
def test_only_scratch_files_are_swept_and_only_old_ones(tmp_path):
    for name in (SCRATCH, f"{SCRATCH}.too", ".0a-short", "0a", "model.keras"):
        (tmp_path / name).touch()
    os.utime(tmp_path / SCRATCH, (1, 1))
    (tmp_path / f".{'0b' * 16}-folder").mkdir()
    files.sweep(tmp_path, files.STALE)
    left = {".0a-short", "0a", "model.keras", f".{'0b' * 16}-folder"}
    assert set(os.listdir(tmp_path)) == {*left, f"{SCRATCH}.too"}
    files.sweep(tmp_path, 0)
    assert set(os.listdir(tmp_path)) == left
    files.sweep(tmp_path / "missing", 0)


def test_a_claimed_folder_is_made_and_swept_with_those_inside(tmp_path):
    folder, shared = tmp_path / "a/results", tmp_path / "shared"
    for parent in (folder / "progress", shared):
        parent.mkdir(parents=True)
        (parent / SCRATCH).touch()
    assert files.claim(str(folder), [shared]) == folder
    assert os.listdir(folder / "progress") == []
    assert os.listdir(shared) == [SCRATCH]    # another run may be writing it
    assert files.claim(folder) == folder    # the same process may do so again


@pytest.mark.skipif(os.name == "nt", reason="no locks there")
def test_a_folder_that_another_process_has_claimed_is_refused_until_that_ends(tmp_path):
    code = ("import sys; from ecg import files; files.claim(sys.argv[1]); "
            "print('claimed', flush=True); sys.stdin.read()")
    with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], text=True,
            cwd=files.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(UserError, match="another run is writing"):
            files.claim(tmp_path)
        other.kill()
    assert files.claim(tmp_path) == tmp_path


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/folder: .*choose another folder"):
        files.claim(tmp_path / "file/folder")


# ------------------------------------------------------------------------------------------- code
PROJECT = {
    "room.py": '''
        """A room."""
        import math

        SCALE = 2
        UNITS, OTHERS = ("mV", "s"), ["Hz"]
        OTHERS.append("bpm")
        TABLE = {}
        TABLE["x"] = 1
        TOTAL = 1
        TOTAL += 1


        def helper(x: int) -> float:
            """Scale it."""
            # by a constant
            y: float = x * SCALE
            return y


        class Thing:
            """A thing."""

            def method(self):
                return deep()


        def deep():
            return math.pi


        def not_reached():
            return 1
        ''',
    "package/__init__.py": "",
    "package/inner.py": '''
        LIMIT = 5


        def clip(x):
            return min(x, LIMIT)
        ''',
    "main.py": '''
        import contextlib
        import functools

        import room
        from package import inner
        from room import UNITS, Thing


        def start(x, scale=room.TOTAL):
            """Start here."""
            from package.inner import clip as cut
            return cut(room.helper(x)) + Thing().method() + len(UNITS) + room.TABLE["x"] * scale


        @functools.cache
        def cached(x):
            return inner.LIMIT


        @contextlib.contextmanager
        def context():
            yield room.OTHERS


        def shadowed(inner, room):
            not_reached = 1
            return inner.LIMIT + not_reached


        def not_reached():
            return 1


        start_later = functools.partial(start, 1)


        if __name__ == "__main__":
            import sys
            sys.exit(not_reached())
        '''}


def forget_modules():
    """Have fingerprints read modules anew: another folder has others of the same names."""
    files._definition.cache_clear()
    files._read_module.cache_clear()


@pytest.fixture
def fingerprint(tmp_path, monkeypatch):
    """Write the project to a new folder, with changes (file, old, new); return a fingerprint."""
    def of(*changes, name="start"):
        folder = tmp_path / str(len(os.listdir(tmp_path)))
        for file, text in PROJECT.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(textwrap.dedent(text))
        for file, old, new in changes:
            text = (folder / file).read_text()
            assert text.count(old) == 1
            (folder / file).write_text(text.replace(old, new))

        with monkeypatch.context() as patch:
            patch.setattr(files, "ROOT", folder)
            forget_modules()
            patch.syspath_prepend(folder)
            for module in ("main", "room", "package", "package.inner"):
                patch.delitem(sys.modules, module, raising=False)
            spec = importlib.util.spec_from_file_location("main", folder / "main.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            found = files.fingerprint(getattr(module, name))
            for name in ("room", "package", "package.inner"):
                sys.modules.pop(name, None)
        return found

    return of


def test_the_same_code_in_another_folder_has_the_same_fingerprint(fingerprint):
    assert fingerprint() == fingerprint()
    assert len(fingerprint()) == 64


@pytest.mark.parametrize(("file", "old", "new"), [
    ("main.py", "cut(room", "1 + cut(room"),
    ("room.py", "y: float = x * SCALE", "y: float = x * SCALE + 1"),
    ("room.py", "SCALE = 2", "SCALE = 3"),
    ("room.py", '("mV", "s")', '("mV", "ms")'),
    ("room.py", 'TABLE["x"] = 1', 'TABLE["x"] = 2'),
    ("room.py", "TOTAL += 1", "TOTAL += 2"),
    ("room.py", "return deep()", "return 2 * deep()"),
    ("room.py", "math.pi", "math.e"),
    ("package/inner.py", "min(x, LIMIT)", "min(LIMIT, x)"),
    ("package/inner.py", "LIMIT = 5", "LIMIT = 6")],
    ids=["function", "helper", "constant of a helper", "one of two constants", "entry of a table",
         "constant that is added to", "method", "helper of a method", "function imported inside",
         "constant of another module's helper"])
def test_a_change_of_what_is_reached_changes_it(file, old, new, fingerprint):
    assert fingerprint((file, old, new)) != fingerprint()


def test_a_change_of_words_alone_does_not_change_it(fingerprint):
    assert fingerprint(
        ("main.py", '"""Start here."""', '"""Begin here, with other words."""'),
        ("room.py", '"""A room."""', '"""Another."""'),
        ("room.py", '"""A thing."""', '"""Something."""'),
        ("room.py", '    """Scale it."""\n', ""),
        ("room.py", "# by a constant", "# by\n    # the constant"),
        ("room.py", "x: int) -> float", "x: float) -> int"),
        ("room.py", "y: float =", "y: int ="),
        ("room.py", '"mV", "s"', "'mV',    's'")) == fingerprint()


def test_a_change_of_what_is_not_reached_does_not_change_it(fingerprint):
    assert fingerprint(
        ("main.py", "def not_reached():\n    return 1", "def not_reached():\n    return 2"),
        ("room.py", "def not_reached():\n    return 1", "def other():\n    return 2"),
    ) == fingerprint()


@pytest.mark.parametrize("name", ["cached", "context", "start_later"])
def test_decorated_and_partial_functions_are_those_inside(name, fingerprint):
    change = {"cached": ("package/inner.py", "LIMIT = 5", "LIMIT = 6"),
              "context": ("room.py", 'append("bpm")', 'append("kg")'),
              "start_later": ("room.py", "SCALE = 2", "SCALE = 3")}[name]
    assert fingerprint(name=name) == fingerprint(name=name)
    assert fingerprint(change, name=name) != fingerprint(name=name)


def test_a_name_that_a_local_variable_hides_is_not_followed(fingerprint):
    changes = [("package/inner.py", "LIMIT = 5", "LIMIT = 6"),
               ("main.py", "def not_reached():\n    return 1", "def not_reached():\n    return 2")]
    assert fingerprint(*changes, name="shadowed") == fingerprint(name="shadowed")


DATACLASS = ("room.py", "SCALE = 2", '''SCALE = Recipe().scale


@dataclass
class Recipe:
    scale: float = field(2, "how much")

    def check(self):
        return 1
''')


@pytest.mark.parametrize(("old", "new", "is_same"), [
    ('"how much"', '"by how much"', True), ("field(2", "field(3", True),
    ("        return 1", "        return 2", False)],
    ids=["help text", "default", "method"])
def test_settings_count_by_their_values_which_belong_into_a_key(old, new, is_same, tmp_path,
                                                               monkeypatch):
    found = []
    for n, text in enumerate((DATACLASS[2], DATACLASS[2].replace(old, new))):
        folder = tmp_path / str(n)
        folder.mkdir()
        (folder / "room.py").write_text(f"{text}\n\ndef start():\n    return Recipe()\n")
        monkeypatch.setattr(files, "ROOT", folder)
        forget_modules()
        names = {}
        exec(compile("def start(): pass", str(folder / "room.py"), "exec"), names)  # noqa: S102
        found.append(files.fingerprint(names["start"]))
    assert (found[0] == found[1]) == is_same


def test_the_code_of_a_file_whose_name_has_a_point_is_found(tmp_path, monkeypatch):
    text = "def start():\n    return 1\n"
    file = tmp_path / "room.v2.py"
    file.write_text(text)
    monkeypatch.setattr(files, "ROOT", tmp_path)
    forget_modules()
    names = {}
    exec(compile(text, str(file), "exec"), names)  # noqa: S102
    assert len(files.fingerprint(names["start"])) == 64


def test_a_fingerprint_is_the_same_in_another_process_and_under_another_name():
    """Such as in a worker, or where the module is run as a program."""
    code = ("import sys, importlib.util; sys.path.insert(0, sys.argv[1])\n"
            "from ecg import files\n"
            "spec = importlib.util.spec_from_file_location('__mp_main__', files.__file__)\n"
            "copy = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(copy)\n"
            "print(files.fingerprint(copy.claim))")
    result = subprocess.run([sys.executable, "-c", code, str(files.ROOT)], capture_output=True,
                            text=True, check=True, cwd=Path("/"))
    assert result.stdout.strip() == files.fingerprint(files.claim)


def test_several_functions_have_one_fingerprint_and_source_is_read_once(monkeypatch):
    one = files.fingerprint(files.claim, files.sha256)
    assert one != files.fingerprint(files.claim)
    monkeypatch.setattr(files, "_Module", None)    # it would fail to read it again
    assert files.fingerprint(functools.partial(files.claim), files.sha256) == one


def test_code_outside_of_the_project_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="not in the subpath"):
        files.fingerprint(textwrap.dedent)

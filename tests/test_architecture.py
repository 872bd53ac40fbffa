"""Three floors, every import an import statement, every arrow down; and plain code."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = "ecg", "too_feature", "tools", "benchmarks", "tests"    # from the bottom to the top
NEIGHBOURS = {"ecg", "tools", "benchmarks", "tests"}             # floors of more than one file
SOURCES = sorted(
    path for path in [ROOT / "too_feature.py", *(
        path for floor in NEIGHBOURS for path in (ROOT / floor).rglob("*.py"))])
PROGRAMS = [path for path in SOURCES if path.parent.name in ("tools", "benchmarks")
            and path.parent.parent == ROOT and "__main__" in path.read_text(encoding="utf-8")]
SHIPPED = [path for path in SOURCES if "tests" not in path.relative_to(ROOT).parts]
LONGER = {"run": 55}    # lines; all other functions have 45 at most


def name_of(path):
    """Return the dotted name of a module of this project."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_by(path):
    """Return the modules of this project that a file imports."""
    known = {name_of(source) for source in SOURCES}
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= known.intersection(names)
    return found


IMPORTS = {name_of(path): imported_by(path) for path in SOURCES}


def floor_of(module):
    """Return how high a module lies."""
    return FLOORS.index(module.split(".")[0])


@pytest.mark.parametrize("module", IMPORTS)
def test_no_import_goes_up(module):
    above = [other for other in IMPORTS[module] if floor_of(other) > floor_of(module)]
    assert not above


def test_tests_import_no_tests():
    wrong = {module: other for module, others in IMPORTS.items() for other in others
             if other.split(".")[-1].startswith("test_")}
    assert not wrong


def test_no_imports_go_in_a_circle():
    todo = {module: {other for other in others if other != module and other not in NEIGHBOURS}
            for module, others in IMPORTS.items()}
    while todo:
        free = {module for module, others in todo.items() if not others & todo.keys()}
        assert free, f"a circle among {sorted(todo)}"
        todo = {module: others for module, others in todo.items() if module not in free}


def test_every_room_is_imported_by_what_uses_it():
    used = set().union(*IMPORTS.values())
    rooms = [module for module in IMPORTS if module.startswith("ecg.")]
    tested_only = [room for room in rooms if room not in set().union(*(
        others for module, others in IMPORTS.items() if not module.startswith("tests")))]
    assert set(rooms) <= used
    assert tested_only == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_run_by_its_path(path):
    if path != Path(__file__):
        text = path.read_text(encoding="utf-8")
        assert not [word for word in ("runpy", "needed=False", "__globals__") if word in text]


@pytest.mark.parametrize("path", PROGRAMS, ids=name_of)
def test_a_program_begins_with_the_same_two_lines(path):
    text = path.read_text(encoding="utf-8")
    assert ("ROOT = Path(__file__).resolve().parent.parent\n"
            "sys.path.insert(0, str(ROOT))    # to run from anywhere\n") in text


# ------------------------------------------------------------------------------------ plain code
def docstring_lines(tree):
    """Return the numbers of all lines that belong to a docstring."""
    lines = set()
    for node in ast.walk(tree):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            lines |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def tokens_a_line(text, skipped):
    """Return the mean number of names, operators, numbers and strings on a line that holds any."""
    counted = tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING
    per_line = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in counted and token.start[0] not in skipped:
            per_line[token.start[0]] = per_line.get(token.start[0], 0) + 1
    return sum(per_line.values()) / max(1, len(per_line))


def longest_run(text, skipped):
    """Return the most lines in a row without a blank one."""
    longest = run = 0
    for number, line in enumerate(text.splitlines(), start=1):
        run = run + 1 if line.strip() and number not in skipped else 0
        longest = max(longest, run)
    return longest


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_code_is_plain(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    skipped = docstring_lines(tree)
    too_long = {
        node.name: node.end_lineno - node.lineno + 1 for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > LONGER.get(node.name, 45)}
    assert not too_long
    assert longest_run(text, skipped) <= 20
    assert tokens_a_line(text, skipped) <= 11.5

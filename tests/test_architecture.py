"""Three floors, every import an import statement, every arrow down; and plain code."""

import ast
import io
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOORS = "ecg", "too_feature", "tools", "benchmarks", "tests"    # from the bottom to the top
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [ROOT / "too_feature.py", *(
        path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py")))]}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
SHIPPED = [name for name in SOURCES if not name.startswith("tests")]


def imported_by(tree):
    """Return the modules of this project that a file imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & SOURCES.keys()


IMPORTS = {name: imported_by(tree) for name, tree in TREES.items()}


def test_no_import_goes_up_and_tests_import_no_tests():
    def height(name):
        return FLOORS.index(name.split(".")[0])

    up = [(name, other) for name, others in IMPORTS.items() for other in others
          if height(other) > height(name) or other.rpartition(".")[2].startswith("test_")]
    assert not up


def test_no_imports_go_in_a_circle():
    todo = {name: others - {name, *FLOORS[2:], "ecg"} for name, others in IMPORTS.items()}
    while todo:
        free = {name for name, others in todo.items() if not others & todo.keys()}
        assert free, f"a circle among {sorted(todo)}"
        todo = {name: others for name, others in todo.items() if name not in free}


def test_every_module_of_ecg_is_used_by_more_than_tests():
    used = set().union(*(IMPORTS[name] for name in SHIPPED))
    assert {name for name in SHIPPED if name.startswith("ecg.")} <= used


def test_every_program_runs_from_anywhere_and_runs_nothing_by_its_path():
    programs = [name for name in SHIPPED if name.startswith(("tools.", "benchmarks."))
                and "__main__" in SOURCES[name].read_text(encoding="utf-8")]
    assert len(programs) > 8
    for name in programs:
        text = SOURCES[name].read_text(encoding="utf-8")
        assert ("sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    "
                "# to run from anywhere\n") in text, name
        assert "runpy" not in text, name


# ------------------------------------------------------------------------------------ plain code
def docstring_lines(tree):
    """Return the numbers of all lines that belong to a docstring."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    documented = [node for node in ast.walk(tree) if isinstance(node, kinds)
                  and ast.get_docstring(node, clean=False) is not None]
    return {line for node in documented
            for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)}


def tokens_per_line(text, skipped):
    """Return how many names, operators, numbers and strings each line holds, by its number."""
    counted = tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING
    per_line = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in counted and token.start[0] not in skipped:
            per_line[token.start[0]] = per_line.get(token.start[0], 0) + 1
    return per_line


def longest_run(text, skipped):
    """Return the most lines in a row without a blank one."""
    longest = run = 0
    for number, line in enumerate(text.splitlines(), start=1):
        run = run + 1 if line.strip() and number not in skipped else 0
        longest = max(longest, run)
    return longest


def test_code_is_plain():
    dense, unbroken, long = {}, {}, {}
    for name in SHIPPED:
        text = SOURCES[name].read_text(encoding="utf-8")
        skipped = docstring_lines(TREES[name])
        counts = tokens_per_line(text, skipped).values()
        dense[name] = sum(counts) / max(1, len(counts))
        unbroken[name] = longest_run(text, skipped)
        for node in ast.walk(TREES[name]):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                long[f"{name}.{node.name}"] = node.end_lineno - node.lineno + 1

    if sys.version_info < (3, 12):    # later, each part of an f-string is a token
        assert {name for name, density in dense.items() if density > 11.5} == set()
    assert {name for name, lines in unbroken.items() if lines > 20} == set()
    assert {name for name, lines in long.items() if lines > 55} == set()

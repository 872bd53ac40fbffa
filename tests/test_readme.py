"""README.md and README.zh-CN.md say the same, and what they say is what the code takes and prints.

No TensorFlow: commands go to the parsers only, and the example is compared with a run that is kept.
"""

import argparse
import collections
import dataclasses
import functools
import importlib
import re
import shlex
import subprocess
from pathlib import Path
from unittest import mock

import pytest

import too_feature
from tests.support import golden_run

ROOT = Path(too_feature.__file__).parent
README, CHINESE = "README.md", "README.zh-CN.md"
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in (README, CHINESE)}
MARKER = "<!-- test command -->"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.S | re.M)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"!?\[[^]]*\]\([^)]+\)|<https?://[^>]+>")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
DEFAULTS = dataclasses.asdict(too_feature.Settings())
DEFAULTS |= DEFAULTS["recipe"] | {"recipe": "default", "set": False}

# Programs that are not ours, and their flags
FOREIGN = {"git": set(), "cd": set(), "conda": set(), "pip": set(), "source": set(),
           "tensorboard": {"--logdir"}}
# These take the flags of the script, too
TAKE_ALL = "tools/check_labels.py", "tools/fetch_records.py", "benchmarks/shipped.py"
# Defaults that the table of settings puts in words
WORDS = {"": False, "none": "", "automatic": None, "无": "", "自动": None}


def outside(text):
    """Return a README without its fenced blocks, whose places stay to be seen."""
    return BLOCK.sub("(block)\n", text)


def sections(text):
    """Return [(level of the heading, [units])]; a unit is a paragraph, list item or table row."""
    found, border = [], r"\n\n+|\n(?=- |\d+\. |\||<!--)"
    for part in re.split(r"^(?=#+ )", outside(text), flags=re.M)[1:]:
        heading, _, body = part.partition("\n")
        units = [" ".join(unit.split()) for unit in re.split(border, body)]
        found.append((len(heading) - len(heading.lstrip("#")), [heading, *filter(None, units)]))
    return found


def pairs():
    """Return the (English, Chinese) units, but not those that lead from one README to the other."""
    both = zip(*map(sections, TEXTS.values()), strict=True)
    return [(ours, theirs) for (_, one), (_, two) in both
            for ours, theirs in zip(one, two, strict=True) if CHINESE not in ours]


def commands(name):
    """Return every command of a README, from blocks and prose: lists of words, comments and all."""
    lines = [line for kind, block in BLOCK.findall(TEXTS[name]) if kind == "sh"
             for line in block.splitlines()]
    programs = "|".join(["python", *FOREIGN])
    lines += [span for span in CODE.findall(outside(TEXTS[name]))
              if re.match(rf"({programs}) ", span)]
    return [shlex.split(command, comments=True) for line in lines for command in line.split(" && ")]


class CapturedError(Exception):
    """Carries a parser out of a program's `main`."""


@functools.cache
def parser_of(path):
    """Return the parser of a program of this repository."""
    main = importlib.import_module(path.removesuffix(".py").replace("/", ".")).main

    def capture(self, *_):
        raise CapturedError(self)

    with (mock.patch.object(argparse.ArgumentParser, "parse_known_args", capture),
          pytest.raises(CapturedError) as found):
        main([])
    return found.value.args[0]


def parse(path, arguments):
    """Give arguments to the program's parser, which exits if it refuses them; return the rest."""
    if path == "too_feature.py":
        start = too_feature.RECIPES["large"], [], {}    # of the model that --start-from names
        with mock.patch.object(too_feature, "read_start", lambda name: start):
            too_feature.parse_settings(arguments)
        return []
    _, rest = parser_of(path).parse_known_args(arguments)
    if path in TAKE_ALL:
        too_feature.parse_settings(rest)
        return []
    return rest


def flags_of(path):
    """Return all flags of a program of this repository."""
    own = {flag for flag in parser_of(path)._option_string_actions if flag.startswith("--")}
    return own | (flags_of("too_feature.py") if path in TAKE_ALL else set())


# ------------------------------------------------------------------------------- the two editions
def test_fenced_blocks_are_identical_and_one_is_marked_as_the_test_command():
    english, chinese = map(BLOCK.findall, TEXTS.values())
    assert english == chinese
    assert len(english) > 5
    for text in TEXTS.values():
        assert text.count("```") == 2 * len(english)    # none that the pattern misses
        assert text.count(MARKER) == 1


def test_headings_and_units_match():
    english, chinese = map(sections, TEXTS.values())
    assert [level for level, _ in english] == [level for level, _ in chinese]
    for (_, ours), (_, theirs) in zip(english, chinese, strict=True):
        assert len(ours) == len(theirs), (ours[0], theirs[0])


@pytest.mark.parametrize("pattern", [NUMBER, CODE, LINK], ids=["numbers", "code", "links"])
def test_numbers_code_and_links_match_in_each_unit(pattern):
    def content(unit):
        found = pattern.findall(unit)
        if pattern is LINK:    # the texts of links are translated
            found = [re.sub(r"\[[^]]*\]", "[]", link) for link in found]
        return found if unit.startswith("|") else collections.Counter(found)    # rows keep order

    for ours, theirs in pairs():
        assert content(ours) == content(theirs), (ours, theirs)


def test_no_paragraph_is_left_in_english():
    for ours, theirs in pairs():
        if not ours.startswith(("|", "(block)", MARKER)):
            assert re.search("[\u4e00-\u9fff]", theirs), theirs
            assert not re.search("[\u4e00-\u9fff]", ours), ours


# ------------------------------------------------------------------------------ what they say is so
@pytest.mark.parametrize("name", TEXTS)
def test_every_command_names_files_that_exist_and_flags_that_its_parser_takes(name):
    ours = 0
    for program, *arguments in commands(name):
        if ">" in arguments:
            arguments = arguments[:arguments.index(">")]
        if re.fullmatch(r"(\.venv/bin/)?python3?", program) and arguments[0] != "-m":
            path, *arguments = arguments
            assert (ROOT / path).is_file(), path
            assert parse(path, arguments) == []
            ours += 1
        elif "python" in program:
            assert arguments[1:] in (["venv", ".venv"], ["pytest", "-n", "2"])
        else:
            known = FOREIGN[program.removeprefix(".venv/bin/")]
            assert set(filter(FLAG.fullmatch, arguments)) <= known
            if arguments[:2] == ["install", "-r"]:
                assert (ROOT / arguments[2]).is_file()
    assert ours > 10


def test_every_command_of_models_is_taken_by_its_parser():
    text = (ROOT / "models/README.md").read_text(encoding="utf-8")
    lines = [line for _, block in BLOCK.findall(text) for line in block.splitlines()
             if "python " in line]
    assert len(lines) == 6
    for line in lines:
        once = re.sub("^for recipe in .+; do (.+); done$", r"\1", line).replace("$recipe", "large")
        program, path, *arguments = shlex.split(once, comments=True)
        assert program == "python"
        assert parse(path, arguments) == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_flag_is_one_of_a_program(name):
    programs = re.findall(r"(?:tools/|benchmarks/|\b)\w+\.py", TEXTS[name])
    known = set().union(*FOREIGN.values(), *(
        flags_of(path) for path in programs if (ROOT / path).is_file()))
    flags = set(FLAG.findall(TEXTS[name]))
    assert flags <= known
    assert len(flags) > 15


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_and_every_record_of_the_demo_leads_somewhere(name):
    links = re.findall(r"\]\(([^):]+)\)", TEXTS[name])
    assert len(links) > 4
    assert not [link for link in links if not (ROOT / link).exists()]
    labels = too_feature.read_labels(ROOT / too_feature.Settings.labels)
    records = re.findall(r"mimic-iv-ecg/(demo/[\w/]+/\d+)", TEXTS[name])
    assert records and set(records) <= set(labels["waveform_path"])


@pytest.mark.parametrize("name", TEXTS)
def test_the_table_of_settings_tells_the_defaults(name):
    seen = set()
    table, = (units for _, units in sections(TEXTS[name]) if "## Settings" in units[0]
              or "## 设置" in units[0])
    for row in [unit for unit in table if unit.startswith("| `--")]:
        flags, default = row.strip("|").split("|")[:2]
        flags = CODE.findall(flags)
        values = [value.strip("` ") for value in re.split(", |、", default)]
        plain = [flag for flag in flags if not flag.startswith("--no-")]
        values *= len(plain) if len(values) == 1 else 1
        for flag, value in zip(plain, values, strict=True):
            field = flag[2:].replace("-", "_")
            expected = DEFAULTS[field]
            told = WORDS[value] if value in WORDS else type(expected)(value)
            assert (told, type(told)) == (expected, type(expected)), flag
            seen.add(field)
        for flag in set(flags) - set(plain):    # what can be switched off is on, or automatic
            assert DEFAULTS[flag[5:].replace("-", "_")] is not False, flag
    assert len(seen) > 8


def test_ci_extracts_the_one_test_command():
    extract, = (line for line in (ROOT / ".ci/run").read_text().splitlines()
                if line.startswith("command=$("))
    command = subprocess.run(["bash", "-euo", "pipefail", "-c", f'{extract}\necho "$command"'],
                             cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    block = BLOCK.match(TEXTS[README].partition(MARKER + "\n")[2])
    assert command.stdout == block[2]
    assert command.stdout.count("\n") == 1
    assert command.stdout.endswith(".venv/bin/python -m pytest -n 2\n")


# ------------------------------------------------------------------------------ the example report
def test_the_example_is_that_of_the_golden_run():
    text = golden_run.GOLDEN.read_text(encoding="utf-8")
    for readme in TEXTS.values():
        assert golden_run.BLOCK.search(readme)[0] == golden_run.excerpt(text)
    assert 9 <= len(golden_run.excerpt(text).splitlines()) <= 12


def test_the_script_itself_gives_the_accuracy_of_the_golden_run():
    balanced = golden_run.BALANCED.search(golden_run.GOLDEN.read_text(encoding="utf-8"))[0]
    assert golden_run.BALANCED.search(too_feature.__doc__)[0] == balanced

"""Settings and the command line: what can be set, and one line of error for whatever is wrong."""

import dataclasses
import re
import subprocess
import sys

import pytest

import too_feature as script
from ecg.errors import UserError
from tests.support.runs import ROOT, one_line, python
from too_feature import RECIPES, Recipe, Settings, parse_settings

OF_RECIPE = {field.name: field for field in dataclasses.fields(Recipe)}
OF_SETTINGS = {field.name: field for field in dataclasses.fields(Settings)}


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """A function: the one line with which the script refuses flags, before it does anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "read_labels", lambda *_: pytest.fail("labels were read"))

    def run(*flags):
        try:
            code = script.main(list(flags))
        except SystemExit as stop:    # argparse's
            code = stop.code
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        assert len(err) < 500
        return one_line(err).removeprefix("too_feature.py: error: ")

    return run


# ------------------------------------------------------------------------------------------ --help
@pytest.fixture(scope="module")
def printed():
    """What `--help` prints in a new process and then, on a line, which large packages it loaded."""
    return python(ROOT, """
import sys, too_feature
try: too_feature.main(['--help'])
except SystemExit as stop: assert not stop.code
print([name for name in ('tensorflow', 'keras', 'matplotlib') if name in sys.modules])""")


def test_help_shows_every_flag_in_its_group_and_loads_no_tensorflow(printed):
    flags = printed.partition("settings of the method, for --set:\n")[0]
    parts = re.split(r"(?m)^(\S.*):$", flags)
    shown = {title: set(re.findall(r"(?m)^  (--[a-z-]+)", part))
             for title, part in zip(parts[1::2], parts[2::2], strict=True)}
    expected = {"options": set(), "this run": {"--set"}}
    for name, field in (OF_SETTINGS | OF_RECIPE).items():
        if title := field.metadata["group"]:
            expected.setdefault(title, set()).add("--" + name.replace("_", "-"))
    assert shown == expected
    assert [*shown] == ["options", "your data", "this run", "what people tune"]
    assert sum(map(len, shown.values())) == 32
    assert printed.splitlines()[-1] == "[]"


def test_help_shows_every_setting_of_the_method_with_its_default_and_range(printed):
    lines = printed.partition("settings of the method, for --set:\n")[2].splitlines()[:-1]
    assert len(lines) == 23
    assert ("  high_pass=0.5: Hz below which baseline wander is removed; 0: none (a number from 0 "
            "to 5)") in lines


# ---------------------------------------------------------------------------- values and defaults
def test_defaults_are_the_constants_that_users_edit_and_the_numbers_of_the_thesis():
    settings = parse_settings([])
    assert settings == Settings()
    recipe = settings.recipe
    assert (script.BATCH_SIZE, script.EPOCHS, script.SEQUENCE_LENGTH) == (4, 15, 500)
    assert settings.train_samples == script.TRAIN_SAMPLES == 1500
    assert (settings.val_samples, settings.test_samples, settings.seed) == (300, 400, 42)
    assert (recipe.stop_patience, recipe.reduce_patience, recipe.learning_rate) == (5, 3, 0.0005)


def test_the_thesis_recipe_undoes_all_that_differs_from_the_thesis():
    thesis = parse_settings(["--recipe", "thesis"]).recipe
    assert (thesis.batch_size, thesis.epochs, thesis.learning_rate) == (4, 15, 0.0005)
    assert (thesis.high_pass, thesis.central_share, thesis.scale_span) == (0, 0.5, 1)    # quartiles
    assert (thesis.shift, thesis.lead_gain, thesis.amplitude_noise) == (0, 0, 0)
    assert (thesis.lstm_memory, thesis.schedule, thesis.keep_weights) == (0, "plateau", "best")


@pytest.mark.parametrize(("flags", "expected"), [
    (["--batch-size", "1"], "a whole number from 2 to 4096"),
    (["--test-share", "0.91"], "a number from 0.01 to 0.9"),
    (["--epochs", "2.5"], "a whole number from 0 to 10000"),
    (["--epochs", "9" * 5000], "a whole number from 0 to 10000"),
    (["--test-share", "nan"], "a number from 0.01 to 0.9"),
    (["--set", "shift="], "a number from 0 to 5"),
    (["--set", "xla=maybe"], "true or false"),
    (["--set", "schedule=step"], "one of plateau, cosine"),
    (["--recipe", "x" * 5000], "one of default, thesis, large")])
def test_a_wrong_value_is_refused_by_saying_what_is_expected(flags, expected, refused):
    assert refused(*flags).endswith(f": expected {expected}")


@pytest.mark.parametrize(("name", "junk"), [
    ("xla", []), ("epochs", None), ("epochs", 10**400), ("shift", float("nan")), ("shift", [1]),
    ("keep_weights", {})])
def test_values_from_a_strangers_card_are_checked_like_those_of_the_command_line(name, junk):
    with pytest.raises(UserError, match=name):
        Recipe(**{name: junk})


# ------------------------------------------------------------------------- recipes, --set, --quick
def test_a_single_setting_overrides_the_recipe_also_by_its_default():
    assert parse_settings(["--recipe", "large"]) == Settings(recipe=RECIPES["large"])
    expected = dataclasses.replace(RECIPES["large"], epochs=15, shift=1.5, keep_weights="best")
    flags = ["--epochs", "15", "--set", "shift=3", "--recipe", "large", "--set", "shift=1.5",
             "--set", "epochs=4", "--set", "keep_weights = best"]    # flags win over --set
    assert parse_settings(flags).recipe == expected


def test_quick_makes_all_smaller_that_was_not_set():
    quick = parse_settings(["--quick", "--recipe", "large"])
    assert quick.recipe == dataclasses.replace(RECIPES["large"], epochs=5)
    assert (quick.train_samples, quick.val_samples, quick.test_samples) == (300, 100, 200)
    assert quick.output == "ecg_quick_model.keras" != Settings.output    # a better model stays
    mixed = parse_settings(["--quick", "--set", "epochs=7", "--val-samples", "150"])
    assert (mixed.recipe.epochs, mixed.val_samples, mixed.test_samples) == (7, 150, 200)
    assert parse_settings(["--no-quick"]) == Settings()


# ---------------------------------------------------------------------------- spellings of flags
@pytest.mark.parametrize(("flags", "words"), [
    (["--learning_rate", "1"], "did you mean --learning-rate?"),
    (["--no-figure"], "did you mean --no-figures?"),
    (["--shift", "3"], "it is now --set shift=VALUE"), (["--model", "large"], "--recipe large"),
    (["--force"], "a run replaces the files of its own"), (["--adapt", "all"], "the last layer"),
    (["--max-unusable=1"], "half of a class's records"), (["--no-jit"], "--set xla=false"),
    (["--set", "shfit=1"], "did you mean shift?"), (["--set", "seed=1"], "known: amplitude_noise"),
    (["--set", "keep=best"], "it is now keep_weights"), (["--set", "noise_size=1"], "a constant")])
def test_a_mistyped_or_old_flag_is_answered_with_what_to_use(flags, words, refused):
    assert words in refused(*flags)


@pytest.mark.parametrize("flags", [
    ["--cache=x"], ["--no-epochs"], ["--epochs"], ["--epochs", "3", "4"], ["stray"], ["--set"],
    ["--recipe", "large", "--epochs", "0"], ["--test-data-dir", "x"],
    ["--start-from", "real_default", "--repeats", "2"],
    ["--start-from", "real_default", "--epochs", "3"]])
def test_flags_that_make_no_sense_are_refused(flags, refused):
    refused(*flags)


# ------------------------------------------------------------------------------- files and programs
@pytest.mark.parametrize(("module", "words"), [
    ("raise ImportError('symbol not found\\nand more')", "(symbol not found)"),
    ("__version__ = '2.15.1'", "too old")])
def test_a_tensorflow_that_cannot_be_used_is_named_in_one_line(module, words, tmp_path):
    (tmp_path / "tensorflow.py").write_text(module)
    (tmp_path / "keras.py").write_text("import tensorflow\n__version__ = '2.15.0'")
    printed = python(tmp_path, """
import sys
sys.path.insert(0, "")
import too_feature
try: too_feature.load_tensorflow()
except too_feature.UserError as error: print(error)""")
    assert words in one_line(printed)
    assert "TensorFlow 2.16 or newer is needed" in printed


def test_another_version_of_python_is_refused_in_one_line(tmp_path):
    path = str(ROOT / "too_feature.py")
    code = ("import sys; sys.version_info = (3, 14, 0, 'final', 0)\n"
            f"exec(compile(open({path!r}, encoding='utf-8').read(), {path!r}, 'exec'))")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            timeout=60, cwd=tmp_path)
    assert result.returncode == 2
    assert "3.10 to 3.13" in one_line(result.stderr)

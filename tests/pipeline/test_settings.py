"""Settings and the command line: what can be set, and one line of error for whatever is wrong."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import pytest

import too_feature as script
from ecg import demo
from ecg.errors import UserError
from tests.support import models
from tests.support.runs import ROOT, one_line, python, run_script
from too_feature import RECIPES, Recipe, Settings, parse_settings

GROUPS = {
    "your data": {
        "labels", "data_dir", "test_labels", "test_data_dir", "train_samples", "val_samples",
        "test_samples", "test_share", "val_share", "max_unusable", "labels_origin", "start_from",
        "output"},
    "this run": {
        "seed", "recipe", "adapt", "repeats", "resume", "results", "figures", "tensorboard", "jobs",
        "force", "scheduler", "cache", "cache_dir", "jit", "quick", "traceback"},
    "what people tune": {"epochs", "batch_size", "learning_rate", "sequence_length"}}
OF_RECIPE = {field.name: field for field in dataclasses.fields(Recipe)}
OF_SETTINGS = {field.name: field for field in dataclasses.fields(Settings)}
FIELDS = OF_RECIPE | OF_SETTINGS
NUMBERS = [name for name, field in FIELDS.items() if field.type in (int, float)]
WHOLE = [name for name in NUMBERS if FIELDS[name].type is int]
CHOICES = [name for name, field in FIELDS.items()
           if field.type is str and field.metadata["limits"]]
METHOD = [name for name, field in OF_RECIPE.items()
          if name != "name" and not field.metadata["group"]]


def written(name, value):
    """Write a setting as on the command line: a flag of its own, or by --set."""
    if FIELDS[name].metadata["group"]:
        return [f"--{name.replace('_', '-')}={value}"]
    return ["--set", f"{name}={value}"]


def value_of(settings, name):
    """Return a setting, wherever it is kept."""
    return getattr(settings.recipe if name in OF_RECIPE else settings, name)


def expected_range(name):
    """Return the end of the line that refuses a number."""
    low, high = FIELDS[name].metadata["limits"]
    kind = "a whole number" if FIELDS[name].type is int else "a number"
    return f": expected {kind} from {low} to {high}\n"


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """A function: the one line with which the script refuses flags, before it does anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "read_labels", lambda *_: pytest.fail("labels were read"))
    monkeypatch.setattr(script, "load_tensorflow", lambda: pytest.fail("TensorFlow"))

    def run(*flags):
        try:
            code = script.main(list(flags))
        except SystemExit as stop:    # argparse's
            code = stop.code
        out, err = capsys.readouterr()
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert len(err) < 500
        return err

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


def test_neither_help_nor_an_import_of_the_script_imports_tensorflow(printed):
    assert printed.splitlines()[-1] == "[]"


def test_help_shows_every_flag_in_one_of_three_groups(printed):
    flags, _ = printed.split("settings of the method, for --set:\n")
    _, *parts = re.split(r"(?m)^(\S.*):$", flags)
    shown = {title: {name.replace("-", "_") for name in re.findall(r"(?m)^  --([a-z-]+)", part)}
             for title, part in zip(parts[::2], parts[1::2], strict=True)}
    shown.pop("options")
    assert [*shown] == [*GROUPS]
    for title, names in GROUPS.items():
        assert shown[title] - {"set"} == names
        assert {name for name, field in FIELDS.items()
                if field.metadata["group"] == title} == names
    assert "--set NAME=VALUE" in flags


def test_help_shows_every_setting_of_the_method_with_its_default_and_range(printed):
    flags, method = printed.split("settings of the method, for --set:\n")
    for name in METHOD:    # which has no flag of its own
        assert not re.search(rf"--{name.replace('_', '-')}(?![\w-])", flags)
        (line,) = (line for line in method.splitlines() if line.startswith(f"  {name}="))
        assert line.startswith(f"  {name}={OF_RECIPE[name].default}: ")
        for limit in OF_RECIPE[name].metadata["limits"]:
            assert str(limit) in line.rpartition("(")[2]


def test_there_are_some_thirty_flags_each_with_a_printed_that_stands_alone():
    assert 25 <= sum(map(len, GROUPS.values())) + 1 <= 35    # and --set
    for name, field in FIELDS.items():
        text = field.metadata["help"]
        assert len(text) > 10 or name == "model", name
        assert not re.search(r"\b(there|them|they|their|its own flag)\b", text), name


# ---------------------------------------------------------------------------- values and defaults
def test_defaults_are_the_constants_that_users_edit_and_the_numbers_of_the_thesis():
    settings = parse_settings([])
    recipe = settings.recipe
    assert settings == Settings()
    assert (recipe.batch_size, recipe.epochs, recipe.sequence_length) == (4, 15, 500)
    assert (settings.train_samples, settings.val_samples, settings.test_samples) == (1500, 300, 400)
    assert (settings.seed, recipe.learning_rate) == (42, 0.0005)
    for name in ("train_samples", "sequence_length", "batch_size", "epochs"):
        assert value_of(settings, name) == getattr(script, name.upper())
    assert (recipe.noise_probability, recipe.scaling_probability) == (0.3, 0.2)
    assert (recipe.stop_patience, recipe.reduce_patience) == (5, 3)
    assert recipe.schedule == "plateau"
    assert (recipe.name, recipe.model, settings.repeats) == ("default", "lstm", 1)


def with_start(name, folder):
    """Return the flags that a setting needs beside it: a model to start from, or none."""
    if name not in ("epochs", "adapt"):
        return []
    return ["--adapt", "all", "--start-from", str(models.save_card(folder / "start.keras"))]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_in_the_range_are_taken_as_declared_and_others_refused_with_the_range(
        name, refused, tmp_path):
    low, high = FIELDS[name].metadata["limits"]
    for value in (low, high):
        flags = [*with_start(name, tmp_path), *written(name, value)]
        found = value_of(parse_settings(flags), name)
        assert (found, type(found)) == (value, FIELDS[name].type)
    for value in (low - 1, high + 1, "many"):
        line = refused(*written(name, value))
        assert " ".join(written(name, value)).replace("=", " ", 1) in line.replace("=", " ", 1)
        assert line.endswith(expected_range(name))


WRONG = ["", " ", "many", "nan", "inf", "1e400", "0x10", "1.5.2", "1,5", "٣x", "9" * 5000, "-" * 50,
         "-9999999999999", "1e99", "[True]"]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[1:20])
@pytest.mark.parametrize(("name", "start"), [
    ("epochs", "--epochs "), ("test_share", "--test-share "), ("keep_weights", "--set keep_weights="),
    ("xla", "--set xla=")])
def test_a_wrong_value_is_refused_by_saying_what_is_expected(name, start, value, refused):
    """One setting of each kind: a whole number, a number, a choice, yes or no."""
    expected = {"keep_weights": ": expected one of last, best\n", "xla": ": expected true or false\n"}
    line = refused(*written(name, value))
    assert line.startswith(f"too_feature.py: error: {start}")
    assert line.endswith(expected.get(name) or expected_range(name))


@pytest.mark.parametrize("value", ["2.5", "2.0", "1e1", "2_0"])
def test_a_fraction_is_not_a_whole_number(value, refused):
    for name in ("epochs", "freeze_bn_after"):
        assert refused(*written(name, value)).endswith(expected_range(name))


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_taken_to_the_letter(name, refused, tmp_path):
    choices = FIELDS[name].metadata["limits"]
    for value in choices:
        flags = [*with_start(name, tmp_path), *written(name, value)]
        assert value_of(parse_settings(flags), name) == value
    for value in ("none", choices[0].upper()):
        assert refused(*written(name, value)).endswith(f": expected one of {', '.join(choices)}\n")


@pytest.mark.parametrize(("text", "value"), [("true", True), ("No", False), ("1", True)])
def test_yes_or_no_is_set_in_words(text, value):
    assert parse_settings(["--set", f"xla={text}"]).recipe.xla is value


def test_settings_cannot_be_changed_by_accident():
    for frozen in (Settings(), Recipe()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            frozen.seed = 3


# ------------------------------------------------------------------------- recipes, --set, --quick
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_the_table_says_and_single_settings_override_it(name):
    assert parse_settings(["--recipe", name]) == Settings(recipe=RECIPES[name])
    assert RECIPES[name].name == name
    differing = [field for field in OF_RECIPE if field != "name"
                 and getattr(RECIPES[name], field) != getattr(Recipe(), field)]
    assert differing or name == "default"
    for field in differing:    # back to the default, which must count as asked for, too
        value = getattr(Recipe(), field)
        expected = Settings(recipe=dataclasses.replace(RECIPES[name], **{field: value}))
        for arguments in (["--recipe", name, *written(field, value)],
                          [*written(field, value), "--recipe", name]):
            assert parse_settings(arguments) == expected


def test_the_thesis_recipe_undoes_all_that_differs_from_the_thesis_and_keeps_its_numbers():
    thesis = parse_settings(["--recipe", "thesis"]).recipe
    assert (thesis.batch_size, thesis.epochs, thesis.learning_rate) == (4, 15, 0.0005)
    assert (thesis.noise_probability, thesis.scaling_probability) == (0.3, 0.2)
    assert (thesis.high_pass, thesis.central_share, thesis.span) == (0, 0.5, 1)    # quartiles
    assert (thesis.shift, thesis.lead_gain, thesis.amplitude_noise) == (0, 0, 0)
    assert (thesis.memory, thesis.schedule, thesis.keep) == (0, "plateau", "best")
    assert thesis.model == "lstm"


def test_set_changes_one_or_several_settings_of_the_method():
    settings = parse_settings(["--set", "shift=1.5", "--set", "keep = best", "--set", "lead-gain=0",
                               "--set", "shift=2"])
    assert settings == Settings(recipe=Recipe(shift=2.0, keep_weights="best", lead_gain=0.0))


def test_a_flag_wins_over_set_in_any_order():
    for arguments in (["--epochs", "3", "--set", "epochs=4"], ["--set", "epochs=4", "--epochs=3"]):
        assert parse_settings(arguments).recipe.epochs == 3


@pytest.mark.parametrize(("text", "words"), [
    ("shift", "expected name=value"), ("", "expected name=value"),
    ("shfit=1", "no such setting; did you mean shift?"), ("seed=1", "no such setting"),
    ("name=thesis", "no such setting"),
    ("=1", "no such setting"), ("shift=9.5", "from 0 to 5"), ("shift=", "from 0 to 5"),
    ("schedule=step", "one of plateau, cosine")])
def test_what_cannot_be_set_is_refused_like_a_flag(text, words, refused):
    line = refused("--set", text)
    assert f"--set {text}: " in line
    assert words in line


def test_quick_makes_all_smaller_that_was_not_asked_for_explicitly():
    plain = Settings()
    quick = parse_settings(["--quick"])
    smaller = ["train_samples", "val_samples", "test_samples", "epochs"]
    for name in smaller:
        assert value_of(quick, name) < value_of(plain, name)
        value = value_of(plain, name) + 1
        mixed = parse_settings(["--quick", *written(name, value)])
        assert value_of(mixed, name) == value
        for other in set(smaller) - {name}:
            assert value_of(mixed, other) == value_of(quick, other)
    assert parse_settings(["--quick", "--set", "epochs=7"]).recipe.epochs == 7
    large = parse_settings(["--quick", "--recipe", "large"]).recipe
    assert large == dataclasses.replace(RECIPES["large"], epochs=quick.recipe.epochs)


def test_the_card_says_what_runs():
    settings = parse_settings(["--recipe", "large", "--epochs", "3", "--set", "keep_weights=best"])
    expected = dataclasses.replace(RECIPES["large"], epochs=3, keep_weights="best")
    assert settings.recipe == expected
    labels = script.read_labels(ROOT / "ecg_5_class_data.csv")
    settings = dataclasses.replace(settings, labels=str(ROOT / "ecg_5_class_data.csv"), seed=7)
    card = json.loads(json.dumps(script.describe_run(settings, labels, demo.CLASSES, True)))
    assert Recipe(**card["recipe"]) == expected
    assert Settings(**card["settings"], recipe=expected) == settings
    assert len(card["features"]) == 48


# ---------------------------------------------------------------------------- spellings of flags
@pytest.mark.parametrize(("flags", "words"), [
    (["--learning_rate", "1"], "did you mean --learning-rate?"),
    (["--learning-rates=1"], "did you mean --learning-rate?"),
    (["--epoch", "3"], "did you mean --epochs?"), (["--EPOCHS", "3"], "did you mean --epochs?"),
    (["--label", "x"], "did you mean --labels?"), (["--no-figure"], "did you mean --no-figures?"),
    (["--model", "large"], "--model large is now --recipe large"),
    (["--shift", "3"], "--set shift=VALUE"), (["--lead-gain=0"], "--set lead_gain=VALUE"),
    (["--weight-decay", "0"], "--set weight_decay=VALUE"), (["--keep", "x"], "--set keep_weights=VALUE"),
    (["--recipe", "best"], "--recipe large")])
def test_a_mistyped_or_old_flag_is_answered_with_the_right_one(flags, words, refused):
    assert words in refused(*flags)


@pytest.mark.parametrize("name", METHOD)
def test_every_setting_without_a_flag_of_its_own_is_named_to_whoever_tries_one(name, refused):
    if name != "model":    # which is --recipe large
        assert f"--set {name}=" in refused(f"--{name.replace('_', '-')}", "0")


@pytest.mark.parametrize("flags", [
    ["--jit=yes"], ["--cache=x"], ["--no-epochs"], ["--epochs"], ["--epochs", "3", "4"], ["-x"],
    ["--epochs", "--seed"], ["--labels"], ["x" * 100], ["--recipe"], ["--set"], ["--epochs", "-4"],
    ["--recipe", "x" * 5000], ["--recipe", "default\n"], ["--recipe", "large", "--epochs", "0"],
    ["--test-data-dir", "x"], ["stray"], ["--seed", "7", "--seeds", "8"]])
def test_flags_that_make_no_sense_are_refused(flags, refused):
    refused(*flags)


# --------------------------------------------------------------------------------- files, programs
@pytest.mark.parametrize("flag", ["--data-dir", "--cache-dir", "--test-data-dir"])
def test_a_file_in_place_of_a_folder_is_refused(flag, refused, tmp_path):
    (tmp_path / "file").touch()
    assert "file: expected a folder" in refused(flag, "file", "--test-labels", "x.csv")


@pytest.mark.parametrize("output", ["", "m.h5", "m", "m.keras.zip", ".keras", "no/m.keras",
                                    "folder.keras", "m.keras/x", ".", "...keras",
                                    "m" * 250 + ".keras", "心" * 80 + ".keras"])
def test_an_output_that_cannot_be_written_is_refused(output, refused, tmp_path):
    (tmp_path / "folder.keras").mkdir()
    assert "expected a .keras file in a writable folder" in refused("--output", output)


@pytest.mark.parametrize("labels", ["", ".", "none.csv", "no/none.csv", "http://127.0.0.1:9/x.csv"])
def test_a_missing_label_file_is_refused_before_tensorflow_is_imported(
        labels, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "load_tensorflow", lambda: pytest.fail("TensorFlow"))
    (tmp_path / "good.csv").write_text("".join(
        f"{i},r{i},{demo.CLASSES[i % 5]}\n" for i in range(100)))
    for flags in (["--labels", labels], ["--labels", "good.csv", "--test-labels", labels or "x"]):
        assert script.main(flags) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(os.listdir()) == ["good.csv"]


def test_a_tensorflow_that_cannot_be_used_shows_before_training_records_are_read(
        demo_dir, tmp_path, capsys, monkeypatch):
    def broken():
        raise UserError("TensorFlow cannot be used")

    read = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "load_tensorflow", broken)
    monkeypatch.setattr(script, "load_split", lambda name, *_: read.append(name))
    labels = str(ROOT / "ecg_5_class_data.csv")
    assert script.main(["--labels", labels, "--data-dir", str(demo_dir)]) == 2
    assert one_line(capsys.readouterr().err).endswith("TensorFlow cannot be used")
    assert read == ["test", "validation"]


def test_the_program_answers_in_one_line_and_with_exit_code_2(tmp_path):
    result = run_script(tmp_path, "--labels", "none.csv")
    assert result.returncode == 2
    assert one_line(result.stderr).startswith("too_feature.py: error: none.csv: ")


def test_traceback_shows_the_whole_error_and_the_same_line_below_it(capsys):
    assert script.main(["--labels", "none.csv"]) == 2
    line = one_line(capsys.readouterr().err)
    assert script.main(["--labels", "none.csv", "--traceback"]) == 2
    whole = capsys.readouterr().err
    assert whole.splitlines()[-1] == line
    for words in ("Traceback (most recent call last)", "FileNotFoundError", "in read_labels"):
        assert words in whole
        assert words not in line


def test_another_version_of_python_is_refused_in_one_line(tmp_path):
    path = str(ROOT / "too_feature.py")
    code = ("import sys; sys.version_info = (3, 13, 0, 'final', 0)\n"
            f"code = compile(open({path!r}, encoding='utf-8').read(), {path!r}, 'exec')\n"
            f"exec(code, {{'__name__': '__main__', '__file__': {path!r}}})")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            timeout=60, cwd=tmp_path)
    assert result.returncode == 2
    assert "3.11" in one_line(result.stderr)


@pytest.mark.parametrize("module", ["raise ImportError('symbol not found')",
                                    "__version__ = '2.15.1'"])
def test_a_tensorflow_that_cannot_be_used_is_named_in_one_line(module, tmp_path, monkeypatch):
    (tmp_path / "tensorflow.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorflow"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=r"TensorFlow 2\.16 or newer") as error:
        script.load_tensorflow.__wrapped__()
    sys.modules.pop("tensorflow", None)    # monkeypatch would put it back after the test
    assert "\n" not in str(error.value)

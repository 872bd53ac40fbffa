"""Settings and the command line: every default is a flag, and nothing wrong gets past them."""

import dataclasses
import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest

import too_feature
from tools import recipes

SCRIPT = Path(too_feature.__file__)
FIELDS = {field.name: field for field in dataclasses.fields(too_feature.Settings)}
NUMBERS = [name for name, field in FIELDS.items() if field.type in (int, float)]
CHOICES = [name for name, field in FIELDS.items()
           if field.type is str and field.metadata["limits"]]


def run_script(*arguments, **options):
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True,
                          timeout=60, **options)


def test_help_answers_at_once_without_tensorflow_and_explains_every_flag():
    run_script("--help")    # warm the disk cache: this is about the program, not the disk
    start = time.monotonic()
    result = run_script("--help")
    assert time.monotonic() - start < 10    # 1.4 s here; TensorFlow's import alone is longer
    assert result.returncode == 0
    for name, field in FIELDS.items():
        assert "--" + name.replace("_", "-") in result.stdout
        assert len(field.metadata["help"]) > 10
    code = "import sys, too_feature; print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True,
                            text=True, timeout=60)
    assert loaded.stdout.split() == ["False", "False"]


def test_defaults_are_the_constants_that_users_edit_and_the_thesis_numbers():
    settings = too_feature.parse_settings([])
    assert (settings.batch_size, settings.epochs, settings.sequence_length) == (4, 15, 500)
    assert (settings.train_samples, settings.val_samples, settings.test_samples) == (1500, 300, 400)
    assert (settings.seed, settings.learning_rate) == (42, 0.0005)
    for name in ("train_samples", "sequence_length", "batch_size", "epochs"):
        assert getattr(settings, name) == getattr(too_feature, name.upper())
    assert (settings.noise_probability, settings.scaling_probability) == (0.3, 0.2)
    assert (settings.stop_patience, settings.reduce_patience) == (5, 3)
    assert settings.schedule == "plateau"
    assert (settings.recipe, settings.model, settings.repeats) == ("default", "lstm", 1)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_out_of_range_are_refused_with_the_range(name):
    low, high = FIELDS[name].metadata["limits"]
    flag = "--" + name.replace("_", "-")
    wrong = [low - 1, high + 1] + ([float("nan")] if FIELDS[name].type is float else [])
    for value in wrong:
        with pytest.raises(too_feature.UserError, match=f"{flag} .* from .* to ") as error:
            too_feature.parse_settings([flag, str(value)])
        assert str(low) in str(error.value)
        assert str(high) in str(error.value)
    for value in (low, high):
        assert getattr(too_feature.parse_settings([flag, str(value)]), name) == value


@pytest.mark.parametrize("name", CHOICES)
def test_an_unknown_choice_is_refused_with_the_choices_named(name):
    for value in FIELDS[name].metadata["limits"]:
        assert getattr(too_feature.parse_settings([f"--{name}", value]), name) == value
    for value in ("none", "", "Default", FIELDS[name].metadata["limits"][0] + " "):
        result = pytest.raises(too_feature.UserError, too_feature.parse_settings,
                               [f"--{name}", value])
        choices = ", ".join(FIELDS[name].metadata["limits"])
        assert str(result.value).endswith(f"expected one of {choices}")
        assert str(result.value).startswith(f"--{name} {value}".strip())


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_a_recipe_sets_its_values_and_nothing_else_and_single_flags_override_it(recipe):
    values, plain = recipes.RECIPES[recipe], too_feature.Settings()
    settings = too_feature.parse_settings(["--recipe", recipe])
    assert dataclasses.asdict(settings) == dataclasses.asdict(plain) | values | {"recipe": recipe}
    for name in values:    # back to the default, which must count as asked for, too
        for flags in (["--recipe", recipe], []):
            flag = ["--" + name.replace("_", "-"), str(getattr(plain, name))]
            one = too_feature.parse_settings([*flag, *flags] if flags else [*flag, "--recipe",
                                                                            recipe])
            assert one == dataclasses.replace(settings, **{name: getattr(plain, name)})


def test_every_recipe_that_can_be_asked_for_is_there_and_sets_only_valid_values():
    assert tuple(recipes.RECIPES) == FIELDS["recipe"].metadata["limits"]
    for model, recipe in itertools.product(FIELDS["model"].metadata["limits"], recipes.RECIPES):
        values = recipes.defaults(recipe, model)
        assert set(values) <= set(FIELDS) - {"labels", "data_dir", "output", "recipe", "model"}
        too_feature.Settings(**values)
        for name, value in values.items():
            assert type(value) is FIELDS[name].type
        if model == "lstm" or recipe == "thesis":    # else the large model's own is its best
            assert values == recipes.RECIPES[recipe]
    assert recipes.RECIPES["default"] == {}


def test_the_thesis_recipe_undoes_all_that_differs_from_the_thesis_and_keeps_its_numbers():
    settings = too_feature.parse_settings(["--recipe", "thesis"])
    assert (settings.batch_size, settings.epochs, settings.learning_rate) == (4, 15, 0.0005)
    assert (settings.noise_probability, settings.scaling_probability) == (0.3, 0.2)
    assert (settings.high_pass, settings.central_share, settings.span) == (0, 0.5, 1)    # quartiles
    assert (settings.shift, settings.lead_gain, settings.amplitude_noise) == (0, 0, 0)
    assert (settings.memory, settings.schedule, settings.keep) == (0, "plateau", "best")


@pytest.mark.parametrize("arguments", [
    ["--recipe", "worst"], ["--model", "huge"], ["--schedule", "step"], ["--keep", "first"],
    ["--recipe", "best", "--epochs", "0"], ["--recipe"], ["--repeats", "0"],
    ["--epochz", "3"], ["--epoch", "3"], ["--epochs"], ["--epochs", "many"], ["--epochs", "1.5"],
    ["--epochs", "0"], ["--batch-size", "-4"], ["--learning-rate", "nan"], ["stray"],
    ["--labels", "no_such_file.csv"], ["--output", "model.h5"], ["--output", "no/such/m.keras"]])
def test_wrong_arguments_are_one_line_and_exit_code_2(arguments, tmp_path):
    result = run_script(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert "error" in result.stderr


def test_settings_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        too_feature.Settings().epochs = 3


def test_python_without_tensorflow_2_16_is_refused_in_one_line(tmp_path):
    code = ("import sys, runpy; sys.version_info = (3, 13, 0, 'final', 0);"
            f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            timeout=60, cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "3.11" in result.stderr


@pytest.mark.parametrize("module", ["raise ImportError('symbol not found')",
                                    "__version__ = '2.15.1'"])
def test_unusable_tensorflow_is_one_line_and_exit_code_2(module, tmp_path):
    (tmp_path / "tensorflow.py").write_text(module)
    code = ("import too_feature\n"
            "try: too_feature.load_tensorflow()\n"
            "except too_feature.UserError as error: print(error)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            timeout=60, env={"PYTHONPATH": f"{tmp_path}:{SCRIPT.parent}"})
    assert "TensorFlow 2.16 or newer" in result.stdout
    assert len(result.stdout.strip().splitlines()) == 1

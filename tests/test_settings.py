"""Settings and the command line: every default is a flag, and nothing wrong gets past them."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest

import too_feature

SCRIPT = Path(too_feature.__file__)
FIELDS = {field.name: field for field in dataclasses.fields(too_feature.Settings)}
NUMBERS = [name for name, field in FIELDS.items() if field.type in (int, float)]


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


def test_defaults_are_the_constants_that_users_edit():
    settings = too_feature.parse_settings([])
    assert (settings.batch_size, settings.epochs, settings.sequence_length) == (4, 15, 500)
    assert (settings.train_samples, settings.val_samples, settings.test_samples) == (1500, 300, 400)
    assert (settings.seed, settings.learning_rate) == (42, 0.0005)
    for name in NUMBERS:
        assert getattr(settings, name) == getattr(too_feature, name.upper())


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


@pytest.mark.parametrize("arguments", [
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

"""Training: when it stops, which weights it keeps, and when batch normalisation is frozen."""

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from ecg.errors import UserError
from too_feature import Recipe, Records, Settings


def noise(n):
    """Return records of noise, whose classes cannot be learnt."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"waveform_path": np.arange(n) // 2})
    return Records(rows, rng.normal(size=(n, 50, 12)).astype(np.float32),
                   rng.normal(size=(n, 8)).astype(np.float32), np.arange(n) % 5)


@pytest.fixture
def trained(monkeypatch):
    """Return a function that trains on 20 records of noise, five steps an epoch.

    It tells the training this course of (loss, accuracy) on validation records, and returns the
    model, its temperature, its history, and the model's arrays by name after each epoch.
    """
    def train(course, **recipe):
        course, arrays = iter(course), []

        def told(model, _):
            arrays.append({x.path: np.array(x) for x in model.variables})
            return dict(zip(("val_loss", "val_accuracy"), next(course), strict=True))

        monkeypatch.setattr(script, "validate", told)
        recipe = Recipe(sequence_length=50, xla=False, **recipe)
        return *script.train(noise(20), noise(20), 5, Settings(recipe=recipe)), arrays

    return train


def accuracies(*values):
    return [(1.0, value) for value in values]


@pytest.mark.parametrize(("keep", "kept", "said"), [
    ("best", 2, "its weights are kept"),
    ("last", 4, "kept are the last weights: of few validation patients, the best epoch is partly "
                "luck")])
def test_training_stops_without_a_better_accuracy_and_keeps_the_weights_asked_for(
        keep, kept, said, trained, capsys):
    """It stops while batch normalisation is not frozen yet: no second phase begins."""
    model, temperature, history, arrays = trained(
        accuracies(0.2, 0.9, 0.5, 0.9, 1.0), epochs=8, stop_patience=2, keep_weights=keep,
        freeze_bn_after=5 * 6)
    assert [logs["val_accuracy"] for logs in history] == [0.2, 0.9, 0.5, 0.9]
    printed = capsys.readouterr().out
    assert printed.endswith(
        "stopped after epoch 4: no better val_accuracy for 2 epochs; the best was 0.900 after "
        f"epoch 2;\n{said}\n")
    assert "20 training records (10 different ones)" in printed
    assert "epoch  2/8  loss " in printed
    before = [arrays[kept - 1][x.path] for x in model.weights]
    *others, kernel, bias = model.get_weights()
    for one, other in zip(others, before, strict=False):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(kernel * temperature, before[-2], rtol=1e-6)
    np.testing.assert_allclose(bias * temperature, before[-1], rtol=1e-6)


def test_the_best_weights_of_the_first_phase_outlive_a_worse_second(trained, capsys):
    model, _, history, arrays = trained(
        accuracies(0.2, 0.9, 0.5, 0.4, 1.0), epochs=5, freeze_bn_after=6, stop_patience=2,
        keep_weights="best")
    assert len(history) == 4
    assert "stopped after epoch 4" in (printed := capsys.readouterr().out)
    assert "the best was 0.900 after epoch 2" in printed
    for x in model.weights[:-2]:    # the last two are divided by a temperature
        np.testing.assert_array_equal(x, arrays[1][x.path])


def test_batch_normalisation_keeps_its_statistics_once_frozen(trained):
    """After six steps, at the next end of an epoch."""
    model, _, history, arrays = trained(
        accuracies(0.1, 0.2, 0.3, 0.4), epochs=4, freeze_bn_after=6)
    assert len(history) == 4    # the epochs of both phases
    means = [name for name in arrays[0] if name.endswith("moving_mean")]
    assert len(means) == 3
    for name in means:
        assert not np.array_equal(arrays[0][name], arrays[1][name])
        np.testing.assert_array_equal(arrays[1][name], arrays[3][name])
    kernel = next(name for name in arrays[0] if name.endswith("lstm_cell/kernel"))
    assert not np.array_equal(arrays[1][kernel], arrays[3][kernel])
    assert all(layer.trainable for layer in model.layers)


def test_the_learning_rate_is_halved_on_each_plateau_of_the_loss(trained):
    losses = 1.0, 0.5, 0.5, 0.6, 0.4, 0.4, 0.4, 0.4
    _, _, history, _ = trained([(loss, i) for i, loss in enumerate(losses)], epochs=8,
                               learning_rate=0.001, reduce_patience=2, freeze_bn_after=0)
    rates = [logs["learning_rate"] for logs in history]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 5e-4, 2.5e-4])


def test_a_cosine_takes_the_learning_rate_to_zero_by_the_end():
    model = script.create_lightweight_lstm_model(5, 50)
    recipe = Recipe(schedule="cosine", learning_rate=0.002)
    script.compile_model(model, recipe, 5, xla=False).begin(10, is_frozen=False)
    for step, rate in ((0, 0.002), (5, 0.001), (10, 0.0)):    # two epochs of five steps
        model.optimizer.iterations.assign(step)
        assert float(model.optimizer.learning_rate) == pytest.approx(rate, abs=1e-9)


def test_a_model_that_has_diverged_is_one_line_that_says_what_to_do():
    model = script.create_lightweight_lstm_model(5, 50)
    model.set_weights([np.full_like(array, np.nan) for array in model.get_weights()])
    with pytest.raises(UserError, match=r"diverged \(NaN\): lower --learning-rate"):
        script.validate(model, noise(20))


@pytest.mark.parametrize("resume", [False, True])
def test_without_resume_what_an_earlier_run_kept_is_removed(resume, monkeypatch, tmp_path):
    (tmp_path / "progress/1").mkdir(parents=True)
    monkeypatch.setattr(script, "train", lambda *_: None)
    script.train_each(noise(5), noise(5), 5, Settings(resume=resume), tmp_path / "progress")
    assert (tmp_path / "progress/1").exists() == resume

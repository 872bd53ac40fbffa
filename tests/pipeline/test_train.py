"""Training: when it stops, which weights it keeps, and when normalisation settles."""

import numpy as np
import pytest

import too_feature as script
from ecg import metrics
from too_feature import Recipe, Records, Settings, load_tensorflow


def noise(n):
    """Return records of noise, whose classes cannot be learnt."""
    rng = np.random.default_rng(0)
    return Records(None, rng.normal(size=(n, 50, 12)).astype(np.float32),
                   rng.normal(size=(n, 8)).astype(np.float32), np.arange(n) % 5)


def normalisations(model):
    keras = load_tensorflow()[1]
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def trained(monkeypatch, recipe, accuracies=None, watch=lambda model: None):
    """Train on 20 records of noise, as if validation had given these accuracies.

    Returns the model and its history; for each phase whether normalisation was settled in it; and
    what `watch` returned of the model at the end of each epoch.
    """
    settled, seen, frozen = [], [], []
    make_callbacks, fit = script.make_callbacks, script.fit
    let_freeze = script.two_phases.let_freeze

    def spy(*arguments):
        frozen.append(let_freeze(*arguments))
        return frozen[0]

    def scripted(*arguments):
        counting, printer = make_callbacks(*arguments)
        if accuracies:
            given = iter(accuracies)
            monkeypatch.setattr(counting[0], "get_monitor_value", lambda _: next(given))
        watching = load_tensorflow()[1].callbacks.LambdaCallback(
            on_train_begin=lambda _: settled.append(bool(frozen[0].numpy())),
            on_epoch_end=lambda *_: seen.append(watch(watching.model)))
        monkeypatch.setattr(script, "fit", lambda *them: fit(*them[:5], [*them[5], watching]))
        return counting, printer

    monkeypatch.setattr(script.batch_norm, "let_freeze", spy)
    monkeypatch.setattr(script, "make_callbacks", scripted)
    records = noise(20)
    model, temperature, history = script.train(
        records, records, 5, Settings(recipe=recipe, jit=False))
    return model, temperature, history, settled, seen


def test_a_stopped_training_keeps_the_best_weights_and_the_temperature_goes_into_the_last_layer(
        monkeypatch, capsys):
    """It stops while normalisation has not settled yet: no second phase begins."""
    given = []
    monkeypatch.setattr(metrics, "fit_temperature", lambda *them: given.append(them) or 3.0)
    recipe = Recipe(sequence_length=50, epochs=8, settle=5 * 6, keep="best", stop_patience=2)
    model, temperature, history, settled, weights = trained(
        monkeypatch, recipe, [0.2, 0.9, 0.5, 0.4, 1.0], lambda model: model.get_weights())
    assert len(history) == len(weights) == 4
    assert settled == [False]
    assert capsys.readouterr().out.endswith(
        "stopped after epoch 4: no better validation accuracy for 2 epochs; weights of epoch 2 "
        "kept\n")
    ((raw, targets, balanced),) = given
    assert temperature == 3.0
    np.testing.assert_array_equal(targets, noise(20).targets)
    np.testing.assert_allclose(balanced, 1)    # equal classes

    *others, kernel, bias = model.get_weights()
    for kept, best in zip(others, weights[1], strict=False):
        np.testing.assert_array_equal(kept, best)
    assert any(not np.array_equal(*pair) for pair in zip(weights[1], weights[3], strict=True))
    np.testing.assert_array_equal(kernel, weights[1][-2] / np.float32(3))
    np.testing.assert_array_equal(bias, weights[1][-1] / np.float32(3))
    calibrated = script.predict(model, noise(20))
    np.testing.assert_allclose(calibrated, metrics.soften(raw, 3.0), atol=1e-5)
    assert model.count_params() == 8461


@pytest.mark.slow
def test_a_stopped_training_that_keeps_its_last_weights_says_so(monkeypatch, capsys):
    recipe = Recipe(sequence_length=50, epochs=4, stop_patience=2)
    assert len(trained(monkeypatch, recipe, [0.9, 0.5, 0.5])[2]) == 3
    assert capsys.readouterr().out.endswith(
        "stopped after epoch 3: no better validation accuracy for 2 epochs; weights of epoch 3 "
        "kept\n")


def test_batch_normalisation_keeps_its_statistics_once_settled(monkeypatch, capsys):
    recipe = Recipe(sequence_length=50, epochs=4, settle=6)    # five steps an epoch
    model, _, history, settled, means = trained(
        monkeypatch, recipe,
        watch=lambda model: [np.array(layer.moving_mean) for layer in normalisations(model)])
    assert settled == [False, True]
    assert len(history) == 4    # the epochs of both phases
    assert "stopped" not in capsys.readouterr().out
    for i in range(3):
        assert not np.array_equal(means[0][i], means[1][i])
        np.testing.assert_array_equal(means[1][i], means[2][i])
        np.testing.assert_array_equal(means[1][i], means[3][i])
    assert all(layer.trainable for layer in model.layers)


@pytest.mark.parametrize(("settle", "phases"), [
    (0, [(0, 4)]), (1, [(0, 1), (1, 4)]), (5, [(0, 1), (1, 4)]), (6, [(0, 2), (2, 4)]),
    (15, [(0, 3), (3, 4)]), (16, [(0, 4)]), (20, [(0, 4)]), (10**9, [(0, 4)])])
def test_the_second_phase_begins_with_the_epoch_after_so_many_steps(settle, phases):
    assert script.phases(Recipe(epochs=4, settle=settle), steps=5) == phases


# ------------------------------------------------------------------------------------- callbacks
@pytest.fixture
def model():
    """A model of one weight."""
    keras = load_tensorflow()[1]
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])


def run_epochs(model, recipe, logs):
    """Call the callbacks as Keras does, the weight being the epoch; return history and rates."""
    history, rates = [], []
    script.compile_model(model, 100, recipe, jit=False)
    counting, printer = script.make_callbacks(recipe, history)
    callbacks = load_tensorflow()[1].callbacks.CallbackList([*counting, printer], model=model)
    model.stop_training = False
    callbacks.on_train_begin()
    for epoch, (loss, accuracy) in enumerate(logs):
        model.set_weights([np.array([[epoch]])])
        callbacks.on_epoch_end(epoch, {
            "loss": 1.0, "accuracy": 0.5, "val_loss": loss, "val_accuracy": accuracy})
        rates.append(float(model.optimizer.learning_rate))
        if model.stop_training:
            break
    callbacks.on_train_end()
    return history, rates


@pytest.mark.parametrize(("keep", "epoch"), [("best", 1), ("last", 4)])
def test_training_stops_after_so_many_epochs_without_a_better_accuracy(model, keep, epoch, capsys):
    recipe = Recipe(keep=keep, stop_patience=3)
    logs = [(1.0, accuracy) for accuracy in (0.3, 0.9, 0.5, 0.9, 0.4, 1.0)]
    history, _ = run_epochs(model, recipe, logs)
    assert [epoch["val_accuracy"] for epoch in history] == [0.3, 0.9, 0.5, 0.9, 0.4]
    assert model.get_weights()[0] == epoch
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    assert printed[1].startswith(
        "epoch  2/15  loss 1.000  accuracy 0.500  val_loss 1.000  val_accuracy 0.900  ")


def test_the_learning_rate_is_halved_on_each_plateau_of_the_loss(model):
    recipe = Recipe(reduce_patience=2, learning_rate=0.001)
    _, rates = run_epochs(model, recipe, [(loss, epoch) for epoch, loss in enumerate(
        (1.0, 0.5, 0.5, 0.6, 0.4, 0.4, 0.4, 0.4))])
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 5e-4, 2.5e-4, 2.5e-4])


def test_a_cosine_takes_the_learning_rate_to_zero_whatever_the_loss(model):
    recipe = Recipe(schedule="cosine", reduce_patience=1, learning_rate=0.002)
    _, rates = run_epochs(model, recipe, [(1.0, epoch) for epoch in range(5)])
    assert rates == pytest.approx([0.002] * 5)    # no step was taken
    for step, rate in ((0, 0.002), (50, 0.001), (100, 0.0)):
        model.optimizer.iterations.assign(step)
        assert float(model.optimizer.learning_rate) == pytest.approx(rate, abs=1e-9)


# ---------------------------------------------------------------------------------- compiled steps
def test_compiled_and_plain_steps_learn_the_same():
    """XLA changes the speed only; without dropout, whose random numbers differ, weights agree."""
    keras = load_tensorflow()[1]
    ends = []
    for jit in (True, False):
        keras.utils.set_random_seed(0)
        config = script.create_lightweight_lstm_model(5, 50).get_config()
        for layer in config["layers"]:
            rates = {"rate", "dropout"} & set(layer["config"])
            layer["config"].update(dict.fromkeys(rates, 0.0))
        model = keras.Model.from_config(config)
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=jit)
        rng = np.random.default_rng(0)
        for _ in range(3):
            model.train_on_batch([rng.normal(size=(4, 50, 12)), rng.normal(size=(4, 8))],
                                 np.arange(4))
        ends.append(model.get_weights())
    for compiled, plain in zip(*ends, strict=True):
        np.testing.assert_allclose(compiled, plain, atol=1e-4)


def test_where_xla_does_not_work_training_goes_on_without_it_and_one_line_says_so(
        monkeypatch, capsys):
    tf, _ = load_tensorflow()

    def broken(*_, **__):
        raise RuntimeError("could not find registered platform")

    monkeypatch.setattr(tf, "while_loop", broken)
    assert not script.fast_lstm.xla_works(tf)
    assert len(capsys.readouterr().out.strip().splitlines()) == 1
    monkeypatch.undo()
    assert script.fast_lstm.xla_works(tf)

"""Train a Keras model on a CPU in two phases, compiled once.

In the second phase, batch normalisation is frozen at the moving averages of the first, as the
statistics of a batch of four are noisy. `layer.trainable = False` would make XLA compile again,
which takes seconds, so a variable freezes it here. Only `call` of each layer object is replaced:
the layer is still saved as Keras's own.
"""

import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

MAX_STEPS_AT_ONCE = 25    # training steps in one call of Python, which is slow
BAR_DELAY_S = 2.0         # an epoch that is over by then shows no bar


def phases(epochs: int, freeze_bn_after: int, steps: int) -> list[tuple[int, int]]:
    """Return the first epoch of each phase, and the epoch after its last.

    Parameters
    ----------
    epochs : of the whole training
    freeze_bn_after : training steps after which batch normalisation is frozen, rounded up to whole
        epochs; 0: never
    steps : training steps of an epoch
    """
    first_frozen = min(math.ceil(freeze_bn_after / steps), epochs)
    return [*itertools.pairwise(sorted({0, first_frozen, epochs}))]


class TwoPhases:
    """A compiled model, whose optimizer starts anew in each phase.

    Parameters
    ----------
    keras : module
    model : keras.Model, compiled; its batch normalisations are of the last axis, without a mask
    n_steps : keras.Variable, which is set to the training steps of a phase

    Attributes
    ----------
    frozen : keras.Variable of bool, whether batch normalisation is frozen; no layer holds it, so
        that it is not saved
    """

    def __init__(self, keras: Any, model: Any, n_steps: Any) -> None:
        self.model = model
        self.n_steps = n_steps
        self.frozen = keras.Variable(False, dtype="bool", trainable=False, name="frozen")
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.call = freezable(keras.ops, layer, self.frozen)

        # Variables that are made while TensorFlow traces the step would have it trace twice
        model.compute_metrics(None, np.zeros(1), np.ones((1, model.output_shape[1])), np.ones(1))
        model.optimizer.build(model.trainable_variables)
        self.fresh = [np.array(variable) for variable in model.optimizer.variables]

    def begin(self, n_steps: int, is_frozen: bool) -> None:
        """Make the model ready for a phase of so many training steps."""
        self.frozen.assign(is_frozen)
        self.n_steps.assign(n_steps)
        for variable, value in zip(self.model.optimizer.variables, self.fresh, strict=True):
            variable.assign(value)


def freezable(ops: Any, layer: Any, frozen: Any) -> Any:
    """Return a replacement for `call` of a batch normalisation.

    While frozen, the layer uses its moving averages, and these, its scale and its offset stay.
    """
    def kept(variable):
        """Return a variable that has no gradient while it is frozen, so that Adam keeps it."""
        constant = ops.stop_gradient(variable)
        return ops.where(frozen, constant, variable)

    def used(moving, of_batch):
        """Return a statistic to use, and update the moving one."""
        now = ops.where(frozen, moving, of_batch)
        mixed = moving * layer.momentum + of_batch * (1.0 - layer.momentum)
        moving.assign(ops.where(frozen, moving, mixed))
        return now

    def call(inputs, training=False, mask=None):
        if not training:
            return type(layer).call(layer, inputs, training=False)

        axes = list(range(len(inputs.shape) - 1))
        mean, variance = ops.moments(inputs, axes)
        return ops.batch_normalization(
            inputs,
            used(layer.moving_mean, mean),
            used(layer.moving_variance, variance),
            axis=-1,
            offset=kept(layer.beta),
            scale=kept(layer.gamma),
            epsilon=layer.epsilon)

    return call


def steps_at_once(steps: int, xla: bool) -> int:
    """Return Keras's `steps_per_execution`: a divisor of `steps`, so that XLA compiles only once.

    It is 1 without XLA, where more gains nothing.
    """
    most = MAX_STEPS_AT_ONCE if xla else 1
    return max(i for i in range(1, most + 1) if steps % i == 0)


def feed(tf: Any, batches: Iterator[tuple], at_once: int) -> Any:
    """Return a tf.data.Dataset of endless batches, which a thread prepares during training.

    TensorFlow calls Python, which is slow, once for `at_once` batches.
    """
    def groups():
        while True:
            group = [next(batches) for _ in range(at_once)]
            yield tf.nest.map_structure(lambda *arrays: np.stack(arrays), *group)

    first = next(groups())
    shapes = tf.nest.map_structure(lambda array: tf.TensorSpec(array.shape, array.dtype), first)
    dataset = tf.data.Dataset.from_generator(
        lambda: itertools.chain([first], groups()), output_signature=shapes)
    return dataset.unbatch().prefetch(at_once)


def early_stopping(keras: Any, recipe: Any) -> Any:
    """Return Keras's EarlyStopping, whose patience counts anew in each phase.

    The best epoch, its weights and its accuracy outlive a phase, whatever Keras's release forgets.
    """
    class Stopping(keras.callbacks.EarlyStopping):
        best: Any
        best_epoch = 0
        best_weights = None

        def on_train_begin(self, logs=None):
            best = self.best, self.best_epoch, self.best_weights
            super().on_train_begin(logs)
            self.best, self.best_epoch, self.best_weights = best

    return Stopping("val_accuracy", mode="max", patience=recipe.stop_patience,
                    restore_best_weights=recipe.keep_weights == "best")


def epoch_bar(keras: Any) -> Any:
    """Return a Keras callback that shows an epoch's steps on a terminal; a log has lines only.

    It is to be called before the callback that prints a line at an epoch's end.
    """
    class EpochBar(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.bar = tqdm(
                desc=f"epoch {epoch + 1}",
                total=self.params["steps"],
                delay=BAR_DELAY_S,
                leave=False,
                disable=None)    # where stderr is no terminal

        def on_train_batch_end(self, batch, logs=None):
            done = batch + 1    # of several steps at once, the last
            self.bar.update(done - self.bar.n)

        def on_epoch_end(self, epoch, logs=None):
            self.bar.close()

    return EpochBar()


def epoch_lines(keras: Any, epochs: int, history: list[dict]) -> Any:
    """Return a Keras callback that prints a line for each epoch, and adds its logs to `history`."""
    start = time.monotonic()

    def print_epoch(epoch, logs):
        history.append(logs)
        names = "loss", "accuracy", "val_loss", "val_accuracy"
        figures = "".join(f"  {name} {logs[name]:.3f}" for name in names)
        print(f"epoch {epoch + 1:2}/{epochs}{figures}  {time.monotonic() - start:.0f} s")

    return keras.callbacks.LambdaCallback(on_epoch_end=print_epoch)


def print_start(model: Any, training: Any, validation: Any, xla: bool) -> None:
    """Print what a training begins with, and what the lines of its epochs mean."""
    n_different = training.rows["waveform_path"].nunique()
    print(f"{model.count_params():,} parameters, {len(training.targets)} training records "
          f"({n_different} different ones) and {len(validation.targets)} validation records, XLA "
          f"{'on' if xla else 'off'}\n"
          "compiling the training step ...\n"
          "(val_loss and val_accuracy: every class counts alike; seconds: since the start)")


def print_stop(stopping: Any, recipe: Any) -> None:
    """Print where early stopping ended a training, whose weights are kept and why."""
    kept = ("its weights are kept" if recipe.keep_weights == "best" else
            "kept are the last weights: of few validation patients, the best epoch is partly luck")
    print(f"stopped after epoch {stopping.stopped_epoch + 1}: no better val_accuracy for "
          f"{recipe.stop_patience} epochs; the best was {stopping.best:.3f} after epoch "
          f"{stopping.best_epoch + 1};\n{kept}")

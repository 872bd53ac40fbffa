"""Keras's own batch normalisation, which a variable freezes while a model trains.

`layer.trainable = False` freezes a layer too, but only once the model is compiled anew, for which
XLA takes seconds. Only `call` of each object is replaced: it is still saved as Keras's own layer.
"""

from typing import Any


def let_freeze(keras: Any, model: Any) -> Any:
    """Let a variable freeze each batch normalisation of a model.

    Frozen, a layer uses its moving statistics and keeps them, its scale and its offset as they are.

    Parameters
    ----------
    keras : the Keras module, on TensorFlow
    model : keras.Model, whose normalisations are of the last axis and without a mask

    Returns
    -------
    keras.Variable of bool
        False at first. No layer holds it, so that it is not saved.
    """
    frozen = keras.Variable(False, dtype="bool", trainable=False, name="frozen")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.call = freezable(keras.ops, layer, frozen)
    return frozen


def freezable(ops: Any, layer: Any, frozen: Any) -> Any:
    """Return what takes the place of a layer's `call`."""
    def kept(variable: Any) -> Any:
        """Return a variable that has no gradient while it is frozen, so that Adam keeps it."""
        constant = ops.stop_gradient(variable)
        return ops.where(frozen, constant, variable)

    def used(moving: Any, of_batch: Any) -> Any:
        """Return a statistic to use, and update the moving one."""
        now = ops.where(frozen, moving, of_batch)
        old_part = moving * layer.momentum
        new_part = of_batch * (1.0 - layer.momentum)
        updated = ops.where(frozen, moving, old_part + new_part)
        moving.assign(updated)
        return now

    def call(inputs: Any, training: bool = False, mask: Any = None) -> Any:
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

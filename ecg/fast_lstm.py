"""A faster way to compute Keras's own LSTM layer on a CPU; `too_feature.py` trains with it.

Keras's recurrence, differentiated by TensorFlow, adds up the gradients of the weights step by step
and calls four activations for four gates. Here all gradients of weights are products of two
matrices after the loop, one tanh computes all gates, and nothing joins columns inside the loop,
which XLA does number by number: a training step takes a fraction of the time (benchmarks/speed.py).
The layer, its weights and its outputs stay the same, up to rounding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def loop(
    step: Callable,
    state: tuple,
    rows: Sequence,
    widths: list[int],
    reverse: bool = False,
) -> tuple:
    """Go through rows of tables, keeping a state and collecting rows of new tables.

    Parameters
    ----------
    step : of the state and row t of each table in `rows`; returns the next state and new rows
    state : tensors
    rows : tensors (steps, n, any width)
    widths : number of columns of each of the new rows
    reverse : whether to start with the last row

    Returns
    -------
    state : after the last step
    tables : the new rows, one tensor (steps, n, width) for each of `widths`
    """
    import tensorflow as tf

    n = rows[0].shape[1]
    steps = tf.shape(rows[0])[0]
    first = steps - 1 if reverse else 0
    change = -1 if reverse else 1
    empty = [
        tf.TensorArray(rows[0].dtype, steps, element_shape=(n, width))
        for width in widths
    ]

    def goes_on(t, *_):
        return t >= 0 if reverse else t < steps

    def body(t, state, tables):
        state, new = step(state, [table[t] for table in rows])
        tables = [table.write(t, row) for table, row in zip(tables, new, strict=True)]
        return t + change, state, tables

    _, state, tables = tf.while_loop(goes_on, body, (first, state, empty))
    return state, [table.stack() for table in tables]


class Recurrence:
    """The steps of an LSTM over time, and their gradients.

    Source: Hochreiter & Schmidhuber, Neural Computation 1997;9:1735-1780, with the forget gate of
    Gers et al., ibid. 2000;12:2451-2471.

    Parameters
    ----------
    keras : the Keras module, on TensorFlow
    units : number of cells
    """

    def __init__(self, keras: Any, units: int) -> None:
        self.ops = keras.ops
        self.units = units
        # sigmoid(x) is tanh(x / 2) / 2 + 1 / 2: of input, forget and output gate, not of new input
        scale = np.array([0.5, 0.5, 1.0, 0.5], np.float32)
        self.scale = np.repeat(scale, units)

    def forward(self, x: Any, weights: Any, first_h: Any, first_c: Any) -> tuple:
        """Go through all time steps.

        Parameters
        ----------
        x : (steps, n, 4 * units), inputs times their weights, with the bias
        weights : (units, 4 * units), of the output h of the step before
        first_h : (n, units), output before the first step
        first_c : (n, units), cells before the first step

        Returns
        -------
        last : the last output and cells
        tables : the cells before each step (steps, n, units), the gates (steps, n, 4 * units)
        """
        ops = self.ops
        scale = self.scale
        scaled_weights = weights * scale

        def step(state, row):
            h, c = state
            gate = ops.tanh(row[0] + h @ scaled_weights) * scale + (1 - scale)
            i, f, g, o = ops.split(gate, 4, 1)
            new_c = f * c + i * g
            new_h = o * ops.tanh(new_c)
            return (new_h, new_c), (c, gate)

        first = (first_h, first_c)
        widths = [self.units, 4 * self.units]
        return loop(step, first, (x * scale,), widths)

    def backward(
        self,
        weights: Any,
        first_h: Any,
        c: Any,
        gates: Any,
        d_last: Any,
    ) -> tuple:
        """Return the gradients of the four arguments of `forward`.

        Parameters
        ----------
        weights, first_h : as given to `forward`
        c, gates : the tables that it returned
        d_last : (2, n, units), gradient of the last output and cells
        """
        ops = self.ops
        i, f, g, o = ops.split(gates, 4, 2)
        tanh = ops.tanh(f * c + i * g)
        h_after = o * tanh
        h = ops.concatenate([first_h[None], h_after[:-1]], 0)    # before each step, like c

        dc_dh = o * (1 - tanh**2)
        # A table for each gate, as XLA is slow where it joins columns
        slope_i = g * i * (1 - i)
        slope_f = c * f * (1 - f)
        slope_g = i * (1 - g**2)
        slope_o = tanh * o * (1 - o)
        weights_of_gates = ops.split(ops.transpose(weights), 4)

        def step(state, row):
            dh, dc = state
            dc_dh, f, slope_i, slope_f, slope_g, slope_o = row
            dc = dc + dh * dc_dh
            dx = [dc * slope_i, dc * slope_f, dc * slope_g, dh * slope_o]
            products = [d @ w for d, w in zip(dx, weights_of_gates, strict=True)]
            return (sum(products), dc * f), dx

        last = (d_last[0], d_last[1])
        rows = (dc_dh, f, slope_i, slope_f, slope_g, slope_o)
        first, tables = loop(step, last, rows, [self.units] * 4, reverse=True)
        dh, dc = first
        dx = ops.concatenate(tables, 2)
        d_weights = ops.einsum("tni,tnj->ij", h, dx)
        return dx, d_weights, dh, dc

    def differentiable(self) -> Callable:
        """Return `forward` as one operation with `backward` as its gradient.

        It gives the last output and cells as one array (2, n, units).
        """
        @self.ops.custom_gradient
        def last(x, weights, first_h, first_c):
            state, (c, gates) = self.forward(x, weights, first_h, first_c)

            def gradient(d_last):
                return self.backward(weights, first_h, c, gates, d_last)

            return self.ops.stack(state), gradient

        return last


def project(ops: Any, inputs: Any, kernel: Any, bias: Any) -> Any:
    """Return inputs (steps, n, width) times `kernel` (width, columns) plus `bias` (columns,).

    As one product of two matrices, whose gradients are products as well: XLA is slow at the sums
    over steps and records that the gradients of a product of many and of a bias take.
    """
    rows = ops.reshape(inputs, (-1, inputs.shape[2]))
    rows = ops.pad(rows, ((0, 0), (0, 1)), constant_values=1)    # its weight is the bias
    product = rows @ ops.concatenate([kernel, bias[None]], 0)
    return ops.reshape(product, (-1, inputs.shape[1], product.shape[1]))


def can_speed_up(keras: Any, lstm: Any) -> bool:
    """Return whether a layer is an LSTM of the kind that `speed_up` knows."""
    if not isinstance(lstm, keras.layers.LSTM):
        return False
    if not hasattr(type(lstm), "inner_loop"):    # another version of Keras
        return False

    cell = lstm.cell
    if lstm.return_sequences or lstm.go_backwards or cell.recurrent_dropout:
        return False
    if cell.activation.__name__ != "tanh" or not cell.use_bias:
        return False
    return cell.recurrent_activation.__name__ == "sigmoid"


def speed_up(keras: Any, lstm: Any) -> bool:
    """Let an LSTM layer of Keras compute faster, if possible.

    Only `inner_loop` of this one object is replaced: it is still saved as Keras's own layer, and
    `del lstm.inner_loop` undoes it.

    Parameters
    ----------
    keras : the Keras module, on TensorFlow
    lstm : keras.layers.LSTM without recurrent dropout, that returns its last output alone

    Returns
    -------
    bool
        Whether that was possible.
    """
    if not can_speed_up(keras, lstm):
        return False

    ops = keras.ops
    cell = lstm.cell
    last = Recurrence(keras, lstm.units).differentiable()

    def inner_loop(sequences, initial_state, mask=None, training=False):
        if mask is not None:
            stock = type(lstm).inner_loop
            return stock(lstm, sequences, initial_state, mask, training)

        if training and cell.dropout:    # one mask for all time steps, as in Keras
            kept = cell.get_dropout_mask(sequences[:, 0])
            sequences *= kept[:, None]

        kernel, weights, bias = map(ops.copy, lstm.weights[:3])    # tensors, not variables
        by_time = ops.transpose(sequences, (1, 0, 2))
        x = project(ops, by_time, kernel, bias)
        both = last(x, weights, *initial_state)
        h = both[0]
        c = both[1]
        return h, h[:, None], [h, c]

    lstm.inner_loop = inner_loop
    return True


def speed_up_lstms(keras: Any, model: Any) -> None:
    """Quicken each LSTM layer of a model, as far as possible."""
    for layer in model.layers:
        speed_up(keras, layer)


def xla_works(tf: Any) -> bool:
    """Try a tiny compiled loop: XLA is missing or broken on some machines."""
    @tf.function(jit_compile=True)
    def power(x):
        return tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, tf.tanh(y @ x)), (0, x))

    try:
        power(tf.zeros((2, 2)))
    except Exception as error:    # whatever XLA raises, training can go on without it
        print(f"XLA does not work here ({type(error).__name__}): training takes 4 times as long")
        return False
    return True


def try_xla(tf: Any, recipe: Any) -> bool:
    """Return whether a training compiles with XLA: the recipe says so, and it works here."""
    if recipe.xla:
        print("trying XLA: lines of absl or XLA that follow are harmless", flush=True)
    return recipe.xla and xla_works(tf)

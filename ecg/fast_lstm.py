"""A faster way to compute Keras's own LSTM layer on a CPU; `too_feature.py` trains with it.

Keras's recurrence, differentiated by TensorFlow, adds up the gradients of the weights step by step
and calls four activations for four gates. Here all gradients of weights are products of two
matrices after the loop, one tanh computes all gates, and nothing joins columns inside the loop,
which XLA does number by number: a training step takes a fraction of the time (benchmarks/speed.py).
The layer, its weights and its outputs stay the same, up to rounding.
"""

import functools
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
    empty = [
        tf.TensorArray(rows[0].dtype, steps, element_shape=(n, width))
        for width in widths
    ]

    def body(i, state, tables):
        t = steps - 1 - i if reverse else i
        state, new = step(state, [table[t] for table in rows])
        tables = [table.write(t, row) for table, row in zip(tables, new, strict=True)]
        return i + 1, state, tables

    _, state, tables = tf.while_loop(lambda i, *_: i < steps, body, (0, state, empty))
    return state, [table.stack() for table in tables]


def forward(ops: Any, x: Any, weights: Any, first_h: Any, first_c: Any) -> tuple:
    """Go through all time steps of an LSTM.

    Source: Hochreiter & Schmidhuber, Neural Computation 1997;9:1735-1780, with the forget gate of
    Gers et al., ibid. 2000;12:2451-2471.

    Parameters
    ----------
    ops : keras.ops, on TensorFlow
    x : (steps, n, 4 * units), inputs times their weights, with the bias
    weights : (units, 4 * units), of the output h of the step before
    first_h : (n, units), output before the first step
    first_c : (n, units), cells before the first step

    Returns
    -------
    last : the last output and cells
    tables : the cells before each step (steps, n, units), the gates (steps, n, 4 * units)
    """
    units = weights.shape[0]
    # sigmoid(x) is tanh(x / 2) / 2 + 1 / 2: of input, forget and output gate, not of new input
    scale = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), units)
    scaled_weights = weights * scale

    def step(state, row):
        h, c = state
        gate = ops.tanh(row[0] + h @ scaled_weights) * scale + (1 - scale)
        i, f, g, o = ops.split(gate, 4, 1)
        new_c = f * c + i * g
        new_h = o * ops.tanh(new_c)
        return (new_h, new_c), (c, gate)

    return loop(step, (first_h, first_c), (x * scale,), [units, 4 * units])


def backward(
    ops: Any,
    weights: Any,
    first_h: Any,
    c: Any,
    gates: Any,
    d_h: Any,
    d_c: Any,
) -> tuple:
    """Return the gradients of the four arrays that `forward` takes.

    Parameters
    ----------
    ops, weights, first_h : as given to `forward`
    c, gates : the tables that it returned
    d_h, d_c : (n, units), gradients of the last output and cells
    """
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

    rows = (dc_dh, f, slope_i, slope_f, slope_g, slope_o)
    widths = [weights.shape[0]] * 4
    (d_h, d_c), tables = loop(step, (d_h, d_c), rows, widths, reverse=True)
    dx = ops.concatenate(tables, 2)
    return dx, ops.einsum("tni,tnj->ij", h, dx), d_h, d_c


def project(ops: Any, inputs: Any, kernel: Any, bias: Any) -> Any:
    """Return inputs (steps, n, width) times `kernel` (width, columns) plus `bias` (columns,).

    As one product of two matrices, whose gradients are products as well: XLA is slow at the sums
    over steps and records that the gradients of a product of many and of a bias take.
    """
    rows = ops.reshape(inputs, (-1, inputs.shape[2]))
    rows = ops.pad(rows, ((0, 0), (0, 1)), constant_values=1)    # its weight is the bias
    product = rows @ ops.concatenate([kernel, bias[None]], 0)
    return ops.reshape(product, (-1, inputs.shape[1], product.shape[1]))


def speed_up(keras: Any, lstm: Any) -> None:
    """Let an LSTM layer of Keras compute faster.

    Only `inner_loop` of this one object is replaced: it is still saved as Keras's own layer.

    Parameters
    ----------
    keras : the Keras module, on TensorFlow
    lstm : keras.layers.LSTM with dropout of its inputs, that returns its last output alone
    """
    ops = keras.ops

    @ops.custom_gradient
    def last(x, weights, first_h, first_c):
        state, (c, gates) = forward(ops, x, weights, first_h, first_c)
        return state, functools.partial(backward, ops, weights, first_h, c, gates)

    def inner_loop(sequences, initial_state, mask=None, training=False):
        if training:    # one mask for all time steps, as in Keras
            kept = lstm.cell.get_dropout_mask(sequences[:, 0])
            sequences *= kept[:, None]

        kernel, weights, bias = map(ops.copy, lstm.weights[:3])    # tensors, not variables
        by_time = ops.transpose(sequences, (1, 0, 2))
        x = project(ops, by_time, kernel, bias)
        h, c = last(x, weights, *initial_state)
        return h, h[:, None], [h, c]

    lstm.inner_loop = inner_loop


def speed_up_lstms(keras: Any, model: Any) -> None:
    """Let the LSTM layers of a model compute faster."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.LSTM):
            speed_up(keras, layer)


def try_xla(tf: Any, recipe: Any) -> bool:
    """Return whether a training compiles with XLA: the recipe says so, and it works here.

    XLA is missing or broken on some machines, which a tiny compiled loop tells.
    """
    if not recipe.xla:
        return False
    print("trying XLA: lines of absl or XLA that follow are harmless", flush=True)

    @tf.function(jit_compile=True)
    def power(x):
        return tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, tf.tanh(y @ x)), (0, x))

    try:
        power(tf.zeros((2, 2)))
    except Exception as error:    # whatever XLA raises, training can go on without it
        print(f"XLA does not work here ({type(error).__name__}): training takes 4 times as long")
        return False
    return True

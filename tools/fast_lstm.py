"""A faster way to compute Keras's own LSTM layer on a CPU; `too_feature.py` trains with it.

Keras's recurrence, differentiated by TensorFlow or JAX, adds up the gradient of the weights at
every time step and calls four activations for four gates. Here one product after the loop gives
the weights' gradient, and one tanh all gates: the training step takes half as long
(benchmarks/speed.py). The layer, its weights and its outputs stay the same, to rounding.
"""

import numpy as np


def loop(step, state, rows, widths, reverse=False):
    """Do in TensorFlow as jax.lax.scan does in JAX; `step` also gives arrays of `widths` columns.

    Row t of each array in `rows` goes into step t, and what it gives becomes row t of new ones.
    """
    import tensorflow as tf
    steps, first = tf.shape(rows[0])[0], rows[0]

    def body(t, state, tables):
        state, new = step(state, [x[t] for x in rows])
        return (t - 1 if reverse else t + 1, state,
                [table.write(t, row) for table, row in zip(tables, new, strict=True)])

    _, state, tables = tf.while_loop(
        lambda t, *_: t >= 0 if reverse else t < steps, body,
        (steps - 1 if reverse else 0, state, [
            tf.TensorArray(first.dtype, steps, element_shape=(first.shape[1], width))
            for width in widths]))
    return state, [table.stack() for table in tables]


def quicken(keras, lstm):
    """Have a stock LSTM layer compute as XLA does it best; return whether that was possible.

    Parameters
    ----------
    keras : the Keras module, on TensorFlow or JAX
    lstm : keras.layers.LSTM without recurrent dropout, that returns its last output alone

    Only `inner_loop` of this one object is covered: it is saved as Keras's own layer, and
    `del lstm.inner_loop` uncovers it. Gradients: Hochreiter & Schmidhuber, Neural Computation
    1997;9:1735-1780, with the forget gate of Gers et al., ibid. 2000;12:2451-2471.
    """
    cell, ops, backend = lstm.cell, keras.ops, keras.backend.backend()
    if (backend not in ("tensorflow", "jax") or not isinstance(lstm, keras.layers.LSTM)
            or not hasattr(type(lstm), "inner_loop") or lstm.return_sequences or lstm.go_backwards
            or cell.recurrent_dropout or not cell.use_bias or cell.activation.__name__ != "tanh"
            or cell.recurrent_activation.__name__ != "sigmoid"):
        return False
    scan = loop
    if backend == "jax":
        import jax

        def scan(step, state, rows, widths, reverse=False):
            return jax.lax.scan(step, state, rows, reverse=reverse)

    units = lstm.units    # sigmoid(x) is tanh(x / 2) / 2 + 1 / 2
    scale = np.repeat(np.float32([0.5, 0.5, 1.0, 0.5]), units)

    @ops.custom_gradient
    def recurrence(x, weights, first_h, first_c):    # x: (steps, n, 4 units)
        def forward(state, row):
            h, c = state
            gate = ops.tanh(row[0] + h @ scaled_weights) * scale + (1 - scale)
            i, f, g, o = ops.split(gate, 4, 1)
            new_c = f * c + i * g
            return (o * ops.tanh(new_c), new_c), (c, gate)

        def gradient(last):
            i, f, g, o = ops.split(gates, 4, 2)
            tanh, transposed = ops.tanh(f * c + i * g), ops.transpose(weights)
            h = ops.concatenate([first_h[None], (o * tanh)[:-1]], 0)    # before each step, as c is
            dc_dh = o * (1 - tanh**2)
            slopes = ops.concatenate([g * i * (1 - i), c * f * (1 - f), i * (1 - g**2),
                                      tanh * o * (1 - o)], 2)

            def backward(state, row):
                (dh, dc), (dc_dh, slopes, f) = state, row
                dc = dc + dh * dc_dh
                dx = ops.concatenate([dc, dc, dc, dh], 1) * slopes
                return (dx @ transposed, dc * f), (dx,)

            (dh, dc), (dx,) = scan(backward, (last[0], last[1]), (dc_dh, slopes, f), [4 * units],
                                   reverse=True)
            return dx, ops.einsum("tni,tnj->ij", h, dx), dh, dc

        scaled_weights = weights * scale
        state, (c, gates) = scan(forward, (first_h, first_c), (x * scale,), [units, 4 * units])
        return ops.stack(state), gradient    # one array: a pair's gradient is passed differently

    def inner_loop(sequences, initial_state, mask=None, training=False):
        if mask is not None:
            return type(lstm).inner_loop(lstm, sequences, initial_state, mask, training)
        if training and cell.dropout:    # one mask for all time steps, as in Keras
            sequences *= cell.get_dropout_mask(sequences[:, 0])[:, None]
        kernel, weights, bias = map(ops.copy, lstm.weights[:3])    # tensors, not variables
        last = recurrence(ops.transpose(sequences, (1, 0, 2)) @ kernel + bias, weights,
                          *initial_state)
        h, c = last[0], last[1]
        return h, h[:, None], [h, c]

    lstm.inner_loop = inner_loop
    return True


def quicken_all(keras, model):
    """Quicken each LSTM layer of a model, as far as possible."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.LSTM):
            quicken(keras, layer)


def xla_works(keras):
    """Try one tiny compiled LSTM step: XLA is missing or broken on some machines."""
    try:
        model = keras.Sequential([keras.Input((4, 1)), keras.layers.LSTM(1)])
        model.compile("sgd", "mse", jit_compile=True)
        model.train_on_batch(np.zeros((1, 4, 1)), np.zeros((1, 1)))
    except Exception as error:    # whatever XLA raises, training can go on without it
        print(f"XLA does not work here ({type(error).__name__}): training takes 4 times as long")
        return False
    return True

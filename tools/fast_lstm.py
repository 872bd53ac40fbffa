"""A faster way to compute Keras's own LSTM layer on a CPU; `too_feature.py` trains with it.

Keras's recurrence, differentiated by TensorFlow, adds up the gradient of the weights at every time
step and calls four activations for four gates. Here one product after the loop gives the weights'
gradient, and one tanh all gates: the training step takes half as long (benchmarks/speed.py). The
layer, its weights and its outputs stay the same, to rounding.
"""


def quicken(tf, lstm):
    """Have a stock LSTM layer compute as XLA does it best; return whether that was possible.

    Parameters
    ----------
    tf : the TensorFlow module
    lstm : keras.layers.LSTM without recurrent dropout, that returns its last output alone

    Only `inner_loop` of this one object is covered: it is saved as Keras's own layer, and
    `del lstm.inner_loop` uncovers it. Gradients: Hochreiter & Schmidhuber, Neural Computation
    1997;9:1735-1780, with the forget gate of Gers et al., ibid. 2000;12:2451-2471.
    """
    cell, units = lstm.cell, lstm.units
    if (not hasattr(type(lstm), "inner_loop") or lstm.return_sequences or lstm.go_backwards
            or cell.recurrent_dropout or not cell.use_bias or cell.activation.__name__ != "tanh"
            or cell.recurrent_activation.__name__ != "sigmoid"):
        return False
    scale = tf.repeat([0.5, 0.5, 1.0, 0.5], units)    # sigmoid(x) is tanh(x / 2) / 2 + 1 / 2

    @tf.custom_gradient
    def recurrence(x, weights, first_h, first_c):    # x: (steps, n, 4 units)
        def table(columns):
            return tf.TensorArray(x.dtype, steps, element_shape=(x.shape[1], columns))

        def forward(t, h, c, cs, gates):
            gate = tf.tanh(scaled[t] + h @ scaled_weights) * scale + (1 - scale)
            i, f, g, o = tf.split(gate, 4, 1)
            new_c = f * c + i * g
            return t + 1, o * tf.tanh(new_c), new_c, cs.write(t, c), gates.write(t, gate)

        def gradient(dh, dc):
            i, f, g, o = tf.split(gates.stack(), 4, 2)
            c, transposed = cs.stack(), tf.transpose(weights)
            tanh = tf.tanh(f * c + i * g)
            h = tf.concat([first_h[None], (o * tanh)[:-1]], 0)    # before each step, as c is
            dc_dh = o * (1 - tanh**2)
            slopes = tf.concat([g * i * (1 - i), c * f * (1 - f), i * (1 - g**2),
                                tanh * o * (1 - o)], 2)

            def backward(t, dh, dc, dxs):
                dc += dh * dc_dh[t]
                dx = tf.concat([dc, dc, dc, dh], 1) * slopes[t]
                return t - 1, dx @ transposed, dc * f[t], dxs.write(t, dx)

            _, dh, dc, dxs = tf.while_loop(lambda t, *_: t >= 0, backward,
                                           (steps - 1, dh, dc, table(4 * units)))
            dx = dxs.stack()
            return dx, tf.einsum("tni,tnj->ij", h, dx), dh, dc

        steps, scaled, scaled_weights = tf.shape(x)[0], x * scale, weights * scale
        _, h, c, cs, gates = tf.while_loop(lambda t, *_: t < steps, forward, (
            0, first_h, first_c, table(units), table(4 * units)))
        return (h, c), gradient

    def inner_loop(sequences, initial_state, mask=None, training=False):
        if training and cell.dropout:    # one mask for all time steps, as in Keras
            sequences *= cell.get_dropout_mask(sequences[:, 0])[:, None]
        kernel, weights, bias = map(tf.convert_to_tensor, lstm.weights[:3])
        h, c = recurrence(tf.transpose(sequences, (1, 0, 2)) @ kernel + bias, weights,
                          *initial_state)
        return h, h[:, None], [h, c]

    lstm.inner_loop = inner_loop
    return True

"""Rows of the layer table for sequences: recurrent layers, embedding, attention."""

import numpy as np

from keydnn import nn
from keydnn.testing.layers import LayerCase, labels, normal
from tests.kernels import sequence_definitions as s
from tests.nn import definitions as d


def states(kind, x, weights, start=(), reverse=False, **how):
    """The states of every step and the last ones of one layer; ``weights`` are W_ih, W_hh[, b_ih, b_hh]."""
    w_ih, w_hh, *biases = weights
    n = 2 if kind == "lstm" else 1
    first = start or [np.zeros((x.shape[1], w_hh.shape[0]))] * n
    b = biases or [None, None]
    if kind != "gru":
        b = [b[0] + b[1]] if biases else [None]
    return getattr(s, kind)(x @ w_ih, w_hh, *b, *first, None, reverse, **how)[: n + 1]


def weights(state, prefix="", layer=0):
    cell = f"{prefix}cell_{f'{layer}_' if layer else ''}"
    return [state[f"{cell}{name}"] for name in ("W_ih", "W_hh", "b_ih", "b_hh") if f"{cell}{name}" in state]


def joined(*parts):
    return np.concatenate([np.ravel(p) for p in parts])


def by_cell(state):
    return [state[name] for name in ("W_ih", "W_hh", "b_ih", "b_hh") if name in state]


def recurrent(name, cls, definition, output, x=(4, 2, 3), inputs=(), **options):
    make = lambda dtype: cls(x[-1], 2, dtype=dtype, **options)  # noqa: E731
    return LayerCase(name, cls, make, (normal(*x), *(normal(*size) for size in inputs)), output, definition)


def stacked(x, **state):
    """A GRU of two layers, batch first."""
    h, first = states("gru", x.transpose(1, 0, 2), weights(state), reset_after=True)
    h, second = states("gru", h, weights(state, layer=1), reset_after=True)
    return joined(h.transpose(1, 0, 2), first, second)


def both_ways(kind, x, state, **how):
    return [states(kind, x, weights(state, f"{name}_layer_"), reverse=name == "backward", **how) for name in ("forward", "backward")]


def bidirectional(name, inner, definition, output, x=(4, 2, 3), **options):
    return LayerCase(name, nn.Bidirectional, lambda dtype: nn.Bidirectional(inner(dtype), **options), (normal(*x),), output, definition)


def aligned(x, **state):
    (f, _), (b, _) = both_ways("gru", x, state, reset_after=False)
    return np.concatenate([f[-1], b[-1]], 1)


def projected(state, name, x):
    y = x @ state[f"{name}_weight"].T
    return y + state[f"{name}_bias"] if f"{name}_bias" in state else y


def attention(x, key, value, n_heads, seen=None, prefix="", **state):
    """(N, L, E) from (N, L, E) and (N, S, ...), one head of one row at a time."""
    q, k, v = (projected(state, f"{prefix}{n}_proj", t) for n, t in (("q", x), ("k", key), ("v", value)))
    d_head = q.shape[2] // n_heads
    y = np.zeros_like(q)
    for n, h in np.ndindex(len(q), n_heads):
        part = slice(h * d_head, (h + 1) * d_head)
        scores = q[n, :, part] @ k[n, :, part].T / np.sqrt(d_head)
        y[n, :, part] = d.softmax(scores if seen is None else np.where(seen, scores, -np.inf)) @ v[n, :, part]
    return projected(state, f"{prefix}out_proj", y)


def encoder(x, act, norm_first, **state):
    x = x.transpose(1, 0, 2)
    attend = lambda t: attention(t, t, t, 2, prefix="attention_", **state)  # noqa: E731
    network = lambda t: projected(state, "linear2", act(projected(state, "linear1", t)))  # noqa: E731
    norm = lambda t, i: d.normalized(t, (-1,), 1e-5, state[f"norm{i}_gamma"], state[f"norm{i}_beta"])  # noqa: E731
    if norm_first:
        x = x + attend(norm(x, 1))
        x = x + network(norm(x, 2))
    else:
        x = norm(x + attend(x), 1)
        x = norm(x + network(x), 2)
    return x.transpose(1, 0, 2)


def encoder_layer(name, act, **options):
    make = lambda dtype: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, dtype=dtype, **options)  # noqa: E731
    definition = lambda x, **state: encoder(x, act, options.get("norm_first", False), **state)  # noqa: E731
    return LayerCase(name, nn.TransformerEncoderLayer, make, (normal(3, 2, 4),), (3, 2, 4), definition)


def cell(cls, definition, n_states=1, **options):
    inputs = (normal(3, 4), *[normal(3, 2)] * n_states)
    output = (3, 2) if n_states == 1 else (12,)
    suffix = "".join(f"-{name}" for name in options)
    return LayerCase(cls.__name__ + suffix, cls, lambda dtype: cls(4, 2, dtype=dtype, **options), inputs, output, definition)


def one_step(kind, **how):
    def definition(x, *start, **state):
        last = states(kind, x[None], by_cell(state), list(start), **how)[1:]
        return last[0] if len(last) == 1 else joined(*last)

    return definition


CELLS = [
    cell(nn.RNNCell, one_step("rnn")),
    cell(nn.RNNCell, one_step("rnn"), bias=False),
    cell(nn.LSTMCell, one_step("lstm"), 2),
    cell(nn.LSTMCell, one_step("lstm"), 2, bias=False),
    cell(nn.GRUCell, one_step("gru", reset_after=False)),
    cell(nn.GRUCell, one_step("gru", reset_after=True), reset_after=True),
]

RECURRENT = [
    recurrent("RNN", nn.RNN, lambda x, **state: joined(*states("rnn", x, weights(state))), (20,)),
    recurrent("RNN-last", nn.RNN, lambda x, h, **state: states("rnn", x, weights(state), [h])[1], (2, 2), inputs=[(2, 2)], bias=False,
              return_sequences=False),
    recurrent("LSTM", nn.LSTM, lambda x, **state: joined(*states("lstm", x, weights(state))), (24,)),
    recurrent("LSTM-states", nn.LSTM, lambda x, h, c, **state: states("lstm", x, weights(state), [h, c])[0], (4, 2, 2), inputs=[(2, 2)] * 2,
              return_state=False),
    recurrent("GRU", nn.GRU, lambda x, **state: states("gru", x, weights(state), reset_after=False)[0], (4, 2, 2), return_state=False),
    recurrent("GRU-two-layers-batch-first", nn.GRU, stacked, (32,), num_layers=2, batch_first=True, reset_after=True),
    bidirectional("Bidirectional-RNN", lambda dtype: nn.RNN(3, 2, dtype=dtype),
                  lambda x, **state: np.concatenate([h for h, _ in both_ways("rnn", x, state)], 2), (4, 2, 4)),
    bidirectional("Bidirectional-LSTM-sum", lambda dtype: nn.LSTM(3, 2, dtype=dtype),
                  lambda x, **state: sum(h for _, h, _ in both_ways("lstm", x, state)), (2, 2), merge_mode="sum", return_sequences=False),
    bidirectional("Bidirectional-GRU-aligned", lambda dtype: nn.GRU(3, 2, dtype=dtype), aligned, (2, 4), return_sequences=False,
                  last="aligned"),
]  # fmt: skip

CAUSAL = np.tril(np.ones((3, 3)))
ATTENTION = [
    LayerCase(
        "Embedding", nn.Embedding, lambda dtype: nn.Embedding(6, 3, dtype=dtype), (labels(5, 6),), (5, 3), lambda i, weight: weight[i]
    ),
    LayerCase(
        "MultiHeadAttention",
        nn.MultiHeadAttention,
        lambda dtype: nn.MultiHeadAttention(4, 2, batch_first=True, dtype=dtype),
        (normal(2, 3, 4),),
        (2, 3, 4),
        lambda x, **state: attention(x, x, x, 2, **state),
    ),
    LayerCase(
        "MultiHeadAttention-other-sequence",
        nn.MultiHeadAttention,
        lambda dtype: nn.MultiHeadAttention(4, 2, bias=False, kdim=3, vdim=2, dtype=dtype),
        (normal(3, 2, 4), normal(5, 2, 3), normal(5, 2, 2)),
        (3, 2, 4),
        lambda q, k, v, **state: attention(*(t.transpose(1, 0, 2) for t in (q, k, v)), 2, **state).transpose(1, 0, 2),
    ),
    encoder_layer("TransformerEncoderLayer", lambda t: np.maximum(t, 0)),
    encoder_layer("TransformerEncoderLayer-norm-first-gelu", d.gelu, norm_first=True, activation="gelu"),
]

CASES = [*CELLS, *RECURRENT, *ATTENTION]

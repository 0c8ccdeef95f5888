"""Rows of the op table for recurrent sequences and lookups; PyTorch's weights are the transposes of ours."""

import numpy as np

from keydnn import Tensor, concat, ops
from keydnn.ops.lookup import embedding_grad_p
from keydnn.ops.recurrent import rnn_grad_p
from tests.kernels import sequence_definitions as d
from tests.ops.op_cases import Case, given, normal, uniform

LOOSE = {"rtol": (4e-5, 1e-12), "atol": (4e-5, 1e-12)}
MASK = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
D, T, N, H = 2, 3, 2, 2


def joined(parts):
    return concat([part.reshape((-1,)) for part in parts], axis=0)


def flat(parts):
    return np.concatenate([part.ravel() for part in parts])


def swapped(w):
    """r, z, n to z, r, n along the first axis, and back."""
    return w.reshape((3, -1, *w.shape[1:]))[[1, 0, 2]].reshape(w.shape)


def torch_layer(kind):
    """The states of every step and the last ones by PyTorch; the gradient goes through the weights put into it."""

    def run(t, x, w_ih, w_hh, *rest):
        states = rest[:2] if kind == "LSTM" else rest[:1]
        biases = rest[len(states) :]
        order = (lambda w: swapped(w)) if kind == "GRU" else (lambda w: w)
        layer = getattr(t.nn, kind)(w_ih.shape[0], w_hh.shape[0], bias=bool(biases), dtype=x.dtype)
        weights = {"weight_ih_l0": order(w_ih.T), "weight_hh_l0": order(w_hh.T)}
        weights |= dict(zip(("bias_ih_l0", "bias_hh_l0"), map(order, biases), strict=False))
        first = tuple(s[None] for s in states)
        y, last = t.func.functional_call(layer, weights, (x, first if kind == "LSTM" else first[0]))
        parts = [y, *last] if kind == "LSTM" else [y, last]
        return t.cat([part.reshape(-1) for part in parts])

    return run


def sequence(kind, gates, biased=True, mask=None, reverse=False, twice=2, **how):
    if kind == "gru":
        how = {"reset_after": False} | how
    op, states = getattr(ops, kind), 2 if kind == "lstm" else 1
    operands = [normal(T, N, D), normal(D, gates * H), normal(H, gates * H), *[normal(N, H)] * states, *[normal(gates * H)] * (2 * biased)]

    def call(x, w_ih, w_hh, *rest):
        given_mask = None if mask is None else Tensor(data=mask, dtype=x.dtype)
        biases = rest[states:] or (None, None)
        return joined(op(x, w_ih, w_hh, *biases, *rest[:states], mask=given_mask, reverse=reverse, **how))

    def define(x, w_ih, w_hh, *rest):
        biases = rest[states:] or (None, None)
        if kind != "gru":
            biases = (None if biases[0] is None else biases[0] + biases[1],)
        h, *last = getattr(d, kind)(x @ w_ih, w_hh, *biases, *rest[:states], mask, reverse, **how)[: states + 1]
        return flat([h if mask is None else h * mask[:, :, None], *last])

    same = mask is None and not reverse and how.get("reset_after") is not False
    flags = {"bias": biased, "mask": mask is not None, "reverse": reverse, "reset_after": how.get("reset_after")}
    label = "-".join([kind, *(name for name, on in flags.items() if on)])
    return Case(label, call, tuple(operands), define, torch_layer(kind.upper()) if same else None, order=twice, **LOOSE)


def rnn_gradient(reverse):
    """The gradient of a plain recurrent layer, as a function of what it is given; states are any numbers between -1 and 1."""

    def call(*operands):
        dtype = np.result_type(*(operand.dtype for operand in operands))
        alike = (operand.astype(dtype) for operand in operands)
        return joined(rnn_grad_p(*alike, present=(True,) * 5 + (False,), reverse=reverse))

    def define(g, g_last, h, w, h0):
        return flat(d.rnn_grad(g, g_last, h, w, h0, None, reverse))

    label = "rnn_grad-reverse" if reverse else "rnn_grad"
    operands = (normal(T, N, H), normal(N, H), uniform(-0.9, 0.9, T, N, H), normal(H, H), normal(N, H))
    return Case(label, call, operands, define, order=1, **LOOSE)


CASES = [
    *[sequence(*kind, **how) for kind in (("rnn", 1), ("lstm", 4), ("gru", 3)) for how in ({}, {"mask": MASK, "biased": False})],
    *[sequence(*kind, mask=MASK, reverse=True, twice=1) for kind in (("rnn", 1), ("lstm", 4), ("gru", 3))],
    sequence("rnn", 1, reverse=True),
    sequence("gru", 3, reset_after=True),
    sequence("gru", 3, reset_after=True, mask=MASK, biased=False, reverse=True),
    *[rnn_gradient(reverse) for reverse in (False, True)],
    Case(
        "rnn_cell",
        ops.rnn_cell,
        (normal(3, 2), normal(3, 4), normal(2, 4), normal(4, 4), normal(4), normal(4)),
        lambda x, h, w_ih, w_hh, b_ih, b_hh: np.tanh(x @ w_ih + h @ w_hh + b_ih + b_hh),
        lambda t, x, h, w_ih, w_hh, b_ih, b_hh: t.rnn_tanh_cell(x, h, w_ih.T, w_hh.T, b_ih, b_hh),
        **LOOSE,
    ),
    Case(
        "rnn_cell-bare",
        ops.rnn_cell,
        (normal(3, 2), normal(3, 4), normal(2, 4), normal(4, 4)),
        lambda x, h, w_ih, w_hh: np.tanh(x @ w_ih + h @ w_hh),
        **LOOSE,
    ),
    Case(
        "attention",
        lambda q, k, v: ops.attention(q, k, v, 2),
        (normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 4)),
        lambda q, k, v: d.attention(q, k, v, 2, 2**-0.5)[0],
        lambda t, q, k, v: (
            t.nn.functional.scaled_dot_product_attention(*(x.reshape(2, -1, 2, 2).transpose(1, 2) for x in (q, k, v)))
            .transpose(1, 2)
            .reshape(2, 3, 4)
        ),
        **LOOSE,
    ),
    Case(
        "embedding",
        lambda w, i: ops.embedding(w, i, padding_idx=None),
        (normal(5, 3), given([[1, 4, 1], [0, 1, 3]], np.int64)),
        lambda w, i: w[i],
        lambda t, w, i: t.nn.functional.embedding(i, w),
    ),
    Case(
        "embedding_grad",
        lambda g, i: embedding_grad_p(g, i, n=5, padding=1),
        (normal(2, 3, 3), given([[1, 4, 1], [0, 1, 3]], np.int64)),
        lambda g, i: d.embedding_grad(g, i, 5, 1),
    ),
    Case(
        "sequence_mask",
        lambda n: ops.sequence_mask(n, 4, "float64"),
        (given([4, 0, 2], np.int64),),
        lambda n: d.sequence_mask(n, 4, None),
        order=0,
        dtype=np.float64,
    ),
]

"""Gradients of recurrent sequences, written out step by step in ops: what a second derivative goes through.

Each function takes the gradients of the results (None where there is none) and the operands of its primitive in
`keydnn.ops.recurrent`, runs the steps forward again, then backward, and returns what the fused kernel returns.
"""

from __future__ import annotations

import functools

from keydnn.autograd.primitive import Primitive, bind
from keydnn.kernels.dispatch import tables
from keydnn.ops.activation import sigmoid, tanh
from keydnn.ops.elementwise import where
from keydnn.ops.linalg import gemm
from keydnn.ops.shape import concat_p, stack_p, take_p


@functools.cache
def _unstack(n: int) -> Primitive:
    """The primitive that gives the n entries along the first axis; its gradient joins them again, in one piece."""

    def unstack(k, x):
        return tuple(k.take(x, (i,)) for i in range(n)), ()

    def gradient(saved, grads, needs):
        known = next(g for g in grads if g is not None)
        return stack_p(*(known._like_full(0.0) if g is None else g for g in grads), axis=0)

    return Primitive(unstack, tables, n_outputs=n).gradient(gradient)


def _entries(x):
    """``x[0], x[1], ...``; None gives None."""
    if x is None:
        return None
    return [x.reshape(x.shape[1:])] if x.shape[0] == 1 else list(bind(_unstack(x.shape[0]), (x,)))


def _part(x, i, n):
    """The i-th run of n columns."""
    return take_p(x, key=(slice(None), slice(i * n, (i + 1) * n)))


def _kept(live, new, old):
    return new if live is None else where(live, new, old)


class _Walk:
    """The steps of a sequence forward, in order, and backward."""

    def __init__(self, p, mask, g, reverse):
        self.p, self.g = _entries(p), _entries(g)
        self.live = None if mask is None else _entries(mask.reshape((*mask.shape, 1)))
        self.order = range(len(self.p) - 1, -1, -1) if reverse else range(len(self.p))
        self.das = [None] * len(self.p)

    def forward(self):
        for t in self.order:
            yield t, self.p[t], None if self.live is None else self.live[t]

    def arrived(self, dh, t):
        """The state's gradient with what arrived at step t itself."""
        return dh if self.g is None else dh + self.g[t]

    def results(self, before):
        """dp, dw and db from the gradients of the sums and the states that the steps started from."""
        das = stack_p(*self.das, axis=0)
        return das, gemm(_joined(before), _joined(self.das), ta=True), das.sum((0, 1))


def _joined(xs):
    return xs[0] if len(xs) == 1 else concat_p(*xs, axis=0)


def _in_order(trail):
    """What the steps left, by step."""
    return [entry for _, entry in sorted(trail, key=lambda pair: pair[0])]


def _zeros(g, like):
    return like._like_full(0.0, like.shape) if g is None else g


def rnn_grad(g, g_last, p, w, b, h0, mask, reverse):
    """dp, dw, db, dh0."""
    walk, h, trail = _Walk(p if b is None else p + b, mask, g, reverse), h0, []
    for t, a, live in walk.forward():
        y = tanh(a + gemm(h, w))
        trail.append((t, (h, y, live)))
        h = _kept(live, y, h)
    dh = _zeros(g_last, h0)
    for t, (_, y, live) in reversed(trail):
        dh = walk.arrived(dh, t)
        walk.das[t] = da = _kept(live, dh * (1.0 - y * y), 0.0)
        dh = _kept(live, gemm(da, w, tb=True), dh)
    return *walk.results([before for before, _, _ in _in_order(trail)]), dh


def lstm_grad(g, g_h, g_c, p, w, b, h0, c0, mask, reverse):
    """dp, dw, db, dh0, dc0."""
    walk, n, h, c, trail = _Walk(p if b is None else p + b, mask, g, reverse), w.shape[0], h0, c0, []
    for t, x, live in walk.forward():
        a = x + gemm(h, w)
        i, f, u, o = sigmoid(_part(a, 0, n)), sigmoid(_part(a, 1, n)), tanh(_part(a, 2, n)), sigmoid(_part(a, 3, n))
        new = f * c + i * u
        s = tanh(new)
        trail.append((t, (h, c, i, f, u, o, s, live)))
        h, c = _kept(live, o * s, h), _kept(live, new, c)
    dh, dc = _zeros(g_h, h0), _zeros(g_c, c0)
    for t, (_, before, i, f, u, o, s, live) in reversed(trail):
        dh = walk.arrived(dh, t)
        d = dc + dh * o * (1.0 - s * s)
        parts = (d * u * i * (1.0 - i), d * before * f * (1.0 - f), d * i * (1.0 - u * u), dh * s * o * (1.0 - o))
        walk.das[t] = da = _kept(live, concat_p(*parts, axis=1), 0.0)
        dh, dc = _kept(live, gemm(da, w, tb=True), dh), _kept(live, d * f, dc)
    return *walk.results([entry[0] for entry in _in_order(trail)]), dh, dc


def gru_grad(g, g_last, p, w, b_ih, b_hh, h0, mask, reverse, reset_after):
    """dp, dw, db_ih, db_hh, dh0."""
    n = w.shape[0]
    walk, h, trail = _Walk(p if b_ih is None else p + b_ih, mask, g, reverse), h0, []
    w_zr, w_n = take_p(w, key=(slice(None), slice(0, 2 * n))), _part(w, 2, n)
    b_zr, b_n = (None, None) if b_hh is None else (take_p(b_hh, key=(slice(0, 2 * n),)), take_p(b_hh, key=(slice(2 * n, 3 * n),)))
    add = lambda x, b: x if b is None else x + b  # noqa: E731
    for t, x, live in walk.forward():
        zr = sigmoid(add(take_p(x, key=(slice(None), slice(0, 2 * n))) + gemm(h, w_zr), b_zr))
        z, r = _part(zr, 0, n), _part(zr, 1, n)
        into = h if reset_after else r * h
        q = add(gemm(into, w_n), b_n)
        u = tanh(_part(x, 2, n) + (r * q if reset_after else q))
        trail.append((t, (h, into, z, r, u, q, live)))
        h = _kept(live, (1.0 - z) * u + z * h, h)
    dh, dqs = _zeros(g_last, h0), [None] * len(walk.p)
    for t, (before, _, z, r, u, q, live) in reversed(trail):
        dh = walk.arrived(dh, t)
        du = _kept(live, dh * (1.0 - z) * (1.0 - u * u), 0.0)
        dqs[t] = dq = du * r if reset_after else du
        through = gemm(dq, w_n, tb=True)
        dr = du * q if reset_after else through * before
        d_zr = _kept(live, concat_p(dh * (before - u) * z * (1.0 - z), dr * r * (1.0 - r), axis=1), 0.0)
        walk.das[t] = concat_p(d_zr, du, axis=1)
        dh = _kept(live, dh * z + (through if reset_after else through * r) + gemm(d_zr, w_zr, tb=True), dh)
    entries = _in_order(trail)
    dp, dw, db = walk.results([entry[0] for entry in entries])
    dw_n, db_n = gemm(_joined([entry[1] for entry in entries]), _joined(dqs), ta=True), stack_p(*dqs, axis=0).sum((0, 1))
    dw = concat_p(take_p(dw, key=(slice(None), slice(0, 2 * n))), dw_n, axis=1)
    return dp, dw, db, concat_p(take_p(db, key=(slice(0, 2 * n),)), db_n, axis=0), dh

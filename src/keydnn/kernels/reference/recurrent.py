"""Whole sequences of recurrent cells, and their gradients, one vectorised step after the other.

With a = h_prev @ w (+ b), p the input's part of the sums (steps T, batch N, gates times H) and * elementwise:

    rnn    h = tanh(p + a)
    lstm   i, f, g, o = p + a;  c = sigmoid(f) * c_prev + sigmoid(i) * tanh(g);  h = sigmoid(o) * tanh(c)
    gru    z, r = sigmoid(p + b_ih + a);  h = (1 - z) * n + z * h_prev  with the candidate
           n = tanh(p_n + b_ih_n + (r * h_prev) @ w_n + b_hh_n)           or, with reset_after,
           n = tanh(p_n + b_ih_n + r * (h_prev @ w_n + b_hh_n))

A step whose mask is 0 leaves the state of its row as it was, and nothing flows through it.  ``reverse`` runs from the last
step to the first; results stand at the step they belong to.

The gradients walk the steps backwards: with da the gradient of the sums, dh_prev = da @ w.T, dw = sum over steps of
h_prev.T @ da.  Sources: Hochreiter & Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735; Cho et al. 2014,
https://arxiv.org/abs/1406.1078; Werbos 1990, Backpropagation through time, https://doi.org/10.1109/5.58337.
"""

from __future__ import annotations

import numpy as np

from keydnn.kernels.reference.elementwise import sigmoid
from keydnn.kernels.reference.quiet import quiet


def _order(steps: int, reverse: bool) -> list[int]:
    return list(range(steps - 1, -1, -1) if reverse else range(steps))


def _live(mask, t: int):
    """Where step t counts, as a column; None if it does everywhere."""
    return None if mask is None else mask[t][:, None] != 0


def _kept(live, new, old):
    return new if live is None else np.where(live, new, old)


def _before(h: np.ndarray, h0: np.ndarray, reverse: bool) -> np.ndarray:
    """The state that each step started from."""
    start = h0[None]
    return np.concatenate([h[1:], start] if reverse else [start, h[:-1]])


def _weight_grad(before: np.ndarray, da: np.ndarray) -> np.ndarray:
    """``sum over steps of before.T @ da``."""
    return np.matmul(before.reshape(-1, before.shape[-1]).T, da.reshape(-1, da.shape[-1]), order="C")


def _bias_grad(da: np.ndarray) -> np.ndarray:
    return da.sum((0, 1))


def _zeros(like: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    """The gradient that arrives at the last state."""
    return np.zeros_like(like) if given is None else given.copy()


@quiet
def rnn(p, w, b, h0, mask, reverse):
    """States of every step, and the last one."""
    h, h_all = h0, np.empty((*p.shape[:2], w.shape[0]), p.dtype)
    for t in _order(len(p), reverse):
        a = p[t] + h @ w
        h_all[t] = h = _kept(_live(mask, t), np.tanh(a if b is None else a + b), h)
    return h_all, h.copy()


@quiet
def rnn_grad(g, g_last, h, w, h0, mask, reverse):
    """dp, dw, db, dh0 for the gradients of the states and of the last one; either may be None."""
    before, dp, dh = _before(h, h0, reverse), np.empty_like(h), _zeros(h0, g_last)
    for t in _order(len(h), not reverse):
        live = _live(mask, t)
        dh = dh if g is None else dh + g[t]
        dp[t] = _kept(live, dh * (1 - h[t] * h[t]), 0)
        dh = _kept(live, dp[t] @ w.T, dh)
    return dp, _weight_grad(before, dp), _bias_grad(dp), dh


@quiet
def lstm(p, w, b, h0, c0, mask, reverse):
    """States of every step, the last h and c; the cells of every step and the gates i, f, g, o."""
    n = w.shape[0]
    h, c = h0, c0
    h_all, c_all, gates = np.empty((*p.shape[:2], n), p.dtype), np.empty((*p.shape[:2], n), p.dtype), np.empty(p.shape, p.dtype)
    for t in _order(len(p), reverse):
        a, live = p[t] + h @ w, _live(mask, t)
        a = a if b is None else a + b
        i, f, g, o = sigmoid(a[:, :n]), sigmoid(a[:, n : 2 * n]), np.tanh(a[:, 2 * n : 3 * n]), sigmoid(a[:, 3 * n :])
        gates[t] = np.concatenate([i, f, g, o], 1)
        c_all[t] = new = f * c + i * g
        h_all[t] = h = _kept(live, o * np.tanh(new), h)
        c_all[t] = c = _kept(live, new, c)
    return h_all, h.copy(), c.copy(), c_all, gates


@quiet
def lstm_grad(g, g_h, g_c, gates, c, h, w, h0, c0, mask, reverse):
    """dp, dw, db, dh0, dc0 for the gradients of the states, the last h and the last c; each may be None."""
    n = w.shape[0]
    before, cells = _before(h, h0, reverse), _before(c, c0, reverse)
    dp, dh, dc = np.empty(gates.shape, gates.dtype), _zeros(h0, g_h), _zeros(c0, g_c)
    for t in _order(len(h), not reverse):
        live, (i, f, u, o) = _live(mask, t), (gates[t, :, k * n : (k + 1) * n] for k in range(4))
        dh = dh if g is None else dh + g[t]
        tanh_c = np.tanh(c[t])
        d = dc + dh * o * (1 - tanh_c * tanh_c)
        da = [d * u * i * (1 - i), d * cells[t] * f * (1 - f), d * i * (1 - u * u), dh * tanh_c * o * (1 - o)]
        dp[t] = _kept(live, np.concatenate(da, 1), 0)
        dh, dc = _kept(live, dp[t] @ w.T, dh), _kept(live, d * f, dc)
    return dp, _weight_grad(before, dp), _bias_grad(dp), dh, dc


@quiet
def gru(p, w, b_ih, b_hh, h0, mask, reverse, reset_after):
    """States of every step, the last one, and the gates z, r, n; with reset_after also h_prev @ w_n + b_hh_n."""
    n = w.shape[0]
    h, h_all = h0, np.empty((*p.shape[:2], n), p.dtype)
    gates = np.empty((*p.shape[:2], (4 if reset_after else 3) * n), p.dtype)
    zero = np.zeros(3 * n, p.dtype)
    b_ih, b_hh = (zero if b is None else b for b in (b_ih, b_hh))
    for t in _order(len(p), reverse):
        x = p[t] + b_ih
        zr = sigmoid(x[:, : 2 * n] + (h @ w[:, : 2 * n] + b_hh[: 2 * n]))
        z, r = zr[:, :n], zr[:, n:]
        if reset_after:
            q = h @ w[:, 2 * n :] + b_hh[2 * n :]
            u = np.tanh(x[:, 2 * n :] + r * q)
            gates[t] = np.concatenate([zr, u, q], 1)
        else:
            u = np.tanh(x[:, 2 * n :] + ((r * h) @ w[:, 2 * n :] + b_hh[2 * n :]))
            gates[t] = np.concatenate([zr, u], 1)
        h_all[t] = h = _kept(_live(mask, t), (1 - z) * u + z * h, h)
    return h_all, h.copy(), gates


@quiet
def gru_grad(g, g_last, gates, h, w, h0, mask, reverse, reset_after):
    """dp, dw, db_ih, db_hh, dh0 for the gradients of the states and of the last one; either may be None."""
    n = w.shape[0]
    before, dh = _before(h, h0, reverse), _zeros(h0, g_last)
    dp, dq = np.empty((*h.shape[:2], 3 * n), h.dtype), np.empty(h.shape, h.dtype)  # dq: of the recurrent product in n
    for t in _order(len(h), not reverse):
        live, prev, (z, r, u) = _live(mask, t), before[t], (gates[t, :, k * n : (k + 1) * n] for k in range(3))
        dh = dh if g is None else dh + g[t]
        du = dh * (1 - z) * (1 - u * u)
        if reset_after:
            dr, dq[t] = du * gates[t, :, 3 * n :], _kept(live, du * r, 0)
            through = dq[t] @ w[:, 2 * n :].T
        else:
            reset, dq[t] = du @ w[:, 2 * n :].T, _kept(live, du, 0)
            dr, through = reset * prev, reset * r
        dp[t] = _kept(live, np.concatenate([dh * (prev - u) * z * (1 - z), dr * r * (1 - r), du], 1), 0)
        dh = _kept(live, dh * z + through + dp[t, :, : 2 * n] @ w[:, : 2 * n].T, dh)
    into_n = before if reset_after else gates[:, :, n : 2 * n] * before
    dw = np.concatenate([_weight_grad(before, dp[:, :, : 2 * n]), _weight_grad(into_n, dq)], 1)
    db = _bias_grad(dp)
    return dp, dw, db, np.concatenate([db[: 2 * n], _bias_grad(dq)]), dh


def sequence_mask(lengths, steps, dtype):
    """1 for the first lengths[n] of the steps of row n, then 0: (steps, N)."""
    return (np.arange(steps)[:, None] < lengths[None, :]).astype(dtype)

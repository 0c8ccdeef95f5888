"""The gradient of the plain recurrent layer's gradient, in products over all steps and two sweeps of the fused kernel.

With ``before`` the states that the steps started from, the gradient of ``h = tanh(p + before W)`` is
    dh_t = g_t + da_(t+1) W^T,   da_t = dh_t (1 - h_t^2),   dp = da,  dw = sum before^T da,  db = sum da,  dh0 = da_0 W^T
It is linear in g: its transpose, applied to gradients (P, V, B, Z) of (dp, dw, db, dh0), is the same recursion from the first step to
the last with W^T for W,
    z_t = (u_t + z_(t-1) W) (1 - h_t^2),   u = P + before V + B,   z_(-1) = Z
which the kernel runs with the order turned.  What reaches h are -2 h dh (u + z_(t-1) W) and da V^T, one step earlier.
"""

from __future__ import annotations

from keydnn.ops.linalg import gemm
from keydnn.ops.shape import concat_p


def _flat(x):
    """Steps and rows in one axis."""
    return x.reshape((x.shape[0] * x.shape[1], x.shape[2]))


def _later(first, x, reverse):
    """``first, x[0], x[1], ...`` without the last, in the order of the steps."""
    first = first.reshape((1, *first.shape))
    if x.shape[0] == 1:
        return first
    return concat_p(x[1:], first, axis=0) if reverse else concat_p(first, x[:-1], axis=0)


def _earlier(x, last, reverse):
    """``x[1], x[2], ..., last``, in the order of the steps."""
    last = last.reshape((1, *last.shape))
    if x.shape[0] == 1:
        return last
    return concat_p(last, x[:-1], axis=0) if reverse else concat_p(x[1:], last, axis=0)


def rnn_grad_gradient(sweep, grads, g, g_last, h, w, h0, da, reverse):
    """Gradients with respect to g, g_last, h, w and h0.

    Args:
        sweep: Calls the fused kernel ``(g, g_last, h, w, h0) -> (dp, dw, db, dh0)`` in one of the two orders.
        grads: Of dp, dw, db and dh0; None where there is none.
        g: Gradients of the states, or None.
        g_last: Of the last state, or None.
        h: The states.
        w: The recurrent weights.
        h0: The first state.
        da: dp.
        reverse: Whether the steps ran from the last to the first.
    """
    P, V, B, Z = grads
    first, last = (-1, 0) if reverse else (0, -1)
    nothing = h0._like_full(0.0, h0.shape)
    Z = nothing if Z is None else Z
    u = da._like_full(0.0, da.shape) if P is None else P
    if V is not None:
        u = u + gemm(_flat(_later(h0, h, reverse)), V).reshape(h.shape)
    if B is not None:
        u = u + B
    z = sweep(u, gemm(Z, w), h, w.transpose(1, 0), h0, not reverse)[0]
    before = _later(Z, z, reverse)
    through = u + gemm(_flat(before), w).reshape(h.shape)
    dh = _earlier(gemm(_flat(da), w, tb=True).reshape(h.shape), nothing if g_last is None else g_last, reverse)
    d_state = (dh if g is None else dh + g) * through * h * -2.0
    d_start = None
    if V is not None:
        reached = gemm(_flat(da), V, tb=True).reshape(h.shape)
        d_state, d_start = d_state + _earlier(reached, nothing, reverse), reached[first]
    return z, z[last], d_state, gemm(_flat(before), _flat(da), ta=True), d_start

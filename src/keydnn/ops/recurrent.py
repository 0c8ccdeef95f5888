"""Recurrent sequences: all steps of a cell in one primitive, and the single step of the plain cell.

The input's part of the sums, ``x @ w_ih``, is one matrix product over all steps; the primitives do what remains.  Their
fused gradients serve a plain backward pass.  With ``create_graph`` that of the plain cell serves again
(`keydnn.ops.recurrent_twice`); the gates' steps, and those of the plain cell under a mask, are written out in `keydnn.ops.unrolled`.
The formulas stand in `keydnn.kernels.reference.recurrent`.
"""

from __future__ import annotations

from keydnn.autograd.modes import is_grad_enabled
from keydnn.autograd.primitive import bind
from keydnn.domain.errors import DeviceMismatchError, ShapeError
from keydnn.ops import unrolled
from keydnn.ops._dtypes import promoted
from keydnn.ops._primitive import primitive
from keydnn.ops.elementwise import where
from keydnn.ops.linalg import gemm
from keydnn.ops.random import full
from keydnn.ops.recurrent_twice import rnn_grad_gradient

# -- one step of the plain cell


@primitive
def rnn_cell_p(k, x, h, w_ih, w_hh, *biases):
    """``tanh(x @ w_ih + h @ w_hh + b_ih + b_hh)``."""
    a = k.add(k.matmul(x, w_ih, False, False), k.matmul(h, w_hh, False, False))
    for b in biases:
        a = k.add(a, b)
    y = k.tanh(a)
    return y, (x, h, w_ih, w_hh, y)


@rnn_cell_p.gradient
def _(saved, g, needs):
    x, h, w_ih, w_hh, y = saved
    da = g * (1.0 - y * y)
    grads = [
        gemm(da, w_ih, tb=True) if needs[0] else None,
        gemm(da, w_hh, tb=True) if needs[1] else None,
        gemm(x, da, ta=True) if needs[2] else None,
        gemm(h, da, ta=True) if needs[3] else None,
    ]
    return (*grads, *[da.sum(0)] * (len(needs) - 4))


# -- whole sequences; operands that may be missing come last (forward), or are named by ``present`` (gradients)


def _optional(rest, n_biases):
    """Biases and mask from the trailing operands, None where missing."""
    biases = tuple(rest[:n_biases]) if n_biases else (None, None)
    return biases, rest[n_biases] if len(rest) > n_biases else None


def _spread(operands, present):
    """The operands with None where ``present`` says so."""
    given = iter(operands)
    return [next(given) if there else None for there in present]


def _fused(gradient, operands, **params):
    """Call a gradient primitive with operands of which some are None."""
    present = tuple(t is not None for t in operands)
    return bind(gradient, tuple(t for t in operands if t is not None), {"present": present, **params})


@primitive(n_outputs=2)
def rnn_p(k, p, w, h0, *rest, n_biases, reverse):
    """States of every step, and the last one."""
    (b, *_), mask = _optional(rest, n_biases)
    h, last = k.rnn(p, w, b, h0, mask, reverse)
    return (h, last), (n_biases, reverse, p, w, h0, *rest, h)


@rnn_p.gradient
def _(saved, grads, needs):
    n_biases, reverse, p, w, h0, *rest, h = saved
    (b, *_), mask = _optional(rest, n_biases)
    if mask is not None and is_grad_enabled():
        dp, dw, db, dh0 = unrolled.rnn_grad(*grads, p, w, b, h0, mask, reverse)
    else:
        dp, dw, db, dh0 = _fused(rnn_grad_p, (*grads, h, w, h0, mask), reverse=reverse)
    return (dp, dw, dh0, db, None)[: len(needs)] if n_biases else (dp, dw, dh0, None)[: len(needs)]


@primitive(n_outputs=4)
def rnn_grad_p(k, *operands, present, reverse):
    """(dp, dw, db, dh0)."""
    found = k.rnn_grad(*_spread(operands, present), reverse)
    return found, (present, reverse, *operands, found[0])


@rnn_grad_p.gradient
def _(saved, grads, needs):
    present, reverse, *operands, da = saved
    g, g_last, h, w, h0, _ = _spread(operands, present)
    sweep = lambda *given: _fused(rnn_grad_p, (*given[:5], None), reverse=given[5])  # noqa: E731
    found = rnn_grad_gradient(sweep, grads, g, g_last, h, w, h0, da, reverse)
    return tuple(d for d, there in zip(found, present[:5], strict=True) if there)


@primitive(n_outputs=3)
def lstm_p(k, p, w, h0, c0, *rest, n_biases, reverse):
    """States of every step, the last one and the last cell."""
    (b, *_), mask = _optional(rest, n_biases)
    h, last, c_last, c, gates = k.lstm(p, w, b, h0, c0, mask, reverse)
    return (h, last, c_last), (n_biases, reverse, p, w, h0, c0, *rest), (h, c, gates)


@lstm_p.gradient
def _(saved, grads, needs):
    n_biases, reverse, p, w, h0, c0, *rest, h, c, gates = saved
    (b, *_), mask = _optional(rest, n_biases)
    if h is None:
        dp, dw, db, dh0, dc0 = unrolled.lstm_grad(*grads, p, w, b, h0, c0, mask, reverse)
    else:
        dp, dw, db, dh0, dc0 = _fused(lstm_grad_p, (*grads, gates, c, h, w, h0, c0, mask), reverse=reverse)
    return (dp, dw, dh0, dc0, *[db] * n_biases, None)[: len(needs)]


@primitive(n_outputs=5)
def lstm_grad_p(k, *operands, present, reverse):
    """(dp, dw, db, dh0, dc0)."""
    return k.lstm_grad(*_spread(operands, present), reverse), ()


@primitive(n_outputs=2)
def gru_p(k, p, w, h0, *rest, n_biases, reverse, reset_after):
    """States of every step, and the last one."""
    (b_ih, b_hh), mask = _optional(rest, n_biases)
    h, last, gates = k.gru(p, w, b_ih, b_hh, h0, mask, reverse, reset_after)
    return (h, last), (n_biases, reverse, reset_after, p, w, h0, *rest), (h, gates)


@gru_p.gradient
def _(saved, grads, needs):
    n_biases, reverse, reset_after, p, w, h0, *rest, h, gates = saved
    biases, mask = _optional(rest, n_biases)
    if h is None:
        dp, dw, *dbs, dh0 = unrolled.gru_grad(*grads, p, w, *biases, h0, mask, reverse, reset_after)
    else:
        dp, dw, *dbs, dh0 = _fused(gru_grad_p, (*grads, gates, h, w, h0, mask), reverse=reverse, reset_after=reset_after)
    return (dp, dw, dh0, *dbs[:n_biases], None)[: len(needs)]


@primitive(n_outputs=5)
def gru_grad_p(k, *operands, present, reverse, reset_after):
    """(dp, dw, db_ih, db_hh, dh0)."""
    return k.gru_grad(*_spread(operands, present), reverse, reset_after), ()


@primitive
def sequence_mask_p(k, lengths, *, steps, dtype):
    """1 where a step is within the length of its row."""
    return k.sequence_mask(lengths, steps, dtype)


# -- the functions users call


def rnn_cell(x, h, w_ih, w_hh, b_ih=None, b_hh=None):
    """One step ``tanh(x @ w_ih + h @ w_hh + b_ih + b_hh)``.

    Args:
        x: (N, D).
        h: (N, H).
        w_ih: (D, H).
        w_hh: (H, H).
        b_ih: (H,) or None, and then b_hh is None too.
        b_hh: (H,) or None.

    Raises:
        ValueError: The shapes do not fit.
        TypeError: An operand is no floating Tensor.
    """
    _check("rnn_cell", x, w_ih, w_hh, 2, 1, h)
    operands = promoted("rnn_cell", x, h, w_ih, w_hh, b_ih, b_hh)
    return bind(rnn_cell_p, tuple(t for t in operands if t is not None))


def rnn(x, w_ih, w_hh, b_ih=None, b_hh=None, h0=None, *, mask=None, reverse=False):
    """All steps of ``h = tanh(x @ w_ih + h @ w_hh + b_ih + b_hh)``.

    Args:
        x: (T, N, D), at least one step.
        w_ih: (D, H).
        w_hh: (H, H).
        b_ih: (H,) or None, and then b_hh is None too.
        b_hh: (H,) or None.
        h0: First state (N, H); None is zeros.
        mask: (T, N), 0 where a step of a row is padding: the state stays as it was there, and no gradient flows.
        reverse: Whether to go from the last step to the first.

    Returns:
        The states (T, N, H), zero at padding, and the last one (N, H).

    Raises:
        ValueError: The shapes do not fit.
        TypeError: An operand is no floating Tensor.
    """
    x, w_ih, w_hh, b_ih, b_hh, h0, mask = _checked("rnn", 1, x, w_ih, w_hh, b_ih, b_hh, h0, mask)
    rest = _given(None if b_ih is None else b_ih + b_hh, mask)
    params = {"n_biases": int(b_ih is not None), "reverse": reverse}
    h, last = bind(rnn_p, (_projected(x, w_ih, mask), w_hh, h0, *rest), params)
    return _without_padding(h, mask), last


def lstm(x, w_ih, w_hh, b_ih=None, b_hh=None, h0=None, c0=None, *, mask=None, reverse=False):
    """All steps of a long short-term memory; gates i, f, g, o along the last axis of the weights.

    Args:
        x: (T, N, D), at least one step.
        w_ih: (D, 4H).
        w_hh: (H, 4H).
        b_ih: (4H,) or None, and then b_hh is None too.
        b_hh: (4H,) or None.
        h0: First state (N, H); None is zeros.
        c0: First cell (N, H); None is zeros.
        mask: (T, N), 0 where a step of a row is padding: the state stays as it was there, and no gradient flows.
        reverse: Whether to go from the last step to the first.

    Returns:
        The states (T, N, H), zero at padding, the last one and the last cell, each (N, H).

    Raises:
        ValueError: The shapes do not fit.
        TypeError: An operand is no floating Tensor.
    """
    x, w_ih, w_hh, b_ih, b_hh, h0, mask, c0 = _checked("lstm", 4, x, w_ih, w_hh, b_ih, b_hh, h0, mask, c0)
    rest = _given(None if b_ih is None else b_ih + b_hh, mask)
    params = {"n_biases": int(b_ih is not None), "reverse": reverse}
    h, last, c = bind(lstm_p, (_projected(x, w_ih, mask), w_hh, h0, c0, *rest), params)
    return _without_padding(h, mask), last, c


def gru(x, w_ih, w_hh, b_ih=None, b_hh=None, h0=None, *, mask=None, reverse=False, reset_after=False):
    """All steps of a gated recurrent unit; gates z, r, n along the last axis of the weights.

    Args:
        x: (T, N, D), at least one step.
        w_ih: (D, 3H).
        w_hh: (H, 3H).
        b_ih: (3H,) or None, and then b_hh is None too.
        b_hh: (3H,) or None.
        h0: First state (N, H); None is zeros.
        mask: (T, N), 0 where a step of a row is padding: the state stays as it was there, and no gradient flows.
        reverse: Whether to go from the last step to the first.
        reset_after: Whether the reset gate multiplies the recurrent product instead of the state that enters it.

    Returns:
        The states (T, N, H), zero at padding, and the last one (N, H).

    Raises:
        ValueError: The shapes do not fit.
        TypeError: An operand is no floating Tensor.
    """
    x, w_ih, w_hh, b_ih, b_hh, h0, mask = _checked("gru", 3, x, w_ih, w_hh, b_ih, b_hh, h0, mask)
    params = {"n_biases": 0 if b_ih is None else 2, "reverse": reverse, "reset_after": reset_after}
    h, last = bind(gru_p, (_projected(x, w_ih, mask), w_hh, h0, *_given(b_ih, b_hh, mask)), params)
    return _without_padding(h, mask), last


def sequence_mask(lengths, steps, dtype="float32"):
    """1 for the first ``lengths[n]`` of ``steps`` steps of row n, then 0.

    Args:
        lengths: Integer tensor (N,).
        steps: Rows of the result.
        dtype: float32 or float64.

    Returns:
        (steps, N).

    Raises:
        ValueError: ``lengths`` is not 1-D.
        TypeError: ``lengths`` is no integer tensor.
    """
    if lengths.ndim != 1:
        raise ShapeError(f"sequence_mask: expected lengths (N,), got shape {lengths.shape}")
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"sequence_mask: expected integer lengths, got dtype {lengths.dtype}")
    return bind(sequence_mask_p, (lengths if lengths.dtype == "int64" else lengths.astype("int64"),), {"steps": steps, "dtype": dtype})


def _given(*tensors):
    return tuple(t for t in tensors if t is not None)


def _projected(x, w_ih, mask):
    """``x @ w_ih`` of every step; what stands at padding, be it NaN, is not looked at."""
    if mask is not None:
        x = where(mask.reshape((*mask.shape, 1)), x, 0.0)
    steps, n, d = x.shape
    return gemm(x.reshape((steps * n, d)), w_ih).reshape((steps, n, w_ih.shape[1]))


def _without_padding(h, mask):
    return h if mask is None else where(mask.reshape((*mask.shape, 1)), h, 0.0)


def _checked(name, gates, x, w_ih, w_hh, b_ih, b_hh, h0, mask, *c0):
    """The operands in one dtype, states of zeros where there are none."""
    _check(name, x, w_ih, w_hh, 3, gates, h0, *c0)
    if (b_ih is None) != (b_hh is None) or (b_ih is not None and not b_ih.shape == b_hh.shape == w_ih.shape[1:]):
        raise ShapeError(f"{name}: b_ih and b_hh must both be None or of shape {w_ih.shape[1:]}")
    if mask is not None and mask.shape != x.shape[:2]:
        raise ShapeError(f"{name}: mask has shape {mask.shape}, expected (T, N) = {x.shape[:2]}")
    dtype = x.dtype
    if any(t is not None and t.dtype is not dtype for t in (w_ih, w_hh, b_ih, b_hh, h0, mask, *c0)):
        if mask is not None and mask.dtype.kind != "f":
            mask = mask.astype(dtype)
        x, w_ih, w_hh, b_ih, b_hh, h0, mask, *c0 = promoted(name, x, w_ih, w_hh, b_ih, b_hh, h0, mask, *c0)
    size = (x.shape[1], w_hh.shape[0])
    states = [full(x, size, 0.0, x.dtype) if s is None else s for s in (h0, *c0)]
    return x, w_ih, w_hh, b_ih, b_hh, states[0], mask, *states[1:]


def _check(name, x, w_ih, w_hh, ndim, gates, *states):
    axes = "(N, D)" if ndim == 2 else "(T, N, D)"
    size = w_hh.shape[0]
    if w_ih.ndim != 2 or w_hh.shape != (size, gates * size) or w_ih.shape[1] != gates * size:
        raise ShapeError(f"{name}: w_ih {w_ih.shape} and w_hh {w_hh.shape} do not fit (D, {gates}H) and (H, {gates}H)")
    if x.ndim != ndim or x.shape[-1] != w_ih.shape[0] or x.shape[0] == 0:
        raise ShapeError(f"{name}: expected x {axes} with D = {w_ih.shape[0]}, got shape {x.shape}")
    for s in states:
        if s is not None and s.shape != (x.shape[-2], size):
            raise ShapeError(f"{name}: expected a state (N, H) = {(x.shape[-2], size)}, got shape {s.shape}")
    if x.device is not w_ih.device:
        raise DeviceMismatchError(x.device, w_ih.device, name)

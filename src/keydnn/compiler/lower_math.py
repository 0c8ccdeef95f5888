"""Plan rows of reductions, the softmax family, normalisation, random numbers and optimizer updates."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from keydnn.compiler.ir import Op, View
from keydnn.compiler.lower import INT64, TYPES, Row, Unplannable, contiguous, lowers, type_of
from keydnn.kernels.reference.quantize import OVERFLOW, ROUNDING

FLOAT64 = np.dtype(np.float64)


def groups(shape: tuple[int, ...], axis: Any, label: str) -> list[int]:
    """The shape as (k0, r0, k1, r1): kept and reduced axes in turn.

    Raises:
        Unplannable: It needs more groups.
    """
    sizes = [1, 1, 1, 1]
    at = -1
    for i, n in enumerate(shape):
        if n == 1:
            continue
        kind = 1 if axis is None or i in axis else 0
        if at < 0:
            at = kind
        elif at % 2 != kind:
            at += 1
        if at > 3:
            raise Unplannable(f"{label}: a reduction over interleaved axes {axis} of {shape}")
        sizes[at] *= n
    return sizes if sizes[2:] != [1, 1] else [1, 1, *sizes[:2]]


@lowers("sum", "mean", "max", "min")
def reduction(op: Op) -> list[Row]:
    """Over any axes that leave two groups of kept and two of reduced ones."""
    rows: list[Row] = []
    x, y = contiguous(op.operands[0], rows), op.results[0]
    if x.size == 0:
        raise Unplannable(f"{op.label}: nothing to reduce")
    return [*rows, Row(f"{op.kernel}:{type_of(op)}", [x, y], groups(x.shape, op.params["axis"], op.label), [], op.label, 1)]


def _around(shape: tuple[int, ...], axis: int) -> list[int]:
    """Elements before, along and behind an axis."""
    return [prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])]


@lowers("argmax", "argmin")
def arg(op: Op) -> list[Row]:
    """Index of the first largest or smallest."""
    rows: list[Row] = []
    x, axis = contiguous(op.operands[0], rows), op.params["axis"]
    sizes = [1, x.size, 1] if axis is None else _around(x.shape, axis)
    if x.dtype == INT64 or x.size == 0:
        raise Unplannable(f"{op.label}: {op.kernel} of dtype {x.dtype}")
    return [*rows, Row(f"{op.kernel}:{type_of(op, x)}", [x, op.results[0]], sizes, [], op.label, 1)]


def _labels(view: View, rows: list[Row], label: str) -> View:
    if view.dtype != INT64:
        raise Unplannable(f"{label}: labels of dtype {view.dtype}")
    return contiguous(view, rows)


@lowers("cross_entropy")
def cross_entropy(op: Op) -> list[Row]:
    """Rows of the loss, and the probabilities."""
    rows: list[Row] = []
    x, labels = contiguous(op.operands[0], rows), _labels(op.operands[1], rows, op.label)
    loss, p = op.results
    return [*rows, Row(f"cross_entropy:{type_of(op, x)}", [x, labels, loss, p], list(x.shape), [], op.label, 2)]


@lowers("cross_entropy_grad")
def cross_entropy_grad(op: Op) -> list[Row]:
    """Its gradient."""
    rows: list[Row] = []
    p, labels, g = contiguous(op.operands[0], rows), _labels(op.operands[1], rows, op.label), contiguous(op.operands[2], rows)
    return [*rows, Row(f"cross_entropy_grad:{type_of(op, p, g)}", [p, labels, g, op.results[0]], list(p.shape), [], op.label, 3)]


def _channels(shape: tuple[int, ...]) -> list[int]:
    return [shape[0], shape[1], prod(shape[2:])]


@lowers("batch_norm", "batch_norm_relu")
def batch_norm(op: Op) -> list[Row]:
    """y, mean, var, inv; with relu also what the way back needs."""
    rows: list[Row] = []
    x, gamma, beta = (None if v is None else contiguous(v, rows) for v in op.operands)
    assert x is not None
    places = [x, gamma, beta, *op.results]
    return [*rows, Row(f"{op.kernel}:{type_of(op)}", places, _channels(x.shape), [float(op.params["eps"])], op.label, 3)]


@lowers("batch_norm_grad", "batch_norm_relu_grad")
def batch_norm_grad(op: Op) -> list[Row]:
    """dx, dgamma, dbeta."""
    rows: list[Row] = []
    operands = [None if v is None else contiguous(v, rows) for v in op.operands]
    shape = op.operands[1].shape
    return [*rows, Row(f"{op.kernel}:{type_of(op)}", [*operands, *op.results], _channels(shape), [], op.label, len(operands))]


def _rows_and_features(shape: tuple[int, ...], n_axes: int) -> list[int]:
    return [prod(shape[: len(shape) - n_axes]), prod(shape[len(shape) - n_axes :])]


@lowers("layer_norm")
def layer_norm(op: Op) -> list[Row]:
    """y, mean, inv."""
    rows: list[Row] = []
    operands = [None if v is None else contiguous(v, rows) for v in op.operands]
    sizes = _rows_and_features(op.operands[0].shape, op.params["n_axes"])
    return [*rows, Row(f"layer_norm:{type_of(op)}", [*operands, *op.results], sizes, [float(op.params["eps"])], op.label, 3)]


@lowers("layer_norm_grad")
def layer_norm_grad(op: Op) -> list[Row]:
    """dx, dgamma, dbeta."""
    rows: list[Row] = []
    operands = [None if v is None else contiguous(v, rows) for v in op.operands]
    sizes = _rows_and_features(op.operands[1].shape, op.params["n_axes"])
    return [*rows, Row(f"layer_norm_grad:{type_of(op)}", [*operands, *op.results], sizes, [], op.label, 5)]


@lowers("dropout_mask")
def dropout_mask(op: Op) -> list[Row]:
    """From a key of the step."""
    y = op.results[0]
    return [Row(f"dropout_mask:{TYPES[y.dtype]}", [op.operands[0], y], [y.size], [float(op.params["p"])], op.label, 1)]


@lowers("quantize_fixed")
def quantize_fixed(op: Op) -> list[Row]:
    """Rounding to fixed point; integers: elements, wl, iwl, signed, rounding, overflow, saturated bits."""
    rows: list[Row] = []
    x, p = contiguous(op.operands[0], rows), op.params
    if p["wl"] > 53 or not -60 <= p["wl"] - p["iwl"] <= 60:
        raise Unplannable(f"{op.label}: a format of {p['wl']} bits, {p['iwl']} before the point")
    n = [x.size, p["wl"], p["iwl"], int(p["signed"]), ROUNDING.index(p["qmode"]), OVERFLOW.index(p["omode"]), p["sat_bits"]]
    return [*rows, Row(f"quantize_fixed:{type_of(op)}", [x, op.results[0]], n, [], op.label, 1)]


@lowers("quantize_by")
def quantize_by(op: Op) -> list[Row]:
    """The same with a format that is read in each step."""
    rows: list[Row] = []
    x, form = contiguous(op.operands[0], rows), op.operands[1]
    if form.dtype != INT64 or form.size != 6 or not form.is_contiguous:
        raise Unplannable(f"{op.label}: a format must be 6 neighbouring int64")
    return [*rows, Row(f"quantize_by:{type_of(op, x)}", [x, form, op.results[0]], [x.size], [], op.label, 2)]


@lowers("uniform")
def random(op: Op) -> list[Row]:
    """From a key of the step."""
    y = op.results[0]
    return [Row(f"{op.kernel}:{TYPES[y.dtype]}", [op.operands[0], y], [y.size], [], op.label, 1)]


def _rate(op: Op, view: View) -> View:
    if view.dtype != FLOAT64 or view.size != 1:
        raise Unplannable(f"{op.label}: the learning rate must be a float64 scalar")
    return view


def _updated(op: Op, view: View) -> View:
    if not view.is_contiguous:
        raise Unplannable(f"{op.label}: an update of a strided tensor")
    return view


@lowers("ema_")
def ema(op: Op) -> list[Row]:
    """A running average."""
    rows: list[Row] = []
    running, batch = _updated(op, op.operands[0]), contiguous(op.operands[1], rows)
    return [*rows, Row(f"ema:{type_of(op)}", [running, batch], [running.size], [float(op.params["momentum"])], op.label, 0)]


@lowers("sgd_")
def sgd(op: Op) -> list[Row]:
    """One step of gradient descent."""
    rows: list[Row] = []
    p, g, velocity, lr = op.operands
    kind = type_of(op, p, g) if velocity is None else type_of(op, p, g, velocity)
    params = op.params
    places = [_updated(op, p), contiguous(g, rows), None if velocity is None else _updated(op, velocity), _rate(op, lr)]
    reals = [float(params["momentum"]), float(params["weight_decay"])]
    return [*rows, Row(f"sgd:{kind}", places, [p.size, int(bool(params["nesterov"]))], reals, op.label, 0)]


@lowers("adam_")
def adam(op: Op) -> list[Row]:
    """One step of Adam or AdamW."""
    rows: list[Row] = []
    p, g, m, v, t, lr = op.operands
    if t.dtype != INT64:
        raise Unplannable(f"{op.label}: the step count must be int64")
    kind, params = type_of(op, p, g, m, v), op.params
    places = [_updated(op, p), contiguous(g, rows), _updated(op, m), _updated(op, v), t, _rate(op, lr)]
    reals = [float(params[name]) for name in ("beta1", "beta2", "eps", "weight_decay")]
    return [*rows, Row(f"adam:{kind}", places, [p.size, int(bool(params["decoupled"]))], reals, op.label, 0)]


def _table(op: Op, columns: int) -> list[list[View | None]]:
    """The operands of a merged update, one row per parameter."""
    flat = op.operands[:-1]
    return [list(flat[i : i + columns]) for i in range(0, len(flat), columns)]


@lowers("sgd_many_")
def sgd_many(op: Op) -> list[Row]:
    """Gradient descent over a table of (p, g, velocity)."""
    rows: list[Row] = []
    places: list[View | None] = [_rate(op, op.operands[-1])]
    sizes = []
    for p, g, velocity in _table(op, 3):
        assert p is not None and g is not None
        places += [_updated(op, p), contiguous(g, rows), None if velocity is None else _updated(op, velocity)]
        sizes.append(p.size)
    params = op.params
    reals = [float(params["momentum"]), float(params["weight_decay"])]
    kind = type_of(op, *[v for v in op.operands[:-1] if v is not None])
    return [*rows, Row(f"sgd_many:{kind}", places, [len(sizes), int(bool(params["nesterov"])), *sizes], reals, op.label, 0)]


@lowers("adam_many_")
def adam_many(op: Op) -> list[Row]:
    """Adam over a table of (p, g, m, v, t)."""
    rows: list[Row] = []
    places: list[View | None] = [_rate(op, op.operands[-1])]
    sizes, floats = [], []
    for p, g, m, v, t in _table(op, 5):
        assert p is not None and g is not None and m is not None and v is not None and t is not None
        if t.dtype != INT64:
            raise Unplannable(f"{op.label}: the step count must be int64")
        places += [_updated(op, p), contiguous(g, rows), _updated(op, m), _updated(op, v), t]
        sizes.append(p.size)
        floats += [p, g, m, v]
    reals = [float(op.params[name]) for name in ("beta1", "beta2", "eps", "weight_decay")]
    return [
        *rows,
        Row(f"adam_many:{type_of(op, *floats)}", places, [len(sizes), int(bool(op.params["decoupled"])), *sizes], reals, op.label, 0),
    ]

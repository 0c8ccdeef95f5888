"""Plan rows of indexed reads and writes, running sums, products, and softmax along any axis."""

from __future__ import annotations

from itertools import product as combinations
from math import prod
from typing import Any

from keydnn.compiler.ir import Op, View, fresh
from keydnn.compiler.lower import INT64, TYPES, Row, Unplannable, broadcast, contiguous, lowers, strided_copy, type_of
from keydnn.compiler.lower_math import groups
from keydnn.compiler.lower_movement import indexed


def _around(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    """Elements before and behind an axis."""
    return prod(shape[:axis]), prod(shape[axis + 1 :])


def _index(view: Any, rows: list[Row], label: str) -> View:
    if not isinstance(view, View) or view.dtype != INT64:
        raise Unplannable(f"{label}: an index other than an int64 tensor")
    return contiguous(view, rows)


@lowers("gather", "scatter_add")
def gather(op: Op) -> list[Row]:
    """Elements along an axis, read or added to."""
    rows: list[Row] = []
    x, index, y = contiguous(op.operands[0], rows), _index(op.operands[1], rows, op.label), op.results[0]
    axis = op.params["axis"] % len(x.shape)
    if index.shape[:axis] != x.shape[:axis] or index.shape[axis + 1 :] != x.shape[axis + 1 :]:
        raise Unplannable(f"{op.label}: {op.kernel} with an index of shape {index.shape} for {x.shape}")
    before, behind = _around(x.shape, axis)
    places: list[View | None] = [x, index, *[contiguous(broadcast(v, index.shape), rows) for v in op.operands[2:]], y]
    kind = type_of(op, x, *op.operands[2:], y)
    return [*rows, Row(f"{op.kernel}:{kind}", places, [before, x.shape[axis], index.shape[axis], behind], [], op.label, len(places) - 1)]


@lowers("cumsum")
def cumsum(op: Op) -> list[Row]:
    """Running sum along an axis."""
    rows: list[Row] = []
    x, y = contiguous(op.operands[0], rows), op.results[0]
    axis = op.params["axis"]
    before, behind = (1, 1) if axis is None else _around(x.shape, axis % len(x.shape))
    along = x.size if axis is None else x.shape[axis]
    return [*rows, Row(f"cumsum:{type_of(op, x, y)}", [x, y], [before, along, behind], [], op.label, 1)]


@lowers("prod", "any", "all")
def reduction(op: Op) -> list[Row]:
    """Over any axes that leave two groups of kept and two of reduced ones."""
    rows: list[Row] = []
    x, y = contiguous(op.operands[0], rows), op.results[0]
    if x.size == 0:
        raise Unplannable(f"{op.label}: nothing to reduce")
    return [*rows, Row(f"{op.kernel}:{type_of(op, x, y)}", [x, y], groups(x.shape, op.params["axis"], op.label), [], op.label, 1)]


@lowers("roll")
def roll(op: Op) -> list[Row]:
    """Rotated along axes: a copy per piece."""
    x, y, axis = op.operands[0], op.results[0], op.params["axis"]
    if axis is None:
        x, y, axis = _flat(x, op.label), _flat(y, op.label), 0
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    shift = op.params["shift"]
    shifts = shift if isinstance(shift, tuple | list) else (shift,) * len(axes)
    turns = [0] * len(x.shape)
    for a, s in zip(axes, shifts, strict=True):
        turns[a] += int(s)
    pieces = [
        [(slice(0, n - s % n), slice(s % n, n)), (slice(n - s % n, n), slice(0, s % n))] for n, s in zip(x.shape, turns, strict=True) if n
    ]
    rows = []
    for piece in combinations(*pieces):
        part = indexed(x, tuple(source for source, _ in piece), op.label)
        if part.size:
            rows.append(strided_copy(part, indexed(y, tuple(target for _, target in piece), op.label), op.label))
    return rows


def _flat(view: View, label: str) -> View:
    if not view.is_contiguous:
        raise Unplannable(f"{label}: a strided tensor as one row")
    return View(view.buffer, view.offset, (view.size,), (view.dtype.itemsize,), view.dtype, view.version)


@lowers("put_")
def put(op: Op) -> list[Row]:
    """A basic index, overwritten."""
    target = indexed(op.operands[0], op.params["key"], op.label)
    value, rows = op.operands[1], []  # type: ignore[var-annotated]
    if not isinstance(value, View):
        if target.dtype not in TYPES:
            raise Unplannable(f"{op.label}: a number into dtype {target.dtype}")
        number = float(value)
        value = fresh((), target.dtype)
        rows.append(Row(f"fill:{TYPES[target.dtype]}", [value], [1], [number], op.label, 0))
    if value.dtype != target.dtype:
        raise Unplannable(f"{op.label}: {value.dtype} into {target.dtype}")
    while len(value.shape) > len(target.shape):  # leading axes of one
        value = View(value.buffer, value.offset, value.shape[1:], value.strides[1:], value.dtype, value.version)
    if value.buffer is target.buffer:
        rows.append(strided_copy(value, twin := fresh(value.shape, value.dtype), op.label))
        value = twin
    return [*rows, strided_copy(broadcast(value, target.shape), target, op.label)] if target.size else []


@lowers("softmax", "log_softmax", "softmax_grad", "log_softmax_grad")
def softmax(op: Op) -> list[Row]:
    """Along one axis; another than the last is moved there and back."""
    rows: list[Row] = []
    y, n_axes = op.results[0], len(op.results[0].shape)
    axis = op.params["axis"] % n_axes
    if 0 in y.shape:
        raise Unplannable(f"{op.label}: {op.kernel} of nothing")
    order = [a for a in range(n_axes) if a != axis] + [axis]
    inputs = [contiguous(_turned(v, order), rows) for v in op.operands]
    target = y if axis == n_axes - 1 else fresh(inputs[0].shape, y.dtype)
    sizes = [prod(target.shape[:-1]), target.shape[-1]]
    rows.append(Row(f"{op.kernel}:{type_of(op)}", [*inputs, target], sizes, [], op.label, len(inputs)))
    return rows if target is y else [*rows, strided_copy(target, _turned(y, order), op.label)]


def _turned(view: View, order: list[int]) -> View:
    shape, strides = tuple(view.shape[a] for a in order), tuple(view.strides[a] for a in order)
    return View(view.buffer, view.offset, shape, strides, view.dtype, view.version)

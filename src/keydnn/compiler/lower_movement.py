"""Plan rows of kernels that move elements."""

from __future__ import annotations

from itertools import pairwise
from types import EllipsisType
from typing import Any

import numpy as np

from keydnn.compiler.ir import Op, View
from keydnn.compiler.lower import INT64, TYPES, Row, Unplannable, broadcast, lowers, strided_copy


def moved(view: View, like: np.ndarray, base: np.ndarray) -> View:
    """The part of ``view`` that ``like`` is of ``base``, an array of the view's shape and strides."""
    offset = like.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return View(view.buffer, view.offset + offset, like.shape, like.strides, view.dtype, view.version)


def dummy(view: View) -> np.ndarray:
    """An array of the view's shape and strides over one element of memory: for NumPy's view arithmetic only."""
    return np.lib.stride_tricks.as_strided(np.empty(1, view.dtype), view.shape, view.strides, writeable=False)


def indexed(view: View, key: Any, label: str) -> View:
    """``view[key]`` for ints, slices, None and Ellipsis."""
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(p, bool) or not isinstance(p, int | np.integer | slice | EllipsisType | None) for p in parts):
        raise Unplannable(f"{label}: an index other than ints and slices")
    base = dummy(view)
    return moved(view, base[(*parts, ...)] if Ellipsis not in parts else base[key], base)


@lowers("broadcast_to")
def broadcast_to(op: Op) -> list[Row]:
    """Repeated along axes."""
    x, y = op.operands[0], op.results[0]
    if x.size == 1 and y.dtype in TYPES and x.is_contiguous:
        return [strided_copy(broadcast(x, y.shape), y, op.label)]
    return [strided_copy(broadcast(x, y.shape), y, op.label)]


@lowers("transpose")
def transpose(op: Op) -> list[Row]:
    """Axes in another order."""
    x, axes = op.operands[0], op.params["axes"]
    turned = View(x.buffer, x.offset, tuple(x.shape[a] for a in axes), tuple(x.strides[a] for a in axes), x.dtype, x.version)
    return [strided_copy(turned, op.results[0], op.label)]


@lowers("concat")
def concat(op: Op) -> list[Row]:
    """Joined along an axis: one copy per part."""
    axis, y = op.params["axis"], op.results[0]
    ends = np.cumsum([0, *(x.shape[axis] for x in op.operands)]).tolist()
    keys = [(slice(None),) * axis + (slice(a, b),) for a, b in pairwise(ends)]
    return [strided_copy(x, indexed(y, key, op.label), op.label) for x, key in zip(op.operands, keys, strict=True)]


@lowers("stack")
def stack(op: Op) -> list[Row]:
    """Joined along a new axis: one copy per part."""
    lead = (slice(None),) * op.params["axis"]
    return [strided_copy(x, indexed(op.results[0], (*lead, i), op.label), op.label) for i, x in enumerate(op.operands)]


@lowers("take")
def take(op: Op) -> list[Row]:
    """A basic index, copied."""
    return [strided_copy(indexed(op.operands[0], op.params["key"], op.label), op.results[0], op.label)]


@lowers("take_grad")
def take_grad(op: Op) -> list[Row]:
    """Zeros with the gradient at a basic index."""
    g, dx = op.operands[0], op.results[0]
    return [_fill(dx, 0.0, op.label), strided_copy(g, indexed(dx, op.params["key"], op.label), op.label)]


@lowers("pad")
def pad(op: Op) -> list[Row]:
    """A border of one value."""
    x, y = op.operands[0], op.results[0]
    key = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, op.params["widths"], strict=True))
    return [_fill(y, float(op.params["value"]), op.label), strided_copy(x, indexed(y, key, op.label), op.label)]


@lowers("flip")
def flip(op: Op) -> list[Row]:
    """Reversed along axes."""
    x = op.operands[0]
    key = tuple(slice(None, None, -1) if i in op.params["axis"] else slice(None) for i in range(len(x.shape)))
    return [strided_copy(indexed(x, key, op.label), op.results[0], op.label)]


@lowers("one_hot")
def one_hot(op: Op) -> list[Row]:
    """1 at the index."""
    index, y = op.operands[0], op.results[0]
    if index.dtype != INT64 or y.dtype not in TYPES or not index.is_contiguous:
        raise Unplannable(f"{op.label}: one_hot of {index.dtype} to {y.dtype}")
    return [Row(f"one_hot:{TYPES[y.dtype]}", [index, y], [index.size, op.params["n"]], [], op.label, 1)]


def _fill(y: View, value: float, label: str) -> Row:
    if y.dtype not in TYPES:
        raise Unplannable(f"{label}: dtype {y.dtype}")
    return Row(f"fill:{TYPES[y.dtype]}", [y], [y.size], [value], label, 0)

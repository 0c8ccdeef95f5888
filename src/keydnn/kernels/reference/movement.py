"""Kernels that move elements: constants, layout, joining, indexing.  All results are copies."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

import numpy as np


def full(shape, value, dtype):
    """A constant array."""
    return np.full(shape, value, dtype)


def broadcast_to(x, shape):
    """x repeated to shape."""
    return np.broadcast_to(x, shape).copy()


def transpose(x, axes):
    """x with its axes permuted."""
    return np.transpose(x, axes).copy()


def concat(*xs, axis):
    """xs joined along an existing axis."""
    return np.asarray(np.concatenate(xs, axis), order="C")


def stack(*xs, axis):
    """xs joined along a new axis."""
    return np.asarray(np.stack(xs, axis), order="C")


def pad(x, widths, value):
    """x framed by value; widths ((before, after), ...), one pair per axis."""
    out = np.full(tuple(n + before + after for n, (before, after) in zip(x.shape, widths, strict=True)), value, x.dtype)
    out[tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths, strict=True))] = x
    return out


def take(x, key):
    """``x[key]``, copied."""
    return np.array(x[key], order="C")


def _is_basic(key: Any) -> bool:
    """Whether NumPy reads key without fancy indexing, so that no element can be met twice."""
    parts = key if isinstance(key, tuple) else (key,)
    return all(part is None or isinstance(part, (slice, EllipsisType, int, np.integer)) and not isinstance(part, bool) for part in parts)


def take_grad(g, key, shape):
    """zeros(shape) with g added at key; an index that is met twice accumulates."""
    out = np.zeros(shape, g.dtype)
    if _is_basic(key):
        out[key] = g
    else:
        np.add.at(out, key, g)
    return out


def gather(x, index, axis):
    """``np.take_along_axis``."""
    return np.asarray(np.take_along_axis(x, index, axis), order="C")


def scatter_add(x, index, src, axis):
    """A copy of x with src added where ``gather`` would read; repeats accumulate."""
    out = x.copy()
    where = [np.arange(n).reshape([-1 if d == a else 1 for a in range(x.ndim)]) for d, n in enumerate(x.shape)]
    where[axis] = index
    np.add.at(out, tuple(where), src)
    return out


def flip(x, axis):
    """x reversed along the tuple of axes."""
    return np.flip(x, axis).copy()


def roll(x, shift, axis):
    """x rotated: the elements that leave one end enter at the other."""
    return np.asarray(np.roll(x, shift, axis), order="C")


def tril(x, k):
    """x with zeros above the k-th diagonal of the last two axes."""
    return np.asarray(np.tril(x, k), order="C")


def triu(x, k):
    """x with zeros below the k-th diagonal of the last two axes."""
    return np.asarray(np.triu(x, k), order="C")


def one_hot(index, n, dtype):
    """``index.shape + (n,)`` with 1 at the index; a row is all 0 where the index is outside [0, n)."""
    return np.equal(np.asarray(index)[..., None], np.arange(n), order="C").astype(dtype)


def embedding(w, index, padding):
    """Rows of w (V, D) at the index, an integer array of any shape; zeros where it is padding."""
    y = np.array(w[index], order="C")
    if padding is not None:
        y[index == padding] = 0
    return y


def embedding_grad(g, index, n, padding):
    """zeros (n, D) with the rows of g added at the index, in its order; those at padding are left out."""
    out = np.zeros((n, g.shape[-1]), g.dtype)
    rows = slice(None) if padding is None else index.reshape(-1) != padding
    np.add.at(out, index.reshape(-1)[rows], g.reshape(-1, g.shape[-1])[rows])
    return out

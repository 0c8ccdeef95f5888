"""Reductions.  ``axis`` is None (everything) or a tuple of non-negative ints, one int where the contract says so.

float32 is summed in double and rounded once: at least as accurate as NumPy's pairwise sum, along every axis.
"""

from __future__ import annotations

from math import prod as _product
from typing import Any

import numpy as np

from keydnn.kernels.reference.quiet import quiet


def wide(x: np.ndarray) -> Any:
    """The dtype in which sums of x are taken: double for narrower floats, None (NumPy's choice) for the others."""
    return np.float64 if x.dtype.kind == "f" and x.dtype.itemsize < 8 else None


@quiet
def sum(x, axis, keepdims):
    """Sum over the axes."""
    return np.add.reduce(x, axis=axis, dtype=wide(x), keepdims=keepdims).astype(x.dtype, order="C")


@quiet
def mean(x, axis, keepdims):
    """Arithmetic mean over the axes; NaN when there is nothing to average."""
    count = x.size if axis is None else _product(x.shape[a] for a in axis)
    total = np.add.reduce(x, axis=axis, dtype=wide(x), keepdims=keepdims)
    return np.asarray(total / np.float64(count)).astype(x.dtype, order="C")


@quiet
def prod(x, axis, keepdims):
    """Product over the axes."""
    return np.multiply.reduce(x, axis=axis, dtype=wide(x), keepdims=keepdims).astype(x.dtype, order="C")


@quiet
def max(x, axis, keepdims):
    """Largest element; NaN wins."""
    return np.asarray(np.maximum.reduce(x, axis=axis, keepdims=keepdims), order="C")


@quiet
def min(x, axis, keepdims):
    """Smallest element; NaN wins."""
    return np.asarray(np.minimum.reduce(x, axis=axis, keepdims=keepdims), order="C")


def argmax(x, axis):
    """Index of the first largest element."""
    return np.asarray(np.argmax(x, axis=axis), np.int64, order="C")


def argmin(x, axis):
    """Index of the first smallest element."""
    return np.asarray(np.argmin(x, axis=axis), np.int64, order="C")


def any(x, axis, keepdims):
    """1 where any element is not 0, in x's dtype."""
    return np.logical_or.reduce(x, axis=axis, keepdims=keepdims).astype(x.dtype, order="C")


def all(x, axis, keepdims):
    """1 where no element is 0, in x's dtype."""
    return np.logical_and.reduce(x, axis=axis, keepdims=keepdims).astype(x.dtype, order="C")


@quiet
def cumsum(x, axis):
    """Running sum along one axis."""
    return np.add.accumulate(x, axis=axis, dtype=wide(x)).astype(x.dtype, order="C")

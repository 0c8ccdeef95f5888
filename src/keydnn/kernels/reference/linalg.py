"""Products of matrices."""

from __future__ import annotations

import numpy as np

from keydnn.kernels.reference.quiet import quiet


@quiet
def matmul(a, b, transpose_a, transpose_b):
    """NumPy matmul of operands with two or more axes, the last two axes of each swapped on request."""
    a = a.swapaxes(-1, -2) if transpose_a else a
    b = b.swapaxes(-1, -2) if transpose_b else b
    return np.matmul(a, b, order="C")


@quiet
def linear(x, w, b):
    """``x @ w.T + b``; x (N, D), w (O, D), b (O,) or None."""
    y = np.matmul(x, w.T, order="C")
    return y if b is None else y + b


@quiet
def einsum(*xs, subscripts):
    """``np.einsum``, always a copy (of one operand NumPy may return a view)."""
    return np.array(np.einsum(subscripts, *xs, optimize=True), order="C", copy=len(xs) == 1 or None)

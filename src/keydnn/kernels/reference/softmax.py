"""Softmax, its logarithm, and the cross-entropy of logits with integer labels.

    softmax(x)_j = e^(x_j - max x) / sum_k e^(x_k - max x)

The maximum is taken out first, so nothing overflows.  Sums over float32 are taken in double.
"""

from __future__ import annotations

import numpy as np

from keydnn.kernels.reference.quiet import quiet
from keydnn.kernels.reference.reduce import wide


def _sum(x: np.ndarray, axis: int) -> np.ndarray:
    return np.add.reduce(x, axis=axis, dtype=wide(x), keepdims=True).astype(x.dtype)


@quiet
def softmax(x, axis):
    """Softmax along one axis."""
    e = np.exp(np.subtract(x, x.max(axis=axis, keepdims=True), order="C"))
    return e / _sum(e, axis)


@quiet
def softmax_grad(y, g, axis):
    """``y * (g - sum(g y))``."""
    return np.multiply(y, g - _sum(g * y, axis), order="C")


@quiet
def log_softmax(x, axis):
    """``x - max - log(sum(exp(x - max)))`` along one axis."""
    shifted = np.subtract(x, x.max(axis=axis, keepdims=True), order="C")
    return shifted - np.log(_sum(np.exp(shifted), axis))


@quiet
def log_softmax_grad(y, g, axis):
    """``g - exp(y) * sum(g)``."""
    return np.subtract(g, np.exp(y) * _sum(g, axis), order="C")


@quiet
def cross_entropy(logits, labels):
    """Per row ``-log_softmax(logits)[label]``, shape (N,), and the probabilities, shape (N, C)."""
    logp = log_softmax(logits, axis=1)
    loss = -logp[np.arange(len(labels)), labels]
    return loss, np.exp(logp)


@quiet
def cross_entropy_grad(p, labels, g):
    """``(p - onehot(labels)) * g[:, None]``."""
    d = p.copy()
    d[np.arange(len(labels)), labels] -= 1.0
    return d * g[:, None]

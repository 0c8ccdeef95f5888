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


def _by_head(x, heads):
    """(N, L, heads * d) as (N, heads, L, d)."""
    n, steps, wide = x.shape
    return x.reshape(n, steps, heads, wide // heads).transpose(0, 2, 1, 3)


def _joined(x):
    """(N, heads, L, d) as (N, L, heads * d)."""
    n, heads, steps, d = x.shape
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3)).reshape(n, steps, heads * d)


@quiet
def attention(q, k, v, heads, scale):
    """``softmax(scale * q k^T) v`` per head, and the weights (N, heads, L, S)."""
    q, k, v = (_by_head(x, heads) for x in (q, k, v))
    p = softmax(np.matmul(q, k.swapaxes(-1, -2)) * scale, -1)
    return _joined(np.matmul(p, v)), p


@quiet
def attention_grad(g, p, q, k, v, heads, scale):
    """Gradients to q, k and v."""
    g, q, k, v = (_by_head(x, heads) for x in (g, q, k, v))
    dp = np.matmul(g, v.swapaxes(-1, -2))
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * scale
    return _joined(np.matmul(ds, k)), _joined(np.matmul(ds.swapaxes(-1, -2), q)), _joined(np.matmul(p.swapaxes(-1, -2), g))

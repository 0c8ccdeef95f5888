"""Batch and layer normalisation with the statistics of the operand.

    xhat = (x - mean) * inv,   inv = 1 / sqrt(var + eps),   y = gamma * xhat + beta

The variance is biased (divided by m).  With d = g * gamma the gradient through the statistics is

    dx = inv * (d - mean(d) - xhat * mean(d * xhat))

Sources: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167; Ba, Kiros & Hinton 2016, https://arxiv.org/abs/1607.06450.
"""

from __future__ import annotations

import numpy as np

from keydnn.kernels.reference.quiet import quiet
from keydnn.kernels.reference.reduce import mean as _mean
from keydnn.kernels.reference.reduce import sum as _sum


def _statistics(x: np.ndarray, axes: tuple[int, ...], eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, biased variance and ``1 / sqrt(var + eps)`` over axes, with the axes kept."""
    mean = _mean(x, axes, True)
    var = _mean(np.square(x - mean), axes, True)
    return mean, var, 1.0 / np.sqrt(var + float(eps))


def _scaled(xhat: np.ndarray, gamma: np.ndarray | None, beta: np.ndarray | None) -> np.ndarray:
    y = xhat if gamma is None else gamma * xhat
    return np.asarray(y if beta is None else y + beta, order="C")


def _per_channel(v: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(C,) seen as (1, C, 1, ...) beside x."""
    return v.reshape((1, -1) + (1,) * (x.ndim - 2))


@quiet
def batch_norm(x, gamma, beta, eps):
    """Normalise every channel (axis 1) over all other axes: y, and mean, var, inv of shape (C,)."""
    axes = (0, *range(2, x.ndim))
    mean, var, inv = _statistics(x, axes, eps)
    gamma, beta = (None if v is None else _per_channel(v, x) for v in (gamma, beta))
    y = _scaled((x - mean) * inv, gamma, beta)
    return y, mean.reshape(-1), var.reshape(-1), inv.reshape(-1)


@quiet
def batch_norm_grad(g, x, gamma, mean, inv):
    """Gradients to x, gamma and beta, the statistics depending on x."""
    axes = (0, *range(2, x.ndim))
    inv = _per_channel(inv, x)
    xhat = (x - _per_channel(mean, x)) * inv
    d = g if gamma is None else g * _per_channel(gamma, x)
    dx = inv * (d - _mean(d, axes, True) - xhat * _mean(d * xhat, axes, True))
    return np.asarray(dx, order="C"), _sum(g * xhat, axes, False), _sum(g, axes, False)


@quiet
def layer_norm(x, gamma, beta, n_axes, eps):
    """Normalise over the last n_axes: y, and mean and inv with the leading shape."""
    leading = x.shape[: x.ndim - n_axes]
    mean, _, inv = _statistics(x, tuple(range(x.ndim - n_axes, x.ndim)), eps)
    y = _scaled((x - mean) * inv, gamma, beta)
    return y, mean.reshape(leading), inv.reshape(leading)


@quiet
def layer_norm_grad(g, x, gamma, mean, inv, n_axes):
    """Gradients to x, gamma and beta, the statistics depending on x."""
    split = x.ndim - n_axes
    leading, last = tuple(range(split)), tuple(range(split, x.ndim))
    inv = inv.reshape(inv.shape + (1,) * n_axes)
    xhat = (x - mean.reshape(inv.shape)) * inv
    d = g if gamma is None else g * gamma
    dx = inv * (d - _mean(d, last, True) - xhat * _mean(d * xhat, last, True))
    return np.asarray(dx, order="C"), _sum(g * xhat, leading, False), _sum(g, leading, False)

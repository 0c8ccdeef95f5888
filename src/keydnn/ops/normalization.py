"""Batch and layer normalisation: ``y = gamma * (x - mean) / sqrt(var + eps) + beta``, biased variance.

Sources: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167; Ba et al. 2016, https://arxiv.org/abs/1607.06450.
The fused gradients serve a plain backward pass; with ``create_graph`` the same value is written out in ops.
"""

from __future__ import annotations

import math

from keydnn.autograd.primitive import bind
from keydnn.domain.errors import ShapeError
from keydnn.ops._primitive import primitive


@primitive(n_outputs=3, n_graph=1)
def batch_norm_p(k, x, gamma=None, beta=None, *, eps):
    """Normalised over all axes but 1; also the batch mean and biased variance, both (C,)."""
    y, mean, var, inv = k.batch_norm(x, gamma, beta, eps)
    return (y, mean, var), (x, gamma, eps), (mean, inv)


@batch_norm_p.gradient
def _(saved, g, needs):
    x, gamma, eps, mean, inv = saved
    if mean is None:
        axes = (0, *range(2, x.ndim))
        return _in_ops(x, gamma, g, needs, eps, axes, _channels(x))
    grads = batch_norm_grad(g, x, mean, inv) if gamma is None else batch_norm_grad(g, x, mean, inv, gamma)
    return grads[: len(needs)]


@primitive(n_outputs=3)
def batch_norm_grad(k, g, x, mean, inv, gamma=None):
    """(dx, dgamma, dbeta) through the batch statistics."""
    return k.batch_norm_grad(g, x, gamma, mean, inv), ()


@primitive(n_outputs=3, n_graph=1)
def layer_norm_p(k, x, gamma=None, beta=None, *, n_axes, eps):
    """Normalised over the last ``n_axes`` axes."""
    y, mean, inv = k.layer_norm(x, gamma, beta, n_axes, eps)
    return (y, mean, inv), (x, gamma, n_axes, eps), (mean, inv)


@layer_norm_p.gradient
def _(saved, g, needs):
    x, gamma, n_axes, eps, mean, inv = saved
    if mean is None:
        axes = tuple(range(x.ndim - n_axes, x.ndim))
        return _in_ops(x, gamma, g, needs, eps, axes, x.shape[x.ndim - n_axes :])
    grads = layer_norm_grad(g, x, mean, inv, n_axes=n_axes) if gamma is None else layer_norm_grad(g, x, mean, inv, gamma, n_axes=n_axes)
    return grads[: len(needs)]


@primitive(n_outputs=3)
def layer_norm_grad(k, g, x, mean, inv, gamma=None, *, n_axes):
    """(dx, dgamma, dbeta) through the statistics of each row."""
    return k.layer_norm_grad(g, x, gamma, mean, inv, n_axes), ()


def _channels(x):
    return (x.shape[1],) + (1,) * (x.ndim - 2)


def _in_ops(x, gamma, g, needs, eps, axes, affine_shape):
    """dx = (d - mean(d) - x^ * mean(d * x^)) / sqrt(var + eps) with d = g * gamma, written in ops."""
    centred = x - x.mean(axes, True)
    inv = ((centred * centred).mean(axes, True) + eps).rsqrt()
    x_hat = centred * inv
    d = g if gamma is None else g * gamma.reshape(affine_shape)
    dx = (d - d.mean(axes, True) - x_hat * (d * x_hat).mean(axes, True)) * inv
    if gamma is None:
        return (dx,)
    return dx, (g * x_hat).sum_to_shape(affine_shape).reshape(gamma.shape), g.sum_to_shape(affine_shape).reshape(gamma.shape)


def batch_norm(x, gamma=None, beta=None, eps=1e-5):
    """Batch normalisation with the statistics of the batch.

    Args:
        x: (N, C) or (N, C, H, W).
        gamma: (C,) or None (then beta is None too).
        beta: (C,) or None.
        eps: Added to the variance.

    Returns:
        y of x's shape; mean (C,) and biased variance (C,), which carry no gradient.
    """
    return bind(batch_norm_p, (x,) if gamma is None else (x, gamma, beta), {"eps": eps})


def normalize_by(x, mean, var, gamma=None, beta=None, eps=1e-5):
    """Batch normalisation with given statistics (evaluation mode): constants for the gradient.

    Args:
        x: (N, C) or (N, C, H, W).
        mean: (C,).
        var: (C,).
        gamma: (C,) or None.
        beta: (C,) or None.
        eps: Added to the variance.
    """
    shape = _channels(x)
    inv = (var + eps).rsqrt()
    y = (x - mean.reshape(shape)) * inv.reshape(shape)
    return y if gamma is None else y * gamma.reshape(shape) + beta.reshape(shape)


def layer_norm(x, normalized_shape, gamma=None, beta=None, eps=1e-5):
    """Layer normalisation over the trailing axes.

    Args:
        x: Tensor whose shape ends in ``normalized_shape``.
        normalized_shape: Sizes of the trailing axes, not empty.
        gamma: Tensor of ``normalized_shape`` or None (then beta is None too).
        beta: Tensor of ``normalized_shape`` or None.
        eps: Added to the variance.

    Raises:
        ValueError: The trailing axes differ.
    """
    shape = tuple(normalized_shape)
    if not shape or x.shape[x.ndim - len(shape) :] != shape or math.prod(shape) == 0:
        raise ShapeError(f"layer_norm: x of shape {x.shape} does not end in the normalized shape {shape}")
    return bind(layer_norm_p, (x,) if gamma is None else (x, gamma, beta), {"n_axes": len(shape), "eps": eps})[0]

"""Batch and layer normalisation: ``y = gamma * (x - mean) / sqrt(var + eps) + beta``, biased variance.

Sources: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167; Ba et al. 2016, https://arxiv.org/abs/1607.06450.
The fused gradients serve a plain backward pass; with ``create_graph`` the same value is written out in ops.
"""

from __future__ import annotations

import numpy as np

from keydnn.autograd.primitive import bind
from keydnn.domain.errors import ShapeError
from keydnn.ops._dtypes import promoted
from keydnn.ops._primitive import primitive

FLOAT32 = np.dtype(np.float32)


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


@primitive(broadcasts=True)
def normalize_by_p(k, x, mean, var, gamma=None, beta=None, *, eps):
    """Normalised over all axes but 1 with given statistics, which are constants for the gradient."""
    shape = _channels(x)
    scale = k.rsqrt(k.add(var, eps))
    if gamma is not None:
        scale = k.mul(scale, gamma)
    y = k.mul(k.sub(x, mean.reshape(shape)), scale.reshape(shape))  # x - mean first: no cancellation when the mean is large
    if beta is not None:
        y = k.add(y, beta.reshape(shape))
    return y, (x, mean, var, gamma, eps)


@normalize_by_p.gradient
def _(saved, g, needs):
    x, mean, var, gamma, eps = saved
    shape = _channels(x)
    inv = (var + eps).rsqrt().detach()
    dx = g * (inv if gamma is None else inv * gamma).reshape(shape) if needs[0] else None
    if gamma is None:
        return dx, None, None
    dgamma = (g * (x - mean.detach().reshape(shape)) * inv.reshape(shape)).sum_to_shape(shape).reshape(gamma.shape) if needs[3] else None
    return dx, None, None, dgamma, g.sum_to_shape(shape).reshape(gamma.shape) if needs[4] else None


@primitive
def layer_norm_p(k, x, gamma=None, beta=None, *, n_axes, eps):
    """Normalised over the last ``n_axes`` axes."""
    y, mean, inv = k.layer_norm(x, gamma, beta, n_axes, eps)
    return y, (x, gamma, n_axes, eps), (mean, inv)


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

    Raises:
        ValueError: x has no channels, no elements, or another number of channels than gamma and beta.
        TypeError: An operand is no floating Tensor.
    """
    size = x.shape
    if len(size) < 2 or 0 in size or (gamma is not None and (gamma.shape != size[1:2] or beta.shape != size[1:2])):
        raise ShapeError(f"batch_norm: x of shape {size} needs elements in each channel, gamma and beta must be {size[1:2]}")
    if x.dtype is not (FLOAT32 if gamma is None else gamma.dtype):
        x, gamma, beta = promoted("batch_norm", x, gamma, beta)
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
    return bind(normalize_by_p, (x, mean, var) if gamma is None else (x, mean, var, gamma, beta), {"eps": eps})


def layer_norm(x, normalized_shape, gamma=None, beta=None, eps=1e-5):
    """Layer normalisation over the trailing axes.

    Args:
        x: Tensor whose shape ends in ``normalized_shape``.
        normalized_shape: Sizes of the trailing axes, a tuple, not empty.
        gamma: Tensor of ``normalized_shape`` or None (then beta is None too).
        beta: Tensor of ``normalized_shape`` or None.
        eps: Added to the variance.

    Raises:
        ValueError: The trailing axes differ, or are empty.
        TypeError: An operand is no floating Tensor.
    """
    size, n_axes = x.shape, len(normalized_shape)
    if not n_axes or len(size) < n_axes or size[len(size) - n_axes :] != normalized_shape or 0 in normalized_shape:
        raise ShapeError(f"layer_norm: x of shape {size} does not end in the normalized shape {normalized_shape}")
    if x.dtype is not (FLOAT32 if gamma is None else gamma.dtype):
        x, gamma, beta = promoted("layer_norm", x, gamma, beta)
    return bind(layer_norm_p, (x,) if gamma is None else (x, gamma, beta), {"n_axes": n_axes, "eps": eps})

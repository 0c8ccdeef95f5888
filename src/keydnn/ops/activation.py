"""Activation functions and softmax."""

from __future__ import annotations

import math

from keydnn.domain.errors import ShapeError
from keydnn.ops._primitive import primitive
from keydnn.ops.elementwise import erf, exp, expm1, limit, where
from keydnn.ops.reduce import axes_of

# The backward pieces are primitives of their own: one kernel on the way back instead of three.


@primitive
def relu_grad(k, y, g):
    """``g`` where ``y > 0``, else 0."""
    return k.relu_grad(y, g), (y,)


@relu_grad.gradient
def _(saved, h, needs):
    return None, relu_grad(saved[0], h)


@primitive
def relu(k, x):
    """``max(x, 0)``; gradient 0 at 0."""
    y = k.relu(x)
    return y, (y,)


@relu.gradient
def _(saved, g, needs):
    return relu_grad(saved[0], g)


@primitive
def leaky_relu_grad(k, x, g, *, alpha):
    """``g`` where ``x > 0``, else ``alpha * g``."""
    return k.leaky_relu_grad(x, g, alpha), (x, alpha)


@leaky_relu_grad.gradient
def _(saved, h, needs):
    x, alpha = saved
    return None, leaky_relu_grad(x, h, alpha=alpha)


@primitive
def leaky_relu_p(k, x, *, alpha):
    """``x`` where ``x > 0``, else ``alpha * x``; gradient alpha at 0."""
    return k.leaky_relu(x, alpha), (x, alpha)


@leaky_relu_p.gradient
def _(saved, g, needs):
    x, alpha = saved
    return leaky_relu_grad(x, g, alpha=alpha)


def leaky_relu(x, alpha=0.01):
    """``x`` where ``x > 0``, else ``alpha * x``; the slope at 0 is alpha."""
    return leaky_relu_p(x, alpha=float(alpha))


@primitive
def tanh_grad(k, y, g):
    """``g * (1 - y*y)``."""
    return k.tanh_grad(y, g), (y, g)


@tanh_grad.gradient
def _(saved, h, needs):
    y, g = saved
    return h * g * y * -2.0 if needs[0] else None, tanh_grad(y, h) if needs[1] else None


@primitive
def tanh(k, x):
    """Hyperbolic tangent."""
    y = k.tanh(x)
    return y, (y,)


@tanh.gradient
def _(saved, g, needs):
    return tanh_grad(saved[0], g)


@primitive
def sigmoid_grad(k, y, g):
    """``g * y * (1 - y)``."""
    return k.sigmoid_grad(y, g), (y, g)


@sigmoid_grad.gradient
def _(saved, h, needs):
    y, g = saved
    return h * g * (1.0 - y * 2.0) if needs[0] else None, sigmoid_grad(y, h) if needs[1] else None


@primitive
def sigmoid(k, x):
    """``1 / (1 + e ** -x)``."""
    y = k.sigmoid(x)
    return y, (y,)


@sigmoid.gradient
def _(saved, g, needs):
    return sigmoid_grad(saved[0], g)


@primitive
def softplus(k, x):
    """``log(1 + exp(x))``, finite for every finite x."""
    y = k.add(k.maximum(x, 0.0), k.log1p(k.exp(k.neg(k.abs(x)))))  # exp of nothing positive: no overflow
    return y, (x,)


@softplus.gradient
def _(saved, g, needs):
    return g * sigmoid(saved[0])


def gelu(x):
    """``x * Phi(x)`` with the normal distribution function (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""
    return x * 0.5 * (erf(x * math.sqrt(0.5)) + 1.0)


def silu(x):
    """``x * sigmoid(x)`` (Elfwing et al. 2018, arXiv:1702.03118)."""
    return x * sigmoid(x)


def elu(x, alpha=1.0):
    """``x`` where ``x > 0``, else ``alpha * (e ** x - 1)`` (Clevert et al. 2016, arXiv:1511.07289)."""
    return where(x > 0, x, expm1(limit(x, low=None, high=0.0)) * float(alpha))  # limited: no overflow in the part not taken


# -- softmax along one axis


@primitive
def softmax_grad(k, y, g, *, axis):
    """``y * (g - sum(g * y))``."""
    return k.softmax_grad(y, g, axis), (y, g, axis)


@softmax_grad.gradient
def _(saved, h, needs):
    y, g, axis = saved
    dy = h * (g - (g * y).sum(axis, True)) - g * (h * y).sum(axis, True) if needs[0] else None
    return dy, softmax_grad(y, h, axis=axis) if needs[1] else None


@primitive
def softmax_p(k, x, *, axis):
    """Stable softmax along one axis."""
    y = k.softmax(x, axis)
    return y, (y, axis)


@softmax_p.gradient
def _(saved, g, needs):
    y, axis = saved
    return softmax_grad(y, g, axis=axis)


@primitive
def log_softmax_grad(k, y, g, *, axis):
    """``g - exp(y) * sum(g)``."""
    return k.log_softmax_grad(y, g, axis), (y, g, axis)


@log_softmax_grad.gradient
def _(saved, h, needs):
    y, g, axis = saved
    p = exp(y)
    dy = -h * p * g.sum(axis, True) if needs[0] else None
    return dy, h - (h * p).sum(axis, True) if needs[1] else None


@primitive
def log_softmax_p(k, x, *, axis):
    """Stable logarithm of softmax along one axis."""
    y = k.log_softmax(x, axis)
    return y, (y, axis)


@log_softmax_p.gradient
def _(saved, g, needs):
    y, axis = saved
    return log_softmax_grad(y, g, axis=axis)


def softmax(x, axis=-1):
    """``exp(x) / sum(exp(x))`` along ``axis``, computed without overflow.

    Raises:
        ValueError: The axis does not exist or is empty.
    """
    return softmax_p(x, axis=_one_axis("softmax", axis, x.shape))


def log_softmax(x, axis=-1):
    """``x - log(sum(exp(x)))`` along ``axis``, computed without overflow.

    Raises:
        ValueError: The axis does not exist or is empty.
    """
    return log_softmax_p(x, axis=_one_axis("log_softmax", axis, x.shape))


def _one_axis(name, axis, shape):
    if axis is None or isinstance(axis, tuple | list):
        raise TypeError(f"{name}: axis must be an int, got {axis!r}")
    found = axes_of(name, (axis,), len(shape))[0]
    if shape[found] == 0:
        raise ShapeError(f"{name}: axis {axis} of shape {shape} is empty")
    return found

"""Activation functions and softmax."""

from __future__ import annotations

import math

from keydnn.domain.errors import ShapeError
from keydnn.ops._primitive import primitive
from keydnn.ops.elementwise import exp, where
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
def softplus_grad(k, x, g):
    """``g * sigmoid(x)``."""
    return k.softplus_grad(x, g), (x, g)


@softplus_grad.gradient
def _(saved, h, needs):
    x, g = saved
    return sigmoid_grad(sigmoid(x), h * g) if needs[0] else None, softplus_grad(x, h) if needs[1] else None


@primitive
def softplus(k, x):
    """``log(1 + exp(x))``, finite for every finite x."""
    return k.softplus(x), (x,)


@softplus.gradient
def _(saved, g, needs):
    return softplus_grad(saved[0], g)


@primitive
def gelu_grad(k, x, g):
    """``g * (Phi(x) + x * phi(x))`` with the normal distribution function and density."""
    return k.gelu_grad(x, g), (x, g)


@gelu_grad.gradient
def _(saved, h, needs):
    x, g = saved
    density = exp(x * x * -0.5) * (1.0 / math.sqrt(2.0 * math.pi)) if needs[0] else None
    return h * g * density * (2.0 - x * x) if needs[0] else None, gelu_grad(x, h) if needs[1] else None


@primitive
def gelu(k, x):
    """``x * Phi(x)`` with the normal distribution function (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""
    return k.gelu(x), (x,)


@gelu.gradient
def _(saved, g, needs):
    return gelu_grad(saved[0], g)


@primitive
def silu_grad(k, x, g):
    """``g * s * (1 + x * (1 - s))`` with ``s = sigmoid(x)``."""
    return k.silu_grad(x, g), (x, g)


@silu_grad.gradient
def _(saved, h, needs):
    x, g = saved
    s = sigmoid(x) if needs[0] else None
    return sigmoid_grad(s, h * g) * (x * (1.0 - s * 2.0) + 2.0) if needs[0] else None, silu_grad(x, h) if needs[1] else None


@primitive
def silu(k, x):
    """``x * sigmoid(x)`` (Elfwing et al. 2018, arXiv:1702.03118)."""
    return k.silu(x), (x,)


@silu.gradient
def _(saved, g, needs):
    return silu_grad(saved[0], g)


@primitive
def elu_grad(k, x, g, *, alpha):
    """``g`` where ``x > 0``, else ``g * alpha * e ** x``."""
    return k.elu_grad(x, g, alpha), (x, g, alpha)


@elu_grad.gradient
def _(saved, h, needs):
    x, g, alpha = saved
    dx = where(x > 0, 0.0, elu_grad(x, h * g, alpha=alpha)) if needs[0] else None  # below 0 e ** x is its own derivative
    return dx, elu_grad(x, h, alpha=alpha) if needs[1] else None


@primitive
def elu_p(k, x, *, alpha):
    """``x`` where ``x > 0``, else ``alpha * (e ** x - 1)``; gradient alpha at 0."""
    return k.elu(x, alpha), (x, alpha)


@elu_p.gradient
def _(saved, g, needs):
    x, alpha = saved
    return elu_grad(x, g, alpha=alpha)


def elu(x, alpha=1.0):
    """``x`` where ``x > 0``, else ``alpha * (e ** x - 1)`` (Clevert et al. 2016, arXiv:1511.07289)."""
    return elu_p(x, alpha=float(alpha))


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

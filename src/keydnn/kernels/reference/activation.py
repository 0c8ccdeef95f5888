"""Activations made of several elementwise steps, and their gradients: gelu, silu, softplus, elu."""

from __future__ import annotations

import math

import numpy as np

from keydnn.kernels.reference.elementwise import erf, exp, expm1, log1p, maximum, minimum, sigmoid
from keydnn.kernels.reference.quiet import quiet

_ROOT_HALF = math.sqrt(0.5)
_DENSITY_AT_0 = 1.0 / math.sqrt(2.0 * math.pi)


@quiet
def gelu(x):
    """``x * Phi(x)``, ``Phi(x) = (1 + erf(x / sqrt 2)) / 2``."""
    return np.multiply(x * 0.5, erf(x * _ROOT_HALF) + 1.0, order="C")


@quiet
def gelu_grad(x, g):
    """``g * (Phi(x) + x * phi(x))``, ``phi(x) = e^(-x^2 / 2) / sqrt(2 pi)``."""
    below, density = erf(x * _ROOT_HALF) * 0.5 + 0.5, exp(x * -0.5 * x) * _DENSITY_AT_0
    return np.multiply(g, below + x * density, order="C")


@quiet
def silu(x):
    """``x * sigmoid(x)``."""
    return np.multiply(x, sigmoid(x), order="C")


@quiet
def silu_grad(x, g):
    """``g * s * (1 + x * (1 - s))``, ``s = sigmoid(x)``."""
    s = sigmoid(x)
    return np.multiply(g, s * (1.0 + x * (1.0 - s)), order="C")


@quiet
def softplus(x):
    """``max(x, 0) + ln(1 + e^-|x|)``: exp of nothing positive, so no overflow."""
    return np.add(maximum(x, 0.0), log1p(exp(-np.abs(x))), order="C")


@quiet
def softplus_grad(x, g):
    """``g * sigmoid(x)``."""
    return np.multiply(g, sigmoid(x), order="C")


@quiet
def elu(x, alpha):
    """x where x > 0, else ``alpha * (e^x - 1)``; limited, so that the part not taken does not overflow."""
    return np.asarray(np.where(x > 0, x, expm1(minimum(x, 0.0)) * float(alpha)), order="C")


@quiet
def elu_grad(x, g, alpha):
    """g where x > 0, else ``g * alpha * e^x``."""
    return np.asarray(np.where(x > 0, g, g * (exp(minimum(x, 0.0)) * float(alpha))), order="C")

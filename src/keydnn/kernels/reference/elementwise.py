"""Elementwise kernels: arithmetic, comparisons, activations and their gradients.

Most rows are a NumPy ufunc behind `quiet`.  Every result is a new C-ordered array; where the result has shape () NumPy
gives a scalar of the same dtype, which the contract allows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn.kernels.reference.quiet import quiet, quiet_binary, quiet_unary

neg = quiet_unary(np.negative)
abs = quiet_unary(np.absolute)
sign = quiet_unary(np.sign)
exp = quiet_unary(np.exp)
expm1 = quiet_unary(np.expm1)
log = quiet_unary(np.log)
log1p = quiet_unary(np.log1p)
sqrt = quiet_unary(np.sqrt)
square = quiet_unary(np.square)
sin = quiet_unary(np.sin)
cos = quiet_unary(np.cos)
tanh = quiet_unary(np.tanh)
floor = quiet_unary(np.floor)
ceil = quiet_unary(np.ceil)
round = quiet_unary(np.rint)

add = quiet_binary(np.add)
sub = quiet_binary(np.subtract)
mul = quiet_binary(np.multiply)
div = quiet_binary(np.true_divide)
pow = quiet_binary(np.power)
maximum = quiet_binary(np.maximum)
minimum = quiet_binary(np.minimum)
floordiv = quiet_binary(np.floor_divide)
mod = quiet_binary(np.remainder)


def reciprocal(x):
    """``1 / x``; for integers too, NumPy's own reciprocal would truncate."""
    return div(1.0, x)


def rsqrt(x):
    """``1 / sqrt(x)``."""
    return div(1.0, sqrt(x))


def sigmoid(x):
    """``1 / (1 + e^-x)``: where e^-x overflows to inf the quotient is the right limit, 0."""
    return div(1.0, add(exp(neg(x)), 1.0))


def relu(x):
    """``max(x, 0)``."""
    return maximum(x, 0)


# erf by two Chebyshev series, fitted here in 50-digit arithmetic; both sides stay within 4e-16 relative.
#   |x| < 1:   erf(x) = x * N(2 x^2 - 1)
#   |x| >= 1:  erf(x) = 1 - e^(-x^2) * F((|x| - 3) / (|x| + 1)),   F = erfcx
_ERF_NEAR = [
    0.9754769393826541, -0.14226120510371365, 0.010035582187599796, -0.0005768764699767485, 2.741993125219606e-05,
    -1.1043175507344507e-06, 3.8488755420345036e-08, -1.1808582533875466e-09, 3.2334215826050907e-11, -7.991015947004549e-13,
    1.7990725113961456e-14, -3.718635487818693e-16, 7.103599003714253e-18,
]  # fmt: skip
_ERF_FAR = [
    0.19662265234260237, -0.21466754928171003, 0.01739153547671702, 0.0008985803352007912, -0.00022616508656187045,
    -2.3742960385276704e-05, 3.7872614755691094e-06, 9.583736027917987e-07, -1.7947511624343432e-08, -3.534425731248719e-08,
    -4.278694428438748e-09, 7.800613949878606e-10, 3.21295608941182e-10, 2.2979946759385658e-11, -1.129033872724531e-11,
    -3.5577057847908363e-12, -1.753796767067801e-13, 1.6005456921583811e-13, 4.902330559923953e-14, 2.628022946399134e-15,
    -2.3886588730127456e-15, -8.145279672370933e-16, -6.772323056844152e-17, 3.6292755583253725e-17,
]  # fmt: skip


@quiet
def erf(x):
    """Gauss error function, computed in double: ``2/sqrt(pi) * integral of e^(-t^2) from 0 to x``."""
    from numpy.polynomial.chebyshev import chebval  # NumPy itself does not import it before it is asked for

    size = np.abs(np.asarray(x, np.float64, order="C"))
    low = np.minimum(size, 1.0)
    near = low * chebval(2.0 * low * low - 1.0, _ERF_NEAR)
    high = np.clip(size, 1.0, 30.0)  # e^(-900) is 0; inf would give inf / inf
    far = 1.0 - np.exp(-high * high) * chebval((high - 3.0) / (high + 1.0), _ERF_FAR)
    return np.copysign(np.where(size < 1.0, near, far), x).astype(x.dtype)


def _mask_dtype(x: Any, y: Any) -> np.dtype:
    """The dtype of a comparison: the left operand's if it is a floating array, else the right one's, else float32."""
    for operand in (x, y):
        if isinstance(operand, (np.ndarray, np.generic)) and operand.dtype.kind == "f":
            return operand.dtype
    return np.dtype(np.float32)


def _comparison(ufunc: np.ufunc):
    def kernel(x, y):
        return ufunc(x, y, order="C").astype(_mask_dtype(x, y))

    kernel.__name__, kernel.__doc__ = ufunc.__name__, f"NumPy's ``{ufunc.__name__}`` as 0.0 / 1.0."
    return quiet(kernel)  # a number beyond float32 overflows when it is cast


gt = _comparison(np.greater)
ge = _comparison(np.greater_equal)
lt = _comparison(np.less)
le = _comparison(np.less_equal)
eq = _comparison(np.equal)
ne = _comparison(np.not_equal)


@quiet
def where(mask, x, y):
    """x where mask is not 0, else y; of two numbers the result has the mask's dtype."""
    arrays = [v for v in (x, y) if isinstance(v, (np.ndarray, np.generic))]
    dtype = np.result_type(*arrays) if arrays else _mask_dtype(mask, None)
    out = np.empty(np.broadcast_shapes(np.shape(mask), np.shape(x), np.shape(y)), dtype)
    np.copyto(out, y)
    np.copyto(out, x, where=np.not_equal(mask, 0))
    return out


def clamp(x, low, high):
    """x limited to [low, high]; a missing bound does not limit."""
    y = copy(x) if low is None else maximum(x, low)
    return y if high is None else minimum(y, high)


@quiet
def leaky_relu(x, alpha):
    """x where x > 0, else alpha * x."""
    return np.asarray(np.where(x > 0, x, float(alpha) * x), order="C")


@quiet
def relu_grad(y, g):
    """g where y > 0, else 0 (also where g is not finite)."""
    return np.asarray(np.where(y > 0, g, 0.0), order="C")


@quiet
def leaky_relu_grad(x, g, alpha):
    """g where x > 0, else alpha * g."""
    return np.asarray(np.where(x > 0, g, float(alpha) * g), order="C")


@quiet
def tanh_grad(y, g):
    """``g * (1 - y^2)``."""
    return np.multiply(g, 1.0 - y * y, order="C")


@quiet
def sigmoid_grad(y, g):
    """``g * y * (1 - y)``."""
    return np.multiply(g * y, 1.0 - y, order="C")


@quiet
def cast(x, dtype):
    """The values in another dtype, always a copy."""
    return x.astype(dtype, order="C")


def copy(x):
    """A C-ordered copy."""
    return x.copy()

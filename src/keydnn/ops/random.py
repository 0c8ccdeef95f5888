"""Random tensors from Philox4x32-10, a counter-based generator.

Each call takes one 64-bit key from NumPy's global generator; element i depends on (key, i) alone, so the numbers do
not depend on thread count or on whether the step is replayed.
Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3, https://doi.org/10.1145/2063384.2063405
"""

from __future__ import annotations

from keydnn.autograd.primitive import create
from keydnn.ops._primitive import primitive


@primitive
def draw_key(k):
    """A fresh 64-bit key."""
    return k.draw_key()


@primitive
def uniform_p(k, key, *, shape, dtype):
    """Uniform on [0, 1)."""
    return k.uniform(key, shape, dtype)


@primitive
def normal_p(k, key, *, shape, dtype):
    """Standard normal."""
    return k.normal(key, shape, dtype)


@primitive
def dropout_mask(k, key, *, shape, p, dtype):
    """``1/(1-p)`` with probability 1-p, else 0."""
    return k.dropout_mask(key, shape, p, dtype)


@primitive
def full_p(k, *, shape, value, dtype):
    """A constant."""
    return k.full(shape, value, dtype)


def uniform(prototype, shape, dtype):
    """Uniform numbers on [0, 1) on the device of ``prototype``."""
    return uniform_p(create(draw_key, prototype, {}), shape=shape, dtype=dtype)


def normal(prototype, shape, dtype):
    """Standard normal numbers on the device of ``prototype``."""
    return normal_p(create(draw_key, prototype, {}), shape=shape, dtype=dtype)


def full(prototype, shape, value, dtype):
    """A constant tensor on the device of ``prototype``."""
    return create(full_p, prototype, {"shape": shape, "value": value, "dtype": dtype})


def dropout(x, p):
    """x with elements dropped with probability p and the others scaled by ``1/(1-p)``.

    Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html
    """
    return x * dropout_mask(create(draw_key, x, {}), shape=x.shape, p=float(p), dtype=x.dtype)

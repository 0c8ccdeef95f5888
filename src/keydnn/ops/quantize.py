"""Rounding to a number format as an operation: the forward value is exactly on the grid, the gradient passes straight through.

    straight-through:  dx = g                     clipped:  dx = g where low <= x <= high, else 0

Source: Bengio, Leonard & Courville 2013, arXiv:1308.3432 (straight-through); Hubara et al. 2016, arXiv:1609.07061 (clipped).
"""

from __future__ import annotations

from keydnn.ops._primitive import primitive


def _through(x, g, clip):
    return g if clip is None else g * (x >= clip[0]) * (x <= clip[1])


@primitive
def quantize_fixed(k, x, *, clip, **format):
    """x on the grid of a fixed-point format; ``clip`` is None or the range outside which the gradient is 0."""
    return k.quantize_fixed(x, **format), (x, clip)


@quantize_fixed.gradient
def _(saved, g, needs):
    x, clip = saved
    return _through(x, g, clip)


@primitive
def quantize_stochastic(k, x, key, *, clip, **format):
    """The same with stochastic rounding, drawn from ``key``."""
    return k.quantize_stochastic(x, key, **format), (x, clip)


@quantize_stochastic.gradient
def _(saved, g, needs):
    x, clip = saved
    return _through(x, g, clip), None


@primitive
def quantize_by(k, x, format):
    """x on the grid of the fixed-point format that an int64 tensor describes, see the kernel; the gradient passes unchanged."""
    return k.quantize_by(x, format), ()


@quantize_by.gradient
def _(saved, g, needs):
    return g, None


@primitive
def quantize_with(k, x, key, *, clip, format):
    """x rounded by ``format.rounded(array, key)``."""
    return k.quantize_with(x, key, format), (x, clip)


@quantize_with.gradient
def _(saved, g, needs):
    x, clip = saved
    return _through(x, g, clip), None

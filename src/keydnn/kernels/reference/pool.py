"""2-D pooling, NCHW: maximum with the position that won, average, and global average.

Maximum: padding counts as -inf and never wins, so a window of nothing but -inf points at its first real cell; ties go to
the first position in row-major order; NaN wins.  Average: padding counts as 0, the divisor is always kh * kw.
``argmax`` holds ``row * (W + 2 pw) + column`` in the padded plane.
"""

from __future__ import annotations

from itertools import product
from math import inf

import numpy as np

from keydnn.domain.errors import ShapeError
from keydnn.kernels.reference.conv import frame, output_size, tap
from keydnn.kernels.reference.quiet import quiet
from keydnn.kernels.reference.reduce import mean


def check(name, x, kernel, stride, padding):
    """Refuse what cannot be pooled: ShapeError or TypeError, in the name of the operation.  x: anything with a shape and a dtype."""
    size = x.shape
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    if len(size) != 4:
        raise ShapeError(f"{name}: expected x (N, C, H, W), got shape {size}")
    if kh < 1 or kw < 1 or sh < 1 or sw < 1 or ph < 0 or pw < 0:
        raise ShapeError(f"{name}: needs kernel >= 1, stride >= 1 and padding >= 0, got {kernel}, {stride}, {padding}")
    if size[2] + 2 * ph < kh or size[3] + 2 * pw < kw:
        raise ShapeError(f"{name}: window {kernel} is larger than the padded input: {size[2:]} plus padding {padding}")
    if x.dtype.kind != "f":
        raise TypeError(f"{name}: expected a floating tensor, got dtype {x.dtype}; cast with astype('float32')")


def _first_real(n: int, count: int, kernel: int, stride: int, padding: int) -> np.ndarray:
    """Per window along one axis, the first padded coordinate in it that is a real cell (or its last, if none is)."""
    start = stride * np.arange(count)
    return np.minimum(np.maximum(start, padding), start + kernel - 1)


@quiet
def maxpool2d(x, kernel, stride, padding):
    """y and argmax (int64), both (N, C, H_out, W_out)."""
    check("maxpool2d", x, kernel, stride, padding)
    n, c, h, w = x.shape
    out = output_size((h, w), kernel, stride, padding)
    plane, width = frame(x, padding, -inf), w + 2 * padding[1]
    corner = (stride[0] * np.arange(out[0]) * width)[:, None] + stride[1] * np.arange(out[1])
    first = [_first_real(size, *rest) for size, *rest in zip((h, w), out, kernel, stride, padding, strict=True)]
    y = np.full((n, c, *out), -inf, x.dtype)
    argmax = np.broadcast_to(first[0][:, None] * width + first[1], y.shape).astype(np.int64, order="C")
    for u, v in product(range(kernel[0]), range(kernel[1])):
        value = tap(plane, u, v, out, stride)
        wins = ~((value <= y) | np.isnan(y))
        np.copyto(y, value, where=wins)
        np.copyto(argmax, corner + (u * width + v), where=wins)
    return y, argmax


def maxpool2d_values(x, kernel, stride, padding):
    """y of `maxpool2d` alone."""
    return maxpool2d(x, kernel, stride, padding)[0]


@quiet
def maxpool2d_grad(g, argmax, size, padding):
    """dx (N, C, H, W): g added at argmax, summed in double; what fell on padding is dropped."""
    (n, c), (h, w), (ph, pw) = g.shape[:2], size, padding
    cells = (h + 2 * ph) * (w + 2 * pw)
    index = argmax.reshape(n * c, g.shape[2] * g.shape[3]) + cells * np.arange(n * c)[:, None]
    plane = np.bincount(index.reshape(-1), g.reshape(-1), n * c * cells).reshape(n, c, h + 2 * ph, w + 2 * pw)
    return plane[:, :, ph : ph + h, pw : pw + w].astype(g.dtype, order="C")


def maxpool2d_take(x, argmax, padding):
    """y, shaped like argmax: x read at argmax; 0 where it points at padding."""
    plane = frame(x, padding)
    n, c, h, w = plane.shape
    flat = argmax.reshape(n, c, argmax.shape[2] * argmax.shape[3])
    return np.take_along_axis(plane.reshape(n, c, h * w), flat, axis=2).reshape(argmax.shape)


@quiet
def avgpool2d(x, kernel, stride, padding):
    """y (N, C, H_out, W_out): window sum / (kh * kw)."""
    check("avgpool2d", x, kernel, stride, padding)
    out = output_size(x.shape[2:], kernel, stride, padding)
    plane, total = frame(x, padding), np.zeros((*x.shape[:2], *out), np.float64)
    for u, v in product(range(kernel[0]), range(kernel[1])):
        total += tap(plane, u, v, out, stride)
    return (total / (kernel[0] * kernel[1])).astype(x.dtype)


@quiet
def avgpool2d_grad(g, size, kernel, stride, padding):
    """dx (N, C, H, W): g / (kh * kw) added over every window, the part on padding dropped."""
    (h, w), (ph, pw) = size, padding
    plane = np.zeros((*g.shape[:2], h + 2 * ph, w + 2 * pw), np.float64)
    share = g / (kernel[0] * kernel[1])
    for u, v in product(range(kernel[0]), range(kernel[1])):
        tap(plane, u, v, g.shape[2:], stride)[...] += share
    return plane[:, :, ph : ph + h, pw : pw + w].astype(g.dtype, order="C")


def global_avgpool2d(x):
    """(N, C, H, W) -> (N, C, 1, 1): the mean of every plane."""
    return mean(x, (2, 3), True)

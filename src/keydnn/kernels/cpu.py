"""Convolution and pooling on plain NumPy arrays, checked: the yardstick for compiled kernels, usable without a Tensor.

Layout is NCHW; ``stride``, ``padding``, ``kernel_size``, ``output_padding`` are an int or a pair (rows, columns).  float16,
float32 and float64 keep their dtype; float16 is computed in float32.  Formulas: `keydnn.kernels.reference`.

>>> import numpy as np
>>> from keydnn.kernels.cpu import maxpool2d_forward_cpu
>>> y, argmax = maxpool2d_forward_cpu(np.arange(16.0).reshape(1, 1, 4, 4), kernel_size=2)
>>> y.tolist(), argmax.tolist()
([[[[5.0, 7.0], [13.0, 15.0]]]], [[[[5, 7], [13, 15]]]])
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keydnn.domain.errors import ShapeError
from keydnn.kernels import reference
from keydnn.kernels.reference.conv import output_size

__all__ = [
    "avgpool2d_backward_cpu",
    "avgpool2d_forward_cpu",
    "conv2d_backward_cpu",
    "conv2d_forward_cpu",
    "conv2d_transpose_backward_cpu",
    "conv2d_transpose_forward_cpu",
    "global_avgpool2d_backward_cpu",
    "global_avgpool2d_forward_cpu",
    "maxpool2d_backward_cpu",
    "maxpool2d_forward_cpu",
]

IntOrPair = int | Sequence[int]
Pair = tuple[int, int]
Gradients = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def _pair(name: str, value: IntOrPair, low: int) -> tuple[int, int]:
    """Two ints, each at least low."""
    both = (value, value) if isinstance(value, (int, np.integer)) else tuple(value)
    if len(both) != 2 or not all(isinstance(v, (int, np.integer)) and v >= low for v in both):
        raise ValueError(f"{name} must be an int or a pair of ints of at least {low}, got {value!r}")
    return int(both[0]), int(both[1])


def _check_rank(op: str, **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        if array.ndim != 4:
            raise ShapeError(f"{op}: {name} must have 4 axes, got shape {array.shape}")


def _check_floating(op: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        raise TypeError(f"{op}: needs a floating dtype, got {array.dtype}")


def _check_bias(op: str, b: np.ndarray | None, channels: int) -> None:
    if b is not None and b.shape != (channels,):
        raise ShapeError(f"{op}: bias must have shape ({channels},), got {b.shape}")


def _check_shape(op: str, name: str, array: np.ndarray, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise ShapeError(f"{op}: {name} must have shape {expected}, got {array.shape}")


def _windows(op: str, size: Sequence[int], kernel: Pair, stride: Pair, padding: Pair) -> tuple[int, int]:
    """Output size; at least one window must fit."""
    out = output_size((size[0], size[1]), kernel, stride, padding)
    if min(out) < 1:
        raise ShapeError(f"{op}: kernel {kernel} is larger than the input {tuple(size)} with padding {padding}")
    return out


def _wide(*arrays: np.ndarray | None) -> list[np.ndarray | None]:
    """float16 arrays as float32, others as they are."""
    return [a.astype(np.float32) if a is not None and a.dtype == np.float16 else a for a in arrays]


def _bias_grad(b: np.ndarray | None, grad_out: np.ndarray) -> np.ndarray | None:
    return None if b is None else reference.sum(grad_out, (0, 2, 3), False).astype(b.dtype)


def conv2d_forward_cpu(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, stride: IntOrPair, padding: IntOrPair) -> np.ndarray:
    """Cross-correlation ``y[n,o,i,j] = b[o] + sum x[n,c,s*i+u-p,s*j+v-p] * w[o,c,u,v]``.

    Args:
        x: (N, C, H, W).
        w: (O, C, kh, kw).
        b: (O,) or None.
        stride: At least 1.
        padding: Rows and columns of zeros on each side, at least 0.

    Returns:
        (N, O, (H + 2p - kh)//s + 1, (W + 2p - kw)//s + 1), dtype of x.

    Raises:
        ShapeError: A ValueError; wrong rank, channels or bias, or a kernel larger than the padded input.
        ValueError: A bad stride or padding.
    """
    op = "conv2d"
    stride, padding = _pair("stride", stride, 1), _pair("padding", padding, 0)
    _check_conv(op, x, w, b, stride, padding)
    wide = _wide(x, w, b)
    return reference.conv2d(*wide, stride, padding, (1, 1), 1).astype(x.dtype, copy=False)


def _check_conv(op: str, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, stride: Pair, padding: Pair) -> tuple[int, ...]:
    """Check the operands of a convolution; returns the shape of its result."""
    _check_rank(op, x=x, weight=w)
    if x.shape[1] != w.shape[1]:
        raise ShapeError(f"{op}: x has {x.shape[1]} channels, weight expects in_channels = {w.shape[1]}")
    _check_bias(op, b, w.shape[0])
    return (x.shape[0], w.shape[0], *_windows(op, x.shape[2:], w.shape[2:], stride, padding))


def conv2d_backward_cpu(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, grad_out: np.ndarray, stride: IntOrPair, padding: IntOrPair
) -> Gradients:
    """Gradients ``(dx, dw, db)`` of `conv2d_forward_cpu`; db is None if b is. Raises as it does."""
    op = "conv2d backward"
    stride, padding = _pair("stride", stride, 1), _pair("padding", padding, 0)
    _check_shape(op, "grad_out", grad_out, _check_conv(op, x, w, b, stride, padding))
    wide_x, wide_w, g = _wide(x, w, grad_out)
    dx = reference.conv2d_grad_x(g, wide_w, x.shape[2:], stride, padding, (1, 1), 1)
    dw = reference.conv2d_grad_w(wide_x, g, w.shape[2:], stride, padding, (1, 1), 1)
    return dx.astype(x.dtype, copy=False), dw.astype(w.dtype, copy=False), _bias_grad(b, grad_out)


def _check_transpose(
    op: str, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, stride: IntOrPair, padding: IntOrPair, output_padding: IntOrPair
) -> tuple[Pair, Pair, tuple[int, ...]]:
    """Check a transposed convolution; returns stride, padding and the shape of its result."""
    stride, padding, extra = _pair("stride", stride, 1), _pair("padding", padding, 0), _pair("output_padding", output_padding, 0)
    if any(o >= s for o, s in zip(extra, stride, strict=True)):
        raise ValueError(f"output_padding {extra} must be smaller than stride {stride}")
    _check_rank(op, x=x, weight=w)
    if x.shape[1] != w.shape[0]:
        raise ShapeError(f"{op}: x has {x.shape[1]} channels, weight expects in_channels = {w.shape[0]}")
    _check_bias(op, b, w.shape[1])
    size = tuple((n - 1) * s - 2 * p + k + e for n, s, p, k, e in zip(x.shape[2:], stride, padding, w.shape[2:], extra, strict=True))
    if min(size) < 1:
        raise ShapeError(f"{op}: the output would have size {size}; x has {x.shape[2:]}, kernel {w.shape[2:]}, padding {padding}")
    return stride, padding, (x.shape[0], w.shape[1], *size)


def conv2d_transpose_forward_cpu(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, stride: IntOrPair, padding: IntOrPair, output_padding: IntOrPair = 0
) -> np.ndarray:
    """Transposed convolution: the gradient of `conv2d_forward_cpu` to its input, with x in the place of grad_out.

    Args:
        x: (N, C, H, W).
        w: (C, O, kh, kw).
        b: (O,) or None.
        stride: At least 1.
        padding: At least 0.
        output_padding: Rows and columns added at the end, at least 0 and below stride.

    Returns:
        (N, O, (H - 1)*s - 2p + kh + op, (W - 1)*s - 2p + kw + op), dtype of x.

    Raises:
        ShapeError: A ValueError; wrong rank, channels or bias, or an empty output.
        ValueError: A bad stride, padding or output_padding.
    """
    stride, padding, shape = _check_transpose("conv2d_transpose", x, w, b, stride, padding, output_padding)
    wide_x, wide_w, wide_b = _wide(x, w, b)
    y = reference.conv2d_grad_x(wide_x, wide_w, shape[2:], stride, padding, (1, 1), 1)
    y = y if wide_b is None else y + wide_b[:, None, None]
    return y.astype(x.dtype, copy=False)


def conv2d_transpose_backward_cpu(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    grad_out: np.ndarray,
    stride: IntOrPair,
    padding: IntOrPair,
    output_padding: IntOrPair = 0,
) -> Gradients:
    """Gradients ``(dx, dw, db)`` of `conv2d_transpose_forward_cpu`; db is None if b is. Raises as it does."""
    op = "conv2d_transpose backward"
    stride, padding, shape = _check_transpose(op, x, w, b, stride, padding, output_padding)
    _check_shape(op, "grad_out", grad_out, shape)
    wide_x, wide_w, g = _wide(x, w, grad_out)
    dx = reference.conv2d(g, wide_w, None, stride, padding, (1, 1), 1)[:, :, : x.shape[2], : x.shape[3]]
    dw = reference.conv2d_grad_w(g, wide_x, w.shape[2:], stride, padding, (1, 1), 1)
    return np.asarray(dx, x.dtype, order="C"), dw.astype(w.dtype, copy=False), _bias_grad(b, grad_out)


def _pool_pairs(kernel_size: IntOrPair, stride: IntOrPair | None, padding: IntOrPair) -> tuple[Pair, Pair, Pair]:
    kernel = _pair("kernel_size", kernel_size, 1)
    return kernel, kernel if stride is None else _pair("stride", stride, 1), _pair("padding", padding, 0)


def maxpool2d_forward_cpu(
    x: np.ndarray, *, kernel_size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Largest element of every window.

    Args:
        x: (N, C, H, W), floating.
        kernel_size: At least 1.
        stride: None means kernel_size.
        padding: Rows and columns of -inf on each side; they never win.

    Returns:
        ``(y, argmax)``: y in the dtype of x; argmax int64 of the same shape, ``row * (W + 2 pw) + column`` in the padded plane, the
        first in row-major order where several are largest.

    Raises:
        ShapeError: A ValueError; x is not 4-D, or the window is larger than the padded input.
        TypeError: x is not floating.
        ValueError: A bad kernel_size, stride or padding.
    """
    op = "maxpool2d"
    kernel, step, frame = _pool_pairs(kernel_size, stride, padding)
    _check_rank(op, x=x)
    _check_floating(op, x)
    _windows(op, x.shape[2:], kernel, step, frame)
    return reference.maxpool2d(x, kernel, step, frame)


def _pool_backward(op: str, grad_out: np.ndarray, x_shape: Sequence[int], pairs: tuple[Pair, Pair, Pair]) -> tuple[int, int]:
    """Check grad_out against the pool of x_shape; returns (H, W)."""
    _check_rank(op, grad_out=grad_out)
    if len(x_shape) != 4:
        raise ShapeError(f"{op}: x_shape must have 4 entries, got {tuple(x_shape)}")
    _check_shape(op, "grad_out", grad_out, (*tuple(x_shape[:2]), *_windows(op, x_shape[2:], *pairs)))
    return int(x_shape[2]), int(x_shape[3])


def maxpool2d_backward_cpu(
    grad_out: np.ndarray,
    argmax: np.ndarray,
    *,
    x_shape: Sequence[int],
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
) -> np.ndarray:
    """Gradient to x, shape x_shape and dtype of grad_out: grad_out added at argmax; integers are accepted.

    Raises:
        ShapeError: A ValueError; grad_out or argmax does not fit x_shape.
        ValueError: A bad kernel_size, stride or padding, or an argmax outside the padded plane.
    """
    op = "maxpool2d backward"
    pairs = _pool_pairs(kernel_size, stride, padding)
    size = _pool_backward(op, grad_out, x_shape, pairs)
    _check_shape(op, "argmax", argmax, grad_out.shape)
    cells = (size[0] + 2 * pairs[2][0]) * (size[1] + 2 * pairs[2][1])
    if argmax.size and not 0 <= argmax.min() <= argmax.max() < cells:
        raise ValueError(f"{op}: argmax must lie in [0, {cells}), got {argmax.min()} to {argmax.max()}")
    return reference.maxpool2d_grad(grad_out, argmax, size, pairs[2])


def avgpool2d_forward_cpu(x: np.ndarray, *, kernel_size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0) -> np.ndarray:
    """Window sum / (kh * kw), padding counting as 0; arguments and errors as `maxpool2d_forward_cpu`."""
    op = "avgpool2d"
    kernel, step, frame = _pool_pairs(kernel_size, stride, padding)
    _check_rank(op, x=x)
    _check_floating(op, x)
    _windows(op, x.shape[2:], kernel, step, frame)
    return reference.avgpool2d(x, kernel, step, frame)


def avgpool2d_backward_cpu(
    grad_out: np.ndarray, *, x_shape: Sequence[int], kernel_size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0
) -> np.ndarray:
    """Gradient to x, shape x_shape: grad_out / (kh * kw) over every window, the part on padding dropped.

    Raises:
        ShapeError: A ValueError; grad_out does not fit x_shape.
        TypeError: grad_out is not floating.
        ValueError: A bad kernel_size, stride or padding.
    """
    op = "avgpool2d backward"
    pairs = _pool_pairs(kernel_size, stride, padding)
    size = _pool_backward(op, grad_out, x_shape, pairs)
    _check_floating(op, grad_out)
    return reference.avgpool2d_grad(grad_out, size, *pairs)


def global_avgpool2d_forward_cpu(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) -> (N, C, 1, 1), the mean of every plane; ShapeError if x is not 4-D, TypeError if it is not floating."""
    op = "global_avgpool2d"
    _check_rank(op, x=x)
    _check_floating(op, x)
    return reference.global_avgpool2d(x)


def global_avgpool2d_backward_cpu(grad_out: np.ndarray, *, x_shape: Sequence[int]) -> np.ndarray:
    """Gradient to x: ``grad_out / (H * W)`` everywhere; ShapeError if grad_out is not (N, C, 1, 1), TypeError if not floating."""
    op = "global_avgpool2d backward"
    _check_rank(op, grad_out=grad_out)
    if len(x_shape) != 4:
        raise ShapeError(f"{op}: x_shape must have 4 entries, got {tuple(x_shape)}")
    _check_shape(op, "grad_out", grad_out, (*tuple(x_shape[:2]), 1, 1))
    _check_floating(op, grad_out)
    return reference.broadcast_to((grad_out / (x_shape[2] * x_shape[3])).astype(grad_out.dtype), tuple(x_shape))

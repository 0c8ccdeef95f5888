"""2-D convolution, NCHW, as cross-correlation, and its two gradients.

    y[n,o,i,j] = b[o] + sum_{c,u,v} x[n, c, sh*i + dh*u - ph, sw*j + dw*v - pw] * w[o,c,u,v]      (x is 0 outside)

Everything is a matrix product with the windows of x laid out as columns (im2col); the gradient to x scatters such columns
back (col2im).  With ``groups`` G, output channels [k O/G, (k+1) O/G) see input channels [k C/G, (k+1) C/G) alone.
Source: Dumoulin & Visin 2016, https://arxiv.org/abs/1603.07285, chapters 2, 4 and 5.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from keydnn.kernels.reference.movement import pad
from keydnn.kernels.reference.quiet import quiet
from keydnn.kernels.reference.reduce import wide

Pair = tuple[int, int]


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)) -> Pair:
    """Number of window positions along each axis."""
    height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True))
    return height, width


def frame(x: np.ndarray, padding: Pair, value: float = 0.0) -> np.ndarray:
    """x with its two spatial axes framed by value; x itself if there is nothing to add."""
    ph, pw = padding
    return pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), value) if ph or pw else x


def tap(plane: np.ndarray, u: int, v: int, out: Pair, stride: Pair) -> np.ndarray:
    """View (N, C, H_out, W_out) of the framed plane: what offset (u, v) of every window sees."""
    rows = slice(u, u + stride[0] * (out[0] - 1) + 1, stride[0])
    columns = slice(v, v + stride[1] * (out[1] - 1) + 1, stride[1])
    return plane[:, :, rows, columns]


def _columns(x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> tuple[np.ndarray, Pair]:
    """Windows of x as (N, G, C/G * kh * kw, H_out * W_out), and (H_out, W_out)."""
    n, c, *size = x.shape
    out = output_size((size[0], size[1]), kernel, stride, padding, dilation)
    plane = frame(x, padding)
    view = np.lib.stride_tricks.sliding_window_view(plane, [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)], axis=(2, 3))
    view = view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    return view.transpose(0, 1, 4, 5, 2, 3).reshape(n, groups, c // groups * kernel[0] * kernel[1], out[0] * out[1]), out


def _rows(g: np.ndarray, groups: int) -> np.ndarray:
    """(N, O, H_out, W_out) as (N, G, O/G, H_out * W_out)."""
    n, o, h, w = g.shape
    return g.reshape(n, groups, o // groups, h * w)


@quiet
def conv2d(x, w, b, stride, padding, dilation, groups):
    """x (N, C, H, W), w (O, C/groups, kh, kw), b (O,) or None -> y (N, O, H_out, W_out)."""
    columns, out = _columns(x, w.shape[2:], stride, padding, dilation, groups)
    y = np.matmul(w.reshape(groups, w.shape[0] // groups, -1), columns).reshape(len(x), len(w), *out)
    return y if b is None else y + b[:, None, None]


@quiet
def conv2d_grad_x(g, w, size, stride, padding, dilation, groups):
    """Gradient (N, C, H, W) to x of spatial size (H, W); g (N, O, H_out, W_out).  Also the transposed convolution of g."""
    n, o, *out = g.shape
    c, kernel = w.shape[1] * groups, w.shape[2:]
    w = w.reshape(groups, o // groups, -1)
    columns = np.matmul(w.transpose(0, 2, 1), _rows(g, groups)).reshape(n, c, *kernel, *out)
    plane = np.zeros((n, c, size[0] + 2 * padding[0], size[1] + 2 * padding[1]), columns.dtype)
    for u, v in product(range(kernel[0]), range(kernel[1])):
        tap(plane, u * dilation[0], v * dilation[1], (out[0], out[1]), stride)[...] += columns[:, :, u, v]
    return plane[:, :, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]].copy()


@quiet
def conv2d_grad_w(x, g, kernel, stride, padding, dilation, groups):
    """Gradient (O, C/groups, kh, kw) to w; x (N, C, H, W), g (N, O, H_out, W_out)."""
    columns, _ = _columns(x, kernel, stride, padding, dilation, groups)
    per_image = np.matmul(_rows(g, groups), columns.transpose(0, 1, 3, 2))
    return per_image.sum(axis=0, dtype=wide(per_image)).astype(per_image.dtype).reshape(g.shape[1], x.shape[1] // groups, *kernel)

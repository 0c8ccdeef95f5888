"""2-D convolution and its transpose.

Layout is NCHW.  As everywhere in deep learning the cross-correlation is meant:

    y[n,o,i,j] = b[o] + sum_{c,u,v} x[n,c,s*i+d*u-p,s*j+d*v-p] * w[o,c,u,v]

It is linear in x and in w, so the three primitives below are each other's gradients, to any order.  ``geometry`` is
(stride, padding, dilation, groups), the first three as pairs.
Source: Dumoulin & Visin 2016, https://arxiv.org/abs/1603.07285, chapters 2, 4 and 5.
"""

from __future__ import annotations

from keydnn.autograd.primitive import bind
from keydnn.domain.errors import ShapeError
from keydnn.ops._dtypes import promoted
from keydnn.ops._primitive import primitive


@primitive
def conv2d_p(k, x, w, b=None, *, geometry):
    """The sum above."""
    return k.conv2d(x, w, b, *geometry), (x, w, geometry)


@conv2d_p.gradient
def _(saved, g, needs):
    x, w, geometry = saved
    dx = conv2d_grad_x(g, w, size=x.shape[2:], geometry=geometry) if needs[0] else None
    dw = conv2d_grad_w(x, g, kernel=w.shape[2:], geometry=geometry) if needs[1] else None
    return (dx, dw) if len(needs) == 2 else (dx, dw, g.sum((0, 2, 3)) if needs[2] else None)


@primitive
def conv2d_grad_x(k, g, w, *, size, geometry):
    """Gradient of the sum to x of spatial ``size``: each g spread over its window."""
    return k.conv2d_grad_x(g, w, size, *geometry), (g, w, geometry)


@conv2d_grad_x.gradient
def _(saved, h, needs):
    g, w, geometry = saved
    dg = conv2d_p(h, w, geometry=geometry) if needs[0] else None
    return dg, conv2d_grad_w(h, g, kernel=w.shape[2:], geometry=geometry) if needs[1] else None


@primitive
def conv2d_grad_w(k, x, g, *, kernel, geometry):
    """Gradient of the sum to w: x correlated with g."""
    return k.conv2d_grad_w(x, g, kernel, *geometry), (x, g, geometry)


@conv2d_grad_w.gradient
def _(saved, h, needs):
    x, g, geometry = saved
    dx = conv2d_grad_x(g, h, size=x.shape[2:], geometry=geometry) if needs[0] else None
    return dx, conv2d_p(x, h, geometry=geometry) if needs[1] else None


@primitive
def conv2d_transpose_p(k, x, w, b=None, *, size, geometry):
    """:func:`conv2d_grad_x` plus a bias per channel."""
    y = k.conv2d_grad_x(x, w, size, *geometry)
    if b is not None:
        k.add_(y, b.reshape(1, -1, 1, 1))
    return y, (x, w, geometry)


@conv2d_transpose_p.gradient
def _(saved, g, needs):
    x, w, geometry = saved
    dx = conv2d_p(g, w, geometry=geometry) if needs[0] else None
    dw = conv2d_grad_w(g, x, kernel=w.shape[2:], geometry=geometry) if needs[1] else None
    return (dx, dw) if len(needs) == 2 else (dx, dw, g.sum((0, 2, 3)) if needs[2] else None)


def conv2d(x, w, b=None, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """2-D cross-correlation.

    Where 3x3 taps at stride 1 meet enough channels and positions, the compiled kernels multiply tiles of 4x4 inputs (Winograd;
    Lavin & Gray 2016, arXiv:1509.09308) instead of taps.  Rounding errors are then smaller on the whole, but an output's are
    relative to the largest inputs of its tile, also to those that none of its taps meets.

    Args:
        x: (N, C, H, W).
        w: (O, C / groups, kh, kw).
        b: (O,) or None.
        stride: Pair of steps, at least 1.
        padding: Pair of zero borders.
        dilation: Pair of distances between taps, at least 1.
        groups: Number of independent blocks of channels; divides C and O.

    Returns:
        (N, O, H_out, W_out) with ``H_out = (H + 2p - d(kh-1) - 1) // s + 1``.

    Raises:
        ValueError: Ranks, channels, bias or sizes do not fit.
        TypeError: An operand is no floating Tensor.
    """
    size, kernel = x.shape, w.shape
    if (
        len(size) != 4
        or len(kernel) != 4
        or size[1] != kernel[1] * groups
        or size[2] + 2 * padding[0] <= dilation[0] * (kernel[2] - 1)
        or size[3] + 2 * padding[1] <= dilation[1] * (kernel[3] - 1)
        or (b is not None and b.shape != kernel[:1])
        or (groups != 1 and kernel[0] % groups)
    ):
        raise ShapeError(_conv2d_misfit(size, kernel, None if b is None else b.shape, padding, dilation, groups))
    if x.dtype is not w.dtype:
        x, w, b = promoted("conv2d", x, w, b)
    return bind(conv2d_p, (x, w) if b is None else (x, w, b), {"geometry": (stride, padding, dilation, groups)})


def _conv2d_misfit(x, w, b, padding, dilation, groups):
    if len(x) != 4 or len(w) != 4:
        return f"conv2d: expected x (N, C, H, W) and weight (O, C/groups, kh, kw), got {x} and {w}"
    if x[1] != w[1] * groups or w[0] % groups:
        text = f"conv2d: x has {x[1]} channels, the weight expects in_channels={w[1] * groups}"
        text += f"\n  x      {x}  (N, C, H, W)\n  weight {w}  (O, C/groups, kh, kw)"
        if groups != 1:
            text += f"\n  groups={groups} must divide both channel counts"
        if x[3] == w[1] * groups:
            text += "\n  The last axis of x fits: for channels-last data pass x.transpose(0, 3, 1, 2)."
        return text
    if b is not None and b != w[:1]:
        return f"conv2d: bias of shape {b} does not fit {w[0]} output channels"
    return f"conv2d: kernel {w[2:]} with dilation {dilation} is larger than the padded input: {x[2:]} plus padding {padding}"


def conv2d_transpose(x, w, b=None, *, stride=(1, 1), padding=(0, 0), output_padding=(0, 0), dilation=(1, 1), groups=1):
    """Transposed 2-D convolution: the gradient of :func:`conv2d` to its input.

    Args:
        x: (N, C, H, W).
        w: (C, O / groups, kh, kw).
        b: (O,) or None.
        stride: Pair of steps, at least 1.
        padding: Pair: rows and columns taken off at each border.
        output_padding: Pair, ``0 <= op < stride``: extra rows and columns at the end.
        dilation: Pair of distances between taps, at least 1.
        groups: Number of independent blocks of channels; divides C and O.

    Returns:
        (N, O, H_out, W_out) with ``H_out = (H - 1)s - 2p + d(kh-1) + 1 + op``.

    Raises:
        ValueError: Ranks, channels, bias, strides or sizes do not fit.
        TypeError: An operand is no floating Tensor.
    """
    if len(x.shape) != 4 or len(w.shape) != 4:
        raise ShapeError(f"conv2d_transpose: expected x (N, C, H, W) and weight (C, O/groups, kh, kw), got {x.shape} and {w.shape}")
    if x.shape[1] != w.shape[0] or w.shape[0] % groups:
        raise ShapeError(f"conv2d_transpose: x has {x.shape[1]} channels, the weight expects in_channels={w.shape[0]} (groups={groups})")
    if b is not None and b.shape != (w.shape[1] * groups,):
        raise ShapeError(f"conv2d_transpose: bias of shape {b.shape} does not fit {w.shape[1] * groups} output channels")
    if min(stride) < 1 or any(not 0 <= op < s for op, s in zip(output_padding, stride, strict=True)):
        raise ShapeError(f"conv2d_transpose: needs stride >= 1 and 0 <= output_padding < stride, got {stride} and {output_padding}")
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + 1 + op
        for n, s, p, d, k, op in zip(x.shape[2:], stride, padding, dilation, w.shape[2:], output_padding, strict=True)
    )
    if min(size) < 1:
        raise ShapeError(f"conv2d_transpose: the output size {size} is not positive for x {x.shape}, padding {padding}")
    if x.dtype is not w.dtype:
        x, w, b = promoted("conv2d_transpose", x, w, b)
    params = {"size": size, "geometry": (stride, padding, dilation, groups)}
    return bind(conv2d_transpose_p, (x, w) if b is None else (x, w, b), params)

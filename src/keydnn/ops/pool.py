"""2-D pooling over NCHW.

Max pooling counts padding as minus infinity, and the first position in row-major order wins a tie.  Average pooling
counts padding as 0 and always divides by the window size.
"""

from __future__ import annotations

from keydnn.autograd.modes import RECORDINGS, state
from keydnn.autograd.primitive import bind
from keydnn.domain.errors import ShapeError
from keydnn.ops._primitive import primitive


@primitive
def maxpool2d_p(k, x, *, kernel, stride, padding):
    """Largest of each window; where it stood in the padded plane is kept for the way back, unless there is none."""
    if not (state.grad or RECORDINGS):
        return k.maxpool2d_values(x, kernel, stride, padding)
    y, argmax = k.maxpool2d(x, kernel, stride, padding)
    return y, (argmax, x.shape[2:], padding)


@primitive(n_outputs=2)
def maxpool2d_argmax(k, x, *, kernel, stride, padding):
    """Largest of each window and where it stood in the padded plane; no gradient."""
    return k.maxpool2d(x, kernel, stride, padding), ()


@maxpool2d_p.gradient
def _(saved, g, needs):
    argmax, size, padding = saved
    return maxpool2d_grad(g, argmax, size=size, padding=padding)


@primitive
def maxpool2d_grad(k, g, argmax, *, size, padding):
    """g added at the winning positions."""
    return k.maxpool2d_grad(g, argmax, size, padding), (argmax, padding)


@maxpool2d_grad.gradient
def _(saved, h, needs):
    argmax, padding = saved
    return maxpool2d_take(h, argmax, padding=padding), None


@primitive
def maxpool2d_take(k, x, argmax, *, padding):
    """x read at the winning positions."""
    return k.maxpool2d_take(x, argmax, padding), (argmax, x.shape[2:], padding)


@maxpool2d_take.gradient
def _(saved, g, needs):
    argmax, size, padding = saved
    return maxpool2d_grad(g, argmax, size=size, padding=padding), None


@primitive
def avgpool2d_p(k, x, *, kernel, stride, padding):
    """Window sum over window size."""
    return k.avgpool2d(x, kernel, stride, padding), (x.shape[2:], kernel, stride, padding)


@avgpool2d_p.gradient
def _(saved, g, needs):
    size, kernel, stride, padding = saved
    return avgpool2d_grad(g, size=size, kernel=kernel, stride=stride, padding=padding)


@primitive
def avgpool2d_grad(k, g, *, size, kernel, stride, padding):
    """Each g spread evenly over its window."""
    return k.avgpool2d_grad(g, size, kernel, stride, padding), (kernel, stride, padding)


@avgpool2d_grad.gradient
def _(saved, h, needs):
    kernel, stride, padding = saved
    return avgpool2d_p(h, kernel=kernel, stride=stride, padding=padding)


@primitive
def global_avgpool2d_p(k, x):
    """Mean of each plane."""
    return k.global_avgpool2d(x), (x.shape,)


@global_avgpool2d_p.gradient
def _(saved, g, needs):
    (shape,) = saved
    return (g / (shape[2] * shape[3])).broadcast_to(shape)


def maxpool2d(x, kernel, stride=None, padding=(0, 0)):
    """Largest element of each window.

    Args:
        x: (N, C, H, W).
        kernel: Pair, the window.
        stride: Pair; None is the window size.
        padding: Pair; padded cells never win.

    Returns:
        (N, C, (H + 2p - kh) // s + 1, ...).

    Raises:
        ValueError: x is not 4-D, or the window is larger than the padded input.
        TypeError: x is no floating Tensor.
    """
    stride = kernel if stride is None else stride
    return bind(maxpool2d_p, (x,), {"kernel": kernel, "stride": stride, "padding": padding})


def avgpool2d(x, kernel, stride=None, padding=(0, 0)):
    """Mean of each window; arguments, result and errors as :func:`maxpool2d`."""
    stride = kernel if stride is None else stride
    return bind(avgpool2d_p, (x,), {"kernel": kernel, "stride": stride, "padding": padding})


def global_avgpool2d(x):
    """Mean of each plane: (N, C, H, W) -> (N, C, 1, 1).

    Raises:
        ValueError: x is not 4-D or its planes are empty.
        TypeError: x is no floating Tensor.
    """
    if len(x.shape) != 4 or 0 in x.shape[2:]:
        raise ShapeError(f"global_avgpool2d: expected x (N, C, H, W) with non-empty planes, got shape {x.shape}")
    if x.dtype.kind != "f":
        raise TypeError(f"global_avgpool2d: expected a floating tensor, got dtype {x.dtype}; cast with astype('float32')")
    return bind(global_avgpool2d_p, (x,))

"""The function classes: operations as pairs ``forward(ctx, ...)`` and ``backward(ctx, grad_out)``.

They are for those who wire graphs by hand; layers call ``keydnn.ops``, whose primitives leave the same results and gradients.
What each saves in its context is part of the interface:

    ExpFn, SigmoidFn, TanhFn      [out]
    ReLUFn                        [mask]
    LeakyReLUFn                   [positive mask, negative mask], meta alpha
    SoftmaxFn                     [out], meta axis
    FlattenFn, GlobalAvgPool2dFn  [x]
    MaxPool2dFn, AvgPool2dFn      [x], meta kernel_size, stride, padding (and argmax)
    Conv2dFn                      [x, weight(, bias)], meta has_bias, stride, padding
    Conv2dTransposeFn             the same, and meta output_padding

``forward`` computes without a graph of its own and marks its result as requiring a gradient if an input does; attach the
context with ``out._set_ctx(ctx)``, or call ``apply``, which does it all.  ``backward`` is written in operations, so it can be
differentiated again.  At the end stand the convolutions as plain functions of tensors, without contexts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.autograd.context import Context, Function
from keydnn.autograd.modes import is_grad_enabled, no_grad
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import pair
from keydnn.ops.activation import leaky_relu_grad, sigmoid_grad, softmax_grad, tanh_grad
from keydnn.ops.conv import conv2d_p, conv2d_transpose_p
from keydnn.ops.pool import avgpool2d_grad, maxpool2d_argmax, maxpool2d_grad
from keydnn.ops.shape import reshape_p

Pair = tuple[int, int]
IntOrPair = int | Pair | list[int]
Grads = tuple[Tensor, Tensor, Tensor | None]


def _run(op: Callable[..., Any], *inputs: Tensor | None, **options: Any) -> Tensor:
    """``op(*inputs)`` without a graph; the result requires a gradient if an input does."""
    wanted = is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    with no_grad():
        out = op(*inputs, **options)
    out.requires_grad = wanted
    return out


def exp(x: Tensor) -> Tensor:
    """``e ** x``, elementwise.

    Raises:
        TypeError: x is no Tensor.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"exp: expected a Tensor, got {type(x).__name__}")
    return ops.exp(x)


# -- elementwise


class ExpFn(Function):
    """``e ** x``; saves [out]."""

    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:  # type: ignore[override]
        """``e ** x``."""
        out = _run(ops.exp, x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> Tensor:
        """``g * out``."""
        return grad_out * ctx.saved_tensors[0]


class SigmoidFn(Function):
    """``1 / (1 + e ** -x)``; saves [out]."""

    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:  # type: ignore[override]
        """``1 / (1 + e ** -x)``."""
        out = _run(ops.sigmoid, x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> Tensor:
        """``g * out * (1 - out)``."""
        return sigmoid_grad(ctx.saved_tensors[0], grad_out)


class TanhFn(Function):
    """``tanh(x)``; saves [out]."""

    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:  # type: ignore[override]
        """``tanh(x)``."""
        out = _run(ops.tanh, x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> Tensor:
        """``g * (1 - out ** 2)``."""
        return tanh_grad(ctx.saved_tensors[0], grad_out)


class ReLUFn(Function):
    """``max(x, 0)``; saves [mask], 1 where ``x > 0``."""

    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:  # type: ignore[override]
        """``max(x, 0)``."""
        ctx.save_for_backward(x > 0)
        return _run(ops.relu, x)

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> Tensor:
        """``g * mask``."""
        return grad_out * ctx.saved_tensors[0]


class LeakyReLUFn(Function):
    """``x`` where ``x > 0``, else ``alpha * x``; saves [x > 0, x <= 0] and meta ``alpha``."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, alpha: float = 0.01) -> Tensor:  # type: ignore[override]
        """``x`` or ``alpha * x``."""
        ctx.save_for_backward(x > 0, x <= 0)
        ctx.saved_meta["alpha"] = float(alpha)
        return _run(ops.leaky_relu, x, alpha=alpha)

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> Tensor:
        """``g`` or ``alpha * g``; alpha at 0."""
        return leaky_relu_grad(ctx.saved_tensors[0], grad_out, alpha=ctx.saved_meta["alpha"])


class SoftmaxFn(Function):
    """Softmax along one axis; saves [out] and meta ``axis``."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, *, axis: int = -1) -> Tensor:  # type: ignore[override]
        """``exp(x) / sum(exp(x))``."""
        out = _run(ops.softmax, x, axis=axis)
        ctx.save_for_backward(out)
        ctx.saved_meta["axis"] = axis
        return out

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> tuple[Tensor]:
        """``out * (g - sum(g * out))``."""
        (out,) = ctx.saved_tensors
        return (softmax_grad(out, grad_out, axis=ctx.saved_meta["axis"] % len(out.shape)),)


# -- shape and pooling


class FlattenFn(Function):
    """All axes but the first joined; saves [x]."""

    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:  # type: ignore[override]
        """(N, d1, d2, ...) -> (N, d1 * d2 * ...)."""
        if not x.shape:
            raise ShapeError("FlattenFn: expected x (N, ...) with at least one axis, got a scalar of shape ()")
        ctx.save_for_backward(x)
        return _run(reshape_p, x, shape=(x.shape[0], math.prod(x.shape[1:])))

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> tuple[Tensor]:
        """The gradient in the shape of x."""
        return (grad_out.reshape(ctx.saved_tensors[0].shape),)


def _window(ctx: Context, x: Tensor, kernel_size: IntOrPair, stride: IntOrPair | None, padding: IntOrPair, owner: str) -> dict[str, Any]:
    """Save x and the window; returns the arguments of the operation."""
    kernel = pair("kernel_size", kernel_size, owner, 1)
    step = kernel if stride is None else pair("stride", stride, owner, 1)
    border = pair("padding", padding, owner, 0)
    ctx.save_for_backward(x)
    ctx.saved_meta.update(kernel_size=kernel, stride=step, padding=border)
    return {"kernel": kernel, "stride": step, "padding": border}


class MaxPool2dFn(Function):
    """Largest of each window; saves [x] and the window, and ``argmax`` (positions in the padded plane) in meta."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Context, x: Tensor, *, kernel_size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0
    ) -> Tensor:
        """(N, C, H, W) -> (N, C, H_out, W_out)."""
        window = _window(ctx, x, kernel_size, stride, padding, "MaxPool2dFn")
        out, ctx.saved_meta["argmax"] = maxpool2d_argmax(x, **window)
        out.requires_grad = is_grad_enabled() and x.requires_grad
        return out

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> tuple[Tensor | None]:
        """The gradient where each maximum stood."""
        (x,), meta = ctx.saved_tensors, ctx.saved_meta
        return (maxpool2d_grad(grad_out, meta["argmax"], size=x.shape[2:], padding=meta["padding"]) if x.requires_grad else None,)


class AvgPool2dFn(Function):
    """Mean of each window; saves [x] and the window in meta."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Context, x: Tensor, *, kernel_size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0
    ) -> Tensor:
        """(N, C, H, W) -> (N, C, H_out, W_out)."""
        return _run(ops.avgpool2d, x, **_window(ctx, x, kernel_size, stride, padding, "AvgPool2dFn"))

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> tuple[Tensor | None]:
        """The gradient spread over each window."""
        (x,), meta = ctx.saved_tensors, ctx.saved_meta
        window = {"kernel": meta["kernel_size"], "stride": meta["stride"], "padding": meta["padding"]}
        return (avgpool2d_grad(grad_out, size=x.shape[2:], **window) if x.requires_grad else None,)


class GlobalAvgPool2dFn(Function):
    """Mean of each plane; saves [x]."""

    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:  # type: ignore[override]
        """(N, C, H, W) -> (N, C, 1, 1)."""
        ctx.save_for_backward(x)
        return _run(ops.global_avgpool2d, x)

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> tuple[Tensor | None]:
        """``g / (H * W)`` everywhere."""
        (x,) = ctx.saved_tensors
        return ((grad_out / math.prod(x.shape[2:])).broadcast_to(x.shape) if x.requires_grad else None,)


# -- convolution


def _convolution(ctx: Context, x: Tensor, weight: Tensor, bias: Tensor | None, owner: str, **pairs: IntOrPair) -> dict[str, Any]:
    """Save the operands and the geometry; returns the arguments of the operation."""
    ctx.save_for_backward(*((x, weight) if bias is None else (x, weight, bias)))
    options = {name: pair(name, value, owner) for name, value in pairs.items()}
    ctx.saved_meta.update(has_bias=bias is not None, **options)
    return options


def _convolution_grads(rule: Callable[..., Any] | None, ctx: Context, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    assert rule is not None
    x, weight, *bias = ctx.saved_tensors
    geometry = (ctx.saved_meta["stride"], ctx.saved_meta["padding"], (1, 1), 1)
    return rule((x, weight, geometry), grad_out, [t.requires_grad for t in (x, weight, *bias)])


class Conv2dFn(Function):
    """2-D cross-correlation; saves [x, weight(, bias)] and meta ``has_bias, stride, padding``."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Context, x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: IntOrPair = 1, padding: IntOrPair = 0
    ) -> Tensor:
        """(N, C, H, W) -> (N, O, H_out, W_out)."""
        options = _convolution(ctx, x, weight, bias, "Conv2dFn", stride=stride, padding=padding)
        return _run(ops.conv2d, x, weight, bias, **options)

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        """(dx, dweight[, dbias]), None where not required."""
        return _convolution_grads(conv2d_p.rule, ctx, grad_out)


class Conv2dTransposeFn(Function):
    """Transposed 2-D convolution; saves [x, weight(, bias)] and meta ``has_bias, stride, padding, output_padding``."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Context,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *,
        stride: IntOrPair = 1,
        padding: IntOrPair = 0,
        output_padding: IntOrPair = 0,
    ) -> Tensor:
        """(N, C, H, W) -> (N, O, H_out, W_out)."""
        options = _convolution(ctx, x, weight, bias, "Conv2dTransposeFn", stride=stride, padding=padding, output_padding=output_padding)
        return _run(ops.conv2d_transpose, x, weight, bias, **options)

    @staticmethod
    def backward(ctx: Context, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        """(dx, dweight[, dbias]), None where not required."""
        return _convolution_grads(conv2d_transpose_p.rule, ctx, grad_out)


# -- convolutions of tensors, without contexts; pairs are tuples


def conv2d_forward_cpu_tensor(
    x: Tensor, w: Tensor, b: Tensor | None, *, stride: Pair, padding: Pair, out_requires_grad: bool = False
) -> Tensor:
    """:func:`keydnn.ops.conv2d` outside the graph; the result's ``requires_grad`` is set as told."""
    with no_grad():
        out = ops.conv2d(x, w, b, stride=stride, padding=padding)
    out.requires_grad = out_requires_grad
    return out


def conv2d_backward_cpu_tensor(x: Tensor, w: Tensor, b: Tensor | None, grad_out: Tensor, *, stride: Pair, padding: Pair) -> Grads:
    """(dx, dw, db or None) of :func:`keydnn.ops.conv2d` for the upstream gradient ``grad_out``."""
    return _all_grads(conv2d_p.rule, x, w, b, grad_out, stride, padding)


def conv2d_transpose_forward_cpu_tensor(
    x: Tensor, w: Tensor, b: Tensor | None, *, stride: Pair, padding: Pair, output_padding: Pair = (0, 0), out_requires_grad: bool = False
) -> Tensor:
    """:func:`keydnn.ops.conv2d_transpose` outside the graph; the result's ``requires_grad`` is set as told."""
    with no_grad():
        out = ops.conv2d_transpose(x, w, b, stride=stride, padding=padding, output_padding=output_padding)
    out.requires_grad = out_requires_grad
    return out


def conv2d_transpose_backward_cpu_tensor(
    x: Tensor, w: Tensor, b: Tensor | None, grad_out: Tensor, *, stride: Pair, padding: Pair, output_padding: Pair = (0, 0)
) -> Grads:
    """(dx, dw, db or None) of :func:`keydnn.ops.conv2d_transpose`; ``grad_out`` has the size that ``output_padding`` gave."""
    return _all_grads(conv2d_transpose_p.rule, x, w, b, grad_out, stride, padding)


def _all_grads(rule: Any, x: Tensor, w: Tensor, b: Tensor | None, grad_out: Tensor, stride: Pair, padding: Pair) -> Grads:
    with no_grad():
        dx, dw, *db = rule((x, w, (stride, padding, (1, 1), 1)), grad_out, (True, True) if b is None else (True, True, True))
    return dx, dw, db[0] if db else None

"""Plan rows of matrix products, convolution and pooling."""

from __future__ import annotations

from math import prod
from typing import Any

from keydnn.compiler.ir import Op, View
from keydnn.compiler.lower import Row, Unplannable, contiguous, lowers, type_of


@lowers("linear")
def linear(op: Op) -> list[Row]:
    """``x @ w.T + b``."""
    kind, rows = type_of(op), []  # type: ignore[var-annotated]
    x, w = contiguous(op.operands[0], rows), contiguous(op.operands[1], rows)
    b = None if op.operands[2] is None else contiguous(op.operands[2], rows)
    (m, k), n = x.shape, w.shape[0]
    return [*rows, Row(f"gemm:{kind}", [x, w, b, op.results[0]], [1, m, n, k, k, 1, 1, k], [], op.label, 3)]


@lowers("linear_relu")
def linear_relu(op: Op) -> list[Row]:
    """``relu(x @ w.T + b)``."""
    kind, rows = type_of(op), []  # type: ignore[var-annotated]
    x, w = contiguous(op.operands[0], rows), contiguous(op.operands[1], rows)
    b = None if op.operands[2] is None else contiguous(op.operands[2], rows)
    (m, k), n = x.shape, w.shape[0]
    return [*rows, Row(f"linear_relu:{kind}", [x, w, b, op.results[0]], [m, n, k], [], op.label, 3)]


@lowers("matmul")
def matmul(op: Op) -> list[Row]:
    """``op(a) @ op(b)`` with leading axes that broadcast."""
    kind, rows = type_of(op), []  # type: ignore[var-annotated]
    a, b = contiguous(op.operands[0], rows), contiguous(op.operands[1], rows)
    c = op.results[0]
    ta, tb = bool(op.params["transpose_a"]), bool(op.params["transpose_b"])
    (a0, a1), (b0, b1) = a.shape[-2:], b.shape[-2:]
    m, k, n = (a1 if ta else a0), (a0 if ta else a1), (b0 if tb else b1)
    batch = prod(c.shape[:-2])
    integers = [batch, m, n, k, *((1, a1) if ta else (a1, 1)), *((1, b1) if tb else (b1, 1))]
    if batch > 1:
        integers += _items(a, c.shape[:-2]) + _items(b, c.shape[:-2])
    return [*rows, Row(f"gemm:{kind}", [a, b, None, c], integers, [], op.label, 3)]


@lowers("matmul_relu_grad")
def matmul_relu_grad(op: Op) -> list[Row]:
    """``op(a) @ op(b)`` of two matrices where ``y > 0``, 0 elsewhere."""
    kind, rows = type_of(op), []  # type: ignore[var-annotated]
    a, b, y = (contiguous(v, rows) for v in op.operands)
    ta, tb = bool(op.params["transpose_a"]), bool(op.params["transpose_b"])
    (a0, a1), (b0, b1) = a.shape, b.shape
    m, k, n = (a1 if ta else a0), (a0 if ta else a1), (b0 if tb else b1)
    integers = [m, n, k, *((1, a1) if ta else (a1, 1)), *((1, b1) if tb else (b1, 1))]
    return [*rows, Row(f"gemm_relu_grad:{kind}", [a, b, y, op.results[0]], integers, [], op.label, 3)]


@lowers("matmul_sums")
def matmul_sums(op: Op) -> list[Row]:
    """``a.T @ b`` of two matrices, and the sums of a's columns."""
    kind, rows = type_of(op), []  # type: ignore[var-annotated]
    a, b = (contiguous(v, rows) for v in op.operands)
    return [*rows, Row(f"gemm_sums:{kind}", [a, b, *op.results], [a.shape[1], b.shape[1], a.shape[0]], [], op.label, 2)]


def _items(x: View, batch: tuple[int, ...]) -> list[int]:
    """Where each item of the broadcast batch starts, in elements."""
    lead = x.shape[:-2]
    starts = [0]
    step = prod(x.shape[-2:])
    steps = []
    for n in reversed(lead):
        steps.append(0 if n == 1 else step)
        step *= n
    steps += [0] * (len(batch) - len(lead))
    for n, s in zip(batch, reversed(steps), strict=True):
        starts = [at + i * s for at in starts for i in range(n)]
    return starts


def _shape(x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...], p: dict[str, Any]) -> list[int]:
    """The fields of ``keydnn_conv_shape``."""
    return [*x, w[0], *w[2:], *p["stride"], *p["padding"], *p["dilation"], p["groups"], *y[2:]]


@lowers("conv2d")
def conv2d(op: Op) -> list[Row]:
    """Convolution with bias."""
    kind, rows = type_of(op), []  # type: ignore[var-annotated]
    x, w = contiguous(op.operands[0], rows), contiguous(op.operands[1], rows)
    b = None if op.operands[2] is None else contiguous(op.operands[2], rows)
    y = op.results[0]
    return [*rows, Row(f"conv2d:{kind}", [x, w, b, y], _shape(x.shape, w.shape, y.shape, op.params), [], op.label, 3)]


@lowers("conv2d_finish")
def conv2d_finish(op: Op) -> list[Row]:
    """Convolution with bias, and what follows it."""
    kind, rows = type_of(op, *op.reads(), op.results[0]), []  # type: ignore[var-annotated]
    x, w, *others = (None if v is None else contiguous(v, rows) for v in op.operands)
    assert x is not None and w is not None
    shape = _shape(x.shape, w.shape, op.params["between"], op.params)
    if len(op.results) == 2 and others[1:] == [None, None, None]:
        return [*rows, Row(f"conv2d_relu_maxpool:{kind}", [x, w, others[0], *op.results], shape, [], op.label, 3)]
    results = (*op.results, None)[:2]
    return [*rows, Row(f"conv2d_finish:{kind}", [x, w, *others, *results], [*shape, int(op.params["relu"])], [], op.label, 6)]


@lowers("conv2d_grad_x")
def conv2d_grad_x(op: Op) -> list[Row]:
    """Gradient to the input."""
    kind, rows = type_of(op), []  # type: ignore[var-annotated]
    g, w = (contiguous(v, rows) for v in op.operands)
    dx = op.results[0]
    return [*rows, Row(f"conv2d_grad_x:{kind}", [g, w, dx], _shape(dx.shape, w.shape, g.shape, op.params), [], op.label, 2)]


@lowers("conv2d_grad_w")
def conv2d_grad_w(op: Op) -> list[Row]:
    """Gradient to the kernels."""
    kind, rows = type_of(op), []  # type: ignore[var-annotated]
    x, g = (contiguous(v, rows) for v in op.operands)
    dw = op.results[0]
    return [*rows, Row(f"conv2d_grad_w:{kind}", [x, g, dw], _shape(x.shape, dw.shape, g.shape, op.params), [], op.label, 2)]


@lowers("conv2d_grad_wb")
def conv2d_grad_wb(op: Op) -> list[Row]:
    """Gradient to the kernels and to the bias."""
    kind, rows = type_of(op), []  # type: ignore[var-annotated]
    x, g = (contiguous(v, rows) for v in op.operands)
    dw, db = op.results
    return [*rows, Row(f"conv2d_grad_wb:{kind}", [x, g, dw, db], _shape(x.shape, dw.shape, g.shape, op.params), [], op.label, 2)]


def _pool(big: tuple[int, ...], small: tuple[int, ...], kernel: Any, stride: Any, padding: Any) -> list[int]:
    """The fields of ``keydnn_pool_shape``."""
    return [big[0] * big[1], *big[2:], *small[2:], *kernel, *stride, *padding]


@lowers("maxpool2d")
def maxpool2d(op: Op) -> list[Row]:
    """Largest of each window, and where it stood."""
    kind, rows, p = type_of(op, *op.reads()), [], op.params  # type: ignore[var-annotated]
    x, (y, argmax) = contiguous(op.operands[0], rows), op.results
    return [
        *rows,
        Row(f"maxpool2d:{kind}", [x, y, argmax], _pool(x.shape, y.shape, p["kernel"], p["stride"], p["padding"]), [], op.label, 1),
    ]


@lowers("maxpool2d_grad")
def maxpool2d_grad(op: Op) -> list[Row]:
    """The gradient added where the largest stood."""
    kind, rows, p = type_of(op, op.operands[0]), [], op.params  # type: ignore[var-annotated]
    g, argmax = (contiguous(v, rows) for v in op.operands)
    dx = op.results[0]
    integers = _pool(dx.shape, g.shape, (1, 1), (1, 1), p["padding"])
    return [*rows, Row(f"maxpool2d_grad:{kind}", [g, argmax, dx], integers, [], op.label, 2)]


@lowers("avgpool2d")
def avgpool2d(op: Op) -> list[Row]:
    """Mean of each window."""
    kind, rows, p = type_of(op), [], op.params  # type: ignore[var-annotated]
    x, y = contiguous(op.operands[0], rows), op.results[0]
    return [*rows, Row(f"avgpool2d:{kind}", [x, y], _pool(x.shape, y.shape, p["kernel"], p["stride"], p["padding"]), [], op.label, 1)]


@lowers("avgpool2d_grad")
def avgpool2d_grad(op: Op) -> list[Row]:
    """Its transpose."""
    kind, rows, p = type_of(op), [], op.params  # type: ignore[var-annotated]
    g, dx = contiguous(op.operands[0], rows), op.results[0]
    return [
        *rows,
        Row(f"avgpool2d_grad:{kind}", [g, dx], _pool(dx.shape, g.shape, p["kernel"], p["stride"], p["padding"]), [], op.label, 1),
    ]


@lowers("global_avgpool2d")
def global_avgpool2d(op: Op) -> list[Row]:
    """Mean of each plane."""
    kind, rows = type_of(op), []  # type: ignore[var-annotated]
    x, y = contiguous(op.operands[0], rows), op.results[0]
    n, c, h, w = x.shape
    if h * w == 0:
        raise Unplannable(f"{op.label}: empty planes")
    return [*rows, Row(f"plane_mean:{kind}", [x, y], [n * c, h * w], [], op.label, 1)]


@lowers("relu_maxpool")
def relu_maxpool(op: Op) -> list[Row]:
    """relu and 2x2 pooling, and which cell won."""
    x, (y, code) = op.operands[0], op.results
    n, c, h, w = x.shape
    return [Row(f"relu_maxpool:{type_of(op, x, y)}", [x, y, code], [n * c, h, w], [], op.label, 1)]


@lowers("relu_maxpool_grad")
def relu_maxpool_grad(op: Op) -> list[Row]:
    """Its gradient."""
    (g, code), dx = op.operands, op.results[0]
    n, c, h, w = dx.shape
    return [Row(f"relu_maxpool_grad:{type_of(op, g, dx)}", [g, code, dx], [n * c, h, w], [], op.label, 2)]

"""Operators of ONNX on whole numbers that stand for floating ones: ``x = (q - zero) * scale``.

Rounding is half to even; what does not fit becomes the nearest end of the type.  Sums of products are exact in int32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import OnnxError
from keydnn.interop.onnx.values import Node, Rule, Value, dtype_of, host, value
from keydnn.interop.onnx.windows import convolve


def _spread(node: Node, v: Value, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """One number for all, one per element of an axis, or one per block of it."""
    a, size = host(v), node.get("block_size", 0)
    if size:
        return np.repeat(a, size, axis)[tuple(slice(n) for n in shape)]
    if a.ndim == 0 or a.size == 1:
        return a.reshape(())
    if a.ndim > 1:
        raise OnnxError(f"ONNX operator {node.op} {node.name!r}: a scale or zero of shape {a.shape} without block_size")
    return a.reshape([-1 if i == axis else 1 for i in range(len(shape))])


def _dequantize(node: Node, q: Value, scale: Value, zero: Value = None) -> Value:
    a = host(q)
    axis = node.get("axis", 1) % max(a.ndim, 1)
    y = a.astype(np.float32) if zero is None else a.astype(np.float32) - _spread(node, zero, a.shape, axis).astype(np.float32)
    code = node.get("output_dtype", 0)
    return value((y * _spread(node, scale, a.shape, axis)).astype(dtype_of(code) if code else scale.dtype))


def _quantized(a: np.ndarray, zero: Any, dtype: np.dtype) -> np.ndarray:
    ends = np.iinfo(dtype)
    return np.asarray(np.clip(np.rint(a).astype(np.float64) + np.asarray(zero, np.float64), ends.min, ends.max), dtype)


def _quantize(node: Node, x: Value, scale: Value, zero: Value = None) -> np.ndarray:
    a = host(x)
    axis, code = node.get("axis", 1) % max(a.ndim, 1), node.get("output_dtype", 0)
    dtype = zero.dtype if zero is not None else dtype_of(code) if code else np.dtype(np.uint8)
    if dtype.kind not in "iu" or node.get("precision", 0) not in (0, 1):
        raise node.refuse(f"a result of {dtype}, or another precision than float32")
    shift = 0 if zero is None else _spread(node, zero, a.shape, axis)
    return _quantized(a / _spread(node, scale, a.shape, axis), shift, dtype)


def _quantize_by_itself(node: Node, x: Value) -> tuple[np.ndarray, Value, np.ndarray]:
    a = host(x)
    high, low = np.float32(max(0.0, a.max(initial=0.0))), np.float32(min(0.0, a.min(initial=0.0)))
    scale = np.float32(1.0 if high == low else high - low) / np.float32(255)
    zero = np.uint8(np.rint(np.clip(-low / scale, 0, 255)))
    return _quantized(a / scale, zero, np.dtype(np.uint8)), value(np.asarray(scale)), np.asarray(zero)


def _centred(q: Value, zero: Value, axis: int) -> np.ndarray:
    """q without its zero, which may differ along an axis."""
    a = host(q).astype(np.int64)
    if zero is None:
        return a
    z = host(zero).astype(np.int64)
    return a - (z.reshape(()) if z.size == 1 else z.reshape([-1 if i == axis % a.ndim else 1 for i in range(a.ndim)]) if z.ndim == 1 else z)


def _matmul(node: Node, a: Value, b: Value, zero_a: Value = None, zero_b: Value = None) -> np.ndarray:
    return (_centred(a, zero_a, -2) @ _centred(b, zero_b, -1)).astype(np.int32)


def _conv(node: Node, x: Value, w: Value, zero_x: Value = None, zero_w: Value = None) -> np.ndarray:
    rows, kernel = (Tensor(data=v.astype(np.float64), dtype=np.float64) for v in (_centred(x, zero_x, 1), _centred(w, zero_w, 0)))
    return np.rint(host(convolve(node, rows, kernel, None))).astype(np.int32)


def _rescaled(total: np.ndarray, scales: tuple[Value, Value, Value], zero: Value, axis: int) -> np.ndarray:
    a, b, y = (host(s).astype(np.float64) for s in scales)
    b = b.reshape([-1 if i == axis % total.ndim else 1 for i in range(total.ndim)]) if b.ndim == 1 and b.size > 1 else b
    return _quantized(total * (a * b / y), host(zero), zero.dtype)


def _linear_matmul(
    node: Node, a: Value, scale_a: Value, zero_a: Value, b: Value, scale_b: Value, zero_b: Value, scale_y: Value, zero_y: Value
) -> np.ndarray:
    return _rescaled(_matmul(node, a, b, zero_a, zero_b), (scale_a, scale_b, scale_y), zero_y, -1)


def _linear_conv(
    node: Node, x: Value, scale_x: Value, zero_x: Value, w: Value, scale_w: Value, zero_w: Value, scale_y: Value, zero_y: Value,
    bias: Value = None,
) -> np.ndarray:  # fmt: skip
    total = _conv(node, x, w, zero_x, zero_w)
    total = total if bias is None else total + host(bias).reshape((-1, *(1,) * (total.ndim - 2)))
    return _rescaled(total, (scale_x, scale_w, scale_y), zero_y, 1)


QUANTIZED: dict[str, Rule] = {
    "DequantizeLinear": _dequantize,
    "QuantizeLinear": _quantize,
    "DynamicQuantizeLinear": _quantize_by_itself,
    "MatMulInteger": _matmul,
    "ConvInteger": _conv,
    "QLinearMatMul": _linear_matmul,
    "QLinearConv": _linear_conv,
}

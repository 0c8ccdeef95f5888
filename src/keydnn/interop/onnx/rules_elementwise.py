"""Elementwise operators of ONNX: arithmetic, comparisons, activations, types."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import OnnxError
from keydnn.interop.onnx.values import Node, Rule, Value, constant, dtype_of, dual, host, tensors, value


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Division of integers, rounded towards zero."""
    if np.any(b == 0):
        raise OnnxError("ONNX: division of an integer by zero")
    quotient = a // b
    return (quotient + ((a % b != 0) & ((a < 0) != (b < 0)))).astype(np.result_type(a, b))


def _mod(node: Node, a: Value, b: Value) -> Value:
    if isinstance(a, Tensor):
        a, b = tensors(a, b)
        if not node.get("fmod", 0):
            return a % b  # the sign of b
        return ops.sign(a) * (ops.abs(a) % ops.abs(b))  # the sign of a
    if np.any(b == 0):
        raise OnnxError("ONNX: division of an integer by zero")
    return (np.fmod if node.get("fmod", 0) else np.mod)(a, b)


def _pow(node: Node, a: Value, b: Value) -> Value:
    if isinstance(a, Tensor):
        exponent = host(b)
        if exponent.ndim == 0:
            return a ** float(exponent)
        a, b = tensors(a, b)
        return a ** (b if b.dtype == a.dtype else Tensor(data=host(b), dtype=a.dtype))
    with np.errstate(all="ignore"):
        return np.power(a, host(b)).astype(a.dtype)


def _variadic(of_tensors: Callable[[Any, Any], Any], of_arrays: Callable[[Any, Any], Any]) -> Rule:
    pair = dual(of_tensors, of_arrays)
    return lambda node, *inputs: functools.reduce(lambda a, b: pair(node, a, b), inputs)


def _mean(node: Node, *inputs: Value) -> Value:
    return functools.reduce(lambda a, b: a + b, inputs) * (1.0 / len(inputs))


def _clip(node: Node, x: Value, low: Value = None, high: Value = None) -> Value:
    low = node.get("min") if low is None else low
    high = node.get("max") if high is None else high
    if not isinstance(x, Tensor):
        return np.asarray(np.minimum(np.maximum(x, x if low is None else low), np.iinfo(x.dtype).max if high is None else high), x.dtype)
    x = x if low is None else ops.maximum(x, float(host(low)))
    return x if high is None else ops.minimum(x, float(host(high)))


def _compared(function: Callable[[Any, Any], Any]) -> Rule:
    return lambda node, a, b: np.asarray(function(host(a), host(b)))


def _truths(function: Callable[..., Any]) -> Rule:
    return lambda node, *inputs: np.asarray(function(*map(host, inputs)))


def _where(node: Node, mask: Value, x: Value, y: Value) -> Value:
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        x, y = tensors(x, y)
        return ops.where(Tensor(data=host(mask), dtype=np.bool_), x, y)
    return np.where(host(mask), x, y)


def _cast(node: Node, x: Value) -> Value:
    return _cast_to(x, dtype_of(node.get("to")))


def _cast_like(node: Node, x: Value, like: Value) -> Value:
    return _cast_to(x, like.dtype)


def _cast_to(x: Value, dtype: np.dtype) -> Value:
    if isinstance(x, Tensor) and dtype.kind == "f":
        return x if x.dtype == dtype else x.astype(dtype)
    with np.errstate(all="ignore"):
        return value(host(x).astype(dtype))


def _asinh(x: Tensor) -> Tensor:
    """``sign(x) log(|x| + sqrt(x^2 + 1))``; log1p keeps small x."""
    size = ops.abs(x)
    square = x * x
    return ops.sign(x) * ops.log1p(size + square / (ops.sqrt(square + 1.0) + 1.0))


def _acosh(x: Tensor) -> Tensor:
    """``log(x + sqrt(x^2 - 1))``; log1p keeps x near 1."""
    above = x - 1.0
    return ops.log1p(above + ops.sqrt(above * (x + 1.0)))


def _gelu(node: Node, x: Tensor) -> Tensor:
    if node.get("approximate", "none") == "none":
        return ops.gelu(x)
    return 0.5 * x * (1.0 + ops.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * (x * x * x))))


def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    return ops.minimum(ops.maximum(x * node.get("alpha", 0.2) + node.get("beta", 0.5), 0.0), 1.0)


def _hard_swish(node: Node, x: Tensor) -> Tensor:
    return x * ops.minimum(ops.maximum(x * (1 / 6) + 0.5, 0.0), 1.0)


def _selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    return ops.elu(x, alpha) * gamma


def _celu(node: Node, x: Tensor) -> Tensor:
    alpha = node.get("alpha", 1.0)
    return ops.maximum(x, 0.0) + ops.minimum(alpha * ops.expm1(x * (1.0 / alpha)), 0.0)


def _prelu(node: Node, x: Value, slope: Value) -> Value:
    if not isinstance(x, Tensor):
        return np.where(x < 0, x * slope, x).astype(x.dtype)
    return ops.maximum(x, 0.0) + ops.minimum(x, 0.0) * tensors(x, slope)[1]


def _shrink(node: Node, x: Value) -> Value:
    bias, edge = node.get("bias", 0.0), node.get("lambd", 0.5)
    if not isinstance(x, Tensor):
        return np.where(x < -edge, x + bias, np.where(x > edge, x - bias, 0)).astype(x.dtype)
    zero = constant(0.0, x)
    a = host(x)
    inner = ops.where(Tensor(data=a > edge, dtype=np.bool_), x - bias, zero)
    return ops.where(Tensor(data=a < -edge, dtype=np.bool_), x + bias, inner)


def _thresholded(node: Node, x: Tensor) -> Tensor:
    return ops.where(Tensor(data=host(x) > node.get("alpha", 1.0), dtype=np.bool_), x, constant(0.0, x))


def _swish(node: Node, x: Tensor) -> Tensor:
    return x * ops.sigmoid(x * node.get("alpha", 1.0))


def _is_inf(node: Node, x: Value) -> np.ndarray:
    a = host(x)
    up, down = node.get("detect_positive", 1), node.get("detect_negative", 1)
    return np.asarray((np.isposinf(a) & bool(up)) | (np.isneginf(a) & bool(down)))


def _shifted(node: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.left_shift(a, b) if node.get("direction") == "LEFT" else np.right_shift(a, b)


def _dropout(node: Node, x: Value, ratio: Value = None, training: Value = None) -> Any:
    if training is not None and bool(host(training)) and (ratio is None or float(host(ratio))):
        raise node.refuse("training mode")
    return (x, np.ones(x.shape, bool)) if node.n_outputs > 1 else x


def _one(function: Callable[[Any], Any], of_arrays: Callable[[Any], Any] | None = None) -> Rule:
    return dual(function, of_arrays)


ELEMENTWISE: dict[str, Rule] = {
    "Abs": _one(ops.abs, np.abs),
    "Neg": _one(ops.neg, np.negative),
    "Sign": _one(ops.sign, np.sign),
    "Ceil": _one(ops.ceil),
    "Floor": _one(ops.floor),
    "Round": _one(ops.round),
    "Exp": _one(ops.exp),
    "Log": _one(ops.log),
    "Sqrt": _one(ops.sqrt),
    "Reciprocal": _one(ops.reciprocal),
    "Sin": _one(ops.sin),
    "Cos": _one(ops.cos),
    "Erf": _one(ops.erf),
    "Tan": _one(lambda x: ops.sin(x) / ops.cos(x)),
    "Sinh": _one(lambda x: (ops.exp(x) - ops.exp(-x)) * 0.5),
    "Cosh": _one(lambda x: (ops.exp(x) + ops.exp(-x)) * 0.5),
    "Asinh": _one(_asinh),
    "Acosh": _one(_acosh),
    "Atanh": _one(lambda x: (ops.log1p(x) - ops.log1p(-x)) * 0.5),
    "Add": dual(lambda a, b: a + b, np.add),
    "Sub": dual(lambda a, b: a - b, np.subtract),
    "Mul": dual(lambda a, b: a * b, np.multiply),
    "Div": dual(lambda a, b: a / b, _divided),
    "Mod": _mod,
    "Pow": _pow,
    "Max": _variadic(ops.maximum, np.maximum),
    "Min": _variadic(ops.minimum, np.minimum),
    "Sum": _variadic(lambda a, b: a + b, np.add),
    "Mean": _mean,
    "Clip": _clip,
    "Equal": _compared(np.equal),
    "Greater": _compared(np.greater),
    "GreaterOrEqual": _compared(np.greater_equal),
    "Less": _compared(np.less),
    "LessOrEqual": _compared(np.less_equal),
    "And": _truths(np.logical_and),
    "Or": _truths(np.logical_or),
    "Xor": _truths(np.logical_xor),
    "Not": _truths(np.logical_not),
    "BitwiseAnd": _truths(np.bitwise_and),
    "BitwiseOr": _truths(np.bitwise_or),
    "BitwiseXor": _truths(np.bitwise_xor),
    "BitwiseNot": _truths(np.bitwise_not),
    "BitShift": _shifted,
    "IsNaN": _truths(np.isnan),
    "IsInf": _is_inf,
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Identity": lambda node, x: x,
    "Dropout": _dropout,
    "Relu": _one(ops.relu, lambda x: np.maximum(x, 0)),
    "LeakyRelu": lambda node, x: ops.leaky_relu(x, node.get("alpha", 0.01)),
    "PRelu": _prelu,
    "Sigmoid": _one(ops.sigmoid),
    "Tanh": _one(ops.tanh),
    "Softplus": _one(ops.softplus),
    "Softsign": _one(lambda x: x / (ops.abs(x) + 1.0)),
    "Elu": lambda node, x: ops.elu(x, node.get("alpha", 1.0)),
    "Celu": _celu,
    "Selu": _selu,
    "Gelu": _gelu,
    "Mish": _one(lambda x: x * ops.tanh(ops.softplus(x))),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Shrink": _shrink,
    "ThresholdedRelu": _thresholded,
    "Swish": _swish,
}

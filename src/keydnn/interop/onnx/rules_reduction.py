"""Operators of ONNX that reduce along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.interop.onnx.values import Node, Rule, Value, host, ints, value


def _largest(dtype: np.dtype, sign: int) -> Any:
    """What the minimum (maximum) of nothing is."""
    if dtype.kind == "f":
        return sign * np.inf
    if dtype.kind == "b":
        return sign > 0
    return np.iinfo(dtype).max if sign > 0 else np.iinfo(dtype).min


def _reduction(of_tensors: Callable[..., Any], of_arrays: Callable[..., Any], of_nothing: Callable[[np.dtype], Any]) -> Rule:
    """``axes`` come as input or, in older versions, as attribute; without any all are reduced."""

    def rule(node: Node, x: Value, axes: Value = None) -> Value:
        chosen = ints(axes) if axes is not None else node.get("axes")
        if not chosen:
            if node.get("noop_with_empty_axes", 0):
                return _elementwise(node, x)
            chosen = range(x.ndim)
        axis = tuple(sorted({a % x.ndim for a in chosen})) if x.ndim else ()
        keep = bool(node.get("keepdims", 1))
        if x.size == 0 if isinstance(x, np.ndarray) else x.numel() == 0:
            sizes = [1 if i in axis else n for i, n in enumerate(x.shape)] if keep else [n for i, n in enumerate(x.shape) if i not in axis]
            return value(np.full(sizes, of_nothing(x.dtype), x.dtype))
        if not isinstance(x, Tensor):
            return np.asarray(of_arrays(x, axis, keep), x.dtype)
        return of_tensors(x, axis, keep) if axis else _elementwise(node, x)

    return rule


def _elementwise(node: Node, x: Value) -> Value:
    """A reduction over no axis: what is done to each element still is."""
    functions: dict[str, Callable[[Any], Any]] = {
        "ReduceL1": ops.abs,
        "ReduceL2": ops.abs,
        "ReduceLogSum": ops.log,
        "ReduceSumSquare": ops.square,
    }
    function = functions.get(node.op)
    return x if function is None or not isinstance(x, Tensor) else function(x)


def _argument(of_arrays: Callable[..., Any]) -> Rule:
    def rule(node: Node, x: Value) -> np.ndarray:
        axis, last = node.get("axis", 0) % x.ndim, node.get("select_last_index", 0)
        a = host(x)
        found = a.shape[axis] - 1 - of_arrays(np.flip(a, axis), axis) if last else of_arrays(a, axis)
        return np.asarray(np.expand_dims(found, axis) if node.get("keepdims", 1) else found, np.int64)

    return rule


def _cumsum(node: Node, x: Value, axis: Value) -> Value:
    a = int(host(axis).reshape(-1)[0]) % x.ndim
    is_reverse, is_exclusive = node.get("reverse", 0), node.get("exclusive", 0)
    if not isinstance(x, Tensor):
        x = np.flip(x, a) if is_reverse else x
        out = np.cumsum(x, a, dtype=x.dtype)
        out = out - x if is_exclusive else out
        return np.flip(out, a) if is_reverse else out
    x = ops.flip(x, a) if is_reverse else x
    out = ops.cumsum(x, axis=a)
    if is_exclusive:  # moved by one, so that no rounding is undone
        widths = tuple((1, 0) if i == a else (0, 0) for i in range(x.ndim))
        out = ops.pad(out, widths, 0.0)[(slice(None),) * a + (slice(0, x.shape[a]),)]
    return ops.flip(out, a) if is_reverse else out


def _softmax(function: Callable[..., Any]) -> Rule:
    def rule(node: Node, x: Tensor) -> Tensor:
        if node.version >= 13:
            return function(x, node.get("axis", -1))
        axis = node.get("axis", 1) % x.ndim  # older versions join the axes from this one on
        rows = int(np.prod(x.shape[:axis], dtype=np.int64))
        return function(x.reshape((rows, -1)), 1).reshape(x.shape)

    return rule


def _hardmax(node: Node, x: Tensor) -> Value:
    a, axis = host(x), node.get("axis", -1 if node.version >= 13 else 1)
    best = np.expand_dims(a.argmax(axis), axis)
    out = np.zeros_like(a)
    np.put_along_axis(out, best, 1, axis)
    return value(out)


def _lp_normalization(node: Node, x: Tensor) -> Tensor:
    axis, p = node.get("axis", -1), node.get("p", 2)
    if p not in (1, 2):
        raise node.refuse(f"p={p}")
    size = ops.sum(ops.abs(x), axis, True) if p == 1 else ops.sqrt(ops.sum(x * x, axis, True))
    is_zero = Tensor(data=host(size) == 0, dtype=np.bool_)
    return x / ops.where(is_zero, Tensor(data=np.ones(size.shape), dtype=x.dtype), size)


def _zero(dtype: np.dtype) -> int:
    return 0


REDUCTIONS: dict[str, Rule] = {
    "ReduceSum": _reduction(lambda x, a, k: ops.sum(x, a, k), lambda x, a, k: np.sum(x, a, keepdims=k), _zero),
    "ReduceMean": _reduction(lambda x, a, k: ops.mean(x, a, k), lambda x, a, k: np.mean(x, a, keepdims=k), lambda dtype: np.nan),
    "ReduceMax": _reduction(lambda x, a, k: ops.max(x, a, k), lambda x, a, k: np.max(x, a, keepdims=k), lambda dtype: _largest(dtype, -1)),
    "ReduceMin": _reduction(lambda x, a, k: ops.min(x, a, k), lambda x, a, k: np.min(x, a, keepdims=k), lambda dtype: _largest(dtype, 1)),
    "ReduceProd": _reduction(lambda x, a, k: ops.prod(x, a, k), lambda x, a, k: np.prod(x, a, keepdims=k), lambda dtype: 1),
    "ReduceL1": _reduction(lambda x, a, k: ops.sum(ops.abs(x), a, k), lambda x, a, k: np.sum(np.abs(x), a, keepdims=k), _zero),
    "ReduceL2": _reduction(lambda x, a, k: ops.sqrt(ops.sum(x * x, a, k)), lambda x, a, k: np.sqrt(np.sum(x * x, a, keepdims=k)), _zero),
    "ReduceSumSquare": _reduction(lambda x, a, k: ops.sum(x * x, a, k), lambda x, a, k: np.sum(x * x, a, keepdims=k), _zero),
    "ReduceLogSum": _reduction(
        lambda x, a, k: ops.log(ops.sum(x, a, k)), lambda x, a, k: np.log(np.sum(x, a, keepdims=k)), lambda dtype: -np.inf
    ),
    "ReduceLogSumExp": _reduction(
        lambda x, a, k: ops.logsumexp(x, a, k), lambda x, a, k: np.log(np.sum(np.exp(x), a, keepdims=k)), lambda dtype: -np.inf
    ),
    "ArgMax": _argument(np.argmax),
    "ArgMin": _argument(np.argmin),
    "CumSum": _cumsum,
    "Softmax": _softmax(ops.softmax),
    "LogSoftmax": _softmax(ops.log_softmax),
    "Hardmax": _hardmax,
    "LpNormalization": _lp_normalization,
}

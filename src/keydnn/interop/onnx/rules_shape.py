"""Operators of ONNX that move, join, cut and make arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import OnnxError
from keydnn.interop.onnx.values import Node, Rule, Value, checked_size, dtype_of, host, ints, tensors, value


def _constant(node: Node) -> Value:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if name in node.attributes:
            found = node.get(name)
            dtype = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}.get(name)
            return found if dtype is None else value(np.asarray(found, dtype))
    raise node.refuse(f"a value given as {', '.join(node.attributes)}")


def _constant_of_shape(node: Node, shape: Value) -> Value:
    fill = host(node.get("value", value(np.zeros(1, np.float32))))
    return value(np.full(checked_size(ints(shape)), fill.reshape(-1)[0], fill.dtype))


def _shape(node: Node, x: Value) -> np.ndarray:
    return np.asarray(x.shape[slice(node.get("start", 0), node.get("end"))], np.int64)


def _reshape(node: Node, x: Value, shape: Value = None) -> Value:
    wanted = ints(shape) if shape is not None else list(node.get("shape"))
    if not node.get("allowzero", 0):
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    return x.reshape(tuple(wanted)) if isinstance(x, Tensor) and x.numel() else value(host(x).reshape(wanted))


def _flatten(node: Node, x: Value) -> Value:
    axis = node.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    return x.reshape((rows, int(np.prod(x.shape[axis:], dtype=np.int64))))


def _axes(node: Node, axes: Value) -> list[int] | None:
    """The axes, which older versions have as an attribute."""
    return ints(axes) if axes is not None else node.get("axes")


def _squeeze(node: Node, x: Value, axes: Value = None) -> Value:
    chosen = _axes(node, axes)
    gone = {a % x.ndim for a in chosen} if chosen is not None else {i for i, n in enumerate(x.shape) if n == 1}
    if any(x.shape[a] != 1 for a in gone):
        raise OnnxError(f"ONNX: Squeeze of axes {sorted(gone)} of shape {x.shape}")
    return x.reshape(tuple(n for i, n in enumerate(x.shape) if i not in gone))


def _unsqueeze(node: Node, x: Value, axes: Value = None) -> Value:
    chosen = _axes(node, axes) or []
    rank = x.ndim + len(chosen)
    new, sizes = {a % rank for a in chosen}, iter(x.shape)
    return x.reshape(tuple(1 if i in new else next(sizes) for i in range(rank)))


def _transpose(node: Node, x: Value) -> Value:
    return x.transpose(*node.get("perm", range(x.ndim)[::-1])) if x.ndim else x


def _concat(node: Node, *inputs: Value) -> Value:
    axis = node.get("axis")
    checked_size([sum(math.prod(x.shape) for x in inputs)])  # loops may double what they have
    if not any(isinstance(x, Tensor) for x in inputs):
        return np.concatenate(inputs, axis)
    return ops.concat(tensors(*inputs), axis)


def _split(node: Node, x: Value, sizes: Value = None) -> Any:
    axis = node.get("axis", 0) % x.ndim
    parts = ints(sizes) if sizes is not None else node.get("split")
    if parts is None:
        count = node.get("num_outputs", node.n_outputs)
        each = -(-x.shape[axis] // count)
        parts = [max(0, min(each, x.shape[axis] - i * each)) for i in range(count)]
    edges = np.cumsum([0, *parts])
    if edges[-1] != x.shape[axis] or min(parts) < 0:
        raise OnnxError(f"ONNX: Split of {x.shape[axis]} into {parts}")
    cut = [x[(slice(None),) * axis + (slice(int(a), int(b)),)] for a, b in zip(edges, edges[1:], strict=False)]
    return tuple(cut)


def _slice(node: Node, x: Value, starts: Value = None, ends: Value = None, axes: Value = None, steps: Value = None) -> Value:
    start = ints(starts) if starts is not None else node.get("starts")
    end = ints(ends) if ends is not None else node.get("ends")
    chosen = _axes(node, axes) or list(range(len(start)))
    step = ints(steps) if steps is not None else [1] * len(start)
    key: list[Any] = [slice(None)] * x.ndim
    for a, s, e, k in zip(chosen, start, end, step, strict=True):
        n = x.shape[a]
        if k == 0:
            raise OnnxError("ONNX: Slice with a step of 0")
        low, high = (0, n) if k > 0 else (0, n - 1)
        s = min(max(s + n if s < 0 else s, low), high)
        e = min(max(e + n if e < 0 else e, low if k > 0 else -1), n)
        key[a] = slice(s, None if e < 0 else e, k)
    return x[tuple(key)]


def _gather(node: Node, x: Value, index: Value) -> Value:
    axis = node.get("axis", 0) % x.ndim
    rows = host(index)
    _check_index(rows, x.shape[axis])
    if not isinstance(x, Tensor):
        return np.take(x, rows, axis)
    rows = np.where(rows < 0, rows + x.shape[axis], rows)
    if rows.ndim == 0:
        return x[(slice(None),) * axis + (int(rows),)]
    return ops.take(x, rows, axis=axis)


def _check_index(rows: np.ndarray, n: int) -> None:
    if rows.size and not (-n <= rows.min() and rows.max() < n):
        raise OnnxError(f"ONNX: an index of {rows.min()} to {rows.max()} into {n} elements")


def _gather_elements(node: Node, x: Value, index: Value) -> Value:
    axis = node.get("axis", 0) % x.ndim
    rows = host(index)
    _check_index(rows, x.shape[axis])
    rows = np.where(rows < 0, rows + x.shape[axis], rows)
    if not isinstance(x, Tensor):
        return np.take_along_axis(x, rows, axis)
    return ops.gather(x, axis, Tensor(data=rows, dtype=np.int64))


def _gather_nd(node: Node, x: Value, index: Value) -> Value:
    rows, n = host(index), node.get("batch_dims", 0)
    if not 0 <= n < min(x.ndim, rows.ndim) or x.shape[:n] != rows.shape[:n]:
        raise OnnxError(f"ONNX: GatherND of x {x.shape} with indices {rows.shape} and batch_dims={n}")
    for i in range(rows.shape[-1]):
        _check_index(rows[..., i], x.shape[n + i])
    own = [i.reshape((*i.shape, *(1,) * (rows.ndim - 1 - n))) for i in np.indices(rows.shape[:n])]
    return x[(*own, *np.moveaxis(rows, -1, 0))]


def _scatter_elements(node: Node, x: Value, index: Value, updates: Value) -> Value:
    axis, mode = node.get("axis", 0) % x.ndim, node.get("reduction", "none")
    rows = host(index)
    _check_index(rows, x.shape[axis])
    rows = np.where(rows < 0, rows + x.shape[axis], rows)
    if mode == "add" and isinstance(x, Tensor):
        return ops.scatter_add(x, axis, Tensor(data=rows, dtype=np.int64), updates)
    place = list(np.indices(rows.shape))
    place[axis] = rows
    return _scattered(node, x, tuple(place), updates, mode)


def _scatter_nd(node: Node, x: Value, index: Value, updates: Value) -> Value:
    rows = host(index)
    for i in range(rows.shape[-1]):
        _check_index(rows[..., i], x.shape[i])
    return _scattered(node, x, tuple(np.moveaxis(rows, -1, 0)), updates, node.get("reduction", "none"))


def _scattered(node: Node, x: Value, place: Any, updates: Value, mode: str) -> Value:
    """A new array; no gradient flows."""
    functions: dict[str, Callable[..., Any]] = {"add": np.add.at, "mul": np.multiply.at, "max": np.maximum.at, "min": np.minimum.at}
    out = host(x).copy()
    if mode == "none":
        out[place] = host(updates)
    elif mode in functions:
        functions[mode](out, place, host(updates))
    else:
        raise node.refuse(f"reduction={mode!r}")
    return value(out)


def _expand(node: Node, x: Value, shape: Value) -> Value:
    sizes = checked_size(np.broadcast_shapes(x.shape, tuple(ints(shape))))
    return ops.broadcast_to(x, sizes) if isinstance(x, Tensor) else np.broadcast_to(x, sizes)


def _tile(node: Node, x: Value, repeats: Value) -> Value:
    times = ints(repeats)
    checked_size(n * k for n, k in zip(x.shape, times, strict=True))
    return ops.tile(x, tuple(times)) if isinstance(x, Tensor) else np.tile(x, times)


def _pad(node: Node, x: Value, pads: Value = None, fill: Value = None, axes: Value = None) -> Value:
    sizes = ints(pads) if pads is not None else list(node.get("pads"))
    chosen = [a % x.ndim for a in ints(axes)] if axes is not None else list(range(x.ndim))
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(chosen):
        widths[axis] = (sizes[i], sizes[i + len(chosen)])
    checked_size(n + a + b for n, (a, b) in zip(x.shape, widths, strict=True))
    key = tuple(slice(max(0, -a), n - max(0, -b)) for n, (a, b) in zip(x.shape, widths, strict=True))  # negative ones cut
    x, widths = x[key], [(max(0, a), max(0, b)) for a, b in widths]
    mode = node.get("mode", "constant")
    number = node.get("value", 0.0) if fill is None else host(fill).reshape(-1)[0]
    if mode == "constant" and isinstance(x, Tensor):
        return ops.pad(x, tuple(widths), float(number))
    if mode == "constant":
        return np.pad(x, widths, constant_values=number)
    place: Value = x  # the other modes repeat elements: by index, so that gradients flow
    for axis, width in enumerate(widths):
        if width != (0, 0):
            rows = np.pad(np.arange(place.shape[axis]), width, mode=mode)
            place = ops.take(place, rows, axis=axis) if isinstance(x, Tensor) else np.take(place, rows, axis)
    return place


def _range(node: Node, start: Value, end: Value, step: Value) -> Value:
    a, b, k = (host(v).reshape(()) for v in (start, end, step))
    if k == 0:
        raise OnnxError("ONNX: Range with a step of 0")
    count = max(int(np.ceil((float(b) - float(a)) / float(k))), 0)
    checked_size([count])
    return value((a + np.arange(count) * k).astype(a.dtype))


def _one_hot(node: Node, index: Value, depth: Value, values: Value) -> Value:
    n, pair = int(host(depth).reshape(-1)[0]), host(values)
    rows = host(index).astype(np.int64)
    axis = node.get("axis", -1) % (rows.ndim + 1)
    checked_size([*rows.shape, n])
    rows = np.expand_dims(np.where(rows < 0, rows + n, rows), axis)
    hot = np.arange(n).reshape([-1 if i == axis else 1 for i in range(rows.ndim)]) == rows
    return value(np.where(hot, pair[1], pair[0]).astype(pair.dtype))


def _trilu(node: Node, x: Value, k: Value = None) -> Value:
    offset = 0 if k is None else int(host(k).reshape(-1)[0])
    upper = node.get("upper", 1)
    if isinstance(x, Tensor) and x.numel():
        return (ops.triu if upper else ops.tril)(x, offset)
    return value((np.triu if upper else np.tril)(host(x), offset))


def _depth_to_space(node: Node, x: Value) -> Value:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    if node.get("mode", "DCR") == "DCR":
        return x.reshape((n, b, b, c // (b * b), h, w)).transpose(0, 3, 4, 1, 5, 2).reshape((n, c // (b * b), h * b, w * b))
    return x.reshape((n, c // (b * b), b, b, h, w)).transpose(0, 1, 4, 2, 5, 3).reshape((n, c // (b * b), h * b, w * b))


def _space_to_depth(node: Node, x: Value) -> Value:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    order = (0, 3, 5, 1, 2, 4) if node.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.reshape((n, c, h // b, b, w // b, b)).transpose(*order).reshape((n, c * b * b, h // b, w // b))


def _eye_like(node: Node, x: Value) -> Value:
    dtype: Any = x.dtype if node.get("dtype") is None else dtype_of(node.get("dtype"))
    rows, columns = x.shape
    return value(np.eye(rows, columns, k=node.get("k", 0), dtype=dtype))


SHAPES: dict[str, Rule] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Shape": _shape,
    "Size": lambda node, x: np.asarray(int(np.prod(x.shape, dtype=np.int64)), np.int64),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "Range": _range,
    "OneHot": _one_hot,
    "Trilu": _trilu,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "EyeLike": _eye_like,
}

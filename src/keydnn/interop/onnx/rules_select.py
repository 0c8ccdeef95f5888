"""Operators of ONNX that choose, order, place and count elements.

Which elements are chosen is found on ndarrays; the elements themselves are taken by index, so that gradients flow to them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import OnnxError
from keydnn.interop.onnx.rules_shape import SHAPES
from keydnn.interop.onnx.values import Node, Rule, Value, checked_size, dtype_of, host, ints, value


def _take(x: Value, rows: np.ndarray, axis: int) -> Value:
    """Rows of an axis."""
    return ops.take(x, rows, axis=axis) if isinstance(x, Tensor) and rows.size else value(np.take(host(x), rows, axis))


def _top(node: Node, x: Value, k: Value = None) -> tuple[Value, np.ndarray]:
    """The k largest (smallest), of equal ones the first."""
    axis, a = node.get("axis", -1) % x.ndim, host(x)
    count = node.get("k") if k is None else int(host(k).reshape(-1)[0])
    n = a.shape[axis]
    node.get("sorted", 1)  # ours are sorted always
    if not 0 <= count <= n:
        raise OnnxError(f"ONNX operator TopK {node.name!r}: {count} of {n} elements")
    if node.get("largest", 1):
        order = np.flip(n - 1 - np.argsort(np.flip(a, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(a, axis, kind="stable")
    rows = np.take(order, range(count), axis).astype(np.int64)
    if not isinstance(x, Tensor) or not rows.size:
        return value(np.take_along_axis(a, rows, axis)), rows
    return ops.gather(x, axis, Tensor(data=rows, dtype=np.int64)), rows


def _compress(node: Node, x: Value, condition: Value) -> Value:
    axis = node.get("axis")
    rows = np.flatnonzero(host(condition))
    x, axis = (x.reshape((-1,)), 0) if axis is None else (x, axis % x.ndim)
    if rows.size and rows[-1] >= x.shape[axis]:
        raise OnnxError(f"ONNX operator Compress {node.name!r}: place {rows[-1]} of {x.shape[axis]}")
    return _take(x, rows, axis)


def _nonzero(node: Node, x: Value) -> np.ndarray:
    return np.stack(np.nonzero(np.atleast_1d(host(x)))).astype(np.int64)


def _unique(node: Node, x: Value) -> tuple[Any, ...]:
    axis, a = node.get("axis"), host(x)
    found, first, inverse, counts = np.unique(a, True, True, True, axis=axis)
    if not node.get("sorted", 1):  # in the order of their first places
        order = np.argsort(first)
        rank = np.argsort(order)
        found, first, counts = np.take(found, order, 0 if axis is None else axis), first[order], counts[order]
        inverse = rank[inverse]
    return value(found), first.astype(np.int64), inverse.reshape(-1).astype(np.int64), counts.astype(np.int64)


def _reverse_sequence(node: Node, x: Value, lengths: Value) -> Value:
    """The first elements of each row turned round."""
    batch, time = node.get("batch_axis", 1), node.get("time_axis", 0)
    if {batch, time} != {0, 1}:
        raise OnnxError(f"ONNX operator ReverseSequence {node.name!r}: axes {batch} and {time}, expected 0 and 1")
    n = np.asarray(host(lengths))
    place = np.arange(x.shape[time])
    if n.size != x.shape[batch] or n.min(initial=0) < 0 or n.max(initial=0) > x.shape[time]:
        raise OnnxError(f"ONNX operator ReverseSequence {node.name!r}: lengths {n} of x {x.shape}")
    rows = np.where(place < n[:, None], n[:, None] - 1 - place, place)  # (batch, time)
    rows = rows if batch == 0 else rows.T
    rows = np.broadcast_to(rows.reshape((*rows.shape, *(1,) * (x.ndim - 2))), x.shape)
    if not isinstance(x, Tensor):
        return np.take_along_axis(x, rows, time)
    return ops.gather(x, time, Tensor(data=rows.copy(), dtype=np.int64))


def _tensor_scatter(node: Node, past: Value, update: Value, start: Value = None) -> Value:
    """``update`` written into ``past`` along an axis, from a place of its own in each sample."""
    axis, n = node.get("axis", -2) % past.ndim, past.shape
    first = np.zeros(n[0], np.int64) if start is None else host(start)
    steps = update.shape[axis]
    place = first.reshape((-1, *(1,) * (past.ndim - 1))) + np.arange(steps).reshape([-1 if i == axis else 1 for i in range(past.ndim)])
    mode = node.get("mode", "linear")
    if mode not in ("linear", "circular"):
        raise node.refuse(f"mode={mode!r}")
    place = place % n[axis] if mode == "circular" else place
    if place.size and not (0 <= place.min() and place.max() < n[axis]):
        raise OnnxError(f"ONNX operator TensorScatter {node.name!r}: places {place.min()} to {place.max()} of {n[axis]}")
    out = host(past).copy()
    np.put_along_axis(out, np.broadcast_to(place, update.shape), host(update), axis)
    return value(out)


def _unpool(node: Node, x: Value, index: Value, shape: Value = None) -> Value:
    """Each element where it was before the pooling; zeros elsewhere."""
    kernel = node.get("kernel_shape")
    rank = len(kernel)
    strides, pads = node.get("strides") or [1] * rank, node.get("pads") or [0] * (2 * rank)
    own = [(n - 1) * s + k - a - b for n, s, k, a, b in zip(x.shape[2:], strides, kernel, pads[:rank], pads[rank:], strict=True)]
    sizes = checked_size([*x.shape[:2], *own])
    wanted = sizes if shape is None else checked_size(ints(shape))
    flat, places = host(x).reshape(-1), host(index).reshape(-1)
    out = np.zeros(sizes, x.dtype)
    if places.size and not (0 <= places.min() and places.max() < out.size):
        raise OnnxError(f"ONNX operator MaxUnpool {node.name!r}: an index of {places.min()} to {places.max()} into {out.size} elements")
    out.reshape(-1)[places] = flat
    return value(np.pad(out, [(0, w - n) for n, w in zip(sizes, wanted, strict=True)]))


def _center(node: Node, x: Value, shape: Value) -> Value:
    """Cut or padded with zeros at both ends alike, the odd one at the end."""
    axes = [a % x.ndim for a in node.get("axes") or range(x.ndim)]
    key, widths = [slice(None)] * x.ndim, [(0, 0)] * x.ndim
    out = list(x.shape)
    for axis, wanted in zip(axes, ints(shape), strict=True):
        n, out[axis] = x.shape[axis], wanted
        less, more = max(n - wanted, 0), max(wanted - n, 0)
        key[axis] = slice(less // 2, n - (less - less // 2))
        widths[axis] = (more // 2, more - more // 2)
    checked_size(out)
    x = x[tuple(key)]
    return ops.pad(x, tuple(widths)) if isinstance(x, Tensor) else np.pad(x, widths)


def _cumprod(node: Node, x: Value, axis: Value) -> Value:
    a = int(host(axis).reshape(-1)[0]) % x.ndim
    if not isinstance(x, Tensor):
        x = np.flip(x, a) if node.get("reverse", 0) else x
        out = np.cumprod(x, a, dtype=x.dtype)
        if node.get("exclusive", 0):
            out = np.concatenate([np.ones_like(np.take(x, [0], a)), np.take(out, range(x.shape[a] - 1), a)], a)
        return np.flip(out, a) if node.get("reverse", 0) else out
    x = ops.flip(x, a) if node.get("reverse", 0) else x
    rows = [x[(slice(None),) * a + (i,)] for i in range(x.shape[a])]
    if node.get("exclusive", 0):
        rows = [Tensor(data=np.ones(rows[0].shape), dtype=x.dtype), *rows[:-1]]
    kept: list[Tensor] = []
    for row in rows:
        kept.append(row if not kept else kept[-1] * row)
    out = ops.stack(kept, a)
    return ops.flip(out, a) if node.get("reverse", 0) else out


def _columns_to_image(node: Node, x: Value, image: Value, block: Value) -> Value:
    """The sum of blocks (N, C * block, places) at their places; the gradient of cutting an image into blocks."""
    sizes, kernel = ints(image), ints(block)
    rank = len(sizes)
    strides, dilations = node.get("strides") or [1] * rank, node.get("dilations") or [1] * rank
    pads = node.get("pads") or [0] * (2 * rank)
    full = [n + pads[i] + pads[rank + i] for i, n in enumerate(sizes)]
    taken = [(f - d * (k - 1) - 1) // s + 1 for f, d, k, s in zip(full, dilations, kernel, strides, strict=True)]
    n, channels = x.shape[0], x.shape[1] // int(np.prod(kernel))
    checked_size([n, channels, *full])
    blocks = x.reshape((n, channels, *kernel, *taken))
    out = np.arange(int(np.prod(full))).reshape(full)  # which element of the image each element of a block is
    places = np.stack([
        out[tuple(slice(u * d, u * d + (t - 1) * s + 1, s) for u, d, t, s in zip(taps, dilations, taken, strides, strict=True))]
        for taps in np.ndindex(*kernel)
    ])  # fmt: skip
    rows = np.broadcast_to(places.reshape(-1), (n, channels, places.size)).copy()
    flat = blocks.reshape((n, channels, -1))
    empty = np.zeros((n, channels, out.size))
    cut = (slice(None), slice(None), *(slice(pads[i], pads[i] + size) for i, size in enumerate(sizes)))
    if isinstance(x, Tensor):
        y = ops.scatter_add(Tensor(data=empty, dtype=x.dtype), 2, Tensor(data=rows, dtype=np.int64), flat)
        return y.reshape((n, channels, *full))[cut]
    total = empty.astype(x.dtype)
    np.add.at(total, (*np.ogrid[:n, :channels], rows), flat)
    return total.reshape((n, channels, *full))[cut]


def _bits(node: Node, x: Value) -> Value:
    """The same bytes as another type."""
    dtype, a = dtype_of(node.get("to")), host(x)
    if dtype.itemsize != a.dtype.itemsize:
        raise OnnxError(f"ONNX operator BitCast {node.name!r}: {a.dtype} and {dtype} have different sizes")
    return value(np.array(a, order="C").view(dtype).reshape(a.shape))


def _window(of: Any) -> Rule:
    """A window function of ``size`` places, as one period of it or symmetric."""

    def rule(node: Node, size: Value) -> Value:
        n = int(host(size).reshape(-1)[0])
        checked_size([n])
        angle = np.arange(n) * (2 * np.pi / (n if node.get("periodic", 1) else n - 1))
        return value(of(angle).astype(dtype_of(node.get("output_datatype", 1))))

    return rule


def _scatter(node: Node, *inputs: Value) -> Value:
    return SHAPES["ScatterElements"](node, *inputs)


def _mel(node: Node, bins: Value, length: Value, rate: Value, low: Value, high: Value) -> Value:
    """Triangles that are even on the mel scale, (length // 2 + 1, bins)."""
    count, n, samples = (int(host(v).reshape(-1)[0]) for v in (bins, length, rate))
    lowest, highest = (float(host(v).reshape(-1)[0]) for v in (low, high))
    rows = n // 2 + 1
    checked_size([rows, count])
    mels = 2595 * np.log10(1 + np.array([lowest, highest]) / 700)
    centres = mels[0] + np.arange(count + 2) * ((mels[1] - mels[0]) / (count + 2))
    edges = ((n + 1) * (700 * (10 ** (centres / 2595) - 1)) // samples).astype(np.int64)
    found = np.zeros((rows, count))
    for i, (a, b, c) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        if not 0 <= a <= b <= c < rows:
            raise OnnxError(f"ONNX operator MelWeightMatrix {node.name!r}: edges {a}, {b}, {c} of {rows} rows")
        found[a : b + 1, i] = (np.arange(a, b + 1) - a) / (b - a) if b > a else 1.0
        found[b:c, i] = (c - np.arange(b, c)) / (c - b) if c > b else 0.0
    return value(found.astype(dtype_of(node.get("output_datatype", 1))))


SELECTION: dict[str, Rule] = {
    "TopK": _top,
    "Compress": _compress,
    "NonZero": _nonzero,
    "Unique": _unique,
    "ReverseSequence": _reverse_sequence,
    "Scatter": _scatter,
    "TensorScatter": _tensor_scatter,
    "MaxUnpool": _unpool,
    "CenterCropPad": _center,
    "CumProd": _cumprod,
    "Col2Im": _columns_to_image,
    "BitCast": _bits,
    "MelWeightMatrix": _mel,
    "HannWindow": _window(lambda t: np.sin(t / 2) ** 2),
    "HammingWindow": _window(lambda t: 25 / 46 - 21 / 46 * np.cos(t)),
    "BlackmanWindow": _window(lambda t: 0.42 - 0.5 * np.cos(t) + 0.08 * np.cos(2 * t)),
}

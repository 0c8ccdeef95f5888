"""Convolutions and pools of ONNX: geometry, and what our kernels do not have said with what they have.

Kernels take two spatial axes and the same padding on both sides.  Other paddings are put on before; one spatial axis gets a
second of size 1; a third one becomes a sum over its taps.  Pools of other kinds are maxima (sums) over the shifted inputs.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import OnnxError
from keydnn.interop.onnx.values import Node, Value, checked_size, host


@dataclass(frozen=True)
class Window:
    """Geometry of a window over spatial axes.

    Attributes:
        kernel: Sizes.
        strides: Steps.
        dilations: Distances of the taps.
        pads: (before, after) of each axis.
        out: Sizes of the output.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    out: tuple[int, ...]

    @property
    def is_plain(self) -> bool:
        """Whether the same is padded on both sides."""
        return all(a == b for a, b in self.pads)


def window_of(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Window:
    """The geometry that the attributes of a node give over spatial ``sizes``."""
    n = len(sizes)
    strides, dilations = tuple(node.get("strides") or [1] * n), tuple(node.get("dilations") or [1] * n)
    given, auto = node.get("pads") or [0] * (2 * n), node.get("auto_pad", "NOTSET")
    if min((*strides, *dilations, *kernel, 1)) < 1 or len(given) != 2 * n:
        raise OnnxError(
            f"ONNX operator {node.op} {node.name!r}: strides {strides}, dilations {dilations}, kernel {tuple(kernel)}, pads {given}"
        )
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        out = tuple(-(-size // s) for size, s in zip(sizes, strides, strict=True))
        total = [max((o - 1) * s + span - size, 0) for o, s, span, size in zip(out, strides, spans, sizes, strict=True)]
        pads = tuple((t // 2, t - t // 2) if auto == "SAME_UPPER" else (t - t // 2, t // 2) for t in total)
        return Window(tuple(kernel), strides, dilations, pads, out)
    pads = tuple((0, 0) if auto == "VALID" else (given[i], given[n + i]) for i in range(n))
    up = bool(node.get("ceil_mode", 0))
    out = tuple(_out(size, span, s, a, b, up) for size, span, s, (a, b) in zip(sizes, spans, strides, pads, strict=True))
    if min((1, *out)) < 1:
        raise OnnxError(f"ONNX operator {node.op} {node.name!r}: the window {tuple(kernel)} does not fit into {tuple(sizes)}")
    return Window(tuple(kernel), strides, dilations, pads, out)


def _out(size: int, span: int, stride: int, before: int, after: int, up: bool) -> int:
    room = size + before + after - span
    count = (-(-room // stride) if up else room // stride) + 1
    return count - 1 if up and (count - 1) * stride >= size + before else count  # a window must begin inside


def convolve(node: Node, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """``Conv`` over one, two or three spatial axes."""
    rank = x.ndim - 2
    if rank == 0 or w.ndim != x.ndim:
        raise OnnxError(f"ONNX operator Conv {node.name!r}: x {x.shape} and w {w.shape} do not belong together")
    g = window_of(node, x.shape[2:], w.shape[2:])
    groups = node.get("group", 1)
    if rank > 3:
        raise node.refuse(f"{rank} spatial axes")
    if rank == 3:
        return _convolve_3d(x, w, b, g, groups)
    if not g.is_plain:
        x = ops.pad(x, ((0, 0), (0, 0), *g.pads))
    pads = tuple(a for a, _ in g.pads) if g.is_plain else (0,) * rank
    if rank == 1:
        y = ops.conv2d(
            ops.unsqueeze(x, 2),
            ops.unsqueeze(w, 2),
            b,
            stride=(1, *g.strides),
            padding=(0, *pads),
            dilation=(1, *g.dilations),
            groups=groups,
        )
        return ops.squeeze(y, 2)
    return ops.conv2d(x, w, b, stride=g.strides, padding=pads, dilation=g.dilations, groups=groups)


def _convolve_3d(x: Tensor, w: Tensor, b: Tensor | None, g: Window, groups: int) -> Tensor:
    """A sum over the taps of the first spatial axis of convolutions over the others."""
    x = ops.pad(x, ((0, 0), (0, 0), *g.pads))
    n, depth = x.shape[0], g.out[0]
    parts = []
    for u in range(g.kernel[0]):
        start = u * g.dilations[0]
        cut = x[:, :, start : start + (depth - 1) * g.strides[0] + 1 : g.strides[0]]
        rows = cut.transpose(0, 2, 1, 3, 4).reshape((n * depth, x.shape[1], *x.shape[3:]))
        parts.append(ops.conv2d(rows, w[:, :, u], None, stride=g.strides[1:], dilation=g.dilations[1:], groups=groups))
    y = functools.reduce(lambda p, q: p + q, parts)
    y = y if b is None else y + b.reshape((-1, 1, 1))
    return y.reshape((n, depth, *y.shape[1:])).transpose(0, 2, 1, 3, 4)


def convolve_transposed(node: Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """``ConvTranspose`` over one to three spatial axes: the whole result, cut to what is wanted."""
    rank = x.ndim - 2
    if rank not in (1, 2, 3):
        raise node.refuse(f"{rank} spatial axes")
    strides, dilations = node.get("strides") or [1] * rank, node.get("dilations") or [1] * rank
    extra, auto = node.get("output_padding") or [0] * rank, node.get("auto_pad", "NOTSET")
    full = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(x.shape[2:], strides, dilations, w.shape[2:], strict=True)]
    checked_size((x.shape[0], w.shape[1] * node.get("group", 1), *full))
    wanted, given = node.get("output_shape"), node.get("pads") or [0] * (2 * rank)
    if wanted is None and auto.startswith("SAME"):
        wanted = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    if wanted is None:
        pads = [(given[i], given[rank + i]) if auto != "VALID" else (0, 0) for i in range(rank)]
    else:
        total = [size + e - o for size, e, o in zip(full, extra, wanted[-rank:], strict=True)]
        less = [max(t, 0) // 2 for t in total]
        pads = [(a, t - a) if auto == "SAME_UPPER" else (max(t, 0) - a, min(t, 0) + a) for t, a in zip(total, less, strict=True)]
    options: dict[str, Any] = {"groups": node.get("group", 1)}
    if rank == 1:
        y = ops.conv2d_transpose(ops.unsqueeze(x, 2), ops.unsqueeze(w, 2), stride=(1, *strides), dilation=(1, *dilations), **options)
        y = ops.squeeze(y, 2)
    elif rank == 3:
        y = _whole_3d(x, w, strides, dilations, options["groups"], full[0])
    else:
        y = ops.conv2d_transpose(x, w, stride=tuple(strides), dilation=tuple(dilations), **options)
    grown = tuple((max(-a, 0), max(e - b, 0)) for (a, b), e in zip(pads, extra, strict=True))
    if any(width != (0, 0) for width in grown):
        checked_size((*y.shape[:2], *(n + p + q for n, (p, q) in zip(y.shape[2:], grown, strict=True))))
        y = ops.pad(y, ((0, 0), (0, 0), *grown))
    cut = tuple(slice(max(a, 0), n - max(b - e, 0)) for n, (a, b), e in zip(y.shape[2:], pads, extra, strict=True))
    y = y[(slice(None), slice(None), *cut)]
    return y if b is None else y + b.reshape((-1, *(1,) * rank))


def _whole_3d(x: Tensor, w: Tensor, strides: Sequence[int], dilations: Sequence[int], groups: int, depth: int) -> Tensor:
    """A sum over the taps of the first spatial axis; each spreads its planes over the depth of the result."""
    n, channels, planes = x.shape[:3]
    rows = x.transpose(0, 2, 1, 3, 4).reshape((n * planes, channels, *x.shape[3:]))
    parts = []
    for u in range(w.shape[2]):
        y = ops.conv2d_transpose(rows, w[:, :, u], stride=tuple(strides[1:]), dilation=tuple(dilations[1:]), groups=groups)
        y = y.reshape((n, planes, 1, *y.shape[1:]))
        y = ops.pad(y, ((0, 0), (0, 0), (0, strides[0] - 1), *((0, 0),) * 3)).reshape((n, planes * strides[0], *y.shape[3:]))
        y, start = y[:, : (planes - 1) * strides[0] + 1], u * dilations[0]
        parts.append(ops.pad(y, ((0, 0), (start, depth - start - y.shape[1]), *((0, 0),) * 3)))
    return functools.reduce(lambda p, q: p + q, parts).transpose(0, 2, 1, 3, 4)


def _shifted(x: Tensor, g: Window, fill: float) -> list[Tensor]:
    """For each tap of the window the input it sees at every output position."""
    widths = []
    for size, k, s, d, (a, _), o in zip(x.shape[2:], g.kernel, g.strides, g.dilations, g.pads, g.out, strict=True):
        widths.append((a, max((o - 1) * s + d * (k - 1) + 1 - size - a, 0)))
    x = ops.pad(x, ((0, 0), (0, 0), *widths), fill)
    found = []
    for taps in itertools.product(*map(range, g.kernel)):
        cut = [slice(u * d, u * d + (o - 1) * s + 1, s) for u, d, o, s in zip(taps, g.dilations, g.out, g.strides, strict=True)]
        found.append(x[(slice(None), slice(None), *cut)])
    return found


def max_pool(node: Node, x: Value) -> Any:
    """``MaxPool`` over any spatial axes; the places of the maxima too if they are asked for."""
    is_integer = not isinstance(x, Tensor)
    dtype = x.dtype
    if is_integer:
        x = Tensor(data=x, dtype=np.float64)
    g = window_of(node, x.shape[2:], node.get("kernel_shape"))
    is_plain = g.is_plain and x.ndim == 4 and set(g.dilations) == {1} and not node.get("ceil_mode", 0)
    if is_plain and all(a <= k // 2 for (a, _), k in zip(g.pads, g.kernel, strict=True)):
        y = ops.maxpool2d(x, g.kernel, g.strides, tuple(a for a, _ in g.pads))
    else:
        y = functools.reduce(ops.maximum, _shifted(x, g, -np.inf))
    result = host(y).astype(dtype) if is_integer else y
    if node.n_outputs < 2:
        return result
    seen = np.stack([host(t) for t in _shifted(x, g, -np.inf)])
    order = "F" if node.get("storage_order", 0) else "C"
    numbers = np.arange(int(np.prod(x.shape[2:]))).reshape(x.shape[2:], order=order)  # type: ignore[call-overload]
    places = np.stack([host(t)[0, 0] for t in _shifted(Tensor(data=numbers[None, None], dtype=np.float64), g, 0.0)])
    taps = seen.argmax(axis=0)
    index = np.take_along_axis(places.reshape(len(places), -1), taps.reshape(-1, int(np.prod(g.out))), axis=0).reshape(taps.shape)
    base = np.arange(int(np.prod(x.shape[:2]))).reshape(x.shape[:2]) * numbers.size
    return result, (index + base.reshape((*x.shape[:2], *(1,) * len(g.out)))).astype(np.int64)


def average_pool(node: Node, x: Tensor) -> Tensor:
    """``AveragePool`` over any spatial axes."""
    g = window_of(node, x.shape[2:], node.get("kernel_shape"))
    counts_pads = bool(node.get("count_include_pad", 0))
    total = functools.reduce(lambda p, q: p + q, _shifted(x, g, 0.0))
    ones = np.ones((1, 1, *x.shape[2:]))
    if counts_pads:
        ones = np.pad(ones, ((0, 0), (0, 0), *g.pads), constant_values=1.0)
        g = Window(g.kernel, g.strides, g.dilations, tuple((0, 0) for _ in g.pads), g.out)
    count = functools.reduce(lambda p, q: p + q, _shifted(Tensor(data=ones, dtype=x.dtype), g, 0.0))
    return total / count


def lp_pool(node: Node, x: Tensor) -> Tensor:
    """``LpPool``: ``(sum |x|^p)^(1/p)`` of each window."""
    g = window_of(node, x.shape[2:], node.get("kernel_shape"))
    p = float(node.get("p", 2))
    total = functools.reduce(lambda a, b: a + b, _shifted(ops.abs(x) ** p, g, 0.0))
    return total ** (1.0 / p)


def local_response(node: Node, x: Tensor) -> Tensor:
    """``LRN``: ``x / (bias + alpha / size * sum of squares of the neighbouring channels) ** beta``."""
    size = node.get("size")
    before = (size - 1) // 2
    squares = ops.pad(x * x, ((0, 0), (before, size - 1 - before), *((0, 0),) * (x.ndim - 2)))
    total = functools.reduce(lambda p, q: p + q, [squares[:, i : i + x.shape[1]] for i in range(size)])
    return x / (total * (node.get("alpha", 1e-4) / size) + node.get("bias", 1.0)) ** node.get("beta", 0.75)

"""``AffineGrid`` and ``GridSample`` of ONNX: where the places of an image come from, and the image taken there.

An element between others is their sum with weights: 1 - |d| (linear) or the kernel of Keys (1981) with a = -0.75 (cubic) at the
distances d.  Gradients flow to the image and, where the weights depend on them, to the places.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import OnnxError
from keydnn.interop.onnx.values import Node, Rule, Value, checked_size, host, ints

A = -0.75


def _grid(node: Node, theta: Tensor, size: Value) -> Tensor:
    """Where the places of an image lie after an affine map: ``theta @ (x, y, [z,] 1)`` in coordinates of -1 to 1."""
    shape = checked_size(ints(size))[2:]
    checked_size([theta.shape[0], *shape, len(shape)])
    if node.get("align_corners", 0):
        lines = [np.linspace(-1, 1, n) for n in shape]
    else:
        lines = [(2 * np.arange(n) + 1) / n - 1 for n in shape]
    places = np.stack([*reversed(np.meshgrid(*lines, indexing="ij")), np.ones(shape)], axis=-1)
    flat = Tensor(data=places.reshape(-1, len(shape) + 1).T.copy(), dtype=theta.dtype)
    return ops.matmul(theta, flat).transpose(0, 2, 1).reshape((theta.shape[0], *shape, len(shape)))


def _reflected(x: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """x thrown back at both ends, and 1 or -1: the derivative."""
    span = high - low
    if span <= 0:
        return np.full_like(x, low), np.zeros_like(x)
    turn = np.mod(x - low, 2 * span)
    is_back = turn > span
    return low + np.where(is_back, 2 * span - turn, turn), np.where(is_back, -1.0, 1.0)


def _placed(place: Tensor, n: int, ends: tuple[float, float], mode: str) -> Tensor:
    """Places outside brought inside; for zeros they stay."""
    if mode == "border":
        return ops.minimum(ops.maximum(place, 0.0), float(n - 1))
    if mode == "reflection":
        x = host(place)
        inside, slope = _reflected(x, *ends)
        change = (x < ends[0]) | (x > ends[1])
        factor = np.where(change, slope, 1.0)
        return place * Tensor(data=factor, dtype=place.dtype) + Tensor(data=np.where(change, inside - factor * x, 0.0), dtype=place.dtype)
    return place


def _near(d: Tensor) -> Tensor:
    return ((A + 2) * d - (A + 3)) * d * d + 1.0


def _far(d: Tensor) -> Tensor:
    return ((A * d - 5 * A) * d + 8 * A) * d - 4 * A


def _taps(place: Tensor, mode: str) -> list[tuple[np.ndarray, Tensor | None]]:
    """Rows next to each place and how much they count; None is 1."""
    x = host(place)
    if mode == "nearest":
        return [(np.rint(x).astype(np.int64), None)]
    first = np.floor(x)
    share = place - Tensor(data=first, dtype=place.dtype)  # 0 to 1
    row = first.astype(np.int64)
    if mode == "linear":
        return [(row, 1.0 - share), (row + 1, share)]
    return [(row - 1, _far(share + 1.0)), (row, _near(share)), (row + 1, _near(1.0 - share)), (row + 2, _far(2.0 - share))]


def _row(row: np.ndarray, n: int, ends: tuple[float, float], mode: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A row inside, and for zeros whether it was."""
    if mode == "reflection":
        row = np.where((row < ends[0]) | (row > ends[1]), _reflected(row.astype(np.float64), *ends)[0], row).astype(np.int64)
    return np.clip(row, 0, n - 1), ((row >= 0) & (row < n)) if mode == "zeros" else None


def _sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(node.get("mode", "linear"), node.get("mode", "linear"))
    outside, is_aligned = node.get("padding_mode", "zeros"), bool(node.get("align_corners", 0))
    if mode not in ("nearest", "linear", "cubic") or outside not in ("zeros", "border", "reflection"):
        raise node.refuse(f"{mode} or {outside}")
    sizes, n, channels = x.shape[2:], x.shape[0], x.shape[1]
    if grid.ndim != x.ndim or grid.shape[-1] != len(sizes) or grid.shape[0] != n or 0 in sizes:
        raise OnnxError(f"ONNX operator GridSample {node.name!r}: x {x.shape} and grid {grid.shape} do not belong together")
    columns: list[list[tuple[np.ndarray, np.ndarray | None, Tensor | None]]] = []
    for i, size in enumerate(sizes):
        place = (grid[..., len(sizes) - 1 - i] + 1.0) * ((size - 1) / 2 if is_aligned else size / 2)
        place = (place if is_aligned else place - 0.5).reshape((n, -1))
        place = Tensor(data=np.rint(host(place)), dtype=place.dtype) if mode == "nearest" else place
        ends = (0.0, size - 1.0) if is_aligned else (-0.5, size - 0.5)
        taps = _taps(_placed(place, size, ends, outside), mode)
        columns.append([(*_row(row, size, ends, outside), weight) for row, weight in taps])
    flat, y = x.reshape((n, channels, -1)), None
    for corner in itertools.product(*columns):
        index: Any = np.zeros(corner[0][0].shape, np.int64)
        factor = None
        for (row, seen, weight), size in zip(corner, sizes, strict=True):
            index = index * size + row
            own: Any = weight
            if seen is not None:
                own = Tensor(data=seen, dtype=x.dtype) if own is None else own * Tensor(data=seen, dtype=x.dtype)
            factor = own if factor is None else factor if own is None else factor * own
        rows = np.broadcast_to(index[:, None], (n, channels, index.shape[1])).copy()
        part = ops.gather(flat, 2, Tensor(data=rows, dtype=np.int64))
        part = part if factor is None else part * ops.unsqueeze(factor, 1)
        y = part if y is None else y + part
    assert y is not None  # there is at least one tap
    return y.reshape((n, channels, *grid.shape[1:-1]))


GRIDS: dict[str, Rule] = {"AffineGrid": _grid, "GridSample": _sample}

"""``Resize`` of ONNX and its older form ``Upsample``: one product with a matrix of weights per axis.

Row o of the matrix of an axis says how much each of its n elements counts in element o of the result.  With the place
``x(o)`` among the elements (what ``coordinate_transformation_mode`` says):

    nearest   1 at x rounded as ``nearest_mode`` says
    linear    max(0, 1 - |i - x|) at i
    cubic     the kernel of Keys (1981) with a = ``cubic_coeff_a``

Elements beyond the ends are the outermost ones, or count nothing (``exclude_outside``).  With ``antialias`` a kernel is as much
wider as the result is smaller, and its weights are made to sum to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn import ops
from keydnn._tensor import Tensor
from keydnn.interop.onnx.errors import OnnxError
from keydnn.interop.onnx.values import Node, Rule, Value, checked_size, host, ints

ROUNDED: dict[str, Any] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class Axis:
    """One axis to be resized.

    Attributes:
        axis: Which.
        n: Its elements.
        out: Those of the result.
        scale: How much longer it becomes; ``n * scale`` need not be whole.
        start, end: The part that ``tf_crop_and_resize`` takes, of 1.
    """

    axis: int
    n: int
    out: int
    scale: float
    start: float
    end: float

    def places(self, how: str) -> np.ndarray | None:
        """Where each element of the result lies among the n; None for a mode that is not known."""
        o, n, length = np.arange(self.out, dtype=np.float64), self.n, self.n * self.scale
        half = (o + 0.5) / self.scale - 0.5
        cut = self.end - self.start
        first = self.start * (n - 1)
        single = length == 1
        found = {
            "half_pixel": half,
            "half_pixel_symmetric": half + n / 2 * (1 - self.out / length),
            "pytorch_half_pixel": half * 0 - 0.5 if single else half,
            "asymmetric": o / self.scale,
            "tf_half_pixel_for_nn": (o + 0.5) / self.scale,
            "align_corners": o * 0 if single else o * (n - 1) / (length - 1),
            "tf_crop_and_resize": o * 0 + cut * (n - 1) / 2 + first if single else o * cut * (n - 1) / (length - 1) + first,
        }
        return found.get(how)


def _linear(t: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(t))


def _cubic(a: float) -> Any:
    def kernel(t: np.ndarray) -> np.ndarray:
        t = np.abs(t)
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        return np.where(t <= 1, near, np.where(t < 2, far, 0.0))

    return kernel


def _weights(axis: Axis, x: np.ndarray, kernel: Any, support: int, is_sharp: bool, is_inside: bool) -> np.ndarray:
    """(out, n) for places x."""
    stretch = 1.0 if is_sharp else min(axis.scale, 1.0)
    reach = math.ceil(support / stretch)
    taps = np.floor(x).astype(np.int64)[:, None] + np.arange(-reach, reach + 2)
    weights = kernel((taps - x[:, None]) * stretch)
    if not is_sharp:
        weights = weights / weights.sum(axis=1, keepdims=True)
    if is_inside:
        weights = weights * ((taps >= 0) & (taps < axis.n))
        weights = weights / weights.sum(axis=1, keepdims=True)
    found = np.zeros((axis.out, axis.n))
    np.add.at(found, (np.arange(axis.out)[:, None], np.clip(taps, 0, axis.n - 1)), weights)
    return found


def _along(x: Value, matrix: np.ndarray, axis: int) -> Tensor:
    """The product of a matrix with x along an axis."""
    x = x if isinstance(x, Tensor) else Tensor(data=x, dtype=np.float64)
    order = [*(i for i in range(x.ndim) if i != axis), axis]
    back = list(np.argsort(order))
    return ops.matmul(x.transpose(*order), Tensor(data=matrix.T.copy(), dtype=x.dtype)).transpose(*back)


def _one_axis(node: Node, x: Value, axis: Axis) -> Value:
    how, mode = node.get("coordinate_transformation_mode", "half_pixel"), node.get("mode", "nearest")
    is_sharp, is_inside = not node.get("antialias", 0), bool(node.get("exclude_outside", 0))
    a, rounding = node.get("cubic_coeff_a", -0.75), node.get("nearest_mode", "round_prefer_floor")
    places = axis.places(how)
    kernels = {"linear": (_linear, 1), "cubic": (_cubic(a), 2)}
    if places is None or rounding not in ROUNDED or mode not in {"nearest", *kernels}:
        raise node.refuse(f"{how}, {mode} or {rounding}")
    if mode == "nearest":
        rows = np.clip(ROUNDED[rounding](places), 0, axis.n - 1).astype(np.int64)
        y: Value = ops.take(x, rows, axis=axis.axis) if isinstance(x, Tensor) else np.take(x, rows, axis.axis)
    else:
        y = _along(x, _weights(axis, places, *kernels[mode], is_sharp, is_inside), axis.axis)
    outside = (places < 0) | (places > axis.n - 1)
    beyond = node.get("extrapolation_value", 0.0)
    if how != "tf_crop_and_resize" or not outside.any():
        return y
    there = np.broadcast_to(outside.reshape([-1 if i == axis.axis else 1 for i in range(y.ndim)]), y.shape)
    if isinstance(y, Tensor):
        return ops.where(Tensor(data=there, dtype=np.bool_), beyond, y)
    return np.where(there, np.asarray(beyond, y.dtype), y)


def _axes(node: Node, x: Value, roi: Value, scales: Value, sizes: Value) -> list[Axis]:
    chosen = [a % x.ndim for a in node.get("axes") or range(x.ndim)]
    n = [x.shape[a] for a in chosen]
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    if sizes is not None and len(wanted := ints(sizes)) == len(chosen):
        factors = [w / size for w, size in zip(wanted, n, strict=True)]
        if policy != "stretch":
            factor = (min if policy == "not_larger" else max)(factors)
            factors, wanted = [factor] * len(n), [math.floor(factor * size + 0.5) for size in n]
    elif scales is not None and host(scales).size == len(chosen):
        factors = [float(f) for f in host(scales)]
        wanted = [math.floor(f * size) for f, size in zip(factors, n, strict=True)]
    else:
        raise OnnxError(f"ONNX operator {node.op} {node.name!r}: {len(chosen)} axes need as many scales or sizes")
    if not all(math.isfinite(f) and f > 0 for f in factors) or min(n) < 1:
        raise OnnxError(f"ONNX operator {node.op} {node.name!r}: scales {factors} of sizes {n}")
    out = list(x.shape)
    for a, w in zip(chosen, wanted, strict=True):
        out[a] = w
    checked_size(out)
    part = host(roi).reshape(2, -1) if roi is not None and host(roi).size == 2 * len(chosen) else np.array([[0.0], [1.0]]).repeat(len(n), 1)
    rows = zip(chosen, n, wanted, factors, part[0], part[1], strict=True)
    return [Axis(a, size, w, f, float(s), float(e)) for a, size, w, f, s, e in rows]


def _resize(node: Node, x: Value, roi: Value = None, scales: Value = None, sizes: Value = None) -> Value:
    if node.version < 11:  # roi was not there, and places were simple
        roi, scales = None, roi
        node.attributes.setdefault("coordinate_transformation_mode", "asymmetric")
        node.attributes.setdefault("nearest_mode", "floor")
    how = node.get("coordinate_transformation_mode", "half_pixel")
    y = x
    for axis in _axes(node, x, roi, scales, sizes):
        checked_size([axis.out, axis.n])
        if axis.n != axis.out or axis.scale != 1.0 or how == "tf_crop_and_resize":
            y = _one_axis(node, y, axis)
    return y if isinstance(y, Tensor) and isinstance(x, Tensor) else np.asarray(host(y), x.dtype)


def _upsample(node: Node, x: Value, scales: Value = None) -> Value:
    given = scales if scales is not None else np.asarray(node.get("scales"), np.float32)
    node.attributes["mode"] = {"bilinear": "linear"}.get(node.get("mode", "nearest"), node.get("mode", "nearest"))
    node.version = 10
    return _resize(node, x, given)


RESIZE: dict[str, Rule] = {"Resize": _resize, "Upsample": _upsample}

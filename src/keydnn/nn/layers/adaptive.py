"""Pools whose result has the size one asks for, whatever the size of the input.

Window i of n along an axis of length L runs from ``floor(i L / n)`` to ``ceil((i + 1) L / n)``; it is the same window along every
other axis, so the axes are reduced one after the other, the last one first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keydnn._tensor import Tensor
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import sizes
from keydnn.nn.layers.layer import Weightless
from keydnn.ops import avgpool2d, concat, maxpool2d
from keydnn.saving.registry import register_module

Pool = Callable[..., Tensor]


def _along(pool: Pool, x: Tensor, axis: int, n: int) -> Tensor:
    """x with ``axis`` reduced to n windows."""
    length = x.shape[axis]
    rest = math.prod(x.shape[axis + 1 :])
    plane = x.reshape((x.shape[0], math.prod(x.shape[1:axis]), length, rest))
    if length % n == 0:
        y = pool(plane, (length // n, 1))
    else:
        windows = [(i * length // n, -(-(i + 1) * length // n)) for i in range(n)]
        y = concat([pool(plane[:, :, start:end], (end - start, 1)) for start, end in windows], 2)
    return y.reshape((*x.shape[:axis], n, *x.shape[axis + 1 :]))


class _Adaptive(Weightless):
    """What the adaptive pools share.

    Args:
        output_size: Sizes of the result, one int for all axes or one per axis.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.
    """

    axes = 0
    _pool: Pool

    def __init__(self, output_size: int | tuple[int, ...] | list[int], dtype: Any = None) -> None:
        super().__init__(dtype)
        self.output_size = sizes("output_size", output_size, self, self.axes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *sizes) -> (N, C, *output_size)``."""
        name, pool = type(self).__name__, type(self)._pool
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a Tensor, got {type(x).__name__}")
        if x.ndim != self.axes + 2 or 0 in x.shape[1:]:
            raise ShapeError(f"{name}: expected x (N, C, {', '.join('DHW'[-self.axes :])}) with elements, got shape {x.shape}")
        if self.axes == 2 and x.shape[2] % self.output_size[0] == 0 and x.shape[3] % self.output_size[1] == 0:
            return pool(x, (x.shape[2] // self.output_size[0], x.shape[3] // self.output_size[1]))
        for axis in range(self.axes + 1, 1, -1):
            x = _along(pool, x, axis, self.output_size[axis - 2])
        return x

    def get_config(self) -> dict[str, Any]:
        """``output_size``, and ``dtype`` where one was chosen."""
        return {"output_size": list(self.output_size), **super().get_config()}


@register_module()
class AdaptiveAvgPool2d(_Adaptive):
    """Means over windows that divide the plane into ``output_size`` rows and columns as evenly as possible.

    Window i of n over H rows runs from ``floor(i H / n)`` to ``ceil((i + 1) H / n)``.

    Args:
        output_size: Rows and columns of the result, an int or a pair.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x (N, C, H, W) -> y ``(N, C, *output_size)``.

    Raises:
        ValueError: A size out of range; x is not 4-D or its planes are empty.
    """

    axes = 2
    _pool = staticmethod(avgpool2d)


@register_module()
class AdaptiveAvgPool1d(_Adaptive):
    """Means over ``output_size`` windows along the last axis; x (N, C, W) -> y (N, C, output_size); else as AdaptiveAvgPool2d."""

    axes = 1
    _pool = staticmethod(avgpool2d)


@register_module()
class AdaptiveAvgPool3d(_Adaptive):
    """Means over windows of a volume; x (N, C, D, H, W) -> y ``(N, C, *output_size)``; else as AdaptiveAvgPool2d."""

    axes = 3
    _pool = staticmethod(avgpool2d)


@register_module()
class AdaptiveMaxPool2d(_Adaptive):
    """The largest element of each window of AdaptiveAvgPool2d; of equal ones the first in row-major order gets the gradient.

    Args:
        output_size: Rows and columns of the result, an int or a pair.
        dtype: float32 or float64, to which x is cast; None keeps its dtype.

    Shapes: x (N, C, H, W) -> y ``(N, C, *output_size)``.

    Raises:
        ValueError: A size out of range; x is not 4-D or its planes are empty.
    """

    axes = 2
    _pool = staticmethod(maxpool2d)


@register_module()
class AdaptiveMaxPool1d(_Adaptive):
    """The largest of each of ``output_size`` windows along the last axis; x (N, C, W) -> y (N, C, output_size)."""

    axes = 1
    _pool = staticmethod(maxpool2d)


@register_module()
class AdaptiveMaxPool3d(_Adaptive):
    """The largest element of windows of a volume; x (N, C, D, H, W) -> y ``(N, C, *output_size)``; else as AdaptiveMaxPool2d."""

    axes = 3
    _pool = staticmethod(maxpool2d)

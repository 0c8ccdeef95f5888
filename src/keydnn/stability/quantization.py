"""Quantisers for arrays and tensors, and how much of a tensor lies at the rails of a format.

    saturation = #(x <= min or x >= max) / n        near rail = #(abs(x) >= r max(abs(min), abs(max))) / n
    underflow  = #(x != 0 and Q(x) = 0) / n         with Q the format's own rounding

For unsigned formats the lower test is ``x < 0``: an exact zero is no clipped value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.ops import quantize
from keydnn.stability.dtypes import HLSDataType
from keydnn.stability.formats import NumberFormat


def quantize_np(x: Any, dtype: Any, *, key: int = 0) -> Any:
    """``dtype(x)``, or x itself for None.

    Args:
        x: Number or array-like.
        dtype: A number format or None.
        key: What stochastic rounding draws from.

    Example:
        >>> from keydnn.stability import quantize_np
        >>> from keydnn.stability.dtypes import ap_fixed
        >>> quantize_np([0.3, 0.7], ap_fixed(4, 2)).tolist()
        [0.25, 0.5]
    """
    return x if dtype is None else dtype(x, key=key)


def quantize_tensor(x: Tensor, dtype: Any, *, ste: bool | str = True, key: int = 0) -> Tensor:
    """The values of x in a format, in x's element type; x itself for None.

    Args:
        x: float32 or float64 tensor.
        dtype: A number format or None.
        ste: True: the gradient passes unchanged, outside the rails too.  ``"clipped"``: it is 0 outside the representable
            range.  False: the result is a constant.
        key: What stochastic rounding draws from.

    Returns:
        A tensor of x's shape and dtype; its values are exactly those of ``dtype(x)``, rounded to the element type.

    Raises:
        ValueError: An unknown ``ste``.
        TypeError: x is no floating tensor.

    Example:
        >>> from keydnn.stability import quantize_tensor
        >>> from keydnn.stability.dtypes import ap_fixed
        >>> x = keydnn.tensor([0.3, 9.0], requires_grad=True)
        >>> y = quantize_tensor(x, ap_fixed(8, 4, "AP_RND", "AP_SAT"))
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([0.3125, 7.9375], [1.0, 1.0])
    """
    if ste not in (True, False, "clipped"):
        raise ValueError(f"quantize_tensor: ste must be True, False or 'clipped', got {ste!r}")
    if dtype is None:
        return x
    if not isinstance(x, Tensor) or x.dtype.kind != "f":
        raise TypeError(f"quantize_tensor: expected a floating Tensor, got {x.dtype if isinstance(x, Tensor) else type(x).__name__}")
    source = x if ste else x.detach()
    clip = dtype.value_range() if ste == "clipped" else None
    if isinstance(dtype, HLSDataType) and not dtype.is_stochastic:
        return quantize.quantize_fixed(source, clip=clip, **dtype.kernel_params)
    keys = Tensor(data=np.asarray(key, np.int64), dtype=np.int64)
    if isinstance(dtype, HLSDataType):
        return quantize.quantize_stochastic(source, keys, clip=clip, **dtype.stochastic_params)
    return quantize.quantize_with(source, keys, clip=clip, format=dtype)


@dataclass(frozen=True)
class RailStats:
    """Where the elements of a tensor lie in the range of a format; fractions of all elements."""

    min_value: float
    max_value: float
    saturation_fraction: float
    near_rail_fraction: float
    underflow_fraction: float


def rail_stats(x: Any, dtype: Any, *, near_ratio: float = 0.95, axis: int | None = None) -> RailStats:
    """Count the elements at the rails of a format, near them, and those that become zero.

    Args:
        x: Array-like or Tensor.
        dtype: A number format or None.
        near_ratio: Share of the larger rail from which on an element counts as near.
        axis: None counts all elements; an axis is counted along, and the fractions are arrays.

    Returns:
        The fractions; ``(nan, nan, 0, 0, 0)`` for an empty array or no format.

    Example:
        >>> from keydnn.stability import rail_stats
        >>> from keydnn.stability.dtypes import ap_fixed
        >>> rail_stats([0.01, 1.0, 2.5, -3.0], ap_fixed(4, 2))
        RailStats(min_value=-2.0, max_value=1.75, saturation_fraction=0.5, near_rail_fraction=0.5, underflow_fraction=0.25)
    """
    array = np.asarray(x.numpy() if isinstance(x, Tensor) else x, np.float64)
    if dtype is None or array.size == 0:
        return RailStats(math.nan, math.nan, 0.0, 0.0, 0.0)
    low, high = dtype.value_range()
    n = array.size if axis is None else array.shape[axis]
    below = array < 0 if low == 0 else array <= low
    near = np.abs(array) >= near_ratio * max(abs(low), abs(high))
    lost = (array != 0) & (dtype.rounded(array) == 0)
    fractions = [mask.sum(axis=axis) / n for mask in (below | (array >= high), near, lost)]
    return RailStats(float(low), float(high), *(fractions if axis is not None else map(float, fractions)))


def subnormal_fraction(x: Any, dtype: Any) -> float:
    """Share of elements whose value in a floating-point format is subnormal."""
    array = np.asarray(x, np.float64)
    if array.size == 0 or not isinstance(dtype, NumberFormat) or isinstance(dtype, HLSDataType):
        return 0.0
    y = np.abs(dtype.rounded(array))
    return np.count_nonzero((y > 0) & (y < getattr(dtype, "smallest_normal", 0.0))) / array.size

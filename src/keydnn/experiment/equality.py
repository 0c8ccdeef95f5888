"""Whether nested configs and states say the same; arrays by dtype, shape and every bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class _Array(Protocol):
    """Arrays and tensors of any framework."""

    def __array__(self) -> Any: ...


def same_arrays(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal dtype, shape and bits (NaN equals the same NaN)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind in "fc":
        return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
    return bool(np.array_equal(a, b))


def same_values(a: Any, b: Any) -> bool:
    """Whether two values of configs or states are the same, whatever holds them."""
    if isinstance(a, np.ndarray | np.generic) or isinstance(b, np.ndarray | np.generic):
        return isinstance(a, type(b) if isinstance(b, np.ndarray) else object) and same_arrays(np.asarray(a), np.asarray(b))
    if isinstance(a, _Array):
        return type(a) is type(b) and same_arrays(np.asarray(a), np.asarray(b))
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(same_values(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(same_values(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and (a == b or (a != a and b != b))

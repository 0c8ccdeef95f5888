"""NumPy: what the other adapters do, for plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def is_tensor(value: Any) -> bool:
    """Whether a value is an array."""
    return isinstance(value, np.ndarray)


def to_tensor(array: np.ndarray) -> np.ndarray:
    """The array itself."""
    return array


def to_numpy(tensor: Any) -> np.ndarray:
    """The array itself."""
    return tensor


def detach(tensor: np.ndarray) -> np.ndarray:
    """A copy."""
    return tensor.copy()


def concat(tensors: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays joined along axis 0."""
    return np.concatenate(list(tensors), axis=0)

"""The engine of this library: tensors in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import keydnn


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of the engine."""
    return isinstance(value, keydnn.Tensor)


def to_tensor(array: np.ndarray) -> Any:
    """A tensor with the values and dtype of an array."""
    return keydnn.tensor(array, dtype=array.dtype)


def to_numpy(tensor: Any) -> np.ndarray:
    """The values as an array on the host."""
    return tensor.detach().to_numpy()


def detach(tensor: Any) -> Any:
    """A copy without history."""
    return tensor.detach().clone()


def concat(tensors: Sequence[Any]) -> Any:
    """Tensors joined along axis 0."""
    return keydnn.concat(list(tensors), axis=0)

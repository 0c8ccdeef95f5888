"""Seeds, and small conversions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.domain.device import Device
from keydnn.random import get_deterministic, get_seed, seed, set_deterministic

__all__ = ["get_deterministic", "get_seed", "numpy_to_tensor", "one_hot", "seed", "set_deterministic"]


def one_hot(labels: Any, num_classes: int) -> np.ndarray:
    """Rows with a single 1: ``y[i, labels[i]] = 1``.

    Args:
        labels: Whole numbers from 0 to num_classes - 1, of any shape; they are flattened.
        num_classes: Columns of the result, at least 1.

    Returns:
        float32 array (n, num_classes).

    Raises:
        TypeError: A label is no whole number.
        ValueError: A label is out of range, or there are no classes.

    Example:
        >>> one_hot([2, 0], 3).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    given = np.asarray(labels).reshape(-1)
    if num_classes < 1:
        raise ValueError(f"one_hot: num_classes must be at least 1, got {num_classes}")
    if given.dtype.kind not in "fiub" or not np.all(np.mod(given, 1) == 0):
        raise TypeError(f"one_hot: labels must be whole numbers, got {given.dtype}: {given[:5].tolist()}...")
    if given.size and not (0 <= given.min() and given.max() < num_classes):
        raise ValueError(f"one_hot: labels must be from 0 to {num_classes - 1}, got {given.min()} to {given.max()}")
    rows = np.zeros((given.size, num_classes), dtype=np.float32)
    rows[np.arange(given.size), given.astype(np.int64)] = 1.0
    return rows


def numpy_to_tensor(arr: Any, device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
    """A float32 Tensor with the contents of an array (copied).

    Args:
        arr: Array-like of numbers.
        device: Device or device string; None is the cpu, with a warning.
        requires_grad: Whether gradients shall flow to it.

    Warns:
        UserWarning: No device is given.

    Example:
        >>> numpy_to_tensor(np.eye(2), "cpu").shape
        (2, 2)
    """
    if device is None:
        warnings.warn("numpy_to_tensor: no device given, using 'cpu'", UserWarning, stacklevel=2)
    return Tensor(data=np.asarray(arr), device=device, requires_grad=requires_grad, dtype=np.float32)

"""Metrics: functions ``metric(y_true, y_pred)`` of two Tensors.

They are written in operations and return a Tensor of shape (), which is read once the step is over.  ``METRICS`` has the
names that ``fit`` takes.  The value of an epoch is the mean over batches, weighted by their size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.modes import no_grad
from keydnn.domain.errors import ShapeError


def accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Share of correct predictions, float64, shape ().

    If the last dimension of ``y_pred`` is above 1, its argmax is compared with that of ``y_true`` (equal shapes) or with
    ``y_true`` taken as class indices.  Otherwise both are compared with 0.5, element by element.

    Args:
        y_true: Targets: one-hot or soft (..., C), indices (...) or (..., 1); or numbers, as many as ``y_pred`` has.
        y_pred: Predictions (..., C), or one number per row.

    Raises:
        ValueError: The shapes do not fit.

    Example:
        >>> from keydnn.training import accuracy
        >>> accuracy(keydnn.tensor([1, 0]), keydnn.tensor([[0.1, 0.9], [0.2, 0.8]])).item()
        0.5
    """
    with no_grad():
        if y_pred.ndim and y_pred.shape[-1] > 1:
            predicted = y_pred.argmax(-1)
            truth = y_true.argmax(-1) if y_true.shape == y_pred.shape else _as_indices(y_true, y_pred)
        else:
            predicted = y_pred > 0.5
            truth = (y_true if y_true.shape == y_pred.shape else _reshaped(y_true, y_pred, y_pred.shape)) > 0.5
        return (predicted.astype(np.float64) == truth.astype(np.float64)).mean()


def _as_indices(y_true: Tensor, y_pred: Tensor) -> Tensor:
    shape = y_pred.shape[:-1]
    if y_true.shape not in (shape, (*shape, 1)):
        raise ShapeError(f"accuracy: y_true {y_true.shape} fits neither the scores {y_pred.shape} nor one class index per row {shape}")
    return _reshaped(y_true, y_pred, shape)


def _reshaped(y_true: Tensor, y_pred: Tensor, shape: tuple[int, ...]) -> Tensor:
    if y_true.numel() != int(np.prod(shape)):
        raise ShapeError(f"accuracy: Shape mismatch: y_true {y_true.shape} vs y_pred {y_pred.shape}")
    return y_true.reshape(shape)


def mean_absolute_error(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Mean of ``|y_pred - y_true|``, shape ()."""
    with no_grad():
        return _difference("mae", y_true, y_pred).abs().mean()


def mean_squared_error(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Mean of ``(y_pred - y_true) ** 2``, shape ()."""
    with no_grad():
        return _difference("mse", y_true, y_pred).square().mean()


def _difference(name: str, y_true: Tensor, y_pred: Tensor) -> Tensor:
    if y_true.shape != y_pred.shape:
        raise ShapeError(f"{name}: Shape mismatch: y_true {y_true.shape} vs y_pred {y_pred.shape}")
    return y_pred - y_true


METRICS: dict[str, Callable[[Any, Any], Any]] = {
    "acc": accuracy,
    "accuracy": accuracy,
    "mae": mean_absolute_error,
    "mse": mean_squared_error,
}

"""PyTorch: tensors in and out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from keydnn.experiment.optional import need


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor; torch is not imported for the question."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_tensor(array: np.ndarray) -> Any:
    """A tensor with the values and dtype of an array, in memory of its own if the array is read-only."""
    torch = need("torch", "a torch tensor")
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def to_numpy(tensor: Any) -> np.ndarray:
    """The values as an array on the host."""
    return tensor.detach().cpu().numpy()


def detach(tensor: Any) -> Any:
    """A copy without history."""
    return tensor.detach().clone()


def concat(tensors: Sequence[Any]) -> Any:
    """Tensors joined along axis 0."""
    return need("torch", "joining torch tensors").cat(list(tensors), dim=0)

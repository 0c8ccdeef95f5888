"""TensorFlow: tensors in and out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from keydnn.experiment.optional import need


def is_tensor(value: Any) -> bool:
    """Whether a value is a TensorFlow tensor or variable; TensorFlow is not imported for the question."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(value, tensorflow.Tensor | tensorflow.Variable)


def to_tensor(array: np.ndarray) -> Any:
    """A tensor with the values and dtype of an array."""
    return need("tensorflow", "a TensorFlow tensor").convert_to_tensor(array)


def to_numpy(tensor: Any) -> np.ndarray:
    """The values as an array on the host."""
    return tensor.numpy()


def detach(tensor: Any) -> Any:
    """A copy without history."""
    tensorflow = need("tensorflow", "a TensorFlow tensor")
    return tensorflow.identity(tensorflow.stop_gradient(tensor))


def concat(tensors: Sequence[Any]) -> Any:
    """Tensors joined along axis 0."""
    return need("tensorflow", "joining TensorFlow tensors").concat(list(tensors), axis=0)

"""Tensors of any framework, through one small face per framework."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend

ADAPTERS = {  # a backend -> the file that knows its tensors
    Backend.NUMPY: "keydnn.experiment.backends.numpy",
    Backend.SCIKIT: "keydnn.experiment.backends.scikit",
    Backend.NONE: "keydnn.experiment.backends.numpy",
    Backend.TORCH: "keydnn.experiment.backends.torch",
    Backend.TENSORFLOW: "keydnn.experiment.backends.tensorflow",
    Backend.KEYDNN: "keydnn.experiment.backends.keydnn",
}
_TENSOR_BACKENDS = (Backend.NUMPY, Backend.TORCH, Backend.KEYDNN, Backend.TENSORFLOW)


_OWNERS: dict[type, Backend] = {}  # type of a tensor -> whose it is, as far as it was asked


@functools.cache
def adapter(backend: Backend) -> ModuleType:
    """The adapter of a backend."""
    return importlib.import_module(ADAPTERS[backend])


def backend_of(value: Any) -> Backend:
    """Whose tensor a value is.

    Raises:
        TypeError: Nobody's.
    """
    known = _OWNERS.get(type(value))
    if known is not None:
        return known
    for backend in _TENSOR_BACKENDS:
        if adapter(backend).is_tensor(value):
            _OWNERS[type(value)] = backend
            return backend
    raise TypeError(f"a tensor of NumPy, torch, TensorFlow or keydnn is expected, got {type(value).__name__}")


def owner_of(value: Any) -> Backend | None:
    """Whose tensor a value is; None if it is none."""
    return _OWNERS.get(type(value)) or (backend_of(value) if is_tensor(value) else None)


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of any framework."""
    return type(value) in _OWNERS or any(adapter(backend).is_tensor(value) for backend in _TENSOR_BACKENDS)


def to_numpy(value: Any) -> np.ndarray:
    """Any tensor, or anything array-like, as an array."""
    for backend in _TENSOR_BACKENDS:
        if adapter(backend).is_tensor(value):
            return adapter(backend).to_numpy(value)
    return np.asarray(value)


def to_backend(value: Any, backend: Backend) -> Any:
    """A tensor as a tensor of another framework: float32 there, integers and booleans as they are.

    Raises:
        TypeError: Text, which no framework holds.
        ImportError: The framework is not installed.
    """
    if _OWNERS.get(type(value)) is backend:
        return value
    goal = adapter(backend)
    if goal.is_tensor(value):
        if backend in _TENSOR_BACKENDS:
            _OWNERS[type(value)] = backend
        return value
    array = to_numpy(value)
    if goal.is_tensor(array):
        return array
    return goal.to_tensor(for_framework(array))


def for_framework(array: np.ndarray) -> np.ndarray:
    """An array as frameworks take it: floats as float32.

    Raises:
        TypeError: Text or other objects.
    """
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"values of dtype {array.dtype} cannot become a tensor: encode text as integers first, for example with encode_labels(key)"
        )
    return array.astype(np.float32) if array.dtype.kind == "f" and array.dtype != np.float32 else array


def with_reduction(cls: Callable[..., Any], reduction: str | None, kwargs: Mapping[str, Any]) -> Any:
    """A loss of a class, told the reduction if its constructor takes one."""
    taken = inspect.signature(cls).parameters
    takes = "reduction" in taken or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    return cls(**{**({"reduction": reduction} if takes else {}), **kwargs})


def detach(value: Any) -> Any:
    """A copy without history."""
    return adapter(_OWNERS.get(type(value)) or backend_of(value)).detach(value)


def concat(values: Sequence[Any], backend: Backend | None = None, axis: int = 0) -> Any:
    """Tensors joined along an axis, in ``backend`` or, with None, in their own framework (NumPy if they are mixed)."""
    if backend is None:
        owners = {backend_of(value) for value in values}
        backend = owners.pop() if len(owners) == 1 else Backend.NUMPY
    return adapter(backend).concat([to_backend(value, backend) for value in values], axis)

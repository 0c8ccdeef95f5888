"""What all streaming metrics share: named counts, how they are reset, saved and put back."""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.modes import no_grad
from keydnn.autograd.primitive import bind
from keydnn.domain.errors import ShapeError
from keydnn.ops import inplace


class StreamingMetric:
    """Base of the metrics over many batches; a subclass writes :meth:`update` and :meth:`result`.

    A subclass with ``in_step = True`` writes ``update`` in operations on Tensors and keeps its counts in :meth:`count`: it then
    becomes part of recorded steps.  Any other runs after each step, on Tensors that hold copies; what it remembers beside
    counts it resets, saves and restores itself (:meth:`reset`, :meth:`get_state`, :meth:`set_state`).

    Attributes:
        name: The name in the logs.
        in_step: Whether ``update`` may be recorded.
        is_number: Whether ``result`` is one number; other results are not logged.

    Example:
        >>> from keydnn.training.streaming import StreamingMetric
        >>> class Largest(StreamingMetric):
        ...     name, in_step = "largest", True
        ...
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.top = self.count("top")
        ...
        ...     def update(self, y_true, y_pred):
        ...         self.write(self.top, keydnn.ops.maximum(self.top, y_pred.abs().max().astype("float64")))
        ...
        ...     def result(self):
        ...         return self.top.item()
        >>> largest = Largest()
        >>> largest.update(None, keydnn.tensor([1.0, -3.0]))
        >>> largest.result()
        3.0
    """

    name: str = "metric"
    in_step: bool = False
    is_number: bool = True

    def __init__(self) -> None:
        self._counts: dict[str, Tensor] = {}

    def update(self, y_true: Any, y_pred: Any) -> None:
        """Count one batch."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def result(self) -> Any:
        """The value over all batches since the last reset."""
        raise NotImplementedError(f"{type(self).__name__} has no result")

    def count(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """A new count of a given name: zeros, float64."""
        self._counts[name] = Tensor(data=np.zeros(shape), dtype=np.float64)
        return self._counts[name]

    @staticmethod
    def add(count: Tensor, value: Tensor | float) -> None:
        """``count += value``, in the step."""
        with no_grad():
            if isinstance(value, Tensor):
                bind(inplace.add_, (count, value))
            else:
                bind(inplace.add_, (count,), {"c": value})

    @staticmethod
    def write(count: Tensor, value: Tensor) -> None:
        """``count = value``, in the step."""
        with no_grad():
            bind(inplace.assign_, (count, value))

    def reset(self) -> None:
        """Forget all batches."""
        for count in self._counts.values():
            count.fill(0.0)

    def get_state(self) -> dict[str, Any]:
        """What :meth:`set_state` needs: the counts by name."""
        return {name: count.numpy() for name, count in self._counts.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`.

        Raises:
            KeyError: A count is missing.
            ValueError: A count has another shape.
        """
        arrays = {name: np.asarray(state[name]) for name in self._counts}
        for name, count in self._counts.items():
            if arrays[name].shape != count.shape:
                raise ShapeError(f"{type(self).__name__}: {name} has shape {count.shape}, the saved one {arrays[name].shape}")
        for name, count in self._counts.items():
            count.copy_from_numpy(arrays[name])


def tensor_of(value: Any) -> Tensor:
    """A Tensor as it is, anything else as a float64 one."""
    return value if isinstance(value, Tensor) else Tensor(data=np.asarray(value, np.float64), dtype=np.float64)


def same_shape(name: str, y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
    """Both as float64 Tensors.

    Raises:
        ValueError: The shapes differ.
    """
    truth, predicted = tensor_of(y_true), tensor_of(y_pred)
    if truth.shape != predicted.shape:
        raise ShapeError(f"{name}: Shape mismatch: y_true {truth.shape} vs y_pred {predicted.shape}")
    return truth.astype(np.float64), predicted.astype(np.float64)


def ratio(a: Any, b: Any) -> Any:
    """``a / b``, 0 where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.divide(a, b, out=np.zeros(b.shape), where=b != 0)

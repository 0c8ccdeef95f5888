"""Scalars on their way to the host: those on a device travel together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter, backend_of, owner_of


def is_on_host(tensor: Any) -> bool:
    """Whether reading a scalar tensor waits for nobody."""
    device = getattr(tensor, "device", None)
    return device is None or "cpu" in str(device).lower()


def number(value: Any) -> float:
    """A number or a scalar tensor on the host as a float."""
    return float(value.reshape(()) if isinstance(value, np.ndarray) else value)


def on_host(values: Sequence[Any]) -> NDArray[np.float64]:
    """Numbers and scalar tensors as one array; tensors on a device are moved in one piece.

    Raises:
        TypeError: Something else.
        ValueError: A tensor of several elements.
    """
    if len(values) > 1 and owner_of(values[0]) is Backend.TORCH:
        together: NDArray[np.float64] | None = adapter(Backend.TORCH).scalars(values)
        if together is not None:
            return together
    found = np.empty(len(values), np.float64)
    waiting: dict[Backend, list[int]] = {}
    near: dict[Any, bool] = {}
    for i, value in enumerate(values):
        device = getattr(value, "device", None)
        if device not in near:
            near[device] = is_on_host(value)
        if near[device]:
            found[i] = number(value)
        else:
            waiting.setdefault(backend_of(value), []).append(i)
    for backend, places in waiting.items():
        found[places] = _moved([values[i] for i in places], backend)
    return found


def _moved(tensors: Sequence[Any], backend: Backend) -> NDArray[Any]:
    face = adapter(backend)
    flat = [face.reshape(face.cut(tensor), (1,)) for tensor in tensors]
    moved: NDArray[Any] = face.to_numpy(flat[0] if len(flat) == 1 else face.concat(flat)).astype(np.float64)
    return moved

"""Scalars on their way to the host: many of one framework travel together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter, backend_of

_PLAIN = (Backend.NUMPY, Backend.SCIKIT, Backend.NONE)


def on_host(values: Sequence[Any]) -> NDArray[np.float64]:
    """Numbers and scalar tensors as one array; tensors of one framework are moved in one piece.

    Raises:
        TypeError: Something else.
        ValueError: A tensor of several elements.
    """
    found = np.empty(len(values), np.float64)
    waiting: dict[Backend, list[int]] = {}
    for i, value in enumerate(values):
        if isinstance(value, int | float | np.number | np.bool_):
            found[i] = value
        else:
            waiting.setdefault(backend_of(value), []).append(i)
    for backend, places in waiting.items():
        found[places] = _moved([values[i] for i in places], backend)
    return found


def _moved(tensors: Sequence[Any], backend: Backend) -> NDArray[Any]:
    if backend in _PLAIN:
        return np.array([np.asarray(tensor).reshape(()) for tensor in tensors], np.float64)
    face = adapter(backend)
    flat = [face.reshape(face.cut(tensor), (1,)) for tensor in tensors]
    return face.to_numpy(flat[0] if len(flat) == 1 else face.concat(flat)).astype(np.float64)

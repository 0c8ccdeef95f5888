"""Random states as plain values for files, and back; those of a framework that is not installed here are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter, to_numpy
from keydnn.experiment.errors import ArtifactError
from keydnn.experiment.optional import is_installed
from keydnn.experiment.random_states import RandomStates

_PACKAGES = {Backend.TORCH: "torch", Backend.TENSORFLOW: "tensorflow"}


def told_states(states: RandomStates) -> dict[str, Any]:
    """Name of a backend to its state: JSON values, tuples and arrays.

    Example:
        >>> from keydnn.experiment import random_states
        >>> from keydnn.experiment.random_files import states_of, told_states
        >>> told = told_states(random_states.captured())
        >>> drawn = np.random.rand()
        >>> random_states.restore(states_of(told))
        >>> np.random.rand() == drawn
        True
    """
    return {backend.value: _plain(state) if backend is Backend.TORCH else state for backend, state in states.items()}


def states_of(told: Mapping[str, Any]) -> RandomStates:
    """What :func:`told_states` told.

    Raises:
        ArtifactError: A backend that is not known.
    """
    found: RandomStates = {}
    for name, state in told.items():
        if name not in {backend.value for backend in Backend}:
            raise ArtifactError(f"random states of an unknown backend {name!r}")
        backend = Backend.from_value(name)
        if is_installed(_PACKAGES.get(backend, "numpy")):
            found[backend] = _tensors(state) if backend is Backend.TORCH else state
    return found


def _plain(state: Any) -> Any:
    processor, devices = state
    return to_numpy(processor), [to_numpy(one) for one in devices]


def _tensors(state: Any) -> Any:
    processor, devices = state
    make = adapter(Backend.TORCH).to_tensor
    return make(np.array(processor)), [make(np.array(one)) for one in devices]

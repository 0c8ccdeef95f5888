"""Building: the forward pass in which lazy layers make their parameters, and what is undone if it fails.

A layer is lazy if it has an attribute ``is_built``; while that is false it has no parameters.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.domain.device import as_device
from keydnn.nn.module import Module


class _Building(threading.local):
    active = False


_state = _Building()


def is_building() -> bool:
    """Whether this thread is inside :func:`building`, where lazy layers may be used."""
    return _state.active


class Buildable(Module):
    """A module whose ``build`` builds what stands below it; not lazy itself."""

    _is_built = False


def is_unbuilt(module: Module) -> bool:
    """Whether ``module`` is a lazy layer without parameters."""
    return not isinstance(module, Buildable) and not getattr(module, "is_built", True)


def sample_of(model: Module, x: Any, device: Any, dtype: Any) -> Tensor:
    """The batch to build with: ``x`` itself, or zeros of the shape ``x``.

    Raises:
        TypeError: ``x`` is neither Tensor nor shape.
    """
    if isinstance(x, Tensor):
        return x
    if not isinstance(x, tuple | list) or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in x):
        raise TypeError(f"{type(model).__name__}.build: expected a Tensor or a shape such as (1, 784), got {x!r:.80}")
    where = model.__dict__.get("device") if device is None else device
    return Tensor(x, as_device(where, owner=f"{type(model).__name__}.build"), dtype=dtype)


@contextlib.contextmanager
def generator_restored() -> Iterator[None]:
    """What is loaded is drawn first and then written over: those draws are not seen outside."""
    before = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(before)


@contextlib.contextmanager
def building(model: Module) -> Iterator[None]:
    """Lets lazy layers make parameters; an error takes them away again, gives the random numbers back and becomes a RuntimeError."""
    lazy = [m for m in model.modules() if is_unbuilt(m)]
    before = [
        (m, dict(m.__dict__), {k: dict(v) for k, v in m.__dict__.items() if k in ("_parameters", "_buffers", "_modules")}) for m in lazy
    ]
    random, outer = np.random.get_state(), _state.active

    def undo(kind: Any, error: BaseException | None, trace: Any) -> None:
        """Take back what was made before the error, whatever a model of the user raised."""
        if not isinstance(error, Exception):  # nothing failed, or an interrupt
            return
        for module, attributes, registries in before:
            module.__dict__.clear()
            module.__dict__.update(attributes, **registries)
            module._mark()
        np.random.set_state(random)
        raise RuntimeError(f"{type(model).__name__}.build failed: {error}") from error

    with contextlib.ExitStack() as ends:
        ends.callback(setattr, _state, "active", outer)
        ends.push(undo)
        _state.active = True
        yield

"""PyTorch: where its generators are, and the random numbers of one node."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import numpy as np

from keydnn.experiment.optional import need


def random_state() -> Any:
    """Where the generators of the processor and of the devices in use are; None before torch is imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def set_random_state(state: Any) -> None:
    """Take back :func:`random_state`."""
    torch = need("torch", "a torch generator")
    torch.set_rng_state(state[0])
    for device, inner in enumerate(state[1]):
        torch.cuda.set_rng_state(inner, device)


def seed_random(words: np.ndarray) -> None:
    """Start the generators, if torch is imported, from 32-bit words."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(int.from_bytes(words[:2].tobytes(), "little"))
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(int.from_bytes(words[2:4].tobytes(), "little"))


def draws(model: Any) -> bool:
    """Whether a forward pass may draw random numbers: some part is not one of those that are known not to."""
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return True
    kinds = {type(module) for module in model.modules()}
    return not all(kind.__module__ in _QUIET_FILES and kind.__name__ not in _DRAWING for kind in kinds)


_FILES = ("activation", "batchnorm", "container", "conv", "flatten", "linear", "normalization", "pooling")
_QUIET_FILES = tuple(f"torch.nn.modules.{file}" for file in _FILES)
_DRAWING = ("RReLU", "MultiheadAttention", "FractionalMaxPool2d", "FractionalMaxPool3d")


class OwnNumbers:
    """Generators of one node, which stand in for torch's inside a block.

    Args:
        words: 32-bit words that they start from.
    """

    def __init__(self, words: np.ndarray) -> None:
        torch = need("torch", "a torch generator")
        self._seed = int.from_bytes(words[:2].tobytes(), "little")
        self._shared, self._cuda = torch.default_generator, torch.cuda
        self._state = torch.Generator().manual_seed(self._seed).get_state()
        self._on_device: dict[int, Any] = {}
        self._device: int | None = None
        self._quiet: bool | None = None

    def forget(self) -> None:
        """Look again whether the module draws."""
        self._quiet = None

    def inside(self, model: Any) -> contextlib.AbstractContextManager[None] | None:
        """The block, for a pass through a module; None for one that does not draw."""
        if self._quiet is None:
            self._quiet = not draws(model)
        if self._quiet:
            return None
        first = next(model.parameters(), None) if self._cuda.is_initialized() else None
        self._device = first.device.index if first is not None and first.is_cuda else None
        return self

    def __enter__(self) -> None:
        self._outer = self._shared.get_state()
        self._shared.set_state(self._state)
        if self._device is not None:
            self._enter_device(self._device)

    def __exit__(self, *error: object) -> None:
        self._state = self._shared.get_state()
        self._shared.set_state(self._outer)
        if self._device is not None:
            self._on_device[self._device] = self._cuda.get_rng_state(self._device)
            self._cuda.set_rng_state(self._outer_device, self._device)

    def _enter_device(self, device: int) -> None:
        self._outer_device = self._cuda.get_rng_state(device)
        if device in self._on_device:
            self._cuda.set_rng_state(self._on_device[device], device)
        else:
            self._cuda.default_generators[device].manual_seed(self._seed)

    def get_state(self) -> dict[str, Any]:
        """Where they are, as arrays."""
        return {"cpu": self._state.numpy().copy(), "cuda": {str(device): state.numpy().copy() for device, state in self._on_device.items()}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back :meth:`get_state`."""
        tensor = need("torch", "a torch generator").tensor
        self._state = tensor(state["cpu"])
        self._on_device = {int(device): tensor(inner) for device, inner in state["cuda"].items()}

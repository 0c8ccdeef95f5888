"""Accelerator: where the tensors and models of a node stand."""

from __future__ import annotations

import re
import warnings
from typing import Any, Self

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.optional import is_installed, need

_DEVICE = re.compile(r"(cpu|mps)|(cuda|gpu)(?::(\d+))?")


class Accelerator:
    """A device, under the names that every framework has for it.

    Args:
        device: "cpu", "cuda", "cuda:N", "gpu", "gpu:N" or "mps", in any case.
        pin_memory: Whether batches pass through page-locked memory on their way to CUDA; without CUDA it means nothing.

    Raises:
        ValueError: Another device.

    Example:
        >>> from keydnn.experiment.utils import Accelerator
        >>> gpu = Accelerator(" GPU:1 ")
        >>> gpu, gpu.torch_device_str(), gpu.tf_device_str()
        (Accelerator(device='gpu:1'), 'cuda:1', '/GPU:1')
    """

    def __init__(self, device: str = "cpu", *, pin_memory: bool = False) -> None:
        name = device.strip().lower() if isinstance(device, str) else ""
        found = _DEVICE.fullmatch(name)
        if found is None:
            raise ValueError(f"unknown device {device!r}; expected cpu, cuda, cuda:N, gpu, gpu:N or mps")
        self.device = name
        self.pin_memory = bool(pin_memory)
        self._is_gpu, self._index = found[2] is not None, found[3]
        self._seen: dict[Backend, bool] = {}

    @classmethod
    def from_value(cls, value: Accelerator | str | None) -> Accelerator | None:
        """An accelerator, the one a text means, or None.

        Raises:
            TypeError: Something else.
            ValueError: An unknown device.
        """
        if value is None or isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(value)
        raise TypeError(f"an Accelerator or the name of a device is expected, got {type(value).__name__}")

    @classmethod
    def cpu(cls) -> Self:
        """The processor."""
        return cls("cpu")

    @classmethod
    def cuda(cls, index: int = 0, *, pin_memory: bool = False) -> Self:
        """An NVIDIA device."""
        return cls(f"cuda:{index}", pin_memory=pin_memory)

    @classmethod
    def gpu(cls, index: int = 0, *, pin_memory: bool = False) -> Self:
        """A graphics device."""
        return cls(f"gpu:{index}", pin_memory=pin_memory)

    @classmethod
    def mps(cls) -> Self:
        """Apple's device."""
        return cls("mps")

    def torch_device_str(self) -> str:
        """The name torch has for it."""
        return self.device.replace("gpu", "cuda")

    def tf_device_str(self) -> str:
        """The name TensorFlow has for it; "mps", which it has none for, is the processor.

        Warns:
            UserWarning: The device is "mps".
        """
        if self.device == "mps":
            warnings.warn("TensorFlow has no device 'mps': /CPU:0 is taken", stacklevel=2)
        return f"/GPU:{self.index}" if self._is_gpu else "/CPU:0"

    def keydnn_device(self) -> str:
        """The name the engine has for it: "cpu" or "cuda:N"."""
        return f"cuda:{self.index}" if self._is_gpu else "cpu"

    def is_available(self) -> bool:
        """Whether a framework of this machine can use the device: the processor always, others as torch or the engine sees them."""
        if self.device == "cpu":
            return True
        known = [Backend.TORCH] if is_installed("torch") else []
        known += [Backend.KEYDNN] if self._is_gpu else []
        return any(adapter(backend).has_device(self) for backend in known)

    def require(self, backend: Backend, label: str) -> None:
        """Refuse a device that the framework of a node does not have; looked up once.

        Raises:
            RuntimeError: It is not available; the message names node and device.
        """
        if self.device == "cpu" or not backend.needs_optimizer:
            return
        if backend not in self._seen:
            self._seen[backend] = adapter(backend).has_device(self)
        if not self._seen[backend]:
            raise RuntimeError(f"node {label!r}: device {self.device!r} is not available to {backend.value} on this machine; use 'cpu'")

    @property
    def index(self) -> int:
        """Number of the graphics device; 0 if none was given."""
        return int(self._index or 0)

    @property
    def is_gpu(self) -> bool:
        """Whether it is a graphics device under the names "cuda" and "gpu"."""
        return self._is_gpu

    def setup_torch_model(self, module: Any) -> Any:
        """A torch module, moved here."""
        return module.to(self.torch_device_str())

    def move_torch_tensor(self, t: Any) -> Any:
        """A torch tensor, here; through page-locked memory if that was asked for and the device is CUDA."""
        if self.pin_memory and self._is_gpu and t.device.type == "cpu" and self.is_available():
            return t.pin_memory().to(self.torch_device_str(), non_blocking=True)
        return t.to(self.torch_device_str())

    def tf_device_scope(self) -> Any:
        """A block in which TensorFlow works here."""
        return need("tensorflow", "a TensorFlow device").device(self.tf_device_str())

    def get_config(self) -> dict[str, Any]:
        """``device`` and ``pin_memory``."""
        return {"device": self.device, "pin_memory": self.pin_memory}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The accelerator a config describes."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Accelerator) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((self.device, self.pin_memory))

    def __repr__(self) -> str:
        return f"Accelerator(device={self.device!r}{', pin_memory=True' if self.pin_memory else ''})"

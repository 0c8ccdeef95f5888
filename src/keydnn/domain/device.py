"""Devices: where the numbers of a tensor live.

Device objects are interned: ``Device("cpu") is Device("cpu")``, so identity, equality and hash agree with
(type, index) and a device works as a fast dictionary key.
"""

from __future__ import annotations

import enum
import re
from typing import Any, ClassVar


class DeviceType(enum.Enum):
    """Kinds of device; the value is the spelling used in device strings."""

    CPU = "cpu"
    CUDA = "cuda"


class Device:
    """A device, named ``"cpu"`` or ``"cuda:<index>"``.

    Args:
        spec: The name, exactly; ``"cuda"`` without an index is refused.

    Raises:
        ValueError: The name is anything else.

    Example:
        >>> Device("cuda:1").index
        1
    """

    __slots__ = ("type", "index")
    _interned: ClassVar[dict[str, Device]] = {}
    type: DeviceType
    index: int | None

    def __new__(cls, spec: str) -> Device:
        found = cls._interned.get(spec) if isinstance(spec, str) else None
        if found is not None:
            return found
        match = re.fullmatch(r"cpu|cuda:(0|[1-9][0-9]*)", spec) if isinstance(spec, str) else None
        if match is None:
            raise ValueError(f"Invalid device '{spec}'. Expected 'cpu' or 'cuda:<index>'")
        device = super().__new__(cls)
        index = match.group(1)
        object.__setattr__(device, "type", DeviceType.CPU if index is None else DeviceType.CUDA)
        object.__setattr__(device, "index", None if index is None else int(index))
        return cls._interned.setdefault(spec, device)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Device is immutable; make a new one instead of setting {name!r}")

    def is_cpu(self) -> bool:
        """Whether this is the host."""
        return self.type is DeviceType.CPU

    def is_cuda(self) -> bool:
        """Whether this is a CUDA device."""
        return self.type is DeviceType.CUDA

    def __str__(self) -> str:
        return "cpu" if self.index is None else f"cuda:{self.index}"

    def __repr__(self) -> str:
        return f"Device('{self}')"

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Device, (str(self),)


CPU = Device("cpu")


def as_device(device: object, *, error: type[Exception] = TypeError, owner: str = "device") -> Device:
    """A Device from a Device, a device string or None (the CPU).

    Args:
        device: What the user passed.
        error: Raised for any other type (a malformed string is always ``ValueError``).
        owner: Named in the message.
    """
    if type(device) is Device:
        return device
    if device is None:
        return CPU
    if isinstance(device, str):
        return Device(device)
    raise error(f"{owner}: expected a Device, a device string such as 'cpu', or None, got {type(device).__name__}")

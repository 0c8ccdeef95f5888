"""The errors of the library.

Each derives from :class:`KeyDNNError` and from the builtin a caller would expect, so ``except ValueError`` works.
A message names what was asked, both sides of the disagreement and, where known, the mend.
"""

from __future__ import annotations


class KeyDNNError(Exception):
    """Base of all errors that only this library raises."""


class ShapeError(KeyDNNError, ValueError):
    """Shapes, ranks or axes that do not fit each other."""


class DeviceNotSupportedError(KeyDNNError, RuntimeError):
    """An operation has no implementation for a device.

    Attributes:
        op: Name of the operation.
        device: The device, as text.
    """

    def __init__(self, op: str, device: object) -> None:
        super().__init__(f"{op} is not implemented for device '{device}'.")
        self.op = op
        self.device = str(device)


class DeviceMismatchError(KeyDNNError, RuntimeError):
    """Operands live on different devices; nothing is moved silently.

    Attributes:
        device_a: Device of the first operand, as text.
        device_b: Device of the other operand, as text.
    """

    def __init__(self, device_a: object, device_b: object, op: str = "operation") -> None:
        super().__init__(f"{op}: operands live on different devices, '{device_a}' and '{device_b}'; move one with .to('{device_a}').")
        self.device_a = str(device_a)
        self.device_b = str(device_b)


class GraphError(KeyDNNError, RuntimeError):
    """The autograd graph cannot answer: a saved value was overwritten, or a rule broke its promise."""


class NotBuiltError(KeyDNNError, RuntimeError):
    """A lazy layer or model was used before its parameters exist; call ``build`` first."""


class CheckpointError(KeyDNNError, ValueError):
    """A file is no checkpoint of ours, is damaged, or does not fit the object it is loaded into."""


class MissingKeyError(CheckpointError, KeyError):
    """A checkpoint lacks an entry that the object needs."""

    __str__ = Exception.__str__  # KeyError would show the text in quotes


class WrongClassError(CheckpointError, TypeError):
    """A checkpoint holds an object of another class than the one it is loaded as."""


class MissingExtraError(KeyDNNError, ImportError):
    """Something was asked for that needs an optional package which is not installed.

    Args:
        what: What was asked for.
        package: The package it needs.
        extra: The extra of this distribution that brings it.
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs {package}; from the checkout: pip install '.[{extra}]'")

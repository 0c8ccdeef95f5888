"""Objects as bytes for another process, in memory only: importable classes by name, others by value.

What comes back names the classes that were sent by value, and the sender puts in its own.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from keydnn.experiment.optional import need

Classes = dict[tuple[str, str], type]  # module and qualified name to a class that cannot be imported


def is_importable(cls: type) -> bool:
    """Whether another process finds a class by its name, or has it anyway."""
    if cls.__module__ in ("__main__", "builtins"):
        return cls.__module__ == "builtins"
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


def packed(value: Any, classes: Classes) -> bytes:
    """The bytes of a value.

    Args:
        value: What is sent.
        classes: Classes that are sent by value are added.

    Raises:
        TypeError, PicklingError: Something in it cannot be sent.
    """

    class Pickler(need("cloudpickle", "work in other processes").Pickler):  # type: ignore[misc]
        def persistent_id(self, obj: Any) -> None:
            if isinstance(obj, type) and not is_importable(obj):
                classes[_name(obj)] = obj

    stream = io.BytesIO()
    Pickler(stream).dump(value)
    return stream.getvalue()


def unpacked(message: bytes) -> Any:
    """What :func:`packed` packed."""
    return pickle.loads(message)


def answered(value: Any) -> bytes:
    """The bytes of an answer, in which classes that cannot be imported are named only."""

    class Pickler(need("cloudpickle", "work in other processes").Pickler):  # type: ignore[misc]
        def persistent_id(self, obj: Any) -> tuple[str, str] | None:
            return _name(obj) if isinstance(obj, type) and not is_importable(obj) else None

    stream = io.BytesIO()
    Pickler(stream).dump(value)
    return stream.getvalue()


def heard(answer: bytes, classes: Mapping[tuple[str, str], type]) -> Any:
    """What :func:`answered` said, with the classes that the question sent.

    Raises:
        UnpicklingError: A class that was not sent.
    """

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, name: Any) -> type:
            if name not in classes:
                raise pickle.UnpicklingError(f"the answer holds a {name[1]} of {name[0]}, a class that only the other process knows")
            return classes[name]

    return Unpickler(io.BytesIO(answer)).load()


def check_parts(parts: Mapping[str, Any]) -> None:
    """Tell which of several parts cannot be sent, and how to mend it.

    Args:
        parts: What a part is to the part.

    Raises:
        TypeError: One of them cannot be sent.
    """
    for what, part in parts.items():
        try:
            packed(part, {})
        except (TypeError, pickle.PicklingError, AttributeError, ValueError) as error:
            culprit = next(_culprits(part), part)
            kind = f"{type(culprit).__module__}.{type(culprit).__qualname__}"
            raise TypeError(
                f"{what} cannot be sent to another process, because of a {kind} ({error}): give {kind} a __reduce__, keep it out of"
                " what is sent, or use executor='serial'"
            ) from error


def _culprits(value: Any) -> Iterator[Any]:
    """The innermost objects that cannot be sent."""
    inner: list[Any] = []
    if isinstance(value, Mapping):
        inner = list(value.values())
    elif isinstance(value, list | tuple):
        inner = list(value)
    elif not isinstance(value, type):
        inner = list(getattr(value, "__dict__", {}).values())
    for one in inner:
        try:
            packed(one, {})
        except (TypeError, pickle.PicklingError, AttributeError, ValueError, RecursionError):
            yield from _culprits(one)
    yield value


def _name(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__

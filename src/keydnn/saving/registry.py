"""The registry of classes that a config can name."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any, TypeVar

C = TypeVar("C", bound=type)

_CLASSES: dict[str, type] = {}
_NAMES: dict[type, str] = {}


def register_module(name: str | None = None) -> Callable[[C], C]:
    """Class decorator: configs may name the class by ``name`` (default: its ``__name__``).

    Raises:
        ValueError: Another class has the name.

    Example:
        >>> @register_module()
        ... class Scale:
        ...     pass
    """

    def register(cls: C) -> C:
        key = cls.__name__ if name is None else name
        known = _CLASSES.setdefault(key, cls)
        if known is not cls and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"register_module: {key!r} is taken by {known.__module__}.{known.__qualname__}")
        _CLASSES[key] = cls
        _NAMES[cls] = key
        return cls

    return register


def registered(name: str) -> Any:
    """The class registered under ``name``.

    Raises:
        ValueError: There is none; the message lists the known names.
    """
    if name not in _CLASSES:
        raise ValueError(f"unknown module type {reprlib.repr(name)}; registered: {', '.join(sorted(_CLASSES))}")
    return _CLASSES[name]


def name_of(cls: type) -> str:
    """The name that configs give the class: the one it is registered under, else its ``__name__``."""
    return _NAMES.get(cls, cls.__name__)


def registered_names() -> tuple[str, ...]:
    """All registered names, sorted."""
    return tuple(sorted(_CLASSES))

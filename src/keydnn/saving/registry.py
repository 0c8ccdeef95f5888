"""The registry of classes that a config can name."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Callable, Iterable
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
        raise ValueError(
            f"unknown module type {reprlib.repr(name)}; a class of your own needs @keydnn.register_module() and must have been imported;"
            f" registered: {', '.join(sorted(_CLASSES))}"
        )
    return _CLASSES[name]


def name_of(cls: type) -> str:
    """The name that configs give the class: the one it is registered under, else its ``__name__``."""
    return _NAMES.get(cls, cls.__name__)


def warn_of_unknown(classes: Iterable[type], stacklevel: int) -> None:
    """Warn of classes that no config can name, before a file is written that nobody could load.

    Warns:
        UserWarning: Once for all of them, with what to do.
    """
    unknown = sorted({cls.__name__ for cls in classes if name_of(cls) not in _CLASSES})
    if unknown:
        warnings.warn(
            f"{', '.join(unknown)}: not registered, so the file cannot be loaded; decorate the class with @keydnn.register_module()",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def registered_names() -> tuple[str, ...]:
    """All registered names, sorted."""
    return tuple(sorted(_CLASSES))

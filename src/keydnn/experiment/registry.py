"""Registries: names to classes, whatever the case of the letters; a class may stand there as an import string."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Registry(dict[str, Any]):
    """A dict of classes with case-insensitive keys.

    Args:
        what: What is registered, for messages.
        entries: Name to class, or to ``"package.module:Name"``, which is imported when asked for.
        is_available: Whether an import string can be followed; names that cannot are hidden.

    Example:
        >>> from keydnn.experiment.registry import Registry
        >>> shapes = Registry("shape", {"Fraction": "fractions:Fraction"})
        >>> shapes["FRACTION"].__name__
        'Fraction'
    """

    def __init__(self, what: str, entries: dict[str, Any], is_available: Callable[[str], bool] = lambda path: True) -> None:
        super().__init__(entries)
        self.what = what
        self._is_available = is_available

    def _name(self, key: object) -> str | None:
        if not isinstance(key, str):
            return None
        return next((name for name in self if name.lower() == key.lower()), None)

    def __iter__(self) -> Iterator[str]:
        return (name for name in super().__iter__() if self._visible(name))

    def _visible(self, name: str) -> bool:
        value = super().__getitem__(name)
        return not isinstance(value, str) or self._is_available(value)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return self._name(key) is not None

    def __getitem__(self, key: str) -> Any:
        name = self._name(key)
        if name is None:
            raise KeyError(f"unknown {self.what} {key!r}; known: {', '.join(sorted(self))}")
        value = super().__getitem__(name)
        if isinstance(value, str):
            module, _, attribute = value.partition(":")
            value = getattr(importlib.import_module(module), attribute)
            super().__setitem__(name, value)
        return value

    def __setitem__(self, key: str, cls: Any) -> None:
        super().__setitem__(self._name(key) or key, cls)

    def __delitem__(self, key: str) -> None:
        name = self._name(key)
        if name is None:
            raise KeyError(f"unknown {self.what} {key!r}")
        super().__delitem__(name)

    def get(self, key: str, default: Any = None) -> Any:
        """The class, or ``default``."""
        return self[key] if key in self else default

    def keys(self) -> Any:
        """The names, as they were registered."""
        return list(self)

    def values(self) -> Any:
        """The classes."""
        return [self[name] for name in self]

    def items(self) -> Any:
        """Pairs of name and class."""
        return [(name, self[name]) for name in self]

    def register(self, name: str, cls: Any) -> None:
        """Add a class.

        Raises:
            KeyError: The name is taken, ignoring case.
        """
        if name in self:
            raise KeyError(f"{self.what} {name!r} is registered already; remove it first, or choose another name")
        self[name] = cls

    def name_of(self, cls: type) -> str | None:
        """The name under which a class is registered; None if it is not."""
        path = f"{cls.__module__}:{cls.__qualname__}"
        for name in self:
            value = super().__getitem__(name)
            if value is cls or value == path or (isinstance(value, str) and value.rpartition(":")[2] == cls.__name__ and self[name] is cls):
                return name
        return None

    def described(self, config: Mapping[str, Any], called: type, base: type) -> tuple[Any, dict[str, Any]]:
        """The class that a config describes, and its arguments.

        Args:
            config: Arguments, and the name, or the class itself, under ``"<what>_name"``.
            called: The class that was asked; only the base looks at the name.
            base: The class all others derive from.

        Raises:
            ValueError: Unknown name.
        """
        arguments = dict(config)
        name = arguments.pop(f"{self.what}_name", None)
        if called is not base:
            return called, arguments
        if isinstance(name, type) and issubclass(name, base):
            return name, arguments
        if name not in self:
            raise ValueError(f"unknown {self.what} {name!r}; known: {', '.join(sorted(self))}")
        return self[name], arguments

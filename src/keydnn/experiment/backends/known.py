"""What files may name of a framework: its public classes and functions that run nothing but themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from keydnn.experiment.optional import need


def subclass_of(base: str) -> Callable[[Any], bool]:
    """A test for classes below ``"package.module:Class"``."""
    module, _, name = base.partition(":")
    return lambda value: inspect.isclass(value) and issubclass(value, getattr(need(module, base), name))


class Known:
    """Classes and functions by name, ``"<room>.<name>"``; a module is imported when one of its names is asked for.

    Args:
        rooms: Room to (module, which of its values count).
        but: Names that do not count: they run code they are given.

    Example:
        >>> from keydnn.experiment.backends.known import Known, subclass_of
        >>> known = Known({"nn": ("keydnn.nn", subclass_of("keydnn.nn:Module"))})
        >>> known.find("nn.Linear") is keydnn.nn.Linear, known.name_of(keydnn.nn.Linear), known.find("nn.sys")
        (True, 'nn.Linear', None)
    """

    def __init__(self, rooms: Mapping[str, tuple[str, Callable[[Any], bool]]], but: frozenset[str] = frozenset()) -> None:
        self._rooms, self._but = rooms, but

    def find(self, name: str) -> Any:
        """What a name means; None if it is not known."""
        room, _, own = name.rpartition(".")
        if room not in self._rooms or own in self._but or own.startswith("_"):
            return None
        module, counts = self._rooms[room]
        value = vars(need(module, name)).get(own)
        return value if value is not None and counts(value) else None

    def module_of(self, room: str) -> str:
        """The module that a room stands for."""
        return self._rooms[room][0]

    def rooms_at(self, module: str) -> list[str]:
        """The rooms that a module stands for."""
        return [room for room, (path, _) in self._rooms.items() if path == module]

    def name_of(self, value: Any) -> str | None:
        """The name of a class or function; None if it has none."""
        own = getattr(value, "__name__", "")
        return next((f"{room}.{own}" for room in self._rooms if own and self.find(f"{room}.{own}") is value), None)

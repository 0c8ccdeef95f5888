"""Names of weights, changed on the way from a file into a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

KeyMap = Mapping[str, str | None] | Callable[[str], str | None]


def renamed(state: Mapping[str, Any], key_map: KeyMap | None = None, prefix: str = "") -> dict[str, Any]:
    """``state`` under other names.

    Args:
        state: Name to anything.
        key_map: Function of a name, or a table of names; an entry of the table that ends in a dot stands for the beginning of
            names.  The result None leaves an entry out; names without an entry stay.
        prefix: Only names under it are kept, and lose it; before ``key_map``.

    Raises:
        ValueError: Two entries get one name.

    Example:
        >>> from keydnn.saving import renamed
        >>> renamed({"net.body.w": 1, "net.head.w": 2, "step": 3}, {"body.": "0.", "head.w": None}, prefix="net")
        {'0.w': 1}
    """
    start = f"{prefix}." if prefix and not prefix.endswith(".") else prefix
    inside = {name[len(start) :]: value for name, value in state.items() if name.startswith(start)}
    if key_map is None:
        return inside
    rename = key_map if callable(key_map) else lambda name: _looked_up(name, key_map)
    found: dict[str, Any] = {}
    for name, value in inside.items():
        new = rename(name)
        if new in found:
            raise ValueError(f"key_map: two entries get the name {new!r}, one of them is {name!r}")
        if new is not None:
            found[new] = value
    return found


def _looked_up(name: str, table: Mapping[str, str | None]) -> str | None:
    if name in table:
        return table[name]
    starts = [start for start in table if start.endswith(".") and name.startswith(start)]
    if not starts:
        return name
    longest = max(starts, key=len)
    new = table[longest]
    return None if new is None else new + name[len(longest) :]

"""Nested state as plain values: what a file can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def plain(value: Any, is_tensor: Callable[[Any], bool], to_array: Callable[[Any], Any]) -> Any:
    """``value`` with every tensor in its dicts, lists and tuples as an array; tuples become lists."""
    if is_tensor(value):
        return to_array(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry, is_tensor, to_array) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, is_tensor, to_array) for entry in value]
    return value

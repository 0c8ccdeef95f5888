"""The decorator that makes a primitive: a forward rule joined to the kernel tables and listed by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keydnn.autograd.primitive import Primitive
from keydnn.kernels.dispatch import tables

PRIMITIVES: dict[str, Primitive] = {}


def primitive(forward: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Decorator: ``@primitive`` or ``@primitive(broadcasts=True, ...)``; options as in :class:`Primitive`.

    Raises:
        ValueError: Another primitive has the name.
    """
    if forward is None:
        return lambda f: primitive(f, **options)
    made = Primitive(forward, tables, **options)
    if made.name in PRIMITIVES:
        raise ValueError(f"a primitive named {made.name!r} exists already")
    PRIMITIVES[made.name] = made
    return made

"""The decorator that makes a primitive: a forward rule joined to the kernel tables and listed by name."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

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


def number_of(value: Any) -> Any:
    """A Python number for Python and NumPy scalars (which never promote), else None."""
    kind = type(value)
    if kind is float or kind is int:
        return value
    if isinstance(value, np.generic):
        return None if value.dtype.kind not in "fiub" else float(value) if value.dtype.kind == "f" else value.item()
    if isinstance(value, int | float):
        return value
    return float(value) if isinstance(value, numbers.Real) else None

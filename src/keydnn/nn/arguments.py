"""Checks of constructor arguments, said once for all layers; each message names the layer and the argument."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)


def integer(name: str, value: Any, owner: object, minimum: int | None = None) -> int:
    """``value`` as an int.

    Raises:
        TypeError: It is no integer (booleans are none).
        ValueError: It is below ``minimum``.
    """
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{label(owner)}: {name} must be an int, got {value!r}")
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{label(owner)}: {name} must be an int, got {value!r}") from None
    if minimum is not None and number < minimum:
        raise ValueError(f"{label(owner)}: {name} must be at least {minimum}, got {number}")
    return number


def positive_int(name: str, value: Any, owner: object) -> int:
    """``value`` as an int of at least 1; errors as :func:`integer`."""
    return integer(name, value, owner, 1)


def pair(name: str, value: Any, owner: object, minimum: int | None = None) -> tuple[int, int]:
    """``(rows, columns)`` from one int for both, or from a tuple or list of two.

    Raises:
        TypeError: It is neither, or holds something else than ints.
        ValueError: It has another length, or an entry is below ``minimum``.
    """
    values = value if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{label(owner)}: {name} must be an int or a pair, got {value!r}")
    first, second = (integer(name, v, owner, minimum) for v in values)
    return first, second


def sizes(name: str, value: Any, owner: object, n: int, minimum: int | None = None) -> tuple[int, ...]:
    """``n`` ints from one for all, or from a tuple or list of so many; errors as :func:`pair`."""
    values = value if isinstance(value, tuple | list) else (value,) * n
    if len(values) != n:
        raise ValueError(f"{label(owner)}: {name} must be an int or {n} ints, got {value!r}")
    return tuple(integer(name, v, owner, minimum) for v in values)


def number(name: str, value: Any, owner: object) -> float:
    """``value`` as a finite float.

    Raises:
        TypeError: It is no number.
        ValueError: It is NaN or infinite.
    """
    if isinstance(value, bool | str) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{label(owner)}: {name} must be a number, got {value!r}")
    if not np.isfinite(value):
        raise ValueError(f"{label(owner)}: {name} must be finite, got {value!r}")
    return float(value)


def floating_dtype(value: Any, owner: object) -> np.dtype:
    """float32 for None, else float32 or float64.

    Raises:
        TypeError: It is anything else.
    """
    if value is None:
        return FLOAT32
    try:
        found = np.dtype(value)
    except SyntaxError as error:  # NumPy reads some texts as a language
        raise TypeError(f"{label(owner)}: dtype must be float32 or float64, got {value!r}") from error
    if found != FLOAT32 and found != FLOAT64:
        raise TypeError(f"{label(owner)}: dtype must be float32 or float64, got {found}")
    return FLOAT32 if found == FLOAT32 else FLOAT64


def label(owner: object) -> str:
    """How messages name ``owner``: the text itself, or the class of an object."""
    return owner if isinstance(owner, str) else type(owner).__name__

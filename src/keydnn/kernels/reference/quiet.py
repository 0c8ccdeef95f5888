"""IEEE arithmetic without warnings, and C-ordered results, at a price one can pay per small op.

The contract promises silence: ``log(0)`` is ``-inf`` and nothing is said.  ``with np.errstate(...)`` keeps that promise
but costs about 1 us, more than a small ufunc itself.  NumPy 2 keeps its error state in a context variable, so we make one
`contextvars.Context` with every floating-point error ignored, once, and run each ufunc in a fresh copy of it: about 0.1 us,
thread-safe, re-entrant, and without touching the state of the caller.

A ufunc's default memory order follows its operands; ``order="C"`` keeps the promise of C-contiguous results.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

_IGNORING = contextvars.Context()
_IGNORING.run(np.seterr, all="ignore")
_fresh = _IGNORING.copy


def quiet_unary(ufunc: np.ufunc) -> Callable[..., Any]:
    """A unary kernel from a ufunc: silent, C-ordered."""

    def kernel(x):  # type: ignore[no-untyped-def]
        return _fresh().run(ufunc, x, order="C")

    kernel.__name__, kernel.__doc__ = ufunc.__name__, f"NumPy's ``{ufunc.__name__}``, silent."
    return kernel


def quiet_binary(ufunc: np.ufunc) -> Callable[..., Any]:
    """A binary kernel from a ufunc: silent, C-ordered; Python numbers never promote."""

    def kernel(x, y):  # type: ignore[no-untyped-def]
        return _fresh().run(ufunc, x, y, order="C")

    kernel.__name__, kernel.__doc__ = ufunc.__name__, f"NumPy's ``{ufunc.__name__}``, silent."
    return kernel


def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a whole kernel silently; for kernels made of several NumPy calls."""

    @functools.wraps(function)
    def kernel(*args, **kwargs):  # type: ignore[no-untyped-def]
        return _fresh().run(function, *args, **kwargs)

    return kernel

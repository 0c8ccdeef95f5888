"""Families whose compiled functions are kernels themselves: they call the reference where they cannot serve."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any


def functions(native: ModuleType, reference: Any) -> dict[str, Callable[..., Any]]:
    """The rows of these families, see `keydnn.kernels.native`."""
    return native.elementwise_kernels(reference) | native.reduce_kernels(reference)

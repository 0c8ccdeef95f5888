"""Elementwise kernels over `keydnn._native`."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

_UNARY = ("relu",)
_BINARY = ("relu_grad",)


def _unary(compiled: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(x):  # type: ignore[no-untyped-def]
        y = compiled(x)
        return plain(x) if y is None else y

    return kernel


def _binary(compiled: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(x, y):  # type: ignore[no-untyped-def]
        z = compiled(x, y)
        return plain(x, y) if z is None else z

    return kernel


def functions(native: ModuleType, reference: Any) -> dict[str, Callable[..., Any]]:
    """The rows of this family, see `keydnn.kernels.native`."""
    table = {name: _unary(getattr(native, name), getattr(reference, name)) for name in _UNARY}
    return table | {name: _binary(getattr(native, name), getattr(reference, name)) for name in _BINARY}

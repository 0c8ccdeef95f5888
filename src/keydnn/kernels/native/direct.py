"""Families whose compiled functions are kernels themselves: they call the reference where they cannot serve."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from keydnn.kernels.reference.random import box_muller

FAMILIES = ("elementwise", "norm", "pool", "quantize", "random", "recurrent", "reduce", "softmax", "update")


def functions(native: ModuleType, reference: Any) -> dict[str, Callable[..., Any]]:
    """The rows of these families, see `keydnn.kernels.native`."""
    table: dict[str, Callable[..., Any]] = {}
    for family in FAMILIES:
        table |= getattr(native, f"{family}_kernels")(reference)
    uniform = table["uniform"]

    def normal(key, shape, dtype):  # type: ignore[no-untyped-def]
        n = prod(shape)
        return box_muller(uniform(key, (n + n % 2,), np.float64))[:n].astype(dtype).reshape(shape)

    return table | {"normal": normal}

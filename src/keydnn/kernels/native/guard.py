"""What stands between a caller and a compiled function: a second try with contiguous operands, then the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _contiguous(x: Any) -> Any:
    return np.require(x, x.dtype.newbyteorder("="), ("C", "A")) if isinstance(x, np.ndarray) else x


def second_try(compiled: Callable[..., Any], plain: Callable[..., Any], operands: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """The result for operands that the compiled function has refused."""
    neat = tuple(_contiguous(x) for x in operands)
    if any(new is not old for new, old in zip(neat, operands, strict=True)):
        result = compiled(*neat, **params)
        if result is not None:
            return result
    return plain(*operands, **params)


def guarded(compiled: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel that calls the compiled function, and ``plain`` where that answers None.

    Args:
        compiled: From the native module; operands and parameters as in the contract.
        plain: The reference function of the same row.
    """

    def kernel(*operands: Any, **params: Any) -> Any:
        result = compiled(*operands, **params)
        return second_try(compiled, plain, operands, params) if result is None else result

    kernel.__name__, kernel.__doc__ = plain.__name__, plain.__doc__
    return kernel

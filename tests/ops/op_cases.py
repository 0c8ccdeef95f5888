"""The op table: one row per public operation, what the harness of `test_op_cases.py` and its siblings walk.

A row says how to call the op on Tensors, which operands to try, what the result means in float64 (NumPy or plain Python,
sharing no code with the library) and, where it has the op, what PyTorch calls it.  Operands are generic points: no ties, no
kinks, so every row is differentiable twice where it stands; what happens at ties and kinks is tested by name elsewhere.
A differentiable primitive whose gradient rule no row reaches is a failing test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Maker = Callable[[np.random.Generator, Any], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One row of the op table.

    Attributes:
        name: Shown in test ids.
        op: Maps Tensors to one Tensor.
        operands: One maker per operand; integer operands carry no gradient.
        define: The result for float64 operands.
        torch: The same op on torch tensors, ``torch(torch_module, *tensors)``, or None.
        fixed: Positions of floating operands that are constants for the gradient.
        order: How often to differentiate; 0 for ops without a gradient.
        dtype: Dtype of the result; None is the promoted dtype of the floating operands.
        rtol: Relative tolerance of values, (float32, float64).
        atol: Absolute tolerance of values, (float32, float64).
        steps: eps, rtol, atol of the gradient check; None takes the defaults.
        elementwise: Operands may have any shape; with several they broadcast.
        typed: Positions of the operands whose promoted dtype the result has; None: all floating ones, (): it takes no mixture.
    """

    name: str
    op: Callable[..., Any]
    operands: tuple[Maker, ...]
    define: Callable[..., Any]
    torch: Callable[..., Any] | None = None
    fixed: tuple[int, ...] = ()
    order: int = 2
    dtype: Any = None
    rtol: tuple[float, float] = (4e-6, 1e-13)
    atol: tuple[float, float] = (4e-6, 1e-13)
    steps: tuple[float, float, float] | None = None
    elementwise: bool = False
    typed: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return self.name


def normal(*shape):
    return lambda rng, dtype: np.asarray(rng.standard_normal(shape), dtype)


def uniform(low, high, *shape):
    return lambda rng, dtype: np.asarray(rng.uniform(low, high, shape), dtype)


def positive(*shape):
    return uniform(0.3, 3.0, *shape)


def distinct(*shape):
    """Numbers of both signs, none twice, all at least 0.09 from 0 and 0.37 from each other."""
    n = int(np.prod(shape))
    return lambda rng, dtype: np.asarray(rng.permutation(((np.arange(n) - n // 2) + 0.25) * 0.37).reshape(shape), dtype)


def integers(low, high, *shape):
    return lambda rng, dtype: np.asarray(rng.integers(low, high, shape), np.int64)


def given(values, kind=None):
    return lambda rng, dtype: np.asarray(values, kind or dtype)


def cases():
    """All rows."""
    from tests.ops import elementwise_cases, layer_cases, reduction_cases, sequence_cases, shape_cases

    return [*elementwise_cases.CASES, *reduction_cases.CASES, *shape_cases.CASES, *layer_cases.CASES, *sequence_cases.CASES]

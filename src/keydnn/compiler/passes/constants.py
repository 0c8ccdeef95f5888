"""Constants: what is computed from constants alone is a constant itself, as the recording computed it.

The gradient of a mean starts with ``full(1)``, divided by a number, repeated over an axis: three ops that make the same
numbers each time.  They become one ``full`` with the number that the eager step got, and arithmetic with it takes the number
itself, so no bit changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn.compiler.elementwise import BINARY, UNARY
from keydnn.compiler.ir import Buffer, Op, Step, View, array_of
from keydnn.compiler.lower import TYPES

_FOLDED = {*BINARY, *UNARY, "broadcast_to", "copy", "cast"}


def fold_constants(step: Step) -> tuple[Step, str]:
    """The step with ops over constants as constants; what made their operands is then dead."""
    constants: dict[Buffer, float] = {}
    folded = 0
    for op in step.ops:
        if op.kernel in _FOLDED and _is_over(op, constants):
            folded += _fold(op)
        elif op.kernel in BINARY:
            op.operands = tuple([constants[v.buffer] if _is_constant(v, constants) else v for v in op.operands])
        for view in op.written():
            constants.pop(view.buffer, None)
        if op.kernel == "full" and op.results[0].dtype in TYPES:
            constants[op.results[0].buffer] = float(op.params["value"])
    return step, f"{folded} ops over constants are constants" if folded else ""


def _is_constant(operand: Any, constants: dict[Buffer, float]) -> bool:
    return isinstance(operand, View) and operand.buffer in constants and operand.version == 0


def _is_over(op: Op, constants: dict[Buffer, float]) -> bool:
    views = [operand for operand in op.operands if isinstance(operand, View)]
    return bool(views) and all(_is_constant(view, constants) for view in views)


def _fold(op: Op) -> bool:
    """Make ``op`` a constant if every element of its result is the same number; returns whether it is."""
    y = op.results[0]
    if y.dtype not in TYPES or y.size == 0 or y.buffer.version or not y.buffer.array.size:
        return False
    array = array_of(y)
    value = float(array.flat[0])
    if not np.all(array == array.flat[0]) or (value == 0 and np.signbit(array).any()):
        return False
    op.kernel, op.operands, op.params = "full", (), {"shape": y.shape, "value": value, "dtype": y.dtype}
    return True

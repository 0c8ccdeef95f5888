"""One update for all parameters: neighbouring optimizer updates with equal settings become one op over a table.

The parameters stay where they are (their arrays are the masters); the op walks a table of (p, g, m, v, t).  Each element
sees the same arithmetic, so no bit changes; many small calls become one, and large parameters share the threads.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from keydnn.compiler.ir import Op, Step, View

_MERGED = {"sgd_": "sgd_many_", "adam_": "adam_many_"}


def merge_updates(step: Step) -> tuple[Step, str]:
    """The step with each run of like updates as one op."""
    ops: list[Op] = []
    merged = 0
    for key, run in groupby(step.ops, _settings):
        members = list(run)
        if key is None or len(members) == 1:
            ops += members
        else:
            ops.append(_merge(members))
            merged += len(members)
    step.ops = ops
    return step, f"{merged} updates in one pass over a table" if merged else ""


def _settings(op: Op) -> Any:
    """What updates must share to be merged; None for other ops."""
    if op.kernel not in _MERGED:
        return None
    rate = op.operands[-1]
    present = tuple(operand is not None for operand in op.operands)
    return op.kernel, tuple(op.params.items()), rate.buffer, rate.offset, op.operands[0].dtype, present


def _merge(members: list[Op]) -> Op:
    first = members[0]
    operands: list[View] = []
    writes: list[int] = []
    for op in members:
        writes += [len(operands) + i for i in op.writes if op.operands[i] is not None]
        operands += op.operands[:-1]
    return Op(
        _MERGED[first.kernel], (*operands, first.operands[-1]), {**first.params, "count": len(members)}, (), tuple(writes), first.label
    )

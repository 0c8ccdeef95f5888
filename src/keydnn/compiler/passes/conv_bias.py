"""The bias's gradient of a convolution beside the weight's: g is read once.

    dw = conv2d_grad_w(x, g);   db = sum(g, (0, 2, 3))

becomes ``dw, db = conv2d_grad_wb(x, g)``.  Both sums run in double and are rounded once, but in another order: the last bit of
db may differ.  Only for float32, where that is rare; float64 keeps the two ops and every bit.
"""

from __future__ import annotations

import numpy as np

from keydnn.compiler.ir import Op, Step, View

_OVER_ALL_BUT_CHANNELS = (0, 2, 3)


def join_bias_gradients(step: Step) -> tuple[Step, str]:
    """The step with each such pair as one op."""
    dropped: set[int] = set()
    ops: list[Op] = []
    for i, op in enumerate(step.ops):
        total = _bias_gradient(op, step.ops[i + 1 :]) if op.kernel == "conv2d_grad_w" else None
        if total is not None:
            dropped.add(id(total))
            op = Op("conv2d_grad_wb", op.operands, op.params, (*op.results, *total.results), (), f"{op.label}+{total.label}")
        ops.append(op)
    step.ops = [op for op in ops if id(op) not in dropped]
    return step, f"{len(dropped)} bias gradients with the weight's" if dropped else ""


def _bias_gradient(grad_w: Op, later: list[Op]) -> Op | None:
    g = grad_w.operands[1]
    if g.dtype != np.float32 or not g.is_contiguous or not _stays(g):
        return None
    return next((op for op in later if op.kernel == "sum" and _is_over(op, g)), None)


def _is_over(total: Op, g: View) -> bool:
    return total.operands[0].same_place(g) and total.params["axis"] == _OVER_ALL_BUT_CHANNELS


def _stays(g: View) -> bool:
    """Whether nothing writes g after it was made."""
    return g.buffer.kind == "made" and g.buffer.version == 0

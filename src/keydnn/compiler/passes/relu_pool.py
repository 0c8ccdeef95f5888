"""relu followed by 2x2 maximum pooling: one pass forward, one pass back, one byte per window instead of positions.

    y, argmax = maxpool2d(relu(x));   dx = relu_grad(relu(x), maxpool2d_grad(g, argmax))

becomes ``y, code = relu_maxpool(x)`` and ``dx = relu_maxpool_grad(g, code)``: neither relu's result, nor the positions,
nor the gradient between the two reach memory.  The bits are those of the four ops.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keydnn.compiler.ir import Buffer, Op, Step, fresh

_PLAIN = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}


class _Match(NamedTuple):
    """The ops of one pattern; the two of the way back are None where there is no gradient."""

    relu: Op
    pool: Op
    pool_grad: Op | None
    relu_grad: Op | None


def fuse_relu_pool(step: Step) -> tuple[Step, str]:
    """The step with each such pattern as two ops."""
    readers: dict[Buffer, list[Op]] = {}
    for op in step.ops:
        for buffer in {view.buffer for view in op.reads()}:
            readers.setdefault(buffer, []).append(op)
    survivors = {view.buffer for view in step.survivors()}
    replaced: dict[int, list[Op]] = {}
    count = 0
    for op in step.ops:
        found = _match(op, readers, survivors)
        if found is not None:
            replaced |= _rewritten(found)
            count += 1
    step.ops = [new for op in step.ops for new in replaced.get(id(op), [op])]
    return step, f"{count} relu and pooling in one pass" if count else ""


def _match(relu: Op, readers: dict[Buffer, list[Op]], survivors: set[Buffer]) -> _Match | None:
    if relu.kernel != "relu":
        return None
    x, r = relu.operands[0], relu.results[0]
    if not _is_temporary(x) or not _is_temporary(r) or not x.is_contiguous or r.buffer in survivors:
        return None
    users = readers.get(r.buffer, [])
    pools = [op for op in users if op.kernel == "maxpool2d"]
    if len(pools) != 1 or pools[0].params != _PLAIN or not pools[0].operands[0].same_place(r):
        return None
    pool = pools[0]
    argmax = pool.results[1]
    if argmax.buffer in survivors:
        return None
    back = readers.get(argmax.buffer, [])
    others = [op for op in users if op is not pool]
    if not back and not others:
        return _Match(relu, pool, None, None)
    if len(back) != 1 or len(others) != 1 or back[0].kernel != "maxpool2d_grad" or others[0].kernel != "relu_grad":
        return None
    pool_grad, relu_grad = back[0], others[0]
    between = pool_grad.results[0]
    fits = relu_grad.operands[0].same_place(r) and relu_grad.operands[1].same_place(between)
    alone = readers.get(between.buffer) == [relu_grad] and between.buffer not in survivors and _is_temporary(pool_grad.operands[0])
    return _Match(relu, pool, pool_grad, relu_grad) if fits and alone and pool_grad.operands[0].is_contiguous else None


def _is_temporary(view: object) -> bool:
    """Whether a view lies in memory that the step made and wrote once."""
    buffer = view.buffer  # type: ignore[attr-defined]
    return buffer.kind == "made" and buffer.version == 0


def _rewritten(m: _Match) -> dict[int, list[Op]]:
    y = m.pool.results[0]
    code = fresh(y.shape, np.uint8)
    forward = Op("relu_maxpool", m.relu.operands, {}, (y, code), (), f"{m.relu.label}+{m.pool.label}")
    changes = {id(m.relu): [], id(m.pool): [forward]}
    if m.pool_grad is not None and m.relu_grad is not None:
        label = f"{m.pool_grad.label}+{m.relu_grad.label}"
        back = Op("relu_maxpool_grad", (m.pool_grad.operands[0], code), {}, m.relu_grad.results, (), label)
        changes |= {id(m.pool_grad): [], id(m.relu_grad): [back]}
    return changes

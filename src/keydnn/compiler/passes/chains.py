"""Elementwise chains: neighbouring elementwise ops over one shape become one pass over memory.

A value that nobody reads outside the chain never reaches memory.  Every step of the native program rounds as the kernel
it stands for, so no bit changes.  A reduction does not end a chain that goes on without its result (a mean square and its
gradient): it follows the chain.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from keydnn.compiler.elementwise import ELEMENTWISE, result_of
from keydnn.compiler.ir import Buffer, Op, Step, View
from keydnn.compiler.lower import TYPES

_LONGEST = 8
_REDUCTIONS = {"sum", "mean", "max", "min"}


def fuse_chains(step: Step) -> tuple[Step, str]:
    """The step with neighbouring elementwise ops joined."""
    readers = Counter(view.buffer for op in step.ops for view in op.reads())
    survivors = {view.buffer for view in step.survivors()}
    ops: list[Op] = []
    chain: list[Op] = []
    behind: list[Op] = []  # reductions that were met since the chain began
    fused = 0
    for op in [*step.ops, None]:
        if op is not None and _joins(chain, op) and not _waits(op, behind):
            chain.append(op)
            continue
        if op is not None and chain and op.kernel in _REDUCTIONS:
            behind.append(op)
            continue
        if len(chain) > 1:
            ops.append(_join(chain, readers, survivors))
            fused += len(chain)
        else:
            ops += chain
        ops += behind
        chain, behind = [], []
        if op is not None:
            (chain if _is_elementwise(op) else ops).append(op)
    step.ops = ops
    return step, f"{fused} elementwise ops in chains" if fused else ""


def _is_elementwise(op: Op) -> bool:
    if op.kernel not in ELEMENTWISE:
        return False
    target = result_of(op)
    views = [v for v in op.operands if isinstance(v, View)]
    return target.dtype in TYPES and target.size > 0 and target.is_contiguous and all(v.dtype == target.dtype for v in views)


def _joins(chain: list[Op], op: Op) -> bool:
    """Whether ``op`` may follow in the chain: same shape and type, and memory written in the chain is met as a whole only."""
    if not chain or len(chain) == _LONGEST or not _is_elementwise(op):
        return False
    target, first = result_of(op), result_of(chain[0])
    if target.shape != first.shape or target.dtype != first.dtype:
        return False
    written = [result_of(o) for o in chain]
    for view in [*op.reads(), target]:
        if any(view.buffer is w.buffer and not view.same_place(w) for w in written):
            return False
    if op.writes:  # the chain must not have read another part of what is written now
        return all(v.same_place(target) for o in chain for v in o.reads() if v.buffer is target.buffer)
    return True


def _waits(op: Op, behind: list[Op]) -> bool:
    """Whether ``op`` must stay after one of these reductions: it reads their results, or writes."""
    if not behind:
        return False
    made = {result.buffer for reduction in behind for result in reduction.results}
    return bool(op.writes) or any(view.buffer in made for view in op.reads())


def _join(chain: list[Op], readers: Counter[Buffer], survivors: set[Buffer]) -> Op:
    """One op: its operands are what the chain reads from outside, its results what somebody else reads."""
    inside = Counter(view.buffer for op in chain for view in op.reads())
    made = {id(result.buffer) for op in chain for result in op.results}
    operands: list[Any] = []
    for op in chain:
        for view in op.reads():
            if id(view.buffer) not in made and not any(view.same_place(v) and view.version == v.version for v in operands):
                operands.append(view)
    results = tuple(r for op in chain for r in op.results if r.buffer in survivors or readers[r.buffer] > inside[r.buffer])
    targets = [op.operands[0] for op in chain if op.writes and id(op.operands[0].buffer) not in made]
    written: list[View] = []
    for target in targets:
        if not any(target.same_place(t) for t in written):
            written.append(target)
    label = "+".join(dict.fromkeys(op.label for op in chain))
    return Op("chain", (*operands, *written), {"ops": chain}, results, tuple(range(len(operands), len(operands) + len(written))), label)

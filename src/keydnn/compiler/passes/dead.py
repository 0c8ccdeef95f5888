"""Dead code: an op whose results nobody reads, and which writes nothing that survives, is dropped.

Where one of several results is not read and costs a product of its own, the parameter ``unread`` names its position.
"""

from __future__ import annotations

from keydnn.compiler.ir import Buffer, Op, Step

_DW = 1  # the weights' gradient among the results of rnn_grad


def remove_dead(step: Step) -> tuple[Step, str]:
    """The step without ops that change nothing that survives it."""
    wanted: set[Buffer] = {view.buffer for view in step.survivors()}
    alive: list[Op] = []
    for op in reversed(step.ops):
        if any(view.buffer.kind == "outer" or view.buffer in wanted for view in op.written()):
            alive.append(op)
            if op.kernel == "rnn_grad" and op.results[_DW].buffer not in wanted:
                op.params = {**op.params, "unread": _DW}
            wanted |= {view.buffer for view in op.reads()}
    dropped = len(step.ops) - len(alive)
    step.ops = alive[::-1]
    return step, f"{dropped} ops without effect dropped" if dropped else ""

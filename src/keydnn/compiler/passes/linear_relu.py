"""relu in the product before it: ``relu(linear(x, w, b))`` becomes one op.

The bits are those of the two ops; the product's own result never reaches memory.
"""

from __future__ import annotations

from keydnn.compiler.ir import Buffer, Op, Step


def fuse_linear_relu(step: Step) -> tuple[Step, str]:
    """The step with each such pair as one op, where nobody else reads the product."""
    readers: dict[Buffer, list[Op]] = {}
    for op in step.ops:
        for buffer in {view.buffer for view in op.reads()}:
            readers.setdefault(buffer, []).append(op)
    survivors = {view.buffer for view in step.survivors()}
    joined: set[int] = set()
    ops: list[Op] = []
    for op in step.ops:
        relu = _only_relu(op, readers)
        if relu is not None and op.results[0].buffer not in survivors:
            joined.add(id(relu))
            op = Op("linear_relu", op.operands, op.params, relu.results, (), f"{op.label}+{relu.label}")
        ops.append(op)
    step.ops = [op for op in ops if id(op) not in joined]
    return step, f"{len(joined)} products with their relu" if joined else ""


def _only_relu(linear: Op, readers: dict[Buffer, list[Op]]) -> Op | None:
    """The relu that alone reads the result of ``linear``."""
    if linear.kernel != "linear":
        return None
    y = linear.results[0]
    users = readers.get(y.buffer, [])
    fits = len(users) == 1 and users[0].kernel == "relu" and users[0].operands[0].same_place(y)
    return users[0] if fits and y.is_contiguous and y.buffer.version == 0 and y.size else None

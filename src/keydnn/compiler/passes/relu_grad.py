"""relu's gradient in the product before it: ``relu_grad(y, a @ b)`` becomes one op.

The bits are those of the two ops; the product's own result never reaches memory.
"""

from __future__ import annotations

from keydnn.compiler.ir import Buffer, Op, Step, View


def fuse_relu_grad(step: Step) -> tuple[Step, str]:
    """The step with each such pair as one op, at the place of the product, where nobody else reads the product."""
    readers: dict[Buffer, list[Op]] = {}
    for op in step.ops:
        for buffer in {view.buffer for view in op.reads()}:
            readers.setdefault(buffer, []).append(op)
    survivors = {view.buffer for view in step.survivors()}
    made: set[Buffer] = set()
    joined: set[int] = set()
    ops: list[Op] = []
    for op in step.ops:
        grad = _only_relu_grad(op, readers)
        if grad is not None and op.results[0].buffer not in survivors and _is_final(grad.operands[0], made):
            joined.add(id(grad))
            op = Op("matmul_relu_grad", (*op.operands, grad.operands[0]), op.params, grad.results, (), f"{op.label}+{grad.label}")
        made |= {view.buffer for view in op.results}
        ops.append(op)
    step.ops = [op for op in ops if id(op) not in joined]
    return step, f"{len(joined)} products with relu's gradient" if joined else ""


def _only_relu_grad(product: Op, readers: dict[Buffer, list[Op]]) -> Op | None:
    """The ``relu_grad`` that alone reads the result of a product of two matrices."""
    if product.kernel != "matmul" or any(len(view.shape) != 2 for view in product.reads()):
        return None
    c = product.results[0]
    users = readers.get(c.buffer, [])
    if len(users) != 1 or users[0].kernel != "relu_grad" or not users[0].operands[1].same_place(c):
        return None
    y = users[0].operands[0]
    return users[0] if y.shape == c.shape and y.dtype == c.dtype and c.buffer.version == 0 and c.size else None


def _is_final(y: View, made: set[Buffer]) -> bool:
    """Whether y was made before the product and is never written again."""
    return y.buffer in made and y.buffer.kind == "made" and y.buffer.version == 0 and y.is_contiguous

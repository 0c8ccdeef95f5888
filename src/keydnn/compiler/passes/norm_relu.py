"""relu in the batch normalisation before it: one pass forward, and none of its own on the way back.

    y = relu(batch_norm(x));   dx = batch_norm_grad(relu_grad(y, g), x)

becomes ``y, line = batch_norm_relu(x)`` and ``dx = batch_norm_relu_grad(g, x, line)``: what lies between the ops never reaches memory.
Where relu let an element pass is computed again from x.  The bits are those of the four ops.
"""

from __future__ import annotations

from keydnn.compiler.ir import Buffer, Op, Step, View, fresh


def fuse_norm_relu(step: Step) -> tuple[Step, str]:
    """The step with each such pattern as two ops; without a way back as one."""
    readers: dict[Buffer, list[Op]] = {}
    for op in step.ops:
        for buffer in {view.buffer for view in op.reads()}:
            readers.setdefault(buffer, []).append(op)
    survivors = {view.buffer for view in step.survivors()}
    replaced: dict[int, list[Op]] = {}
    count = 0
    for norm in step.ops:
        relu = _only_relu(norm, readers)
        if relu is None or norm.results[0].buffer in survivors:
            continue
        count += 1
        y, (_, mean, var, inv) = relu.results[0], norm.results
        line = fresh((2, *mean.shape), mean.dtype)
        label = f"{norm.label}+{relu.label}"
        replaced |= {id(norm): [Op("batch_norm_relu", norm.operands, norm.params, (y, mean, var, inv, line), (), label)], id(relu): []}
        back = _way_back(norm, y, readers, survivors)
        if back is not None:
            relu_grad, norm_grad = back
            operands = (relu_grad.operands[1], *norm_grad.operands[1:], line)
            label = f"{relu_grad.label}+{norm_grad.label}"
            replaced |= {id(relu_grad): [], id(norm_grad): [Op("batch_norm_relu_grad", operands, {}, norm_grad.results, (), label)]}
    step.ops = [new for op in step.ops for new in replaced.get(id(op), [op])]
    return step, f"{count} batch normalisations with their relu" if count else ""


def _only_relu(norm: Op, readers: dict[Buffer, list[Op]]) -> Op | None:
    """The relu that alone reads what a batch normalisation makes of x."""
    if norm.kernel != "batch_norm":
        return None
    y = norm.results[0]
    users = readers.get(y.buffer, [])
    fits = len(users) == 1 and users[0].kernel == "relu" and users[0].operands[0].same_place(y)
    return users[0] if fits and y.is_contiguous and _is_final(y) and _is_final(users[0].results[0]) else None


def _way_back(norm: Op, y: View, readers: dict[Buffer, list[Op]], survivors: set[Buffer]) -> tuple[Op, Op] | None:
    """The gradients of relu and of the normalisation, if nothing else reads what lies between."""
    relu_grads = [op for op in readers.get(y.buffer, []) if op.kernel == "relu_grad" and op.operands[0].same_place(y)]
    if len(relu_grads) != 1:
        return None
    (relu_grad,) = relu_grads
    between, x = relu_grad.results[0], norm.operands[0]
    users = readers.get(between.buffer, [])
    if len(users) != 1 or users[0].kernel != "batch_norm_grad" or between.buffer in survivors:
        return None
    g, x_again, _, mean, inv = users[0].operands
    same = g.same_place(between) and x_again.same_place(x) and mean.same_place(norm.results[1]) and inv.same_place(norm.results[3])
    final = all(map(_is_final, (between, relu_grad.operands[1], mean, inv))) and x_again.version == x.version
    return (relu_grad, users[0]) if same and final else None


def _is_final(view: View) -> bool:
    """Whether nothing is written to the memory of a view that is there already."""
    return view.buffer.version == 0

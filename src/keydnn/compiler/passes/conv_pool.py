"""Convolution, relu and 2x2 maximum pooling in one op, image by image while it is in the cache.

    y, code = relu_maxpool(conv2d(x, w, b))

becomes one op; the convolution's result never reaches memory.  The bits are those of the two ops.
"""

from __future__ import annotations

from keydnn.compiler.ir import Buffer, Op, Step


def pool_convolutions(step: Step) -> tuple[Step, str]:
    """The step with each such pair as one op; runs after `fuse_relu_pool`."""
    readers: dict[Buffer, list[Op]] = {}
    for op in step.ops:
        for buffer in {view.buffer for view in op.reads()}:
            readers.setdefault(buffer, []).append(op)
    survivors = {view.buffer for view in step.survivors()}
    joined: dict[int, Op] = {}
    dropped: set[int] = set()
    for i, conv in enumerate(step.ops):
        pool = _only_pool(conv, readers)
        if pool is not None and conv.results[0].buffer not in survivors and _may_wait(conv, pool, step.ops[i + 1 :]):
            params = {**conv.params, "between": conv.results[0].shape}
            joined[id(pool)] = Op("conv2d_relu_maxpool", conv.operands, params, pool.results, (), f"{conv.label}+{pool.label}")
            dropped.add(id(conv))
    step.ops = [joined.get(id(op), op) for op in step.ops if id(op) not in dropped]
    return step, f"{len(joined)} convolutions pooled in the cache" if joined else ""


def _only_pool(conv: Op, readers: dict[Buffer, list[Op]]) -> Op | None:
    """The pooling that alone reads a convolution's result."""
    if conv.kernel != "conv2d":
        return None
    y = conv.results[0]
    users = readers.get(y.buffer, [])
    fits = len(users) == 1 and users[0].kernel == "relu_maxpool" and users[0].operands[0].same_place(y)
    return users[0] if fits and y.is_contiguous else None


def _may_wait(conv: Op, pool: Op, later: list[Op]) -> bool:
    """Whether nothing between the two writes what the convolution reads."""
    needed = {view.buffer for view in conv.reads()}
    between = later[: next(i for i, op in enumerate(later) if op is pool)]
    return not any(view.buffer in needed for op in between for view in op.written())

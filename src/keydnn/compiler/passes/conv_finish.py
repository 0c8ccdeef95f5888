"""What follows a convolution, done to its results while they are in the cache, before they are stored.

    y = conv2d(x, w, b);   y = (y - mean) * scale + beta;   y = relu(y)      or      y, code = relu_maxpool(y)

becomes one op; each of the three parts may be missing.  The statistics are one number per channel, as batch normalisation in
evaluation mode has them.  Every operation rounds by itself as before, so no bit changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from keydnn.compiler.ir import Buffer, Op, Step, View


def finish_convolutions(step: Step) -> tuple[Step, str]:
    """The step with each such chain as one op; runs after `fuse_relu_pool`, before elementwise ops are joined."""
    readers: dict[Buffer, list[Op]] = {}
    for op in step.ops:
        for buffer in {view.buffer for view in op.reads()}:
            readers.setdefault(buffer, []).append(op)
    survivors = {view.buffer for view in step.survivors()}
    joined: dict[int, Op] = {}
    dropped: set[int] = set()
    for i, op in enumerate(step.ops):
        if op.kernel != "conv2d":
            continue
        chain = _Chain(op, readers, survivors).followed()
        if len(chain.ops) > 1 and _may_wait(chain.ops, step.ops[i + 1 :]):
            joined[id(chain.ops[-1])] = chain.joined()
            dropped |= {id(member) for member in chain.ops[:-1]}
    step.ops = [joined.get(id(op), op) for op in step.ops if id(op) not in dropped]
    return step, f"{len(joined)} convolutions with what follows them" if joined else ""


@dataclass
class _Chain:
    """A convolution and the ops that follow it.

    Attributes:
        ops: All of them, in order.
        readers: Who reads each buffer.
        survivors: Buffers that outlive the step.
        statistics: mean, scale and beta, as far as they were found.
    """

    ops: list[Op]
    readers: dict[Buffer, list[Op]]
    survivors: set[Buffer]
    statistics: list[View]

    def __init__(self, conv: Op, readers: dict[Buffer, list[Op]], survivors: set[Buffer]) -> None:
        self.ops, self.readers, self.survivors, self.statistics = [conv], readers, survivors, []

    def followed(self) -> _Chain:
        """This chain, as long as it goes."""
        if self._scaled():
            self._take("add")
        follower = self._follower()
        if follower is not None and follower.kernel in ("relu", "relu_maxpool"):
            self.ops.append(follower)
        return self

    def joined(self) -> Op:
        """The chain as one op."""
        conv, last = self.ops[0], self.ops[-1]
        statistics = (*self.statistics, None, None, None)[:3]
        params = {**conv.params, "between": conv.results[0].shape, "relu": last.kernel == "relu"}
        label = "+".join(dict.fromkeys(op.label for op in self.ops))
        return Op("conv2d_finish", (*conv.operands, *statistics), params, last.results, (), label)

    def _scaled(self) -> bool:
        """Takes ``(y - mean) * scale``, both or nothing."""
        if self._take("sub") and not self._take("mul"):
            self.ops.pop()
            self.statistics.pop()
        return len(self.ops) > 1

    def _take(self, kernel: str) -> bool:
        """Takes the follower if it is this operation with one number per channel."""
        op, channels = self._follower(), self.ops[0].results[0].shape[1]
        if op is None or op.kernel != kernel or not isinstance(op.operands[1], View):
            return False
        value = op.operands[1]
        if value.shape[-3:] != (channels, 1, 1) or value.size != channels or not value.is_contiguous or value.dtype != op.results[0].dtype:
            return False
        self.ops.append(op)
        self.statistics.append(value)
        return True

    def _follower(self) -> Op | None:
        """The op that alone reads the last result, as its first operand."""
        y = self.ops[-1].results[0]
        users = self.readers.get(y.buffer, [])
        if len(users) != 1 or y.buffer in self.survivors or not y.is_contiguous or y.buffer.version:
            return None
        user = users[0]
        first = user.operands[0]
        alone = isinstance(first, View) and first.same_place(y) and sum(v.buffer is y.buffer for v in user.reads()) == 1
        return user if alone and user.results and not user.writes and user.results[0].is_contiguous else None


def _may_wait(chain: list[Op], later: list[Op]) -> bool:
    """Whether nothing before the last of the chain writes what an earlier one has read."""
    members = {id(op) for op in chain}
    read = {view.buffer for view in chain[0].reads()}
    for op in later:
        if op is chain[-1]:
            break
        if id(op) in members:
            read |= {view.buffer for view in op.reads()}
        elif any(view.buffer in read for view in op.written()):
            return False
    return True

"""A function of arrays as two plans: what does not depend on its arguments runs once per point, the rest at every call.

Recorded like a step.  An op belongs to the second plan if it reads an argument, or what such an op made, or touches memory that the
function writes in place; everything else is computed once and kept until `StagedStep.refresh` says that what the function reads
besides its arguments has changed.  (Hoisting of loop-invariant code: Aho, Lam, Sethi & Ullman, Compilers, section 9.5.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.autograd.modes import recording, state
from keydnn.compiler.agreement import agrees
from keydnn.compiler.ir import Buffer, Op, Step, View, fresh
from keydnn.compiler.lower import Unplannable
from keydnn.compiler.passes import improve
from keydnn.compiler.passes.constants import fold_constants
from keydnn.compiler.passes.dead import remove_dead
from keydnn.compiler.plan import Plan, build
from keydnn.compiler.recorder import Recorder
from keydnn.compiler.step import usable
from keydnn.kernels import native

_EAGER_CALLS = 2  # recording costs about as much as a few of them


class StagedStep:
    """A function of tensors that is called many times with other arguments, while all else it reads stays.

    Args:
        function: Maps tensors to a tensor; draws no random numbers.
        eager: What to call as long as there is no plan; None is the function.
        hoist: Whether to compute beforehand what can be; False does everything at every call.

    Attributes:
        plan: What runs at every call, or None.
        first: What runs once per point, or None.
        reason: Why there is no plan, once it was tried.
    """

    def __init__(self, function: Callable[..., Any], eager: Callable[..., Any] | None = None, hoist: bool = True) -> None:
        self.function, self.eager, self.hoist = function, function if eager is None else eager, hoist
        self.plan: Plan | None = None
        self.first: Plan | None = None
        self.reason: str | None = None
        self._calls, self._is_stale = 0, False
        self._kept: list[np.ndarray] = []

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """The function's value, in an array that nobody else has."""
        if self.plan is None and self.reason is None and self._calls >= _EAGER_CALLS and usable() and state.recorder is None:
            self.reason = self._record(arrays)
        self._calls += 1
        if self.plan is None:
            return np.array(self.eager(*map(_tensor, arrays)).numpy())
        return self._run(self.plan, arrays)

    def refresh(self) -> None:
        """Say that tensors which the function reads have other numbers, in the same memory."""
        self._is_stale = True

    def plan_report(self) -> str:
        """The operations of both plans, or why there are none."""
        if self.plan is None:
            return f"eager: {self.reason or 'not recorded yet'}"
        parts = [("once per point", self.first), ("at every call", self.plan)]
        lines = []
        for title, plan in parts:
            rows = [] if plan is None else plan.rows
            lines.append(f"{title}: {len(rows)} operations")
            lines += [f"  {row.entry:<28}{row.label}" for row in rows]
        return "\n".join(lines)

    def _run(self, plan: Plan, arrays: Sequence[np.ndarray]) -> np.ndarray:
        if self._is_stale and self.first is not None:
            self.first.run([], list(self._kept), None)
        self._is_stale = False
        view = plan.step.outputs[0]
        output = native.load().empty(view.shape, view.dtype)
        plan.run([np.ascontiguousarray(a) for a in arrays], [output], None)
        return np.asarray(output)

    def _record(self, arrays: Sequence[np.ndarray]) -> str | None:
        """Make the plans; returns why not, or None."""
        tensors = [_tensor(a) for a in arrays]
        recorder = Recorder(tensors)
        with recording(recorder):
            expected = self.function(*tensors)
        for buffer in recorder.buffers():  # what it wrote in place
            if buffer.before is not None:
                np.copyto(buffer.array, buffer.before)
        recorder.check_overlaps()
        view = recorder.view(expected._data)
        if recorder.problem is not None or recorder.drawn or view is None:
            return recorder.problem or ("it draws random numbers" if recorder.drawn else "its value was not made by a kernel")
        step, _ = fold_constants(Step(recorder.ops, recorder.inputs, [view]))
        step, _ = remove_dead(step)
        try:
            once, always, moved = split(step) if self.hoist else (Step([], [], []), step, [])
            first = _improved(once) if once.ops else None
            plan = _improved(always)
        except Unplannable as error:
            return str(error)
        self._kept = [b.array for b in moved]
        self.first, self._is_stale = first, True
        found = self._run(plan, arrays)
        if not agrees(expected.numpy(), found):
            return "the plan disagrees with the eager function"
        recorder.forget()
        self.plan = plan
        return None


def split(step: Step) -> tuple[Step, Step, list[Buffer]]:
    """The ops that can run beforehand, the others, and the buffers between them: outer ones, in the order of the first's outputs."""
    changing = {*step.inputs, *(view.buffer for op in step.ops for i in op.writes if isinstance(view := op.operands[i], View))}
    once: list[Op] = []
    always: list[Op] = []
    for op in step.ops:
        if any(view.buffer in changing for view in (*op.reads(), *op.written())):
            always.append(op)
            changing.update(view.buffer for view in op.written())
        else:
            once.append(op)
    made = {view.buffer for op in once for view in op.results}
    needed = dict.fromkeys(v.buffer for v in [*(v for op in always for v in op.reads()), *step.outputs] if v.buffer in made)
    empty = native.load().empty
    moved = {b: Buffer("outer", b.nbytes, empty((b.nbytes,), np.uint8)) for b in needed}
    whole = [replace(fresh((b.nbytes,), np.uint8), buffer=b) for b in needed]
    outputs = [_there(view, moved) for view in step.outputs]
    for op in always:
        op.operands = tuple([_there(v, moved) for v in op.operands])
    return Step(once, [], whole), Step(always, step.inputs, outputs), list(moved.values())


def _there(value: Any, moved: dict[Buffer, Buffer]) -> Any:
    return replace(value, buffer=moved[value.buffer]) if isinstance(value, View) and value.buffer in moved else value


def _improved(step: Step) -> Plan:
    better, notes = improve(step, fuse=False)
    return build(better, notes)


def _tensor(array: np.ndarray) -> Tensor:
    t = Tensor.__new__(Tensor)
    t._data = array
    return t

"""A plan: the recorded step as data, and its native executor.

Buffers, ops and outputs are plain lists of numbers (see ``native/plan/plan.h``); nothing of Python runs between the first
and the last op of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.compiler import elementwise, lower_index, lower_linalg, lower_math, lower_movement, lower_sequence  # noqa: F401 - lowerings
from keydnn.compiler.ir import Buffer, Step, View
from keydnn.compiler.lower import Row, lower
from keydnn.compiler.memory import layout, lifetimes, rounded
from keydnn.kernels import native


@dataclass(eq=False)
class Plan:
    """A step that runs without Python.

    Attributes:
        rows: What it does, in order.
        step: The recorded step it came from.
        executor: The native object.
        outer: The arrays bound by reference; they must stay where they are.
        places: Where each view that survives the step lies, as the executor numbers places.
        notes: What the passes did, for the report.
    """

    rows: list[Row]
    step: Step
    executor: Any
    outer: list[np.ndarray]
    numbers: dict[Buffer, int]
    notes: list[str]

    def place(self, view: View) -> tuple[int, int]:
        """The executor's name of a view."""
        return self.numbers[view.buffer], view.offset

    def run(self, inputs: list[np.ndarray], outputs: list[np.ndarray | None], keys: np.ndarray | None) -> None:
        """One step over contiguous arrays; each output array takes the bytes of its view."""
        self.executor.run(inputs, outputs, keys)

    def run_rows(
        self,
        inputs: list[np.ndarray],
        outputs: list[np.ndarray | None],
        keys: np.ndarray | None,
        steps: int,
        index: np.ndarray | None,
        batch: int,
        budget_ns: int,
    ) -> int:
        """Many steps: step s gathers rows ``index[s*batch : (s+1)*batch]`` of the inputs; without ``index`` it takes them all.

        Returns:
            How many steps were done before the budget ran out, at least one.
        """
        return int(self.executor.run(inputs, outputs, keys, steps, index, batch, budget_ns))

    def read(self, view: View) -> np.ndarray:
        """A copy of a surviving view, as the last step left it."""
        array = np.empty(view.shape, view.dtype)
        self.executor.read(self.place(view), array)
        return array

    @property
    def arena_bytes(self) -> int:
        """Bytes of the arena."""
        return int(self.executor.arena_bytes)


def build(step: Step, notes: list[str]) -> Plan:
    """The plan of a step.

    Raises:
        Unplannable: An op has no plan kernel.
    """
    rows = lower(step.ops)
    direct = _direct(step)
    offsets, size = layout({b: life for b, life in lifetimes(rows, step.survivors()).items() if b not in direct})
    numbers: dict[Buffer, int] = {}
    buffers: list[tuple[str, int]] = []
    outer: list[np.ndarray] = []

    def number(buffer: Buffer) -> int:
        if buffer not in numbers:
            numbers[buffer] = len(buffers)
            if buffer in direct:
                buffers.append(("output", direct[buffer]))
            elif buffer.kind == "made":
                buffers.append(("arena", offsets[buffer]))
            elif buffer.kind == "outer":
                buffers.append(("outer", int(buffer.array.__array_interface__["data"][0])))
                outer.append(buffer.array)
            elif buffer.kind == "input":
                buffers.append(("input", buffer.number))
            else:
                buffers.append(("keys", 0))
        return numbers[buffer]

    def place(view: View | None) -> tuple[int, int]:
        if view is None:
            return -1, 0
        return number(view.buffer), view.offset + (8 * view.buffer.number if view.buffer.kind == "key" else 0)

    ops = [(row.entry, [place(p) for p in row.places], row.n, row.f) for row in rows]
    outputs = [(*place(view), view.nbytes) for view in step.outputs]
    for view in step.kept:
        place(view)
    inputs = []
    for buffer in step.inputs:
        inputs.append((size, buffer.nbytes // max(buffer.array.shape[0], 1) if buffer.array.ndim else 0))
        size += rounded(buffer.nbytes)
    executor = native.load().Plan(buffers, ops, inputs, outputs, size, step.keys)
    return Plan(rows, step, executor, outer, numbers, notes)


_LARGE = 1 << 16  # bytes of an output from which copying it is worth avoiding


def _direct(step: Step) -> dict[Buffer, int]:
    """Large outputs whose buffers are nothing else: ops write them where they are handed out."""
    views = step.survivors()
    return {
        view.buffer: i
        for i, view in enumerate(step.outputs)
        if view.buffer.kind == "made"
        and view.nbytes == view.buffer.nbytes >= _LARGE
        and view.is_contiguous
        and sum(other.buffer is view.buffer for other in views) == 1
    }

"""What a recorded step consists of: buffers, views of them, and kernel calls.

A buffer is one piece of memory.  A view is an array in it: where it starts, its shape and strides, and the version of the
buffer it saw (each write to a buffer makes the next version).  An `Op` is one call through the kernel table.  Passes map a
list of ops to a better list; `keydnn.compiler.lower` maps the final list to the entries of the native plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np


@dataclass(eq=False)
class Buffer:
    """One piece of memory.

    Attributes:
        kind: ``made`` in the step (the plan's arena), ``outer`` (a tensor that outlives the step, bound by reference),
            ``input`` (handed in each step) or ``key`` (a random key drawn each step).
        nbytes: Its size.
        array: The memory seen while recording; for outer buffers the memory itself.
        number: Which input, or which key of the step.
        version: Number of writes so far.
        before: Contents of an outer buffer before the step wrote it, or None.
    """

    kind: str
    nbytes: int
    array: np.ndarray
    number: int = 0
    version: int = 0
    before: np.ndarray | None = None


@dataclass(frozen=True)
class View:
    """An array in a buffer; offset and strides in bytes."""

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype
    version: int = 0

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self.size * self.dtype.itemsize

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in C order without gaps."""
        step = self.dtype.itemsize
        for n, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if n != 1 and stride != step:
                return self.size == 0
            step *= n
        return True

    def same_place(self, other: View) -> bool:
        """Whether both are the same elements of the same buffer, whatever the version."""
        return (self.buffer, self.offset, self.shape, self.strides, self.dtype) == (
            other.buffer,
            other.offset,
            other.shape,
            other.strides,
            other.dtype,
        )


def array_of(view: View) -> np.ndarray:
    """The numbers of a view as its recorded memory has them now."""
    memory = view.buffer.array
    return np.ndarray(view.shape, view.dtype, memory.data, view.offset, view.strides)


def fresh(shape: tuple[int, ...], dtype: Any) -> View:
    """A view of a whole new buffer of the arena."""
    kind = np.dtype(dtype)
    nbytes = prod(shape) * kind.itemsize
    strides = tuple(prod(shape[i + 1 :]) * kind.itemsize for i in range(len(shape)))
    return View(Buffer("made", nbytes, np.empty(0)), 0, tuple(shape), strides, kind)


@dataclass(eq=False)
class Op:
    """One kernel call.

    Attributes:
        kernel: Name in the kernel contract, or of a fused operation that a pass made.
        operands: Views, numbers or None, in the contract's order.
        params: Parameters by name.
        results: Views of fresh buffers.
        writes: Positions of operands that are written in place.
        label: Which operation of the library this belongs to, for reports.
    """

    kernel: str
    operands: tuple[Any, ...]
    params: dict[str, Any]
    results: tuple[View, ...]
    writes: tuple[int, ...] = ()
    label: str = ""

    def reads(self) -> Iterator[View]:
        """The views it reads; operands written in place are read too."""
        return (operand for operand in self.operands if isinstance(operand, View))

    def written(self) -> Iterator[View]:
        """The views it writes: results and operands written in place."""
        yield from self.results
        for i in self.writes:
            if isinstance(self.operands[i], View):
                yield self.operands[i]


@dataclass
class Step:
    """A recorded step: what it did, in order, and what shall survive it.

    Attributes:
        ops: The kernel calls.
        inputs: Buffers of the inputs, by position.
        outputs: Views handed to Python after each step.
        kept: Views that must still be readable after the step (gradients).
        keys: Number of random keys drawn.
        drawn: The keys drawn while recording.
    """

    ops: list[Op]
    inputs: list[Buffer]
    outputs: list[View]
    kept: list[View] = field(default_factory=list)
    keys: int = 0
    drawn: list[int] = field(default_factory=list)

    def survivors(self) -> list[View]:
        """Outputs and kept views."""
        return [*self.outputs, *self.kept]

"""From ops to the entries of the native plan.

Each kernel has a function that writes plan rows: an entry name, the places it works on, integers and reals (what an entry
expects stands at its definition in ``native/plan``).  A kernel without such a function, or operands that an entry does not
take, raise `Unplannable`; the step then stays eager.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.compiler.ir import Op, View, fresh

TYPES = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64"}
INT64 = np.dtype(np.int64)


class Unplannable(Exception):
    """An op has no plan kernel; the text says which and why."""


@dataclass(eq=False)
class Row:
    """One row of a plan.

    Attributes:
        entry: Name in the native table.
        places: Views it works on, or None for a missing one.
        n: Integers.
        f: Reals.
        label: For reports.
        n_read: How many of the places are read only; the others are written.
    """

    entry: str
    places: list[View | None]
    n: list[int]
    f: list[float]
    label: str
    n_read: int = 0


Lowering = Callable[[Op], list[Row]]
LOWERINGS: dict[str, Lowering] = {}


def lowers(*kernels: str) -> Callable[[Lowering], Lowering]:
    """Decorator: the function writes the rows of these kernels."""

    def enter(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(kernels, function))
        return function

    return enter


def lower(ops: list[Op]) -> list[Row]:
    """The plan rows of ``ops``.

    Raises:
        Unplannable: An op has no plan kernel.
    """
    rows: list[Row] = []
    for op in ops:
        function = LOWERINGS.get(op.kernel)
        if function is None:
            raise Unplannable(f"{op.label}: the kernel {op.kernel} has no plan entry")
        made = function(op)
        for row in made:
            row.label = row.label or op.label
        rows += made
    return rows


# -- helpers for the lowerings


def type_of(op: Op, *views: Any) -> str:
    """``f32`` or ``f64``, the common type of the views."""
    dtypes = {v.dtype for v in (views or op.reads()) if isinstance(v, View)}
    if len(dtypes) != 1 or next(iter(dtypes)) not in TYPES:
        raise Unplannable(f"{op.label}: {op.kernel} of dtypes {', '.join(sorted(map(str, dtypes)))}")
    return TYPES[dtypes.pop()]


def contiguous(view: View, rows: list[Row]) -> View:
    """``view`` itself, or a row that copies it and the copy."""
    if view.is_contiguous:
        return view
    twin = fresh(view.shape, view.dtype)
    rows.append(strided_copy(view, twin))
    return twin


def strided_copy(x: View, y: View, label: str = "") -> Row:
    """The row of ``y[...] = x[...]``; strides of 0 repeat."""
    if x.is_contiguous and y.is_contiguous and x.shape == y.shape:
        return Row("copy_bytes", [x, y], [x.nbytes], [], label, 1)
    size = x.dtype.itemsize
    if size not in (4, 8):
        raise Unplannable(f"copy of dtype {x.dtype}")
    axes: list[list[int]] = []
    for n, sx, sy in zip(y.shape, x.strides, y.strides, strict=True):
        if n == 1:
            continue
        if axes and axes[-1][1] == n * (sx // size) and axes[-1][2] == n * (sy // size):
            axes[-1] = [axes[-1][0] * n, sx // size, sy // size]
        else:
            axes.append([n, sx // size, sy // size])
    return Row(f"copy_strided:{size}", [x, y], [len(axes), *(v for axis in axes for v in axis)], [], label, 1)


def broadcast(view: View, shape: tuple[int, ...]) -> View:
    """``view`` with stride 0 along repeated axes."""
    lead = len(shape) - len(view.shape)
    strides = [0] * lead + [0 if n == 1 and m != 1 else s for n, s, m in zip(view.shape, view.strides, shape[lead:], strict=True)]
    return View(view.buffer, view.offset, tuple(shape), tuple(strides), view.dtype, view.version)

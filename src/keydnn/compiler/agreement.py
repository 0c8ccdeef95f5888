"""Whether a plan agrees with the eager step that it was recorded from.

Results and everything that the step wrote are compared, relative to the largest element: float32 within 1e-4, float64 within
1e-10 unless it was computed from float32.
"""

from __future__ import annotations

import numpy as np

from keydnn.compiler.ir import Buffer, Op, View, array_of

FLOAT32 = np.dtype(np.float32)
COARSE = 1e-4
TOLERANCE = {"float32": COARSE, "float64": 1e-10}


def noise(ops: list[Op]) -> dict[Buffer, np.ndarray]:
    """Where an update's gradient is rounding error (below 1e-5 of the largest of all): there even its sign may differ."""
    updates = [op for op in ops if op.kernel in ("sgd_", "adam_")]
    grads = [array_of(op.operands[1]) for op in updates]
    top = max((float(np.abs(g).max(initial=0.0)) for g in grads), default=0.0)
    found = {}
    for op, g in zip(updates, grads, strict=True):
        for i in op.writes:
            target = op.operands[i]
            if isinstance(target, View) and target.shape == g.shape and target.buffer.array.size == g.size:
                found[target.buffer] = (np.abs(g) < 1e-5 * top).reshape(target.buffer.array.shape)
    return found


def coarse(ops: list[Op]) -> set[Buffer]:
    """The buffers whose values come from float32 somewhere on their way: they are no more exact than that, whatever their dtype."""
    found: set[Buffer] = set()
    for op in ops:
        if any(view.dtype == FLOAT32 or view.buffer in found for view in op.reads()):
            found.update(view.buffer for view in op.written())
    return found


def agrees(a: np.ndarray, b: np.ndarray, ignore: np.ndarray | None = None, is_coarse: bool = False) -> bool:
    """Whether two arrays agree within the tolerance of their dtype, or of float32, relative to the largest element."""
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    rtol = COARSE if is_coarse else TOLERANCE.get(a.dtype.name, COARSE)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return False
    if ignore is not None:
        finite &= ~ignore
    scale = float(np.abs(a[finite]).max(initial=0.0))
    return bool(np.all(np.abs(a[finite] - b[finite]) <= rtol * scale + 1e-30))

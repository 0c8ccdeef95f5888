"""What every kernel promises: the values of the NumPy reference, computed in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose

from keydnn.domain.device import CPU
from keydnn.kernels import reference
from keydnn.kernels.contract import KERNELS
from keydnn.kernels.dispatch import tables

_TOLERANCE = {np.dtype(np.float32): (4e-6, 4e-6), np.dtype(np.float64): (1e-13, 1e-13)}


def check_kernel(name: str, *arrays: Any, table: Any = None, rtol: float | None = None, atol: float | None = None, **params: Any) -> None:
    """Run one function of a kernel table and hold it to the reference in float64.

    Results have the reference's shape and dtype, are C-contiguous and use no operand's memory; operands that the
    contract does not name as written stay untouched; running again gives the same bits.

    Args:
        name: Row of :data:`keydnn.kernels.contract.KERNELS`.
        arrays: Its operands: arrays, numbers, or None where the row allows it.  They are copied, never written.
        table: Kernel table; None is the table that operations on the cpu use.
        rtol: Relative tolerance; default 4e-6 if any operand is float32, else 1e-13.
        atol: Absolute tolerance; the same default.
        params: Its parameters.

    Raises:
        AssertionError: A promise is broken.
        KeyError: The contract has no such row.

    Example:
        >>> from keydnn.testing.kernels import check_kernel
        >>> check_kernel("softmax", np.ones((2, 3), np.float32), axis=1)
    """
    row, kernel = KERNELS[name], getattr(tables[CPU] if table is None else table, name)
    narrow = any(getattr(a, "dtype", None) == np.float32 for a in arrays) or params.get("dtype") == np.float32
    default = _TOLERANCE[np.dtype(np.float32 if narrow else np.float64)]
    rtol, atol = default[0] if rtol is None else rtol, default[1] if atol is None else atol
    wide = [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else _copy(a) for a in arrays]
    want = _results(row, getattr(reference, name), wide, params)
    kind = _results(row, getattr(reference, name), list(map(_copy, arrays)), params)
    used = list(map(_copy, arrays))
    got = _results(row, kernel, used, params)
    for y, value, example in zip(got, want, kind, strict=True):
        assert (y.shape, y.dtype) == (example.shape, example.dtype), (
            f"{name}: {y.dtype} {y.shape}, expected {example.dtype} {example.shape}"
        )
        assert_allclose(y.astype(np.float64), value.astype(np.float64), rtol=rtol, atol=atol, err_msg=name)
    for i, (before, after) in enumerate(zip(arrays, used, strict=True)):
        if isinstance(before, np.ndarray) and i not in row.writes:
            np.testing.assert_array_equal(before, after, err_msg=f"{name} changed operand {i}")
            assert row.writes or not any(np.shares_memory(y, after) for y in got), f"{name} returned memory of operand {i}"
    assert all(y.flags.c_contiguous for y in got) or row.writes, f"{name}: a result is not C-contiguous"
    again = _results(row, kernel, list(map(_copy, arrays)), params)
    assert [y.tobytes() for y in again] == [y.tobytes() for y in got], f"{name}: other bits the second time"


def _copy(operand: Any) -> Any:
    return operand.copy() if isinstance(operand, np.ndarray) else operand


def _results(row: Any, kernel: Any, arrays: list[Any], params: dict[str, Any]) -> list[np.ndarray]:
    """What the kernel returns, or the operands that it wrote."""
    out = kernel(*arrays, **params)
    if row.writes:
        assert out is None, f"{row.name} writes in place and must return None"
        return [arrays[i] for i in row.writes if arrays[i] is not None]
    return [np.asarray(y) for y in (out if isinstance(out, tuple) else (out,))]

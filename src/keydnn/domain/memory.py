"""Arrays that begin where a pair of cache lines does.

NumPy aligns memory to 16 bytes.  A vector of 64 bytes that lies across two lines of the cache is read and written in two
steps, which costs an optimizer's pass over parameters and moments a third of its speed.
Pairs, so that large arrays begin where those of the native allocator do within a page: a register read a line behind one that
was just written, as the low twelve bits of their addresses have it, waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

_LINES = 128  # bytes
_SMALL = 1024  # bytes below which nothing is gained
_SMALL_COPY = 16384  # and below which a plain copy is the faster by more than is gained


def zeroed(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """``numpy.zeros``, aligned to a cache line unless it is small.

    Args:
        shape: Sizes of the axes.
        dtype: The dtype.

    Returns:
        A fresh writeable array in C order.  Memory is taken when it is first touched.
    """
    if prod(shape) * dtype.itemsize < _SMALL:
        return np.zeros(shape, dtype)
    return _aligned(np.zeros, shape, dtype)


def copied(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """``array.astype(dtype, order="C")``, aligned to a cache line unless it is small.

    Args:
        array: What to copy, of any shape and layout.
        dtype: The dtype of the copy.

    Returns:
        A fresh writeable array in C order.
    """
    if array.size * dtype.itemsize < _SMALL_COPY:
        return np.array(array, dtype=dtype, order="C")
    copy = _aligned(np.empty, array.shape, dtype)
    np.copyto(copy, array, casting="unsafe")
    return copy


def _aligned(make: Callable[..., np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    nbytes = prod(shape) * dtype.itemsize
    room = make(nbytes + _LINES, np.uint8)
    start = -int(room.__array_interface__["data"][0]) % _LINES
    return np.ndarray(shape, dtype, memoryview(room)[start : start + nbytes])  # type: ignore[arg-type]

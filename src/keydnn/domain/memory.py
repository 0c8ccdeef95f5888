"""Arrays that begin where a cache line does.

NumPy aligns memory to 16 bytes.  A vector of 64 bytes that lies across two lines of the cache is read and written in two
steps, which costs an optimizer's pass over parameters and moments a third of its speed.
"""

from __future__ import annotations

from math import prod

import numpy as np

_LINE = 64  # bytes
_SMALL = 1024  # bytes below which nothing is gained


def zeroed(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """``numpy.zeros``, aligned to a cache line unless it is small.

    Args:
        shape: Sizes of the axes.
        dtype: The dtype.

    Returns:
        A fresh writeable array in C order.  Memory is taken when it is first touched.
    """
    nbytes = prod(shape) * dtype.itemsize
    if nbytes < _SMALL:
        return np.zeros(shape, dtype)
    room = np.zeros(nbytes + _LINE, np.uint8)
    start = -int(room.__array_interface__["data"][0]) % _LINE
    return np.ndarray(shape, dtype, memoryview(room)[start : start + nbytes])  # type: ignore[arg-type]

"""The order of an epoch's rows: a permutation that follows from a key."""

from __future__ import annotations

import numpy as np

from keydnn.compiler.step import usable
from keydnn.kernels.native import load


def order_of(key: int, n: int) -> np.ndarray:
    """``Generator(Philox(key)).permutation(n)``, by the native module where there is one.

    Args:
        key: At least 0.
        n: Number of rows.

    Returns:
        Row numbers (n,), int64.

    Example:
        >>> order_of(7, 5).tolist() == np.random.Generator(np.random.Philox(7)).permutation(5).tolist()
        True
    """
    if usable():
        low, high = np.random.SeedSequence(key).generate_state(2, np.uint64).tolist()
        return load().permutation(low, high, n)  # type: ignore[no-any-return]
    return np.random.Generator(np.random.Philox(key)).permutation(n)

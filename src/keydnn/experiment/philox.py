"""Philox4x32-10 on arrays: four random words as a function of a counter and a key, with no state between calls.

Sample ids and the draws of samplers come from here, so that row i has the same words whatever else was asked for.
Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3, doi:10.1145/2063384.2063405.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)

Words = Any  # arrays of uint64, or one number among them


def philox4x32(c0: Words, c1: Words, c2: Words, c3: Words, key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Four 32-bit words (held in uint64) for each counter; the counters broadcast against each other."""
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _32) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return c0, c1, c2, c3


def uniform(rows: NDArray[np.int64], draws: NDArray[np.int64], key: int, stream: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) with 53 bits for pairs (row, draw) of one stream of a 64-bit key."""
    r, d = rows.astype(np.uint64), draws.astype(np.uint64)
    a, b, _, _ = philox4x32(r & _LOW, (r >> _32) + np.uint64(stream << 16), d & _LOW, d >> _32, (key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF))
    return ((a >> np.uint64(5)) * np.float64(67108864.0) + (b >> np.uint64(6))) / np.float64(9007199254740992.0)

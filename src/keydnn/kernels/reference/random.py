"""Random numbers from Philox4x32-10, a function of (key, element index) alone: every kernel table makes the same integers.

A block is four 32-bit words, made from the 128-bit counter (lo32(i), hi32(i), 0, 0) of block i and the 64-bit key
(lo32(key), hi32(key)) by ten rounds of two 32x32->64 multiplications:

    (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)),   (k0, k1) <- (k0 + W0, k1 + W1)

float32 takes word i % 4 of block i // 4:  (r >> 8) 2^-24.
float64 takes words a, b = 2 (i % 2), +1 of block i // 2:  ((a >> 5) 2^26 + (b >> 6)) 2^-53.
Source: Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", https://doi.org/10.1145/2063384.2063405.
"""

from __future__ import annotations

from math import prod

import numpy as np

from keydnn.kernels import keys

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_ROUNDS = 10


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds over counters (n, 4) of 32-bit values held in uint64, under one key; returns (n, 4) uint32."""
    c0, c1, c2, c3 = counter.astype(np.uint64).T
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _32) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def words(key: np.ndarray | int, n: int) -> np.ndarray:
    """The first n words of the stream of key, uint32."""
    blocks = np.arange((n + 3) // 4, dtype=np.uint64)
    counter = np.zeros((len(blocks), 4), np.uint64)
    counter[:, 0], counter[:, 1] = blocks & _LOW, blocks >> _32
    k = int(key) & 0xFFFFFFFFFFFFFFFF
    return philox4x32(counter, (k & 0xFFFFFFFF, k >> 32)).reshape(-1)[:n]


def draw_key():
    """A fresh key, from NumPy's global generator unless somebody keeps streams (:mod:`keydnn.kernels.keys`): int64, shape ()."""
    return np.asarray(keys.draw_one())


def uniform(key, shape, dtype):
    """Uniform in [0, 1), as above."""
    n = prod(shape)
    if np.dtype(dtype) == np.float64:
        a, b = words(key, 2 * n).reshape(-1, 2).astype(np.float64).T
        u = (np.floor(a / 32) * 2.0**26 + np.floor(b / 64)) * 2.0**-53
    else:
        u = (words(key, n) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return u.astype(dtype).reshape(shape)


def box_muller(uniforms: np.ndarray) -> np.ndarray:
    """As many standard normal numbers as uniforms; their number is even."""
    u, v = uniforms.reshape(-1, 2).T
    radius, angle = np.sqrt(-2.0 * np.log1p(-u)), 2.0 * np.pi * v
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def normal(key, shape, dtype):
    """Standard normal: elements 2j and 2j + 1 are ``sqrt(-2 ln(1 - u)) * (cos, sin)(2 pi v)`` of the f8 uniforms u, v = 2j, 2j + 1."""
    n = prod(shape)
    return box_muller(uniform(key, (n + n % 2,), np.float64))[:n].astype(dtype).reshape(shape)


def dropout_mask(key, shape, p, dtype):
    """``1 / (1 - p)`` where the f4 uniform, as a real number, is below ``1 - p``; else 0."""
    keep = 1.0 - float(p)
    kept = (words(key, prod(shape)) >> np.uint32(8)).astype(np.float64) < keep * 2.0**24
    return (kept * (1.0 / keep)).astype(dtype).reshape(shape)

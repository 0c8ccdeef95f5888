"""Norms: by the engine's kernels inside a step, so that eager and recorded steps agree in every bit; by rows after it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keydnn.domain.device import CPU
from keydnn.kernels.dispatch import tables


def norm(v: np.ndarray) -> float:
    """Euclidean norm of a float64 vector."""
    k: Any = tables[CPU]
    return math.sqrt(float(k.sum(k.mul(v, v), None, False)))


def dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar products of the rows of two (steps, n) arrays; a row's bits do not depend on how many there are."""
    return np.asarray(np.sum(a * b, axis=1))


def spectral_norms(W: np.ndarray) -> np.ndarray:
    """The largest singular value of each of a stack of matrices (steps, rows, columns); NaN where an entry is not finite.

    Two rows or columns (a, b) have it in closed form: ``sqrt(m + sqrt(d^2 + (a.b)^2))`` with m and d half the sum and half
    the difference of a.a and b.b.
    """
    found = np.full(len(W), np.nan)
    whole = np.isfinite(W).all(axis=(1, 2))
    a = W[whole]
    if not a.size:
        return np.where(whole, 0.0, found)
    size = np.abs(a).max(axis=(1, 2))
    a = a / np.where(size > 0.0, size, 1.0)[:, None, None]
    a = a if a.shape[1] <= a.shape[2] else np.ascontiguousarray(a.transpose(0, 2, 1))
    first, last = np.ascontiguousarray(a[:, 0]), np.ascontiguousarray(a[:, -1])
    if a.shape[1] == 1:
        value = np.sqrt(dots(first, first))
    elif a.shape[1] == 2:
        p, q, r = dots(first, first), dots(last, last), dots(first, last)
        half = 0.5 * (p - q)
        value = np.sqrt(0.5 * (p + q) + np.sqrt(half * half + r * r))
    else:
        value = np.linalg.svd(a, compute_uv=False)[:, 0]
    found[whole] = size * value
    return found

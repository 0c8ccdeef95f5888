"""The two baselines the published factors refer to: Python loops, and a loop over positions with NumPy per window.

Input comes padded and output allocated, so only the arithmetic is timed.
"""

from __future__ import annotations

import itertools

import numpy as np


def conv_in_python(x: np.ndarray, w: np.ndarray, b: np.ndarray, out: np.ndarray, stride: int) -> None:
    """Every multiplication spelled out on nested lists; arrays (N, C, H, W), (O, C, k, k), (O,)."""
    xs, ws, bs = x.tolist(), w.tolist(), b.tolist()
    channels, k = w.shape[1], w.shape[2]
    for n, o, i, j in itertools.product(*map(range, out.shape)):
        total = bs[o]
        for c in range(channels):
            for u in range(k):
                for v in range(k):
                    total += xs[n][c][i * stride + u][j * stride + v] * ws[o][c][u][v]
        out[n, o, i, j] = total


def conv_in_numpy(x: np.ndarray, w: np.ndarray, b: np.ndarray, out: np.ndarray, stride: int) -> None:
    """One NumPy reduction per output element."""
    k = w.shape[2]
    for n, o, i, j in np.ndindex(out.shape):
        top, left = i * stride, j * stride
        out[n, o, i, j] = (x[n, :, top : top + k, left : left + k] * w[o]).sum() + b[o]


def pool_in_python(x: np.ndarray, out: np.ndarray, kind: str) -> None:
    """2x2 windows, stride 2, on nested lists."""
    xs = x.tolist()
    for n, c, i, j in itertools.product(*map(range, out.shape)):
        window = [xs[n][c][2 * i + u][2 * j + v] for u in range(2) for v in range(2)]
        out[n, c, i, j] = max(window) if kind == "max" else sum(window) / 4.0


def pool_in_numpy(x: np.ndarray, out: np.ndarray, kind: str) -> None:
    """2x2 windows, stride 2, one NumPy reduction per window."""
    reduce = np.max if kind == "max" else np.mean
    for n, c, i, j in np.ndindex(out.shape):
        out[n, c, i, j] = reduce(x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2])

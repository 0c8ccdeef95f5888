"""The two baselines the published factors refer to: Python loops, and a loop over positions with NumPy per window.

Input comes padded and output allocated, so only the arithmetic is timed.
"""

from __future__ import annotations

import numpy as np


def conv_in_python(x: list, w: list, b: list, out: list, stride: int) -> None:
    """Every multiplication spelled out; nested lists (N, C, H, W), (O, C, k, k), (O,)."""
    k = len(w[0][0])
    for image, planes in zip(x, out, strict=True):
        for kernel, bias, plane in zip(w, b, planes, strict=True):
            for i, row in enumerate(plane):
                for j in range(len(row)):
                    total = bias
                    for channel, taps in zip(image, kernel, strict=True):
                        for u in range(k):
                            line, weights = channel[i * stride + u], taps[u]
                            for v in range(k):
                                total += line[j * stride + v] * weights[v]
                    row[j] = total


def conv_in_numpy(x: np.ndarray, w: np.ndarray, b: np.ndarray, out: np.ndarray, stride: int) -> None:
    """One NumPy reduction per output element."""
    k = w.shape[2]
    for n, o, i, j in np.ndindex(out.shape):
        top, left = i * stride, j * stride
        out[n, o, i, j] = (x[n, :, top : top + k, left : left + k] * w[o]).sum() + b[o]


def pool_in_python(x: list, out: list, kind: str) -> None:
    """2x2 windows, stride 2, nested lists."""
    for image, planes in zip(x, out, strict=True):
        for channel, plane in zip(image, planes, strict=True):
            for i, row in enumerate(plane):
                upper, lower = channel[2 * i], channel[2 * i + 1]
                for j in range(len(row)):
                    window = (upper[2 * j], upper[2 * j + 1], lower[2 * j], lower[2 * j + 1])
                    row[j] = max(window) if kind == "max" else sum(window) / 4.0


def pool_in_numpy(x: np.ndarray, out: np.ndarray, kind: str) -> None:
    """2x2 windows, stride 2, one NumPy reduction per window."""
    reduce = np.max if kind == "max" else np.mean
    for n, c, i, j in np.ndindex(out.shape):
        out[n, c, i, j] = reduce(x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2])

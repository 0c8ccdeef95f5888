"""Toy problems: small data sets made from a formula, for examples and tests.

Each takes ``seed`` (None draws one from Python's global generator) and returns float32 ``x`` (n, features) with int64 labels
(n,), or float32 targets (n, 1) for regression.
"""

from __future__ import annotations

import random

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]


def _rng(seed: int | None) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(random.getrandbits(64) if seed is None else seed))


def _shuffled(x: np.ndarray, labels: np.ndarray, noise: float, rng: np.random.Generator) -> Pair:
    order = rng.permutation(len(x))
    noisy = x + noise * rng.standard_normal(x.shape)
    return noisy[order].astype(np.float32), labels[order].astype(np.int64)


def make_blobs(n: int = 300, n_classes: int = 3, n_features: int = 2, *, noise: float = 0.3, seed: int | None = None) -> Pair:
    """Gaussian clouds of deviation ``noise`` around centres that are uniform in [-2, 2].

    Example:
        >>> from keydnn.data import make_blobs
        >>> x, y = make_blobs(30, seed=0)
        >>> x.shape, sorted(set(y.tolist()))
        ((30, 2), [0, 1, 2])
    """
    rng = _rng(seed)
    centres = rng.uniform(-2, 2, (n_classes, n_features))
    labels = np.arange(n) % n_classes
    return _shuffled(centres[labels], labels, noise, rng)


def make_moons(n: int = 200, *, noise: float = 0.1, seed: int | None = None) -> Pair:
    """Two interleaved half circles: ``(cos t, sin t)`` and ``(1 - cos t, 1/2 - sin t)``, t in [0, pi]."""
    rng = _rng(seed)
    labels = np.arange(n) % 2
    t = rng.uniform(0, np.pi, n)
    upper, lower = np.stack([np.cos(t), np.sin(t)], 1), np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1)
    return _shuffled(np.where(labels[:, None] == 0, upper, lower), labels, noise, rng)


def make_circles(n: int = 200, *, factor: float = 0.5, noise: float = 0.05, seed: int | None = None) -> Pair:
    """A circle of radius 1 (label 0) and one of radius ``factor`` (label 1)."""
    rng = _rng(seed)
    labels = np.arange(n) % 2
    t = rng.uniform(0, 2 * np.pi, n)
    radius = np.where(labels == 0, 1.0, factor)
    return _shuffled(np.stack([radius * np.cos(t), radius * np.sin(t)], 1), labels, noise, rng)


def make_spirals(n: int = 300, n_classes: int = 3, *, noise: float = 0.05, seed: int | None = None) -> Pair:
    """Arms of a spiral: radius r in [0, 1], angle ``2 pi label / n_classes + 4 r``."""
    rng = _rng(seed)
    labels = np.arange(n) % n_classes
    r = rng.uniform(0, 1, n)
    t = 2 * np.pi * labels / n_classes + 4 * r
    return _shuffled(np.stack([r * np.cos(t), r * np.sin(t)], 1), labels, noise, rng)


def make_xor(n: int = 200, *, noise: float = 0.1, seed: int | None = None) -> Pair:
    """The corners of a square; the label is whether their signs differ."""
    rng = _rng(seed)
    corners = np.arange(n) % 4
    x = np.stack([corners // 2, corners % 2], 1) * 2.0 - 1.0
    return _shuffled(x, (x[:, 0] * x[:, 1] < 0).astype(int), noise, rng)


def make_regression(n: int = 200, n_features: int = 5, *, noise: float = 0.1, seed: int | None = None) -> Pair:
    """``y = x w + b + noise``, with standard normal x, w and b."""
    rng = _rng(seed)
    x, w, b = rng.standard_normal((n, n_features)), rng.standard_normal((n_features, 1)), rng.standard_normal()
    y = x @ w + b + noise * rng.standard_normal((n, 1))
    return x.astype(np.float32), y.astype(np.float32)


def make_sine(n: int = 200, *, noise: float = 0.05, seed: int | None = None) -> Pair:
    """``y = sin x + noise`` with x uniform in [-pi, pi]."""
    rng = _rng(seed)
    x = rng.uniform(-np.pi, np.pi, (n, 1))
    return x.astype(np.float32), (np.sin(x) + noise * rng.standard_normal((n, 1))).astype(np.float32)

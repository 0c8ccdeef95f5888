"""Augmentation of images: functions ``(image, rng) -> image`` on arrays (C, H, W).

What is random is drawn from ``rng`` alone; a new array is returned, the image is left as it is, its dtype is kept.

>>> from keydnn.data import Compose, RandomCrop, RandomFlip
>>> transform = Compose(RandomCrop(padding=2), RandomFlip())
>>> transform(np.ones((3, 8, 8), np.float32), np.random.default_rng(0)).shape
(3, 8, 8)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.domain.errors import ShapeError

Rng = np.random.Generator
Transform = Callable[[np.ndarray, Rng], np.ndarray]


def _checked(owner: Any, image: np.ndarray) -> np.ndarray:
    if image.ndim != 3:
        raise ShapeError(f"{type(owner).__name__}: expected an image (C, H, W), got shape {image.shape}")
    return image


def _as(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``values`` in the dtype of ``image``; whole numbers are rounded and limited."""
    if image.dtype.kind == "f":
        return values.astype(image.dtype)
    limits = np.iinfo(image.dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(image.dtype)


class Compose:
    """Transforms one after the other.

    Args:
        transforms: Functions of (image, rng), or one list of them.

    Raises:
        TypeError: One of them cannot be called.
    """

    def __init__(self, *transforms: Transform | Sequence[Transform]) -> None:
        found = transforms[0] if len(transforms) == 1 and isinstance(transforms[0], list | tuple) else transforms
        for i, transform in enumerate(found):  # type: ignore[arg-type]
            if not callable(transform) or isinstance(transform, type):
                what = f"the class {transform.__name__}" if isinstance(transform, type) else type(transform).__name__
                raise TypeError(f"Compose: transform {i} must be a function of (image, rng), got {what}")
        self.transforms: tuple[Transform, ...] = tuple(found)  # type: ignore[arg-type]

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        for transform in self.transforms:
            image = transform(image, rng)
        return image


@dataclass(frozen=True)
class Normalize:
    """``(image - mean) / std`` per channel; nothing is random.

    Attributes:
        mean: One number, or one per channel.
        std: Likewise.
    """

    mean: Any
    std: Any

    def __call__(self, image: np.ndarray, rng: Rng | None = None) -> np.ndarray:
        mean, std = (np.asarray(v, image.dtype).reshape(-1, 1, 1) for v in (self.mean, self.std))
        return (_checked(self, image) - mean) / std


@dataclass(frozen=True)
class RandomFlip:
    """Mirrors the image with probability ``p``.

    Attributes:
        p: The probability.
        axis: -1 swaps left and right, -2 top and bottom.
    """

    p: float = 0.5
    axis: int = -1

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        _checked(self, image)
        return np.flip(image, self.axis).copy() if rng.random() < self.p else image.copy()


@dataclass(frozen=True)
class RandomCrop:
    """A random part of the image, after a border of zeros was put around it.

    Attributes:
        size: Height and width of the part, one number for both; None keeps those of the image.
        padding: Width of the border.
    """

    size: int | tuple[int, int] | None = None
    padding: int = 4

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        size = self.size or _checked(self, image).shape[1:]
        height, width = (size, size) if isinstance(size, int) else size
        p = self.padding
        padded = np.pad(_checked(self, image), ((0, 0), (p, p), (p, p)))
        if height > padded.shape[1] or width > padded.shape[2]:
            raise ShapeError(f"RandomCrop: a part of {height}x{width} does not fit into {padded.shape[1]}x{padded.shape[2]}")
        top, left = rng.integers(padded.shape[1] - height + 1), rng.integers(padded.shape[2] - width + 1)
        return padded[:, top : top + height, left : left + width].copy()


@dataclass(frozen=True)
class RandomRotation:
    """Turns the image about its centre by an angle uniform in ``[-degrees, degrees]``, bilinear, zeros outside.

    Attributes:
        degrees: The largest angle.
    """

    degrees: float = 15.0

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        return rotate(_checked(self, image), rng.uniform(-self.degrees, self.degrees))


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """The image (C, H, W) turned counterclockwise about its centre; bilinear, zeros outside."""
    _, height, width = image.shape
    angle = np.deg2rad(degrees)
    cy, cx = (height - 1) / 2, (width - 1) / 2
    y, x = np.mgrid[:height, :width]
    dy, dx = y - cy, x - cx
    sy = cy + np.cos(angle) * dy + np.sin(angle) * dx  # where each pixel comes from
    sx = cx - np.sin(angle) * dy + np.cos(angle) * dx
    y0, x0 = np.floor(sy).astype(int), np.floor(sx).astype(int)
    fy, fx = sy - y0, sx - x0
    padded = np.pad(image.astype(np.float64), ((0, 0), (1, 2), (1, 2)))  # zeros to fall on

    def at(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return padded[:, np.clip(rows + 1, 0, height + 1), np.clip(columns + 1, 0, width + 1)]

    top = at(y0, x0) * (1 - fx) + at(y0, x0 + 1) * fx
    bottom = at(y0 + 1, x0) * (1 - fx) + at(y0 + 1, x0 + 1) * fx
    return _as(image, top * (1 - fy) + bottom * fy)


@dataclass(frozen=True)
class RandomErasing:
    """Sets a random square to zero with probability ``p`` (DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552).

    Attributes:
        size: Side of the square; it may reach over the border.
        p: The probability.
    """

    size: int = 8
    p: float = 0.5

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        out = _checked(self, image).copy()
        hit, y, x = rng.random() < self.p, int(rng.integers(image.shape[1])), int(rng.integers(image.shape[2]))
        if hit:
            half = self.size // 2
            out[:, max(0, y - half) : max(0, y - half + self.size), max(0, x - half) : max(0, x - half + self.size)] = 0
        return out


@dataclass(frozen=True)
class RandomBrightness:
    """Adds a number uniform in ``[-by, by]``.

    Attributes:
        by: The largest change, in the units of the image.
    """

    by: float = 0.1

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        return _as(image, _checked(self, image) + rng.uniform(-self.by, self.by))


@dataclass(frozen=True)
class RandomContrast:
    """Scales the distance from the mean by a factor uniform in ``[1 - by, 1 + by]``.

    Attributes:
        by: The largest change of the factor.
    """

    by: float = 0.2

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        mean = _checked(self, image).mean(dtype=np.float64)
        return _as(image, mean + (image - mean) * rng.uniform(1 - self.by, 1 + self.by))


@dataclass(frozen=True)
class RandomNoise:
    """Adds normal noise of deviation ``std``.

    Attributes:
        std: The deviation, in the units of the image.
    """

    std: float = 0.05

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        return _as(image, _checked(self, image) + self.std * rng.standard_normal(image.shape))

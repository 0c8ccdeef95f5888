"""Similarity of two values in one column: distance, match, score.

    d(a, b) = |metric(a, b)|, or |a - b| of numbers, or 0 / infinity for equal / other values
    match   = d <= tolerance (similar), d > tolerance (dissimilar)
    linear  = tolerance / d (similar), d / tolerance (dissimilar)
    exp     = exp(1 - d / tolerance) (similar), exp(d / tolerance - 1) (dissimilar)

Divisors are at least 1e-9; linear and exp are clipped to [min_weight, max_weight].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.io import Saved

MODES = ("similar", "dissimilar")
WEIGHT_MODES = ("binary", "linear", "exp")
_TINY = 1e-9


@dataclass(frozen=True)
class SimilarityCondition(Saved):
    """A rule on one column for a pair of an anchor and a candidate.

    Args:
        mode: "similar" or "dissimilar".
        tolerance: Largest distance of similar values.
        metric: A function of two values that replaces the distance; its absolute value counts.
        weight_mode: "binary", "linear" or "exp": the score of a pair.
        max_weight: Upper end of the score.
        min_weight: Lower end of the score.
        allow_fallback: Whether pairs that do not match may be used when there are not enough that do.

    Raises:
        ValueError: Unknown ``mode`` or ``weight_mode``.

    Example:
        >>> from keydnn.experiment.samplers import SimilarityCondition
        >>> near = SimilarityCondition(tolerance=2, weight_mode="linear", max_weight=10, allow_fallback=True)
        >>> near.score(1.0, 5.0)
        0.5
    """

    kind: ClassVar[str] = "smc"

    mode: str = "similar"
    tolerance: float = 0.0
    metric: Callable[[Any, Any], float] | None = None
    weight_mode: str = "binary"
    max_weight: float = 1.0
    min_weight: float = 0.0
    allow_fallback: bool = False

    def __post_init__(self) -> None:
        for name, known in (("mode", MODES), ("weight_mode", WEIGHT_MODES)):
            if getattr(self, name) not in known:
                raise ValueError(f"SimilarityCondition: {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")

    def distances(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
        """Distances of values of equal length, elementwise."""
        if self.metric is not None:
            pairs = zip(a.tolist(), b.tolist(), strict=True)
            return np.abs(np.fromiter((float(self.metric(x, y)) for x, y in pairs), dtype=np.float64, count=len(a)))
        if is_numeric(a) and is_numeric(b):
            return np.abs(a.astype(np.float64) - b.astype(np.float64))
        return np.where(a == b, 0.0, np.inf)

    def matches(self, distances: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which distances match."""
        return distances <= self.tolerance if self.mode == "similar" else distances > self.tolerance

    def scores(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of distances."""
        match = self.matches(distances)
        if not self.allow_fallback:
            return match.astype(np.float64)
        if self.weight_mode == "binary":
            return np.where(match, float(self.max_weight), float(self.min_weight))
        tolerance, sign = max(self.tolerance, _TINY), 1.0 if self.mode == "similar" else -1.0
        with np.errstate(over="ignore"):  # an infinite score is clipped below
            if self.weight_mode == "exp":
                raw = np.exp(sign * (1.0 - distances / tolerance))
            else:
                raw = self.tolerance / np.maximum(distances, _TINY) if sign > 0 else distances / tolerance
        return np.clip(raw, self.min_weight, self.max_weight)

    def score(self, a: Any, b: Any) -> float:
        """The score of one pair of values."""
        if self.metric is None:
            left, right = np.asarray([a]), np.asarray([b])
            if not (is_numeric(left) and is_numeric(right)):
                left, right = np.array([a], dtype=object), np.array([b], dtype=object)
            return float(self.scores(self.distances(left, right))[0])
        return float(self.scores(np.array([abs(float(self.metric(a, b)))]))[0])

    def get_config(self) -> dict[str, Any]:
        """All seven fields."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The condition with these fields."""
        return cls(**config)


def is_numeric(values: NDArray[Any]) -> bool:
    """Whether an array holds numbers or booleans."""
    return values.dtype.kind in "biuf"

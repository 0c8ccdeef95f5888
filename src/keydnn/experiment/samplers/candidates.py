"""Candidates: for each anchor the partners that meet conditions, at most k of them, in random order or best first.

A single condition admits, in the order of its column's values, one interval of rows around the anchor (or what is outside it).  So a
few partners are drawn at random positions of the smallest such pool and checked, and only anchors that this does not serve get their
pool listed.  Draws are Philox values of (anchor, draw), so they depend neither on the other anchors nor on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.philox import uniform
from keydnn.experiment.similarity import SimilarityCondition, is_numeric

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
PAIRS_AT_ONCE = 1 << 21
DRAWN_PER_WANTED = 4  # random positions tried at first for each partner that is wanted
_DRAWS, _ORDER = 1, 2  # streams of random numbers


@dataclass(frozen=True)
class Found:
    """Partners: positions of anchors (ascending), positions of partners, weights."""

    anchors: Ints
    partners: Ints
    weights: Floats


@dataclass(frozen=True)
class Pool:
    """Rows that one condition admits: ``order[low:high]``, or with ``outside`` all others of ``order``."""

    order: Ints
    low: Ints
    high: Ints
    outside: bool

    def sizes(self) -> Ints:
        """Rows per anchor."""
        inside = self.high - self.low
        return len(self.order) - inside if self.outside else inside

    def at(self, anchors: Ints, k: Ints) -> Ints:
        """The k-th row of an anchor's pool."""
        low, high = self.low[anchors], self.high[anchors]
        return self.order[np.where(k < low, k, k + high - low) if self.outside else low + k]


class Finder:
    """Finds partners of one role among n rows.

    Args:
        values: One array (n,) per condition.
        conditions: The conditions.
        limit: Partners per anchor; None for all.
        best_only: Whether the best partners are taken instead of random ones.
        key: 64-bit key of the random draws.
    """

    def __init__(
        self, values: Sequence[NDArray[Any]], conditions: Sequence[SimilarityCondition], limit: int | None, best_only: bool, key: int
    ) -> None:
        self._values, self._conditions = [_comparable(v, c) for v, c in zip(values, conditions, strict=True)], list(conditions)
        self._limit, self._best_only, self._key = limit, best_only, key
        self._n = len(values[0])
        hard = [i for i, condition in enumerate(self._conditions) if not condition.allow_fallback]
        pools = [pool for i in hard if (pool := _pool(self._values[i], self._conditions[i])) is not None]
        self._pool = min(pools, key=lambda pool: int(pool.sizes().sum()), default=_everything(self._n))
        self._sizes = self._pool.sizes()

    def find(self, anchors: Ints, advance: Callable[[int], None]) -> Found:
        """Partners of some anchors; tells for how many they are found, part by part."""
        parts, rest = [], anchors
        if self._limit is not None and not self._best_only and self._limit > 0:
            wide = self._sizes[anchors] >= 2 * DRAWN_PER_WANTED * self._limit
            drawn, served = self._draw(anchors[wide])
            parts.append(drawn)
            rest = np.setdiff1d(anchors, served, assume_unique=True)
        advance(len(anchors) - len(rest))
        for chunk in self._chunks(rest):
            parts.append(self._list(chunk))
            advance(len(chunk))
        return _merged(parts)

    # --- drawing ---------------------------------------------------------------------------------------------------

    def _draw(self, anchors: Ints) -> tuple[Found, Ints]:
        """Random partners that match everything, for the anchors for which enough are found; and which anchors these are."""
        limit = self._limit or 0
        width = DRAWN_PER_WANTED * limit
        a = np.repeat(anchors, width)
        draw = np.tile(np.arange(width), len(anchors))
        u = uniform(a, draw, self._key, _DRAWS)
        partners = self._pool.at(a, (u * self._sizes[a]).astype(np.int64))
        good = partners != a
        for values, condition in zip(self._values, self._conditions, strict=True):
            good &= condition.matches(condition.distances(values[a], values[partners]))
        a, partners, draw = a[good], partners[good], draw[good]
        first = np.sort(np.unique(a * self._n + partners, return_index=True)[1])  # a partner drawn twice counts once
        a, partners = a[first], partners[first]
        place = _ramp(a)
        enough = np.zeros(self._n, dtype=bool)
        enough[a[place == limit - 1]] = True
        kept = (place < limit) & enough[a]
        a, partners = a[kept], partners[kept]
        return Found(a, partners, self._weights(a, partners)), np.flatnonzero(enough)

    def _weights(self, a: Ints, b: Ints) -> Floats:
        scores = [c.scores(c.distances(v[a], v[b])) for v, c in zip(self._values, self._conditions, strict=True)]
        return np.mean(scores, axis=0) if len(a) else np.empty(0)

    # --- listing ---------------------------------------------------------------------------------------------------

    def _chunks(self, anchors: Ints) -> list[Ints]:
        if not len(anchors):
            return []
        total = np.cumsum(self._sizes[anchors])
        return [chunk for chunk in np.split(anchors, np.flatnonzero(np.diff(total // PAIRS_AT_ONCE)) + 1) if len(chunk)]

    def _list(self, anchors: Ints) -> Found:
        """Partners out of all candidates of some anchors: matches of all conditions first, then of some, then of none."""
        a = np.repeat(anchors, self._sizes[anchors])
        b = self._pool.at(a, _ramp(a))
        kept = a != b
        a, b = a[kept], b[kept]
        matched = np.zeros(len(a), dtype=np.int64)
        allowed = np.ones(len(a), dtype=bool)
        for values, condition in zip(self._values, self._conditions, strict=True):
            match = condition.matches(condition.distances(values[a], values[b]))
            matched += match
            if not condition.allow_fallback:
                allowed &= match
        a, b, matched = a[allowed], b[allowed], matched[allowed]
        group = np.where(matched == len(self._conditions), 0, np.where(matched > 0, 1, 2))
        weights = self._weights(a, b)
        key = -weights if self._best_only else uniform(a, b, self._key, _ORDER)
        order = np.lexsort((b, key, group, a))
        a, b, weights = a[order], b[order], weights[order]
        if self._limit is not None:
            kept = _ramp(a) < self._limit
            a, b, weights = a[kept], b[kept], weights[kept]
        return Found(a, b, weights)


def _ramp(anchors: Ints) -> Ints:
    """0, 1, ... within each run of equal anchors."""
    if not len(anchors):
        return np.empty(0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, anchors[1:] != anchors[:-1]])
    return np.arange(len(anchors)) - np.repeat(starts, np.diff(np.r_[starts, len(anchors)]))


def _merged(parts: Sequence[Found]) -> Found:
    anchors = np.concatenate([part.anchors for part in parts]) if parts else np.empty(0, dtype=np.int64)
    order = np.argsort(anchors, kind="stable")
    partners = np.concatenate([part.partners for part in parts]) if parts else anchors
    weights = np.concatenate([part.weights for part in parts]) if parts else np.empty(0)
    return Found(anchors[order], partners[order], weights[order])


def _comparable(values: NDArray[Any], condition: SimilarityCondition) -> NDArray[Any]:
    """Numbers as floats, other values as the numbers of their classes; untouched for a metric."""
    if condition.metric is not None:
        return values
    return values.astype(np.float64) if is_numeric(values) else _Classes(values).codes


class _Classes:
    """Values that are equal or not: codes far enough apart that only equal ones are within any finite tolerance."""

    def __init__(self, values: NDArray[Any]) -> None:
        seen: dict[Any, int] = {}
        self.codes = np.array([seen.setdefault(value, len(seen)) for value in values.tolist()], dtype=object)


def _everything(n: int) -> Pool:
    return Pool(np.arange(n), np.zeros(n, dtype=np.int64), np.full(n, n, dtype=np.int64), False)


def _pool(values: NDArray[Any], condition: SimilarityCondition) -> Pool | None:
    """The rows that a condition admits for each anchor, possibly a few more at the edges; None if it says nothing about order."""
    if condition.metric is not None:
        return None
    numbers = values.astype(np.float64)
    tolerance = condition.tolerance if values.dtype != object else (0.0 if 0 <= condition.tolerance < np.inf else np.nan)
    if not 0 <= tolerance < np.inf:
        return None
    known = np.flatnonzero(~np.isnan(numbers))
    order = known[np.argsort(numbers[known], kind="stable")]
    ranked = numbers[order]
    similar = condition.mode == "similar"
    slack = 4 * np.finfo(np.float64).eps * (np.abs(numbers) + tolerance) * (1 if similar else -1)  # matches are checked exactly later
    low = np.searchsorted(ranked, numbers - tolerance - slack, side="left" if similar else "right")
    high = np.searchsorted(ranked, numbers + tolerance + slack, side="right" if similar else "left")
    missing = np.isnan(numbers)
    low[missing], high[missing] = (0, 0) if similar else (0, len(order))
    return Pool(order, low, np.maximum(high, low), not similar)

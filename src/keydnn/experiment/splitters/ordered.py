"""KFoldSplitter and TimeSplitter: folds, and blocks in the order of a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keydnn.experiment.splitters.base import BaseSplitter, check_not_empty, checked_ratios, cut, drawn_seed, part_sizes


class KFoldSplitter(BaseSplitter):
    """Parts ``fold_0``, ``fold_1``, ... of nearly equal size.

    Args:
        n_folds: Number of parts.
        shuffle: Whether rows are shuffled first.
        seed: Of ``numpy.random.default_rng``; None draws one and keeps it.

    Raises:
        ValueError: Fewer than 2 parts.
    """

    def __init__(self, n_folds: int, shuffle: bool = True, seed: int | None = 13) -> None:
        if n_folds < 2:
            raise ValueError(f"KFoldSplitter: n_folds must be at least 2, got {n_folds}")
        self.n_folds, self.shuffle, self.seed = int(n_folds), bool(shuffle), drawn_seed(seed)

    def split(self, view: Any, *, return_views: bool = True) -> dict[str, Any]:
        """The folds of a view.

        Raises:
            ValueError: Fewer samples than folds.
        """
        positions = np.arange(len(view))
        if self.shuffle:
            np.random.default_rng(self.seed).shuffle(positions)
        parts = cut(positions, part_sizes({f"fold_{i}": 1 / self.n_folds for i in range(self.n_folds)}, len(view)))
        check_not_empty(parts, "KFoldSplitter")
        return self._answer(view, parts, return_views)

    def _arguments(self) -> dict[str, Any]:
        return {"n_folds": self.n_folds, "shuffle": self.shuffle, "seed": self.seed}


class TimeSplitter(BaseSplitter):
    """Consecutive blocks in ascending order of a column: what comes later never stands in an earlier part.

    Args:
        ratios: Split name to fraction, earliest first; they sum to 1.
        order_by: Column with one value per sample.

    Raises:
        ValueError: Ratios outside [0, 1] or not summing to 1.
    """

    def __init__(self, ratios: Mapping[str, float], order_by: str) -> None:
        self.ratios, self.order_by = checked_ratios(ratios, "TimeSplitter"), order_by

    def split(self, view: Any, *, return_views: bool = True) -> dict[str, Any]:
        """The blocks of a view; equal values keep their order.

        Raises:
            ValueError: A part would get no samples, or the column's samples are not scalars.
            ResolutionError: An unknown column.
        """
        values = view.column_values(self.order_by)
        if values.ndim != 1:
            raise ValueError(f"TimeSplitter: {self.order_by!r} has samples of shape {values.shape[1:]}, one value is needed")
        parts = cut(np.argsort(values, kind="stable"), part_sizes(self.ratios, len(view)))
        check_not_empty(parts, "TimeSplitter")
        return self._answer(view, parts, return_views)

    def _arguments(self) -> dict[str, Any]:
        return {"ratios": self.ratios, "order_by": self.order_by}

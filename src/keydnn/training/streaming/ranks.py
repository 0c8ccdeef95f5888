"""Area under the ROC curve."""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import integer
from keydnn.ops import stack
from keydnn.ops.shape import one_hot_p
from keydnn.training.streaming.base import StreamingMetric, same_shape


class AUC(StreamingMetric):
    """Area under the ROC curve: how often a positive has a higher score than a negative, equal scores counting half.

    Exact by default: all scores are kept, so it runs after each step and is told at the end of an epoch.  With ``bins`` the scores
    are counted in so many intervals of equal width between 0 and 1, inside recorded steps; scores of one interval count as equal,
    so the error is at most half the share of pairs that share one.

    Args:
        bins: None, or the number of intervals, at least 2; scores outside [0, 1] then count as the nearest of
            these, NaN as 0.

    Example:
        >>> from keydnn.metrics import AUC
        >>> auc = AUC(bins=100)
        >>> auc.update(np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.4, 0.6]))
        >>> auc.result()
        0.75
    """

    name = "auc"

    def __init__(self, bins: int | None = None) -> None:
        super().__init__()
        self.bins = None if bins is None else integer("bins", bins, self, 2)
        self._batches: list[tuple[np.ndarray, np.ndarray]] = []
        if self.bins is not None:
            self.in_step = True
            self._histogram = self.count("histogram", (2, self.bins))

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self._batches = []

    def update(self, y_true: Any, y_pred: Any) -> None:
        """Take one batch: 0 and 1, and scores, Tensors or arrays of one shape.

        Raises:
            ValueError: The shapes differ.
        """
        if self.bins is not None:
            positive, scores = same_shape("AUC", y_true, y_pred)
            yes = (positive.reshape((-1,)) > 0.5).astype(np.float64)
            scores = scores.reshape((-1,))
            place = (scores.where(scores == scores, 0.0) * self.bins).clamp(min=0.0, max=self.bins - 1.0).astype(np.int64)
            self.add(self._histogram, stack([1.0 - yes, yes]) @ one_hot_p(place, n=self.bins, dtype=np.dtype(np.float64)))
            return
        truth, kept = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
        if truth.shape != kept.shape:
            raise ShapeError(f"AUC: Shape mismatch: y_true {truth.shape} vs y_pred {kept.shape}")
        self._batches.append((truth.ravel() > 0.5, kept.flatten()))

    def _kept(self) -> tuple[np.ndarray, np.ndarray]:
        if not self._batches:
            return np.zeros(0, bool), np.zeros(0)
        truth, scores = (np.concatenate(parts) for parts in zip(*self._batches, strict=True))
        return truth, scores

    def result(self) -> float:
        """The area by ranks, ties at their mean rank; NaN without both classes."""
        if self.bins is not None:
            negatives, positives = self._histogram.numpy()
            below = np.cumsum(negatives) - negatives / 2
            pairs = negatives.sum() * positives.sum()
            return float((positives * below).sum() / pairs) if pairs else float("nan")
        return self._exact()

    def _exact(self) -> float:
        truth, scores = self._kept()
        positives = int(truth.sum())
        negatives = truth.size - positives
        if not positives or not negatives:
            return float("nan")
        _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
        ranks = np.cumsum(counts) - (counts - 1) / 2.0
        return float((ranks[place][truth].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))

    def get_state(self) -> dict[str, Any]:
        """All targets and scores, or the counts."""
        if self.bins is not None:
            return super().get_state()
        truth, scores = self._kept()
        return {"truth": truth, "scores": scores}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        if self.bins is not None:
            return super().set_state(state)
        self._batches = [(np.asarray(state["truth"], bool), np.asarray(state["scores"], np.float64))]

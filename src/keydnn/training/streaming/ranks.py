"""Area under the ROC curve."""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn.domain.errors import ShapeError
from keydnn.training.streaming.base import StreamingMetric


class AUC(StreamingMetric):
    """Area under the ROC curve, exact: all scores are kept, so it runs after each step and is told at the end of an epoch."""

    name = "auc"

    def __init__(self) -> None:
        super().__init__()
        self._batches: list[tuple[np.ndarray, np.ndarray]] = []

    def reset(self) -> None:
        """Forget all batches."""
        self._batches = []

    def update(self, y_true: Any, y_pred: Any) -> None:
        """Keep one batch: 0 and 1, and scores, Tensors or arrays of one shape.

        Raises:
            ValueError: The shapes differ.
        """
        truth, scores = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
        if truth.shape != scores.shape:
            raise ShapeError(f"AUC: Shape mismatch: y_true {truth.shape} vs y_pred {scores.shape}")
        self._batches.append((truth.ravel() > 0.5, scores.flatten()))

    def _kept(self) -> tuple[np.ndarray, np.ndarray]:
        if not self._batches:
            return np.zeros(0, bool), np.zeros(0)
        truth, scores = (np.concatenate(parts) for parts in zip(*self._batches, strict=True))
        return truth, scores

    def result(self) -> float:
        """The area by ranks, ties at their mean rank; NaN without both classes."""
        truth, scores = self._kept()
        positives = int(truth.sum())
        negatives = truth.size - positives
        if not positives or not negatives:
            return float("nan")
        _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
        ranks = np.cumsum(counts) - (counts - 1) / 2.0
        return float((ranks[place][truth].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))

    def get_state(self) -> dict[str, Any]:
        """All targets and scores."""
        truth, scores = self._kept()
        return {"truth": truth, "scores": scores}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self._batches = [(np.asarray(state["truth"], bool), np.asarray(state["scores"], np.float64))]

"""Metrics over many batches that no mean of batch values gives: counts and sums are kept, the value comes at the end.

    precision = TP / (TP + FP);  recall = TP / (TP + FN);  F1 = 2 TP / (2 TP + FP + FN)       (0 where the divisor is 0)
    RMSE = sqrt(mean (y - p)^2);  R^2 = 1 - sum (y - p)^2 / sum (y - mean y)^2
    AUC = P(score of a positive > score of a negative) + P(equal) / 2                 (Hanley & McNeil 1982)

They run beside ``predict``, outside of recorded steps: ``fit`` and ``evaluate`` take functions and average them.

>>> from keydnn.training.streaming import Recall
>>> recall = Recall()
>>> recall.update(np.array([1, 0, 1]), np.array([0.9, 0.8, 0.1]))
>>> recall.result()
0.5
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn.domain.errors import ShapeError
from keydnn.optim.optimizer import fraction


def _pair(name: str, y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
    if truth.shape != predicted.shape:
        raise ShapeError(f"{name}: Shape mismatch: y_true {truth.shape} vs y_pred {predicted.shape}")
    return truth.ravel(), predicted.ravel()


class _Counts:
    """Counts of a decision at a threshold."""

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = fraction(type(self).__name__, "threshold", threshold)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.true_positives = self.false_positives = self.false_negatives = 0

    def update(self, y_true: Any, y_pred: Any) -> None:
        """Count one batch.

        Args:
            y_true: Tensor or array of 0 and 1.
            y_pred: Tensor or array of probabilities, of the same shape.

        Raises:
            ValueError: The shapes differ.
        """
        truth, predicted = _pair(type(self).__name__, y_true, y_pred)
        yes, said = truth > 0.5, predicted > self.threshold
        self.true_positives += int((yes & said).sum())
        self.false_positives += int((~yes & said).sum())
        self.false_negatives += int((yes & ~said).sum())


def _ratio(a: float, b: float) -> float:
    return a / b if b else 0.0


class Precision(_Counts):
    """Share of the positive predictions that are right.

    Args:
        threshold: Probabilities above it are positive predictions; between 0 and 1.
    """

    def result(self) -> float:
        """``TP / (TP + FP)``, 0 without positive predictions."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)


class Recall(_Counts):
    """Share of the positives that are found; arguments as Precision."""

    def result(self) -> float:
        """``TP / (TP + FN)``, 0 without positives."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)


class F1(_Counts):
    """Harmonic mean of precision and recall; arguments as Precision."""

    def result(self) -> float:
        """``2 TP / (2 TP + FP + FN)``."""
        return _ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)


class _Sums:
    """Sums of errors and of targets; deviations are merged batch by batch (Chan et al. 1979), so a large mean costs nothing."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.n, self.squares, self.mean, self.deviation = 0, 0.0, 0.0, 0.0

    def update(self, y_true: Any, y_pred: Any) -> None:
        """Count one batch of Tensors or arrays of one shape.

        Raises:
            ValueError: The shapes differ.
        """
        truth, predicted = _pair(type(self).__name__, y_true, y_pred)
        if not truth.size:
            return
        n, mean = self.n + truth.size, float(truth.mean())
        gap = mean - self.mean
        self.deviation += float(((truth - mean) ** 2).sum()) + gap * gap * self.n * truth.size / n
        self.mean += gap * truth.size / n
        self.n = n
        self.squares += float(((truth - predicted) ** 2).sum())


class RMSE(_Sums):
    """Root of the mean squared error over all elements."""

    def result(self) -> float:
        """The value over all batches, NaN without any."""
        return float(np.sqrt(self.squares / self.n)) if self.n else float("nan")


class R2(_Sums):
    """Share of the targets' variance that is explained, over all elements."""

    def result(self) -> float:
        """``1 - sum of squared errors / sum of squared deviations``; NaN if the targets are all equal."""
        return 1.0 - self.squares / self.deviation if self.deviation else float("nan")


class AUC:
    """Area under the ROC curve, exact: all scores are kept."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._batches: list[tuple[np.ndarray, np.ndarray]] = []

    def update(self, y_true: Any, y_pred: Any) -> None:
        """Keep one batch: 0 and 1, and scores, Tensors or arrays of one shape.

        Raises:
            ValueError: The shapes differ.
        """
        truth, scores = _pair("AUC", y_true, y_pred)
        self._batches.append((truth > 0.5, scores.copy()))

    def result(self) -> float:
        """The area by ranks, ties at their mean rank; NaN without both classes."""
        if not self._batches:
            return float("nan")
        truth, scores = (np.concatenate(parts) for parts in zip(*self._batches, strict=True))
        positives = int(truth.sum())
        negatives = truth.size - positives
        if not positives or not negatives:
            return float("nan")
        _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
        ranks = np.cumsum(counts) - (counts - 1) / 2.0
        return float((ranks[place][truth].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))

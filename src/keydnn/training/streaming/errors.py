"""RMSE and R^2; deviations are merged batch by batch (Chan et al. 1979), so a large mean costs nothing.

n = n_a + n_b,  d = mean_b - mean_a:   mean = mean_a + d n_b / n,   dev = dev_a + dev_b + d^2 n_a n_b / n
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn.training.streaming.base import StreamingMetric, same_shape


class RMSE(StreamingMetric):
    """Root of the mean squared error over all elements."""

    name, in_step = "rmse", True

    def __init__(self) -> None:
        super().__init__()
        self._n, self._squares = self.count("n"), self.count("squares")

    def update(self, y_true: Any, y_pred: Any) -> None:
        """Count one batch of Tensors or arrays of one shape.

        Raises:
            ValueError: The shapes differ.
        """
        truth, predicted = same_shape("RMSE", y_true, y_pred)
        self.add(self._n, float(truth.numel()))
        self.add(self._squares, (truth - predicted).square().sum())

    def result(self) -> float:
        """The value over all batches, NaN without any."""
        n = self._n.item()
        return float(np.sqrt(self._squares.item() / n)) if n else float("nan")


class R2(StreamingMetric):
    """Share of the targets' variance that is explained, over all elements."""

    name, in_step = "r2", True

    def __init__(self) -> None:
        super().__init__()
        self._n, self._squares = self.count("n"), self.count("squares")
        self._mean, self._deviation = self.count("mean"), self.count("deviation")

    def update(self, y_true: Any, y_pred: Any) -> None:
        """Count one batch of Tensors or arrays of one shape.

        Raises:
            ValueError: The shapes differ.
        """
        truth, predicted = same_shape("R2", y_true, y_pred)
        if not truth.numel():
            return
        size, mean = float(truth.numel()), truth.mean()
        gap = mean - self._mean
        share = size / (self._n + size)
        deviation = (truth - mean).square().sum() + gap.square() * self._n * share
        self.add(self._deviation, deviation)
        self.add(self._mean, gap * share)
        self.add(self._n, size)
        self.add(self._squares, (truth - predicted).square().sum())

    def result(self) -> float:
        """``1 - sum of squared errors / sum of squared deviations``; NaN if the targets are all equal."""
        deviation = self._deviation.item()
        return 1.0 - self._squares.item() / deviation if deviation else float("nan")

"""Precision, recall and F1: of yes or no at a threshold, or of several classes.

    precision = TP / (TP + FP);  recall = TP / (TP + FN);  F1 = 2 TP / (2 TP + FP + FN)       (0 where the divisor is 0)

With several classes each has its own value, and ``average`` makes one of them: ``macro`` is their mean over the classes that
occur (in targets or predictions), ``weighted`` that weighted by how often each class is the true one, ``micro`` takes the
counts of all classes together.  The values are those of scikit-learn.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keydnn.nn.arguments import integer
from keydnn.optim.optimizer import fraction
from keydnn.training.streaming.base import StreamingMetric, ratio, same_shape
from keydnn.training.streaming.classes import confusion

AVERAGES = ("macro", "micro", "weighted")


class _Decisions(StreamingMetric):
    in_step = True

    def __init__(self, threshold: float = 0.5, *, n_classes: int | None = None, average: str = "macro", from_logits: bool = False) -> None:
        super().__init__()
        owner = type(self).__name__
        self.threshold = fraction(owner, "threshold", threshold)
        if average not in AVERAGES:
            raise ValueError(f"{owner}: average must be one of {', '.join(AVERAGES)}, got {average!r}")
        self.from_logits = bool(from_logits)
        self._limit = math.log(self.threshold / (1.0 - self.threshold)) if self.from_logits else self.threshold
        self.n_classes, self.average = None if n_classes is None else integer("n_classes", n_classes, self, 2), average
        if self.n_classes is None:
            self._tp, self._fp, self._fn = (self.count(name) for name in ("true_positives", "false_positives", "false_negatives"))
        else:
            self._matrix = self.count("matrix", (self.n_classes, self.n_classes))

    def update(self, y_true: Any, y_pred: Any) -> None:
        """Count one batch.

        Args:
            y_true: Tensor or array of 0 and 1; with ``n_classes`` labels, or one-hot rows (..., C).
            y_pred: Tensor or array of probabilities, of the same shape; with ``n_classes`` scores (..., C), or labels.

        Raises:
            ValueError: The shapes do not fit, or a label is no class.
        """
        name = type(self).__name__
        if self.n_classes is not None:
            self.add(self._matrix, confusion(name, y_true, y_pred, self.n_classes))
            return
        truth, predicted = same_shape(name, y_true, y_pred)
        yes, said = (truth > 0.5).astype(np.float64), (predicted > self._limit).astype(np.float64)
        right = (yes * said).sum()
        self.add(self._tp, right)
        self.add(self._fp, said.sum() - right)
        self.add(self._fn, yes.sum() - right)

    @property
    def true_positives(self) -> Any:
        """An int, or one per class."""
        return self._counted()[0]

    @property
    def false_positives(self) -> Any:
        """An int, or one per class."""
        return self._counted()[1]

    @property
    def false_negatives(self) -> Any:
        """An int, or one per class."""
        return self._counted()[2]

    def _counted(self) -> tuple[Any, Any, Any]:
        if self.n_classes is None:
            return int(self._tp.item()), int(self._fp.item()), int(self._fn.item())
        matrix = self._matrix.numpy().astype(np.int64)
        right = matrix.diagonal()
        return right, matrix.sum(0) - right, matrix.sum(1) - right

    def result(self) -> float:
        """The value over all batches, 0 where nothing was counted."""
        tp, fp, fn = self._counted()
        if self.n_classes is None or self.average == "micro":
            return float(self._value(np.sum(tp), np.sum(fp), np.sum(fn)))
        values, weights = self._value(tp, fp, fn), tp + fn if self.average == "weighted" else tp + fp + fn > 0
        return float(ratio((values * weights).sum(), weights.sum()))

    def _value(self, tp: Any, fp: Any, fn: Any) -> Any:
        raise NotImplementedError


class Precision(_Decisions):
    """Share of the positive predictions that are right: ``TP / (TP + FP)``.

    Args:
        threshold: Probabilities above it are positive predictions; between 0 and 1.
        n_classes: Classes, if there are several; rows are then decided by their largest score.
        average: ``macro``, ``micro`` or ``weighted``: one value of those of several classes.
        from_logits: Whether predictions are logits, whose sigmoid is the probability.

    Example:
        >>> from keydnn.training.streaming import Precision
        >>> precision = Precision(n_classes=3)
        >>> precision.update(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]))
        >>> round(precision.result(), 4)  # the mean of 1, 1/2 and 1
        0.8333
    """

    name = "precision"

    def _value(self, tp: Any, fp: Any, fn: Any) -> Any:
        return ratio(tp, tp + fp)


class Recall(_Decisions):
    """Share of the positives that are found, ``TP / (TP + FN)``; arguments as :class:`Precision`."""

    name = "recall"

    def _value(self, tp: Any, fp: Any, fn: Any) -> Any:
        return ratio(tp, tp + fn)


class F1(_Decisions):
    """Harmonic mean of precision and recall, ``2 TP / (2 TP + FP + FN)``; arguments as :class:`Precision`."""

    name = "f1"

    def _value(self, tp: Any, fp: Any, fn: Any) -> Any:
        return ratio(2 * tp, 2 * tp + fp + fn)

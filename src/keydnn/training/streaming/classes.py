"""Several classes: the confusion matrix, and whether the true class is among the best k.

A row of scores is decided by its largest entry, the first of equals.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.domain.errors import ShapeError
from keydnn.nn.arguments import integer
from keydnn.ops.shape import one_hot_p
from keydnn.training.streaming.base import StreamingMetric, tensor_of


def labels_of(name: str, y: Any, n_classes: int) -> Tensor:
    """Classes (n,), int64, from scores or one-hot rows (..., C), or from labels.

    Raises:
        ValueError: A label that is no class (not seen in a recorded step, where such rows do not count).
    """
    y = tensor_of(y)
    if y.ndim > 1 and y.shape[-1] == n_classes:
        return y.argmax(-1).reshape(-1)
    labels = y.reshape(-1).astype(np.int64)
    values = labels._data
    if values.size and (values.min() < 0 or values.max() >= n_classes):
        raise ShapeError(f"{name}: labels run from {values.min()} to {values.max()}, expected 0 to {n_classes - 1}")
    return labels


def confusion(name: str, y_true: Any, y_pred: Any, n_classes: int) -> Tensor:
    """Counts (C, C) of one batch: rows are true classes, columns predicted ones.

    Raises:
        ValueError: The numbers of rows differ, or a label is no class.
    """
    truth, predicted = labels_of(name, y_true, n_classes), labels_of(name, y_pred, n_classes)
    if truth.shape != predicted.shape:
        shapes = [np.shape(y) for y in (y_true, y_pred)]
        raise ShapeError(f"{name}: Shape mismatch: y_true {shapes[0]} vs y_pred {shapes[1]} for {n_classes} classes")
    hot = [one_hot_p(labels, n=n_classes, dtype=np.dtype(np.float64)) for labels in (truth, predicted)]
    return hot[0].transpose() @ hot[1]


class ConfusionMatrix(StreamingMetric):
    """How often each class was taken for each other.

    Its result is no number, so it is not logged: read it from the object after ``fit`` (where it holds what was seen last:
    the validation data if there are any) or ``evaluate``.

    Args:
        n_classes: Classes C, at least 2.

    Example:
        >>> from keydnn.training.streaming import ConfusionMatrix
        >>> matrix = ConfusionMatrix(2)
        >>> matrix.update(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]))
        >>> matrix.result().tolist()
        [[1, 0], [1, 1]]
    """

    name, in_step, is_number = "confusion_matrix", True, False

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = integer("n_classes", n_classes, self, 2)
        self._matrix = self.count("matrix", (self.n_classes, self.n_classes))

    def update(self, y_true: Any, y_pred: Any) -> None:
        """Count one batch.

        Args:
            y_true: Labels, or one-hot rows (..., C).
            y_pred: Scores (..., C), or labels.

        Raises:
            ValueError: The numbers of rows differ, or a label is no class.
        """
        self.add(self._matrix, confusion("ConfusionMatrix", y_true, y_pred, self.n_classes))

    def result(self) -> np.ndarray:
        """Counts (C, C), int64: rows are true classes, columns predicted ones."""
        return self._matrix.numpy().astype(np.int64)


class TopKAccuracy(StreamingMetric):
    """Share of rows whose true class is among the ``k`` of the largest scores; of equal scores the first counts as larger.

    Args:
        k: At least 1; 1 is accuracy.
    """

    in_step = True

    def __init__(self, k: int = 5) -> None:
        super().__init__()
        self.k = integer("k", k, self, 1)
        self.name = f"top_{self.k}_accuracy"
        self._right, self._rows = self.count("right"), self.count("rows")

    def update(self, y_true: Any, y_pred: Any) -> None:
        """Count one batch.

        Args:
            y_true: Labels (n,) or (n, 1), or one-hot rows (n, C).
            y_pred: Scores (n, C), C at least 2.

        Raises:
            ValueError: The shapes do not fit, or a label is no class.
        """
        scores = tensor_of(y_pred)
        if scores.ndim != 2 or scores.shape[1] < 2:
            raise ShapeError(f"TopKAccuracy: expected scores (n, C) with C at least 2, got shape {scores.shape}")
        n, n_classes = scores.shape
        labels = labels_of("TopKAccuracy", y_true, n_classes)
        if labels.shape != (n,):
            raise ShapeError(f"TopKAccuracy: Shape mismatch: y_true {np.shape(y_true)} vs y_pred {scores.shape}")
        if not n:
            return
        hot = one_hot_p(labels, n=n_classes, dtype=scores.dtype)
        own = scores.where(hot > 0.5, 0.0).sum(1, keepdims=True).broadcast_to(scores.shape)
        above, equal = (scores > own).astype(np.float64), (scores == own).astype(np.float64)
        before = 1.0 - hot.astype(np.float64).cumsum(1)  # classes that come before the true one
        rank = (above + equal * before).sum(1)
        is_number = (own == own).astype(np.float64).mean(1)
        self.add(self._right, ((rank < float(self.k)).astype(np.float64) * is_number).sum())
        self.add(self._rows, float(n))

    def result(self) -> float:
        """The share, 0 without rows."""
        n = self._rows.item()
        return self._right.item() / n if n else 0.0

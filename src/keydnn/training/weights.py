"""What each sample counts: weights given by the user and weights of classes, as one array beside x and y.

    w_i = sample_weight_i * class_weight[class of y_i]

The class of a row is its label (N,) or (N, 1), or the argmax of a one-hot row (N, C).  ``"balanced"`` gives class c the
weight ``n / (number of classes * n_c)``, as scikit-learn does (King & Zeng 2001, https://doi.org/10.1093/oxfordjournals.pan.a004868).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.domain.errors import ShapeError
from keydnn.training.data import Batches, as_array


def sample_weights(weight: Any, n: int, owner: str) -> np.ndarray:
    """Weights of ``n`` samples, float64.

    Raises:
        TypeError: Neither Tensor nor ndarray.
        ValueError: Another shape than (n,); a weight below 0, infinite or NaN.
    """
    values = np.asarray(as_array(weight, f"{owner}: sample_weight"), np.float64)
    if values.shape != (n,):
        raise ShapeError(f"{owner}: sample_weight has shape {values.shape}, expected one weight per row ({n},)")
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError(f"{owner}: sample_weight must be finite and at least 0, it runs from {values.min()} to {values.max()}")
    return values


def checked_class_weight(class_weight: Any, owner: str) -> dict[int, float] | str:
    """``class_weight`` as class to weight, or ``"balanced"``.

    Raises:
        TypeError: Neither that nor a mapping.
        ValueError: A weight below 0, infinite or NaN.
    """
    if isinstance(class_weight, str) and class_weight == "balanced":
        return class_weight
    if not isinstance(class_weight, Mapping):
        raise TypeError(f"{owner}: class_weight must map classes to weights, or be 'balanced'; got {class_weight!r}")
    found = {int(label): float(weight) for label, weight in class_weight.items()}
    for label, weight in found.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{owner}: class_weight of class {label} must be finite and at least 0, got {weight}")
    return found


def classes_of(y: Any, owner: str) -> np.ndarray:
    """The class of each row, int64 (N,).

    Raises:
        ValueError: Neither labels (N,) or (N, 1) nor rows of scores (N, C).
    """
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] > 1:
        return values.argmax(1)
    if values.ndim not in (1, 2):
        raise ShapeError(f"{owner}: class_weight needs labels (N,) or one-hot rows (N, C), y has shape {values.shape}")
    labels = values.reshape(-1)
    whole = labels.astype(np.int64)
    if not np.array_equal(whole, labels):
        raise ValueError(f"{owner}: class_weight needs whole numbers as labels, y has {labels[whole != labels][0]}")
    return whole


def class_weights(class_weight: dict[int, float] | str, y: Any, owner: str) -> np.ndarray:
    """The weight of each row by its class, float64 (N,); a class that is not named has weight 1."""
    labels = classes_of(y, owner)
    known, places = np.unique(labels, return_inverse=True)
    if isinstance(class_weight, str):
        table = len(labels) / (len(known) * np.bincount(places))
    else:
        table = np.array([class_weight.get(int(label), 1.0) for label in known])
    return table[places]


def row_weights(y: Any, sample_weight: Any, class_weight: Any, owner: str) -> np.ndarray | None:
    """The weights of all rows of ``y``; None if neither kind is given.

    Raises:
        TypeError: Wrong types.
        ValueError: Shapes that do not fit, weights out of range.
    """
    if sample_weight is None and class_weight is None:
        return None
    if y is None:
        raise ValueError(f"{owner}: sample_weight needs x and y as arrays")
    y = as_array(y, f"{owner}: y")
    n = y.shape[0] if y.ndim else 0
    weights = np.ones(n) if sample_weight is None else sample_weights(sample_weight, n, owner)
    if class_weight is None:
        return weights
    return weights * class_weights(checked_class_weight(class_weight, owner), y, owner)


def total_weight(weight: Any) -> float:
    """The sum of a batch's weights, exact before it is rounded: the same however the rows are cut into calls."""
    return math.fsum(np.asarray(weight).tolist())


class ClassWeighted:
    """Batches whose rows count by their class.

    Args:
        batches: Pairs (x, y).
        class_weight: Class to weight, or None: every row counts 1, whatever ``y`` is.
        dtype: Of the weights.
        owner: Named in errors.

    Raises:
        TypeError: ``class_weight`` is no mapping.
        ValueError: A weight out of range; ``"balanced"``, which takes all labels at once.
    """

    def __init__(self, batches: Batches, class_weight: Any, dtype: Any, owner: str) -> None:
        self.batches, self.dtype, self.owner = batches, dtype, owner
        self.class_weight = None if class_weight is None else checked_class_weight(class_weight, owner)
        if isinstance(self.class_weight, str):
            raise ValueError(f"{owner}: class_weight='balanced' needs x and y as arrays; pass the weights of the classes")

    @property
    def n_batches(self) -> int | None:
        """Batches per epoch; None if unknown."""
        return self.batches.n_batches

    def draw_key(self) -> int | None:
        """What the batches draw."""
        return self.batches.draw_key()

    def epoch(self, key: int | None, first: int = 0) -> Iterator[tuple[Any, ...]]:
        """Triples of Tensors (x, y, weights)."""
        for x, y in self.batches.epoch(key, first):
            weights = np.ones(y.shape[:1]) if self.class_weight is None else class_weights(self.class_weight, y, self.owner)
            yield x, y, Tensor(data=weights, dtype=self.dtype)

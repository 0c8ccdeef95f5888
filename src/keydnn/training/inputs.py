"""What ``fit`` is given as data, as batches for training and validation."""

from __future__ import annotations

from typing import Any

import numpy as np

from keydnn.training.data import Batches, make_batches, split_rows
from keydnn.training.weights import ClassWeighted, row_weights, sample_weights


def data_batches(
    x: Any,
    y: Any,
    *,
    batch_size: int,
    shuffle: bool,
    dtype: Any,
    validation_data: Any,
    validation_split: float | None,
    sample_weight: Any,
    class_weight: Any,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
) -> tuple[Batches, Batches | None, bool]:
    """Batches for training, for validation, and whether those for validation are triples (x, y, weights).

    If training has weights, validation has them too, 1 where none are given, and so the same loss: one that gives a value per
    row can do without a mean of its own.

    Raises:
        TypeError: Wrong types.
        ValueError: Shapes that do not fit, weights out of range, a split of what is no array.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "dtype": dtype, "owner": "fit", "most": steps_per_epoch}
    data = make_batches(x, y, shuffle=shuffle, **options)  # says what is wrong with x and y
    if validation_split is not None:
        if y is None or validation_data is not None:
            raise ValueError("fit: validation_split needs x and y as arrays, and no validation_data")
        if sample_weight is not None:
            sample_weight = sample_weights(sample_weight, x.shape[0], "fit")
        (x, y, sample_weight), validation_data = split_rows((x, y, sample_weight), validation_split, "fit")
    is_weighted = sample_weight is not None or class_weight is not None
    if y is not None or sample_weight is not None:
        data = make_batches(x, y, shuffle=shuffle, weights=row_weights(y, sample_weight, class_weight, "fit"), **options)
    elif class_weight is not None:
        data = ClassWeighted(data, class_weight, dtype, "fit")
    return data, *_validation(validation_data, batch_size, dtype, is_weighted, validation_steps)


def _validation(validation_data: Any, batch_size: int, dtype: Any, is_weighted: bool, most: int | None) -> tuple[Batches | None, bool]:
    """Batches in order, and whether they have weights."""
    if validation_data is None:
        return None, False
    x, y, weights = validation_data, None, None
    if isinstance(validation_data, tuple | list) and len(validation_data) in (2, 3) and not isinstance(validation_data[0], tuple):
        x, y, weights = (*validation_data, None)[:3]
    owner = "fit: validation_data"
    if weights is not None:
        weights = row_weights(y, weights, None, owner)
    elif is_weighted and y is not None:
        weights = np.ones(y.shape[:1])
    batches = make_batches(x, y, batch_size=batch_size, shuffle=False, dtype=dtype, owner=owner, weights=weights, most=most)
    if is_weighted and weights is None:
        return ClassWeighted(batches, None, dtype, owner), True
    return batches, weights is not None

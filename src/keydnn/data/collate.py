"""Collating: samples become one batch, tuples and dicts part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keydnn._tensor import Tensor
from keydnn.domain.errors import ShapeError


def collate(samples: Sequence[Any]) -> Any:
    """One batch from samples of one structure.

    Args:
        samples: At least one; numbers, arrays and Tensors of one shape, or tuples, lists and dicts of these.

    Returns:
        The structure of a sample, with arrays (n, ...) at its leaves; tuples and lists become tuples.

    Raises:
        ValueError: There are no samples, or their shapes or structures differ.
        TypeError: A sample holds something else.

    Example:
        >>> from keydnn.data import collate
        >>> x, y = collate([(np.zeros(3), 1), (np.ones(3), 0)])
        >>> x.shape, y.tolist()
        ((2, 3), [1, 0])
    """
    if not samples:
        raise ValueError("collate: no samples")
    first = samples[0]
    if isinstance(first, Mapping):
        _check(samples, Mapping, lambda sample: set(sample))
        return {key: collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple | list):
        _check(samples, (tuple, list), len)
        return tuple(collate(part) for part in zip(*samples, strict=True))
    arrays = [_array(sample) for sample in samples]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ShapeError(f"collate: samples have different shapes {sorted(shapes)}; pass a collate function that pads them")
    return np.stack(arrays)


def _check(samples: Sequence[Any], kind: Any, form: Any) -> None:
    wanted = form(samples[0])
    for i, sample in enumerate(samples):
        if not isinstance(sample, kind) or form(sample) != wanted:
            raise ValueError(f"collate: sample {i} is not built like the first one: {sample!r:.80} and {samples[0]!r:.80}")


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        return value.to_numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"collate: cannot make a batch of {type(value).__name__} objects; pass a collate function")
    return array

"""NumPy: what the other adapters do, for plain arrays; also for scikit-learn, whose models know no gradients."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends.known import Known


def is_tensor(value: Any) -> bool:
    """Whether a value is an array."""
    return isinstance(value, np.ndarray)


def to_tensor(array: np.ndarray) -> np.ndarray:
    """The array itself."""
    return array


def to_numpy(tensor: Any) -> np.ndarray:
    """The array itself."""
    return tensor


def detach(tensor: np.ndarray) -> np.ndarray:
    """A copy."""
    return tensor.copy()


def cut(tensor: np.ndarray) -> np.ndarray:
    """The array itself."""
    return tensor


def concat(tensors: Sequence[np.ndarray], axis: int = 0) -> np.ndarray:
    """Arrays joined along an axis."""
    return np.concatenate(list(tensors), axis=axis)


def reshape(tensor: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The values under another shape."""
    return tensor.reshape(tuple(shape))


def take(tensor: np.ndarray, places: Sequence[int], axis: int) -> np.ndarray:
    """The entries at some places of an axis."""
    return np.take(tensor, list(places), axis=axis)


def constant(like: np.ndarray, shape: Sequence[int], value: float) -> np.ndarray:
    """An array full of one value, of the dtype of another."""
    return np.full(tuple(shape), value, dtype=like.dtype)


def is_whole(tensor: np.ndarray) -> bool:
    """Whether an array holds integers."""
    return tensor.dtype.kind in "biu"


def to_whole(tensor: np.ndarray) -> np.ndarray:
    """The values as int64."""
    return tensor.astype(np.int64)


def row_means(tensor: np.ndarray) -> np.ndarray:
    """Mean over all axes but the first."""
    return tensor.reshape(len(tensor), -1).mean(axis=1)


def weighted_sum(values: np.ndarray, weights: np.ndarray) -> Any:
    """``sum_i weights[i] values[i]``."""
    return (values * weights).sum()


def mean(tensor: np.ndarray) -> Any:
    """Mean of all values."""
    return tensor.mean()


def total(tensor: np.ndarray) -> Any:
    """Sum of all values."""
    return tensor.sum()


def beside(tensor: np.ndarray, other: Any) -> np.ndarray:
    """The array itself."""
    return tensor


def is_model(value: Any) -> bool:
    """False: NumPy has no models."""
    return False


class no_gradient:  # noqa: N801 - a block, called like the other adapters' functions
    """A block; there is no history to begin with."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


# -- random numbers: Python's and NumPy's global generators, from which the engine and scikit-learn draw, too ---------------


def random_state() -> Any:
    """Where the generators are."""
    return random.getstate(), np.random.get_state()


def set_random_state(state: Any) -> None:
    """Take back :func:`random_state`."""
    python, numpy = state
    random.setstate(python)
    np.random.set_state(numpy)


def seed_random(words: np.ndarray) -> None:
    """Start the generators from 32-bit words."""
    random.seed(words.tobytes())
    np.random.seed(words)


known = Known({})  # files name its functions in no way

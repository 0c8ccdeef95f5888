"""Our own scalers: elementwise ones and ones that work along each sample.

They follow scikit-learn's protocol (``fit``, ``transform``, ``inverse_transform``) on arrays (n_samples, n_features).  Row-wise
scalers remember what they took from each row of the last ``transform``; their inverse belongs to exactly these rows.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.errors import NotInvertibleError

Array = NDArray[Any]


def matrix(X: Any, owner: object) -> Array:
    """``X`` as a floating 2-D array.

    Raises:
        ValueError: Not 2-D.
    """
    x = np.asarray(X)
    if x.ndim != 2:
        raise ValueError(f"{type(owner).__name__} needs data of shape (n_samples, n_features), got {x.shape}")
    return x if x.dtype.kind == "f" else x.astype(np.float64)


class _OwnScaler:
    """Common to all: nothing to learn, state in attributes that end in an underscore."""

    separable: ClassVar[bool] = False  # whether each column is changed by itself

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the data; returns self.

        Raises:
            ValueError: Not 2-D.
        """
        self.n_features_in_ = matrix(X, self).shape[1]
        return self

    def transform(self, X: Any) -> Array:
        """The scaled data."""
        raise NotImplementedError

    def fit_transform(self, X: Any, y: Any = None) -> Array:
        """:meth:`fit`, then :meth:`transform` of the same data."""
        return self.fit(X).transform(X)


class Negate(_OwnScaler):
    """``-x``; its own inverse."""

    separable = True

    def transform(self, X: Any) -> Array:
        """``-X``."""
        return -matrix(X, self)

    def inverse_transform(self, X: Any) -> Array:
        """``-X``."""
        return -matrix(X, self)


class _Rowwise(_OwnScaler):
    """A scaler with a memory of rows, kept in the attributes named by ``memory``."""

    memory: ClassVar[tuple[str, ...]] = ()

    def _remembered(self, X: Any) -> Array:
        x = matrix(X, self)
        if not hasattr(self, self.memory[0]):
            raise NotInvertibleError(f"{type(self).__name__} has transformed nothing yet, so there are no rows to go back to")
        rows = len(getattr(self, self.memory[0]))
        if rows != len(x):
            raise NotInvertibleError(
                f"{type(self).__name__} remembers the {rows} rows of its last transform and can undo those only, got {len(x)}"
            )
        return x

    def for_rows(self, rows: Any) -> Self:
        """A copy that remembers only these rows of the last transform, in this order."""
        made = copy.copy(self)
        for name in self.memory:
            setattr(made, name, getattr(self, name)[rows])
        return made


class Absolute(_Rowwise):
    """``|x|``; remembers the signs."""

    memory = ("signs_",)
    separable = True

    def transform(self, X: Any) -> Array:
        """``|X|``."""
        x = matrix(X, self)
        self.signs_ = np.where(np.signbit(x), np.int8(-1), np.int8(1))
        return np.abs(x)

    def inverse_transform(self, X: Any) -> Array:
        """``X`` times the remembered signs.

        Raises:
            NotInvertibleError: Another number of rows than the last transform had.
        """
        return self._remembered(X) * self.signs_


class PerSampleMinMaxScaler(_Rowwise):
    """Each row mapped linearly to a range; constant rows to its lower end.

    Args:
        feature_range: Lower and upper end.

    Raises:
        ValueError: The lower end is not below the upper one.
    """

    memory = ("minima_", "ranges_")

    def __init__(self, feature_range: tuple[float, float] = (0, 1)) -> None:
        low, high = feature_range
        if not low < high:
            raise ValueError(f"feature_range must be (low, high) with low < high, got {feature_range}")
        self.feature_range = (low, high)

    def transform(self, X: Any) -> Array:
        """``low + (X - min) / (max - min) * (high - low)``, row by row."""
        x = matrix(X, self)
        low, high = self.feature_range
        self.minima_ = x.min(axis=1, keepdims=True)
        self.ranges_ = x.max(axis=1, keepdims=True) - self.minima_
        unit = (x - self.minima_) / np.where(self.ranges_ == 0, 1, self.ranges_)
        return (low + unit * (high - low)).astype(x.dtype, copy=False)

    def inverse_transform(self, X: Any) -> Array:
        """Back to the remembered minimum and range of each row.

        Raises:
            NotInvertibleError: Another number of rows than the last transform had.
        """
        x = self._remembered(X)
        low, high = self.feature_range
        return (x - low) / (high - low) * self.ranges_ + self.minima_


class PerSampleZeroStart(_Rowwise):
    """Each row without its first value, so that it starts at 0."""

    memory = ("first_",)

    def transform(self, X: Any) -> Array:
        """``X - X[:, :1]``."""
        x = matrix(X, self)
        self.first_ = x[:, :1].copy()
        return x - self.first_

    def inverse_transform(self, X: Any) -> Array:
        """``X`` plus the remembered first value of each row.

        Raises:
            NotInvertibleError: Another number of rows than the last transform had.
        """
        return self._remembered(X) + self.first_

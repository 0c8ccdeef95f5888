"""SegmentedScaler: ranges of columns, each with a scaler of its own made from one template."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.scalers.own import matrix
from keydnn.experiment.scalers.scaler import Scaler

Array = NDArray[Any]


class SegmentedScaler:
    """Columns ``[b0:b1], [b1:b2], ...`` scaled apart.

    Args:
        boundaries: 0 first, strictly increasing; the last is the number of columns at fit.
        scaler: Template: name, class, instance or Scaler; each segment gets an unfitted clone.
        scaler_kwargs: Constructor arguments of the template.

    Raises:
        ValueError: Boundaries that do not start at 0 or do not increase.

    Example:
        >>> from keydnn.experiment.scalers import SegmentedScaler
        >>> SegmentedScaler((0, 1, 3), "PerSampleZeroStart").fit_transform([[5.0, 1.0, 4.0]]).tolist()
        [[0.0, 0.0, 3.0]]
    """

    def __init__(self, boundaries: Sequence[int], scaler: Any, scaler_kwargs: Mapping[str, Any] | None = None) -> None:
        self.boundaries = tuple(int(b) for b in boundaries)
        steps = np.diff(self.boundaries)
        if len(self.boundaries) < 2 or self.boundaries[0] != 0 or (steps <= 0).any():
            raise ValueError(f"boundaries must start at 0 and strictly increase, got {tuple(boundaries)}")
        self.scaler = scaler
        self.scaler_kwargs = scaler_kwargs
        self._template = Scaler(scaler, scaler_kwargs)
        self._parts: list[Scaler] = []

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit a clone of the template to each segment; returns self.

        Raises:
            ValueError: Not 2-D, or the last boundary is not the number of columns.
        """
        x = matrix(X, self)
        if x.shape[1] != self.boundaries[-1]:
            raise ValueError(f"SegmentedScaler: the last boundary is {self.boundaries[-1]}, the data have {x.shape[1]} columns")
        self._parts = [self._template.clone_unfitted().fit(part) for part in self._cut(x)]
        return self

    def _cut(self, x: Array) -> list[Array]:
        return [x[:, a:b] for a, b in zip(self.boundaries, self.boundaries[1:], strict=False)]

    def _pieces(self, X: Any) -> list[Array]:
        if not self._parts:
            raise RuntimeError("SegmentedScaler: not fitted yet; call fit first")
        x = matrix(X, self)
        if x.shape[1] != self.boundaries[-1]:
            raise ValueError(f"SegmentedScaler: fitted to {self.boundaries[-1]} columns, got {x.shape[1]}")
        return self._cut(x)

    def transform(self, X: Any) -> Array:
        """Each segment through its scaler.

        Raises:
            RuntimeError: Before :meth:`fit`.
        """
        return np.concatenate([part.transform(x) for part, x in zip(self._parts, self._pieces(X), strict=True)], axis=1)

    def fit_transform(self, X: Any, y: Any = None) -> Array:
        """:meth:`fit`, then :meth:`transform` of the same data."""
        return self.fit(X).transform(X)

    def inverse_transform(self, X: Any) -> Array:
        """Each segment back through its scaler.

        Raises:
            RuntimeError: Before :meth:`fit`.
        """
        return np.concatenate([part.inverse_transform(x) for part, x in zip(self._parts, self._pieces(X), strict=True)], axis=1)

    def for_rows(self, rows: Any) -> Self:
        """A copy whose row-wise segments remember only these rows."""
        made = copy.copy(self)
        made._parts = [part.for_rows(rows) for part in self._parts]
        return made

    def get_state(self) -> dict[str, Any]:
        """States of the segments' scalers."""
        return {"parts": [part.get_state() for part in self._parts]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Put learned values back."""
        self._parts = []
        for told in state["parts"]:
            part = self._template.clone_unfitted()
            part.set_state(told)
            self._parts.append(part)

"""SampleSubsets: choosing rows and columns; every choice is a view, nothing is copied."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.data.access import Rows, SampleAccess
from keydnn.experiment.data.conditions import column_name, rows_that_meet
from keydnn.experiment.data.selectors import Names, select
from keydnn.experiment.names import DOMAIN_SAMPLE_UUIDS


class SampleSubsets(SampleAccess):
    """Rows and columns of a feature set, chosen; abstract."""

    def _view(self, rows: Rows, columns: Sequence[str] | None, label: str | None) -> Any:
        """A view of the feature set; ``columns=None`` keeps this object's columns."""
        raise NotImplementedError

    def absolute_rows(self) -> Rows:
        """Row numbers in the feature set, -1 at padding."""
        return np.arange(self._collection.n_samples) if self._rows is None else self._rows

    def column_values(self, column: Any) -> NDArray[Any]:
        """Values of the column of the feature set that a text or reference means, for the rows of this object.

        Raises:
            ResolutionError: No column, or more than one.
        """
        return self.values(column_name(self._root, column))

    def meets(self, conditions: Mapping[Any, Any]) -> NDArray[np.bool_]:
        """For each row whether it meets all conditions; see :meth:`filter`."""
        return rows_that_meet(self, self._root, conditions)

    def take(self, rel_indices: Sequence[int] | NDArray[Any], label: str | None = None) -> Any:
        """Rows by position in this object.

        Raises:
            ValueError: Not 1-D whole numbers.
            IndexError: A negative position, or one beyond the end.
        """
        positions = np.asarray(rel_indices)
        if positions.ndim != 1 or (positions.size and positions.dtype.kind not in "iu"):
            raise ValueError(f"take needs a 1-D sequence of positions, got shape {positions.shape} of {positions.dtype}")
        positions = positions.astype(np.int64, copy=False)
        check_positions(positions, self.n_samples)
        rows = positions if self._rows is None else self._rows[positions]
        return self._view(rows, None, label)

    def filter(self, *, conditions: Mapping[Any, Any], label: str | None = None) -> Any:
        """Rows that meet all conditions.

        Args:
            conditions: Column (text or reference) to a scalar (equality), a list, tuple, set or array (membership), or a callable
                such as a Predicate, which gets the whole column, or one sample at a time if samples are not scalars.
            label: Of the view.

        Raises:
            ValueError: Unknown column.
            TypeError: A scalar or list for a column whose samples are not scalars.

        Warns:
            UserWarning: No row fits.
        """
        met = self.meets(conditions)
        if not met.any():
            warnings.warn(
                f"no sample of {self.label!r} meets the conditions on {', '.join(map(str, conditions))}", UserWarning, stacklevel=2
            )
        return self._view(self.absolute_rows()[met], None, label)

    def select(
        self,
        columns: Names = None,
        *,
        features: Names = None,
        targets: Names = None,
        tags: Names = None,
        rep: str | None = None,
        label: str | None = None,
    ) -> Any:
        """The same rows with fewer columns; ``sample_uuids`` is always among them.

        Raises:
            KeyError: No column fits.
            ValueError: A selector with another domain in front.
        """
        names = select(self._names, columns=columns, features=features, targets=targets, tags=tags, rep=rep)
        names = [name for name in names if name != DOMAIN_SAMPLE_UUIDS]
        return self._view(self.absolute_rows(), [*names, DOMAIN_SAMPLE_UUIDS], label)

    def _other_rows(self, other: Any) -> Rows:
        if not isinstance(other, SampleSubsets):
            raise TypeError(f"a FeatureSet or a view is expected, got {type(other).__name__}")
        if other._root is not self._root:
            raise ValueError(
                f"{self.label!r} and {other.label!r} are of different feature sets: {self._root.label!r}, {other._root.label!r}"
            )
        return real(other.absolute_rows())

    def take_intersection(self, other: Any, *, order: str = "self", label: str | None = None) -> Any:
        """Rows that are in both.

        Args:
            other: A view of the same feature set, or the set.
            order: "self" for ascending source order, "other" for the order of ``other``.
            label: Of the view.

        Raises:
            TypeError: ``other`` is neither.
            ValueError: Another feature set, or an unknown order.
        """
        theirs, mine = self._other_rows(other), real(self.absolute_rows())
        if order not in ("self", "other"):
            raise ValueError(f"order must be 'self' or 'other', got {order!r}")
        rows = np.intersect1d(mine, theirs) if order == "self" else theirs[np.isin(theirs, mine)]
        return self._view(rows, None, label)

    def take_difference(self, other: Any, *, label: str | None = None) -> Any:
        """Rows of this object that are not in ``other``, in their order.

        Raises:
            TypeError: ``other`` is neither a FeatureSet nor a view.
            ValueError: Another feature set.
        """
        theirs, mine = self._other_rows(other), real(self.absolute_rows())
        return self._view(mine[~np.isin(mine, theirs)], None, label)

    def take_sample_uuids(self, sample_uuids: Sequence[str], *, label: str | None = None) -> Any:
        """Rows with these ids, in the order of this object.

        Raises:
            ValueError: An id that no row of this object has.
        """
        wanted = [sample_uuids] if isinstance(sample_uuids, str) else [str(uuid) for uuid in sample_uuids]
        found = self._collection.rows_of_uuids(wanted)
        chosen = np.zeros(self._collection.n_samples + 1, dtype=bool)
        chosen[found] = True
        chosen[-1] = False
        mine = self.absolute_rows()
        rows = mine[chosen[mine]]
        missing = [uuid for uuid, row in zip(wanted, found.tolist(), strict=True) if row < 0]
        if not missing and self._rows is not None:
            here = set(rows.tolist())
            missing = [uuid for uuid, row in zip(wanted, found.tolist(), strict=True) if row not in here]
        if missing:
            raise ValueError(f"{len(missing)} of {len(wanted)} ids are not in {self.label!r}, such as {missing[0]!r}")
        return self._view(rows, None, label)


def check_positions(positions: Rows, n: int) -> None:
    """Refuse positions outside ``[0, n)``.

    Raises:
        IndexError: There is one.
    """
    if positions.size and (positions.min() < 0 or positions.max() >= n):
        bad = positions[(positions < 0) | (positions >= n)][0]
        raise IndexError(f"position {bad} is outside [0, {n})")


def real(rows: Rows) -> Rows:
    """Rows without padding."""
    return rows if not len(rows) or rows.min() >= 0 else rows[rows >= 0]

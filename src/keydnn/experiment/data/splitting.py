"""Splitting a FeatureSet or a view, and the registry of the splits that a set keeps."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.contracts import ISplitter
from keydnn.experiment.data.access import Rows
from keydnn.experiment.data.subsets import SampleSubsets, check_positions, real
from keydnn.experiment.errors import SplitOverlapWarning
from keydnn.experiment.names import check_name
from keydnn.experiment.splitters import ConditionSplitter, RandomSplitter


class SplitRegistry:
    """Named row sets of one feature set; parts of a split know the split they came from.

    Args:
        n_samples: Rows of the feature set.
    """

    def __init__(self, n_samples: int) -> None:
        self._n_samples = n_samples
        self._rows: dict[str, Rows] = {}
        self._parents: dict[str, str | None] = {}

    @property
    def names(self) -> list[str]:
        """Names in the order of registration."""
        return list(self._rows)

    def rows(self, name: str) -> Rows:
        """Rows of a split.

        Raises:
            KeyError: No such split.
        """
        if name not in self._rows:
            raise KeyError(f"no split {name!r}; there are {', '.join(self._rows) or 'none'}")
        return self._rows[name]

    def parent(self, name: str) -> str | None:
        """The split that a split was cut from."""
        return self._parents.get(name)

    def ancestors(self, name: str | None) -> list[str]:
        """The splits that a split was cut from, nearest first, itself included."""
        found = []
        while name is not None and name not in found:
            found.append(name)
            name = self._parents.get(name)
        return found

    def name_of(self, rows: Rows, label: str) -> str | None:
        """The split with this name and these rows."""
        return label if label in self._rows and np.array_equal(self._rows[label], rows) else None

    def add(self, parts: Mapping[str, Rows], parent: str | None = None) -> None:
        """Register parts: all or none.

        Raises:
            TypeError: A name that is not text.
            ValueError: A name that is taken or has a forbidden character.

        Warns:
            SplitOverlapWarning: Parts share rows with each other, or with other splits than those they were cut from.
        """
        for name in parts:
            check_name(name, "split name")
            if name in self._rows:
                raise ValueError(f"a split {name!r} is registered already; registered: {', '.join(self._rows)}")
        shared = self._overlaps(parts, set(self.ancestors(parent)))
        for name, rows in parts.items():
            self._rows[name] = rows
            self._parents[name] = parent
        if shared:
            told = ", ".join(f"{a!r} and {b!r} share {count}" for a, b, count in shared)
            warnings.warn(f"registered splits overlap: {told} samples", SplitOverlapWarning, stacklevel=4)

    def _overlaps(self, parts: Mapping[str, Rows], ignored: set[str]) -> list[tuple[str, str, int]]:
        others = {name: rows for name, rows in self._rows.items() if name not in ignored}
        everything = [real(rows) for rows in (*others.values(), *parts.values())]
        seen = np.zeros(self._n_samples, dtype=bool)
        for rows in everything:
            seen[rows] = True
        if np.count_nonzero(seen) == sum(map(len, everything)):
            return []
        found = []
        known = dict(others)
        for name, rows in parts.items():
            mine = np.zeros(self._n_samples, dtype=bool)
            mine[real(rows)] = True
            for other, theirs in known.items():
                if count := int(np.count_nonzero(mine[np.unique(real(theirs))])):
                    found.append((name, other, count))
            known[name] = rows
        return found

    def overlap(self, a: str, b: str) -> int:
        """How many rows two splits share."""
        return len(np.intersect1d(real(self._rows[a]), real(self._rows[b])))

    def clear(self) -> None:
        """Forget all splits."""
        self._rows.clear()
        self._parents.clear()

    def get_state(self) -> dict[str, Any]:
        """Rows and parents by name; arrays are shared, they cannot be written to."""
        return {"rows": dict(self._rows), "parents": dict(self._parents)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        self._rows = {name: frozen_rows(rows) for name, rows in state["rows"].items()}
        self._parents = dict(state["parents"])


def frozen_rows(rows: Any) -> Rows:
    """Row numbers as a read-only int64 array; shared if they are one already."""
    array = np.asarray(rows)
    if array.size == 0 and array.dtype.kind == "f":
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"row numbers must be a 1-D array of whole numbers, got shape {array.shape} of {array.dtype}")
    array = array.astype(np.int64, copy=False)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


class Splittable(SampleSubsets):
    """Rows that can be cut into parts; abstract."""

    def split(self, splitter: ISplitter, *, return_views: bool = False, register: bool = True) -> dict[str, Any] | None:
        """Cut into named parts.

        Args:
            splitter: What cuts; see :mod:`keydnn.experiment.splitters`.
            return_views: Whether the parts are returned.
            register: Whether the feature set keeps the parts, and a record of this call.

        Returns:
            Name to view, or None.

        Raises:
            TypeError: Not a splitter.
            ValueError: A name is taken or forbidden (then nothing is registered), or the splitter refuses.
            IndexError: The splitter answered with positions that are not there.
        """
        if not isinstance(splitter, ISplitter):
            raise TypeError(f"a splitter is expected, got {type(splitter).__name__}")
        whole = self._view(self.absolute_rows(), None, self.label)
        parts = {name: self._rows_of(part) for name, part in splitter.split(whole, return_views=False).items()}
        if register:
            self._root.register_parts(splitter, self, parts)
        return {name: whole._view(rows, None, name) for name, rows in parts.items()} if return_views else None

    def _rows_of(self, part: Any) -> Rows:
        """Row numbers in the feature set of a part: a view, or positions in this object."""
        if isinstance(part, SampleSubsets):
            return part.absolute_rows()
        positions = frozen_rows(part)
        check_positions(positions, self.n_samples)
        return positions if self._rows is None else frozen_rows(self._rows[positions])

    def split_random(
        self,
        ratios: Mapping[str, float],
        *,
        group_by: str | Sequence[str] | None = None,
        stratify_by: str | Sequence[str] | None = None,
        strict_stratification: bool = False,
        seed: int | None = 13,
        return_views: bool = False,
        register: bool = True,
    ) -> dict[str, Any] | None:
        """Cut by chance; see :class:`~keydnn.experiment.splitters.RandomSplitter` and :meth:`split`.

        Raises:
            ValueError: Ratios that do not sum to 1, a part without samples, or both ``group_by`` and ``stratify_by``.
        """
        splitter = RandomSplitter(
            ratios, group_by=group_by, stratify_by=stratify_by, strict_stratification=strict_stratification, seed=seed
        )
        return self.split(splitter, return_views=return_views, register=register)

    def split_by_condition(
        self, conditions: Mapping[str, Mapping[Any, Any]], *, return_views: bool = False, register: bool = True
    ) -> dict[str, Any] | None:
        """Cut by conditions; see :class:`~keydnn.experiment.splitters.ConditionSplitter` and :meth:`split`.

        Args:
            conditions: Split name to conditions as in :meth:`filter`.
            return_views: Whether the parts are returned.
            register: Whether the feature set keeps the parts.

        Raises:
            ValueError: Unknown column.
        """
        return self.split(ConditionSplitter(**conditions), return_views=return_views, register=register)

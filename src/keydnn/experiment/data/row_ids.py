"""RowIds: the ids of the rows of a collection, computed from a key or stored as a column."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from keydnn.experiment.data.column import Column
from keydnn.experiment.data.sample_data import Deferred
from keydnn.experiment.data.storage import is_text
from keydnn.experiment.names import DOMAIN_SAMPLE_UUIDS
from keydnn.experiment.uuids import rows_with, uuids_of

PADDED_UUID = "N/A"


@dataclass(frozen=True, eq=False)
class RowIds:
    """Ids of rows 0 to n - 1; equal if every id is.

    Attributes:
        n: Number of rows.
        key: The 128-bit key of computed ids.
        stored: Ids as text; None computes them.
    """

    n: int
    key: int
    stored: pa.ChunkedArray | None = None

    def of(self, rows: NDArray[np.int64] | None) -> NDArray[Any]:
        """Ids of some rows (all for None), shape (n,)."""
        if self.stored is not None:
            return Column(self.stored).take(rows).astype("U36" if not len(self.stored) else str)
        return uuids_of(np.arange(self.n) if rows is None else np.asarray(rows), self.key)

    def of_padded(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Ids of some rows; of a negative row ``"N/A"``.

        Raises:
            ValueError: There is padding, and no row at all.
        """
        if not len(rows) or rows.min() >= 0:
            return self.of(rows)
        if not self.n:
            raise ValueError("ids have no sample that padding could take its shape from")
        found = self.of(np.maximum(rows, 0)).copy()
        found[rows < 0] = PADDED_UUID
        return found

    def rows_of(self, uuids: Sequence[str]) -> NDArray[np.int64]:
        """For each id its row; -1 where there is none."""
        if self.stored is None:
            return rows_with(uuids, self.n, self.key)
        place = {uuid: row for row, uuid in enumerate(self.stored.to_pylist())}
        return np.array([place.get(str(uuid), -1) for uuid in uuids], dtype=np.int64)

    def column(self) -> pa.ChunkedArray:
        """All ids as a column."""
        return self.stored if self.stored is not None else pa.chunked_array([pa.array(self.of(None))])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RowIds):
            return NotImplemented
        if self.n != other.n:
            return False
        if self.stored is None and other.stored is None and self.key == other.key:
            return True
        return bool(np.array_equal(self.of(None), other.of(None)))

    __hash__ = None  # type: ignore[assignment]


class SampleIds(Deferred):
    """Ids of some rows, computed when they are asked for.

    Args:
        ids: Of the feature set.
        rows: Rows; -1 for padding.
    """

    def __init__(self, ids: RowIds, rows: NDArray[np.int64]) -> None:
        super().__init__(lambda: None, len(rows))
        self.ids, self.rows = ids, rows

    def get(self) -> NDArray[Any]:
        """The ids, shape (n,); of padding ``"N/A"``."""
        if self._value is None:
            self._value = self.ids.of_padded(self.rows)
        return self._value

    def fresh(self) -> SampleIds:
        """Another one of the same ids."""
        return SampleIds(self.ids, self.rows)

    def is_like(self, other: Any) -> bool:
        """Whether another value is the ids of the same rows."""
        same = isinstance(other, SampleIds) and (other.ids is self.ids or other.ids == self.ids)
        return same and (other.rows is self.rows or np.array_equal(other.rows, self.rows))


def checked_uuids(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The supplied ids; None (ids are computed) if one stands twice.

    Raises:
        TypeError: Not text.

    Warns:
        UserWarning: They are not unique.
    """
    if not is_text(column.type):
        raise TypeError(f"the column {DOMAIN_SAMPLE_UUIDS} must hold text, it holds {column.type}")
    if len(column.unique()) == len(column) and not column.null_count:
        return column
    warnings.warn(f"{DOMAIN_SAMPLE_UUIDS} are not unique: all of them are replaced", UserWarning, stacklevel=4)
    return None

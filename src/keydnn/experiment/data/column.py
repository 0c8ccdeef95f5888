"""Column: one stored column, read row by row or as a whole, without copying what need not be copied.

Rows are gathered chunk by chunk, so a column of a mapped file is never read whole for the sake of a batch.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from keydnn.experiment.data.storage import inner_shape, is_shared, to_numpy, without_trailing_ones

Rows = NDArray[np.int64]


class Column:
    """Reads one Arrow column.

    Args:
        data: The column.

    Attributes:
        shape: Inner shape of a sample, without axes of size 1 at its end.
        array: All samples as one shared, read-only array; None if there is none without a copy.
    """

    def __init__(self, data: pa.ChunkedArray) -> None:
        self._data = data
        stored, leaf = inner_shape(data.type)
        self.shape = without_trailing_ones(stored)
        self.array: NDArray[Any] | None = None
        self._shared: list[NDArray[Any]] | None = None
        if is_shared(leaf) and not any(_has_nulls(chunk) for chunk in data.chunks):
            self._shared = [self._read(chunk) for chunk in data.chunks]
            if len(self._shared) == 1:
                self.array = self._shared[0]

    def _read(self, part: pa.Array) -> NDArray[Any]:
        return to_numpy(part).reshape(len(part), *self.shape)

    @functools.cached_property
    def _starts(self) -> Rows:
        return np.cumsum([0, *(len(chunk) for chunk in self._data.chunks)])

    def take(self, rows: Rows | None) -> NDArray[Any]:
        """The samples of ``rows`` (all for None), shape (n, *shape)."""
        if self.array is not None:
            return self.array if rows is None else self.array.take(rows, axis=0)
        if rows is None:
            parts = self._shared if self._shared is not None else [self._read(chunk) for chunk in self._data.chunks]
            return _read_only(np.concatenate(parts)) if parts else self._read(pa.array([], self._data.type))
        return self._gather(np.asarray(rows, dtype=np.int64))

    def _gather(self, rows: Rows) -> NDArray[Any]:
        chunks = self._data.chunks
        if not len(rows):
            return self._read(pa.array([], self._data.type))
        if len(chunks) == 1 and self._shared is None:
            return self._read(chunks[0].take(pa.array(rows)))
        which = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(which, kind="stable")
        touched, first = np.unique(which[order], return_index=True)
        parts = []
        for chunk, places in zip(touched.tolist(), np.split(order, first[1:]), strict=True):
            local = rows[places] - self._starts[chunk]
            parts.append(self._shared[chunk][local] if self._shared is not None else self._read(chunks[chunk].take(pa.array(local))))
        joined = np.concatenate(parts)
        out = np.empty_like(joined)
        out[order] = joined
        return out


def _has_nulls(chunk: pa.Array) -> bool:
    while pa.types.is_fixed_size_list(chunk.type):
        if chunk.null_count:
            return True
        chunk = chunk.flatten()
    return bool(chunk.null_count)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array

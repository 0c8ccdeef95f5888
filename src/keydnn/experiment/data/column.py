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
    def starts(self) -> Rows:
        """Where the chunks begin, and the end of the last."""
        return np.cumsum([0, *(len(chunk) for chunk in self._data.chunks)])

    def take(self, rows: Rows | None, places: Places | None = None) -> NDArray[Any]:
        """The samples of ``rows`` (all for None), shape (n, *shape).

        Args:
            rows: Row numbers.
            places: Where they lie, if that is known from another column with the same chunks.
        """
        if self.array is not None:
            return self.array if rows is None else self.array.take(rows, axis=0)
        if rows is None:
            parts = self._shared if self._shared is not None else [self._read(chunk) for chunk in self._data.chunks]
            return _read_only(np.concatenate(parts)) if parts else self._read(pa.array([], self._data.type))
        rows = np.asarray(rows, dtype=np.int64)
        if not len(rows):
            return self._read(pa.array([], self._data.type))
        if self._data.num_chunks == 1:
            return self._read(self._data.chunk(0).take(pa.array(rows)))
        return self._gather(Places(self.starts, rows) if places is None else places)

    def _gather(self, places: Places) -> NDArray[Any]:
        if self._shared is None:
            joined = np.concatenate([self._read(self._data.chunk(i).take(pa.array(local))) for i, local, _ in places.parts])
        else:
            joined = np.empty((len(places.order), *self.shape), dtype=self._shared[0].dtype)
            for i, local, part in places.parts:
                self._shared[i].take(local, axis=0, out=joined[part], mode="clip")  # "raise" would buffer; the rows are there
        out = np.empty_like(joined)
        out[places.order] = joined
        return out


class Places:
    """Where rows lie among chunks, worked out once for all columns with the same chunks.

    Args:
        starts: Where the chunks begin, and the end of the last.
        rows: Row numbers.

    Attributes:
        order: Positions in ``rows``, chunk after chunk.
        parts: (chunk, row numbers in it, where they stand in the order), for each chunk that holds any.

    Raises:
        IndexError: A row that is not there.
    """

    def __init__(self, starts: Rows, rows: Rows) -> None:
        if rows.min() < 0 or rows.max() >= starts[-1]:
            raise IndexError(f"rows {rows.min()} to {rows.max()} are asked for, there are {starts[-1]}")
        which = np.searchsorted(starts, rows, side="right") - 1
        self.order = np.argsort(which, kind="stable")
        touched, first = np.unique(which[self.order], return_index=True)
        edges = [*first.tolist(), len(rows)]
        local = (rows - starts[which])[self.order]
        bounds = zip(touched.tolist(), edges, edges[1:], strict=False)
        self.parts = [(chunk, local[begin:end], slice(begin, end)) for chunk, begin, end in bounds]


def _has_nulls(chunk: pa.Array) -> bool:
    while pa.types.is_fixed_size_list(chunk.type):
        if chunk.null_count:
            return True
        chunk = chunk.flatten()
    return bool(chunk.null_count)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array

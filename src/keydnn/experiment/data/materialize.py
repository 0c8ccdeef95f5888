"""Batches of one input of a node as tensors: all of them slices of one array per domain, or one at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.data.access import Rows
from keydnn.experiment.data.batch import Batch
from keydnn.experiment.data.batch_view import BatchView
from keydnn.experiment.data.formats import float32_array
from keydnn.experiment.data.gather import Gathering, gathering
from keydnn.experiment.data.roles import RoleData
from keydnn.experiment.data.row_ids import RowIds, SampleIds
from keydnn.experiment.data.sample_data import SampleData
from keydnn.experiment.names import DOMAIN_SAMPLE_UUIDS, DOMAIN_TAGS

Whole = dict[str, dict[str, NDArray[Any]]]  # role to domain to the rows of all batches, one under the other


class InputBatches:
    """The batches of one input.

    Args:
        views: Their rows, all of one feature set.
        columns: Full names of the columns that the node reads.
        backend: Whose tensors it reads.
        where: The device of the phase.
        place: Puts a tensor where the node reads it.

    Attributes:
        whole: After :meth:`make_all`, by role and domain the rows of all batches, one under the other, on the host.
    """

    def __init__(
        self, views: Sequence[BatchView], columns: Sequence[str], backend: Backend, where: Any, place: Callable[[Any], Any]
    ) -> None:
        self._views, self._backend = views, backend
        self._columns = tuple(columns)
        self._where, self._place = where, place
        self._made: list[Batch | None] = []
        self._stays: bool | None = None  # whether a tensor is already where the node reads it
        self._all_plain = False
        self.whole: Whole | None = None

    @functools.cached_property
    def _ids(self) -> RowIds:
        return self._views[0].source.collection.ids

    def _reader(self) -> Gathering:
        return gathering(self._views[0].source.collection, (self._columns, None, None, None), None)

    def batch(self, i: int) -> Batch:
        """A batch; after :meth:`make_all` the same object every time."""
        if self.whole is None:
            return self._one(i)
        made = self._made[i]
        if made is None:
            made = self._made[i] = self._cut(i)
        return made

    def masked(self, i: int = 0) -> Batch:
        """A batch with weights and masks of 0: what an inactive sampler shows."""
        first = self.batch(i)
        weights = {role: np.zeros(first.batch_size) for role in first.role_weights}
        masks = {role: np.zeros(first.batch_size, np.int8) for role in first.role_masks}
        return Batch.trusted(first.batch_size, first.role_data, weights, masks)

    def make_all(self) -> None:
        """Read the rows of all batches now; a batch is cut out of them when it is asked for."""
        if self.whole is not None or not self._views:
            return
        reader = self._reader()
        lengths = [len(view) for view in self._views]
        self._ends = np.cumsum(lengths).tolist()  # rows before the end of each batch
        self._rows = {role: np.concatenate([view.rows(role) for view in self._views]) for role in self._views[0].roles}
        self._ones, self._ones8 = np.ones(max(lengths)), np.ones(max(lengths), np.int8)
        self._made = [None] * len(lengths)
        self.whole = {role: self._arrays(reader, rows) for role, rows in self._rows.items()}
        weighted = any(np.any(told != 1) for view in self._views for told in (view.role_indice_weights or {}).values())
        self._all_plain = not weighted and all(len(rows) == 0 or rows.min() >= 0 for rows in self._rows.values())
        self._are_bare = self._all_plain and all(view.role_indice_weights is None for view in self._views)

    def _cut(self, i: int) -> Batch:
        assert self.whole is not None
        view, end = self._views[i], self._ends[i]
        n = len(view)
        data = {role: self._slice(arrays, end - n, end, self._rows[role]) for role, arrays in self.whole.items()}
        ones, ones8 = self._ones[:n], self._ones8[:n]
        if not self._are_bare:
            weights, masks = view.weights_and_masks(ones, ones8)
            return self._ready(Batch.trusted(n, RoleData.trusted(data), weights, masks), view.is_plain)
        return self._ready(Batch.trusted(n, RoleData.trusted(data), dict.fromkeys(data, ones), dict.fromkeys(data, ones8)), True)

    def _one(self, i: int) -> Batch:
        view, reader = self._views[i], self._reader()
        n = len(view)
        data = {}
        for role in view.roles:
            rows = view.rows(role)
            data[role] = self._slice(self._arrays(reader, rows), 0, n, rows)
        weights, masks = view.weights_and_masks(np.ones(n), np.ones(n, np.int8))
        return self._ready(Batch.trusted(n, RoleData.trusted(data), weights, masks), view.is_plain)

    def _ready(self, batch: Batch, is_plain: bool) -> Batch:
        """The batch, with the note that nothing needs to be converted or moved."""
        batch.__dict__.update(ready=(self._backend, self._where), stamp=object())
        if is_plain:
            batch.__dict__.update(is_plain=True, is_masked=False)
        return batch

    def length(self, i: int) -> int:
        """Rows of a batch."""
        return len(self._views[i])

    def alike(self, first: int, last: int) -> int:
        """After :meth:`make_all`: where the batches from ``first`` on that are of one length and plain end; at most ``last``."""
        lengths = np.diff(self._ends[first:last], prepend=self._ends[first - 1] if first else 0)
        other = np.flatnonzero(lengths != lengths[0])
        end = first + int(other[0]) if len(other) else last
        if self._all_plain:
            return end
        return next((i for i in range(first, end) if not self.batch(i).is_plain), end)

    def rows(self, first: int, last: int) -> Whole:
        """After :meth:`make_all`: the rows of batches ``first`` to ``last`` (not included), one under the other, by role and domain."""
        assert self.whole is not None
        start, end = (self._ends[i - 1] if i else 0 for i in (first, last))
        return {role: {domain: array[start:end] for domain, array in told.items()} for role, told in self.whole.items()}

    def _arrays(self, reader: Gathering, rows: Rows) -> dict[str, NDArray[Any]]:
        """Rows by domain, as the framework takes them."""
        read = reader.read(rows, bool(len(rows)) and bool(rows.min() < 0), Backend.NUMPY)
        found = {}
        for domain in read.domains:
            if domain != DOMAIN_SAMPLE_UUIDS:
                array = read.get_domain_data(domain)
                plain = domain == DOMAIN_TAGS or not self._backend.needs_optimizer
                found[domain] = array if plain else float32_array(array, self._backend)
        return found

    def _slice(self, arrays: dict[str, NDArray[Any]], start: int, end: int, rows: Rows) -> SampleData:
        data: dict[str, Any] = {}
        for domain, array in arrays.items():
            data[domain] = array[start:end] if domain == DOMAIN_TAGS else self._tensor(array[start:end])
        data[DOMAIN_SAMPLE_UUIDS] = SampleIds(self._ids, rows[start:end])
        return SampleData.trusted(data)

    def _tensor(self, array: NDArray[Any]) -> Any:
        if not self._backend.needs_optimizer:
            return array
        tensor = adapter(self._backend).to_tensor(array)
        if self._stays:
            return tensor
        placed = self._place(tensor)
        self._stays = placed is tensor
        return placed

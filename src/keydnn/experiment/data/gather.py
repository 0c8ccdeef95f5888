"""Gathering: which columns a batch holds, and their rows brought into one array per domain.

Batches of one epoch ask for the same columns thousands of times, so what a request means is worked out once per state of the
collection and kept with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.data.access import Rows, take_padded
from keydnn.experiment.data.collection import SampleCollection
from keydnn.experiment.data.formats import float32_tensor, stack_columns
from keydnn.experiment.data.row_ids import SampleIds
from keydnn.experiment.data.sample_data import SampleData
from keydnn.experiment.data.selectors import Names, doubled_keys, select
from keydnn.experiment.data.spelling import of_domain
from keydnn.experiment.names import COLUMN_DOMAINS, DOMAIN_SAMPLE_UUIDS, DOMAIN_TAGS, as_list

NO_SELECTORS = (None, None, None, None)


class Gathering:
    """Reads the columns that a batch holds.

    Args:
        collection: The samples.
        asked: Selectors of ``columns``, ``features``, ``targets`` and ``tags``; a domain without any has all of its columns.
        rep: Representation for selectors that name none.

    Attributes:
        doubled: Keys of which two representations are taken.

    Raises:
        KeyError: No column fits.
    """

    def __init__(self, collection: SampleCollection, asked: Sequence[Names], rep: str | None) -> None:
        self._collection = collection
        names = batch_columns(collection.names(), asked, rep)
        self._parts = [(domain, columns, collection.shared_arrays(columns)) for domain, columns in names.items() if columns]
        self.doubled = doubled_keys(name for columns in names.values() for name in columns)

    def read(self, rows: Rows, padded: bool, backend: Backend) -> SampleData:
        """The rows as tensors of a framework; tags are arrays, ids are computed when they are asked for.

        Raises:
            TypeError: Text among features or targets of a framework.
        """
        data: dict[str, Any] = {}
        for domain, names, arrays in self._parts:
            array = self._stacked(names, rows, padded) if padded or arrays is None else _taken(arrays, rows)
            data[domain] = array if domain == DOMAIN_TAGS else float32_tensor(array, backend)
        data[DOMAIN_SAMPLE_UUIDS] = SampleIds(self._collection.ids, rows)
        return SampleData.trusted(data)

    def _stacked(self, names: Sequence[str], rows: Rows, padded: bool) -> NDArray[Any]:
        if padded:
            return stack_columns({name: take_padded(self._collection, name, rows) for name in names})
        return stack_columns(self._collection.arrays(names, rows))


def _taken(arrays: Sequence[NDArray[Any]], rows: Rows) -> NDArray[Any]:
    """Rows of arrays of one kind, joined on axis 1, by way of one buffer."""
    if len(arrays) == 1:
        return arrays[0].take(rows, axis=0)[:, None]
    buffer = np.empty((len(arrays), len(rows), *arrays[0].shape[1:]), dtype=arrays[0].dtype)
    for array, place in zip(arrays, buffer, strict=True):
        array.take(rows, axis=0, out=place, mode="clip")  # rows were checked when they were drawn; "raise" would buffer
    return np.ascontiguousarray(buffer.swapaxes(0, 1))


def gathering(collection: SampleCollection, asked: tuple[Names, Names, Names, Names], rep: str | None) -> Gathering:
    """How to read what is asked for; the same object for the same request, as long as the collection has the same columns.

    Raises:
        KeyError: No column fits.

    Warns:
        UserWarning: A key is taken in two representations.
    """
    chosen = NO_SELECTORS if asked == NO_SELECTORS else tuple(None if names is None else tuple(as_list(names)) for names in asked)
    found = collection.derived((chosen, rep), lambda: Gathering(collection, chosen, rep))
    if found.doubled:
        warnings.warn(f"{', '.join(found.doubled)}: the batch holds raw and transformed; pass rep='transformed'", UserWarning, stacklevel=3)
    return found


def batch_columns(available: Sequence[str], asked: Sequence[Names], rep: str | None) -> Mapping[str, list[str]]:
    """Full names by domain that a batch holds.

    Raises:
        KeyError: No column fits.
    """
    columns, *selectors = asked
    whole = all(selector is None for selector in asked)
    by_domain: dict[str, Any] = dict(zip(COLUMN_DOMAINS, selectors, strict=True))
    chosen = select(available, columns=columns, **by_domain, rep=rep)
    names = {}
    for domain, selector in by_domain.items():
        everything = of_domain(available, domain)
        if whole and rep is not None and everything:
            names[domain] = select(available, **{domain: "*"}, rep=rep)  # type: ignore[arg-type]
        else:
            given = selector is not None or columns is not None
            names[domain] = of_domain(chosen, domain) if given else everything
    return names

"""Feature sets in states of results: their names and the ids of their rows; found again in the active context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet
from keydnn.experiment.data.row_ids import RowIds
from keydnn.experiment.errors import ResolutionError


class StoredSource:
    """A feature set that results read, known by name and ids; its columns are there once it is registered again.

    Args:
        node_id: Of the set.
        label: Of the set.
        ids: Of its rows.
    """

    def __init__(self, node_id: str, label: str, ids: RowIds) -> None:
        self.node_id, self.label, self.ids = node_id, label, ids

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return self.ids.n

    def find(self) -> FeatureSet | None:
        """The set in the active context: by id, else by label if it has the same ids; None if it is not there."""
        ctx = active_context()
        for selector in ({"node_id": self.node_id}, {"label": self.label}):
            if ctx.has_node(**selector):
                found = ctx.get_node(**selector)
                if isinstance(found, FeatureSet) and found.n_samples == self.n_samples:
                    if "node_id" in selector or found.collection.ids == self.ids:
                        return found
        return None

    def resolve(self) -> FeatureSet:
        """The set in the active context.

        Raises:
            ResolutionError: It is not there.
        """
        found = self.find()
        if found is None:
            raise ResolutionError(
                f"feature set {self.label!r} with {self.n_samples} samples is not registered in the active context: load or make it first"
            )
        return found

    @property
    def collection(self) -> Any:
        """The samples of the set in the active context.

        Raises:
            ResolutionError: It is not there.
        """
        return self.resolve().collection

    def get_all_keys(self) -> list[str]:
        """Full names of the columns of the set in the active context.

        Raises:
            ResolutionError: It is not there.
        """
        return self.resolve().get_all_keys()

    def __repr__(self) -> str:
        return f"StoredSource({self.label!r}, n_samples={self.n_samples})"


def active_context() -> ExperimentContext:
    """The active context; an empty one if there is none."""
    try:
        return ExperimentContext.get_active()
    except RuntimeError:  # it was set to None
        return ExperimentContext()


class IdsTable:
    """Ids of feature sets, each told once."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._ids: list[RowIds] = []

    def place(self, ids: RowIds) -> int:
        """Where ids stand."""
        found = self._places.get(id(ids))
        if found is None:
            found = next((i for i, other in enumerate(self._ids) if _same(other, ids)), len(self._ids))
            if found == len(self._ids):
                self._ids.append(ids)
            self._places[id(ids)] = found
        return found

    @property
    def all(self) -> list[RowIds]:
        """Those that are told, in order."""
        return self._ids

    def get_state(self) -> list[dict[str, Any]]:
        """All of them."""
        return [{"n": ids.n, "key": f"{ids.key:032x}", "stored": _text_state(ids.stored)} for ids in self._ids]


def _same(a: RowIds, b: RowIds) -> bool:
    if a.stored is None and b.stored is None:
        return (a.n, a.key) == (b.n, b.key)
    return a.stored is b.stored and a.n == b.n


def ids_from_state(states: Sequence[Mapping[str, Any]]) -> list[RowIds]:
    """What :meth:`IdsTable.get_state` told of."""
    return [RowIds(int(told["n"]), int(told["key"], 16), _text(told["stored"])) for told in states]


def _text_state(column: pa.ChunkedArray | None) -> dict[str, Any] | None:
    """Text as its bytes, one after the other, and where each ends."""
    if column is None:
        return None
    words = [word.encode() for word in column.to_pylist()]
    return {"bytes": np.frombuffer(b"".join(words), np.uint8), "ends": np.cumsum([len(word) for word in words], dtype=np.int64)}


def _text(told: Mapping[str, Any] | None) -> pa.ChunkedArray | None:
    if told is None:
        return None
    data, ends = told["bytes"].tobytes(), told["ends"].tolist()
    return pa.chunked_array([pa.array([data[start:end].decode() for start, end in zip([0, *ends[:-1]], ends, strict=True)], pa.string())])


class SourceTable:
    """Feature sets that steps read, each told once.

    Args:
        ids: Where their ids are told.
    """

    def __init__(self, ids: IdsTable) -> None:
        self._ids = ids
        self._places: dict[int, int] = {}
        self._sources: list[Any] = []

    def place(self, source: Any) -> int:
        """Where a set stands."""
        found = self._places.get(id(source))
        if found is None:
            found = self._places[id(source)] = len(self._sources)
            self._sources.append(source)
        return found

    @property
    def all(self) -> list[Any]:
        """Those that are told, in order."""
        return self._sources

    def get_state(self) -> list[dict[str, Any]]:
        """All of them."""
        return [{"node_id": one.node_id, "label": one.label, "ids": self._ids.place(ids_of(one))} for one in self._sources]


def ids_of(source: Any) -> RowIds:
    """Ids of the rows of a feature set."""
    return source.ids if isinstance(source, StoredSource) else source.collection.ids


def sources_from_state(states: Sequence[Mapping[str, Any]], ids: list[RowIds]) -> list[Any]:
    """The sets, where the active context has them, else what is known of them.

    Args:
        states: What :meth:`SourceTable.get_state` told.
        ids: Their ids; those of sets that are there take their places, so that comparing them costs nothing.
    """
    sources: list[Any] = []
    for told in states:
        known = StoredSource(told["node_id"], told["label"], ids[told["ids"]])
        there = known.find()
        if there is not None and there.collection.ids == known.ids:
            ids[told["ids"]] = there.collection.ids
        sources.append(known if there is None else there)
    return sources

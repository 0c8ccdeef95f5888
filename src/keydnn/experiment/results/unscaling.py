"""Targets and outputs of a node back in the units of their raw columns, by the scaler records that the results keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.backends.tensors import backend_of, to_backend, to_numpy
from keydnn.experiment.data.scaling import ScalerHistory
from keydnn.experiment.data.view import FeatureSetView
from keydnn.experiment.names import DOMAIN_TARGETS, REP_TRANSFORMED, split_column
from keydnn.experiment.results.frames import Frame
from keydnn.experiment.results.nodes import NodeTable, Source
from keydnn.experiment.results.sources import StoredSource

Array = NDArray[Any]


class Unscaler:
    """Undoes the scaling of target columns for one node.

    Args:
        table: What the results know of nodes.
        node_id: The node.

    Raises:
        RuntimeError: Several feature sets stand upstream: nobody knows whose columns its targets are.
        ValueError: There is none, or it brings no target columns.
    """

    def __init__(self, table: NodeTable, node_id: str) -> None:
        self._name = table.name_of(node_id)
        self._heads = table.heads(node_id)
        sources = {id(source): source for _, reference in self._heads if (source := table.source_of(reference)) is not None}
        if len(sources) > 1:
            told = ", ".join(repr(source.label) for source in sources.values())
            raise RuntimeError(f"cannot unscale for node {self._name!r}: several feature sets stand upstream of it: {told}")
        if not sources:
            raise ValueError(f"cannot unscale for node {self._name!r}: no feature set is known upstream of it")
        self._source: Source = next(iter(sources.values()))
        self._inputs = table.target_columns(node_id)
        if not self._inputs:
            raise ValueError(f"cannot unscale for node {self._name!r}: it reads no target columns of {self._source.label!r}")

    def __call__(self, tensor: Any, frame: Frame, role: str, uuids: Any = None) -> Any:
        """A tensor of a step in raw units, in its own framework.

        Args:
            tensor: Targets or outputs, axis 0 counts samples.
            frame: The step.
            role: Its role.
            uuids: Ids of the samples, asked for where rows are not known.

        Raises:
            ValueError: The shape does not fit the columns, or a joint scaler covers more columns than the node reads.
        """
        array = to_numpy(tensor)
        columns = self._columns(array)
        if not any(self._is_scaled(name) for name in columns):
            return tensor
        inner = self._inner(columns)
        stacked = array.reshape(len(array), len(columns), *inner).astype(np.result_type(array.dtype, np.float32))
        done = 0
        rows = self._rows(frame, role, uuids)
        for part in self._inputs:
            if done < len(columns):
                stacked = _joined(stacked, done, self._unscaled(stacked[:, done : done + len(part)], part, rows))
                done += len(part)
        return to_backend(stacked.reshape(array.shape), backend_of(tensor))

    def _columns(self, array: Array) -> list[str]:
        """The columns that the numbers of a sample belong to: those of all inputs joined, or those of the first."""
        size = int(np.prod(array.shape[1:], dtype=np.int64))
        every = [name for part in self._inputs for name in part]
        for columns in (every, list(self._inputs[0])):
            inner = self._inner(columns)
            alone = len(self._inputs) == 1 or columns is not every or tuple(array.shape[1:]) == (len(columns), *inner)
            if size == len(columns) * int(np.prod(inner, dtype=np.int64)) and alone:
                return columns
        told = ", ".join(f"{name} {self._source.targets.get(name, ())}" for name in every)
        raise ValueError(f"cannot unscale for node {self._name!r}: samples of shape {tuple(array.shape[1:])} do not fit the columns {told}")

    def _inner(self, columns: Sequence[str]) -> tuple[int, ...]:
        return max((tuple(self._source.targets.get(name, ())) for name in columns), key=len)

    def _is_scaled(self, name: str) -> bool:
        _, key, rep = split_column(name)
        return rep == REP_TRANSFORMED and any(r.domain == DOMAIN_TARGETS and key in r.keys for r in self._source.scalers.records)

    def _unscaled(self, stacked: Array, names: Sequence[str], rows: Array | None) -> Array:
        places = {split_column(name)[1]: i for i, name in enumerate(names) if self._is_scaled(name)}
        found = stacked.copy()
        for keys in _components(list(places), self._source.scalers):
            at = [places[key] for key in keys]
            back = self._source.scalers.unscale(found[:, at], DOMAIN_TARGETS, keys, rows)
            found = found.astype(np.result_type(found, back), copy=False)
            found[:, at] = back
        return found

    def _rows(self, frame: Frame, role: str, uuids: Any) -> Array | None:
        for key in self._heads:
            view = frame.views.get(key)
            if view is not None and role in view.roles:
                return np.maximum(view.role_indices[role], 0)
        if uuids is None:
            return None
        return np.maximum(self._source.rows_of(list(uuids)), 0)


def _joined(whole: Array, start: int, part: Array) -> Array:
    whole = whole.astype(np.result_type(whole, part), copy=False)
    whole[:, start : start + part.shape[1]] = part
    return whole


def _components(keys: Sequence[str], scalers: ScalerHistory) -> list[list[str]]:
    """Keys in groups: two that a scaler saw together, directly or through others, stand in one group."""
    groups = [{key} for key in keys]
    for record in scalers.records:
        if record.domain == DOMAIN_TARGETS:
            together = [group for group in groups if group & set(record.keys)]
            if together:
                groups = [group for group in groups if group not in together] + [set().union(*together)]
    return [[key for key in keys if key in group] for group in groups]


def rows_used(frames: Sequence[Frame], heads: Sequence[tuple[str, Any]], role: str) -> dict[str, FeatureSetView]:
    """Feature-set label to a view of the distinct rows that steps read, in ascending order.

    Raises:
        KeyError: No step has the role.
        ResolutionError: A feature set is not there any more.
    """
    found: dict[str, tuple[Any, dict[int, Array]]] = {}
    other: set[str] = set()
    for frame in frames:
        for key in heads:
            view = frame.views.get(key)
            if view is None:
                continue
            if role not in view.roles:
                other.update(view.roles)
                continue
            found.setdefault(view.source.label, (view.source, {}))[1][id(view)] = view.role_indices[role]
    if not found and other:
        raise KeyError(f"no role {role!r}; there are {', '.join(sorted(other))}")
    views = {}
    for label, (read, parts) in found.items():
        source = read.resolve() if isinstance(read, StoredSource) else read
        rows = np.unique(np.concatenate(list(parts.values())))
        views[label] = FeatureSetView(source, rows[rows >= 0], source.get_all_keys(), label)
    return views

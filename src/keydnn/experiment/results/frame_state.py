"""Frames in states: those of one layout side by side, every column of their arrays as one array.

A layout says which nodes, roles and domains a frame has; frame f of a layout is row f of its columns.  A column that stands in several
places (targets that pass through nodes, weights of 1) is told once.  What has an order is told in lists: files sort the keys of dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends.tensors import concat, is_tensor
from keydnn.experiment.data import BatchView
from keydnn.experiment.data.row_ids import RowIds, SampleIds
from keydnn.experiment.data.sample_data import Deferred
from keydnn.experiment.data.splitting import frozen_rows
from keydnn.experiment.results.frames import Frame, NodeFrame, RoleFrame
from keydnn.experiment.results.sources import IdsTable, SourceTable
from keydnn.experiment.results.values import opened, say, say_tensor


class FrameTable:
    """Frames, each told once.

    Args:
        sources: Where the feature sets they read are told.
        ids: Where ids are told.
    """

    def __init__(self, sources: SourceTable, ids: IdsTable) -> None:
        self._sources, self._ids = sources, ids
        self._places: dict[int, int] = {}
        self._frames: list[Frame] = []

    def places(self, frames: Sequence[Frame]) -> np.ndarray:
        """Where frames stand; they are added if they are new."""
        found = np.empty(len(frames), np.int32)
        for i, frame in enumerate(frames):
            place = self._places.get(id(frame))
            if place is None:
                place = self._places[id(frame)] = len(self._frames)
                self._frames.append(frame)
            found[i] = place
        return found

    def get_state(self) -> dict[str, Any]:
        """All frames; the tables of feature sets and ids are complete afterwards."""
        layouts: dict[Any, list[int]] = {}
        for place, frame in enumerate(self._frames):
            layouts.setdefault(self._layout(frame), []).append(place)
        columns = _Columns(self._ids)
        told = [self._told([self._frames[place] for place in places], columns) for places in layouts.values()]
        order = np.array([place for places in layouts.values() for place in places], np.int32)
        return {"order": order, "sizes": [len(places) for places in layouts.values()], "layouts": told, "columns": columns.states}

    def _layout(self, frame: Frame) -> Any:
        """What two frames have to share to stand side by side."""
        views = tuple(
            (key, id(view.source), tuple(view.roles), None if view.role_indice_weights is None else tuple(view.role_indice_weights))
            for key, view in frame.views.items()
        )
        return views, tuple((node.node_id, tuple(_role_layout(role) for role in node.roles)) for node in frame.nodes)

    def _told(self, frames: Sequence[Frame], columns: _Columns) -> dict[str, Any]:
        first = frames[0]
        views = [self._told_view(key, [list(frame.views.values())[i] for frame in frames], columns) for i, key in enumerate(first.views)]
        nodes = [_told_node([frame.nodes[i] for frame in frames], columns) for i in range(len(first.nodes))]
        return {"views": views, "nodes": nodes}

    def _told_view(self, key: Any, views: Sequence[BatchView], columns: _Columns) -> dict[str, Any]:
        rows = [[role, columns.place([view.rows(role) for view in views])] for role in views[0].roles]
        weights = [weight for view in views if (weight := view.role_indice_weights) is not None]
        told = [[role, columns.place([one[role] for one in weights])] for role in weights[0]] if weights else None
        return {"node_id": key[0], "reference": key[1], "source": self._sources.place(views[0].source), "rows": rows, "weights": told}


def _role_layout(role: RoleFrame) -> Any:
    domains = tuple((domain, _kind(value)) for domain, value in role.domains)
    return role.role, role.kind, _kind(role.weight), _kind(role.mask), domains


def _told_node(nodes: Sequence[NodeFrame], columns: _Columns) -> dict[str, Any]:
    roles = []
    for i, first in enumerate(nodes[0].roles):
        same = [node.roles[i] for node in nodes]
        domains = [[domain, columns.place([one.domains[j][1] for one in same])] for j, (domain, _) in enumerate(first.domains)]
        weight, mask = columns.place([one.weight for one in same]), columns.place([one.mask for one in same])
        roles.append({"role": first.role, "kind": first.kind, "weight": weight, "mask": mask, "domains": domains})
    return {"node_id": nodes[0].node_id, "sizes": np.array([node.batch_size for node in nodes], np.int64), "roles": roles}


def _kind(value: Any) -> Any:
    """What arrays have to share to become one."""
    if isinstance(value, SampleIds):
        return "ids", id(value.ids)
    value = value.fresh().get() if isinstance(value, Deferred) else value
    if not is_tensor(value) or not len(value.shape):
        return "loose"
    return type(value), value.dtype, tuple(value.shape[1:]), str(getattr(value, "device", None))


class _Columns:
    """Arrays of frames, joined; each joined once."""

    def __init__(self, ids: IdsTable) -> None:
        self._ids = ids
        self._places: dict[tuple[Any, ...], int] = {}
        self.states: list[dict[str, Any]] = []

    def place(self, values: Sequence[Any]) -> int:
        """Where the column of these values stands."""
        key = tuple((id(value.ids), id(value.rows)) if isinstance(value, SampleIds) else id(value) for value in values)
        found = self._places.get(key)
        if found is None:
            found = self._places[key] = len(self.states)
            self.states.append(self._state(values))
        return found

    def _state(self, values: Sequence[Any]) -> dict[str, Any]:
        first = values[0]
        if isinstance(first, SampleIds):
            return {"ids": self._ids.place(first.ids), **_joined_rows([value.rows for value in values])}
        ready = [value.fresh().get() if isinstance(value, Deferred) else value for value in values]
        if _kind(first) == "loose":
            return {"loose": [say(value) for value in ready]}
        lengths = np.array([int(value.shape[0]) for value in ready], np.int32)
        if isinstance(ready[0], np.ndarray) and ready[0].ndim == 1:
            joined = np.concatenate(ready)
            if joined.dtype.kind in "iufb" and np.all(joined == 1):
                return {"ones": joined.dtype.str, "lengths": lengths}
            if _is_small(joined):
                return {"rows": joined.astype(np.int32), "dtype": joined.dtype.str, "lengths": lengths}
        return _whole(ready[0] if len(ready) == 1 else concat(ready), lengths)


def _whole(tensor: Any, lengths: np.ndarray) -> dict[str, Any]:
    return {"whole": say_tensor(tensor), "lengths": lengths}


def _joined_rows(parts: Sequence[np.ndarray]) -> dict[str, Any]:
    joined = np.concatenate(parts)
    small = joined.astype(np.int32) if _is_small(joined) else joined
    return {"rows": small, "dtype": joined.dtype.str, "lengths": np.array([len(part) for part in parts], np.int32)}


def _is_small(array: np.ndarray) -> bool:
    """Whether int64 numbers fit into 32 bits."""
    limit = np.iinfo(np.int32)
    return array.dtype == np.int64 and (not len(array) or bool(limit.min <= array.min() <= array.max() <= limit.max))


def frames_from_state(state: Mapping[str, Any], sources: Sequence[Any], ids: Sequence[RowIds]) -> list[Frame]:
    """The frames in the order in which they were added.

    Args:
        state: What :meth:`FrameTable.get_state` told.
        sources: The feature sets.
        ids: Their ids.
    """
    order = state["order"].tolist()
    frames: list[Any] = [None] * len(order)
    columns = [_column(told, ids) for told in state["columns"]]
    start = 0
    for layout, size in zip(state["layouts"], state["sizes"], strict=True):
        for i, place in enumerate(order[start : start + size]):
            frames[place] = _frame(layout, i, columns, sources)
        start += size
    if None in frames:
        raise ValueError("frames of steps are missing")
    return frames


def _column(told: Mapping[str, Any], ids: Sequence[RowIds]) -> Callable[[int], Any]:
    """Gives the value of the i-th frame; the same object each time."""
    if "loose" in told:
        values = [opened(one) for one in told["loose"]]
        return values.__getitem__
    lengths = told["lengths"]
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    if "ones" in told:
        one = np.ones((), np.dtype(told["ones"]))
        parts: list[Any] = [np.broadcast_to(one, n) for n in lengths.tolist()]  # takes no memory, whatever a file says
        return parts.__getitem__
    whole: Any = _numbers(told) if "rows" in told else told["whole"].open()
    parts = [whole[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    if "ids" in told:
        parts = [SampleIds(ids[told["ids"]], part) for part in parts]
    return parts.__getitem__


def _numbers(told: Mapping[str, Any]) -> np.ndarray:
    """Row numbers, which nobody may change."""
    found = told["rows"].astype(np.dtype(told["dtype"]))
    found.flags.writeable = False
    return found


def _frame(layout: Mapping[str, Any], i: int, columns: Sequence[Callable[[int], Any]], sources: Sequence[Any]) -> Frame:
    views = {}
    for told in layout["views"]:
        rows = {role: frozen_rows(columns[column](i)) for role, column in told["rows"]}
        weights = None if told["weights"] is None else {role: columns[column](i) for role, column in told["weights"]}
        views[told["node_id"], told["reference"]] = BatchView.trusted(sources[told["source"]], rows, weights)
    nodes = []
    for told in layout["nodes"]:
        roles = [_role(one, i, columns) for one in told["roles"]]
        nodes.append(NodeFrame.made(told["node_id"], int(told["sizes"][i]), roles))
    return Frame(views, nodes)


def _role(told: Mapping[str, Any], i: int, columns: Sequence[Callable[[int], Any]]) -> RoleFrame:
    domains = {domain: columns[column](i) for domain, column in told["domains"]}
    return RoleFrame.made(told["role"], told["kind"], columns[told["weight"]](i), columns[told["mask"]](i), domains)

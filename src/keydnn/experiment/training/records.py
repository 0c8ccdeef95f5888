"""LossRecord and LossCollection: the losses of a step, kept where they were computed until somebody reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from keydnn.experiment.backends.tensors import adapter, backend_of, is_tensor, owner_of, to_numpy
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.contracts import INode
from keydnn.experiment.series import ENDS, AxisSeries, Reducer

LossKey = tuple[str, str]  # node id, label
_AXES = ("node", "label")  # of the losses of a step


def _number(value: Any) -> float:
    return float(to_numpy(value).reshape(())) if is_tensor(value) else float(value)


def _kept(value: Any) -> Any:
    if value is None or type(value) is float:
        return value
    owner = owner_of(value)
    return value if owner is None else adapter(owner).cut(value)


def _sum(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


def _added(values: Iterable[Any]) -> Any:
    """The sum of those there are: where they were computed, or, if several frameworks did, a number."""
    there = [value for value in values if value is not None]
    owners = {backend_of(value) for value in there if is_tensor(value)}
    return sum(map(_number, there) if len(owners) > 1 else there, 0.0)


class LossRecord:
    """The value of one loss: a training loss is trainable, one of evaluation or fitting auxiliary.

    Args:
        label: Of the loss.
        node_id: Of the node it is applied to.
        trainable: A number or a scalar tensor; its history is dropped.
        auxiliary: Likewise.

    Example:
        >>> from keydnn.experiment.training import LossRecord
        >>> a, b = LossRecord("mse", "n", trainable=1.0), LossRecord("mse", "n", trainable=3.0)
        >>> (a + b).to_float(), LossRecord.mean(a, b).to_float()
        (4.0, 2.0)
    """

    def __init__(self, label: str, node_id: str | None = None, trainable: Any = None, auxiliary: Any = None) -> None:
        self.label, self.node_id = label, node_id
        self.trainable = None if trainable is None else _kept(trainable)
        self.auxiliary = None if auxiliary is None else _kept(auxiliary)

    @classmethod
    def trained(cls, key: LossKey, value: Any) -> Self:
        """A training loss of a step, by node and label.

        Args:
            key: Node id and label.
            value: A scalar tensor without history.
        """
        made = cls.__new__(cls)
        made.node_id, made.label = key
        made.trainable, made.auxiliary = value, None
        return made

    @property
    def total(self) -> Any:
        """Trainable and auxiliary together, where they were computed; 0.0 if there are none."""
        both = _sum(self.trainable, self.auxiliary)
        return 0.0 if both is None else both

    def as_dict(self) -> dict[str, Any]:
        """The fields."""
        return {"label": self.label, "node_id": self.node_id, "trainable": self.trainable, "auxiliary": self.auxiliary}

    def to_float(self) -> float:
        """The total as a number on the host."""
        return _number(self.total)

    @classmethod
    def merge(cls, *records: LossRecord) -> LossRecord:
        """One record with the values added up.

        Raises:
            TypeError: Something other than records.
            ValueError: No record, or other labels or nodes.
        """
        for record in records:
            if not isinstance(record, LossRecord):
                raise TypeError(f"only LossRecords can be merged, got {type(record).__name__}")
        if not records:
            raise ValueError("nothing to merge")
        first = records[0]
        trainable, auxiliary = first.trainable, first.auxiliary
        for other in records[1:]:
            if (other.label, other.node_id) != (first.label, first.node_id):
                raise ValueError(f"losses {first.label!r} of node {first.node_id!r} and {other.label!r} of {other.node_id!r} do not add up")
            trainable, auxiliary = _sum(trainable, other.trainable), _sum(auxiliary, other.auxiliary)
        return cls(first.label, first.node_id, trainable, auxiliary)

    def merge_with(self, *others: LossRecord) -> LossRecord:
        """This and others, see :meth:`merge`."""
        return LossRecord.merge(self, *others)

    @classmethod
    def mean(cls, *records: LossRecord) -> LossRecord:
        """One record with the mean values; errors as :meth:`merge`."""
        added = cls.merge(*records)
        share = 1.0 / len(records)
        parts = [None if value is None else value * share for value in (added.trainable, added.auxiliary)]
        return cls(added.label, added.node_id, *parts)

    def __add__(self, other: object) -> LossRecord:
        return self.merge_with(other) if isinstance(other, LossRecord) else NotImplemented

    def __radd__(self, other: object) -> LossRecord:
        return self if other == 0 else NotImplemented  # sum() starts at 0

    def __repr__(self) -> str:
        return f"LossRecord({self.label!r}, node_id={self.node_id!r}, total={self.to_float():.6g})"


class LossSums(AxisSeries):
    """A series of LossRecords; abstract: what all of them have in common."""

    @property
    def trainable(self) -> Any:
        """Sum of the training losses, 0.0 if there are none."""
        return _added(record.trainable for record in self.values())

    @property
    def auxiliary(self) -> Any:
        """Sum of the other losses, 0.0 if there are none."""
        return _added(record.auxiliary for record in self.values())

    def to_float(self) -> float:
        """Sum of all losses as a number on the host."""
        return float(sum(record.to_float() for record in self.values()))

    def reducers(self) -> Mapping[str, Reducer]:
        """``mean sum first last``."""
        return {
            **ENDS,
            "mean": lambda records: LossRecord.mean(*_alike(records)),
            "sum": lambda records: LossRecord.merge(*_alike(records)),
        }


class LossCollection(LossSums):
    """The losses of a step by node and label; records of one pair are added.

    Args:
        records: LossRecords, or a mapping (node id, label) to them.

    Raises:
        TypeError: Something other than records.
    """

    def __init__(self, records: Iterable[LossRecord] | Mapping[tuple[Any, ...], LossRecord] = ()) -> None:
        data: dict[tuple[Any, ...], LossRecord] = {}
        for record in records.values() if isinstance(records, Mapping) else records:
            if not isinstance(record, LossRecord):
                raise TypeError(f"a LossCollection holds LossRecords, got {type(record).__name__}")
            key = (record.node_id, record.label)
            data[key] = data[key] + record if key in data else record
        super().__init__(_AXES, data)

    @classmethod
    def of_step(cls, keys: Sequence[LossKey], values: Sequence[Any]) -> LossCollection:
        """The training losses of a step.

        Args:
            keys: Node id and label of each.
            values: What each gave, a scalar tensor without history.
        """
        data: dict[tuple[Any, ...], LossRecord] = {}
        for key, value in zip(keys, values, strict=True):
            record = LossRecord.trained(key, value)
            data[key] = data[key] + record if key in data else record
        made = cls.__new__(cls)
        made._axes, made._data = _AXES, data
        return made

    def where(self, **coords: Any) -> Self:
        """The part that fits; ``node`` may be an id, a label or a node, or a collection of these."""
        if "node" in coords:
            coords["node"] = self._node_ids(coords["node"])
        return super().where(**coords)

    def at(self, **coords: Any) -> Any:
        """The record at a node (id, label or node) and a label."""
        if "node" in coords and "node" in self.axes:
            found = self._node_ids(coords["node"])
            coords["node"] = found[0] if isinstance(found, list) and len(found) == 1 else coords["node"]
        return super().at(**coords)

    def _node_ids(self, wanted: Any) -> Any:
        if callable(wanted) and not isinstance(wanted, INode):
            return wanted
        single = wanted is None or isinstance(wanted, str | INode)
        known = set(self.axis_values("node")) if "node" in self.axes else set()
        return [self._node_id(one, known) for one in ([wanted] if single else wanted)]

    @staticmethod
    def _node_id(one: Any, known: set[Any]) -> Any:
        if one in known or one is None:
            return one
        if isinstance(one, INode) and not isinstance(one, str):
            return one.node_id
        ctx = ExperimentContext.get_active()
        return ctx.get_node(label=one).node_id if ctx.has_node(label=one) else one

    @property
    def loss_labels(self) -> list[str]:
        """Labels of the losses."""
        return self.axis_values("label")

    @property
    def node_ids(self) -> list[str]:
        """Ids of the nodes."""
        return self.axis_values("node")

    @property
    def nodes(self) -> list[Any]:
        """The nodes, from the active context.

        Raises:
            KeyError: A node is not registered there.
        """
        ctx = ExperimentContext.get_active()
        return [ctx.get_node(node_id=node_id) for node_id in self.node_ids]

    def to_minimize(self) -> Any:
        """Sum of the training losses, where they were computed; a number if several frameworks did, or none."""
        values = [record.trainable for record in self._data.values() if record.trainable is not None]
        if len(values) == 1:
            return values[0]
        kinds = {type(value) for value in values} - {float}
        return sum(values[1:], values[0]) if len(kinds) == 1 else float(np.array([_number(value) for value in values]).sum())

    def merge(self, *others: LossCollection) -> LossCollection:
        """This and others; records of one node and label are added."""
        return LossCollection([record for collection in (self, *others) for record in collection.values()])


def _alike(records: Iterable[LossRecord]) -> list[LossRecord]:
    """Records under the name of the first: what is collapsed over nodes or labels has lost that axis."""
    found = list(records)
    first = found[0]
    return [LossRecord(first.label, first.node_id, record.trainable, record.auxiliary) for record in found]

"""NodeTable: what results have to know about the nodes of a graph once its context is gone: labels, inputs, scaler records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.contracts import INode
from keydnn.experiment.data import ExecutionContext
from keydnn.experiment.data.row_ids import RowIds
from keydnn.experiment.data.scaling import ScalerHistory
from keydnn.experiment.errors import ResolutionError
from keydnn.experiment.graph import GraphNode
from keydnn.experiment.names import DOMAIN_TARGETS
from keydnn.experiment.references import FeatureSetReference
from keydnn.experiment.results.sources import IdsTable, active_context
from keydnn.experiment.scalers import ScalerRecord


@dataclass(frozen=True)
class Source:
    """A feature set as it was: which columns are targets, and how they were scaled.

    Attributes:
        label: Of the set.
        targets: Full name to inner shape of its target columns.
        scalers: A copy of its scaler records.
        ids: Of its rows.
    """

    label: str
    targets: dict[str, tuple[int, ...]]
    scalers: ScalerHistory
    ids: RowIds

    def rows_of(self, uuids: Any) -> NDArray[np.int64]:
        """The rows of ids, -1 for an id that is not there."""
        return self.ids.rows_of(uuids)


@dataclass(frozen=True)
class NodeNote:
    """What is known of a node.

    Attributes:
        node_id: Of the node.
        label: None if nobody knows it.
        is_tail: Whether no node reads its outputs.
        parents: Ids of the nodes it reads.
        references: Feature sets it reads.
    """

    node_id: str
    label: str | None
    is_tail: bool = True
    parents: tuple[str, ...] = ()
    references: tuple[FeatureSetReference, ...] = ()


@dataclass
class NodeTable:
    """Notes of nodes by id, and of feature sets by id."""

    notes: dict[str, NodeNote] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)

    # -- learning

    def learn_graph(self, graph: Any) -> None:
        """Note the nodes of a graph, and the feature sets of the active context that they read."""
        tails = graph.tail_nodes
        for node_id, node in graph.nodes.items():
            self._learn_node(node, node_id in tails)

    def _learn_node(self, node: GraphNode, is_tail: bool) -> None:
        upstream = node.get_upstream_refs()
        references = tuple(one for one in upstream if isinstance(one, FeatureSetReference))
        parents = tuple(str(one.node_id) for one in upstream if not isinstance(one, FeatureSetReference))
        self.notes[node.node_id] = NodeNote(node.node_id, node.label, is_tail, parents, references)
        for reference in references:
            try:
                self._learn_source(reference.resolve().source, reference)
            except ResolutionError:  # registered elsewhere: the views of the first step bring it
                continue

    def _learn_source(self, featureset: Any, reference: FeatureSetReference) -> None:
        scalers = ScalerHistory(featureset.scaler_records)
        known = Source(featureset.label, featureset.get_target_shapes(), scalers, featureset.collection.ids)
        for key in (featureset.node_id, reference.node_id, reference.node_label):
            if key is not None:
                self.sources.setdefault(key, known)

    def knows(self, ctx: ExecutionContext) -> bool:
        """Whether all nodes of a step are noted, and the feature sets they read."""
        for node_id in ctx.outputs:
            if node_id not in self.notes:
                return False
        for view in ctx.input_views.values():
            if view.source.node_id not in self.sources:
                return False
        return True

    def learn(self, ctx: ExecutionContext) -> None:
        """Note the nodes of a step that are new, from the active context and from what the step says itself."""
        active = active_context()
        graph = active.model_graph
        if graph is not None and any(node_id in graph.nodes for node_id in ctx.outputs if node_id not in self.notes):
            self.learn_graph(graph)
        for node_id in ctx.outputs:
            if node_id not in self.notes and active.has_node(node_id=node_id):
                node = active.get_node(node_id=node_id)
                if isinstance(node, GraphNode):
                    self._learn_node(node, not node.get_downstream_refs())
            read = tuple(reference for owner, reference in (*ctx.input_views, *ctx.inputs) if owner == node_id)
            self.notes.setdefault(node_id, NodeNote(node_id, None, references=tuple(dict.fromkeys(read))))
        for (_, reference), view in ctx.input_views.items():
            self._learn_source(view.source, reference)

    # -- state

    def get_state(self, ids: IdsTable) -> dict[str, Any]:
        """Notes, and feature sets with their scalers, each told once; their ids are added to a table."""
        sources = list({id(one): one for one in self.sources.values()}.values())
        places = {id(one): i for i, one in enumerate(sources)}
        return {
            "notes": [dict(vars(note)) for note in self.notes.values()],
            "sources": [_source_state(one, ids) for one in sources],
            "names": [[name, places[id(one)]] for name, one in self.sources.items()],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], ids: Sequence[RowIds]) -> NodeTable:
        """From :meth:`get_state`, with the ids of its table."""
        notes = [NodeNote(**told) for told in state["notes"]]
        sources = [_source(told, ids) for told in state["sources"]]
        return cls({note.node_id: note for note in notes}, {name: sources[place] for name, place in state["names"]})

    # -- asking

    def id_of(self, node: Any) -> str:
        """Id of a node given by instance, id or label.

        Raises:
            KeyError: Text that names no node.
            TypeError: Something else.
        """
        if not isinstance(node, str):
            if not isinstance(node, INode):
                raise TypeError(f"a node is named by itself, its id or its label, got {type(node).__name__}")
            return node.node_id
        if node in self.notes:
            return node
        found = [note.node_id for note in self.notes.values() if note.label == node]
        if found:
            return found[0]
        active = active_context()
        for selector in ({"node_id": node}, {"label": node}):
            if active.has_node(**selector):
                return str(active.get_node(**selector).node_id)
        known = ", ".join(repr(note.label or note.node_id) for note in self.notes.values()) or "none"
        raise KeyError(f"no node {node!r}; these results know {known}")

    def name_of(self, node_id: str) -> str:
        """Label of a node, or its id."""
        note = self.notes.get(node_id)
        return node_id if note is None or note.label is None else note.label

    def is_tail(self, node_id: str) -> bool:
        """Whether no node reads the outputs of a node."""
        note = self.notes.get(node_id)
        return note is None or note.is_tail

    def heads(self, node_id: str) -> list[tuple[str, FeatureSetReference]]:
        """(node id, reference) of every feature set that stands upstream of a node, in order, each once."""
        note = self.notes.get(node_id)
        if note is None:
            return []
        found = [(node_id, reference) for reference in note.references]
        for parent in note.parents:
            found += self.heads(parent)
        return list(dict.fromkeys(found))

    def source_of(self, reference: FeatureSetReference) -> Source | None:
        """What is known of the feature set of a reference."""
        return self.sources.get(reference.node_id or "") or self.sources.get(reference.node_label or "")

    def target_columns(self, node_id: str) -> list[tuple[str, ...]]:
        """Full names of the target columns that reach a node, a tuple for each feature-set input upstream that has targets."""
        note = self.notes.get(node_id)
        if note is None:
            return []
        found = [self._targets_of(reference) for reference in note.references]
        for parent in note.parents:
            found += self.target_columns(parent)
        return [columns for columns in found if columns]

    def _targets_of(self, reference: FeatureSetReference) -> tuple[str, ...]:
        if any(getattr(reference, domain) is not None for domain in ("features", DOMAIN_TARGETS, "tags")):
            return reference.targets or ()
        source = self.source_of(reference)
        return () if source is None else tuple(source.targets)


def _source_state(source: Source, ids: IdsTable) -> dict[str, Any]:
    records = [{**record.get_config(), "scaler_obj": record.scaler_obj} for record in source.scalers.records]
    return {
        "label": source.label,
        "targets": [[name, list(shape)] for name, shape in source.targets.items()],
        "scalers": records,
        "ids": ids.place(source.ids),
    }


def _source(told: Mapping[str, Any], ids: Sequence[RowIds]) -> Source:
    scalers = ScalerHistory([ScalerRecord(**record) for record in told["scalers"]])
    targets = {name: tuple(shape) for name, shape in told["targets"]}
    return Source(told["label"], targets, scalers, ids[told["ids"]])

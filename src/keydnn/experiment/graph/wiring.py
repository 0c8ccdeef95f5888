"""Wiring: the nodes of a graph and which reads which, as a value; an edit makes another one, checked, and changes no node."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from keydnn.experiment.graph.dag import Dag
from keydnn.experiment.graph.nodes import ComputeNode, Reference
from keydnn.experiment.references import GraphNodeReference

Nodes = Mapping[str, ComputeNode]


@dataclass(frozen=True)
class Wiring:
    """Nodes and connections.

    Attributes:
        nodes: Node id to node.
        dag: Which reads which.

    Raises:
        GraphNodeInputError: A node would read more or fewer than it can.
    """

    nodes: Nodes
    dag: Dag

    @classmethod
    def of(cls, nodes: Iterable[ComputeNode]) -> Self:
        """The wiring that nodes tell themselves.

        Raises:
            ValueError: Two nodes of one label, or a cycle.
            GraphConnectivityError: A node reads one that is not among them.
        """
        table: dict[str, ComputeNode] = {}
        by_label: dict[str, ComputeNode] = {}
        for node in nodes:
            if node.label in by_label:
                raise ValueError(f"two nodes have the label {node.label!r}")
            by_label[node.label] = table[node.node_id] = node

        def own(reference: Reference) -> Reference:
            known = reference.node_label in by_label and reference.node_id not in table
            return by_label[str(reference.node_label)].reference() if isinstance(reference, GraphNodeReference) and known else reference

        inputs = {node_id: tuple(own(reference) for reference in node.get_upstream_refs()) for node_id, node in table.items()}
        return cls(table, Dag(inputs, {node_id: node.label for node_id, node in table.items()}))

    # -- questions

    @property
    def labels(self) -> set[str]:
        """Labels of the nodes."""
        return {node.label for node in self.nodes.values()}

    @functools.cached_property
    def order(self) -> list[ComputeNode]:
        """Every node behind all that it reads."""
        return [self.nodes[node_id] for node_id in self.dag.order()]

    @functools.cached_property
    def parents(self) -> dict[str, list[str]]:
        """Node id to ids of the nodes it reads."""
        return {node_id: self.dag.parents(node_id) for node_id in self.nodes}

    def some(self, ids: Iterable[str]) -> dict[str, ComputeNode]:
        """Some of the nodes by id."""
        return {node_id: self.nodes[node_id] for node_id in ids}

    def find(self, node: Any) -> ComputeNode:
        """A node of this wiring by id, label, reference or itself.

        Raises:
            TypeError: Something else.
            ValueError: It is not here.
        """
        if isinstance(node, ComputeNode):
            found = self.nodes.get(node.node_id)
        elif isinstance(node, GraphNodeReference):
            found = self.nodes.get(str(node.node_id)) or self._by_label(node.node_label)
        elif isinstance(node, str):
            found = self.nodes.get(node) or self._by_label(node)
        else:
            raise TypeError(f"a node is named by id, label or itself, got {type(node).__name__}")
        if found is None:
            raise ValueError(f"{getattr(node, 'label', node)!r} is no node of this graph; its nodes: {', '.join(sorted(self.labels))}")
        return found

    def _by_label(self, label: str | None) -> ComputeNode | None:
        return next((node for node in self.nodes.values() if node.label == label), None)

    # -- edits

    def _edited(self, nodes: Nodes, dag: Dag) -> Wiring:
        for node_id, node in nodes.items():
            node.check_upstream(dag.inputs[node_id])
        return Wiring(nodes, dag)

    def _with(self, new: ComputeNode, dag: Dag) -> Wiring:
        return self._edited({**self.nodes, new.node_id: new}, dag)

    def _check_new(self, node: ComputeNode) -> None:
        if node.node_id in self.nodes or node.label in self.labels:
            raise ValueError(f"node {node.label!r} is in this graph already")

    def added(self, node: ComputeNode) -> Wiring:
        """With one more node, which tells itself what it reads.

        Raises:
            ValueError: It is here already.
        """
        self._check_new(node)
        return self._with(node, self.dag.added(node.node_id, node.label, node.get_upstream_refs()))

    def removed(self, gone: ComputeNode) -> Wiring:
        """Without a node; its consumers read what it read."""
        rest = {node_id: other for node_id, other in self.nodes.items() if node_id != gone.node_id}
        return self._edited(rest, self.dag.removed(gone.node_id))

    def replaced(self, old: ComputeNode, new: ComputeNode) -> Wiring:
        """With another node in a node's place."""
        self._check_new(new)
        nodes = {new.node_id if node is old else node_id: new if node is old else node for node_id, node in self.nodes.items()}
        return self._edited(nodes, self.dag.replaced(old.node_id, new.reference()))

    def between(self, new: ComputeNode, upstream: ComputeNode, downstream: ComputeNode) -> Wiring:
        """With a node on the way from one to another."""
        self._check_new(new)
        return self._with(new, self.dag.between(new.reference(), upstream.node_id, downstream.node_id))

    def before(self, new: ComputeNode, downstream: ComputeNode) -> Wiring:
        """With a node that takes over what another one reads."""
        self._check_new(new)
        return self._with(new, self.dag.before(new.reference(), downstream.node_id))

    def after(self, new: ComputeNode, upstream: ComputeNode) -> Wiring:
        """With one more consumer of a node."""
        self._check_new(new)
        return self._with(new, self.dag.after(new.reference(), upstream.reference()))

    # -- taking it

    def connect(self) -> None:
        """Tell the nodes what they read and who reads them."""
        for node_id, node in self.nodes.items():
            node.set_upstream_refs(self.dag.inputs[node_id])
            node.set_downstream_refs([self.nodes[child].reference() for child in self.dag.children(node_id)])

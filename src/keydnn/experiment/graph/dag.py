"""Dag: which node reads what, as a value; an edit returns another one, checked, and leaves the first as it was."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from keydnn.experiment.errors import GraphConnectivityError
from keydnn.experiment.graph.nodes import Reference
from keydnn.experiment.references import GraphNodeReference


@dataclass(frozen=True)
class Dag:
    """A directed acyclic graph.

    Attributes:
        inputs: Node id to what the node reads, in order.
        labels: Node id to label, for messages.

    Raises:
        GraphConnectivityError: A node reads one that is not here.
        ValueError: A cycle.
    """

    inputs: Mapping[str, tuple[Reference, ...]]
    labels: Mapping[str, str]

    def __post_init__(self) -> None:
        for node_id, references in self.inputs.items():
            for reference in references:
                if isinstance(reference, GraphNodeReference) and reference.node_id not in self.inputs:
                    raise GraphConnectivityError(
                        f"node {self.labels[node_id]!r} reads {reference.node_label!r}, which is no node of this graph;"
                        f" its nodes: {', '.join(map(repr, self.labels.values()))}"
                    )
        try:
            tuple(self._sorter().static_order())
        except graphlib.CycleError as error:
            names = " -> ".join(self.labels[node_id] for node_id in error.args[1])
            raise ValueError(f"the nodes form a cycle: {names}") from error

    def _sorter(self) -> graphlib.TopologicalSorter[str]:
        return graphlib.TopologicalSorter({node_id: self.parents(node_id) for node_id in self.inputs})

    # -- questions

    def parents(self, node_id: str) -> list[str]:
        """Ids of the nodes that a node reads."""
        return [str(reference.node_id) for reference in self.inputs[node_id] if isinstance(reference, GraphNodeReference)]

    def children(self, node_id: str) -> list[str]:
        """Ids of the nodes that read a node, in the order of the graph."""
        return [other for other in self.inputs if node_id in self.parents(other)]

    def order(self) -> list[str]:
        """Every node behind all that it reads; otherwise in the order of the graph."""
        place = {node_id: i for i, node_id in enumerate(self.inputs)}
        sorter, found = self._sorter(), []
        sorter.prepare()
        ready: list[str] = []
        while sorter.is_active():
            ready = sorted([*ready, *sorter.get_ready()], key=place.__getitem__)
            found.append(ready.pop(0))
            sorter.done(found[-1])
        return found

    def heads(self) -> list[str]:
        """Ids of the nodes that read feature sets only."""
        return [node_id for node_id in self.inputs if not self.parents(node_id)]

    def tails(self) -> list[str]:
        """Ids of the nodes that nobody reads."""
        return [node_id for node_id in self.inputs if not self.children(node_id)]

    def needed_for(self, node_ids: Iterable[str]) -> set[str]:
        """Some nodes and everything that they read, directly or not."""
        found: set[str] = set()
        waiting = list(node_ids)
        while waiting:
            node_id = waiting.pop()
            if node_id not in found:
                found.add(node_id)
                waiting += self.parents(node_id)
        return found

    # -- edits

    def _with(self, inputs: Mapping[str, tuple[Reference, ...]], labels: Mapping[str, str] | None = None) -> Dag:
        return replace(self, inputs=dict(inputs), labels=dict(self.labels if labels is None else labels))

    def added(self, node_id: str, label: str, inputs: Iterable[Reference]) -> Dag:
        """With one more node."""
        return self._with({**self.inputs, node_id: tuple(inputs)}, {**self.labels, node_id: label})

    def removed(self, node_id: str) -> Dag:
        """Without a node; its consumers read, in its place, all that it read."""
        handed_on = self.inputs[node_id]
        inputs = {other: _spliced(references, node_id, handed_on) for other, references in self.inputs.items() if other != node_id}
        return self._with(inputs, {other: label for other, label in self.labels.items() if other != node_id})

    def replaced(self, old: str, new: GraphNodeReference) -> Dag:
        """With another node in a node's place: same inputs, same consumers, same places among their inputs."""
        new_id, label = str(new.node_id), str(new.node_label)
        inputs = {new_id if other == old else other: _spliced(references, old, (new,)) for other, references in self.inputs.items()}
        return self._with(
            inputs, {new_id if other == old else other: label if other == old else name for other, name in self.labels.items()}
        )

    def between(self, new: GraphNodeReference, upstream: str, downstream: str) -> Dag:
        """With a node on the way from one node to another.

        Raises:
            ValueError: They are not connected.
        """
        if upstream not in self.parents(downstream):
            raise ValueError(f"{self.labels[downstream]!r} does not read {self.labels[upstream]!r}: there is nothing to insert between")
        edge = tuple(ref for ref in self.inputs[downstream] if isinstance(ref, GraphNodeReference) and ref.node_id == upstream)[:1]
        with_new = self.added(str(new.node_id), str(new.node_label), edge)
        return with_new._with({**with_new.inputs, downstream: _spliced(self.inputs[downstream], upstream, (new,))})

    def before(self, new: GraphNodeReference, downstream: str) -> Dag:
        """With a node that takes over all inputs of a node, which then reads it alone."""
        with_new = self.added(str(new.node_id), str(new.node_label), self.inputs[downstream])
        return with_new._with({**with_new.inputs, downstream: (new,)})

    def after(self, new: GraphNodeReference, upstream: GraphNodeReference) -> Dag:
        """With one more consumer of a node."""
        return self.added(str(new.node_id), str(new.node_label), (upstream,))


def _spliced(references: tuple[Reference, ...], gone: str, instead: tuple[Reference, ...]) -> tuple[Reference, ...]:
    """Inputs with those of one node replaced, where they stood; what is read already is not read twice."""
    found: list[Reference] = []
    for reference in references:
        here = instead if isinstance(reference, GraphNodeReference) and reference.node_id == gone else (reference,)
        found += [one for one in here if one not in found]
    return tuple(found)

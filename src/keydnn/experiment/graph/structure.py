"""Structure: the nodes of a graph, how they hang together, and edits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.graph import optimizer_rule
from keydnn.experiment.graph.kinds import StepKind
from keydnn.experiment.graph.merge_node import MergeNode
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.nodes import ComputeNode
from keydnn.experiment.graph.optimizer_rule import Optimizers
from keydnn.experiment.graph.recorded import GraphPlans
from keydnn.experiment.graph.wiring import Wiring
from keydnn.experiment.names import check_new_label
from keydnn.experiment.training import Optimizer


class Structure:
    """Nodes that read each other; abstract, see :class:`~keydnn.experiment.graph.ModelGraph`."""

    def __init__(
        self,
        nodes: Sequence[Any] | None,
        optimizer: Optimizers = None,
        label: str = "model-graph",
        *,
        ctx: ExperimentContext | None = None,
        register: bool = True,
    ) -> None:
        self._ctx = ExperimentContext.get_active() if ctx is None else ctx
        self._label = check_new_label(label)
        chosen = list(self._ctx.available_computenodes.values()) if nodes is None else [self._found(node) for node in nodes]
        self._wiring = Wiring.of(chosen)
        self._optimizers = optimizer_rule.checked(optimizer, self._wiring.nodes, self._wiring.dag)
        self._optimizer = optimizer if isinstance(optimizer, Optimizer) else None
        self._is_built = False
        self._plans = GraphPlans()
        self._kinds: dict[Any, StepKind] = {}
        self._learning: list[ModelNode] = []  # nodes of the latest training step that learned
        self._contributing: set[str] = set()  # ids of those of them that an optimizer for several nodes updates
        if register:
            self._ctx.register_model_graph(self)
        optimizer_rule.take_over(self._optimizers, chosen)
        self._wiring.connect()
        self._warn_about_shape()

    def _found(self, node: Any) -> ComputeNode:
        if isinstance(node, str):
            if not self._ctx.has_node(label=node):
                raise ValueError(f"no node {node!r} is registered; known: {', '.join(n.label for n in self._ctx.available_nodes.values())}")
            node = self._ctx.get_node(label=node)
        if not isinstance(node, ComputeNode):
            raise TypeError(f"a ModelGraph consists of compute nodes, got {type(node).__name__}")
        return node

    def _warn_about_shape(self) -> None:
        dag, nodes = self._wiring.dag, self._wiring.nodes
        if len(nodes) > 1:
            lonely = [node.label for node_id, node in nodes.items() if not dag.parents(node_id) and not dag.children(node_id)]
            if lonely:
                warnings.warn(
                    f"nodes {', '.join(map(repr, lonely))} are connected to no other node of the graph", UserWarning, stacklevel=3
                )
        backends = {node.backend for node in optimizer_rule.learners(nodes.values())}
        if len(backends) > 1:
            names = ", ".join(sorted(backend.value for backend in backends))
            warnings.warn(f"the graph mixes backends: {names}; tensors are converted between them", UserWarning, stacklevel=3)

    def _models(self) -> list[ModelNode]:
        return [node for node in self._wiring.nodes.values() if isinstance(node, ModelNode)]

    def _learners_of(self, backend: Backend) -> list[ModelNode]:
        return [node for node in self._models() if node.backend is backend]

    # -- what it is

    @property
    def label(self) -> str:
        """Name."""
        return self._label

    @property
    def ctx(self) -> ExperimentContext:
        """Where feature sets are looked up."""
        return self._ctx

    @property
    def nodes(self) -> dict[str, ComputeNode]:
        """Node id to node; a copy."""
        return dict(self._wiring.nodes)

    @property
    def node_labels(self) -> set[str]:
        """Labels of the nodes."""
        return self._wiring.labels

    @property
    def head_nodes(self) -> dict[str, ComputeNode]:
        """Nodes that read feature sets only."""
        return self._wiring.some(self._wiring.dag.heads())

    @property
    def tail_nodes(self) -> dict[str, ComputeNode]:
        """Nodes that nobody reads."""
        return self._wiring.some(self._wiring.dag.tails())

    @property
    def frozen_nodes(self) -> dict[str, ComputeNode]:
        """Nodes that do not learn."""
        return {node.node_id: node for node in self._models() if node.is_frozen}

    @property
    def optimizer(self) -> Optimizer | dict[Backend, Optimizer] | None:
        """The optimizer for all nodes, those by backend, or None."""
        return self._optimizer if self._optimizer is not None else dict(self._optimizers) or None

    @property
    def backend(self) -> Backend | None:
        """Backend of the optimizer for all nodes, or None."""
        return None if self._optimizer is None else self._optimizer.backend

    @property
    def is_built(self) -> bool:
        """Whether all nodes are built for their present connections."""
        return self._is_built

    def get_node(self, node: Any) -> ComputeNode:
        """A node of this graph by id, label, reference or itself.

        Raises:
            TypeError: Something else.
            KeyError: It is not here.
        """
        try:
            return self._wiring.find(node)
        except ValueError as error:
            raise KeyError(str(error)) from error

    # -- edits: each makes the graph that is wanted, checks it, and only then takes it

    def add_node(self, node: Any) -> Self:
        """Add a registered node; what it reads is told by the node.

        Raises:
            KeyError: The node is not registered.
            ValueError: It is here already, or the graph would not hold.
        """
        if isinstance(node, str):
            node = self._ctx.get_node(node)
        new = self._found(node)
        if not self._ctx.has_node(node_id=new.node_id):
            raise KeyError(f"node {new.label!r} is not registered in the context of this graph")
        return self._take(self._wiring.added(new))

    def remove_node(self, node: Any) -> Self:
        """Remove a node; its consumers read what it read.

        Raises:
            ValueError: It is not here.
            GraphNodeInputError: A consumer would read more than it can, or a merge node fewer than two.
        """
        gone = self._wiring.find(node)
        return self._take(self._wiring.removed(gone), unconnected=gone)

    def replace_node(self, old_node: Any, new_node: Any) -> Self:
        """Put another node in a node's place; the old one stays registered, unconnected."""
        old = self._wiring.find(old_node)
        return self._take(self._wiring.replaced(old, self._found(new_node)), unconnected=old)

    def insert_node_between(self, new_node: Any, *, upstream: Any, downstream: Any) -> Self:
        """``U -> D`` becomes ``U -> new -> D``.

        Raises:
            ValueError: D does not read U.
        """
        ends = self._wiring.find(upstream), self._wiring.find(downstream)
        return self._take(self._wiring.between(self._found(new_node), *ends))

    def insert_node_before(self, new_node: Any, *, downstream: Any) -> Self:
        """The new node reads what a node read, which then reads the new node alone."""
        return self._take(self._wiring.before(self._found(new_node), self._wiring.find(downstream)))

    def insert_node_after(self, new_node: Any, *, upstream: Any) -> Self:
        """The new node reads a node; those that read it already go on."""
        return self._take(self._wiring.after(self._found(new_node), self._wiring.find(upstream)))

    def _take(self, wiring: Wiring, unconnected: ComputeNode | None = None) -> Self:
        """Check a new wiring against the optimizers, then make it this graph's."""
        given: Any = self._optimizer if self._optimizer is not None else self._optimizers or None
        self._optimizers = optimizer_rule.checked(given, wiring.nodes, wiring.dag)
        self._wiring, self._is_built = wiring, False
        self._kinds.clear()
        self._learning = []
        optimizer_rule.take_over(self._optimizers, wiring.nodes.values())
        for node in wiring.nodes.values():
            if isinstance(node, MergeNode):
                node.forget_shapes()
        if unconnected is not None:
            unconnected.clear_upstream_refs()
            unconnected.clear_downstream_refs()
        wiring.connect()
        return self

"""ModelGraph: nodes that read each other, built, edited, frozen and trained together."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from keydnn.compiler.report import report
from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import Batch, ExecutionContext
from keydnn.experiment.errors import BackendMismatchError, GraphNodeInputError
from keydnn.experiment.graph import steps
from keydnn.experiment.graph.building import build_nodes
from keydnn.experiment.graph.dag import Dag
from keydnn.experiment.graph.flow import Flow
from keydnn.experiment.graph.kinds import StepKind, kind_of
from keydnn.experiment.graph.merge_node import MergeNode
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.nodes import ComputeNode, Reference
from keydnn.experiment.graph.recorded import GraphPlans
from keydnn.experiment.random_states import forked
from keydnn.experiment.references import FeatureSetReference, GraphNodeReference
from keydnn.experiment.training import AppliedLoss, Optimizer
from keydnn.experiment.visualization.summary import summary_box

_MOST_KINDS = 64  # of steps that are remembered
Optimizers = Optimizer | Mapping[Backend | str, Optimizer] | None


class ModelGraph:
    """A directed acyclic graph of nodes.

    Args:
        nodes: Nodes or their labels; None takes all compute nodes of the context.
        optimizer: One for all nodes (graph-wise training), or one per backend; None: every node has its own (stage-wise).
        label: Name.
        ctx: Where feature sets and labels are looked up; None takes the active context.
        register: Whether the context learns about the graph.

    Raises:
        TypeError: Something that is no compute node.
        ValueError: Unknown or doubled labels, a cycle.
        GraphConnectivityError: A node reads one that is not among the nodes.
        RuntimeError: Mixed backends under one optimizer, a node without optimizer, or a scikit-learn node between others.

    Warns:
        UserWarning: A node's own optimizer is dropped; the nodes do not hang together; backends are mixed.
    """

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
        self._label = label
        chosen = list(self._ctx.available_computenodes.values()) if nodes is None else [self._found(node) for node in nodes]
        self._nodes = self._table(chosen)
        self._dag = self._dag_of(self._nodes)
        self._optimizers = self._checked_optimizers(optimizer)
        self._optimizer = optimizer if isinstance(optimizer, Optimizer) else None
        self._is_built = False
        self._plans = GraphPlans()
        self._kinds: dict[Any, StepKind] = {}
        self._contributing: set[str] = set()
        self._write_connections()
        self._warn_about_shape()
        if register:
            self._ctx.register_model_graph(self)

    # -- nodes and their connections

    def _found(self, node: Any) -> ComputeNode:
        if isinstance(node, str):
            if not self._ctx.has_node(label=node):
                raise ValueError(f"no node {node!r} is registered; known: {', '.join(n.label for n in self._ctx.available_nodes.values())}")
            node = self._ctx.get_node(label=node)
        if not isinstance(node, ComputeNode):
            raise TypeError(f"a ModelGraph consists of compute nodes, got {type(node).__name__}")
        return node

    @staticmethod
    def _table(nodes: Iterable[ComputeNode]) -> dict[str, ComputeNode]:
        table: dict[str, ComputeNode] = {}
        labels: set[str] = set()
        for node in nodes:
            if node.label in labels:
                raise ValueError(f"two nodes have the label {node.label!r}")
            labels.add(node.label)
            table[node.node_id] = node
        return table

    @staticmethod
    def _dag_of(nodes: Mapping[str, ComputeNode]) -> Dag:
        by_label = {node.label: node for node in nodes.values()}

        def own(reference: Reference) -> Reference:
            known = reference.node_label in by_label and reference.node_id not in nodes
            return by_label[str(reference.node_label)].reference() if isinstance(reference, GraphNodeReference) and known else reference

        inputs = {node_id: tuple(own(reference) for reference in node.get_upstream_refs()) for node_id, node in nodes.items()}
        return Dag(inputs, {node_id: node.label for node_id, node in nodes.items()})

    def _write_connections(self) -> None:
        """Tell the nodes what they read and who reads them."""
        for node_id, node in self._nodes.items():
            node.set_upstream_refs(self._dag.inputs[node_id])
            node.set_downstream_refs([self._nodes[child].reference() for child in self._dag.children(node_id)])

    def _warn_about_shape(self) -> None:
        order = self._dag.order()
        if len(order) > 1:
            lonely = [self._nodes[n].label for n in order if not self._dag.parents(n) and not self._dag.children(n)]
            if lonely:
                warnings.warn(
                    f"nodes {', '.join(map(repr, lonely))} are connected to no other node of the graph", UserWarning, stacklevel=3
                )
        backends = {node.backend for node in self._models() if node.has_gradients}
        if len(backends) > 1:
            names = ", ".join(sorted(backend.value for backend in backends))
            warnings.warn(f"the graph mixes backends: {names}; tensors are converted between them", UserWarning, stacklevel=3)

    def _models(self) -> list[ModelNode]:
        return [node for node in self._nodes.values() if isinstance(node, ModelNode)]

    # -- optimizers

    def _checked_optimizers(self, optimizer: Optimizers) -> dict[Backend, Optimizer]:
        learners = [node for node in self._models() if node.has_gradients]
        backends = {node.backend for node in learners}
        if optimizer is None:
            lacking = [node.label for node in learners if node.optimizer is None]
            if lacking:
                raise RuntimeError(f"nodes {', '.join(map(repr, lacking))} have no optimizer: give each its own, or the graph one")
            return {}
        if not learners:
            raise RuntimeError("an optimizer was given, but no node of the graph learns by gradients: leave it out")
        given = {None: optimizer} if isinstance(optimizer, Optimizer) else dict(optimizer)
        if isinstance(optimizer, Optimizer) and len(backends) > 1:
            names = ", ".join(sorted(backend.value for backend in backends))
            raise RuntimeError(f"one optimizer cannot serve several backends ({names}): give a dict backend -> Optimizer, or one per node")
        self._check_between(learners)
        found: dict[Backend, Optimizer] = {}
        for key, one in given.items():
            if not isinstance(one, Optimizer):
                raise TypeError(f"expected an Optimizer, got {type(one).__name__}")
            backend = next(iter(backends)) if key is None else Backend.from_value(key)
            if one.backend is None:
                one.backend = backend
            if one.backend is not backend and one.backend is not None:
                raise BackendMismatchError(
                    f"the nodes are of backend {backend.value!r}, the optimizer of {one.backend.value!r}",
                    expected=backend,
                    received=one.backend,
                )
            found[backend] = one
        missing = backends - set(found)
        if missing:
            raise RuntimeError(f"no optimizer for backend {', '.join(sorted(backend.value for backend in missing))}")
        self._drop_own(learners)
        return found

    def _check_between(self, learners: Sequence[ModelNode]) -> None:
        """A node that gradients cannot pass must not stand between nodes that learn by them."""
        ids = {node.node_id for node in learners}
        for node in self._models():
            above = self._dag.needed_for([node.node_id]) - {node.node_id}
            below = [other for other in ids if node.node_id in self._dag.needed_for([other])]
            if not node.has_gradients and below and above & ids:
                raise RuntimeError(
                    f"node {node.label!r} ({node.backend.value}) stands between nodes of one optimizer: gradients cannot pass it"
                )

    @staticmethod
    def _drop_own(learners: Sequence[ModelNode]) -> None:
        own = [node for node in learners if node.optimizer is not None]
        for node in own:
            node.drop_optimizer()
        if own:
            names = ", ".join(repr(node.label) for node in own)
            warnings.warn(f"the graph has an optimizer for all nodes: those of {names} are dropped", UserWarning, stacklevel=4)

    # -- what it is

    @property
    def label(self) -> str:
        """Name."""
        return self._label

    @property
    def nodes(self) -> dict[str, ComputeNode]:
        """Node id to node; a copy."""
        return dict(self._nodes)

    @property
    def node_labels(self) -> set[str]:
        """Labels of the nodes."""
        return {node.label for node in self._nodes.values()}

    def _some(self, ids: Iterable[str]) -> dict[str, ComputeNode]:
        return {node_id: self._nodes[node_id] for node_id in ids}

    @property
    def head_nodes(self) -> dict[str, ComputeNode]:
        """Nodes that read feature sets only."""
        return self._some(self._dag.heads())

    @property
    def tail_nodes(self) -> dict[str, ComputeNode]:
        """Nodes that nobody reads."""
        return self._some(self._dag.tails())

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

    def _node(self, node: Any) -> ComputeNode:
        """A node of this graph by id, label or itself.

        Raises:
            TypeError: Something else.
            ValueError: It is not here.
        """
        if isinstance(node, ComputeNode):
            found = self._nodes.get(node.node_id)
        elif isinstance(node, GraphNodeReference):
            found = self._nodes.get(str(node.node_id)) or self._by_label(node.node_label)
        elif isinstance(node, str):
            found = self._nodes.get(node) or self._by_label(node)
        else:
            raise TypeError(f"a node is named by id, label or itself, got {type(node).__name__}")
        if found is None:
            raise ValueError(f"{getattr(node, 'label', node)!r} is no node of this graph; its nodes: {', '.join(sorted(self.node_labels))}")
        return found

    def get_node(self, node: Any) -> ComputeNode:
        """A node of this graph by id, label, reference or itself.

        Raises:
            TypeError: Something else.
            KeyError: It is not here.
        """
        try:
            return self._node(node)
        except ValueError as error:
            raise KeyError(str(error)) from error

    def executed_nodes(self, active_nodes: Sequence[Any] | None = None) -> list[ComputeNode]:
        """What runs when these nodes (None: all) are active: they and everything they read, in order."""
        return list(self._executed(active_nodes, None).nodes)

    def _by_label(self, label: str | None) -> ComputeNode | None:
        return next((node for node in self._nodes.values() if node.label == label), None)

    # -- building

    def build(self, *, force: bool = False) -> None:
        """Find all shapes and build every node, then the optimizers; what is built for the same shape keeps its weights.

        In the context of an experiment the initial weights derive from its seed and the labels of the nodes.

        Args:
            force: Whether everything starts anew, with fresh weights.
        """
        if self._is_built and not force:
            return
        build_nodes(self._in_order(), set(self._dag.tails()), force, self._ctx.entropy)
        for backend, optimizer in self._optimizers.items():
            learners = [node for node in self._models() if node.backend is backend]
            optimizer.rebuild([parameter for node in learners for parameter in node.parameters()], keep=not force)
        self._is_built = True

    def _in_order(self) -> list[ComputeNode]:
        return [self._nodes[node_id] for node_id in self._dag.order()]

    def _executed(self, active_nodes: Sequence[Any] | None, accelerator: Accelerator | str | None) -> steps.Executed:
        wanted = (
            set(self._nodes) if active_nodes is None else self._dag.needed_for(self._node(node).node_id for node in _listed(active_nodes))
        )
        nodes = [node for node in self._in_order() if node.node_id in wanted]
        return steps.Executed(nodes, {node.node_id: self._dag.parents(node.node_id) for node in nodes}, Accelerator.from_value(accelerator))

    # -- running

    def forward(
        self,
        inputs: Mapping[tuple[str, FeatureSetReference], Any],
        *,
        active_nodes: Sequence[Any] | None = None,
        accelerator: Accelerator | str | None = None,
    ) -> dict[str, Flow]:
        """What every executed node makes of the inputs.

        Args:
            inputs: (id of a head node, its reference) to SampleData, RoleData, a Batch or a BatchView.
            active_nodes: Ids, labels or nodes: these and everything they read run; None runs all.
            accelerator: Where nodes stand that do not say themselves.

        Returns:
            Node id to output.

        Raises:
            RuntimeError: The graph is not built.
            KeyError: An input is missing.
        """
        if not self._is_built:
            raise RuntimeError(f"{self._label!r} is not built: call build() first")
        run = self._executed(active_nodes, accelerator)
        outputs: dict[str, Flow] = {}
        for node in run.nodes:
            own = node.accelerator if isinstance(node, ModelNode) else None
            outputs[node.node_id] = node.forward(node.get_input_data(inputs, outputs, accelerator=own or run.accelerator))
        return outputs

    __call__ = forward

    def train_step(
        self,
        ctx: ExecutionContext,
        losses: Sequence[AppliedLoss],
        *,
        active_nodes: Sequence[Any] | None = None,
        accelerator: Accelerator | str | None = None,
    ) -> None:
        """One step of training: graph-wise with an optimizer for all nodes or one per backend, else stage-wise.

        Where an input is fully masked, nodes that read it, at first or second hand, do not run and nothing about them changes; losses
        on them are 0.

        Args:
            ctx: The step, with the inputs of the head nodes; outputs and losses are put into it.
            losses: Those on nodes that do not run are left out.
            active_nodes: These and everything they read run; it changes nothing about what is frozen.
            accelerator: Where nodes stand that do not say themselves.

        Raises:
            ValueError: No loss on an executed node, or no executed node that learns.
        """
        self.build()
        kind = self._kind(ctx, losses, active_nodes, accelerator)
        run, mine = kind.run, kind.losses
        if kind.silent:
            ctx.add_losses(kind.zeros())
            if not mine:
                return
        learning = {node.node_id for node in run.models if not node.is_frozen}
        if not mine:
            raise ValueError(f"no loss sits on an executed node of {self._label!r}")
        if not learning:
            raise ValueError(f"every executed node of {self._label!r} is frozen: unfreeze one, or run an eval step")
        if not self._optimizers:
            steps.train_stage_wise(run, ctx, mine)
            return
        self._contributing = {node_id for node_id in learning if self._nodes[node_id].backend in self._optimizers}
        if self._optimizer is None or not self._plans.train(run, ctx, mine, self._optimizer):
            steps.train_graph_wise(run, ctx, mine, self._optimizers)

    def _kind(self, ctx: ExecutionContext, losses: Sequence[AppliedLoss], active_nodes: Sequence[Any] | None, accelerator: Any) -> StepKind:
        """What a training step runs; worked out once for each set of nodes, losses and masked inputs."""
        masked = tuple(key[0] for key, batch in ctx.inputs.items() if isinstance(batch, Batch) and batch.is_masked)
        active = None if active_nodes is None else tuple(_listed(active_nodes))
        key = (active, tuple(map(id, losses)), accelerator, masked)
        found = self._kinds.get(key)
        if found is None:
            if len(self._kinds) >= _MOST_KINDS:
                self._kinds.clear()
            found = self._kinds[key] = kind_of(self._executed(active_nodes, accelerator), losses, set(masked))
        return found

    def eval_step(
        self,
        ctx: ExecutionContext,
        losses: Sequence[AppliedLoss] | None = None,
        *,
        active_nodes: Sequence[Any] | None = None,
        accelerator: Accelerator | str | None = None,
    ) -> None:
        """Forward in evaluation mode without gradients; losses are auxiliary; modes and frozen nodes are as before afterwards."""
        self.build()
        steps.evaluate(self._executed(active_nodes, accelerator), ctx, losses or [])

    def fit_step(
        self,
        ctx: ExecutionContext,
        losses: Sequence[AppliedLoss] | None = None,
        *,
        active_nodes: Sequence[Any] | None = None,
        freeze_after_fit: bool = True,
        accelerator: Accelerator | str | None = None,
    ) -> None:
        """Fit the unfrozen nodes whose models fit to the whole input, in order; the others run forward; losses are auxiliary."""
        self.build()
        steps.fit(self._executed(active_nodes, accelerator), ctx, losses or [], freeze_after_fit)

    # -- freezing

    def _chosen_models(self, nodes: Any) -> list[ModelNode]:
        chosen = self._nodes.values() if nodes is None else [self._node(node) for node in _listed(nodes)]
        return [node for node in chosen if isinstance(node, ModelNode)]

    def freeze(self, nodes: Any = None) -> None:
        """Let some nodes (ids, labels, nodes; None: all) learn no more; merge nodes are left out."""
        for node in self._chosen_models(nodes):
            node.freeze()

    def unfreeze(self, nodes: Any = None) -> None:
        """Let some nodes (ids, labels, nodes; None: all) learn again."""
        for node in self._chosen_models(nodes):
            node.unfreeze()

    def get_optimizer_parameters(self) -> dict[str, Any]:
        """What the optimizer for all nodes works on: ``backend``, ``contributing_nodes`` (ids), ``parameters`` (or ``variables``).

        Raises:
            ValueError: There is no optimizer for all nodes.
            RuntimeError: It is not built.
        """
        if self._optimizer is None:
            raise ValueError(f"{self._label!r} has no optimizer for all nodes")
        if not self._optimizer.is_built:
            raise RuntimeError(f"{self._label!r} is not built: call build() first")
        learners = [node for node in self._models() if node.backend is self.backend and not node.is_frozen]
        word = "variables" if self.backend is Backend.TENSORFLOW else "parameters"
        told = [parameter for node in learners for parameter in node.trainable_parameters()]
        return {"backend": self.backend, "contributing_nodes": {node.node_id for node in learners}, word: told}

    def reset_state(self) -> None:
        """Fresh weights and optimizer state everywhere; in the context of an experiment the weights that its seed gives."""
        for node in self._models():
            with forked(self._ctx.entropy, node.label):
                node.reset_weights()
        for backend, optimizer in self._optimizers.items():
            if optimizer.is_built:
                learners = [node for node in self._models() if node.backend is backend]
                optimizer.rebuild([parameter for node in learners for parameter in node.parameters()], keep=False)

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
        if new.node_id in self._nodes or new.label in self.node_labels:
            raise ValueError(f"node {new.label!r} is in this graph already")
        return self._take({**self._nodes, new.node_id: new}, self._dag.added(new.node_id, new.label, new.get_upstream_refs()))

    def remove_node(self, node: Any) -> Self:
        """Remove a node; its consumers read what it read."""
        gone = self._node(node)
        rest = {node_id: other for node_id, other in self._nodes.items() if node_id != gone.node_id}
        return self._take(rest, self._dag.removed(gone.node_id), unconnected=gone)

    def replace_node(self, old_node: Any, new_node: Any) -> Self:
        """Put another node in a node's place; the old one stays registered, unconnected."""
        old, new = self._node(old_node), self._new(new_node)
        nodes = {new.node_id if node_id == old.node_id else node_id: new if node is old else node for node_id, node in self._nodes.items()}
        return self._take(nodes, self._dag.replaced(old.node_id, new.reference()), unconnected=old)

    def insert_node_between(self, new_node: Any, *, upstream: Any, downstream: Any) -> Self:
        """``U -> D`` becomes ``U -> new -> D``.

        Raises:
            ValueError: D does not read U.
        """
        new = self._new(new_node)
        dag = self._dag.between(new.reference(), self._node(upstream).node_id, self._node(downstream).node_id)
        return self._take({**self._nodes, new.node_id: new}, dag)

    def insert_node_before(self, new_node: Any, *, downstream: Any) -> Self:
        """The new node reads what a node read, which then reads the new node alone."""
        new = self._new(new_node)
        return self._take({**self._nodes, new.node_id: new}, self._dag.before(new.reference(), self._node(downstream).node_id))

    def insert_node_after(self, new_node: Any, *, upstream: Any) -> Self:
        """The new node reads a node; those that read it already go on."""
        new = self._new(new_node)
        return self._take({**self._nodes, new.node_id: new}, self._dag.after(new.reference(), self._node(upstream).reference()))

    def _new(self, node: Any) -> ComputeNode:
        new = self._found(node)
        if new.node_id in self._nodes or new.label in self.node_labels:
            raise ValueError(f"node {new.label!r} is in this graph already")
        return new

    def _take(self, nodes: dict[str, ComputeNode], dag: Dag, unconnected: ComputeNode | None = None) -> Self:
        """Check a new set of nodes and connections, then make it this graph's."""
        for node_id, node in nodes.items():
            most = node.max_upstream_refs
            if most is not None and len(dag.inputs[node_id]) > most:
                raise GraphNodeInputError(f"node {node.label!r} takes at most {most} inputs, the edit gives it {len(dag.inputs[node_id])}")
        before = self._nodes, self._dag
        self._nodes, self._dag = nodes, dag
        try:
            given: Any = self._optimizer if self._optimizer is not None else self._optimizers or None
            optimizers = self._checked_optimizers(given)
        except (RuntimeError, ValueError, TypeError):
            self._nodes, self._dag = before
            raise
        self._optimizers = optimizers
        for node in nodes.values():
            if isinstance(node, MergeNode):
                node.forget_shapes()
        if unconnected is not None:
            unconnected.clear_upstream_refs()
            unconnected.clear_downstream_refs()
        self._write_connections()
        self._kinds.clear()
        self._is_built = False
        return self

    # -- config and state

    def get_config(self) -> dict[str, Any]:
        """Label, the configs of the nodes with their classes, and the optimizer."""
        optimizers = {backend.value: optimizer.get_config() for backend, optimizer in self._optimizers.items()}
        return {
            "label": self._label,
            "nodes": [{"node_class": type(node), "config": node.get_config()} for node in self._in_order()],
            "optimizer": self._optimizer.get_config() if self._optimizer is not None else optimizers or None,
            "optimizer_by_backend": self._optimizer is None and bool(optimizers),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, register: bool = True) -> Self:
        """The graph a config describes, with new nodes; the active context gets them if ``register``."""
        ctx = ExperimentContext.get_active()
        nodes = []
        with ctx.temporary() if not register else contextlib.nullcontext():
            for entry in config["nodes"]:
                nodes.append(entry["node_class"].from_config(entry["config"], register=True))
            told = config["optimizer"]
            optimizer: Optimizers = None
            if told is not None:
                by_backend = {key: Optimizer.from_config(value) for key, value in told.items()} if config["optimizer_by_backend"] else None
                optimizer = by_backend or Optimizer.from_config(told)
            return cls(nodes, optimizer, config["label"], ctx=ctx, register=register)

    def get_state(self) -> dict[str, Any]:
        """States of nodes by id, of optimizers by backend, connections, contributing nodes and whether it is built."""
        return {
            "nodes": {node_id: node.get_state() for node_id, node in self._nodes.items()},
            "optimizers": {backend.value: optimizer.get_state() for backend, optimizer in self._optimizers.items()},
            "contributing_nodes": sorted(self._contributing),
            "is_built": self._is_built,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state; an unbuilt graph is built first.

        Raises:
            KeyError: The state has nodes that are not here, or lacks some that are.
        """
        missing, unknown = sorted(set(self._nodes) - set(state["nodes"])), sorted(set(state["nodes"]) - set(self._nodes))
        if missing or unknown:
            labels = [self._nodes[node_id].label for node_id in missing]
            raise KeyError(f"the state is of another set of nodes: it lacks {labels}, and has {unknown}, which are not here")
        for node_id, inner in state["nodes"].items():
            self._nodes[node_id].set_state(inner)
        self._dag = self._dag_of(self._nodes)
        self._kinds.clear()
        self._is_built = False
        if state["is_built"]:
            self.build()
        for backend, optimizer in self._optimizers.items():
            optimizer.set_state(state["optimizers"].get(backend.value, {}))
        self._contributing = set(state["contributing_nodes"])

    def plan_report(self) -> str:
        """What became of the latest step of engine nodes: fused operations, memory, time, or why it runs eagerly."""
        return report(self._plans.latest)

    def summary(self, max_width: int = 88) -> str:
        """A box of text: every node with what it reads, its shape and whether it is frozen."""
        rows: list[tuple[str, Any]] = [("label", self._label), ("optimizer", repr(self.optimizer)), ("built", self._is_built)]
        for node in self._in_order():
            sources = ", ".join(str(reference.node_label) for reference in self._dag.inputs[node.node_id])
            shape = node.output_shape if node.is_built else "?"
            frozen = ", frozen" if isinstance(node, ModelNode) and node.is_frozen else ""
            rows.append((node.label, f"{sources} -> {shape} ({node.backend.value}{frozen})"))
        return summary_box("ModelGraph", rows, max_width)

    def __repr__(self) -> str:
        return f"ModelGraph({self._label!r}, {len(self._nodes)} nodes, {'built' if self._is_built else 'not built'})"


def _listed(nodes: Any) -> list[Any]:
    return list(nodes) if isinstance(nodes, list | tuple | set | frozenset) else [nodes]

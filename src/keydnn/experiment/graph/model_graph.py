"""ModelGraph: nodes that read each other, built, edited, frozen and trained together."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from keydnn.compiler.report import report
from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import Batch, ExecutionContext
from keydnn.experiment.graph import graph_file, optimizer_rule, steps
from keydnn.experiment.graph.accumulation import Accumulation
from keydnn.experiment.graph.building import build_nodes
from keydnn.experiment.graph.direct import DIRECT, train_directly
from keydnn.experiment.graph.flow import Flow
from keydnn.experiment.graph.kinds import StepKind, kind_of
from keydnn.experiment.graph.many import ManySteps, Rows, run_many
from keydnn.experiment.graph.merge_node import MergeNode
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.nodes import ComputeNode
from keydnn.experiment.graph.optimizer_rule import Optimizers
from keydnn.experiment.graph.recorded import GraphPlans
from keydnn.experiment.graph.wiring import Wiring
from keydnn.experiment.io import InYaml, Saved
from keydnn.experiment.names import check_new_label
from keydnn.experiment.random_states import forked
from keydnn.experiment.references import FeatureSetReference
from keydnn.experiment.training import AppliedLoss, Optimizer
from keydnn.experiment.visualization.summary import summary_box

_MOST_KINDS = 64  # of steps that are remembered


class ModelGraph(Saved, InYaml):
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

    kind = "mg"

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
        self._contributing: set[str] = set()
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

    def executed_nodes(self, active_nodes: Sequence[Any] | None = None) -> list[ComputeNode]:
        """What runs when these nodes (None: all) are active: they and everything they read, in order."""
        return list(self._executed(active_nodes, None).nodes)

    # -- building

    def build(self, *, force: bool = False) -> None:
        """Find all shapes and build every node, then the optimizers; what is built for the same shape keeps its weights.

        In the context of an experiment the initial weights derive from its seed and the labels of the nodes.

        Args:
            force: Whether everything starts anew, with fresh weights.
        """
        if self._is_built and not force:
            return
        build_nodes(self._wiring.order, set(self._wiring.dag.tails()), force, self._ctx)
        self._build_optimizers(keep=not force)
        self._is_built = True

    def _build_optimizers(self, keep: bool) -> None:
        for backend, optimizer in self._optimizers.items():
            optimizer.rebuild([parameter for node in self._learners_of(backend) for parameter in node.parameters()], keep=keep)

    def _executed(self, active_nodes: Sequence[Any] | None, accelerator: Accelerator | str | None) -> steps.Executed:
        wiring, where = self._wiring, Accelerator.from_value(accelerator)
        wanted = set(wiring.nodes)
        if active_nodes is not None:
            wanted = wiring.dag.needed_for(wiring.find(node).node_id for node in _listed(active_nodes))
        return steps.Executed([node for node in wiring.order if node.node_id in wanted], wiring.parents, where)

    def place(self, *, active_nodes: Sequence[Any] | None = None, accelerator: Accelerator | str | None = None) -> None:
        """Put the models of what runs on their devices now, as every step does.

        Args:
            active_nodes: These and everything they read; None means all.
            accelerator: Where nodes stand that do not say themselves.

        Raises:
            RuntimeError: A device is not available; the message names node and device.
        """
        self._placed(self._executed(active_nodes, accelerator))

    def _placed(self, run: steps.Executed) -> steps.Executed:
        """The same, with every model on its device."""
        moved = [node for node in run.models if node.stand(run.accelerator)]
        if moved:
            for optimizer in self._optimizers.values():
                optimizer.follow()
        return run

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
        run = self._placed(self._executed(active_nodes, accelerator))
        outputs: dict[str, Flow] = {}
        for node in run.nodes:
            outputs[node.node_id] = node.forward(node.get_input_data(inputs, outputs, accelerator=run.accelerator))
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
            RuntimeError: A device is not available; the message names node and device.
        """
        self.build()
        kind = self._kind(ctx, losses, active_nodes, accelerator)
        run, mine = self._placed(kind.run), kind.losses
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
        self._contributing = {node_id for node_id in learning if self._wiring.nodes[node_id].backend in self._optimizers}
        if self._optimizer is None or not self._plans.train(run, ctx, mine, self._optimizer):
            steps.train_graph_wise(run, ctx, mine, self._optimizers)

    def accumulate_step(
        self,
        ctx: ExecutionContext,
        losses: Sequence[AppliedLoss],
        accumulation: Accumulation,
        *,
        active_nodes: Sequence[Any] | None = None,
        accelerator: Accelerator | str | None = None,
    ) -> None:
        """A step of a group with one update; eager, never recorded.

        Args:
            ctx: As for :meth:`train_step`, like the rest.
            losses: See there.
            accumulation: Where the step stands in its group.
            active_nodes: See there.
            accelerator: See there.

        Raises:
            ValueError: No loss on an executed node.
            RuntimeError: Nodes that are not all torch's, or all keydnn's, under one optimizer.
        """
        self.build()
        kind = self._kind(ctx, losses, active_nodes, accelerator)
        run, optimizer = self._placed(kind.run), self._optimizer
        if optimizer is None or run.backend is None or run.backend not in DIRECT:
            raise RuntimeError(f"{self._label!r} cannot accumulate: its nodes must be torch's alone, or keydnn's, under one optimizer")
        if not kind.losses:
            raise ValueError(f"no loss sits on an executed node of {self._label!r}")
        for node in run.models:
            node.set_mode(not node.is_frozen)
        train_directly(run, ctx, kind.losses, optimizer, run.backend, accumulation)

    def train_steps(
        self,
        ctx: ExecutionContext,
        losses: Sequence[AppliedLoss],
        rows: Rows,
        *,
        active_nodes: Sequence[Any] | None = None,
        accelerator: Accelerator | str | None = None,
        keep: bool = True,
    ) -> ManySteps | None:
        """As many training steps as a tenth of a second allows, in one native call; their bits are those of :meth:`train_step`.

        Args:
            ctx: The first step, with the inputs of the head nodes; nothing is put into it.
            losses: As for a step.
            rows: (node id, reference) to role to domain to the rows of this and later batches, all of one size, one under the other.
            active_nodes: As for a step.
            accelerator: As for a step.
            keep: Whether outputs are kept.

        Returns:
            The steps made; None if they need Python: nodes of other frameworks, stage-wise training, schedules, weights or masks other than
            1, or a kind of step that was not recorded yet.
        """
        optimizer = self._optimizer
        if not self._is_built or optimizer is None or not optimizer.is_constant:
            return None
        kind = self._kind(ctx, losses, active_nodes, accelerator)
        run = self._placed(kind.run)
        if kind.silent or not kind.losses or all(node.is_frozen for node in run.models):
            return None
        warm = self._plans.warm(run, ctx, kind.losses, optimizer)
        return None if warm is None else run_many(warm, rows, optimizer, keep)

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
        steps.evaluate(self._placed(self._executed(active_nodes, accelerator)), ctx, losses or [])

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
        steps.fit(self._placed(self._executed(active_nodes, accelerator)), ctx, losses or [], freeze_after_fit)

    # -- freezing

    def _chosen_models(self, nodes: Any) -> list[ModelNode]:
        chosen = self._wiring.nodes.values() if nodes is None else [self._wiring.find(node) for node in _listed(nodes)]
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
        if any(optimizer.is_built for optimizer in self._optimizers.values()):
            self._build_optimizers(keep=False)

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
        optimizer_rule.take_over(self._optimizers, wiring.nodes.values())
        for node in wiring.nodes.values():
            if isinstance(node, MergeNode):
                node.forget_shapes()
        if unconnected is not None:
            unconnected.clear_upstream_refs()
            unconnected.clear_downstream_refs()
        wiring.connect()
        return self

    # -- config and state

    def get_config(self) -> dict[str, Any]:
        """``label``, ``nodes`` (their configs, each behind all that it reads) and ``optimizer`` (of optimizers by backend a dict)."""
        by_backend = {backend.value: optimizer.get_config() for backend, optimizer in self._optimizers.items()}
        return {
            "label": self._label,
            "nodes": [node.get_config() for node in self._wiring.order],
            "optimizer": self._optimizer.get_config() if self._optimizer is not None else by_backend or None,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, register: bool = True) -> Self:
        """The graph a config describes, with new nodes; the active context gets graph and nodes if ``register``."""
        ctx = ExperimentContext.get_active()
        with contextlib.ExitStack() as stack:
            if not register:  # the nodes have to find each other, and nothing of it stays
                stack.enter_context(ctx.temporary())
                stack.enter_context(ctx.use_policy("overwrite"))
            nodes = [ComputeNode.from_config(entry) for entry in config["nodes"]]
            return cls(nodes, optimizers_told(config["optimizer"]), config["label"], ctx=ctx, register=register)

    def get_state(self) -> dict[str, Any]:
        """``nodes`` (id to state), ``optimizer`` (of optimizers by backend a dict), ``opt_built_from_node_ids`` and ``is_built``."""
        by_backend = {backend.value: optimizer.get_state() for backend, optimizer in self._optimizers.items()}
        return {
            "nodes": {node_id: node.get_state() for node_id, node in self._wiring.nodes.items()},
            "optimizer": self._optimizer.get_state() if self._optimizer is not None else by_backend or None,
            "opt_built_from_node_ids": sorted(self._contributing),
            "is_built": self._is_built,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state; an unbuilt graph is built first.

        Raises:
            KeyError: The state has nodes that are not here, or lacks some that are.
        """
        nodes = self._wiring.nodes
        missing, unknown = sorted(set(nodes) - set(state["nodes"])), sorted(set(state["nodes"]) - set(nodes))
        if missing or unknown:
            labels = [nodes[node_id].label for node_id in missing]
            raise KeyError(f"the state is of another set of nodes: it lacks {labels}, and has {unknown}, which are not here")
        for node_id, inner in state["nodes"].items():
            with forked(self._ctx.entropy, nodes[node_id].label):  # what was not built gets the weights that the seed gives
                nodes[node_id].set_state(inner)
        self._wiring = Wiring.of(nodes.values())
        self._kinds.clear()
        self._is_built = False
        if state["is_built"]:
            self.build()
        told = state["optimizer"] or {}
        states = {backend.value: told for backend in self._optimizers} if self._optimizer is not None else told
        for backend, optimizer in self._optimizers.items():
            optimizer.set_state(states.get(backend.value, {"internal": None}))
        self._contributing = set(state["opt_built_from_node_ids"])

    @classmethod
    def load(cls, filepath: str | os.PathLike[str], *, allow_packaged_code: bool = False, overwrite: bool = False) -> Self:
        """Read a graph, built if it was, with weights, optimizers and freeze flags; the active context gets it.

        If the active context has a graph or an experiment, the loaded graph goes into a new context, which becomes active and knows the
        feature sets that it reads.

        Args:
            filepath: The file, with or without its suffix.
            allow_packaged_code: Whether code in the file may be run; read it first with ``inspect_packaged_code``.
            overwrite: Whether graph and nodes replace those that are registered; otherwise a node whose id is taken gets a new one.

        Raises:
            FileNotFoundError: No such file.
            ArtifactError: No artifact, or a damaged or hostile one.
            PackagedCodeError: It brings code, and that is not permitted.
            ResolutionError: A feature set that it reads is not registered.
        """
        return graph_file.load(cls, filepath, allow_packaged_code=allow_packaged_code, overwrite=overwrite)

    def save_checkpoint(self, filepath: str | os.PathLike[str], *, overwrite: bool = False, meta: Mapping[str, Any] | None = None) -> Path:
        """Write the state: weights, buffers, optimizers and freeze flags; not what the graph is made of, which :meth:`save` writes too.

        Args:
            filepath: Name of the file; it gets the suffix ``.ckpt.mml``.
            overwrite: Whether an existing file may be replaced.
            meta: What else is worth knowing: JSON values and arrays.

        Returns:
            The path of the file.

        Raises:
            FileExistsError: The file exists and ``overwrite`` is False.
            TypeError: Something else in ``meta``.
        """
        return graph_file.save_checkpoint(self, filepath, overwrite=overwrite, meta=meta)

    def restore_checkpoint(self, filepath: str | os.PathLike[str], *, allow_packaged_code: bool = False) -> Self:
        """Go back to a state that :meth:`save_checkpoint`, or a training phase, wrote; if it fails the graph is as before.

        Nodes are found by id, else by label; an unbuilt graph is built first.

        Args:
            filepath: The file, with or without its suffix.
            allow_packaged_code: Whether code in the file may be run; read it first with ``inspect_packaged_code``.

        Returns:
            Self.

        Raises:
            ValueError: No such file, a damaged or hostile one, or one of a graph with other nodes.
            TypeError: It holds the state of something else.
        """
        graph_file.restore_checkpoint(self, filepath, allow_packaged_code=allow_packaged_code)
        return self

    def snapshot(self) -> tuple[Wiring, dict[str, Any]]:
        """Which nodes there are, how they are connected, and the state, for :meth:`restore`."""
        return self._wiring, self.get_state()

    def restore(self, snapshot: tuple[Wiring, dict[str, Any]]) -> None:
        """Go back to a snapshot, also if nodes have come or gone since."""
        self._wiring, state = snapshot
        self.set_state(state)

    def plan_report(self) -> str:
        """What became of the latest step of engine nodes: fused operations, memory, time, or why it runs eagerly."""
        return report(self._plans.latest)

    def summary(self, max_width: int = 88) -> str:
        """A box of text: every node with what it reads, its shape and whether it is frozen."""
        rows: list[tuple[str, Any]] = [("label", self._label), ("optimizer", repr(self.optimizer)), ("built", self._is_built)]
        for node in self._wiring.order:
            sources = ", ".join(str(reference.node_label) for reference in self._wiring.dag.inputs[node.node_id])
            shape = node.output_shape if node.is_built else "?"
            frozen = ", frozen" if isinstance(node, ModelNode) and node.is_frozen else ""
            rows.append((node.label, f"{sources} -> {shape} ({node.backend.value}{frozen})"))
        return summary_box("ModelGraph", rows, max_width)

    def __repr__(self) -> str:
        return f"ModelGraph({self._label!r}, {len(self._wiring.nodes)} nodes, {'built' if self._is_built else 'not built'})"


def _listed(nodes: Any) -> list[Any]:
    return list(nodes) if isinstance(nodes, list | tuple | set | frozenset) else [nodes]


def optimizers_told(told: Any) -> Optimizers:
    """An optimizer, optimizers by backend, or None, by their config."""
    if told is None or "opt" in told:
        return None if told is None else Optimizer.from_config(told)
    return {backend: Optimizer.from_config(one) for backend, one in told.items()}

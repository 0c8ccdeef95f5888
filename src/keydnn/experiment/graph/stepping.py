"""Stepping: a graph that is built, stepped, frozen and trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.data import Batch, ExecutionContext
from keydnn.experiment.graph import steps
from keydnn.experiment.graph.accumulation import Accumulation
from keydnn.experiment.graph.building import build_nodes
from keydnn.experiment.graph.direct import DIRECT, DirectStep
from keydnn.experiment.graph.executed import Executed
from keydnn.experiment.graph.flow import Flow
from keydnn.experiment.graph.kinds import StepKind, kind_of
from keydnn.experiment.graph.many import ManySteps, Rows, run_many
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.nodes import ComputeNode
from keydnn.experiment.graph.structure import Structure
from keydnn.experiment.random_states import forked
from keydnn.experiment.references import FeatureSetReference
from keydnn.experiment.training import AppliedLoss

_MOST_KINDS = 64  # of steps that are remembered


class Stepping(Structure):
    """What runs a graph; abstract, see :class:`~keydnn.experiment.graph.ModelGraph`."""

    # -- what runs

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

    def _executed(self, active_nodes: Sequence[Any] | None, accelerator: Accelerator | str | None) -> Executed:
        wiring, where = self._wiring, Accelerator.from_value(accelerator)
        wanted = set(wiring.nodes)
        if active_nodes is not None:
            wanted = wiring.dag.needed_for(wiring.find(node).node_id for node in _listed(active_nodes))
        return Executed([node for node in wiring.order if node.node_id in wanted], wiring.parents, where)

    def place(self, *, active_nodes: Sequence[Any] | None = None, accelerator: Accelerator | str | None = None) -> None:
        """Put the models of what runs on their devices now, as every step does.

        Args:
            active_nodes: These and everything they read; None means all.
            accelerator: Where nodes stand that do not say themselves.

        Raises:
            RuntimeError: A device is not available; the message names node and device.
        """
        self._placed(self._executed(active_nodes, accelerator))

    def _placed(self, run: Executed) -> Executed:
        """The same, with every model on its device."""
        if run.placed:
            moved = [node for node in run.placed if node.stand(run.accelerator)]
            for optimizer in self._optimizers.values() if moved else ():
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
        self._train(ctx, losses, active_nodes, accelerator)

    def unwatched(
        self,
        losses: Sequence[AppliedLoss],
        *,
        active_nodes: Sequence[Any] | None = None,
        accelerator: Accelerator | str | None = None,
        copies: bool = False,
    ) -> Callable[[ExecutionContext], bool]:
        """:meth:`train_step` for steps between which nobody changes nodes, losses or optimizers; what is common to them is looked at once.

        Args:
            losses: As for a step.
            active_nodes: As for a step.
            accelerator: As for a step.
            copies: Whether outputs are copied, where that costs little, so that contexts may wait for a while.

        Returns:
            What makes a step of its context, and tells whether outputs were copied.
        """
        direct: DirectStep | None = None  # what makes steps like the latest one

        def step(ctx: ExecutionContext) -> bool:
            nonlocal direct
            for batch in ctx.inputs.values():
                if batch.is_masked:
                    direct = None
            if direct is None:
                direct = self._train(ctx, losses, active_nodes, accelerator)
                return False
            direct.step(ctx, copies=copies)
            return copies

        return step

    def _train(
        self, ctx: ExecutionContext, losses: Sequence[AppliedLoss], active_nodes: Sequence[Any] | None, accelerator: Any
    ) -> DirectStep | None:
        """A training step; what could make the next ones, if their inputs are not masked."""
        if not self._is_built:
            self.build()
        kind = self._kind(ctx, losses, active_nodes, accelerator)
        run, mine = self._placed(kind.run), kind.losses
        if kind.silent:
            ctx.add_losses(kind.zeros())
            if not mine:
                return None
        if not mine:
            raise ValueError(f"no loss sits on an executed node of {self._label!r}")
        learning = [node for node in run.models if not node.is_frozen]
        if not learning:
            raise ValueError(f"every executed node of {self._label!r} is frozen: unfreeze one, or run an eval step")
        if not self._optimizers:
            steps.train_stage_wise(run, ctx, mine)
            return None
        if learning != self._learning:
            self._learning = learning
            self._contributing = {node.node_id for node in learning if node.backend in self._optimizers}
        if run.backend is Backend.KEYDNN and self._optimizer is not None and self._plans.train(run, ctx, mine, self._optimizer):
            return None
        if kind.direct is None:
            steps.train_graph_wise(run, ctx, mine, self._optimizers)
            return None
        kind.direct.make(ctx)
        return None if kind.masked or run.backend is Backend.KEYDNN else kind.direct

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
        run = self._placed(kind.run)
        if self._optimizer is None or run.backend is None or run.backend not in DIRECT:
            raise RuntimeError(f"{self._label!r} cannot accumulate: its nodes must be torch's alone, or keydnn's, under one optimizer")
        if kind.direct is None:
            raise ValueError(f"no loss sits on an executed node of {self._label!r}")
        kind.direct.make(ctx, accumulation)

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
        masked: tuple[str, ...] = ()
        for (node_id, _), batch in ctx.inputs.items():
            if isinstance(batch, Batch) and batch.is_masked:
                masked += (node_id,)
        active = tuple(active_nodes) if type(active_nodes) is list else None if active_nodes is None else tuple(_listed(active_nodes))
        key = (active, tuple(map(id, losses)), accelerator, masked)
        found = self._kinds.get(key)
        if found is None:
            if len(self._kinds) >= _MOST_KINDS:
                self._kinds.clear()
            found = self._kinds[key] = kind_of(self._executed(active_nodes, accelerator), losses, set(masked), self._optimizers)
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


def _listed(nodes: Any) -> list[Any]:
    return list(nodes) if isinstance(nodes, list | tuple | set | frozenset) else [nodes]

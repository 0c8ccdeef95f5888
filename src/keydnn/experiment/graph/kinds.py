"""StepKind: what a training step of a graph runs, as far as it does not depend on the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.graph.direct import DIRECT, DirectStep
from keydnn.experiment.graph.executed import Executed
from keydnn.experiment.training import AppliedLoss, LossCollection, LossRecord, Optimizer


@dataclass(frozen=True)
class StepKind:
    """One kind of step.

    Attributes:
        run: The nodes that run.
        losses: Those on nodes that run.
        silent: Those on nodes that rest because no sample reaches them.
        masked: Ids of nodes with a fully masked input.
        all_losses: Keeps the objects that a step kind is found by.
        direct: Makes the steps, if all nodes are of one backend that keeps gradients with the parameters, under one optimizer.
    """

    run: Executed
    losses: Sequence[AppliedLoss]
    silent: Sequence[AppliedLoss]
    masked: set[str]
    all_losses: Sequence[AppliedLoss]
    direct: DirectStep | None

    def zeros(self) -> LossCollection:
        """The losses that are 0."""
        return LossCollection([LossRecord(loss.label, loss.node_id, trainable=0.0) for loss in self.silent])


def kind_of(run: Executed, losses: Sequence[AppliedLoss], masked: set[str], optimizers: Mapping[Backend, Optimizer]) -> StepKind:
    """A kind of step.

    Args:
        run: All nodes that would run.
        losses: The losses; those on other nodes are left out.
        masked: Ids of nodes with a fully masked input; they and all that read them rest.
        optimizers: Of the graph, by backend.
    """
    resting = set(masked)
    for node in run.nodes:
        if resting.intersection(run.parents[node.node_id]):
            resting.add(node.node_id)
    there = {node.node_id for node in run.nodes}
    awake = replace(run, nodes=[node for node in run.nodes if node.node_id not in resting])
    mine = [loss for loss in losses if loss.node_id in there - resting]
    optimizer = None if awake.backend is None else optimizers.get(awake.backend)
    is_direct = optimizer is not None and awake.backend in DIRECT and bool(mine)
    return StepKind(
        awake,
        mine,
        [loss for loss in losses if loss.node_id in there & resting],
        masked,
        list(losses),
        DirectStep(awake, mine, optimizer, awake.backend) if is_direct else None,  # type: ignore[arg-type]
    )

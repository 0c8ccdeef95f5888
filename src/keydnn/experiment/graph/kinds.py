"""StepKind: what a training step of a graph runs, as far as it does not depend on the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from keydnn.experiment.graph.steps import Executed
from keydnn.experiment.training import AppliedLoss, LossCollection, LossRecord


@dataclass(frozen=True)
class StepKind:
    """One kind of step.

    Attributes:
        run: The nodes that run.
        losses: Those on nodes that run.
        silent: Those on nodes that rest because no sample reaches them.
        all_losses: Keeps the objects that a step kind is found by.
    """

    run: Executed
    losses: Sequence[AppliedLoss]
    silent: Sequence[AppliedLoss]
    all_losses: Sequence[AppliedLoss]

    def zeros(self) -> LossCollection:
        """The losses that are 0."""
        return LossCollection([LossRecord(loss.label, loss.node_id, trainable=0.0) for loss in self.silent])


def kind_of(run: Executed, losses: Sequence[AppliedLoss], masked: set[str]) -> StepKind:
    """A kind of step.

    Args:
        run: All nodes that would run.
        losses: The losses; those on other nodes are left out.
        masked: Ids of nodes with a fully masked input; they and all that read them rest.
    """
    resting = set(masked)
    for node in run.nodes:
        if resting.intersection(run.parents[node.node_id]):
            resting.add(node.node_id)
    there = {node.node_id for node in run.nodes}
    awake = [node for node in run.nodes if node.node_id not in resting]
    return StepKind(
        replace(run, nodes=awake),
        [loss for loss in losses if loss.node_id in there - resting],
        [loss for loss in losses if loss.node_id in there & resting],
        list(losses),
    )

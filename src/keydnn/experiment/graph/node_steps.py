"""One step of one model node: functions over the node and its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.data import ExecutionContext
from keydnn.experiment.graph.flow import Flow, as_batch, cut, joined
from keydnn.experiment.training import AppliedLoss, LossCollection, LossRecord


def train(node: Any, ctx: ExecutionContext, batch: Flow, losses: Sequence[AppliedLoss]) -> None:
    """Forward, the losses on the node, backward, a step of the node's own optimizer.

    Raises:
        RuntimeError: The node has no optimizer.
        ValueError: No loss is on it.
    """
    if node.optimizer is None:
        raise RuntimeError(f"node {node.label!r} has no optimizer: give it one, or train the graph with a global one")
    if not node.is_built or not node.optimizer.is_built:
        node.build_for(batch)
    mine = _own(node, losses)
    if not mine:
        raise ValueError(f"there is no loss on node {node.label!r}")
    node.set_mode(True)
    node.optimizer.zero_grad()
    with node.face.Recording() as recording:
        output = as_batch(node.forward_single(batch, **training_argument(node, True)))
        ctx.set_output(node_id=node.node_id, batch=output)
        values = [loss.compute(ctx) for loss in mine]
        total = sum(values[1:], values[0])
    variables = node.trainable_parameters()
    grads = recording.backward([total], [None], variables)
    node.optimizer.step(*((grads, variables) if node.backend is Backend.TENSORFLOW else ()))
    ctx.outputs[node.node_id] = cut(output, node.face)
    _record(ctx, mine, values, "trainable")


def run(node: Any, ctx: ExecutionContext, batch: Flow, losses: Sequence[AppliedLoss], training: bool, kind: str = "auxiliary") -> None:
    """Forward without gradients; the losses on the node are recorded as of a kind."""
    if not node.is_built:
        node.build_for(batch)
    node.set_mode(training)
    with node.face.no_gradient():
        output = as_batch(node.forward_single(batch, **training_argument(node, training)))
        ctx.set_output(node_id=node.node_id, batch=output)
        mine = _own(node, losses)
        values = [loss.compute(ctx) for loss in mine]
    _record(ctx, mine, values, kind)


def fit(node: Any, ctx: ExecutionContext, batch: Flow, losses: Sequence[AppliedLoss]) -> None:
    """``model.fit`` on all rows, then forward."""
    if not node.is_built:
        node.build_for(batch)
    node.model.fit(*joined(batch))
    run(node, ctx, batch, losses, training=False)


def learn_batch(node: Any, ctx: ExecutionContext, batch: Flow, losses: Sequence[AppliedLoss]) -> None:
    """A step of a model that learns batch by batch without gradients, then forward.

    Raises:
        RuntimeError: The model does not learn that way.
    """
    partial_fit(node, batch)
    run(node, ctx, batch, losses, training=True, kind="trainable")


def partial_fit(node: Any, batch: Flow) -> None:
    """``model.partial_fit`` on a batch.

    Raises:
        RuntimeError: The model does not learn that way.
    """
    if not getattr(node.model, "supports_partial_fit", False):
        raise RuntimeError(f"node {node.label!r} cannot learn batch by batch: freeze it, or use a fit step")
    if not node.is_built:
        node.build_for(batch)
    node.model.partial_fit(*joined(batch))


def training_argument(node: Any, training: bool) -> dict[str, Any]:
    """Keras takes the mode with the call."""
    return {"training": training} if node.backend is Backend.TENSORFLOW else {}


def _own(node: Any, losses: Sequence[AppliedLoss]) -> list[AppliedLoss]:
    return [loss for loss in losses if loss.node_id == node.node_id]


def _record(ctx: ExecutionContext, losses: Sequence[AppliedLoss], values: Sequence[Any], kind: str) -> None:
    records = [LossRecord(loss.label, loss.node_id, **{kind: value}) for loss, value in zip(losses, values, strict=True)]
    if records:
        ctx.add_losses(LossCollection(records))

"""A training step of a graph on one backend under one optimizer: the short way of :func:`steps.train_graph_wise`, with the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.data import ExecutionContext
from keydnn.experiment.graph.accumulation import Accumulation
from keydnn.experiment.graph.flow import as_batch
from keydnn.experiment.training import AppliedLoss, LossCollection, LossRecord, Optimizer

if TYPE_CHECKING:
    from keydnn.experiment.graph.steps import Executed

DIRECT = (Backend.TORCH, Backend.KEYDNN)  # backends that keep gradients with the parameters


def train_directly(
    run: Executed,
    ctx: ExecutionContext,
    losses: Sequence[AppliedLoss],
    optimizer: Optimizer,
    backend: Backend,
    accumulation: Accumulation | None = None,
) -> None:
    """All nodes forward, the losses backward, one step of the optimizer unless the group goes on; the caller has set the modes."""
    if accumulation is None or accumulation.is_first:
        optimizer.zero_grad()
    outputs, face = ctx.outputs, adapter(backend)
    with face.Recording() as recording:
        for node in run.nodes:
            data = node.get_input_data(ctx.inputs, outputs, accelerator=run.accelerator)
            ctx.set_output(node_id=node.node_id, batch=as_batch(node.forward(data)))
        values: list[Any] = [loss.compute(ctx) for loss in losses]
    roots = values if accumulation is None else accumulation.weighted(values, outputs[losses[0].node_id].batch_size)
    recording.backward(roots, [None] * len(roots), [])
    if accumulation is not None and accumulation.is_last:
        face.scale(face.gradients(optimizer.parameters), 1.0 / accumulation.rows)
    if accumulation is None or accumulation.is_last:
        optimizer.step()
    ctx.add_losses(
        LossCollection([LossRecord(loss.label, loss.node_id, trainable=value) for loss, value in zip(losses, values, strict=True)])
    )
    for node in run.nodes:
        for samples in outputs[node.node_id].role_data.values():
            samples.change_features(face.cut)

"""DirectStep: a training step of a graph on one backend under one optimizer, with the bits of :func:`steps.train_graph_wise`.

It is made once per kind of step and holds the passes of the nodes. ``begin`` looks at everything that may have changed since the latest
step; each step after it does what a loop by hand would do:

    forget the gradients, all nodes forward, the losses, backward, the update
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.data import ExecutionContext
from keydnn.experiment.graph.accumulation import Accumulation
from keydnn.experiment.graph.executed import Executed
from keydnn.experiment.graph.passes import pass_of
from keydnn.experiment.training import AppliedLoss, LossCollection, Optimizer
from keydnn.experiment.training.records import LossKey

DIRECT = (Backend.TORCH, Backend.KEYDNN)  # backends that keep gradients with the parameters


class DirectStep:
    """Steps of one kind.

    Args:
        run: What runs, all on one backend.
        losses: On nodes that run; at least one.
        optimizer: Of all nodes.
        backend: The backend.
    """

    def __init__(self, run: Executed, losses: Sequence[AppliedLoss], optimizer: Optimizer, backend: Backend) -> None:
        self._passes = [(node.node_id, pass_of(node, run.accelerator)) for node in run.nodes]
        self._losses, self._optimizer, self._face = losses, optimizer, adapter(backend)
        self._seeds = [None] * len(losses)
        self._keys: list[LossKey] = []

    def make(self, ctx: ExecutionContext, accumulation: Accumulation | None = None) -> None:
        """A step by itself; arguments as those of :meth:`step`."""
        self.begin()
        self.step(ctx, accumulation)

    def begin(self) -> None:
        """Steps follow between which nobody changes nodes, losses or the optimizer."""
        for _, one in self._passes:
            one.begin()
        self._keys = [(loss.node_id, loss.label) for loss in self._losses]

    def step(self, ctx: ExecutionContext, accumulation: Accumulation | None = None, *, copies: bool = False) -> None:
        """All nodes forward, the losses backward, one step of the optimizer unless the group goes on.

        Args:
            ctx: The step, with the inputs of the head nodes; outputs and losses are put into it.
            accumulation: Where the step stands in its group.
            copies: Whether outputs are copies, which no later step can change.
        """
        optimizer, face, losses = self._optimizer, self._face, self._losses
        passes, outputs = self._passes, ctx.outputs
        for _, one in passes:
            one.set_mode()
        if accumulation is None or accumulation.is_first:
            optimizer.zero_grad()
        with face.Recording() as recording:
            for node_id, one in passes:
                ctx.set_output(node_id=node_id, batch=one.batch(ctx))
            values: list[Any] = [loss.compute(ctx) for loss in losses]
        if accumulation is None:
            recording.backward(values, self._seeds, ())
            optimizer.step()
        else:
            self._accumulate(ctx, accumulation, recording, values)
        cut = face.cut
        ctx.add_losses(LossCollection.of_step(self._keys, [cut(value) for value in values]))
        without_history = face.detach if copies else cut
        for node_id, _ in passes:
            for samples in outputs[node_id].role_data.parts.values():
                samples.change_features(without_history)

    def _accumulate(self, ctx: ExecutionContext, accumulation: Accumulation, recording: Any, values: list[Any]) -> None:
        """The backward pass of a step of a group, and the update if it is the last."""
        roots = accumulation.weighted(values, ctx.outputs[self._losses[0].node_id].batch_size)
        recording.backward(roots, [None] * len(roots), [])
        if accumulation.is_last:
            self._face.scale(self._face.gradients(self._optimizer.parameters), 1.0 / accumulation.rows)
            self._optimizer.step()

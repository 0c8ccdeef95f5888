"""One step of a graph: functions over nodes in order.

Graph-wise, the nodes form islands, (backend, level) with level(n) = max over inputs m of level(m) + (m is of another backend). Every edge
between islands is cut: the consumer reads a leaf made from the producer's values. Backward goes by falling level; an island starts from 1
for the sum of its losses and, for each output it exported, from the sum of the gradients of the leaves made of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter, backend_of, to_backend
from keydnn.experiment.data import Batch, ExecutionContext
from keydnn.experiment.graph.direct import DIRECT, DirectStep
from keydnn.experiment.graph.executed import Executed
from keydnn.experiment.graph.flow import as_batch, by_role, cut, rebuilt
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.node_steps import partial_fit, training_argument
from keydnn.experiment.graph.nodes import ComputeNode
from keydnn.experiment.names import DOMAIN_FEATURES
from keydnn.experiment.training import AppliedLoss, LossCollection, LossRecord, Optimizer

Export = tuple[str, str]  # node id, role


@dataclass
class _Island:
    backend: Backend
    nodes: list[ComputeNode] = field(default_factory=list)
    recording: Any = None
    leaves: dict[Export, Any] = field(default_factory=dict)
    losses: list[Any] = field(default_factory=list)


# -- training -----------------------------------------------------------------------------------------------------------


def train_stage_wise(run: Executed, ctx: ExecutionContext, losses: Sequence[AppliedLoss]) -> None:
    """Node by node: an unfrozen one with a loss learns by its own optimizer, the others run forward; nothing flows back between nodes."""
    with_loss = {loss.node_id for loss in losses}
    for node in run.nodes:
        if not isinstance(node, ModelNode):
            _pass(node, ctx, run.accelerator)
        elif node.is_frozen or node.node_id not in with_loss:
            node.run_without_gradients(ctx, losses, accelerator=run.accelerator, training=not node.is_frozen)
        else:
            node.train_step(ctx, losses, accelerator=run.accelerator)


def train_graph_wise(run: Executed, ctx: ExecutionContext, losses: Sequence[AppliedLoss], optimizers: Mapping[Backend, Optimizer]) -> None:
    """All nodes forward, the sum of all losses backward, one step of each optimizer."""
    if run.backend in DIRECT and run.backend in optimizers:
        DirectStep(run, losses, optimizers[run.backend], run.backend).make(ctx)
        return
    for node in run.models:
        node.set_mode(not node.is_frozen)
    for optimizer in optimizers.values():
        optimizer.zero_grad()
    islands = _islands(run)
    records: list[tuple[AppliedLoss, Any]] = []
    for island in islands:
        records += _forward(island, run, ctx, losses)
    gradients = _backward(islands, ctx)
    _update(optimizers, gradients)
    ctx.add_losses(LossCollection([LossRecord(loss.label, loss.node_id, trainable=value) for loss, value in records]))
    for ran in run.nodes:
        ctx.outputs[ran.node_id] = cut(ctx.outputs[ran.node_id], adapter(ran.backend))


def _islands(run: Executed) -> list[_Island]:
    """The islands, by rising level."""
    backends = {node.node_id: node.backend for node in run.nodes}
    level: dict[str, int] = {}
    found: dict[tuple[int, Backend], _Island] = {}
    for node in run.nodes:
        parents = [parent for parent in run.parents[node.node_id] if parent in level]
        level[node.node_id] = max((level[parent] + (backends[parent] is not node.backend) for parent in parents), default=0)
        key = (level[node.node_id], node.backend)
        found.setdefault(key, _Island(node.backend)).nodes.append(node)
    return [found[key] for key in sorted(found, key=lambda key: key[0])]


def _forward(island: _Island, run: Executed, ctx: ExecutionContext, losses: Sequence[AppliedLoss]) -> list[tuple[AppliedLoss, Any]]:
    face = adapter(island.backend)
    island.recording = face.Recording() if island.backend.needs_optimizer else face.no_gradient()
    here, with_loss = {node.node_id for node in island.nodes}, {loss.node_id for loss in losses}
    with island.recording:
        for node in island.nodes:
            ctx.set_output(node_id=node.node_id, batch=_run(node, ctx, run.accelerator, island, here, with_loss))
        mine = [loss for loss in losses if loss.node_id in here]
        values = [(loss, loss.compute(ctx)) for loss in mine]
    island.losses = [value for _, value in values] if island.backend.needs_optimizer else []
    return values


def _run(
    node: ComputeNode, ctx: ExecutionContext, accelerator: Accelerator | None, island: _Island, here: set[str], with_loss: set[str]
) -> Batch:
    outputs = {parent: batch if parent in here else _cut_off(parent, batch, island) for parent, batch in ctx.outputs.items()}
    data = node.get_input_data(ctx.inputs, outputs, accelerator=accelerator)
    if not isinstance(node, ModelNode):
        return as_batch(node.forward(data))
    if not node.has_gradients and not node.is_frozen and node.node_id in with_loss:
        partial_fit(node, *data.values())
    return as_batch(node.forward(data, **training_argument(node, not node.is_frozen)))


def _cut_off(parent: str, batch: Batch, island: _Island) -> Batch:
    """A batch of another island: its values, as leaves of this one."""
    samples = {}
    for role, one in by_role(batch).items():
        key = (parent, role)
        if key not in island.leaves:
            values = to_backend(one.features, island.backend)
            island.leaves[key] = island.recording.leaf(values) if island.backend.needs_optimizer else values
        samples[role] = one.with_domains({DOMAIN_FEATURES: island.leaves[key]})
    found = rebuilt(batch, samples)
    assert isinstance(found, Batch)
    return found


def _backward(islands: Sequence[_Island], ctx: ExecutionContext) -> dict[Backend, list[tuple[Any, Any]]]:
    """Pairs of parameter and gradient by backend."""
    exports: dict[Export, Any] = {}
    found: dict[Backend, list[tuple[Any, Any]]] = {}
    for island in reversed(islands):
        if not island.backend.needs_optimizer:
            continue
        here = {node.node_id for node in island.nodes}
        seeds = {key: value for key, value in exports.items() if key[0] in here}
        roots = [by_role(ctx.outputs[node_id])[role].features for node_id, role in seeds]
        roots, starts = [*roots, *island.losses], [*seeds.values(), *[None] * len(island.losses)]
        parameters = [p for node in island.nodes if isinstance(node, ModelNode) for p in node.trainable_parameters()]
        gradients = island.recording.backward(roots, starts, [*parameters, *island.leaves.values()]) if roots else []
        found.setdefault(island.backend, []).extend(zip(parameters, gradients, strict=False))
        for (node_id, role), gradient in zip(island.leaves, gradients[len(parameters) :], strict=False):
            owner = ctx.outputs[node_id].role_data[role].features
            if gradient is not None:
                seed = _seed(gradient, owner)
                exports[node_id, role] = exports[node_id, role] + seed if (node_id, role) in exports else seed
    return found


def _seed(gradient: Any, owner: Any) -> Any:
    """The gradient of a leaf, where the output that it was made of stands."""
    return to_backend(gradient, backend_of(owner))


def _update(optimizers: Mapping[Backend, Optimizer], gradients: Mapping[Backend, Sequence[tuple[Any, Any]]]) -> None:
    wanted = {backend: optimizer for backend, optimizer in optimizers.items() if gradients.get(backend)}
    pairs = {backend: _added(gradients[backend]) for backend in wanted}
    norm = None
    if len(wanted) > 1 and any(optimizer.clip_norm is not None for optimizer in wanted.values()):
        norm = math.sqrt(sum(optimizer.squared_norm([g for _, g in pairs[backend]]) for backend, optimizer in wanted.items()))
    for backend, optimizer in wanted.items():
        given = ([g for _, g in pairs[backend]], [p for p, _ in pairs[backend]]) if backend is Backend.TENSORFLOW else ()
        optimizer.step(*given, norm=norm)


def _added(pairs: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """One gradient per parameter: of one that stands on several islands the sum; those without a gradient are left out."""
    found: dict[int, tuple[Any, Any]] = {}
    for parameter, gradient in pairs:
        if gradient is not None:
            known = found.get(id(parameter))
            found[id(parameter)] = (parameter, gradient if known is None or known[1] is gradient else known[1] + gradient)
    return list(found.values())


# -- evaluation and fitting ---------------------------------------------------------------------------------------------


def evaluate(run: Executed, ctx: ExecutionContext, losses: Sequence[AppliedLoss]) -> None:
    """All nodes forward in evaluation mode without gradients; losses are auxiliary, and modes are as before afterwards."""
    built = [node for node in run.models if node.has_gradients and node.model.module is not None]
    modes = [(node, node.face.modes(node.model.module)) for node in built]
    try:
        for node in run.nodes:
            if isinstance(node, ModelNode):
                node.run_without_gradients(ctx, losses, accelerator=run.accelerator)
            else:
                _pass(node, ctx, run.accelerator)
    finally:
        for node, flags in modes:
            node.face.set_modes(node.model.module, flags)


def fit(run: Executed, ctx: ExecutionContext, losses: Sequence[AppliedLoss], freeze_after_fit: bool) -> None:
    """Unfrozen nodes whose model can fit are fitted to the whole input and, if wanted, frozen; the others run forward."""
    for node in run.nodes:
        if not isinstance(node, ModelNode):
            _pass(node, ctx, run.accelerator)
        elif node.can_fit and not node.is_frozen:
            node.fit_step(ctx, losses, accelerator=run.accelerator)
            if freeze_after_fit:
                node.freeze()
        else:
            node.run_without_gradients(ctx, losses, accelerator=run.accelerator)


def _pass(node: ComputeNode, ctx: ExecutionContext, accelerator: Accelerator | None) -> None:
    """A node without parameters, without gradients."""
    with adapter(node.backend).no_gradient():
        data = node.get_input_data(ctx.inputs, ctx.outputs, accelerator=accelerator)
        ctx.set_output(node_id=node.node_id, batch=as_batch(node.forward(data)))

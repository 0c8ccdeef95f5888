"""Steps of graphs whose nodes are all the engine's, recorded once per signature and then run as native plans.

The signature: shapes of the inputs, which nodes run and are frozen, the losses, the optimizer.  Batches with weights or masks other than 1
run eagerly, and so does what the recorder cannot follow; both give the numbers of the eager step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.compiler.step import RecordedStep, usable
from keydnn.compiler.worth import Worth
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.data import Batch, ExecutionContext, RoleData, SampleData
from keydnn.experiment.graph import steps
from keydnn.experiment.graph.executed import Executed
from keydnn.experiment.graph.flow import as_batch, by_role
from keydnn.experiment.graph.merge_node import MergeNode
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.nodes import ComputeNode
from keydnn.experiment.names import DOMAIN_FEATURES, DOMAIN_TARGETS
from keydnn.experiment.references import FeatureSetReference
from keydnn.experiment.training import AppliedLoss, LossCollection, LossRecord, Optimizer
from keydnn.experiment.training.applied_loss import holds_whole

_MOST = 16  # signatures kept per graph
_DOMAINS = (DOMAIN_FEATURES, DOMAIN_TARGETS)
Slot = tuple[Any, str, str]  # key of an input (or id of a node), role, domain


class _Update:
    """An optimizer inside a recorded step: the update alone; rates and counts are the caller's."""

    clip_norm = None

    def __init__(self, optimizer: Optimizer) -> None:
        self.zero_grad, self._optimizer = optimizer.zero_grad, optimizer

    def step(self, *given: Any, norm: float | None = None) -> None:
        self._optimizer.update()


@dataclass(frozen=True)
class Warm:
    """A plan that is ready for many steps in one call.

    Attributes:
        step: The plan.
        slots: Per input its key, role and domain.
        tensors: Inputs of one step, as the plan takes them.
        outputs: Per result behind the losses (node id, role); None for targets that a merge made.
        losses: Per loss (node id, label).
    """

    step: RecordedStep
    slots: Sequence[Slot]
    tensors: Sequence[Any]
    outputs: Sequence[tuple[str, str] | None]
    losses: Sequence[tuple[str, str]]


class GraphPlans:
    """The recorded steps of one graph."""

    def __init__(self) -> None:
        self._steps: dict[Any, RecordedStep] = {}
        self.latest: RecordedStep | None = None
        self._worth = Worth()

    def train(self, run: Executed, ctx: ExecutionContext, losses: Sequence[AppliedLoss], optimizer: Optimizer) -> bool:
        """A graph-wise step by a plan, or by the eager call that is recorded; False if it has to run outside."""
        data = _inputs(run, ctx) if run.backend is Backend.KEYDNN and usable() and not self._worth.is_lost else None
        if data is None or not all(_is_local(loss) for loss in losses):
            return False
        for node in run.models:
            node.set_mode(not node.is_frozen)
        slots, tensors = _flat(_with_class_numbers(data, losses))
        key = self._key(run, slots, tensors, losses, optimizer)
        step = self._steps.get(key)
        if step is not None and (step.plan is None or step.holds()):
            self._worth.served += 1
        else:
            self._worth.made += 1
            if len(self._steps) >= _MOST:
                del self._steps[next(iter(self._steps))]
            step = self._steps[key] = _recorded(run, slots, losses, optimizer)
        self.latest = step
        optimizer.before_update()
        found = step.fresh(tensors) if step.is_checked else [_owned(value) for value in step(*tensors)]
        optimizer.after_update()
        _deliver(run, ctx, data, losses, [_tensor(value, tensors[0]) for value in found])
        return True

    def warm(self, run: Executed, ctx: ExecutionContext, losses: Sequence[AppliedLoss], optimizer: Optimizer) -> Warm | None:
        """The plan that serves steps like this one, if it has been checked against eager steps and holds.

        Args:
            run: What runs.
            ctx: A step, with the inputs of the head nodes; it is not made.
            losses: On nodes that run.
            optimizer: Of all nodes.
        """
        data = _inputs(run, ctx) if run.backend is Backend.KEYDNN and usable() else None
        if data is None or not all(_is_local(loss) for loss in losses):
            return None
        for node in run.models:
            node.set_mode(not node.is_frozen)
        slots, tensors = _flat(_with_class_numbers(data, losses))
        step = self._steps.get(self._key(run, slots, tensors, losses, optimizer))
        if step is None or not step.is_checked or not step.holds():
            return None
        self._worth.served += 1
        self.latest = step
        return Warm(step, slots, tensors, _output_keys(run, data), [(loss.node_id, loss.label) for loss in _distinct(losses)])

    @staticmethod
    def _key(run: Executed, slots: Sequence[Slot], tensors: Sequence[Any], losses: Sequence[AppliedLoss], optimizer: Optimizer) -> Any:
        nodes = tuple((node.node_id, node.label, isinstance(node, ModelNode) and node.is_frozen) for node in run.nodes)
        shapes = tuple((tuple(t.shape), t.dtype) for t in tensors)
        applied = tuple((id(loss), loss.weight) for loss in losses)
        return nodes, tuple(slots), shapes, applied, id(optimizer.instance), optimizer.clip_norm, optimizer.clip_value


def _output_keys(run: Executed, data: dict[Any, Batch]) -> list[tuple[str, str] | None]:
    """(node id, role) of every result that is an output, in the order of the plan; None for targets that a merge made."""
    found: list[tuple[str, str] | None] = []
    roles: dict[str, dict[str, bool]] = {}  # of each node: role to whether there are targets
    for node in run.nodes:
        read = [
            {role: samples.targets is not None for role, samples in by_role(data[node.node_id, reference]).items()}
            if isinstance(reference, FeatureSetReference)
            else roles[str(reference.node_id)]
            for reference in node.get_upstream_refs()
        ]
        mine = roles[node.node_id] = {role: any(one[role] for one in read) for role in read[0]}
        for role, has_targets in mine.items():
            found += [(node.node_id, role), *[None] * (has_targets and isinstance(node, MergeNode))]
    return found


def _is_local(loss: AppliedLoss) -> bool:
    """Whether a loss reads outputs and targets of its node alone, which are inside the step."""
    return all(isinstance(one, str) and one.split(".")[0] in ("outputs", "targets") for one in loss.inputs.values())


def _inputs(run: Executed, ctx: ExecutionContext) -> dict[Any, Batch] | None:
    """(node id, reference) to the batch each head reads, as tensors of the engine; None if some weight or mask is not 1."""
    found: dict[Any, Batch] = {}
    for node in run.nodes:
        if not any(isinstance(reference, FeatureSetReference) for reference in node.get_upstream_refs()):
            continue
        if any(not isinstance(reference, FeatureSetReference) for reference in node.get_upstream_refs()):
            return None  # a merge of rows and outputs
        own = node.accelerator if isinstance(node, ModelNode) else None
        for reference, flow in node.get_input_data(ctx.inputs, {}, accelerator=own or run.accelerator).items():
            batch = as_batch(flow)
            arrays = [*batch.role_weights.values(), *batch.role_masks.values()]
            if not all(np.all(np.asarray(array) == 1) for array in arrays):
                return None
            found[node.node_id, reference] = batch
    return found


def _with_class_numbers(data: dict[Any, Batch], losses: Sequence[AppliedLoss]) -> dict[Any, Batch]:
    """The data with targets that are class numbers as int64, if that is what every loss wants: inside a recorded step nobody can look."""
    for loss in losses:
        if not loss.loss.is_built:
            loss.loss.build(backend=Backend.KEYDNN)
    if not all(loss.loss.wants_classes for loss in losses):
        return data
    found = {}
    for key, batch in data.items():
        samples = {role: one.with_domains({DOMAIN_TARGETS: _whole(one.targets)}) for role, one in by_role(batch).items()}
        found[key] = as_batch(RoleData(samples))
    return found


def _whole(targets: Any) -> Any:
    if targets is None or targets.size != targets.shape[0] or not holds_whole(targets.numpy()):
        return targets
    return targets.astype(np.int64)


def _flat(data: dict[Any, Batch]) -> tuple[list[Slot], list[Any]]:
    slots, tensors = [], []
    for key, batch in data.items():
        for role, samples in by_role(batch).items():
            for domain in _DOMAINS:
                value = samples.get_domain_data(domain)
                if value is not None:
                    slots.append((key, role, domain))
                    tensors.append(value)
    return slots, tensors


def _recorded(run: Executed, slots: Sequence[Slot], losses: Sequence[AppliedLoss], optimizer: Optimizer) -> RecordedStep:
    optimizers: Any = {Backend.KEYDNN: _Update(optimizer)}

    def function(*tensors: Any) -> Sequence[Any]:
        ctx = ExecutionContext("step", 0, 0)
        inputs: dict[Any, dict[str, dict[str, Any]]] = {}
        for (key, role, domain), tensor in zip(slots, tensors, strict=True):
            inputs.setdefault(key, {}).setdefault(role, {})[domain] = tensor
        for key, roles in inputs.items():
            ctx.inputs[key] = as_batch(RoleData({role: SampleData(told) for role, told in roles.items()}))
        steps.train_graph_wise(run, ctx, losses, optimizers)
        values = [ctx.losses.at(node=loss.node_id, label=loss.label).trainable for loss in _distinct(losses)]
        return [*values, *(tensor for node in run.nodes for tensor in _results(node, ctx.outputs[node.node_id]))]

    step = RecordedStep(function, [*optimizer.parameters], calls=[*(loss.loss.fn for loss in losses), optimizer.instance.step])
    step.keep_alive = (list(losses), optimizer.instance)
    return step


def _distinct(losses: Sequence[AppliedLoss]) -> list[AppliedLoss]:
    return list({(loss.node_id, loss.label): loss for loss in losses}.values())


def _results(node: ComputeNode, output: Batch) -> list[Any]:
    """What a node makes: features of each role, and of a merge the targets too."""
    domains = _DOMAINS if isinstance(node, MergeNode) else (DOMAIN_FEATURES,)
    values = [samples.get_domain_data(domain) for samples in by_role(output).values() for domain in domains]
    return [value for value in values if value is not None]


def _deliver(run: Executed, ctx: ExecutionContext, data: dict[Any, Batch], losses: Sequence[AppliedLoss], found: list[Any]) -> None:
    """Losses and outputs of a step into its context, with the ids and tags of this batch."""
    rest = iter(found)
    records = [LossRecord(loss.label, loss.node_id, trainable=next(rest)) for loss in _distinct(losses)]
    for node in run.nodes:
        read = [
            data[node.node_id, reference] if isinstance(reference, FeatureSetReference) else ctx.outputs[str(reference.node_id)]
            for reference in node.get_upstream_refs()
        ]
        samples = {}
        for role in by_role(read[0]):
            mine = [by_role(batch)[role] for batch in read]
            samples[role] = node.passed_on(mine, rest) if isinstance(node, MergeNode) else _output(mine[0], next(rest))
        ctx.set_output(node_id=node.node_id, batch=as_batch(RoleData(samples)))
    ctx.add_losses(LossCollection(records))


def _output(samples: SampleData, features: Any) -> SampleData:
    return samples.with_domains({DOMAIN_FEATURES: features}, kind="output")


def _owned(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value.detach()


def _tensor(value: Any, like: Any) -> Any:
    return like._from_op(value, None) if isinstance(value, np.ndarray) else value

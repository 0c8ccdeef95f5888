"""Frame: what a step has besides the features it produced and its losses; steps on the same batch share one.

Batches of a phase come again in every epoch, so targets, tags, ids (as row numbers), weights and masks are held once for all epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends.tensors import is_tensor, to_numpy
from keydnn.experiment.data import Batch, BatchView, ExecutionContext, RoleData, SampleData
from keydnn.experiment.data.execution_context import InputKey
from keydnn.experiment.data.sample_data import Deferred
from keydnn.experiment.graph import GraphNode, MergeNode
from keydnn.experiment.names import DOMAIN_FEATURES
from keydnn.experiment.references import FeatureSetReference
from keydnn.experiment.results.scalars import is_on_host

Keep = frozenset[str] | None


class RoleFrame:
    """Samples of one role without their features."""

    __slots__ = ("domains", "kind", "mask", "role", "weight")

    def __init__(self, role: str, samples: SampleData, weight: Any, mask: Any, keep: Keep) -> None:
        self.role, self.kind, self.weight, self.mask = role, samples.kind, weight, mask
        self.domains = tuple((d, _light(v)) for d, v in samples.parts.items() if d != DOMAIN_FEATURES and (keep is None or d in keep))

    @classmethod
    def made(cls, role: str, kind: str, weight: Any, mask: Any, domains: Mapping[str, Any]) -> RoleFrame:
        """A frame from its parts."""
        frame = cls.__new__(cls)
        frame.role, frame.kind, frame.weight, frame.mask = role, kind, weight, mask
        frame.domains = tuple(domains.items())
        return frame

    def fits(self, samples: SampleData, weight: Any, mask: Any) -> bool:
        """Whether the samples are these, or, made anew by a merge node, hold the same values."""
        parts = samples.parts
        for domain, value in self.domains:
            other = parts.get(domain)
            if other is not value and not _equal(value, other):
                return False
        return (
            samples.kind == self.kind
            and (weight is self.weight or bool(np.array_equal(weight, self.weight)))
            and (mask is self.mask or bool(np.array_equal(mask, self.mask)))
        )

    def samples(self, features: Any) -> SampleData:
        """The samples with their features, which may be None."""
        found = {d: _light(v) for d, v in self.domains}
        return SampleData(found if features is None else {DOMAIN_FEATURES: features, **found}, kind=self.kind)


def _light(value: Any) -> Any:
    """A value without what it computed for somebody else."""
    return value.fresh() if isinstance(value, Deferred) else value


def _equal(kept: Any, other: Any) -> bool:
    """Whether two tensors on the host hold the same values, or two values are computed alike."""
    if isinstance(kept, Deferred):
        return kept.is_like(other)
    if type(kept) is not type(other) or not is_tensor(kept) or not is_on_host(kept) or kept.dtype != other.dtype:
        return False
    return bool(np.array_equal(to_numpy(kept), to_numpy(other)))


class NodeFrame:
    """The output of a node without features."""

    __slots__ = ("_stamp", "batch_size", "node_id", "roles")

    def __init__(self, node_id: str, batch: Batch, keep: Keep) -> None:
        self.node_id, self.batch_size, self._stamp = node_id, batch.batch_size, batch.stamp
        self.roles = tuple(
            RoleFrame(role, samples, batch.role_weights[role], batch.role_masks[role], keep) for role, samples in batch.role_data.items()
        )

    @classmethod
    def made(cls, node_id: str, batch_size: int, roles: Sequence[RoleFrame]) -> NodeFrame:
        """A frame from its parts."""
        frame = cls.__new__(cls)
        frame.node_id, frame.batch_size, frame.roles, frame._stamp = node_id, batch_size, tuple(roles), None
        return frame

    def fits(self, batch: Batch) -> bool:
        """Whether a batch has this frame."""
        if self._stamp is not None and batch.stamp is self._stamp:
            return True
        data, weights, masks = batch.role_data.parts, batch.role_weights, batch.role_masks
        if len(data) != len(self.roles):
            return False
        for one in self.roles:
            samples = data.get(one.role)
            if samples is None or not one.fits(samples, weights[one.role], masks[one.role]):
                return False
        return True

    def batch(self, features: Mapping[str, Any]) -> Batch:
        """The batch with features by role."""
        data = RoleData({one.role: one.samples(features.get(one.role)) for one in self.roles})
        return Batch.trusted(
            self.batch_size, data, {one.role: one.weight for one in self.roles}, {one.role: one.mask for one in self.roles}
        )


class Frame:
    """What a step has besides the features of its outputs and its losses.

    Args:
        views: (node id, reference) to the rows a node read.
        nodes: Frames of the outputs.
    """

    __slots__ = ("nodes", "views")

    def __init__(self, views: Mapping[InputKey, BatchView], nodes: Sequence[NodeFrame]) -> None:
        self.views, self.nodes = dict(views), tuple(nodes)

    @classmethod
    def of(cls, ctx: ExecutionContext, keep: Keep = None) -> Frame:
        """The frame of a step.

        Args:
            ctx: The step.
            keep: Domains that are recorded; None keeps all.
        """
        return cls(ctx.input_views, [NodeFrame(node_id, batch, keep) for node_id, batch in ctx.outputs.items()])

    @classmethod
    def of_inputs(
        cls,
        nodes: Sequence[GraphNode],
        inputs: Mapping[InputKey, Batch],
        views: Mapping[InputKey, BatchView],
        keep: Keep = None,
    ) -> Frame:
        """The frame of a step that has not run: what nodes read passes through them.

        Args:
            nodes: Nodes that will run, each behind what it reads.
            inputs: (node id, reference) to the batch a head node reads.
            views: (node id, reference) to its rows.
            keep: Domains that are recorded; None keeps all.
        """
        passed: dict[str, Batch] = {}
        for node in nodes:
            read = [
                inputs[node.node_id, reference] if isinstance(reference, FeatureSetReference) else passed[str(reference.node_id)]
                for reference in node.get_upstream_refs()
            ]
            passed[node.node_id] = _merged(node, read) if isinstance(node, MergeNode) else _as_output(read[0])
        return cls(views, [NodeFrame(node_id, batch, keep) for node_id, batch in passed.items()])

    def fits(self, ctx: ExecutionContext) -> bool:
        """Whether a step has this frame."""
        if len(ctx.outputs) != len(self.nodes) or len(ctx.input_views) != len(self.views):
            return False
        for (key, view), (other, read) in zip(self.views.items(), ctx.input_views.items(), strict=True):
            if (view is not read and view != read) or key[0] != other[0] or not (key[1] is other[1] or key[1] == other[1]):
                return False
        for node in self.nodes:
            batch = ctx.outputs.get(node.node_id)
            if batch is None or not node.fits(batch):
                return False
        return True

    def node(self, node_id: str) -> NodeFrame | None:
        """The frame of a node's output; None if the node did not run."""
        for node in self.nodes:
            if node.node_id == node_id:
                return node
        return None


def _as_output(batch: Batch) -> Batch:
    samples = {role: one.with_domains({}, kind="output") for role, one in batch.role_data.items()}
    return Batch.trusted(batch.batch_size, RoleData(samples), dict(batch.role_weights), dict(batch.role_masks))


def _merged(node: MergeNode, read: Sequence[Batch]) -> Batch:
    """What a merge node passes on of batches without weights."""
    first = read[0]
    samples = {role: node.passed_beside([batch.role_data[role] for batch in read]) for role in first.role_data}
    return Batch.trusted(first.batch_size, RoleData(samples), dict(first.role_weights), dict(first.role_masks))

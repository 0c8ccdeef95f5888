"""Shapes through a graph, read from schemas, and models and merge nodes made ready for them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.graph.merge_node import MergeNode
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.nodes import ComputeNode, Reference, Shape
from keydnn.experiment.graph.shapes import source_shapes
from keydnn.experiment.random_states import forked
from keydnn.experiment.references import FeatureSetReference

Shapes = tuple[Shape | None, Shape | None]  # of features and targets


def build_nodes(order: Sequence[ComputeNode], tails: set[str], force: bool, ctx: ExperimentContext) -> None:
    """Build every node, each behind all that it reads.

    Args:
        order: The nodes.
        tails: Ids of those that nobody reads.
        force: Whether everything starts anew.
        ctx: Where feature sets are looked up; its seed, if it has one, gives the initial weights.

    Raises:
        RuntimeError: A model cannot be built for the shape it gets.

    Warns:
        UserWarning: A node that was built for another shape starts anew.
    """
    known: dict[str, Shapes] = {}
    backends: dict[str, Backend] = {}
    for node in order:
        inputs = {reference: _shapes_of(reference, known, ctx) for reference in node.get_upstream_refs()}
        if isinstance(node, MergeNode):
            _build_merge(node, inputs, backends)
            known[node.node_id] = (node.output_shape, node.target_shape)
        elif isinstance(node, ModelNode):
            ((features, targets),) = inputs.values()
            _build_model(node, features, targets if node.node_id in tails else None, force, ctx.entropy)
            known[node.node_id] = (node.output_shape, targets)
        else:
            node.build({reference: features for reference, (features, _) in inputs.items() if features is not None})
            known[node.node_id] = (node.output_shape, next(iter(inputs.values()))[1])
        backends[node.node_id] = node.backend


def _shapes_of(reference: Reference, known: Mapping[str, Shapes], ctx: ExperimentContext) -> Shapes:
    return source_shapes(reference, ctx) if isinstance(reference, FeatureSetReference) else known[str(reference.node_id)]


def _build_merge(node: MergeNode, inputs: Mapping[Reference, Shapes], backends: Mapping[str, Backend]) -> None:
    """A merge works on the tensors of its inputs; where they differ, on those of the first that learns by gradients."""
    above = [backends[str(ref.node_id)] for ref in inputs if not isinstance(ref, FeatureSetReference)]
    ranked = sorted(above, key=lambda backend: not backend.needs_optimizer)
    chosen = node.backend if node.backend is not Backend.NONE else ranked[0] if ranked else Backend.NONE
    shapes = {reference: features for reference, (features, _) in inputs.items() if features is not None}
    node.build(shapes, backend=chosen, target_shapes={reference: targets for reference, (_, targets) in inputs.items()})


def _build_model(node: ModelNode, features: Shape | None, targets: Shape | None, force: bool, entropy: int | None) -> None:
    """Build for inputs and, where the model leaves its output open, for the targets; what fits stays as it is."""
    if node.is_built and not force and _same(node.input_shape, features):
        node.build_model()
        return
    if node.is_built and not force:
        warnings.warn(
            f"node {node.label!r} was built for inputs of shape {node.input_shape} and now gets {features}: it starts anew", stacklevel=5
        )
    with forked(entropy, node.label):
        node.build_towards(features, targets, force=force or node.is_built)


def _same(a: Shape | None, b: Shape | None) -> bool:
    """Whether two shapes are one, leading axes of size 1 aside, which built-in models put in front."""
    return a is not None and b is not None and _bare(a) == _bare(b)


def _bare(shape: Shape) -> Shape:
    first = next((i for i, n in enumerate(shape) if n != 1), len(shape))
    return shape[first:]

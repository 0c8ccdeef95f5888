"""The summary of a model graph: its facts, and a table with a line per node."""

from __future__ import annotations

import math
from typing import Any

from keydnn.experiment.errors import ResolutionError
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.nodes import ComputeNode, Reference, Shape
from keydnn.experiment.graph.shapes import source_shapes
from keydnn.experiment.references import FeatureSetReference
from keydnn.experiment.visualization.summary import summary_box

HEADS = ("node", "kind", "input", "output", "parameters", "trainable", "backend")


def graph_summary(graph: Any, max_width: int) -> str:
    """The box: label, optimizer, whether the graph is built, parameters in all, and a line per node in the order in which they run."""
    nodes = graph.executed_nodes()
    models = [node for node in nodes if isinstance(node, ModelNode)]
    total, learning = (sum(_count(node, trainable) for node in models) for trainable in (False, True))
    facts: list[tuple[str, Any]] = [("label", graph.label), ("optimizer", repr(graph.optimizer)), ("built", graph.is_built)]
    if graph.is_built:
        facts.append(("parameters", f"{total:,}, of which {learning:,} are trained"))
    return summary_box("ModelGraph", facts, max_width, [HEADS, *([*_line(graph, node)] for node in nodes)])


def _line(graph: Any, node: ComputeNode) -> tuple[str, ...]:
    counts = ("", "")
    if isinstance(node, ModelNode) and node.has_gradients:
        counts = (f"{_count(node, False):,}", "frozen" if node.is_frozen else f"{_count(node, True):,}") if node.is_built else ("?", "?")
    inputs = ", ".join(_input(graph, reference) for reference in node.get_upstream_refs())
    return node.label, type(node).__name__, inputs, _told(node.output_shape if node.is_built else None), *counts, node.backend.value


def _input(graph: Any, reference: Reference) -> str:
    """What is read, and its shape."""
    if not isinstance(reference, FeatureSetReference):
        upstream = graph.get_node(reference)
        return f"{upstream.label} {_told(upstream.output_shape if upstream.is_built else None)}"
    try:
        return f"{reference.node_label} {_told(source_shapes(reference, graph.ctx)[0])}"
    except ResolutionError:
        return f"{reference.node_label} (not registered)"


def _told(shape: Shape | None) -> str:
    return "?" if shape is None else str(tuple(shape))


def _count(node: ModelNode, trainable: bool) -> int:
    """Numbers in the parameters of a built model."""
    parameters = node.trainable_parameters() if trainable else node.parameters()
    return sum(math.prod(parameter.shape) for parameter in parameters)

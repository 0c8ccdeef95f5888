"""Graphs of models: nodes, the graph, its steps."""

from keydnn.experiment.graph.concat_node import ConcatNode
from keydnn.experiment.graph.elementwise import AddNode, MeanNode, MultiplyNode
from keydnn.experiment.graph.merge_node import MergeNode
from keydnn.experiment.graph.merging import MergeStrategy, PadMode
from keydnn.experiment.graph.model_graph import ModelGraph
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.nodes import ComputeNode, GraphNode

__all__ = [
    "AddNode",
    "ComputeNode",
    "ConcatNode",
    "GraphNode",
    "MeanNode",
    "MergeNode",
    "MergeStrategy",
    "ModelGraph",
    "ModelNode",
    "MultiplyNode",
    "PadMode",
]

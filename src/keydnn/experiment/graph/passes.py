"""Passes: what a node makes of its input in every step of a kind; what does not depend on the numbers is looked up once.

A pass that finds anything else than it was made for, such as data on another device, does what the node itself would do.
"""

from __future__ import annotations

from typing import Any

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.data import Batch, ExecutionContext
from keydnn.experiment.graph.flow import as_batch
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.nodes import ComputeNode
from keydnn.experiment.references import FeatureSetReference


class NodePass:
    """Steps of any node.

    Args:
        node: The node.
        where: Where nodes stand that do not say themselves.
    """

    def __init__(self, node: ComputeNode, where: Accelerator | None) -> None:
        self._node, self._where = node, where

    def set_mode(self) -> None:
        """Training mode for what learns, evaluation mode for what is frozen."""

    def batch(self, ctx: ExecutionContext) -> Batch:
        """The output of the node."""
        data = self._node.get_input_data(ctx.inputs, ctx.outputs, accelerator=self._where)
        return as_batch(self._node.forward(data))


class ModelPass(NodePass):
    """Steps of a node whose model has gradients; its batch comes as tensors of the framework, where the model stands."""

    _node: ModelNode

    def __init__(self, node: ModelNode, where: Accelerator | None) -> None:
        super().__init__(node, where)
        (reference,) = node.get_upstream_refs()
        self._reference = reference
        self._is_head = isinstance(reference, FeatureSetReference)
        self._key: Any = (node.node_id, reference) if self._is_head else str(reference.node_id)
        self._ready = (node.backend, where)
        self._set_modes = adapter(node.backend).set_modes
        self._is_plain = type(node) is ModelNode  # not a class of a user, who may have changed what a pass leaves out

    def set_mode(self) -> None:
        """Training mode for what learns, evaluation mode for what is frozen."""
        node = self._node
        module = node.model.module
        if module is not None and self._is_plain:
            self._set_modes(module, not node.is_frozen)
        else:
            node.set_mode(not node.is_frozen)

    def batch(self, ctx: ExecutionContext) -> Batch:
        """The output of the node."""
        read: Any = ctx.inputs if self._is_head else ctx.outputs
        found = read.get(self._key)
        if type(found) is Batch and found.ready == self._ready and self._is_plain and self._node.reads(self._reference):
            return self._node.batch_through(found)
        return super().batch(ctx)


def pass_of(node: ComputeNode, where: Accelerator | None) -> NodePass:
    """The pass of a node.

    Args:
        node: The node, connected.
        where: Where nodes stand that do not say themselves.
    """
    return ModelPass(node, where) if isinstance(node, ModelNode) else NodePass(node, where)

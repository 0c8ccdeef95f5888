"""Passes: what a node makes of its input in every step of a kind; what does not depend on the numbers is looked up once.

``begin`` looks at what may change between steps: frozen flags, modes, connections, models.  The steps until the next ``begin`` rely on it.
A pass that finds anything else than it was made for, such as data on another device, does what the node itself would do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.data import Batch, ExecutionContext
from keydnn.experiment.graph.flow import as_batch
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.nodes import ComputeNode
from keydnn.experiment.models import BaseModel
from keydnn.experiment.models.wrapper import ModuleWrapper
from keydnn.experiment.random_states import of_node
from keydnn.experiment.references import FeatureSetReference


class NodePass:
    """Steps of any node.

    Args:
        node: The node.
        where: Where nodes stand that do not say themselves.
    """

    def __init__(self, node: ComputeNode, where: Accelerator | None) -> None:
        self._node, self._where = node, where

    def begin(self) -> None:
        """Steps follow between which nobody changes the node."""

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
        self._face = adapter(node.backend)
        self._learns, self._is_plain = False, False
        self._parts: list[Any] = []
        self._call: Callable[[Any], Any] = node.model
        self._block: Any = None

    def begin(self) -> None:
        """Look again at the node: whether it learns, what it reads, and what its model is."""
        node, model = self._node, self._node.model
        module = model.module
        self._learns = not node.is_frozen
        self._parts = [] if module is None else list(module.modules())
        self._is_plain = type(node) is ModelNode and model.is_built and node.reads(self._reference)  # a user's class may run another way
        self._call = functools.partial(self._face.call, module) if _is_wrapped(model) else model
        self._block = of_node(node.label, node.backend, module)

    def set_mode(self) -> None:
        """Training mode for what learns, evaluation mode for what is frozen; asking is much quicker than setting it."""
        learns = self._learns
        if type(self._node) is ModelNode and self._parts:
            for part in self._parts:
                if part.training is not learns:
                    self._node.set_mode(learns)
                    return
        else:
            self._node.set_mode(learns)

    def batch(self, ctx: ExecutionContext) -> Batch:
        """The output of the node."""
        read: Any = ctx.inputs if self._is_head else ctx.outputs
        found = read.get(self._key)
        if not self._is_plain or type(found) is not Batch or found.ready != self._ready:
            return super().batch(ctx)
        if self._block is None:
            return self._through(found)
        with self._block:
            return self._through(found)

    def _through(self, batch: Batch) -> Batch:
        return batch.with_outputs({role: self._call(samples.features) for role, samples in batch.role_data.parts.items()})


def _is_wrapped(model: BaseModel) -> bool:
    """Whether calling the model does nothing but call the module of the framework."""
    kind = type(model)
    return isinstance(model, ModuleWrapper) and kind.forward is ModuleWrapper.forward and kind.__call__ is BaseModel.__call__


def pass_of(node: ComputeNode, where: Accelerator | None) -> NodePass:
    """The pass of a node.

    Args:
        node: The node, connected.
        where: Where nodes stand that do not say themselves.
    """
    return ModelPass(node, where) if isinstance(node, ModelNode) else NodePass(node, where)

"""Executed: which nodes a step runs, and where."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.nodes import ComputeNode


@dataclass(frozen=True)
class Executed:
    """What a step runs.

    Attributes:
        nodes: In order: every node behind all that it reads.
        parents: Node id to ids of the nodes it reads.
        accelerator: Of the phase.
    """

    nodes: Sequence[ComputeNode]
    parents: Mapping[str, Sequence[str]]
    accelerator: Accelerator | None = None

    @functools.cached_property
    def backend(self) -> Backend | None:
        """The backend of all nodes; None if there are several."""
        found = {node.backend for node in self.nodes}
        return found.pop() if len(found) == 1 else None

    @functools.cached_property
    def models(self) -> list[ModelNode]:
        """The model nodes."""
        return [node for node in self.nodes if isinstance(node, ModelNode)]

    @functools.cached_property
    def placed(self) -> list[ModelNode]:
        """Those of them that somebody says where to stand."""
        return [node for node in self.models if node.accelerator is not None or self.accelerator is not None]

"""Nodes: what an experiment names, finds again and refers to."""

from __future__ import annotations

import uuid
from typing import Any, Self

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.names import check_name, check_new_label
from keydnn.experiment.references import ExperimentNodeReference
from keydnn.experiment.visualization.summary import summary_box


class ExperimentNode:
    """Base of feature sets and graph nodes: an id that stays and a label that can change.

    Args:
        label: Name; a dot is refused, other forbidden characters are warned about.
        node_id: Given only when a node is loaded; else a new UUID4.
        register: Whether the active context learns about the node.

    Raises:
        TypeError: The label is not a string.
        ValueError: The label is empty, holds a dot, or is taken.
    """

    def __init__(self, label: str, *, node_id: str | None = None, register: bool = True) -> None:
        self._label = check_new_label(label)
        self._node_id = str(uuid.uuid4()) if node_id is None else str(node_id)
        self._register(register)

    def _register(self, wanted: bool) -> None:
        if wanted:
            ExperimentContext.get_active().register_experiment_node(self)

    @property
    def node_id(self) -> str:
        """The id, for life."""
        return self._node_id

    @property
    def label(self) -> str:
        """The name; setting it renames the node in the active context."""
        return self._label

    @label.setter
    def label(self, new_label: str) -> None:
        check_name(new_label, "label")
        ctx = ExperimentContext.get_active()
        if ctx.available_nodes.get(self._node_id) is self:
            ctx.update_node_label(self._node_id, new_label)
        self._label = new_label

    def reference(self) -> Any:
        """A value that names this node without holding it."""
        return ExperimentNodeReference(node_label=self.label, node_id=self.node_id)

    def summary(self, max_width: int = 88) -> str:
        """A box of text with the facts of this node."""
        return summary_box(type(self).__name__, self._summary_rows(), max_width)

    def _summary_rows(self) -> list[tuple[str, Any]]:
        return [("label", self.label), ("node_id", self.node_id)]

    def get_config(self) -> dict[str, Any]:
        """``label`` and ``node_id``."""
        return {"label": self.label, "node_id": self.node_id}

    @classmethod
    def from_config(cls, config: dict[str, Any], *, register: bool = True) -> Self:
        """The node a config describes."""
        return cls(**config, register=register)

    def get_state(self) -> dict[str, Any]:
        """What can change: the label."""
        return {"label": self._label}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self._label = state["label"]

"""ExecutionContext: what one step read and produced."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from keydnn.experiment.data.batch import Batch
from keydnn.experiment.data.batch_view import BatchView
from keydnn.experiment.references import FeatureSetReference

InputKey = tuple[str, FeatureSetReference]


@dataclass
class ExecutionContext:
    """One step.

    Attributes:
        phase_label: Phase.
        epoch_idx: Epoch.
        batch_idx: Batch.
        inputs: (node id, reference) to the batch the node read.
        input_views: (node id, reference) to the rows of that batch.
        outputs: Node id to what the node produced.
        losses: Losses of the step, or None.
    """

    phase_label: str
    epoch_idx: int
    batch_idx: int
    inputs: dict[InputKey, Batch] = field(default_factory=dict)
    input_views: dict[InputKey, BatchView] = field(default_factory=dict)
    outputs: dict[str, Batch] = field(default_factory=dict)
    losses: Any = None

    def set_input(self, *, node_id: str, upstream: FeatureSetReference, batch: Batch) -> None:
        """Keep the batch a node read."""
        self.inputs[node_id, upstream] = batch

    def set_input_view(self, *, node_id: str, upstream: FeatureSetReference, batch_view: BatchView) -> None:
        """Keep the rows of the batch a node read."""
        self.input_views[node_id, upstream] = batch_view

    def set_output(self, *, node_id: str, batch: Batch) -> None:
        """Keep what a node produced.

        Raises:
            ValueError: The node has an output already.
        """
        if node_id in self.outputs:
            raise ValueError(f"node {node_id!r} has an output in this step already")
        self.outputs[node_id] = batch

    def add_losses(self, collection: Any) -> None:
        """Add losses to those there are."""
        self.losses = collection if self.losses is None else self.losses.merge(collection)

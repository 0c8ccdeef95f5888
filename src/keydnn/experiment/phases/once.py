"""What evaluation and fitting phases share: one pass over one split of one feature set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from keydnn.experiment.bindings import InputBinding
from keydnn.experiment.data import ExecutionContext
from keydnn.experiment.graph import ModelGraph, ModelNode
from keydnn.experiment.graph.diagram import FROZEN
from keydnn.experiment.phases.feeding import PassFeeding
from keydnn.experiment.phases.phase import ExperimentPhase, active_graph, bindings_for_split


def bindings_of(active_nodes: Sequence[Any] | None, split: str | None) -> list[InputBinding]:
    """Bindings without samplers, of all heads to one split of one feature set."""

    def bound(node: Any, upstream: Any) -> InputBinding:
        return InputBinding.for_evaluation(node=node, upstream=upstream, split=split)

    return bindings_for_split(active_nodes, bound)


class OncePhase(ExperimentPhase):
    """A phase of one pass; its bindings read one feature set and split.

    Raises:
        ValueError: They do not.
    """

    def __init__(self, label: str, **arguments: Any) -> None:
        super().__init__(label, **arguments)
        sources = {(one.upstream_ref.node_id or one.upstream_ref.node_label, one.split) for one in self.input_sources}
        if len(sources) > 1:
            names = ", ".join(sorted({f"{one.upstream_ref.node_label!r} split {one.split!r}" for one in self.input_sources}))
            raise ValueError(
                f"phase {label!r} passes over one feature set and split, its bindings name several: {names}; "
                "put the columns that belong together into one FeatureSet"
            )

    def _held(self, graph: ModelGraph) -> dict[str, str]:
        return {node.node_id: FROZEN for node in graph.executed_nodes(self.active_nodes) if isinstance(node, ModelNode)}

    def _contexts(self, batch_size: int | None, results: Any) -> Iterator[ExecutionContext]:
        """The contexts of the pass; each is given to the results when its step was made."""
        for i, (inputs, views) in enumerate(PassFeeding(self, active_graph(), batch_size).steps()):
            ctx = ExecutionContext(self.label, 0, i, inputs, views)
            yield ctx
            if results is not None:
                results.add_execution_context(ctx)

"""The diagram of a group of phases: one box per phase, in the order in which they run, framed by their groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.phases.phase import ExperimentPhase
from keydnn.experiment.phases.train import TrainPhase
from keydnn.experiment.visualization.mermaid import Diagram, Frame, Node


def group_diagram(group: Any) -> Diagram:
    """The diagram; a group without phases is a box itself."""
    diagram = Diagram()
    _add(diagram, group)
    for i in range(1, len(diagram.nodes)):
        diagram.connect(i - 1, i)
    return diagram


def _add(diagram: Diagram, group: Any) -> None:
    first, place = len(diagram.nodes), len(diagram.frames)
    for item in group:
        if isinstance(item, ExperimentPhase):
            diagram.add(Node("Phase", type(item).__name__, item.label, _lines(item)))
        else:
            _add(diagram, item)
    if len(diagram.nodes) == first:
        diagram.add(Node("PhaseGroup", "PhaseGroup", group.label, ("empty",)))
    else:  # before the frames of the groups inside
        diagram.frames.insert(place, Frame("PhaseGroup", "PhaseGroup", group.label, first, len(diagram.nodes) - 1))


def _lines(phase: ExperimentPhase) -> tuple[str, ...]:
    splits = dict.fromkeys(binding.split for binding in phase.input_sources if binding.split is not None)
    told = {
        "split": ", ".join(splits),
        "epochs": str(phase.n_epochs) if isinstance(phase, TrainPhase) else "",
        "nodes": ", ".join(_labels(phase.active_nodes)),
        "losses": ", ".join(loss.label for loss in phase.losses),
        "callbacks": ", ".join(callback.label for callback in phase.callbacks),
    }
    return tuple(f"{name}: {text}" for name, text in told.items() if text)


def _labels(node_ids: Sequence[str]) -> list[str]:
    """Labels of nodes, and ids of those that are not there any more; none if they are all nodes of the graph."""
    ctx = ExperimentContext.get_active()
    if ctx.model_graph is not None and set(node_ids) == set(ctx.model_graph.nodes):
        return []
    return [ctx.get_node(node_id).label if ctx.has_node(node_id=node_id) else node_id for node_id in node_ids]

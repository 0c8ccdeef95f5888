"""The diagram of a group of phases: one box per phase, in the order in which they run, framed by their groups."""

from __future__ import annotations

from typing import Any

from keydnn.experiment.phases.phase import ExperimentPhase
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
            diagram.add(Node("Phase", type(item).__name__, item.label, tuple(f"{name}: {told}" for name, told in item.summary_rows())))
        else:
            _add(diagram, item)
    if len(diagram.nodes) == first:
        diagram.add(Node("PhaseGroup", "PhaseGroup", group.label, ("empty",)))
    else:  # before the frames of the groups inside
        diagram.frames.insert(place, Frame("PhaseGroup", "PhaseGroup", group.label, first, len(diagram.nodes) - 1))

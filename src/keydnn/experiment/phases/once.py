"""What evaluation and fitting phases share: one pass over one split of one feature set."""

from __future__ import annotations

from typing import Any

from keydnn.experiment.phases.phase import ExperimentPhase


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
            raise ValueError(f"phase {label!r} passes over one feature set and split, its bindings name several: {names}")

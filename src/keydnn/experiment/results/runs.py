"""ExperimentRun and what was noted of the phases and groups it ran: when, how long, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from keydnn.experiment.optional import need

STATUSES = ("completed", "failed", "stopped")


@dataclass
class PhaseExecutionMeta:
    """When a phase ran and how it ended.

    Args:
        label: Of the phase.
        started_at: Begin.
        ended_at: End.
        status: "completed", "failed" or "stopped".
        metadata: Anything else, for example the epoch of an early stop.

    Raises:
        ValueError: Another status, or an end before the begin.
    """

    label: str
    started_at: datetime
    ended_at: datetime
    status: str = "completed"
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def duration_seconds(self) -> float:
        """How long it took."""
        return (self.ended_at - self.started_at).total_seconds()


@dataclass
class PhaseGroupExecutionMeta:
    """When a group ran, and its phases and groups, in order.

    Args:
        label: Of the group.
        started_at: Begin.
        ended_at: End.
        status: "completed", "failed" or "stopped".
        metadata: Anything else.
        children: Metas of what it ran.

    Raises:
        ValueError: Another status, an end before the begin, or two children of one label.
    """

    label: str
    started_at: datetime
    ended_at: datetime
    status: str = "completed"
    metadata: dict[str, Any] = field(default_factory=dict)
    children: list[PhaseExecutionMeta | PhaseGroupExecutionMeta] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check(self)
        children, self.children = self.children, []
        for child in children:
            self.add(child)

    def add(self, child: PhaseExecutionMeta | PhaseGroupExecutionMeta) -> None:
        """Add what ran next.

        Raises:
            TypeError: Something else.
            ValueError: The label is there already.
        """
        if not isinstance(child, PhaseExecutionMeta | PhaseGroupExecutionMeta):
            raise TypeError(f"the meta of a phase or a group is expected, got {type(child).__name__}")
        if any(one.label == child.label for one in self.children):
            raise ValueError(f"group {self.label!r} has {child.label!r} already")
        self.children.append(child)

    @property
    def duration_seconds(self) -> float:
        """How long it took."""
        return (self.ended_at - self.started_at).total_seconds()

    def items(self) -> list[tuple[str, PhaseExecutionMeta | PhaseGroupExecutionMeta]]:
        """Pairs of label and meta of this level."""
        return [(child.label, child) for child in self.children]

    def flatten(self) -> dict[str, PhaseExecutionMeta]:
        """Label to the meta of every phase of every level; a label that comes again has its groups in front, joined by "/"."""
        found: dict[str, PhaseExecutionMeta] = {}
        for path, meta in self._paths():
            found[path if meta.label in found else meta.label] = meta
        return found

    def _paths(self, above: str = "") -> Iterator[tuple[str, PhaseExecutionMeta]]:
        for child in self.children:
            if isinstance(child, PhaseExecutionMeta):
                yield f"{above}{child.label}", child
            else:
                yield from child._paths(f"{above}{child.label}/")


Meta = PhaseExecutionMeta | PhaseGroupExecutionMeta


@dataclass
class ExperimentRun:
    """One run of an experiment.

    Args:
        label: Of what ran.
        started_at: Begin.
        ended_at: End.
        status: "completed", "failed" or "stopped".
        results: What it left behind; after a failure what there was until then.
        execution_meta: When each phase ran.
        metadata: Host, versions, seeds and the like.

    Raises:
        ValueError: Another status, or an end before the begin.
    """

    label: str
    started_at: datetime
    ended_at: datetime
    status: str
    results: Any
    execution_meta: Meta | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def duration_seconds(self) -> float:
        """How long it took."""
        return (self.ended_at - self.started_at).total_seconds()

    @property
    def phase_durations(self) -> dict[str, float]:
        """Seconds of each phase by label; see :meth:`PhaseGroupExecutionMeta.flatten`."""
        return {label: meta.duration_seconds for label, meta in _phases(self.execution_meta).items()}

    def to_pandas(self) -> Any:
        """A frame with a row per phase: phase, status, started_at, ended_at and seconds.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = need("pandas", "to_pandas()")
        columns = ["phase", "status", "started_at", "ended_at", "seconds"]
        rows = [
            (label, one.status, one.started_at, one.ended_at, one.duration_seconds) for label, one in _phases(self.execution_meta).items()
        ]
        return pandas.DataFrame(rows, columns=columns)

    def __repr__(self) -> str:
        return f"ExperimentRun(label={self.label!r}, status={self.status!r}, seconds={self.duration_seconds:.3g})"


def _phases(meta: Meta | None) -> dict[str, PhaseExecutionMeta]:
    if meta is None:
        return {}
    return {meta.label: meta} if isinstance(meta, PhaseExecutionMeta) else meta.flatten()


def _check(one: PhaseExecutionMeta | PhaseGroupExecutionMeta | ExperimentRun) -> None:
    if one.status not in STATUSES:
        raise ValueError(f"status of {one.label!r} must be one of {', '.join(STATUSES)}, got {one.status!r}")
    if one.ended_at < one.started_at:
        raise ValueError(f"{one.label!r} ended at {one.ended_at}, before it started at {one.started_at}")

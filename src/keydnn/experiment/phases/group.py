"""PhaseGroup: phases and groups of phases, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.bindings import InputBinding
from keydnn.experiment.equality import same_values
from keydnn.experiment.io import InYaml
from keydnn.experiment.phases.checkpointing import Checkpointing
from keydnn.experiment.phases.diagram import group_diagram
from keydnn.experiment.phases.eval import EvalPhase
from keydnn.experiment.phases.fit import FitPhase
from keydnn.experiment.phases.phase import ExperimentPhase
from keydnn.experiment.phases.recording import ResultRecording
from keydnn.experiment.phases.schedule import BatchSchedulingPolicy
from keydnn.experiment.phases.train import TrainPhase
from keydnn.experiment.registration import in_notebook
from keydnn.experiment.training import AppliedLoss
from keydnn.experiment.visualization.summary import summary_box
from keydnn.experiment.visualization.visualizer import Visualizer

_ITEM_TYPES = ("phase", "group")


class PhaseGroup(InYaml):
    """An ordered container of phases and groups.

    Args:
        label: Name, of which no item may have the same.
        phases: Phases and groups; None starts empty.

    Raises:
        TypeError: Something else.
        ValueError: A label twice, or that of the group.

    Example:
        >>> from keydnn.experiment import PhaseGroup
        >>> plan = PhaseGroup("plan", [PhaseGroup("warm_up"), PhaseGroup("main")])
        >>> len(plan), plan["main"], plan[0].label
        (2, PhaseGroup('main', 0 items), 'warm_up')
    """

    def __init__(self, label: str, phases: Sequence[ExperimentPhase | PhaseGroup] | None = None) -> None:
        if not isinstance(label, str) or not label:
            raise (ValueError if isinstance(label, str) else TypeError)(f"the label of a group is a text with letters, got {label!r}")
        self.label = label
        self._items: list[ExperimentPhase | PhaseGroup] = []
        self.add_items(phases or [])

    # -- what is in it

    @property
    def all(self) -> list[ExperimentPhase | PhaseGroup]:
        """Phases and groups, in order; a copy."""
        return list(self._items)

    @property
    def phases(self) -> dict[str, ExperimentPhase]:
        """Label to phase, of this level."""
        return {item.label: item for item in self._items if isinstance(item, ExperimentPhase)}

    @property
    def phase_groups(self) -> dict[str, PhaseGroup]:
        """Label to group, of this level."""
        return {item.label: item for item in self._items if isinstance(item, PhaseGroup)}

    def items(self) -> list[tuple[str, ExperimentPhase | PhaseGroup]]:
        """Pairs of label and item, in order."""
        return [(item.label, item) for item in self._items]

    def flatten(self) -> list[ExperimentPhase]:
        """All phases of all levels, in the order in which they run."""
        return [phase for item in self._items for phase in ([item] if isinstance(item, ExperimentPhase) else item.flatten())]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[ExperimentPhase | PhaseGroup]:
        return iter(self.all)

    def __contains__(self, label: object) -> bool:
        return any(item.label == label or item is label for item in self._items)

    def __getitem__(self, key: int | str) -> ExperimentPhase | PhaseGroup:
        """An item by position or label.

        Raises:
            KeyError: No such label.
            IndexError: No such position.
        """
        return self._items[key] if isinstance(key, int) else self._items[self._place(key)]

    def _place(self, key: Any) -> int:
        """Position of an item named by position, label or itself.

        Raises:
            KeyError: There is none.
        """
        if isinstance(key, int) and not isinstance(key, bool) and -len(self._items) <= key < len(self._items):
            return key % len(self._items)
        for i, item in enumerate(self._items):
            if item is key or item.label == key:
                return i
        known = ", ".join(repr(item.label) for item in self._items) or "nothing"
        raise KeyError(f"group {self.label!r} has no item {getattr(key, 'label', key)!r}; it holds {known}")

    def _typed(self, key: Any, kind: type) -> Any:
        item = self._items[self._place(key)]
        if not isinstance(item, kind):
            raise TypeError(f"{item.label!r} in group {self.label!r} is a {type(item).__name__}, not a {kind.__name__}")
        return item

    def get_phase(self, key: int | str) -> ExperimentPhase:
        """A phase of this level.

        Raises:
            KeyError: There is none.
            TypeError: It is a group.
        """
        return self._typed(key, ExperimentPhase)  # type: ignore[no-any-return]

    def get_train_phase(self, key: int | str) -> TrainPhase:
        """A training phase of this level; errors as :meth:`get_phase`."""
        return self._typed(key, TrainPhase)  # type: ignore[no-any-return]

    def get_eval_phase(self, key: int | str) -> EvalPhase:
        """An evaluation phase of this level; errors as :meth:`get_phase`."""
        return self._typed(key, EvalPhase)  # type: ignore[no-any-return]

    def get_fit_phase(self, key: int | str) -> FitPhase:
        """A fitting phase of this level; errors as :meth:`get_phase`."""
        return self._typed(key, FitPhase)  # type: ignore[no-any-return]

    def get_group(self, key: int | str) -> PhaseGroup:
        """A group of this level.

        Raises:
            KeyError: There is none.
            ValueError: It is a phase.
        """
        item = self._items[self._place(key)]
        if not isinstance(item, PhaseGroup):
            raise ValueError(f"{item.label!r} in group {self.label!r} is a {type(item).__name__}, not a group")
        return item

    # -- looking

    def diagram(self, options: Any = None) -> Any:
        """The phases in the order in which they run, framed by their groups; ``options`` change nothing here."""
        return group_diagram(self)

    def visualize(self) -> None:
        """Show the phases in their order: drawn in a notebook, as Mermaid text elsewhere."""
        Visualizer(self).show(in_notebook())

    def summary_rows(self) -> list[tuple[str, Any]]:
        """What :meth:`summary` says, as pairs of labels and what stands behind them."""
        return [(item.label, [("type", type(item).__name__), *item.summary_rows()]) for item in self._items]

    def summary(self, max_width: int = 88) -> str:
        """A box of text with the phases of this group, in order, and those of groups inside."""
        return summary_box(type(self).__name__, [("label", self.label), *self.summary_rows()], max_width)

    # -- edits

    def add_item(self, item: ExperimentPhase | PhaseGroup) -> None:
        """Add a phase or group at the end.

        Raises:
            TypeError: Something else.
            ValueError: Its label is taken, or it holds this group.
        """
        if not isinstance(item, ExperimentPhase | PhaseGroup):
            raise TypeError(f"a group holds phases and groups, got {type(item).__name__}")
        if item.label == self.label or any(other.label == item.label for other in self._items):
            raise ValueError(f"label {item.label!r} is taken in group {self.label!r}: give each item, and the group, one of its own")
        if isinstance(item, PhaseGroup) and item.holds(self):
            raise ValueError(f"group {item.label!r} holds group {self.label!r} already")
        self._items.append(item)

    def holds(self, group: PhaseGroup) -> bool:
        """Whether a group is this one, or stands in it on any level."""
        return self is group or any(isinstance(item, PhaseGroup) and item.holds(group) for item in self._items)

    def add_items(self, items: Iterable[Any]) -> None:
        """Add several at the end; all or none of them.

        Raises:
            TypeError: Something that is no phase or group.
            ValueError: A label is taken.
        """
        before = list(self._items)
        try:
            for item in items:
                self.add_item(item)
        except (TypeError, ValueError):
            self._items = before
            raise

    def remove_item(self, item: Any) -> None:
        """Remove an item by position, label or itself.

        Raises:
            KeyError: There is none.
        """
        del self._items[self._place(item)]

    def remove_items(self, items: Sequence[Any]) -> None:
        """Remove several; all or none of them.

        Raises:
            KeyError: One is not there.
        """
        gone = {self._place(item) for item in items}
        self._items = [item for i, item in enumerate(self._items) if i not in gone]

    def add_phase(self, phase: ExperimentPhase) -> Self:
        """Add a phase; returns self.

        Raises:
            TypeError: It is no phase.
            ValueError: Its label is taken.
        """
        return self._added(phase, ExperimentPhase)

    def add_group(self, group: PhaseGroup) -> Self:
        """Add a group; returns self.

        Raises:
            TypeError: It is no group.
            ValueError: Its label is taken.
        """
        return self._added(group, PhaseGroup)

    def _added(self, item: Any, kind: Any) -> Self:
        if not isinstance(item, kind):
            raise TypeError(f"expected a {kind.__name__}, got {type(item).__name__}")
        self.add_item(item)
        return self

    def add_train_phase(
        self,
        label: str,
        *,
        input_sources: Sequence[InputBinding],
        losses: Sequence[AppliedLoss],
        n_epochs: int = 1,
        active_nodes: Sequence[Any] | None = None,
        batch_schedule: BatchSchedulingPolicy | str = "zip_strict",
        callbacks: Sequence[Any] | None = None,
        checkpointing: Checkpointing | None = None,
        result_recording: ResultRecording | str = "all",
        accelerator: Accelerator | str | None = None,
        resample: str = "never",
        accumulate: int = 1,
        prefetch: str = "auto",
        keep: Iterable[str] | str | None = None,
        precision: str = "fp32",
    ) -> Self:
        """Add a :class:`TrainPhase`, whose arguments and errors these are; returns self."""
        return self.add_phase(
            TrainPhase(
                label,
                input_sources=input_sources,
                losses=losses,
                n_epochs=n_epochs,
                active_nodes=active_nodes,
                batch_schedule=batch_schedule,
                callbacks=callbacks,
                checkpointing=checkpointing,
                result_recording=result_recording,
                accelerator=accelerator,
                resample=resample,
                accumulate=accumulate,
                prefetch=prefetch,
                keep=keep,
                precision=precision,
            )
        )

    def add_eval_phase(
        self,
        label: str,
        *,
        input_sources: Sequence[InputBinding],
        losses: Sequence[AppliedLoss] | None = None,
        active_nodes: Sequence[Any] | None = None,
        batch_size: int | None = None,
        callbacks: Sequence[Any] | None = None,
        accelerator: Accelerator | str | None = None,
    ) -> Self:
        """Add an :class:`EvalPhase`, whose arguments and errors these are; returns self."""
        return self.add_phase(
            EvalPhase(
                label,
                input_sources=input_sources,
                losses=losses,
                active_nodes=active_nodes,
                batch_size=batch_size,
                callbacks=callbacks,
                accelerator=accelerator,
            )
        )

    def add_fit_phase(
        self,
        label: str,
        *,
        input_sources: Sequence[InputBinding],
        losses: Sequence[AppliedLoss] | None = None,
        active_nodes: Sequence[Any] | None = None,
        freeze_after_fit: bool = True,
        callbacks: Sequence[Any] | None = None,
        accelerator: Accelerator | str | None = None,
    ) -> Self:
        """Add a :class:`FitPhase`, whose arguments and errors these are; returns self."""
        return self.add_phase(
            FitPhase(
                label,
                input_sources=input_sources,
                losses=losses,
                active_nodes=active_nodes,
                freeze_after_fit=freeze_after_fit,
                callbacks=callbacks,
                accelerator=accelerator,
            )
        )

    add_train = add_training = add_train_phase
    add_eval = add_evaluation = add_eval_phase
    add_fit = add_fit_phase

    def remove_phase(self, phase: Any) -> Self:
        """Remove a phase by position, label or itself; returns self.

        Raises:
            KeyError: There is no such phase.
        """
        return self._removed(phase, ExperimentPhase)

    def remove_group(self, group: Any) -> Self:
        """Remove a group by position, label or itself; returns self.

        Raises:
            KeyError: There is no such group.
        """
        return self._removed(group, PhaseGroup)

    def _removed(self, key: Any, kind: type) -> Self:
        place = self._place(key)
        if not isinstance(self._items[place], kind):
            raise KeyError(f"{self._items[place].label!r} in group {self.label!r} is no {kind.__name__}")
        del self._items[place]
        return self

    def clear(self) -> Self:
        """Remove everything; the label of the group stays reserved; returns self."""
        self._items = []
        return self

    # -- config

    def get_config(self) -> dict[str, Any]:
        """``label`` and ``items``, each with ``item_type`` and ``config``."""
        told = [{"item_type": _ITEM_TYPES[isinstance(item, PhaseGroup)], "config": item.get_config()} for item in self._items]
        return {"label": self.label, "items": told}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The group a config describes, with new phases, in the active context.

        Raises:
            ValueError: An unknown ``item_type``.
        """
        kinds: dict[str, Any] = dict(zip(_ITEM_TYPES, (ExperimentPhase, PhaseGroup), strict=True))
        for told in config["items"]:
            if told["item_type"] not in kinds:
                raise ValueError(f"unknown item_type {told['item_type']!r}; expected one of {', '.join(kinds)}")
        return cls(config["label"], [kinds[told["item_type"]].from_config(told["config"]) for told in config["items"]])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PhaseGroup) and same_values(self.get_config(), other.get_config())

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"PhaseGroup({self.label!r}, {len(self._items)} items)"

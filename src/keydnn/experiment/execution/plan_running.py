"""Runs of plans: phases and groups in order, with the hooks of the experiment around them and a record of what happened.

A run that is taken up again goes along the path of its cursor: what was over is left out, what had begun is not begun again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from keydnn.experiment.callbacks.dispatch import ExperimentHooks
from keydnn.experiment.execution import run_state
from keydnn.experiment.execution.cursor import DONE, FINISHED, Cursor
from keydnn.experiment.execution.phase_running import new_results, run_phase
from keydnn.experiment.execution.run_record import Span, error_facts
from keydnn.experiment.execution.run_state import PhasePlace
from keydnn.experiment.phases import EvalPhase, ExperimentPhase, FitPhase, PhaseGroup, TrainPhase
from keydnn.experiment.results import PhaseGroupResults, PhaseResults
from keydnn.experiment.results.folders import RunFolder
from keydnn.experiment.results.state import write_results

_TRAIN = frozenset({"show_sampler_progress", "show_training_progress", "persist_progress", "persist_epoch_progress", "val_loss_metric"})
_EVAL = frozenset({"show_eval_progress", "persist_progress"})
KEYWORDS: dict[type, frozenset[str]] = {TrainPhase: _TRAIN, EvalPhase: _EVAL, FitPhase: frozenset()}


def known_keywords(phase: ExperimentPhase) -> frozenset[str]:
    """What a run of a phase can be told."""
    return next((KEYWORDS[cls] for cls in type(phase).__mro__ if cls in KEYWORDS), frozenset())


def check_keywords(item: ExperimentPhase | PhaseGroup, keywords: Mapping[str, Any]) -> None:
    """Refuse what a phase, or every kind of phase for a group, does not know.

    Raises:
        TypeError: Unknown keywords.
    """
    known = frozenset().union(*KEYWORDS.values()) if isinstance(item, PhaseGroup) else known_keywords(item)
    unknown = sorted(set(keywords) - known)
    if unknown:
        others = [f"{name} is for a {kind.__name__}" for name in unknown for kind, theirs in KEYWORDS.items() if name in theirs]
        raise TypeError(
            f"{type(item).__name__} {item.label!r} got unknown keywords {', '.join(unknown)}; "
            + "; ".join([f"known: {', '.join(sorted(known)) or 'none'}", *others])
        )


@contextlib.contextmanager
def without_checkpointing(phase: ExperimentPhase) -> Iterator[None]:
    """Inside the block a training phase keeps no checkpoints."""
    kept = phase.checkpointing if isinstance(phase, TrainPhase) else None
    if kept is None:
        yield
        return
    phase.set_checkpointing(None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        phase.set_checkpointing(kept)  # type: ignore[attr-defined]


def _empty_results(item: ExperimentPhase | PhaseGroup, folder: RunFolder | None) -> PhaseResults | PhaseGroupResults:
    if isinstance(item, PhaseGroup):
        return PhaseGroupResults(item.label)
    made = new_results(item)
    if folder is not None:
        made.write_to(folder.phase(item.label))
    return made


class Journal(Protocol):
    """Keeps what a run needs to be taken up again."""

    path: Path

    def directory_of(self, path: tuple[str, ...]) -> Path: ...

    def meta(self) -> dict[str, Any]: ...

    def keep(self, graph: Any, state: Mapping[str, Any]) -> None: ...


class PlanRun:
    """One run of a phase or a group.

    Args:
        experiment: What phases and hooks are given.
        hooks: Of the experiment.
        keywords: Of the phases; each gets those it knows.
        checkpoints: Whether phases keep their checkpoints.
        folder: Where results are written while they occur; None keeps them in memory.
        journal: Gets checkpoints of the run itself, and says where those of phases go; None keeps none.

    Attributes:
        span: Time, end and facts of the run, with those of everything inside.
        results: Of the run, also while it goes on and after it failed.
    """

    def __init__(
        self,
        experiment: Any,
        hooks: ExperimentHooks,
        keywords: Mapping[str, Any],
        *,
        checkpoints: bool,
        folder: RunFolder | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._folder = folder
        self._experiment, self._hooks, self._keywords, self._checkpoints = experiment, hooks, keywords, checkpoints
        self._journal = journal
        self._item: ExperimentPhase | PhaseGroup | None = None
        self._phase: ExperimentPhase | None = None
        self._taken_up: Mapping[str, Any] | None = None  # the state after which it goes on
        self._cursor: Cursor | None = None  # until the place is reached
        self.span = Span("")
        self.results: PhaseResults | PhaseGroupResults | None = None

    def execute(self, item: ExperimentPhase | PhaseGroup, *, whole: bool = False, state: Mapping[str, Any] | None = None) -> Any:
        """Run a phase or a group.

        Args:
            item: What runs.
            whole: Whether it is the experiment's plan.
            state: After which state of the run it goes on, or that of a run that is over; None begins.
        """
        self._begin(item, state)
        if self._cursor is not None and self._cursor.hook == FINISHED:
            return self.results
        with self.span.timed(goes_on=state is not None):
            try:
                if whole and state is None:
                    self._hooks.experiment_start()
                self._inside(item, self.results, self.span, (), self._folder)
                if whole:
                    self._hooks.experiment_end()
            except (Exception, KeyboardInterrupt) as error:
                self.span.metadata["error"] = error_facts(error, self._phase)
                self._hooks.exception(self._phase, error)
                raise
        self._keep(Cursor((), FINISHED))
        return self.results

    def _begin(self, item: ExperimentPhase | PhaseGroup, state: Mapping[str, Any] | None) -> None:
        self._item = item
        if state is None:
            self.results, self.span = _empty_results(item, self._folder), Span(item.label)
            return
        self._taken_up, self.results, self.span = state, run_state.results_of(state), run_state.span_of(state["spans"])
        self._cursor = Cursor.from_config(state["cursor"])
        if self._folder is not None:
            write_results(self.results, self._folder)
        self.go_on()

    def go_on(self) -> None:
        """The generators are where they were when the state was written."""
        if self._taken_up is not None:
            run_state.restore_generators(self._experiment, self._taken_up)

    def _inside(
        self, item: ExperimentPhase | PhaseGroup, results: Any, span: Span, path: tuple[str, ...], folder: RunFolder | None
    ) -> None:
        if isinstance(item, PhaseGroup):
            self._group(item, results, span, path, folder)
        else:
            self._one(item, results, span, path)

    def _group(self, group: PhaseGroup, results: PhaseGroupResults, span: Span, path: tuple[str, ...], folder: RunFolder | None) -> None:
        items = group.all
        if self._cursor is None:
            span.inner = []
            self._hooks.group_start(group)
        else:
            items = self._left(group, len(path))
        for item in items:
            way = (*path, item.label)
            inner, inside = self._opened(item, results, span, folder)
            with inside.timed(goes_on=self._cursor is not None):
                self._inside(item, inner, inside, way, folder.group(item.label) if folder and isinstance(item, PhaseGroup) else None)
            self._keep(Cursor(way, DONE))
        self._hooks.group_end(group, results)

    def _left(self, group: PhaseGroup, depth: int) -> list[ExperimentPhase | PhaseGroup]:
        """What of a group that had begun is left: from the item of the cursor on, or from the one after it, if that was over."""
        assert self._cursor is not None
        items, cursor = group.all, self._cursor
        at = [item.label for item in items].index(cursor.path[depth])
        if depth + 1 < len(cursor.path) or cursor.hook != DONE:
            return items[at:]
        self._cursor = None
        return items[at + 1 :]

    def _opened(
        self, item: ExperimentPhase | PhaseGroup, results: PhaseGroupResults, span: Span, folder: RunFolder | None
    ) -> tuple[Any, Span]:
        """Results and record of an item: those there are of one that had begun, else new ones."""
        assert span.inner is not None
        if self._cursor is not None:
            return results[item.label], next(inner for inner in span.inner if inner.label == item.label)
        inner, inside = _empty_results(item, folder), Span(item.label)
        results.add_result(inner)
        span.inner.append(inside)
        return inner, inside

    def _one(self, phase: ExperimentPhase, results: PhaseResults, span: Span, path: tuple[str, ...]) -> None:
        known = known_keywords(phase)
        self._phase = phase
        cursor, self._cursor = self._cursor, None
        if cursor is None:
            self._hooks.phase_start(phase)
        with contextlib.nullcontext() if self._checkpoints else without_checkpointing(phase):
            keywords = {name: value for name, value in self._keywords.items() if name in known}
            directory: Path | None = self._experiment.checkpoint_dir
            if directory is None and self._journal is not None:
                directory = self._journal.directory_of(path)
            place = PhasePlace(self, phase, path, cursor, directory)
            run_phase(phase, experiment=self._experiment, results=results, place=place, **keywords)
        stopped = [found.stopped_epoch for found in results.callbacks(kind="early_stopping").values()]
        if stopped:
            span.metadata["stopped_epoch"] = stopped[-1]
        self._hooks.phase_end(phase, results)
        self._phase = None

    # -- checkpoints

    def captured(self, cursor: Cursor) -> dict[str, Any]:
        """The state of the run; see :func:`~keydnn.experiment.execution.run_state.captured`."""
        assert self._item is not None
        folder = None if self._journal is None else self._journal.path
        told = {"results": self.results, "span": self.span, "experiment": self._experiment, "folder": folder}
        return run_state.captured(self._item, cursor, **told)

    def meta(self) -> dict[str, Any]:
        """Which run a checkpoint belongs to, and which of it this one is."""
        return {} if self._journal is None else self._journal.meta()

    def saved(self, phase: ExperimentPhase, path: Path) -> None:
        """A checkpoint of a phase was written."""
        self._experiment.checkpoint_written(f"{phase.label}/{path.name.split('.')[0]}", path)

    def _keep(self, cursor: Cursor) -> None:
        if self._journal is not None:
            self._journal.keep(self._experiment.model_graph, self.captured(cursor))

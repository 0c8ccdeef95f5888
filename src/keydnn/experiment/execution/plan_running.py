"""Runs of plans: phases and groups in order, with the hooks of the experiment around them and a record of what happened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from keydnn.experiment.callbacks.dispatch import ExperimentHooks
from keydnn.experiment.execution.phase_running import new_results, run_phase
from keydnn.experiment.execution.run_record import Span, error_facts
from keydnn.experiment.phases import EvalPhase, ExperimentPhase, FitPhase, PhaseGroup, TrainPhase
from keydnn.experiment.results import PhaseGroupResults, PhaseResults
from keydnn.experiment.results.folders import RunFolder

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
        raise TypeError(f"{item.label!r} got unknown keywords {', '.join(unknown)}; known: {', '.join(sorted(known)) or 'none'}")


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


class PlanRun:
    """One run of a phase or a group.

    Args:
        experiment: What phases and hooks are given.
        hooks: Of the experiment.
        keywords: Of the phases; each gets those it knows.
        checkpoints: Whether phases keep their checkpoints.
        folder: Where results are written while they occur; None keeps them in memory.

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
    ) -> None:
        self._folder = folder
        self._experiment, self._hooks, self._keywords, self._checkpoints = experiment, hooks, keywords, checkpoints
        self._phase: ExperimentPhase | None = None
        self.span = Span("")
        self.results: PhaseResults | PhaseGroupResults | None = None

    def execute(self, item: ExperimentPhase | PhaseGroup, *, whole: bool = False) -> Any:
        """Run a phase or a group; ``whole`` says that it is the experiment's plan."""
        self.results = _empty_results(item, self._folder)
        self.span = Span(item.label)
        with self.span.timed():
            try:
                if whole:
                    self._hooks.experiment_start()
                self._inside(item, self.results, self.span, self._folder)
                if whole:
                    self._hooks.experiment_end()
            except (Exception, KeyboardInterrupt) as error:
                self.span.metadata["error"] = error_facts(error, self._phase)
                self._hooks.exception(self._phase, error)
                raise
        return self.results

    def _inside(self, item: ExperimentPhase | PhaseGroup, results: Any, span: Span, folder: RunFolder | None) -> None:
        if isinstance(item, PhaseGroup):
            self._group(item, results, span, folder)
        else:
            self._one(item, results, span)

    def _group(self, group: PhaseGroup, results: PhaseGroupResults, span: Span, folder: RunFolder | None) -> None:
        span.inner = []
        self._hooks.group_start(group)
        for item in group.all:
            inner, inside = _empty_results(item, folder), Span(item.label)
            results.add_result(inner)
            span.inner.append(inside)
            with inside.timed():
                self._inside(item, inner, inside, folder.group(item.label) if folder and isinstance(item, PhaseGroup) else None)
        self._hooks.group_end(group, results)

    def _one(self, phase: ExperimentPhase, results: PhaseResults, span: Span) -> None:
        known = known_keywords(phase)
        self._phase = phase
        self._hooks.phase_start(phase)
        with contextlib.nullcontext() if self._checkpoints else without_checkpointing(phase):
            keywords = {name: value for name, value in self._keywords.items() if name in known}
            run_phase(phase, experiment=self._experiment, results=results, **keywords)
        stopped = [found.stopped_epoch for found in results.callbacks(kind="early_stopping").values()]
        if stopped:
            span.metadata["stopped_epoch"] = stopped[-1]
        self._hooks.phase_end(phase, results)
        self._phase = None

"""The state of a run that goes on: what a checkpoint holds beside the graph, so that the run can be taken up after it.

cursor      how far the run has come             results, spans   of all phases so far, also of the one that is open
random      where every generator is             callbacks        of every phase and of the experiment
samplers    what the phase drew; its stop flag   checkpointing    counts and files of every phase
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from keydnn.experiment.execution.cursor import FINISHED, Cursor
from keydnn.experiment.execution.run_record import Span
from keydnn.experiment.phases import ExperimentPhase, PhaseGroup, TrainPhase
from keydnn.experiment.random_files import states_of, told_states
from keydnn.experiment.results.state import results_from_state, results_state
from keydnn.experiment.results.values import opened, said_or_left_out

Item = ExperimentPhase | PhaseGroup
Path_ = tuple[str, ...]


def phases_of(item: Item, path: Path_ = ()) -> Iterator[tuple[Path_, ExperimentPhase]]:
    """Every phase with the labels that lead to it; what runs itself has none."""
    if isinstance(item, ExperimentPhase):
        yield path, item
        return
    for inner in item.all:
        yield from phases_of(inner, (*path, inner.label))


def captured(item: Item, cursor: Cursor, *, results: Any, span: Span, experiment: Any, folder: Path | None) -> dict[str, Any]:
    """The state of a run, for a file.

    Args:
        item: What runs.
        cursor: How far it has come.
        results: Of the run.
        span: Of the run.
        experiment: Whose callbacks are told.
        folder: Paths inside of it are told from there.

    Raises:
        TypeError: The state of a callback holds something that a file cannot say.
    """
    phases = dict(phases_of(item))
    kept = {path: phase.checkpointing for path, phase in phases.items() if isinstance(phase, TrainPhase)}
    now = phases.get(cursor.path)
    return {
        "cursor": cursor.get_config(),
        "random": told_states(experiment.random_numbers()),
        "samplers": [] if now is None else [b.sampler.get_state() for b in now.input_sources if b.sampler is not None],
        "stop": isinstance(now, TrainPhase) and now.stop_requested,
        "callbacks": [(path, _told(phase.callbacks)) for path, phase in phases.items()],
        "experiment_callbacks": _told(experiment.exp_callbacks),
        "checkpointing": [(path, _progress(one, folder)) for path, one in kept.items() if one is not None],
        "experiment_checkpointing": None if experiment.checkpointing is None else _progress(experiment.checkpointing, folder),
        "written": [(name, _inside(path.absolute(), folder)) for name, path in experiment.available_checkpoints.items()],
        "results": results_state(results),
        "spans": _span_state(span),
    }


def restore(item: Item, state: Mapping[str, Any], *, experiment: Any, folder: Path | None) -> Cursor:
    """Give phases, callbacks and checkpointings back what :func:`captured` told; the generators come later.

    Raises:
        ValueError: The plan has other phases or callbacks than the one that was running.
    """
    cursor, phases = Cursor.from_config(state["cursor"]), dict(phases_of(item))
    for path, told in state["callbacks"]:
        _take(_at(phases, path).callbacks, told, f"phase {'/'.join(path)!r}")
    _take(experiment.exp_callbacks, state["experiment_callbacks"], "the experiment")
    home = Path() if folder is None else folder
    for path, progress in state["checkpointing"]:
        _at(phases, path).checkpointing.set_progress(_progress_at(home, progress))  # type: ignore[attr-defined]
    if state["experiment_checkpointing"] is not None:
        experiment.checkpointing.set_progress(_progress_at(home, state["experiment_checkpointing"]))
    for name, file in state["written"]:
        experiment.checkpoint_written(name, home / file)
    now = phases.get(cursor.path)
    if now is not None:
        samplers = [b.sampler for b in now.input_sources if b.sampler is not None]
        for sampler, drawn in zip(samplers, state["samplers"], strict=True):
            sampler.set_state(drawn)
    if isinstance(now, TrainPhase):
        now.reset_stop()
        if state["stop"]:
            now.request_stop()
    return cursor


def restore_generators(experiment: Any, state: Mapping[str, Any]) -> None:
    """The generators of the run and of its nodes are where they were."""
    experiment.set_random_numbers(states_of(state["random"]))


def is_over(state: Mapping[str, Any] | None) -> bool:
    """Whether it is the state of a run that is over."""
    return state is not None and Cursor.from_config(state["cursor"]).hook == FINISHED


def results_of(state: Mapping[str, Any]) -> Any:
    """The results so far; those of the open phase go on."""
    return results_from_state(state["results"])


def _at(phases: Mapping[Path_, ExperimentPhase], path: Any) -> ExperimentPhase:
    if tuple(path) not in phases:
        raise ValueError(f"the checkpoint is of a run with a phase {'/'.join(path)!r}; there are {['/'.join(one) for one in phases]}")
    return phases[tuple(path)]


# -- callbacks and checkpointings ---------------------------------------------------------------------------------------------


def _told(callbacks: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(callback.label, callback.get_state()) for callback in callbacks]


def _take(callbacks: Any, told: Any, whose: str) -> None:
    labels, known = [label for label, _ in told], [callback.label for callback in callbacks]
    if labels != known:
        raise ValueError(f"the checkpoint knows the callbacks {labels} of {whose}, which has {known}")
    for callback, (_, state) in zip(callbacks, told, strict=True):
        callback.set_state(state)


def _progress(checkpointing: Any, folder: Path | None) -> dict[str, Any]:
    told = checkpointing.get_progress()
    return {**told, "paths": [(key, _inside(Path(path).absolute(), folder)) for key, path in told["paths"]]}


def _progress_at(home: Path, progress: Mapping[str, Any]) -> dict[str, Any]:
    return {**progress, "paths": [(key, str(home / name)) for key, name in progress["paths"]]}


def _inside(path: Path, folder: Path | None) -> str:
    """A path as told from the folder of the run, so that the folder may be moved; others in full."""
    return path.relative_to(folder).as_posix() if folder is not None and path.is_relative_to(folder) else str(path)


# -- spans --------------------------------------------------------------------------------------------------------------------


def _span_state(span: Span) -> dict[str, Any]:
    return {
        "label": span.label,
        "times": [span.started_at.isoformat(), span.ended_at.isoformat()],
        "status": span.status,
        "metadata": said_or_left_out(span.metadata, f"metadata of {span.label!r}"),
        "inner": None if span.inner is None else [_span_state(inner) for inner in span.inner],
    }


def span_of(state: Mapping[str, Any]) -> Span:
    """The span that a state tells of."""
    made = Span(state["label"])
    made.started_at, made.ended_at = map(datetime.fromisoformat, state["times"])
    made.status, made.metadata = state["status"], dict(opened(state["metadata"]))
    made.inner = None if state["inner"] is None else [span_of(inner) for inner in state["inner"]]
    return made


# -- the place of a phase -------------------------------------------------------------------------------------------------------


class PhasePlace:
    """Where a phase stands in its run: what its checkpoints hold, and how far it has come.

    Args:
        run: The run of the plan.
        phase: The phase.
        path: Labels that lead to it.
        cursor: How far it has come; None if it has not begun.
        directory: Where checkpoints go whose checkpointing names no directory.
    """

    def __init__(self, run: Any, phase: ExperimentPhase, path: Path_, cursor: Cursor | None, directory: Path | None) -> None:
        self.cursor, self.directory = cursor, directory
        self._run, self._phase, self._path = run, phase, path

    def go_on(self) -> None:
        """The steps come next."""
        if self.cursor is not None:
            self._run.go_on()

    def entry(self, hook: str, epoch: int | None, batch: int | None) -> dict[str, Any] | None:
        """The state of the run; None between steps that share an update, whose gradients a file does not hold."""
        steps = getattr(self._phase, "accumulate", 1)
        if batch is not None and (batch + (hook == "batch_end")) % steps:
            return None
        return self._run.captured(Cursor(self._path, hook, epoch, batch))

    def meta(self) -> dict[str, Any]:
        """Which run a checkpoint belongs to, and which of it this one is."""
        return self._run.meta()

    def saved(self, path: Path) -> None:
        """A checkpoint was written."""
        self._run.saved(self._phase, path)

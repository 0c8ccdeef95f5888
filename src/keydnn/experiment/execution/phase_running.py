"""Running phases: the steps, what is recorded of them, and who is told when.

Training:  [start]  for each epoch: [epoch start]  for each step: [batch start] step, record, metric [batch end]
                    metric of the epoch [epoch end] stop?
           [end]                                    [..] = hooks of callbacks, then checkpoints
A phase that is taken up again goes on behind the bracket where its checkpoint was written.
Everything that does not depend on the step is worked out before the loop.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.backends.torch_precision import PRECISION, computing_in
from keydnn.experiment.callbacks.checkpoints import CheckpointHooks
from keydnn.experiment.callbacks.dispatch import PhaseHooks
from keydnn.experiment.context import in_notebook
from keydnn.experiment.contracts import IRestoring, ISurrounding
from keydnn.experiment.data import ExecutionContext
from keydnn.experiment.execution.cursor import Begun
from keydnn.experiment.execution.native_epochs import NativeEpochs
from keydnn.experiment.execution.run_state import PhasePlace
from keydnn.experiment.graph import ModelGraph
from keydnn.experiment.graph.accumulation import Accumulation
from keydnn.experiment.phases import EvalPhase, ExperimentPhase, FitPhase, ResultRecording, TrainPhase
from keydnn.experiment.phases.feeding import PassFeeding, TrainFeeding
from keydnn.experiment.phases.holding import bystanders, still
from keydnn.experiment.phases.train import TRAIN_LOSS
from keydnn.experiment.progress_bars import evaluation_progress, training_progress
from keydnn.experiment.results import EvalResults, FitResults, PhaseResults, TrainResults
from keydnn.experiment.results.scalars import on_host

_MOST_WAITING = 32  # steps
_PLACE: ContextVar[Accelerator | None] = ContextVar("keydnn_experiment_place", default=None)  # of the phase around


def new_results(phase: ExperimentPhase) -> PhaseResults:
    """Empty results for a phase."""
    kinds = {TrainPhase: TrainResults, EvalPhase: EvalResults, FitPhase: FitResults}
    return next(made(phase.label) for kind, made in kinds.items() if isinstance(phase, kind))


def run_phase(phase: ExperimentPhase, *, experiment: Any, results: Any = None, place: PhasePlace | None = None, **flags: Any) -> Any:
    """Run a phase to its end.

    Args:
        phase: The phase.
        experiment: Handed to callbacks; its ``model_graph`` runs.
        results: What is recorded into; None makes new ones.
        place: Where the phase stands in its run, and how far it has come; None for a phase that runs by itself.
        **flags: Which progress is shown: those of the phase's ``iter_execution``.

    Returns:
        The results.

    Raises:
        TypeError: Unknown flags, or no phase.
        RuntimeError: There is no graph, nothing to run over, or a device is not there.
    """
    for kind, run in _RUNNERS.items():
        if isinstance(phase, kind):
            found = new_results(phase) if results is None else results
            graph = experiment.model_graph
            if graph is None:
                raise RuntimeError(f"phase {phase.label!r} cannot run: the context of the experiment has no model graph")
            _Run(phase, experiment, graph, found, place).make(run, flags)
            return found
    raise TypeError(f"expected a TrainPhase, EvalPhase or FitPhase, got {type(phase).__name__}")


class _Run:
    """One run of a phase: hooks, checkpoints, results and the step that is made."""

    def __init__(self, phase: Any, experiment: Any, graph: ModelGraph, results: Any, place: PhasePlace | None = None) -> None:
        self.phase, self.graph, self.results, self.place = phase, graph, results, place
        self.begun = Begun(None if place is None else place.cursor)
        self.hooks = PhaseHooks(phase.callbacks, experiment=experiment, phase=phase, results=results)
        self.ctx: ExecutionContext | None = None
        self.where: Accelerator | None = None

    def make(self, run: Callable[..., None], flags: dict[str, Any]) -> None:
        """Run, tell of exceptions, and leave results in order."""
        with contextlib.ExitStack() as ends:
            ends.callback(self.results.finish)
            ends.push(self._tell)
            self.where = ends.enter_context(_placed(self.phase, self.graph))
            for callback in self.phase.callbacks:
                if isinstance(callback, ISurrounding):
                    ends.enter_context(callback.around(self.graph, self.phase))
            run(self, **flags)

    def _tell(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Hooks are told how the run ended, if it failed."""
        if error is not None:
            self.hooks.exception(self.ctx, error)


@contextlib.contextmanager
def _placed(phase: Any, graph: ModelGraph) -> Iterator[Accelerator | None]:
    """Models where their node, else the phase, else the phase around it says; that place.

    Raises:
        RuntimeError: A device is not there.
    """
    where = phase.accelerator or _PLACE.get()
    graph.place(active_nodes=phase.active_nodes, accelerator=where)
    token = _PLACE.set(where)
    try:
        yield where
    finally:
        _PLACE.reset(token)


# -- training -------------------------------------------------------------------------------------------------------------


def _train(
    run: _Run,
    *,
    show_sampler_progress: bool = True,
    show_training_progress: bool = True,
    persist_progress: bool | None = None,
    persist_epoch_progress: bool | None = None,
    val_loss_metric: str = "val_loss",
) -> None:
    phase: TrainPhase = run.phase
    if not run.begun.phase:
        phase.reset_stop()
    run.graph.build()
    feeding = TrainFeeding(phase, run.graph, show_progress=show_sampler_progress, accelerator=run.where)
    sizes = {"n_epochs": phase.n_epochs, "n_samples": feeding.n_samples}
    told = {"keep": phase.keep, "graph": run.graph, "active_nodes": phase.active_nodes}
    run.results.start_recording(phase.result_recording, **told, **sizes)
    training = _Training(run, feeding)
    if run.place is not None:
        run.place.go_on()
    if not run.begun.phase:
        run.hooks.phase_start()
        training.checkpoints.at("phase_start")
    stay, epochs_stay = _stays(persist_progress), _stays(persist_epoch_progress)
    with training_progress(phase.label, phase.n_epochs, wanted=show_training_progress, persist=stay, persist_epoch=epochs_stay) as bars:
        for epoch in run.begun.epochs(phase.n_epochs, is_stopped=phase.stop_requested):
            mean = training.epoch(epoch, bars)
            bars.epoch_done(mean, val_loss=_latest(run.results, val_loss_metric, epoch))
            if phase.stop_requested:
                break
    if not run.begun.is_over:
        run.hooks.phase_end()
        training.checkpoints.at("phase_end")


def _stays(persist: bool | None) -> bool:
    """Whether a bar stays; in a notebook unless told otherwise."""
    return in_notebook() if persist is None else persist


def _latest(results: Any, name: str, epoch: int) -> float | None:
    """The value of an epoch's metric, if there is one."""
    found = results.metric_store.of_epoch(name, epoch)
    return found[-1].value if found else None


class _Values:
    """The training losses of an epoch, brought to the host together.

    Args:
        store: Where they are logged.
        epoch: Which epoch.
        is_begun: Whether those that are there belong to it.
    """

    def __init__(self, store: Any, epoch: int, is_begun: bool) -> None:
        self._store, self._epoch = store, epoch
        self._waiting: list[Any] = []
        self.add = self._waiting.append  # one more, where it was computed
        self._known: list[float] = [entry.value for entry in store.of_epoch(TRAIN_LOSS, epoch)] if is_begun else []

    def add_many(self, values: Any) -> None:
        """An array of several more."""
        self.log()
        self._put(values.tolist())

    def log(self) -> None:
        """Log those that were not yet."""
        if self._waiting:
            found = on_host(self._waiting).tolist()
            self._waiting.clear()
            self._put(found)

    def _put(self, found: list[float]) -> None:
        self._store.log_steps(name=TRAIN_LOSS, values=found, epoch_idx=self._epoch, first_batch=len(self._known))
        self._known += found

    close = log  # also after a step that failed

    def mean(self) -> float:
        """Mean over the steps."""
        return sum(self._known) / len(self._known)


class _Steps:
    """Steps of an epoch on their way into the results, some at a time: that is quicker than one by one between steps.

    Args:
        results: Where they are recorded.
    """

    def __init__(self, results: Any) -> None:
        self._results = results
        self._waiting: list[ExecutionContext] = []

    def add(self, ctx: ExecutionContext, *, may_wait: bool) -> None:
        """One more; it waits only if no later step can change what it holds."""
        self._waiting.append(ctx)
        if not may_wait or len(self._waiting) >= _MOST_WAITING:
            self.record()

    def record(self) -> None:
        """Record those that wait."""
        waiting, self._waiting = self._waiting, []
        for ctx in waiting:
            self._results.add_execution_context(ctx)

    close = record  # also after a step that failed


class _Training:
    """The epochs of a training phase."""

    def __init__(self, run: _Run, feeding: TrainFeeding) -> None:
        self.run, self.feeding = run, feeding
        phase: TrainPhase = run.phase
        directory = None if run.place is None else run.place.directory
        self.checkpoints = CheckpointHooks(phase.checkpointing, graph=run.graph, phase=phase, directory=directory, place=run.place)
        self.bystanders = bystanders(run.graph, phase.active_nodes)
        self.around_batches = run.hooks.has_batch_hooks or self.checkpoints.has_batch_hooks
        self.accumulation = Accumulation(phase.accumulate) if phase.accumulate > 1 else None
        self.is_bare = not self.bystanders and self.accumulation is None and phase.precision == PRECISION[0]
        self.native = NativeEpochs(phase, run.graph, feeding, run.results, run.where, is_watched=run.hooks.has_any)
        self.restoring = [cb for cb in phase.callbacks if isinstance(cb, IRestoring) and cb.restore_best]

    def epoch(self, epoch: int, bars: Any) -> float:
        """One epoch; the mean of its training loss."""
        run, phase, results, begun = self.run, self.run.phase, self.run.results, self.run.begun
        records = results.records_steps
        if not begun.epoch(epoch):
            results.start_epoch(epoch)
        ctx: ExecutionContext | None = None
        show = bars.epoch(epoch, self.feeding.n_steps)
        values = _Values(results.metric_store, epoch, begun.epoch(epoch))
        step, recorded = self._stepper(), _Steps(results)
        with contextlib.closing(values), contextlib.closing(recorded):
            steps = self.feeding.epoch(epoch)
            i, end = begun.first_step(epoch), len(steps)
            while i < end:
                inputs, views = steps[i]
                run.ctx = ctx = ExecutionContext(phase.label, epoch, i, inputs, views)
                if i == 0 and not begun.epoch(epoch):
                    run.hooks.epoch_start(ctx)
                    self.checkpoints.at("epoch_start", epoch)
                if self.around_batches and not begun.batch(epoch, i):
                    run.hooks.batch_start(ctx)
                    self.checkpoints.at("batch_start", epoch, i)
                many = self._many(ctx, steps) if self.native.can and not self.around_batches else None
                if many is not None:
                    values.add_many(many)
                    i += len(many)
                    continue
                may_wait = step(ctx)
                if records:
                    recorded.add(ctx, may_wait=may_wait)
                value = ctx.losses.to_minimize()
                values.add(value)
                if self.around_batches:
                    values.log()
                    run.hooks.batch_end(ctx)
                    self.checkpoints.at("batch_end", epoch, i)
                show(value)
                i += 1
        mean = values.mean()
        results.metric_store.log(name=TRAIN_LOSS, value=mean, epoch_idx=epoch)
        run.hooks.epoch_end(self._last(epoch) if ctx is None else ctx)
        if phase.result_recording is ResultRecording.LAST and self.restoring and self.restoring[0].best_epoch is not None:
            results.keep_epoch(self.restoring[0].best_epoch)
        self.checkpoints.at("epoch_end", epoch)
        return mean

    def _last(self, epoch: int) -> ExecutionContext:
        """The last step of an epoch whose steps were all made before the phase was taken up again; outputs are there if recorded."""
        ((inputs, views),) = deque(iter(self.feeding.epoch(epoch)), maxlen=1)
        i = self.feeding.n_steps - 1
        made = next((place.context() for place in self.run.results.context_store.places(epoch=epoch, batch=i)), None)
        outputs, losses = ({}, None) if made is None else (made.outputs, made.losses)
        return ExecutionContext(self.run.phase.label, epoch, i, inputs, views, outputs, losses)

    def _stepper(self) -> Callable[[ExecutionContext], bool]:
        """What makes the steps of an epoch, and tells whether their contexts may wait until they are recorded."""
        run, phase = self.run, self.run.phase
        if self.around_batches or not self.is_bare:
            return self._step
        told = {"active_nodes": phase.active_nodes, "accelerator": run.where, "copies": run.results.keeps_outputs}
        return run.graph.unwatched(phase.losses, **told)

    def _step(self, ctx: ExecutionContext) -> bool:
        """A training step in which nodes that run only because others read them stay as they are; its context does not wait."""
        run, phase = self.run, self.run.phase
        with still(self.bystanders), computing_in(phase.precision):
            if self.accumulation is None:
                run.graph.train_step(ctx, phase.losses, active_nodes=phase.active_nodes, accelerator=run.where)
                return False
            self.accumulation.start(ctx.batch_idx, self.feeding.n_steps)
            run.graph.accumulate_step(ctx, phase.losses, self.accumulation, active_nodes=phase.active_nodes, accelerator=run.where)
        return False

    def _many(self, ctx: ExecutionContext, steps: Any) -> Any:
        """The losses of this step and some that follow, made in one call; None if it has to be made by itself."""
        with still(self.bystanders):
            return self.native.advance(ctx, steps)


# -- evaluation and fitting -----------------------------------------------------------------------------------------------


def _evaluate(run: _Run, *, show_eval_progress: bool = False, persist_progress: bool | None = None) -> None:
    phase: EvalPhase = run.phase
    run.graph.build()
    feeding = PassFeeding(phase, run.graph, phase.batch_size, accelerator=run.where)
    run.results.start_recording(ResultRecording.ALL, graph=run.graph)
    with evaluation_progress(phase.label, feeding.n_steps, wanted=show_eval_progress, persist=_stays(persist_progress)) as advance:

        def step(ctx: ExecutionContext) -> None:
            run.graph.eval_step(ctx, phase.losses, active_nodes=phase.active_nodes, accelerator=run.where)
            advance()

        _pass(run, feeding, step)


def _fit(run: _Run) -> None:
    phase: FitPhase = run.phase
    run.graph.build()
    feeding = PassFeeding(phase, run.graph, None, accelerator=run.where)
    run.results.start_recording(ResultRecording.ALL, graph=run.graph)

    def step(ctx: ExecutionContext) -> None:
        run.graph.fit_step(
            ctx, phase.losses, active_nodes=phase.active_nodes, freeze_after_fit=phase.freeze_after_fit, accelerator=run.where
        )

    _pass(run, feeding, step)


def _pass(run: _Run, feeding: PassFeeding, step: Callable[[ExecutionContext], None]) -> None:
    """One pass: hooks around every step, and the mean of each loss over samples as a metric."""
    values: dict[str, list[Any]] = {}
    sizes: list[int] = []
    run.hooks.phase_start()
    run.results.start_epoch(0)
    for i, (inputs, views) in enumerate(feeding.steps()):
        run.ctx = ctx = ExecutionContext(run.phase.label, 0, i, inputs, views)
        run.hooks.batch_start(ctx)
        step(ctx)
        run.results.add_execution_context(ctx)
        for record in ctx.losses.values() if ctx.losses is not None else ():
            values.setdefault(record.label, []).append(record.auxiliary)
        sizes.append(len(next(iter(views.values()))))
        run.hooks.batch_end(ctx)
    for label, told in values.items():
        mean = float((on_host(told) * sizes).sum() / sum(sizes))
        run.results.metric_store.log(name=f"eval_loss/{label}", value=mean, epoch_idx=0)
    run.hooks.phase_end()


_RUNNERS: dict[type, Callable[..., None]] = {TrainPhase: _train, EvalPhase: _evaluate, FitPhase: _fit}

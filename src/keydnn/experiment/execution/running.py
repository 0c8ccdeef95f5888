"""Running: the runs of an experiment: recorded, previewed, apart from the rest, taken up again; and predictions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

from keydnn.experiment.callbacks import ExperimentCallback
from keydnn.experiment.callbacks.dispatch import ExperimentHooks
from keydnn.experiment.context import ExperimentContext, RegistrationPolicy
from keydnn.experiment.data import DataFormat, FeatureSet
from keydnn.experiment.execution import experiment_state, prediction, resuming, run_state
from keydnn.experiment.execution.experiment_checkpoints import CheckpointingHooks
from keydnn.experiment.execution.keeping import Keeping
from keydnn.experiment.execution.plan_running import PlanRun, check_keywords
from keydnn.experiment.execution.run_record import Span, machine_facts, sampler_seeds
from keydnn.experiment.execution.snapshot import restoring
from keydnn.experiment.execution.subfolders import in_subfolder
from keydnn.experiment.phases import Checkpointing, EvalPhase, ExperimentPhase, PhaseGroup
from keydnn.experiment.random_states import Stream
from keydnn.experiment.results import (
    ExperimentRun,
    PhaseExecutionMeta,
    PhaseGroupExecutionMeta,
    PhaseGroupResults,
    ResultsConfig,
)
from keydnn.experiment.results.folders import RunFolder

Item = ExperimentPhase | PhaseGroup


class Running(Keeping):
    """What an experiment does with its plan; abstract.

    A class that derives from it is an :class:`~keydnn.experiment.Experiment`: it has a context, a plan, callbacks and a place for results.
    """

    _ctx: ExperimentContext
    _plan: PhaseGroup
    _results_config: ResultsConfig | None
    _callbacks: list[ExperimentCallback]

    def __init__(self, checkpointing: Checkpointing | None, seed: int) -> None:
        super().__init__(checkpointing)
        self._seed = seed
        self._stream = Stream(seed, "runs")
        self._history: list[ExperimentRun] = []
        self._start: Mapping[str, Any] | None = None
        self._current: Callable[[], ExperimentRun] | None = None
        self._is_running = False
        self._is_preview = False

    # -- runs

    @property
    def exp_callbacks(self) -> list[ExperimentCallback]:
        """The experiment's callbacks in the order in which they are called; a copy."""
        return sorted(self._callbacks, key=lambda callback: callback.execution_order)

    def run(self, run_dir: str | os.PathLike[str] | None = None, **kwargs: Any) -> PhaseGroupResults:
        """Run the plan, from the weights there are now.

        Args:
            run_dir: A folder that gets all that :meth:`resume` needs to go on with the run, should it be killed: the experiment as it is
                now, the data, and the state after every phase; checkpoints of phases go there, too, unless they name a directory.
            **kwargs: ``show_sampler_progress=True``, ``show_training_progress=True``, ``show_eval_progress=False``,
                ``persist_progress``, ``persist_epoch_progress``, ``val_loss_metric="val_loss"``; each phase gets those it knows.

        Raises:
            TypeError: Unknown keywords; or the state of a callback holds something that a file cannot say.
            RuntimeError: The experiment itself is to be written to disk while it runs, and no folder is known.
            FileExistsError: ``run_dir`` holds a run already.
            PackagedCodeError: ``run_dir`` is given, and a class can be neither named nor packaged.
        """
        return self._recorded(self._plan, kwargs, whole=True, run_dir=run_dir)

    def run_phase(self, phase: ExperimentPhase, *, run_dir: str | os.PathLike[str] | None = None, **kwargs: Any) -> Any:
        """Run a phase, of the plan or not.

        Args:
            phase: The phase.
            run_dir: A folder for :meth:`resume`; see :meth:`run`.
            **kwargs: Those of :meth:`run` that it knows.

        Returns:
            TrainResults, EvalResults or FitResults.

        Raises:
            TypeError: No phase, or keywords that it does not know.
        """
        return self._recorded(_checked_item(phase, ExperimentPhase), kwargs, run_dir=run_dir)

    def run_group(self, group: PhaseGroup, *, run_dir: str | os.PathLike[str] | None = None, **kwargs: Any) -> PhaseGroupResults:
        """Run a group, of the plan or not; see :meth:`run`.

        Raises:
            TypeError: No group, or unknown keywords.
        """
        return self._recorded(_checked_item(group, PhaseGroup), kwargs, run_dir=run_dir)

    run_evaluation = run_phase

    @property
    def is_preview(self) -> bool:
        """Whether what runs is a preview, which leaves no trace."""
        return self._is_preview

    def preview_phase(self, phase: ExperimentPhase, **kwargs: Any) -> Any:
        """Like :meth:`run_phase`; afterwards, also after an exception, everything is as before, and nothing is recorded or written.

        Weights, buffers, optimizers, frozen nodes, splits, scalers, the registry and all random generators are put back; for an
        evaluation only flags and generators, since it changes nothing else.
        """
        return self._previewed(_checked_item(phase, ExperimentPhase), kwargs)

    def preview_group(self, group: PhaseGroup, **kwargs: Any) -> PhaseGroupResults:
        """Like :meth:`run_group`, without any trace; see :meth:`preview_phase`."""
        return self._previewed(_checked_item(group, PhaseGroup), kwargs)

    def preview_run(self, **kwargs: Any) -> PhaseGroupResults:
        """Like :meth:`run`, without any trace; see :meth:`preview_phase`."""
        return self._previewed(self._plan, kwargs, whole=True)

    def run_apart(
        self,
        item: ExperimentPhase | PhaseGroup,
        *,
        label: str,
        featuresets: Sequence[FeatureSet] = (),
        reset_weights: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Run a phase or group for itself: what it changes is put back afterwards, also after an exception, but it stands in the history.

        Checkpoints go into a folder named like the run, inside of the folder where they go otherwise.

        Args:
            item: The phase or group.
            label: Of the run in the history; it also names the stream of random numbers that the run draws from.
            featuresets: They stand in for those with their ids while it runs.
            reset_weights: Whether it starts from the weights that the seed gives, not from those there are.
            **kwargs: As of :meth:`run`.

        Raises:
            TypeError: Neither a phase nor a group, or keywords that it does not know.
        """
        check_keywords(_checked_item(item, ExperimentPhase | PhaseGroup), kwargs)
        stream = self._stream
        with self._ctx.activate(), restoring(self._ctx, flags_only=False, items=[item], plan=self._plan):
            self._stream = Stream(self._seed, label)
            try:
                with self._ctx.use_policy(RegistrationPolicy.OVERWRITE):
                    for fs in featuresets:
                        self._ctx.register_experiment_node(fs)
                if reset_weights and self._ctx.model_graph is not None:
                    self._ctx.model_graph.reset_state()
                with in_subfolder(self, [item, self._plan], label):
                    return self._recorded(item, kwargs, label=label)
            finally:
                self._stream = stream

    @classmethod
    def resume(cls, path: str | os.PathLike[str], *, allow_packaged_code: bool = False, **run_kwargs: Any) -> Self:
        """Go on with a run that was begun with ``run_dir`` and did not come to its end, after its latest complete checkpoint.

        The experiment is read from the folder; the script that made it is not needed.  It goes on as if nothing had happened: steps after
        the checkpoint are made again; hooks of what was over, and ``*_start`` hooks of what had begun, are not called again.  Results,
        history and random numbers are those of one run.  Of a run that is over, the experiment is as it was at the end, and nothing runs.

        The experiment lives in the active context if that is empty, else in a new one, which becomes active.

        Args:
            path: The folder.
            allow_packaged_code: Whether code in its files may be run; read it first with ``inspect_packaged_code``.
            **run_kwargs: What :meth:`run` takes, but ``run_dir``.

        Returns:
            The experiment, whose ``last_run`` is the run.

        Raises:
            FileNotFoundError: The folder holds no run.
            ArtifactError: Its start is damaged.
            PackagedCodeError: It brings code, and that is not permitted.
            TypeError: Unknown keywords.
        """
        taken = resuming.taken_up(cls, path, allow_packaged_code=allow_packaged_code)
        check_keywords(taken.item, run_kwargs)
        taken.experiment._made(taken.item, run_kwargs, taken.whole, folder=taken.folder, state=taken.state)
        return taken.experiment  # type: ignore[no-any-return]

    def _recorded(
        self, item: Item, keywords: Mapping[str, Any], *, whole: bool = False, label: str | None = None, run_dir: Any = None
    ) -> Any:
        check_keywords(item, keywords)
        if not self._is_running:
            self._check_files()
            if self._ctx.model_graph is not None:
                self._ctx.model_graph.build()  # the state from which a run begins has its weights
        folder = None if run_dir is None else resuming.RunFolder.begun(run_dir, self, item, whole=whole)
        return self._made(item, keywords, whole, label, folder)

    def _made(
        self, item: Item, keywords: Mapping[str, Any], whole: bool, label: str | None = None, folder: Any = None, state: Any = None
    ) -> Any:
        outermost = not self._is_running
        hooks = CheckpointingHooks(self.exp_callbacks if outermost else [], self, writes=outermost)
        results = None if run_state.is_over(state) else self._results_folder(label or item.label)
        run = PlanRun(self, hooks, keywords, checkpoints=not self._checkpoints_off, folder=results, journal=folder)
        if whole and outermost and state is None and not self._is_preview:
            self._start = experiment_state.start_of(self)
        if outermost:
            self._current = lambda: self._record(item, run, label, run.span.so_far(hooks.is_over))
        try:
            with self._running():
                return run.execute(item, whole=whole, state=state)
        finally:
            if outermost:
                self._current = None
            if not self._is_preview:
                self._history.append(self._record(item, run, label, run.span))

    def _results_folder(self, label: str) -> RunFolder | None:
        """Where results of a new run are written; None keeps them in memory."""
        if self._results_config is None or self._is_preview:
            return None
        return self._results_config.run_folder(len(self._history), label)

    def _previewed(self, item: Item, keywords: Mapping[str, Any], *, whole: bool = False) -> Any:
        check_keywords(item, keywords)
        phases = item.flatten() if isinstance(item, PhaseGroup) else [item]
        run = PlanRun(self, ExperimentHooks([], experiment=self), keywords, checkpoints=False)
        stream, before = self._stream.get_state(), self._is_preview
        flags_only = all(isinstance(phase, EvalPhase) for phase in phases)
        with self._ctx.activate(), restoring(self._ctx, flags_only=flags_only, items=[item], plan=self._plan):
            self._is_preview = True
            try:
                with self._running(), self.disable_checkpointing():
                    return run.execute(item, whole=whole)
            finally:
                self._is_preview = before
                self._stream.set_state(stream)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """A run: its context is active, and its random numbers are the experiment's own."""
        outermost = not self._is_running
        self._is_running = True
        try:
            with self._ctx.activate(), self._stream.active() if outermost else contextlib.nullcontext():
                yield
        finally:
            self._is_running = not outermost

    def _check_files(self) -> None:
        """Refuse what cannot be written, before anything runs."""
        checkpointing = self.active_checkpointing
        if checkpointing is not None and checkpointing.directory is None and self.checkpoint_dir is None:
            raise RuntimeError(
                f"experiment {self._plan.label!r}: checkpoints go to files, and there is no folder: call set_checkpoint_dir(path),"
                " or pass Checkpointing(directory=...)"
            )

    def _record(self, item: Item, run: PlanRun, label: str | None, span: Span) -> ExperimentRun:
        phases = item.flatten() if isinstance(item, PhaseGroup) else [item]
        facts = {"seed": self._seed, "sampler_seeds": sampler_seeds(phases), **machine_facts(), **span.metadata}
        facts |= {} if label is None else {"apart": True}
        return ExperimentRun(
            label=span.label if label is None else label,
            started_at=span.started_at,
            ended_at=span.ended_at,
            status=span.status,
            results=run.results,
            execution_meta=_meta(span),
            metadata=facts,
        )

    # -- predictions

    def predict(
        self,
        data: Any,
        node: Any = None,
        *,
        unscale: bool = True,
        batch_size: int | None = None,
        fmt: DataFormat | str = "np",
    ) -> Any:
        """What a node makes of new raw data; nothing is registered, trained or kept.

        Args:
            data: A dict or DataFrame with the columns that are read, by key; a FeatureSet or view; or an array (n, columns, ...), the
                columns in alphabetical order.  If the graph reads several feature sets: a dict from their labels to such data.
            node: Node, id or label; None takes the only one that nobody reads.
            unscale: Whether outputs of a node that nobody reads are brought back into raw units, if its targets were read scaled.
            batch_size: Rows per step; None takes all at once.
            fmt: Tensor-like format of the answer.

        Returns:
            Outputs of shape (n, ...).

        Raises:
            RuntimeError: There is no built graph; or targets of several feature sets.
            ValueError: Columns that are missing or do not fit; several nodes that nobody reads and none named.
            KeyError: No such node.
            TypeError: A format that is not tensor-like.
            NotInvertibleError: The scaler of the targets cannot be undone for new rows.
        """
        with self._ctx.activate():
            return prediction.predict(self._ctx, data, node, unscale=unscale, batch_size=batch_size, fmt=fmt)


def _checked_item(item: Any, kind: Any) -> Any:
    if not isinstance(item, kind):
        raise TypeError(f"expected a {getattr(kind, '__name__', 'phase or group')}, got {type(item).__name__}")
    return item


def _meta(span: Span) -> PhaseExecutionMeta | PhaseGroupExecutionMeta:
    """The record of a phase, or of a group with everything inside."""
    facts: dict[str, Any] = {
        "label": span.label,
        "started_at": span.started_at,
        "ended_at": span.ended_at,
        "status": span.status,
        "metadata": span.metadata,
    }
    if span.inner is None:
        return PhaseExecutionMeta(**facts)
    made = PhaseGroupExecutionMeta(**facts)
    for inner in span.inner:
        made.add(_meta(inner))
    return made

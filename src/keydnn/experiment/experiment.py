"""Experiment: a plan of phases and groups, the context it runs in, and a record of its runs.

The work is done below: :mod:`keydnn.experiment.execution` runs plans, puts back what previews change, and keeps the record.
"""

from __future__ import annotations

import contextlib
import operator
import os
import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from keydnn.experiment import random_states
from keydnn.experiment.callbacks import ExperimentCallback
from keydnn.experiment.callbacks.dispatch import ExperimentHooks
from keydnn.experiment.context import ExperimentContext, RegistrationPolicy
from keydnn.experiment.data import DataFormat, FeatureSet
from keydnn.experiment.equality import same_values
from keydnn.experiment.execution import experiment_state, prediction, resuming, run_state
from keydnn.experiment.execution.experiment_checkpoints import CheckpointingHooks
from keydnn.experiment.execution.keeping import Keeping
from keydnn.experiment.execution.plan_running import PlanRun, check_keywords
from keydnn.experiment.execution.run_record import Span, machine_facts, run_table, sampler_seeds
from keydnn.experiment.execution.snapshot import restoring
from keydnn.experiment.graph import ModelGraph
from keydnn.experiment.io import InYaml
from keydnn.experiment.phases import Checkpointing, EvalPhase, ExperimentPhase, PhaseGroup
from keydnn.experiment.phases.callback_configs import callback_config, callback_from_config
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


class Experiment(Keeping, InYaml):
    """A plan of phases, run in a context of nodes, with a history of runs.

    Args:
        label: Name, also of the plan.
        registration_policy: What a taken label means for nodes made afterwards; None leaves the context's policy.
        ctx: The context; None makes a new one and makes it the active one.
        checkpointing: Of the whole experiment; see :meth:`set_checkpointing`.
        callbacks: ExperimentCallbacks; see :meth:`add_callback`.
        results_config: Which results are written to disk while they occur; None keeps all of them in memory.
        seed: Initial weights derive from it and the labels of nodes, and what runs draw (dropout) derives from it, too; None draws
            one.  Runs leave the global generators of Python, NumPy, torch and TensorFlow as they were.

    Raises:
        TypeError: A context, callback, checkpointing, config or seed of another type.
        ValueError: A checkpointing that does not fit an experiment, or a negative seed.

    Warns:
        UserWarning: The context belongs to a live experiment, whose link is taken over.

    Example:
        >>> from keydnn.experiment import Experiment, ExperimentContext
        >>> exp = Experiment("ageing", ctx=ExperimentContext(), seed=7)
        >>> len(exp.execution_plan), exp.history, exp.seed
        (0, [], 7)
    """

    def __init__(
        self,
        label: str,
        registration_policy: RegistrationPolicy | str | None = None,
        ctx: ExperimentContext | None = None,
        checkpointing: Checkpointing | None = None,
        callbacks: Sequence[ExperimentCallback] | None = None,
        results_config: ResultsConfig | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        if ctx is not None and not isinstance(ctx, ExperimentContext):
            raise TypeError(f"ctx must be an ExperimentContext, got {type(ctx).__name__}")
        policy = None if registration_policy is None else RegistrationPolicy.from_value(registration_policy)
        self._plan = PhaseGroup(label)
        self._results_config = _checked_results_config(results_config)
        self._callbacks = [_checked_callback(callback) for callback in callbacks or ()]
        super().__init__(checkpointing)
        self._history: list[ExperimentRun] = []
        self._start: Mapping[str, Any] | None = None
        self._current: Callable[[], ExperimentRun] | None = None  # the record of the run that goes on
        self._is_running = False
        self._is_preview = False
        self._seed = _checked_seed(seed)
        self._stream = Stream(self._seed, "runs")
        self._ctx = ExperimentContext() if ctx is None else ctx
        self._take(policy)
        if ctx is None:
            ExperimentContext.set_active(self._ctx)

    def _take(self, policy: RegistrationPolicy | None) -> None:
        """Link the context to this experiment."""
        other = self._ctx.get_experiment()
        if other is not None:
            warnings.warn(f"the context belongs to experiment {other.label!r}; {self.label!r} takes it over", UserWarning, stacklevel=3)
        self._ctx.set_experiment(self)
        self._ctx.set_entropy(self._seed)
        if policy is not None:
            self._ctx.set_registration_policy(policy)

    @classmethod
    def from_active_context(
        cls,
        label: str,
        registration_policy: RegistrationPolicy | str | None = None,
        checkpointing: Checkpointing | None = None,
        callbacks: Sequence[ExperimentCallback] | None = None,
        results_config: ResultsConfig | None = None,
        *,
        overwrite: bool = False,
        reset: bool = False,
        seed: int | None = None,
    ) -> Self:
        """An experiment over the nodes and the graph of the active context.

        Args:
            label: Name.
            registration_policy: As in the constructor.
            checkpointing: As in the constructor.
            callbacks: As in the constructor.
            results_config: As in the constructor.
            overwrite: Whether the link of a live experiment is taken over without a warning.
            reset: Whether the graph starts anew, with the weights that the seed gives; else it keeps its weights.
            seed: As in the constructor.

        Raises:
            RuntimeError: There is no active context.

        Warns:
            UserWarning: The context belongs to a live experiment, and ``overwrite`` is False.
        """
        ctx = ExperimentContext.get_active()
        before = ctx.get_experiment()
        if overwrite:
            ctx.set_experiment(None)
        try:
            made = cls(label, registration_policy, ctx, checkpointing, callbacks, results_config, seed=seed)
        except (TypeError, ValueError):
            ctx.set_experiment(before)
            raise
        if reset and ctx.model_graph is not None:
            ctx.model_graph.reset_state()
        return made

    # -- what it is

    @property
    def label(self) -> str:
        """Name."""
        return self._plan.label

    @property
    def ctx(self) -> ExperimentContext:
        """The context it runs in."""
        return self._ctx

    @property
    def seed(self) -> int:
        """The seed, given or drawn."""
        return self._seed

    @property
    def is_running(self) -> bool:
        """Whether a run goes on."""
        return self._is_running

    def random_numbers(self) -> random_states.RandomStates:
        """Where the random numbers of its runs are now."""
        return self._stream.get_state()

    def set_random_numbers(self, states: random_states.RandomStates) -> None:
        """Go on with the random numbers from where :meth:`random_numbers` told."""
        self._stream.set_state(states)

    @property
    def model_graph(self) -> ModelGraph | None:
        """The graph of the context."""
        return self._ctx.model_graph

    @property
    def execution_plan(self) -> PhaseGroup:
        """What :meth:`run` runs; a group with the experiment's label."""
        return self._plan

    @property
    def history(self) -> list[ExperimentRun]:
        """The runs, oldest first; a copy."""
        return list(self._history)

    def recorded_runs(self) -> list[ExperimentRun]:
        """The history, and the run that goes on, as it would be recorded if it stopped now."""
        return [*self._history, *([] if self._current is None else [self._current()])]

    @property
    def start(self) -> Mapping[str, Any] | None:
        """State from which the latest run of the plan began, and that run's place in the history; None before the first."""
        return self._start

    def set_history(self, runs: Sequence[ExperimentRun], start: Mapping[str, Any] | None = None) -> None:
        """Take other runs for the history, and another start of the latest run of the plan; for files that bring theirs."""
        self._history, self._start = list(runs), start

    @property
    def last_run(self) -> ExperimentRun | None:
        """The latest run; None before the first."""
        return self._history[-1] if self._history else None

    @property
    def results_config(self) -> ResultsConfig | None:
        """Which results are written to disk while they occur; None keeps all of them in memory."""
        return self._results_config

    def add_runs(self, runs: Iterable[ExperimentRun]) -> None:
        """Add runs that happened elsewhere to the history.

        Raises:
            TypeError: No ExperimentRun.
        """
        given = list(runs)
        for run in given:
            if not isinstance(run, ExperimentRun):
                raise TypeError(f"the history holds ExperimentRuns, got {type(run).__name__}")
        self._history.extend(given)

    def set_results_config(self, results_config: ResultsConfig | None) -> None:
        """Say which results of later runs are written to disk while they occur.

        Raises:
            TypeError: Neither a ResultsConfig nor None.
        """
        self._results_config = _checked_results_config(results_config)

    def run_table(self) -> Any:
        """A DataFrame with a line per run: label, status, start, duration in seconds, seed, error, and metrics at their last epoch.

        Metrics are named ``<phase>/<metric>``, inside of groups ``<group>/<phase>/<metric>``.
        """
        return run_table(self._history)

    # -- callbacks

    @property
    def exp_callbacks(self) -> list[ExperimentCallback]:
        """The experiment's callbacks in the order in which they are called; a copy."""
        return sorted(self._callbacks, key=lambda callback: callback.execution_order)

    def add_callback(self, cb: ExperimentCallback) -> None:
        """Have a callback called around runs, groups and phases: lower ``execution_order`` first, ties in the order of adding.

        Raises:
            TypeError: No ExperimentCallback.
        """
        self._callbacks.append(_checked_callback(cb))

    # -- runs

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
                if reset_weights and self.model_graph is not None:
                    self.model_graph.reset_state()
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
                f"experiment {self.label!r}: checkpoints go to files, and there is no folder: call set_checkpoint_dir(path),"
                " or pass Checkpointing(directory=...)"
            )

    def _record(self, item: Item, run: PlanRun, label: str | None, span: Span) -> ExperimentRun:
        phases = item.flatten() if isinstance(item, PhaseGroup) else [item]
        facts = {"seed": self._seed, "sampler_seeds": sampler_seeds(phases), **machine_facts(), **span.metadata}
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

    # -- config and state

    def get_config(self) -> dict[str, Any]:
        """What the user chose: label, policy, plan, checkpointing, callbacks, where results go, seed."""
        return {
            "label": self.label,
            "registration_policy": self._ctx.registration_policy.value,
            "execution_plan": self._plan.get_config(),
            "checkpointing": None if self._checkpointing is None else self._checkpointing.get_config(),
            "callbacks": [callback_config(callback) for callback in self._callbacks],
            "results_config": None if self._results_config is None else self._results_config.get_config(),
            "seed": self._seed,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The experiment a config describes, over the nodes of the active context.

        Warns:
            UserWarning: The context belongs to a live experiment, whose link is taken over.
        """
        checkpointing = config["checkpointing"]
        made = cls(
            config["label"],
            config["registration_policy"],
            ExperimentContext.get_active(),
            None if checkpointing is None else Checkpointing.from_config(checkpointing),
            [_checked_callback(callback_from_config(told)) for told in config["callbacks"]],
            None if config["results_config"] is None else ResultsConfig.from_config(config["results_config"]),
            seed=config.get("seed"),
        )
        made._plan = PhaseGroup.from_config(config["execution_plan"])
        return made

    def get_state(self) -> dict[str, Any]:
        """Context, history, checkpoints and where the random numbers of the runs are."""
        return {
            "ctx": self._ctx.get_state(),
            "history": list(self._history),
            "checkpoints": dict(self._checkpoints),
            "random": self._stream.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that :meth:`get_state` told in this process."""
        self._ctx.set_state(state["ctx"])
        self._history, self._checkpoints = list(state["history"]), dict(state["checkpoints"])
        self._stream.set_state(state["random"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and same_values(self.get_config(), other.get_config())

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Experiment({self.label!r}, {len(self._plan)} items, {len(self._history)} runs)"


def _checked_callback(callback: Any) -> ExperimentCallback:
    if not isinstance(callback, ExperimentCallback):
        raise TypeError(f"an experiment takes ExperimentCallbacks, got {type(callback).__name__}; a Callback belongs to a phase")
    return callback


def _checked_results_config(results_config: Any) -> ResultsConfig | None:
    if results_config is not None and not isinstance(results_config, ResultsConfig):
        raise TypeError(f"results_config must be a ResultsConfig or None, got {type(results_config).__name__}")
    return results_config


def _checked_seed(seed: Any) -> int:
    if seed is None:
        return secrets.randbits(63)
    number = operator.index(seed)
    if number < 0:
        raise ValueError(f"seed must be 0 or above, got {number}")
    return number


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

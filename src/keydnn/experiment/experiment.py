"""Experiment: a plan of phases and groups, the context it runs in, and a record of its runs.

The work is done below: :mod:`keydnn.experiment.execution` runs plans, puts back what previews change, and keeps the record.
"""

from __future__ import annotations

import contextlib
import operator
import os
import secrets
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from keydnn.experiment.callbacks import ExperimentCallback
from keydnn.experiment.callbacks.dispatch import ExperimentHooks
from keydnn.experiment.context import ExperimentContext, RegistrationPolicy
from keydnn.experiment.data import DataFormat, FeatureSet
from keydnn.experiment.equality import same_values
from keydnn.experiment.execution import experiment_file, prediction
from keydnn.experiment.execution.plan_running import PlanRun, check_keywords
from keydnn.experiment.execution.run_record import Span, machine_facts, run_table, sampler_seeds
from keydnn.experiment.execution.snapshot import restoring
from keydnn.experiment.graph import ModelGraph
from keydnn.experiment.phases import Checkpointing, EvalPhase, ExperimentPhase, PhaseGroup
from keydnn.experiment.phases.callback_configs import callback_config, callback_from_config
from keydnn.experiment.random_states import Stream
from keydnn.experiment.results import (
    ExperimentRun,
    PhaseExecutionMeta,
    PhaseGroupExecutionMeta,
    PhaseGroupResults,
)

Item = ExperimentPhase | PhaseGroup


class Experiment:
    """A plan of phases, run in a context of nodes, with a history of runs.

    Args:
        label: Name, also of the plan.
        registration_policy: What a taken label means for nodes made afterwards; None leaves the context's policy.
        ctx: The context; None makes a new one and makes it the active one.
        checkpointing: Of the whole experiment; see :meth:`set_checkpointing`.
        callbacks: ExperimentCallbacks; see :meth:`add_callback`.
        results_config: Where results are written while they occur; only None yet.
        seed: Initial weights derive from it and the labels of nodes, and what runs draw (dropout) derives from it, too; None draws
            one.  Runs leave the global generators of Python, NumPy, torch and TensorFlow as they were.

    Raises:
        TypeError: A context, callback, checkpointing, config or seed of another type.
        ValueError: A checkpointing that does not fit an experiment, or a negative seed.
        NotImplementedError: ``results_config`` is given.

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
        results_config: None = None,
        *,
        seed: int | None = None,
    ) -> None:
        if ctx is not None and not isinstance(ctx, ExperimentContext):
            raise TypeError(f"ctx must be an ExperimentContext, got {type(ctx).__name__}")
        if results_config is not None:
            raise NotImplementedError("results are not written to disk yet: leave results_config out")
        policy = None if registration_policy is None else RegistrationPolicy.from_value(registration_policy)
        self._plan = PhaseGroup(label)
        self._callbacks = [_checked_callback(callback) for callback in callbacks or ()]
        self._checkpointing = _checked_checkpointing(checkpointing)
        self._history: list[ExperimentRun] = []
        self._checkpoints: dict[str, Path] = {}
        self._checkpoints_off = False
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
        results_config: None = None,
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
    def stream(self) -> Stream:
        """The random numbers that its runs draw."""
        return self._stream

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

    @property
    def last_run(self) -> ExperimentRun | None:
        """The latest run; None before the first."""
        return self._history[-1] if self._history else None

    @property
    def results_config(self) -> None:
        """Where results are written: nowhere yet."""
        return None

    @property
    def available_checkpoints(self) -> dict[str, Path]:
        """Name of a checkpoint on disk to its file; a copy."""
        return dict(self._checkpoints)

    def run_table(self) -> Any:
        """A DataFrame with a line per run: label, status, start, duration in seconds, seed, error, and metrics at their last epoch.

        Metrics are named ``<phase>/<metric>``, inside of groups ``<group>/<phase>/<metric>``.
        """
        return run_table(self._history)

    # -- callbacks and checkpoints

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

    @property
    def checkpointing(self) -> Checkpointing | None:
        """When the whole experiment is saved; None never."""
        return self._checkpointing

    def set_checkpointing(self, checkpointing: Checkpointing | None) -> None:
        """Say when the whole experiment is saved.

        Raises:
            TypeError: No Checkpointing.
            ValueError: Its mode is "memory", or its hooks are those of a training phase.
        """
        self._checkpointing = _checked_checkpointing(checkpointing)

    @contextlib.contextmanager
    def disable_checkpointing(self) -> Iterator[None]:
        """Inside the block neither the experiment nor a phase keeps checkpoints."""
        before, self._checkpoints_off = self._checkpoints_off, True
        try:
            yield
        finally:
            self._checkpoints_off = before

    # -- runs

    def run(self, **kwargs: Any) -> PhaseGroupResults:
        """Run the plan, from the weights there are now.

        Args:
            **kwargs: ``show_sampler_progress=True``, ``show_training_progress=True``, ``show_eval_progress=False``,
                ``persist_progress``, ``persist_epoch_progress``, ``val_loss_metric="val_loss"``; each phase gets those it knows.

        Raises:
            TypeError: Unknown keywords.
            NotImplementedError: The experiment itself is to be written to disk while it runs.
        """
        return self._recorded(self._plan, kwargs, whole=True)

    def run_phase(self, phase: ExperimentPhase, **kwargs: Any) -> Any:
        """Run a phase, of the plan or not.

        Args:
            phase: The phase.
            **kwargs: Those of :meth:`run` that it knows.

        Returns:
            TrainResults, EvalResults or FitResults.

        Raises:
            TypeError: No phase, or keywords that it does not know.
        """
        return self._recorded(_checked_item(phase, ExperimentPhase), kwargs)

    def run_group(self, group: PhaseGroup, **kwargs: Any) -> PhaseGroupResults:
        """Run a group, of the plan or not; see :meth:`run`.

        Raises:
            TypeError: No group, or unknown keywords.
        """
        return self._recorded(_checked_item(group, PhaseGroup), kwargs)

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
        with self._ctx.activate(), restoring(self._ctx, flags_only=False):
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

    def _recorded(self, item: Item, keywords: Mapping[str, Any], *, whole: bool = False, label: str | None = None) -> Any:
        check_keywords(item, keywords)
        self._check_files()
        outermost = not self._is_running
        hooks = ExperimentHooks(self.exp_callbacks if outermost else [], experiment=self)
        run = PlanRun(self, hooks, keywords, checkpoints=not self._checkpoints_off)
        try:
            with self._running():
                return run.execute(item, whole=whole)
        finally:
            if not self._is_preview:
                self._history.append(self._record(item, run, label))

    def _previewed(self, item: Item, keywords: Mapping[str, Any], *, whole: bool = False) -> Any:
        check_keywords(item, keywords)
        phases = item.flatten() if isinstance(item, PhaseGroup) else [item]
        run = PlanRun(self, ExperimentHooks([], experiment=self), keywords, checkpoints=False)
        stream, before = self._stream.get_state(), self._is_preview
        with self._ctx.activate(), restoring(self._ctx, flags_only=all(isinstance(phase, EvalPhase) for phase in phases)):
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
        """Refuse what would have to be written and cannot be yet, before anything runs."""
        if self._checkpointing is not None and not self._checkpoints_off:
            raise NotImplementedError("experiments are not written to disk yet: give a Checkpointing to a TrainPhase, or disable this one")

    def _record(self, item: Item, run: PlanRun, label: str | None) -> ExperimentRun:
        phases = item.flatten() if isinstance(item, PhaseGroup) else [item]
        facts = {"seed": self._seed, "sampler_seeds": sampler_seeds(phases), **machine_facts(), **run.span.metadata}
        return ExperimentRun(
            label=run.span.label if label is None else label,
            started_at=run.span.started_at,
            ended_at=run.span.ended_at,
            status=run.span.status,
            results=run.results,
            execution_meta=_meta(run.span),
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
            "results_config": None,
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
            config["results_config"],
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

    # -- files

    def save(self, filepath: str | os.PathLike[str], *, overwrite: bool = False, include_data: bool = True) -> Path:
        """Write feature sets, graph, plan, callbacks, history and random numbers to ``<name>.exp.mml``.

        Nodes that the graph does not hold are left out.  The same content gives the same bytes.

        Args:
            filepath: Name of the file; the suffix is forced on what stands before its first dot.
            overwrite: Whether an existing file may be replaced.
            include_data: Whether the values of the samples are written.  Without them the file holds their schema, ids, splits, scalers and
                fingerprint: results can still be asked for, and whatever needs a value raises SampleLoadError.

        Returns:
            The path of the file.

        Raises:
            FileExistsError: The file exists and ``overwrite`` is False.
            PackagedCodeError: A class or function can be neither named nor packaged: it stands in ``__main__`` or inside a function.
            TypeError: The state of a callback holds something that a file cannot say.
            SampleLoadError: The data are to be written and are not here.

        Example:
            >>> from keydnn.experiment import Experiment, ExperimentContext
            >>> exp = Experiment("ageing", ctx=ExperimentContext(), seed=7)
            >>> path = exp.save("runs/ageing")
            >>> path.name, Experiment.load(path) == exp
            ('ageing.exp.mml', True)
        """
        return experiment_file.write_experiment(self, filepath, overwrite=overwrite, include_data=include_data)

    @classmethod
    def load(cls, filepath: str | os.PathLike[str], *, allow_packaged_code: bool = False, overwrite: bool = False) -> Self:
        """Read an experiment; the script that made it is not needed.

        Its nodes go into the active context.  If that has an experiment or a graph already, they go into a new one, which becomes active.
        A load that fails leaves the active context as it was.

        Args:
            filepath: The file, with or without its suffix.
            allow_packaged_code: Whether code in the file may be run; read it first with ``inspect_packaged_code``.
            overwrite: Whether nodes replace those that are registered.  Otherwise an identical feature set that is registered is taken
                instead of the loaded one, and other nodes whose ids are taken get new ones.

        Raises:
            FileNotFoundError: No such file.
            ArtifactError: No experiment, or a damaged or hostile file.
            PackagedCodeError: It brings code, and that is not permitted.
            SymbolResolutionError: It names a class that is registered nowhere here.
            ValueError: A label of a compute node is taken and the policy of the active context is "error".
        """
        return experiment_file.read_experiment(cls, filepath, allow_packaged_code=allow_packaged_code, overwrite=overwrite)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and same_values(self.get_config(), other.get_config())

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Experiment({self.label!r}, {len(self._plan)} items, {len(self._history)} runs)"


def _checked_callback(callback: Any) -> ExperimentCallback:
    if not isinstance(callback, ExperimentCallback):
        raise TypeError(f"an experiment takes ExperimentCallbacks, got {type(callback).__name__}; a Callback belongs to a phase")
    return callback


def _checked_checkpointing(checkpointing: Any) -> Checkpointing | None:
    if checkpointing is None:
        return None
    if not isinstance(checkpointing, Checkpointing):
        raise TypeError(f"checkpointing must be a Checkpointing or None, got {type(checkpointing).__name__}")
    checkpointing.check_for_experiment()
    return checkpointing


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

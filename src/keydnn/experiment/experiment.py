"""Experiment: a plan of phases and groups, the context it runs in, and a record of its runs.

The work is done below: :mod:`keydnn.experiment.execution` runs plans, puts back what previews change, and keeps the record.
"""

from __future__ import annotations

import operator
import secrets
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from keydnn.experiment import random_states
from keydnn.experiment.callbacks import ExperimentCallback
from keydnn.experiment.context import ExperimentContext, RegistrationPolicy
from keydnn.experiment.equality import same_values
from keydnn.experiment.execution.run_record import run_table
from keydnn.experiment.execution.running import Running
from keydnn.experiment.graph import ModelGraph
from keydnn.experiment.io import InYaml
from keydnn.experiment.phases import Checkpointing, ExperimentPhase, PhaseGroup
from keydnn.experiment.phases.callback_configs import callback_config, callback_from_config
from keydnn.experiment.results import (
    ExperimentRun,
    ResultsConfig,
)
from keydnn.experiment.results.state import write_results
from keydnn.experiment.visualization.summary import summary_box

Item = ExperimentPhase | PhaseGroup


class Experiment(Running, InYaml):
    """A plan of phases, run in a context of nodes, with a history of runs.

    Args:
        label: Name, also of the plan.
        registration_policy: What a taken label means for nodes made afterwards; None leaves the context's policy.
        ctx: The context; None makes a new one and makes it the active one.
        checkpointing: Of the whole experiment; see :meth:`set_checkpointing`.
        callbacks: ExperimentCallbacks; see :meth:`add_callback`.
        results_config: Which results are written to disk while they occur; None keeps all of them in memory.
        seed: Weights that the graph draws derive from it and the labels of nodes, and what runs draw (dropout) derives from it, too;
            None draws one.  Layers that were told all their sizes, such as ``Linear(30, 16)`` and most layers of torch, drew theirs when
            they were made, from the global generator: ``exp.model_graph.reset_state()`` before the first run draws them anew, from the
            seed.  Runs leave the global generators of Python, NumPy, torch and TensorFlow as they were.

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
        super().__init__(checkpointing, _checked_seed(seed))
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
        """Add runs that happened elsewhere to the history; with a ``results_config`` their results are written to disk.

        Raises:
            TypeError: No ExperimentRun.
        """
        given = list(runs)
        for run in given:
            if not isinstance(run, ExperimentRun):
                raise TypeError(f"the history holds ExperimentRuns, got {type(run).__name__}")
        for run in given:
            folder = self._results_folder(run.label)
            if folder is not None and run.results is not None:
                write_results(run.results, folder)
            self._history.append(run)

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

    def summary(self, max_width: int = 88) -> str:
        """A box of text: seed, feature sets with their splits, the graph, the plan, and what became of the runs."""
        sets = [(fs.label, _set_rows(fs)) for fs in self._ctx.available_featuresets.values()]
        graph = self._ctx.model_graph
        nodes = [] if graph is None else [(node.label, _node_text(node)) for node in graph.executed_nodes()]
        rows: list[tuple[str, Any]] = [("label", self.label), ("seed", self._seed), ("feature sets", sets or "none")]
        with self._ctx.activate():  # where phases look up the labels of nodes
            rows += [("graph", nodes or "none"), ("plan", self._plan.summary_rows() or "empty")]
        runs = [(run.label, run.status) for run in self._history]
        return summary_box(type(self).__name__, [*rows, ("runs", runs or "none")], max_width)

    # -- callbacks

    def add_callback(self, cb: ExperimentCallback) -> None:
        """Have a callback called around runs, groups and phases: lower ``execution_order`` first, ties in the order of adding.

        Raises:
            TypeError: No ExperimentCallback.
        """
        self._callbacks.append(_checked_callback(cb))

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


def _set_rows(fs: Any) -> list[tuple[str, Any]]:
    return [("n_samples", fs.n_samples), *((f"split {name}", len(fs.get_split(name))) for name in fs.available_splits)]


def _node_text(node: Any) -> str:
    return f"{type(node).__name__} ({node.backend.value}) of {', '.join(str(one.node_label) for one in node.get_upstream_refs())}"


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

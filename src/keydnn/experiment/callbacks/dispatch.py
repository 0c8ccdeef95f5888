"""Calling callbacks: only hooks that somebody wrote, with results stored and frozen nodes and modes put back."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keydnn.experiment.callbacks.callback import Callback, ExperimentCallback
from keydnn.experiment.callbacks.results import ArtifactResult, CallbackResult, MetricResult, PayloadResult, Scope
from keydnn.experiment.graph import ModelNode

Calls = list[tuple[Any, Callable[..., Any]]]


def written(callbacks: Sequence[Any], base: type, hook: str) -> Calls:
    """Callback and method, for those that override a hook, by execution order."""
    ordered = sorted(callbacks, key=lambda callback: callback.execution_order)
    pairs = [(callback, getattr(callback, hook)) for callback in ordered]
    return [(callback, call) for callback, call in pairs if getattr(call, "__func__", None) is not getattr(base, hook)]


def store(results: Any, value: Any, *, callback_label: str, phase_label: str, scope: Scope) -> None:
    """Put what a hook returned into the results of its phase; a metric goes to the metrics too, an artifact to the artifacts.

    Args:
        results: Of the phase.
        value: None is left out; anything that is no CallbackResult becomes a payload.
        callback_label: Of the callback.
        phase_label: Of the phase.
        scope: Epoch, batch and edge.
    """
    if value is None:
        return
    result = copy.copy(value) if isinstance(value, CallbackResult) else PayloadResult(payload=value)
    result.callback_label, result.phase_label = callback_label, phase_label
    result.epoch_idx, result.batch_idx, result.edge = scope
    results.add_callback_result(result)
    place = {"epoch_idx": result.epoch_idx, "batch_idx": result.batch_idx}
    if isinstance(result, MetricResult):
        results.metric_store.log(name=result.metric_name, value=result.metric_value, **place)
    if isinstance(result, ArtifactResult):
        results.artifact_store.log(name=result.artifact_name, artifact=result.artifact, **place)


@contextlib.contextmanager
def settings_kept(graph: Any) -> Iterator[None]:
    """Put back afterwards which nodes are frozen and in which mode their models are; nodes that came or went meanwhile are left alone."""
    nodes = [] if graph is None else [node for node in graph.nodes.values() if isinstance(node, ModelNode)]
    before = [(node, node.is_frozen, _modes(node)) for node in nodes]
    try:
        yield
    finally:
        for node, frozen, modes in before:
            if node.is_frozen is not frozen:
                (node.freeze if frozen else node.unfreeze)()
            now = _modes(node)
            if modes != now and len(modes or ()) == len(now or ()):
                node.face.set_modes(node.model.module, modes)


def _modes(node: ModelNode) -> list[bool] | None:
    return node.face.modes(node.model.module) if node.has_gradients and node.model.module is not None else None


class PhaseHooks:
    """The callbacks of one run of a phase.

    Args:
        callbacks: Callback objects.
        experiment: Handed to the hooks; its ``model_graph`` is the graph whose settings are kept.
        phase: Handed to the hooks.
        results: Handed to the hooks; what they return is stored there.

    Attributes:
        has_any: Whether any hook is written.
        has_batch_hooks: Whether one of a batch is.
    """

    def __init__(self, callbacks: Sequence[Callback], *, experiment: Any, phase: Any, results: Any) -> None:
        self._experiment, self._phase, self._results = experiment, phase, results
        self._calls = {hook: written(callbacks, Callback, hook) for hook in Callback.HOOKS}
        self.has_any = any(self._calls.values())
        self.has_batch_hooks = bool(self._calls["on_batch_start"] or self._calls["on_batch_end"])

    def phase_start(self) -> None:
        """Before the first step."""
        self._run("on_phase_start", (None, None, "start"), {})

    def phase_end(self) -> None:
        """After the last epoch."""
        self._run("on_phase_end", (None, None, "end"), {})

    def epoch_start(self, ctx: Any) -> None:
        """Before the first step of an epoch, whose context is given."""
        self._run("on_epoch_start", (ctx.epoch_idx, None, "start"), {"exec_ctx": ctx})

    def epoch_end(self, ctx: Any) -> None:
        """After the last step of an epoch, whose context is given."""
        self._run("on_epoch_end", (ctx.epoch_idx, None, "end"), {"exec_ctx": ctx})

    def batch_start(self, ctx: Any) -> None:
        """Before a step."""
        self._run("on_batch_start", (ctx.epoch_idx, ctx.batch_idx, "start"), {"exec_ctx": ctx})

    def batch_end(self, ctx: Any) -> None:
        """After a step."""
        self._run("on_batch_end", (ctx.epoch_idx, ctx.batch_idx, "end"), {"exec_ctx": ctx})

    def exception(self, ctx: Any, error: BaseException) -> None:
        """When something failed; ``ctx`` is the last step, or None. All hooks are called, whatever one of them raises."""
        scope = (None, None, "exception") if ctx is None else (ctx.epoch_idx, ctx.batch_idx, "exception")
        calls = self._calls["on_exception"]
        if not calls:
            return
        with settings_kept(self._experiment.model_graph), contextlib.ExitStack() as all_of_them:
            for callback, call in reversed(calls):
                all_of_them.callback(self._call, callback, call, scope, {"exec_ctx": ctx, "exception": error})

    def _run(self, hook: str, scope: Scope, arguments: dict[str, Any]) -> None:
        calls = self._calls[hook]
        if not calls:
            return
        with settings_kept(self._experiment.model_graph):
            for callback, call in calls:
                self._call(callback, call, scope, arguments)

    def _call(self, callback: Callback, call: Callable[..., Any], scope: Scope, arguments: dict[str, Any]) -> None:
        value = call(experiment=self._experiment, phase=self._phase, results=self._results, **arguments)
        store(self._results, value, callback_label=callback.label, phase_label=self._phase.label, scope=scope)


class ExperimentHooks:
    """The callbacks of one run of an experiment.

    Args:
        callbacks: ExperimentCallback objects.
        experiment: Handed to the hooks.

    Attributes:
        has_any: Whether any hook is written.
    """

    def __init__(self, callbacks: Sequence[ExperimentCallback], experiment: Any) -> None:
        self._experiment = experiment
        self._calls = {hook: written(callbacks, ExperimentCallback, hook) for hook in ExperimentCallback.HOOKS}
        self.has_any = any(self._calls.values())

    def experiment_start(self) -> None:
        """Before the first phase."""
        self._run("on_experiment_start")

    def experiment_end(self) -> None:
        """After the last phase."""
        self._run("on_experiment_end")

    def phase_start(self, phase: Any) -> None:
        """Before a phase."""
        self._run("on_phase_start", phase=phase)

    def phase_end(self, phase: Any, results: Any) -> None:
        """After a phase."""
        self._run("on_phase_end", phase=phase, results=results)

    def group_start(self, group: Any) -> None:
        """Before the items of a group."""
        self._run("on_group_start", group=group)

    def group_end(self, group: Any, results: Any) -> None:
        """After the items of a group."""
        self._run("on_group_end", group=group, results=results)

    def exception(self, phase: Any, exception: BaseException) -> None:
        """When a phase failed; all hooks are called, whatever one of them raises."""
        with contextlib.ExitStack() as all_of_them:
            for _, call in reversed(self._calls["on_exception"]):
                all_of_them.callback(_call_with, call, {"experiment": self._experiment, "phase": phase, "exception": exception})

    def _run(self, hook: str, **arguments: Any) -> None:
        for _, call in self._calls[hook]:
            _call_with(call, {"experiment": self._experiment, **arguments})


def _call_with(call: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Call with as many of the arguments as are taken: the first ones by position, the rest by name where it is known."""
    parameters = inspect.signature(call).parameters.values()
    by_position = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        by_position = len(arguments)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    rest = dict(list(arguments.items())[by_position:])
    call(*list(arguments.values())[:by_position], **{name: value for name, value in rest.items() if takes_all or name in names})

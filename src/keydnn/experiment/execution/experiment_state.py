"""What an experiment knows beside its config, as plain values, and back.

:func:`told` is what lies in an experiment's file beside its feature sets and its graph; :func:`full_state` is a checkpoint, which holds
these as well, but not the values of the samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from keydnn.experiment.data import feature_set_state
from keydnn.experiment.errors import StateMismatchError
from keydnn.experiment.graph.graph_file import ids_by_label, ids_in, renamed
from keydnn.experiment.phases import PhaseGroup
from keydnn.experiment.random_files import states_of, told_states
from keydnn.experiment.results.state import run_from_state, run_state
from keydnn.experiment.undo import unless_done


def told(experiment: Any) -> dict[str, Any]:
    """History, the start of the latest run of the plan, random numbers, what callbacks know, and the experiment's checkpointing counted."""
    history = [run_state(run) for run in experiment.recorded_runs()]
    return {"history": history, "start": experiment.start, **_now(experiment)}


def _now(experiment: Any) -> dict[str, Any]:
    checkpointing = experiment.checkpointing
    return {
        "random": told_states(experiment.random_numbers()),
        "callbacks": _callback_states(experiment),
        "counts": None if checkpointing is None else checkpointing.get_progress()["counts"],
    }


def take(experiment: Any, state: Mapping[str, Any]) -> None:
    """Take back :func:`told`; states of callbacks that are not here are left out."""
    history, random = [run_from_state(one) for one in state["history"]], states_of(state["random"])
    for key, callback in _callbacks(experiment):
        if key in state["callbacks"]:
            callback.set_state(state["callbacks"][key])
    if state["counts"] is not None and experiment.checkpointing is not None:
        now = experiment.checkpointing.get_progress()
        experiment.checkpointing.set_progress({**now, "counts": state["counts"]})
    experiment.set_random_numbers(random)
    experiment.set_history(history, state.get("start"))


def full_state(experiment: Any) -> dict[str, Any]:
    """:func:`told`, with the state of the graph and what can change of the feature sets."""
    return {**told(experiment), **_nodes(experiment)}


def start_of(experiment: Any) -> dict[str, Any]:
    """The state from which a run of the plan begins, and the place that it will have in the history."""
    return {"run": len(experiment.history), "state": {**_now(experiment), **_nodes(experiment)}}


def _nodes(experiment: Any) -> dict[str, Any]:
    ctx = experiment.ctx
    sets = {node_id: feature_set_state.told(fs) for node_id, fs in ctx.available_featuresets.items()}
    return {"feature_sets": sets, "model_graph": None if ctx.model_graph is None else ctx.model_graph.get_state()}


def take_full(experiment: Any, state: Mapping[str, Any]) -> None:
    """Take back :func:`full_state`; nodes are found by id, else by label.

    Raises:
        StateMismatchError: A feature set or the graph is not here, or is another one.
    """
    ctx = experiment.ctx
    ids = ids_by_label(state["feature_sets"], ctx.available_featuresets)
    there = {ids.get(node_id, node_id): told["label"] for node_id, told in state["feature_sets"].items()}
    if missing := [label for node_id, label in there.items() if node_id not in ctx.available_featuresets]:
        raise StateMismatchError(f"the checkpoint knows feature sets that are not here: {', '.join(map(repr, missing))}")
    if state["model_graph"] is not None:
        ids |= _ids_in(ctx.model_graph, state["model_graph"])
    state = renamed(state, ids)
    sets = [(ctx.available_featuresets[node_id], told) for node_id, told in state["feature_sets"].items()]
    fresh = [(fs, feature_set_state.state_of(fs, told)) for fs, told in sets]
    with unless_done(experiment):
        for fs, inner in fresh:
            fs.set_state(inner)
        if state["model_graph"] is not None:
            ctx.model_graph.set_state(state["model_graph"])
        take(experiment, state)


def take_graph(experiment: Any, state: Mapping[str, Any]) -> None:
    """Put the graph of an experiment into a state; nodes are found by id, else by label.

    Raises:
        StateMismatchError: There is no graph, or it has other nodes.
    """
    graph = experiment.model_graph
    state = renamed(state, _ids_in(graph, state))
    with unless_done(experiment):
        graph.set_state(state)


def _ids_in(graph: Any, state: Mapping[str, Any]) -> dict[str, str]:
    """Id in the state of a graph to id here.

    Raises:
        StateMismatchError: There is no graph, or it has other nodes.
    """
    if graph is None:
        raise StateMismatchError("the checkpoint holds the state of a graph, and the context of the experiment has none")
    return ids_in(graph, state)


# -- callbacks --------------------------------------------------------------------------------------------------------------


def _callback_states(experiment: Any) -> dict[str, Any]:
    found = {key: callback.get_state() for key, callback in _callbacks(experiment)}
    return {key: state for key, state in found.items() if state}


def _callbacks(experiment: Any) -> Iterator[tuple[str, Any]]:
    """Every callback under a name of its own: where it stands, its class and its label."""
    for i, callback in enumerate(experiment.exp_callbacks):
        yield f"{i}:{type(callback).__name__}:{callback.label}", callback
    for path, phase in _phases(experiment.execution_plan, ""):
        for callback in phase.callbacks:
            yield f"{path}:{type(callback).__name__}:{callback.label}", callback


def _phases(group: PhaseGroup, above: str) -> Iterator[tuple[str, Any]]:
    for item in group.all:
        if isinstance(item, PhaseGroup):
            yield from _phases(item, f"{above}{item.label}/")
        else:
            yield f"{above}{item.label}", item

"""What an experiment knows beside its config, its feature sets and its graph, as plain values, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from keydnn.experiment.phases import PhaseGroup
from keydnn.experiment.random_files import states_of, told_states


def told(experiment: Any) -> dict[str, Any]:
    """Random numbers and what callbacks know: JSON values, tuples and arrays."""
    return {"random": told_states(experiment.stream.get_state()), "callbacks": _callback_states(experiment)}


def take(experiment: Any, state: Mapping[str, Any]) -> None:
    """Take back :func:`told`; states of callbacks that are not here are left out."""
    experiment.stream.set_state(states_of(state["random"]))
    states = state["callbacks"]
    for key, callback in _callbacks(experiment):
        if key in states:
            callback.set_state(states[key])


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

"""What a preview puts back: everything that training can change, or, for an evaluation, flags and random states alone."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

from keydnn.experiment import random_states
from keydnn.experiment.callbacks import Evaluation
from keydnn.experiment.callbacks.dispatch import settings_kept
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.phases import ExperimentPhase, PhaseGroup

Item = ExperimentPhase | PhaseGroup


@contextlib.contextmanager
def restoring(ctx: ExperimentContext, *, flags_only: bool, items: Sequence[Item] = (), plan: PhaseGroup | None = None) -> Iterator[None]:
    """After the block, also when it raised, the context, what ran in it and all random generators are as they were before.

    Put back are weights, buffers, what optimizers learned, frozen nodes and modes, splits, scalers, the registry, the nodes of the graph,
    their connections and labels, the phases of the plan with their arguments, and the states of callbacks.  Tables, row numbers and scaler
    records are shared; weights and states of optimizers are copied.  A graph that is not built is built first: the weights that it gets
    are those that it would get later, too.

    Args:
        ctx: The context.
        flags_only: Whether what runs inside changes no more than frozen nodes and modes, as an evaluation does; then nothing of the graph
            is copied.
        items: What runs inside.
        plan: The plan of the experiment, which callbacks can reach.
    """
    graph = ctx.model_graph
    with random_states.kept():
        if graph is not None and not flags_only:
            graph.build()
        with settings_kept(graph):
            state = None if flags_only else ctx.get_state()
            plans = _Plans([*items, *([] if plan is None else [plan])], items)
            try:
                yield
            finally:
                plans.restore()
                if state is not None:
                    ctx.set_state(state)


class _Plans:
    """Groups and phases as they are, with the states of the callbacks of what will run.

    Args:
        kept: Groups and phases.
        running: Those whose callbacks will run.
    """

    def __init__(self, kept: Sequence[Item], running: Sequence[Item]) -> None:
        self._attributes: list[tuple[Any, dict[str, Any], list[tuple[list[Any], list[Any]]]]] = []
        for thing in _all_of(kept):
            lists = [(value, list(value)) for value in vars(thing).values() if type(value) is list]
            self._attributes.append((thing, dict(vars(thing)), lists))
        callbacks = [callback for item in _all_of(running) if isinstance(item, ExperimentPhase) for callback in item.callbacks]
        self._states = [(callback, copy.deepcopy(callback.get_state())) for callback in callbacks]

    def restore(self) -> None:
        """Put it all back."""
        for thing, attributes, lists in self._attributes:
            vars(thing).clear()
            vars(thing).update(attributes)
            for value, entries in lists:
                value[:] = entries
        for callback, state in self._states:
            callback.set_state(state)


def _all_of(items: Sequence[Item]) -> list[Item]:
    """Groups, and phases with those that their callbacks evaluate, each once."""
    found: dict[int, Item] = {}
    waiting = list(items)
    while waiting:
        item = waiting.pop()
        if id(item) in found:
            continue
        found[id(item)] = item
        waiting += item.all if isinstance(item, PhaseGroup) else [cb.eval_phase for cb in item.callbacks if isinstance(cb, Evaluation)]
    return list(found.values())

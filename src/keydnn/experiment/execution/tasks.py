"""Independent runs of one experiment, done elsewhere: what is sent, and what comes back into results and history."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from keydnn.experiment.execution.executors import IExecutor
from keydnn.experiment.execution.shipping import Classes, check_parts, heard, packed
from keydnn.experiment.execution.subfolders import files_told
from keydnn.experiment.execution.worker import perform
from keydnn.experiment.io.classes import REGISTRIES, import_string
from keydnn.experiment.results.state import run_from_state


@dataclasses.dataclass(frozen=True)
class Task:
    """One run.

    Attributes:
        label: Of the run.
        group: Label under which the group runs.
        rows: Id of a feature set to split to rows; see :func:`~keydnn.experiment.data.resplitting.resplit`.
        options: Keywords of ``Experiment.run_apart``.
    """

    label: str
    group: str
    rows: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def perform_elsewhere(executor: IExecutor, experiment: Any, item: Any, tasks: Sequence[Task], advance: Callable[[int], None]) -> list[Any]:
    """Run a group once per task, from the state the experiment is in; the runs enter the history in the order of the tasks.

    Args:
        executor: Where.
        experiment: Whose copies run.
        item: The group.
        tasks: What differs.
        advance: Is told 1 for each run that is done.

    Returns:
        The results, in the order of the tasks.

    Raises:
        TypeError: Something cannot be sent to another process; nothing was started then.
        TaskFailed: Workers died too often.
        Exception: What the first failed run raised.
    """
    classes: Classes = {}
    base = _base(experiment, item, classes)
    tables = tables_of(experiment.ctx)
    answers: dict[int, Any] = {}

    def done(i: int, answer: bytes) -> None:
        answers[i] = heard(answer, classes)
        advance(1)

    told = [
        packed({"label": task.label, "group": task.group, "rows": dict(task.rows), "options": dict(task.options)}, classes)
        for task in tasks
    ]
    try:
        executor.run(perform, base, tables, told, done)
    finally:
        with experiment.ctx.activate():
            runs = {i: run_from_state(answer["run"]) for i, answer in sorted(answers.items()) if answer["run"] is not None}
        experiment.add_runs(runs.values())
        for _, answer in sorted(answers.items()):
            for name, path in answer["checkpoints"].items():
                experiment.checkpoint_written(name, Path(path))
    for i in sorted(answers):
        if answers[i]["error"] is not None:
            raise answers[i]["error"]
    return [runs[i].results for i in sorted(runs)]


def _base(experiment: Any, item: Any, classes: Classes) -> bytes:
    """What all tasks share, as bytes; if it cannot be sent the part that is to blame is named."""
    ctx = experiment.ctx
    parts = {
        "class": type(experiment),
        "experiment": {**experiment.get_config(), "results_config": None},
        "files": files_told(experiment),
        "item": item.get_config(),
        "graph": None if ctx.model_graph is None else (ctx.model_graph.get_config(), ctx.model_graph.get_state()),
        **surroundings(ctx),
    }
    check_parts(_named(experiment, item))
    return packed(parts, classes)


def surroundings(ctx: Any) -> dict[str, Any]:
    """What a worker needs around any experiment: feature sets without tables, and registered classes."""
    return {
        "sets": {node_id: _set_told(fs) for node_id, fs in ctx.available_featuresets.items()},
        "registered": {name: _own(import_string(where)) for name, where in REGISTRIES.items()},
    }


def tables_of(ctx: Any) -> dict[str, Any]:
    """Id of a feature set to its table."""
    return {node_id: fs.collection.stored_table() for node_id, fs in ctx.available_featuresets.items()}


def _set_told(fs: Any) -> dict[str, Any]:
    state = fs.get_state()
    del state["sample_collection"]
    return {"label": fs.label, "state": state}


def _own(registry: Any) -> dict[str, type]:
    """The classes that somebody registered."""
    return {name: cls for name, cls in registry.items() if not cls.__module__.startswith("keydnn.")}


def _named(experiment: Any, item: Any) -> dict[str, Any]:
    """Everything that a user made, by what he calls it."""
    found: dict[str, Any] = {}
    graph = experiment.ctx.model_graph
    for node in graph.nodes.values() if graph is not None else ():
        found[f"node {node.label!r}"] = (node.get_config(), node.get_state())
    for phase in item.flatten():
        for callback in phase.callbacks:
            found[f"callback {callback.label!r} of phase {phase.label!r}"] = callback.get_config()
        found[f"phase {phase.label!r}"] = phase.get_config()
    for callback in experiment.exp_callbacks:
        found[f"callback {callback.label!r} of the experiment"] = callback.get_config()
    for fs in experiment.ctx.available_featuresets.values():
        found[f"feature set {fs.label!r}"] = _set_told(fs)
    return found

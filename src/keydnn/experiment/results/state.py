"""Results and runs as plain states, which files hold, and back.

A state holds JSON values, tuples, arrays, references, fitted scalers and :class:`~keydnn.experiment.results.values.Said`; what a user left
behind that only a pickle can hold is an :class:`~keydnn.experiment.io.values.UnsafePickle`, opened only with permission.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from keydnn.experiment.results.folders import RunFolder
from keydnn.experiment.results.kinds import kind_of, results_from_state
from keydnn.experiment.results.phase_results import PhaseResults
from keydnn.experiment.results.runs import ExperimentRun, Meta, PhaseExecutionMeta, PhaseGroupExecutionMeta
from keydnn.experiment.results.values import opened, said_or_left_out

__all__ = ["results_from_state", "results_state", "run_from_state", "run_state", "write_results"]


def results_state(results: Any) -> dict[str, Any]:
    """The state of results of a phase or a group, also while they are recorded.

    Raises:
        TypeError: No results.

    Warns:
        UserWarning: Something a callback left behind cannot be said and is left out.
    """
    kind_of(results)
    return results.get_state()


def write_results(results: Any, folder: RunFolder) -> None:
    """Move results that lie in memory to disk, where what is recorded later goes as well; queries read them from there.

    Args:
        results: Of a phase or a group.
        folder: Of the run.
    """
    if isinstance(results, PhaseResults):
        results.write_to(folder.phase(results.label))
        return
    for label, one in results.items():
        write_results(one, folder if isinstance(one, PhaseResults) else folder.group(label))


def run_state(run: ExperimentRun) -> dict[str, Any]:
    """The state of a run.

    Raises:
        TypeError: No run.

    Warns:
        UserWarning: As of :func:`results_state`.
    """
    if not isinstance(run, ExperimentRun):
        raise TypeError(f"an ExperimentRun is expected, got {type(run).__name__}")
    return {
        **_facts(run),
        "results": None if run.results is None else results_state(run.results),
        "execution_meta": None if run.execution_meta is None else _meta_state(run.execution_meta),
    }


def run_from_state(state: Mapping[str, Any]) -> ExperimentRun:
    """The run that :func:`run_state` told of."""
    results, meta = state["results"], state["execution_meta"]
    return ExperimentRun(
        **_opened_facts(state),
        results=None if results is None else results_from_state(results),
        execution_meta=None if meta is None else _meta(meta),
    )


def _facts(one: Any) -> dict[str, Any]:
    return {
        "label": one.label,
        "started_at": one.started_at.isoformat(),
        "ended_at": one.ended_at.isoformat(),
        "status": one.status,
        "metadata": said_or_left_out(one.metadata, f"metadata of {one.label!r}"),
    }


def _opened_facts(state: Mapping[str, Any]) -> dict[str, Any]:
    times = {name: datetime.fromisoformat(state[name]) for name in ("started_at", "ended_at")}
    return {"label": state["label"], "status": state["status"], "metadata": opened(state["metadata"]), **times}


def _meta_state(meta: Meta) -> dict[str, Any]:
    children = [_meta_state(child) for child in meta.children] if isinstance(meta, PhaseGroupExecutionMeta) else None
    return {**_facts(meta), "children": children}


def _meta(state: Mapping[str, Any]) -> Meta:
    facts = _opened_facts(state)
    if state["children"] is None:
        return PhaseExecutionMeta(**facts)
    return PhaseGroupExecutionMeta(**facts, children=[_meta(child) for child in state["children"]])

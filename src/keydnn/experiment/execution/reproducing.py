"""Does a file prove its own numbers?  The plan is run again from the stored start, and everything that came out is compared.

identical   bit for bit        within     rtol 1e-5, atol 1e-8        different        missing   on one side only

Compared are metrics, outputs of evaluations and final weights, by the labels that lead to them; ids, times, host and paths are not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.experiment.backends.tensors import to_numpy
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet
from keydnn.experiment.errors import ArtifactError
from keydnn.experiment.execution import experiment_file, experiment_state
from keydnn.experiment.execution.run_record import machine_facts, phase_results_of
from keydnn.experiment.names import DOMAIN_OUTPUTS
from keydnn.experiment.results import EvalResults

RTOL, ATOL = 1e-5, 1e-8
IDENTICAL, WITHIN, DIFFERENT, MISSING = "identical", "within", "different", "missing"
VERDICTS = (IDENTICAL, WITHIN, DIFFERENT, MISSING)
_QUIET = {"show_sampler_progress": False, "show_training_progress": False, "show_eval_progress": False}
Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Line:
    """One thing that was compared.

    Attributes:
        what: Its name.
        verdict: One of ``VERDICTS``.
        detail: The largest difference, or which side lacks it.
    """

    what: str
    verdict: str
    detail: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two runs, thing by thing.

    Attributes:
        lines: What was compared.
        versions: Differences of versions and machine, as text.
    """

    lines: tuple[Line, ...]
    versions: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Verdict to how many lines have it."""
        return {verdict: sum(line.verdict == verdict for line in self.lines) for verdict in VERDICTS}

    @property
    def ok(self) -> bool:
        """Whether nothing is different or missing."""
        counts = self.counts
        return not counts[DIFFERENT] and not counts[MISSING]


def reproduce(
    experiment_class: Any, path: str | os.PathLike[str], *, data: Sequence[Any] = (), allow_packaged_code: bool = False
) -> Comparison:
    """Run the plan of an experiment in a file again, from where its latest run began, and compare.

    Args:
        experiment_class: What the file holds.
        path: The file.
        data: Files of feature sets whose values the file left out.
        allow_packaged_code: Whether code in the files may be run.

    Raises:
        FileNotFoundError: No such file.
        ArtifactError: No experiment, one that never ran its plan to the end, or data with another fingerprint.
        PackagedCodeError: A file brings code, and that is not permitted.
    """
    told = _read(experiment_class, path, data, allow_packaged_code)
    start = told.start
    if start is None or not start["run"] < len(told.history):
        raise ArtifactError(f"{path} holds no run of the plan that could be run again: run() it, then save it")
    run = told.history[start["run"]]
    if run.status != "completed":
        raise ArtifactError(f"{path}: the run {run.label!r} ended as {run.status!r}; only a completed run can be compared")
    expected = values_of(run.results, told.model_graph)
    if start["run"] == len(told.history) - 1:  # nothing trained since
        expected |= weights_of(told)
    with told.ctx.activate():
        experiment_state.take_full(told, {**start["state"], "history": []})
        told.run(**_QUIET)
    found = values_of(told.last_run.results, told.model_graph) | weights_of(told)
    if start["run"] != len(told.history) - 1:
        found = {name: value for name, value in found.items() if name in expected}
    return Comparison(tuple(compared(expected, found)), tuple(_versions(run.metadata, machine_facts())))


def compare(
    experiment_class: Any, a: str | os.PathLike[str], b: str | os.PathLike[str], *, allow_packaged_code: bool = False
) -> Comparison:
    """Compare the latest runs and the weights in two files; nothing is run.

    Raises:
        FileNotFoundError: No such file.
        ArtifactError: A file holds no experiment with a run.
        PackagedCodeError: A file brings code, and that is not permitted.
    """
    sides = [_read(experiment_class, path, (), allow_packaged_code) for path in (a, b)]
    for path, side in zip((a, b), sides, strict=True):
        if side.last_run is None:
            raise ArtifactError(f"{path} holds no run")
    first, second = (values_of(side.last_run.results, side.model_graph) | weights_of(side) for side in sides)
    return Comparison(tuple(compared(first, second)), tuple(_versions(sides[0].last_run.metadata, sides[1].last_run.metadata)))


def _read(cls: Any, path: Any, data: Sequence[Any], allow_packaged_code: bool) -> Any:
    given = {}
    with ExperimentContext().activate():
        for file in data:
            fs = FeatureSet.load(file, allow_packaged_code=allow_packaged_code)
            given[fs.label] = fs.collection

    def samples(label: str) -> Any:
        if label not in given:
            raise ArtifactError(f"{path} was saved without the values of feature set {label!r}: give its file (data)")
        return given[label]

    with ExperimentContext().activate():
        return experiment_file.read_experiment(cls, path, allow_packaged_code=allow_packaged_code, overwrite=False, data=samples)


# -- what came out ------------------------------------------------------------------------------------------------------------


def values_of(results: Any, graph: Any) -> Values:
    """Metrics, and outputs of evaluations, by their names."""
    found: Values = {}
    for path, phase in phase_results_of(results):
        where = "/".join(path)
        for entry in phase.metric_store.entries():
            place = "" if entry.epoch_idx is None else f" of epoch {entry.epoch_idx}"
            place += "" if entry.batch_idx is None else f", batch {entry.batch_idx}"
            found[f"metric {where}/{entry.name}{place}"] = np.asarray(entry.value)
        if isinstance(phase, EvalResults):
            for node in graph.nodes.values() if graph is not None else ():
                for (_, batch), tensor in _outputs(phase, node).items():
                    found[f"output {where}/{node.label}, batch {batch}"] = to_numpy(tensor)
    return found


def _outputs(phase: EvalResults, node: Any) -> Any:
    """Outputs of a node by epoch and batch; none of a node that did not run."""
    ran = {node_id for ctx in phase.execution_contexts().values() for node_id in ctx.outputs}
    return phase.tensors(node.node_id, DOMAIN_OUTPUTS) if node.node_id in ran else {}


def weights_of(experiment: Any) -> Values:
    """Final weights, by node and name."""
    graph = experiment.model_graph
    nodes = [] if graph is None or not graph.is_built else list(graph.nodes.values())
    return {
        f"weight {node.label}/{name}": np.asarray(value)
        for node in nodes
        for name, value in _leaves("", node.get_state().get("model", {}).get("weights", {}))
    }


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Arrays and numbers in a nested state."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _leaves(f"{name}.{i}" if name else str(i), inner)
    elif isinstance(value, np.ndarray | np.generic | int | float):
        yield name, value


def compared(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> Iterator[Line]:
    """A line for everything that stands on either side.

    Example:
        >>> from keydnn.experiment.execution.reproducing import compared
        >>> [line.verdict for line in compared({"a": np.ones(2), "b": np.ones(2)}, {"a": np.ones(2), "c": np.ones(2)})]
        ['identical', 'missing', 'missing']
    """
    for name, value in a.items():
        yield _line(name, value, b[name]) if name in b else Line(name, MISSING, "in the second")
    for name in b:
        if name not in a:
            yield Line(name, MISSING, "in the first")


def _line(name: str, a: np.ndarray, b: np.ndarray) -> Line:
    if a.shape != b.shape or a.dtype != b.dtype:
        return Line(name, DIFFERENT, f"{a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)}")
    if a.tobytes() == b.tobytes():
        return Line(name, IDENTICAL)
    if a.dtype.kind not in "fc":
        return Line(name, DIFFERENT, f"{int(np.count_nonzero(a != b))} of {a.size} values differ")
    with np.errstate(all="ignore"):
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64)) if a.dtype.kind == "f" else np.abs(a - b)
    close = bool(np.allclose(a, b, rtol=RTOL, atol=ATOL, equal_nan=True))
    return Line(name, WITHIN if close else DIFFERENT, f"up to {np.nanmax(gap):.3g} apart" if np.isfinite(gap).any() else "not finite")


def _versions(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    """Differences of versions."""
    flat = [{"python": side.get("python"), "system": side.get("system"), **(side.get("packages") or {})} for side in (a, b)]
    for name in dict.fromkeys([*flat[0], *flat[1]]):
        first, second = (side.get(name) for side in flat)
        if first != second:
            yield f"{name} {first or 'absent'} -> {second or 'absent'}"

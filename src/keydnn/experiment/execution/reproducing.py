"""Does a file prove its own numbers?  The plan is run again from the stored start, and everything that came out is compared.

identical   bit for bit        within     rtol 1e-5, atol 1e-8        different        missing   on one side only

Compared are data, metrics, outputs of evaluations and final weights, by the labels that lead to them; ids, times, host and paths are not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keydnn.experiment.backends.tensors import to_numpy
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet, feature_set_state
from keydnn.experiment.data.fingerprint import fingerprint
from keydnn.experiment.errors import ArtifactError
from keydnn.experiment.execution import experiment_file, experiment_state
from keydnn.experiment.execution.run_record import machine_facts, phase_results_of
from keydnn.experiment.execution.subfolders import known_directories
from keydnn.experiment.graph.graph_file import ids_by_label
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

    Neither checkpoints nor results are written.

    Args:
        experiment_class: What the file holds.
        path: The file.
        data: Files of feature sets whose values the file left out; of those that it holds they have to be the same.
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
    state, expected, found = _data_of(told, start["state"])
    expected |= values_of(run.results, told.model_graph)
    has_weights = all(_changes_nothing(later) for later in told.history[start["run"] + 1 :])
    if has_weights:
        expected |= weights_of(told)
    told.set_results_config(None)
    with told.ctx.activate(), told.disable_checkpointing():
        experiment_state.take_full(told, {**state, "history": []})
        told.run(**_QUIET)
    found |= values_of(told.last_run.results, told.model_graph)
    if has_weights:
        found |= weights_of(told)
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
    sides = [_opened(experiment_class, path, None, allow_packaged_code) for path in (a, b)]
    for path, side in zip((a, b), sides, strict=True):
        if side.last_run is None:
            raise ArtifactError(f"{path} holds no run")
    first, second = (_data(side) | values_of(side.last_run.results, side.model_graph) | weights_of(side) for side in sides)
    return Comparison(tuple(compared(first, second)), tuple(_versions(sides[0].last_run.metadata, sides[1].last_run.metadata)))


def _read(cls: Any, path: Any, data: Sequence[Any], allow_packaged_code: bool) -> Any:
    """An experiment with the values of its feature sets, some of which come from other files."""
    given: dict[str, Any] = {}
    for file in data:
        with ExperimentContext().activate():
            fs = FeatureSet.load(file, allow_packaged_code=allow_packaged_code)
            given[fs.label] = fs.collection

    def samples(label: str) -> Any:
        if label not in given:
            told = f", not of {', '.join(map(repr, given))}" if given else ""
            raise ArtifactError(f"{path} was saved without the values of feature set {label!r}: give the file of {label!r} (--data){told}")
        return given[label]

    made = _opened(cls, path, samples, allow_packaged_code)
    known = {fs.label: fs for fs in made.ctx.available_featuresets.values()}
    for label, collection in given.items():
        if label not in known:
            raise ArtifactError(f"{path} has no feature set {label!r}, whose file was given; it has {', '.join(map(repr, known))}")
        if (found := fingerprint(collection)) != known[label].fingerprint:
            raise ArtifactError(f"the values given for feature set {label!r} have the fingerprint {found}, not {known[label].fingerprint}")
    return made


def _opened(cls: Any, path: Any, data: Any, allow_packaged_code: bool) -> Any:
    with ExperimentContext().activate(), known_directories():
        return experiment_file.read_experiment(cls, path, allow_packaged_code=allow_packaged_code, overwrite=False, data=data)


def _changes_nothing(run: Any) -> bool:
    """Whether a run left the weights as they were: folds do, and evaluations."""
    return bool(run.metadata.get("apart")) or all(isinstance(phase, EvalResults) for _, phase in phase_results_of(run.results))


def _data(experiment: Any) -> Values:
    """Fingerprints of feature sets."""
    return {f"data {fs.label}": np.asarray(fs.fingerprint) for fs in experiment.ctx.available_featuresets.values()}


def _data_of(experiment: Any, state: Mapping[str, Any]) -> tuple[dict[str, Any], Values, Values]:
    """The state of a start for the data that are here, the fingerprints that it knows, and those of what is here."""
    sets: dict[str, Any] = dict(state["feature_sets"])
    here = experiment.ctx.available_featuresets
    ids = ids_by_label(sets, here)
    expected, found = {}, {}
    for node_id, told in state["feature_sets"].items():
        fs = here.get(ids.get(node_id, node_id))
        expected[f"data {told['label']}"] = np.asarray(told["fingerprint"])
        if fs is not None:
            sets[node_id] = {**told, "fingerprint": feature_set_state.fingerprint_of(fs, told)}
            found[f"data {told['label']}"] = np.asarray(sets[node_id]["fingerprint"])
    return {**state, "feature_sets": sets}, expected, found


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
    if a.dtype.kind == "U":
        return Line(name, DIFFERENT, f"{a} and {b}")
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

"""What a report tells, gathered from an experiment in memory or from its file.

A file is read without looking up its models, losses or callbacks, so no code in it is run and no framework has to be installed.  What
cannot be read becomes a note; the rest is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import keydnn
from keydnn.experiment.callbacks.checkpoints import RUN
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet, SampleCollection, feature_set_file
from keydnn.experiment.data.audit import Finding
from keydnn.experiment.errors import ArtifactError, ExperimentError, SampleLoadError
from keydnn.experiment.execution import run_state
from keydnn.experiment.execution.describing import describe, phases_of_config
from keydnn.experiment.execution.experiment_file import KIND, SETS, STATE
from keydnn.experiment.execution.resuming import CHECKPOINTS, DATA, PLAN, START, SUFFIX
from keydnn.experiment.execution.run_record import final_metrics
from keydnn.experiment.graph import MergeNode, ModelNode
from keydnn.experiment.io import ArchiveFolder, ArtifactReader, Checkpoint
from keydnn.experiment.io.archive import ArchiveReader
from keydnn.experiment.io.artifact import clear_errors, existing_path
from keydnn.experiment.io.classes import Symbols
from keydnn.experiment.io.values import Decoder
from keydnn.experiment.models import KeydnnModelWrapper, ScikitModelWrapper
from keydnn.experiment.names import DOMAIN_SAMPLE_UUIDS
from keydnn.experiment.results.runs import ExperimentRun
from keydnn.experiment.results.state import run_from_state


@dataclass
class SetFacts:
    """A feature set.

    Attributes:
        label: Its name.
        fingerprint: Of its values.
        n_samples: Rows.
        columns: Name, shape of a row and type of each column.
        splits: Name to rows.
        parents: Split to the split it was cut from; None for the whole set.
        cuts: What cut it, in words.
        scalers: What scaled it, in words.
        classes: Key of an encoded column to the labels that its numbers stand for.
        findings: Of the audit; None if there was none.
        why: Why there was no audit.
    """

    label: str
    fingerprint: str
    n_samples: int
    columns: list[tuple[str, str, str]] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)
    cuts: list[str] = field(default_factory=list)
    scalers: list[str] = field(default_factory=list)
    classes: dict[str, list[Any]] = field(default_factory=dict)
    findings: list[Finding] | None = None
    why: str = ""


@dataclass
class NodeFacts:
    """A node of the graph: its name, ``ModelNode`` or the class of a merge, its model and framework, what it reads, shapes once built."""

    label: str
    kind: str
    model: str | None
    backend: str | None
    reads: list[str]
    frozen: bool
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None


@dataclass
class Run:
    """A run of the history.

    Attributes:
        run: As it was recorded; without results if they cannot be read.
        metrics: Every metric at its last epoch, by path.
    """

    run: ExperimentRun
    metrics: dict[str, float]


@dataclass
class Facts:
    """Everything a page tells.

    Attributes:
        label: Of the experiment.
        seed: Of the experiment; None if it has none.
        source: Name of the file; empty for an experiment in memory.
        written_by: Version of KeyDNN.
        feature_sets: Its data.
        nodes: Of the graph, none if there is no graph.
        plan: Phases and groups, as :func:`~keydnn.experiment.execution.describing.describe` tells them.
        runs: The history.
        notes: What could not be read, and why.
    """

    label: str
    seed: int | None
    source: str
    written_by: str
    feature_sets: list[SetFacts]
    nodes: list[NodeFacts]
    plan: list[dict[str, Any]]
    runs: list[Run]
    notes: list[str] = field(default_factory=list)


# -- in memory --------------------------------------------------------------------------------------------------------------


def facts_of(experiment: Any) -> Facts:
    """Of an experiment in memory, with its run that goes on, if there is one."""
    ctx = experiment.ctx
    graph = ctx.model_graph
    nodes = [] if graph is None else [_node(node) for node in graph.nodes.values()]
    labels = {} if graph is None else {node.node_id: node.label for node in graph.nodes.values()}
    with ctx.activate():
        runs = [Run(run, final_metrics(run.results) if run.results is not None else {}) for run in experiment.recorded_runs()]
        sets = [_set(fs) for fs in ctx.available_featuresets.values()]
    plan = phases_of_config(experiment.execution_plan.get_config(), labels)
    return Facts(experiment.label, experiment.seed, "", keydnn.__version__, sets, nodes, plan, runs)


def _node(node: Any) -> NodeFacts:
    is_model, is_merge = isinstance(node, ModelNode), isinstance(node, MergeNode)
    is_built = node.is_built and (is_model or is_merge)
    return NodeFacts(
        label=node.label,
        kind="ModelNode" if is_model else type(node).__name__,
        model=_model_name(node.model) if is_model else None,
        backend=None if node.backend is None else str(node.backend.value),
        reads=[str(reference.node_label) for reference in node.get_upstream_refs()],
        frozen=bool(getattr(node, "is_frozen", False)) if is_model else False,
        input_shape=node.input_shape if is_built and is_model else None,
        output_shape=node.output_shape if is_built else None,
    )


def _model_name(model: Any) -> str:
    inner = model.model if isinstance(model, KeydnnModelWrapper | ScikitModelWrapper) else None
    return type(model if inner is None else inner).__name__


def _set(fs: FeatureSet) -> SetFacts:
    names = [name for name in fs.get_all_keys() if name != DOMAIN_SAMPLE_UUIDS]
    registry = fs.split_registry
    told = SetFacts(
        label=fs.label,
        fingerprint=fs.fingerprint,
        n_samples=fs.n_samples,
        columns=[(name, str(tuple(fs.collection.shape(name))), str(fs.collection.dtype(name))) for name in names],
        splits={name: len(registry.rows(name)) for name in registry.names},
        parents={name: registry.parent(name) for name in registry.names},
        cuts=[_cut(record) for record in fs.splitter_records],
        scalers=[_scaler(record) for record in fs.scaler_records],
        classes=fs.label_classes,
    )
    try:
        told.findings = fs.audit().findings
    except SampleLoadError:
        told.why = "the values of its samples are not here: save() the experiment with include_data=True"
    return told


def _cut(record: Any) -> str:
    config = {name: value for name, value in record.splitter.get_config().items() if name != "splitter_name" and value is not None}
    words = ", ".join(f"{name}={value}" for name, value in config.items())
    whole = "all rows" if record.applied_to is None else record.applied_to
    return f"{type(record.splitter).__name__}({words}) cut {whole} into {', '.join(record.produced_splits)}"


def _scaler(record: Any) -> str:
    fitted = "all rows" if record.fit_split is None else f"the rows of {record.fit_split}"
    given = ", ".join(f"{name}={value!r}" for name, value in record.scaler_obj.scaler_kwargs.items())
    return f"{record.scaler_obj.scaler_name}({given}) of {record.domain}: {', '.join(record.keys)}, fitted to {fitted}"


# -- from a file ------------------------------------------------------------------------------------------------------------


def facts_in(path: str | os.PathLike[str]) -> Facts:
    """Of the experiment in a file, or of the run in a folder that ``Experiment.run(run_dir=...)`` filled.

    Raises:
        FileNotFoundError: No such file, or a folder without a run.
        ArtifactError: No experiment, or a damaged or hostile file.
    """
    if Path(path).is_dir():
        return _facts_in_folder(Path(path))
    return _facts_in_file(existing_path(path, KIND), None)


def _facts_in_file(file: Path, data: feature_set_file.Data | None) -> Facts:
    told = describe(file)
    if told["header"]["kind"] != KIND:
        raise ArtifactError(f"{file} holds a {told['kind']}; a report is made of an experiment, which experiment.save(name) writes")
    facts = Facts(
        label=str(told["label"]),
        seed=told["seed"],
        source=file.name,
        written_by=str(told["header"].get("package_version")),
        feature_sets=[],
        nodes=[_told_node(node) for node in told["nodes"]],
        plan=told["plan"],
        runs=[],
    )
    with ArchiveReader(file) as archive, clear_errors(file), ExperimentContext().activate():
        for told_set, folder in zip(told["feature_sets"], _set_folders(archive), strict=True):
            facts.feature_sets.append(_stored_set(archive, told_set, folder, data, facts.notes))
        facts.runs += _stored_runs(archive, told["runs"], facts.notes)
    return facts


def _facts_in_folder(home: Path) -> Facts:
    """The experiment as it was before the run, and the run until its latest checkpoint."""
    if not (home / f"{START}{SUFFIX}").is_file():
        raise FileNotFoundError(f"{home} holds no run; a report is made of a file that experiment.save(name) wrote, or of a run_dir")
    start = Checkpoint.load(home / START, only=["data"])
    tables = start.entries["data"]
    facts = _facts_in_file(existing_path(home / START, KIND), lambda label: SampleCollection.load(home / DATA / tables[label]))
    facts.source = home.name
    kept = [
        (_number(file, start.meta["run"]), file) for file in [home / f"{PLAN}{SUFFIX}", *sorted((home / CHECKPOINTS).rglob(f"*{SUFFIX}"))]
    ]
    number, latest = max(kept)
    if number < 0:
        facts.notes.append("The run in this folder has no checkpoint yet.")
        return facts
    with clear_errors(latest), ExperimentContext().activate():
        facts.runs.append(_run_until(Checkpoint.load(latest, only=[RUN]).entries[RUN]))
    if facts.runs[-1].run.status == "stopped":
        facts.notes.append(f"The run is told until its checkpoint {latest.name}; Experiment.resume({home.name!r}) goes on with it.")
    return facts


def _number(file: Path, run_id: str) -> int:
    """Which checkpoint of a run a file is; -1 if it is none, or cannot be read."""
    try:
        meta = Checkpoint.load(file, only=[]).meta
    except (ArtifactError, FileNotFoundError):
        return -1
    return int(meta["number"]) if meta.get("run") == run_id else -1


def _run_until(state: Mapping[str, Any]) -> Run:
    span, results = run_state.span_of(state["spans"]), run_state.results_of(state)
    status = span.status if run_state.is_over(state) else "stopped"
    ended = max([span.started_at, span.ended_at, *(inner.ended_at for inner in span.inner or ())])  # what goes on has no end yet
    return Run(ExperimentRun(span.label, span.started_at, ended, status, results, metadata=span.metadata), final_metrics(results))


def _told_node(told: Mapping[str, Any]) -> NodeFacts:
    shapes = [told["input_shape"], told["output_shape"]]
    is_model = told["model"] is not None
    return NodeFacts(
        label=str(told["label"]),
        kind="ModelNode" if is_model else str(told["type"]),
        model=told["wraps"] or str(told["model"]).rpartition(".")[2] if is_model else None,
        backend=told["backend"],
        reads=[str(one) for one in told["reads"]],
        frozen=told["frozen"],
        input_shape=None if shapes[0] is None else tuple(shapes[0]),
        output_shape=None if shapes[1] is None else tuple(shapes[1]),
    )


def _set_folders(archive: ArchiveReader) -> list[str]:
    return sorted({"/".join(name.split("/")[:2]) for name in archive.names if name.startswith(f"{SETS}/")})


def _stored_set(
    archive: ArchiveReader, told: Mapping[str, Any], folder: str, data: feature_set_file.Data | None, notes: list[str]
) -> SetFacts:
    """A feature set with all that can be told of it; registered, so that results find it."""
    try:
        with ArtifactReader(ArchiveFolder(archive, folder), "fs") as reader:
            fs = feature_set_file.read(FeatureSet, reader, data)
    except ExperimentError as error:
        notes.append(f"feature set {told['label']!r} cannot be read: {error}")
        return SetFacts(str(told["label"]), str(told["fingerprint"]), told["n_samples"], splits=told["splits"], why=str(error))
    return _set(feature_set_file.registered(fs, False))


def _stored_runs(archive: ArchiveReader, told: list[Any], notes: list[str]) -> Iterator[Run]:
    """The history; a run whose results cannot be read with what is known of it beside them."""
    states = archive.json(STATE)["history"]
    decoder = Decoder(Symbols(archive, False))
    for state, known in zip(states, told, strict=True):
        try:
            yield Run(run_from_state(decoder.decode(state)), _numbers(known["metrics"]))
        except (ExperimentError, ImportError) as error:
            notes.append(f"results of the run {known['label']!r} cannot be read: {error}")
            start, end = (datetime.fromisoformat(known[name]) for name in ("started_at", "ended_at"))
            yield Run(ExperimentRun(known["label"], start, end, known["status"], None), _numbers(known["metrics"]))


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in metrics.items()}

"""Experiments in files: feature sets, graph, plan, history and random numbers, read without the script that made them.

config.json   what get_config returns      featuresets/0000/..   artifacts of kind fs      model_graph/..   one of kind mg
state.json    history, random numbers, callbacks, names of checkpoints
checkpoints/0000.ckpt.mml ..  as they are on disk      facts.json    what the others hold, in a few words
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keydnn.experiment import random_states
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet, feature_set_file
from keydnn.experiment.errors import ArtifactError
from keydnn.experiment.execution import experiment_state
from keydnn.experiment.execution.run_record import final_metrics
from keydnn.experiment.graph import ModelGraph, graph_file
from keydnn.experiment.graph.graph_file import renamed
from keydnn.experiment.io import (
    ArchiveFolder,
    ArtifactReader,
    Checkpoint,
    Encoder,
    artifact_members,
    artifact_path,
    in_folder,
    save_artifact,
    to_json,
)
from keydnn.experiment.io.archive import write_bytes
from keydnn.experiment.io.artifact import EXTENSION
from keydnn.experiment.io.classes import spec_of
from keydnn.experiment.results import ResultsConfig
from keydnn.experiment.results.state import write_results
from keydnn.experiment.undo import unless_done

KIND = "exp"
SETS, GRAPH = "featuresets", "model_graph"
STATE, FACTS = "state.json", "facts.json"
Data = feature_set_file.Data
log = logging.getLogger("keydnn")


# -- writing ----------------------------------------------------------------------------------------------------------------


def write_experiment(experiment: Any, filepath: str | os.PathLike[str], *, overwrite: bool, include_data: bool = True) -> Path:
    """Write an experiment; see ``Experiment.save``."""
    path = artifact_path(filepath, KIND)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it")
    ctx: ExperimentContext = experiment.ctx
    members: dict[str, Any] = {}
    for i, fs in enumerate(ctx.available_featuresets.values()):
        state = feature_set_file.members_of(fs, include_data=include_data)
        members |= in_folder(f"{SETS}/{i:04d}", artifact_members(fs, "fs", state))
    if ctx.model_graph is not None:
        members |= in_folder(GRAPH, artifact_members(ctx.model_graph, "mg"))
    checkpoints = dict(sorted(experiment.available_checkpoints.items()))
    for i, file in enumerate(checkpoints.values()):
        members[_checkpoint_member(i)] = file.read_bytes()
    encoder = Encoder("state/")
    members[STATE] = to_json(encoder.encode({**experiment_state.told(experiment), "checkpoints": list(checkpoints)}))
    members[FACTS] = to_json(_facts(experiment))
    return save_artifact(experiment, path, KIND, overwrite=overwrite, members={**encoder.members, **members})


def _checkpoint_member(i: int) -> str:
    return f"checkpoints/{i:04d}.{Checkpoint.kind}.{EXTENSION}"


def _facts(experiment: Any) -> dict[str, Any]:
    """What is worth knowing before anything is read."""
    sets = [
        {"label": fs.label, "node_id": fs.node_id, "fingerprint": fs.fingerprint, "n_samples": fs.n_samples}
        for fs in experiment.ctx.available_featuresets.values()
    ]
    runs = [
        {
            "label": run.label,
            "status": run.status,
            "started_at": run.started_at.isoformat(),
            "ended_at": run.ended_at.isoformat(),
            "metrics": final_metrics(run.results),
        }
        for run in experiment.recorded_runs()
    ]
    return {"feature_sets": sets, "runs": runs, "checkpoints": sorted(experiment.available_checkpoints)}


# -- reading ----------------------------------------------------------------------------------------------------------------


def read_experiment(
    cls: Any,
    filepath: str | os.PathLike[str],
    *,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    results_dir: str | os.PathLike[str] | None = None,
    allow_packaged_code: bool,
    overwrite: bool,
    data: Data | None = None,
) -> Any:
    """Read an experiment; see ``Experiment.load``.

    Args:
        cls: What it must be.
        filepath: The file.
        checkpoint_dir: Where checkpoints in the file go.
        results_dir: Where results in the file go.
        allow_packaged_code: Whether code in the file may be run.
        overwrite: Whether nodes replace those that are registered.
        data: Where a feature set that was written without its values, named by its label, gets them from; what follows is a run that
            goes on, which writes its results where the run did.
    """
    if results_dir is not None:
        ResultsConfig(results_dir)  # refused before anything is read
    active = ExperimentContext.get_active()
    is_taken = active.model_graph is not None or active.get_experiment() is not None
    ctx = ExperimentContext(registration_policy=active.registration_policy) if is_taken else active
    with ArtifactReader(filepath, KIND, allow_packaged_code=allow_packaged_code) as reader:
        with random_states.kept(), unless_done(ctx), ctx.activate():
            made, names = _made(cls, reader, ctx, overwrite, data)
            _write_checkpoints(made, reader, names, checkpoint_dir, overwrite)
            if data is None:
                _write_results(made, reader.archive.path, results_dir)
    if is_taken:
        ExperimentContext.set_active(ctx)
        log.info("the active context has a graph or an experiment; the loaded %r lives in a new one, active from now on", made.label)
    return made


def _made(cls: Any, reader: ArtifactReader, ctx: ExperimentContext, overwrite: bool, data: Data | None) -> tuple[Any, list[str]]:
    """The experiment, and the names of the checkpoints that the file brings."""
    found: Any = cls if reader.header.get("symbol") == spec_of(cls, {}) else reader.cls()
    if not issubclass(found, cls):
        raise ArtifactError(f"{reader.archive.path} holds a {found.__name__}, no {cls.__name__}")
    ids = _feature_sets(reader, overwrite, data)
    ids |= _graph(reader, ctx, ids, overwrite)
    config = renamed(reader.config, ids)
    made = found.from_config(config)
    state = renamed(reader.json(STATE), ids)
    experiment_state.take(made, state)
    return made, [str(name) for name in state["checkpoints"]]


def _write_results(experiment: Any, path: Path, folder: str | os.PathLike[str] | None) -> None:
    """Move the results of the file to a folder, where later ones go as well."""
    config: ResultsConfig = experiment.results_config or ResultsConfig()
    if folder is None:
        if config.results_dir is not None and experiment.history:
            told = f"{path} brings results that were on disk; pass results_dir= to have them written, they stay in memory now"
            warnings.warn(told, UserWarning, stacklevel=4)
        return
    experiment.set_results_config(config.moved(folder))
    for i, run in enumerate(experiment.history):
        inside = experiment.results_config.run_folder(i, run.label)
        if run.results is not None:
            write_results(run.results, inside)


def _write_checkpoints(
    experiment: Any, reader: ArtifactReader, names: list[str], folder: str | os.PathLike[str] | None, overwrite: bool
) -> None:
    """Put the checkpoints of the file into a folder; none of them if one cannot be."""
    if folder is None:
        if names:
            told = f"{reader.archive.path} brings {len(names)} checkpoints; pass checkpoint_dir= to have them written"
            warnings.warn(told, UserWarning, stacklevel=4)
        return
    files = {name: _checkpoint_path(Path(folder), name, reader) for name in names}
    there = [str(path) for path in files.values() if path.exists()]
    if there and not overwrite:
        raise FileExistsError(f"{', '.join(there)} exist; pass overwrite=True to replace them")
    data = [reader.archive.read(_checkpoint_member(i)) for i in range(len(names))]
    experiment.set_checkpoint_dir(folder)
    for (name, path), content in zip(files.items(), data, strict=True):
        write_bytes(path, content)
        experiment.checkpoint_written(name, path)


def _checkpoint_path(folder: Path, name: str, reader: ArtifactReader) -> Path:
    """Where a checkpoint goes: ``<name>`` or ``<phase>/<name>``, of a fold ``<fold>/<name>`` or ``<fold>/<phase>/<name>``.

    Raises:
        ArtifactError: The name leads elsewhere.
    """
    parts = name.split("/")
    if len(parts) > 3 or any(part.strip(". ") == "" or "\\" in part or ":" in part or "\0" in part for part in parts):
        raise ArtifactError(f"{reader.archive.path}: a checkpoint is named {name!r}, which leads out of the folder; nothing was written")
    return artifact_path(folder.joinpath(*parts), Checkpoint.kind)


def _inner(reader: ArtifactReader, folder: str, kind: str) -> ArtifactReader:
    return ArtifactReader(ArchiveFolder(reader.archive, folder), kind, allow_packaged_code=reader.symbols.allow_packaged_code)


def _feature_sets(reader: ArtifactReader, overwrite: bool, data: Data | None) -> dict[str, str]:
    """Register the feature sets; old id to new id, of those whose id was taken."""
    ids = {}
    folders = sorted({"/".join(name.split("/")[:2]) for name in reader.archive.names if name.startswith(f"{SETS}/")})
    for folder in folders:
        with _inner(reader, folder, "fs") as inner:
            made = feature_set_file.read(FeatureSet, inner, data)
        known = feature_set_file.registered(made, overwrite)
        if known.node_id != made.node_id:
            ids[made.node_id] = known.node_id
    return ids


def _graph(reader: ArtifactReader, ctx: ExperimentContext, ids: Mapping[str, str], overwrite: bool) -> dict[str, str]:
    """Register the graph, if there is one; old id to new id, of nodes whose id was taken."""
    if f"{GRAPH}/artifact.json" not in reader.archive.names:
        return {}
    with _inner(reader, GRAPH, "mg") as inner:
        config, state = renamed(inner.config, ids), renamed(inner.json(STATE), ids)
        return graph_file.place_in(ModelGraph, ctx, config, state, overwrite)[1]

"""Experiments in files: feature sets, graph, plan, history and random numbers, read without the script that made them.

config.json   what get_config returns      featuresets/0000/..   artifacts of kind fs      model_graph/..   one of kind mg
state.json    random numbers, callbacks    facts.json            what the others hold, in a few words
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keydnn.experiment import random_states
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet, feature_set_file
from keydnn.experiment.errors import ArtifactError
from keydnn.experiment.execution import experiment_state
from keydnn.experiment.graph import ModelGraph, graph_file
from keydnn.experiment.graph.graph_file import renamed
from keydnn.experiment.io import ArchiveFolder, ArtifactReader, Encoder, artifact_members, artifact_path, in_folder, save_artifact, to_json
from keydnn.experiment.io.classes import spec_of

KIND = "exp"
SETS, GRAPH = "featuresets", "model_graph"
STATE, FACTS = "state.json", "facts.json"
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
    encoder = Encoder("state/")
    members[STATE] = to_json(encoder.encode(experiment_state.told(experiment)))
    members[FACTS] = to_json(_facts(experiment))
    return save_artifact(experiment, path, KIND, overwrite=overwrite, members={**encoder.members, **members})


def _facts(experiment: Any) -> dict[str, Any]:
    """What is worth knowing before anything is read."""
    sets = [
        {"label": fs.label, "node_id": fs.node_id, "fingerprint": fs.fingerprint, "n_samples": fs.n_samples}
        for fs in experiment.ctx.available_featuresets.values()
    ]
    return {"feature_sets": sets}


# -- reading ----------------------------------------------------------------------------------------------------------------


def read_experiment(cls: Any, filepath: str | os.PathLike[str], *, allow_packaged_code: bool, overwrite: bool) -> Any:
    """Read an experiment; see ``Experiment.load``."""
    active = ExperimentContext.get_active()
    is_taken = active.model_graph is not None or active.get_experiment() is not None
    ctx = ExperimentContext(registration_policy=active.registration_policy) if is_taken else active
    with ArtifactReader(filepath, KIND, allow_packaged_code=allow_packaged_code) as reader:
        with random_states.kept(), _kept_unless_done(ctx), ctx.activate():
            made = _made(cls, reader, ctx, overwrite)
    if is_taken:
        ExperimentContext.set_active(ctx)
        log.info("the active context has a graph or an experiment; the loaded %r lives in a new one, active from now on", made.label)
    return made


@contextlib.contextmanager
def _kept_unless_done(ctx: ExperimentContext) -> Iterator[None]:
    """The context is as before if the block fails."""
    before = ctx.get_state()
    with contextlib.ExitStack() as undo:
        undo.callback(ctx.set_state, before)
        yield
        undo.pop_all()


def _made(cls: Any, reader: ArtifactReader, ctx: ExperimentContext, overwrite: bool) -> Any:
    found = cls if reader.header.get("symbol") == spec_of(cls, {}) else reader.cls()
    if not issubclass(found, cls):
        raise ArtifactError(f"{reader.archive.path} holds a {found.__name__}, no {cls.__name__}")
    ids = _feature_sets(reader, overwrite)
    ids |= _graph(reader, ctx, ids, overwrite)
    made = found.from_config(renamed(reader.config, ids))  # type: ignore[attr-defined]
    experiment_state.take(made, renamed(reader.json(STATE), ids))
    return made


def _inner(reader: ArtifactReader, folder: str, kind: str) -> ArtifactReader:
    return ArtifactReader(ArchiveFolder(reader.archive, folder), kind, allow_packaged_code=reader.symbols.allow_packaged_code)


def _feature_sets(reader: ArtifactReader, overwrite: bool) -> dict[str, str]:
    """Register the feature sets; old id to new id, of those whose id was taken."""
    ids = {}
    folders = sorted({"/".join(name.split("/")[:2]) for name in reader.archive.names if name.startswith(f"{SETS}/")})
    for folder in folders:
        with _inner(reader, folder, "fs") as inner:
            made = feature_set_file.read(FeatureSet, inner)
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

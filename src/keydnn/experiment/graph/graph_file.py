"""Graphs in files: config and state; where ids are taken the loaded nodes get new ones, and all that names them follows."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.errors import StateMismatchError
from keydnn.experiment.io import ArtifactReader, Checkpoint
from keydnn.experiment.io.artifact import clear_errors
from keydnn.experiment.references import FeatureSetReference
from keydnn.experiment.undo import unless_done

CHECKPOINT_ENTRY = "modelgraph"  # of a checkpoint
log = logging.getLogger("keydnn")


def load(cls: Any, filepath: str | os.PathLike[str], *, allow_packaged_code: bool, overwrite: bool) -> Any:
    """Read a graph; see ``ModelGraph.load``."""
    with ArtifactReader(filepath, "mg", allow_packaged_code=allow_packaged_code) as reader:
        config, state = reader.config, reader.json("state.json")
        return _placed(cls, config, state, overwrite)


def _placed(cls: Any, config: Mapping[str, Any], state: Mapping[str, Any], overwrite: bool) -> Any:
    active = ExperimentContext.get_active()
    is_taken = active.model_graph is not None or active.get_experiment() is not None
    sources = _sources(config, active)
    ctx = _another(active, sources) if is_taken and not overwrite else active
    made, _ = place_in(cls, ctx, config, state, overwrite)
    if ctx is not active:
        ExperimentContext.set_active(ctx)
        log.info("the active context has a graph or an experiment; the loaded graph %r lives in a new one, active from now on", made.label)
    return made


def place_in(
    cls: Any, ctx: ExperimentContext, config: Mapping[str, Any], state: Mapping[str, Any], overwrite: bool
) -> tuple[Any, dict[str, str]]:
    """Make a graph in a context; the context is as before if that fails.

    Args:
        cls: ModelGraph.
        ctx: The context.
        config: Of the graph.
        state: Of the graph.
        overwrite: Whether nodes replace those that are registered; else those whose id is taken get a new one.

    Returns:
        The graph, and old id to new id.
    """
    taken = [] if overwrite else [node_id for node_id in _ids(config) if node_id in ctx.available_nodes]
    ids = {node_id: str(uuid.uuid4()) for node_id in taken}
    if ids:
        log.info("ids of %d nodes of the loaded graph %r are taken; they get new ones", len(ids), config["label"])
    made = _made(cls, ctx, renamed(config, ids), renamed(state, ids), "overwrite" if overwrite else ctx.registration_policy)
    return made, ids


def _made(cls: Any, ctx: ExperimentContext, config: Mapping[str, Any], state: Mapping[str, Any], policy: Any) -> Any:
    """The graph with its state; the context is as before if that fails."""
    with unless_done(ctx), ctx.activate(), ctx.use_policy(policy):
        made = cls.from_config(config)
        made.set_state(state)
    return made


def save_checkpoint(graph: Any, filepath: str | os.PathLike[str], *, overwrite: bool, meta: Mapping[str, Any] | None) -> Path:
    """Write the state of a graph; see ``ModelGraph.save_checkpoint``."""
    return Checkpoint({CHECKPOINT_ENTRY: graph.get_state()}, meta).save(filepath, overwrite=overwrite)


def restore_checkpoint(graph: Any, filepath: str | os.PathLike[str], *, allow_packaged_code: bool) -> None:
    """Put a graph into the state in a file; see ``ModelGraph.restore_checkpoint``."""
    try:
        entries = Checkpoint.load(filepath, allow_packaged_code=allow_packaged_code).entries
    except FileNotFoundError as error:
        raise ValueError(f"no checkpoint {filepath}: {error}") from error
    if CHECKPOINT_ENTRY not in entries:
        raise TypeError(f"{filepath} holds {', '.join(entries) or 'nothing'}; the state of a graph is expected")
    with clear_errors(filepath):
        state = renamed(entries[CHECKPOINT_ENTRY], ids_in(graph, entries[CHECKPOINT_ENTRY]))
    before = graph.snapshot()
    with clear_errors(filepath), contextlib.ExitStack() as undo:
        undo.callback(graph.restore, before)
        graph.set_state(state)
        undo.pop_all()


def ids_in(graph: Any, state: Mapping[str, Any]) -> dict[str, str]:
    """Id in a state to id in the graph, of nodes that are found by their labels.

    Raises:
        StateMismatchError: The graph has other nodes.
    """
    nodes = {node_id: told.get("super", told) for node_id, told in state["nodes"].items()}
    ids = ids_by_label(nodes, graph.nodes)
    if {ids.get(node_id, node_id) for node_id in nodes} != set(graph.nodes):
        there, here = sorted(told["label"] for told in nodes.values()), sorted(node.label for node in graph.nodes.values())
        raise StateMismatchError(f"the checkpoint is of a graph with the nodes {', '.join(there)}; here there are {', '.join(here)}")
    return ids


def ids_by_label(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, str]:
    """Old id to new id, of what is not here by its id but by its label."""
    by_label = {node.label: node_id for node_id, node in here.items() if node_id not in there}
    return {node_id: by_label[told["label"]] for node_id, told in there.items() if node_id not in here and told["label"] in by_label}


def _sources(config: Mapping[str, Any], ctx: ExperimentContext) -> list[Any]:
    """The feature sets that the graph reads; it cannot be read without them."""
    references = [reference for entry in config["nodes"] for reference in entry["upstream_refs"]]
    return [reference.resolve(ctx).source for reference in references if isinstance(reference, FeatureSetReference)]


def _another(active: ExperimentContext, sources: list[Any]) -> ExperimentContext:
    """A context of its own that knows the feature sets."""
    ctx = ExperimentContext(registration_policy=active.registration_policy)
    for source in {source.node_id: source for source in sources}.values():
        ctx.register_experiment_node(source)
    return ctx


def _ids(config: Mapping[str, Any]) -> list[str]:
    return [entry["node_id"] for entry in config["nodes"]]


def renamed(value: Any, ids: Mapping[str, str]) -> Any:
    """Configs and states with other ids of nodes, wherever they stand.

    Args:
        value: Plain values and references.
        ids: Old id to new id.

    Example:
        >>> from keydnn.experiment.graph.graph_file import renamed
        >>> renamed({"a": ["a", ("b", 1)]}, {"a": "c"})
        {'c': ['c', ('b', 1)]}
    """
    if isinstance(value, str):
        return ids.get(value, value)
    if isinstance(value, Mapping):
        return {renamed(key, ids): renamed(inner, ids) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(renamed(inner, ids) for inner in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and getattr(value, "node_id", None) in ids:
        return dataclasses.replace(value, node_id=ids[value.node_id])  # type: ignore[attr-defined]
    return value

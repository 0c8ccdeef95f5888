"""The state of the results of a phase: steps, what is known of nodes, metrics, what callbacks left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keydnn.experiment.results.callback_state import artifact_state, artifacts_from_state, callbacks_from_state, callbacks_state
from keydnn.experiment.results.contexts import ContextStore
from keydnn.experiment.results.frame_state import FrameTable, frames_from_state
from keydnn.experiment.results.nodes import NodeTable
from keydnn.experiment.results.sources import IdsTable, SourceTable, ids_from_state, sources_from_state
from keydnn.experiment.results.stores import MetricStore


def phase_state(results: Any) -> dict[str, Any]:
    """The parts of results of a phase."""
    ids = IdsTable()
    sources = SourceTable(ids)
    frames = FrameTable(sources, ids)
    contexts = results.context_store.get_state(frames)
    nodes = results.nodes.get_state(ids)
    told = {"contexts": contexts, "nodes": nodes, "frames": frames.get_state()}
    told |= {"sources": sources.get_state()}  # complete once the frames are told, and the ids after them
    return told | {
        "ids": ids.get_state(),
        "metrics": results.metric_store.get_state(),
        "artifacts": [artifact_state(entry) for entry in results.artifact_store],
        "callbacks": callbacks_state(list(results.callback_results), results.artifact_store),
    }


def parts_from_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of results by the names of their attributes."""
    ids = ids_from_state(state["ids"])
    frames = frames_from_state(state["frames"], sources_from_state(state["sources"], ids), ids)
    artifacts = artifacts_from_state(state["artifacts"])
    return {
        "context_store": ContextStore.from_state(state["contexts"], frames),
        "nodes": NodeTable.from_state(state["nodes"], ids),
        "metric_store": MetricStore.from_state(state["metrics"]),
        "artifact_store": artifacts,
        "callback_results": callbacks_from_state(state["callbacks"], artifacts),
    }

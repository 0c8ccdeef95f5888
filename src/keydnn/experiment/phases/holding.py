"""Nodes that run only because others read them: held still in a step of a phase, and left as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from keydnn.experiment.graph import ModelGraph, ModelNode


def bystanders(graph: ModelGraph, active_nodes: Sequence[str]) -> list[ModelNode]:
    """Models that run with the active nodes and are none of them."""
    mine = set(active_nodes)
    return [node for node in graph.executed_nodes(active_nodes) if isinstance(node, ModelNode) and node.node_id not in mine]


@contextlib.contextmanager
def still(nodes: Sequence[ModelNode]) -> Iterator[None]:
    """Inside the block nodes are frozen; afterwards they are what they were."""
    free = [node for node in nodes if not node.is_frozen]
    for node in free:
        node.freeze()
    try:
        yield
    finally:
        for node in free:
            node.unfreeze()


def held(graph: ModelGraph, active_nodes: Sequence[str]) -> contextlib.AbstractContextManager[None]:
    """A block in which bystanders are frozen; see :func:`still`."""
    return still(bystanders(graph, active_nodes))

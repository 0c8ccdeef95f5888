"""The optimizer rule: one for all nodes of one framework, one per framework, or one per node; checked before anything is changed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.errors import BackendMismatchError
from keydnn.experiment.graph.dag import Dag
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.nodes import ComputeNode
from keydnn.experiment.training import Optimizer

Optimizers = Optimizer | Mapping[Backend | str, Optimizer] | None


def learners(nodes: Iterable[ComputeNode]) -> list[ModelNode]:
    """The nodes that learn by gradients."""
    return [node for node in nodes if isinstance(node, ModelNode) and node.has_gradients]


def checked(optimizer: Optimizers, nodes: Mapping[str, ComputeNode], dag: Dag) -> dict[Backend, Optimizer]:
    """Backend to the optimizer of its nodes; empty if every node has its own.

    Raises:
        RuntimeError: A node without optimizer, mixed backends under one, none for a backend, or a node between others that gradients
            cannot pass.
        BackendMismatchError: An optimizer of another backend.
        TypeError: Something other than optimizers.
    """
    found = learners(nodes.values())
    backends = {node.backend for node in found}
    if optimizer is None:
        lacking = [node.label for node in found if node.optimizer is None]
        if lacking:
            raise RuntimeError(f"nodes {', '.join(map(repr, lacking))} have no optimizer: give each its own, or the graph one")
        return {}
    if not found:
        raise RuntimeError("an optimizer was given, but no node of the graph learns by gradients: leave it out")
    if isinstance(optimizer, Optimizer) and len(backends) > 1:
        raise RuntimeError(
            f"one optimizer cannot serve several backends ({_names(backends)}): give a dict backend -> Optimizer, or one per node"
        )
    _check_between(nodes, dag)
    given = dict.fromkeys(backends, optimizer) if isinstance(optimizer, Optimizer) else _by_backend(optimizer)
    for backend, one in given.items():
        _check_backend(one, backend)
    missing = backends - set(given)
    if missing:
        raise RuntimeError(f"no optimizer for backend {_names(missing)}")
    return given


def take_over(optimizers: Mapping[Backend, Optimizer], nodes: Iterable[ComputeNode]) -> None:
    """Tell optimizers their backends, and let nodes go without their own.

    Warns:
        UserWarning: Some node had one.
    """
    for backend, optimizer in optimizers.items():
        if optimizer.backend is None:
            optimizer.backend = backend
    own = [node for node in learners(nodes) if node.optimizer is not None] if optimizers else []
    for node in own:
        node.drop_optimizer()
    if own:
        names = ", ".join(repr(node.label) for node in own)
        warnings.warn(f"the graph has an optimizer for all nodes: those of {names} are dropped", UserWarning, stacklevel=4)


def _names(backends: Iterable[Backend]) -> str:
    return ", ".join(sorted(backend.value for backend in backends))


def _by_backend(optimizers: object) -> dict[Backend, Optimizer]:
    if not isinstance(optimizers, Mapping):
        raise TypeError(f"optimizer must be an Optimizer or a dict of them by backend, got {type(optimizers).__name__}")
    return {Backend.from_value(key): one for key, one in optimizers.items()}


def _check_backend(optimizer: object, backend: Backend) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"expected an Optimizer, got {type(optimizer).__name__}")
    if optimizer.backend not in (None, backend):
        raise BackendMismatchError(
            f"the nodes are of backend {backend.value!r}, the optimizer of {optimizer.backend.value!r}",  # type: ignore[union-attr]
            expected=backend,
            received=optimizer.backend,
        )


def _check_between(nodes: Mapping[str, ComputeNode], dag: Dag) -> None:
    """A node that gradients cannot pass must not stand between nodes that learn by them."""
    ids = {node.node_id for node in learners(nodes.values())}
    for node in nodes.values():
        if not isinstance(node, ModelNode) or node.has_gradients:
            continue
        above = dag.needed_for([node.node_id]) - {node.node_id}
        below = [other for other in ids if node.node_id in dag.needed_for([other])]
        if below and above & ids:
            raise RuntimeError(
                f"node {node.label!r} ({node.backend.value}) stands between nodes of one optimizer: gradients cannot pass it"
            )

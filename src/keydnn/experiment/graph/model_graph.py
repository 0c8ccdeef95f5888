"""ModelGraph: nodes that read each other, built, edited, frozen and trained together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from keydnn.compiler.report import report
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.graph import graph_file
from keydnn.experiment.graph.diagram import graph_diagram
from keydnn.experiment.graph.nodes import ComputeNode
from keydnn.experiment.graph.optimizer_rule import Optimizers
from keydnn.experiment.graph.stepping import Stepping
from keydnn.experiment.graph.summary import graph_summary
from keydnn.experiment.graph.wiring import Wiring
from keydnn.experiment.io import InYaml, Saved
from keydnn.experiment.random_states import forked
from keydnn.experiment.registration import in_notebook
from keydnn.experiment.training import Optimizer
from keydnn.experiment.visualization.visualizer import ModelGraphDisplayOptions, Visualizer


class ModelGraph(Stepping, Saved, InYaml):
    """A directed acyclic graph of nodes.

    Args:
        nodes: Nodes or their labels; None takes all compute nodes of the context.
        optimizer: One for all nodes (graph-wise training), or one per backend; None: every node has its own (stage-wise).
        label: Name.
        ctx: Where feature sets and labels are looked up; None takes the active context.
        register: Whether the context learns about the graph.

    Raises:
        TypeError: Something that is no compute node.
        ValueError: Unknown or doubled labels, a cycle.
        GraphConnectivityError: A node reads one that is not among the nodes.
        RuntimeError: Mixed backends under one optimizer, a node without optimizer, or a scikit-learn node between others.

    Warns:
        UserWarning: A node's own optimizer is dropped; the nodes do not hang together; backends are mixed.
    """

    kind = "mg"

    # -- config and state

    def get_config(self) -> dict[str, Any]:
        """``label``, ``nodes`` (their configs, each behind all that it reads) and ``optimizer`` (of optimizers by backend a dict)."""
        by_backend = {backend.value: optimizer.get_config() for backend, optimizer in self._optimizers.items()}
        return {
            "label": self._label,
            "nodes": [node.get_config() for node in self._wiring.order],
            "optimizer": self._optimizer.get_config() if self._optimizer is not None else by_backend or None,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, register: bool = True) -> Self:
        """The graph a config describes, with new nodes; the active context gets graph and nodes if ``register``."""
        ctx = ExperimentContext.get_active()
        with contextlib.ExitStack() as stack:
            if not register:  # the nodes have to find each other, and nothing of it stays
                stack.enter_context(ctx.temporary())
                stack.enter_context(ctx.use_policy("overwrite"))
            nodes = [ComputeNode.from_config(entry) for entry in config["nodes"]]
            return cls(nodes, optimizers_told(config["optimizer"]), config["label"], ctx=ctx, register=register)

    def get_state(self) -> dict[str, Any]:
        """``nodes`` (id to state), ``optimizer`` (of optimizers by backend a dict), ``opt_built_from_node_ids`` and ``is_built``."""
        by_backend = {backend.value: optimizer.get_state() for backend, optimizer in self._optimizers.items()}
        return {
            "nodes": {node_id: node.get_state() for node_id, node in self._wiring.nodes.items()},
            "optimizer": self._optimizer.get_state() if self._optimizer is not None else by_backend or None,
            "opt_built_from_node_ids": sorted(self._contributing),
            "is_built": self._is_built,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state; an unbuilt graph is built first.

        Raises:
            KeyError: The state has nodes that are not here, or lacks some that are.
        """
        nodes = self._wiring.nodes
        missing, unknown = sorted(set(nodes) - set(state["nodes"])), sorted(set(state["nodes"]) - set(nodes))
        if missing or unknown:
            labels = [nodes[node_id].label for node_id in missing]
            raise KeyError(f"the state is of another set of nodes: it lacks {labels}, and has {unknown}, which are not here")
        for node_id, inner in state["nodes"].items():
            with forked(self._ctx.entropy, nodes[node_id].label):  # what was not built gets the weights that the seed gives
                nodes[node_id].set_state(inner)
        self._wiring = Wiring.of(nodes.values())
        self._kinds.clear()
        self._is_built = False
        if state["is_built"]:
            self.build()
        told = state["optimizer"] or {}
        states = {backend.value: told for backend in self._optimizers} if self._optimizer is not None else told
        for backend, optimizer in self._optimizers.items():
            optimizer.set_state(states.get(backend.value, {"internal": None}))
        self._learning, self._contributing = [], set(state["opt_built_from_node_ids"])

    @classmethod
    def load(cls, filepath: str | os.PathLike[str], *, allow_packaged_code: bool = False, overwrite: bool = False) -> Self:
        """Read a graph, built if it was, with weights, optimizers and freeze flags; the active context gets it.

        If the active context has a graph or an experiment, the loaded graph goes into a new context, which becomes active and knows the
        feature sets that it reads.

        Args:
            filepath: The file, with or without its suffix.
            allow_packaged_code: Whether code in the file may be run; read it first with ``inspect_packaged_code``.
            overwrite: Whether graph and nodes replace those that are registered; otherwise a node whose id is taken gets a new one.

        Raises:
            FileNotFoundError: No such file.
            ArtifactError: No artifact, or a damaged or hostile one.
            PackagedCodeError: It brings code, and that is not permitted.
            ResolutionError: A feature set that it reads is not registered.
        """
        return graph_file.load(cls, filepath, allow_packaged_code=allow_packaged_code, overwrite=overwrite)

    def save_checkpoint(self, filepath: str | os.PathLike[str], *, overwrite: bool = False, meta: Mapping[str, Any] | None = None) -> Path:
        """Write the state: weights, buffers, optimizers and freeze flags; not what the graph is made of, which :meth:`save` writes too.

        Args:
            filepath: Name of the file; it gets the suffix ``.ckpt.mml``.
            overwrite: Whether an existing file may be replaced.
            meta: What else is worth knowing: JSON values and arrays.

        Returns:
            The path of the file.

        Raises:
            FileExistsError: The file exists and ``overwrite`` is False.
            TypeError: Something else in ``meta``.
        """
        return graph_file.save_checkpoint(self, filepath, overwrite=overwrite, meta=meta)

    def restore_checkpoint(self, filepath: str | os.PathLike[str], *, allow_packaged_code: bool = False) -> Self:
        """Go back to a state that :meth:`save_checkpoint`, or a training phase, wrote; if it fails the graph is as before.

        Nodes are found by id, else by label; an unbuilt graph is built first.

        Args:
            filepath: The file, with or without its suffix.
            allow_packaged_code: Whether code in the file may be run; read it first with ``inspect_packaged_code``.

        Returns:
            Self.

        Raises:
            ValueError: No such file, a damaged or hostile one, or one of a graph with other nodes.
            TypeError: It holds the state of something else.
        """
        graph_file.restore_checkpoint(self, filepath, allow_packaged_code=allow_packaged_code)
        return self

    def snapshot(self) -> tuple[Wiring, dict[str, Any]]:
        """Which nodes there are, how they are connected, and the state, for :meth:`restore`."""
        return self._wiring, self.get_state()

    def restore(self, snapshot: tuple[Wiring, dict[str, Any]]) -> None:
        """Go back to a snapshot, also if nodes have come or gone since."""
        self._wiring, state = snapshot
        self.set_state(state)

    def plan_report(self) -> str:
        """What became of the latest step of engine nodes: fused operations, memory, time, or why it runs eagerly."""
        return report(self._plans.latest)

    def diagram(self, options: Any = None) -> Any:
        """The nodes and what they read as a diagram; see :class:`~keydnn.experiment.visualization.Visualizer`."""
        return graph_diagram(self, options)

    def visualize(
        self,
        *,
        show_features: bool = False,
        show_targets: bool = False,
        show_tags: bool = False,
        show_frozen: bool = True,
        show_splits: bool = False,
    ) -> None:
        """Show the graph: drawn in a notebook, as Mermaid text elsewhere.

        Args:
            show_features: Feature columns, on feature sets and on nodes that read them.
            show_targets: Target columns, there too.
            show_tags: Tag columns, there too.
            show_frozen: Which models do not learn.
            show_splits: Names of the splits, on feature sets.
        """
        options = ModelGraphDisplayOptions(show_features, show_targets, show_tags, show_frozen, show_splits)
        Visualizer(self, options).show(in_notebook())

    def summary(self, max_width: int = 88) -> str:
        """A box of text: facts, and a table of the nodes: what they read, their shapes, parameters and backends."""
        return graph_summary(self, max_width)

    def __repr__(self) -> str:
        return f"ModelGraph({self._label!r}, {len(self._wiring.nodes)} nodes, {'built' if self._is_built else 'not built'})"


def optimizers_told(told: Any) -> Optimizers:
    """An optimizer, optimizers by backend, or None, by their config."""
    if told is None or "opt" in told:
        return None if told is None else Optimizer.from_config(told)
    return {backend: Optimizer.from_config(one) for backend, one in told.items()}

"""ExperimentPhase: what training, evaluation and fitting phases share.

A phase says what runs: which nodes, on which rows, with which losses.  It holds ids, not nodes: what they name is looked up
when the phase runs.  How it runs is told in :mod:`keydnn.experiment.execution`.
"""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.bindings import InputBinding
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.contracts import ICallback
from keydnn.experiment.data import ExecutionContext
from keydnn.experiment.equality import same_values
from keydnn.experiment.graph import ComputeNode, ModelGraph
from keydnn.experiment.graph.diagram import Scene, graph_diagram
from keydnn.experiment.io import InYaml
from keydnn.experiment.phases.callback_configs import callback_config, callback_from_config
from keydnn.experiment.references import FeatureSetReference
from keydnn.experiment.registration import in_notebook
from keydnn.experiment.training import AppliedLoss
from keydnn.experiment.visualization.summary import summary_box
from keydnn.experiment.visualization.visualizer import Visualizer


class ExperimentPhase(InYaml, abc.ABC):
    """A phase; see :class:`TrainPhase`, :class:`EvalPhase` and :class:`FitPhase`.

    Args:
        label: Name, unique in its group.
        input_sources: A binding for every feature set that an executed node reads.
        losses: With labels of their own.
        active_nodes: Ids, labels or nodes; None takes all nodes of the active context's graph.
        callbacks: With labels of their own; called by rising ``execution_order``, ties in the order given.
        accelerator: Where nodes stand that do not say themselves.

    Raises:
        TypeError: Something in a list that does not belong there.
        ValueError: Doubled labels, or a feature set that a node reads and no binding feeds.
        KeyError: An active node that is not in the graph.
        RuntimeError: The active context has no graph.
    """

    phase_type: ClassVar[str]

    def __init__(
        self,
        label: str,
        *,
        input_sources: Sequence[InputBinding],
        losses: Sequence[AppliedLoss] | None,
        active_nodes: Sequence[Any] | None,
        callbacks: Sequence[Any] | None,
        accelerator: Accelerator | str | None,
    ) -> None:
        if not isinstance(label, str) or not label:
            raise (ValueError if isinstance(label, str) else TypeError)(f"the label of a phase is a text with letters, got {label!r}")
        self.label = label
        graph = active_graph()
        self.active_nodes: list[str] = [node.node_id for node in _nodes(graph, active_nodes)]
        self.input_sources: list[InputBinding] = _checked_bindings(label, input_sources)
        self.check_bindings(graph)
        self.losses: list[AppliedLoss] = []
        for loss in _listed(losses, AppliedLoss, "losses"):
            self.add_loss(loss)
        self.callbacks: list[Any] = []
        for callback in _listed(callbacks, ICallback, "callbacks"):
            self.add_callback(callback)
        self.accelerator = Accelerator.from_value(accelerator)

    # -- what it runs

    def check_bindings(self, graph: ModelGraph) -> list[InputBinding]:
        """The bindings of the nodes that run, in the order of the graph.

        Raises:
            ValueError: A node reads a feature set that no binding feeds.
        """
        fed = {(binding.node_id, binding.upstream_ref): binding for binding in self.input_sources}
        found = []
        for node in graph.executed_nodes(self.active_nodes):
            for reference in _feature_sets(node):
                if (node.node_id, reference) not in fed:
                    raise ValueError(
                        f"phase {self.label!r}: node {node.label!r} reads feature set {reference.node_label!r}, and no binding feeds it"
                    )
                found.append(fed[node.node_id, reference])
        if not found:
            raise ValueError(f"phase {self.label!r} has no input: none of its nodes reads a feature set")
        return found

    def add_loss(self, loss: AppliedLoss) -> None:
        """Add a loss.

        Raises:
            TypeError: It is no AppliedLoss.
            ValueError: Its label is taken.
        """
        _listed([loss], AppliedLoss, "losses")
        if any(other.label == loss.label for other in self.losses):
            raise ValueError(f"phase {self.label!r} has a loss {loss.label!r} already: give each a label of its own")
        self.losses.append(loss)

    def add_callback(self, cb: Any) -> None:
        """Add a callback; they stay sorted by ``execution_order``.

        Raises:
            TypeError: It is no callback.
            ValueError: There is one of the same type and label.
        """
        _listed([cb], ICallback, "callbacks")
        if any(type(other) is type(cb) and other.label == cb.label for other in self.callbacks):
            raise ValueError(f"phase {self.label!r} has a {type(cb).__name__} {cb.label!r} already")
        cb.attach(self)
        self.callbacks.append(cb)
        self.callbacks.sort(key=lambda callback: callback.execution_order)

    @abc.abstractmethod
    def iter_execution(self, *, results: Any = None) -> Iterator[ExecutionContext]:
        """The contexts of the steps, with inputs; the caller makes each step before it asks for the next."""

    # -- looking

    def diagram(self, options: Any = None) -> Any:
        """The graph of the active context, and what this phase runs of it; see :class:`~keydnn.experiment.visualization.Visualizer`."""
        graph = active_graph()
        bindings = {(binding.node_id, binding.upstream_ref): binding for binding in self.check_bindings(graph)}
        running = frozenset(node.node_id for node in graph.executed_nodes(self.active_nodes))
        return graph_diagram(graph, options, Scene(running, self._held(graph), bindings, self.losses))

    @abc.abstractmethod
    def _held(self, graph: ModelGraph) -> dict[str, str]:
        """Ids of the models that do not learn by steps to the word for it."""

    def visualize(self, display_options: Any = None) -> None:
        """Show the phase: drawn in a notebook, as Mermaid text elsewhere.

        Args:
            display_options: A :class:`~keydnn.experiment.visualization.ModelGraphDisplayOptions`; None takes the defaults.
        """
        Visualizer(self, display_options).show(in_notebook())

    def summary_rows(self) -> list[tuple[str, Any]]:
        """What :meth:`summary` says, as pairs; nodes are left out if they are all of the graph."""
        sources = dict.fromkeys(str(binding.upstream_ref.node_label) for binding in self.input_sources)
        splits = dict.fromkeys(binding.split for binding in self.input_sources if binding.split is not None)
        told = {
            "reads": sources,
            "split": splits,
            "nodes": _labels(self.active_nodes),
            "losses": [loss.label for loss in self.losses],
            "callbacks": [callback.label for callback in self.callbacks],
        }
        return [(name, ", ".join(words)) for name, words in told.items() if words]

    def summary(self, max_width: int = 88) -> str:
        """A box of text with the facts of this phase."""
        return summary_box(type(self).__name__, [("label", self.label), *self.summary_rows()], max_width)

    # -- config

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments, bindings, losses and callbacks as configs, and ``phase_type``."""
        return {
            "label": self.label,
            "input_sources": [binding.get_config() for binding in self.input_sources],
            "losses": [loss.get_config() for loss in self.losses],
            "active_nodes": list(self.active_nodes),
            "callbacks": [callback_config(callback) for callback in self.callbacks],
            "accelerator": None if self.accelerator is None else self.accelerator.get_config(),
            "phase_type": self.phase_type,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The phase a config describes, in the active context; called on the base, ``phase_type`` tells the class.

        Raises:
            ValueError: Unknown ``phase_type``, or one of another class.
        """
        kinds = {kind.phase_type: kind for kind in _kinds(ExperimentPhase)}  # type: ignore[type-abstract]
        kind = kinds.get(config["phase_type"])
        if kind is None or not issubclass(kind, cls):
            expected = ", ".join(sorted(name for name, known in kinds.items() if issubclass(known, cls)))
            raise ValueError(f"unknown phase_type {config['phase_type']!r} for {cls.__name__}; expected {expected}")
        return kind(**kind._arguments(config))  # type: ignore[return-value]

    @classmethod
    def _arguments(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Constructor arguments from a config."""
        accelerator = config["accelerator"]
        rest = {name: value for name, value in config.items() if name != "phase_type"}
        return {
            **rest,
            "input_sources": [InputBinding.from_config(told) for told in config["input_sources"]],
            "losses": [AppliedLoss.from_config(told) for told in config["losses"]],
            "callbacks": [callback_from_config(told) for told in config["callbacks"]],
            "accelerator": None if accelerator is None else Accelerator.from_config(accelerator),
        }

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and same_values(self.get_config(), other.get_config())  # type: ignore[attr-defined]

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r}, {len(self.active_nodes)} nodes, {len(self.losses)} losses)"


def _kinds(base: type[ExperimentPhase]) -> list[type[ExperimentPhase]]:
    """All classes of phases that can be made."""
    found = [kind for child in base.__subclasses__() for kind in _kinds(child)]
    return found if inspect.isabstract(base) else [base, *found]


def active_graph() -> ModelGraph:
    """The graph of the active context.

    Raises:
        RuntimeError: There is none.
    """
    graph = ExperimentContext.get_active().model_graph
    if graph is None:
        raise RuntimeError("the active context has no model graph: make a ModelGraph before the phases that run it")
    return graph  # type: ignore[no-any-return]


def bindings_for_split(active_nodes: Sequence[Any] | None, make: Callable[..., InputBinding]) -> list[InputBinding]:
    """A binding by ``make(node=, upstream=)`` for every head that runs with the active nodes.

    Raises:
        ValueError: A head reads several feature sets, or they do not all read one.
    """
    graph = active_graph()
    chosen = [node.node_id for node in _nodes(graph, active_nodes)]
    read = [(node, reference) for node in graph.executed_nodes(chosen) for reference in _feature_sets(node)]
    if len({reference.node_id or reference.node_label for _, reference in read}) != 1:
        names = ", ".join(sorted({repr(reference.node_label) for _, reference in read})) or "none"
        raise ValueError(f"from_split needs head nodes that read one feature set, they read {names}: give input_sources instead")
    heads = [node.node_id for node, _ in read]
    for node, _ in read:
        if heads.count(node.node_id) > 1:
            raise ValueError(f"node {node.label!r} reads its feature set more than once: give input_sources instead")
    return [make(node=node, upstream=reference) for node, reference in read]


def _feature_sets(node: ComputeNode) -> list[FeatureSetReference]:
    """The feature-set inputs of a node."""
    return [reference for reference in node.get_upstream_refs() if isinstance(reference, FeatureSetReference)]


def _nodes(graph: ModelGraph, active_nodes: Sequence[Any] | None) -> list[ComputeNode]:
    """The active nodes, in the order given.

    Raises:
        KeyError: One is not in the graph.
        TypeError: Something that names no node.
    """
    if active_nodes is None:
        return list(graph.nodes.values())
    if isinstance(active_nodes, str) or not isinstance(active_nodes, Sequence):
        active_nodes = [active_nodes]
    found = {node.node_id: node for node in (graph.get_node(one) for one in active_nodes)}
    if not found:
        raise ValueError("active_nodes is empty: leave it out to run all nodes")
    return list(found.values())


def _labels(node_ids: Sequence[str]) -> list[str]:
    """Labels of nodes, and ids of those that are not there any more; none if they are all nodes of the graph."""
    ctx = ExperimentContext.get_active()
    if ctx.model_graph is not None and set(node_ids) == set(ctx.model_graph.nodes):
        return []
    return [ctx.get_node(node_id).label if ctx.has_node(node_id=node_id) else node_id for node_id in node_ids]


def _checked_bindings(label: str, input_sources: Sequence[InputBinding]) -> list[InputBinding]:
    bindings = _listed(input_sources, InputBinding, "input_sources")
    keys = [(binding.node_id, binding.upstream_ref) for binding in bindings]
    for i, (node_id, reference) in enumerate(keys):
        if (node_id, reference) in keys[:i]:
            raise ValueError(f"phase {label!r}: two bindings feed {reference.node_label!r} to node {node_id!r}")
    return bindings


def _listed(values: Any, kind: Any, what: str) -> list[Any]:
    """A list of one kind of objects.

    Raises:
        TypeError: Something else.
    """
    listed = [] if values is None else list(values) if isinstance(values, list | tuple) else [values]
    for value in listed:
        if not isinstance(value, kind):
            raise TypeError(f"{what} holds {kind.__name__} objects, got {type(value).__name__}")
    return listed

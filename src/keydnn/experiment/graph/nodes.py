"""Nodes of a graph: what they read and who reads them."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from keydnn.experiment.backends.accelerator import Accelerator
from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter, to_backend
from keydnn.experiment.bindings import InputBinding
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.contracts import IColumns
from keydnn.experiment.data import Batch, DataFormat, SampleData
from keydnn.experiment.data.formats import backend_of_format
from keydnn.experiment.errors import GraphNodeInputError, GraphNodeOutputError, ResolutionError
from keydnn.experiment.graph.flow import Flow, checked, mapped
from keydnn.experiment.names import DOMAIN_FEATURES, DOMAIN_TARGETS, STREAM_DEFAULT
from keydnn.experiment.node import ExperimentNode
from keydnn.experiment.references import FeatureSetReference, GraphNodeReference
from keydnn.experiment.samplers import BaseSampler

Reference = FeatureSetReference | GraphNodeReference
Shape = tuple[int, ...]


def as_reference(value: Any, what: str) -> Reference:
    """A reference to what a node may read: a FeatureSet (all its columns), a graph node, the label or id of one, or a reference.

    Raises:
        TypeError: Something else.
        KeyError: A label that nobody has.
    """
    if isinstance(value, FeatureSetReference | GraphNodeReference):
        return value
    if isinstance(value, str):
        return as_reference(ExperimentContext.get_active().get_node(value), what)
    if isinstance(value, GraphNode):
        return value.reference()
    if isinstance(value, IColumns):
        return value.reference()  # type: ignore[attr-defined, no-any-return]
    raise TypeError(f"{what} must be a FeatureSet, a graph node or a reference to one, got {type(value).__name__}")


def told_class(cls: type) -> str | type:
    """How a config tells the class of a node: one of this library by its name, one of yours as itself."""
    return cls.__name__ if cls.__module__.startswith("keydnn.experiment.") else cls


def class_told(told: str | type) -> type[GraphNode]:
    """The class that :func:`told_class` told.

    Raises:
        TypeError: Something else than text or a class of nodes.
        ValueError: No class of this library has the name.
    """
    if isinstance(told, type) and issubclass(told, GraphNode):
        return told
    if not isinstance(told, str):
        raise TypeError(f"expected the name of a class of graph nodes, or the class, got {told!r}")
    known: dict[str, type[GraphNode]] = {}
    waiting: list[type[GraphNode]] = [GraphNode]
    while waiting:
        cls = waiting.pop()
        known.update({cls.__name__: cls} if told_class(cls) == cls.__name__ else {})
        waiting += cls.__subclasses__()
    if told not in known:
        raise ValueError(f"unknown class of graph nodes {told!r}; expected one of {', '.join(sorted(known))}")
    return known[told]


class GraphNode(ExperimentNode, abc.ABC):
    """A node with inputs and consumers; users give the inputs, the graph keeps the consumers.

    Args:
        label: Name.
        upstream_refs: What it reads: references, feature sets, nodes, or their labels.
        downstream_refs: Who reads it.
        node_id: Given only when a node is loaded.
        register: Whether the active context learns about the node.

    Raises:
        ValueError: A reference that does not resolve.
        TypeError: Something that is no reference.
        GraphNodeInputError: Too many inputs.
        GraphNodeOutputError: Too many consumers.
    """

    max_upstream_refs: ClassVar[int | None] = None
    max_downstream_refs: ClassVar[int | None] = None

    def __init__(
        self,
        label: str,
        upstream_refs: Sequence[Any] | Any = None,
        downstream_refs: Sequence[Any] | Any = None,
        *,
        node_id: str | None = None,
        register: bool = True,
    ) -> None:
        if type(self) is GraphNode:
            raise TypeError("GraphNode is abstract: make a ModelNode or a merge node, or derive a ComputeNode")
        upstream = self._resolvable(upstream_refs, label)
        downstream = self._resolvable(downstream_refs, label)
        self._check_count(upstream, self.max_upstream_refs, "inputs", GraphNodeInputError, label)
        self._check_count(downstream, self.max_downstream_refs, "consumers", GraphNodeOutputError, label)
        self._upstream, self._downstream = upstream, downstream
        super().__init__(label, node_id=node_id, register=register)

    @staticmethod
    def _resolvable(values: Any, label: str) -> list[Reference]:
        listed = [] if values is None else list(values) if isinstance(values, list | tuple) else [values]
        try:
            references = [as_reference(value, f"an input of node {label!r}") for value in listed]
            for reference in references:
                reference.resolve()
        except (ResolutionError, KeyError) as error:
            raise ValueError(f"node {label!r}: {error}") from error
        return references

    @staticmethod
    def _check_count(references: Sequence[Any], most: int | None, what: str, error: type[Exception], label: str) -> None:
        if most is not None and len(references) > most:
            raise error(f"node {label!r} takes at most {most} {what}, got {len(references)}")

    def check_upstream(self, references: Sequence[Reference]) -> None:
        """Whether these could be the inputs.

        Raises:
            GraphNodeInputError: Too many.
        """
        self._check_count(references, self.max_upstream_refs, "inputs", GraphNodeInputError, self.label)

    def _as_upstream(self, references: Sequence[Any]) -> list[Reference]:
        return [as_reference(value, f"an input of node {self.label!r}") for value in references]

    def reference(self) -> GraphNodeReference:
        """A value that names this node without holding it."""
        return GraphNodeReference(node_label=self.label, node_id=self.node_id)

    # -- inputs and consumers

    @staticmethod
    def _single(references: list[Reference], most: int | None, what: str) -> Reference | None:
        if most != 1:
            raise RuntimeError(f"{what} exists only where at most one is allowed; use get_{what}s()")
        return references[0] if references else None

    @property
    def upstream_ref(self) -> Any:
        """The input.

        Raises:
            RuntimeError: The node may have several.
        """
        return self._single(self._upstream, self.max_upstream_refs, "upstream_ref")

    @property
    def downstream_ref(self) -> Any:
        """The consumer.

        Raises:
            RuntimeError: The node may have several.
        """
        return self._single(self._downstream, self.max_downstream_refs, "downstream_ref")

    def get_upstream_refs(self) -> list[Reference]:
        """The inputs, in order."""
        return list(self._upstream)

    def reads(self, reference: Reference) -> bool:
        """Whether this very reference is the only input."""
        return len(self._upstream) == 1 and self._upstream[0] is reference

    def get_downstream_refs(self) -> list[Reference]:
        """The consumers."""
        return list(self._downstream)

    def set_upstream_refs(self, references: Sequence[Any]) -> None:
        """Replace the inputs.

        Raises:
            GraphNodeInputError: Too many, or too few of a merge node.
        """
        wanted = self._as_upstream(references)
        self.check_upstream(wanted)
        self._upstream = wanted

    def add_upstream_ref(self, reference: Any) -> None:
        """Add an input.

        Raises:
            GraphNodeInputError: Too many.
        """
        self.set_upstream_refs([*self._upstream, reference])

    def remove_upstream_ref(self, reference: Any) -> None:
        """Drop an input.

        Raises:
            ValueError: It is none.
        """
        self._upstream = _without(self._upstream, as_reference(reference, "an input"), f"input of node {self.label!r}")

    def clear_upstream_refs(self) -> None:
        """Drop all inputs."""
        self._upstream = []

    def set_downstream_refs(self, references: Sequence[Any]) -> None:
        """Replace the consumers.

        Raises:
            GraphNodeOutputError: Too many.
        """
        wanted = [as_reference(value, f"a consumer of node {self.label!r}") for value in references]
        self._check_count(wanted, self.max_downstream_refs, "consumers", GraphNodeOutputError, self.label)
        self._downstream = wanted

    def add_downstream_ref(self, reference: Any) -> None:
        """Add a consumer.

        Raises:
            GraphNodeOutputError: Too many.
        """
        self.set_downstream_refs([*self._downstream, reference])

    def remove_downstream_ref(self, reference: Any) -> None:
        """Drop a consumer.

        Raises:
            ValueError: It is none.
        """
        self._downstream = _without(self._downstream, as_reference(reference, "a consumer"), f"consumer of node {self.label!r}")

    def clear_downstream_refs(self) -> None:
        """Drop all consumers."""
        self._downstream = []

    def create_input_binding(
        self, *, sampler: BaseSampler | None = None, upstream: Any = None, split: str | None = None, stream: str = STREAM_DEFAULT
    ) -> InputBinding:
        """Which rows this node reads in a phase: with a sampler for training, without one for evaluation.

        Args:
            sampler: Draws the batches; None takes the rows as they stand.
            upstream: The feature set, if the node reads several.
            split: Name of a split of it; None takes all rows.
            stream: Stream of the sampler.

        Raises:
            RuntimeError: The node reads no feature set.
            ValueError: It does not read this one, or several and none is named; an unknown split or stream.
            TypeError: ``sampler`` is none.
        """
        if sampler is None:
            return InputBinding.for_evaluation(node=self, upstream=upstream, split=split)
        return InputBinding.for_training(node=self, sampler=sampler, upstream=upstream, split=split, stream=stream)

    # -- config and state

    def get_config(self) -> dict[str, Any]:
        """Label, id, inputs, consumers, and ``graph_node_type``: the name of the class, or a class of yours."""
        return {
            **super().get_config(),
            "upstream_refs": self.get_upstream_refs(),
            "downstream_refs": self.get_downstream_refs(),
            "graph_node_type": told_class(type(self)),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, register: bool = True) -> Self:
        """The node a config describes, of the class it tells; its consumers need not exist yet.

        Raises:
            ValueError: An unknown class, or inputs that do not resolve.
            TypeError: A config of another class than the one that was asked.
        """
        wanted = class_told(config.get("merge_node_type", config["graph_node_type"]))
        if not issubclass(wanted, cls):
            raise TypeError(f"the config is that of a {wanted.__name__}, which is no {cls.__name__}")
        node = wanted._made(config, register)
        node._downstream = list(config["downstream_refs"])
        return node  # type: ignore[return-value]

    @classmethod
    def _made(cls, config: Mapping[str, Any], register: bool) -> GraphNode:
        """A node of this class by its config."""
        return cls(config["label"], config["upstream_refs"], node_id=config["node_id"], register=register)

    def get_state(self) -> dict[str, Any]:
        """Label and connections."""
        return {**super().get_state(), "upstream_refs": self.get_upstream_refs(), "downstream_refs": self.get_downstream_refs()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        super().set_state(state)
        self._upstream, self._downstream = list(state["upstream_refs"]), list(state["downstream_refs"])


def _without(references: list[Reference], gone: Reference, what: str) -> list[Reference]:
    if gone not in references:
        raise ValueError(f"{gone.to_string()!r} is no {what}")
    return [reference for reference in references if reference != gone]


class ComputeNode(GraphNode):
    """A node that makes data of data."""

    @property
    @abc.abstractmethod
    def backend(self) -> Backend:
        """Whose tensors it works on."""

    @property
    @abc.abstractmethod
    def is_built(self) -> bool:
        """Whether its shapes are known."""

    @property
    @abc.abstractmethod
    def output_shape(self) -> Shape | None:
        """Shape of its outputs without the batch axis; None until it is known."""

    @abc.abstractmethod
    def forward(self, inputs: Mapping[Reference, Flow], **kwargs: Any) -> Flow:
        """Data by input reference to data of the same type."""

    @abc.abstractmethod
    def build(self, input_shapes: Mapping[Reference, Shape] | None = None, output_shape: Shape | None = None, **kwargs: Any) -> None:
        """Get ready for shapes by input reference."""

    def get_input_data(
        self,
        inputs: Mapping[tuple[str, FeatureSetReference], Any],
        outputs: Mapping[str, Flow],
        *,
        fmt: DataFormat | str | None = None,
        accelerator: Accelerator | str | None = None,
        backend: Backend | str | None = None,
    ) -> dict[Reference, Flow]:
        """What this node reads in a step.

        Args:
            inputs: (node id, reference) to the data of head nodes.
            outputs: Node id to what nodes before this one produced.
            fmt: Tensor-like format of features and targets.
            accelerator: Where the tensors go.
            backend: Instead of ``fmt``: whose tensors; None takes the node's.

        Raises:
            KeyError: An input is missing; the message names node and feature set.
        """
        goal = (
            Backend.from_value(backend)
            if backend is not None
            else self.backend
            if fmt is None
            else backend_of_format(DataFormat.from_value(fmt))
        )
        where = Accelerator.from_value(accelerator)

        def placed(samples: SampleData) -> SampleData:
            values = {domain: samples.get_domain_data(domain) for domain in (DOMAIN_FEATURES, DOMAIN_TARGETS)}
            return samples.with_domains(
                {domain: self._placed(to_backend(value, goal), goal, where) for domain, value in values.items() if value is not None}
            )

        found: dict[Reference, Flow] = {}
        for reference in self._upstream:
            flow = self._input_of(reference, inputs, outputs)
            is_ready = isinstance(flow, Batch) and flow.ready is not None and flow.ready == (goal, where)
            found[reference] = flow if is_ready else mapped(flow, placed)
        return found

    def place_input(self, tensor: Any, where: Accelerator | None) -> Any:
        """A tensor of the node's framework where the node reads it in a phase that stands at ``where``."""
        return self._placed(tensor, self.backend, where)

    def _placed(self, tensor: Any, backend: Backend, where: Accelerator | None) -> Any:
        """A tensor of a framework on a device; None leaves it where it is."""
        return tensor if where is None or not backend.needs_optimizer else adapter(backend).place(tensor, where)

    def _input_of(self, reference: Reference, inputs: Mapping[Any, Any], outputs: Mapping[str, Flow]) -> Flow:
        if isinstance(reference, GraphNodeReference):
            if reference.node_id in outputs:
                return outputs[str(reference.node_id)]
            raise KeyError(f"node {self.label!r} reads {reference.node_label!r}, which has no output in this step")
        if (self.node_id, reference) in inputs:
            return checked(inputs[self.node_id, reference], f"the input of node {self.label!r}")
        given = ", ".join(f"({node_id!r}, {ref.to_string()!r})" for node_id, ref in inputs) or "nothing"
        raise KeyError(
            f"node {self.label!r} needs data of feature set {reference.node_label!r} under (node id, its reference); given: {given}"
        )

"""Merge nodes: several inputs become one."""

from __future__ import annotations

import abc
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter, backend_of, to_backend
from keydnn.experiment.data import Batch, DataFormat, SampleData
from keydnn.experiment.errors import GraphNodeInputError
from keydnn.experiment.graph.flow import Flow, by_role, checked, one_type, rebuilt
from keydnn.experiment.graph.nodes import ComputeNode, Reference, Shape, told_class
from keydnn.experiment.names import DOMAIN_FEATURES, DOMAIN_SAMPLE_UUIDS, DOMAIN_TAGS, DOMAIN_TARGETS

_ROWS = 2  # of the batch that a merge is tried with


class MergeNode(ComputeNode):
    """Two or more inputs made one; a subclass writes :meth:`apply_merge`.

    Args:
        label: Name.
        upstream_refs: The inputs, in order.
        backend: Whose tensors it works on; None takes those of its inputs.
        node_id: Given only when a node is loaded.
        register: Whether the active context learns about the node.

    Raises:
        GraphNodeInputError: Fewer than two inputs.
    """

    def __init__(
        self,
        label: str,
        upstream_refs: Sequence[Any],
        *,
        backend: Backend | str | None = None,
        node_id: str | None = None,
        register: bool = True,
    ) -> None:
        if not isinstance(upstream_refs, list | tuple):
            raise GraphNodeInputError(f"merge node {label!r} needs a list of two or more inputs, got {upstream_refs!r}")
        self._backend = None if backend is None else Backend.from_value(backend)
        self._input_shapes: dict[Reference, Shape] = {}
        self._shapes: dict[str, Shape] = {}
        self._told: set[str] = set()
        self._check_number(label, upstream_refs)
        super().__init__(label, list(upstream_refs), node_id=node_id, register=register)

    @staticmethod
    def _check_number(label: str, references: Sequence[Any]) -> None:
        if len(references) < 2:
            raise GraphNodeInputError(f"merge node {label!r} needs two or more inputs, got {len(references)}")

    def check_upstream(self, references: Sequence[Reference]) -> None:
        """Whether these could be the inputs.

        Raises:
            GraphNodeInputError: Fewer than two.
        """
        self._check_number(self.label, references)
        super().check_upstream(references)

    # -- what it is

    @property
    def backend(self) -> Backend:
        """Whose tensors it works on; NONE until it is known."""
        return self._backend or Backend.NONE

    @property
    def is_built(self) -> bool:
        """Whether the shape of the result is known."""
        return DOMAIN_FEATURES in self._shapes

    @property
    def input_shapes(self) -> dict[Reference, Shape]:
        """Input to its shape.

        Raises:
            RuntimeError: Not built.
        """
        self._need_built()
        return dict(self._input_shapes)

    @property
    def output_shape(self) -> Shape:
        """Shape of the result without the batch axis.

        Raises:
            RuntimeError: Not built.
        """
        self._need_built()
        return self._shapes[DOMAIN_FEATURES]

    def _need_built(self) -> None:
        if not self.is_built:
            raise RuntimeError(f"merge node {self.label!r} is not built: its shapes come with the graph's build()")

    def _summary_rows(self) -> list[tuple[str, Any]]:
        shape = str(self.output_shape) if self.is_built else "not built"
        inputs = ", ".join(str(reference.node_label) for reference in self._upstream)
        return [*super()._summary_rows(), ("backend", self.backend.value), ("inputs", inputs), ("output", shape)]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r}, {[reference.node_label for reference in self._upstream]})"

    # -- merging

    @abc.abstractmethod
    def apply_merge(
        self, values: Sequence[Any], *, includes_batch_dim: bool = True, fmt: DataFormat | str | None = None, domain: str = DOMAIN_FEATURES
    ) -> Any:
        """One tensor of several.

        Args:
            values: Tensors, one per input that has the domain.
            includes_batch_dim: Whether axis 0 counts samples.
            fmt: Tensor-like format of the result; None keeps the framework of the values.
            domain: "features", "targets" or "tags".
        """

    def build(
        self,
        input_shapes: Mapping[Reference, Shape] | None = None,
        output_shape: Shape | None = None,
        *,
        includes_batch_dim: bool = False,
        backend: Backend | str | None = None,
        target_shapes: Mapping[Reference, Shape | None] | None = None,
        **kwargs: Any,
    ) -> None:
        """Learn the shape of the result by a trial.

        Args:
            input_shapes: Input to shape; needed.
            output_shape: Ignored: a merge has no choice.
            includes_batch_dim: Whether the shapes count samples on axis 0.
            backend: Whose tensors it works on.
            target_shapes: Input to the shape of the targets that come with it.
            **kwargs: Ignored.

        Raises:
            ValueError: No shapes, or shapes that do not fit.
        """
        if not input_shapes or not set(self._upstream) <= set(input_shapes):
            raise ValueError(f"merge node {self.label!r} needs the shape of each of its {len(self._upstream)} inputs")
        if backend is not None:
            self._backend = Backend.from_value(backend)
        rest = slice(1, None) if includes_batch_dim else slice(None)
        shapes = {reference: tuple(input_shapes[reference])[rest] for reference in self._upstream}
        found = {DOMAIN_FEATURES: self._tried(list(shapes.values()), DOMAIN_FEATURES)}
        targets = [shape for shape in (target_shapes or {}).values() if shape is not None]
        if targets:
            found[DOMAIN_TARGETS] = self._tried(targets, DOMAIN_TARGETS)
        self._input_shapes, self._shapes = shapes, found

    @property
    def target_shape(self) -> Shape | None:
        """Shape of the merged targets, if it is known."""
        return self._shapes.get(DOMAIN_TARGETS)

    def _tried(self, shapes: Sequence[Shape], domain: str) -> Shape:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            merged = self.apply_merge([np.zeros((_ROWS, *shape), np.float32) for shape in shapes], domain=domain)
        return tuple(merged.shape[1:])

    def forward(self, inputs: Mapping[Reference, Flow], **kwargs: Any) -> Flow:
        """Data by input to one, in the order of the inputs."""
        return self.merge([inputs[reference] for reference in self._upstream])

    def merge(self, values: Sequence[Flow]) -> Flow:
        """Data of all inputs, in order, as one of the same type.

        Weights are the means of the inputs', masks their logical and.

        Raises:
            TypeError: Inputs of different types.
            ValueError: Other roles, or shapes that do not fit.

        Warns:
            UserWarning: The inputs hold different samples; the ids of the first are kept.
        """
        data = [checked(value, f"an input of merge node {self.label!r}") for value in values]
        one_type(data, self.label)
        roles = [by_role(value) for value in data]
        merged = {role: self._merged([samples[role] for samples in roles]) for role in roles[0]}
        if not self.is_built:
            first = next(iter(merged.values()))
            self._shapes = {DOMAIN_FEATURES: tuple(first.features.shape[1:])}
        out = rebuilt(data[0], merged)
        if not isinstance(out, Batch):
            return out
        batches: list[Any] = list(data)
        weights = {role: np.mean([np.asarray(batch.role_weights[role]) for batch in batches], axis=0) for role in merged}
        masks = {role: np.logical_and.reduce([np.asarray(batch.role_masks[role]) for batch in batches]).astype(np.int8) for role in merged}
        return Batch.trusted(out.batch_size, out.role_data, weights, masks)

    def _merged(self, samples: Sequence[SampleData]) -> SampleData:
        told: dict[str, Any] = {DOMAIN_FEATURES: self.apply_merge(self._together([one.features for one in samples]))}
        for domain in (DOMAIN_TARGETS, DOMAIN_TAGS):
            told[domain] = self._side(samples, domain)
        self._look_at_ids(samples)
        kind = "output" if any(one.kind == "output" for one in samples) else "input"
        return samples[0].with_domains(told, kind=kind)

    def passed_on(self, samples: Sequence[SampleData], made: Iterator[Any]) -> SampleData:
        """The merged samples of a step that made the tensors elsewhere: its features, then its targets if there are any."""
        features = next(made)
        self._look_at_ids(samples)
        targets = next(made) if self._has_targets(samples) else None
        told = {DOMAIN_FEATURES: features, DOMAIN_TARGETS: targets, DOMAIN_TAGS: self._side(samples, DOMAIN_TAGS)}
        return samples[0].with_domains(told, kind="output")

    def passed_beside(self, samples: Sequence[SampleData]) -> SampleData:
        """What a step passes on besides features: the merged targets and tags, and the ids of the first input."""
        told = {domain: self._side(samples, domain) for domain in (DOMAIN_TARGETS, DOMAIN_TAGS)}
        return samples[0].with_domains(told, kind="output")

    def _has_targets(self, samples: Sequence[SampleData]) -> bool:
        return any(one.targets is not None for one in samples)

    def _together(self, values: Sequence[Any]) -> list[Any]:
        """Tensors of one framework where the first one is."""
        tensors = list(values) if self._backend is None else [to_backend(value, self._backend) for value in values]
        face = adapter(backend_of(tensors[0]))
        return [face.beside(tensor, tensors[0]) if face.is_tensor(tensor) else tensor for tensor in tensors]

    def _side(self, samples: Sequence[SampleData], domain: str) -> Any:
        """Targets or tags of all inputs as one."""
        values = [one.get_domain_data(domain) for one in samples]
        there = [value for value in values if value is not None]
        if not there:
            return None
        if domain == DOMAIN_TARGETS:
            there = self._together(there)
        return self.apply_merge(there, domain=domain) if len(there) > 1 else there[0]

    def _look_at_ids(self, samples: Sequence[SampleData]) -> None:
        ids = [None if DOMAIN_SAMPLE_UUIDS not in one.domains else one.sample_uuids for one in samples]
        first = ids[0]
        if first is None or any(other is None for other in ids):
            return
        if not all(other is not None and np.array_equal(first, other) for other in ids[1:]):
            self._tell(
                "ids", f"the branches that meet in {self.label!r} are not aligned: their samples differ; the ids of the first are kept"
            )

    def _tell(self, what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            warnings.warn(message, UserWarning, stacklevel=6)

    # -- config and state

    def get_state(self) -> dict[str, Any]:
        """Label, connections and shapes."""
        return {**super().get_state(), "shapes": dict(self._shapes), "input_shapes": dict(self._input_shapes)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        super().set_state(state)
        self._shapes, self._input_shapes = dict(state["shapes"]), dict(state["input_shapes"])

    def forget_shapes(self) -> None:
        """Be unbuilt, as after an edit of the graph."""
        self._shapes, self._input_shapes = {}, {}

    def get_config(self) -> dict[str, Any]:
        """Keys of every graph node, ``merge_node_type``, and what it was built for: shapes of the inputs in order."""
        return {
            **super().get_config(),
            "graph_node_type": "MergeNode",
            "merge_node_type": told_class(type(self)),
            "output_shape": self._shapes.get(DOMAIN_FEATURES),
            "input_shapes": [self._input_shapes[reference] for reference in self._upstream] if self._input_shapes else None,
            "is_built": self.is_built,
            "backend": None if self._backend is None else self._backend.value,
        }

    @classmethod
    def _options(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments of the constructor, beside id and registration."""
        return {"backend": config["backend"]}

    @classmethod
    def _made(cls, config: Mapping[str, Any], register: bool) -> MergeNode:
        node = cls(config["label"], config["upstream_refs"], node_id=config["node_id"], register=register, **cls._options(config))
        node._backend = None if config["backend"] is None else Backend.from_value(config["backend"])
        if config["is_built"]:
            node._shapes = {DOMAIN_FEATURES: tuple(config["output_shape"])}
        if config["input_shapes"] is not None:
            node._input_shapes = {reference: tuple(shape) for reference, shape in zip(node._upstream, config["input_shapes"], strict=True)}
        return node

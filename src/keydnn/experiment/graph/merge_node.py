"""Merge nodes: several inputs become one."""

from __future__ import annotations

import abc
import enum
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter, backend_of, to_backend, to_numpy
from keydnn.experiment.data import Batch, DataFormat, SampleData
from keydnn.experiment.data.formats import backend_of_format
from keydnn.experiment.errors import GraphNodeInputError
from keydnn.experiment.graph.flow import Flow, by_role, checked, one_type, rebuilt
from keydnn.experiment.graph.nodes import ComputeNode, GraphNode, Reference, Shape
from keydnn.experiment.names import DOMAIN_FEATURES, DOMAIN_SAMPLE_UUIDS, DOMAIN_TAGS, DOMAIN_TARGETS

_ROWS = 2  # of the batch that a merge is tried with


class MergeStrategy(enum.Enum):
    """What becomes of targets and tags of several inputs."""

    FIRST = "first"
    LAST = "last"
    MEAN = "mean"
    CONCAT = "concat"

    @classmethod
    def from_value(cls, value: MergeStrategy | str) -> MergeStrategy:
        """A member, or the one a text means.

        Raises:
            ValueError: Neither.
        """
        for member in cls:
            if value is member or (isinstance(value, str) and value.strip().lower() == member.value):
                return member
        raise ValueError(f"unknown merge strategy {value!r}; expected one of {', '.join(member.value for member in cls)}")


class PadMode(enum.Enum):
    """What stands behind the end of a shorter input."""

    CONSTANT = "constant"
    REFLECT = "reflect"
    REPLICATE = "replicate"
    CIRCULAR = "circular"

    @classmethod
    def from_value(cls, value: PadMode | str) -> PadMode:
        """A member, or the one a text means.

        Raises:
            ValueError: Neither.
        """
        for member in cls:
            if value is member or (isinstance(value, str) and value.strip().lower() == member.value):
                return member
        raise ValueError(f"unknown pad_mode {value!r}; expected one of {', '.join(member.value for member in cls)}")


_MIRRORS: dict[PadMode, Callable[[int, int], list[int]]] = {  # (length, how many) -> places that are repeated behind the end
    PadMode.REFLECT: lambda n, extra: [n - 2 - i for i in range(extra)],
    PadMode.REPLICATE: lambda n, extra: [n - 1] * extra,
    PadMode.CIRCULAR: lambda n, extra: list(range(extra)),
}


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
        if not isinstance(upstream_refs, list | tuple) or len(upstream_refs) < 2:
            raise GraphNodeInputError(f"merge node {label!r} needs a list of two or more inputs, got {upstream_refs!r}")
        self._backend = None if backend is None else Backend.from_value(backend)
        self._input_shapes: dict[Reference, Shape] = {}
        self._shapes: dict[str, Shape] = {}
        self._told: set[str] = set()
        super().__init__(label, list(upstream_refs), node_id=node_id, register=register)

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
        if not input_shapes or set(input_shapes) != set(self._upstream):
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
        told: dict[str, Any] = {DOMAIN_FEATURES: self.apply_merge([self._tensor(one.features) for one in samples])}
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

    def _has_targets(self, samples: Sequence[SampleData]) -> bool:
        return any(one.targets is not None for one in samples)

    def _tensor(self, value: Any) -> Any:
        return to_backend(value, self._backend) if self._backend is not None else value

    def _side(self, samples: Sequence[SampleData], domain: str) -> Any:
        """Targets or tags of all inputs as one."""
        values = [one.get_domain_data(domain) for one in samples]
        there = [value for value in values if value is not None]
        if not there:
            return None
        if domain == DOMAIN_TARGETS:
            there = [self._tensor(value) for value in there]
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
        """Label, id, inputs and backend."""
        return {**super().get_config(), "backend": None if self._backend is None else self._backend.value}


class ConcatNode(MergeNode):
    """Inputs joined along an axis.

    Args:
        label: Name.
        upstream_refs: The inputs, in order.
        concat_axis: Axis of the features, not counting the batch axis; -1 is the last, other negative ones count from the end.
        concat_axis_targets: Axis of the targets; or "first", "last", "mean"; or one of the inputs, whose targets are taken.
        concat_axis_tags: Likewise for the tags.
        pad_inputs: Whether the other axes are padded at their ends to the longest.
        pad_mode: "constant", "reflect", "replicate" or "circular".
        pad_value: Of the constant.
        node_id: Given only when a node is loaded.
        register: Whether the active context learns about the node.

    Raises:
        ValueError: A strategy that is unknown, or a node that is no input.

    Example:
        >>> from keydnn.experiment import FeatureSet, SampleData
        >>> from keydnn.experiment.graph import ConcatNode
        >>> pair = [FeatureSet.from_dict(name, {"u": np.ones((2, 8)), "y": np.ones(2)}, "u", "y") for name in ("left", "right")]
        >>> node = ConcatNode("both", pair, concat_axis_targets="first")
        >>> node.merge([SampleData(features=np.ones((2, 1, 8))), SampleData(features=np.ones((2, 1, 8)))]).features.shape
        (2, 2, 8)
    """

    def __init__(
        self,
        label: str,
        upstream_refs: Sequence[Any],
        concat_axis: int = 0,
        *,
        concat_axis_targets: Any = -1,
        concat_axis_tags: Any = -1,
        pad_inputs: bool = False,
        pad_mode: PadMode | str = "constant",
        pad_value: float = 0.0,
        node_id: str | None = None,
        register: bool = True,
    ) -> None:
        self.concat_axis, self.pad_inputs = int(concat_axis), bool(pad_inputs)
        self.pad_mode, self.pad_value = PadMode.from_value(pad_mode), float(pad_value)
        super().__init__(label, upstream_refs, node_id=node_id, register=register)
        self.target_strategy = self._strategy(concat_axis_targets, "concat_axis_targets")
        self.tags_strategy = self._strategy(concat_axis_tags, "concat_axis_tags")

    def _strategy(self, value: Any, what: str) -> int | MergeStrategy | Reference:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, MergeStrategy) or (isinstance(value, str) and value.strip().lower() in [m.value for m in MergeStrategy]):
            strategy = MergeStrategy.from_value(value)
            return -1 if strategy is MergeStrategy.CONCAT else strategy
        reference = value.reference() if isinstance(value, GraphNode) else value
        for own in self._upstream:
            if own == reference or (isinstance(reference, str) and reference in (own.node_label, own.node_id)):
                return own
        raise ValueError(f"{what}={value!r} of node {self.label!r}: expected an axis, first, last, mean, or one of its inputs")

    @staticmethod
    def _axis_of(strategy: Any, what: str) -> int:
        if not isinstance(strategy, int):
            raise TypeError(f"{what} exists only where they are joined along an axis, here the strategy is {strategy}")
        return strategy

    @property
    def target_axis(self) -> int:
        """Axis of the targets.

        Raises:
            TypeError: They are not joined along an axis.
        """
        return self._axis_of(self.target_strategy, "target_axis")

    @property
    def tags_axis(self) -> int:
        """Axis of the tags.

        Raises:
            TypeError: They are not joined along an axis.
        """
        return self._axis_of(self.tags_strategy, "tags_axis")

    def _side(self, samples: Sequence[SampleData], domain: str) -> Any:
        strategy = self.target_strategy if domain == DOMAIN_TARGETS else self.tags_strategy
        if not isinstance(strategy, int | MergeStrategy):
            return samples[self._upstream.index(strategy)].get_domain_data(domain)
        values = [one.get_domain_data(domain) for one in samples]
        missing = any(value is None for value in values) and any(value is not None for value in values)
        if isinstance(strategy, int) and missing:
            self._tell(
                domain, f"node {self.label!r}: some input has no {domain}, so the result has none; use 'first' to keep those there are"
            )
            return None
        if isinstance(strategy, int) and domain == DOMAIN_TARGETS and values[0] is not None and self._repeats(values):
            times = f"its inputs have the same targets, joined they stand {len(values)} times"
            self._tell("hint", f"node {self.label!r}: {times}; concat_axis_targets='first' keeps one")
        return super()._side(samples, domain)

    def _has_targets(self, samples: Sequence[SampleData]) -> bool:
        if isinstance(self.target_strategy, int):
            return all(one.targets is not None for one in samples)
        if isinstance(self.target_strategy, MergeStrategy):
            return super()._has_targets(samples)
        return samples[self._upstream.index(self.target_strategy)].targets is not None

    @staticmethod
    def _repeats(values: Sequence[Any]) -> bool:
        first = to_numpy(values[0])
        return all(np.array_equal(first, to_numpy(value)) for value in values[1:])

    def apply_merge(
        self, values: Sequence[Any], *, includes_batch_dim: bool = True, fmt: DataFormat | str | None = None, domain: str = DOMAIN_FEATURES
    ) -> Any:
        """The values joined, or for targets and tags what the strategy takes.

        Raises:
            ValueError: An axis that is not there, or sizes that differ elsewhere without ``pad_inputs``.
        """
        strategy: Any = {DOMAIN_FEATURES: self.concat_axis, DOMAIN_TARGETS: self.target_strategy, DOMAIN_TAGS: self.tags_strategy}[domain]
        backend = backend_of(values[0]) if fmt is None else backend_of_format(DataFormat.from_value(fmt))
        tensors = [value if domain == DOMAIN_TAGS else to_backend(value, backend) for value in values]
        if not isinstance(strategy, int):
            return self._taken(tensors, strategy)
        axis = self._axis(strategy, tensors[0], includes_batch_dim, domain)
        face = adapter(Backend.NUMPY if domain == DOMAIN_TAGS else backend)
        return face.concat(self._fitted(tensors, axis, face, domain), axis)

    @staticmethod
    def _taken(tensors: Sequence[Any], strategy: Any) -> Any:
        if strategy is MergeStrategy.LAST:
            return tensors[-1]
        if strategy is MergeStrategy.MEAN:
            total = tensors[0]
            for tensor in tensors[1:]:
                total = total + tensor
            return total / len(tensors)
        return tensors[0]

    def _axis(self, axis: int, tensor: Any, includes_batch_dim: bool, domain: str) -> int:
        batch = 1 if includes_batch_dim else 0
        rank = len(tensor.shape) - batch
        if not -rank <= axis < rank:
            raise ValueError(f"node {self.label!r}: {domain} of shape {tuple(tensor.shape)[batch:]} have no axis {axis}")
        return (axis if axis >= 0 else rank + axis) + batch

    def _fitted(self, tensors: Sequence[Any], axis: int, face: Any, domain: str) -> list[Any]:
        shapes = [tuple(tensor.shape) for tensor in tensors]
        if len({len(shape) for shape in shapes}) != 1:
            raise ValueError(f"node {self.label!r}: {domain} of ranks that differ cannot be joined: {shapes}")
        goal = [max(sizes) for sizes in zip(*shapes, strict=True)]
        odd = any(shape[i] != goal[i] for shape in shapes for i in range(len(goal)) if i != axis)
        if odd and (not self.pad_inputs or any(shape[0] != goal[0] for shape in shapes)):
            raise ValueError(f"node {self.label!r}: {domain} of shapes {shapes} differ outside axis {axis}; pad_inputs=True pads them")
        return [self._padded(tensor, axis, goal, face) for tensor in tensors] if odd else list(tensors)

    def _padded(self, tensor: Any, axis: int, goal: Sequence[int], face: Any) -> Any:
        for i, size in enumerate(goal):
            have = int(tensor.shape[i])
            if i == axis or have == size:
                continue
            if self.pad_mode is PadMode.CONSTANT:
                shape = [*tensor.shape]
                shape[i] = size - have
                behind = face.constant(tensor, shape, self.pad_value)
            else:
                behind = face.take(tensor, self._mirror(have, size - have), i)
            tensor = face.concat([tensor, behind], i)
        return tensor

    def _mirror(self, have: int, extra: int) -> list[int]:
        most = {PadMode.REFLECT: have - 1, PadMode.CIRCULAR: have}.get(self.pad_mode, extra)
        if extra > most:
            raise ValueError(f"node {self.label!r}: pad_mode {self.pad_mode.value!r} cannot lengthen {have} by {extra}, at most by {most}")
        return _MIRRORS[self.pad_mode](have, extra)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        config = super().get_config()
        del config["backend"]
        strategies = {"concat_axis_targets": self.target_strategy, "concat_axis_tags": self.tags_strategy}
        told = {name: value.value if isinstance(value, MergeStrategy) else value for name, value in strategies.items()}
        padding = {"pad_inputs": self.pad_inputs, "pad_mode": self.pad_mode.value, "pad_value": self.pad_value}
        return {**config, "concat_axis": self.concat_axis, **told, **padding}


class _ElementwiseNode(MergeNode):
    """Inputs of one shape made one element by element; targets and tags are those of the first."""

    def _combined(self, tensors: Sequence[Any]) -> Any:
        raise NotImplementedError

    def _side(self, samples: Sequence[SampleData], domain: str) -> Any:
        return next((value for one in samples if (value := one.get_domain_data(domain)) is not None), None)

    def apply_merge(
        self, values: Sequence[Any], *, includes_batch_dim: bool = True, fmt: DataFormat | str | None = None, domain: str = DOMAIN_FEATURES
    ) -> Any:
        """The values made one; of targets and tags the first.

        Raises:
            ValueError: Shapes that differ.
        """
        if domain != DOMAIN_FEATURES:
            return values[0]
        shapes = [tuple(value.shape) for value in values]
        if len(set(shapes)) != 1:
            raise ValueError(f"node {self.label!r} takes inputs of one shape, got {shapes}")
        backend = backend_of(values[0]) if fmt is None else backend_of_format(DataFormat.from_value(fmt))
        return self._combined([to_backend(value, backend) for value in values])


class AddNode(_ElementwiseNode):
    """The sum of the inputs."""

    def _combined(self, tensors: Sequence[Any]) -> Any:
        total = tensors[0]
        for tensor in tensors[1:]:
            total = total + tensor
        return total


class MeanNode(AddNode):
    """The mean of the inputs."""

    def _combined(self, tensors: Sequence[Any]) -> Any:
        return super()._combined(tensors) / len(tensors)


class MultiplyNode(_ElementwiseNode):
    """The product of the inputs."""

    def _combined(self, tensors: Sequence[Any]) -> Any:
        product = tensors[0]
        for tensor in tensors[1:]:
            product = product * tensor
        return product

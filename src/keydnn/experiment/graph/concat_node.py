"""ConcatNode: inputs joined along an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keydnn.experiment.backends.backend import Backend
from keydnn.experiment.backends.tensors import adapter, backend_of, to_backend, to_numpy
from keydnn.experiment.data import DataFormat, SampleData
from keydnn.experiment.data.formats import backend_of_format
from keydnn.experiment.errors import GraphNodeInputError
from keydnn.experiment.graph.merge_node import MergeNode
from keydnn.experiment.graph.merging import TAKEN, MergeStrategy, PadMode, padded
from keydnn.experiment.graph.nodes import Reference
from keydnn.experiment.names import DOMAIN_FEATURES, DOMAIN_TAGS, DOMAIN_TARGETS
from keydnn.experiment.node import ExperimentNode

Strategy = int | MergeStrategy | Reference


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
        self._has_looked = False
        self.pad_mode, self.pad_value = PadMode.from_value(pad_mode), float(pad_value)
        wanted = {"concat_axis_targets": concat_axis_targets, "concat_axis_tags": concat_axis_tags}
        super().__init__(label, upstream_refs, node_id=node_id, register=False)
        self.target_strategy, self.tags_strategy = (self._strategy(value, what) for what, value in wanted.items())
        self._register(register)

    def _strategy(self, value: Any, what: str) -> Strategy:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, MergeStrategy) or (isinstance(value, str) and value.strip().lower() in [m.value for m in MergeStrategy]):
            strategy = MergeStrategy.from_value(value)
            return -1 if strategy is MergeStrategy.CONCAT else strategy
        reference = value.reference() if isinstance(value, ExperimentNode) else value
        for own in self._upstream:
            if own == reference or (isinstance(reference, str) and reference in (own.node_label, own.node_id)):
                return own
        raise ValueError(f"{what}={value!r} of node {self.label!r}: expected an axis, first, last, mean, or one of its inputs")

    # -- inputs: a strategy may name one of them

    def check_upstream(self, references: Sequence[Reference]) -> None:
        """Whether these could be the inputs.

        Raises:
            GraphNodeInputError: Fewer than two, or the one whose targets or tags are taken is gone.
        """
        super().check_upstream(references)
        for strategy in (self.target_strategy, self.tags_strategy):
            self._moved(strategy, references)

    def set_upstream_refs(self, references: Sequence[Any]) -> None:
        """Replace the inputs; a strategy that names one follows to the input in its place.

        Raises:
            GraphNodeInputError: See :meth:`check_upstream`.
        """
        wanted = self._as_upstream(references)
        strategies = [self._moved(strategy, wanted) for strategy in (self.target_strategy, self.tags_strategy)]
        super().set_upstream_refs(wanted)
        self.target_strategy, self.tags_strategy = strategies

    def _moved(self, strategy: Strategy, references: Sequence[Reference]) -> Strategy:
        if isinstance(strategy, int | MergeStrategy) or strategy in references:
            return strategy
        if len(references) != len(self._upstream):
            raise GraphNodeInputError(
                f"node {self.label!r} takes targets or tags of {strategy.node_label!r}, which would be no input any more"
            )
        return references[self._upstream.index(strategy)]

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
        if isinstance(strategy, int) and domain == DOMAIN_TARGETS and values[0] is not None and not self._has_looked:
            self._has_looked = True  # at one batch: a look at each would keep steps from being recorded
            if self._repeats(values):
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
            return TAKEN.get(strategy, TAKEN[MergeStrategy.FIRST])(tensors)  # of a named input there is one tensor
        axis = self._axis(strategy, tensors[0], includes_batch_dim, domain)
        face = adapter(Backend.NUMPY if domain == DOMAIN_TAGS else backend)
        return face.concat(self._fitted(tensors, axis, face, domain), axis)

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
        if not odd:
            return list(tensors)
        try:
            return [padded(tensor, axis, goal, face, self.pad_mode, self.pad_value) for tensor in tensors]
        except ValueError as error:
            raise ValueError(f"node {self.label!r}: {error}") from error

    # -- config

    def get_config(self) -> dict[str, Any]:
        """Keys of every merge node, and the arguments of the constructor; strategies as axis, text or reference."""
        strategies = {"target_strategy": self.target_strategy, "tags_strategy": self.tags_strategy}
        told = {name: value.value if isinstance(value, MergeStrategy) else value for name, value in strategies.items()}
        padding = {"pad_inputs": self.pad_inputs, "pad_mode": self.pad_mode.value, "pad_value": self.pad_value}
        return {**super().get_config(), "concat_axis": self.concat_axis, **told, **padding}

    @classmethod
    def _options(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        same = ("concat_axis", "pad_inputs", "pad_mode", "pad_value")
        strategies = {"concat_axis_targets": config["target_strategy"], "concat_axis_tags": config["tags_strategy"]}
        return {**{name: config[name] for name in same}, **strategies}

"""InputBinding: which rows a head node of a graph reads in a phase, and how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.contracts import INode
from keydnn.experiment.data import FeatureSet, FeatureSetView, SampledView
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import ResolutionError
from keydnn.experiment.names import STREAM_DEFAULT
from keydnn.experiment.references import FeatureSetReference
from keydnn.experiment.samplers import BaseSampler, NSampler, PairedSampler, SimpleSampler, TripletSampler

_ONE_STREAM = (SimpleSampler, NSampler, PairedSampler, TripletSampler)


@dataclass(frozen=True, eq=False)
class InputBinding:
    """Data for one feature-set input of a head node; frozen, and nothing is drawn when it is made.

    Args:
        node_id: The head node.
        upstream_ref: The input: columns of a feature set, as the node reads them.
        split: Name of the split the rows come from; None takes all rows.
        sampler: Draws the batches of a training phase; None leaves the rows in order.
        stream: Stream of the sampler.

    Raises:
        TypeError: ``upstream_ref`` is no FeatureSetReference, or ``sampler`` no sampler.
        ValueError: An unknown feature set or split, or a stream that the sampler does not have.

    Example:
        >>> from keydnn.experiment import FeatureSet, InputBinding, ModelNode
        >>> from keydnn.experiment.samplers import SimpleSampler
        >>> cells = FeatureSet.from_dict("bound", {"u": np.ones((8, 4)), "age": np.ones(8)}, "u", "age")
        >>> node = ModelNode("reader", keydnn.Sequential(keydnn.Dense(1)), cells)
        >>> binding = InputBinding.for_training(node=node, sampler=SimpleSampler(batch_size=4), upstream=cells)
        >>> binding.materialize_batches().num_batches
        2
    """

    node_id: str
    upstream_ref: FeatureSetReference
    split: str | None = None
    sampler: BaseSampler | None = None
    stream: str = STREAM_DEFAULT

    def __post_init__(self) -> None:
        if not isinstance(self.upstream_ref, FeatureSetReference):
            raise TypeError(f"upstream_ref must be a FeatureSetReference, got {type(self.upstream_ref).__name__}")
        if self.sampler is not None and not isinstance(self.sampler, BaseSampler):
            raise TypeError(f"sampler must be a sampler such as SimpleSampler, got {type(self.sampler).__name__}")
        try:
            source = self.upstream_ref.resolve().source
        except ResolutionError as error:
            raise ValueError(f"the binding of node {self.node_id!r}: {error}") from error
        if self.split is not None and self.split not in source.available_splits:
            known = ", ".join(map(repr, source.available_splits)) or "none"
            raise ValueError(f"feature set {source.label!r} has no split {self.split!r}; it has {known}")
        self._check_stream()

    def _check_stream(self) -> None:
        """A sampler that has drawn tells its streams; of the shipped ones every one has the default stream alone."""
        if self.sampler is None or self.stream == STREAM_DEFAULT:
            return
        if self.sampler.is_materialized or type(self.sampler) in _ONE_STREAM:
            known = self.sampler.stream_names if self.sampler.is_materialized else [STREAM_DEFAULT]
            if self.stream not in known:
                raise ValueError(f"{type(self.sampler).__name__} has no stream {self.stream!r}; it has {', '.join(map(repr, known))}")

    # -- by what a user has at hand

    @classmethod
    def for_training(
        cls, *, node: Any, sampler: BaseSampler, upstream: Any, split: str | None = None, stream: str = STREAM_DEFAULT
    ) -> Self:
        """A binding whose batches a sampler draws.

        Args:
            node: The head node, its label or its id.
            sampler: Draws the batches.
            upstream: A FeatureSet, a view or reference of one, its label or id; None if the node reads exactly one.
            split: Name of a split.
            stream: Stream of the sampler.

        Raises:
            TypeError: ``sampler`` is no sampler, or ``node`` or ``upstream`` is something else.
            ValueError: No such node, the feature set is not what the node reads, several are, or the split or stream is unknown.
            RuntimeError: The node reads no feature set.
        """
        if not isinstance(sampler, BaseSampler):
            raise TypeError(f"sampler must be a sampler such as SimpleSampler, got {type(sampler).__name__}")
        found = _node(node)
        return cls(found.node_id, _input_of(found, upstream), split, sampler, stream)

    @classmethod
    def for_evaluation(cls, *, node: Any, upstream: Any, split: str | None = None) -> Self:
        """A binding of rows in their order; arguments and errors as :meth:`for_training`."""
        found = _node(node)
        return cls(found.node_id, _input_of(found, upstream), split)

    # -- data

    def resolve_input_view(self) -> FeatureSetView:
        """The referenced columns of the rows of the split, in ascending order of the source.

        Raises:
            ResolutionError: The feature set or a column is not there any more.
            ValueError: The split is not.
        """
        view: FeatureSetView = self.upstream_ref.resolve()
        if self.split is None:
            return view
        source: FeatureSet = view.source
        if self.split not in source.available_splits:
            raise ValueError(f"feature set {source.label!r} has no split {self.split!r} any more")
        rows = source.get_split(self.split).absolute_rows()
        return FeatureSetView(source, np.sort(rows), view.columns, self.split)

    def materialize_batches(self, *, show_progress: bool = True) -> SampledView:
        """Let the sampler draw from these rows, unless it has; what was drawn.

        Raises:
            ValueError: There is no sampler.
        """
        if self.sampler is None:
            raise ValueError(f"the binding of node {self.node_id!r} has no sampler: nothing draws its batches")
        view = self.resolve_input_view()
        if not self.sampler.is_materialized_for(view):
            self.sampler.bind_sources(view.expand_columns(view.label))
        self.sampler.materialize_batches(show_progress=show_progress)
        return self.sampler.sampled

    # -- config

    def get_config(self) -> dict[str, Any]:
        """The fields; of a sampler its config."""
        sampler = None if self.sampler is None else self.sampler.get_config()
        told = {"node_id": self.node_id, "upstream_ref": self.upstream_ref, "split": self.split}
        return {**told, "sampler": sampler, "stream": self.stream}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The binding a config describes; its feature set is looked for in the active context."""
        sampler = config["sampler"]
        return cls(**{**config, "sampler": None if sampler is None else BaseSampler.from_config(sampler)})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InputBinding) and same_values(self.get_config(), other.get_config())

    __hash__ = None  # type: ignore[assignment]


def _node(node: Any) -> Any:
    """A graph node by itself, label or id."""
    if isinstance(node, str):
        ctx = ExperimentContext.get_active()
        if not ctx.has_node(node_id=node) and not ctx.has_node(label=node):
            known = ", ".join(repr(one.label) for one in ctx.available_computenodes.values()) or "none"
            raise ValueError(f"no node {node!r} is registered; compute nodes: {known}")
        node = ctx.get_node(node)
    if not isinstance(node, INode) or not callable(getattr(node, "get_upstream_refs", None)):
        raise TypeError(f"node must be a node of a graph, its label or its id, got {type(node).__name__}")
    return node


def _input_of(node: Any, upstream: Any) -> FeatureSetReference:
    """Which feature-set input of a node is meant."""
    inputs = [reference for reference in node.get_upstream_refs() if isinstance(reference, FeatureSetReference)]
    if not inputs:
        raise RuntimeError(f"node {node.label!r} reads no feature set: bind the head nodes of the graph")
    names = ", ".join(repr(reference.node_label) for reference in inputs)
    if upstream is None:
        if len(inputs) > 1:
            raise ValueError(f"node {node.label!r} reads several feature sets ({names}): name one with upstream=")
        return inputs[0]
    if isinstance(upstream, FeatureSetReference):
        meant = [reference for reference in inputs if reference == upstream]
        told = upstream.node_label
    else:
        node_id, told = _feature_set(upstream)
        meant = [
            reference for reference in inputs if reference.node_id == node_id or (not reference.node_id and reference.node_label == told)
        ]
    if not meant:
        raise ValueError(f"{told!r} is no input of node {node.label!r}, which reads {names}")
    if len(meant) > 1:
        raise ValueError(f"node {node.label!r} reads {told!r} more than once: name the input by its FeatureSetReference")
    return meant[0]


def _feature_set(upstream: Any) -> tuple[str, str]:
    """Id and label of a feature set by itself, a view, its label or its id."""
    if isinstance(upstream, FeatureSetView):
        upstream = upstream.source
    if isinstance(upstream, str):
        ctx = ExperimentContext.get_active()
        if not ctx.has_node(node_id=upstream) and not ctx.has_node(label=upstream):
            raise ValueError(f"no feature set {upstream!r} is registered")
        upstream = ctx.get_node(upstream, enforce_type="FeatureSet")
    if not isinstance(upstream, FeatureSet):
        raise TypeError(f"upstream must be a FeatureSet, a view, a reference, a label or an id, got {type(upstream).__name__}")
    return upstream.node_id, upstream.label

"""The diagram of a model graph, and of what a phase does with it.

Feature sets, then the nodes in the order in which they run, then what the last ones give; in a phase samplers stand between feature
sets and nodes, losses hang on their nodes, and dashes move along the edges where data flow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keydnn.experiment.bindings import InputBinding
from keydnn.experiment.data.diagram import lines_of
from keydnn.experiment.equality import same_values
from keydnn.experiment.errors import ResolutionError
from keydnn.experiment.graph.model_node import ModelNode
from keydnn.experiment.graph.nodes import ComputeNode, Shape
from keydnn.experiment.graph.shapes import source_shapes
from keydnn.experiment.names import DOMAIN_FEATURES, DOMAIN_TAGS, DOMAIN_TARGETS, STREAM_DEFAULT
from keydnn.experiment.references import FeatureSetReference
from keydnn.experiment.samplers import BaseSampler
from keydnn.experiment.training import AppliedLoss
from keydnn.experiment.visualization.mermaid import Diagram, Node
from keydnn.experiment.visualization.visualizer import FeatureSetDisplayOptions, ModelGraphDisplayOptions

FROZEN = "frozen"


@dataclass(frozen=True)
class Scene:
    """What a phase does with a graph.

    Attributes:
        running: Ids of the nodes that run; None: nobody says, and nothing moves.
        held: Ids of nodes drawn as frozen to the word for it, beside those that are frozen anyway.
        bindings: (node id, reference) to the binding of that input.
        losses: In order.
    """

    running: frozenset[str] | None = None
    held: Mapping[str, str] = field(default_factory=dict)
    bindings: Mapping[tuple[str, FeatureSetReference], InputBinding] = field(default_factory=dict)
    losses: Sequence[AppliedLoss] = ()


def graph_diagram(graph: Any, options: ModelGraphDisplayOptions | None = None, scene: Scene | None = None) -> Diagram:
    """The diagram of a graph, in a scene if one is given."""
    shown = ModelGraphDisplayOptions() if options is None else options
    drawing = _Drawing(graph, shown, Scene() if scene is None else scene)
    drawing.draw()
    return drawing.diagram


class _Drawing:
    """One graph being drawn."""

    def __init__(self, graph: Any, shown: ModelGraphDisplayOptions, scene: Scene) -> None:
        self._graph, self._shown, self._scene = graph, shown, scene
        self._order: list[ComputeNode] = graph.executed_nodes()
        self.diagram = Diagram()
        self._places: dict[str, int] = {}  # id of a node or feature set -> its box
        self._runs: list[tuple[InputBinding, int]] = []  # runs of samplers -> their box

    def draw(self) -> None:
        """Boxes from left to right, then arrows."""
        for node in self._order:
            for reference in _sources(node):
                self._add_source(reference)
        for binding in self._scene.bindings.values():
            if binding.sampler is not None and self._run_of(binding) is None:
                self._add_sampler(binding)
        for node in self._order:
            self._places[node.node_id] = self.diagram.add(self._node(node))
        for node in self._order:
            self._connect(node)
        for node in self._graph.tail_nodes.values():
            self._add_terminal(node)
        for loss in self._scene.losses:
            self._add_loss(loss)

    def _runs_in(self, node_id: str) -> bool:
        return self._scene.running is None or node_id in self._scene.running

    def _moves(self, node_id: str) -> bool:
        return self._scene.running is not None and node_id in self._scene.running

    def _run_of(self, binding: InputBinding) -> int | None:
        return next((place for run, place in self._runs if self._shares(run, binding)), None)

    def _shares(self, one: InputBinding, other: InputBinding) -> bool:
        """Whether two bindings are fed by one run of a sampler."""
        mine, yours = one.sampler, other.sampler
        if mine is None or yours is None or one.split != other.split or self._key(one.upstream_ref) != self._key(other.upstream_ref):
            return False
        return mine is yours or (type(mine) is type(yours) and same_values(mine.get_config(), yours.get_config()))

    # -- boxes

    def _add_source(self, reference: FeatureSetReference) -> None:
        key = self._key(reference)
        if key in self._places:
            return
        readers = [node for node in self._order if any(self._key(one) == key for one in _sources(node))]
        style = "FeatureSet" if any(self._runs_in(node.node_id) for node in readers) else "Inactive"
        view = self._view(reference)
        if view is None:
            box = Node(style, "FeatureSet", str(reference.node_label or reference.node_id), ("not registered",))
        else:
            box = Node(style, "FeatureSet", view.source.label, self._source_lines(view.source))
        self._places[key] = self.diagram.add(box)

    def _key(self, reference: FeatureSetReference) -> str:
        """What tells feature sets apart, however they are referred to."""
        view = self._view(reference)
        return str(reference.node_id or reference.node_label) if view is None else view.source.node_id

    def _view(self, reference: FeatureSetReference) -> Any:
        """What a reference names, or None if it is not there any more."""
        try:
            return reference.resolve(self._graph.ctx)
        except ResolutionError:
            return None

    def _source_lines(self, fs: Any) -> tuple[str, ...]:
        shown = self._shown
        wanted = FeatureSetDisplayOptions(shown.show_features, shown.show_targets, shown.show_tags)
        splits = (f"splits: {', '.join(fs.available_splits)}",) if shown.show_splits and fs.available_splits else ()
        return (*lines_of(fs, wanted, len(fs), is_root=True), *splits)

    def _node(self, node: ComputeNode) -> Node:
        if not isinstance(node, ModelNode):
            return Node("MergeNode" if self._runs_in(node.node_id) else "Inactive", type(node).__name__, node.label)
        held = self._scene.held.get(node.node_id, FROZEN if node.is_frozen else "") if self._shown.show_frozen else ""
        style = "Inactive" if not self._runs_in(node.node_id) else "FrozenNode" if held else "ModelNode"
        backend = (f"<{node.backend.value}>",) if node.is_built else ()
        lines = (*backend, *((held,) if held else ()), *self._column_lines(node))
        return Node(style, type(node).__name__, node.label, lines)

    def _column_lines(self, node: ComputeNode) -> list[str]:
        """The columns that a node reads, of the domains that are shown."""
        wanted = {DOMAIN_FEATURES: self._shown.show_features, DOMAIN_TARGETS: self._shown.show_targets, DOMAIN_TAGS: self._shown.show_tags}
        found = []
        for view in (self._view(reference) for reference in _sources(node)):
            names = [] if view is None else [name for name in view.columns if wanted.get(name.split(".")[0])]
            found += [f"{name} {view.source.collection.shape(name)}" for name in names]
        return found

    def _add_terminal(self, node: ComputeNode) -> None:
        place = self.diagram.add(Node("Terminal" if self._runs_in(node.node_id) else "Inactive", "", "", shape="circle"))
        self.diagram.connect(self._places[node.node_id], place, _told(_output(node)), moves=self._moves(node.node_id))

    def _add_sampler(self, binding: InputBinding) -> None:
        streams = [other.stream for other in self._scene.bindings.values() if self._shares(other, binding)]
        place = self.diagram.add(_sampler(binding, list(dict.fromkeys(streams))))
        self._runs.append((binding, place))
        self.diagram.connect(self._places[self._key(binding.upstream_ref)], place, " ".join(_split(binding)), moves=True)

    def _add_loss(self, loss: AppliedLoss) -> None:
        style = "AppliedLoss" if self._runs_in(loss.node_id) else "Inactive"
        lines = (f"loss: {loss.loss.name}", *((f"weight: {loss.weight:g}",) if loss.weight != 1 else ()))
        place = self.diagram.add(Node(style, "AppliedLoss", loss.label, lines, shape="stadium"))
        self.diagram.connect(self._places[loss.node_id], place, dotted=True)

    # -- arrows

    def _connect(self, node: ComputeNode) -> None:
        place, moves = self._places[node.node_id], self._moves(node.node_id)
        for reference in node.get_upstream_refs():
            if isinstance(reference, FeatureSetReference):
                self._connect_source(node, reference)
            else:
                upstream = self._graph.get_node(reference)
                self.diagram.connect(self._places[upstream.node_id], place, _told(_output(upstream)), moves=moves)

    def _connect_source(self, node: ComputeNode, reference: FeatureSetReference) -> None:
        """From a feature set, or from the sampler that draws of it."""
        place, moves = self._places[node.node_id], self._moves(node.node_id)
        shape = "" if self._view(reference) is None else _told(source_shapes(reference, self._graph.ctx)[0])
        binding = self._scene.bindings.get((node.node_id, reference)) if moves else None
        if binding is None:
            self.diagram.connect(self._places[self._key(reference)], place, shape)
        elif binding.sampler is None:
            self.diagram.connect(self._places[self._key(reference)], place, " ".join([*_split(binding), shape]), moves=True)
        else:
            run = self._run_of(binding)
            assert run is not None
            told = [f"stream: {binding.stream}"] if binding.stream != STREAM_DEFAULT else []
            self.diagram.connect(run, place, " ".join([*told, shape]), moves=True)


def _sources(node: ComputeNode) -> list[FeatureSetReference]:
    return [reference for reference in node.get_upstream_refs() if isinstance(reference, FeatureSetReference)]


def _told(shape: Shape | None) -> str:
    return "" if shape is None else str(shape)


def _output(node: ComputeNode) -> Shape | None:
    return node.output_shape if node.is_built else None


def _split(binding: InputBinding) -> list[str]:
    return [] if binding.split is None else [f"split: {binding.split}"]


def _sampler(binding: InputBinding, streams: Sequence[str]) -> Node:
    sampler: BaseSampler = binding.sampler  # type: ignore[assignment]
    stream = (f"stream: {', '.join(streams)}",) if set(streams) != {STREAM_DEFAULT} else ()
    return Node("Sampler", "Sampler", type(sampler).__name__, (f"batch_size: {sampler.batch_size}", *_split(binding), *stream))

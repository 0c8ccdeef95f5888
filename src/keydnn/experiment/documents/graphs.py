"""Documents of graphs: nodes by label, each with its class, what it reads and its options.

    node_name, node_class: model, model_class, model_kwargs, upstream           optimizer, accelerator, frozen
    node_name, node_class: merge, merge_node_class, upstream: [..], options     or the path of a class of yours as node_class

``node_id`` and the shapes that a node was built for stand there for the sake of files that are written; who writes by hand leaves them out.
"""

from __future__ import annotations

import graphlib
import heapq
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from keydnn.experiment.documents.parts import ACCELERATOR, OPTIMIZER, by_backend
from keydnn.experiment.documents.records import Fields, arguments_of, check_keys, check_type, maybe, record
from keydnn.experiment.documents.sides import Reader, Writer, shown
from keydnn.experiment.documents.symbols import path_of
from keydnn.experiment.documents.values import REFERENCE, SYMBOL, VALUE, View
from keydnn.experiment.graph import ComputeNode, ConcatNode, MergeNode, ModelGraph, ModelNode
from keydnn.experiment.graph.model_graph import optimizers_told
from keydnn.experiment.graph.nodes import GraphNode, class_told, told_class
from keydnn.experiment.models import BaseModel
from keydnn.experiment.random_states import forked
from keydnn.experiment.references import GraphNodeReference

log = logging.getLogger("keydnn")

# -- what a node reads


def _read_upstream(reader: Reader, told: Any) -> Any:
    """A reference, or a label: of a node in this document, or of a registered feature set, all of whose columns are read then."""
    if not isinstance(told, str):
        return REFERENCE.read(reader, told)
    node_id = reader.id_of(told)
    return GraphNodeReference(told, node_id) if told in reader.labels else reader.ctx.get_node(node_id=node_id).reference()


def _tell_upstreams(writer: Writer, references: list[Any]) -> list[Any]:
    return [REFERENCE.tell(writer, reference) for reference in references]


def _read_upstreams(reader: Reader, told: Any) -> list[Any]:
    return [_read_upstream(reader, one) for one in (told if isinstance(told, list) else [told])]


UPSTREAMS = View(_tell_upstreams, _read_upstreams)

# -- options of merge nodes: as the constructor names them

_OPTIONS: dict[type, Fields] = {
    ConcatNode: {"target_strategy": ("concat_axis_targets", VALUE), "tags_strategy": ("concat_axis_tags", VALUE)},
}
_NODE_KEYS = ("label", "node_id", "upstream_refs", "downstream_refs", "graph_node_type", "merge_node_type")
_BUILT_KEYS = ("output_shape", "input_shapes", "is_built")


def _options_of(cls: type) -> Fields:
    return next((fields for known, fields in _OPTIONS.items() if issubclass(cls, known)), {})


def _tell_options(writer: Writer, cls: type, config: Mapping[str, Any]) -> dict[str, Any]:
    named = _options_of(cls)
    document = {}
    for key, value in config.items():
        if key not in (*_NODE_KEYS, *_BUILT_KEYS) and value is not None:
            name, view = named.get(key, (key, VALUE))
            document[name] = view.tell(writer, value)
    if config.get("is_built"):
        document |= {name: VALUE.tell(writer, _shapes(config.get(name))) for name in ("input_shapes", "output_shape")}
    return document


def _shapes(value: Any) -> Any:
    """Shapes as lists."""
    return [_shapes(one) for one in value] if isinstance(value, list | tuple) else value


def _read_options(reader: Reader, cls: type, document: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: (key, view) for key, (name, view) in _options_of(cls).items()}
    arguments = {name: one for name, one in arguments_of(cls).items() if name not in ("label", "upstream_refs", "node_id", "register")}
    if cls.__module__.startswith("keydnn."):
        check_keys(reader, document, [*arguments, "backend", "input_shapes", "output_shape"], cls.__name__)
    config = {named[name][0] if name in named else name: one.default for name, one in arguments.items() if one.default is not one.empty}
    config |= {"backend": None, "input_shapes": None, "output_shape": None, "is_built": "output_shape" in document}
    for name, told in document.items():
        with reader.at(str(name)):
            key, view = named.get(name, (name, VALUE))
            config[key] = view.read(reader, told)
            if name in arguments and name not in named:
                check_type(reader, name, config[key], arguments[name].annotation)
    return config


# -- models


def _tell_model(writer: Writer, config: Mapping[str, Any]) -> dict[str, Any]:
    more = {name: value for name, value in config.items() if name not in ("model_class", "init_args", "backend", *_SHAPES, "is_built")}
    document: dict[str, Any] = {"model_class": path_of(config["model_class"])}
    with writer.at("model_kwargs"):
        document["model_kwargs"] = VALUE.tell(writer, config["init_args"])
    if more:
        with writer.at("model_options"):
            document["model_options"] = VALUE.tell(writer, more)
    if config["is_built"]:
        document |= {name: VALUE.tell(writer, _shapes(config[name])) for name in _SHAPES}
    return document


_SHAPES = ("input_shape", "output_shape")
_MODEL_KEYS = ("model_class", "model_kwargs", "model_options", *_SHAPES)


def _read_model(reader: Reader, document: Mapping[str, Any]) -> dict[str, Any]:
    with reader.at("model_class"):
        cls: Any = SYMBOL.read(reader, document.get("model_class"))
        if not isinstance(cls, type) or not issubclass(cls, BaseModel):
            reader.refuse(f"{document.get('model_class')!r} is no class of models; wrap others, as in {_WRAPPED}")
    with reader.at("model_kwargs"):
        arguments = VALUE.read(reader, reader.mapping(document.get("model_kwargs") or {}, "model_kwargs"))
        known = arguments_of(cls)
        for name, value in arguments.items():
            if name in known:
                check_type(reader, name, value, known[name].annotation)
    with reader.at("model_options"):
        more = VALUE.read(reader, reader.mapping(document.get("model_options") or {}, "model_options"))
    shapes = {}
    for name in _SHAPES:
        with reader.at(name):
            shape = document.get(name)
            if shape is not None and not (isinstance(shape, list) and all(type(n) is int for n in shape)):
                reader.refuse(f"a shape is a list of numbers, got {shown(shape)}")
            shapes[name] = None if shape is None else tuple(shape)
    built = {**shapes, "is_built": None not in shapes.values()}
    return {"model_class": cls, "init_args": arguments, **_MODEL_DEFAULTS.get(cls.__name__, {}), **more, **built}


_WRAPPED = "model_class: keydnn.experiment.models.TorchModelWrapper with model_kwargs: {model_class: {$symbol: ..}, model_kwargs: {..}}"
_MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "ScikitModelWrapper": {"model_params": {}, "training_mode": "auto", "output_method": "auto", "partial_fit_kwargs": {}}
}

# -- nodes

_COMMON = ("node_name", "node_class", "upstream", "node_id")
_OF_MODELS = ("optimizer", "accelerator", "frozen")


def _tell_node(writer: Writer, config: Mapping[str, Any]) -> dict[str, Any]:
    cls = class_told(config.get("merge_node_type", config["graph_node_type"]))
    upstream = UPSTREAMS.tell(writer, config["upstream_refs"])
    document: dict[str, Any] = {"node_name": config["label"], "node_class": _kind(cls)}
    if issubclass(cls, ModelNode):
        document |= _tell_model(writer, config["model"])
        document["upstream"] = upstream[0]
        for name, view in (("optimizer", OPTIMIZER), ("accelerator", ACCELERATOR)):
            if config[name] is not None:
                with writer.at(name):
                    document[name] = view.tell(writer, config[name])
        document |= {"frozen": True} if config["frozen"] else {}
    else:
        document |= {"merge_node_class": _told(config["merge_node_type"], cls)} if issubclass(cls, MergeNode) else {}
        document |= {"upstream": upstream, **_tell_options(writer, cls, config)}
    return {**document, "node_id": config["node_id"]}


def _kind(cls: type) -> str:
    """The word for a class of nodes: model, merge, or the path of one that is neither."""
    return "model" if cls is ModelNode else "merge" if issubclass(cls, MergeNode) else path_of(cls)


def _told(name: Any, cls: type) -> str:
    return name if isinstance(name, str) else path_of(cls)


def _class_of(reader: Reader, document: Mapping[str, Any]) -> type[GraphNode]:
    told = reader.text(document.get("node_class", "model"), "node_class")
    if told == "model":
        return ModelNode
    if told == "merge":
        told = reader.text(document.get("merge_node_class"), "merge_node_class")
    cls: Any = SYMBOL.read(reader, told) if "." in told else class_told(told)
    if not isinstance(cls, type) or not issubclass(cls, ComputeNode):
        reader.refuse(f"{told!r} is no class of nodes; expected model, merge, or the import path of one")
    return cls


def _read_node(reader: Reader, document: Mapping[str, Any], node_id: str) -> dict[str, Any]:
    cls = _class_of(reader, document)
    common = {"label": document["node_name"], "node_id": node_id, "downstream_refs": []}
    with reader.at("upstream"):
        if document.get("upstream") is None:
            reader.refuse("what the node reads is missing: a reference, a label, or for merge nodes a list of them")
        upstream = UPSTREAMS.read(reader, document["upstream"])
    if issubclass(cls, ModelNode):
        check_keys(reader, document, [*_COMMON, *_MODEL_KEYS, *_OF_MODELS], "a model node")
        if len(upstream) != 1:
            reader.refuse(f"a model node reads one thing, got {len(upstream)}; put a merge node between")
        config = {"graph_node_type": "ModelNode" if cls is ModelNode else cls, "model": _read_model(reader, document)}
        for name, view in (("optimizer", maybe(OPTIMIZER)), ("accelerator", ACCELERATOR)):
            with reader.at(name):
                config[name] = view.read(reader, document.get(name))
        check_type(reader, "frozen", document.get("frozen", False), "bool")
        return {**common, **config, "upstream_refs": upstream, "frozen": document.get("frozen", False)}
    rest = {name: told for name, told in document.items() if name not in (*_COMMON, "merge_node_class")}
    is_merge = issubclass(cls, MergeNode)
    told_as = told_class(cls)
    types = {"graph_node_type": "MergeNode", "merge_node_type": told_as} if is_merge else {"graph_node_type": told_as}
    return {**common, **types, "upstream_refs": upstream, **_read_options(reader, cls, rest)}


# -- graphs

_GRAPH = record(
    "a model_graph",
    ModelGraph,
    {"label": ("graph_name", VALUE), "optimizer": ("optimizer", maybe(by_backend(OPTIMIZER))), "nodes": ("nodes", VALUE)},
    without=("ctx", "register"),
)


def tell_graph(writer: Writer, graph: ModelGraph) -> dict[str, Any]:
    """The document of a graph."""
    writer.labels |= {node_id: node.label for node_id, node in graph.nodes.items()}
    for node in graph.nodes.values():
        if isinstance(node, ModelNode):
            with writer.at(f"node {node.label!r}"):
                getattr(node.model, "artifact_config", node.model.get_config)()  # some models say here that a file cannot tell them
    config = graph.get_config()
    document = _GRAPH.tell(writer, {**config, "nodes": []})
    nodes = []
    for told in config["nodes"]:
        with writer.at(f"node {told['label']!r}"):
            nodes.append(_tell_node(writer, told))
    return {**document, "nodes": nodes}


def read_graph(reader: Reader, document: Any, cls: type[ModelGraph] = ModelGraph) -> ModelGraph:
    """The graph that a document describes, in the context of the reader; nodes may stand in any order.

    Raises:
        PlacedError: Labels that are taken, and whatever else is wrong.
    """
    document = reader.mapping(document, "model_graph")
    told = _nodes_told(reader, document.get("nodes"))
    config = _GRAPH.read(reader, {**document, "nodes": None})
    if reader.ctx.model_graph is not None and not reader.overwrite:
        reader.refuse(f"the context has the graph {reader.ctx.model_graph.label!r} already; pass overwrite=True to replace it")
    for label, one in told.items():
        reader.labels[label] = _id_for(reader, label, one.get("node_id"))
    nodes = []
    with reader.ctx.use_policy("overwrite" if reader.overwrite else "error"):
        for label in _in_order(reader, told):
            with reader.at(f"node {label!r}"):
                nodes.append(ComputeNode.from_config(_read_node(reader, told[label], reader.labels[label])))
        return cls(nodes, optimizers_told(config["optimizer"]), config["label"], ctx=reader.ctx)


def renew(graph: ModelGraph, entropy: int | None) -> None:
    """Give what was built the weights that the seed of the experiment gives."""
    for node in graph.nodes.values():
        if entropy is not None and isinstance(node, ModelNode) and node.is_built:
            with forked(entropy, node.label):
                node.reset_weights()


def _nodes_told(reader: Reader, told: Any) -> dict[str, Mapping[str, Any]]:
    """Label to document of every node."""
    found: dict[str, Mapping[str, Any]] = {}
    for i, one in enumerate(reader.sequence(told, "nodes")):
        with reader.at(f"nodes[{i}]"):
            label = reader.text(reader.mapping(one, "a node").get("node_name"), "node_name")
            if label in found:
                reader.refuse(f"two nodes are named {label!r}")
            found[label] = one
    return found


def _id_for(reader: Reader, label: str, told: Any) -> str:
    """The id of a new node: the one told if it is free, of one that is replaced its own."""
    ctx = reader.ctx
    with reader.at(f"node {label!r}"):
        if ctx.has_node(label=label):
            other = ctx.get_node(label=label)
            if not reader.overwrite:
                reader.refuse(f"a {type(other).__name__} with this label is registered; pass overwrite=True to replace it")
            if not isinstance(other, ComputeNode):
                reader.refuse(f"the label belongs to a {type(other).__name__}, which no node replaces; rename one of them")
            if told is None:
                return str(other.node_id)
        if told is None:
            return str(uuid.uuid4())
        node_id = reader.text(told, "node_id")
        taken = node_id in reader.labels.values() or (ctx.has_node(node_id=node_id) and ctx.get_node(node_id=node_id).label != label)
    if taken:
        log.info("the id of node %r is taken; it gets a new one", label)
        return str(uuid.uuid4())
    return node_id


def _in_order(reader: Reader, told: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The labels, each behind all that it reads, else in the order of the document."""
    reads = {
        label: [name for name in _labels_in(one.get("upstream")) if isinstance(name, str) and name in told] for label, one in told.items()
    }
    sorter, places, order = graphlib.TopologicalSorter(reads), {label: i for i, label in enumerate(told)}, []
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        reader.refuse(f"nodes read each other in a circle: {' -> '.join(error.args[1])}")
    ready: list[tuple[int, str]] = []
    while sorter.is_active():
        for label in sorter.get_ready():
            heapq.heappush(ready, (places[label], label))
        order.append(heapq.heappop(ready)[1])
        sorter.done(order[-1])
    return order


def _labels_in(upstream: Any) -> list[Any]:
    parts = upstream if isinstance(upstream, list) else [upstream]
    return [part.get("node_label") if isinstance(part, Mapping) else part for part in parts]

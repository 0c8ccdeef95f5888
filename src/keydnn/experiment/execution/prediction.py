"""Predictions for new raw data: through the stored scalers, the graph in evaluation mode, and back into the units of the targets."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keydnn.experiment.backends.tensors import is_tensor, to_backend, to_numpy
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import Batch, BatchView, DataFormat, ExecutionContext, FeatureSet, FeatureSetView
from keydnn.experiment.data.formats import backend_of_format
from keydnn.experiment.data.sources import from_columns
from keydnn.experiment.graph import ComputeNode, ModelGraph
from keydnn.experiment.graph.flow import by_role
from keydnn.experiment.names import DOMAIN_FEATURES, DOMAIN_TARGETS, REP_RAW, REP_TRANSFORMED, ROLE_DEFAULT
from keydnn.experiment.references import FeatureSetReference

Array = NDArray[Any]
_KEY = 1  # of the ids of new rows: row i of every input is the same sample
Input = tuple[str, FeatureSetReference]  # id of a node and what it reads


def predict(ctx: ExperimentContext, data: Any, node: Any, *, unscale: bool, batch_size: int | None, fmt: DataFormat | str) -> Any:
    """Outputs of a node for new data; see :meth:`keydnn.experiment.Experiment.predict`."""
    graph = ctx.model_graph
    form = DataFormat.from_value(fmt)
    if not form.is_tensor_like:
        raise TypeError(f"predict needs a tensor-like format such as 'np' or 'torch', got {form.value!r}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if graph is None or not graph.is_built:
        raise RuntimeError(f"there is {'no graph' if graph is None else 'no built graph'} to predict with: train one first")
    goal = chosen_node(graph, node)
    inputs = _inputs(graph, goal)
    sources = {reference: reference.resolve(ctx).source for _, reference in inputs}
    batches = _batches(data, inputs, sources, batch_size)
    outputs = np.concatenate([_output(graph, goal, given) for given in batches])
    if unscale and goal.node_id in graph.tail_nodes:
        outputs = _unscaled(outputs, goal, sources)
    return outputs if form is DataFormat.NUMPY else to_backend(outputs, backend_of_format(form))


def chosen_node(graph: ModelGraph, node: Any) -> ComputeNode:
    """A node of a graph by instance, id or label; None means the only one that nobody reads.

    Raises:
        ValueError: None, and several are read by nobody.
        KeyError: No such node.
    """
    if node is None:
        tails = list(graph.tail_nodes.values())
        if len(tails) != 1:
            raise ValueError(f"name a node: {graph.label!r} ends in {', '.join(repr(tail.label) for tail in tails) or 'none'}")
        return tails[0]
    for one in graph.nodes.values():
        if one is node or node in (one.node_id, one.label):
            return one
    raise KeyError(f"no node {node!r} in {graph.label!r}; it has {', '.join(sorted(graph.node_labels))}")


def _inputs(graph: ModelGraph, goal: ComputeNode) -> list[Input]:
    """Every feature set that a node or one above it reads."""
    found: list[Input] = []
    waiting, seen = [goal.node_id], set()
    while waiting:
        node = graph.nodes[waiting.pop()]
        if node.node_id in seen:
            continue
        seen.add(node.node_id)
        for reference in node.get_upstream_refs():
            if isinstance(reference, FeatureSetReference):
                found.append((node.node_id, reference))
            else:
                waiting.append(str(reference.node_id))
    return found


def _batches(
    data: Any, inputs: Sequence[Input], sources: Mapping[FeatureSetReference, FeatureSet], batch_size: int | None
) -> Iterator[dict[Input, Batch]]:
    """The inputs of one step after the other."""
    sets = {source.node_id: source for source in sources.values()}
    per_set = _per_set(data, list(sets.values()))
    made = {
        reference: _feature_set(per_set[source.node_id], source, _feature_names(reference, source)) for reference, source in sources.items()
    }
    sizes = {len(new) for new in made.values()}
    if len(sizes) != 1:
        raise ValueError(f"the inputs differ in length: {', '.join(map(str, sorted(sizes)))} rows")
    (n,) = sizes
    step = n if batch_size is None else batch_size
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        views = {reference: BatchView(new, {ROLE_DEFAULT: rows}) for reference, new in made.items()}
        yield {
            (node_id, reference): views[reference].materialize_batch(columns=_feature_names(reference, sources[reference]))
            for node_id, reference in inputs
        }


def _per_set(data: Any, sets: Sequence[FeatureSet]) -> dict[str, Any]:
    """Id of a feature set to the new data in its stead."""
    if len(sets) == 1:
        return {sets[0].node_id: data}
    labels = [source.label for source in sets]
    if not isinstance(data, Mapping) or set(data) != set(labels):
        got = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
        raise ValueError(f"the graph reads several feature sets: give a dict with the keys {', '.join(labels)}; got {got}")
    return {source.node_id: data[source.label] for source in sets}


def _feature_names(reference: FeatureSetReference, source: FeatureSet) -> list[str]:
    whole = reference.features is None and reference.targets is None and reference.tags is None
    return source.get_feature_keys() if whole else list(reference.features or ())


def _key(name: str) -> str:
    return name.split(".")[1]


def _feature_set(data: Any, source: FeatureSet, names: Sequence[str]) -> FeatureSet:
    """The new data with the columns of ``names``, made by the scalers of ``source``; not registered."""
    keys = list(dict.fromkeys(map(_key, names)))
    scaled = [_key(name) for name in names if name.endswith(f".{REP_TRANSFORMED}")]
    wanted = list(dict.fromkeys([*keys, *sorted(source.scaled_together(DOMAIN_FEATURES, scaled))]))
    raw = _raw_columns(data, source, keys, wanted)
    if any(len(values) == 0 for values in raw.values()):
        raise ValueError("there are no rows to predict for")
    collection = from_columns(raw, list(raw), [], None, "data")
    new = FeatureSet(f"new_{source.label}", collection, register=False, uuid_key=_KEY)
    if scaled:
        values = source.scaled(DOMAIN_FEATURES, {key: new.values(f"{DOMAIN_FEATURES}.{key}.{REP_RAW}") for key in raw})
        new.collection.add_reps(DOMAIN_FEATURES, REP_TRANSFORMED, {key: values[key] for key in scaled})
    return new


def _raw_columns(data: Any, source: FeatureSet, keys: Sequence[str], wanted: Sequence[str]) -> dict[str, Array]:
    """Key to raw values; of an array the columns in the order of ``keys``, which must be all that is wanted."""
    if isinstance(data, FeatureSet | FeatureSetView):
        return {key: data.values(f"{DOMAIN_FEATURES}.{key}.{REP_RAW}") for key in wanted}
    if isinstance(data, Mapping) or _is_frame(data):
        missing = [key for key in wanted if key not in data]
        if missing:
            raise ValueError(f"the data lack {', '.join(missing)}; {source.label!r} needs {', '.join(wanted)}")
        return {key: to_numpy(data[key]) if is_tensor(data[key]) else np.asarray(data[key]) for key in wanted}
    if set(wanted) != set(keys):
        more = ", ".join(sorted(set(wanted) - set(keys)))
        raise ValueError(
            f"columns that the node does not read were scaled together with those it reads ({more}): give a dict with them, too"
        )
    return _cut(np.asarray(to_numpy(data)), source, keys)


def _is_frame(data: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, pandas.DataFrame)


def _cut(array: Array, source: FeatureSet, keys: Sequence[str]) -> dict[str, Array]:
    """Stacked columns (n, K, ...) by key; of a single column also (n, ...)."""
    shapes = {key: tuple(source.collection.shape(f"{DOMAIN_FEATURES}.{key}.{REP_RAW}")) for key in keys}
    inner = shapes[keys[0]]
    if array.ndim and array.shape[1:] == (len(keys), *inner) and len(set(shapes.values())) == 1:
        return {key: np.ascontiguousarray(array[:, i]) for i, key in enumerate(keys)}
    if array.ndim and len(keys) == 1 and array.shape[1:] == inner:
        return {keys[0]: array}
    told = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
    raise ValueError(f"an array of shape {array.shape} does not hold the columns {told}; expected (n, {len(keys)}, ...), or give a dict")


def _output(graph: ModelGraph, goal: ComputeNode, given: Mapping[Input, Any]) -> Array:
    step = ExecutionContext("predict", 0, 0)
    for (node_id, reference), batch in given.items():
        step.set_input(node_id=node_id, upstream=reference, batch=batch)
    graph.eval_step(step, active_nodes=[goal.node_id])
    return to_numpy(by_role(step.outputs[goal.node_id])[ROLE_DEFAULT].features)


def _unscaled(outputs: Array, goal: ComputeNode, sources: Mapping[FeatureSetReference, FeatureSet]) -> Array:
    """Outputs in raw units of the targets that were read scaled; all others as they are."""
    found = {(source.node_id, names): source for reference, source in sources.items() if (names := _target_names(reference, source))}
    scaled = [name for _, names in found for name in names if name.endswith(f".{REP_TRANSFORMED}")]
    if not scaled:
        return outputs
    if len(found) > 1:
        kinds = "; ".join(sorted(f"{source.label!r} {', '.join(names)}" for (_, names), source in found.items()))
        raise RuntimeError(
            f"targets of several kinds reach node {goal.label!r} ({kinds}), so it is not known how its outputs were scaled: "
            "leave all but one out (targets=[] in the references of the others), or pass unscale=False"
        )
    (((_, names), source),) = found.items()
    inner = tuple(source.collection.shape(names[0]))
    if outputs.size != len(outputs) * len(names) * int(np.prod(inner, dtype=np.int64)):
        raise ValueError(
            f"outputs of shape {outputs.shape} do not fit {len(names)} target columns of shape {inner}, so they cannot be unscaled:"
            " pass unscale=False"
        )
    stacked = outputs.reshape(len(outputs), len(names), *inner).copy()
    places = [names.index(name) for name in scaled]
    values = source.unscale_data_for_cols(data=stacked[:, places], domain=DOMAIN_TARGETS, columns=scaled)
    if len(places) == len(names):
        return values.reshape(outputs.shape)
    stacked = stacked.astype(np.result_type(stacked, values), copy=False)
    stacked[:, places] = values
    return stacked.reshape(outputs.shape)


def _target_names(reference: FeatureSetReference, source: FeatureSet) -> tuple[str, ...]:
    whole = reference.features is None and reference.targets is None and reference.tags is None
    return tuple(source.get_target_keys()) if whole else tuple(reference.targets or ())

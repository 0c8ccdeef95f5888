"""Everything that results answer, in a form that can be compared bit for bit, also across processes."""

import numpy as np

from keydnn.experiment.backends.tensors import backend_of, is_tensor, to_numpy
from keydnn.experiment.results import PhaseGroupResults, PhaseResults
from keydnn.experiment.results.pass_results import PassResults

DOMAINS = ("outputs", "targets", "tags", "sample_uuids")


def bits(value):
    """A tensor as framework, dtype, shape and bytes; other values by type and value."""
    if is_tensor(value):
        array = to_numpy(value)
        content = array.tolist() if array.dtype.hasobject else np.ascontiguousarray(array).tobytes()
        return backend_of(value).value, str(value.dtype), tuple(array.shape), content
    if isinstance(value, PhaseResults | PhaseGroupResults):
        return answers(value)
    if isinstance(value, dict):
        return {bits(key): bits(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(bits(one) for one in value)
    if isinstance(value, float | np.generic):
        return type(value).__name__, np.asarray(value).tobytes()
    return type(value).__name__, repr(value)


def _record(record):
    return record.label, record.node_id, record.trainable, record.auxiliary


def _batch(batch):
    roles = {}
    for role, samples in batch.role_data.items():
        told = {domain: bits(samples.get_domain_data(domain)) for domain in samples.domains}
        roles[role] = (samples.kind, told, bits(batch.role_weights[role]), bits(batch.role_masks[role]))
    return batch.batch_size, roles, batch.shapes.shapes


def _context(ctx):
    views = {
        key: (view.source.label, {role: bits(rows) for role, rows in view.role_indices.items()}, bits(view.role_indice_weights))
        for key, view in ctx.input_views.items()
    }
    losses = None if ctx.losses is None else [_record(one) for one in ctx.losses.values()]
    return ctx.phase_label, ctx.epoch_idx, ctx.batch_idx, views, {node: _batch(batch) for node, batch in ctx.outputs.items()}, losses


def _of_node(results, node, roles, unscale):
    found = {"batches": {key: _batch(batch) for key, batch in results.batches(node).items()}}
    found["losses"] = {key: _record(one) for key, one in results.losses(node).items()}
    for role in roles:
        for domain in DOMAINS:
            for undone in (False, True) if unscale and domain in ("outputs", "targets") else (False,):
                series = results.tensors(node, domain, role=role, unscale=undone)
                found[role, domain, undone] = (series.axes, {key: bits(value) for key, value in series.items()})
        found["views", role] = {label: view.indices.tolist() for label, view in results.source_views(node, role=role).items()}
    if isinstance(results, PassResults):
        found["aggregated"] = {how: results.aggregated_losses(node, reducer=how) for how in ("mean", "sum", "first", "last")}
    return found


def answers(results, *, unscale=False):
    """All answers of results of a phase or a group."""
    if isinstance(results, PhaseGroupResults):
        return [(label, answers(one, unscale=unscale)) for label, one in results.items()]
    contexts = results.execution_contexts()
    nodes = {node: list(batch.role_data) for ctx in contexts.values() for node, batch in ctx.outputs.items()}
    return {
        "repr": repr(results),
        "contexts": (contexts.shape, {key: _context(ctx) for key, ctx in contexts.items()}),
        "nodes": {node: _of_node(results, node, roles, unscale) for node, roles in nodes.items()},
        "labels": [results.nodes.name_of(node) for node in nodes],
        "metrics": [(one.name, one.epoch_idx, one.batch_idx, bits(one.value)) for one in results.metrics().values()],
        "table": results.to_pandas().to_dict(),
        "callbacks": {
            key: (type(one).__name__, {name: bits(value) for name, value in vars(one).items()}) for key, one in results.callbacks().items()
        },
        "artifacts": {key: bits(entry.artifact) for key, entry in results.artifacts().items()},
    }

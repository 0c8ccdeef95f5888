"""What a worker does: it makes the experiment it is sent, runs one thing for itself, and answers with the record of the run."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

import keydnn
from keydnn.experiment.backends import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet, SampleCollection
from keydnn.experiment.data.resplitting import resplit
from keydnn.experiment.execution.shipping import answered, unpacked
from keydnn.experiment.graph import ModelGraph
from keydnn.experiment.io.classes import REGISTRIES, import_string
from keydnn.experiment.optional import is_installed, need
from keydnn.experiment.phases import PhaseGroup
from keydnn.experiment.results.state import run_state
from keydnn.experiment.results.values import in_memory


def perform_mapped(i: int, base: bytes, paths: Mapping[str, str], task: bytes, threads: int) -> tuple[int, bytes]:
    """A task whose tables lie in Arrow files; its number and its answer."""
    tables = [pa.ipc.open_file(pa.memory_map(path)).read_all() for path in paths.values()]
    return i, perform(base, task, threads, list(paths), *tables)


def perform(base: bytes, task: bytes, threads: int, names: Sequence[str], *tables: pa.Table) -> bytes:
    """Run a task.

    Args:
        base: What :func:`~keydnn.experiment.execution.tasks.base_of` packed.
        task: What differs from other tasks.
        threads: Threads it computes with.
        names: Ids of feature sets.
        *tables: Their tables.

    Returns:
        The record of the run, and the error that ended it.
    """
    told, asked = unpacked(base), unpacked(task)
    with threads_of(threads), ExperimentContext().activate() as ctx, _registered(told["registered"]):
        sets = {name: _feature_set(name, told["sets"][name], table) for name, table in zip(names, tables, strict=True)}
        for fs in sets.values():
            ctx.register_experiment_node(fs)
        if told["graph"] is not None:
            config, state = told["graph"]
            ModelGraph.from_config(config).set_state(state)
        experiment = told["class"].from_config(told["experiment"])
        ctx.set_experiment(experiment)
        item = PhaseGroup.from_config({**told["item"], "label": asked["group"]})
        error = None
        try:
            changed = [resplit(sets[name], rows) for name, rows in asked["rows"].items()]
            experiment.run_apart(item, featuresets=changed, label=asked["label"], **asked["options"])
        except Exception as raised:  # noqa: BLE001 - it is told to whoever gave the task
            raised.add_note(f"raised in a worker:\n{''.join(traceback.format_exception(raised))}")
            error = raised
        with in_memory():
            run = None if experiment.last_run is None else run_state(experiment.last_run)
        return answered({"run": run, "error": error})


def _feature_set(node_id: str, told: Mapping[str, Any], table: pa.Table) -> FeatureSet:
    samples = SampleCollection.of_stored(table)
    made = FeatureSet(told["label"], samples, node_id=node_id, register=False)
    made.set_state({**told["state"], "sample_collection": samples})
    return made


@contextlib.contextmanager
def _registered(classes: Mapping[str, Mapping[str, type]]) -> Iterator[None]:
    """Inside the block the registries know the classes that the other process registered."""
    with contextlib.ExitStack() as undo:
        for registry, entries in classes.items():
            known = import_string(REGISTRIES[registry])
            for name, cls in entries.items():
                if name not in known:
                    known.register(name, cls)
                    undo.callback(known.__delitem__, name)
        yield


@contextlib.contextmanager
def threads_of(n: int | None) -> Iterator[None]:
    """Inside the block keydnn, torch and the libraries below NumPy compute with n threads; None leaves them."""
    if n is None:
        yield
        return
    with contextlib.ExitStack() as undo:
        if is_installed("threadpoolctl"):
            undo.enter_context(need("threadpoolctl", "threads").threadpool_limits(n))
        undo.callback(keydnn.set_threads, keydnn.get_threads())
        keydnn.set_threads(n)
        torch = adapter(Backend.TORCH)
        undo.callback(torch.set_threads, torch.threads())
        torch.set_threads(n)
        yield

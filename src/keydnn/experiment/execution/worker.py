"""What a worker does: it makes the experiment it is sent, runs one thing for itself, and answers with the record of the run."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

import keydnn
from keydnn.experiment.backends import Backend
from keydnn.experiment.backends.tensors import adapter
from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.data import FeatureSet, SampleCollection
from keydnn.experiment.data.resplitting import resplit
from keydnn.experiment.execution.shipping import answered, unpacked
from keydnn.experiment.execution.subfolders import keep_files_as_told, known_directories
from keydnn.experiment.graph import ModelGraph
from keydnn.experiment.io.classes import REGISTRIES, import_string
from keydnn.experiment.optional import is_installed, need
from keydnn.experiment.phases import PhaseGroup
from keydnn.experiment.results.state import run_state
from keydnn.experiment.results.values import in_memory


def perform(base: bytes, task: bytes, threads: int, names: Sequence[str], *tables: pa.Table) -> bytes:
    """Run a group for itself, from the state that was sent.

    Args:
        base: What all tasks share: feature sets without their tables, graph, experiment and group.
        task: What differs: rows of splits, labels and keywords.
        threads: Threads it computes with.
        names: Ids of feature sets.
        *tables: Their tables.

    Returns:
        The record of the run, the error that ended it, and the checkpoints that were written.
    """
    told, asked = unpacked(base), unpacked(task)
    with threads_of(threads), working(told, dict(zip(names, tables, strict=True))) as ctx:
        if told["graph"] is not None:
            config, state = told["graph"]
            ModelGraph.from_config(config).set_state(state)
        with known_directories():
            experiment = told["class"].from_config(told["experiment"])
            item = PhaseGroup.from_config({**told["item"], "label": asked["group"]})
        keep_files_as_told(experiment, [item, experiment.execution_plan], told["files"])
        changed = [resplit(ctx.available_nodes[name], rows) for name, rows in asked["rows"].items()]
        options = {"featuresets": changed, "label": asked["label"], **asked["options"]}
        return answer(lambda: experiment.run_apart(item, **options), [experiment])


def answer(run: Callable[[], Any], experiments: Sequence[Any]) -> bytes:
    """What a run brings: the record of the latest run of an experiment, and what it raised.

    Args:
        run: The run.
        experiments: The experiment; none if the run raised before it made one.
    """
    error = None
    try:
        run()
    except Exception as raised:  # noqa: BLE001 - it is told to whoever gave the task
        raised.add_note(f"raised in a worker:\n{''.join(traceback.format_exception(raised))}")
        error = raised
    with in_memory():
        last = experiments[-1].last_run if experiments else None
        record = None if last is None else run_state(last)
        files = {name: str(path) for one in experiments for name, path in one.available_checkpoints.items()}
    return answered({"run": record, "error": error, "checkpoints": files})


@contextlib.contextmanager
def working(told: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> Iterator[ExperimentContext]:
    """A context with the feature sets that were sent, and the classes that were registered where they came from."""
    with ExperimentContext().activate() as ctx, _registered(told["registered"]):
        for node_id, table in tables.items():
            ctx.register_experiment_node(_feature_set(node_id, told["sets"][node_id], table))
        yield ctx


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

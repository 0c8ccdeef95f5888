"""A plan whose runs are killed: two training phases with dropout, a schedule, evaluations and early stopping, and an evaluation between.

Whatever happens is an event: hooks of steps and epochs, and inside of every write each member, the flush, and both sides of the rename.
"""

import contextlib
import os
import signal
import zipfile

import numpy as np

import keydnn
from keydnn.experiment import AppliedLoss, EvalPhase, Experiment, FeatureSet, Loss, ModelGraph, ModelNode, Optimizer, PhaseGroup, TrainPhase
from keydnn.experiment.callbacks import MAE, Callback, EarlyStopping, EvalLossMetric, Evaluation, ExperimentCallback, callback_registry
from keydnn.experiment.graph.graph_file import renamed
from keydnn.experiment.phases import Checkpointing
from keydnn.experiment.samplers import SimpleSampler
from tests.experiment.kill_schedule import falling


class Events:
    """Counts what happens in this process, kills it at one of them, and writes steps and hooks to a file outside.

    Attributes:
        kill_at: Number of the event; None lets the process live.
        n: Events so far.
    """

    def __init__(self):
        self.kill_at, self.n, self._file, self._is_reported = None, 0, None, False

    def start(self, file, kill_at=None):
        """Write to a file, and die at an event."""
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.kill_at, self.n = kill_at, 0
        self._watch_writes()

    def happened(self, what=None):
        """One event."""
        if self._file is None:
            return
        if what is not None:
            os.write(self._file, f"{what}\n".encode())
        if self.n == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.n += 1

    def _watch_writes(self):
        """Every member that is written, every flush and both sides of every rename are events."""
        happened, write, flush, rename = self.happened, zipfile.ZipFile.open, os.fsync, os.replace

        def opened(archive, name, mode="r", **more):
            if mode == "w":
                happened()
            return write(archive, name, mode, **more)

        def flushed(file):
            happened()
            flush(file)

        def renamed(*names, **more):
            happened()  # the temporary file is whole
            rename(*names, **more)
            happened()

        zipfile.ZipFile.open, os.fsync, os.replace = opened, flushed, renamed


EVENTS = Events()


class Steps(Callback):
    """Tells of every step and hook; what it counts is its state."""

    def __init__(self, label="steps", by_batch=True):
        super().__init__(label)
        self.by_batch, self.n_epochs = by_batch, 0

    def on_phase_start(self, *, experiment, phase, results):
        EVENTS.happened(f"hook {phase.label} start")

    def on_epoch_start(self, *, experiment, phase, exec_ctx, results):
        EVENTS.happened(f"hook {phase.label} {exec_ctx.epoch_idx} start")

    def on_epoch_end(self, *, experiment, phase, exec_ctx, results):
        self.n_epochs += 1
        EVENTS.happened(f"hook {phase.label} {exec_ctx.epoch_idx} end")
        return {"epochs": self.n_epochs, "drawn": float(np.random.random())}

    def on_phase_end(self, *, experiment, phase, results):
        EVENTS.happened(f"hook {phase.label} end")

    def get_config(self):
        return {**super().get_config(), "by_batch": self.by_batch}

    def get_state(self):
        return {"n_epochs": self.n_epochs}

    def set_state(self, state):
        self.n_epochs = state["n_epochs"]


class BatchSteps(Steps):
    """Watches batches, too, so that no epoch is one call."""

    def on_batch_start(self, *, experiment, phase, exec_ctx, results):
        EVENTS.happened()

    def on_batch_end(self, *, experiment, phase, exec_ctx, results):
        EVENTS.happened(f"step {phase.label} {exec_ctx.epoch_idx} {exec_ctx.batch_idx}")


class Around(ExperimentCallback):
    """Tells of every hook of the experiment."""

    def on_experiment_start(self, experiment):
        EVENTS.happened("hook experiment start")

    def on_experiment_end(self, experiment):
        EVENTS.happened("hook experiment end")

    def on_group_start(self, experiment, group):
        EVENTS.happened(f"hook group {group.label} start")

    def on_group_end(self, experiment, group, results):
        EVENTS.happened(f"hook group {group.label} end")

    def on_phase_start(self, experiment, phase):
        EVENTS.happened(f"hook around {phase.label} start")

    def on_phase_end(self, experiment, phase, results):
        EVENTS.happened(f"hook around {phase.label} end")


for one in (Steps, BatchSteps, Around):
    callback_registry.register(one.__name__, one)


def _net(backend):
    if backend == "torch":
        import torch

        torch.manual_seed(3)
        nn = torch.nn
        return nn.Sequential(nn.Flatten(), nn.Linear(3, 8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 1))
    keydnn.seed(3)
    nn = keydnn.nn
    return keydnn.Sequential(nn.Flatten(), nn.Linear(3, 8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 1))


def experiment(backend, *, by_batch=True, save_on="epoch_end", n_epochs=6):
    """The experiment in the active context, not run yet; without hooks of batches or a schedule epochs can be single calls."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((24, 3)).astype("f4")
    y = (x @ np.array([1.0, -2.0, 0.5]) + 0.3 * rng.standard_normal(24)).astype("f4")
    rows = FeatureSet.from_dict("rows", {"x": x, "y": y}, "x", "y")
    rows.split_random({"train": 0.68, "val": 0.32}, seed=0)
    made = Experiment.from_active_context("survivor", callbacks=[Around()], seed=11)
    node = ModelNode("net", _net(backend), rows.reference(features="x.raw", targets="y.raw"))
    ModelGraph([node], Optimizer("adam", opt_kwargs={"lr": 0.05}, backend=backend, schedule=falling if by_batch else None))
    loss = AppliedLoss(Loss("mse", backend=backend), "net", ["outputs", "targets"], label="mse")

    def phase(label, resample, patience):
        watch = Evaluation.from_split(label="val", split="val", losses=[loss], metrics=[EvalLossMetric(loss=loss), MAE()])
        steps = BatchSteps() if by_batch else Steps()
        stop = EarlyStopping(patience=patience, restore_best=True)
        sampler = SimpleSampler(batch_size=4, shuffle=True, seed=5, show_progress=False)
        kept = Checkpointing(mode="disk", save_on=save_on, max_to_keep=3)
        return TrainPhase.from_split(
            label,
            split="train",
            sampler=sampler,
            losses=[loss],
            n_epochs=n_epochs,
            callbacks=[steps, watch, stop],
            checkpointing=kept,
            resample=resample,
        )

    made.execution_plan.add_phase(phase("first", "epoch", 2))
    made.execution_plan.add_phase(EvalPhase.from_split("check", split="val", losses=[loss], batch_size=3))
    made.execution_plan.add_group(PhaseGroup("late", [phase("second", "never", n_epochs)]))
    return made


def answer(exp):
    """All that must be equal in the end, as plain values; times and host are left out."""
    graph = exp.model_graph
    run = exp.last_run
    names = {node_id: node.label for node_id, node in exp.ctx.available_nodes.items()}
    return renamed(_told(exp, graph, run), names)


def _told(exp, graph, run):
    return {
        "graph": _plain(graph.get_state()),
        "status": run.status,
        "n_runs": len(exp.history),
        "metadata": {key: value for key, value in run.metadata.items() if key in ("seed", "sampler_seeds")},
        "random": _plain({backend.value: state for backend, state in exp.random_numbers().items()}),
        "results": _results(run.results),
        "phases": [(label, meta.status, meta.metadata) for label, meta in run.execution_meta.flatten().items()],
        "kept": [phase.checkpointing.saved_keys for phase in exp.execution_plan.flatten() if isinstance(phase, TrainPhase)],
    }


def _results(results):
    if hasattr(results, "labels"):
        return {label: _results(results[label]) for label in results.labels}
    metrics = [(entry.name, entry.epoch_idx, entry.batch_idx, float(entry.value)) for entry in results.metrics().values()]
    contexts = [
        (ctx.epoch_idx, ctx.batch_idx, _tensors(ctx.outputs), _losses(ctx), [view.indices.tolist() for view in _views(ctx)])
        for ctx in results.execution_contexts().values()
    ]
    hooks = [(*key, _hooked(one)) for key, one in results.callbacks().items()]
    return {"metrics": metrics, "contexts": contexts, "callbacks": hooks, "tensors": _stacked(results)}


def _stacked(results):
    return [_plain(one) for domain in ("outputs", "targets") for one in results.tensors("net", domain, fmt="np").values()]


def _views(ctx):
    return [rows for view in ctx.input_views.values() for rows in [_Rows(view)]]


class _Rows:
    def __init__(self, view):
        self.indices = np.concatenate([np.asarray(rows) for rows in view.role_indices.values()])


def _tensors(outputs):
    return {node: [_plain(samples.features) for samples in batch.role_data.values()] for node, batch in outputs.items()}


def _losses(ctx):
    return None if ctx.losses is None else [(one.label, one.to_float()) for one in ctx.losses.values()]


def _hooked(one):
    if one.kind == "evaluation":
        return _results(one.eval_results)
    return {name: _plain(value) for name, value in sorted(vars(one).items())}


def _plain(value):
    """Arrays and tensors as dtype, shape and bytes."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    with contextlib.suppress(AttributeError):
        array = np.asarray(
            value.detach().cpu().numpy() if hasattr(value, "detach") else value.numpy() if hasattr(value, "numpy") else value
        )
        if array.dtype != object and not isinstance(value, str | int | float | bool | None):
            return [str(array.dtype), list(array.shape), array.tobytes().hex()]
    return value

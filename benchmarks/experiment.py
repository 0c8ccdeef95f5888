"""Phases of the experiment wing beside loops by hand and beside `fit`, with the same rows in the same order; and what recording keeps."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import folds
from benchmarks.measure import Result, contest, readable
from benchmarks.options import Options
from benchmarks.peers.ours import model_of
from benchmarks.remote import Local, Session
from benchmarks.workloads import Case

EPOCHS, BATCHES = 10, 100
BESIDE_LOOP = {"none": 333 / 233, "all": 363 / 233}  # the goals: 100 and 130 us beyond a loop of 233 us a step, as ratios to the loop
BESIDE_FIT, MEBIBYTES = 1.2, 10.0
BUDGET_S = 0.3
QUIET = {"show_sampler_progress": False, "show_training_progress": False}


@dataclass(frozen=True)
class Row:
    """One line: a run of a phase, the same by hand, and the mean losses of the epochs of what each returns."""

    name: str
    ours: Callable[[], Any]
    plain: Callable[[], Any]
    read_plain: Callable[[Any], np.ndarray]

    def __str__(self) -> str:
        return self.name


def run(options: Options) -> dict[str, Any]:
    """Check and time every row, then measure what recording keeps; prints a table and returns results and figures."""
    from keydnn.experiment.context import ExperimentContext

    rounds = options.rounds or (2 if options.quick else 9)
    results, figures = [], []
    print(f"{'case':44} {'ours':>10} {'by hand':>10}  verdict")
    with ExperimentContext(registration_policy="overwrite").activate():
        for workload in ("W1", "W5"):
            result = _timed(_beside_fit(workload), rounds)
            results.append(result)
            figures.append(_ratio_figure(result, "fit", BESIDE_FIT))
            _tell(result, figures[-1])
        if importlib.util.find_spec("torch") is None:
            print("torch: not installed")
        else:
            _one_thread()
            for recording, goal in BESIDE_LOOP.items():
                result = _timed(_beside_loop(recording), rounds)
                results.append(result)
                figures.append(_ratio_figure(result, f"the loop, {_more_per_step(result) * 1e6:+.0f} us a step", goal))
                _tell(result, figures[-1])
    kept = memory(quick=options.quick)
    figures.append(_figure("recorded: 45000 samples, 10 epochs", kept, f"{kept:.1f} MiB", MEBIBYTES, f"{MEBIBYTES:g} MiB"))
    print(f"{figures[-1]['name']:44} {figures[-1]['text']:>10}  {figures[-1]['verdict']}", flush=True)
    for figure in _folds(quick=options.quick):
        figures.append(figure)
        print(f"{figure['name']:44} {figure['text']:>10}  {figure['verdict']}", flush=True)
    return {"results": [vars(result) for result in results], "figures": figures}


def _folds(*, quick: bool) -> list[dict[str, Any]]:
    from keydnn.experiment.context import ExperimentContext

    with ExperimentContext().activate():
        serial, parallel, ratio = folds.speedup(_six_folds, quick=quick)
    name = f"{folds.FOLDS} folds, {folds.WORKERS} processes beside one after the other"
    text = f"{ratio:.2f} x ({readable(serial)}, {readable(parallel)})"
    verdict = f"{folds.SPEEDUP:g} x: {'met' if ratio >= folds.SPEEDUP else 'missed'}"
    kept = folds.snapshot_ms()
    return [
        {"name": name, "value": ratio, "text": text, "verdict": verdict},
        _figure(f"a fold of {folds.ROWS:,} rows that runs nothing", kept, f"{kept:.2f} ms", folds.SNAPSHOT_MS, f"{folds.SNAPSHOT_MS:g} ms"),
    ]


def _six_folds(epochs: int) -> Callable[[Any], np.ndarray]:
    """Folds of W1, of the given number of epochs, with an executor; the losses."""
    import keydnn
    from keydnn.experiment import CrossValidation, CVBinding, ExperimentContext, Loss, Optimizer
    from keydnn.experiment.phases import TrainPhase
    from keydnn.experiment.samplers import SimpleSampler

    work = Case("W1", "epoch").work
    rng = np.random.default_rng(1)
    x = rng.standard_normal((work.shape[0] * BATCHES, *work.shape[1:])).astype(np.float32)
    y = rng.integers(0, work.classes, len(x))
    net = keydnn.Sequential(keydnn.Flatten(), *model_of(Case("W1", "epoch")).children())
    optimizer = Optimizer("adam", opt_kwargs={"lr": work.lr}, backend="keydnn")
    with ExperimentContext().activate():
        exp, fs, loss = _experiment("folds", x, y, net, optimizer, Loss("CrossEntropy", backend="keydnn"))
        sampler = SimpleSampler(batch_size=work.shape[0], shuffle=True, seed=0)
        phase = TrainPhase.from_split("train", split="all", sampler=sampler, losses=[loss], n_epochs=epochs, result_recording="none")
        fs.add_split(fs.take(np.arange(0), label="val"))
        binding = CVBinding(fs, ["all"], train_split_name="all")

    def run(executor: Any) -> np.ndarray:
        cv = CrossValidation(bindings=binding, n_folds=folds.FOLDS, phase=phase, experiment=exp, executor=executor, threads_per_task=1)
        with exp.ctx.activate():
            return np.concatenate([_epoch_losses(fold["train"]) for fold in cv.run(**folds.QUIET)])

    return run


def _timed(row: Row, rounds: int) -> Result:
    by_hand = Local("by hand", lambda row: Session(row.plain, lambda: row.read_plain(row.plain())))
    ours = Local("ours", lambda row: Session(row.ours, lambda: _epoch_losses(row.ours())))
    result = contest(row, [by_hand, ours], rounds=rounds, budget_s=BUDGET_S, rtol=1e-4)
    if result.notes:
        raise RuntimeError(f"{row.name}: {result.notes}")
    return result


def _more_per_step(result: Result) -> float:
    """Median over the rounds of the difference per step."""
    pairs = zip(result.seconds["ours"], result.seconds["by hand"], strict=True)
    return float(np.median([(ours - plain) / (EPOCHS * BATCHES) for ours, plain in pairs]))


def _ratio_figure(result: Result, beside: str, goal: float) -> dict[str, Any]:
    ratio = result.ratio("by hand", "ours")
    return _figure(result.case, ratio, f"{ratio:.2f} x {beside}", goal, f"{goal:.2f} x")


def _figure(name: str, value: float, text: str, goal: float, shown: str) -> dict[str, Any]:
    return {"name": name, "value": value, "text": text, "verdict": f"{shown}: {'met' if value <= goal else 'missed'}"}


def _tell(result: Result, figure: dict[str, Any]) -> None:
    times = (readable(result.median("ours")), readable(result.median("by hand")))
    print(f"{result.case:44} {times[0]:>10} {times[1]:>10}  {figure['text']} ({figure['verdict']})", flush=True)


def _phase(fs: Any, batch: int, losses: list[Any], recording: str) -> Any:
    from keydnn.experiment.phases import TrainPhase
    from keydnn.experiment.samplers import SimpleSampler

    sampler = SimpleSampler(batch_size=batch, seed=0)
    return TrainPhase.from_split("train", split="all", sampler=sampler, losses=losses, n_epochs=EPOCHS, result_recording=recording)


def _experiment(label: str, x: np.ndarray, y: np.ndarray, model: Any, optimizer: Any, loss: Any) -> tuple[Any, Any, Any]:
    """An experiment over all rows as one split, the feature set and the applied loss."""
    from keydnn.experiment import AppliedLoss, Experiment, FeatureSet, ModelGraph, ModelNode

    fs = FeatureSet.from_dict(label, {"x": x, "y": y}, "x", "y")
    fs.add_split(fs.take(np.arange(len(x)), label="all"))
    node = ModelNode(f"{label}-net", model, fs.reference(features="x.raw", targets="y.raw"))
    ModelGraph([node], optimizer)
    return Experiment.from_active_context(label, overwrite=True, seed=0), fs, AppliedLoss(loss, node, ["outputs", "targets"])


def _epoch_losses(results: Any) -> np.ndarray:
    found = [entry for entry in results.metric_store.entries() if entry.name == "train_loss" and entry.batch_idx is None]
    return np.array([entry.value for entry in sorted(found, key=lambda entry: entry.epoch_idx)])


# -- keydnn: a phase beside fit -----------------------------------------------------------------------------------------


def _beside_fit(workload: str) -> Row:
    """Ten epochs of a hundred batches, everything included: samplers, batches, results."""
    import keydnn
    from keydnn.experiment import Loss, Optimizer

    work = Case(workload, "epoch").work
    batch, inner = work.shape[0], work.shape[1:]
    rng = np.random.default_rng(1)
    x = rng.standard_normal((batch * BATCHES, *inner)).astype(np.float32)
    y = rng.integers(0, work.classes, len(x)) if work.classes else rng.standard_normal(len(x)).astype(np.float32)

    def model() -> Any:
        return keydnn.Sequential(keydnn.Flatten(), *model_of(Case(workload, "epoch")).children())

    by_hand = model()
    optimizer = keydnn.Adam(by_hand.parameters(), lr=work.lr)
    t = y if work.classes else y[:, None]

    def fit() -> Any:
        loss = "cross_entropy" if work.classes else "mse"
        return by_hand.fit(x, t, loss=loss, optimizer=optimizer, batch_size=batch, epochs=EPOCHS, shuffle=False, verbose=0)

    wanted = Loss("CrossEntropy" if work.classes else "mse", backend="keydnn")
    ours = Optimizer("adam", opt_kwargs={"lr": work.lr}, backend="keydnn")
    exp, fs, loss = _experiment(workload, x, y, model(), ours, wanted)

    def phase() -> Any:
        return exp.run_phase(_phase(fs, batch, [loss], "none"), **QUIET)

    return Row(f"{workload}, {EPOCHS} epochs x {BATCHES} batches; fit", phase, fit, lambda done: np.array(done.history["loss"]))


# -- torch: a phase beside a loop by hand -----------------------------------------------------------------------------------


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _tiny(torch: Any) -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(10, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))


def _beside_loop(recording: str) -> Row:
    """A tiny model, so that what the phase adds shows."""
    import torch

    from keydnn.experiment import Loss, Optimizer

    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((32 * BATCHES, 10)).astype(np.float32), rng.standard_normal(32 * BATCHES).astype(np.float32)
    by_hand = _tiny(torch)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-3)

    def loop() -> np.ndarray:
        tensors = torch.from_numpy(x), torch.from_numpy(y[:, None])
        batches = [tuple(t[i : i + 32] for t in tensors) for i in range(0, len(x), 32)]
        by_hand.train()
        means = []
        for _ in range(EPOCHS):
            values = []
            for inputs, targets in batches:
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(by_hand(inputs), targets)
                loss.backward()
                optimizer.step()
                values.append(loss.detach())
            means.append(float(torch.stack(values).mean()))
        return np.array(means)

    ours = Optimizer("adam", opt_kwargs={"lr": 1e-3}, backend="torch")
    exp, fs, loss = _experiment(f"tiny-{recording}", x, y, _tiny(torch), ours, Loss("mse", backend="torch"))

    def phase() -> Any:
        return exp.run_phase(_phase(fs, 32, [loss], recording), **QUIET)

    return Row(f"torch MLP 10-32-1, batch 32, recording {recording}", phase, loop, np.asarray)


# -- memory -----------------------------------------------------------------------------------------------------------------


def memory(*, quick: bool = False) -> float:
    """MiB that the results of a run keep, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.experiment", "4500" if quick else "45000"]
    return float(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]))


def kept_mebibytes(rows: int) -> float:
    """What stays in memory when a run of ten epochs over so many rows records everything, beyond a run that records nothing."""
    import ctypes
    import gc
    from pathlib import Path

    from keydnn.experiment import Loss, Optimizer

    def resident() -> float:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((rows, 10)).astype(np.float32), rng.standard_normal(rows).astype(np.float32)
    if importlib.util.find_spec("torch") is None:
        import keydnn

        backend, model = "keydnn", keydnn.Sequential(keydnn.Flatten(), keydnn.Linear(10, 32), keydnn.ReLU(), keydnn.Linear(32, 1))
    else:
        import torch

        backend, model = "torch", _tiny(torch)
    optimizer = Optimizer("adam", opt_kwargs={"lr": 1e-3}, backend=backend)
    exp, fs, loss = _experiment("memory", x, y, model, optimizer, Loss("mse", backend=backend))
    phases = {recording: _phase(fs, 32, [loss], recording) for recording in ("none", "all")}
    exp.preview_phase(phases["none"], **QUIET)
    exp.preview_phase(phases["all"], **QUIET)
    before = resident()
    results = exp.preview_phase(phases["all"], **QUIET)
    full = resident()
    assert results.n_epochs == EPOCHS
    del results
    return max(full - before, full - resident())  # pages that earlier runs left behind would hide a part


if __name__ == "__main__":
    from keydnn.experiment.context import ExperimentContext

    with ExperimentContext(registration_policy="overwrite").activate():
        print(json.dumps(kept_mebibytes(int(sys.argv[1]))))

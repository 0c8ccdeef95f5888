"""Folds of a cross-validation, one thread each: two processes beside one fold after the other; and what leaves and comes back per fold."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

FOLDS, WORKERS = 6, 2
SECONDS, QUICK_SECONDS = 14.0, 1.0  # that a fold takes, about
PROBE = 8  # epochs by which that is estimated
SPEEDUP, SNAPSHOT_MS, ROWS = 1.6, 5.0, 100_000
QUIET: dict[str, Any] = {"show_fold_progress": False, "show_sampler_progress": False, "show_training_progress": False}


def speedup(make: Callable[[int], Any], *, quick: bool) -> tuple[float, float, float]:
    """Seconds of all folds here, seconds of them in two processes, start of the processes included, and their ratio.

    Args:
        make: Number of epochs to a function that runs the folds with an executor, by its name.
        quick: Whether folds may be short.

    Raises:
        RuntimeError: The losses differ.
    """
    from keydnn.experiment.execution.executors import Processes

    make(1)("serial")  # what is made once is made
    run = make(PROBE)
    started = time.perf_counter()
    run("serial")
    epochs = max(1, int(np.ceil((QUICK_SECONDS if quick else SECONDS) * FOLDS * PROBE / (time.perf_counter() - started))))
    run = make(epochs)
    started = time.perf_counter()
    here = run("serial")
    serial = time.perf_counter() - started
    started = time.perf_counter()
    there = run(Processes(workers=WORKERS, threads_per_task=1))
    parallel = time.perf_counter() - started
    if not np.array_equal(here, there):
        raise RuntimeError("folds in processes gave other losses than folds here")
    return serial, parallel, serial / parallel


def snapshot_ms() -> float:
    """Median time of a fold in which nothing runs: a set of 100,000 rows and 20 columns gets other splits, and everything is put back."""
    from keydnn.experiment import CVBinding, Experiment, ExperimentContext, FeatureSet, PhaseGroup

    rng = np.random.default_rng(0)
    with ExperimentContext().activate():
        columns = {f"x{i}": rng.normal(size=ROWS) for i in range(20)}
        fs = FeatureSet.from_dict("wide", {**columns, "y": rng.normal(size=ROWS)}, list(columns), "y")
        fs.split_random({"train": 0.7, "val": 0.15, "test": 0.15})
        experiment = Experiment.from_active_context("folds", seed=0)
        binding = CVBinding(fs, ["train", "val"])
        fold, times = binding.folds(FOLDS, 0)[0], []
        for _ in range(25):
            started = time.perf_counter()
            experiment.run_apart(PhaseGroup("nothing"), label="fold", featuresets=[binding.folded(fold)])
            times.append(time.perf_counter() - started)
    return float(np.median(times)) * 1e3

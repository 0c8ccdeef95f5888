"""``python -m benchmarks stability``: instrumented training, quantisers, Hessian-vector products and a sweep of ``keydnn.stability``.

One Dense layer, 4 inputs, 2 outputs, N = 1000, full batch, order-0 throttle, every metric; one call of 1,000 steps is timed and
divided by 1,000.  Beside it an eager TensorFlow loop that computes the same (its Hessian once, before the clock starts).  Both
start from the same weights; losses, throttles, norms and weights after 20 steps must agree before anything is timed.  Ours runs on
one thread, TensorFlow on as many as ``--threads`` says.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import Entry, started
from benchmarks.measure import Result, contest, readable
from benchmarks.options import Options

STEPS, CHECKED = 1000, 20
ETA, CHI, EPS, RHO = 0.8, 1.5, 1e-12, 0.05
FORMATS = {  # (bits, of them before the point); AP_RND, AP_SAT
    "weight": (12, 3), "bias": (12, 3), "input": (12, 3), "activation": (16, 5), "gradient": (16, 5), "update": (16, 3),
    "accumulator": (24, 9), "loss": (24, 7),
}  # fmt: skip
GOALS: dict[str, tuple[float, float]] = {  # most seconds or least elements per second; least ratio to TensorFlow
    "float step": (20e-6, 200.0),
    "quantised step": (40e-6, 100.0),
    "quantiser in cache": (1e9, 0.0),
    "quantiser from memory": (0.7e9, 0.0),
    "quantiser in NumPy": (0.1e9, 0.0),
    "sweep of 41x41 cells": (40.0, 0.0),
}
PRODUCT_GOAL = 2.5  # gradients that a Hessian-vector product may cost
CONTESTANTS = [
    Entry("keydnn", "keydnn", "benchmarks.peers.stability_ours:make"),
    Entry("tensorflow", "keras", "benchmarks.peers.stability_tf:make", ("tensorflow",)),
]


@dataclass(frozen=True)
class Case:
    """A row: float or quantised steps."""

    quantised: bool

    def __str__(self) -> str:
        return "quantised step" if self.quantised else "float step"

    def data(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """X, Y, teacher and first weights."""
        rng = np.random.default_rng(1)
        A = np.array([[1.25, -0.75, 0.50, 0.20], [-0.40, 0.90, 1.10, -0.60]])
        X = rng.uniform(0, 1, (1000, 4)).astype(np.float32)
        Y = (X @ A.T + [0.35, -0.25]).astype(np.float32)
        return X, Y, A, rng.uniform(-1, 1, (2, 4)).astype(np.float32)


def run(options: Options) -> dict[str, Any]:
    """All rows; prints a table and returns results, figures and versions."""
    rounds, budget = options.rounds or (2 if options.quick else 7), 0.05 if options.quick else 0.3
    results, versions = _steps(options, rounds, budget)
    figures = [*_quantisers(rounds), *_products(rounds), _sweep(options)]
    for figure in figures:
        print(f"{figure['name']:<28}{figure['text']:>16}  ({figure['verdict']})", flush=True)
    return {"results": [vars(result) for result in results], "figures": figures, "versions": versions}


def _steps(options: Options, rounds: int, budget: float) -> tuple[list[Result], dict[str, str]]:
    ours, missing_ours = started(CONTESTANTS[:1], options.interpreters, 1)
    peers, missing = started(CONTESTANTS[1:], options.interpreters, options.threads)
    for name, reason in (missing_ours | missing).items():
        print(f"{name}: {reason}", flush=True)
    results = []
    try:
        for case in (Case(False), Case(True)):
            result = contest(case, [*ours, *peers], rounds=rounds, budget_s=budget, rtol=1e-4, each=True)
            result.seconds = {name: [s / STEPS for s in times] if name == "keydnn" else times for name, times in result.seconds.items()}
            print(" ".join([f"{case!s:<28}", *step_cells(result)[1:]]), flush=True)
            for name, note in result.notes.items():
                print(f"  {name} {note}", flush=True)
            results.append(result)
    finally:
        for c in (*ours, *peers):
            c.close()
    return results, {name: v for c in peers for name, v in c.versions.items()}


def _judged(name: str, value: float, is_most: bool) -> str:
    goal = GOALS[name][0]
    return "met" if (value <= goal if is_most else value >= goal) else "missed"


def step_cells(result: Result) -> list[str]:
    """Name, our time with its verdict, TensorFlow's, the ratio with its verdict."""
    ours, ratio, least = result.median("keydnn"), result.ratio("keydnn", "tensorflow"), GOALS[result.case][1]
    compared = "-" if ratio != ratio else f"{ratio:.0f} ({least:.0f}: {'met' if ratio >= least else 'missed'})"
    own = f"{readable(ours)} ({readable(GOALS[result.case][0])}: {_judged(result.case, ours, True)})"
    return [result.case, own, readable(result.median("tensorflow")), compared]


def _figure(name: str, value: float, text: str, is_most: bool) -> dict[str, Any]:
    goal = GOALS[name][0]
    shown = readable(goal) if is_most else f"{goal / 1e9:g} G/s"
    return {"name": name, "value": value, "text": text, "verdict": f"{shown}: {_judged(name, value, is_most)}"}


def _quantisers(rounds: int) -> list[dict[str, Any]]:
    """Elements per second of float32, one thread, AP_RND and AP_SAT; both kernels must give the same bits first."""
    import keydnn
    from keydnn.domain.device import CPU
    from keydnn.kernels import reference
    from keydnn.kernels.dispatch import tables
    from keydnn.stability.dtypes import ap_fixed

    params = ap_fixed(16, 6, "AP_RND", "AP_SAT").kernel_params
    native: Any = tables[CPU]
    before = keydnn.get_threads()
    keydnn.set_threads(1)
    figures = []
    try:
        for name, kernel, n in [
            ("quantiser in cache", native.quantize_fixed, 1 << 15),
            ("quantiser from memory", native.quantize_fixed, 1 << 24),
            ("quantiser in NumPy", reference.quantize_fixed, 1 << 17),
        ]:
            x = np.random.default_rng(0).standard_normal(n, dtype=np.float32) * 20
            if not np.array_equal(kernel(x, **params).view(np.int32), reference.quantize_fixed(x, **params).view(np.int32)):
                raise AssertionError(f"{name}: the kernels disagree")
            speed = n / min(_seconds(lambda: kernel(x, **params), n) for _ in range(rounds))  # noqa: B023 - called at once
            figures.append(_figure(name, speed, f"{speed / 1e9:.2f} G/s", False))
    finally:
        keydnn.set_threads(before)
    return figures


def _seconds(call: Any, n: int) -> float:
    repeats = max(1, (1 << 24) // n)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def product_nets() -> dict[str, Any]:
    """Networks with data, by name: what the products are measured on."""
    import keydnn
    from keydnn import nn

    rng = np.random.default_rng(0)
    normal = rng.standard_normal

    def recurrent(layer: Any, steps: int, rows: int, inputs: int, size: int) -> Any:
        first = layer(inputs, size, return_sequences=False, return_state=False)
        return keydnn.Sequential(first, nn.Linear(size, 2)), normal((steps, rows, inputs)), normal((rows, 2))

    tanh = keydnn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    conv = keydnn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(512, 2))
    return {
        "one Dense": (keydnn.Sequential(nn.Linear(4, 2)), normal((1000, 4)), normal((1000, 2))),
        "tanh net": (tanh, normal((128, 4)), normal((128, 2))),
        "conv net": (conv, normal((16, 3, 12, 12)), normal((16, 2))),
        "RNN, 3 steps": recurrent(nn.RNN, 3, 4, 2, 3),
        "RNN, 32 steps": recurrent(nn.RNN, 32, 16, 8, 16),
        "LSTM, 3 steps": recurrent(nn.LSTM, 3, 4, 2, 3),
        "LSTM, 32 steps": recurrent(nn.LSTM, 32, 16, 8, 16),
        "GRU, 32 steps": recurrent(nn.GRU, 32, 16, 8, 16),
    }


def _products(rounds: int) -> list[dict[str, Any]]:
    """What a Hessian-vector product costs in gradients at the same point: CPU time, both by turns, the median of their ratios."""
    import keydnn
    from keydnn.stability.products import Hessian

    before = keydnn.get_threads()
    keydnn.set_threads(1)
    figures = []
    try:
        for name, (net, x, y) in product_nets().items():
            operator = Hessian(net, x, y)
            v = np.random.default_rng(1).standard_normal(operator.size)
            calls = (operator.gradient, lambda: operator(v))  # noqa: B023 - called at once
            for call in calls * 4:  # until both are plans
                call()
            repeats = max(1, round(0.004 / _cpu_seconds(operator.gradient, 8)))
            pairs = [[_cpu_seconds(call, repeats) for call in calls] for _ in range(8 * rounds)]
            ratio = float(np.median([product / gradient for gradient, product in pairs]))
            verdict = f"{PRODUCT_GOAL} gradients: {'met' if ratio <= PRODUCT_GOAL else 'missed'}"
            figures.append({"name": f"product, {name}", "value": ratio, "text": f"{ratio:.2f} gradients", "verdict": verdict})
    finally:
        keydnn.set_threads(before)
    return figures


def _cpu_seconds(call: Any, repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def sweep_of(out: Path, side: int) -> Any:
    """A quantised sweep: formats down, learning rates across; every cell has a thousand steps."""
    from keydnn.stability import PrecisionSweep

    base = {
        "dataset": {"num_samples": 1000, "seed": 1}, "model": {"num_hidden": [], "seed": 0},
        "train": {"epochs": STEPS, "batch_size": 1000, "controller": "gt-order-0"}, "precision": {"stack": {"WL": 8, "IWL": 3}},
    }  # fmt: skip
    points = [
        {"precision.stack.WL": 4 + i // 4, "precision.stack.IWL": 1 + i % 4, "train.learning_rate": round(0.1 + 0.05 * j, 3)}
        for i in range(side)
        for j in range(side)
    ]
    return PrecisionSweep(base, points, out=out)


def _sweep(options: Options) -> dict[str, Any]:
    side = 3 if options.quick else 41
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        rows = sweep_of(Path(folder) / "sweep.jsonl", side).run(workers=2)
        took = time.perf_counter() - start
    if len(rows) != side * side or any(row["steps"] < 1 for row in rows):
        raise AssertionError("the sweep did not run every cell")
    figure = _figure("sweep of 41x41 cells", took, readable(took), True)
    return figure if side == 41 else figure | {"name": f"sweep of {side}x{side} cells", "verdict": "not judged"}

"""``python -m benchmarks busy``: a training step of W1 beside one foreign busy process.

W1 is an MLP 784-256-128-10 with relu, batch 64, Adam 1e-3, cross-entropy of logits.  The step on two threads beside a
process that keeps a core busy must stay within twice the time of one thread on an idle machine.
"""

from __future__ import annotations

import multiprocessing
import statistics

import numpy as np

from benchmarks.measure import Call, readable, seconds_per_call


def w1_step() -> Call:
    """One eager training step of W1; returns the loss."""
    import keydnn

    keydnn.seed(0)
    model = keydnn.Sequential(keydnn.Linear(784, 256), keydnn.ReLU(), keydnn.Linear(256, 128), keydnn.ReLU(), keydnn.Linear(128, 10))
    optimizer = keydnn.Adam(model.parameters(), lr=1e-3)
    rng = np.random.default_rng(1)
    x = keydnn.tensor(rng.standard_normal((64, 784)).astype(np.float32))
    y = keydnn.Tensor((64,), dtype=np.int64, data=rng.integers(0, 10, 64))
    return lambda: model.train_on_batch(x, y, loss="cross_entropy", optimizer=optimizer)["loss"]


def _spin() -> None:
    while True:
        pass


def run(rounds: int = 7, budget_s: float = 0.4) -> dict[str, float]:
    """Times of one thread, two threads, and two threads beside a busy process, in turn; prints them with their ratios."""
    import keydnn

    step = w1_step()
    times: dict[str, list[float]] = {"one thread": [], "two threads": [], "two threads, busy machine": []}
    for _ in range(rounds):
        keydnn.set_threads(1)
        times["one thread"].append(seconds_per_call(step, budget_s))
        keydnn.set_threads(2)
        times["two threads"].append(seconds_per_call(step, budget_s))
        foreign = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
        foreign.start()
        try:
            times["two threads, busy machine"].append(seconds_per_call(step, budget_s))
        finally:
            foreign.kill()
            foreign.join()
    medians = {name: statistics.median(t) for name, t in times.items()}
    for name, seconds in medians.items():
        print(f"{name:<28}{readable(seconds):>10}{seconds / medians['one thread']:>8.2f}x one thread")
    return medians
